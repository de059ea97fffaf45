"""Tuning to orientation, spatial frequency and size, by the formulas of MarquesEtAl2020.

Rates, and those at grey (``blank``), are in spikes per second. Every function works on all units at
once. A property is NaN for a unit for which it is not defined.

References: De Valois, Yund, Hepler (1982), Vision Research 22:531-544; De Valois, Albrecht,
Thorell (1982), Vision Research 22:545-559; Schiller, Finlay, Volman (1976), J. Neurophysiology
39:1334-1351; Ringach, Shapley, Hawken (2002), J. Neuroscience 22:5639-5651; Cavanaugh, Bair,
Movshon (2002), J. Neurophysiology 88:2530-2546.
"""

import numpy as np
import scipy
from jaxtyping import Float, Int

from vone_jax.neurophysiology.recording import PerUnit
from vone_jax.neurophysiology.stimuli import ORIENTATIONS, RADII, SPATIAL_FREQUENCIES

Responses = Float[np.ndarray, "*conditions phases units"]
PerCondition = Float[np.ndarray, "*conditions units"]
Condition = tuple[Int[np.ndarray, " units"], ...]
Curve = Float[np.ndarray, "levels units"]
OrientationCurve = Float[np.ndarray, "12 units"]
SizeCurve = Float[np.ndarray, "12 units"]
FrequencyCurve = Float[np.ndarray, "22 units"]

# Bandwidths are measured at this fraction of the peak: 1 / sqrt(2).
HEIGHT = 0.707

# Weight of each neighbour when a curve is smoothed.
_PREFERENCE_NEIGHBOUR = 0.2
_BANDWIDTH_NEIGHBOUR = 0.4
_FREQUENCY_NEIGHBOUR = 0.2
# An orientation curve is repeated on both sides, and its spline is evaluated at these degrees.
_DEGREES = np.arange(-180, 360)
_OCTAVES = np.log2(SPATIAL_FREQUENCIES)
_FINE_OCTAVES = np.linspace(_OCTAVES[0], _OCTAVES[-1], 100)
# Diameters are defined for units with a larger suppression index than this.
_SUPPRESSED = 0.1
_SUMMATION = 0.95
_SURROUND = 0.05


def f0(responses: Responses) -> PerCondition:
    """Return the mean over the phases."""
    return responses.mean(axis=-2)


def f1(responses: Responses) -> PerCondition:
    """Return the amplitude at the drift frequency, 2 |DFT coefficient 1| / phases."""
    phases = responses.shape[-2]
    angle = 2.0 * np.pi * np.arange(phases) / phases
    wave = np.exp(-1j * angle)[:, None]
    return 2.0 / phases * np.abs((responses * wave).sum(axis=-2))


def f0_and_f1(responses: Responses, blank: PerUnit) -> np.ndarray:
    """Return F0 above grey and F1, stacked along a new first axis."""
    return np.stack([f0(responses) - blank, f1(responses)])


def best_condition(responses: PerCondition) -> Condition:
    """Return the indices of each unit's largest (and first) response, one array per factor."""
    flat = responses.reshape(-1, responses.shape[-1])
    return np.unravel_index(flat.argmax(axis=0), responses.shape[:-1])


def curve_along(responses: PerCondition, axis: int, best: Condition) -> Curve:
    """Return each unit's curve along the factor ``axis``, through its best condition."""
    units = np.arange(responses.shape[-1])
    levels = np.arange(responses.shape[axis])[:, None]
    index = tuple(levels if n == axis else b[None, :] for n, b in enumerate(best))
    return responses[(*index, units[None, :])]


def smooth(curve: Curve, neighbour: float, circular: bool) -> Curve:
    """Smooth a curve with the weight 1 for a point and ``neighbour`` for each neighbour.

    The weights are divided by their sum. If ``circular``, the first point follows the last one;
    otherwise the ends are repeated.
    """
    padded = np.pad(curve, ((1, 1), (0, 0)), mode="wrap" if circular else "edge")
    return (curve + neighbour * (padded[:-2] + padded[2:])) / (1.0 + 2.0 * neighbour)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient; NaN where it is not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = numerator / denominator
    return np.where(np.isfinite(quotient), quotient, np.nan)


