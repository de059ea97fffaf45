"""The geometry of manifolds in a layer: how many classes fit, and how large and round they are.

A manifold is a set of points: the responses of a layer to the images of a class, to one image under
noise, or to one image within a ball of perturbations. Its *capacity* is the number of such
manifolds per dimension that a random hyperplane still separates. *Radius* and *dimension* are those
of the points that matter for this plane, its anchors.

``glue`` measures all manifolds together, with their correlations (Chou et al. 2024-25). It solves
one non-negative quadratic program for each random direction. ``separability`` is how well a linear
reader separates two manifolds.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

Points = Float[Array | np.ndarray, "manifolds points features"]

# A program is solved if its conditions hold to this share of the scale of a normal variable. It is
# checked every so many steps.
_TOLERANCE, _STEPS, _MOST_STEPS = 1e-3, 100, 1000
# A plane separates manifolds if the vector along it is longer than this share of the direction, and
# a capacity is defined if planes separate them in nearly all draws.
_SHORTEST, _SEPARABLE = 0.01, 0.95
_product = functools.partial(jnp.matmul, precision="highest")


class NotSeparableError(ValueError):
    """An error for too many manifolds in too few features, which no plane separates."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number and the ends of its 95 % interval over random directions."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Glue:
    """What ``glue`` measures.

    Attributes:
      capacity: manifolds per dimension that a random dichotomy separates; 2 for single points.
      radius: size of the anchors' variation, relative to the distance of their centres from 0.
      dimension: number of directions in which the anchors vary.
      centre_alignment, axis_alignment, centre_axis_alignment: mean cosines between different
        manifolds, of their centres, of the variations of their anchors, and of one and the other.
      active: mean share of manifolds with an anchor, which touch the plane.
    """

    capacity: Estimate
    radius: Estimate
    dimension: Estimate
    centre_alignment: Estimate
    axis_alignment: Estimate
    centre_axis_alignment: Estimate
    active: float


def glue(
    key: Key[Array, ""],
    points: Points,
    *,
    draws: int = 300,
    labels: str = "random",
    features: int = 1000,
) -> Glue:
    """Measure manifolds together (GLUE; Chou, Kim, ... Chung 2024-25).

    For a normal vector t and labels y of the manifolds, the nearest vector v to t that classifies
    all points x, y x . v >= 0, is t plus a sum of points with weights that are not negative. The
    weighted mean of a manifold's points in this sum is its anchor s. With S0 the mean anchors over
    draws and S1 = S - S0 their variation,

        capacity  = P / E ||v - t||^2
        dimension = E[t1' G1+ t1] / P                    t1 = S1 t,  Gi = Si Si'
        radius^2  = E[t1' (G0 + G1)+ t1] / E[t1' (G1 + G1 G0+ G1)+ t1]

    A manifold whose points all lie on the right side has no anchor in a draw. Dimension, radius and
    alignments are averages over manifolds with one.

    Args:
      key: typed key of the random directions, labels and projection.
      points: (P, M, N), P manifolds of M points each.
      draws: number of random directions.
      labels: "random", or "one_against_rest" as for a linear classifier.
      features: points of more features are projected at random to this number, as the authors do.

    Raises:
      NotSeparableError: if no plane separates the manifolds in more than one draw of twenty. The
        capacity would only count the features. It is never less than manifolds per feature.
      FloatingPointError: if points are not finite.
    """
    points = _finite(points)
    count, size = points.shape[:2]
    project, direct, label = jax.random.split(key, 3)
    points = _project(project, points, features)
    # The scale of all points changes nothing but the rounding.
    points = points / jnp.sqrt(jnp.mean(points**2) * points.shape[2])
    directions = jax.random.normal(direct, (draws, points.shape[2]))
    if labels == "random":
        signs = jax.random.rademacher(label, (draws, count), jnp.float32)
    elif labels == "one_against_rest":
        one = jax.random.randint(label, (draws,), 0, count)
        signs = 2 * jax.nn.one_hot(one, count) - 1
    else:
        raise ValueError(f"labels must be random or one_against_rest, got {labels!r}")
    projected, residual, weights = _project_on_cone(points, directions, signs)
    apart = jnp.mean(residual > _SHORTEST**2 * jnp.sum(directions**2, axis=1))
    if apart < _SEPARABLE:
        raise NotSeparableError(
            f"planes separate {count} manifolds of {size} points in {points.shape[2]} features in "
            f"{apart:.0%} of the draws only, so the capacity is not defined"
        )
    total = weights.sum(axis=2)
    anchors = jnp.einsum("dpm,pmn->dpn", weights, points, precision="highest")
    anchors = anchors / jnp.where(total > 0, total, 1.0)[:, :, None]
    active = np.asarray(total) > 0
    numbers = _glue_sums(
        np.asarray(anchors, np.float64), active, np.asarray(directions, np.float64)
    )
    numbers |= {
        "projected": np.asarray(projected, np.float64),
        "manifolds": np.full(draws, float(count)),
    }

    def ratio(top: str, bottom: str, power: float = 1.0) -> Estimate:
        return _ratio(numbers[top], numbers[bottom], power)

    return Glue(
        capacity=ratio("manifolds", "projected"),
        radius=ratio("inner", "outer", 0.5),
        dimension=ratio("varied", "active"),
        centre_alignment=ratio("centres", "pairs"),
        axis_alignment=ratio("axes", "pairs"),
        centre_axis_alignment=ratio("both", "pairs"),
        active=float(active.mean()),
    )


