"""Published distributions of receptive-field parameters in macaque V1.

The cited laboratories measured every number here. Dapello, Marques et al. compiled them for
VOneNets (NeurIPS 2020, supplementary section A).
"""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float

Scale = Literal["linear", "log2", "log10"]


@dataclasses.dataclass(frozen=True)
class Histogram:
    """A histogram that can be sampled.

    Attributes:
      edges: ascending bin edges, one more than there are bins.
      weights: counts or relative weights of the bins, >= 0.
      scale: the scale on which values are uniform inside a bin.

    Raises:
      ValueError: if edges and weights do not form a histogram.
    """

    edges: tuple[float, ...]
    weights: tuple[float, ...]
    scale: Scale = "linear"

    def __post_init__(self):
        if len(self.edges) != len(self.weights) + 1:
            raise ValueError(
                f"edges must have one entry more than weights, got {len(self.edges)} and "
                f"{len(self.weights)}"
            )
        if not np.all(np.diff(self.edges) > 0):
            raise ValueError(f"edges must ascend, got {self.edges}")
        if min(self.weights) < 0 or sum(self.weights) <= 0:
            raise ValueError(f"weights must be >= 0 and not all 0, got {self.weights}")

    def inverse_cdf(self, uniform: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Map uniform numbers in [0, 1) to values of the distribution."""
        forward, backward = _SCALES[self.scale]
        cumulative = np.concatenate([[0.0], np.cumsum(np.array(self.weights) / sum(self.weights))])
        return backward(np.interp(uniform, cumulative, forward(np.array(self.edges))))

    def between(self, low: float, high: float, include_high: bool = True) -> "Histogram":
        """Return the part of the histogram whose bins lie entirely in [low, high].

        Unless ``include_high``, an edge that equals ``high`` is dropped.

        Raises:
          ValueError: if no bin is left, or all that are left are empty.
        """
        edges = np.array(self.edges)
        inside = np.flatnonzero((low <= edges) & (edges <= high if include_high else edges < high))
        if len(inside) < 2:
            raise ValueError(
                f"no bin lies between sf_min={low} and sf_max={high}; the edges are {self.edges}"
            )
        first, last = inside[0], inside[-1]
        if not any(self.weights[first:last]):
            raise ValueError(
                f"no neuron of the distribution lies between sf_min={low} and sf_max={high}; the "
                f"edges are {self.edges}, their counts {self.weights}"
            )
        return Histogram(self.edges[first : last + 1], self.weights[first:last], self.scale)


_SCALES = {
    "linear": (lambda x: x, lambda x: x),
    "log2": (np.log2, lambda x: 2.0**x),
    "log10": (np.log10, lambda x: 10.0**x),
}

# Carrier phase in degrees; no preference is known.
PHASE = Histogram((0.0, 360.0), (1.0,))

# Preferred orientation in degrees; De Valois, Yund, Hepler (1982), Vision Research 22:531-544.
# The first bin is centred on 0. Its negative half stands for angles just below 180.
ORIENTATION = Histogram((-22.5, 22.5, 67.5, 112.5, 157.5), (66.0, 49.0, 77.0, 54.0))

# Preferred spatial frequency in cycles per degree; De Valois, Albrecht, Thorell (1982), Vision
# Research 22:545-559.
SPATIAL_FREQUENCY = Histogram(
    (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0),
    (4.0, 4.0, 8.0, 25.0, 32.0, 26.0, 28.0, 12.0),
    "log2",
)

# The same with a bin above 8 cycles per degree, which Baidya et al. (2021), arXiv:2110.10645,
# append for their high-frequency variants.
SPATIAL_FREQUENCY_EXTENDED = Histogram(
    (*SPATIAL_FREQUENCY.edges, 11.2), (*SPATIAL_FREQUENCY.weights, 8.0), "log2"
)

# Receptive-field size along (nx) and across (ny) the carrier, as standard deviations of the
# Gaussian in carrier periods; Ringach (2002), J. Neurophysiology 88:455-463. Rows are nx bins,
# columns ny bins.
SIZE_EDGES: tuple[float, ...] = tuple(
    float(10.0**e) for e in (-1.0, -0.76, -0.52, -0.28, -0.04, 0.2)
)
SIZE_COUNTS: tuple[tuple[float, ...], ...] = (
    (2.0, 0.0, 1.0, 0.0, 0.0),
    (8.0, 9.0, 4.0, 1.0, 0.0),
    (1.0, 2.0, 19.0, 17.0, 3.0),
    (0.0, 0.0, 1.0, 7.0, 4.0),
    (0.0, 0.0, 0.0, 0.0, 0.0),
)
SIZE_X = Histogram(SIZE_EDGES, tuple(sum(row) for row in SIZE_COUNTS), "log10")
# The marginal distribution of ny, for figures.
SIZE_Y = Histogram(SIZE_EDGES, tuple(sum(col) for col in zip(*SIZE_COUNTS, strict=True)), "log10")

# Correlation of the Gaussian copula between nx and spatial frequency; Schiller, Finlay, Volman
# (1976), J. Neurophysiology 39:1320-1333.
SIZE_FREQUENCY_CORRELATION = 0.75

# The same distributions in the bins of EVNets (Piper et al. 2025, arXiv:2506.03089) and of the
# receptive-field variants of arXiv:2310.10575: separate frequencies for simple and complex cells,
# and sizes up to 1.
SPATIAL_FREQUENCY_SIMPLE = Histogram(
    SPATIAL_FREQUENCY_EXTENDED.edges, (4.0, 4.0, 8.0, 25.0, 33.0, 26.0, 28.0, 12.0, 8.0), "log2"
)
SPATIAL_FREQUENCY_COMPLEX = Histogram(
    SPATIAL_FREQUENCY_EXTENDED.edges, (0.0, 0.0, 9.0, 9.0, 7.0, 10.0, 23.0, 12.0, 14.0), "log2"
)
EVNET_SIZE_EDGES: tuple[float, ...] = tuple(float(10.0**e) for e in (-1.0, -0.75, -0.5, -0.25, 0.0))
EVNET_SIZE_COUNTS = tuple(row[:4] for row in SIZE_COUNTS[:4])
EVNET_SIZE_X = Histogram(EVNET_SIZE_EDGES, tuple(map(sum, EVNET_SIZE_COUNTS)), "log10")
# The marginal distribution of ny, for figures.
EVNET_SIZE_Y = Histogram(
    EVNET_SIZE_EDGES, tuple(map(sum, zip(*EVNET_SIZE_COUNTS, strict=True))), "log10"
)


def size_y_given_x(
    size_x: Float[np.ndarray, " n"],
    uniform: Float[np.ndarray, " n"],
    edges: tuple[float, ...] = SIZE_EDGES,
    counts: tuple[tuple[float, ...], ...] = SIZE_COUNTS,
) -> Float[np.ndarray, " n"]:
    """Sample ny, in carrier periods, from the row of a joint histogram that nx selects.

    Args:
      size_x: sizes nx.
      uniform: uniform numbers in [0, 1).
      edges: of the bins of nx and of ny.
      counts: counts of the joint histogram. Rows are bins of nx.
    """
    row = np.searchsorted(edges, size_x, side="left") - 1
    rows = np.clip(row, 0, len(counts) - 1)
    sizes = np.empty_like(size_x)
    for i in np.unique(rows):
        inside = rows == i
        histogram = Histogram(edges, counts[i], "log10")
        sizes[inside] = histogram.inverse_cdf(uniform[inside])
    return sizes
