"""In-silico neurophysiology: records a layer as if it were macaque V1, and scores it.

Everything works on a function ``response_fn(keys, images) -> responses`` with one typed key per
image, and depends on no model. ``per_example`` adapts a function of one key.
"""

# ruff: noqa: F401

from vone_jax.functions import per_example
from vone_jax.neurophysiology.comparison import PropertyScore, ceiling, compare, group_scores
from vone_jax.neurophysiology.experiments import (
    ContrastResponse,
    SurroundTuning,
    TrialStatistics,
    contrast_response,
    surround_tuning,
    trial_statistics,
)
from vone_jax.neurophysiology.properties import GROUPS, PROPERTIES, PUBLISHED, Property, Reference
from vone_jax.neurophysiology.recording import (
    NotScoredError,
    Site,
    layer_features,
    record,
    record_blank,
)
from vone_jax.neurophysiology.score import Curve, Scores, score
from vone_jax.neurophysiology.selection import find_units, receptive_field_centres
from vone_jax.neurophysiology.stimuli import Display, GratingSet, grating_set
