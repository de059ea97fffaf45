"""Results: reading and writing them, their data frame, and statistics over them.

``load("runs/*").to_frame()`` gives all numbers of several networks as a pandas data frame. This
package imports neither JAX nor Flax. Its imports below are the public names.
"""

# ruff: noqa: F401

from vone_jax.results import mce
from vone_jax.results.consistency import error_consistency
from vone_jax.results.means import means
from vone_jax.results.result import (
    Result,
    ResultError,
    code,
    differences,
    is_complete,
    read,
    write,
)
from vone_jax.results.row import Row, condition_key, label, same_condition, stem
from vone_jax.results.runs import Run, Runs, load
from vone_jax.results.statistics import (
    CONFIDENCE,
    Interval,
    accuracy,
    confident_mistakes,
    difference,
    mean,
    paired_difference,
)
from vone_jax.results.view import Chart, Lines, Pictures, View
