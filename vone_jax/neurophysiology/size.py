"""Properties measured with the size set: summation and surround suppression.

Reference: Cavanaugh, Bair, Movshon (2002), J. Neurophysiology 88:2530-2546. Formulas of the
MarquesEtAl2020 benchmarks.
"""

import numpy as np

from vone_jax.neurophysiology import tuning
from vone_jax.neurophysiology.stimuli import RADII

# Diameters are defined for units with more suppression than this.
_SUPPRESSED = 0.1
_SUMMATION = 0.95
_SURROUND = 0.05


def size_properties(rates: np.ndarray, blank: np.ndarray) -> dict[str, np.ndarray]:
    """Surround suppression and the diameters of centre and surround.

    Args:
      rates: spikes per second, (12 radii, spatial frequency, orientation, 8 phases, U).
      blank: (U,) rates at grey.

    Returns:
      Arrays (U,), NaN where undefined, under the names of ``properties.PROPERTIES``, and
      "size_curve" (12, U): the better of F0 - grey and F1 by ``stimuli.RADII`` at the best
      frequency and orientation.
    """
    either = np.stack([tuning.f0(rates) - blank, tuning.f1(rates)])
    curve = tuning.curve_along(either, 1, tuning.best_condition(either))
    index = suppression_index(curve)
    suppressed = index > _SUPPRESSED
    return {
        "surround_suppression_index": index,
        "grating_summation_field": np.where(suppressed, summation_diameter(curve), np.nan),
        "surround_diameter": np.where(suppressed, surround_diameter(curve), np.nan),
        "size_curve": curve,
    }


def suppression_index(curve: np.ndarray) -> np.ndarray:
    """(peak - p) / peak with p at the largest size: 0 for none, 1 for all. (12, U) -> (U,)."""
    peak = curve.max(axis=0).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(peak > 0, (peak - curve[-1]) / peak, np.nan)


def summation_diameter(curve: np.ndarray) -> np.ndarray:
    """Smallest diameter in degrees with 95 % of the peak: (12, U) -> (U,)."""
    return 2.0 * RADII[(curve >= _SUMMATION * curve.max(axis=0)).argmax(axis=0)]


def surround_diameter(curve: np.ndarray) -> np.ndarray:
    """Smallest diameter beyond the peak at which suppression is complete: (12, U) -> (U,).

    Complete means at most p + 0.05 |p|, with p the response at the largest size. NaN if the
    largest size is the best.
    """
    sizes = np.arange(len(curve))[:, None]
    beyond = sizes > curve.argmax(axis=0)
    floor = curve[-1] + _SURROUND * np.abs(curve[-1])
    complete = beyond & (curve <= floor)
    return np.where(complete.any(axis=0), 2.0 * RADII[complete.argmax(axis=0)], np.nan)
