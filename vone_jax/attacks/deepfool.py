"""DeepFool: repeated steps to the nearest boundary of the linearised classifier.

References:
  Moosavi-Dezfooli et al., DeepFool: a simple and accurate method to fool deep neural networks,
    2016, arXiv:1511.04599.
"""

import dataclasses
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from vone_jax import prng
from vone_jax.attacks import classifier, losses, norms
from vone_jax.attacks.attack import Attack, Estimator
from vone_jax.attacks.classifier import (
    Draws,
    Images,
    Keys,
    Labels,
    Logits,
    LogitsFn,
    Values,
    where,
)
from vone_jax.attacks.minimal import Closest

# Added to every step, so that a step of vanishing length still crosses the boundary (foolbox).
_EXTRA = 1e-4

# The norm in which a gradient is measured, so that |f| / size is a distance.
DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}

# The distance where the slope is zero and there is no boundary: farther than any image, but finite,
# so that it can be summed.
_FAR = 1e9

Rivals = Int[Array, "rivals n"]


class Boundary(NamedTuple):
    """The hyperplane gap + slope.(x' - x) = 0 between the label and one other class.

    Attributes:
      gap: logit of the class minus that of the label.
      slope: gradient of the gap.
      distance: |gap| / norm of the slope, without regard to the pixel box, at most 1e9.
    """

    gap: Values
    slope: Images
    distance: Values


def boundary_distance(gap: Values, slope: Images, norm: str) -> Values:
    """Return |gap| over the dual norm of the slope; 1e9 where the slope is zero."""
    # Divided by the largest value first, or the square of a tiny gradient would underflow.
    largest = norms.size(slope, "linf")
    unit = jnp.where(largest == 0, jnp.ones_like(largest), largest)
    scaled = norms.size(slope / unit[:, None, None, None], DUAL[norm])
    far = jnp.minimum(jnp.abs(gap) / jnp.maximum(scaled, 1.0) / unit, _FAR)
    return jnp.where(largest == 0, _FAR, far)


def nearest_boundary(
    attack: Attack,
    keys: Keys,
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    rivals: Rivals | None,
) -> tuple[Boundary, Draws]:
    """Return the nearest linearised boundary to one of several classes, and the logits.

    The classifier runs forward once and backward once per class, one after the other: the
    Jacobian of a thousand classes would not fit into memory. If ``rivals`` is None, the one
    class is the likeliest one besides the label. Targeted attacks, whose label is the target,
    use this.
    """

    norm: Any = attack.norm

    def combined(images: Images) -> tuple[Logits, Draws]:
        draws = classifier.draws(logits_fn, keys, images, attack.eot_samples)
        return losses.combined(attack.estimator, draws), draws

    value, pull, draws = jax.vjp(combined, images, has_aux=True)
    if rivals is None:
        rivals = losses.rivals(value, labels, 1)
    label = jax.nn.one_hot(labels, value.shape[-1], dtype=value.dtype)

    def visit(nearest: Boundary, rival: Labels) -> tuple[Boundary, None]:
        weights = jax.nn.one_hot(rival, value.shape[-1], dtype=value.dtype) - label
        gap = jnp.sum(value * weights, axis=-1)
        (slope,) = pull(weights)
        distance = boundary_distance(gap, slope, norm)
        # A gradient of NaN wins and is kept, so that it is reported.
        wins = ~(distance >= nearest.distance) & ~jnp.isnan(nearest.distance)
        return where(wins, Boundary(gap, slope, distance), nearest), None

    zero = jnp.zeros_like(value[:, 0])
    start = Boundary(zero, jnp.zeros_like(images), jnp.full_like(zero, jnp.inf))
    return jax.lax.scan(visit, start, rivals)[0], draws


@dataclasses.dataclass(frozen=True)
class DeepFool(Attack):
    """Minimal perturbations by linearisation.

    Each step linearises the classifier, moves to the nearest boundary between the label and
    another class, and goes a little beyond. An image stops at its first adversarial point. The
    direction does not depend on the pixel box; the result is clipped to it.

    A step costs one forward pass and ``classes`` backward passes. A targeted step costs one
    backward pass: it takes the boundary to the class that is likeliest at the current point.

    Attributes:
      steps: largest number of steps.
      overshoot: the sum of the steps is multiplied by 1 + ``overshoot``, to cross the boundary.
      classes: number of other classes considered, those with the highest logits of the clean image;
        all if there are fewer.
      estimator: what is linearised: the mean of the logits over the noise draws, or with
        "mean_probability" the logarithm of their mean probability.
    """

    decides_by_draws = True

    norm: Annotated[str, ("l2", "linf")]
    eps: float
    steps: int = 50
    overshoot: float = 0.02
    classes: int = 9
    _: dataclasses.KW_ONLY
    eot_samples: int = 1
    estimator: Estimator = "mean_logits"
    targeted: bool = False

    def search(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Closest:
        def logits(keys: Keys, images: Images) -> Draws:
            return classifier.draws(logits_fn, keys, images, self.eot_samples)

        norm = norms.of(self.norm)
        classes = None
        if not self.targeted:
            clean = jnp.mean(logits(prng.stream(keys, "classes"), images), axis=0)
            classes = losses.rivals(clean, labels, min(self.classes, clean.shape[-1] - 1))

        def step(number: Array, state: tuple) -> tuple:
            total, stopped, closest = state
            point = jnp.clip(images + (1 + self.overshoot) * total, 0.0, 1.0)
            step_keys = prng.fold(keys, number)
            boundary, decisions = nearest_boundary(
                self, step_keys, logits_fn, point, labels, classes
            )
            closest, adversarial = self.closer(closest, point, decisions, images, labels)
            stopped = stopped | adversarial
            # Away from the label or, for a targeted attack, towards the label, which is the target.
            slope = -boundary.slope if self.targeted else boundary.slope
            direction = norm.direction(slope)
            moved = total + (boundary.distance + _EXTRA)[:, None, None, None] * direction
            return where(stopped, total, moved), stopped, closest

        start = (jnp.zeros_like(images), jnp.zeros(labels.shape, bool), Closest.start(images))
        total, _, closest = jax.lax.fori_loop(0, self.steps, step, start)
        point = jnp.clip(images + (1 + self.overshoot) * total, 0.0, 1.0)
        decisions = logits(prng.fold(keys, self.steps), point)
        return self.closer(closest, point, decisions, images, labels)[0]
