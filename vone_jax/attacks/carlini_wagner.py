"""The attack of Carlini and Wagner in L2.

References:
  Carlini and Wagner, Towards evaluating the robustness of neural networks, 2017,
    arXiv:1608.04644.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from vone_jax import prng
from vone_jax.attacks import adam, checks, losses
from vone_jax.attacks.attack import pytree
from vone_jax.attacks.classifier import LogitsFn
from vone_jax.attacks.minimal import Closest, MinimalNormAttack

# Keeps the inverse of the hyperbolic tangent finite for pixels of 0 and 1.
_INSIDE = 0.999999
# A run of Adam ends for an image whose loss has not fallen by this factor in a tenth of the steps.
_PROGRESS = 0.9999


@pytree("eps", "learning_rate", "initial_const", "confidence")
@dataclasses.dataclass(frozen=True)
class CW(MinimalNormAttack):
    """Minimal L2 perturbations: Adam on distance plus c times a hinge on the margin.

    The image is 1/2 + tanh(w) / 2, so it never leaves the pixel box. For each image a search for c
    goes tenfold up until it succeeds and then halves the interval.

    The defaults are the paper's and cost up to 9 x 10000 forward and backward passes: a hundred
    times an attack of 1000 steps, for distances a few percent smaller.

    Attributes:
      norm: "l2".
      eps: radius that a call keeps to, see ``MinimalNormAttack``.
      steps: steps of Adam for each c.
      binary_search_steps: number of values of c.
      learning_rate: of Adam, in units of w.
      initial_const: the first c.
      confidence: margin beyond the boundary that is asked for, in logits.
      abort_early: stop an image whose loss no longer falls. The batch goes on until all images
        have stopped, so an image's result does not depend on the others.
      eot_samples: noise draws per step, see ``MinimalNormAttack``.
      estimator: what a gradient averages over them, see ``losses.averaged``.
      targeted: whether labels are classes to reach rather than to leave.

    Raises:
      ValueError, TypeError: if a field is out of range; the message names it.
    """

    norm: str
    eps: float
    steps: int = 10000
    binary_search_steps: int = 9
    learning_rate: float = 0.01
    initial_const: float = 1e-3
    confidence: float = 0.0
    abort_early: bool = True
    eot_samples: int = 1
    estimator: str = "mean_logits"
    targeted: bool = False

    def __post_init__(self):
        checks.fields(self, norm=("l2",))

    def search(
        self, keys: Array, logits_fn: LogitsFn, images: Array, labels: Array, closest: Closest
    ) -> Closest:
        def attempt(state, number):
            closest, const, low, high = state
            closest, success = self._descend(
                prng.fold(keys, number), logits_fn, images, labels, closest, const
            )
            low, high = jnp.where(success, low, const), jnp.where(success, const, high)
            const = jnp.where(jnp.isinf(high), 10.0 * const, 0.5 * (low + high))
            return (closest, const, low, high), None

        const = jnp.full(images.shape[:1], self.initial_const, images.dtype)
        state = (closest, const, jnp.zeros_like(const), jnp.full_like(const, jnp.inf))
        numbers = jnp.arange(self.binary_search_steps, dtype=jnp.uint32)
        return jax.lax.scan(attempt, state, numbers)[0][0]

    def margin(self, logits, labels):
        return super().margin(logits, labels) - self.confidence

    def _descend(self, keys, logits_fn, images, labels, closest, const):
        """One run of Adam from the image, and for which images it succeeded."""

        def hinge(logits, labels):
            return jnp.maximum(-self.margin(logits, labels), 0.0)

        def loss(variable, keys):
            point = 0.5 + 0.5 * jnp.tanh(variable)
            logits = self.logits(logits_fn, keys, point)
            shortfall = losses.averaged(hinge, self.estimator, logits, labels)
            each = jnp.sum(jnp.square(point - images), axis=(1, 2, 3)) + const * shortfall
            return jnp.sum(each), (each, point, logits)

        def unfinished(state):
            number, active = state[:2]
            return (number < self.steps) & jnp.any(active)

        def step(state):
            number, active, checked, success, closest, variable, moments = state
            slope, (each, point, logits) = jax.grad(loss, has_aux=True)(
                variable, prng.fold(keys, number)
            )
            closest, adversarial = self.closer(closest, point, logits, images, labels)
            success = success | (active & adversarial)
            if self.abort_early:
                check = number % -(-self.steps // 10) == 0
                active = active & (~check | (each <= _PROGRESS * checked))
                checked = jnp.where(check, each, checked)
            way, moments = adam.direction(slope, moments, number)
            moved = variable - self.learning_rate * way
            moved = jnp.where(active[:, None, None, None], moved, variable)
            return number + 1, active, checked, success, closest, moved, moments

        start = jnp.arctanh(_INSIDE * (2 * images - 1))
        active = jnp.ones(images.shape[:1], bool)
        never = jnp.full(images.shape[:1], jnp.inf, images.dtype)
        state = (jnp.int32(0), active, never, ~active, closest, start, adam.initial(start))
        _, _, _, success, closest, _, _ = jax.lax.while_loop(unfinished, step, state)
        return closest, success
