"""The VOneBlock: a Gabor bank, simple and complex cells, and stochasticity.

Nothing is learned unless the bank is tuned.
Reference: Dapello, Marques et al., NeurIPS 2020, section 3 and figure 1.
"""

import functools

import numpy as np
from jaxtyping import Array, Float32

from vone_jax import fast
from vone_jax.v1.config import VOneBlockConfig
from vone_jax.v1.filter_bank import FilterBank
from vone_jax.v1.gain_control import GainControl
from vone_jax.v1.images import HIGHEST, Images, Precision, check_images, normalise
from vone_jax.v1.learnable import LearnableGabor
from vone_jax.v1.noise import NoisyBlock
from vone_jax.v1.normalization import (
    SurroundNormalization,
    SurroundPools,
    pools_of_bank,
)
from vone_jax.v1.subcortical import SubcorticalConfig, grating_amplitudes

Responses = Float32[Array, "n _ _ channels"]


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


def learnable_gabor(config: VOneBlockConfig) -> LearnableGabor:
    """Return the module of a tuned bank."""
    return LearnableGabor(config.gabor_parameters(), config.kernel_size, config.pixels_per_degree)


@functools.lru_cache(maxsize=16)
def surround_pools(
    config: VOneBlockConfig, stage: SubcorticalConfig | None = None
) -> SurroundPools:
    """Return the surrounds of a configuration that has them. They are cached.

    ``stage`` is that of ``noise_free_responses``.
    """
    assert isinstance(config.normalization, SurroundNormalization)
    parameters = config.gabor_parameters()
    # The amplitude of a grating of full contrast in images of 0 to 1, or in responses to them.
    amplitude = np.asarray(0.5) if stage is None else grating_amplitudes(stage, parameters.sf)
    shape = len(parameters), config.in_channels
    return pools_of_bank(
        config.normalization,
        parameters,
        config.gabor_kernels(),
        num_simple=config.simple_channels,
        pixels_per_degree=config.pixels_per_degree,
        stride=config.stride,
        gain=config.k_exc,
        contrast=np.broadcast_to(amplitude / np.asarray(config.image_std), shape),
        seed=config.gabor_seed,
    )


def noise_free_responses(
    config: VOneBlockConfig,
    images: Images,
    kernels: tuple[Array, Array] | None = None,
    precision: Precision = HIGHEST,
    stage: SubcorticalConfig | None = None,
) -> Responses:
    """Return the responses of simple cells, then of complex cells, before noise.

    With the linear responses q0 of a filter and q1 of its quadrature partner,

        simple = k_exc max(q0, 0),   complex = k_exc sqrt(q0^2 + q1^2) / sqrt(2)

    (Dapello, Marques et al., section 3). The values are exact. The gradient of the root is defined
    as 0 where q0 and q1 are both 0, so that gradients are finite for every image. The normalisation
    follows, if there is one.

    Args:
      config: configuration of the block.
      images: in [0, 1], with ``config.in_channels`` channels.
      kernels: both phases of the filters, (filters, k, k), from ``LearnableGabor``. Default: those
        of the configuration.
      precision: of all products. Default: float32, on TPUs and GPUs too. None is JAX's setting.
      stage: the subcortical stage whose responses take the place of images. The surround is
        relative to its responses to gratings.

    Returns:
      Responses >= 0 of shape (n, ceil(h/stride), ceil(w/stride), cells).

    Raises:
      TypeError: if images are not floating point.
      ValueError: if their shape does not fit the configuration.
    """
    check_images(images, config.in_channels)
    normalised = normalise(images, config.image_mean, config.image_std)
    bank = filter_bank(config)
    if kernels is None:
        cells = bank(normalised, config.stride, precision)
    else:
        cells = bank.with_kernels(kernels, normalised, config.stride, precision)

    def amplified(_: slice, cells: Array) -> Array:
        return config.k_exc * cells

    responses = fast.by_groups(amplified, (config.simple_channels,), cells)
    if config.normalization is None:
        return responses
    if isinstance(config.normalization, GainControl):
        return config.normalization(responses)
    return surround_pools(config, stage)(responses, precision)


class VOneBlock(NoisyBlock):
    """The block as a Flax module. It has no variables unless its bank is tuned.

    ``precision`` and ``stage`` are those of ``noise_free_responses``.
    """

    config: VOneBlockConfig = VOneBlockConfig()
    precision: Precision = HIGHEST
    stage: SubcorticalConfig | None = None
    stream = "v1 noise"

    def setup(self) -> None:
        if self.config.tuned:
            self.gabor = learnable_gabor(self.config)

    @property
    def ends(self) -> tuple[int, ...]:
        # With a normalisation, all cells are computed together.
        return () if self.config.normalization else (self.config.simple_channels,)

    def noise_free(self, images: Images) -> Responses:
        """Return ``noise_free_responses``, with the kernels of a tuned bank."""
        kernels = self.gabor() if self.config.tuned else None
        return noise_free_responses(self.config, images, kernels, self.precision, self.stage)
