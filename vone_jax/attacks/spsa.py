"""SPSA: gradients estimated from differences of scores along random directions.

References:
  Uesato et al., Adversarial risk and the dangers of evaluating against weak attacks, 2018,
    arXiv:1802.05666.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from vone_jax import prng
from vone_jax.attacks import adam, checks, classifier, losses, norms
from vone_jax.attacks.attack import Attack, pytree
from vone_jax.attacks.classifier import LogitsFn


@pytree("eps", "delta", "learning_rate")
@dataclasses.dataclass(frozen=True)
class SPSA(Attack):
    """Adam on simultaneous perturbations: an attack that needs no gradients.

    Each direction has random signs in every value. The loss is compared on both sides of the
    image under the same draws of the classifier's noise. The directions belong to an example,
    they are not shared within a batch. The result is the last iterate. A step costs
    2 x ``samples`` evaluations of ``eot_samples`` draws.

    Attributes:
      norm: "linf".
      eps: radius of the ball in pixel units.
      steps: steps of Adam.
      samples: random directions per step.
      delta: distance at which the loss is compared; the compared images may leave the pixel box
        by as much.
      learning_rate: of Adam, in pixel units.
      eot_samples: noise draws per evaluation; the loss is averaged over them.
      loss: what is raised: "margin", "cross_entropy" or "dlr".
      targeted: whether labels are classes to reach rather than to leave.

    Raises:
      ValueError, TypeError: if a field is out of range; the message names it.
    """

    norm: str
    eps: float
    steps: int = 100
    samples: int = 128
    delta: float = 0.01
    learning_rate: float = 0.01
    eot_samples: int = 1
    loss: str = "margin"
    targeted: bool = False

    def __post_init__(self):
        checks.fields(self, norm=("linf",))
        if isinstance(self.delta, (int, float)) and self.delta == 0:
            raise ValueError("delta must be above 0: the loss is compared at this distance")

    def perturb(self, keys: Array, logits_fn: LogitsFn, images: Array, labels: Array) -> Array:
        def loss(point, keys):
            logits = classifier.draws(logits_fn, keys, point, self.eot_samples)
            value = losses.averaged(losses.LOSSES[self.loss], "mean_loss", logits, labels)
            return -value if self.targeted else value

        def slope(point, keys):
            def add(total, number):
                sample_keys = prng.fold(keys, number)
                way_keys = prng.stream(sample_keys, "direction")
                noise_keys = prng.stream(sample_keys, "noise")
                way = jax.vmap(
                    lambda key: jax.random.rademacher(key, images.shape[1:], images.dtype)
                )(way_keys)
                sides = jnp.stack([point + self.delta * way, point - self.delta * way])
                ahead, behind = jax.vmap(loss, in_axes=(0, None))(sides, noise_keys)
                rise = (ahead - behind) / (2 * self.delta)
                return total + rise[:, None, None, None] * way, None

            numbers = jnp.arange(self.samples, dtype=jnp.uint32)
            return jax.lax.scan(add, jnp.zeros_like(point), numbers)[0] / self.samples

        def step(state, number):
            point, moments = state
            way, moments = adam.direction(slope(point, prng.fold(keys, number)), moments, number)
            delta = point + self.learning_rate * way - images
            delta = norms.project(delta, self.norm, self.eps)
            return (jnp.clip(images + delta, 0.0, 1.0), moments), None

        numbers = jnp.arange(self.steps, dtype=jnp.uint32)
        return jax.lax.scan(step, (images, adam.initial(images)), numbers)[0][0]
