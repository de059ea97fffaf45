"""Common image corruptions (ImageNet-C) as pure, keyed functions on the device."""

from vone_jax.corruptions.catalogue import NAMES, SEVERITIES, check_name, check_severity, corrupt
from vone_jax.corruptions.tables import TABLES, table_for

__all__ = [
    "NAMES", "SEVERITIES", "TABLES", "check_name", "check_severity", "corrupt", "table_for",
]  # fmt: skip
