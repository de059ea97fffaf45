"""Judges a batch: which decisions are right, and what they come to."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import prng
from vone_jax.attacks import classifier, losses
from vone_jax.evaluation import intervals, protocol
from vone_jax.evaluation.protocol import Protocol
from vone_jax.v1 import Noise

# Noise draws that are computed side by side; more only take memory.
_DRAWS_AT_ONCE = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """A batch and the classifiers that meet it.

    Attributes:
      how: the protocol.
      example_keys: one key per example, shape (N,): the root of all that is random.
      logits_fn: the classifier that is judged.
      images: shape (N, H, W, C).
      labels: shape (N,).
      surrogate: a classifier to attack instead where a condition asks for one, as a rule the same
        network without noise.
      other: another network, whose adversarial images are carried over.
      renoised: the judged network with other noise, for conditions that attack it so.
    """

    how: Protocol
    example_keys: jax.Array
    logits_fn: classifier.LogitsFn
    images: jax.Array
    labels: jax.Array
    surrogate: classifier.LogitsFn | None = None
    other: classifier.LogitsFn | None = None
    renoised: Callable[[Noise], classifier.LogitsFn] | None = None

    @functools.cached_property
    def judged(self) -> classifier.LogitsFn:
        """The classifier under the protocol."""
        return self.how.classifier(self.logits_fn, self.example_keys)

    def attacked(self, surrogate: bool = False, noise: Noise = None) -> classifier.LogitsFn:
        """The classifier that an attack sees.

        Args:
          surrogate: the surrogate if there is one, instead of the judged one.
          noise: the judged network with this noise instead.

        Raises:
          ValueError: for noise, if the trial knows no network that it could be given to.
        """
        seen = self.logits_fn
        if noise is not None:
            if self.renoised is None:
                raise ValueError(f"attack_noise is {noise}, but there is no network to give it to")
            seen = self.renoised(noise)
        elif surrogate and self.surrogate is not None:
            seen = self.surrogate
        return self.how.classifier(seen, self.example_keys, attacked=True)

    def judge(self, images: jax.Array) -> dict[str, jax.Array]:
        """``right``, (N, R), and ``loss``, (N,), of images with keys that no attack has seen."""
        keys = protocol.judge_keys(self.example_keys)
        right, loss = judge(self.judged, keys, images, self.labels, self.how)
        return {"right": right, "loss": loss}


@functools.partial(jax.jit, static_argnames="how")
def judge(
    logits_fn: classifier.LogitsFn,
    keys: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    how: Protocol,
) -> tuple[jax.Array, jax.Array]:
    """Which of the R decisions are right, booleans (N, R), and the loss of each example, (N,).

    The loss is the mean cross-entropy of the single draws, whatever the decision is made from.
    """
    call = classifier.checked(logits_fn, keys, images)
    averaged = how.averaged

    def one(number):
        numbers = number * averaged + jnp.arange(averaged, dtype=jnp.uint32)
        logits = jax.lax.map(
            lambda n: call(prng.fold(keys, n), images),
            numbers,
            batch_size=min(averaged, _DRAWS_AT_ONCE),
        )
        loss = jnp.mean(losses.cross_entropy(logits, labels), axis=0)
        return how.decide(logits) == labels, loss

    at_once = max(1, min(how.draws, _DRAWS_AT_ONCE // averaged))
    right, loss = jax.lax.map(one, jnp.arange(how.draws, dtype=jnp.uint32), batch_size=at_once)
    return right.T, jnp.mean(loss, axis=0)


@functools.partial(jax.jit, static_argnames="draws")
def mean_probability(
    logits_fn: classifier.LogitsFn, example_keys: jax.Array, images: jax.Array, draws: int
) -> jax.Array:
    """Class probabilities averaged over the first draws that judge an example, shape (N, C)."""
    keys = protocol.judge_keys(example_keys)
    call = classifier.checked(logits_fn, keys, images)
    numbers = jnp.arange(draws, dtype=jnp.uint32)
    probability = jax.lax.map(
        lambda number: jax.nn.softmax(call(prng.fold(keys, number), images)),
        numbers,
        batch_size=min(draws, _DRAWS_AT_ONCE),
    )
    return jnp.mean(probability, axis=0)


def probability_correct(right: np.ndarray) -> np.ndarray:
    """The share of the decisions (N, R) that are right for each example, (N,) float64."""
    return right.mean(axis=1, dtype=np.float64)


def between_draws(right: np.ndarray) -> dict[str, Any]:
    """How the accuracy over all examples differs from one decision to the next.

    Args:
      right: which decisions are right, booleans (N, R).

    Returns:
      ``accuracy``, a list of R; their ``standard_deviation`` and the ``standard_error`` of their
      mean, both None for one decision. They tell the noise of the network apart from what another
      sample of images would change.
    """
    each = right.mean(axis=0, dtype=np.float64)
    spread = float(each.std(ddof=1)) if len(each) > 1 else None
    return {
        "accuracy": each.tolist(),
        "standard_deviation": spread,
        "standard_error": None if spread is None else spread / math.sqrt(len(each)),
    }


def summary(right: np.ndarray) -> dict[str, Any]:
    """The accuracy of decisions (N, R) for a result file, with its interval and spread."""
    share = probability_correct(right)
    correct, seen = float(share.sum()), len(share)
    return {
        "accuracy": correct / seen,
        "interval": list(intervals.wilson(correct, seen)),
        "interval_method": intervals.METHOD,
        "sums": {"correct": correct, "seen": seen},
        "between_draws": between_draws(right),
        "statistics": {
            # Falls with the number of draws, for a noisy network even without an attack.
            "right_in_every_draw": float(right.all(axis=1).mean()),
            "note": "right_in_every_draw is no accuracy: it falls as draws are added",
        },
    }


def check_finite(loss: np.ndarray, indices: np.ndarray) -> None:
    """Raises a FloatingPointError that names the examples whose loss is not finite."""
    bad = np.flatnonzero(~np.isfinite(loss))
    if len(bad):
        raise FloatingPointError(
            f"the classifier's logits are not finite for the examples {indices[bad][:8].tolist()}"
        )
