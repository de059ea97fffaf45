"""What is done to images before a classifier sees them. Each condition names its result."""

import dataclasses
from typing import Any

import jax

from vone_jax import corruptions
from vone_jax.attacks import Attack, classifier, norms
from vone_jax.evaluation import labels as wording
from vone_jax.evaluation import protocol


@dataclasses.dataclass(frozen=True)
class Clean:
    """The images as they are."""

    kind = "clean"
    name = "clean"

    def record(self) -> dict[str, Any]:
        """The condition for a result file."""
        return {}

    def perturb(
        self,
        example_keys: jax.Array,
        logits_fn: classifier.LogitsFn,
        images: jax.Array,
        labels: jax.Array,
    ) -> jax.Array:
        """The images that are judged."""
        return images

    def distance(self, perturbed: jax.Array, images: jax.Array) -> jax.Array | None:
        """How far each image was moved, in the condition's norm; None where there is none."""
        return None


@dataclasses.dataclass(frozen=True)
class Attacked:
    """Adversarial images.

    Attributes:
      attack: the attack.
      noise_free_gradients: attack the network with its noise switched off, and judge the noisy
        one: the deterministic-surrogate control.
    """

    attack: Attack
    noise_free_gradients: bool = False

    kind = "attack"

    @property
    def name(self) -> str:
        suffix = "-noise-free" if self.noise_free_gradients else ""
        return f"attack-{self.attack.norm}-{self.attack.eps:.4g}{suffix}"

    def record(self) -> dict[str, Any]:
        """The condition for a result file."""
        surrogate = " on the network without noise" if self.noise_free_gradients else ""
        return {
            "norm": self.attack.norm,
            "eps": self.attack.eps,
            "eps_label": wording.eps(self.attack.norm, self.attack.eps),
            "attack": f"{self.attack!r}{surrogate}",
            "eot_samples": getattr(self.attack, "eot_samples", 1),
            "noise_free_gradients": self.noise_free_gradients,
        }

    def perturb(self, example_keys, logits_fn, images, labels):
        return self.attack(protocol.attack_keys(example_keys), logits_fn, images, labels)

    def distance(self, perturbed, images):
        return norms.size(perturbed - images, self.attack.norm)


@dataclasses.dataclass(frozen=True)
class Corrupted:
    """Images with a common corruption, in memory, without 8-bit truncation."""

    corruption: str
    severity: int

    kind = "corruption"

    def __post_init__(self):
        corruptions.check_name(self.corruption)
        corruptions.check_severity(self.severity)

    @property
    def name(self) -> str:
        return f"corruption-{self.corruption}-{self.severity}"

    def record(self) -> dict[str, Any]:
        """The condition for a result file."""
        return {"corruption": self.corruption, "severity": self.severity, "form": "float"}

    def perturb(self, example_keys, logits_fn, images, labels):
        keys = protocol.corruption_keys(example_keys)
        return corruptions.corrupt(keys, images, self.corruption, self.severity)

    def distance(self, perturbed, images):
        return None


Condition = Clean | Attacked | Corrupted
