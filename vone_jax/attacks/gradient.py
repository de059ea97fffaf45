"""Attacks along the gradient: FGSM, projected gradient descent and MI-FGSM, in three norms.

References:
  Goodfellow et al., Explaining and harnessing adversarial examples, 2015, arXiv:1412.6572.
  Madry et al., Towards deep learning models resistant to adversarial attacks, 2018,
    arXiv:1706.06083.
  Athalye et al., Synthesizing robust adversarial examples, 2018, arXiv:1707.07397
    (expectation over transformation).
  Dong et al., Boosting adversarial attacks with momentum, 2018, arXiv:1710.06081.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from vone_jax import prng
from vone_jax.attacks import checks, classifier, losses, norms
from vone_jax.attacks.attack import Attack, pytree
from vone_jax.attacks.classifier import LogitsFn

# Step sizes by name, from the radius and the number of steps. The first is Madry's. The code of
# the VOneNet authors exists with the other two: 64 steps travel 2 eps and 16 eps.
STEP_RULES = {
    "2.5*eps/steps": lambda eps, steps: 2.5 * eps / steps,
    "eps/32": lambda eps, steps: eps / 32,
    "eps/4": lambda eps, steps: eps / 4,
}

ORDERS = ("ball_then_box", "box_then_ball")

KEEP = ("last", "best")

# How MI-FGSM normalises the gradients that it adds up.
VARIANTS = ("paper", "foolbox")


@pytree("eps", "step_size")
@dataclasses.dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient descent on an averaged loss.

    Each step moves along the direction of steepest ascent in the attack's norm and returns to
    the ball and to [0, 1].

    Attributes:
      norm: "linf", "l2" or "l1".
      eps: radius of the ball in pixel units, for instance 4/255.
      steps: number of steps.
      step_size: length of a step in the same units and norm; None takes it from ``step_rule``.
      step_rule: one of ``STEP_RULES``.
      random_start: begin at a point drawn evenly from the ball instead of the image itself.
      restarts: number of runs with other draws. With several, each example keeps the run with
        the highest averaged loss, judged with keys that no run has used.
      eot_samples: noise draws k per step; the gradient is that of the loss averaged over them.
      estimator: what is averaged, see ``losses.averaged``.
      loss: "cross_entropy", "margin" or "dlr".
      targeted: whether labels are classes to reach rather than to leave.
      l1_step: direction of an L1 step, see ``norms.L1_STEPS``.
      projection: "radial" or "exact", see ``norms.PROJECTIONS``.
      order: "ball_then_box", or "box_then_ball" as ART does it. Both end inside of both.
      keep: "last" returns the last iterate; "best" the one with the highest averaged loss, the
        start included, judged with keys that no gradient has used.
      norm_offset: added to the norms of gradient and perturbation before dividing by them, for
        L2 and L1. ART 1.5 adds 1e-7; with that the steps along tiny gradients become short.
      early_stop: an image stays where all draws of a step misclassify it (with a target: reach
        it), and a run ends when all images have stopped. It saves time and nothing else: what
        further steps would add to the loss is given up.

    Raises:
      ValueError, TypeError: if a field is out of range; the message names it.
    """

    norm: str
    eps: float
    steps: int = 64
    step_size: float | None = None
    step_rule: str = "2.5*eps/steps"
    random_start: bool = False
    restarts: int = 1
    eot_samples: int = 1
    estimator: str = "mean_loss"
    loss: str = "cross_entropy"
    targeted: bool = False
    l1_step: str = "dense"
    projection: str = "radial"
    order: str = "ball_then_box"
    keep: str = "last"
    norm_offset: float = 0.0
    early_stop: bool = False

    def __post_init__(self):
        checks.fields(
            self,
            step_rule=STEP_RULES,
            l1_step=norms.L1_STEPS,
            projection=norms.PROJECTIONS,
            order=ORDERS,
            keep=KEEP,
        )

    def perturb(self, keys: Array, logits_fn: LogitsFn, images: Array, labels: Array) -> Array:
        def evaluate(adversarial, keys):
            logits = classifier.draws(logits_fn, keys, adversarial, self.eot_samples)
            value = losses.averaged(losses.LOSSES[self.loss], self.estimator, logits, labels)
            misled = classifier.misled(logits, labels[None], self.targeted)
            return -value if self.targeted else value, jnp.all(misled, axis=0)

        def loss(adversarial, keys):
            return evaluate(adversarial, keys)[0]

        def total(adversarial, keys):
            # The examples' losses are summed, so no gradient depends on the size of the batch.
            value, misled = evaluate(adversarial, keys)
            return jnp.sum(value), misled

        gradient = jax.grad(total, has_aux=True)
        step_size = self.step_size
        if step_size is None:
            step_size = STEP_RULES[self.step_rule](self.eps, self.steps)

        def run(restart):
            run_keys = prng.fold(keys, restart)
            noise_keys = prng.stream(run_keys, "noise")
            start = images
            if self.random_start:
                start_keys = prng.stream(run_keys, "start")
                drawn = norms.sample(
                    start_keys, images.shape[1:], self.norm, self.eps, images.dtype
                )
                start = jnp.clip(images + drawn, 0.0, 1.0)

            iterate_keys = prng.stream(run_keys, "iterates")

            def step(number, state):
                adversarial, active, best = state
                slope, misled = gradient(adversarial, prng.fold(noise_keys, number))
                way = norms.direction(slope, self.norm, self.l1_step, adversarial, self.norm_offset)
                moved = self._feasible(adversarial + step_size * way, images)
                if self.early_stop:
                    active = active & ~misled
                    moved = norms.select(active, moved, adversarial)
                if self.keep == "best":
                    best = stronger(best, moved, loss(moved, iterate_keys))
                return moved, active, best

            best = (start, loss(start, iterate_keys)) if self.keep == "best" else None
            state = (start, jnp.ones(labels.shape, bool), best)
            if self.early_stop:
                _, state = jax.lax.while_loop(
                    lambda loop: (loop[0] < self.steps) & jnp.any(loop[1][1]),
                    lambda loop: (loop[0] + 1, step(*loop)),
                    (jnp.uint32(0), state),
                )
            else:
                numbers = jnp.arange(self.steps, dtype=jnp.uint32)
                state, _ = jax.lax.scan(lambda x, number: (step(number, x), None), state, numbers)
            last, _, best = state
            return last if best is None else best[0]

        if self.restarts == 1:
            return run(0)
        judge_keys = prng.stream(keys, "judge")

        def restart(best, number):
            rival = run(number)
            return stronger(best, rival, loss(rival, judge_keys)), None

        nothing = (images, jnp.full(images.shape[:1], -jnp.inf, images.dtype))
        (best_images, _), _ = jax.lax.scan(
            restart, nothing, jnp.arange(self.restarts, dtype=jnp.uint32)
        )
        return best_images

    def _feasible(self, adversarial: Array, images: Array) -> Array:
        if self.order == "box_then_ball":
            adversarial = jnp.clip(adversarial, 0.0, 1.0)
        delta = norms.project(
            adversarial - images, self.norm, self.eps, self.projection, self.norm_offset
        )
        return jnp.clip(images + delta, 0.0, 1.0)