def separability(one: Points, other: Points) -> tuple[np.ndarray, np.ndarray]:
    """Return how well a linear reader separates two manifolds, pair by pair.

    Two manifolds overlap as far as it fails. The reader is Fisher's discriminant: the difference of
    the centres, weighted by the inverse of the covariance within both manifolds (Ledoit & Wolf's
    estimate, 2004), and a threshold half-way. It learns from one half of the points and reads the
    other half, and the other way round. A better reader may separate more.

    Args:
      one, other: (P, M, N), P pairs of manifolds with M points each, of independent draws.

    Returns:
      (P,) accuracies of the reader on points that it has not seen: 0.5 if manifolds are the same, 1
      if they are linearly separable; and (P,) distances of the two centres, relative to the root of
      the mean squared distance of the points from their own centre (infinite for two single
      points).
    """
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return tuple(np.array([_separate(*pair) for pair in zip(one, other, strict=True)]).T)


def _separate(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The accuracy of a linear reader of two manifolds (M, N), and their distance."""
    accuracies = []
    for half in (slice(0, None, 2), slice(1, None, 2)):
        learnt = [each[half] for each in (one, other)]
        centres = [each.mean(axis=0) for each in learnt]
        spread = np.concatenate([a - b for a, b in zip(learnt, centres, strict=True)])
        weights = _discriminant(spread, centres[1] - centres[0])
        threshold = (centres[0] + centres[1]) @ weights / 2
        rest = slice(1 - half.start, None, 2)
        read = [(one[rest] @ weights) < threshold, (other[rest] @ weights) >= threshold]
        accuracies.append(np.mean(read))
    squares = np.mean([np.sum((each - each.mean(axis=0)) ** 2, axis=1) for each in (one, other)])
    distance = np.linalg.norm(one.mean(axis=0) - other.mean(axis=0))
    return float(np.mean(accuracies)), float(distance / squares**0.5) if squares > 0 else np.inf


def _discriminant(spread: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Fisher's weights: the inverse of the covariance of deviations (K, N) times a difference (N,).

    The estimate is (1 - share) S + share m I, where S is the sample's and m its mean variance.
    """
    count, features = spread.shape
    inner = spread @ spread.T / count
    mean, squares = np.trace(inner) / features, np.sum(inner**2)
    away = squares - features * mean**2
    if away <= 0:
        return difference
    error = (np.sum(np.diag(inner) ** 2) - squares / count) if count > 1 else away
    share = min(max(error, 0.0) / away, 1.0)
    ridge = max(share * mean, 1e-12 * mean)
    # Woodbury: there are fewer points than features.
    small = ridge * np.eye(count) + (1 - share) * inner
    along = np.linalg.solve(small, spread @ difference) * (1 - share) / count
    return (difference - spread.T @ along) / ridge


def _finite(points: Points) -> Array:
    points = jnp.asarray(points, jnp.float32)
    if not bool(jnp.all(jnp.isfinite(points))):
        raise FloatingPointError("points are not finite")
    return points


def _project(key: Array, points: Array, features: int) -> Array:
    """Points with at most ``features`` features, by a matrix with columns of unit norm."""
    if points.shape[2] <= features:
        return points
    matrix = jax.random.normal(key, (points.shape[2], features))
    return _product(points, matrix / jnp.linalg.norm(matrix, axis=0, keepdims=True))


def _ratio(top: np.ndarray, bottom: np.ndarray, power: float) -> Estimate:
    """The ratio of two means over draws to a power, with the interval of the delta method."""
    if top.mean() == 0:
        return Estimate(0.0, 0.0, 0.0)
    value = top.mean() / bottom.mean()
    half = 1.959964 * np.std(top - value * bottom, ddof=1) / bottom.mean() / math.sqrt(len(top))
    ends = (value, value - half, value + half)
    return Estimate(*(math.copysign(abs(each) ** power, each) for each in ends))


def _project_on_cone(points: Array, directions: Array, signs: Array) -> tuple[Array, Array, Array]:
    """Project each -t on the cone of all y x. Return the squared norm, the residual's, and weights.

    The residual t + sum of weighted y x is the nearest vector that classifies all points.
    """
    count, size, features = points.shape
    flat = points.reshape(-1, features)
    # Rows of length 1 make the program well conditioned; the weights are scaled back.
    lengths = jnp.maximum(jnp.linalg.norm(flat, axis=1), jnp.finfo(jnp.float32).tiny)
    rows, signs = flat / lengths[:, None], jnp.repeat(signs, size, axis=1)
    weights = _nonnegative(rows, directions, signs)
    projection = _product(weights * signs, rows)
    residual = jnp.sum((directions + projection) ** 2, axis=1)
    weights = (weights / lengths[None]).reshape(-1, count, size)
    return jnp.sum(projection**2, axis=1), residual, weights


def _nonnegative(rows: Array, directions: Array, signs: Array) -> Array:
    """Minimise ``||t + sum_i w_i s_i x_i||^2`` over weights ``w >= 0``, for each direction t.

    Gradients solve most programs together. Those that are left, since their points have much in
    common, are solved one by one by SciPy's active sets.

    Args:
      rows: (K, N) points x.
      directions: (T, N).
      signs: (T, K), each -1 or 1.

    Returns:
      (T, K) weights.
    """
    weights, error = _by_gradients(rows, directions, signs)
    left = np.flatnonzero(np.asarray(error) > _TOLERANCE)
    if len(left) == 0:
        return weights
    # Imported here, because it takes long and is seldom needed.
    from scipy import optimize

    solved, points = np.array(weights), np.asarray(rows, np.float64)
    if points.shape[1] > points.shape[0]:
        # In the space of the points; the rest of a direction changes no weight.
        axes = np.linalg.svd(points, full_matrices=False)[2].T
    else:
        axes = np.eye(points.shape[1])
    for draw in left:
        signed = (points @ axes) * np.asarray(signs[draw])[:, None]
        target = np.asarray(directions[draw], np.float64) @ axes
        solved[draw], _ = optimize.nnls(-signed.T, target, maxiter=100 * len(points))
    return jnp.asarray(solved)


@jax.jit
def _by_gradients(rows: Array, directions: Array, signs: Array) -> tuple[Array, Array]:
    """The weights of ``_nonnegative``, and how far each program is from solved.

    Accelerated projected gradients with restarts (O'Donoghue & Candes 2015): one product with the
    matrix of all inner products per step.
    """
    # The largest eigenvalue of all inner products is the step size's limit.
    count, features = rows.shape
    step = 1 / jnp.linalg.norm(rows, ord=2) ** 2
    # Products with few features cost less in two steps.
    gram = _product(rows, rows.T) if 2 * features > count else None
    linear = _product(directions, rows.T) * signs

    def slope(weights: Array) -> Array:
        signed = weights * signs
        if gram is None:
            inner = _product(_product(signed, rows), rows.T)
        else:
            inner = _product(signed, gram)
        return inner * signs + linear

    def wrong(weights: Array) -> Array:
        """How far the conditions of an optimum are from holding, in each direction."""
        slopes = slope(weights)
        outside = jnp.max(-slopes, axis=1)
        product = jnp.sum(jnp.abs(weights * slopes), axis=1)
        way = jnp.sum(jnp.abs(weights * linear), axis=1)
        return jnp.maximum(outside, product / jnp.maximum(way, 1.0))

    def accelerate(_: Any, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        weights, ahead, momentum = state
        slopes = slope(ahead)
        moved = jnp.maximum(ahead - step * slopes, 0.0)
        uphill = jnp.sum(slopes * (moved - weights), axis=1, keepdims=True) > 0
        following = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        beyond = moved + (momentum - 1) / following * (moved - weights)
        return moved, jnp.where(uphill, moved, beyond), jnp.where(uphill, 1.0, following)

    def unfinished(state: tuple) -> Array:
        return jnp.any(state[0] > _TOLERANCE) & (state[1] < _MOST_STEPS)

    def further(state: tuple) -> tuple:
        _, steps, *rest = state
        rest = jax.lax.fori_loop(0, _STEPS, accelerate, tuple(rest))
        return wrong(rest[0]), steps + _STEPS, *rest

    weights = jnp.zeros((len(directions), len(rows)), rows.dtype)
    start = (wrong(weights), 0, weights, weights, jnp.ones((len(directions), 1), rows.dtype))
    error, _, weights, *_ = jax.lax.while_loop(unfinished, further, start)
    return weights, error


def _glue_sums(anchors: np.ndarray, active: np.ndarray, directions: np.ndarray) -> dict:
    """The sums of each draw behind the numbers of ``Glue``.

    By NumPy: of two eigenvalue problems at once in one program, those of jaxlib on CPUs wait for
    each other without end if they are as many as cores.
    """
    count = np.maximum(active.sum(axis=0), 1)[:, None]
    centres = np.sum(np.where(active[:, :, None], anchors, 0.0), axis=0) / count

    def inverse(matrix: np.ndarray) -> np.ndarray:
        return np.linalg.pinv(matrix, rcond=1e-5, hermitian=True)

    def cosines(one: np.ndarray, two: np.ndarray) -> float:
        lengths = [np.linalg.norm(each, axis=1, keepdims=True) for each in (one, two)]
        one, two = (
            each / np.maximum(length, 1e-12)
            for each, length in zip((one, two), lengths, strict=True)
        )
        return np.sum(one @ two.T * off)

    sums: dict[str, list[float]] = {}
    for anchor, on, direction in zip(anchors, active[:, :, None], directions, strict=True):
        mean = np.where(on, centres, 0.0)
        varied = np.where(on, anchor, 0.0) - mean
        # Points have length 1 on average; their rounding is no variation.
        varied = np.where(np.linalg.norm(varied, axis=1, keepdims=True) > 1e-5, varied, 0.0)
        along, off = varied @ direction, np.where(on & on.T, 1.0 - np.eye(len(on)), 0.0)
        g0, g1 = mean @ mean.T, varied @ varied.T
        for name, value in (
            ("varied", along @ inverse(g1) @ along),
            ("inner", along @ inverse(g0 + g1) @ along),
            ("outer", along @ inverse(g1 + g1 @ inverse(g0) @ g1) @ along),
            ("active", np.sum(on)),
            ("pairs", np.sum(off)),
            ("centres", cosines(mean, mean)),
            ("axes", cosines(varied, varied)),
            ("both", cosines(mean, varied)),
        ):
            sums.setdefault(name, []).append(float(value))
    return {name: np.array(values) for name, values in sums.items()}
