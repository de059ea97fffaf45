"""Evaluation of classifiers, on arrays or over a dataset with result files."""

from vone_jax.evaluation import physiology, suites, tables
from vone_jax.evaluation.authors import ladder, vonenet_pgd
from vone_jax.evaluation.conditions import Attacked, Clean, Condition, Corrupted, WorstOf
from vone_jax.evaluation.exhibits import front_end, gallery
from vone_jax.evaluation.masking import Masking, examine
from vone_jax.evaluation.masking_checks import Check
from vone_jax.evaluation.minimal import Minimal
from vone_jax.evaluation.protocol import Protocol
from vone_jax.evaluation.runner import Job, evaluate
from vone_jax.evaluation.scoring import Accuracy, accuracy, robust_accuracy
from vone_jax.evaluation.store import ResultError
from vone_jax.evaluation.subject import Examples, Subject
from vone_jax.evaluation.suites import Settings

__all__ = [
    "Accuracy",
    "Attacked",
    "Check",
    "Clean",
    "Condition",
    "Corrupted",
    "Examples",
    "Job",
    "Masking",
    "Minimal",
    "Protocol",
    "ResultError",
    "Settings",
    "Subject",
    "WorstOf",
    "accuracy",
    "evaluate",
    "examine",
    "front_end",
    "gallery",
    "ladder",
    "physiology",
    "robust_accuracy",
    "suites",
    "tables",
    "vonenet_pgd",
]
