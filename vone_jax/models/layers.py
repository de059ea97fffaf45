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

from vone_jax import fast

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
    features: int,
    kernel: int,
    stride: int = 1,
    *,
    name: str,
    dtype: Dtype = jnp.float32,
    **fields: Any,
) -> nn.Conv:
    """An ``nn.Conv`` with square kernels.

    Unless ``fields`` say otherwise, it has zero padding kernel // 2 on every side, no bias and He
    initialisation.
    """
    # 'SAME' pads asymmetrically at stride 2; PyTorch networks pad the same on both sides.
    usual = {"padding": kernel // 2, "use_bias": False, "kernel_init": he_normal_fan_out}
    return nn.Conv(
        features,
        (kernel, kernel),
        (stride, stride),
        dtype=dtype,
        conv_general_dilated=fast.convolve,
        name=name,
        **(usual | fields),
    )


# The initialisers of transformers and ConvNeXts. timm truncates at 100 standard deviations.
normal_002 = nn.initializers.normal(0.02)


class LayerNorm(nn.Module):
    """Layer normalisation over channels, with the constant of transformers.

    Attributes:
      dtype: type of the output. It is computed in float32.
    """

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*axes c"]) -> Float[Array, "*axes c"]:
        """Normalise over the last axis."""
        shape = (*[1] * (x.ndim - 1), x.shape[-1])
        scale = self.param("scale", nn.initializers.ones, shape[-1:], jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:], jnp.float32)
        x = x.astype(jnp.float32)
        x -= jnp.mean(x, axis=-1, keepdims=True)
        # E[x^2] - E[x]^2 would lose digits where the mean is large.
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)
        y = x * inverse * jnp.reshape(scale, shape) + jnp.reshape(bias, shape)
        return y.astype(self.dtype)


# Factors of residual branches with a layer scale before training.
LAYER_SCALE = 1e-6


def dense(features: int, *, name: str, dtype: Dtype = jnp.float32) -> nn.Dense:
    """A linear layer of a transformer or a ConvNeXt."""
    return nn.Dense(features, kernel_init=normal_002, dtype=dtype, name=name)


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The exact GELU, x times the normal distribution function. JAX's default approximates it."""
    return nn.gelu(x, approximate=False)


class DropPathBackEnd(nn.Module, kw_only=True):
    """The base class of back ends with stochastic depth (Huang et al. 2016, arXiv:1603.09382).

    They are called with ``(x, train, keys)``: ``keys`` is None in evaluation, and otherwise has one
    key for each example, from which ``path_scales`` draws.

    Attributes:
      drop_path: probability that an example skips the last residual branch in training. It grows
        linearly from 0 in the first block.
    """

    drop_path: float = 0.0


def path_scales(
    keys: Key[Array, " n"] | None, drop_path: float, blocks: int, branches: int
) -> Float[Array, "n blocks branches"] | None:
    """Draw the factors of the residual branches of each example: 0, or 1 / (1 - rate).

    The rate of block i is i / (blocks - 1) of ``drop_path``. The factors of an example depend on
    its key alone. Without keys, the factors are None: all are 1.
    """
    if keys is None:
        return None
    kept = 1.0 - np.linspace(0.0, drop_path, blocks, dtype=np.float32)[None, :, None]
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (blocks, branches)))(keys)
    return jnp.where(uniform < kept, 1.0 / kept, 0.0)


