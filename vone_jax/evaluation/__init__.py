"""Evaluation of classifiers, on arrays or over a data set with result files.

The imports below are the public names.
"""

# ruff: noqa: F401

from vone_jax.evaluation.conditions import Attacked, Clean, Condition, Corrupted, Minimal, WorstOf
from vone_jax.evaluation.figures import FrontEnd, Gallery, MeansOverCorruptions
from vone_jax.evaluation.job import Job
from vone_jax.evaluation.masking import Masking
from vone_jax.evaluation.physiology import Layer, Recording, recording
from vone_jax.evaluation.request import Request, ladder, vonenet_pgd
from vone_jax.evaluation.run import Figure, OtherEvaluationError, Task, evaluate
from vone_jax.evaluation.scoring import Accuracy, accuracy, examine, robust_accuracy
from vone_jax.evaluation.tasks import plan
from vone_jax.results import Check, Protocol, ResultError
