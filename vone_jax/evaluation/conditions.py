"""Conditions: what is done to images before a network is judged on them."""

import abc
import dataclasses
from collections import Counter
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import arguments, attacks, corruptions, results
from vone_jax.arguments import FromZero, Range
from vone_jax.attacks import (
    APGD,
    Attack,
    AutoAttack,
    InBatches,
    MinimalNormAttack,
    Strongest,
    Transfer,
    norms,
)
from vone_jax.attacks.minimal import MinimalPerturbation
from vone_jax.evaluation import judging
from vone_jax.evaluation.judging import AttackNoise, Trial, attack_noise_record, noise_slug


class Condition(abc.ABC):
    """A measurement over a data set, which is made in batches.

    Attributes:
      name: the stem of its result files.
    """

    name: str

    def passes(self, draws: int) -> int:
        """The rough number of passes through the network per image, to estimate times.

        ``draws`` is the number of decisions by which an image is judged.
        """
        return draws

    @abc.abstractmethod
    def record(self) -> results.Condition:
        """The condition for a result file."""

    @abc.abstractmethod
    def measure(self, trial: Trial) -> dict[str, jax.Array]:
        """Measure a batch. Return arrays with a row for each example."""

    @abc.abstractmethod
    def summary(self, arrays: dict[str, np.ndarray]) -> results.Measured:
        """The numbers of a result, from the arrays of all examples."""


