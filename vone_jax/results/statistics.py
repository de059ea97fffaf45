"""95 % intervals of accuracies and other means, and of differences; mistakes.

The intervals cover the choice of images: they show what another sample of images would change, not
what another training seed would. There is one rule for each number, see ``accuracy``.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import stdtrit

from vone_jax.results.result import Result

# The 97.5 % quantile of the normal distribution: intervals cover 95 %.
QUANTILE = 1.959963984540054
# The column of the confidence in the array ``scores``, see ``vone_jax.diagnostics``.
CONFIDENCE = 2
# The largest number of mistakes that a result keeps and the page shows.
_MISTAKES = 10


@dataclasses.dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval from ``low`` to ``high``."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Interval":
        """The number of a row; NaN for what is not defined."""
        return cls(*(float(row.get(name, math.nan)) for name in ("value", "low", "high")))

    @property
    def sign(self) -> int:
        """1 or -1 if the interval excludes zero; else 0: it cannot be told from zero."""
        return (self.low > 0) - (self.high < 0)


def accuracy(right: np.ndarray) -> Interval:
    """The accuracy of decisions, with its interval over images.

    The noise of a network makes some decisions about an image right and others wrong. What varies
    from image to image is the share of right ones, so the interval is that of the mean of these
    shares. If each share is 0 or 1, this is a share of images, and the interval is Wilson's.

    Args:
      right: decisions (N, R), booleans, or the share of right ones for each image (N,).
    """
    shares = by_example(right)
    if not len(shares):
        raise ValueError("right must have at least one image, got none")
    if np.all((shares == 0) | (shares == 1)):
        return wilson(float(shares.sum()), len(shares))
    return _of_mean(shares, 0.0)


def mean(values: np.ndarray, share: bool) -> Interval:
    """The mean of a number's values by example, with its 95 % interval over examples.

    Args:
      values: (N,), or decisions (N, R), of which each example has a share.
      share: whether the values lie between 0 and 1. Their interval is that of ``accuracy``. That of
        other values is Student's; a value that is not finite leaves the number not defined.
    """
    if share:
        return accuracy(values)
    each = by_example(values)
    if not len(each) or not np.isfinite(each).all():
        return Interval(math.nan, math.nan, math.nan)
    centre = float(each.mean())
    if len(each) < 2:
        return Interval(centre, math.nan, math.nan)
    half = float(stdtrit(len(each) - 1, 0.975)) * float(each.std(ddof=1)) / math.sqrt(len(each))
    return Interval(centre, centre - half, centre + half)


def confident_mistakes(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The rows of the ten most confident mistakes on judged images, the most confident first.

    Args:
      arrays: those of a result, with ``label``, ``predicted`` and ``scores``. The confidence is
        that of the probabilities averaged over most draws.
    """
    wrong = np.flatnonzero(arrays["predicted"] != arrays["label"])
    confidence = arrays["scores"][wrong, -1, CONFIDENCE]
    return wrong[np.argsort(-confidence, kind="stable")][:_MISTAKES]


def wilson(correct: float, seen: int) -> Interval:
    """Wilson's interval of the share ``correct / seen`` of images that are right or wrong."""
    share, weight = correct / seen, QUANTILE**2 / seen
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    return Interval(share, max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)))


def paired_difference(values: np.ndarray, other: np.ndarray, share: bool = True) -> Interval:
    """The mean of ``values`` minus that of ``other``, on the same examples in the same order.

    It leaves out what makes an example hard in both. The arguments are as for ``mean``; the
    numbers of decisions may differ.

    Raises:
      ValueError: if the numbers of examples differ.
    """
    if len(values) != len(other):
        raise ValueError(
            f"values and other must be of the same examples, got {len(values)} and {len(other)}"
        )
    difference = by_example(values) - by_example(other)
    return _of_mean(difference, -1.0) if share else mean(difference, share=False)


def difference(result: Result, base: Result, number: str = "accuracy") -> Interval:
    """A number of a result minus that of another network in the same condition.

    With values on the same examples the difference is paired, see ``paired_difference``. Otherwise
    it is combined from the two intervals, see ``independent_difference``.
    """
    ours, theirs = ({**(each.find(number) or {})} for each in (result, base))
    here, there = result.values(ours), base.values(theirs)
    if here is not None and there is not None and same_examples(result, base):
        return paired_difference(here, there, ours.get("unit") == "share")
    return independent_difference(Interval.of(ours), Interval.of(theirs))


def independent_difference(ours: Interval, theirs: Interval) -> Interval:
    """The difference of two accuracies on different images, from their intervals.

    Reference: Newcombe, Statistics in Medicine 17, 1998, method 10.
    """
    value = ours.value - theirs.value
    below = math.hypot(ours.value - ours.low, theirs.high - theirs.value)
    above = math.hypot(ours.high - ours.value, theirs.value - theirs.low)
    return Interval(value, value - below, value + above)


def same_examples(one: Result, other: Result) -> bool:
    """True if two results are on the same examples in the same order."""
    if _images(one) != _images(other) or one.index is None or other.index is None:
        return False
    return np.array_equal(one.index, other.index)


def comparable(one: Result, other: Result) -> bool:
    """True if two results are on images of one set: the same, or some of which are the same."""
    if _images(one) == _images(other):
        return True
    shared = [
        set(zip(arrays["index"].tolist(), arrays["checksum"].tolist(), strict=True))
        for arrays in (one.arrays, other.arrays)
        if {"index", "checksum"} <= arrays.keys()
    ]
    return len(shared) == 2 and not shared[0].isdisjoint(shared[1])


def _images(result: Result) -> str | None:
    """The fingerprint of the images of a result. Their positions are among the arrays."""
    return result.identity["dataset"].get("fingerprint")


def by_example(right: np.ndarray) -> np.ndarray:
    """The value of each example, (N,) float64: that of several decisions is their mean."""
    shares = np.asarray(right, np.float64)
    return shares if shares.ndim == 1 else shares.mean(axis=1)


def _of_mean(values: np.ndarray, least: float) -> Interval:
    """The interval of a mean over images, whose values lie between ``least`` and 1.

    Near an end, or with few images, the variance of the values may be too small by chance. So
    invented images are added for the interval, half of them at each end: four for a share (Agresti
    and Coull, The American Statistician 52, 1998), two for a difference of paired shares (Bonett
    and Price, Journal of Educational and Behavioral Statistics 37, 2012).
    """
    mean = float(values.mean())
    added = [least, 1.0] if least else [0.0, 0.0, 1.0, 1.0]
    padded = np.concatenate([values, added])
    centre = float(padded.mean())
    half = QUANTILE * float(padded.std()) / math.sqrt(len(padded))
    return Interval(mean, max(least, min(centre - half, mean)), min(1.0, max(centre + half, mean)))
