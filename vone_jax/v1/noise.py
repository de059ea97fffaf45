"""Neuronal stochasticity, reparameterised as a pure function of responses and standard normals.

Gradients flow through the mean and the standard deviation of the noise. To freeze the noise, use
the same key, or the same array of standard normals, again.

Reference: Dapello, Marques et al., NeurIPS 2020, section 3 (stochasticity generator).
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Key

from vone_jax import arguments, fast, prng
from vone_jax.arguments import Positive
from vone_jax.v1.images import Images

# Keeps the slope of the square root finite at a rate of zero. It is part of the published model.
VARIANCE_FLOOR = 1e-4

Values = Float[Array, "*shape"]
Batch = Float[Array, "n *shape"]
Responses = Float32[Array, "n _ _ channels"]
# Generators of the normals of one key. The first is the fast one, see ``fast.counter_random``.
GENERATORS: dict[str, Callable[[jax.Array, tuple[int, ...], range | None], jax.Array]] = {
    "counter": fast.standard_normal,
    "jax": lambda key, shape, part: _cut(jax.random.normal(key, shape, jnp.float32), part),
}


def standard_normal(
    keys: Key[Array, " n"],
    shape: tuple[int, ...],
    generator: str = "counter",
    part: range | None = None,
) -> Float32[Array, "n ..."]:
    """Draw standard normals (n, *shape) for a batch; row i depends on ``keys[i]`` alone.

    Args:
      keys: one per example.
      shape: of an example.
      generator: "counter"; or "jax" for ``jax.random.normal``, which is slower and gives other
        draws of the same quality.
      part: neighbouring positions of the last axis; only their draws are returned. Default: all.

    Raises:
      ValueError: if the generator is unknown.
    """
    arguments.choice("generator", generator, GENERATORS)
    return jax.vmap(lambda key: GENERATORS[generator](key, shape, part))(prng.threefry(keys))


@dataclasses.dataclass(frozen=True)
class NeuronalNoise:
    """Poisson-like noise, whose variance equals the mean in units of spikes.

    With responses r, standard normals z and the mean spike count u,

        u = scale * r + level,   v = u + strength * z sqrt(max(u, 0) + 1e-4),
        output = max((v - level) / scale, 0).

    The Fano factor is 1 in v and 1 / scale in the output. The defaults are those of the released
    models.

    Attributes:
      scale: factor from responses to mean spike counts, > 0.
      level: spontaneous activity in spikes, >= 0.
      strength: factor of z, >= 0. At other values than 1 the noise is not Poisson-like; Baidya et
        al. (2021), arXiv:2110.10645, compare 1 and 0.5.

    Raises:
      ValueError: if a field is out of range.
    """

    scale: Positive = 0.35
    level: float = 0.07
    strength: float = 1.0

    def __post_init__(self):
        if self.scale == 0:
            raise ValueError("scale must be > 0, got 0; to switch the noise off, pass noise=None")
        arguments.fields(self)

    def __call__(self, responses: Values, z: Values) -> Values:
        """Add noise to responses >= 0, from standard normals ``z``."""
        mean = self.scale * fast.shared_by_draws(responses, z) + self.level
        deviation = self.strength * jnp.sqrt(jax.nn.relu(mean) + VARIANCE_FLOOR)
        count = mean + z * deviation
        return jax.nn.relu((count - self.level) / self.scale)


@dataclasses.dataclass(frozen=True)
class GaussianNoise:
    """Additive Gaussian noise, then rectification: max(r + scale * z, 0).

    ``scale`` is the standard deviation in units of the response, >= 0.
    """

    scale: float

    def __post_init__(self):
        arguments.fields(self)

    def __call__(self, responses: Values, z: Values) -> Values:
        """Add noise to responses >= 0, from standard normals ``z``."""
        return jax.nn.relu(fast.shared_by_draws(responses, z) + self.scale * z)


@dataclasses.dataclass(frozen=True)
class StabilisedNoise:
    """Poisson-like noise that is exactly Gaussian in the square root of the spike count.

    With responses r, standard normals z and the mean spike count u,

        u = scale * max(r, 0) + level,   v = (sqrt(u) + z / 2)^2 - 1/4,
        output = max((v - level) / scale, 0).

    v has the mean u and the variance u + 1/8, so it is about as variable as a Poisson count. Its
    square root has the standard deviation 1/2 at every rate (the variance-stabilising transform of
    Anscombe 1948, Biometrika 35:246-254, made exact). So what a change of the responses does to an
    ideal observer is known exactly, see ``vone_jax.certification``.

    Attributes:
      scale: factor from responses to mean spike counts, > 0.
      level: spontaneous activity in spikes, > 0. It keeps the slope of the root finite.

    Raises:
      ValueError: if a field is out of range.
    """

    scale: Positive = 0.35
    level: Positive = 0.07

    def __post_init__(self):
        arguments.fields(self)

    def __call__(self, responses: Values, z: Values) -> Values:
        """Add noise to responses, from standard normals ``z``."""
        shared = fast.shared_by_draws(responses, z)
        root = jnp.sqrt(self.scale * jax.nn.relu(shared) + self.level)
        count = jnp.square(root + 0.5 * z) - 0.25
        return jax.nn.relu((count - self.level) / self.scale)


@dataclasses.dataclass(frozen=True)
class FanoNoise:
    """Noise of a fixed Fano factor, without rectification: r + z sqrt(fano_factor |r| + floor).

    Responses may have either sign, and so has the output. It is the noise of EVNets (Piper et al.
    2025, arXiv:2506.03089), whose responses are spike counts; the defaults are those of their V1.

    Attributes:
      fano_factor: variance divided by the magnitude of the response, >= 0.
      floor: variance at a response of 0, > 0. It keeps gradients finite there.

    Raises:
      ValueError: if a field is out of range.
    """

    fano_factor: float = 0.93
    floor: Positive = 1e-5

    def __post_init__(self):
        arguments.fields(self)

    def __call__(self, responses: Values, z: Values) -> Values:
        """Add noise to responses of either sign, from standard normals ``z``."""
        mean = fast.shared_by_draws(responses, z)
        return mean + z * jnp.sqrt(self.fano_factor * jnp.abs(mean) + self.floor)


Noise = NeuronalNoise | GaussianNoise | StabilisedNoise | FanoNoise | None


def add_noise(
    module: nn.Module,
    noise: Noise,
    stream: str,
    parts: Sequence[jax.Array],
    key: Key[Array, "*keys"] | None = None,
    draws: Batch | None = None,
    generator: str = "counter",
) -> list[jax.Array]:
    """Add noise to the responses of a module.

    Args:
      module: the module, whose ``rngs={"noise": key}`` is the default of ``key``.
      noise: the noise, or None, which returns the responses.
      stream: name of the stream of keys. Modules of other streams draw independent noise.
      parts: the responses, cut along the last axis; one row for each example. Where they are cut
        does not change the noise.
      key: one typed key per example, or a single one, which numbers the examples by position.
      draws: standard normals for all parts, to use in place of a key.
      generator: of the normals, see ``standard_normal``.

    Raises:
      TypeError: if a key is not a typed key.
      ValueError: if a shape is wrong, or if there is neither a key nor draws.
    """
    if noise is None:
        return list(parts)
    ends = list(itertools.accumulate(part.shape[-1] for part in parts))
    ranges = [range(end - part.shape[-1], end) for part, end in zip(parts, ends, strict=True)]
    shape = (*parts[0].shape[:-1], ends[-1])
    if draws is None:
        # A separate stream, so that the caller's keys are not consumed. Noise is frozen by passing
        # the same keys again.
        keys = prng.stream(prng.example_keys(_key(module, noise, key), shape[0]), stream)
        drawn = [standard_normal(keys, shape[1:], generator, part) for part in ranges]
    elif draws.shape != shape:
        raise ValueError(
            f"standard_normal must have the shape of the responses, {shape}, got {draws.shape}"
        )
    else:
        drawn = [_cut(draws, part) for part in ranges]
    return [noise(part, z) for part, z in zip(parts, drawn, strict=True)]


class NoisyBlock(nn.Module):
    """The base of the stages of a front end: responses to images, and noise.

    A subclass has a ``config`` with ``noise`` and ``noise_generator``, and its own ``stream``, so
    that the stages draw independent noise from the same key.
    """

    config: Any
    stream: ClassVar[str]

    def noise_free(self, images: Images) -> Responses:
        """Return the responses to images, (n, h, w, channels), before noise."""
        raise NotImplementedError

    def __call__(
        self,
        images: Images,
        noise_key: Key[Array, "*keys"] | None = None,
        standard_normal: Responses | None = None,
    ) -> Responses:
        """Return the responses to images, with noise.

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
        (noisy,) = self.noisy([self.noise_free(images)], noise_key, standard_normal)
        return noisy

    def noisy(
        self,
        parts: Sequence[Float[Array, "n _ _ _"]],
        noise_key: Key[Array, "*keys"] | None = None,
        standard_normal: Responses | None = None,
    ) -> list[Float[Array, "n _ _ _"]]:
        """Add the noise of the block to noise-free responses, as ``__call__`` does.

        Args:
          parts: the responses, (n, h, w, channels) for each kind of cell. On a TPU, the convolution
            of a part also adds its noise, so only noisy responses are written to memory.
          noise_key, standard_normal: as in ``__call__``; the draws are for all parts together.

        Raises:
          TypeError, ValueError: for a key or draws that do not fit, as ``__call__``.
        """
        noise, generator = self.config.noise, self.config.noise_generator
        return add_noise(self, noise, self.stream, parts, noise_key, standard_normal, generator)


def _cut(draws: jax.Array, part: range | None) -> jax.Array:
    return draws if part is None else draws[..., part.start : part.stop]


def _key(module: nn.Module, noise: Noise, key: jax.Array | None) -> jax.Array:
    """The argument ``key``, or the key in ``rngs``."""
    if key is not None:
        return key
    if not module.has_rng("noise"):
        raise ValueError(f"{noise} needs a key: pass rngs={{'noise': key}} or noise_key=key")
    # The only leaf of the stream is the key that the caller gave. ``make_rng`` would fold the path
    # of the module into it, and a block would draw other noise alone than inside a network.
    assert module.scope is not None
    (given,) = jax.tree.leaves(module.scope.rngs["noise"])
    return given
