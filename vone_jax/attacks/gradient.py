"""Attacks along the gradient: FGSM and projected gradient descent.

References:
  Goodfellow et al., Explaining and harnessing adversarial examples, 2015, arXiv:1412.6572.
  Madry et al., Towards deep learning models resistant to adversarial attacks, 2018,
    arXiv:1706.06083.
  Athalye et al., Synthesizing robust adversarial examples, 2018, arXiv:1707.07397
    (expectation over transformation).
  Dong et al., Boosting adversarial attacks with momentum, 2018, arXiv:1710.06081 (MI-FGSM).
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vone_jax import prng
from vone_jax.attacks import executor, losses, norms
from vone_jax.attacks.attack import AnyNorm, Attack, Estimator, Loss
from vone_jax.attacks.classifier import Images, Keys, Labels, LogitsFn, Mask, Scalar, where
from vone_jax.names import STEP_RULES

StepRule = Annotated[str, (*STEP_RULES,)] | Callable[[Scalar, int], Scalar]
Start = bool | Callable[[Keys, Images], Images]
_WEAK_IN_L1 = (
    "Steps along the gradient are weak in L1. The accuracy is an upper bound: take APGD, or "
    "evaluation.worst_case."
)


@dataclasses.dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient descent on an averaged loss.

    Each step moves along the sign of the gradient (L-infinity) or along the gradient (other norms)
    and returns to the ball and to [0, 1].

    Attributes:
      step_size: length of a step in the units of ``eps``; None takes it from ``step_rule``.
      step_rule: one of ``STEP_RULES``, or a function of (eps, steps) that returns the length.
      random_start: begin at a point drawn from the ball instead of the image itself. A function
        of (keys, images) returns the perturbations to begin with.
      order: "ball_then_box", or "box_then_ball" as in ART. Both orders end within ball and box.
      momentum: decay of a sum of gradients, along which the steps then go. Each gradient is divided
        by its L1 norm before it is added. 0 keeps no earlier gradient. With 1, ``steps=10`` and
        ``step_rule="eps/steps"`` the attack is MI-FGSM.
      keep: "last" returns the last iterate; "best" the one with the highest averaged loss, the
        start included, judged with keys that no gradient has used.
      norm_offset: added to the norms of gradient and perturbation before dividing by them, for
        L2 and L1. ART before 1.18 adds 1e-7; with that the steps along tiny gradients become short.
      early_stop: an image stops once all draws of a step misclassify it, and so do all of
        ``choice_draws`` other draws, drawn anew for it. A run ends when all images have stopped.
        This saves time, but gives up what further steps would add to the loss, which for a
        classifier with noise are right decisions. A call with single draws warns of that.
      norm, eps, steps, restarts, eot_samples, loss, estimator, targeted: see ``Attack``. More than
        one restart needs ``random_start``.
    """

    norm: AnyNorm
    eps: float
    steps: int = 64
    step_size: float | None = None
    step_rule: StepRule = "2.5*eps/steps"
    random_start: Start = False
    restarts: int = 1
    order: Annotated[str, ("ball_then_box", "box_then_ball")] = "ball_then_box"
    momentum: float = dataclasses.field(default=0.0, metadata={"leaf": False})
    keep: Annotated[str, ("last", "best")] = "last"
    norm_offset: float = dataclasses.field(default=0.0, metadata={"leaf": False})
    early_stop: bool = False
    _: dataclasses.KW_ONLY
    eot_samples: int = 1
    loss: Loss = "cross_entropy"
    targeted: bool = False
    estimator: Estimator = "mean_loss"

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

    def doubts(self, noisy: bool) -> tuple[str, ...]:
        weak = (_WEAK_IN_L1,) if self.norm == "l1" else ()
        if self.random_start or not self.eps:
            return weak
        # Steps of eps / 45 reach all of the radius in 45 steps, whatever their rounding.
        reach = float(f"{self.steps * self.length() / self.eps:.6g}")
        if reach >= 1:
            return weak
        return (
            f"All steps of the attack together reach {reach:.0%} of its radius. The accuracy is "
            "an upper bound: take more steps, or longer ones.",
            *weak,
        )

    def run(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        norm, step_size = norms.of(self.norm, self.norm_offset), self.length()
        noise_keys = prng.stream(keys, "noise")
        start = self.start(prng.stream(keys, "start"), images)

        def step(number: Array, state: tuple) -> tuple:
            adversarial, active, best, total = state
            step_keys = prng.fold(noise_keys, number)
            slope, _, logits = self.gradient(step_keys, logits_fn, adversarial, labels)
            if self.momentum:
                total = self.momentum * total + norms.L1().direction(slope)
            ascent = norm.direction(total if self.momentum else slope)
            moved = self.feasible(adversarial + step_size * ascent, images)
            if self.early_stop:
                stops = self.stops(keys, number, logits_fn, adversarial, labels, slope, logits)
                active = active & ~stops
                moved = where(active, moved, adversarial)
            if self.keep == "best":
                best = higher(best, moved)
            return moved, active, best, total

        def higher(best: tuple, iterate: Images) -> tuple:
            loss_keys = prng.stream(keys, "iterates")
            loss = self.evaluate(loss_keys, logits_fn, iterate, labels)[0]
            return losses.higher(best, iterate, loss)

        best = total = None
        if self.keep == "best":
            best = higher((images, jnp.full(labels.shape, -jnp.inf, images.dtype)), start)
        if self.momentum:
            total = jnp.zeros_like(images)
        state = (start, jnp.ones(labels.shape, bool), best, total)
        if self.early_stop:
            _, state = jax.lax.while_loop(
                lambda loop: (loop[0] < self.steps) & jnp.any(loop[1][1]),
                lambda loop: (loop[0] + 1, step(*loop)),
                (jnp.uint32(0), state),
            )
        else:
            state = jax.lax.fori_loop(0, self.steps, step, state)
        last, _, best, _ = state
        return last if best is None else best[0]

    def length(self) -> Scalar:
        """Return the length of a step, in a shape that multiplies images."""
        if self.step_size is not None:
            return self.step_size
        rule = STEP_RULES[self.step_rule] if isinstance(self.step_rule, str) else self.step_rule
        return norms.per_image(rule(self.eps, self.steps))

    def start(self, keys: Keys, images: Images) -> Images:
        """Return the images with which a run begins."""
        if not self.random_start:
            return images
        norm = norms.of(self.norm)
        if callable(self.random_start):
            return norms.into_box(norm, images, self.random_start(keys, images), self.eps)
        drawn = norm.sample(keys, images.shape[1:], self.eps, images.dtype)
        start = jnp.clip(images + drawn, 0.0, 1.0)
        return start if norms.is_shortened_by_box(norm) else self.feasible(start, images)

    def feasible(self, adversarial: Images, images: Images) -> Images:
        """Return images within the ball and the box."""
        if self.order == "box_then_ball":
            adversarial = jnp.clip(adversarial, 0.0, 1.0)
        norm = norms.of(self.norm, self.norm_offset)
        return norms.into_box(norm, images, adversarial - images, self.eps)

    def stops(
        self,
        keys: Keys,
        number: Array,
        logits_fn: LogitsFn,
        adversarial: Images,
        labels: Labels,
        slope: Images,
        logits: Array,
    ) -> Mask:
        """Return which images all draws of a step misclassify, and all of ``choice_draws`` more."""
        # An image with logits that are not finite goes on, so that it becomes NaN.
        finite = ~jnp.isnan(slope).any(axis=(1, 2, 3))
        found = finite & jnp.all(losses.misclassified(logits, labels, self.targeted), axis=0)

        def confirm(keys: Keys, images: Images) -> Mask:
            count = self.choice_draws
            verdict = executor.judge(logits_fn, keys, images, labels, count, self.targeted)
            return verdict.right == 0

        confirm_keys = prng.fold(prng.stream(keys, "confirm"), number)
        nothing = lambda *_: jnp.zeros_like(found)  # noqa: E731
        return found & jax.lax.cond(jnp.any(found), confirm, nothing, confirm_keys, adversarial)


@dataclasses.dataclass(frozen=True)
class FGSM(Attack):
    """One step of length ``eps`` along the gradient or its sign: the fast gradient (sign) method.

    With "linf" this is the fast gradient sign method, with "l2" and "l1" the fast gradient method.
    It is ``PGD`` with one step and no random start; for the fields see ``Attack``.
    """

    norm: AnyNorm
    eps: float
    _: dataclasses.KW_ONLY
    eot_samples: int = 1
    loss: Loss = "cross_entropy"
    targeted: bool = False
    estimator: Estimator = "mean_loss"

    def doubts(self, noisy: bool) -> tuple[str, ...]:
        return (_WEAK_IN_L1,) if self.norm == "l1" else ()

    def run(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        pgd = PGD(steps=1, step_rule="eps/steps", **vars(self))
        # The keys of its first run.
        return pgd.run(prng.fold(keys, 0), logits_fn, images, labels)
