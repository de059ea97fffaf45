"""DDN and FMN: gradient steps in a ball whose radius adapts, towards the closest image.

References:
  Rony et al., Decoupling direction and norm for efficient gradient-based L2 adversarial attacks
    and defenses, 2019, arXiv:1811.09600.
  Pintor et al., Fast minimum-norm adversarial attacks through adaptive norm constraints, 2021,
    arXiv:2102.12827.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from vone_jax import prng
from vone_jax.arguments import Positive, Range
from vone_jax.attacks import classifier, norms
from vone_jax.attacks.attack import Attack, Estimator, Loss, Norm
from vone_jax.attacks.classifier import Images, Keys, Labels, LogitsFn, Scalar, Values, where
from vone_jax.attacks.deepfool import boundary_distance
from vone_jax.attacks.minimal import Closest

# The point, the radius of its ball and the closest adversarial image.
State = tuple[Images, Values, Closest]

# The share by which a step changes the radius.
_Change = Annotated[float, Range(most=1.0, below=True)]


@dataclasses.dataclass(frozen=True)
class DDN(Attack):
    """Minimal L2 perturbations: gradient steps on a sphere that shrinks and grows.

    The radius shrinks by ``gamma`` after an adversarial point and grows by ``gamma`` after any
    other. The length of the steps falls from 1 to 0.01 along a cosine. Where the gradient is zero,
    the step goes in a random direction.

    Attributes:
      initial_norm: radius of the first sphere.
      gamma: relative change of the radius in a step.
      norm, eps, steps, eot_samples, loss, estimator, targeted: see ``Attack``.
    """

    decides_by_draws = True

    norm: Annotated[str, ("l2",)]
    eps: float
    steps: int = 100
    initial_norm: Positive = 1.0
    gamma: _Change = 0.05
    _: dataclasses.KW_ONLY
    eot_samples: int = 1
    loss: Loss = "cross_entropy"
    estimator: Estimator = "mean_logits"
    targeted: bool = False

    def search(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Closest:
        l2, shape, dtype = norms.L2(), images.shape[1:], images.dtype
        largest = l2.size(jnp.maximum(images, 1.0 - images))
        lengths = cosine(self.steps, 1.0, 0.01, dtype)

        def step(number: Array, state: State) -> State:
            point, radius, closest = state
            step_keys = prng.fold(keys, number)
            noise_keys = prng.stream(step_keys, "noise")
            slope, _, logits = self.gradient(noise_keys, logits_fn, point, labels)
            closest, adversarial = self.closer(closest, point, logits, images, labels)
            factor = jnp.where(adversarial, 1 - self.gamma, 1 + self.gamma)
            radius = jnp.minimum(radius * factor, largest)
            random = norms.surface(prng.stream(step_keys, "direction"), shape, l2, dtype)
            flat = jnp.all(slope == 0, axis=(1, 2, 3))
            direction = where(flat, random, l2.direction(slope))
            delta = point - images + lengths[number] * direction
            delta = radius[:, None, None, None] * l2.direction(delta)
            return jnp.clip(images + delta, 0.0, 1.0), radius, closest

        radius = jnp.full(images.shape[:1], self.initial_norm, dtype)
        start = (images, radius, Closest.start(images))
        point, _, closest = jax.lax.fori_loop(0, self.steps, step, start)
        last_keys = prng.fold(keys, self.steps)
        logits = classifier.draws(logits_fn, last_keys, point, self.eot_samples)
        return self.closer(closest, point, logits, images, labels)[0]


def cosine(steps: int, first: Scalar, last: Scalar, dtype: DTypeLike) -> Array:
    """Return ``steps`` values from ``first`` down towards ``last`` along half a cosine."""
    turn = jnp.pi * jnp.arange(steps, dtype=dtype) / steps
    return last + (first - last) * 0.5 * (1 + jnp.cos(turn))


@dataclasses.dataclass(frozen=True)
class FMN(Attack):
    """Minimal perturbations: gradient steps on the margin in a ball that adapts its radius.

    After an adversarial point the radius shrinks by gamma, to at most the best distance. After any
    other point it grows by gamma. Until an adversarial point is known, the radius never shrinks,
    and it grows from the distance of the linearised boundary or beyond; the paper takes that
    distance itself. So on a linear classifier the search ends on the boundary, or short of it where
    pixels at 0 or 1 cannot move further.

    Steps go along the gradient divided by its L2 norm, whatever the norm of the ball. Their length
    and gamma fall along a cosine. The projection is the Euclidean one in each norm (the L2
    projection of foolbox 3.3.4 does nothing).

    Attributes:
      first_step: length of the first step.
      last_step: length towards which the steps fall.
      first_gamma: relative change of the radius in the first step.
      last_gamma: relative change of the radius towards which gamma falls.
      norm, eps, steps, eot_samples, loss, estimator, targeted: see ``Attack``.
    """

    decides_by_draws = True

    norm: Norm
    eps: float
    steps: int = 100
    first_step: Positive = 1.0
    last_step: float = 0.01
    first_gamma: _Change = 0.05
    last_gamma: _Change = 0.001
    _: dataclasses.KW_ONLY
    eot_samples: int = 1
    loss: Loss = "margin"
    estimator: Estimator = "mean_logits"
    targeted: bool = False

    def search(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Closest:
        largest = norms.size(jnp.maximum(images, 1.0 - images), self.norm)
        lengths = cosine(self.steps, self.first_step, self.last_step, images.dtype)
        gammas = cosine(self.steps, self.first_gamma, self.last_gamma, images.dtype)

        def step(number: Array, state: State) -> State:
            point, radius, closest = state
            step_keys = prng.fold(keys, number)
            slope, margin, logits = self.gradient(step_keys, logits_fn, point, labels)
            closest, adversarial = self.closer(closest, point, logits, images, labels)
            away = norms.size(point - images, self.norm)
            boundary = away + boundary_distance(margin, slope, self.norm)
            farther = jnp.maximum(boundary, radius)
            radius = jnp.where(jnp.isinf(closest.distance), farther, radius)
            outward = radius * (1 + gammas[number])
            inward = jnp.minimum(radius * (1 - gammas[number]), closest.distance)
            radius = jnp.minimum(jnp.where(adversarial, inward, outward), largest)
            delta = point + lengths[number] * norms.L2().direction(slope) - images
            delta = norms.project_nearest(delta, self.norm, radius)
            return jnp.clip(images + delta, 0.0, 1.0), radius, closest

        start = (images, jnp.zeros_like(largest), Closest.start(images))
        point, _, closest = jax.lax.fori_loop(0, self.steps, step, start)
        last_keys = prng.fold(keys, self.steps)
        logits = classifier.draws(logits_fn, last_keys, point, self.eot_samples)
        return self.closer(closest, point, logits, images, labels)[0]
