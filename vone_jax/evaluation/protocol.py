"""How a stochastic classifier is judged. Always stated with a number.

The same example key is the root of everything random that happens to an example. The streams
below it are separate: what judges an example never uses a key that an attack has seen.
"""

import dataclasses

import jax
from jax.tree_util import Partial

from vone_jax import prng
from vone_jax.attacks import checks, classifier

NOISE = ("fresh", "frozen")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How noise is drawn.

    Attributes:
      noise: "fresh" draws anew in every forward pass of attack and judgement. "frozen" gives
        each example one draw, which attack and judgement share: the deterministic network that
        one noise sample makes of a stochastic one.
      draws: forward passes R by which an example is judged; its probability of being right is
        the share of them that are. Each decision is that of a single draw.

    Raises:
      ValueError: for another noise, draws below 1, or several draws of frozen noise.
    """

    noise: str = "fresh"
    draws: int = 10

    def __post_init__(self):
        checks.choice("noise", self.noise, NOISE)
        checks.count("draws", self.draws)
        if self.noise == "frozen" and self.draws != 1:
            raise ValueError(
                f"draws must be 1 with frozen noise, where all are the same, got {self.draws}"
            )

    def classifier(
        self, logits_fn: classifier.LogitsFn, example_keys: jax.Array
    ) -> classifier.LogitsFn:
        """The classifier that this protocol attacks and judges.

        Args:
          logits_fn: the classifier.
          example_keys: keys of the examples of the batch, shape (N,).
        """
        logits_fn = classifier.as_pytree(logits_fn)
        if self.noise == "fresh":
            return logits_fn
        return Partial(_frozen, logits_fn, example_keys)


def _frozen(logits_fn, example_keys, keys, images):
    # Derived in every call: the same keys, and no key that is consumed twice.
    frozen_keys = prng.stream(example_keys, "frozen noise")
    return classifier.per_example(logits_fn, frozen_keys, images)(frozen_keys, images)


def attack_keys(example_keys: jax.Array) -> jax.Array:
    """Keys for everything an attack draws."""
    return prng.stream(example_keys, "attack")


def judge_keys(example_keys: jax.Array) -> jax.Array:
    """Keys for the draws by which examples are judged."""
    return prng.stream(example_keys, "judge")


def corruption_keys(example_keys: jax.Array) -> jax.Array:
    """Keys for the draws of image corruptions."""
    return prng.stream(example_keys, "corruption")
