"""Evaluation of classifiers, on arrays or over a data set with result files.

The imports below are the public names.
"""

# ruff: noqa: F401

from vone_jax.evaluation.attacked import (
    Attacked,
    ladder,
    radii,
    vonenet_pgd,
    white_box,
    worst_case,
)
from vone_jax.evaluation.clean import Clean
from vone_jax.evaluation.condition import (
    Condition,
    Judged,
    Number,
    Numbers,
    accuracy_numbers,
    number,
)
from vone_jax.evaluation.corrupted import Corrupted, corrupted
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.evaluation.fourier_map import FourierMap
from vone_jax.evaluation.judging import Batch, Protocol
from vone_jax.evaluation.masking import Masking
from vone_jax.evaluation.masking_checks import Check
from vone_jax.evaluation.minimal import Minimal
from vone_jax.evaluation.predict import predict
from vone_jax.evaluation.run import evaluate, measure
from vone_jax.evaluation.scoring import (
    Accuracy,
    Benchmark,
    accuracy,
    benchmark,
    on_arrays,
    robust_accuracy,
)