class Judged(Condition):
    """A condition whose images are judged; subclasses make the images."""

    @abc.abstractmethod
    def perturb(self, trial: Trial) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The images that are judged, and further arrays (N,) to store."""

    def measure(self, trial: Trial) -> dict[str, jax.Array]:
        images, stored = self.perturb(trial)
        return trial.judge(images) | stored

    def summary(self, arrays: dict[str, np.ndarray]) -> results.Accuracy:
        return judging.accuracy(arrays["right"])


@dataclasses.dataclass(frozen=True)
class Clean(Judged):
    """The images as they are."""

    name = "clean"

    def record(self) -> results.CleanCondition:
        return results.CleanCondition()

    def perturb(self, trial: Trial) -> tuple[jax.Array, dict[str, jax.Array]]:
        return trial.images, {}


@dataclasses.dataclass(frozen=True)
class Attacked(Judged):
    """Adversarial images.

    Attributes:
      attack: the attack.
      attack_noise: the noise of the network while it is attacked, see ``results.AttackNoise``.
      kept: number of adversarial images that the result keeps for a gallery.

    Raises:
      ValueError: for a targeted attack, or a negative number of images.
    """

    attack: Attack
    attack_noise: AttackNoise = "same"
    kept: FromZero = 0

    def __post_init__(self):
        arguments.fields(self)
        check_untargeted(self.attack)

    @property
    def name(self) -> str:
        kind = type(self.attack).__name__
        kind = "" if kind == "PGD" else f"{kind.lower()}-"
        stem = f"attack-{kind}{self.attack.norm}-{self.attack.eps:.4g}"
        noise = self.attack_noise or "none"
        if isinstance(noise, str):
            return stem + {"same": "", "none": "-noise-free", "frozen": "-frozen-attack"}[noise]
        return f"{stem}-attacked-{noise_slug(noise)}"

    def passes(self, draws: int) -> int:
        return draws + attack_passes(self.attack)

    def record(self) -> results.AttackCondition:
        return results.AttackCondition(
            attacks=(attack_record(self.attack),),
            attack_noise=attack_noise_record(self.attack_noise),
            **averaging(self.attack),
        )

    def perturb(self, trial: Trial) -> tuple[jax.Array, dict[str, jax.Array]]:
        attacked, keys = trial.classifier(self.attack_noise), trial.keys("attack")
        if trial.frozen(self.attack_noise):
            # A call of AutoAttack gives its later members the surviving images only, which would
            # get the frozen draws of other images. At once, all members get all images.
            best = self.attack.choose(keys, attacked, trial.images, trial.labels, at_once=True)
            adversarial = best.images
        else:
            adversarial = self.attack(keys, attacked, trial.images, trial.labels)
        stored = {"distance": norms.size(adversarial - trial.images, self.attack.norm)}
        # From a random point, the distance does not say whether a gradient led the attack.
        if getattr(self.attack, "random_start", isinstance(self.attack, APGD | AutoAttack)):
            draws = averaging(self.attack)["eot_samples"]
            stored["flat"] = trial.flat(attacked, draws)
        return adversarial, stored | ({"adversarial": adversarial} if self.kept else {})


@dataclasses.dataclass(frozen=True)
class WorstOf(Judged):
    """The worst of several attacks for each image, and of the image itself.

    The candidate with the lowest probability of being right is chosen; among equals, the one with
    the highest loss. The choice uses draws that neither the attacks nor the judgement use: the
    lowest of several noisy estimates is too low on average, so it must not be reported.

    Attributes:
      attacks: attacks of one norm and radius.

    Raises:
      ValueError: for no attack, different norms or radii, an array of radii, or a targeted attack.
    """

    attacks: tuple[Attack, ...]

    def __post_init__(self):
        check_untargeted(*self.attacks)
        if any(np.ndim(attack.eps) for attack in self.attacks):
            raise ValueError("attacks must have one number as eps each, got an array")
        bounds = {(attack.norm, float(attack.eps)) for attack in self.attacks}
        if len(bounds) != 1:
            raise ValueError(
                f"attacks must be of one norm and radius, got {sorted(bounds) or 'none'}"
            )

    @property
    def name(self) -> str:
        first = self.attacks[0]
        return f"attack-worst-{first.norm}-{first.eps:.4g}"

    def passes(self, draws: int) -> int:
        return draws * (2 + len(self.attacks)) + attack_passes(*self.attacks)

    def record(self) -> results.AttackCondition:
        return results.AttackCondition(
            attacks=tuple(map(attack_record, self.attacks)), **averaging(*self.attacks)
        )

    def perturb(self, trial: Trial) -> tuple[jax.Array, dict[str, jax.Array]]:
        # Each attack gets the keys that it would get alone. The image itself comes last, so that an
        # attack wins a tie.
        perturbed = [Attacked(attack).perturb(trial) for attack in self.attacks]
        candidates = [*(images for images, _ in perturbed), trial.images]
        judged = [trial.judge(images, "choice") for images in candidates]
        right = jnp.stack([jnp.sum(each["right"], axis=1, dtype=jnp.int32) for each in judged])
        loss = jnp.stack([each["loss"] for each in judged])
        loss = jnp.where(right == jnp.min(right, axis=0, keepdims=True), loss, -jnp.inf)
        winner = jnp.argmax(loss, axis=0).astype(jnp.int32)
        rows = jnp.arange(len(trial.labels))
        worst = jnp.stack(candidates)[winner, rows]
        distance = norms.size(worst - trial.images, self.attacks[0].norm)
        stored: dict[str, jax.Array] = {}
        for _, arrays in perturbed:
            stored |= arrays  # Each attack finds the same images flat.
        return worst, stored | {"distance": distance, "winner": winner}

    def summary(self, arrays: dict[str, np.ndarray]) -> results.Accuracy:
        won = Counter(arrays["winner"].tolist())
        return judging.accuracy(
            arrays["right"], tuple(won[place] for place in range(len(self.attacks) + 1))
        )


@dataclasses.dataclass(frozen=True)
class Corrupted(Judged):
    """Images with a common corruption.

    Attributes:
      corruption: one of ``corruptions.NAMES``.
      severity: 0 to 5.
      form: form of the images that the network gets: one of ``corruptions.FORMS``, or "published"
        if the examples of the job are the images of a published corrupted set.
      frost_images: the benchmark's photographs, for the corruption "frost" made in memory.

    Raises:
      ValueError: for another name, severity or form, or frost without photographs.
    """

    corruption: Annotated[str, corruptions.NAMES]
    severity: Annotated[int, Range(0, 5)]
    form: Annotated[str, (*corruptions.FORMS, "published")] = "float"
    frost_images: corruptions.FrostImages | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self):
        arguments.fields(self)
        needs_images = self.corruption == "frost" and self.form != "published"
        if needs_images != (self.frost_images is not None):
            raise ValueError(
                f"frost_images must be given for the corruption 'frost' and for no other, got "
                f"{self.corruption!r}; 'frost_procedural' needs none"
            )

    @property
    def name(self) -> str:
        suffix = "" if self.form == "float" else f"-{self.form}"
        return f"corruption-{self.corruption}-{self.severity}{suffix}"

    def record(self) -> results.CorruptionCondition:
        return results.CorruptionCondition(self.corruption, int(self.severity), self.form)

    def perturb(self, trial: Trial) -> tuple[jax.Array, dict[str, jax.Array]]:
        if self.form == "published":
            return trial.images, {}
        return self.corrupt(trial.keys("corruption"), trial.images), {}

    def corrupt(self, keys: jax.Array, images: jax.Array) -> jax.Array:
        """The images with the corruption, made in memory."""
        form, frost = self.form, self.frost_images
        return corruptions.corrupt(
            keys, images, self.corruption, self.severity, form=form, frost_images=frost
        )


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
      ValueError: for a targeted attack.
    """

    attack: MinimalNormAttack
    radii: tuple[float, ...]
    moved: bool = False

    def __post_init__(self):
        check_untargeted(self.attack)

    @property
    def name(self) -> str:
        return f"minimal-{type(self.attack).__name__.lower()}-{self.attack.norm}"

    def passes(self, draws: int) -> int:
        judged = 2 + len(self.radii) * self.moved
        return judged * draws + attack_passes(self.attack)

    def record(self) -> results.MinimalCondition:
        return results.MinimalCondition(
            attack=attack_record(self.attack),
            radii=tuple(map(float, self.radii)),
            moved=self.moved,
            **averaging(self.attack),
        )

    def measure(self, trial: Trial) -> dict[str, jax.Array]:
        closest = self.attack.minimal(
            trial.keys("attack"), trial.classifier(), trial.images, trial.labels
        )
        clean = trial.judge(trial.images)
        arrays = trial.judge(closest.images) | {
            "right clean": clean["right"],
            "loss clean": clean["loss"],
            "distance": closest.distance,
        }
        if self.moved:
            moved = [_at_radius(trial.images, closest, jnp.float32(eps)) for eps in self.radii]
            judged = list(map(trial.judge, moved))
            for name in ("right", "loss"):
                arrays[f"{name} at radii"] = jnp.stack([each[name] for each in judged], axis=1)
        return arrays

    def summary(self, arrays: dict[str, np.ndarray]) -> results.Distances:
        for name in ("loss", "loss clean", *(["loss at radii"] if self.moved else [])):
            loss = arrays[name].reshape(len(arrays[name]), -1).sum(axis=1)
            judging.check_finite(loss, arrays["index"])
        distance = arrays["distance"]
        # The distance is infinite where no adversarial image was found. JSON cannot hold that.
        median = float(np.median(distance))
        ladder = []
        for place, radius in enumerate(map(float, self.radii)):
            near = distance[:, None] <= radius
            if self.moved:
                right = arrays["right at radii"][:, place]
            else:
                right = np.where(near, arrays["right"], arrays["right clean"])
            judged = judging.accuracy(right)
            rung = results.Rung(radius, judged.accuracy, judged.interval, judged.between_draws)
            ladder.append(rung)
        return results.Distances(
            seen=len(distance),
            broken=int(np.isfinite(distance).sum()),
            median_distance=median if np.isfinite(median) else None,
            ladder=tuple(ladder),
        )


