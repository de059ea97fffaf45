"""Confidence intervals of accuracies, of means over conditions, and of differences.

Images are what varies: the intervals say what another sample of images would change, not another
training seed.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from vone_jax.results.format import Result

# The 97.5 % quantile of the normal distribution: intervals cover 95 %.
QUANTILE = 1.959963984540054
WILSON = "Wilson 95 % over images"

RESAMPLES = 1000
SEED = 0
BOOTSTRAP = f"bootstrap 95 % over images, {RESAMPLES} resamples, seed {SEED}"
# Resamples at a time. It changes memory alone.
_AT_ONCE = 50


def wilson(correct: float, seen: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of images.

    ``correct`` may be fractional, a sum of probabilities of being right. The variance of such a
    sum is at most that of as many yes-or-no answers with the same mean, so the interval is then
    wider than necessary.

    Args:
      correct: sum over images of the share of draws that were right, in [0, seen].
      seen: number of images, at least 1.

    Raises:
      ValueError: if an argument is out of range.
    """
    if seen < 1 or not 0 <= correct <= seen:
        raise ValueError(f"correct must be in [0, seen] and seen >= 1, got {correct} and {seen}")
    share, weight = correct / seen, QUANTILE**2 / seen
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


@dataclasses.dataclass(frozen=True)
class Difference:
    """The accuracy of a network minus that of another, with a 95 % interval.

    Attributes:
      value: the difference, in [-1, 1].
      low, high: the interval; minus and plus infinity if none can be given.
      paired: whether the same images were compared one by one.
    """

    value: float
    low: float
    high: float
    images: int
    paired: bool

    @property
    def sign(self) -> int:
        """1 or -1 if the interval excludes zero, else 0: the two cannot be told apart."""
        return (self.low > 0) - (self.high < 0)


def mean_accuracy(results: Sequence[Result]) -> tuple[float, float, float]:
    """The mean accuracy over conditions on the same images, with a 95 % interval over images.

    Returns:
      (mean, low, high). The ends are NaN where the conditions share fewer than two images.
    """
    mean = float(np.mean([result.accuracy for result in results]))
    index = _common_images(results)
    if len(index) < 2:
        return mean, math.nan, math.nan
    values = _per_image(results, index)
    half = QUANTILE * values.std(ddof=1) / math.sqrt(len(index))
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def difference(base: Sequence[Result], other: Sequence[Result]) -> Difference:
    """The accuracy of ``other`` minus that of ``base``, as a mean over conditions.

    On common images the interval is that of the mean of paired differences, which leaves out
    what makes an image hard for both. Otherwise, for one condition, it is combined from the
    intervals of the two accuracies (Newcombe, Statistics in Medicine 17, 1998, method 10).

    Args:
      base: results of one network, one per condition; not empty.
      other: results of another network for the same conditions.
    """
    index = _common_images([*base, *other])
    if len(index) >= 2:
        values = _per_image(other, index) - _per_image(base, index)
        value = float(values.mean())
        half = QUANTILE * float(values.std(ddof=1)) / math.sqrt(len(index))
        return Difference(value, value - half, value + half, len(index), paired=True)
    images = min(result.images for result in (*base, *other))
    value = float(np.mean([r.accuracy for r in other]) - np.mean([r.accuracy for r in base]))
    if len(base) > 1:
        return Difference(value, -math.inf, math.inf, images, paired=False)
    (low_a, high_a), (low_b, high_b) = base[0].interval, other[0].interval
    below = math.hypot(other[0].accuracy - low_b, high_a - base[0].accuracy)
    above = math.hypot(high_b - other[0].accuracy, base[0].accuracy - low_a)
    return Difference(value, value - below, value + above, images, paired=False)


def bootstrap_accuracies(
    results: Sequence[Result], resamples: int = RESAMPLES, seed: int = SEED
) -> np.ndarray | None:
    """The accuracy of each result on images that are drawn anew, with replacement.

    An image that is drawn counts in all results that it is part of, so that what makes it hard for
    all of them is kept. Images are drawn among those that were measured in the same results: a
    result on few images of many keeps their number.

    Returns:
      float64 (resamples, len(results)), or None if a result has no values for single images.
    """
    if not results or not all("index" in result.arrays for result in results):
        return None
    # Pairs of a set and a place in it: all sets of published files have the same order.
    indices = [2 * result.arrays["index"] + result.published for result in results]
    images = np.unique(np.concatenate(indices))
    values = np.zeros((len(images), len(results)))
    measured = np.zeros(values.shape, bool)
    for column, (result, index) in enumerate(zip(results, indices, strict=True)):
        rows = np.searchsorted(images, index)
        values[rows, column] = result.arrays["probability_correct"]
        measured[rows, column] = True
    patterns, which = np.unique(measured, axis=0, return_inverse=True)
    rng = np.random.default_rng(seed)
    total = np.zeros((resamples, len(results)))
    for pattern in range(len(patterns)):
        members = values[which.reshape(-1) == pattern]
        share = np.full(len(members), 1 / len(members))
        for start in range(0, resamples, _AT_ONCE):
            part = total[start : start + _AT_ONCE]
            part += rng.multinomial(len(members), share, size=len(part)).astype(float) @ members
    return total / measured.sum(axis=0)


def middle(values: np.ndarray) -> tuple[float, float]:
    """The ends of the middle 95 % of resampled values."""
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _per_image(results: Sequence[Result], index: np.ndarray) -> np.ndarray:
    """Mean over conditions of the probability of a correct answer, for each image of ``index``."""
    total = np.zeros(len(index))
    for result in results:
        order = np.argsort(result.arrays["index"], kind="stable")
        place = np.searchsorted(result.arrays["index"], index, sorter=order)
        total += result.arrays["probability_correct"][order[place]]
    return total / len(results)


def _common_images(results: Sequence[Result]) -> np.ndarray:
    if not all("index" in result.arrays for result in results):
        return np.zeros(0, np.int64)
    common = results[0].arrays["index"]
    for result in results[1:]:
        common = np.intersect1d(common, result.arrays["index"])
    return np.unique(common)
