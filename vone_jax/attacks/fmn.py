"""DDN and FMN: gradient steps in a ball whose radius adapts, towards the closest image.

References:
  Rony et al., Decoupling direction and norm for efficient gradient-based L2 adversarial attacks
    and defenses, 2019, arXiv:1811.09600.
  Pintor et al., Fast minimum-norm adversarial attacks through adaptive norm constraints, 2021,
    arXiv:2102.12827.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from vone_jax import prng
from vone_jax.attacks import checks, losses, norms
from vone_jax.attacks.attack import pytree
from vone_jax.attacks.classifier import LogitsFn
from vone_jax.attacks.deepfool import boundary_distance
from vone_jax.attacks.minimal import Closest, MinimalNormAttack
from vone_jax.attacks.random_noise import surface


@pytree("eps", "initial_norm", "gamma")
@dataclasses.dataclass(frozen=True)
class DDN(MinimalNormAttack):
    """Minimal L2 perturbations: gradient steps on a sphere that shrinks and grows.

    The radius shrinks by ``gamma`` while the image is adversarial and grows by it while not. The
    length of the steps falls from 1 to 0.01 along a cosine. Where the gradient is zero the step
    goes in a random direction.

    Attributes:
      norm: "l2".
      eps: radius that a call keeps to, see ``MinimalNormAttack``.
      steps: number of steps.
      initial_norm: radius of the first sphere.
      gamma: relative change of the radius in a step.
      eot_samples: noise draws per step, see ``MinimalNormAttack``.
      estimator: what a gradient averages over them, see ``losses.averaged``.
      targeted: whether labels are classes to reach rather than to leave.

    Raises:
      ValueError, TypeError: if a field is out of range; the message names it.
    """

    norm: str
    eps: float
    steps: int = 100
    initial_norm: float = 1.0
    gamma: float = 0.05
    eot_samples: int = 1
    estimator: str = "mean_logits"
    targeted: bool = False

    def __post_init__(self):
        checks.fields(self, norm=("l2",))

    def search(
        self, keys: Array, logits_fn: LogitsFn, images: Array, labels: Array, closest: Closest
    ) -> Closest:
        largest = norms.size(jnp.maximum(images, 1.0 - images), "l2")
        lengths = cosine(self.steps, 1.0, 0.01, images.dtype)

        def loss(point, keys):
            logits = self.logits(logits_fn, keys, point)
            entropy = losses.averaged(losses.cross_entropy, self.estimator, logits, labels)
            return jnp.sum(-entropy if self.targeted else entropy), logits

        def step(state, number):
            point, radius, closest = state
            step_keys = prng.fold(keys, number)
            slope, logits = jax.grad(loss, has_aux=True)(point, prng.stream(step_keys, "noise"))
            closest, adversarial = self.closer(closest, point, logits, images, labels)
            radius = jnp.minimum(
                radius * jnp.where(adversarial, 1 - self.gamma, 1 + self.gamma), largest
            )
            random = surface(
                prng.stream(step_keys, "direction"), images.shape[1:], "l2", images.dtype
            )
            flat = jnp.all(slope == 0, axis=(1, 2, 3), keepdims=True)
            way = jnp.where(flat, random, norms.direction(slope, "l2", "dense", point))
            delta = point - images + lengths[number] * way
            delta = radius[:, None, None, None] * norms.direction(delta, "l2", "dense", point)
            return (jnp.clip(images + delta, 0.0, 1.0), radius, closest), None

        radius = jnp.full(images.shape[:1], self.initial_norm, images.dtype)
        numbers = jnp.arange(self.steps, dtype=jnp.uint32)
        (point, _, closest), _ = jax.lax.scan(step, (images, radius, closest), numbers)
        logits = self.logits(logits_fn, prng.fold(keys, self.steps), point)
        return self.closer(closest, point, logits, images, labels)[0]


def cosine(steps: int, first: Array | float, last: Array | float, dtype) -> Array:
    """``steps`` values from ``first`` down towards ``last`` along half a cosine."""
    turn = jnp.pi * jnp.arange(steps, dtype=dtype) / steps
    return last + (first - last) * 0.5 * (1 + jnp.cos(turn))


@pytree("eps", "first_step", "last_step", "first_gamma", "last_gamma")
@dataclasses.dataclass(frozen=True)
class FMN(MinimalNormAttack):
    """Minimal perturbations: gradient steps on the margin in a ball that adapts its radius.

    The radius shrinks by gamma from an adversarial point, to no more than the best distance, and
    grows by gamma from another one. As long as no adversarial point is known, it grows from the
    radius of the linearised boundary; the paper takes that radius itself, and on a linear
    classifier then ends on the boundary and not behind it.

    Steps go along the gradient over its L2 norm, whatever the norm of the ball, and both their
    length and gamma fall along a cosine. The projection is the Euclidean one in each norm (the L2
    projection of foolbox 3.3.4 does nothing).

    Attributes:
      norm: "linf", "l2" or "l1".
      eps: radius that a call keeps to, see ``MinimalNormAttack``.
      steps: number of steps.
      first_step: length of the first step.
      last_step: length that steps fall to.
      first_gamma: relative change of the radius in the first step.
      last_gamma: what it falls to.
      eot_samples: noise draws per step, see ``MinimalNormAttack``.
      estimator: what a gradient averages over them, see ``losses.averaged``.
      targeted: whether labels are classes to reach rather than to leave.

    Raises:
      ValueError, TypeError: if a field is out of range; the message names it.
    """

    norm: str
    eps: float
    steps: int = 100
    first_step: float = 1.0
    last_step: float = 0.01
    first_gamma: float = 0.05
    last_gamma: float = 0.001
    eot_samples: int = 1
    estimator: str = "mean_logits"
    targeted: bool = False

    def __post_init__(self):
        checks.fields(self)

    def search(
        self, keys: Array, logits_fn: LogitsFn, images: Array, labels: Array, closest: Closest
    ) -> Closest:
        largest = norms.size(jnp.maximum(images, 1.0 - images), self.norm)
        lengths = cosine(self.steps, self.first_step, self.last_step, images.dtype)
        gammas = cosine(self.steps, self.first_gamma, self.last_gamma, images.dtype)

        def margin(point, keys):
            logits = self.logits(logits_fn, keys, point)
            margin = losses.averaged(self.margin, self.estimator, logits, labels)
            return jnp.sum(margin), (margin, logits)

        def step(state, number):
            point, radius, closest = state
            slope, (margin_now, logits) = jax.grad(margin, has_aux=True)(
                point, prng.fold(keys, number)
            )
            closest, adversarial = self.closer(closest, point, logits, images, labels)
            away = norms.size(point - images, self.norm)
            boundary = away + boundary_distance(margin_now, slope, self.norm)
            radius = jnp.where(jnp.isinf(closest.distance), boundary, radius)
            outward = radius * (1 + gammas[number])
            inward = jnp.minimum(radius * (1 - gammas[number]), closest.distance)
            radius = jnp.minimum(jnp.where(adversarial, inward, outward), largest)
            way = norms.direction(slope, "l2", "dense", point)
            delta = jax.vmap(
                lambda delta, radius: norms.project(delta[None], self.norm, radius, "exact")[0]
            )(point + lengths[number] * way - images, radius)
            return (jnp.clip(images + delta, 0.0, 1.0), radius, closest), None

        numbers = jnp.arange(self.steps, dtype=jnp.uint32)
        (point, _, closest), _ = jax.lax.scan(step, (images, largest, closest), numbers)
        logits = self.logits(logits_fn, prng.fold(keys, self.steps), point)
        return self.closer(closest, point, logits, images, labels)[0]
