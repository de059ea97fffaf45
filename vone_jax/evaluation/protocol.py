"""How a stochastic classifier is judged. Always stated with a number.

The same example key is the root of everything random that happens to an example. The streams
below it are separate: what judges an example never uses a key that an attack has seen.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from vone_jax import arguments, prng
from vone_jax.attacks import classifier

NOISE = ("fresh", "frozen", "frozen_attack")

# What a decision is made from. "single": one noise draw. The others take several: the class with
# the highest mean logit, the highest mean probability, or the most votes of the single draws.
DECISIONS = ("single", "mean_logits", "mean_probability", "vote")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How noise is drawn and how an example is decided.

    Four protocols have names. *Frozen noise*: each example has one draw, which attack and
    judgement share. *Noise frozen at the attack*: the attack has one draw for each example, the
    judgement new ones. *Fresh noise*: each decision is that of one new draw. *Averaged decision*:
    each decision is made from ``averaged`` new draws. The probability of being right is the share
    of ``draws`` decisions that are; whether an example is wrong in any of them is no accuracy,
    since it only grows with their number.

    An attack always sees single draws; over how many of them it averages, and what, are fields
    of the attack.

    Attributes:
      noise: "fresh", "frozen" or "frozen_attack". Frozen noise makes of a stochastic network the
        deterministic one that a noise sample gives.
      draws: decisions R by which an example is judged.
      decision: one of ``DECISIONS``.
      averaged: draws K that a decision is made from; 1 for "single".

    Raises:
      ValueError: for another noise or decision, draws below 1, several draws of frozen noise, or
        a number of averaged draws that does not fit the decision.
    """

    noise: str = "fresh"
    draws: int = 10
    decision: str = "single"
    averaged: int = 1

    def __post_init__(self):
        arguments.choice("noise", self.noise, NOISE)
        arguments.choice("decision", self.decision, DECISIONS)
        arguments.count("draws", self.draws)
        arguments.count("averaged", self.averaged)
        if self.decision == "single" and self.averaged != 1:
            raise ValueError(
                f"averaged must be 1 for the decision of a single draw, got {self.averaged}; "
                f"decision may be {', '.join(DECISIONS[1:])}"
            )
        if self.decision != "single" and self.averaged < 2:
            raise ValueError(
                f"averaged must be >= 2 for the decision {self.decision!r}, got {self.averaged}"
            )
        if self.noise == "frozen" and (self.draws, self.averaged) != (1, 1):
            raise ValueError(
                f"draws must be 1 and the decision that of a single draw with frozen noise, "
                f"where all draws are the same, got {self.draws} and {self.decision!r}"
            )

    @property
    def name(self) -> str:
        """The name of the protocol."""
        if self.noise != "fresh":
            return "frozen noise" if self.noise == "frozen" else "noise frozen at the attack"
        return "fresh noise" if self.decision == "single" else "averaged decision"

    @property
    def suffix(self) -> str:
        """What tells the names of its results from those of the usual protocol."""
        noise = "" if self.noise == "fresh" else self.noise.replace("_", "-")
        decision = "" if self.decision == "single" else f"{self.decision}-{self.averaged}"
        return "-".join(filter(None, (noise, decision)))

    def record(self, stochastic: bool = True) -> dict[str, Any]:
        """The protocol for a result file, as it applies to a network with or without noise."""
        return {
            "name": self.name if stochastic else "no noise",
            "noise": self.noise if stochastic else "none",
            "draws": self.draws,
            "decision": self.decision,
            "averaged": self.averaged,
        }

    def classifier(
        self, logits_fn: classifier.LogitsFn, example_keys: jax.Array, attacked: bool = False
    ) -> classifier.LogitsFn:
        """The classifier of single draws that this protocol judges.

        Args:
          logits_fn: the classifier.
          example_keys: keys of the examples of the batch, shape (N,).
          attacked: that which it attacks instead.
        """
        logits_fn = classifier.as_pytree(logits_fn)
        if self.noise == "fresh" or (self.noise == "frozen_attack" and not attacked):
            return logits_fn
        return Partial(_frozen, logits_fn, example_keys)

    def decide(self, logits: jax.Array) -> jax.Array:
        """The classes decided for, (N,), from logits of the averaged draws, (K, N, C)."""
        probability = jnp.mean(jax.nn.softmax(logits), axis=0)
        if self.decision == "mean_probability":
            return jnp.argmax(probability, axis=-1)
        if self.decision == "vote":
            cast = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=logits.dtype)
            votes = jnp.sum(cast, axis=0)
            # Between equal votes the probability decides.
            most = votes == jnp.max(votes, axis=-1, keepdims=True)
            return jnp.argmax(jnp.where(most, probability, -1.0), axis=-1)
        return jnp.argmax(jnp.mean(logits, axis=0), axis=-1)


def _frozen(logits_fn, example_keys, keys, images):
    # Derived in every call: the same keys, and no key that is consumed twice.
    frozen_keys = prng.stream(example_keys, "frozen noise")
    return classifier.checked(logits_fn, frozen_keys, images)(frozen_keys, images)


def attack_keys(example_keys: jax.Array) -> jax.Array:
    """Keys for everything an attack draws."""
    return prng.stream(example_keys, "attack")


def choice_keys(example_keys: jax.Array) -> jax.Array:
    """Keys for the draws by which the worst of several attacks is chosen."""
    return prng.stream(example_keys, "choice")


def judge_keys(example_keys: jax.Array) -> jax.Array:
    """Keys for the draws by which examples are judged."""
    return prng.stream(example_keys, "judge")


def corruption_keys(example_keys: jax.Array) -> jax.Array:
    """Keys for the draws of image corruptions."""
    return prng.stream(example_keys, "corruption")
