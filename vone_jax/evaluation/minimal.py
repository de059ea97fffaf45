"""The smallest change that an attack finds: one run for the accuracy at every radius."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import arguments
from vone_jax.attacks import FMN, Attack, MinimalPerturbation
from vone_jax.evaluation.attacked import (
    ABOUT,
    NormName,
    attack_row,
    blind_warning,
    check_attacks,
    guessing,
    radii,
    single_draws,
)
from vone_jax.evaluation.condition import Condition, Numbers, number
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.evaluation.judging import Batch
from vone_jax.evaluation.masking_checks import BLIND
from vone_jax.results import Lines


@dataclasses.dataclass(frozen=True)
class Minimal(Condition):
    """The smallest change that a minimal-norm attack finds for each image.

    One run gives the accuracy at every radius. If the closest adversarial image lies beyond the
    radius, the clean image is judged, otherwise the adversarial image. Both are judged on draws
    that the search has not used.

    For a classifier with noise, an image close to the boundary is still right in many draws. So
    each image is moved along its change to every radius, and judged there.

    Attributes:
      attack: the attack; its radius is not used.
      radii: radii at which the accuracy is reported, in pixel units.
      moved: whether images are moved to each radius.

    Raises:
      ValueError: for a targeted attack, or one with a radius for each image.
    """

    section = "Under attack"
    judged: ClassVar[bool] = True
    long: ClassVar[bool] = True
    under_attack_noise: ClassVar[bool] = True

    attack: Attack
    radii: tuple[float, ...]
    moved: bool = False

    def __post_init__(self):
        arguments.fields(self)
        check_attacks(self.attacks)
        if not self.attack.is_search:
            raise ValueError(
                f"attack must look for the smallest change, such as FMN, got {self.attack!r:.80}"
            )
        if self.attack.norm == "linf":
            arguments.within_images("radii", max(self.radii, default=0.0), "linf")

    @property
    def attacks(self) -> tuple[Attack, ...]:
        return (self.attack,)

    def row(self) -> dict[str, Any]:
        row = {"condition": "minimal", **attack_row(self.attack)}
        del row["eps"]  # Each accuracy has a radius of its own.
        return row

    def make(self, batch: Batch) -> dict[str, jax.Array]:
        closest = self.attack.minimal(
            batch.keys("attack"), batch.attacked, batch.images, batch.labels
        )
        clean = batch.judge(batch.images)
        arrays = batch.judge(closest.images) | {
            "right clean": clean["right"],
            "loss clean": clean["loss"],
            "distance": closest.distance,
        }
        if self.moved:
            moved = [_at_radius(batch.images, closest, jnp.float32(eps)) for eps in self.radii]
            judged = list(map(batch.judge, moved))
            for name in ("right", "loss"):
                arrays[f"{name} at radii"] = jnp.stack([each[name] for each in judged], axis=1)
        return arrays

    def result(self, arrays: Mapping[str, np.ndarray], evaluation: Any) -> Numbers:
        distance = arrays["distance"]
        # The distance is infinite where no adversarial image was found. JSON cannot hold that.
        measured = [
            number("median distance", float(np.median(distance))),
            number("share of broken images", of=np.isfinite(distance)),
        ]
        for place, eps in enumerate(map(float, self.radii)):
            near = distance[:, None] <= eps
            if self.moved:
                right = arrays["right at radii"][:, place]
            else:
                right = np.where(near, arrays["right"], arrays["right clean"])
            measured.append(number("accuracy", of=right, main=True, eps=eps))
        unbroken = float(np.mean(np.isinf(distance)))
        warnings = blind_warning(unbroken) if unbroken > BLIND else []
        if evaluation.attack_noise == "same":
            right = arrays["right at radii"] if self.moved else arrays["right"]
            warnings += single_draws(self.attack, right.reshape(-1, right.shape[-1]))
        lines = Lines("accuracy", "eps", "norm", "clean", share=True, about=ABOUT)
        return Numbers(measured, [lines], [guessing(evaluation)], tuple(warnings))


@jax.jit
def _at_radius(images: jax.Array, closest: MinimalPerturbation, eps: jax.Array) -> jax.Array:
    """Move images by ``eps`` along the changes that were found. Without a change, they stay."""
    moves = jnp.isfinite(closest.distance) & (closest.distance > 0)
    scale = jnp.where(moves, eps / closest.distance, 0.0)
    return jnp.clip(images + scale[:, None, None, None] * (closest.images - images), 0.0, 1.0)


def minimal(
    evaluation: Evaluation, *, eps: tuple[float, ...] = (), norm: NormName = "linf"
) -> list[Condition]:
    """the smallest adversarial change (FMN): accuracy at nine radii (3,100; 300)"""
    chosen = radii(evaluation, norm, 9, eps)
    attack = FMN(norm, max(chosen), eot_samples=evaluation.attack_draws)
    return [Minimal(attack, chosen, moved=evaluation.noisy)]


SUITES = {"minimal": minimal}
