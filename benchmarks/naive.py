"""The front end and the network, written in JAX without regard to cost."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import fast
from vone_jax.models.network import VOneNet
from vone_jax.v1 import NeuronalNoise, VOneBlockConfig
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


def noise_free(config: VOneBlockConfig, images: jax.Array) -> jax.Array:
    """Return ``v1.noise_free_responses``, computed by two dense convolutions."""
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
    complex_ = jnp.sqrt(jnp.square(in_phase) + jnp.square(quadrature)) / math.sqrt(2)
    simple = jax.nn.relu(in_phase[..., : config.simple_channels])
    cells = [simple, complex_[..., config.simple_channels :]]
    return config.k_exc * jnp.concatenate(cells, axis=-1)


def block(config: VOneBlockConfig, key: jax.Array, images: jax.Array) -> jax.Array:
    """Return the responses with the published noise, by the generator of JAX."""
    responses, noise = noise_free(config, images), config.noise
    if noise is None:
        return responses
    assert isinstance(noise, NeuronalNoise)
    mean = noise.scale * responses + noise.level
    normal = jax.random.normal(key, mean.shape, jnp.float32)
    count = mean + normal * jnp.sqrt(jax.nn.relu(mean) + 1e-4)
    return jax.nn.relu((count - noise.level) / noise.scale)


class NaiveVOneNet(VOneNet):
    """The network with the dense bank, noise of JAX, and JAX's own convolutions.

    It takes one key for a batch.
    """

    def features(
        self, images: jax.Array, train: bool = False, noise_key: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        assert noise_key is not None
        v1 = block(self.v1, noise_key, images)
        with fast.plain():
            return {"v1": v1} | self.back_end(self.bottleneck(v1), train)
