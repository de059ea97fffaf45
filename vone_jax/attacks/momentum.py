"""The momentum iterative fast gradient sign method.

References:
  Dong et al., Boosting adversarial attacks with momentum, 2018, arXiv:1710.06081.
"""

import dataclasses

import jax
import jax.numpy as jnp

from vone_jax import prng
from vone_jax.attacks import checks, classifier, losses, norms
from vone_jax.attacks.attack import Attack, pytree

VARIANTS = ("paper", "foolbox")


@pytree("eps", "step_size", "decay")
@dataclasses.dataclass(frozen=True)
class MIFGSM(Attack):
    """Gradient ascent along a decaying sum of normalised gradients, from the clean image.

    Attributes:
      norm: "linf", "l2" or "l1".
      eps: radius of the ball in pixel units.
      steps: number of steps.
      step_size: length of a step in the same units and norm; None is ``eps / steps``.
      decay: factor of the sum at each step; 0 forgets, 1 is the paper's.
      variant: "paper" adds gradients divided by their L1 norm; "foolbox" adds the steepest
        directions in ``norm``, for L-infinity the signs. Their results differ.
      eot_samples: noise draws per step; the gradient is that of the loss averaged over them.
      estimator: what is averaged, see ``losses.averaged``.
      loss: "cross_entropy", "margin" or "dlr".
      targeted: whether labels are classes to reach rather than to leave.

    Raises:
      ValueError, TypeError: if a field is out of range; the message names it.
    """

    norm: str
    eps: float
    steps: int = 10
    step_size: float | None = None
    decay: float = 1.0
    variant: str = "paper"
    eot_samples: int = 1
    estimator: str = "mean_loss"
    loss: str = "cross_entropy"
    targeted: bool = False

    def __post_init__(self):
        checks.fields(self, variant=VARIANTS)

    def perturb(self, keys, logits_fn, images, labels):
        noise_keys = prng.stream(keys, "noise")
        step_size = self.eps / self.steps if self.step_size is None else self.step_size
        unit = "l1" if self.variant == "paper" else self.norm

        def total(adversarial, keys):
            logits = classifier.draws(logits_fn, keys, adversarial, self.eot_samples)
            loss = losses.averaged(losses.LOSSES[self.loss], self.estimator, logits, labels)
            return jnp.sum(-loss if self.targeted else loss)

        def step(carry, number):
            adversarial, momentum = carry
            slope = jax.grad(total)(adversarial, prng.fold(noise_keys, number))
            momentum = self.decay * momentum + norms.direction(slope, unit, "dense", adversarial)
            way = norms.direction(momentum, self.norm, "dense", adversarial)
            delta = adversarial + step_size * way - images
            adversarial = jnp.clip(images + norms.project(delta, self.norm, self.eps), 0.0, 1.0)
            return (adversarial, momentum), None

        start = (images, jnp.zeros_like(images))
        numbers = jnp.arange(self.steps, dtype=jnp.uint32)
        return jax.lax.scan(step, start, numbers)[0][0]
