"""Results: the format of result files, reading and writing them, and statistics over them.

``load("runs/*").to_frame()`` gives all numbers of several networks as a pandas data frame. This
package imports neither JAX nor Flax. Its imports below are the public names.
"""

# ruff: noqa: F401

from vone_jax.results.conditions import (
    DECISIONS,
    Attack,
    AttackCondition,
    AttackNoise,
    CleanCondition,
    Condition,
    CorruptionCondition,
    CorruptionMeansCondition,
    FrontEndCondition,
    GalleryCondition,
    MaskingCondition,
    MinimalCondition,
    Noise,
    PhysiologyCondition,
    Protocol,
    TextureImages,
    noise_label,
)
from vone_jax.results.files import (
    FIELD_MAPS,
    TUNING_AXES,
    ResultError,
    read,
    read_arrays,
    read_json,
    write,
)
from vone_jax.results.format import (
    FORMAT,
    Dataset,
    Identity,
    Key,
    Network,
    Provenance,
    Result,
    differences,
    from_json,
    to_json,
)
from vone_jax.results.measured import (
    BLIND,
    SCORED,
    VERDICTS,
    WILSON,
    Accuracy,
    BetweenDraws,
    Check,
    Checks,
    ContrastResponse,
    CorruptionMeans,
    Distances,
    LayerScores,
    Measured,
    Physiology,
    PropertyScore,
    Rung,
    SurroundTuning,
    TextureMedians,
    Variability,
    Verdict,
)
from vone_jax.results.runs import COLUMNS, Run, Runs, load
from vone_jax.results.statistics import (
    Difference,
    at_shared_severities,
    common_corruptions,
    difference,
    mean_accuracy,
    wilson,
)
