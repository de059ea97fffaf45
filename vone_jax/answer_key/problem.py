"""What all networks of the answer key share: the form of a problem, and the steepest perturbation.

The largest increase of one linear feature c . d over ||d|| <= eps and 0 <= x + d <= 1 is the base
of all answers. With the room that each pixel has in the direction of the sign of its c,
``steepest`` returns:

    L-infinity    min(eps, room) in each pixel: the pixels do not compete.
    L1            the pixels with the largest |c| get all of their room until eps is spent: this is
                  the fractional knapsack problem.
    L2            min(t |c|, room), with the t for which the norm is eps: the Karush-Kuhn-Tucker
                  conditions. t follows from the sorted room / |c| at which pixels meet their end.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from vone_jax import arguments, batches, prng, v1
from vone_jax.attacks.classifier import LogitsFn
from vone_jax.names import NORMS

Images = Float[Array | np.ndarray, "n h w 1"]
Shares = Float[np.ndarray, " n"]
Shape = tuple[int, int]
# Probabilities of class 1, or of the right one, from features (..., K).
Chance = Callable[[np.ndarray], np.ndarray]

# The L-infinity radius for which the networks are made. About a third of the images is lost.
RADIUS = 8 / 255


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A network with noise, images, and what the strongest attack would leave.

    Attributes:
      logits_fn: the network, a function of keys (N,) and images (N, H, W, 1).
      images: float32, (N, H, W, 1).
      labels: int32, (N,).
      probability: function of images (N, H, W, 1), perturbed or not. It returns the exact
        probability that a noise draw is classified right, (N,); the mean is their exact accuracy.
      bounds: function of a radius in pixel units and a norm, "linf", "l2" or "l1". It returns a
        lower and an upper bound of the least such probability within the radius, two arrays (N,).
        They are one and the same array where the answer is exact.

    Both functions raise a TypeError or ValueError for images outside [0, 1], a radius that is
    negative, not finite or, in "linf", above 1, and another norm.
    """

    logits_fn: LogitsFn
    images: Float[Array, "n h w 1"]
    labels: Int[Array, " n"]
    probability: Callable[[Images], Shares]
    bounds: Callable[[float, str], tuple[Shares, Shares]]

    def __post_init__(self) -> None:
        probability, bounds = self.probability, self.bounds

        def checked_probability(images: Images) -> Shares:
            batches.check_images(images)
            return probability(images)

        def checked_bounds(eps: float, norm: str) -> tuple[Shares, Shares]:
            arguments.choice("norm", norm, NORMS)
            arguments.number("eps", eps)
            if norm == "linf":
                arguments.within_images("eps", eps, norm)
            return bounds(eps, norm)

        object.__setattr__(self, "probability", checked_probability)
        object.__setattr__(self, "bounds", checked_bounds)

    def exact(self, eps: float, norm: str) -> Shares:
        """Return the exact least probability of a right answer within the radius, (N,).

        Raises:
          ValueError: if only bounds are known in this norm.
        """
        low, high = self.bounds(eps, norm)
        if low is not high:
            raise ValueError(f"only bounds are known in norm {norm}, see Problem.bounds")
        return low


def make(
    network: Callable[..., Array],
    weights: np.ndarray,
    images: np.ndarray,
    shape: Shape,
    labels: np.ndarray,
    probability: Callable[[np.ndarray], Shares],
    bounds: Callable[[float, str], tuple[Shares, Shares]],
) -> Problem:
    """Return a problem.

    Args:
      network: function of the weights, keys and images (N, H, W, 1).
      weights: what it computes with, (K, D).
      images, shape, labels: (N, D), height and width, (N,).
      probability: as in ``Problem``, of images (N, D).
      bounds: as in ``Problem``.
    """
    return Problem(
        Partial(network, jnp.asarray(weights, jnp.float32)),
        jnp.asarray(images, jnp.float32).reshape(-1, *shape, 1),
        jnp.asarray(labels, jnp.int32),
        lambda images: probability(np.asarray(images, np.float64).reshape(len(images), -1)),
        bounds,
    )


