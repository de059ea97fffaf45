"""Networks of two linear features: energy, blind to phase, and noise that the image switches on.

The values of two features that a ball of perturbations can reach form a convex set U in the plane.
``least_in_plane`` traces its boundary: for each direction e in the plane, the perturbation that is
the steepest for the feature e . (c0, c1) gives the boundary point whose normal is e. Points on the
lines between neighbouring ones are in U, because it is convex. With K directions, the polygon
misses at most a share 1 - cos(pi / K) of the radius of U, 1e-5. So the worst case that is found is
too high by a number of this order.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.special import expit, ndtr

from vone_jax.answer_key import problem
from vone_jax.answer_key.problem import Chance, Problem, Shape, steepest

# Directions in the plane, and points between two neighbouring corners.
_ANGLES, _BETWEEN = 720, 32
# The energy at the threshold and the deviation of the noise. The radius gives a grey patch 1.
_ENERGY, _OF_ENERGY = 0.8, 0.35
# The deviation of the noise with the switch off, and what it adds.
_QUIET, _LOUD = 0.35, 2.5


def least_in_plane(
    weights: np.ndarray, right: Chance, image: np.ndarray, eps: float, norm: str
) -> float:
    """Return the least of a function of two features within the radius.

    Args:
      weights: of the features, (2, D).
      right: function of features (P, 2); returns probabilities (P,). It must have no minimum inside
        of U but at the origin, which is looked at where U contains it.
      image, eps, norm: see ``problem.steepest``.
    """
    angle = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
    normals = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    corners = (image + steepest(normals @ weights, image, eps, norm) - 0.5) @ weights.T
    share = np.linspace(0, 1, _BETWEEN, endpoint=False)[:, None, None]
    points = ((1 - share) * corners + share * np.roll(corners, -1, axis=0)).reshape(-1, 2)
    if np.all(np.sum(corners * normals, axis=1) >= 0):
        points = np.concatenate([points, np.zeros((1, 2))])
    return right(points).min()


def energy(examples: int = 100, shape: Shape = (16, 16), seed: int = 0) -> Problem:
    """Return an energy detector, blind to phase. Exact in all norms.

    Two Gabor filters in quadrature give the energy E = (q0 . x)^2 + (q1 . x)^2, and class 1 is a
    high energy:

        P(class 1) = Phi((E - t) / s).

    Half of the images, of class 0, have the energy 0. There the gradient of E is exactly 0: the
    network is symmetric, and every direction is as good as its opposite. An attack that starts at
    the image itself stands still. The filters take differences of neighbouring pixels, which are
    equal in these images, so that no rounding breaks the symmetry.

    The truth is a search in the plane of (q0 . x, q1 . x). For class 0 the worst energy is the
    largest, which is at a corner of U. For class 1 it is the least: that of the point of the
    boundary that is closest to the origin, or 0 if the origin is in U.

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
    filters *= 1 / (problem.RADIUS * np.abs(filters).sum(axis=1).max())
    filters = filters.astype(np.float32).astype(np.float64)
    symmetric = rng.uniform(size=examples) < 0.5
    radius = np.where(symmetric, 0.0, rng.uniform(0.2, 2.4, examples))
    angle = rng.uniform(0, 2 * np.pi, examples)
    values = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    images = problem.with_features(filters, values, rng, pixels=2)

    def chance(points: np.ndarray) -> np.ndarray:
        return ndtr((np.sum(points**2, axis=-1) - _ENERGY) / _OF_ENERGY)

    return problem.of_features(
        _energy, filters, images, shape, radius**2 > _ENERGY, chance,
        functools.partial(least_in_plane, filters),
    )  # fmt: skip


def _energy(weights: Array, keys: Array, images: Array) -> Array:
    pixels = images.reshape(images.shape[0], -1)
    # Of equal pixels exactly 0, as no sum of rounded products is.
    parts = (pixels[:, ::2] - pixels[:, 1::2]) @ weights[:, ::2].T
    noise = _OF_ENERGY * problem.normal(keys)
    return problem.two_classes(jnp.sum(parts**2, axis=1) - _ENERGY + noise)


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
    truth is a search along its boundary.

    Arguments are those of ``linear``.
    """
    rng = np.random.default_rng(seed)
    drawn = [problem.random_weights(rng, shape[0] * shape[1]) for _ in range(2)]
    # The radius moves the switch by 4.
    weights = problem.scaled(np.stack(drawn), np.array([[1.0], [4.0]]))
    sign = np.where(rng.uniform(size=examples) < 0.5, -1.0, 1.0)
    values = np.stack([sign * rng.uniform(0.3, 3.0, examples), np.full(examples, -4.0)], axis=1)
    images = problem.with_features(weights, values, rng)

    def chance(points: np.ndarray) -> np.ndarray:
        return ndtr(points[..., 0] / (_QUIET + _LOUD * expit(points[..., 1])))

    return problem.of_features(
        _switched_noise, weights, images, shape, sign > 0, chance,
        functools.partial(least_in_plane, weights),
    )  # fmt: skip


def _switched_noise(weights: Array, keys: Array, images: Array) -> Array:
    mean, switch = problem.features(weights, images).T
    deviation = _QUIET + _LOUD * jax.nn.sigmoid(switch)
    return problem.two_classes(mean + deviation * problem.normal(keys))
