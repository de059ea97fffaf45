"""Evaluation of any classifier on arrays of images: accuracy, robust accuracy, masking checks.

The conditions are those that ``run`` measures over a data set.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np

from vone_jax import arguments, prng
from vone_jax.attacks import Attack, Strongest, classifier
from vone_jax.evaluation import judging
from vone_jax.evaluation.conditions import Attacked, Clean, Condition, accuracy_numbers
from vone_jax.evaluation.judging import Protocol, Trial
from vone_jax.evaluation.masking import Masking
from vone_jax.evaluation.masking_checks import Check
from vone_jax.evaluation.suites import vonenet_pgd


@dataclasses.dataclass(frozen=True, eq=False)
class Accuracy:
    """The accuracy of a classifier on arrays of images.

    Attributes:
      accuracy: mean of ``per_example``.
      interval: its 95 % interval over the images, see ``results.accuracy``.
      per_example: the share of the decisions about each example that were right, (N,).
      loss: mean cross-entropy of each example over the draws, (N,).
      distance: how far an attack moved each image, in its norm, (N,); None without attack.
      draws: number R of decisions about each example.
      each_draw: the accuracy of each of the R decisions, (R,).
      standard_error: standard error of ``accuracy`` over the R decisions, for fixed images; None if
        R is 1.
      right_in_every_draw: share of the examples that were right in all decisions. It falls with R
        and is not an accuracy.
      winner: with several attacks, the position of the strongest one for each example (N,), or the
        number of attacks for the image itself; None with one attack.
      protocol: how the classifier was judged.
    """

    accuracy: float
    interval: tuple[float, float]
    per_example: np.ndarray
    loss: np.ndarray
    distance: np.ndarray | None
    draws: int
    each_draw: np.ndarray
    standard_error: float | None
    right_in_every_draw: float
    winner: np.ndarray | None
    protocol: Protocol


def accuracy(
    key: jax.Array,
    logits_fn: classifier.LogitsFn,
    images: jax.Array,
    labels: jax.Array,
    *,
    draws: int = 10,
    decision: str = "single",
    averaged: int = 1,
    batch_size: int | None = None,
) -> Accuracy:
    """Measure accuracy over fresh noise draws, or over decisions made from several draws.

    Args:
      key: typed key, or one key per example. With one key, draws depend on an example's position.
      logits_fn: classifier ``(keys, images) -> logits``, with one key per example.
      images: float32 or float64 in [0, 1], shape (N, H, W, C).
      labels: true classes, integers of shape (N,).
      draws: number R of decisions about each example.
      decision: what a decision is made from, see ``Protocol``.
      averaged: noise draws K in a decision.
      batch_size: examples at a time; it changes memory and speed only. Default: all.

    Raises:
      TypeError: within ``jit``, ``grad`` or ``vmap``.
      TypeError, ValueError: for input that does not fit, see ``attacks.Attack``.
      FloatingPointError: if logits are not finite.
    """
    protocol = Protocol("fresh", draws, decision, averaged)
    trial = Trial(protocol, key, logits_fn, images, labels)
    return _accuracy(protocol, _measured(Clean(), trial, batch_size))


def robust_accuracy(
    key: jax.Array,
    logits_fn: classifier.LogitsFn,
    images: jax.Array,
    labels: jax.Array,
    norm: str | None = None,
    eps: float | None = None,
    *,
    attack: Attack | Sequence[Attack] | None = None,
    noise: str = "fresh",
    attack_noise: Literal["same", "frozen"] = "same",
    draws: int | None = None,
    decision: str = "single",
    averaged: int = 1,
    surrogate: classifier.LogitsFn | None = None,
    batch_size: int | None = None,
    **fields,
) -> Accuracy:
    """Measure accuracy under attack, judged with keys that the attack has not seen.

    All images count, also those that are misclassified without an attack.

    Args:
      key, logits_fn, images, labels, decision, averaged, batch_size: as for ``accuracy``.
      norm: "linf", "l2" or "l1".
      eps: radius in pixel units. Norm and radius select the attack of the VOneNet authors, see
        ``vonenet_pgd``.
      attack: an attack to use instead, or a list or tuple of several, of which the worst counts for
        each image, see ``attacks.Strongest``.
      noise: "fresh" or "frozen", see ``Protocol``.
      attack_noise: "same" as in the judgement, or "frozen": one draw for each example at the
        attack.
      draws: number R of decisions by which an example is judged. Default: 10, and 1 with frozen
        noise.
      surrogate: a classifier to attack instead, for instance the same network without noise;
        ``logits_fn`` is judged.
      **fields: arguments of ``vonenet_pgd``, for instance ``steps=256``.

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
        raise ValueError(f"attack is given, so {', '.join(['norm', 'eps', *fields])} must not be")
    several: Any = tuple(attack) if isinstance(attack, list | tuple) else (attack,)
    for one in several:
        arguments.instance("attack", one, Attack)
        if one.targeted:
            raise ValueError(
                "attack must be untargeted, since the labels are the true classes, got a targeted "
                f"{type(one).__name__}"
            )
    arguments.choice("noise", noise, ("fresh", "frozen"))
    # The classifier without noise is given as surrogate.
    known = ("same", "frozen") if surrogate is None else ("same",)
    arguments.choice("attack_noise", attack_noise, known)
    if draws is None:
        draws = 1 if noise == "frozen" else 10
    protocol = Protocol(noise, draws, decision, averaged)
    one = attack if isinstance(attack, Attack) else Strongest(several)
    condition = Attacked(one, attack_noise if surrogate is None else "none")
    trial = Trial(protocol, key, logits_fn, images, labels, _given(surrogate))
    return _accuracy(protocol, _measured(condition, trial, batch_size))


