"""Divisive normalisation of V1 with learned weights: two published rules.

``SurroundNormalization`` (``normalization.py``) is fixed by physiology. The rules here are trained
with the network behind V1. They act on the responses with noise, in front of the bottleneck, as
in Cirincione et al. (2022). Parameters that must be positive are learned as logarithms or squares,
so that no step of training leaves the range of a rule.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import lax
from jaxtyping import Array, Float, Float32

from vone_jax import arguments, fast
from vone_jax.arguments import Positive
from vone_jax.v1.images import HIGHEST

Responses = Float32[Array, "n h w channels"]
PerPair = Float[Array, "channels channels"]
# ``flax.linen.Module.param``: name, initialiser and its arguments -> parameter.
Param = Callable[..., Any]

# The number of channels whose kernels exist at the same time.
_AT_A_TIME = 8


@dataclasses.dataclass(frozen=True)
class OrientedPools:
    """The rule of VOneNetDN: each channel is divided by pools of all channels.

    See ``divide_by_oriented_pools``. Each pair of channels has an angle, two widths and a strength,
    so 512 channels have 1,048,576 parameters. They start as published: angles uniform in 0 to pi,
    widths uniform in 2 to 6 positions, strengths absolute values of standard normals.

    Reference: Cirincione et al. (2022), Implementing divisive normalization in CNNs improves
    robustness to common image corruptions, SVRHM workshop.

    Attributes:
      size: side of the pools in positions, odd.

    Raises:
      ValueError: if the size is out of range.
    """

    size: int = 25

    def __post_init__(self):
        arguments.fields(self)
        if self.size % 2 == 0:
            raise ValueError(f"size must be odd, got {self.size}")

    def __call__(self, param: Param, responses: Responses) -> Responses:
        """Make or read the parameters, and normalise."""
        pairs = (responses.shape[-1],) * 2

        def log_width(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return jnp.log(jax.random.uniform(key, shape, jnp.float32, 2.0, 6.0))

        angle = param("angle", nn.initializers.uniform(np.pi, jnp.float32), pairs)
        along, across = (jnp.exp(param(f"log_{n}", log_width, pairs)) for n in ("along", "across"))
        strength = param("strength", nn.initializers.normal(1.0, jnp.float32), pairs)
        return divide_by_oriented_pools(responses, angle, along, across, strength, self.size)


@dataclasses.dataclass(frozen=True)
class GDN:
    """Generalised divisive normalisation: channels, divided by the root of pooled squares.

    See ``divide_by_pooled_squares``. All parameters are squares of what is learned.

    Reference: Balle, Laparra, Simoncelli (2016), Density modeling of images using a generalized
    normalization transformation, ICLR, arXiv:1511.06281.

    Attributes:
      gamma: start value of a channel's weight in its own pool, > 0. Its weight in the pools of
        others starts at a thousandth of it, since a square of 0 would never be learned.

    Raises:
      ValueError: if the field is out of range.
    """

    gamma: Positive = 0.1

    def __post_init__(self):
        arguments.fields(self)

    def __call__(self, param: Param, responses: Responses) -> Responses:
        """Make or read the parameters, and normalise."""
        channels = responses.shape[-1]

        def weights(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            own, other = jnp.float32(1.0), jnp.float32(1e-3)
            return jnp.sqrt(self.gamma * jnp.where(jnp.eye(channels, dtype=bool), own, other))

        beta = param("root_of_beta", nn.initializers.constant(1.0, jnp.float32), (channels,))
        gamma = param("root_of_gamma", weights, (channels, channels))
        return divide_by_pooled_squares(responses, 1e-6 + jnp.square(beta), jnp.square(gamma))


Rule = OrientedPools | GDN


class LearnedNormalization(nn.Module):
    """A rule as a module, whose parameters are trained with the network."""

    rule: Rule

    @nn.compact
    def __call__(self, responses: Responses) -> Responses:
        """Return normalised responses."""
        return self.rule(self.param, responses)


def divide_by_oriented_pools(
    responses: Responses,
    angle: PerPair,
    along: PerPair,
    across: PerPair,
    strength: PerPair,
    size: int,
) -> Responses:
    """Divide channels by pools of all channels around a position.

    With x the responses, * a correlation with zero padding and max(x, 0) the rectified responses,

        y_l = x_l / (1 + sum_k G_lk * max(x_k, 0)),
        G(u, v) = |a| / (2 pi p s) exp(-(u_r^2 / p^2 + v_r^2 / s^2) / 2),
        u_r = u cos t + v sin t,   v_r = -u sin t + v cos t

    (Cirincione et al. 2022, from the authors' code), where u counts rows and v columns. With dense
    kernels, 512 channels with pools of 25 x 25 need 655 MB and 336 GFLOP for a map of 32 x 32.
    Here correlations are products of spectra, and the kernels of only a few channels exist at a
    time. The backward pass computes the kernels again.

    Args:
      responses: of the channels.
      angle: t of each pair [l, k], in radians.
      along: p of each pair, in positions, > 0.
      across: s of each pair, in positions, > 0.
      strength: a of each pair.
      size: side of the kernels in positions, odd.
    """
    number, height, width, channels = responses.shape
    reach = size // 2
    # A transform wraps around, so as many zeros follow the map as a kernel reaches. If a kernel is
    # larger than map and zeros together, it loses only weights that meet no response.
    sides = tuple(int(scipy.fft.next_fast_len(side + reach, real=True)) for side in (height, width))
    spectra = jnp.fft.rfft2(fast.relu(responses), s=sides, axes=(1, 2))
    offset = jnp.arange(size, dtype=jnp.float32) - reach

    @jax.checkpoint
    def pools(pairs: tuple[jax.Array, ...]) -> jax.Array:
        angle, along, across, strength = (values[:, :, None, None] for values in pairs)
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        row, column = offset[None, None, :, None], offset[None, None, None]
        squares = jnp.square((row * cosine + column * sine) / along)
        squares += jnp.square((column * cosine - row * sine) / across)
        scale = jnp.abs(strength) / (2.0 * jnp.pi * along * across)
        kernels = jnp.fft.rfft2(scale * jnp.exp(-0.5 * squares), s=sides)
        products = jnp.einsum("nuvk,lkuv->nuvl", spectra, kernels.conj(), precision=HIGHEST)
        summed = jnp.fft.irfft2(products, s=sides, axes=(1, 2))
        # A kernel begins ``reach`` positions before the response that it belongs to.
        return jnp.roll(summed, (reach, reach), axis=(1, 2))[:, :height, :width]

    together = next(n for n in range(min(_AT_A_TIME, channels), 0, -1) if channels % n == 0)
    cut = [v.reshape(-1, together, channels) for v in (angle, along, across, strength)]
    pooled = lax.map(pools, tuple(cut))
    pooled = jnp.moveaxis(pooled, 0, 3).reshape(number, height, width, channels)
    return responses / (1.0 + pooled)


def divide_by_pooled_squares(
    responses: Responses, beta: Float[Array, " channels"], gamma: PerPair
) -> Responses:
    """Divide channels by the root of pooled squares, at the same position.

    y_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j^2) (Balle et al. 2016). ``beta`` is > 0, ``gamma``
    >= 0.
    """
    pooled = jnp.matmul(jnp.square(responses), gamma.T, precision=HIGHEST)
    return responses / jnp.sqrt(beta[None, None, None] + pooled)
