"""Divisive normalisation of V1 by the cell itself and its surround. Nothing is learned.

The response r of a cell, relative to the amplitude A of the linear response of its filter to its
best grating of full contrast, becomes

    gain A e / (c50^2 + own e + local L + (1 - own - local) S),   e = (r / A)^2.

Complex cells average r^2 over neighbouring positions, so their fields are larger than those of
simple cells. L and S are means of r^2 over all cells around the cell, with a Gaussian weight of
position. L is narrow, and all orientations and frequencies have the same weight. S is wide, and
cells of similar orientation and frequency have larger weights. L and S are 1 for a large optimal
grating of full contrast.

This is the standard model of normalisation (Heeger 1992) with an exponent of 2. Since e, L and S
are proportional to the square of contrast c, a response to a grating is proportional to
c^2 / (s^2 + c^2). The term with the cell itself is "tuned" normalisation. A grating that grows
beyond the receptive field adds to S alone, and suppresses. So does a mask of the orthogonal
orientation, to which the cell itself does not respond: it adds to L and S. A surround of the
orthogonal orientation does not reach L, and adds less to S than one of the cell's orientation.

All cells have the same constants. They differ in suppression and size because their filters differ:
the surround grows more slowly than the receptive field. Two numbers scatter among cells: the share
``own`` (uniform) and the extent of the surround (log-normal). No distribution of suppression or
size is drawn from.

References:
  Heeger (1992), Visual Neuroscience 9:181-197: normalisation by a pool of cells.
  Carandini, Heeger, Movshon (1997), J. Neuroscience 17:8621-8644: masks of other orientations.
  Cavanaugh, Bair, Movshon (2002), J. Neurophysiology 88:2530-2546 and 88:2547-2556: size tuning.
  Rust, Mante, Simoncelli, Movshon (2006), Nature Neuroscience 9:1421-1431: tuned normalisation.
"""

import dataclasses
import functools
import math
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, Float32

from vone_jax import arguments, fast, prng
from vone_jax.arguments import NOT_NEGATIVE, Positive, Range, Share
from vone_jax.filters import filter_matrix, gaussian_taps
from vone_jax.v1.gabor import GaborKernels, GaborParameters
from vone_jax.v1.images import HIGHEST, Precision

Responses = Float32[Array, "n h w cells"]
PerCell = Float[np.ndarray, " cells"]
NotNegative = Annotated[float, NOT_NEGATIVE]

# The size of a receptive field, in degrees, whose surround has the size ``extent``.
_FIELD = 0.25
# The narrowest surround, in positions.
_NARROWEST = 1.0
# Standard deviations of pools are at most this many octaves apart.
_STEP = 0.8


