"""Push-pull inhibition: the response to a kernel, less that to the kernel of opposite contrast.

    out = relu(w * x) - s relu(mean(w' * x)),   w' = -w + (max w + min w)

w' is the complement of the kernel w, with the extrema of each output channel. The mean is over the
positions around, and does not count the padding.

Reference:
  Bennabhaktula, Alegre, Strisciuglio and Azzopardi, 2024, arXiv:2408.04077 (PushPull-Net), from the
  push-pull inhibition of simple cells in V1.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vone_jax import arguments, fast
from vone_jax.v1 import VOneBlockConfig

Maps = Float[Array, "n h w c"]
Responses = Float[Array, "n _ _ channels"]


def push_pull_responses(
    images: Maps,
    kernel: Float[Array, "k k c channels"],
    strength: float | Float[Array, " channels"] = 1.0,
    average: int = 3,
    stride: int = 1,
    read: Float[np.ndarray, "c channels"] | None = None,
) -> Responses:
    """Return the responses of push-pull units.

    Args:
      images: of any range.
      kernel: of the push, with an odd side k. The zero padding is k // 2.
      strength: s, the factor of the inhibition, >= 0.
      average: side of the mean over responses of the pull in positions, odd; 1 is no mean.
      stride: of both convolutions, in pixels.
      read: 1 where an output channel reads an input channel, else 0; its complement then is over
        these inputs. Default: each reads all.
    """
    size, _, channels, features = kernel.shape
    padding, precision = [(size // 2, size // 2)] * 2, "highest"
    push = fast.convolve(images, kernel, (stride, stride), padding, precision=precision)
    reads = np.ones((channels, features)) if read is None else read
    outside = np.broadcast_to(reads == 0, kernel.shape)
    extrema = (jnp.where(outside, -jnp.inf, kernel), jnp.where(outside, jnp.inf, kernel))
    offset = jnp.max(extrema[0], (0, 1, 2)) + jnp.min(extrema[1], (0, 1, 2))
    # The complement is -w and a constant, so its response is this constant times the sum over the
    # window, less the push: a second convolution is not needed.
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    around = [(0, 0), *padding, (0, 0)]
    total = jax.lax.reduce_window(images, 0.0, jax.lax.add, window, strides, around)
    constants = jnp.asarray(reads, kernel.dtype) * offset[None]
    pull = jnp.einsum("nhwc,cf->nhwf", total, constants, precision=precision) - push
    if average > 1:
        pull = nn.avg_pool(pull, (average, average), padding="SAME", count_include_pad=False)
    factors = jnp.reshape(jnp.asarray(strength, push.dtype), (1, 1, 1, -1))
    return fast.relu(push) - factors * fast.relu(pull)


def _check(module: "PushPull | PushPullV1") -> None:
    """Check the fields of a module, and that its windows have a middle."""
    arguments.fields(module)
    for name in ("kernel_size", "average"):
        value = getattr(module, name, 1)
        if value % 2 == 0:
            raise ValueError(f"{name} must be odd, got {value}")


def _strength(module: nn.Module, fixed: float | None, channels: int) -> float | jax.Array:
    """The strength of a module: the given one, or one for each channel that is trained."""
    if fixed is not None:
        return fixed
    return module.param("strength", nn.initializers.uniform(1.0), (channels,), jnp.float32)


class PushPull(nn.Module):
    """A trained push-pull layer in place of the first convolution, batch norm, ReLU and a pool.

    Attributes:
      channels: of the layer.
      kernel_size: side of the kernels in pixels, odd.
      stride: of the convolutions.
      average: side of the mean over the pull, odd; 3 and 5 are published.
      strength: of the inhibition, >= 0; None for one for each channel, which is trained, from
        uniform draws in [0, 1] on.
      pool: whether a 3x3 max pool of stride 2 follows.
    """

    channels: int = 64
    kernel_size: int = 7
    stride: int = 2
    average: int = 3
    strength: float | None = 1.0
    pool: bool = False

    def __post_init__(self):
        _check(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> dict[str, Responses]:
        """The layers ``push_pull`` and ``stem``, which ends in a rectification."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.channels)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape, jnp.float32)
        strength = _strength(self, self.strength, self.channels)
        inhibited = push_pull_responses(
            x.astype(jnp.float32), kernel, strength, self.average, self.stride
        ).astype(x.dtype)
        stem = fast.relu(
            nn.BatchNorm(not train, momentum=0.9, dtype=x.dtype, name="norm")(inhibited)
        )
        if self.pool:
            # Rows and columns of zeros change no maximum of responses that are never negative.
            stem = jnp.pad(stem, [(0, 0), (1, 1), (1, 1), (0, 0)])
            stem = nn.max_pool(stem, (3, 3), (2, 2))
        return {"push_pull": inhibited, "stem": stem}


class PushPullV1(nn.Module):
    """Push-pull over the fixed Gabor bank of V1, and a trained 1x1 bottleneck.

    Where the extrema of a Gabor kernel are opposite, the pull is the same filter in antiphase: the
    inhibition of a simple cell by the cell of opposite contrast. Elsewhere the pull also sees the
    mean luminance of its window, by the constant max w + min w.

    Attributes:
      v1: the bank: simple cells alone, without noise and normalisation. Its ``k_exc`` is the gain.
        The images are normalised by ``mean`` and ``std`` of the network.
      channels: of the bottleneck, those that the back end reads.
      average: as in ``PushPull``.
      strength: as in ``PushPull``.
    """

    signed = True
    v1: VOneBlockConfig
    channels: int = 64
    average: int = 3
    strength: float | None = 1.0

    def __post_init__(self):
        _check(self)
        unfit = [name for name in ("noise", "normalization") if getattr(self.v1, name) is not None]
        unfit += [name for name in ("complex_channels", "tuned") if getattr(self.v1, name)]
        if unfit:
            raise ValueError(
                "v1 must have simple cells alone (complex_channels=0), noise=None, "
                f"normalization=None and tuned=False, got {unfit[0]}="
                f"{getattr(self.v1, unfit[0])!r}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> dict[str, Responses]:
        """The layers ``v1``, of the cells, and ``bottleneck``."""
        channels = self.v1.in_channels
        if x.shape[-1] != channels:
            raise ValueError(f"v1 reads {channels} channels of images, got {x.shape[-1]}")
        read = (np.arange(channels)[:, None] == self.v1.gabor_parameters().channel) * 1.0
        kernels = self.v1.k_exc * self.v1.gabor_kernels().in_phase.transpose(1, 2, 0)[:, :, None]
        strength = _strength(self, self.strength, self.v1.num_channels)
        cells = push_pull_responses(
            x.astype(jnp.float32),
            jnp.asarray(kernels * read, jnp.float32),
            strength,
            self.average,
            self.v1.stride,
            read,
        )
        bottleneck = nn.Conv(
            self.channels, (1, 1), use_bias=False, dtype=x.dtype, name="bottleneck"
        )
        return {"v1": cells, "bottleneck": bottleneck(cells)}
