"""Evaluation of classifiers, on arrays or over a data set with result files.

The imports below are the public names.
"""

# ruff: noqa: F401

from vone_jax.evaluation.certified import Certified, Sandwich
from vone_jax.evaluation.conditions import (
    Attacked,
    Clean,
    Condition,
    Corrupted,
    Judged,
    Numbers,
    accuracy_numbers,
    number,
)
from vone_jax.evaluation.critical_bands import CriticalBands
from vone_jax.evaluation.discriminable import Discriminable
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.evaluation.fourier_map import FourierMap
from vone_jax.evaluation.front_end import FrontEnd
from vone_jax.evaluation.geometry import Geometry
from vone_jax.evaluation.judging import Batch, Protocol
from vone_jax.evaluation.masking import Masking
from vone_jax.evaluation.masking_checks import Check
from vone_jax.evaluation.metamers import Metamers
from vone_jax.evaluation.minimal import Minimal
from vone_jax.evaluation.physiology import ExplainedVariance, Physiology
from vone_jax.evaluation.predict import predict
from vone_jax.evaluation.psychophysics import Psychophysics, in_categories
from vone_jax.evaluation.run import evaluate, measure
from vone_jax.evaluation.scoring import (
    Accuracy,
    Benchmark,
    accuracy,
    benchmark,
    examine,
    robust_accuracy,
)
from vone_jax.evaluation.suites import (
    SUITES,
    corrupted,
    ladder,
    radii,
    vonenet_pgd,
    white_box,
    worst_case,
)