def examine(
    key: jax.Array,
    logits_fn: classifier.LogitsFn,
    images: jax.Array,
    labels: jax.Array,
    condition: Masking,
    *,
    draws: int | None = None,
    surrogate: classifier.LogitsFn | None = None,
    other: classifier.LogitsFn | None = None,
    batch_size: int | None = None,
) -> list[Check]:
    """Make the checks for masked gradients of a classifier.

    Args:
      key, logits_fn, images, labels, batch_size: as for ``accuracy``.
      condition: norm, radius and settings of the attacks.
      draws: decisions by which an image is judged. Default: 10, and 1 without noise.
      surrogate: the classifier without its noise; needed if the condition attacks it.
      other: another classifier; needed if the condition has a transfer.

    Raises:
      TypeError, ValueError: for input that does not fit.
    """
    if condition.stochastic and condition.without_noise and surrogate is None:
        raise ValueError(f"surrogate must be given for {condition}")
    if condition.transfer and other is None:
        raise ValueError(f"other must be given for {condition}")
    if draws is None:
        draws = 10 if condition.stochastic else 1
    protocol = Protocol("fresh", draws)
    trial = Trial(protocol, key, logits_fn, images, labels, _given(surrogate), other)
    return condition.checks(_measured(condition, trial, batch_size))


def _given(surrogate: classifier.LogitsFn | None) -> Callable[..., classifier.LogitsFn] | None:
    """The ``with_noise`` of a trial whose classifier without noise is given."""
    return None if surrogate is None else lambda noise: surrogate


def _measured(condition: Condition, whole: Trial, batch_size: int | None) -> dict[str, np.ndarray]:
    """The arrays of a condition for all images, from a trial with the arguments of a user."""
    key = whole.example_keys
    logits_fn, images, labels = classifier.check_batch(
        key, whole.logits_fn, whole.images, whole.labels
    )
    count = images.shape[0]
    if batch_size is not None:
        arguments.count("batch_size", batch_size)
    size = min(batch_size or count, count)
    keys = prng.example_keys(key, count)
    parts = []
    for start in range(0, count, size):
        # The last batch is filled up with its last example, so that nothing is compiled again.
        rows = np.minimum(np.arange(start, start + size), count - 1)
        trial = dataclasses.replace(
            whole,
            example_keys=keys[rows],
            logits_fn=logits_fn,
            images=images[rows],
            labels=labels[rows],
        )
        try:
            part = condition.measure(trial)
        except FloatingPointError as error:
            error.args = (f"{error}; the batch begins at example {start}",)
            raise
        # Within ``jit``, ``grad`` or ``vmap``, JAX raises a TypeError here.
        parts.append({name: np.asarray(value) for name, value in part.items()})
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


def _accuracy(protocol: Protocol, arrays: dict[str, np.ndarray]) -> Accuracy:
    judging.check_finite(arrays["loss"], np.arange(len(arrays["loss"])))
    right = arrays["right"]
    measured = accuracy_numbers(right)
    whole = measured["accuracy"]
    return Accuracy(
        accuracy=whole["value"],
        interval=(whole["low"], whole["high"]),
        per_example=judging.probability_correct(right),
        loss=arrays["loss"],
        distance=arrays.get("distance"),
        draws=protocol.draws,
        each_draw=right.mean(axis=0, dtype=np.float64),
        standard_error=measured.get("standard error over draws", {}).get("value"),
        right_in_every_draw=measured["right in every draw"]["value"],
        winner=arrays.get("winner"),
        protocol=protocol,
    )
