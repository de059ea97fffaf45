"""Results: reading and writing them, their data frame, and statistics over them.

``load("runs/*").to_frame()`` gives all numbers of several networks as a pandas data frame. This
package imports neither JAX nor Flax. Its imports below are the public names.
"""

# ruff: noqa: F401

from vone_jax.results import humans, mce
from vone_jax.results.consistency import (
    consistencies,
    decisions,
    error_consistency,
    read_trials,
)
from vone_jax.results.means import means
from vone_jax.results.result import (
    Result,
    ResultError,
    differences,
    is_complete,
    read,
    write,
)
from vone_jax.results.row import COLUMNS, Row, condition_key, label, same_condition, stem
from vone_jax.results.runs import Run, Runs, load
from vone_jax.results.statistics import (
    Interval,
    accuracy,
    confident_mistakes,
    difference,
    paired_difference,
)
