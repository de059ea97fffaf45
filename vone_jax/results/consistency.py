"""Error consistency: whether two observers are wrong about the same images.

An observer is a human or a network.

Reference: Geirhos, Meding, Wichmann, Beyond accuracy: quantifying trial-by-trial behaviour of CNNs
and humans by measuring error consistency, NeurIPS 2020, arXiv:2006.16736.
"""

import math

import numpy as np

from vone_jax.results.statistics import QUANTILE, Interval


def error_consistency(right: np.ndarray, other: np.ndarray) -> Interval:
    """Cohen's kappa of two observers' right and wrong decisions about the same images.

    It is (c - e) / (1 - e), where c is the share of images about which both are right or both are
    wrong, and e = p1 p2 + (1 - p1)(1 - p2) is this share for independent errors at the accuracies
    p1 and p2. It is 1 for the same errors and 0 for independent ones. The interval is over images,
    by the delta method.

    Args:
      right: decisions (N, R) of an observer, booleans, or the share of right ones for each image
        (N,). With several decisions, c is the expected share for one decision of each observer.
      other: those of the other observer, on the same images in the same order.

    Returns:
      The consistency; NaN if both observers are always right, or always wrong.

    Raises:
      ValueError: if there are no images, or their numbers differ.
    """
    if len(right) != len(other) or not len(right):
        raise ValueError(
            f"right and other must be of the same images, got {len(right)} and {len(other)} of them"
        )
    first, second = (
        np.asarray(each, np.float64).reshape(len(each), -1).mean(axis=1) for each in (right, other)
    )
    same = first * second + (1 - first) * (1 - second)
    p1, p2 = float(first.mean()), float(second.mean())
    agreed, chance = float(same.mean()), p1 * p2 + (1 - p1) * (1 - p2)
    if chance == 1:
        return Interval(math.nan, math.nan, math.nan)
    kappa = (agreed - chance) / (1 - chance)
    # How much each image moves kappa: through c, and through the accuracies in e.
    moved = (2 * p2 - 1) * first + (2 * p1 - 1) * second
    slopes = same / (1 - chance) - (1 - agreed) / (1 - chance) ** 2 * moved
    half = QUANTILE * float(slopes.std()) / math.sqrt(len(first))
    return Interval(kappa, max(-1.0, kappa - half), min(1.0, kappa + half))
