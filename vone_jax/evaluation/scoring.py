"""Accuracy of any classifier on arrays of images, clean or attacked.

The same two functions, ``perturb`` of a condition and ``judge``, do the work here and over a
dataset in ``runner``.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import prng
from vone_jax.attacks import Attack, checks, classifier, losses
from vone_jax.evaluation import intervals, protocol
from vone_jax.evaluation.authors import vonenet_pgd
from vone_jax.evaluation.conditions import Attacked, Clean, Condition
from vone_jax.evaluation.protocol import Protocol

# Draws that are computed side by side when an example is judged; more only take memory.
_DRAWS_AT_ONCE = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Accuracy:
    """How often a classifier is right.

    Attributes:
      accuracy: mean of ``per_example``.
      interval: Wilson's 95 % interval over the images, see ``intervals.wilson``.
      per_example: the share of the draws in which each example was classified correctly, (N,).
      loss: mean cross-entropy of each example over the draws, (N,).
      distance: how far an attack moved each image, in its norm, (N,); None without attack.
      draws: number R of draws.
    """

    accuracy: float
    interval: tuple[float, float]
    per_example: np.ndarray
    loss: np.ndarray
    distance: np.ndarray | None
    draws: int


def accuracy(
    key: jax.Array,
    logits_fn: classifier.LogitsFn,
    images: jax.Array,
    labels: jax.Array,
    *,
    draws: int = 10,
    batch_size: int | None = None,
) -> Accuracy:
    """Accuracy over fresh noise draws.

    Args:
      key: typed key; a scalar numbers the examples by position, or one key per example.
      logits_fn: classifier ``(key, images) -> logits``.
      images: floating point in [0, 1], shape (N, H, W, C).
      labels: true classes, integers of shape (N,).
      draws: number R of forward passes per example.
      batch_size: examples at a time; it changes memory and speed only. Default: all.

    Raises:
      TypeError, ValueError: for input that does not fit, see ``attacks.checks.batch``.
      FloatingPointError: if logits are not finite.
    """
    how = Protocol("fresh", draws)
    return _over_batches(Clean(), how, key, logits_fn, None, images, labels, batch_size)


def robust_accuracy(
    key: jax.Array,
    logits_fn: classifier.LogitsFn,
    images: jax.Array,
    labels: jax.Array,
    norm: str | None = None,
    eps: float | None = None,
    *,
    attack: Attack | None = None,
    noise: str = "fresh",
    draws: int | None = None,
    surrogate: classifier.LogitsFn | None = None,
    batch_size: int | None = None,
    **fields,
) -> Accuracy:
    """Accuracy under attack, judged with keys that the attack has not seen.

    All images count, those that are misclassified without an attack, too.

    Args:
      key: typed key; a scalar numbers the examples by position, or one key per example.
      logits_fn: classifier ``(key, images) -> logits``.
      images: floating point in [0, 1], shape (N, H, W, C).
      labels: true classes, integers of shape (N,).
      norm: "linf", "l2" or "l1".
      eps: radius in pixel units. Norm and radius select the attack of the VOneNet authors, see
        ``vonenet_pgd``.
      attack: an attack to use instead.
      noise: "fresh" or "frozen", see ``Protocol``.
      draws: number R of forward passes by which an example is judged. Default: 10, and 1 with
        frozen noise.
      surrogate: a classifier to attack instead, for instance the same network without noise;
        ``logits_fn`` is judged.
      batch_size: examples at a time; it changes memory and speed only. Default: all.
      **fields: of ``vonenet_pgd`` to change, for instance ``steps=256``.

    Raises:
      TypeError, ValueError: for input that does not fit, or both or neither of an attack and a
        norm with a radius.
      FloatingPointError: if gradients or logits are not finite.
    """
    if attack is None:
        if norm is None or eps is None:
            raise ValueError("robust_accuracy needs norm and eps, or attack")
        attack = vonenet_pgd(norm, eps, **fields)
    elif not (norm is None and eps is None and not fields):
        raise ValueError(f"attack is given, so norm, eps and {list(fields)} must not be")
    if not isinstance(attack, Attack):
        raise TypeError(f"attack must be an attack such as PGD(...), got {attack!r}")
    if draws is None:
        draws = 1 if noise == "frozen" else 10
    how = Protocol(noise, draws)
    condition = Attacked(attack)
    return _over_batches(condition, how, key, logits_fn, surrogate, images, labels, batch_size)


def measure(
    condition: Condition,
    how: Protocol,
    example_keys: jax.Array,
    logits_fn: classifier.LogitsFn,
    surrogate: classifier.LogitsFn | None,
    images: jax.Array,
    labels: jax.Array,
) -> dict[str, jax.Array]:
    """Perturbs a batch and judges it.

    Args:
      condition: what is done to the images.
      how: the protocol.
      example_keys: one key per example, shape (N,).
      logits_fn: the classifier that is judged.
      surrogate: the classifier that is attacked, if not the same.
      images: shape (N, H, W, C).
      labels: shape (N,).

    Returns:
      Arrays of shape (N,): ``correct``, the number of draws that were right; ``loss``, their mean
      cross-entropy; and ``distance``, where the condition has one.
    """
    judged = how.classifier(logits_fn, example_keys)
    attacked = judged if surrogate is None else how.classifier(surrogate, example_keys)
    perturbed = condition.perturb(example_keys, attacked, images, labels)
    correct, loss = judge(judged, example_keys, perturbed, labels, how.draws)
    distance = condition.distance(perturbed, images)
    found = {"correct": correct, "loss": loss}
    return found if distance is None else found | {"distance": distance}


@functools.partial(jax.jit, static_argnames="draws")
def judge(
    logits_fn: classifier.LogitsFn,
    example_keys: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    draws: int,
) -> tuple[jax.Array, jax.Array]:
    """How many of the draws are right, (N,) integers, and the mean loss over them, (N,)."""
    keys = protocol.judge_keys(example_keys)
    call = classifier.per_example(logits_fn, keys, images)

    def one(number):
        logits = call(prng.fold(keys, number), images)
        return jnp.argmax(logits, axis=-1) == labels, losses.cross_entropy(logits, labels)

    numbers = jnp.arange(draws, dtype=jnp.uint32)
    right, loss = jax.lax.map(one, numbers, batch_size=min(draws, _DRAWS_AT_ONCE))
    return jnp.sum(right, axis=0, dtype=jnp.int32), jnp.mean(loss, axis=0)


@functools.partial(jax.jit, static_argnames="draws")
def mean_probability(
    logits_fn: classifier.LogitsFn, example_keys: jax.Array, images: jax.Array, draws: int
) -> jax.Array:
    """Class probabilities averaged over the draws that ``judge`` makes, shape (N, C)."""
    keys = protocol.judge_keys(example_keys)
    call = classifier.per_example(logits_fn, keys, images)
    numbers = jnp.arange(draws, dtype=jnp.uint32)
    probability = jax.lax.map(
        lambda number: jax.nn.softmax(call(prng.fold(keys, number), images)),
        numbers,
        batch_size=min(draws, _DRAWS_AT_ONCE),
    )
    return jnp.mean(probability, axis=0)


def check_finite(loss: np.ndarray, indices: np.ndarray) -> None:
    """Raises a FloatingPointError that names the examples whose loss is not finite."""
    bad = np.flatnonzero(~np.isfinite(loss))
    if len(bad):
        raise FloatingPointError(
            f"the classifier's logits are not finite for the examples {indices[bad][:8].tolist()}"
        )


def _over_batches(
    condition, how, key, logits_fn, surrogate, images, labels, batch_size
) -> Accuracy:
    images, labels = checks.batch(key, logits_fn, images, labels)
    count = images.shape[0]
    if batch_size is not None:
        checks.count("batch_size", batch_size)
    size = min(batch_size or count, count)
    keys = prng.example_keys(key, count)
    parts = []
    for start in range(0, count, size):
        # The last batch is filled up with its last example, so that nothing compiles anew.
        rows = np.minimum(np.arange(start, start + size), count - 1)
        part = measure(condition, how, keys[rows], logits_fn, surrogate, images[rows], labels[rows])
        parts.append({name: np.asarray(value) for name, value in part.items()})
    found = {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}
    check_finite(found["loss"], np.arange(count))
    right = found["correct"] / how.draws
    return Accuracy(
        accuracy=float(right.mean()),
        interval=intervals.wilson(float(right.sum()), count),
        per_example=right,
        loss=found["loss"],
        distance=found.get("distance"),
        draws=how.draws,
    )