def scaled(
    branch: Float[Array, "n ..."], scales: Float[Array, " n"] | None
) -> Float[Array, "n ..."]:
    """Multiply the residual branch of each example by its factor, see ``path_scales``."""
    if scales is None:
        return branch
    return branch * scales.astype(branch.dtype).reshape(-1, *[1] * (branch.ndim - 1))


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
      pool: whether a max pool follows.
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
    unbiased one. Statistics are float32 and, under ``jit`` over a mesh, those of the global batch.
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
        if not train:
            gain = scale * jax.lax.rsqrt(running_var.value + self.eps)
            y = _channels(gain) * (x.astype(jnp.float32) - _channels(running_mean.value))
            return (y + _channels(bias)).astype(self.dtype)
        normalised: Any = batch_norm(x, scale, bias, running_mean.value, self.eps)
        y, mean, var = normalised
        if not self.is_initializing():
            count = x.size // x.shape[-1]
            unbiased = var * (count / max(count - 1, 1))
            running_mean.value = 0.9 * running_mean.value + 0.1 * mean
            running_var.value = 0.9 * running_var.value + 0.1 * unbiased
        return y.astype(self.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def batch_norm(
    x: Maps,
    scale: jax.Array | np.ndarray,
    bias: jax.Array | np.ndarray,
    estimate: jax.Array | np.ndarray,
    eps: float,
) -> tuple[Maps, jax.Array, jax.Array]:
    """Normalise by batch statistics; return the float32 result, the mean and the variance.

    The forward and the backward pass each read the batch once, for two sums per channel that
    devices exchange together. The variance is E[(x - s)^2] - E[x - s]^2, which loses digits if the
    mean is many standard deviations away from s. On CPUs s is the mean of the pixels in the middle.
    On TPUs and GPUs it is the estimate, so that the sums stay part of the convolution before:
    waiting for its pixels makes a training step of ResNet-50 a quarter longer on a TPU.

    Args:
      x: (N, H, W, C).
      scale: multiplies the normalised values, float32 (C,), like ``bias`` and ``estimate``.
      bias: added to the scaled values.
      estimate: of the mean, such as a running mean. No gradient flows to it.
      eps: added to the variance.
    """
    shift = fast.by_platform(x, estimate, cpu=_middle, default=lambda _, estimate: estimate)
    away = x.astype(jnp.float32) - _channels(shift)
    mean, square = (jnp.mean(values, axis=(0, 1, 2)) for values in (away, jnp.square(away)))
    var = fast.relu(square - jnp.square(mean))
    gain = scale * jax.lax.rsqrt(var + eps)
    return (away - _channels(mean)) * _channels(gain) + _channels(bias), mean + shift, var


def _middle(x: Maps, _: jax.Array | np.ndarray) -> jax.Array:
    return jnp.mean(x[:, x.shape[1] // 2, x.shape[2] // 2].astype(jnp.float32), axis=0)


@batch_norm.defjvp
def _(eps, primals, tangents):
    x, scale, bias, estimate = primals
    of_x, of_scale, of_bias, _ = tangents
    y, mean, var = batch_norm(x, scale, bias, estimate, eps)
    inverse = jax.lax.rsqrt(var + eps)
    normal = (x.astype(jnp.float32) - _channels(mean)) * _channels(inverse)
    of_x = of_x.astype(jnp.float32)
    of_mean, along = (jnp.mean(values, axis=(0, 1, 2)) for values in (of_x, of_x * normal))
    # In this order the transpose has two sums over the batch, which serve all three gradients.
    gain = scale * inverse
    of_y = of_x * _channels(gain) + normal * _channels(of_scale - gain * along)
    of_y += _channels(of_bias - gain * of_mean)
    return (y, mean, var), (of_y, of_mean, 2 * along / inverse)


def _channels(values: Float[Array | np.ndarray, " c"]) -> Float[Array, "1 1 1 c"]:
    return jnp.asarray(values)[None, None, None]


def max_pool(x: Maps, padding: int) -> Float[Array, "n h2 w2 c"]:
    """The maximum over 3x3 windows at stride 2. Padding is never the maximum."""
    # Flax annotates padding as a string, but documents pairs.
    pairs: Any = [(padding, padding)] * 2
    return nn.max_pool(x, (3, 3), (2, 2), pairs)


def adaptive_average_pool(x: Maps, size: int) -> Float[Array, "n {size} {size} c"]:
    """Average over a size x size grid of windows, as PyTorch's adaptive pooling does.

    Window i of ``size`` over H positions is floor(i H / size) to ceil((i + 1) H / size).

    Raises:
      ValueError: if there are no positions.
    """
    if 0 in x.shape[1:3]:
        raise ValueError("images are too small for this network's pools; take a larger image_size")
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
