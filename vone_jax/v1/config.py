"""The configuration of a VOneBlock."""

import dataclasses
import functools
import math
from typing import Any

from vone_jax import arguments
from vone_jax.arguments import FromZero, Positive, Seed
from vone_jax.v1 import noise as noise_models
from vone_jax.v1.gabor import (
    GaborKernels,
    GaborParameters,
    ImportedBank,
    check_kernel_size,
    check_nyquist,
    gabor_kernels,
)
from vone_jax.v1.gain_control import GainControl
from vone_jax.v1.images import PerChannel, check_normalisation
from vone_jax.v1.normalization import SurroundNormalization
from vone_jax.v1.sampling import (
    check_published_channels,
    sample_evnet_parameters,
    sample_gabor_parameters,
    spatial_frequency_histogram,
)


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
      distribution: "physiological", "physiological_extended" or "uniform" of
        the function ``sample_gabor_parameters``; "evnet" of ``sample_evnet_parameters``,
        or "evnet_published", the same with the input channels of the published networks.
      k_exc: gain of all responses. 25 gives a mean response near 1 on ImageNet.
      in_channels: number of image channels.
      normalization: ``GainControl`` or ``SurroundNormalization``, which come before the noise; None
        for the published block, which has none.
      noise: ``NeuronalNoise``, ``GaussianNoise``, ``StabilisedNoise``, ``FanoNoise`` or None.
      bank: explicit Gabor parameters, or the kernels of a checkpoint; they override sampling.
      tuned: train the parameters of the bank with the network, see ``LearnableGabor``. The bank
        then gives their start values.
      allow_aliasing: accept spatial frequencies beyond the Nyquist limit of the pixel grid.
      image_mean: subtracted from images, one number or one per channel. If this
        and ``image_std`` are 0.5, [0, 1] becomes [-1, 1], so that zero padding is mid-grey.
      image_std: divides images after the subtraction, one number or one per channel.

    Raises:
      ValueError, TypeError: if a field is out of range; the message names it.
    """

    simple_channels: FromZero = 256
    complex_channels: FromZero = 256
    image_size: int = 224
    visual_degrees: Positive = 8.0
    kernel_size: int = 25
    stride: int = 4
    gabor_seed: Seed = 0
    sf_min: float = 0.0
    sf_max: float = 9.0
    distribution: str = "physiological"
    k_exc: Positive = 25.0
    in_channels: int = 3
    normalization: GainControl | SurroundNormalization | None = None
    noise: noise_models.Noise = noise_models.NeuronalNoise()
    bank: GaborParameters | ImportedBank | None = None
    tuned: bool = False
    allow_aliasing: bool = False
    image_mean: PerChannel = 0.5
    image_std: PerChannel = 0.5

    def __post_init__(self):
        arguments.fields(self)
        arguments.instance("noise", self.noise, noise_models.Noise)
        if self.num_channels < 1:
            raise ValueError("simple_channels and complex_channels must not both be 0")
        for name in ("image_mean", "image_std"):
            if isinstance(getattr(self, name), list):
                # A configuration must be hashable.
                object.__setattr__(self, name, tuple(getattr(self, name)))
        check_normalisation("image_mean", self.image_mean, self.in_channels)
        check_normalisation("image_std", self.image_std, self.in_channels, positive=True)
        check_kernel_size(self.kernel_size)
        if isinstance(self.normalization, SurroundNormalization):
            positions = -(-self.image_size // self.stride)
            self.normalization.check_reach(positions, self.pixels_per_degree / self.stride)
        if self.bank is None:
            if self.distribution == "evnet_published":
                name = 'distribution "evnet_published"'
                check_published_channels(name, self.num_channels, self.in_channels)
            top = spatial_frequency_histogram(self.distribution, self.sf_min, self.sf_max).edges[-1]
            if not self.allow_aliasing:
                check_nyquist(top, self.pixels_per_degree)
        else:
            self._check_bank(self.bank)
        if self.tuned:
            self._check_tuned()

    def _check_tuned(self) -> None:
        """Refuse what has no meaning while the parameters of the bank change."""
        if isinstance(self.bank, ImportedBank):
            raise ValueError(
                "tuned needs a bank of GaborParameters, but an ImportedBank has fixed kernels; "
                "give its parameters as bank"
            )
        if isinstance(self.normalization, SurroundNormalization):
            raise ValueError(
                "tuned cannot be combined with a surround, whose pools need a fixed bank"
            )
        if self.allow_aliasing:
            raise ValueError(
                "tuned keeps frequencies below the Nyquist limit, so it cannot be combined with "
                "allow_aliasing"
            )

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
        return self._parameters

    @functools.cached_property
    def _parameters(self) -> GaborParameters:
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
        return self._kernels

    @functools.cached_property
    def _kernels(self) -> GaborKernels:
        if isinstance(self.bank, ImportedBank):
            return self.bank.kernels
        return gabor_kernels(
            self.gabor_parameters(), self.kernel_size, self.pixels_per_degree, self.allow_aliasing
        )