@dataclasses.dataclass(frozen=True)
class SurroundNormalization:
    """The constants of a normalising surround.

    Ten constants were fitted to macaque V1, on the banks of the seeds 0, 2, 4 and 6: all but
    ``largest_extent`` and ``gain``. ``docs/surround.md`` has the properties that the fit used,
    and measurements on other banks.

    Attributes:
      c50: contrast at which the term of the image equals the constant term, > 0, see above.
      own: mean share of the cell itself in the divisor, in [0, 0.5]. Among cells the share is
        uniform from 0 to twice this number.
      local: share of the local pool L, which all orientations and frequencies enter alike, from 0
        to 1 - 2 own. The rest is that of the surround.
      local_extent: standard deviation of the local pool in degrees, > 0; ``largest_extent`` bounds
        this one, too.
      orientation_tuning: in [0, 1]. In the surround, a cell at an angle d to the preferred
        orientation has the weight 1 + orientation_tuning cos(2 d).
      frequency_tuning: standard deviation, in octaves, of the Gaussian by which weights in the
        surround fall off with the difference of spatial frequencies, >= 0.5.
      position_pooling: standard deviation in degrees of the positions over which complex cells
        average, >= 0; ``largest_extent`` bounds it.
      extent: standard deviation in degrees, > 0, of the surround of a cell whose receptive field
        has a standard deviation of 0.25 degrees.
      growth: the extent of the surround is proportional to this power of the size of the receptive
        field, in [0, 1].
      scatter: standard deviation of the natural logarithm of the extent among cells of one
        size, >= 0.
      largest_extent: largest standard deviation of a pool in degrees, > 0. A pool ends after three
        of them, which must be within the image.
      gain: factor of all responses, > 0. With the default, the mean response to photographs is that
        of the published block to 5 %.

    Raises:
      ValueError: if a field is out of range.
    """

    c50: Positive = 0.11
    own: Annotated[float, Range(most=0.5)] = 0.385
    local: Share = 0.07
    local_extent: Positive = 0.31
    orientation_tuning: Share = 0.7
    # Frequencies are read at nodes one octave apart.
    frequency_tuning: Annotated[float, Range(0.5)] = 0.52
    position_pooling: NotNegative = 0.41
    extent: Positive = 0.45
    growth: Share = 0.75
    scatter: NotNegative = 0.28
    largest_extent: Positive = 1.0
    gain: Positive = 0.8

    def __post_init__(self):
        arguments.fields(self, "normalization.")
        if 2.0 * self.own + self.local > 1.0:
            raise ValueError(
                f"normalization.local must be at most 1 - 2 normalization.own, "
                f"{1.0 - 2.0 * self.own:.3g}, got {self.local}"
            )

    @property
    def pooling(self) -> float:
        """The standard deviation in degrees of the positions over which complex cells average."""
        return min(self.position_pooling, self.largest_extent)

    def check_reach(self, positions: int, density: float) -> None:
        """Check that pools end within a map of responses, beyond which reflection is undefined.

        Args:
          positions: along the shorter side of the map.
          density: positions per degree.

        Raises:
          ValueError: if a pool reaches ``positions`` or more from its centre.
        """
        reach = math.ceil(3.0 * max(_NARROWEST, self.largest_extent * density))
        if reach >= positions:
            most = (positions - 1) / 3.0 / density
            raise ValueError(
                f"normalization.largest_extent of {self.largest_extent:g} degrees is too wide: "
                f"pools reach {reach / density:.3g} degrees from their centre, but the image has "
                f"{positions / density:.3g} degrees, beyond which reflection ends; set "
                f"normalization.largest_extent to {math.floor(100 * most) / 100:.2f} or less, or "
                f"use larger images"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class SurroundPools:
    """The surrounds of a bank.

    Attributes:
      settings: their constants.
      density: positions per degree.
      num_simple: number of simple cells, which come first.
      amplitude: A of each cell.
      own: share of each cell in its divisor.
      deviations: standard deviations of pools in positions, ascending.
      to_maps: contribution of the squared response of each cell to the maps that are pooled.
      weights: contribution of each pooled map to the pools of each cell, L and S times their
        shares.
    """

    settings: SurroundNormalization
    density: float
    num_simple: int
    amplitude: Float32[np.ndarray, " cells"]
    own: Float32[np.ndarray, " cells"]
    deviations: tuple[float, ...]
    to_maps: Float32[np.ndarray, "cells maps"]
    weights: Float32[np.ndarray, "deviations maps cells"]

    def __call__(self, responses: Responses, precision: Precision = HIGHEST) -> Responses:
        """Normalise the responses of all cells, which are >= 0.

        The divisor is at least c50^2, so that gradients are finite for every image.

        Raises:
          ValueError: if the map is smaller than the reach of a pool.
        """
        height, width = responses.shape[1:3]
        self.settings.check_reach(min(height, width), self.density)
        squares = jnp.square(responses)
        einsum = functools.partial(jnp.einsum, precision=precision)
        maps = einsum("nhwc,cm->nhwm", squares, self.to_maps)
        rows, columns = (
            np.stack([_matrix(side, deviation) for deviation in self.deviations])
            for side in (height, width)
        )
        pooled = einsum("djw,nhwm->dhjnm", columns, maps)
        pooled = einsum("dih,dhjnm->nijdm", rows, pooled)
        pooled = pooled.reshape(*pooled.shape[:3], -1)
        simple, complex_ = jnp.split(squares, [self.num_simple], axis=-1)
        blurred = _blurred(complex_, self.settings.pooling * self.density, precision)
        of_pools = self.weights.reshape(-1, len(self.own))
        inverse, scale, share = (
            factor.reshape(1, 1, 1, -1)
            for factor in (
                1.0 / self.amplitude**2,
                np.float32(self.settings.gain) * self.amplitude,
                self.own,
            )
        )

        def normalised(squares: Array, pooled: Array) -> Array:
            own = squares * inverse
            around = jnp.matmul(pooled, of_pools, precision=precision)
            return own * scale / (self.settings.c50**2 + share * own + around)

        return fast.by_rows(normalised, jnp.concatenate([simple, blurred], axis=-1), pooled)


def pools_of_bank(
    settings: SurroundNormalization,
    parameters: GaborParameters,
    kernels: GaborKernels,
    num_simple: int,
    pixels_per_degree: float,
    stride: int,
    gain: float,
    contrast: Float[np.ndarray, "gratings channels"],
    seed: int,
) -> SurroundPools:
    """Return the surround of each cell of a bank.

    Args:
      settings: constants of the surrounds.
      parameters: of the filters.
      kernels: of the filters.
      num_simple: number of simple cells, which come first.
      pixels_per_degree: of the images.
      stride: distance of neighbouring positions in pixels.
      gain: of the cells.
      contrast: the amplitude in each input channel of a grating of full contrast that has the
        orientation and the frequency of each filter.
      seed: of what scatters.
    """
    density = pixels_per_degree / stride
    is_complex = np.arange(len(parameters)) >= num_simple
    amplitude, squares = _drive(parameters, kernels, is_complex, pixels_per_degree, contrast)

    to_maps, tuned, untuned = _tuning(settings, parameters)
    # Both pools are 1 for the best grating of full contrast.
    tuned, untuned = (
        weights / ((weights @ to_maps.T) * (gain**2 * squares)).sum(axis=1)[:, None]
        for weights in (tuned, untuned)
    )

    envelope = _envelopes(kernels) / pixels_per_degree
    field = np.where(is_complex, np.hypot(envelope, settings.pooling), envelope)
    extent = settings.extent * (field / _FIELD) ** settings.growth
    extent *= np.exp(
        settings.scatter * scipy.special.ndtri(_quantiles(len(field), seed, "surround"))
    )
    deviation = np.append(extent, settings.local_extent)
    deviation = np.maximum(np.minimum(deviation, settings.largest_extent) * density, _NARROWEST)
    nodes, node_shares = _between(np.log2(deviation))
    own = 2.0 * settings.own * _quantiles(len(field), seed, "own")
    around = (1.0 - own - settings.local) * node_shares[:, None, :-1] * tuned.T
    around += settings.local * node_shares[:, None, -1:] * untuned.T
    return SurroundPools(
        settings=settings,
        density=density,
        num_simple=num_simple,
        amplitude=(gain * amplitude).astype(np.float32),
        own=own.astype(np.float32),
        deviations=tuple((2.0**nodes).tolist()),
        to_maps=to_maps.astype(np.float32),
        weights=around.astype(np.float32),
    )


def _quantiles(count: int, seed: int, stream: str) -> PerCell:
    """Evenly spaced numbers in (0, 1), in random order."""
    with jax.ensure_compile_time_eval():
        key = prng.stream(jax.random.key(seed), stream)
        # The words of ``jax.random.bits``, but independent of JAX's settings, as networks must be.
        left, right = jax.jit(fast.random_words, static_argnums=1)(key, (count,))
        rank = np.argsort(np.argsort(np.asarray(left ^ right), kind="stable"))
    return (rank + 0.5) / count


def _between(
    octaves: PerCell,
) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, "nodes cells"]]:
    """Nodes at most ``_STEP`` octaves apart, and the share of each node in each value.

    A value between two nodes has shares of both, so few Gaussians serve surrounds of all widths.
    """
    low, high = octaves.min(), octaves.max()
    nodes = np.linspace(low, high, math.ceil((high - low) / _STEP) + 1)
    step = max(high - low, 1e-9) / max(len(nodes) - 1, 1)
    return nodes, np.maximum(1.0 - np.abs(octaves - nodes[:, None]) / step, 0.0)