def _crossings(curve: np.ndarray, peak: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest indices below and above the peak where a curve falls to ``HEIGHT``.

    The indices are float64, and NaN where the curve does not fall that far, or is nowhere above 0.
    """
    samples = np.arange(len(curve))[:, None]
    top = np.take_along_axis(curve, peak[None, :], axis=0)
    low = (curve <= HEIGHT * top) & (top > 0)
    before = np.where(low & (samples < peak), samples, -1).max(axis=0)
    after = np.where(low & (samples > peak), samples, len(curve)).min(axis=0)
    return np.where(before < 0, np.nan, before), np.where(after == len(curve), np.nan, after)


def orientation_properties(
    rates: Float[np.ndarray, "cycles frequencies 12 8 units"], blank: PerUnit
) -> dict[str, np.ndarray]:
    """Measure orientation tuning, modulation and response magnitude, from the orientation set.

    Returns:
      Arrays (units,) under the names of ``properties.PROPERTIES``; "baseline" and "min_dc", the
      rates at grey and at the worst orientation; and "orientation_curve" (12, units), F0 by
      ``stimuli.ORIENTATIONS`` at the best frequency and size.
    """
    mean = f0(rates)
    best = best_condition(mean)
    curve = curve_along(mean, 2, best)
    amplitude = curve_along(f1(rates), 2, best)[best[2], np.arange(len(blank))]
    max_dc = curve.max(axis=0)
    variance = circular_variance(curve)
    width = half_bandwidth(curve)
    orthogonal = orthogonal_ratio(curve)
    return {
        "pref_or": preferred_orientation(curve),
        "circular_variance": variance,
        "or_bandwidth": width,
        "orth_pref_ratio": orthogonal,
        "or_selective": np.isfinite(width).astype(np.float64),
        "cv_bandwidth_ratio": ratio(variance, width),
        "opr_cv_diff": orthogonal - variance,
        "modulation_ratio": ratio(amplitude, max_dc),
        "max_dc": max_dc.astype(np.float64),
        "orientation_curve": curve,
        "baseline": blank.astype(np.float64),
        "min_dc": curve.min(axis=0).astype(np.float64),
    }


def preferred_orientation(curve: OrientationCurve) -> PerUnit:
    """Return the orientation of the peak, in degrees from -22.5 to 157.5."""
    fine = _fine_orientation_curve(curve, _PREFERENCE_NEIGHBOUR)
    peak = _orientation_peak(fine) + _DEGREES[0]
    return np.where(peak >= 157.5, peak - 180.0, peak).astype(np.float64)


def circular_variance(curve: OrientationCurve) -> PerUnit:
    """Return 1 - |sum r exp(2i o)| / sum |r|: 0 for a single orientation, 1 for no tuning."""
    wave = np.exp(2j * np.deg2rad(ORIENTATIONS))[:, None]
    return 1.0 - ratio(np.abs((curve * wave).sum(axis=0)), np.abs(curve).sum(axis=0))


def half_bandwidth(curve: OrientationCurve) -> PerUnit:
    """Return half the width at ``HEIGHT``, in degrees; NaN above 90, and for a silent unit."""
    fine = _fine_orientation_curve(curve, _BANDWIDTH_NEIGHBOUR)
    below, above = _crossings(fine, _orientation_peak(fine))
    width = above - below
    return np.where(width > 180.0, np.nan, width) / 2.0


def orthogonal_ratio(curve: OrientationCurve) -> PerUnit:
    """Return the response at 90 degrees from the peak, relative to the peak."""
    units = np.arange(curve.shape[-1])
    peak = curve.argmax(axis=0)
    orthogonal = curve[(peak + len(ORIENTATIONS) // 2) % len(ORIENTATIONS), units]
    return ratio(orthogonal.astype(np.float64), curve[peak, units])


def _fine_orientation_curve(curve: np.ndarray, neighbour: float) -> np.ndarray:
    tiled = np.concatenate([smooth(curve, neighbour, circular=True)] * 3)
    degrees = np.concatenate([ORIENTATIONS + shift for shift in (-180.0, 0.0, 180.0)])
    return scipy.interpolate.CubicSpline(degrees, tiled)(_DEGREES)


def _orientation_peak(fine: np.ndarray) -> np.ndarray:
    """Return the index of the peak among the degrees from 0 to 179."""
    first = -int(_DEGREES[0])
    return first + fine[first : first + 180].argmax(axis=0)


def spatial_frequency_properties(
    rates: Float[np.ndarray, "radii 22 orientations 8 units"], blank: PerUnit
) -> dict[str, np.ndarray]:
    """Measure the preferred spatial frequency and the bandwidth, from the frequency set.

    Returns:
      Arrays (units,) under the names of ``properties.PROPERTIES``, and "spatial_frequency_curve"
      (22, units), F0 by ``stimuli.SPATIAL_FREQUENCIES`` at the best size and orientation.
    """
    mean, either = f0(rates), f0_and_f1(rates, blank)
    curve = curve_along(mean, 1, best_condition(mean))
    modulated = curve_along(either, 2, best_condition(either))
    bandwidth = bandwidth_ratio(curve)
    return {
        "peak_sf": peak_frequency(modulated),
        "sf_bandwidth": bandwidth,
        "sf_selective": np.isfinite(bandwidth).astype(np.float64),
        "spatial_frequency_curve": curve,
    }


def peak_frequency(curve: FrequencyCurve) -> PerUnit:
    """Return the frequency of the peak in cycles per degree."""
    return 2.0 ** _FINE_OCTAVES[_fine_frequency_curve(curve).argmax(axis=0)]


def bandwidth_ratio(curve: FrequencyCurve) -> PerUnit:
    """Return 100 * low / high frequency at ``HEIGHT``; NaN if one side does not fall that far.

    100 is the narrowest bandwidth; one octave is 50.
    """
    fine = _fine_frequency_curve(curve)
    low, high = _crossings(fine, fine.argmax(axis=0))
    step = _FINE_OCTAVES[1] - _FINE_OCTAVES[0]
    return 100.0 * 2.0 ** (step * (low - high))


def _fine_frequency_curve(curve: np.ndarray) -> np.ndarray:
    smoothed = smooth(curve, _FREQUENCY_NEIGHBOUR, circular=False)
    return scipy.interpolate.CubicSpline(_OCTAVES, smoothed)(_FINE_OCTAVES)


def size_properties(
    rates: Float[np.ndarray, "12 frequencies orientations 8 units"], blank: PerUnit
) -> dict[str, np.ndarray]:
    """Measure surround suppression and the diameters of centre and surround, from the size set.

    Returns:
      Arrays (units,) under the names of ``properties.PROPERTIES``, and "size_curve" (12, units),
      the larger of F0 - grey and F1 by ``stimuli.RADII`` at the best frequency and orientation.
    """
    either = f0_and_f1(rates, blank)
    curve = curve_along(either, 1, best_condition(either))
    index = suppression_index(curve)
    suppressed = index > _SUPPRESSED
    return {
        "surround_suppression_index": index,
        "grating_summation_field": np.where(suppressed, summation_diameter(curve), np.nan),
        "surround_diameter": np.where(suppressed, surround_diameter(curve), np.nan),
        "size_curve": curve,
    }


def suppression_index(curve: SizeCurve) -> PerUnit:
    """Return (peak - p) / peak with p at the largest size: 0 for no suppression, 1 for silence."""
    peak = curve.max(axis=0).astype(np.float64)
    return ratio(peak - curve[-1], np.where(peak > 0, peak, np.nan))


def summation_diameter(curve: SizeCurve) -> PerUnit:
    """Return the smallest diameter, in degrees, with 95 % of the peak."""
    return 2.0 * RADII[(curve >= _SUMMATION * curve.max(axis=0)).argmax(axis=0)]


def surround_diameter(curve: SizeCurve) -> PerUnit:
    """Return the smallest diameter, in degrees, beyond the peak with complete suppression.

    Suppression is complete at p + 0.05 |p| or less, with p the response at the largest size. NaN
    if the largest size is the best one.
    """
    sizes = np.arange(len(curve))[:, None]
    beyond = sizes > curve.argmax(axis=0)
    floor = curve[-1] + _SURROUND * np.abs(curve[-1])
    complete = beyond & (curve <= floor)
    return np.where(complete.any(axis=0), 2.0 * RADII[complete.argmax(axis=0)], np.nan)
