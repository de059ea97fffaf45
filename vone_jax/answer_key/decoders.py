"""Linear decoders: with Gaussian noise, with noise of the gain, with steps, with several classes.

The networks of two classes see the evidence e = w . (x - 0.5) alone. Its unit is what the radius
``RADIUS`` changes of it at most, RADIUS ||w||_1. A perturbation can give e every value between two
ends, which ``steepest`` finds, so the worst case is a search in an interval.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy import stats
from scipy.special import ndtr

from vone_jax.answer_key import problem
from vone_jax.answer_key.problem import Chance, Problem, Shape, Shares, steepest

# The deviation of the noise of the evidence.
_DEVIATION = 0.57
# The threshold of a population, the deviation of its gain, and that of the noise behind it.
_THRESHOLD, _GAIN, _ADDED = 6.0, 0.1, 0.2
# Steps of the mean in a unit of the evidence.
_STEPS = 4
# The deviation of the noise of each logit with several classes, and the rule of integration.
_OF_LOGITS = 0.4
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(80)


def linear(examples: int = 300, shape: Shape = (28, 28), seed: int = 0) -> Problem:
    """Return a linear decoder of a noisy population, with two classes. Exact in all norms.

    The evidence for class 1 is w . (x - 0.5) + s z with a normal z, and the class is its sign. With
    y = 1 or -1 for the label,

        P(right | x + d) = Phi(y (w . (x - 0.5) + w . d) / s).

    Phi rises, so the worst d has the least y w . d. Where no pixel meets the end of its range, that
    is -eps ||w||_1 in L-infinity and -eps ||w||_2 in L2.

    Args:
      examples: number of images.
      shape: height and width of the images.
      seed: of weights and images.
    """
    return _of_evidence(_linear, lambda e: ndtr(e / _DEVIATION), examples, shape, seed)


def _linear(weights: Array, keys: Array, images: Array) -> Array:
    (evidence,) = problem.features(weights, images).T
    return problem.two_classes(evidence + _DEVIATION * problem.normal(keys))


def shared_gain(examples: int = 300, shape: Shape = (28, 28), seed: int = 0) -> Problem:
    """Return a population whose gain fluctuates: multiplicative noise. Exact in all norms.

    A population responds with a = e + t to the evidence e, and all its cells share a gain 1 + g z
    (Goris, Movshon and Simoncelli 2014). A decoder with noise r z' of its own compares it with the
    threshold t. So the evidence has the deviation sqrt(r^2 + g^2 a^2), and

        P(class 1) = Phi((a - t) / sqrt(r^2 + g^2 a^2)).

    The slope of the fraction has the sign of r^2 + t g^2 a. It rises beyond a = -r^2 / (t g^2) and
    falls before. So the worst d has the least or the largest w . d, or the a of the turning point.

    Arguments are those of ``linear``.
    """

    def chance(evidence: np.ndarray) -> np.ndarray:
        return ndtr(evidence / np.hypot(_ADDED, _GAIN * (evidence + _THRESHOLD)))

    turning = -(_ADDED**2) / (_THRESHOLD * _GAIN**2) - _THRESHOLD
    return _of_evidence(_shared_gain, chance, examples, shape, seed, turning)


def _shared_gain(weights: Array, keys: Array, images: Array) -> Array:
    (evidence,) = problem.features(weights, images).T
    z = problem.normal(keys, 2)
    gain = _GAIN * (evidence + _THRESHOLD) * z[:, 0]
    return problem.two_classes(evidence + gain + _ADDED * z[:, 1])


def quantised(examples: int = 300, shape: Shape = (28, 28), seed: int = 0) -> Problem:
    """Return a linear decoder whose mean evidence is in whole steps. Exact in all norms.

    The evidence is round(k w . (x - 0.5)) / k + s z. The noise hides nothing, but no gradient is
    left: it masks gradients by its mean. Rounding never falls, so the worst d is that of
    ``linear``:

        P(right | x + d) = Phi(y round(k (w . (x - 0.5) + w . d)) / (k s)).

    Arguments are those of ``linear``.
    """

    def chance(evidence: np.ndarray) -> np.ndarray:
        return ndtr(np.round(_STEPS * evidence) / (_STEPS * _DEVIATION))

    return _of_evidence(_quantised, chance, examples, shape, seed)


def _quantised(weights: Array, keys: Array, images: Array) -> Array:
    (evidence,) = problem.features(weights, images).T
    mean = jnp.round(_STEPS * evidence) / _STEPS
    return problem.two_classes(mean + _DEVIATION * problem.normal(keys))


def _of_evidence(
    network: Callable[..., Array],
    chance: Chance,
    examples: int,
    shape: Shape,
    seed: int,
    turning: float = np.inf,
) -> Problem:
    """Return the problem of a network that sees the evidence alone.

    The images have normal e of deviation 2.4, without what is beyond two deviations, and the label
    e > 0.

    Args:
      network: function of weights (1, D), keys and images.
      chance: function of the evidence; returns the probability of class 1. It falls up to
        ``turning`` and rises beyond, or rises everywhere. So within an interval of e, it is largest
        at an end, and least at an end or at the turning point.
      examples, shape, seed: see ``linear``.
      turning: the evidence at which the function is least.
    """
    rng = np.random.default_rng(seed)
    weights = problem.scaled(problem.random_weights(rng, 1, shape[0] * shape[1]), 1.0)
    values = np.asarray(stats.truncnorm.rvs(-2, 2, scale=2.4, size=(examples, 1), random_state=rng))
    images = problem.with_features(weights, values, rng)
    labels = (images - 0.5) @ weights[0] > 0

    def least(right: Chance, image: np.ndarray, eps: float, norm: str) -> float:
        moved = image + steepest(np.concatenate([-weights, weights]), image, eps, norm)
        low, high = (moved - 0.5) @ weights[0]
        return right(np.array([[low], [high], [np.clip(turning, low, high)]])).min()

    return problem.of_features(
        network, weights, images, shape, labels, lambda values: chance(values[..., 0]), least
    )


def linear_classes(
    classes: int = 10, examples: int = 300, shape: Shape = (28, 28), seed: int = 0
) -> Problem:
    """Return a linear decoder with several classes. Exact in L-infinity, bounds in L2 and L1.

    The logits are w_j . (x - 0.5) + s z_j with independent normal z. With the means u_j of the
    logits, and by the normal z of the label y,

        P(right) = E_z prod_{j != y} Phi(z + (u_y - u_j) / s),

    an integral over one variable (Gauss-Hermite). Its least value within a ball has no closed form
    for weights of any kind: the pixels cannot lower all margins u_y - u_j at once. Here each pixel
    belongs to one class alone, pixel i to class i mod M. Then P rises with the pixels of y along
    w_y, and falls with all others along their w_j. In L-infinity pixels do not compete, so one
    perturbation is the worst for every margin, and the answer is exact.

    In L2 and L1 the classes compete for the radius. Only bounds are returned:

    - above, the probabilities of images within the radius: those that lower one margin most, and
      that which lowers their sum most;
    - below, the margins are taken to be at their least at once. The noise of two margins has a
      correlation of 1/2, and by Slepian's inequality P(all > 0) is at least the product of
      P(each > 0) = Phi(least margin / (sqrt(2) s)).

    Args:
      classes: number of classes M.
      examples, shape, seed: see ``linear``.
    """
    rng = np.random.default_rng(seed)
    size = shape[0] * shape[1]
    own = np.arange(size)[None] % classes == np.arange(classes)[:, None]
    weights = problem.scaled(own * problem.random_weights(rng, size), 0.5)
    values = rng.uniform(-1, 1, (examples, classes))
    # The likeliest class leads by more than chance.
    values[np.arange(examples), np.argmax(values, axis=1)] += rng.uniform(0, 2, examples)
    images = problem.with_features(weights, values, rng)
    labels = np.argmax((images - 0.5) @ weights.T, axis=1)
    # For each image, w_y - w_j of the M - 1 other classes.
    others = np.array([np.delete(np.arange(classes), label) for label in labels])
    margins = weights[labels][:, None] - weights[others]

    def probability(images: np.ndarray) -> Shares:
        gaps = np.einsum("nmd,nd->nm", margins, images - 0.5) / _OF_LOGITS
        factors = ndtr(_NODES + gaps[:, :, None])
        return np.prod(factors, axis=1) @ _WEIGHTS / np.sqrt(2 * np.pi)

    def bounds(eps: float, norm: str) -> tuple[Shares, Shares]:
        # The sum of the margins, then each of them.
        targets = np.concatenate([margins.sum(axis=1, keepdims=True), margins], axis=1)
        moved = np.stack(
            [
                image + steepest(-each, image, eps, norm)
                for each, image in zip(targets, images, strict=True)
            ],
            axis=1,
        )
        if norm == "linf":
            least = probability(moved[0])
            return least, least
        gaps = np.einsum("nmd,mnd->nm", margins, moved[1:] - 0.5)
        below = np.prod(ndtr(gaps / (np.sqrt(2) * _OF_LOGITS)), axis=1)
        return below, np.min([probability(each) for each in moved], axis=0)

    return problem.make(_linear_classes, weights, images, shape, labels, probability, bounds)


def _linear_classes(weights: Array, keys: Array, images: Array) -> Array:
    return problem.features(weights, images) + _OF_LOGITS * problem.normal(keys, weights.shape[0])
