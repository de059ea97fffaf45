"""Attacks along the gradient: FGSM and projected gradient descent, in three norms.

References:
  Goodfellow et al., Explaining and harnessing adversarial examples, 2015, arXiv:1412.6572.
  Madry et al., Towards deep learning models resistant to adversarial attacks, 2018,
    arXiv:1706.06083.
  Athalye et al., Synthesizing robust adversarial examples, 2018, arXiv:1707.07397
    (expectation over transformation).
  Dong et al., Boosting adversarial attacks with momentum, 2018, arXiv:1710.06081 (MI-FGSM).
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vone_jax import prng
from vone_jax.attacks import losses, norms, strongest
from vone_jax.attacks.attack import AnyNorm, GradientAttack, Repeated
from vone_jax.attacks.classifier import Images, Keys, Labels, LogitsFn, Mask, Values, where
from vone_jax.names import STEP_RULES


class PGD(GradientAttack, Repeated):
    """Projected gradient descent on an averaged loss.

    Each step moves along the sign of the gradient (L-infinity) or along the gradient (L2 and L1)
    and returns to the ball and to [0, 1].

    Attributes:
      step_size: length of a step in the units of ``eps``; None takes it from ``step_rule``.
      step_rule: one of ``STEP_RULES``.
      random_start: begin at a point drawn evenly from the ball instead of the image itself.
      restarts: number of runs; more than one needs ``random_start``.
      order: "ball_then_box", or "box_then_ball" as in ART. Both orders end within ball and box.
      momentum: decay of a sum of gradients, along which the steps then go. Each gradient is divided
        by its L1 norm before it is added. 0 keeps no earlier gradient. With 1, ``steps=10`` and
        ``step_rule="eps/steps"`` the attack is MI-FGSM.
      keep: "last" returns the last iterate; "best" the one with the highest averaged loss, the
        start included, judged with keys that no gradient has used.
      norm_offset: added to the norms of gradient and perturbation before dividing by them, for
        L2 and L1. ART before 1.18 adds 1e-7; with that the steps along tiny gradients become short.
      early_stop: an image stops once all draws of a step misclassify it, and so do all of the 20
        draws by which candidates are compared, drawn anew for it. A run ends when all images have
        stopped. This saves time, but gives up what further steps would add to the loss, which for a
        classifier with noise are right decisions. A call with single draws warns of that.
    """

    norm: AnyNorm
    steps: int = 64
    step_size: float | None = None
    step_rule: Annotated[str, (*STEP_RULES,)] = "2.5*eps/steps"
    random_start: bool = False
    restarts: int = 1
    order: Annotated[str, ("ball_then_box", "box_then_ball")] = "ball_then_box"
    momentum: float = dataclasses.field(default=0.0, metadata={"leaf": False})
    keep: Annotated[str, ("last", "best")] = "last"
    norm_offset: float = dataclasses.field(default=0.0, metadata={"leaf": False})
    early_stop: bool = False

    @property
    def decides_by_draws(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.early_stop

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restarts > 1 and not self.random_start:
            raise ValueError(
                f"restarts must be 1 without random_start, where all runs begin at the image "
                f"itself, got {self.restarts}"
            )

    def run(
        self, keys: Keys, number: Array, logits_fn: LogitsFn, images: Images, labels: Labels
    ) -> tuple[Images]:
        run_keys = prng.fold(keys, number)
        noise_keys = prng.stream(run_keys, "noise")
        iterate_keys = prng.stream(run_keys, "iterates")
        confirm_keys = prng.stream(run_keys, "confirm")
        step_size = self.step_size
        if step_size is None:
            step_size = norms.per_image(STEP_RULES[self.step_rule](self.eps, self.steps))
        start = images
        if self.random_start:
            start_keys = prng.stream(run_keys, "start")
            shape = images.shape[1:]
            drawn = norms.sample(start_keys, shape, self.norm, self.eps, images.dtype)
            start = jnp.clip(images + drawn, 0.0, 1.0)
            if norms.geometry(self.norm):
                start = self._feasible(start, images)

        def higher(best: tuple[Images, Values], iterate: Images) -> tuple[Images, Values]:
            loss = self.evaluate(iterate_keys, logits_fn, iterate, labels)[0]
            return losses.higher(best, iterate, loss)

        def confirmed(keys: Keys, adversarial: Images) -> Mask:
            count = self.choice_draws
            verdict = strongest.judge(logits_fn, keys, adversarial, labels, count, self.targeted)
            return verdict.right == 0

        def step(number: Array, state: tuple) -> tuple:
            adversarial, active, best, direction = state
            step_keys = prng.fold(noise_keys, number)
            slope, _, logits = self.gradient(step_keys, logits_fn, adversarial, labels)
            if self.momentum:
                direction = self.momentum * direction + norms.direction(slope, "l1")
            else:
                direction = slope
            ascent = norms.direction(direction, self.norm, self.norm_offset)
            moved = self._feasible(adversarial + step_size * ascent, images)
            if self.early_stop:
                misclassified = losses.misclassified(logits, labels, self.targeted)
                # An image with logits that are not finite goes on, so that it becomes NaN.
                finite = ~jnp.isnan(slope).any(axis=(1, 2, 3))
                stops = active & finite & jnp.all(misclassified, axis=0)
                confirm_now = prng.fold(confirm_keys, number)
                stops &= jax.lax.cond(
                    jnp.any(stops),
                    confirmed,
                    lambda *_: jnp.zeros_like(stops),
                    confirm_now,
                    adversarial,
                )
                active = active & ~stops
                moved = where(active, moved, adversarial)
            best = None if best is None else higher(best, moved)
            return moved, active, best, direction if self.momentum else None

        best = None
        if self.keep == "best":
            nothing = (images, jnp.full(images.shape[:1], -jnp.inf, images.dtype))
            best = higher(nothing, start)
        no_momentum = jnp.zeros_like(images) if self.momentum else None
        state = (start, jnp.ones(labels.shape, bool), best, no_momentum)
        if self.early_stop:
            _, state = jax.lax.while_loop(
                lambda loop: (loop[0] < self.steps) & jnp.any(loop[1][1]),
                lambda loop: (loop[0] + 1, step(*loop)),
                (jnp.uint32(0), state),
            )
        else:
            state = jax.lax.fori_loop(0, self.steps, step, state)
        last, _, best, _ = state
        return (last if best is None else best[0],)

    def _feasible(self, adversarial: Images, images: Images) -> Images:
        if self.order == "box_then_ball":
            adversarial = jnp.clip(adversarial, 0.0, 1.0)
        delta = adversarial - images
        return norms.project_into_box(images, delta, self.norm, self.eps, self.norm_offset)


class FGSM(GradientAttack):
    """One step of length ``eps`` along the gradient or its sign: the fast gradient (sign) method.

    With "linf" this is the fast gradient sign method, with "l2" and "l1" the fast gradient method.
    It is ``PGD`` with one step and no random start.
    """

    norm: AnyNorm

    def perturb(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        pgd = PGD(steps=1, step_rule="eps/steps", **fields)
        return pgd.perturb(keys, logits_fn, images, labels)
