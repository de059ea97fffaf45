"""The attack of Carlini and Wagner in L2, and the steps of Adam that it takes.

References:
  Carlini and Wagner, Towards evaluating the robustness of neural networks, 2017,
    arXiv:1608.04644.
  Kingma and Ba, Adam: a method for stochastic optimization, 2015, arXiv:1412.6980.
"""

import dataclasses
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vone_jax import fast, prng
from vone_jax.arguments import Positive
from vone_jax.attacks import classifier, losses
from vone_jax.attacks.attack import Attack, Estimator
from vone_jax.attacks.classifier import Draws, Images, Keys, Labels, LogitsFn, Mask, Values, where
from vone_jax.attacks.minimal import Closest

# Keeps the inverse of the hyperbolic tangent finite for pixels of 0 and 1.
_INSIDE = 0.999999
# A run of Adam ends for an image whose loss has not fallen by this factor in a tenth of the steps.
_PROGRESS = 0.9999

_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8


class Adam(NamedTuple):
    """The state of Adam: decaying sums of the gradients and of their squares.

    optax is not used, because its optimisers do not run under strict dtype promotion.
    """

    first: Array
    second: Array

    @classmethod
    def start(cls, like: Array) -> "Adam":
        return cls(jnp.zeros_like(like), jnp.zeros_like(like))

    def direction(self, gradient: Array, number: Array) -> tuple[Array, "Adam"]:
        """Return the step along the gradient for a learning rate of 1, and the new sums.

        ``number`` counts the steps before this one. See Kingma and Ba, algorithm 1.
        """
        first = _FIRST * self.first + (1 - _FIRST) * gradient
        second = _SECOND * self.second + (1 - _SECOND) * jnp.square(gradient)
        count = (number + 1).astype(gradient.dtype)
        step = first / (1 - _FIRST**count)
        return step / (jnp.sqrt(second / (1 - _SECOND**count)) + _TINY), Adam(first, second)


@dataclasses.dataclass(frozen=True)
class CW(Attack):
    """Minimal L2 perturbations: Adam on distance plus c times a hinge on the margin.

    The image is 1/2 + tanh(w) / 2, so it never leaves the pixel box. It is computed as the logistic
    function of 2 w, and its derivative from both tails: the square of a tanh in float32 rounds to 1
    beyond w = 8, where a black or white pixel could never come back. For each image c grows tenfold
    until a run of Adam succeeds. After that, c is bisected.

    The defaults are the paper's and cost up to 9 x 10000 forward and backward passes: a hundred
    times an attack of 1000 steps, for distances a few percent smaller.

    Attributes:
      steps: steps of Adam for each c.
      binary_search_steps: number of values of c.
      learning_rate: learning rate of Adam, in units of w.
      initial_const: the first c.
      confidence: required margin beyond the boundary, in logits.
      abort_early: stop an image whose loss no longer falls. The batch goes on until all images
        have stopped, so an image's result does not depend on the others.
      norm, eps, eot_samples, estimator, targeted: see ``Attack``.
    """

    decides_by_draws = True

    norm: Annotated[str, ("l2",)]
    eps: float
    steps: int = 10000
    binary_search_steps: int = 9
    learning_rate: Positive = 0.01
    initial_const: Positive = 1e-3
    confidence: float = 0.0
    abort_early: bool = True
    _: dataclasses.KW_ONLY
    eot_samples: int = 1
    estimator: Estimator = "mean_logits"
    targeted: bool = False

    def search(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Closest:
        def attempt(number: Array, state: tuple) -> tuple:
            closest, const, low, high = state
            closest, success = self._descend(
                prng.fold(keys, number), logits_fn, images, labels, closest, const
            )
            low, high = jnp.where(success, low, const), jnp.where(success, const, high)
            const = jnp.where(jnp.isinf(high), 10.0 * const, 0.5 * (low + high))
            return closest, const, low, high

        const = jnp.full(images.shape[:1], self.initial_const, images.dtype)
        state = (Closest.start(images), const, jnp.zeros_like(const), jnp.full_like(const, jnp.inf))
        return jax.lax.fori_loop(0, self.binary_search_steps, attempt, state)[0]

    def _descend(
        self,
        keys: Keys,
        logits_fn: LogitsFn,
        images: Images,
        labels: Labels,
        closest: Closest,
        const: Values,
    ) -> tuple[Closest, Mask]:
        """Run Adam from the images; return the closest images, and True where it succeeded."""

        def hinge(logits: Array, labels: Labels) -> Array:
            return fast.relu(-self.margin(logits, labels))

        def loss(point: Images, keys: Keys) -> tuple[Array, tuple[Values, Draws]]:
            logits = classifier.draws(logits_fn, keys, point, self.eot_samples)
            shortfall = losses.averaged(hinge, self.estimator, logits, labels)
            each = jnp.sum(jnp.square(point - images), axis=(1, 2, 3)) + const * shortfall
            return jnp.sum(each), (each, logits)

        def unfinished(state: tuple) -> Array:
            number, active = state[:2]
            return (number < self.steps) & jnp.any(active)

        def step(state: tuple) -> tuple:
            number, active, checked, success, closest, variable, adam = state
            step_keys = prng.fold(keys, number)
            point = jax.nn.sigmoid(2 * variable)
            slope, (each, logits) = jax.grad(loss, has_aux=True)(point, step_keys)
            slope = 2 * point * jax.nn.sigmoid(-2 * variable) * slope
            found, adversarial = self.closer(closest, point, logits, images, labels)
            # An image that has stopped takes no more draws of the noise.
            closest = where(active, found, closest)
            success = success | (active & adversarial)
            if self.abort_early:
                check = number % -(-self.steps // 10) == 0
                active = active & (~check | (each <= _PROGRESS * checked))
                checked = jnp.where(check, each, checked)
            descent, adam = adam.direction(slope, number)
            moved = where(active, variable - self.learning_rate * descent, variable)
            return number + 1, active, checked, success, closest, moved, adam

        # Images may lie outside [0, 1] by rounding.
        start = jnp.arctanh(_INSIDE * (2 * jnp.clip(images, 0.0, 1.0) - 1))
        active = jnp.ones(images.shape[:1], bool)
        never = jnp.full(images.shape[:1], jnp.inf, images.dtype)
        state = (jnp.int32(0), active, never, ~active, closest, start, Adam.start(start))
        _, _, _, success, closest, _, _ = jax.lax.while_loop(unfinished, step, state)
        return closest, success
