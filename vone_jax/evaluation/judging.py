"""The judgement of a batch: which decisions are right, under a protocol.

All random numbers of an example come from its key. The key has separate streams, so the judgement
of an example never uses a key that an attack has used.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial

from vone_jax import arguments, batches, diagnostics, fast, functions, prng
from vone_jax.attacks import losses
from vone_jax.attacks.classifier import LogitsFn, checked
from vone_jax.v1 import Noise

# The number of draws that are computed at a time. It changes only memory and speed.
_DRAWS_AT_ONCE = 10
# Among so many classes, or fewer, the top five say little.
_FEW_CLASSES = 10

# The noise of the network while it is attacked. "same": as at evaluation. "none": switched off, and
# on again for the judgement, the deterministic-surrogate control. "frozen": one draw for each
# image, new draws for the judgement. Or another noise.
AttackNoise = Literal["same", "none", "frozen"] | Noise

# Kind of noise in commands and names -> its class.
NOISES: dict[str, Any] = {
    each.__name__.removesuffix("Noise").lower(): each
    for each in typing.get_args(Noise)
    if each is not type(None)
}

# The input of a decision. "single": one noise draw. The others use several: the class with the
# highest mean logit, the highest mean probability, or the most votes of the single draws.
DECISIONS = ("single", "mean_logits", "mean_probability", "vote")


def noise_label(noise: Noise) -> str:
    """The noise in words, such as ``"neuronal 0.35, 0.07, 1"``; ``"none"`` for no noise."""
    if noise is None:
        return "none"
    kind = next(kind for kind, each in NOISES.items() if isinstance(noise, each))
    fields: Any = dataclasses.astuple(typing.cast(Any, noise))
    return f"{kind} {', '.join(f'{field:g}' for field in fields)}"


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The rules by which a network is judged: how noise is drawn, and how an example is decided.

    *Fresh noise*: every decision uses new draws. *Frozen noise*: each example has one draw, which
    attack and judgement share. The network is then deterministic, with one noise sample for each
    example. *Averaged decision*: every decision uses ``averaged`` new draws.

    The probability of being right is the share of the ``draws`` decisions that are right. The share
    of examples that are wrong in any decision is no error rate: it grows with the number of draws.

    An attack always uses single draws; how many it averages over is a field of the attack.

    Attributes:
      noise: "fresh" or "frozen"; "none" for a network that draws no noise.
      draws: number R of decisions about each example.
      decision: one of ``DECISIONS``.
      averaged: number K of draws in a decision; 1 for "single".

    Raises:
      ValueError: for another noise or decision, draws below 1, several draws of frozen noise, or
        a number of averaged draws that does not fit the decision.
    """

    noise: Annotated[str, ("fresh", "frozen", "none")] = "fresh"
    draws: int = 10
    decision: Annotated[str, DECISIONS] = "single"
    averaged: int = 1

    def __post_init__(self):
        arguments.fields(self)
        if (self.decision == "single") != (self.averaged == 1):
            raise ValueError(
                f"averaged must be 1 for the decision 'single' and >= 2 for the others, got "
                f"{self.averaged} for {self.decision!r}"
            )
        if self.noise == "frozen" and (self.draws, self.decision) != (1, "single"):
            raise ValueError(
                "draws must be 1 and decision 'single' with noise 'frozen', where all draws are "
                f"the same, got {self.draws} and {self.decision!r}"
            )

    @property
    def decided(self) -> str:
        """What a decision is made of, such as "vote:8"."""
        return self.decision if self.averaged == 1 else f"{self.decision}:{self.averaged}"


def parse_noise(name: str, text: str, trained: Noise) -> Noise:
    """The noise that a text stands for: "trained", "none", or a kind with its fields.

    A kind alone, such as ``"neuronal"``, has the fields of the released models; ``"gaussian:4"`` or
    ``"neuronal:0.35,0.07"`` gives the first ones.

    Raises:
      ValueError: if the text is none of these; it begins with ``name``.
    """
    if text == "trained":
        return trained
    if text == "none":
        return None
    kind, _, fields = text.partition(":")
    arguments.choice(name, kind, ("trained", "none", "frozen", *NOISES))
    try:
        return NOISES[kind](*map(float, filter(None, fields.split(","))))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} {text!r}: {error}") from error


def parse_protocol(noise: str, decision: str, draws: int | None) -> Protocol:
    """The protocol of a noise, "frozen" or any other, and a decision such as "single" or "vote:8".

    Default: ten decisions about an image, and one on frozen noise.

    Raises:
      ValueError: for another decision, or see ``Protocol``.
    """
    rule, _, averaged = decision.partition(":")
    arguments.choice("decision", rule, DECISIONS)
    if not averaged:
        averaged = "1" if rule == "single" else "10"
    if not averaged.isdecimal():
        raise ValueError(f"decision must be such as vote:8, got {decision!r}")
    kind = "frozen" if noise == "frozen" else "fresh"
    if draws is None:
        draws = 1 if kind == "frozen" else 10
    return Protocol(kind, draws, rule, int(averaged))


