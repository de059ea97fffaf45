"""Properties measured with the orientation set.

References: De Valois, Yund, Hepler (1982), Vision Research 22:531-544; Ringach, Shapley, Hawken
(2002), J. Neuroscience 22:5639-5651. Formulas of the MarquesEtAl2020 benchmarks.
"""

import numpy as np

from vone_jax.neurophysiology import tuning
from vone_jax.neurophysiology.stimuli import ORIENTATIONS

_PREFERENCE_NEIGHBOUR = 0.2
_BANDWIDTH_NEIGHBOUR = 0.4
# A curve is repeated on both sides, and its spline evaluated at these degrees.
_DEGREES = np.arange(-180, 360)


def orientation_properties(rates: np.ndarray, blank: np.ndarray) -> dict[str, np.ndarray]:
    """Orientation tuning, modulation and response magnitude.

    Args:
      rates: spikes per second, (cycles, spatial frequency, 12 orientations, 8 phases, U).
      blank: (U,) rates at grey.

    Returns:
      Arrays (U,), NaN where undefined, under the names of ``properties.PROPERTIES``, and
      "orientation_curve" (12, U): F0 by ``stimuli.ORIENTATIONS`` at the best frequency and size;
      "baseline" and "min_dc", rates at grey and at the worst orientation.
    """
    f0 = tuning.f0(rates)
    best = tuning.best_condition(f0)
    curve = tuning.curve_along(f0, 2, best)
    f1 = tuning.curve_along(tuning.f1(rates), 2, best)
    units = np.arange(curve.shape[-1])
    max_dc = curve.max(axis=0)
    variance = circular_variance(curve)
    width = half_bandwidth(curve)
    orthogonal = orthogonal_ratio(curve)
    with np.errstate(divide="ignore", invalid="ignore"):
        modulation = f1[best[2], units] / max_dc
        per_width = variance / width
    return {
        "pref_or": preferred_orientation(curve),
        "circular_variance": variance,
        "or_bandwidth": width,
        "orth_pref_ratio": orthogonal,
        "or_selective": np.isfinite(width).astype(np.float64),
        "cv_bandwidth_ratio": per_width,
        "opr_cv_diff": orthogonal - variance,
        "modulation_ratio": _undefined_at_zero(modulation),
        "max_dc": max_dc.astype(np.float64),
        "orientation_curve": curve,
        "baseline": blank.astype(np.float64),
        "min_dc": curve.min(axis=0).astype(np.float64),
    }


def preferred_orientation(curve: np.ndarray) -> np.ndarray:
    """Orientation of the peak, in degrees from -22.5 to 157.5: (12, U) -> (U,)."""
    fine = _fine_curve(curve, _PREFERENCE_NEIGHBOUR)
    peak = _peak(fine) + _DEGREES[0]
    return np.where(peak >= 157.5, peak - 180.0, peak).astype(np.float64)


def circular_variance(curve: np.ndarray) -> np.ndarray:
    """1 - |sum r exp(2i o)| / sum |r|: 0 for one orientation only, 1 for none. (12, U) -> (U,)."""
    wave = np.exp(2j * np.deg2rad(ORIENTATIONS))[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        resultant = np.abs((curve * wave).sum(axis=0)) / np.abs(curve).sum(axis=0)
    return 1.0 - _undefined_at_zero(resultant)


def half_bandwidth(curve: np.ndarray) -> np.ndarray:
    """Half the width, in degrees, at .707 of the peak; NaN if wider than 180. (12, U) -> (U,)."""
    fine = _fine_curve(curve, _BANDWIDTH_NEIGHBOUR)
    below, above = tuning.crossings(fine, _peak(fine))
    width = above - below
    return np.where(width > 180.0, np.nan, width) / 2.0


def orthogonal_ratio(curve: np.ndarray) -> np.ndarray:
    """Response at 90 degrees from the peak, relative to the peak: (12, U) -> (U,)."""
    units = np.arange(curve.shape[-1])
    peak = curve.argmax(axis=0)
    orthogonal = curve[(peak + len(ORIENTATIONS) // 2) % len(ORIENTATIONS), units]
    with np.errstate(divide="ignore", invalid="ignore"):
        return _undefined_at_zero(orthogonal.astype(np.float64) / curve[peak, units])


def _fine_curve(curve: np.ndarray, neighbour: float) -> np.ndarray:
    smoothed = tuning.smooth(curve, neighbour, circular=True)
    tiled = np.concatenate([smoothed] * 3)
    degrees = np.concatenate([ORIENTATIONS + shift for shift in (-180.0, 0.0, 180.0)])
    return tuning.spline(degrees, tiled, _DEGREES)


def _peak(fine: np.ndarray) -> np.ndarray:
    """Index of the peak among the degrees from 0 to 179."""
    first = -int(_DEGREES[0])
    return first + fine[first : first + 180].argmax(axis=0)


def _undefined_at_zero(ratio: np.ndarray) -> np.ndarray:
    """Ratios whose denominator is 0 are undefined."""
    return np.where(np.isfinite(ratio), ratio, np.nan)
