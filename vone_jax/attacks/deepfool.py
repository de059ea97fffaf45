"""DeepFool: straight to the nearest boundary of the linearised classifier, again and again.

References:
  Moosavi-Dezfooli et al., DeepFool: a simple and accurate method to fool deep neural networks,
    2016, arXiv:1511.04599.
"""

import dataclasses

import jax
import jax.numpy as jnp

from vone_jax import prng
from vone_jax.attacks import checks, linearised, norms
from vone_jax.attacks.attack import pytree
from vone_jax.attacks.minimal import MinimalNormAttack

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

    def search(self, keys, logits_fn, images, labels, closest):
        classes = None
        if not self.targeted:
            clean = jnp.mean(self.logits(logits_fn, prng.stream(keys, "classes"), images), axis=0)
            classes = linearised.rivals(clean, labels, min(self.classes, clean.shape[-1] - 1))

        def step(state, number):
            total, stopped, closest = state
            point = jnp.clip(images + (1 + self.overshoot) * total, 0.0, 1.0)
            boundary, logits = linearised.nearest_boundary(
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
