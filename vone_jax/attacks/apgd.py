"""Auto-PGD: projected gradient descent that chooses its own step sizes, in three norms.

References:
  Croce and Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks, 2020, arXiv:2003.01690.
  Croce and Hein, Mind the box: l1-APGD for sparse adversarial attacks on image classifiers,
    2021, arXiv:2103.01208.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import prng
from vone_jax.attacks import checks, classifier, judging, losses, norms, step_control
from vone_jax.attacks.attack import Attack, pytree

CHECKPOINTS = ("paper", "code")

_MOMENTUM = 0.75
_FIRST_MOVED = 0.2
_LEAST_JUDGE_DRAWS = 5


@pytree("eps")
@dataclasses.dataclass(frozen=True)
class APGD(Attack):
    """Auto-PGD on an averaged loss, each example with its own step size.

    Each run starts at a random point of the ball. The last iterate that is misclassified is
    its result, or the iterate with the highest loss if there is none. On a classifier with
    noise every decision takes the loss averaged over the draws of that step. A misclassified
    iterate counts there only if draws that the run has not seen bear it out.

    Attributes:
      norm: "linf", "l2" or "l1".
      eps: radius of the ball in pixel units.
      steps: number of steps of one run, over all stages.
      restarts: number of runs with other starts, or of rounds over the targets. The strongest
        result is kept, and what is surely misclassified is not attacked again.
      loss: "cross_entropy", "dlr", "margin", or "targeted_dlr", which makes one run for each of
        the likeliest other classes of the clean image, and counts any misclassification.
      targets: number of these classes; never more than there are other classes.
      eot_samples: noise draws per step.
      estimator: what is averaged, see ``losses.averaged``.
      rho: share of steps that must raise the loss, or the step size is halved (L-infinity, L2).
      checkpoints: "paper", or "code" for the authors' program: it reconsiders the step size at
        other steps unless there are 100, halves it already at the share ``rho``, and takes the
        loss before the first step for 0.
      large_eps_schedule: spend 30 % of the steps at three times the radius, 30 % at twice the
        radius and the rest at the radius. Part of AutoAttack in L1.
      targeted: whether labels are classes to reach rather than to leave; with "cross_entropy" or
        "margin". Then an image is misclassified, above, where its target is reached.

    Raises:
      ValueError, TypeError: if a field is out of range; the message names it.
    """

    norm: str
    eps: float
    steps: int = 100
    restarts: int = 1
    loss: str = "cross_entropy"
    targets: int = 9
    eot_samples: int = 1
    estimator: str = "mean_loss"
    rho: float = 0.75
    checkpoints: str = "paper"
    large_eps_schedule: bool = False
    targeted: bool = False

    def __post_init__(self):
        checks.fields(self, loss=(*losses.LOSSES, "targeted_dlr"), checkpoints=CHECKPOINTS)
        if self.large_eps_schedule and self.steps < 3:
            raise ValueError(f"large_eps_schedule needs at least 3 steps, got {self.steps}")

    def perturb(self, keys, logits_fn, images, labels):
        targets = self._targets(keys, logits_fn, images, labels)
        draws = max(self.eot_samples, _LEAST_JUDGE_DRAWS)
        judge_keys = prng.stream(keys, "judge")

        def judge(candidate):
            return judging.judge(logits_fn, judge_keys, candidate, labels, draws, self.targeted)

        def attempt(state, number):
            best_images, best, finite = state
            run_keys, target = prng.fold(keys, number), targets[number % len(targets)]
            fooling, highest, fine = self._run(run_keys, logits_fn, images, labels, target)
            # A map and not two calls, so that the classifier is compiled once.
            right, margin = jax.lax.map(judge, jnp.stack([fooling, highest]))
            first = judging.Verdict(right[0], margin[0])
            second = judging.Verdict(right[1], margin[1])
            borne_out = (first.right == 0) | (first.right < second.right)
            rival = judging.either(borne_out, first, second)
            rival_images = norms.select(borne_out, fooling, highest)
            # What no draw classifies right is not attacked again.
            wins = (best.right > 0) & rival.beats(best)
            return (
                norms.select(wins, rival_images, best_images),
                judging.either(wins, rival, best),
                finite & fine,
            )

        def unfinished(state):
            number, (_, best, _) = state
            return (number < runs) & jnp.any(best.right > 0)

        runs = self.restarts * len(targets)
        nothing = judging.nothing_yet(images[:, 0, 0, 0])
        start = (jnp.uint32(0), (images, nothing, nothing.right > 0))
        _, (best_images, _, finite) = jax.lax.while_loop(
            unfinished, lambda state: (state[0] + 1, attempt(state[1], state[0])), start
        )
        return norms.select(finite, best_images, jnp.full_like(images, jnp.nan))

    def _targets(self, keys, logits_fn, images, labels):
        """Classes to reach, shape (runs, N); the labels where the attack has no targets."""
        if self.loss != "targeted_dlr":
            return labels[None]
        logits = classifier.draws(
            logits_fn, prng.stream(keys, "targets"), images, self.eot_samples
        ).mean(axis=0)
        classes = jnp.arange(logits.shape[-1], dtype=labels.dtype)
        others = jnp.where(labels[:, None] == classes[None], -jnp.inf, logits)
        count = min(self.targets, logits.shape[-1] - 1)
        return jax.lax.top_k(others, count)[1].astype(labels.dtype).T

    def _loss(self, logits, labels, target):
        if self.loss != "targeted_dlr":
            loss = losses.averaged(losses.LOSSES[self.loss], self.estimator, logits, labels)
            return -loss if self.targeted else loss
        loss = functools.partial(losses.targeted_dlr, targets=target)
        return losses.averaged(loss, self.estimator, logits, labels)

    def _run(self, keys, logits_fn, images, labels, target):
        """One run: the last misclassified images, those of the highest loss, and what is finite.

        Where no iterate was misclassified the first are the second.
        """

        def evaluate(adversarial, keys):
            logits = classifier.draws(logits_fn, keys, adversarial, self.eot_samples)
            loss = self._loss(logits, labels, target)
            # One draw will do: it speaks for a classifier without noise, and with noise it has
            # to be borne out.
            wrong = judging.misled(logits[0], labels, self.targeted)
            return jnp.sum(loss), (loss, wrong)

        gradient = jax.grad(evaluate, has_aux=True)
        noise_keys = prng.stream(keys, "noise")

        def stage(carry, plan):
            number, factor, steps, gaps = plan
            before, _, finite = carry
            eps = factor * self.eps
            first = self._feasible(before, images, eps)
            stage_keys = prng.fold(noise_keys, number)

            def step(step_number, state):
                slope, (loss, wrong) = gradient(state.images, prng.fold(stage_keys, step_number))
                fine = jnp.isfinite(loss) & jnp.all(jnp.isfinite(slope), axis=(1, 2, 3))
                better = loss > state.best_loss
                state = state._replace(
                    best_images=norms.select(better, state.images, state.best_images),
                    best_slope=norms.select(better, slope, state.best_slope),
                    best_loss=jnp.where(better, loss, state.best_loss),
                    fooling=norms.select(wrong, state.images, state.fooling),
                    fooled=state.fooled | wrong,
                    finite=state.finite & fine,
                )
                control, back = self._check(state, loss, images, eps, step_number, gaps)
                current = norms.select(back, state.best_images, state.images)
                slope = norms.select(back, state.best_slope, slope)
                moved = self._move(state, control, current, slope, images, eps, step_number)
                return state._replace(images=moved, before=current, control=control)

            state = _State(
                images=first,
                before=first,
                best_images=first,
                best_slope=jnp.zeros_like(images),
                best_loss=jnp.full_like(images[:, 0, 0, 0], -jnp.inf),
                fooling=first,
                fooled=jnp.zeros_like(finite),
                finite=finite,
                control=self._control(first, images, eps, number),
            )
            # One iteration more than steps: each begins by looking at where the last one went.
            state = jax.lax.fori_loop(0, steps + 1, step, state)
            fooling = norms.select(state.fooled, state.fooling, state.best_images)
            return (state.best_images, fooling, state.finite), None

        plans, widest = self._plans(images.dtype)
        start = self._start(prng.stream(keys, "start"), images, widest * self.eps)
        carry = (start, start, jnp.ones(images.shape[:1], bool))
        (highest, fooling, finite), _ = jax.lax.scan(stage, carry, plans)
        return fooling, highest, finite

    def _plans(self, dtype):
        """For each stage its number, the multiple of eps, its steps and its checkpoints."""
        stages = step_control.stages(self.steps, self.large_eps_schedule)
        length = max(steps for _, steps in stages) + 1
        gaps = [
            step_control.gaps_before(
                step_control.sparse_checkpoints(steps)
                if self.norm == "l1"
                else step_control.checkpoints(steps, self.checkpoints),
                length,
            )
            for _, steps in stages
        ]
        factors, steps = np.asarray(stages).T
        plans = (
            jnp.arange(len(stages), dtype=jnp.int32),
            jnp.asarray(factors, dtype),
            jnp.asarray(steps, jnp.int32),
            jnp.asarray(np.stack(gaps)),
        )
        return plans, float(factors[0])

    def _start(self, keys, images, eps):
        """Random points on the surface of the ball."""
        shape, dtype = images.shape[1:], images.dtype
        if self.norm == "linf":
            drawn = jax.vmap(lambda key: jax.random.uniform(key, shape, dtype, -1.0, 1.0))(keys)
            drawn = eps * drawn / norms.per_example(norms.size(drawn, "linf"), drawn)
        else:
            drawn = jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys)
            if self.norm == "l2":
                drawn = eps * norms.direction(drawn, "l2", "dense", images)
        return self._feasible(images + drawn, images, eps)

    def _feasible(self, adversarial, images, eps):
        delta = adversarial - images
        if self.norm == "l1":
            delta = norms.project_l1_box(images, delta, eps)
        else:
            delta = norms.project(delta, self.norm, eps)
        return jnp.clip(images + delta, 0.0, 1.0)

    def _control(self, start, images, eps, stage):
        if self.norm != "l1":
            return step_control.Halving.start(jnp.full_like(images[:, 0, 0, 0], 2.0) * eps)
        values = float(np.prod(images.shape[1:]))
        nonzero = _nonzero(start - images)
        return step_control.Sparsity(
            jnp.full_like(nonzero, 1.0) * eps,
            jnp.where(stage == 0, _FIRST_MOVED * values, nonzero / 1.5),
            jnp.where(stage == 0, values, nonzero),
        )

    def _check(self, state, loss, images, eps, step_number, gaps):
        """The control for the next step, and which examples go back to their best point."""
        gap = gaps[step_number]
        control = state.control
        if self.norm == "l1":
            checked, back = control.check(_nonzero(state.best_images - images), eps)
        else:
            control = control.observe(loss, step_number, self.checkpoints)
            checked, back = control.check(gap, state.best_loss, self.rho, self.checkpoints)
        due = gap > 0
        return jax.tree.map(lambda new, old: jnp.where(due, new, old), checked, control), back & due

    def _move(self, state, control, current, slope, images, eps, step_number):
        length = norms.per_example(control.step_size, slope)
        if self.norm == "l1":
            way = norms.sparse_direction(slope, control.moved)
            return self._feasible(current + length * way, images, eps)
        way = norms.direction(slope, self.norm, "dense", current)
        ahead = self._feasible(current + length * way, images, eps)
        share = jnp.where(step_number == 0, 1.0, _MOMENTUM).astype(images.dtype)
        ahead = current + share * (ahead - current) + (1.0 - share) * (current - state.before)
        return self._feasible(ahead, images, eps)


class _State(NamedTuple):
    """What a run carries from step to step; one entry per example."""

    images: jax.Array
    before: jax.Array
    best_images: jax.Array
    best_slope: jax.Array
    best_loss: jax.Array
    fooling: jax.Array
    fooled: jax.Array
    finite: jax.Array
    control: step_control.Halving | step_control.Sparsity


def _nonzero(delta):
    return jnp.sum(delta != 0, axis=(1, 2, 3), dtype=delta.dtype)
