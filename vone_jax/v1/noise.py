"""Neuronal stochasticity, reparameterised: a pure function of responses and standard normals.

Gradients flow through the mean and the standard deviation of the noise. Freezing the noise
means to use the same key (or the same array of standard normals) again.

Reference: Dapello, Marques et al., NeurIPS 2020, section 3 (stochasticity generator).
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vone_jax import fast

# Keeps the slope of the square root finite where the rate is zero. Part of the published model.
_VARIANCE_FLOOR = 1e-4


# How normals are drawn from one key. The first is the fast one, see ``fast.counter_random``.
GENERATORS: dict[str, Callable[[jax.Array, tuple[int, ...]], jax.Array]] = {
    "counter": fast.standard_normal,
    "jax": lambda key, shape: jax.random.normal(key, shape, jnp.float32),
}


def standard_normal(
    keys: jax.Array, shape: tuple[int, ...], generator: str = "counter"
) -> jax.Array:
    """Standard normals of a batch in which each example has its own key.

    Args:
      keys: typed keys of shape (N,).
      shape: shape of one example's draws.
      generator: "counter", or "jax" for ``jax.random.normal``: other draws, as good, slower.

    Returns:
      float32 array (N, *shape); row i depends on ``keys[i]`` alone.

    Raises:
      ValueError: for an unknown generator.
    """
    check_generator("generator", generator)
    return jax.vmap(lambda key: GENERATORS[generator](key, shape))(keys)


def check_generator(name: str, generator: str) -> None:
    """Raises a ValueError that names the argument unless ``generator`` is one."""
    if generator not in GENERATORS:
        raise ValueError(f"{name} must be one of {', '.join(GENERATORS)}, got {generator!r}")


@dataclasses.dataclass(frozen=True)
class NeuronalNoise:
    """Poisson-like noise: variance equal to the mean, in spikes.

    With u = scale * r + level (the mean spike count), v = u + z sqrt(max(u, 0) + 1e-4) and the
    output max((v - level) / scale, 0). The Fano factor is 1 in u and 1 / scale in the output.
    The defaults are those of the released models.

    Attributes:
      scale: from responses to mean spike counts, > 0.
      level: spontaneous activity in spikes, >= 0.
      strength: multiplies z, >= 0: other than 1, noise that is not Poisson-like (Baidya et al.
        2021, arXiv:2110.10645, compare 1 and a half).
    """

    scale: float = 0.35
    level: float = 0.07
    strength: float = 1.0

    def __post_init__(self):
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"scale must be > 0, got {self.scale}; noise=None switches it off")
        if not (math.isfinite(self.level) and self.level >= 0):
            raise ValueError(f"level must be >= 0, got {self.level}")
        if not (math.isfinite(self.strength) and self.strength >= 0):
            raise ValueError(f"strength must be >= 0, got {self.strength}")

    def __call__(self, responses: jax.Array, z: jax.Array) -> jax.Array:
        """Adds noise. ``responses`` >= 0 and standard normals ``z`` have the same shape."""
        mean = self.scale * fast.shared_by_draws(responses, z) + self.level
        deviation = self.strength * jnp.sqrt(jax.nn.relu(mean) + _VARIANCE_FLOOR)
        count = mean + z * deviation
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
        return jax.nn.relu(fast.shared_by_draws(responses, z) + self.scale * z)


Noise = NeuronalNoise | GaussianNoise | None
