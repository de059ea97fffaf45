"""The condition ``Minimal``: how far the closest adversarial image is."""

import dataclasses
from typing import Any

import jax
import numpy as np

from vone_jax.attacks import MinimalNormAttack
from vone_jax.evaluation import intervals, judging, protocol
from vone_jax.evaluation import labels as wording
from vone_jax.evaluation.conditions import Condition, check_untargeted
from vone_jax.evaluation.judging import Trial


@dataclasses.dataclass(frozen=True)
class Minimal(Condition):
    """The smallest change that a minimal-norm attack finds for each image.

    One run gives the accuracy at every radius: an image whose closest adversarial image lies
    beyond it is judged as it is, another by that image. Both are judged on draws that the search
    has not used.

    Attributes:
      attack: the attack; its radius plays no part.
      radii: at which the accuracy is reported.

    Raises:
      ValueError: for a targeted attack.
    """

    attack: MinimalNormAttack
    radii: tuple[float, ...]

    kind = "minimal"

    def __post_init__(self):
        check_untargeted(self.attack)

    @property
    def name(self) -> str:
        return f"minimal-{type(self.attack).__name__.lower()}-{self.attack.norm}"

    def record(self) -> dict[str, Any]:
        return {
            "norm": self.attack.norm,
            "attack": repr(self.attack),
            "eot_samples": self.attack.eot_samples,
            "estimator": self.attack.estimator,
            "radii": list(self.radii),
        }

    def measure(self, trial: Trial) -> dict[str, jax.Array]:
        keys = protocol.attack_keys(trial.example_keys)
        found = self.attack.minimal(keys, trial.attacked(), trial.images, trial.labels)
        clean = trial.judge(trial.images)
        return trial.judge(found.images) | {
            "right clean": clean["right"],
            "loss clean": clean["loss"],
            "distance": found.distance,
        }

    def summary(self, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        for name in ("loss", "loss clean"):
            judging.check_finite(arrays[name], arrays["index"])
        distance = arrays["distance"]
        # An image without an adversarial one is infinitely far from it, which JSON cannot say.
        median = float(np.median(distance))
        return {
            "seen": len(distance),
            "found": int(np.isfinite(distance).sum()),
            "median_distance": median if np.isfinite(median) else None,
            "ladder": [self._at(radius, arrays) for radius in self.radii],
            "interval_method": intervals.METHOD,
        }

    def constants(self) -> dict[str, Any]:
        return {"attack": np.str_(repr(self.attack))}

    def _at(self, radius: float, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        near = arrays["distance"][:, None] <= radius
        judged = judging.summary(np.where(near, arrays["right"], arrays["right clean"]))
        kept = ("accuracy", "interval", "between_draws")
        return {
            "eps": radius,
            "eps_label": wording.eps(self.attack.norm, radius),
            **{name: judged[name] for name in kept},
        }
