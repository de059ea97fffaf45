"""Neuronal stochasticity, reparameterised as a pure function of responses and standard normals.

Gradients flow through the mean and the standard deviation of the noise. To freeze the noise, use
the same key again, or call the noise with the same array of standard normals.

Reference: Dapello, Marques et al., NeurIPS 2020, section 3 (stochasticity generator).
"""

import dataclasses
import weakref
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


def standard_normal(
    keys: Key[Array, " n"], shape: tuple[int, ...], channels: slice = slice(None)
) -> Float32[Array, "n ..."]:
    """Draw standard normals (n, *shape) for a batch; row i depends on ``keys[i]`` alone.

    ``channels`` selects elements of the last axis, and only these are drawn.
    """
    return jax.vmap(lambda key: fast.standard_normal(key, shape, channels))(prng.threefry(keys))


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

    # Whether responses may be negative. If not, they would be rectified.
    signed: ClassVar[bool] = False
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
        deviation = self.strength * jnp.sqrt(fast.relu(mean) + VARIANCE_FLOOR)
        count = mean + z * deviation
        return fast.relu((count - self.level) / self.scale)


@dataclasses.dataclass(frozen=True)
class GaussianNoise:
    """Additive Gaussian noise, then rectification: max(r + scale * z, 0).

    ``scale`` is the standard deviation in units of the response, >= 0.
    """

    signed: ClassVar[bool] = False
    scale: float

    def __post_init__(self):
        arguments.fields(self)

    def __call__(self, responses: Values, z: Values) -> Values:
        """Add noise to responses >= 0, from standard normals ``z``."""
        return fast.relu(fast.shared_by_draws(responses, z) + self.scale * z)


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

    signed: ClassVar[bool] = False
    scale: Positive = 0.35
    level: Positive = 0.07

    def __post_init__(self):
        arguments.fields(self)

    def __call__(self, responses: Values, z: Values) -> Values:
        """Add noise to responses, from standard normals ``z``."""
        shared = fast.shared_by_draws(responses, z)
        root = jnp.sqrt(self.scale * fast.relu(shared) + self.level)
        count = jnp.square(root + 0.5 * z) - 0.25
        return fast.relu((count - self.level) / self.scale)


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

    signed: ClassVar[bool] = True
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
    responses: Batch,
    key: Key[Array, "*keys"] | None = None,
    ends: tuple[int, ...] = (),
) -> Batch:
    """Add noise to the responses of a module, one row for each example.

    Args:
      module: the module, whose ``rngs={"noise": key}`` is the default of ``key``.
      noise: the noise, or None, which returns the responses.
      stream: name of the stream of keys. Modules of other streams draw independent noise.
      responses: without noise.
      key: one typed key per example, or a single one, which numbers the examples by position.
      ends: of groups of channels that were computed apart, see ``fast.by_groups``.

    Raises:
      TypeError: if a key is not a typed key.
      ValueError: if a shape is wrong, or if there is no key.
    """
    if noise is None:
        return responses
    # A separate stream, so that the caller's keys are not consumed. Noise is frozen by passing the
    # same keys again.
    keys = prng.stream(
        prng.example_keys(_key(module, noise, stream, key), responses.shape[0]), stream
    )
    shape = responses.shape[1:]

    def noisy(channels: slice, responses: jax.Array) -> jax.Array:
        return noise(responses, standard_normal(keys, shape, channels))

    return fast.by_groups(noisy, ends, responses)


# The path of the first module that drew noise of a stream, by the scope of Flax that one call of
# ``init`` or ``apply`` makes.
_FIRST: weakref.WeakKeyDictionary[Any, dict[str, tuple[str, ...]]] = weakref.WeakKeyDictionary()


def _key(module: nn.Module, noise: Noise, stream: str, key: jax.Array | None) -> jax.Array:
    """The argument ``key``, or the key in ``rngs``.

    Of several blocks in one module, the first draws what it draws alone. The keys of the others
    contain their paths. So do the keys of blocks within a lifted transformation of a module, such
    as ``nn.remat(VOneBlock)``, where Flax hides the blocks outside.
    """
    if key is not None:
        return key
    if not module.has_rng("noise"):
        raise ValueError(f"{noise} needs a key: pass rngs={{'noise': key}} or noise_key=key")
    scope = module.scope
    assert scope is not None
    # The only leaf of the stream is the key that the caller passed. ``make_rng`` would always fold
    # the path of the module into it, and a block would draw other noise alone than in a network.
    (passed,) = jax.tree.leaves(scope.rngs["noise"])
    # The root of a lifted transformation is the module that it transforms.
    lifted = bool(scope.root.path)
    first = _FIRST.setdefault(scope.root, {}).setdefault(stream, scope.path) == scope.path
    return passed if first and not lifted else prng.stream(passed, "/".join(scope.path))


class NoisyBlock(nn.Module):
    """The base of the stages of a front end: responses to images, and noise.

    A subclass has a ``config`` with ``noise``, and its own ``stream``, so that the stages draw
    independent noise from the same key.
    """

    config: Any
    stream: ClassVar[str]

    @property
    def ends(self) -> tuple[int, ...]:
        """The ends of groups of channels that are computed apart, see ``fast.by_groups``."""
        return ()

    def noise_free(self, images: Images) -> Responses:
        """Return the responses to images, (n, h, w, channels), before noise."""
        raise NotImplementedError

    def __call__(
        self,
        images: Images,
        noise_key: Key[Array, "*keys"] | None = None,
    ) -> Responses:
        """Return the responses to images, with noise.

        The noise of an example is a function of (key, example): it is the same in any batch and on
        any number of devices. It is on in training and in evaluation.

        Args:
          images: in [0, 1], with ``config.in_channels`` channels.
          noise_key: one typed key per example, or a single one, from which each example gets a key
            by its position. Default: the key given as ``rngs={"noise": key}``.

        Raises:
          TypeError: if images are not floating point, or a key is not a typed key.
          ValueError: if a shape is wrong, or if the noise has no key.
        """
        return self.add_noise(self.noise_free(images), noise_key)

    def add_noise(
        self,
        responses: Responses,
        noise_key: Key[Array, "*keys"] | None = None,
    ) -> Responses:
        """Add the noise of the block to noise-free responses, as ``__call__`` does."""
        return add_noise(self, self.config.noise, self.stream, responses, noise_key, self.ends)