def _tuning(
    settings: SurroundNormalization, parameters: GaborParameters
) -> tuple[Float[np.ndarray, "cells maps"], ...]:
    """Weights of cells in surrounds, by way of few maps: they are ``weights @ to_maps.T``.

    The maps cross frequencies, at nodes one octave apart, with 1, cos and sin of twice the
    orientation.

    Returns:
      The contributions to the maps, the weights in the surround, and those in the local pool, in
      which all cells weigh the same.
    """
    angle = 2.0 * np.deg2rad(parameters.theta)
    orientation = np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle)], axis=1)
    depth = np.array([1.0, settings.orientation_tuning, settings.orientation_tuning])
    octaves = np.log2(parameters.sf)[:, None]
    nodes = np.arange(np.floor(octaves.min()), np.ceil(octaves.max()) + 1)
    near = np.maximum(1.0 - np.abs(octaves - nodes), 0.0)
    fall = np.exp(-0.5 * np.square((octaves - nodes) / settings.frequency_tuning))

    def crossed(frequency: np.ndarray, orientation: np.ndarray) -> np.ndarray:
        return (frequency[:, :, None] * orientation[:, None, :]).reshape(len(octaves), -1)

    return (
        crossed(near, orientation),
        crossed(fall, depth * orientation),
        crossed(np.ones_like(fall), orientation * [1.0, 0.0, 0.0]),
    )


