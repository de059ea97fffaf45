"""A normalising surround: cells of V1 divided by pools of their neighbours. Nothing is learned.

The response r of a cell becomes

    gain g r P / (1 + P^2 + (k S)^2),   P = C / c50,

where C is the mean response of all cells around its centre, and S that of similar cells in a ring
around the centre. Both are 1 for a large optimal grating of full contrast. Since r, C and S are
proportional to contrast c, a response to a grating is proportional to c^2 / (c^2 + s^2): it grows
with the square of the contrast, and saturates. S suppresses responses when a stimulus extends
beyond the receptive field. Complex cells also pool over positions, so that they have larger fields
than simple cells.

The strength k and the width of the ring differ from cell to cell. Each cell draws a suppression
index and a surround diameter from their distributions in macaque V1. It gets the k and the width
with which a model of its size tuning has both. The factor g keeps the response of the cell to its
best grating.

References:
  Heeger (1992), Visual Neuroscience 9:181-197: normalisation by pools of cells.
  Albrecht, Hamilton (1982), J. Neurophysiology 48:217-237: contrast response functions.
  Cavanaugh, Bair, Movshon (2002), J. Neurophysiology 88:2530-2546 and 88:2547-2556: size tuning.
  Marques, Schrimpf, DiCarlo (2021), bioRxiv 2021.03.01.433495: a model of V1 that normalises
    between Gabor filters and noise.
"""

import dataclasses
import math
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from vone_jax import arguments, fast
from vone_jax.arguments import Positive, Range, Share
from vone_jax.filters import filter_matrix, gaussian_taps

Responses = Float32[Array, "n h w cells"]
PerCell = Float[np.ndarray, " cells"]
Correlation = Annotated[float, Range(-1.0, 1.0)]


@dataclasses.dataclass(frozen=True)
class SurroundNormalization:
    """The settings of a normalising surround. The defaults are calibrated to macaque V1.

    The free constants were fitted to three properties (suppression index, summation field and
    surround diameter) of one bank, that of seed 0, and ``position_pooling`` to that of seed 2 as
    well. ``docs/neurophysiology.md`` has the scores of other banks.

    Attributes:
      c50: contrast of an optimal grating at which the centre alone half saturates responses, > 0.
      position_pooling: standard deviation in degrees of the positions over which complex cells
        pool, >= 0; ``largest_extent`` bounds it.
      centre_size: standard deviation of the centre pool, > 0, relative to that of the receptive
        field.
      ring_size: the same for the hole of the ring, > 0.
      orientation_tuning: in [0, 1]. A cell at an angle d to the preferred orientation has the
        weight 1 + orientation_tuning cos(2 d) in the ring.
      strength_correlation: correlation of the suppression index with the size of the receptive
        field, in a Gaussian copula, in [-1, 1].
      extent_correlation: the same for the surround diameter.
      largest_extent: largest standard deviation of a pool in degrees, > 0. A pool ends after three
        of them, which must be within the image.
      gain: factor of all responses, > 0. With 1, the mean response to photographs is that of the
        published block to 10 %.
      seed: of the draws, 0 <= seed < 2**32. Default: the seed of the bank.

    Raises:
      ValueError: if a field is out of range.
    """

    c50: Positive = 0.4
    position_pooling: float = 0.36
    centre_size: Positive = 0.4
    ring_size: Positive = 1.5
    orientation_tuning: Share = 0.95
    strength_correlation: Correlation = 0.25
    extent_correlation: Correlation = 0.98
    largest_extent: Positive = 2.25
    gain: Positive = 1.0
    seed: Annotated[int | None, Range(0, 2**32 - 1)] = None

    def __post_init__(self):
        arguments.fields(self, "normalization.")

    @property
    def pooling(self) -> float:
        """The standard deviation in degrees of the positions over which complex cells pool."""
        return min(self.position_pooling, self.largest_extent)

    def check_reach(self, positions: int, density: float) -> None:
        """Check that pools end within a map of responses, beyond which reflection is undefined.

        Args:
          positions: along the shorter side of the map.
          density: positions per degree.

        Raises:
          ValueError: if a pool reaches ``positions`` or more from its centre.
        """
        reach = self._reach(self.largest_extent, density)
        if reach >= positions:
            extents = np.arange(0.01, positions / density, 0.01)
            most = max((w for w in extents if self._reach(w, density) < positions), default=0.01)
            raise ValueError(
                f"normalization.largest_extent of {self.largest_extent:g} degrees is too wide: "
                f"pools reach {reach / density:.3g} degrees from their centre, but the image has "
                f"{positions / density:.3g} degrees, beyond which reflection ends; set "
                f"normalization.largest_extent to {most:.2f} or less, or use larger images"
            )

    def _reach(self, largest: float, density: float) -> int:
        """The positions from the centre to the end of the widest pool (ring deviations >= 0.5)."""
        rounded = max(float(half_octaves(largest * density)), 0.5)
        return math.ceil(3.0 * max(rounded, min(self.position_pooling, largest) * density))


