"""In-silico neurophysiology: records a layer as if it were macaque V1, and scores it.

Everything works on a ``response_fn(key, images) -> responses`` and knows no model.
"""

from vone_jax.neurophysiology.comparison import PropertyScore, ceiling, compare, group_scores
from vone_jax.neurophysiology.contrast import ContrastResponse, contrast_response
from vone_jax.neurophysiology.display import Display
from vone_jax.neurophysiology.properties import GROUPS, PROPERTIES, Property
from vone_jax.neurophysiology.recording import Site, record, record_blank
from vone_jax.neurophysiology.references import PUBLISHED, Reference
from vone_jax.neurophysiology.results import Scores
from vone_jax.neurophysiology.score import score
from vone_jax.neurophysiology.selection import find_units, receptive_field_centres
from vone_jax.neurophysiology.stimuli import GratingSet, grating_set
from vone_jax.neurophysiology.variability import TrialStatistics, trial_statistics

__all__ = [
    "GROUPS", "PROPERTIES", "PUBLISHED", "ContrastResponse", "Display", "GratingSet", "Property",
    "PropertyScore", "Reference", "Scores", "Site", "TrialStatistics", "ceiling", "compare",
    "contrast_response", "find_units", "grating_set", "group_scores", "receptive_field_centres",
    "record", "record_blank", "score", "trial_statistics",
]  # fmt: skip