def _envelopes(kernels: GaborKernels) -> PerCell:
    """The standard deviation of the envelope of each pair of kernels, in pixels."""
    amplitude = np.hypot(*(np.asarray(phase, np.float64) for phase in kernels))
    offset = np.square(np.arange(amplitude.shape[-1]) - amplitude.shape[-1] // 2)
    second = (amplitude * (offset[:, None] + offset)).sum(axis=(1, 2))
    return np.sqrt(second / amplitude.sum(axis=(1, 2)) / 2.0)


def _drive(
    parameters: GaborParameters,
    kernels: GaborKernels,
    is_complex: np.ndarray,
    pixels_per_degree: float,
    contrast: Float[np.ndarray, "gratings channels"],
) -> tuple[PerCell, Float[np.ndarray, "gratings cells"]]:
    """The response of each cell to the best grating of each cell, of full contrast.

    Returns:
      The amplitude of each filter at its own grating, the root mean square of both phases for
      complex cells; and the mean squared response of each cell to each grating.
    """
    size = kernels.in_phase.shape[-1]
    offset = np.arange(size) - size // 2
    angle = np.deg2rad(parameters.theta)[:, None, None]
    along = offset[:, None] * np.cos(angle) + offset * np.sin(angle)
    frequency = (parameters.sf / pixels_per_degree)[:, None, None]
    waves = np.exp(2j * np.pi * frequency * along).astype(np.complex64)
    waves = waves.reshape(len(parameters), -1)
    linear = [
        contrast[:, channel] * np.abs(waves @ phase.reshape(len(parameters), -1).T)
        for phase, channel in zip(
            kernels, (parameters.channel, parameters.channel_quadrature), strict=True
        )
    ]
    both = np.hypot(*linear) / math.sqrt(2.0)
    amplitude = np.where(is_complex, both, linear[0]).astype(np.float64)
    # The mean square of a rectified sinusoid is a quarter of the squared amplitude.
    squares = np.square(amplitude) / np.where(is_complex, 2.0, 4.0)
    return np.diag(amplitude).copy(), squares


def _blurred(maps: Responses, deviation: float, precision: Precision) -> Responses:
    """Blur maps with a Gaussian, as products of matrices."""
    number, height, width, cells = maps.shape
    rows, columns = (_matrix(side, deviation) for side in (height, width))

    def whole(maps: Responses) -> Responses:
        maps = jnp.einsum("ih,nhwc->niwc", rows, maps, precision=precision)
        return jnp.einsum("jw,niwc->nijc", columns, maps, precision=precision)

    # On a CPU, ``whole`` would transpose the maps. Here every axis is merged with one after it, so
    # a batch stays split over devices.
    def in_batches(maps: Responses) -> Responses:
        along_rows, along_columns = (
            jnp.broadcast_to(matrix, (count, *matrix.shape))
            for matrix, count in ((rows, number), (columns, number * height))
        )
        product = functools.partial(jnp.matmul, precision=precision)
        maps = product(along_rows, maps.reshape(number, height, width * cells))
        maps = product(along_columns, maps.reshape(number * height, width, cells))
        return maps.reshape(number, height, width, cells)

    return fast.by_platform(maps, cpu=in_batches, default=whole)


def _matrix(side: int, deviation: float) -> Float32[np.ndarray, "side side"]:
    return filter_matrix(side, gaussian_taps(deviation, math.ceil(3.0 * deviation)), "mirror")