@dataclasses.dataclass(frozen=True, eq=False)
class SurroundPools:
    """The surrounds of a bank.

    Attributes:
      settings: their settings.
      density: positions per degree.
      suppression_index: the index that each cell drew.
      surround_diameter: the diameter that each cell drew, in degrees.
      num_simple: number of simple cells, which come first.
      deviations: standard deviations of pools in positions, ascending.
      to_maps: contribution of each cell to the maps that are pooled.
      total: weight of each map in the sum of all cells.
      centre: contribution of that sum, pooled, to P of each cell.
      ring: contribution of each pooled map to k S of each cell.
      factors: factor g of each cell.
    """

    settings: SurroundNormalization
    density: float
    suppression_index: PerCell
    surround_diameter: PerCell
    num_simple: int
    deviations: tuple[float, ...]
    to_maps: Float32[np.ndarray, "cells maps"]
    total: Float32[np.ndarray, " maps"]
    centre: Float32[np.ndarray, "deviations cells"]
    ring: Float32[np.ndarray, "deviations maps cells"]
    factors: Float32[np.ndarray, " cells"]

    def __call__(self, responses: Responses) -> Responses:
        """Normalise the responses of all cells, which are >= 0.

        The divisor is at least 1, so that gradients are finite for every image.

        Raises:
          ValueError: if the map is smaller than the reach of a pool.
        """
        height, width = responses.shape[1:3]
        self.settings.check_reach(min(height, width), self.density)
        maps = jnp.einsum("nhwc,cm->nhwm", responses, self.to_maps)
        rows, columns = (
            np.stack([_matrix(side, deviation) for deviation in self.deviations])
            for side in (height, width)
        )
        pooled = jnp.einsum("djw,nhwm->dhjnm", columns, maps)
        pooled = jnp.einsum("dih,dhjnm->nijdm", rows, pooled)
        pooled = pooled.reshape(*pooled.shape[:3], -1)
        simple, complex_ = jnp.split(responses, [self.num_simple], axis=-1)
        blurred = _blurred(complex_, self.settings.pooling * self.density)
        factors = self.settings.gain * self.factors.reshape(1, 1, 1, -1)
        of_centre = (self.centre[:, None] * self.total[:, None]).reshape(-1, len(self.factors))
        of_ring = self.ring.reshape(-1, len(self.factors))

        def normalised(responses: Array, pooled: Array) -> Array:
            centre, ring = jnp.matmul(pooled, of_centre), jnp.matmul(pooled, of_ring)
            gain = centre * factors / (1.0 + jnp.square(centre) + jnp.square(ring))
            return gain * responses

        return fast.by_rows(normalised, jnp.concatenate([simple, blurred], axis=-1), pooled)


def _blurred(maps: Responses, deviation: float) -> Responses:
    """Blur maps with a Gaussian, as products of matrices."""
    number, height, width, cells = maps.shape
    rows, columns = (_matrix(side, deviation) for side in (height, width))

    def whole(maps: Responses) -> Responses:
        return jnp.einsum("jw,niwc->nijc", columns, jnp.einsum("ih,nhwc->niwc", rows, maps))

    # On a CPU, ``whole`` would transpose the maps. Here every axis is merged with one after it, so
    # a batch stays split over devices.
    def in_batches(maps: Responses) -> Responses:
        along_rows, along_columns = (
            jnp.broadcast_to(matrix, (count, *matrix.shape))
            for matrix, count in ((rows, number), (columns, number * height))
        )
        maps = jnp.matmul(along_rows, maps.reshape(number, height, width * cells))
        maps = jnp.matmul(along_columns, maps.reshape(number * height, width, cells))
        return maps.reshape(number, height, width, cells)

    return fast.by_platform(maps, cpu=in_batches, default=whole)


def _matrix(side: int, deviation: float) -> Float32[np.ndarray, "side side"]:
    return filter_matrix(side, gaussian_taps(deviation, math.ceil(3.0 * deviation)), "mirror")


def half_octaves(deviation: np.ndarray | float) -> np.ndarray:
    """Round standard deviations in positions to half octaves; those below 0.42 become 0."""
    steps = np.round(2.0 * np.log2(np.maximum(deviation, 0.01)))
    return np.where(steps < -2.0, 0.0, 2.0 ** (steps / 2.0))
