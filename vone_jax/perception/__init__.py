"""What networks and humans see: metamers, geometry of layers, distortions, frequency channels.

The imports below are the public names.
"""

# ruff: noqa: F401

from vone_jax.perception import glue, humans, synthesis
from vone_jax.perception.critical_bands import CriticalBands
from vone_jax.perception.geometry import Geometry
from vone_jax.perception.metamers import Metamers
from vone_jax.perception.psychophysics import Psychophysics, in_categories
