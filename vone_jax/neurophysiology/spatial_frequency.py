"""Properties measured with the spatial-frequency set.

References: De Valois, Albrecht, Thorell (1982), Vision Research 22:545-559; Schiller, Finlay,
Volman (1976), J. Neurophysiology 39:1334-1351. Formulas of the MarquesEtAl2020 benchmarks.
"""

import numpy as np

from vone_jax.neurophysiology import tuning
from vone_jax.neurophysiology.stimuli import SPATIAL_FREQUENCIES

_NEIGHBOUR = 0.2
_OCTAVES = np.log2(SPATIAL_FREQUENCIES)
_FINE_OCTAVES = np.linspace(_OCTAVES[0], _OCTAVES[-1], 100)


def spatial_frequency_properties(rates: np.ndarray, blank: np.ndarray) -> dict[str, np.ndarray]:
    """Preferred frequency and bandwidth.

    Args:
      rates: spikes per second, (radius, 22 spatial frequencies, orientation, 8 phases, U).
      blank: (U,) rates at grey.

    Returns:
      Arrays (U,), NaN where undefined, under the names of ``properties.PROPERTIES``, and
      "spatial_frequency_curve" (22, U): F0 by ``stimuli.SPATIAL_FREQUENCIES`` at the best size
      and orientation.
    """
    f0 = tuning.f0(rates)
    curve = tuning.curve_along(f0, 1, tuning.best_condition(f0))
    either = np.stack([f0 - blank, tuning.f1(rates)])
    modulated = tuning.curve_along(either, 2, tuning.best_condition(either))
    ratio = bandwidth_ratio(curve)
    return {
        "peak_sf": peak_frequency(modulated),
        "sf_bandwidth": ratio,
        "sf_selective": np.isfinite(ratio).astype(np.float64),
        "spatial_frequency_curve": curve,
    }


def peak_frequency(curve: np.ndarray) -> np.ndarray:
    """Frequency of the peak in cycles per degree: (22, U) -> (U,)."""
    return 2.0 ** _FINE_OCTAVES[_fine_curve(curve).argmax(axis=0)]


def bandwidth_ratio(curve: np.ndarray) -> np.ndarray:
    """100 * low / high frequency at .707 of the peak; NaN if it never falls on one side.

    100 is the narrowest; one octave is 50. (22, U) -> (U,).
    """
    fine = _fine_curve(curve)
    low, high = tuning.crossings(fine, fine.argmax(axis=0))
    step = _FINE_OCTAVES[1] - _FINE_OCTAVES[0]
    return 100.0 * 2.0 ** (step * (low - high))


def _fine_curve(curve: np.ndarray) -> np.ndarray:
    return tuning.spline(_OCTAVES, tuning.smooth(curve, _NEIGHBOUR, circular=False), _FINE_OCTAVES)
