"""Neuronal stochasticity, reparameterised: a pure function of responses and standard normals.

Gradients flow through the mean and the standard deviation of the noise. Freezing the noise
means to use the same key (or the same array of standard normals) again.

Reference: Dapello, Marques et al., NeurIPS 2020, section 3 (stochasticity generator).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

# Keeps the slope of the square root finite where the rate is zero. Part of the published model.
_VARIANCE_FLOOR = 1e-4


def standard_normal(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normals of a batch in which each example has its own key.

    Args:
      keys: typed keys of shape (N,).
      shape: shape of one example's draws.

    Returns:
      float32 array (N, *shape); row i depends on ``keys[i]`` alone.
    """
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)


@dataclasses.dataclass(frozen=True)
class NeuronalNoise:
    """Poisson-like noise: variance equal to the mean, in spikes.

    With u = scale * r + level (the mean spike count), v = u + z sqrt(max(u, 0) + 1e-4) and the
    output max((v - level) / scale, 0). The Fano factor is 1 in u and 1 / scale in the output.
    The defaults are those of the released models.

    Attributes:
      scale: from responses to mean spike counts, > 0.
      level: spontaneous activity in spikes, >= 0.
    """

    scale: float = 0.35
    level: float = 0.07

    def __post_init__(self):
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"scale must be > 0, got {self.scale}; noise=None switches it off")
        if not (math.isfinite(self.level) and self.level >= 0):
            raise ValueError(f"level must be >= 0, got {self.level}")

    def __call__(self, responses: jax.Array, z: jax.Array) -> jax.Array:
        """Adds noise. ``responses`` >= 0 and standard normals ``z`` have the same shape."""
        mean = self.scale * responses + self.level
        count = mean + z * jnp.sqrt(jax.nn.relu(mean) + _VARIANCE_FLOOR)
        return jax.nn.relu((count - self.level) / self.scale)


@dataclasses.dataclass(frozen=True)
class GaussianNoise:
    """Additive Gaussian noise, then rectification: max(r + scale * z, 0).

    Attributes:
      scale: standard deviation in units of the response, >= 0.
    """

    scale: float

    def __post_init__(self):
        if not (math.isfinite(self.scale) and self.scale >= 0):
            raise ValueError(f"scale must be >= 0, got {self.scale}")

    def __call__(self, responses: jax.Array, z: jax.Array) -> jax.Array:
        """Adds noise. ``responses`` >= 0 and standard normals ``z`` have the same shape."""
        return jax.nn.relu(responses + self.scale * z)


Noise = NeuronalNoise | GaussianNoise | None
