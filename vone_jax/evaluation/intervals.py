"""Confidence intervals of accuracies."""

import math

# The 97.5 % quantile of the normal distribution.
_QUANTILE = 1.959963984540054

METHOD = "Wilson 95 % over images"


def wilson(correct: float, seen: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of images.

    ``correct`` may be fractional, a sum of probabilities of being right. The variance of such a
    sum is at most that of as many yes-or-no answers with the same mean, so the interval is then
    wider than it need be.

    Args:
      correct: sum over images of the share of draws that were right, in [0, seen].
      seen: number of images, at least 1.

    Returns:
      (low, high), both in [0, 1].

    Raises:
      ValueError: if an argument is out of range.
    """
    if seen < 1 or not 0 <= correct <= seen:
        raise ValueError(f"correct must be in [0, seen] and seen >= 1, got {correct} and {seen}")
    share, weight = correct / seen, _QUANTILE**2 / seen
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))
