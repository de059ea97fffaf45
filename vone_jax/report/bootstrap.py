"""Confidence intervals of means over conditions, by drawing the images anew."""

from collections.abc import Sequence

import numpy as np

from vone_jax.report.results import Result

RESAMPLES = 1000
SEED = 0
METHOD = f"bootstrap 95 % over images, {RESAMPLES} resamples, seed {SEED}"
# Resamples at a time; it changes memory alone.
_AT_ONCE = 50


def accuracies(
    results: Sequence[Result], resamples: int = RESAMPLES, seed: int = SEED
) -> np.ndarray | None:
    """The accuracy of each result on images drawn anew, with replacement.

    An image that is drawn counts in all results that it is part of, so that what makes it hard for
    all of them is kept. Images are drawn among those that were measured in the same results: a
    result on few images of many keeps their number.

    Args:
      results: measured conditions of one network.
      resamples: how often the images are drawn.
      seed: of the draws.

    Returns:
      float64 (resamples, len(results)), or None if a result has no values for single images.
    """
    if not results or not all("index" in result.arrays for result in results):
        return None
    # Pairs of a set and a place in it: all sets of published files have the same order.
    indices = [2 * result.arrays["index"] + result.published for result in results]
    images = np.unique(np.concatenate(indices))
    values = np.zeros((len(images), len(results)))
    there = np.zeros(values.shape, bool)
    for column, (result, index) in enumerate(zip(results, indices, strict=True)):
        rows = np.searchsorted(images, index)
        values[rows, column] = result.arrays["probability_correct"]
        there[rows, column] = True
    patterns, which = np.unique(there, axis=0, return_inverse=True)
    rng = np.random.default_rng(seed)
    total = np.zeros((resamples, len(results)))
    for pattern in range(len(patterns)):
        found = values[which.reshape(-1) == pattern]
        share = np.full(len(found), 1 / len(found))
        for start in range(0, resamples, _AT_ONCE):
            part = total[start : start + _AT_ONCE]
            part += rng.multinomial(len(found), share, size=len(part)).astype(float) @ found
    return total / there.sum(axis=0)


def interval(values: np.ndarray) -> tuple[float, float]:
    """The ends of the middle 95 % of resampled values."""
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
