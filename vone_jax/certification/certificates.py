"""Certificates: regions around images in which no perturbation changes the answer of a network.

The answer is the class that most draws of the noise vote for. The votes give a lower confidence
bound p of the probability of that class (Clopper and Pearson 1934). The bound decides which
perturbations an observer cannot detect well enough to change the majority, see
``certification.observer``. A certificate is wrong with a probability of at most ``alpha``. It is
about exact arithmetic: rounding is not part of the proof.

Reference: Cohen, Rosenfeld, Kolter (2019), arXiv:1902.02918, for the draws and the bound p.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Bool, Float64, Int, Key

from vone_jax import arguments, batches, functions, models, prng
from vone_jax.arguments import Range
from vone_jax.certification.bounds import (
    Images,
    Sensitivity,
    check_config,
    displacements,
    position_sensitivities,
    sensitivities,
    without_gain_control,
)
from vone_jax.certification.gain import Pools, by_pool
from vone_jax.certification.local import local_sensitivity
from vone_jax.certification.observer import (
    certified_distance,
    certified_radius,
    check_noise,
    orders,
    weights,
)
from vone_jax.progress import Progress
from vone_jax.v1 import (
    GainControl,
    GaussianNoise,
    Noise,
    VOneBlockConfig,
    noise_free_responses,
    standard_normal,
)

# Radii that are tried with the local sensitivity.
_TRIALS = 4


@dataclasses.dataclass(frozen=True, eq=False)
class NoisyClassifier:
    """A front end of known sensitivity, and noise with a network behind it.

    Attributes:
      front_end: configuration of V1. Or a number, the sensitivity of images in ``back_end``.
      back_end: function of keys (n,) and of responses (n, ...) of V1, or images, which adds fresh
        noise for each key and returns logits.
      noise: the noise that ``back_end`` adds.
    """

    front_end: VOneBlockConfig | float
    back_end: Callable[[Array, Array], Array]
    noise: Noise

    def bounds(self, shape: tuple[int, ...]) -> Sensitivity:
        """Return how far perturbations of images of a shape (h, w, c) move what gets the noise.

        Gain control is left out, see ``rates``.
        """
        if isinstance(self.front_end, VOneBlockConfig):
            return sensitivities(without_gain_control(self.front_end), (shape[0], shape[1]))
        bound = float(self.front_end)
        return Sensitivity((bound,) * shape[2], shape[0], shape[1], bound, math.inf)

    def rates(self, image: Array) -> dict[str, Callable[[float], tuple[float, float]]]:
        """Return ``rates`` of ``observer.certified_radius`` for one image (1, h, w, c), by norm."""
        everything = self.bounds(image.shape[1:])
        pools = self.pools(image)
        if pools is None:
            return {
                "l2": lambda _: (everything.l2, everything.row_norm),
                "linf": lambda _: (everything.linf, everything.row_norm_linf),
            }
        of_pool = everything
        if pools.control.pool == "position":
            assert isinstance(self.front_end, VOneBlockConfig)
            of_pool = position_sensitivities(without_gain_control(self.front_end))
        return {
            "l2": lambda r: pools.rates(r, everything.l2, of_pool.l2, everything.row_norm),
            "linf": lambda r: pools.rates(
                r, everything.linf, of_pool.linf, everything.row_norm_linf
            ),
        }

    def pools(self, image: Array) -> Pools | None:
        """Return the pools of gain control of one image (1, h, w, c), None without gain control."""
        front_end = self.front_end
        if not isinstance(front_end, VOneBlockConfig):
            return None
        if not isinstance(front_end.normalization, GainControl):
            return None
        before = _responses(without_gain_control(front_end), image)
        return Pools.of(front_end.normalization, np.asarray(before[0], np.float64))


def from_model(model: models.Model, variables: Any) -> NoisyClassifier:
    """Return a VOneNet as a classifier that can be certified.

    A tuned bank is taken from the variables. Gain control may be there, see
    ``certification.gain``, and a learned normalisation, because it is behind the noise.

    Args:
      model: a VOneNet whose V1 has ``GaussianNoise``, ``NeuronalNoise`` or ``StabilisedNoise``.
      variables: ``{"params": ..., "batch_stats": ...}``.

    Raises:
      ValueError: for a base network, an EVNet, a surround, or a noise without a bound.
    """
    if not isinstance(model, models.VOneNet):
        raise ValueError(
            "only the fixed V1 of a VOneNet has a known sensitivity, and this network has a "
            "learned stem; add noise to its pixels by certification.smooth_pixels"
        )
    if model.subcortical is not None:
        raise ValueError(
            "an EVNet has no known bound: its subcortical stage divides by local contrast, and "
            "adds noise of its own before V1"
        )
    model, variables = models.with_fixed_bank(model, variables)
    assert isinstance(model, models.VOneNet)
    check_config(without_gain_control(model.v1))
    check_noise(model.v1.noise)
    return NoisyClassifier(
        model.v1, functools.partial(_behind_v1, model, variables), model.v1.noise
    )


def _behind_v1(model: models.VOneNet, variables: Any, keys: Array, responses: Array) -> Array:
    noise = model.v1.noise
    assert noise is not None
    noisy = noise(responses, standard_normal(keys, responses.shape[1:]))
    layers: Any = model.apply(variables, noisy, method="behind_v1")
    return layers["logits"]


def from_function(
    logits_fn: Callable[[Array, Array], Array], sensitivity: float, deviation: float
) -> NoisyClassifier:
    """Return a function with Gaussian noise inside as a classifier that can be certified.

    Args:
      logits_fn: function of (keys, images), one key per example. It computes a representation and
        adds Gaussian noise to it, with other draws for other keys. What follows sees nothing else.
      sensitivity: bound of ||f(x') - f(x)|| / ||x' - x|| of the representation f, > 0. Its proof is
        the caller's.
      deviation: standard deviation of the noise, in units of the representation, > 0.
    """
    arguments.number("sensitivity", sensitivity, arguments.POSITIVE)
    arguments.number("deviation", deviation, arguments.POSITIVE)
    return NoisyClassifier(float(sensitivity), logits_fn, GaussianNoise(deviation))


def smooth_pixels(logits_fn: Callable[[Array, Array], Array], deviation: float) -> NoisyClassifier:
    """Return a classifier of images with Gaussian noise on all pixels (Cohen et al. 2019).

    It is the case of sensitivity 1. Noisy pixels are not clipped.

    Args:
      logits_fn: function of (keys, images), one key per example.
      deviation: standard deviation of the noise in pixel units, > 0.
    """

    def noisy(keys: Array, images: Array) -> Array:
        z = standard_normal(prng.stream(keys, "pixel noise"), images.shape[1:])
        return logits_fn(keys, images + deviation * z)

    return from_function(noisy, 1.0, deviation)


@dataclasses.dataclass(frozen=True, eq=False)
class Certificates:
    """The certificates of n images.

    Attributes:
      classifier: the classifier that they are about.
      prediction: the class that most of the first draws chose.
      votes: number of the other draws that chose it.
      draws: number of the other draws.
      lower: lower confidence bound p of the probability of the class.
      l2: certified L2 radius in pixel units, exclusive; 0 if p is at most 1/2.
      linf: certified L-infinity radius in pixel units, likewise.
      order: order of the Renyi divergence that gave the L2 radius, for neuronal noise.
    """

    classifier: NoisyClassifier
    prediction: Int[np.ndarray, " n"]
    votes: Int[np.ndarray, " n"]
    draws: int
    lower: Float64[np.ndarray, " n"]
    l2: Float64[np.ndarray, " n"]
    linf: Float64[np.ndarray, " n"]
    order: Float64[np.ndarray, " n"]

    @property
    def abstained(self) -> Bool[np.ndarray, " n"]:
        """True where the votes do not show that the class has a majority."""
        return self.lower <= 0.5

    def certified(
        self, labels: Any, radius: float, norm: Literal["l2", "linf"] = "l2"
    ) -> Bool[np.ndarray, " n"]:
        """Return True where the label is the answer to all perturbations up to a radius.

        The mean is the certified accuracy.
        """
        right = (self.prediction == np.asarray(labels)) & ~self.abstained
        return right & (getattr(self, norm) > radius)

    def covers(self, images: Images, perturbations: Images) -> Bool[np.ndarray, " n"]:
        """Return True where a perturbation of its image is certified not to change the answer.

        The certified region of V1 is no ball: it is narrow along what V1 is sensitive to, and wide
        along what it ignores. It includes both balls. For Gaussian noise it is the ellipsoid
        ||A d|| < scale Phi^-1(p), the same for all images; gain control bends and widens it.

        Raises:
          ValueError: if the front end is not V1.
        """
        v1, noise = self.classifier.front_end, self.classifier.noise
        if not isinstance(v1, VOneBlockConfig):
            raise ValueError("only V1 has a known region, other front ends have a radius")
        changes = np.asarray(displacements(without_gain_control(v1), perturbations), np.float64)
        images = jnp.asarray(batches.check_images(images), jnp.float32)
        responses = np.asarray(_responses(v1, images))
        covered = np.zeros(len(changes), bool)
        for i in np.flatnonzero(~self.abstained):
            pools = self.classifier.pools(images[i : i + 1])
            for order in orders(noise):
                if pools is None:
                    distance = _distance(noise, responses[i], changes[i], order)
                else:
                    distance = _controlled_distance(noise, pools, responses[i], changes[i], order)
                covered[i] |= bool(distance < certified_distance(noise, self.lower[i], order))
        return covered


def _distance(noise: Noise, responses: np.ndarray, changes: np.ndarray, order: float) -> float:
    """The bound of the observer's distance if no cell moves by more than ``changes``."""
    factors = weights(noise, responses, changes, order)
    with np.errstate(invalid="ignore"):  # Infinity times 0.
        return float(np.linalg.norm((factors * changes).ravel()))


def _controlled_distance(
    noise: Noise, pools: Pools, responses: np.ndarray, changes: np.ndarray, order: float
) -> float:
    """The same for responses behind gain control, and ``changes`` before it."""
    responses, changes = (by_pool(pools.control, each) for each in (responses, changes))
    of_pools = np.linalg.norm(changes, axis=1)
    of_cells = pools.cell_moved(of_pools, changes.T, responses.T).T
    factors = np.max(weights(noise, responses, of_cells, order), axis=1)
    with np.errstate(invalid="ignore"):  # Infinity times 0.
        return float(np.linalg.norm(factors * pools.moved(of_pools)))


def certify(
    key: Key[Array, "*keys"],
    classifier: NoisyClassifier,
    images: Images,
    choose: int = 100,
    draws: int = 10_000,
    alpha: float = 0.001,
    at_once: int = 100,
    local: bool = False,
    progress: bool = True,
) -> Certificates:
    """Certify the answers of a classifier with noise.

    Args:
      key: one typed key, or one per image. All draws of an image follow from its key, so it has the
        same certificate in any batch.
      classifier: of ``from_model``, ``from_function`` or ``smooth_pixels``.
      images: in [0, 1].
      choose: number of draws that choose the class.
      draws: number of other draws, which bound its probability by ``alpha ** (1 / draws)`` at most.
      alpha: probability that a certificate is wrong, for each image.
      at_once: number of draws computed at a time. It affects speed and memory only.
      local: also use ``local_sensitivity``, for V1. The larger radius counts. Its bound may fail,
        for which a tenth of ``alpha`` is set aside.
      progress: report progress on stderr.

    Raises:
      ValueError: if an argument or an image is out of range.
      TypeError: if images are not float32 or float64, or the classifier is a plain function.
      FloatingPointError: if logits are not finite.
    """
    if not isinstance(classifier, NoisyClassifier):
        raise TypeError(
            "certify needs a classifier whose noise is known; make one of any logits_fn by "
            f"smooth_pixels(logits_fn, deviation), or see from_model, got {classifier!r:.80}"
        )
    for name, number in (("choose", choose), ("draws", draws), ("at_once", at_once)):
        arguments.count(name, number)
    arguments.number("alpha", alpha, Range(0.0, 1.0, above=True, below=True))
    front_end, noise = classifier.front_end, classifier.noise
    if local and not isinstance(front_end, VOneBlockConfig):
        raise ValueError("local=True needs a classifier of from_model, whose front end is V1")
    if local and isinstance(front_end, VOneBlockConfig) and front_end.normalization is not None:
        raise ValueError(
            "local=True cannot be combined with gain control, whose bound is local already"
        )
    images = jnp.asarray(batches.check_images(images), jnp.float32)
    keys = prng.example_keys(key, len(images))
    failure = alpha / 10 if local else 0.0
    rows, back_end = [], None
    with Progress(len(images), unit="images", shown=progress) as report:
        for i, own in enumerate(keys):
            image = images[i : i + 1]
            responses = _responses(front_end, image)
            if back_end is None:
                several = jax.ShapeDtypeStruct((at_once, *responses.shape[1:]), responses.dtype)
                back_end = functions.as_pytree(
                    classifier.back_end, prng.example_keys(own, at_once), several, "back_end"
                )
            count = functools.partial(_votes, back_end, responses, at_once=at_once)
            prediction = int(np.argmax(count(prng.stream(own, "select"), choose)))
            votes = int(count(prng.stream(own, "estimate"), draws)[prediction])
            lower = lower_bound(votes, draws, alpha - failure)
            rates = classifier.rates(image)
            l2, order = certified_radius(noise, lower, rates["l2"])
            linf, _ = certified_radius(noise, lower, rates["linf"])
            if local and isinstance(front_end, VOneBlockConfig) and lower > 0.5:
                limit = certified_distance(noise, lower, order)
                nearby = _local_radius(own, front_end, image, limit, order, failure)
                l2, linf = max(l2, nearby), max(linf, nearby / math.sqrt(image.size))
            rows.append((prediction, votes, lower, l2, linf, order))
            report.advance()
    columns = np.array(rows, np.float64).reshape(-1, 6).T
    prediction, votes = columns[:2].astype(np.int64)
    return Certificates(classifier, prediction, votes, draws, *columns[2:])


def lower_bound(votes: int, draws: int, alpha: float) -> float:
    """Return the Clopper-Pearson lower bound of a probability, too high with a chance ``alpha``."""
    return float(scipy.special.betaincinv(votes, draws - votes + 1, alpha)) if votes else 0.0


@functools.partial(jax.jit, static_argnums=0)
def _responses(front_end: VOneBlockConfig | float, images: Array) -> Array:
    """What ``back_end`` adds noise to."""
    if isinstance(front_end, VOneBlockConfig):
        return noise_free_responses(front_end, images)
    return images


def _votes(
    back_end: Any, responses: Array, key: Array, draws: int, at_once: int
) -> Int[np.ndarray, " classes"]:
    """The number of draws that vote for each class."""
    votes, finite = _count(back_end, responses, key, draws, at_once)
    if not finite:
        raise FloatingPointError("the classifier gave logits that are NaN or infinite")
    return np.asarray(votes)


@functools.partial(jax.jit, static_argnames="at_once")
def _count(
    back_end: Any, responses: Array, key: Array, draws: Array | int, at_once: int
) -> tuple[Array, Array]:
    """The votes of all draws, and whether all logits are finite."""
    responses = jnp.broadcast_to(responses, (at_once, *responses.shape[1:]))

    def step(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        votes, finite = state
        numbers = i * at_once + jnp.arange(at_once)
        logits = back_end(prng.index_keys(key, numbers), responses)
        # Draws that are too many vote for no class.
        chosen = jnp.where(numbers < draws, jnp.argmax(logits, axis=-1), -1)
        votes += jnp.sum(jax.nn.one_hot(chosen, logits.shape[-1], dtype=jnp.int32), axis=0)
        return votes, finite & jnp.all(jnp.isfinite(logits))

    keys = prng.index_keys(key, jnp.arange(at_once))
    classes = jax.eval_shape(back_end, keys, responses).shape[-1]
    start = jnp.zeros(classes, jnp.int32), jnp.array(True)
    return jax.lax.fori_loop(0, -(-draws // at_once), step, start)


def _local_radius(
    key: Array, v1: VOneBlockConfig, image: Array, limit: float, order: float, failure: float
) -> float:
    """The largest L2 radius that ``local_sensitivity`` certifies for one image."""
    low, high, radius = 0.0, math.inf, 0.0
    for trial in range(_TRIALS):
        # A draw of its own, because the radius depends on the draws before.
        own = prng.fold(key[None], trial)
        bound = local_sensitivity(own, v1, image, radius, order, failure=failure / _TRIALS)
        proven = limit / float(bound[0])
        # The bound is valid up to the radius for which it was computed.
        low, high = max(low, min(proven, radius)), min(high, max(proven, radius))
        radius = (low + high) / 2 if trial else high
    return low
