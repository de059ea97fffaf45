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
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vone_jax import prng
from vone_jax.attacks import losses, norms
from vone_jax.attacks.attack import Attack, Estimator, Loss, Norm, pytree
from vone_jax.attacks.classifier import Images, Keys, Labels, LogitsFn, Values
from vone_jax.names import STEP_RULES


@pytree("eps", "step_size")
class PGD(Attack):
    """Projected gradient descent on an averaged loss.

    Each step moves along the direction of steepest ascent in the attack's norm and returns to
    the ball and to [0, 1].

    Attributes:
      step_size: length of a step in the units of ``eps``; None takes it from ``step_rule``.
      step_rule: one of ``STEP_RULES``.
      random_start: begin at a point drawn evenly from the ball instead of the image itself.
      restarts: number of runs with other draws. With several, each example keeps the run with
        the highest averaged loss, judged with keys that no run has used.
      l1_step: direction of an L1 step: "dense", the gradient itself; "max_coordinate", only the
        value with the largest gradient; or "sparse", that of sparse L1 descent.
      projection: onto the L1 ball: "radial" scales the perturbation, "exact" is the Euclidean one.
      order: "ball_then_box", or "box_then_ball" as in ART. Both orders end within ball and box.
      keep: "last" returns the last iterate; "best" the one with the highest averaged loss, the
        start included, judged with keys that no gradient has used.
      norm_offset: added to the norms of gradient and perturbation before dividing by them, for
        L2 and L1. ART before 1.18 adds 1e-7; with that the steps along tiny gradients become short.
      early_stop: an image stops once all draws of a step misclassify it, and a run ends when all
        images have stopped. This saves time, but gives up what further steps would add to the
        loss.
    """

    propagates_nan = True

    norm: Norm
    eps: float
    steps: int = 64
    step_size: float | None = None
    step_rule: Annotated[str, (*STEP_RULES,)] = "2.5*eps/steps"
    random_start: bool = False
    restarts: int = 1
    eot_samples: int = 1
    estimator: Estimator = "mean_loss"
    loss: Loss = "cross_entropy"
    targeted: bool = False
    l1_step: Annotated[str, norms.L1_STEPS] = "dense"
    projection: Annotated[str, norms.PROJECTIONS] = "radial"
    order: Annotated[str, ("ball_then_box", "box_then_ball")] = "ball_then_box"
    keep: Annotated[str, ("last", "best")] = "last"
    norm_offset: float = 0.0
    early_stop: bool = False

    def perturb(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        def loss(adversarial: Images, keys: Keys) -> Values:
            return self.evaluate(keys, logits_fn, adversarial, labels)[0]

        step_size = self.step_size
        if step_size is None:
            step_size = STEP_RULES[self.step_rule](self.eps, self.steps)

        nothing = (images, jnp.full(images.shape[:1], -jnp.inf, images.dtype))

        def run(restart: Array | int) -> Images:
            run_keys = prng.fold(keys, restart)
            noise_keys = prng.stream(run_keys, "noise")
            iterate_keys = prng.stream(run_keys, "iterates")
            start = images
            if self.random_start:
                start_keys = prng.stream(run_keys, "start")
                shape = images.shape[1:]
                drawn = norms.sample(start_keys, shape, self.norm, self.eps, images.dtype)
                start = jnp.clip(images + drawn, 0.0, 1.0)

            def step(number: Array, state: tuple) -> tuple:
                adversarial, active, best = state
                step_keys = prng.fold(noise_keys, number)
                slope, _, logits = self.gradient(step_keys, logits_fn, adversarial, labels)
                way = norms.direction(slope, self.norm, self.l1_step, adversarial, self.norm_offset)
                moved = self._feasible(adversarial + step_size * way, images)
                if self.early_stop:
                    misled = losses.misled(logits, labels, self.targeted)
                    # An image with logits that are not finite goes on, so that it becomes NaN.
                    broken = jnp.isnan(slope).any(axis=(1, 2, 3))
                    active = active & (broken | ~jnp.all(misled, axis=0))
                    moved = norms.select(active, moved, adversarial)
                if self.keep == "best":
                    best = losses.stronger(best, moved, loss(moved, iterate_keys))
                return moved, active, best

            best = None
            if self.keep == "best":
                best = losses.stronger(nothing, start, loss(start, iterate_keys))
            state = (start, jnp.ones(labels.shape, bool), best)
            if self.early_stop:
                _, state = jax.lax.while_loop(
                    lambda loop: (loop[0] < self.steps) & jnp.any(loop[1][1]),
                    lambda loop: (loop[0] + 1, step(*loop)),
                    (jnp.uint32(0), state),
                )
            else:
                state = jax.lax.fori_loop(0, self.steps, step, state)
            last, _, best = state
            return last if best is None else best[0]

        if self.restarts == 1:
            return run(0)
        judge_keys = prng.stream(keys, "judge")

        def restart(number: Array, best: tuple[Images, Values]) -> tuple[Images, Values]:
            rival = run(number)
            return losses.stronger(best, rival, loss(rival, judge_keys))

        return jax.lax.fori_loop(0, self.restarts, restart, nothing)[0]

    def _feasible(self, adversarial: Images, images: Images) -> Images:
        if self.order == "box_then_ball":
            adversarial = jnp.clip(adversarial, 0.0, 1.0)
        delta = norms.project(
            adversarial - images, self.norm, self.eps, self.projection, self.norm_offset
        )
        return jnp.clip(images + delta, 0.0, 1.0)


@pytree("eps")
class FGSM(Attack):
    """One step of length ``eps`` along the steepest direction: the fast gradient (sign) method.

    With "linf" this is the fast gradient sign method, with "l2" and "l1" the fast gradient method.
    It is ``PGD`` with one step and no random start; see ``PGD`` for the attributes.
    """

    propagates_nan = True

    norm: Norm
    eps: float
    eot_samples: int = 1
    estimator: Estimator = "mean_loss"
    loss: Loss = "cross_entropy"
    targeted: bool = False
    l1_step: Annotated[str, norms.L1_STEPS] = "dense"

    def perturb(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        pgd = PGD(steps=1, step_size=self.eps, **fields)
        return pgd.perturb(keys, logits_fn, images, labels)


@pytree("eps", "step_size", "decay")
class MIFGSM(Attack):
    """Gradient ascent along a decaying sum of normalised gradients, from the clean image.

    Attributes:
      step_size: length of a step in the units of ``eps``; None is ``eps / steps``.
      decay: factor of the sum at each step; 0 keeps no earlier gradient, 1 is the paper's value.
      variant: "paper" adds gradients divided by their L1 norm; "foolbox" adds the steepest
        directions in ``norm``, for L-infinity the signs. Their results differ.
    """

    propagates_nan = True

    norm: Norm
    eps: float
    steps: int = 10
    step_size: float | None = None
    decay: float = 1.0
    variant: Annotated[str, ("paper", "foolbox")] = "paper"
    eot_samples: int = 1
    estimator: Estimator = "mean_loss"
    loss: Loss = "cross_entropy"
    targeted: bool = False

    def perturb(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        noise_keys = prng.stream(keys, "noise")
        step_size = self.eps / self.steps if self.step_size is None else self.step_size
        unit = "l1" if self.variant == "paper" else self.norm

        def step(number: Array, state: tuple[Images, Images]) -> tuple[Images, Images]:
            adversarial, momentum = state
            step_keys = prng.fold(noise_keys, number)
            slope, _, _ = self.gradient(step_keys, logits_fn, adversarial, labels)
            momentum = self.decay * momentum + norms.direction(slope, unit)
            way = norms.direction(momentum, self.norm)
            delta = adversarial + step_size * way - images
            adversarial = jnp.clip(images + norms.project(delta, self.norm, self.eps), 0.0, 1.0)
            return adversarial, momentum

        start = (images, jnp.zeros_like(images))
        return jax.lax.fori_loop(0, self.steps, step, start)[0]