@jax.jit
def _at_radius(images: jax.Array, closest: MinimalPerturbation, eps: jax.Array) -> jax.Array:
    """Move images by ``eps`` along the changes that were found. Without a change, they stay."""
    moves = jnp.isfinite(closest.distance) & (closest.distance > 0)
    scale = jnp.where(moves, eps / closest.distance, 0.0)
    return jnp.clip(images + scale[:, None, None, None] * (closest.images - images), 0.0, 1.0)


def check_untargeted(*several: Attack) -> None:
    """Raise a ValueError for a targeted attack, which would take the labels as its targets."""
    for attack in several:
        if attack.targeted:
            raise ValueError(
                f"attack must be untargeted, since the labels are the true classes, got "
                f"{attack!r}; call it by itself and judge its images as clean ones"
            )


def attack_record(attack: Attack) -> results.Attack:
    """The attack for a result file."""
    record = attacks.to_json(attack)
    fields = {key: _named(record[key]) for key in record if key not in ("type", "norm", "eps")}
    return results.Attack(record["type"], attack.norm, float(attack.eps), fields)  # pyright: ignore


def _named(value: Any) -> Any:
    """The JSON form of an attack within an attack as result files have it."""
    if isinstance(value, list):
        return [_named(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {"name" if key == "type" else key: _named(item) for key, item in value.items()}


def attack_passes(*several: Attack) -> int:
    """The rough number of passes through the network that attacks make per image.

    A step with a gradient counts 3. Several trials within a step are not counted.
    """
    total = 0
    for each in [each for attack in several for each in _members(attack)]:
        fields = vars(each)
        runs = 3 * fields["steps"] if "steps" in fields else fields.get("queries", 1)
        total += runs * fields.get("restarts", 1) * fields.get("eot_samples", 1)
    return total


def averaging(*several: Attack) -> dict[str, Any]:
    """The least number of noise draws that any of the attacks averages over, and the estimators."""
    gradients = [each for attack in several for each in _members(attack)]
    return {
        "eot_samples": min(vars(each).get("eot_samples", 1) for each in gradients),
        "estimator": ", ".join(dict.fromkeys(each.estimator for each in gradients)),
    }


def _members(attack: Attack) -> list[Attack]:
    """The attacks that an attack runs, or the attack itself."""
    if isinstance(attack, Transfer | InBatches):
        return _members(attack.attack)
    if isinstance(attack, AutoAttack | Strongest):
        # The draws of its members do not depend on the number of classes.
        return [each for member in attack.members(classes=10) for each in _members(member)]
    return [attack]
