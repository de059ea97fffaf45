"""DeepFool: straight to the nearest boundary of the linearised classifier, again and again.

References:
  Moosavi-Dezfooli et al., DeepFool: a simple and accurate method to fool deep neural networks,
    2016, arXiv:1511.04599.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vone_jax import prng
from vone_jax.attacks import checks, losses, norms
from vone_jax.attacks.attack import pytree
from vone_jax.attacks.classifier import LogitsFn
from vone_jax.attacks.minimal import Closest, MinimalNormAttack

# Added to every step, so that a step of vanishing length still crosses the boundary (foolbox).
_EXTRA = 1e-4


@pytree("eps", "overshoot")
@dataclasses.dataclass(frozen=True)
class DeepFool(MinimalNormAttack):
    """Minimal perturbations by linearisation.

    Each step linearises the classifier, moves to the nearest boundary between the label and
    another class, and goes a little beyond. An image stops at its first adversarial point. The
    direction does not know of the pixel box; the result is clipped to it.

    A step costs a forward and ``classes`` backward passes. With a target it is one backward pass:
    the nearest boundary is that to the class that is likeliest at the present point.

    Attributes:
      norm: "l2" or "linf".
      eps: radius that a call keeps to, see ``MinimalNormAttack``.
      steps: largest number of steps.
      overshoot: how far the sum of the steps is stretched beyond the boundary.
      classes: other classes considered, those of the highest logits of the image; at most all.
      eot_samples: noise draws per step, see ``MinimalNormAttack``.
      estimator: what is linearised of them, see ``losses.combined``.
      targeted: whether labels are classes to reach rather than to leave.

    Raises:
      ValueError, TypeError: if a field is out of range; the message names it.
    """

    norm: str
    eps: float
    steps: int = 50
    overshoot: float = 0.02
    classes: int = 9
    eot_samples: int = 1
    estimator: str = "mean_logits"
    targeted: bool = False

    def __post_init__(self):
        checks.fields(self, norm=("l2", "linf"))

    def search(
        self, keys: Array, logits_fn: LogitsFn, images: Array, labels: Array, closest: Closest
    ) -> Closest:
        classes = None
        if not self.targeted:
            clean = jnp.mean(self.logits(logits_fn, prng.stream(keys, "classes"), images), axis=0)
            classes = rivals(clean, labels, min(self.classes, clean.shape[-1] - 1))

        def step(state, number):
            total, stopped, closest = state
            point = jnp.clip(images + (1 + self.overshoot) * total, 0.0, 1.0)
            boundary, logits = nearest_boundary(
                lambda point: self.logits(logits_fn, prng.fold(keys, number), point),
                point, labels, classes, self.norm, self.estimator,
            )  # fmt: skip
            closest, adversarial = self.closer(closest, point, logits, images, labels)
            stopped = stopped | adversarial
            # Up to the other class, or down from it to the target.
            slope = -boundary.slope if self.targeted else boundary.slope
            way = norms.direction(slope, self.norm, "dense", point)
            moved = total + (boundary.distance + _EXTRA)[:, None, None, None] * way
            return (jnp.where(stopped[:, None, None, None], total, moved), stopped, closest), None

        state = (jnp.zeros_like(images), closest.distance == 0, closest)
        numbers = jnp.arange(self.steps, dtype=jnp.uint32)
        (total, _, closest), _ = jax.lax.scan(step, state, numbers)
        point = jnp.clip(images + (1 + self.overshoot) * total, 0.0, 1.0)
        logits = self.logits(logits_fn, prng.fold(keys, self.steps), point)
        return self.closer(closest, point, logits, images, labels)[0]


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

    gap: Array
    slope: Array
    distance: Array


def rivals(logits: Array, labels: Array, count: int) -> Array:
    """The ``count`` classes of largest logits (N, C) besides the labels, shape (count, N)."""
    is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return jax.lax.top_k(jnp.where(is_label, -jnp.inf, logits), count)[1].T


def boundary_distance(gap: Array, slope: Array, norm: str) -> Array:
    """|gap| over the dual norm of the slope, shape (N,); 1e9 where the slope is zero."""
    # Divided by the largest value first, or the square of a tiny gradient would underflow.
    largest = norms.size(slope, "linf")
    unit = jnp.where(largest == 0, jnp.ones_like(largest), largest)
    scaled = norms.size(slope / unit[:, None, None, None], DUAL[norm])
    far = jnp.minimum(jnp.abs(gap) / jnp.maximum(scaled, 1.0) / unit, _FAR)
    return jnp.where(largest == 0, _FAR, far)


def nearest_boundary(
    logits: Callable[[Array], Array],
    images: Array,
    labels: Array,
    classes: Array | None,
    norm: str,
    estimator: str,
) -> tuple[Boundary, Array]:
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
        this = Boundary(gap, slope, boundary_distance(gap, slope, norm))
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
