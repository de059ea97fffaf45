"""Common image corruptions (ImageNet-C) as pure, keyed functions on the device."""

# ruff: noqa: F401

from vone_jax.corruptions.catalogue import (
    CORRUPTIONS,
    FORMS,
    NAMES,
    SETS,
    Corruption,
    corrupt,
    prepare,
)
from vone_jax.corruptions.distortions import DISTORTIONS, band_centres, distort, mask
from vone_jax.corruptions.frost import FrostImages, load_frost
from vone_jax.corruptions.tables import CONTINUOUS, TABLES, table_for
from vone_jax.names import SEVERITIES
