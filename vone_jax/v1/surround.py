"""Draws the surrounds of a bank from physiology, see ``normalization``.

A cell gets the pools with which a model of its size tuning has the suppression index and the
surround diameter that it draws. The model is that of Cavanaugh, Bair and Movshon (2002): the share
of Gaussians that a grating covers, in the receptive field and in the pools.
"""

from typing import NamedTuple

import jax
import numpy as np
import scipy
from jaxtyping import Float

from vone_jax import fast, prng
from vone_jax.v1 import distributions
from vone_jax.v1.gabor import GaborKernels, GaborParameters
from vone_jax.v1.normalization import (
    PerCell,
    SurroundNormalization,
    SurroundPools,
    half_octaves,
)

# The largest suppression index that is drawn. An index of 1 would take an infinite k.
_LARGEST_INDEX = 0.97
# The largest log k. With a larger k, a cell would saturate at a few percent of contrast. So some
# widths do not reach the index that a cell draws.
_LARGEST_LOG_STRENGTH = 3.0
# The narrowest ring relative to the receptive field.
_NARROWEST = 1.15
# Cells with a larger index count as suppressed.
_SUPPRESSED = 0.1
# Suppression is complete where the response is at most this many times that to the largest grating.
_COMPLETE = 1.05
# Diameter of the model relative to the diameter that is drawn. Experiments test diameters half an
# octave apart and report the first one with complete suppression. So the true one is smaller.
_EXTENT = 0.76
# The drive of a pool grows with this power of the share that a grating covers of the pool, because
# the edge of a small grating drives cells of other frequencies, too.
_GROWTH = 0.68
# Rounds in which the widths and strengths of rings are fitted.
_ROUNDS = 10
# Steps of a sequence that fills the unit square evenly: powers of the inverse of the plastic number
# (Roberts 2018, The unreasonable effectiveness of quasirandom sequences).
_STEPS = (0.7548776662466927, 0.5698402909980532)
# Radii of gratings, in degrees, in the model of size tuning. The largest is that of experiments.
_RADII = np.geomspace(0.05, 4.757, 60)[:, None]


def draw_surrounds(
    settings: SurroundNormalization,
    parameters: GaborParameters,
    kernels: GaborKernels,
    num_simple: int,
    pixels_per_degree: float,
    stride: int,
    gain: float,
    seed: int,
) -> SurroundPools:
    """Draw the surround of each cell of a bank.

    Args:
      settings: of the surrounds.
      parameters: of the filters.
      kernels: of the filters.
      num_simple: number of simple cells, which come first.
      pixels_per_degree: of the images.
      stride: distance of neighbouring positions in pixels.
      gain: response of a cell to a grating of full contrast, relative to the response of its filter
        to a grating of amplitude 1.
      seed: of the draws, unless the settings have one.
    """
    density = pixels_per_degree / stride
    is_complex = np.arange(len(parameters)) >= num_simple
    envelope = _envelopes(kernels) / pixels_per_degree
    field = np.where(is_complex, np.hypot(envelope, settings.pooling), envelope)

    weights = _circular(2.0 * np.deg2rad(parameters.theta), settings.orientation_tuning)
    drive = gain * _drive(parameters, kernels, is_complex, pixels_per_degree)
    centre_drive, centre_fields = _pooled(weights.centre @ weights.to_maps.T, drive, envelope)
    ring_drive, ring_fields = _pooled(weights.ring @ weights.to_maps.T, drive, envelope)

    def width(degrees: PerCell, limit: float) -> PerCell:
        return half_octaves(np.minimum(degrees, limit) * density) / density

    largest = settings.largest_extent
    centre = width(settings.centre_size * field, largest)
    saturation = _covered(np.hypot(centre, centre_fields)) ** _GROWTH / settings.c50
    tuning = SizeTuning(_covered(field), saturation, ring_fields)
    index, diameter = _draws(settings, field, seed if settings.seed is None else settings.seed)

    def hole_of(ring: PerCell) -> PerCell:
        return np.minimum(settings.ring_size * field, ring / np.sqrt(2.0))

    # The width and the strength depend on each other: each round corrects both.
    least = np.maximum(_NARROWEST * field, 0.5 / density)
    ring = np.clip(diameter / 4.0, least, largest)
    for _ in range(_ROUNDS):
        _, modelled, _ = tuning.fit(index, ring, hole_of(ring))
        ratio = np.clip(_EXTENT * diameter / modelled, 0.6, 1.6)
        ring = np.clip(ring * ratio, least, largest)
    ring = np.maximum(width(ring, largest), 0.5 / density)
    hole = width(hole_of(ring), largest)
    strength, _, factors = tuning.fit(index, ring, hole)

    hole_share = np.square(hole / ring)
    outer = strength / (1.0 - hole_share) / ring_drive
    # Rounded again, so that equal deviations are equal numbers.
    centre, ring, hole = (half_octaves(degrees * density) for degrees in (centre, ring, hole))
    used = np.unique(np.concatenate([centre, ring, hole]))

    def pool(deviation: PerCell, scale: PerCell) -> Float[np.ndarray, "deviations cells"]:
        return np.where(used[:, None] == deviation, scale, 0.0)

    rings = pool(ring, outer) - pool(hole, hole_share * outer)
    return SurroundPools(
        settings=settings,
        density=density,
        suppression_index=index,
        surround_diameter=diameter,
        num_simple=num_simple,
        deviations=tuple(used.tolist()),
        to_maps=weights.to_maps.astype(np.float32),
        total=weights.centre[0].astype(np.float32),
        centre=pool(centre, 1.0 / settings.c50 / centre_drive).astype(np.float32),
        ring=(rings[:, None] * weights.ring.T).astype(np.float32),
        factors=factors.astype(np.float32),
    )