def of_features(
    network: Callable[..., Array],
    weights: np.ndarray,
    images: np.ndarray,
    shape: Shape,
    labels: np.ndarray,
    chance: Chance,
    least: Callable[[Chance, np.ndarray, float, str], float],
) -> Problem:
    """Return the problem of two classes that depend on the features c = weights (x - 0.5) alone.

    Args:
      network, weights, images, shape, labels: see ``make``.
      chance: function of features (..., K); returns the probability of class 1.
      least: function of the probability of the right class, an image (D,), a radius and a norm. It
        returns the least probability within the radius.
    """

    def probability(images: np.ndarray) -> Shares:
        of_one = chance((images - 0.5) @ weights.T)
        return np.where(labels, of_one, 1 - of_one)

    def bounds(eps: float, norm: str) -> tuple[Shares, Shares]:
        sides = (lambda c: 1 - chance(c)), chance
        found = np.array(
            [
                least(sides[int(label)], image, eps, norm)
                for image, label in zip(images, labels, strict=True)
            ]
        )
        return found, found

    return make(network, weights, images, shape, labels, probability, bounds)


def steepest(features: np.ndarray, image: np.ndarray, eps: float, norm: str) -> np.ndarray:
    """Return the perturbations of one image that raise each linear feature most.

    Args:
      features: c, (K, D).
      image: x, (D,), in [0, 1].
      eps: radius in pixel units.
      norm: "linf", "l2" or "l1".

    Returns:
      Perturbations (K, D), see the formulas of the module.
    """
    size, room = np.abs(features), np.where(features > 0, 1 - image, image)
    if norm == "linf":
        return np.sign(features) * np.minimum(eps, room)
    if norm == "l1":
        order = np.argsort(-size, axis=1)
        ordered = np.take_along_axis(room, order, 1)
        before = np.cumsum(ordered, axis=1) - ordered
        moved = np.empty_like(room)
        np.put_along_axis(moved, order, np.clip(eps - before, 0, ordered), 1)
        return np.sign(features) * moved
    # The multiple of |c| at which each pixel meets the end of its room.
    size = np.maximum(size, 1e-300)
    ends = room / size
    order = np.argsort(ends, axis=1)
    ordered, ends = (np.take_along_axis(each, order, 1) for each in (room**2, ends))
    free = np.cumsum(np.take_along_axis(size, order, 1)[:, ::-1] ** 2, axis=1)[:, ::-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        spent = np.cumsum(ordered, axis=1) - ordered
        multiples = np.sqrt(np.maximum(eps**2 - spent, 0) / free)
    # The first pixel that does not meet its end. Without one, all pixels do.
    fits = multiples <= ends
    first = np.argmax(fits, axis=1)[:, None]
    multiple = np.take_along_axis(multiples, first, 1)
    multiple = np.where(fits.any(axis=1, keepdims=True), multiple, np.inf)
    return np.sign(features) * np.minimum(multiple * size, room)


def random_weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return random weights, none of which is near 0."""
    return rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1.5, shape)


def scaled(weights: np.ndarray, reach: float | np.ndarray) -> np.ndarray:
    """Return weights (K, D), of which ``RADIUS`` moves each feature by ``reach``, one or (K, 1)."""
    weights = weights * reach / (RADIUS * np.abs(weights).sum(axis=1, keepdims=True))
    # What float32 holds, since the networks compute with it.
    return weights.astype(np.float32).astype(np.float64)


def with_features(
    weights: np.ndarray, values: np.ndarray, rng: np.random.Generator, pixels: int = 1
) -> np.ndarray:
    """Return textured images (N, D) that have the values (N, K) of the features, in float32.

    ``pixels`` neighbours have the same texture. Images that would leave [0, 1] are clipped.
    """
    size = weights.shape[1] // pixels
    texture = np.repeat(rng.uniform(-0.15, 0.15, (len(values), size)), pixels, axis=1)
    images = 0.5 + texture + (values - texture @ weights.T) @ np.linalg.pinv(weights).T
    return np.clip(images, 0.0, 1.0).astype(np.float32).astype(np.float64)


def features(weights: Array, images: Array) -> Array:
    """Return the features weights (x - 0.5), (N, K), of images (N, H, W, 1)."""
    return (images.reshape(images.shape[0], -1) - 0.5) @ weights.T


def two_classes(evidence: Array) -> Array:
    """Return logits whose difference is the evidence (N,) for class 1."""
    return jnp.stack([-evidence / 2, evidence / 2], axis=-1)


def normal(keys: Array, *shape: int) -> Array:
    """Return standard normal noise, (N, *shape)."""
    return v1.standard_normal(prng.stream(keys, "noise"), shape)
