"""Evaluation of classifiers, on arrays or over a data set with result files.

The imports below are the public names.
"""

# ruff: noqa: F401

from vone_jax.evaluation.certified import Certified
from vone_jax.evaluation.conditions import (
    Attacked,
    Clean,
    Condition,
    Corrupted,
    Judged,
    Minimal,
    Summary,
    accuracy_numbers,
)
from vone_jax.evaluation.critical_bands import CriticalBands
from vone_jax.evaluation.fourier_map import FourierMap
from vone_jax.evaluation.front_end import FrontEnd
from vone_jax.evaluation.geometry import Geometry
from vone_jax.evaluation.job import Job
from vone_jax.evaluation.judging import Protocol, Trial
from vone_jax.evaluation.masking import Masking
from vone_jax.evaluation.masking_checks import Check
from vone_jax.evaluation.metamers import Metamers
from vone_jax.evaluation.physiology import ExplainedVariance, Physiology
from vone_jax.evaluation.plan import Options, plan
from vone_jax.evaluation.psychophysics import Psychophysics, in_categories
from vone_jax.evaluation.run import evaluate, expected_seconds
from vone_jax.evaluation.scoring import Accuracy, accuracy, examine, robust_accuracy
from vone_jax.evaluation.suites import SUITES, Setting, corrupted, ladder, vonenet_pgd, white_box