# The purposes of random numbers: what an attack draws, also to choose among its candidates, the
# search for a gradient, the judgement, and image corruptions.
Purpose = Literal["attack", "flat", "judge", "corruption"]


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Some examples, and the classifier that is judged on them.

    Attributes:
      protocol: how the classifier is judged.
      example_keys: one key for each example, shape (N,): the root of all its random numbers.
      logits_fn: the classifier.
      images: shape (N, H, W, C).
      labels: shape (N,).
      attack_noise: the noise of the classifier while it is attacked, see ``AttackNoise``.
      with_noise: function that returns the classifier with another noise, None for no noise. Needed
        where the attack sees another noise.
      others: name -> classifier of each other network, for conditions that ask them.
      network: the network of the classifier, for conditions that record its layers.
      root: the key of the whole evaluation, for conditions that draw nothing for single examples.
      index: numbers of the examples in the data set, (N,). Default: their places.
      mask: False for examples that only fill the batch up, (N,). Default: none does.
      sample: function of a count that yields keys, images and mask of images of the whole data set.
      kept: what conditions keep from one batch to the next.
      label: the condition in words, for messages.
    """

    protocol: Protocol
    example_keys: jax.Array
    logits_fn: LogitsFn
    images: jax.Array
    labels: jax.Array
    attack_noise: AttackNoise = "same"
    with_noise: Callable[[Noise], LogitsFn] | None = None
    others: Mapping[str, LogitsFn] = dataclasses.field(default_factory=dict)
    network: Any = None
    root: Any = None
    index: Any = None
    mask: Any = None
    sample: Callable[[int], Iterator[tuple[jax.Array, ...]]] | None = None
    kept: dict[Any, Any] = dataclasses.field(default_factory=dict)
    label: str = "a condition"

    def response_fn(self, layer: str) -> Callable[..., jax.Array]:
        """A layer of the network, as an argument of compiled functions."""
        return functions.as_pytree(self.network.response_fn(layer), self.example_keys, self.images)

    def functions(self) -> dict[str, Any]:
        """The classifiers of the network and of others as pytrees, by the names of the fields."""

        def lowered(function: LogitsFn) -> LogitsFn:
            return functions.as_pytree(function, self.example_keys, self.images)

        others = {name: lowered(function) for name, function in self.others.items()}
        return {"logits_fn": lowered(self.logits_fn), "others": others}

    def classifier(self, noise: AttackNoise = "same") -> LogitsFn:
        """The classifier with its noise under the protocol, or with the noise at an attack.

        Raises:
          ValueError: if the noise is to be changed and the batch has no ``with_noise``.
        """
        free = functions.as_pytree(self.logits_fn, self.example_keys, self.images)
        if noise == "frozen" or (noise == "same" and self.protocol.noise == "frozen"):
            return Partial(_one_draw, free, self.example_keys)
        if noise == "same":
            return free
        if self.with_noise is None:
            raise ValueError(
                f"attack_noise is {noise!r}, which needs the classifier with that noise, got none"
            )
        other = self.with_noise(None if noise == "none" else noise)
        return functions.as_pytree(other, self.example_keys, self.images)

    @property
    def attacked(self) -> LogitsFn:
        """The classifier as attacks see it."""
        return self.classifier(self.attack_noise)

    @property
    def attacked_frozen(self) -> bool:
        """True if an image is attacked under one draw, which belongs to its place in the batch."""
        frozen = self.attack_noise == "same" and self.protocol.noise == "frozen"
        return self.attack_noise == "frozen" or frozen

    def keys(self, purpose: Purpose) -> jax.Array:
        """Keys (N,) for all that is random for one purpose; no two purposes share one."""
        return prng.stream(self.example_keys, purpose)

    def judge(self, images: jax.Array, purpose: Purpose = "judge") -> dict[str, jax.Array]:
        """The judgement of images with keys for a purpose, see ``judge``.

        Raises:
          ValueError: unless the images are finite, in [0, 1] and of the batch's shape and dtype.
        """
        return self.judge_any(self._checked(images), purpose)

    def judge_any(self, images: jax.Array, purpose: Purpose = "judge") -> dict[str, jax.Array]:
        """The judgement of images without their check, where faults are the finding."""
        return judge(self.classifier(), self.keys(purpose), images, self.labels, self.protocol)

    def _checked(self, images: Any) -> jax.Array:
        try:
            checked = batches.check_images(images)
            if (checked.shape, checked.dtype) != (self.images.shape, self.images.dtype):
                raise ValueError(
                    f"images must have shape {self.images.shape} and dtype {self.images.dtype} as "
                    f"those of the batch, got shape {checked.shape} and dtype {checked.dtype}"
                )
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self.label} shows the network images that are none: {error}"
            ) from error
        return checked

    def flat(self, classifier: LogitsFn, draws: int) -> jax.Array:
        """Booleans (N,), true where the margin of a classifier has no gradient in several draws."""
        return _flat(classifier, self.keys("flat"), self.images, self.labels, draws)


@functools.partial(jax.jit, static_argnames="draws")
def _flat(
    logits_fn: LogitsFn, keys: jax.Array, images: jax.Array, labels: jax.Array, draws: int
) -> jax.Array:
    call = checked(logits_fn, keys, images)

    @fast.in_fast_layout
    def one_draw(number):
        draw_keys = prng.fold(keys, number)
        slope = jax.grad(lambda x: jnp.sum(losses.margin(call(draw_keys, x), labels)))(images)
        return jnp.all(slope == 0, axis=(1, 2, 3))

    # One after the other: an attack in small batches must not need more memory for this.
    return jnp.all(lax.map(one_draw, jnp.arange(draws, dtype=jnp.uint32)), axis=0)


def _one_draw(logits_fn, example_keys, keys, images):
    if keys.shape != example_keys.shape:
        raise ValueError(
            f"frozen noise has one draw for each of {len(example_keys)} images by their places, "
            f"but the attack passes {len(keys)}; attack them in one batch"
        )
    # Derived again in every call, so that the keys are the same and none is consumed twice.
    frozen_keys = prng.stream(example_keys, "frozen noise")
    return checked(logits_fn, frozen_keys, images)(frozen_keys, images)


@functools.partial(jax.jit, static_argnames="protocol")
def judge(
    logits_fn: LogitsFn,
    keys: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    protocol: Protocol,
) -> dict[str, Any]:
    """Decide about each example R times.

    Args:
      logits_fn: the classifier, a pytree.
      keys: (N,) typed keys.
      images: (N, H, W, C) in [0, 1].
      labels: true classes, integers (N,).
      protocol: number of decisions, and the draws in each.

    Returns:
      ``right``, which decisions are right, booleans (N, R); with more than ten classes ``right in
      top 5``, in which the label is among the first five classes; ``loss`` of each example, (N,):
      the mean cross-entropy of the single draws, whatever the decision uses; ``predicted``, the
      class of the highest mean probability over all draws, (N,); and ``scores`` of the calibration
      after some of the decisions, see ``diagnostics``.
    """
    averaged = protocol.averaged

    def one_decision(number):
        numbers = number * averaged + jnp.arange(averaged, dtype=jnp.uint32)
        logits = _logits(logits_fn, keys, images, numbers)
        loss = jnp.mean(losses.cross_entropy(logits, labels), axis=0)
        scores = preference(logits, protocol.decision)
        right = {"right": jnp.argmax(scores, axis=-1).astype(labels.dtype) == labels}
        if scores.shape[-1] > _FEW_CLASSES:
            _, five = lax.top_k(scores, 5)
            right["right in top 5"] = jnp.any(five.astype(labels.dtype) == labels[:, None], axis=1)
        return right, loss, diagnostics.average_draws(logits, labels)

    at_once = max(1, min(protocol.draws, _DRAWS_AT_ONCE // averaged))
    numbers = jnp.arange(protocol.draws, dtype=jnp.uint32)
    right, loss, averages = jax.lax.map(one_decision, numbers, batch_size=at_once)
    probability, *_ = averages
    return {
        **{name: each.T for name, each in right.items()},
        "loss": jnp.mean(loss, axis=0),
        "predicted": jnp.argmax(jnp.mean(probability, axis=0), axis=-1).astype(jnp.int32),
        "scores": diagnostics.score_averages(
            averages, labels, diagnostics.CALIBRATION_DRAWS, averaged
        ),
    }


def preference(logits: jax.Array, decision: str) -> jax.Array:
    """What a rule of ``DECISIONS`` makes of the logits (K, N, C) of K draws, (N, C).

    The decision is the class with the largest value.
    """
    if decision == "single":
        return logits[0]
    if decision == "mean_logits":
        return jnp.mean(logits, axis=0)
    probability = jnp.mean(jax.nn.softmax(logits), axis=0)
    if decision == "mean_probability":
        return probability
    classes = logits.shape[-1]
    votes = jnp.sum(jax.nn.one_hot(jnp.argmax(logits, axis=-1), classes, dtype=jnp.int32), axis=0)
    # Among classes with equal votes, the highest probability wins.
    return votes * classes - jnp.argsort(jnp.argsort(-probability))


def _logits(
    logits_fn: LogitsFn, keys: jax.Array, images: jax.Array, numbers: jax.Array
) -> jax.Array:
    """The logits (K, N, C) of the noise draws with these numbers (K,)."""
    call = fast.in_fast_layout(checked(logits_fn, keys, images))
    at_once = min(len(numbers), _DRAWS_AT_ONCE)
    return jax.lax.map(lambda n: call(prng.fold(keys, n), images), numbers, batch_size=at_once)


def probability_correct(right: np.ndarray) -> np.ndarray:
    """The share of the decisions (N, R) that are right for each example, (N,) float64."""
    return right.mean(axis=1, dtype=np.float64)


def check_finite(loss: np.ndarray, indices: np.ndarray) -> None:
    """Raise a FloatingPointError that names the examples whose loss is not finite, if any."""
    bad = np.flatnonzero(~np.isfinite(loss))
    if len(bad):
        shown = np.asarray(indices)[bad][:8].tolist()
        raise FloatingPointError(f"the classifier's logits are not finite for the examples {shown}")