class SizeTuning(NamedTuple):
    """A model of the size tuning of cells, at ``_RADII``. All sizes are in degrees.

    Attributes:
      response: without normalisation, relative to the largest.
      centre: the centre's part P of the normalisation.
      around: standard deviation of the receptive fields of the cells in the ring.
    """

    response: Float[np.ndarray, "radii cells"]
    centre: Float[np.ndarray, "radii cells"]
    around: PerCell

    def fit(self, index: PerCell, ring: PerCell, hole: PerCell) -> tuple[PerCell, PerCell, PerCell]:
        """Find the strength of a ring by bisection, from the suppression index and the widths.

        Returns:
          The strength; the smallest diameter beyond the peak with complete suppression; and the
          factor that brings the largest response to 1.
        """
        share = np.square(hole / ring)
        outer, inner = (_covered(np.hypot(width, self.around)) for width in (ring, hole))
        surround = ((outer - share * inner) / (1.0 - share)) ** _GROWTH

        def curve_of(log_strength: PerCell) -> Float[np.ndarray, "radii cells"]:
            ring = np.exp(log_strength) * surround
            return self.response * self.centre / (1.0 + self.centre**2 + ring**2)

        low, high = np.full_like(index, -10.0), np.full_like(index, _LARGEST_LOG_STRENGTH)
        for _ in range(25):
            middle = (low + high) / 2.0
            curve = curve_of(middle)
            less = 1.0 - curve[-1] / curve.max(axis=0) < index
            low, high = np.where(less, middle, low), np.where(less, high, middle)
        curve = curve_of(high)
        beyond = np.arange(len(curve))[:, None] > curve.argmax(axis=0)
        complete = beyond & (curve <= _COMPLETE * curve[-1])
        first = np.where(complete.any(axis=0), complete.argmax(axis=0), -1)
        return np.exp(high), 2.0 * _RADII[first, 0], 1.0 / curve.max(axis=0)


def _covered(deviation: PerCell) -> Float[np.ndarray, "radii cells"]:
    """The share of a Gaussian that disks of ``_RADII`` cover."""
    return 1.0 - np.exp(-0.5 * np.square(_RADII / deviation))


