"""The nearest class boundary of a linearised classifier, the step of DeepFool and FAB."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vone_jax.attacks import losses, norms

# The norm in which a gradient is measured, so that |f| / size is a distance.
DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}

# Farther than any two images, and still a number that can be added up: no slope, no boundary.
_FAR = 1e9


class Boundary(NamedTuple):
    """The hyperplane gap + slope.(x' - x) = 0 between the label and one other class.

    Attributes:
      gap: logit of the class minus that of the label, shape (N,).
      slope: gradient of the gap, shape (N, H, W, C).
      distance: |gap| / norm of the slope, without regard to the pixel box, at most 1e9; (N,).
    """

    gap: jax.Array
    slope: jax.Array
    distance: jax.Array


def rivals(logits: jax.Array, labels: jax.Array, count: int) -> jax.Array:
    """The ``count`` classes of largest logits (N, C) besides the labels, shape (count, N)."""
    is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return jax.lax.top_k(jnp.where(is_label, -jnp.inf, logits), count)[1].T


def distance(gap: jax.Array, slope: jax.Array, norm: str) -> jax.Array:
    """|gap| over the dual norm of the slope, shape (N,); 1e9 where the slope is zero."""
    # Divided by the largest value first, or the square of a tiny gradient would underflow.
    largest = norms.size(slope, "linf")
    unit = jnp.where(largest == 0, jnp.ones_like(largest), largest)
    scaled = norms.size(slope / unit[:, None, None, None], DUAL[norm])
    far = jnp.minimum(jnp.abs(gap) / jnp.maximum(scaled, 1.0) / unit, _FAR)
    return jnp.where(largest == 0, _FAR, far)


def nearest_boundary(
    logits: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    labels: jax.Array,
    classes: jax.Array | None,
    norm: str,
    estimator: str,
) -> tuple[Boundary, jax.Array]:
    """The nearest linearised boundary to one of several classes.

    The classifier runs forward once and backward once per class, one after the other: the
    Jacobian of a thousand classes would not fit into memory.

    Args:
      logits: function of images to the logits of k draws, shape (k, N, C).
      images: where it is linearised.
      labels: integers of shape (N,).
      classes: other classes to consider, integers of shape (K, N); None for the likeliest one at
        this point, which is the one that stands between an image and its label as a target.
      norm: of the distance.
      estimator: what is linearised of the draws, see ``losses.combined``.

    Returns:
      The boundary, and the logits of the draws.
    """

    def combined(images):
        draws = logits(images)
        return losses.combined(estimator, draws), draws

    value, pull, draws = jax.vjp(combined, images, has_aux=True)
    if classes is None:
        classes = rivals(value, labels, 1)
    label = jax.nn.one_hot(labels, value.shape[-1], dtype=value.dtype)

    def visit(nearest, rival):
        weights = jax.nn.one_hot(rival, value.shape[-1], dtype=value.dtype) - label
        gap = jnp.sum(value * weights, axis=-1)
        (slope,) = pull(weights)
        this = Boundary(gap, slope, distance(gap, slope, norm))
        # A gradient of NaN must win and stay, or it would pass in silence.
        wins = ~(this.distance >= nearest.distance) & ~jnp.isnan(nearest.distance)
        return jax.tree.map(
            lambda new, old: jnp.where(wins.reshape((-1,) + (1,) * (new.ndim - 1)), new, old),
            this,
            nearest,
        ), None

    start = Boundary(
        jnp.zeros_like(value[:, 0]), jnp.zeros_like(images), jnp.full_like(value[:, 0], jnp.inf)
    )
    return jax.lax.scan(visit, start, classes)[0], draws
