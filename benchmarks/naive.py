"""The front end and the network, written in JAX without regard to cost."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import fast
from vone_jax.models.network import VOneNet
from vone_jax.v1 import VOneBlockConfig
from vone_jax.v1.images import normalise


def dense_kernels(config: VOneBlockConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return both phases of all filters over all channels, (k, k, channels, n), mostly zeros."""
    kernels, parameters = config.gabor_kernels(), config.gabor_parameters()
    dense = []
    for phase, channel in (
        (kernels.in_phase, parameters.channel),
        (kernels.quadrature, parameters.channel_quadrature),
    ):
        full = np.zeros((*phase.shape[1:], config.in_channels, len(phase)), np.float32)
        full[:, :, channel, np.arange(len(phase))] = phase.transpose(1, 2, 0)
        dense.append(full)
    return dense[0], dense[1]


def dense_bank(config: VOneBlockConfig, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the responses of all filters in both phases, by two dense convolutions."""
    padding = config.kernel_size // 2
    in_phase, quadrature = (
        jax.lax.conv_general_dilated(
            normalise(images, config.image_mean, config.image_std),
            jnp.asarray(kernels),
            (config.stride,) * 2,
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        for kernels in dense_kernels(config)
    )
    return in_phase, quadrature


def dense_responses(config: VOneBlockConfig, images: jax.Array) -> jax.Array:
    """Return ``v1.noise_free_responses``, computed by dense convolutions."""
    in_phase, quadrature = dense_bank(config, images)
    complex_ = jnp.sqrt(jnp.square(in_phase) + jnp.square(quadrature)) / math.sqrt(2)
    simple = jax.nn.relu(in_phase[..., : config.simple_channels])
    return config.k_exc * jnp.concatenate(
        [simple, complex_[..., config.simple_channels :]], axis=-1
    )


class NaiveVOneNet(VOneNet):
    """The network with the dense bank and JAX's own convolutions.

    Its ``v1.noise_generator`` should be "jax".
    """

    def features(
        self, images: jax.Array, train: bool = False, noise_key: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        (v1,) = self.block.noisy([dense_responses(self.v1, images)], noise_key)
        narrow = self.bottleneck([v1])
        with fast.plain():
<<<<<<< HEAD
            layers = self.back_end(narrow, train)
        return {"v1": v1} | layers
=======
            return {"v1": v1} | self.back_end(self.bottleneck(v1), train)
>>>>>>> 5b21a3d (x)
