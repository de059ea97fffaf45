"""Divisive normalisation of V1 with learned weights: three published rules.

``SurroundNormalization`` (``normalization.py``) is fixed by physiology. The rules here are trained
with the network behind V1. They act on the responses with noise, in front of the bottleneck, as
in Cirincione et al. (2022). Parameters that must be positive are learned as logarithms or squares,
so that no step of training leaves the range of a rule.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import lax
from jaxtyping import Array, Float, Float32

from vone_jax import arguments
from vone_jax.arguments import Positive

Responses = Float32[Array, "n h w channels"]
PerPair = Float[Array, "channels channels"]
Scalar = Float[Array, ""] | float
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
class NeighbouringChannels:
    """The rule of Miller et al.: squared responses, divided by those of nearby channels.

    See ``divide_by_neighbours``. ``spread``, ``alpha``, ``beta`` and ``k`` are start values of four
    learned numbers. The reach of the pool follows from the start value of ``spread`` and is fixed.
    In the original it follows the learned value; here each change would compile the program again.

    Reference: Miller, Chung, Miller (2022), Divisive feature normalization improves image
    recognition performance in AlexNet, ICLR.

    Attributes:
      spread: length in channels over which weights fall by a factor e, > 0.
      alpha: strength of the pool, > 0. The authors take 1 in front of a batch norm.
      beta: power of the divisor, > 0.
      k: factor of the divisor, > 0.

    Raises:
      ValueError: if a field is out of range.
    """

    spread: Positive = 2.0
    alpha: Positive = 0.1
    beta: Positive = 1.0
    k: Positive = 1.0

    def __post_init__(self):
        arguments.fields(self)

    @property
    def reach(self) -> int:
        """The number of channels on either side: a pool has 8 spreads, rounded up to be odd."""
        return int(np.ceil(8.0 * self.spread)) // 2

    def __call__(self, param: Param, responses: Responses) -> Responses:
        """Make or read the parameters, and normalise."""
        values = {
            name: jnp.exp(
                param(f"log_{name}", nn.initializers.constant(np.log(start), jnp.float32), ())
            )
            for name, start in dataclasses.asdict(self).items()
        }
        return divide_by_neighbours(responses, reach=self.reach, **values)


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


Rule = OrientedPools | NeighbouringChannels | GDN


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
    spectra = jnp.fft.rfft2(jax.nn.relu(responses), s=sides, axes=(1, 2))
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
        products = jnp.einsum("nuvk,lkuv->nuvl", spectra, kernels.conj())
        summed = jnp.fft.irfft2(products, s=sides, axes=(1, 2))
        # A kernel begins ``reach`` positions before the response that it belongs to.
        return jnp.roll(summed, (reach, reach), axis=(1, 2))[:, :height, :width]

    together = next(n for n in range(min(_AT_A_TIME, channels), 0, -1) if channels % n == 0)
    cut = [v.reshape(-1, together, channels) for v in (angle, along, across, strength)]
    pooled = lax.map(pools, tuple(cut))
    pooled = jnp.moveaxis(pooled, 0, 3).reshape(number, height, width, channels)
    return responses / (1.0 + pooled)


def divide_by_neighbours(
    responses: Responses, spread: Scalar, alpha: Scalar, beta: Scalar, k: Scalar, reach: int
) -> Responses:
    """Divide the squares of channels by those of nearby channels, at the same position.

    With x the rectified responses and J the reach,

        y_c = x_c^2 / (k (1 + alpha / spread sum_{|j| <= J} x_{c+j}^2 exp(-|j| / spread)))^beta

    (Miller et al. 2022). Channels before the first and after the last one count as 0.
    """
    squares = jnp.square(jax.nn.relu(responses))
    channel = np.arange(responses.shape[-1], dtype=np.float32)
    distance = np.abs(channel[:, None] - channel)
    weights = jnp.where(distance <= reach, jnp.exp(-distance / spread), 0.0)
    pooled = 1.0 + alpha / spread * _product(squares, weights)
    # Computed as a power, the divisor would overflow long before the result does.
    return squares * jnp.exp(-beta * jnp.log(k * pooled))


def divide_by_pooled_squares(
    responses: Responses, beta: Float[Array, " channels"], gamma: PerPair
) -> Responses:
    """Divide channels by the root of pooled squares, at the same position.

    y_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j^2) (Balle et al. 2016). ``beta`` is > 0, ``gamma``
    >= 0.
    """
    return responses / jnp.sqrt(beta[None, None, None] + _product(jnp.square(responses), gamma.T))


_product = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
