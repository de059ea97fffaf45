"""Auto-PGD: projected gradient descent that chooses its own step sizes, in three norms.

References:
  Croce and Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks, 2020, arXiv:2003.01690.
  Croce and Hein, Mind the box: l1-APGD for sparse adversarial attacks on image classifiers,
    2021, arXiv:2103.01208.
"""

import dataclasses
import functools
import itertools
import math
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from vone_jax import prng
from vone_jax.arguments import FromZero, Share
from vone_jax.attacks import classifier, losses, norms
from vone_jax.attacks.attack import AnyNorm, Attack, Estimator
from vone_jax.attacks.classifier import Images, Keys, Labels, LogitsFn, Mask, Scalar, Values, where

_MOMENTUM = 0.75
_FIRST_MOVED = 0.2


def checkpoints(steps: int, norm: norms.AnyNorm) -> list[int]:
    """Return the numbers of steps after which Auto-PGD checks its step size.

    They are ceil(p_j N) for a run of N steps, with p_1 = 0.22 and gaps that shrink by 0.03 down to
    0.06 (Croce and Hein, 2020, section 3.3), and evenly spaced for L1.
    """
    if norm == "l1":
        every = max(int(0.04 * steps), 1)
        points = itertools.count(every, every)
    else:
        # Integers in hundredths, because sums of 0.22 + 0.19 + ... in floats may round up wrongly.
        parts = itertools.accumulate(max(22 - 3 * j, 6) for j in itertools.count())
        points = (-(-part * steps // 100) for part in parts)
    # A short run may round two points to one.
    return list(dict.fromkeys(itertools.takewhile(lambda point: point <= steps, points)))


def stages(steps: int, large_eps_schedule: bool) -> list[tuple[int, int]]:
    """Return the stages of one run as pairs (multiple of the radius, number of steps)."""
    if not large_eps_schedule:
        return [(1, steps)]
    part = math.ceil(0.3 * steps)
    return [(3, part), (2, part), (1, steps - 2 * part)]


class Halving(NamedTuple):
    """The step-size control for L-infinity and L2: halve the step where the loss stopped rising."""

    step_size: Values
    rises: Values
    last_loss: Values
    reference: Values
    halved: Mask

    @classmethod
    def start(cls, step_size: Values) -> "Halving":
        unknown = jnp.full_like(step_size, -jnp.inf)
        # ``halved`` starts as True: the first checkpoint only tests how often the loss rose.
        return cls(step_size, jnp.zeros_like(step_size), unknown, unknown, step_size >= 0)

    def observe(self, loss: Values, number: Array) -> "Halving":
        """Count whether the loss rose in the last step, which has the index ``number``."""
        rose = (loss > self.last_loss) & (number > 0)
        return self._replace(rises=self.rises + rose.astype(loss.dtype), last_loss=loss)

    def check(self, gap: Array, best_loss: Values, rho: Scalar) -> tuple["Halving", Mask]:
        """Return the control after a checkpoint, and which examples go back to their best point.

        A share of rises of ``rho`` is too little, as in the code of the authors; their paper has <.
        """
        halve = (self.rises <= rho * gap.astype(best_loss.dtype)) | (
            ~self.halved & (self.reference >= best_loss)
        )
        step_size = jnp.where(halve, 0.5, 1.0) * self.step_size
        rises = jnp.zeros_like(self.rises)
        return Halving(step_size, rises, self.last_loss, best_loss, halve), halve


class Sparsity(NamedTuple):
    """The control for L1: step size and number of moved values follow the best point's sparsity.

    See section 3 of Croce and Hein, Mind the box.
    """

    step_size: Values
    moved: Values
    nonzero: Values

    def check(self, nonzero: Values, eps: Scalar) -> tuple["Sparsity", Mask]:
        """Return the control after a checkpoint, and which examples go back to their best point."""
        sparser = nonzero < 0.95 * self.nonzero
        shorter = jnp.maximum(self.step_size / 1.5, eps / 10)
        step_size = jnp.where(sparser, eps, shorter)
        return Sparsity(step_size, nonzero / 1.5, nonzero), sparser


class _Point(NamedTuple):
    """A batch of iterates, with the gradients and values of their losses."""

    images: Images
    slope: Images
    loss: Values


class _State(NamedTuple):
    """The state of a run between two steps."""

    images: Images
    before: Images
    best: _Point
    adversarial: Images  # the last misclassified iterate
    misclassified: Mask  # whether there is one
    finite: Mask
    control: Any  # Sparsity for L1, else Halving


@dataclasses.dataclass(frozen=True)
class APGD(Attack):
    """Auto-PGD on an averaged loss, each example with its own step size.

    Each run starts at a random point of the ball. Its results are the last misclassified iterate
    and the iterate with the highest loss; draws that the run has not used choose among them. On a
    classifier with noise, every decision takes the loss averaged over the draws of that step.

    Attributes:
      steps: number of steps of one run, over all stages.
      restarts: number of runs with other starts, or of rounds over the targets.
      loss: "cross_entropy", "dlr", "margin", a function, or "targeted_dlr", which makes one run
        for each of the likeliest other classes of the clean image, and counts any
        misclassification.
      targets: number of these classes; never more than there are other classes.
      rho: the step size is halved if at most this share of steps raised the loss (not for L1).
      large_eps_schedule: spend 30 % of the steps at three times the radius, 30 % at twice the
        radius and the rest at the radius. Part of AutoAttack in L1.
      norm, eps, eot_samples, targeted, estimator: see ``Attack``.
    """

    norm: AnyNorm
    eps: float
    steps: int = 100
    restarts: int = 1
    targets: int = 9
    rho: Share = dataclasses.field(default=0.75, metadata={"leaf": False})
    large_eps_schedule: bool = False
    _: dataclasses.KW_ONLY
    eot_samples: int = 1
    loss: Annotated[str, (*losses.LOSSES, "targeted_dlr")] | losses.LossFn = "cross_entropy"
    targeted: bool = False
    estimator: Estimator = "mean_loss"
    # Number of the one target of a member. Set by ``members``.
    target: FromZero | None = dataclasses.field(
        default=None, repr=False, metadata={"leaf": True, "stored": False}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm == "l0":
            raise ValueError("norm of APGD must be one of linf, l2, l1, or an object, got 'l0'")
        if self.large_eps_schedule and stages(self.steps, True)[-1][1] < 1:
            raise ValueError(f"large_eps_schedule needs 3 steps, or 5 and more, got {self.steps}")

    def members(self, classes: int) -> tuple[Attack, ...]:
        if self.loss != "targeted_dlr" or self.target is not None:
            return (self,)
        count = min(self.targets, classes - 1)
        return tuple(dataclasses.replace(self, target=each) for each in range(count))

    def doubts(self, noisy: bool) -> tuple[str, ...]:
        if noisy and self.loss in ("dlr", "targeted_dlr"):
            return (
                f'The loss "{self.loss}" is weak on a network with noise, by 5 points and more '
                'where the truth is known. The accuracy is an upper bound: take "cross_entropy".',
            )
        return ()

    def run(
        self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels
    ) -> tuple[Images, Images]:
        target = labels
        if self.target is not None:
            target_keys = prng.stream(keys, "targets")
            logits = classifier.draws(logits_fn, target_keys, images, self.eot_samples).mean(axis=0)
            count = min(self.targets, logits.shape[-1] - 1)
            target = losses.rivals(logits, labels, count).astype(labels.dtype)[self.target]
        adversarial, highest, finite = self._ascend(keys, logits_fn, images, labels, target)
        return where(finite, (adversarial, highest), jnp.nan)

    def _ascend(
        self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels, target: Labels
    ) -> tuple[Images, Images, Mask]:
        """Make one run from a random start.

        Return three arrays: the last misclassified iterate of each example, or else the iterate
        with the highest loss; the latter in any case; True where losses and gradients were finite.
        """
        if self.loss == "targeted_dlr":
            function = functools.partial(losses.targeted_dlr, targets=target)
        else:
            function = losses.of(self.loss)
        noise_keys, dtype = prng.stream(keys, "noise"), images.dtype

        def stage(carry: tuple[Images, Images, Mask], plan: tuple) -> tuple[tuple, None]:
            stage_number, factor, steps, gaps = plan
            before, _, finite = carry
            eps = factor * self.eps
            first = self._feasible(before, images, eps)
            stage_keys = prng.fold(noise_keys, stage_number)

            def step(number: Array, state: _State) -> _State:
                slope, loss, logits = self.gradient(
                    prng.fold(stage_keys, number), logits_fn, state.images, labels, function
                )
                # One draw is enough: without noise all draws agree, and with noise the judging
                # draws have to confirm a misclassification.
                misclassified = losses.misclassified(logits[0], labels, self.targeted)
                point = _Point(state.images, slope, loss)
                best = where(loss > state.best.loss, point, state.best)
                control, gap = state.control, gaps[number]
                if self.norm == "l1":
                    checked, return_to_best = control.check(_nonzero(best.images - images), eps)
                else:
                    control = control.observe(loss, number)
                    checked, return_to_best = control.check(gap, best.loss, self.rho)
                due = gap > 0
                control = jax.tree.map(functools.partial(jnp.where, due), checked, control)
                current, slope, _ = where(return_to_best & due, best, point)
                if self.norm == "l1":
                    ascent = norms.sparse_direction(slope, control.moved)
                else:
                    ascent = norms.of(self.norm).direction(slope)
                ahead = current + control.step_size[:, None, None, None] * ascent
                moved = self._feasible(ahead, images, eps)
                if self.norm != "l1":
                    weight = jnp.where(number == 0, 1.0, _MOMENTUM).astype(dtype)
                    momentum = (1.0 - weight) * (current - state.before)
                    moved = current + weight * (moved - current) + momentum
                    moved = self._feasible(moved, images, eps)
                finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(point.slope), axis=(1, 2, 3))
                return _State(
                    images=moved,
                    before=current,
                    best=best,
                    adversarial=where(misclassified, point.images, state.adversarial),
                    misclassified=state.misclassified | misclassified,
                    finite=state.finite & finite,
                    control=control,
                )

            state = _State(
                images=first,
                before=first,
                best=_Point(first, jnp.zeros_like(images), jnp.full(finite.shape, -jnp.inf, dtype)),
                adversarial=first,
                misclassified=jnp.zeros_like(finite),
                finite=finite,
                control=self._control(first, images, eps, stage_number),
            )
            # One more iteration than steps, because each evaluates the result of the step before.
            state = jax.lax.fori_loop(0, steps + 1, step, state)
            highest = state.best.images
            adversarial = where(state.misclassified, state.adversarial, highest)
            return (highest, adversarial, state.finite), None

        factors, steps = np.asarray(stages(self.steps, self.large_eps_schedule)).T
        numbers = jnp.arange(len(steps), dtype=jnp.int32)
        plans = numbers, jnp.asarray(factors, dtype), jnp.asarray(steps, jnp.int32), self._gaps()
        start = self._start(prng.stream(keys, "start"), images, float(factors[0]) * self.eps)
        carry = (start, start, jnp.ones(images.shape[:1], bool))
        (highest, adversarial, finite), _ = jax.lax.scan(stage, carry, plans)
        return adversarial, highest, finite

    def _gaps(self) -> Int[Array, "stages steps"]:
        """Return at each checkpoint of a stage the steps since the one before; 0 at other steps."""
        plan = stages(self.steps, self.large_eps_schedule)
        gaps = np.zeros((len(plan), max(steps for _, steps in plan) + 1), np.int32)
        for row, (_, steps) in zip(gaps, plan, strict=True):
            points = checkpoints(steps, self.norm)
            row[points] = np.diff(points, prepend=0)
        return jnp.asarray(gaps)

    def _start(self, keys: Keys, images: Images, eps: Scalar) -> Images:
        """Draw random points on the surface of the ball."""
        shape, dtype = images.shape[1:], images.dtype
        norm = norms.of(self.norm)
        if self.norm == "linf":
            drawn = norms.per_image(eps) * norms.surface(keys, shape, norm, dtype)
        elif not isinstance(self.norm, str):
            drawn = norm.sample(keys, shape, eps, dtype)
        else:
            drawn = jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys)
            if self.norm == "l2":
                drawn = norms.per_image(eps) * norm.direction(drawn)
        return self._feasible(images + drawn, images, eps)

    def _feasible(self, adversarial: Images, images: Images, eps: Scalar) -> Images:
        delta = adversarial - images
        if self.norm == "l1":
            return jnp.clip(images + norms.project_l1_box(images, delta, eps), 0.0, 1.0)
        return norms.into_box(norms.of(self.norm), images, delta, eps)

    def _control(self, start: Images, images: Images, eps: Scalar, stage: Array) -> Any:
        if self.norm != "l1":
            return Halving.start(jnp.full_like(images[:, 0, 0, 0], 2.0) * eps)
        values = float(np.prod(images.shape[1:]))
        nonzero = _nonzero(start - images)
        return Sparsity(
            jnp.full_like(nonzero, 1.0) * eps,
            jnp.where(stage == 0, _FIRST_MOVED * values, nonzero / 1.5),
            jnp.where(stage == 0, values, nonzero),
        )


def _nonzero(delta: Images) -> Values:
    return jnp.sum(delta != 0, axis=(1, 2, 3), dtype=delta.dtype)
