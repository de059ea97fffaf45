"""Evaluation of classifiers, on arrays or over a dataset with result files."""

from vone_jax.evaluation import suites, tables
from vone_jax.evaluation.authors import ladder, vonenet_pgd
from vone_jax.evaluation.conditions import Attacked, Clean, Corrupted
from vone_jax.evaluation.exhibits import front_end, gallery
from vone_jax.evaluation.protocol import Protocol
from vone_jax.evaluation.runner import Job, evaluate
from vone_jax.evaluation.scoring import Accuracy, accuracy, robust_accuracy
from vone_jax.evaluation.store import ResultError
from vone_jax.evaluation.subject import Examples, Subject
from vone_jax.evaluation.suites import Settings

__all__ = [
    "Accuracy",
    "Attacked",
    "Clean",
    "Corrupted",
    "Examples",
    "Job",
    "Protocol",
    "ResultError",
    "Settings",
    "Subject",
    "accuracy",
    "evaluate",
    "front_end",
    "gallery",
    "ladder",
    "robust_accuracy",
    "suites",
    "tables",
    "vonenet_pgd",
]
