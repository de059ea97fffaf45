"""Confidence intervals of accuracies, of means over conditions, and of differences.

The intervals cover the choice of images: they show what another sample of images would change, not
what another training seed would.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from vone_jax.names import COMMON_CORRUPTIONS, PROCEDURAL_FROST
from vone_jax.results.format import Result

_Value = TypeVar("_Value")

# The 97.5 % quantile of the normal distribution: intervals cover 95 %.
QUANTILE = 1.959963984540054


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


def mean_accuracy(
    results: Sequence[Result], weights: np.ndarray | None = None
) -> tuple[float, float, float]:
    """The mean accuracy over conditions, with a 95 % interval over images.

    If several results share an image, their errors on it are added before they are squared. So the
    interval includes what makes an image hard in all conditions.

    Args:
      results: one result per condition, possibly on other images; not empty.
      weights: weights of the results, which sum to 1. Default: all equal.

    Returns:
      (mean, low, high). The ends are NaN where there is a single image, or a result has no values
      for single images.
    """
    if weights is None:
        weights = np.full(len(results), 1 / len(results))
    mean = float(np.array([result.accuracy for result in results]) @ weights)
    values = _by_image([r for r, weight in zip(results, weights, strict=True) if weight > 0])
    if len(values) < 2:
        return mean, math.nan, math.nan
    measured = ~np.isnan(values)
    # The weight of an image in the mean, and what it adds to the mean's error.
    shares = weights[weights > 0] / measured.sum(axis=0)
    errors = np.where(measured, values - np.nanmean(values, axis=0), 0.0) @ shares
    # The effective number of images: as many of equal weight (Kish, Survey Sampling, 1965).
    images = 1 / float(np.square(measured @ shares).sum())
    variance = images * float(np.square(errors).sum())
    return mean, *_interval(mean, images, variance, 0.0)


def difference(base: Sequence[Result], other: Sequence[Result]) -> Difference:
    """The accuracy of ``other`` minus that of ``base``, as a mean over conditions.

    On common images the interval is that of the mean of paired differences. It leaves out what
    makes an image hard for both networks. Otherwise, for one condition, it is combined from the
    intervals of the two accuracies (Newcombe, Statistics in Medicine 17, 1998, method 10).

    Args:
      base: results of one network, one per condition; not empty.
      other: results of another network for the same conditions.
    """
    values = _by_image([*base, *other])
    common = values[~np.isnan(values).any(axis=1)]
    if len(common) >= 2:
        changes = common[:, len(base) :].mean(axis=1) - common[:, : len(base)].mean(axis=1)
        value = float(changes.mean())
        ends = _interval(value, len(changes), float(changes.var()), -1.0)
        return Difference(value, *ends, len(changes), paired=True)
    images = min(result.images for result in (*base, *other))
    value = float(np.mean([r.accuracy for r in other]) - np.mean([r.accuracy for r in base]))
    if len(base) > 1:
        return Difference(value, -math.inf, math.inf, images, paired=False)
    (low_a, high_a), (low_b, high_b) = base[0].interval, other[0].interval
    below = math.hypot(other[0].accuracy - low_b, high_a - base[0].accuracy)
    above = math.hypot(high_b - other[0].accuracy, base[0].accuracy - low_a)
    return Difference(value, value - below, value + above, images, paired=False)


def _interval(mean: float, images: float, variance: float, least: float) -> tuple[float, float]:
    """The 95 % interval of a mean over images, whose values lie between ``least`` and 1.

    Near an end, or with few images, the variance of the values may be too small by chance. So
    invented images are added for the interval, half of them at each end: four for a share (Agresti
    and Coull, The American Statistician 52, 1998), two for a difference of paired shares (Bonett
    and Price, Journal of Educational and Behavioral Statistics 37, 2012).

    Args:
      mean: the mean of the values, which the interval contains.
      images: number of images, at least 1; fractional if they have different weights.
      variance: variance of the values over the images.
      least: 0 for a share, -1 for a difference.
    """
    added = np.repeat([least, 1.0], 2 if least == 0.0 else 1)
    number = images + len(added)
    centre = float(images * mean + added.sum()) / number
    squares = images * (variance + (mean - centre) ** 2) + np.square(added - centre).sum()
    half = QUANTILE * math.sqrt(squares) / number
    return max(least, min(centre - half, mean)), min(1.0, max(centre + half, mean))


def image_sets(results: Sequence[Result]) -> list[int]:
    """Return a number for each result. Results with one number have the same image at an index.

    A result on all images of a folder can agree with two results on parts of it that disagree with
    each other: one from before and one from after the folder changed. So a result joins others only
    if it agrees with each of them.
    """
    sets: list[list[Result]] = []
    numbers: dict[Any, int] = {}
    # Published sets of one size have one order, see ``Result.same_images``.
    keys = [
        (result.dataset.total, len(result.dataset.class_names))
        if result.published
        else result.dataset
        for result in results
    ]
    for key, result in zip(keys, results, strict=True):
        if key in numbers:
            continue
        agreeing = (i for i, members in enumerate(sets) if all(map(result.same_images, members)))
        numbers[key] = next(agreeing, len(sets))
        if numbers[key] == len(sets):
            sets.append([])
        sets[numbers[key]].append(result)
    return [numbers[key] for key in keys]


def _by_image(results: Sequence[Result]) -> np.ndarray:
    """Probabilities of being right, (images, results); NaN where a result lacks an image."""
    if not results or not all("index" in result.arrays for result in results):
        return np.zeros((0, len(results)))
    # Pairs of a set and a place in it.
    sets = image_sets(results)
    indices = [
        len(results) * result.arrays["index"] + number
        for result, number in zip(results, sets, strict=True)
    ]
    # Most results have the same images. Sorting those of each one would take most of the time.
    contents = [index.tobytes() for index in indices]
    distinct = dict(zip(contents, indices, strict=True))
    first, *others = distinct.values()
    images = functools.reduce(np.union1d, others, np.sort(first))
    rows = {content: np.searchsorted(images, index) for content, index in distinct.items()}
    values = np.full((len(images), len(results)), np.nan)
    for column, (result, content) in enumerate(zip(results, contents, strict=True)):
        values[rows[content], column] = result.arrays["probability_correct"]
    return values


def common_corruptions(measured: Mapping[tuple[str, int], _Value]) -> dict[tuple[str, int], _Value]:
    """Return the common corruptions among (corruption, severity) -> value, at shared severities.

    They are sorted. A drawn texture stands in for frost at severities without photographs of frost.
    """
    drawn = {("frost", s): value for (n, s), value in measured.items() if n == PROCEDURAL_FROST}
    both = sorted((drawn | dict(measured)).items(), key=lambda item: item[0])
    return at_shared_severities({key: v for key, v in both if key[0] in COMMON_CORRUPTIONS})


def at_shared_severities(
    measured: Mapping[tuple[str, int], _Value],
) -> dict[tuple[str, int], _Value]:
    """Return the values at the severities that all corruptions have, or all if there are none.

    A corruption that was measured at more severities then has no larger weight in a mean.
    """
    severities: dict[str, set[int]] = {}
    for name, severity in measured:
        severities.setdefault(name, set()).add(severity)
    shared = set.intersection(*severities.values()) if severities else set()
    return {key: v for key, v in measured.items() if key[1] in shared} or dict(measured)
