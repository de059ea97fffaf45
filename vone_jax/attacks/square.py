"""Square: random search with square-shaped changes, from the classifier's scores alone.

References:
  Andriushchenko et al., Square attack: a query-efficient black-box adversarial attack via random
    search, 2020, arXiv:1912.00049.
  Croce and Hein, Mind the box: l1-APGD for sparse adversarial attacks on image classifiers, 2021,
    arXiv:2103.01208 (the L1 form).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from vone_jax import prng
from vone_jax.attacks import checks, classifier, losses, norms, square_patterns
from vone_jax.attacks.attack import Attack, pytree

# Queries after which the part of the image that a square covers is halved.
SCHEDULE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_SCHEDULE_LENGTH = 10000


@pytree("eps", "p_init")
@dataclasses.dataclass(frozen=True)
class Square(Attack):
    """Random search: a change of a square window is kept if it raises the loss.

    It needs no gradients, so it shows where gradients are masked. With one draw per query an
    image that is misclassified is done, and the run ends when all are. With several, for a
    classifier with noise, nothing ends early: the loss is averaged over the draws, and a change
    is kept if it is better than the present image under the same fresh draws. So a lucky draw
    neither counts as success nor blocks later changes; each query then costs twice.

    Windows and signs are drawn from the key of each example. The reference code shares them
    within a batch, and it never uses the last position of a window; here it is used.

    Attributes:
      norm: "linf", "l2" or "l1".
      eps: radius of the ball in pixel units.
      queries: evaluations of each image per run; the first is that of the start.
      restarts: number of runs with other draws. An image that is misclassified, or the run with
        the highest loss under keys that no run has used, is kept.
      eot_samples: noise draws per query.
      p_init: part of the image that the first squares cover, above 0 and at most 1.
      rescale_schedule: stretch ``SCHEDULE``, made for 10000 queries, to ``queries``.
      loss: what is raised: "margin", "cross_entropy" or "dlr".
      targeted: whether labels are classes to reach rather than to leave.

    Raises:
      ValueError, TypeError: if a field is out of range; the message names it.
    """

    norm: str
    eps: float
    queries: int = 5000
    restarts: int = 1
    eot_samples: int = 1
    p_init: float = 0.8
    rescale_schedule: bool = False
    loss: str = "margin"
    targeted: bool = False

    def __post_init__(self):
        checks.fields(self)
        if isinstance(self.p_init, (int, float)) and not 0 < self.p_init <= 1:
            raise ValueError(f"p_init must lie above 0 and be at most 1, got {self.p_init!r}")

    def perturb(self, keys, logits_fn, images, labels):
        def score(candidates, keys):
            """Averaged loss, and whether nothing is left to do for an image; shapes (N,)."""
            logits = classifier.draws(logits_fn, keys, candidates, self.eot_samples)
            loss = losses.averaged(losses.LOSSES[self.loss], "mean_loss", logits, labels)
            if self.eot_samples > 1:
                return self._sign * loss, jnp.zeros(loss.shape, bool)
            return self._sign * loss, self._sign * losses.margin(logits[0], labels) > 0

        def run(number, unsolved):
            run_keys = prng.fold(keys, number)
            noise_keys = prng.stream(run_keys, "noise")
            query_keys = prng.stream(run_keys, "queries")
            start = self._start(prng.stream(run_keys, "start"), images)

            def unfinished(state):
                query, _, _, _, active = state
                return (query < self.queries) & jnp.any(active)

            def ask(state):
                query, proposal, current, loss, active = state
                fresh_keys = prng.fold(noise_keys, query)
                if self.eot_samples > 1:
                    loss, _ = score(current, fresh_keys)
                new_loss, done = score(proposal, fresh_keys)
                better = (query == 0) | (new_loss > loss)
                kept = active & (better | done | ~jnp.isfinite(new_loss))
                current = _chosen(kept, _finite_or_nan(proposal, new_loss), current)
                loss = jnp.where(kept, new_loss, loss)
                active = active & ~done & jnp.isfinite(loss)
                # Made here and not where it is scored, where XLA would compute it once more for
                # every part of the classifier that reads it.
                query = query + 1
                proposal = self._proposal(prng.fold(query_keys, query), current, images, query)
                return query, proposal, current, loss, active

            state = (jnp.int32(0), start, images, clean_loss, unsolved)
            return jax.lax.while_loop(unfinished, ask, state)[2]

        clean_loss, done = score(images, prng.stream(keys, "clean"))
        images = _finite_or_nan(images, clean_loss)
        if self.restarts == 1:
            return run(0, ~done)
        judge_keys = prng.stream(keys, "judge")

        def restart(best, number):
            best_images, best_loss, unsolved = best
            rival = run(number, unsolved)
            rival_loss, done = score(rival, judge_keys)
            wins = unsolved & (~(rival_loss <= best_loss) | done)
            best_loss = jnp.where(wins, rival_loss, best_loss)
            return (_chosen(wins, rival, best_images), best_loss, unsolved & ~done), None

        nothing = (images, jnp.full_like(clean_loss, -jnp.inf), ~done)
        return jax.lax.scan(restart, nothing, jnp.arange(self.restarts, dtype=jnp.uint32))[0][0]

    @property
    def _sign(self) -> float:
        return -1.0 if self.targeted else 1.0

    def _start(self, keys: jax.Array, images: jax.Array) -> jax.Array:
        shape, dtype = images.shape[1:], images.dtype
        if self.norm == "linf":
            delta = jax.vmap(lambda key: square_patterns.stripes(key, shape, self.eps, dtype))(keys)
        else:
            delta = jax.vmap(lambda key: square_patterns.tiles(key, shape, self.norm, dtype))(keys)
            length = norms.size(delta, self.norm)[:, None, None, None]
            delta = delta * jnp.maximum(self.eps / length, 1.0)
        return self._feasible(delta, images)

    def part(self, query: jax.Array) -> jax.Array:
        """The part of the image that the square of a query covers; the start is query 0."""
        after = jnp.asarray(SCHEDULE, jnp.float32)
        if self.rescale_schedule:
            after = after * (self.queries / _SCHEDULE_LENGTH)
        halvings = jnp.sum(query.astype(jnp.float32) > after)
        return self.p_init * jnp.exp2(-halvings.astype(jnp.float32))

    def _proposal(self, keys, current, images, query) -> jax.Array:
        height, width = images.shape[1:3]
        area = self.part(query) * (height * width)
        side = jnp.round(jnp.sqrt(area)).astype(jnp.int32)
        if self.norm == "linf":
            side = jnp.clip(side, 1, min(height, width))
            propose = functools.partial(square_patterns.signed_window, side=side, eps=self.eps)
        else:
            side = jnp.maximum(side, 3)
            side = jnp.minimum(side + 1 - side % 2, min(height, width))
            propose = functools.partial(
                square_patterns.moved_window, side=side, eps=self.eps, norm=self.norm
            )
        return self._feasible(jax.vmap(propose)(keys, current - images), images)

    def _feasible(self, delta: jax.Array, images: jax.Array) -> jax.Array:
        """The image with a perturbation that uses the whole ball, brought into the box."""
        if self.norm == "l2":
            delta = self.eps * norms.direction(delta, "l2", "dense", images)
        if self.norm == "l1":
            # A little less than eps, as in the reference code, against rounding.
            delta = norms.project_l1_box(images, delta, self.eps * (1 - 1e-6))
        return jnp.clip(images + delta, 0.0, 1.0)


def _chosen(mask: jax.Array, these: jax.Array, others: jax.Array) -> jax.Array:
    return jnp.where(mask[:, None, None, None], these, others)


def _finite_or_nan(images: jax.Array, loss: jax.Array) -> jax.Array:
    # Without gradients nothing else carries a NaN of the classifier into the result.
    return _chosen(jnp.isfinite(loss), images, jnp.full_like(images, jnp.nan))
