"""Networks with noise whose accuracy under the strongest attack is known.

An attack only gives an upper bound of the accuracy under attack. On the networks below the answer
is known, so an attack can be graded: against the accuracy that it reports, and against the exact
accuracy of the images that it returns. Each network sees an image through one or two linear
features, or through V1, and adds Gaussian noise. So the probability of a right answer has a closed
form, and the worst case within a radius is a search in one or two dimensions.

All networks have images of grey levels in [0, 1]. Perturbed images stay in this range, which the
answers take into account. Probabilities are computed in float64, and the networks in float32.

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

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from vone_jax import attacks, certification, prng, v1
from vone_jax.attacks.classifier import LogitsFn
from vone_jax.certification.bounds import sensitivities

Images = Float[Array | np.ndarray, "n h w 1"]
Shares = Float[np.ndarray, " n"]
Shape = tuple[int, int]

# The L-infinity radius for which the networks are made: about a third of the images is lost.
RADIUS = 8 / 255
# Directions in the plane of two features, and points between two neighbouring corners.
_ANGLES, _BETWEEN = 720, 32


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
    """

    logits_fn: LogitsFn
    images: Float[Array, "n h w 1"]
    labels: Int[Array, " n"]
    probability: Callable[[Images], Shares]
    bounds: Callable[[float, str], tuple[Shares, Shares]]

    def exact(self, eps: float, norm: str) -> Shares:
        """Return the exact least probability of a right answer within the radius, (N,).

        Raises:
          ValueError: if only bounds are known in this norm.
        """
        low, high = self.bounds(eps, norm)
        if low is not high:
            raise ValueError(f"only bounds are known in norm {norm}, see Problem.bounds")
        return low


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
    ends = room / np.maximum(size, 1e-300)
    order = np.argsort(ends, axis=1)
    squares = np.take_along_axis(size, order, 1) ** 2
    spent = np.cumsum(np.take_along_axis(room, order, 1) ** 2, axis=1)
    spent = np.concatenate([np.zeros_like(spent[:, :1]), spent], axis=1)[:, :-1]
    free = np.cumsum(squares[:, ::-1], axis=1)[:, ::-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        multiples = np.sqrt(np.maximum(eps**2 - spent, 0) / free)
    fits = multiples <= np.take_along_axis(ends, order, 1)
    first = np.argmax(fits, axis=1)[:, None]
    chosen = np.take_along_axis(multiples, first, 1)
    multiple = np.where(fits.any(axis=1, keepdims=True), chosen, np.inf)
    return np.sign(features) * np.minimum(multiple * np.maximum(size, 1e-300), room)


def _least_in_plane(
    chance: Callable[[np.ndarray, np.ndarray], np.ndarray],
    features: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    eps: float,
    norm: str,
) -> Shares:
    """The least of a function of two features within the radius, (N,).

    The values of two features that a ball of perturbations can reach form a convex set U in the
    plane. Its boundary is traced: for each direction e in the plane, the perturbation that is the
    steepest for the feature e . (c0, c1) gives the boundary point whose normal is e. Points on the
    lines between neighbouring ones are in U, because it is convex. With K directions, the polygon
    misses at most a share 1 - cos(pi / K) of the radius of U, 1e-5. So what is found is too high
    by a number of this order.

    The function must have no minimum inside of U but at the origin, which is tested for.

    Args:
      chance: function of points (K, 2) and of a label; returns probabilities (K,).
      features: (2, D), of the image minus 0.5.
      images: (N, D).
      labels: (N,), given to ``chance``.
    """
    angle = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
    normals = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    share = np.linspace(0, 1, _BETWEEN, endpoint=False)[:, None, None]
    least = []
    for image, label in zip(images, labels, strict=True):
        moved = steepest(normals @ features, image, eps, norm)
        corners = (image + moved - 0.5) @ features.T
        points = (1 - share) * corners + share * np.roll(corners, -1, axis=0)
        points = points.reshape(-1, 2)
        if np.all(np.sum(corners * normals, axis=1) >= 0):
            points = np.concatenate([points, np.zeros((1, 2))])
        least.append(chance(points, label).min())
    return np.array(least)


def _rows(images: Images) -> np.ndarray:
    return np.asarray(images, np.float64).reshape(len(images), -1)


def _with_values(features: np.ndarray, values: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """Images (N, D) with a texture (N, D) and values (N, K) of features of x - 0.5, in float32."""
    inverse = np.linalg.pinv(features)
    images = 0.5 + texture + (values - texture @ features.T) @ inverse.T
    return np.clip(images, 0.0, 1.0).astype(np.float32).astype(np.float64)


def _features(weights: Array, images: Array) -> Array:
    """Linear features of images (N, H, W, 1): (N,) for weights (D,), (N, K) for (K, D)."""
    return (images.reshape(images.shape[0], -1) - 0.5) @ weights.T


def _two(evidence: Array) -> Array:
    """Logits of two classes whose difference is the evidence (N,) for class 1."""
    return jnp.stack([-evidence / 2, evidence / 2], axis=-1)


def _normal(keys: Array, *shape: int) -> Array:
    return v1.standard_normal(prng.stream(keys, "noise"), shape)


def _scaled(weights: np.ndarray, reach: float) -> np.ndarray:
    """Weights (..., D), of which the radius ``RADIUS`` moves each feature by ``reach`` at most."""
    weights = weights * reach / (RADIUS * np.abs(weights).sum(axis=-1, keepdims=True))
    # What float32 holds, since the networks compute with it.
    return weights.astype(np.float32).astype(np.float64)


def _random_weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1.5, shape)


def _problem(
    network: Callable[..., Array],
    weights: np.ndarray,
    images: np.ndarray,
    shape: Shape,
    labels: np.ndarray,
    probability: Callable[[Images], Shares],
    bounds: Callable[[float, str], tuple[Shares, Shares]],
) -> Problem:
    return Problem(
        Partial(network, jnp.asarray(weights, jnp.float32)),
        jnp.asarray(images, jnp.float32).reshape(-1, *shape, 1),
        jnp.asarray(labels, jnp.int32),
        probability,
        bounds,
    )


def _of_one_feature(
    network: Callable[..., Array],
    chance: Callable[[np.ndarray], np.ndarray],
    examples: int,
    shape: Shape,
    seed: int,
    turning: float = np.inf,
) -> Problem:
    """Return the problem of a network that sees the evidence e = w . (x - 0.5) alone.

    The unit of e is what the radius ``RADIUS`` changes of it at most, RADIUS ||w||_1. The images
    have normal e of deviation 2.4, without what is beyond two deviations, and the label e > 0.

    Args:
      network: function of weights (D,), keys and images.
      chance: function of the evidence; returns the probability of class 1. It falls up to
        ``turning`` and rises beyond, or rises everywhere. So within an interval of e, it is largest
        at an end, and least at an end or at the turning point.
      examples, shape, seed: see ``linear``.
      turning: the evidence at which the function is least.
    """
    rng = np.random.default_rng(seed)
    size = shape[0] * shape[1]
    weights = _scaled(_random_weights(rng, size), 1.0)
    values = scipy.stats.truncnorm.rvs(-2, 2, scale=2.4, size=(examples, 1), random_state=rng)
    texture = rng.uniform(-0.15, 0.15, (examples, size))
    images = _with_values(weights[None], values, texture)
    labels = (images - 0.5) @ weights > 0

    def right(evidence: np.ndarray) -> Shares:
        return np.where(labels, chance(evidence), 1 - chance(evidence))

    def bounds(eps: float, norm: str) -> tuple[Shares, Shares]:
        both = np.stack([-weights, weights])
        moves = np.stack([steepest(both, image, eps, norm) @ weights for image in images])
        low, high = ((images - 0.5) @ weights)[None] + moves.T
        least = np.min([right(end) for end in (low, high, np.clip(turning, low, high))], axis=0)
        return least, least

    def probability(images: Images) -> Shares:
        return right((_rows(images) - 0.5) @ weights)

    return _problem(network, weights, images, shape, labels, probability, bounds)


# The deviation of the noise of networks of one feature, in units of the evidence.
_DEVIATION = 0.57


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
    return _of_one_feature(
        _linear, lambda e: scipy.special.ndtr(e / _DEVIATION), examples, shape, seed
    )


def _linear(weights: Array, keys: Array, images: Array) -> Array:
    return _two(_features(weights, images) + _DEVIATION * _normal(keys))


# The threshold of the neuron, the deviation of its gain, and that of the noise behind it.
_THRESHOLD, _GAIN, _ADDED = 6.0, 0.1, 0.2


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
        deviation = np.hypot(_ADDED, _GAIN * (evidence + _THRESHOLD))
        return scipy.special.ndtr(evidence / deviation)

    turning = -(_ADDED**2) / (_THRESHOLD * _GAIN**2) - _THRESHOLD
    return _of_one_feature(_shared_gain, chance, examples, shape, seed, turning)


def _shared_gain(weights: Array, keys: Array, images: Array) -> Array:
    evidence, z = _features(weights, images), _normal(keys, 2)
    return _two(evidence + _GAIN * (evidence + _THRESHOLD) * z[:, 0] + _ADDED * z[:, 1])


# Whole steps of the mean in a unit of the evidence.
_STEPS = 4


def quantised(examples: int = 300, shape: Shape = (28, 28), seed: int = 0) -> Problem:
    """Return a linear decoder whose mean evidence is in whole steps. Exact in all norms.

    The evidence is round(k w . (x - 0.5)) / k + s z. The noise hides nothing, but no gradient is
    left: it masks gradients by its mean. Rounding never falls, so the worst d is that of
    ``linear``:

        P(right | x + d) = Phi(y round(k (w . (x - 0.5) + w . d)) / (k s)).

    Arguments are those of ``linear``.
    """
    return _of_one_feature(
        _quantised,
        lambda e: scipy.special.ndtr(np.round(_STEPS * e) / (_STEPS * _DEVIATION)),
        examples,
        shape,
        seed,
    )


def _quantised(weights: Array, keys: Array, images: Array) -> Array:
    mean = jnp.round(_STEPS * _features(weights, images)) / _STEPS
    return _two(mean + _DEVIATION * _normal(keys))


# The deviation of the noise of each logit of ``linear_classes``.
_OF_LOGITS = 0.4
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(80)


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
    perturbation is the worst for every margin, and the answer is **exact**.

    In L2 and L1 the classes compete for the radius. Only **bounds** are returned:

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
    weights = _scaled(own * _random_weights(rng, size), 0.5)
    values = rng.uniform(-1, 1, (examples, classes))
    # The likeliest class leads by more than chance.
    values[np.arange(examples), np.argmax(values, axis=1)] += rng.uniform(0, 2, examples)
    texture = rng.uniform(-0.15, 0.15, (examples, size))
    images = _with_values(weights, values, texture)
    labels = np.argmax((images - 0.5) @ weights.T, axis=1)
    # For each image, w_y - w_j of the M - 1 other classes.
    others = np.array([np.delete(np.arange(classes), label) for label in labels])
    margins = weights[labels][:, None] - weights[others]

    def of_rows(rows: np.ndarray) -> Shares:
        gaps = np.einsum("nmd,nd->nm", margins, rows - 0.5) / _OF_LOGITS
        factors = scipy.special.ndtr(_NODES + gaps[:, :, None])
        return np.prod(factors, axis=1) @ _WEIGHTS / np.sqrt(2 * np.pi)

    def bounds(eps: float, norm: str) -> tuple[Shares, Shares]:
        together = images + np.concatenate(
            [
                steepest(-each.sum(axis=0, keepdims=True), image, eps, norm)
                for each, image in zip(margins, images, strict=True)
            ]
        )
        above = of_rows(together)
        if norm == "linf":
            return above, above
        moves = np.stack(
            [steepest(-each, image, eps, norm) for each, image in zip(margins, images, strict=True)]
        )
        above = np.min(
            [above, *(of_rows(images + moves[:, j]) for j in range(classes - 1))], axis=0
        )
        least = np.einsum("nmd,nmd->nm", margins, images[:, None] - 0.5 + moves)
        below = np.prod(scipy.special.ndtr(least / (np.sqrt(2) * _OF_LOGITS)), axis=1)
        return below, above

    def probability(images: Images) -> Shares:
        return of_rows(_rows(images))

    return _problem(_linear_classes, weights, images, shape, labels, probability, bounds)


def _linear_classes(weights: Array, keys: Array, images: Array) -> Array:
    return _features(weights, images) + _OF_LOGITS * _normal(keys, weights.shape[0])


# The energy at the threshold and the deviation of the noise. The radius gives a grey patch 1.
_ENERGY, _OF_ENERGY = 0.8, 0.35


def energy(examples: int = 100, shape: Shape = (16, 16), seed: int = 0) -> Problem:
    """Return an energy detector, blind to phase. Exact in all norms.

    Two Gabor filters in quadrature give the energy E = (q0 . x)^2 + (q1 . x)^2, and class 1 is a
    high energy:

        P(class 1) = Phi((E - t) / s).

    Half of the images, of class 0, have the energy 0. There the gradient of E is exactly 0: the
    network is symmetric, and every direction is as good as its opposite. An attack that starts at
    the image itself stands still. The filters take differences of neighbouring pixels, which are
    equal in these images, so that no rounding breaks the symmetry.

    The truth is a search in the plane of (q0 . x, q1 . x), see ``_least_in_plane``. For class 0 the
    worst energy is the largest, which is at a corner of the convex set U that can be reached. For
    class 1 it is the least: that of the point of the boundary that is closest to the origin, or 0
    if the origin is in U.

    Arguments are those of ``linear``; the width must be even.
    """
    rng = np.random.default_rng(seed)
    height, width = shape[0], shape[1] // 2
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    envelope = np.exp(-2 * (y / height) ** 2 - 2 * (x / width) ** 2)
    phase = 2 * np.pi * (0.1 * y + 0.2 * x)
    pair = np.stack([envelope * np.cos(phase), envelope * np.sin(phase)])
    filters = np.stack([pair, -pair], axis=-1).reshape(2, -1)
    # One scale for both, so that the energy stays blind to phase.
    filters *= 1 / (RADIUS * np.abs(filters).sum(axis=1).max())
    filters = filters.astype(np.float32).astype(np.float64)
    symmetric = rng.uniform(size=examples) < 0.5
    radius = np.where(symmetric, 0.0, rng.uniform(0.2, 2.4, examples))
    angle = rng.uniform(0, 2 * np.pi, examples)
    values = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    texture = np.repeat(rng.uniform(-0.15, 0.15, (examples, height * width)), 2, axis=1)
    images = _with_values(filters, values, texture)
    labels = radius**2 > _ENERGY

    def chance(points: np.ndarray, label: np.ndarray) -> np.ndarray:
        high = scipy.special.ndtr((np.sum(points**2, axis=-1) - _ENERGY) / _OF_ENERGY)
        return np.where(label, high, 1 - high)

    return _of_two_features(_energy, chance, filters, images, shape, labels)


def _energy(weights: Array, keys: Array, images: Array) -> Array:
    pixels = images.reshape(images.shape[0], -1)
    # Of equal pixels exactly 0, as no sum of rounded products is.
    parts = (pixels[:, ::2] - pixels[:, 1::2]) @ weights[:, ::2].T
    return _two(jnp.sum(parts**2, axis=1) - _ENERGY + _OF_ENERGY * _normal(keys))


# The deviation of the noise with the switch off, and what it adds.
_QUIET, _LOUD = 0.35, 2.5


def switched_noise(examples: int = 100, shape: Shape = (16, 16), seed: int = 0) -> Problem:
    """Return a linear decoder whose noise the image switches on. Exact in all norms.

    The evidence is m + s(v) z, with two linear features of the image, m = w . (x - 0.5) and
    v = w' . (x - 0.5), and s(v) = 0.35 + 2.5 / (1 + exp(-v)). In the images v is about -4, so that
    the noise is small. With y = 1 or -1,

        P(right) = Phi(y m / s(v)).

    The gradient of the mean is that of m alone, and misleads. An image with a margin that m cannot
    overcome within the radius is lost to the noise. In turn, where m can be overcome, more noise
    brings the right answer back: there the mean of the cross-entropy misleads, which noise raises.

    P rises with y m, so it has no minimum inside of the set of (m, v) that can be reached, and the
    truth is a search along its boundary, see ``_least_in_plane``.

    Arguments are those of ``linear``.
    """
    rng = np.random.default_rng(seed)
    size = shape[0] * shape[1]
    weights = np.concatenate(
        [_scaled(_random_weights(rng, 1, size), reach) for reach in (1.0, 4.0)]
    )
    sign = np.where(rng.uniform(size=examples) < 0.5, -1.0, 1.0)
    values = np.stack([sign * rng.uniform(0.3, 3.0, examples), np.full(examples, -4.0)], axis=1)
    texture = rng.uniform(-0.15, 0.15, (examples, size))
    images = _with_values(weights, values, texture)

    def chance(points: np.ndarray, label: np.ndarray) -> np.ndarray:
        deviation = _QUIET + _LOUD * scipy.special.expit(points[..., 1])
        high = scipy.special.ndtr(points[..., 0] / deviation)
        return np.where(label, high, 1 - high)

    return _of_two_features(_switched_noise, chance, weights, images, shape, sign > 0)


def _switched_noise(weights: Array, keys: Array, images: Array) -> Array:
    mean, switch = _features(weights, images).T
    deviation = _QUIET + _LOUD * jax.nn.sigmoid(switch)
    return _two(mean + deviation * _normal(keys))


def _of_two_features(
    network: Callable[..., Array],
    chance: Callable[[np.ndarray, np.ndarray], np.ndarray],
    features: np.ndarray,
    images: np.ndarray,
    shape: Shape,
    labels: np.ndarray,
) -> Problem:
    """Return the problem of a network that sees two linear features of an image.

    Args:
      network: function of the features (2, D), keys and images.
      chance: function of values (..., 2) of the features and of labels (...); returns the
        probability of a right answer, see ``_least_in_plane``.
      features, images, shape, labels: (2, D), (N, D), height and width, (N,).
    """

    def probability(images: Images) -> Shares:
        return chance((_rows(images) - 0.5) @ features.T, labels)

    def bounds(eps: float, norm: str) -> tuple[Shares, Shares]:
        least = _least_in_plane(chance, features, images, labels, eps, norm)
        return least, least

    return _problem(network, features, images, shape, labels, probability, bounds)


# Smaller than the blocks of the published networks, so that an attack of many steps takes seconds.
_V1 = v1.VOneBlockConfig(
    simple_channels=8, complex_channels=8, image_size=28, visual_degrees=1.0, kernel_size=9,
    stride=2, in_channels=1, noise=v1.StabilisedNoise(level=1.0),
)  # fmt: skip
# The amplitude of the grating by which the templates differ.
_CONTRAST = 0.03


def v1_templates(examples: int = 20, seed: int = 0) -> Problem:
    """Return a Bayes decoder of two templates behind V1. **Bounds** in all norms, nothing exact.

    V1 with stabilised noise responds with u = scale r(x) + level, and the decoder sees
    s = sqrt(u) + z / 2 of all cells, see ``certification.observer``. Let m0 and m1 be the sqrt(u)
    of the two templates, m = (m0 + m1) / 2 and c = 2 (m1 - m0). The logarithm of the ratio of the
    likelihoods is the evidence of the decoder that errs least:

        2 c . (s - m),   so that   P(class 1) = Phi(2 c . (sqrt(u) - m) / ||c||).

    That is exact for each image. But sqrt(u) is no linear function of an image, so its worst case
    is only known to lie between two bounds:

    - below, a certificate: a perturbation moves 2 sqrt(u) by at most L eps, so that
      P >= Phi(Phi^-1(P(x)) - L eps). L is ``certification.local_sensitivity``, which fails with a
      probability of 1e-5 for each image, or that of all images where it is less;
    - above, the images that APGD finds on the mean evidence, without noise.

    Images lie between and beyond the templates.

    Args:
      examples: number of images.
      seed: of the templates, the certificates and the attack.
    """
    noise, side, key = _V1.noise, _V1.image_size, jax.random.key(seed)
    assert isinstance(noise, v1.StabilisedNoise)
    base = np.random.default_rng(seed).uniform(0.3, 0.7, (1, side, side, 1))
    # A grating of four cycles per degree, which V1 sees well.
    grating = _CONTRAST * np.sin(2 * np.pi * 4 * np.arange(side) / side).reshape(1, 1, side, 1)
    # The templates have the shares -1 and 1.
    share = np.linspace(0.4, 1.6, examples // 2)
    share = np.stack([-share, share], axis=1).reshape(-1, 1, 1, 1)
    images = jnp.asarray(base + share * grating, jnp.float32)
    labels = jnp.asarray(share.reshape(-1) > 0, jnp.int32)
    means = _roots(jnp.asarray(np.concatenate([base - grating, base + grating]), jnp.float32))
    slope, middle = 2 * (means[1:] - means[:1]), (means[1:] + means[:1]) / 2
    sign = np.where(np.asarray(labels) > 0, 1.0, -1.0)

    def probability(images: Images) -> Shares:
        away = np.asarray(_roots(jnp.asarray(images)) - middle, np.float64)
        direction = np.asarray(slope, np.float64) / np.linalg.norm(slope)
        return scipy.special.ndtr(sign * np.sum(2 * direction * away, axis=(1, 2, 3)))

    def bounds(eps: float, norm: str) -> tuple[Shares, Shares]:
        length = eps * (np.sqrt(images[0].size) if norm == "linf" else 1.0)
        local = certification.local_sensitivity(key, _V1, images, length)
        known, factor = sensitivities(_V1), noise.scale / np.sqrt(noise.level)
        distance = factor * eps * (known.linf if norm == "linf" else known.l2)
        distance = np.minimum(distance, local * length)
        below = scipy.special.ndtr(scipy.special.ndtri(probability(images)) - distance)
        attack = attacks.APGD(norm, eps, loss="margin", restarts=2)
        mean = Partial(_v1_templates, slope, middle, 0.0)
        return below, np.minimum(
            probability(images), probability(attack(key, mean, images, labels))
        )

    network = Partial(_v1_templates, slope, middle, 0.5)
    return Problem(network, images, labels, probability, bounds)


def _roots(images: Array) -> Array:
    noise = _V1.noise
    assert isinstance(noise, v1.StabilisedNoise)
    return jnp.sqrt(noise.scale * v1.noise_free_responses(_V1, images) + noise.level)


def _v1_templates(
    slope: Array, middle: Array, deviation: float, keys: Array, images: Array
) -> Array:
    seen = _roots(images) + deviation * _normal(keys, *middle.shape[1:])
    return _two(2 * jnp.sum(slope * (seen - middle), axis=(1, 2, 3)))


# Name -> function that makes the problem.
PROBLEMS: dict[str, Callable[..., Problem]] = {
    each.__name__: each
    for each in (
        linear, linear_classes, energy, shared_gain, switched_noise, quantised, v1_templates,
    )
}  # fmt: skip
