"""Layers with PyTorch's conventions, which the published networks were trained with."""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from vone_jax.fast import convolve

Dtype = Any
# Images in [0, 1], as a network takes them.
Images = Float[Array, "n h w c"] | Float[np.ndarray, "n h w c"]
# One key per example, or one key that numbers the examples by position.
NoiseKey = Key[Array, " n"] | Key[Array, ""]
# The activations of a layer in the order of images: examples, rows, columns, channels.
Maps = Float[Array, "n h w c"]
# The activations of a part of a network by name, in processing order.
Activations = dict[str, Float[Array, "n ..."]]

# He et al. (2015), fan out: N(0, sqrt(2 / (k^2 * output channels))).
he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# PyTorch's default for convolutions and linear layers: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
torch_uniform = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


def torch_bias(fan_in: int) -> Callable[..., jax.Array]:
    """The initialiser of PyTorch's biases, U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = 1.0 / math.sqrt(fan_in)
    return functools.partial(jax.random.uniform, minval=-bound, maxval=bound)


def conv(
    features: int, kernel: int, stride: int = 1, *, name: str, dtype: Dtype = jnp.float32
) -> nn.Conv:
    """A convolution without bias, zero padding kernel // 2 on every side, He initialisation."""
    # 'SAME' pads asymmetrically at stride 2; PyTorch networks pad the same on both sides.
    return nn.Conv(
        features,
        (kernel, kernel),
        (stride, stride),
        padding=kernel // 2,
        use_bias=False,
        kernel_init=he_normal_fan_out,
        dtype=dtype,
        conv_general_dilated=convolve,
        name=name,
    )


def linear(features: int, fan_in: int, *, name: str, dtype: Dtype = jnp.float32) -> nn.Dense:
    """A linear layer with PyTorch's initialisation."""
    bias = torch_bias(fan_in)
    return nn.Dense(features, kernel_init=torch_uniform, bias_init=bias, dtype=dtype, name=name)


class Stem(nn.Module):
    """The first convolution of a base network, and a 3x3 max pool of stride 2 if ``pool``.

    Attributes:
      features: output channels.
      kernel: side of the kernel in pixels.
      stride: of the convolution.
      pool: the max pool follows.
    """

    features: int = 64
    kernel: int = 7
    stride: int = 2
    pool: bool = True
    dtype: Dtype = jnp.float32


class BatchNorm(nn.Module):
    """Batch normalisation with PyTorch's constants.

    Attributes:
      dtype: type of the output.
      eps: added to the variance.

    Unlike in ``nn.BatchNorm``, running values move by 0.1 per step, and the running variance is the
    unbiased one. The variance is computed in two passes. Statistics are float32 and, under ``jit``
    over a mesh, those of the global batch.
    """

    dtype: Dtype = jnp.float32
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> Maps:
        """Normalise over all but the last axis; with batch statistics if ``train``."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        x = x.astype(jnp.float32)
        if train:
            mean = jnp.mean(x, axis=(0, 1, 2))
            var = jnp.mean(jnp.square(x - mean[None, None, None]), axis=(0, 1, 2))
            if not self.is_initializing():
                count = x.size // x.shape[-1]
                unbiased = var * (count / max(count - 1, 1))
                running_mean.value = 0.9 * running_mean.value + 0.1 * mean
                running_var.value = 0.9 * running_var.value + 0.1 * unbiased
        else:
            mean, var = running_mean.value, running_var.value
        gain = scale * jax.lax.rsqrt(var + self.eps)
        y = (x - mean[None, None, None]) * gain[None, None, None] + bias[None, None, None]
        return y.astype(self.dtype)


def max_pool(x: Maps, padding: int) -> Float[Array, "n h2 w2 c"]:
    """The maximum over 3x3 windows at stride 2. Padding is never the maximum."""
    # Flax annotates padding as a string, but documents pairs.
    pairs: Any = [(padding, padding)] * 2
    return nn.max_pool(x, (3, 3), (2, 2), pairs)


def adaptive_average_pool(x: Maps, size: int) -> Float[Array, "n {size} {size} c"]:
    """Average over a size x size grid of windows, as PyTorch's adaptive pooling does.

    Window i of ``size`` over H positions is floor(i H / size) to ceil((i + 1) H / size).
    """
    rows, cols = (jnp.asarray(_pooling_matrix(n, size), x.dtype) for n in x.shape[1:3])
    return jnp.einsum("ih,nhwc,jw->nijc", rows, x, cols)


def _pooling_matrix(length: int, size: int) -> np.ndarray:
    weights = np.zeros((size, length), np.float32)
    for i in range(size):
        start, stop = i * length // size, -((-(i + 1) * length) // size)
        weights[i, start:stop] = 1.0 / (stop - start)
    return weights


def global_average_pool(x: Maps) -> Float[Array, "n c"]:
    """The mean over positions, computed in float32, in the type of ``x``."""
    return jnp.mean(x.astype(jnp.float32), axis=(1, 2)).astype(x.dtype)
