"""The VOneBlock: a Gabor bank, simple and complex cells, and stochasticity. Nothing is learned.

Reference: Dapello, Marques et al., NeurIPS 2020, section 3 and figure 1.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Key

from vone_jax import arguments
from vone_jax.v1 import noise as noise_models
from vone_jax.v1.filter_bank import Cells, FilterBank
from vone_jax.v1.gabor import (
    GaborKernels,
    GaborParameters,
    ImportedBank,
    check_kernel_size,
    check_nyquist,
    gabor_kernels,
)
from vone_jax.v1.normalization import SurroundNormalization, SurroundPools
from vone_jax.v1.sampling import (
    sample_evnet_parameters,
    sample_gabor_parameters,
    spatial_frequency_histogram,
)
from vone_jax.v1.surround import draw_surrounds

Images = Float[Array | np.ndarray, "n h w c"]
Responses = Float32[Array, "n _ _ channels"]
PerChannel = float | tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class VOneBlockConfig:
    """The configuration of a VOneBlock. The defaults are the published ImageNet model.

    Attributes:
      simple_channels: number of simple cells per position, >= 0.
      complex_channels: number of complex cells per position, >= 0.
      image_size: number of pixels that span ``visual_degrees``. Images of other sizes and aspect
        ratios are accepted; they have the same number of pixels per degree.
      visual_degrees: field of view in degrees of visual angle.
      kernel_size: side of the kernels in pixels, odd.
      stride: distance of neighbouring positions in pixels.
      gabor_seed: seed of the bank.
      sf_min: lowest spatial frequency in cycles per degree (selects histogram bins).
      sf_max: highest spatial frequency in cycles per degree (selects histogram bins).
      distribution: see ``sample_gabor_parameters``; or "evnet", see ``sample_evnet_parameters``,
        and "evnet_published", with the input channels of the published networks.
      k_exc: gain of all responses. 25 gives a mean response near 1 on ImageNet.
      in_channels: number of image channels.
      normalization: ``SurroundNormalization``, which comes before the noise; None for the published
        block, which has none.
      noise: ``NeuronalNoise``, ``GaussianNoise``, ``FanoNoise`` or None.
      noise_generator: generator of the normals, see ``noise.standard_normal``.
      bank: explicit Gabor parameters, or the kernels of a checkpoint; they override sampling.
      allow_aliasing: accept spatial frequencies beyond the Nyquist limit of the pixel grid.
      image_mean: subtracted from images, one number or one per channel. With ``image_mean`` and
        ``image_std`` of 0.5, [0, 1] becomes [-1, 1], so that zero padding is mid-grey.
      image_std: divides images after the subtraction, one number or one per channel.

    Raises:
      ValueError: if a field is out of range; the message names it.
    """

    simple_channels: int = 256
    complex_channels: int = 256
    image_size: int = 224
    visual_degrees: float = 8.0
    kernel_size: int = 25
    stride: int = 4
    gabor_seed: int = 0
    sf_min: float = 0.0
    sf_max: float = 9.0
    distribution: str = "physiological"
    k_exc: float = 25.0
    in_channels: int = 3
    normalization: SurroundNormalization | None = None
    noise: noise_models.Noise = noise_models.NeuronalNoise()
    noise_generator: str = "counter"
    bank: GaborParameters | ImportedBank | None = None
    allow_aliasing: bool = False
    image_mean: PerChannel = 0.5
    image_std: PerChannel = 0.5

    def __post_init__(self):
        for name in ("simple_channels", "complex_channels"):
            arguments.count(name, getattr(self, name), least=0)
        if self.num_channels < 1:
            raise ValueError("simple_channels and complex_channels must not both be 0")
        for name in ("image_size", "stride", "in_channels"):
            arguments.count(name, getattr(self, name))
        for name in ("visual_degrees", "k_exc"):
            arguments.number(name, getattr(self, name), positive=True)
        for name in ("image_mean", "image_std"):
            if isinstance(getattr(self, name), list):
                # A configuration must be hashable.
                object.__setattr__(self, name, tuple(getattr(self, name)))
        check_normalisation("image_mean", self.image_mean, self.in_channels)
        check_normalisation("image_std", self.image_std, self.in_channels, positive=True)
        check_kernel_size(self.kernel_size)
        if not isinstance(self.normalization, SurroundNormalization | None):
            raise ValueError(
                "normalization must be SurroundNormalization(...) or None, got "
                f"{self.normalization!r}"
            )
        if self.normalization is not None:
            positions = -(-self.image_size // self.stride)
            self.normalization.check_reach(positions, self.pixels_per_degree / self.stride)
        if not isinstance(self.noise, noise_models.Noise):
            raise ValueError(
                "noise must be NeuronalNoise(...), GaussianNoise(...), FanoNoise(...) or None, got "
                f"{self.noise!r}"
            )
        arguments.choice("noise_generator", self.noise_generator, noise_models.GENERATORS)
        if self.bank is None:
            top = spatial_frequency_histogram(self.distribution, self.sf_min, self.sf_max).edges[-1]
            if not self.allow_aliasing:
                check_nyquist(top, self.pixels_per_degree)
        else:
            self._check_bank(self.bank)

    def _check_bank(self, bank: GaborParameters | ImportedBank) -> None:
        parameters = self.gabor_parameters()
        if len(bank) != self.num_channels:
            raise ValueError(
                f"bank must have simple_channels + complex_channels = {self.num_channels} "
                f"filters, got {len(bank)}"
            )
        highest = max(int(parameters.channel.max()), int(parameters.channel_quadrature.max()))
        if highest >= self.in_channels:
            raise ValueError(
                f"bank reads channel {highest}, but in_channels is {self.in_channels}, so the last "
                f"channel is {self.in_channels - 1}"
            )
        if isinstance(bank, ImportedBank):
            for name in ("kernel_size", "pixels_per_degree"):
                if not math.isclose(getattr(bank, name), getattr(self, name), rel_tol=1e-9):
                    raise ValueError(
                        f"bank has {name} {getattr(bank, name)}, the block has "
                        f"{getattr(self, name)}; they must be equal"
                    )
        elif not self.allow_aliasing:
            check_nyquist(float(parameters.sf.max()), self.pixels_per_degree)

    @property
    def num_channels(self) -> int:
        """The number of simple and complex cells per position."""
        return self.simple_channels + self.complex_channels

    @property
    def pixels_per_degree(self) -> float:
        """The number of pixels per degree of visual angle."""
        return self.image_size / self.visual_degrees

    def gabor_parameters(self) -> GaborParameters:
        """Return the parameters of ``bank``, or of a bank sampled from ``gabor_seed``."""
        if isinstance(self.bank, ImportedBank):
            return self.bank.parameters
        if self.bank is not None:
            return self.bank
        fields: dict[str, Any] = {
            "seed": self.gabor_seed,
            "sf_min": self.sf_min,
            "sf_max": self.sf_max,
            "in_channels": self.in_channels,
        }
        if self.distribution.startswith("evnet"):
            published = self.distribution == "evnet_published"
            cells = self.simple_channels, self.complex_channels
            return sample_evnet_parameters(*cells, published_channels=published, **fields)
        return sample_gabor_parameters(self.num_channels, distribution=self.distribution, **fields)

    def gabor_kernels(self) -> GaborKernels:
        """Return the kernels that the block applies, imported or computed from parameters."""
        if isinstance(self.bank, ImportedBank):
            return self.bank.kernels
        return gabor_kernels(
            self.gabor_parameters(), self.kernel_size, self.pixels_per_degree, self.allow_aliasing
        )


@functools.lru_cache(maxsize=16)
def filter_bank(config: VOneBlockConfig) -> FilterBank:
    """Return the bank of a configuration. It is cached, because a model is traced many times."""
    parameters = config.gabor_parameters()
    return FilterBank(
        config.gabor_kernels(),
        parameters.channel,
        parameters.channel_quadrature,
        config.simple_channels,
    )


@functools.lru_cache(maxsize=16)
def surround_pools(config: VOneBlockConfig) -> SurroundPools:
    """Return the surrounds of a configuration with a normalization. They are cached."""
    assert config.normalization is not None
    # The amplitude of a grating of full contrast in normalised images is half a white pixel.
    amplitude = 0.5 / np.mean(config.image_std)
    return draw_surrounds(
        config.normalization,
        config.gabor_parameters(),
        config.gabor_kernels(),
        num_simple=config.simple_channels,
        pixels_per_degree=config.pixels_per_degree,
        stride=config.stride,
        gain=config.k_exc * float(amplitude),
        seed=config.gabor_seed,
    )


def noise_free_cells(config: VOneBlockConfig, images: Images) -> Cells:
    """Return the responses of simple cells and of complex cells, before noise.

    With the linear responses q0 of a filter and q1 of its quadrature partner,

        simple = k_exc max(q0, 0),   complex = k_exc sqrt(q0^2 + q1^2) / sqrt(2)

    (Dapello, Marques et al., section 3). The values are exact. The gradient of the root is defined
    as 0 where q0 and q1 are both 0, so that gradients are finite for every image. The normalisation
    follows, if there is one.

    Args:
      config: configuration of the block.
      images: in [0, 1], with ``config.in_channels`` channels.

    Returns:
      Responses >= 0 of shape (n, ceil(h/stride), ceil(w/stride), channels) for each kind of cell.

    Raises:
      TypeError: if images are not floating point.
      ValueError: if their shape does not fit the configuration.
    """
    check_images(images, config.in_channels)
    normalised = normalise(images, config.image_mean, config.image_std)

    def simple_cell(in_phase: jax.Array) -> jax.Array:
        return config.k_exc * jax.nn.relu(in_phase)

    def complex_cell(in_phase: jax.Array, quadrature: jax.Array) -> jax.Array:
        return config.k_exc * _complex_cell(in_phase, quadrature)

    surround = None if config.normalization is None else surround_pools(config)
    return filter_bank(config)(normalised, config.stride, simple_cell, complex_cell, surround)


def noise_free_responses(config: VOneBlockConfig, images: Images) -> Responses:
    """Return ``noise_free_cells`` as one array, simple cells first."""
    return jnp.concatenate(noise_free_cells(config, images), axis=-1)


def _complex_cell(in_phase: jax.Array, quadrature: jax.Array) -> jax.Array:
    energy = jnp.square(in_phase) + jnp.square(quadrature)
    positive = energy > 0
    # JAX differentiates both branches of ``where``, so the root never gets a zero, even where its
    # result is not used.
    magnitude = jnp.where(positive, jnp.sqrt(jnp.where(positive, energy, 1.0)), 0.0)
    return magnitude / math.sqrt(2.0)


def normalise(images: Images, mean: PerChannel, std: PerChannel) -> Float32[Array, "n h w c"]:
    """Subtract the mean from images and divide them by the standard deviation, in float32."""
    images, mean_array, std_array = (jnp.asarray(x, jnp.float32) for x in (images, mean, std))
    shape = (1, 1, 1, -1)
    return (images - mean_array.reshape(shape)) / std_array.reshape(shape)


def check_normalisation(
    name: str, value: PerChannel, channels: int, positive: bool = False
) -> None:
    """Check a mean or a standard deviation that normalises images.

    Raises:
      ValueError: if ``value`` is neither one number nor one per channel, or a number is not finite
        or (if ``positive``) not > 0.
    """
    if isinstance(value, tuple) and len(value) != channels:
        raise ValueError(
            f"{name} must be one number or one per channel, {channels} numbers, got {value}"
        )
    for number in value if isinstance(value, tuple) else (value,):
        if not math.isfinite(number) or (positive and number <= 0):
            raise ValueError(f"{name} must be {'> 0' if positive else 'finite'}, got {value}")


def check_images(images: jax.Array | np.ndarray, in_channels: int) -> None:
    """Raise an error unless images are floating point and have the shape (N, H, W, in_channels)."""
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"images must be floating point in [0, 1], got dtype {images.dtype}")
    if images.ndim != 4 or images.shape[-1] != in_channels:
        raise ValueError(f"images must have shape (N, H, W, {in_channels}), got {images.shape}")


class VOneBlock(nn.Module):
    """The block as a Flax module. It has no variables, because the bank is a constant."""

    config: VOneBlockConfig = VOneBlockConfig()

    def __call__(
        self,
        images: Images,
        noise_key: Key[Array, "*keys"] | None = None,
        standard_normal: Responses | None = None,
    ) -> Responses:
        """Return the responses of V1 to images.

        The noise of an example is a function of (key, example): it is the same in any batch and on
        any number of devices. It is on in training and in evaluation.

        Args:
          images: in [0, 1], with ``config.in_channels`` channels.
          noise_key: one typed key per example, or a single one, from which each example gets a key
            by its position. Default: the key given as ``rngs={"noise": key}``.
          standard_normal: draws to use in place of a key, of the shape of the responses.

        Raises:
          TypeError: if images are not floating point, or a key is not a typed key.
          ValueError: if a shape is wrong, or if the noise has neither a key nor draws.
        """
        responses = noise_free_responses(self.config, images)
        return self.add_noise(responses, noise_key, standard_normal)

    def add_noise(
        self,
        responses: Float[Array, "n _ _ channels"],
        noise_key: Key[Array, "*keys"] | None = None,
        standard_normal: Responses | None = None,
    ) -> Float[Array, "n _ _ channels"]:
        """Apply the stochastic part of the block alone; see ``__call__`` for the arguments."""
        (noisy,) = self._noisy([responses], noise_key, standard_normal)
        return noisy

    def noisy_cells(self, cells: Cells, noise_key: Key[Array, "*keys"] | None = None) -> Cells:
        """Apply the stochastic part to each kind of cell; the noise is that of ``add_noise``.

        A TPU makes the noise within the convolution of each kind, and writes noisy responses only.
        """
        return Cells(*self._noisy(cells, noise_key))

    def _noisy(
        self,
        parts: Sequence[jax.Array],
        key: jax.Array | None,
        draws: jax.Array | None = None,
    ) -> list[jax.Array]:
        config = self.config
        return noise_models.add_noise(
            self, config.noise, "v1 noise", parts, key, draws, config.noise_generator
        )
