"""Tuning curves: drift responses, the best condition, smoothing, splines, crossings.

Arrays have the units last. Everything works on all units at once.
"""

import numpy as np
from scipy.interpolate import CubicSpline

# The height at which bandwidths are measured, of the peak: 1 / sqrt(2).
HEIGHT = 0.707


def f0(responses: np.ndarray) -> np.ndarray:
    """Mean over the phases: (..., 8, U) -> (..., U)."""
    return responses.mean(axis=-2)


def f1(responses: np.ndarray) -> np.ndarray:
    """Amplitude at the drift frequency, 2 |DFT coefficient 1| / 8: (..., 8, U) -> (..., U)."""
    phases = responses.shape[-2]
    angle = 2.0 * np.pi * np.arange(phases) / phases
    wave = np.exp(-1j * angle)[:, None]
    return 2.0 / phases * np.abs((responses * wave).sum(axis=-2))


def best_condition(responses: np.ndarray) -> tuple[np.ndarray, ...]:
    """Indices, one array (U,) per factor, of each unit's largest response; the first one wins.

    Args:
      responses: (factor 1, ..., factor n, U).
    """
    flat = responses.reshape(-1, responses.shape[-1])
    return np.unravel_index(flat.argmax(axis=0), responses.shape[:-1])


def curve_along(responses: np.ndarray, axis: int, best: tuple[np.ndarray, ...]) -> np.ndarray:
    """Each unit's curve along one factor through its best condition.

    Args:
      responses: (factor 1, ..., factor n, U).
      axis: the factor to vary.
      best: from ``best_condition``.

    Returns:
      (levels of the factor, U).
    """
    units = np.arange(responses.shape[-1])
    levels = np.arange(responses.shape[axis])[:, None]
    index = tuple(levels if n == axis else b[None, :] for n, b in enumerate(best))
    return responses[(*index, units[None, :])]


def smooth(curve: np.ndarray, neighbour: float, circular: bool) -> np.ndarray:
    """Weighs each point 1 and its two neighbours ``neighbour``, normalised by the sum.

    Args:
      curve: (points, U).
      neighbour: weight of a neighbour.
      circular: whether the first point follows the last; else edge values are repeated.

    Returns:
      (points, U).
    """
    padded = np.concatenate(
        [curve[-1:] if circular else curve[:1], curve, curve[:1] if circular else curve[-1:]]
    )
    sides = padded[:-2] + padded[2:]
    return (curve + neighbour * sides) / (1.0 + 2.0 * neighbour)


def spline(x: np.ndarray, curve: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Interpolating cubic spline with not-a-knot ends: (points, U) -> (len(at), U)."""
    return CubicSpline(x, curve, axis=0, bc_type="not-a-knot")(at)


def crossings(curve: np.ndarray, peak: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a curve falls to ``HEIGHT`` of its peak: the nearest sample on each side.

    Args:
      curve: (samples, U).
      peak: (U,) index of the peak of each unit.

    Returns:
      Indices of the crossings below and above the peak, float64 (U,); NaN where there is none.
    """
    samples = np.arange(len(curve))[:, None]
    top = np.take_along_axis(curve, peak[None, :], axis=0)
    low = curve <= HEIGHT * top
    before = np.where(low & (samples < peak), samples, -1).max(axis=0)
    after = np.where(low & (samples > peak), samples, len(curve)).min(axis=0)
    return (
        np.where(before < 0, np.nan, before),
        np.where(after == len(curve), np.nan, after),
    )