def _draws(settings: SurroundNormalization, field: PerCell, seed: int) -> tuple[PerCell, PerCell]:
    """Draw the suppression index and the surround diameter, in degrees, of each cell.

    Draws are quasi-random: small and large values are spread evenly over cells in the order of
    their receptive fields. So every bank has the published distributions, whatever the seed, which
    decides which cell gets which value.
    """
    with jax.ensure_compile_time_eval():
        key = prng.stream(jax.random.key(seed), "surround")
        # The words of ``jax.random.bits``, but independent of JAX's settings, as networks must be.
        left, right = jax.jit(fast.random_words, static_argnums=1)(key, (2 + len(field),))
        words = np.asarray(left ^ right)
    uniform = (words + 0.5) / 2.0**32
    # Fields of the same size are in random order.
    rank = np.argsort(np.lexsort((uniform[2:], field)))
    size = scipy.special.ndtri((rank + 0.5) / len(field))

    def mixed(correlation: float, shift: float, step: float) -> PerCell:
        independent = scipy.special.ndtri(np.clip((shift + step * rank) % 1.0, 1e-6, 1.0 - 1e-6))
        return correlation * size + np.sqrt(1.0 - correlation**2) * independent

    strength = mixed(settings.strength_correlation, uniform[0], _STEPS[0])
    index = distributions.SUPPRESSION_INDEX.inverse_cdf(_quantiles(strength))
    extent = mixed(settings.extent_correlation, uniform[1], _STEPS[1])
    quantile = np.empty_like(extent)
    # The published diameters are those of suppressed cells.
    for group in (index > _SUPPRESSED, index <= _SUPPRESSED):
        quantile[group] = _quantiles(extent[group])
    diameter = distributions.SURROUND_DIAMETER.inverse_cdf(quantile)
    return np.clip(index, 1e-3, _LARGEST_INDEX), diameter


def _quantiles(values: PerCell) -> PerCell:
    """The quantile of each value among all, (rank + 1/2) / number."""
    return (np.argsort(np.argsort(values)) + 0.5) / len(values)


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
) -> Float[np.ndarray, "gratings cells"]:
    """The mean response of each cell to the optimal grating of each cell, of amplitude 1."""
    size = kernels.in_phase.shape[-1]
    offset = np.arange(size) - size // 2
    angle = np.deg2rad(parameters.theta)[:, None, None]
    along = offset[:, None] * np.cos(angle) + offset * np.sin(angle)
    frequency = (parameters.sf / pixels_per_degree)[:, None, None]
    waves = np.exp(2j * np.pi * frequency * along).astype(np.complex64)
    waves = waves.reshape(len(parameters), -1)
    linear = [np.abs(waves @ phase.reshape(len(parameters), -1).T) for phase in kernels]
    # The mean of a rectified sinusoid is its amplitude over pi.
    return np.where(is_complex, np.hypot(*linear) / 2.0, linear[0] / np.pi).astype(np.float64)


def _pooled(
    weights: Float[np.ndarray, "cells cells"],
    drive: Float[np.ndarray, "cells cells"],
    envelope: PerCell,
) -> tuple[PerCell, PerCell]:
    """The drive of each cell's pool at its optimal grating, and the envelope of what it pools."""
    weighted = weights * drive
    total = weighted.sum(axis=1)
    return total, np.sqrt(total / (weighted @ np.square(1.0 / envelope)))


class _Weights(NamedTuple):
    """Weights of cells in pools, by way of few maps.

    The weights are ``centre @ to_maps.T`` and ``ring @ to_maps.T``.
    """

    to_maps: Float[np.ndarray, "cells maps"]
    centre: Float[np.ndarray, "cells maps"]
    ring: Float[np.ndarray, "cells maps"]


def _circular(angle: PerCell, depth: float) -> _Weights:
    """Weights 1 in the centre and 1 + depth cos(difference of angles) in the ring."""
    to_maps = np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle)], axis=1)
    centre = np.tile([1.0, 0.0, 0.0], (len(angle), 1))
    return _Weights(to_maps, centre, to_maps * [1.0, depth, depth])