def stronger(best, rival_images: Array, rival_loss: Array):
    """Return for each example the images and loss of the pair with the higher loss."""
    best_images, best_loss = best
    # A loss of NaN must win, or it would pass in silence.
    wins = ~(rival_loss <= best_loss)
    return norms.select(wins, rival_images, best_images), jnp.where(wins, rival_loss, best_loss)


@pytree("eps")
@dataclasses.dataclass(frozen=True)
class FGSM(Attack):
    """One step of length ``eps`` along the steepest direction: the fast gradient (sign) method.

    With "linf" the fast gradient sign method, with "l2" and "l1" the fast gradient method. It is
    ``PGD`` with one step and no random start; the attributes are explained there.
    """

    norm: str
    eps: float
    eot_samples: int = 1
    estimator: str = "mean_loss"
    loss: str = "cross_entropy"
    targeted: bool = False
    l1_step: str = "dense"

    def __post_init__(self):
        self._as_pgd()

    def perturb(self, keys: Array, logits_fn: LogitsFn, images: Array, labels: Array) -> Array:
        return self._as_pgd().perturb(keys, logits_fn, images, labels)

    def _as_pgd(self) -> PGD:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return PGD(steps=1, step_size=self.eps, **fields)


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

    def perturb(self, keys: Array, logits_fn: LogitsFn, images: Array, labels: Array) -> Array:
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
