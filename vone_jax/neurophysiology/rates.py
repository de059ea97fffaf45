"""From activations of a network to firing rates: one affine map for the whole layer.

It makes the median unit as active as the median V1 neuron; all constants are those of the
MarquesEtAl2020 benchmarks (Brain-Score), from Ringach et al. (2002), J. Neuroscience 22:5639-5651.
"""

import dataclasses

import numpy as np

# Macaque V1, spikes per second.
MEDIAN_MAX = 33.8
MEDIAN_SPONTANEOUS = 0.82
LARGEST_MAX = 243.1
RESPONSE_THRESHOLD = 5.0


@dataclasses.dataclass(frozen=True)
class RateMap:
    """rate = max(0, slope * activation + offset), in spikes per second.

    Attributes:
      slope: spikes per second per unit of activation.
      offset: spikes per second.
    """

    slope: float
    offset: float

    def __call__(self, activations: np.ndarray) -> np.ndarray:
        """Rates of activations, same shape."""
        return np.maximum(self.slope * activations + self.offset, 0.0).astype(activations.dtype)


def fit_rate_map(largest_f0: np.ndarray, blank: np.ndarray) -> RateMap:
    """The map under which medians over responsive units are those of macaque V1.

    Args:
      largest_f0: (U,) each unit's largest mean response (F0) in the orientation set.
      blank: (U,) responses to grey.

    Returns:
      The map of the layer.

    Raises:
      ValueError: if no unit responds more to gratings than to grey.
    """
    evoked = largest_f0 - blank
    if not evoked.max() > 0:
        raise ValueError("response_fn responds to no grating of the orientation set above grey")
    responsive = evoked > RESPONSE_THRESHOLD / LARGEST_MAX * evoked.max()
    top = float(np.median(largest_f0[responsive]))
    spontaneous = float(np.median(blank[responsive]))
    slope = (MEDIAN_MAX - MEDIAN_SPONTANEOUS) / (top - spontaneous)
    return RateMap(slope, MEDIAN_SPONTANEOUS - slope * spontaneous)
