"""Conditions: what is measured of a network, as records that measure themselves.

A kind of measurement is one frozen dataclass with the methods of ``Condition``. It is stored in
results as it is, so nothing else has to know it: ``measure`` makes arrays of a batch, ``summary``
makes numbers of all arrays.
"""

import abc
import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import arguments, corruptions, dataclass_json, diagnostics, names, results
from vone_jax.arguments import FromZero, Range
from vone_jax.attacks import (
    APGD,
    PGD,
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
from vone_jax.evaluation.judging import AttackNoise, Trial, noise_label, noise_slug
from vone_jax.evaluation.masking_checks import BLIND
from vone_jax.network import Network

# The largest change of one value of an image.
_LARGEST = {"linf": lambda values: 1.0, "l2": np.sqrt, "l1": float}
# Messages print the largest radius with six digits. A user who types that value is accepted.
_ROUNDING = 1e-5


@dataclasses.dataclass(frozen=True)
class Summary:
    """The numbers of a result, see ``results.Result``.

    Attributes:
      measured: name of a number -> its entry.
      details: what is no number, as JSON values.
      warnings: sentences about the numbers.
    """

    measured: dict[str, dict[str, Any]]
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Condition(abc.ABC):
    """One measurement of a network; subclasses are frozen dataclasses.

    Attributes:
      by_example: whether ``measure`` returns arrays with a row for each example. Then the examples
        are measured in batches, and a stopped evaluation continues. Otherwise ``measure`` is called
        once.
      limit: the largest number of examples that are used; None for all.
    """

    by_example: ClassVar[bool] = True
    limit: ClassVar[int | None] = None

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The stem of the result files."""

    @property
    def label(self) -> str:
        """The condition in words."""
        return self.name

    @property
    def attacks(self) -> tuple[Attack, ...]:
        """The attacks that are made, whose radii and losses must fit the network."""
        return ()

    def passes(self, draws: int) -> int:
        """The rough number of passes through the network per image, to estimate times.

        ``draws`` is the number of decisions by which an image is judged.
        """
        return draws + attack_passes(*self.attacks)

    def check(self, network: Network) -> None:
        """Raise a ValueError if the network cannot be measured in this way."""
        if network.num_classes < 2:
            raise ValueError(f"{self.name} needs at least 2 classes, {network.name} has 1")
        for attack in self.attacks:
            if attack.targeted:
                raise ValueError(
                    f"{self.name}: attack must be untargeted, since the labels are the true classes"
                )
            largest = _LARGEST[attack.norm](np.prod(network.image_shape))
            if attack.eps > largest * (1 + _ROUNDING):
                raise ValueError(
                    f"eps must be at most {largest:g} in norm {attack.norm}, the largest change of "
                    f"an image of {network.name}, got {attack.eps:.6g}"
                )
            if attack.least_classes > 2 and network.num_classes < attack.least_classes:
                raise ValueError(
                    f"{self.name} needs at least {attack.least_classes} classes for its losses, "
                    f"{network.name} has {network.num_classes}"
                )

    def context(self, network: Network) -> dict[str, Any]:
        """Parts of the identity that are not those of the evaluation, such as "dataset"."""
        return {}

    def identity(self) -> dict[str, Any]:
        """The condition as JSON values, with hashes of the files that it reads."""
        return dataclass_json.encode(self)

    @abc.abstractmethod
    def measure(self, trial: Trial) -> dict[str, jax.Array]:
        """Measure a batch."""

    @abc.abstractmethod
    def summary(self, arrays: Mapping[str, np.ndarray]) -> Summary:
        """The numbers of a result, from the arrays of all examples."""


class Judged(Condition):
    """A condition whose images are judged; subclasses make the images."""

    @abc.abstractmethod
    def perturb(self, trial: Trial) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The images that are judged, and further arrays to store."""

    def measure(self, trial: Trial) -> dict[str, jax.Array]:
        images, stored = self.perturb(trial)
        return trial.judge(images) | stored

    def summary(self, arrays: Mapping[str, np.ndarray]) -> Summary:
        return Summary(accuracy_numbers(arrays["right"]) | _calibration(arrays["scores"]))


def _calibration(scores: np.ndarray) -> dict[str, dict[str, Any]]:
    """The numbers of the calibration for each number of averaged draws."""
    found = diagnostics.summarise_scores(scores)
    return {
        f"{number}, {draws} draw{'s' * (draws > 1)}": {"value": float(value), "draws": draws}
        for number, values in (
            ("calibration error", found.calibration_error),
            ("negative log likelihood", found.negative_log_likelihood),
            ("Brier score", found.brier),
            ("entropy from noise", found.noise_entropy),
        )
        for draws, value in zip(found.draws.tolist(), values, strict=True)
    }


def accuracy_numbers(right: np.ndarray) -> dict[str, dict[str, Any]]:
    """The numbers of decisions (N, R): the accuracy, and what its draws say.

    "standard error over draws" shows the effect of the network's noise, for fixed images. "right in
    every draw" is the share of images that were; it falls with the number of draws.
    """
    measured: dict[str, dict[str, Any]] = {
        "accuracy": dataclasses.asdict(results.accuracy(right)),
        "right in every draw": {"value": float(right.all(axis=1).mean())},
    }
    draws = right.mean(axis=0, dtype=np.float64)
    if len(draws) > 1:
        error = float(draws.std(ddof=1)) / len(draws) ** 0.5
        measured["standard error over draws"] = {"value": error}
    return measured


@dataclasses.dataclass(frozen=True)
class Clean(Judged):
    """The images as they are."""

    name: ClassVar[str] = "clean"
    label: ClassVar[str] = "clean"

    def perturb(self, trial: Trial) -> tuple[jax.Array, dict[str, jax.Array]]:
        return trial.images, {}


@dataclasses.dataclass(frozen=True)
class Attacked(Judged):
    """Adversarial images.

    Attributes:
      attack: the attack.
      attack_noise: the noise of the network while it is attacked, see ``judging.AttackNoise``.
      kept: number of adversarial images that the result keeps, to be shown.
      variant: a word at the end of the name, to tell two attacks of one class and radius apart.

    Raises:
      ValueError: for a negative number of images.
    """

    attack: Attack
    attack_noise: AttackNoise = "same"
    kept: FromZero = 0
    variant: str = ""

    def __post_init__(self):
        arguments.fields(self)

    @property
    def attacks(self) -> tuple[Attack, ...]:
        return (self.attack,)

    @property
    def name(self) -> str:
        kind = type(self.attack).__name__
        kind = "" if kind == "PGD" else f"{kind.lower()}-"
        stem = f"attack-{kind}{self.attack.norm}-{self.attack.eps:.4g}"
        noise = self.attack_noise or "none"
        if isinstance(noise, str):
            stem += {"same": "", "none": "-noise-free", "frozen": "-frozen-attack"}[noise]
        else:
            stem += f"-attacked-{noise_slug(noise)}"
        return f"{stem}-{self.variant}" if self.variant else stem

    @property
    def label(self) -> str:
        noise = self.attack_noise or "none"
        words = {"same": "", "none": "gradients without noise", "frozen": "frozen at the attack"}
        changed = (
            words.get(noise) if isinstance(noise, str) else f"gradients with {noise_label(noise)}"
        )
        kind = type(self.attack).__name__
        return ", ".join(filter(None, (f"{kind} {radius(self.attack)}", changed, self.variant)))

    def perturb(self, trial: Trial) -> tuple[jax.Array, dict[str, jax.Array]]:
        attacked, keys = trial.classifier(self.attack_noise), trial.keys("attack")
        # Frozen draws belong to places in the batch, so all members of an ensemble get all images.
        frozen = trial.frozen(self.attack_noise)
        best = self.attack.choose(keys, attacked, trial.images, trial.labels, at_once=frozen)
        stored = {"distance": norms.size(best.images - trial.images, self.attack.norm)}
        if isinstance(self.attack, Strongest):
            stored["winner"] = best.winner
        # From a random point, the distance does not say whether a gradient led the attack.
        if any(getattr(each, "random_start", type(each) is APGD) for each in _members(self.attack)):
            stored["flat"] = trial.flat(attacked, _draws(self.attack))
        if self.kept:
            stored |= {"adversarial": best.images, "original": trial.images}
        return best.images, stored

    def summary(self, arrays: Mapping[str, np.ndarray]) -> Summary:
        warnings = [*_short(self.attack), *_blind(arrays, self.attack)]
        if self.attack_noise == "same" and _draws(self.attack) == 1 and _noisy(arrays["right"]):
            warnings.append(
                "The network is stochastic, but the attack followed a single noise draw at a time. "
                "The accuracy is an upper bound: average over draws (eot_samples)."
            )
        details: dict[str, Any] = {}
        if isinstance(self.attack, Strongest):
            won = Counter(arrays["winner"].tolist())
            told = [*map(repr, self.attack.attacks), "the image itself"]
            details["won"] = [{"attack": a, "images": won[i]} for i, a in enumerate(told)]
        return Summary(accuracy_numbers(arrays["right"]), details, tuple(warnings))


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
    frost_images: corruptions.FrostImages | None = dataclasses.field(
        default=None, repr=False, metadata={"stored": False}
    )

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

    @property
    def label(self) -> str:
        form = "" if self.form == "float" else f", {self.form}"
        return f"{self.corruption.replace('_', ' ')}, severity {self.severity}{form}"

    def check(self, network: Network) -> None:
        super().check(network)
        if self.form == "published":
            return
        # Images that are too small for a corruption raise an error now, before any work.
        images = jax.ShapeDtypeStruct((1, *network.image_shape), jnp.float32)
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
        try:
            jax.eval_shape(self.corrupt, keys, images)
        except ValueError as error:
            # Without JAX's note about tracing.
            raise ValueError(*error.args) from None

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
    """

    attack: MinimalNormAttack
    radii: tuple[float, ...]
    moved: bool = False

    @property
    def attacks(self) -> tuple[Attack, ...]:
        return (self.attack,)

    @property
    def name(self) -> str:
        return f"minimal-{type(self.attack).__name__.lower()}-{self.attack.norm}"

    @property
    def label(self) -> str:
        return f"smallest changes {names.NORM_LABELS[self.attack.norm]}"

    def passes(self, draws: int) -> int:
        judged = 2 + len(self.radii) * self.moved
        return judged * draws + attack_passes(self.attack)

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

    def summary(self, arrays: Mapping[str, np.ndarray]) -> Summary:
        for name in ("loss", "loss clean", *(["loss at radii"] if self.moved else [])):
            loss = arrays[name].reshape(len(arrays[name]), -1).sum(axis=1)
            judging.check_finite(loss, arrays["index"])
        distance = arrays["distance"]
        # The distance is infinite where no adversarial image was found. JSON cannot hold that.
        median = float(np.median(distance))
        measured: dict[str, dict[str, Any]] = {
            "median distance": {"value": median if np.isfinite(median) else None},
            "share of broken images": {"value": float(np.isfinite(distance).mean())},
        }
        for place, eps in enumerate(map(float, self.radii)):
            near = distance[:, None] <= eps
            if self.moved:
                right = arrays["right at radii"][:, place]
            else:
                right = np.where(near, arrays["right"], arrays["right clean"])
            entry = dataclasses.asdict(results.accuracy(right)) | {"eps": eps}
            measured[f"accuracy at {names.eps_label(self.attack.norm, eps)}"] = entry
        unbroken = float(np.mean(np.isinf(distance)))
        warnings = _blind_warning(unbroken) if unbroken > BLIND else ()
        return Summary(measured, warnings=tuple(warnings))


@jax.jit
def _at_radius(images: jax.Array, closest: MinimalPerturbation, eps: jax.Array) -> jax.Array:
    """Move images by ``eps`` along the changes that were found. Without a change, they stay."""
    moves = jnp.isfinite(closest.distance) & (closest.distance > 0)
    scale = jnp.where(moves, eps / closest.distance, 0.0)
    return jnp.clip(images + scale[:, None, None, None] * (closest.images - images), 0.0, 1.0)


def radius(attack: Attack) -> str:
    """The norm and the radius of an attack in words, such as "L∞ 4/255"."""
    norm = attack.norm
    return f"{names.NORM_LABELS[norm]} {names.eps_label(norm, float(attack.eps))}"


def attack_passes(*several: Attack) -> int:
    """The rough number of passes through the network that attacks make per image.

    A step with a gradient counts 3. Several trials within a step are not counted.
    """
    # What chooses the strongest judges each of its members, and the image itself.
    chosen = [each for each in several if isinstance(each, Strongest)]
    total = sum(each.draws * (len(each.attacks) + 1) for each in chosen)
    for each in [each for attack in several for each in _members(attack)]:
        fields = vars(each)
        runs = 3 * fields["steps"] if "steps" in fields else fields.get("queries", 1)
        total += runs * fields.get("restarts", 1) * fields.get("eot_samples", 1)
    return total


def _draws(attack: Attack) -> int:
    """The least number of noise draws that an attack, or any of its members, averages over."""
    return min(vars(each).get("eot_samples", 1) for each in _members(attack))


def _members(attack: Attack) -> list[Attack]:
    """The attacks that an attack runs, or the attack itself."""
    if isinstance(attack, Transfer | InBatches):
        return _members(attack.attack)
    if isinstance(attack, AutoAttack | Strongest):
        # The draws of its members do not depend on the number of classes.
        return [each for member in attack.members(classes=10) for each in _members(member)]
    return [attack]


def _noisy(right: np.ndarray) -> bool:
    """True if decisions (N, R) about one image differ."""
    return bool(np.any(right != right[:, :1]))


def _short(attack: Attack) -> list[str]:
    """A warning about PGD from the image itself whose steps together are below its radius."""
    if not isinstance(attack, PGD) or attack.random_start or not attack.eps:
        return []
    step = attack.step_size
    if step is None:
        step = names.STEP_RULES[attack.step_rule](attack.eps, attack.steps)
    # Steps of eps / 45 reach all of the radius in 45 steps, whatever their rounding.
    reach = float(f"{attack.steps * step / attack.eps:.6g}")
    if reach >= 1:
        return []
    return [
        f"All steps of the attack together reach {reach:.0%} of its radius. The accuracy is an "
        "upper bound: take more steps, or longer ones."
    ]


def _blind(arrays: Mapping[str, np.ndarray], attack: Attack) -> list[str]:
    """A warning if an attack had nothing to follow on many images that are right in all draws.

    There the margin has no gradient (the array ``flat``), or, if this was not measured, the attack
    did not move the image. For an attack on the cross-entropy, this loss may also be 0. It does not
    hold for attacks that return the image itself where they find no adversarial one.
    """
    members = _members(attack)
    keeps = all(isinstance(each, MinimalNormAttack) for each in members)
    if attack.eps == 0 or keeps:
        return []
    blind = arrays["flat"] if "flat" in arrays else arrays["distance"] == 0
    if all(vars(each).get("loss") == "cross_entropy" for each in members):
        blind = blind | (arrays["loss"] == 0)
    # An attack may stop at an image that is wrong in its own draws, and right in some others.
    share = float(np.mean(blind & arrays["right"].all(axis=1)))
    return _blind_warning(share) if share > BLIND else []


def _blind_warning(share: float) -> list[str]:
    return [
        f"On {share:.0%} of the images, which the network has right, the attack found no gradient "
        "or no change. The accuracy is an upper bound, see --suite masking."
    ]
