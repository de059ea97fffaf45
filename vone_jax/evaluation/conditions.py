"""Conditions: what is measured of a network, as records that measure themselves.

A kind of measurement is one frozen dataclass with the methods of ``Condition``. It is stored in
results as it is, so nothing else has to know it: ``make`` makes arrays of a batch, ``numbers``
makes numbers of all arrays, and ``row`` says what the numbers are of.
"""

import abc
import dataclasses
import math
import types
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import (
    arguments,
    corruptions,
    dataclass_json,
    diagnostics,
    files,
    fingerprint,
    names,
    results,
)
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
from vone_jax.evaluation.judging import Batch
from vone_jax.evaluation.masking_checks import BLIND
from vone_jax.network import Network
from vone_jax.results import Interval

# The largest change of one value of an image.
_LARGEST = {"linf": lambda values: 1.0, "l2": np.sqrt, "l1": float}
# Messages print the largest radius with six digits. A user who types that value is accepted.
_ROUNDING = 1e-5

# Values of a field that are named one by one, at most.
_LONG = 4

# The JSON form of a function: its name.
FUNCTIONS = {types.FunctionType: lambda function: {"name": function.__qualname__}}

# A number with the columns that belong to it, a part of a row of ``vone_jax.results``.
Number = dict[str, Any]


def number(name: str, value: float | Interval | None, **columns: Any) -> Number:
    """A number of a condition, with its 95 % interval if it has one.

    A value that is not finite is left out, as one that is not defined.

    Args:
      name: its name, such as "accuracy".
      value: the number, or the number with its interval.
      **columns: columns that are its own, such as ``eps`` of a number for one radius of several.
    """
    found = value if isinstance(value, Interval) else Interval(*([math.nan] * 3))
    if not isinstance(value, Interval) and value is not None:
        found = dataclasses.replace(found, value=float(value))
    given = {each: float(part) for each, part in dataclasses.asdict(found).items()}
    return {"number": name, **columns, **{k: v for k, v in given.items() if math.isfinite(v)}}


def settings(condition: Any, *shown: str) -> dict[str, str]:
    """The column ``settings`` of a row, which keeps two settings of a condition apart.

    It has the stored fields that differ from their defaults, and those without a default. Values
    that are long, such as attacks, are told apart by a digest.

    Args:
      condition: the condition.
      *shown: fields that the row has in other columns, or in the rows of its numbers.
    """
    words = []
    for field in dataclass_json.stored_fields(type(condition)):
        value = getattr(condition, field.name)
        if field.name in shown or value == field.default:
            continue
        told = dataclass_json.encode(value, FUNCTIONS)
        parts = told if isinstance(told, list) else [told]
        if len(parts) > _LONG or any(isinstance(part, list | dict) for part in parts):
            parts = [files.json_digest(told)[:8]]
        words.append(f"{field.name.replace('_', ' ')} {' '.join(map(str, parts))}")
    return {"settings": ", ".join(words)} if words else {}


@dataclasses.dataclass(frozen=True)
class Numbers:
    """The numbers of a result, see ``results.Result``.

    Attributes:
      measured: the numbers, each made by ``number``.
      details: what is no number, as JSON values.
      warnings: sentences about the numbers.
    """

    measured: list[Number]
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Number:
        """The first number of a name."""
        return next(each for each in self.measured if each["number"] == name)


class Condition(abc.ABC):
    """One measurement of a network; subclasses are frozen dataclasses.

    Attributes:
      by_example: whether ``make`` returns arrays with a row for each example. Then the examples are
        measured in batches, and a stopped evaluation continues. Otherwise ``make`` is called once.
      judged: whether ``make`` decides about images by the protocol of the evaluation, as
        ``Batch.judge`` does. Otherwise the protocol is no part of the measurement, and ``make``
        sees fresh noise and a single decision.
      examples: the largest number of examples that are used; None for all, 0 for a condition that
        shows images of its own, which its ``row`` names as ``dataset``.
      long: whether an example takes very many passes through the network, so that few are measured
        at a time on CPUs.
      under_attack_noise: whether its attacks see the noise at the attack of an evaluation. Other
        conditions with attacks are refused with another noise at the attack.
      asks_others: whether it uses the other networks of an evaluation.
      reports_faults: whether it reports logits that are not finite as a finding. For other
        conditions they are an error, found in the arrays whose names begin with "loss".
    """

    by_example: ClassVar[bool] = True
    judged: ClassVar[bool] = False
    examples: ClassVar[int | None] = None
    long: ClassVar[bool] = False
    under_attack_noise: ClassVar[bool] = False
    asks_others: ClassVar[bool] = False
    reports_faults: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def row(self) -> dict[str, Any]:
        """What its numbers are of: some columns of ``vone_jax.results.row``, and "condition"."""

    @property
    def label(self) -> str:
        """The condition in words."""
        return results.label(self.row)

    @property
    def attacks(self) -> tuple[Attack, ...]:
        """The attacks that are made, whose radii and losses must fit the network."""
        return ()

    def check(self, network: Network) -> None:
        """Raise a ValueError if the network cannot be measured in this way."""
        if network.num_classes < 2:
            raise ValueError(f"{self.label} needs at least 2 classes, {network.name} has 1")
        for attack in self.attacks:
            largest = _LARGEST[attack.norm](np.prod(network.image_shape))
            if attack.eps > largest * (1 + _ROUNDING):
                raise ValueError(
                    f"eps must be at most {largest:g} in norm {attack.norm}, the largest change of "
                    f"an image of {network.name}, got {attack.eps:.6g}"
                )
            if attack.least_classes > 2 and network.num_classes < attack.least_classes:
                raise ValueError(
                    f"{self.label} needs at least {attack.least_classes} classes for its losses, "
                    f"{network.name} has {network.num_classes}"
                )

    def stimuli(self, network: Network) -> int:
        """The number of stimuli of its own that it shows, for reports on progress."""
        return 0

    def identity(self) -> dict[str, Any]:
        """The condition as JSON values, with checksums of the files and arrays that it uses.

        A function, such as the loss of an attack, has its name there. What it computes is in the
        program of the condition, which an evaluation adds.
        """
        return dataclass_json.encode(self, FUNCTIONS)

    @abc.abstractmethod
    def make(self, batch: Batch) -> dict[str, jax.Array]:
        """Measure a batch."""

    @abc.abstractmethod
    def numbers(self, arrays: Mapping[str, np.ndarray]) -> Numbers:
        """The numbers of a result, from the arrays of all examples."""


class Judged(Condition):
    """A condition whose images are judged; subclasses make the images."""

    judged: ClassVar[bool] = True

    @abc.abstractmethod
    def perturb(self, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The images that are judged, and further arrays to store."""

    def make(self, batch: Batch) -> dict[str, jax.Array]:
        images, stored = self.perturb(batch)
        return batch.judge(images) | stored

    def numbers(self, arrays: Mapping[str, np.ndarray]) -> Numbers:
        return Numbers(accuracy_numbers(arrays))


def _calibration(scores: np.ndarray) -> list[Number]:
    """The numbers of the calibration for each number of averaged draws."""
    found = diagnostics.summarise_scores(scores)
    return [
        number(f"{name}, {draws} draw{'s' * (draws > 1)}", float(value))
        for name, values in (
            ("calibration error", found.calibration_error),
            ("negative log likelihood", found.negative_log_likelihood),
            ("Brier score", found.brier),
            ("entropy from noise", found.noise_entropy),
        )
        for draws, value in zip(found.draws.tolist(), values, strict=True)
    ]


def accuracy_numbers(arrays: Mapping[str, np.ndarray]) -> list[Number]:
    """The numbers of judged images, see ``judging.judge``: the accuracy, and what its draws say.

    "standard error over draws" shows the effect of the network's noise, for fixed images. "right in
    every draw" is the share of images that were; it falls with the number of draws.
    """
    right = arrays["right"]
    measured = [
        number("accuracy", results.accuracy(right)),
        number("right in every draw", float(right.all(axis=1).mean())),
    ]
    draws = right.mean(axis=0, dtype=np.float64)
    if len(draws) > 1:
        error = float(draws.std(ddof=1)) / len(draws) ** 0.5
        measured.append(number("standard error over draws", error))
    if "right in top 5" in arrays:
        measured.append(number("top-5 accuracy", results.accuracy(arrays["right in top 5"])))
    return measured


@dataclasses.dataclass(frozen=True)
class Clean(Judged):
    """The images as they are."""

    row: ClassVar[dict[str, Any]] = {"condition": "clean"}

    def perturb(self, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        return batch.images, {}

    def numbers(self, arrays: Mapping[str, np.ndarray]) -> Numbers:
        return Numbers(accuracy_numbers(arrays) + _calibration(arrays["scores"]))


@dataclasses.dataclass(frozen=True)
class Attacked(Judged):
    """Adversarial images.

    Attributes:
      attack: the attack.
      kept: number of adversarial images that the result keeps, to be shown.
      variant: a word behind the name of the attack, to tell two attacks of one class, radius and
        number of steps apart.

    Raises:
      ValueError: for a negative number of images, a targeted attack, or one with a radius for each
        image.
    """

    long: ClassVar[bool] = True
    under_attack_noise: ClassVar[bool] = True

    attack: Attack
    # How many images are shown does not change what was measured.
    kept: FromZero = dataclasses.field(default=0, metadata={"stored": False})
    variant: str = ""

    def __post_init__(self):
        arguments.fields(self)
        check_attacks(self.attacks)

    @property
    def attacks(self) -> tuple[Attack, ...]:
        return (self.attack,)

    @property
    def row(self) -> dict[str, Any]:
        words = " ".join(filter(None, (attack_words(self.attack), self.variant)))
        return {"condition": "attack", **attack_row(self.attack), "attack": words}

    def perturb(self, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        attacked, keys = batch.attacked, batch.keys("attack")
        # Frozen draws belong to places in the batch, so all members of an ensemble get all images.
        at_once = batch.attacked_frozen
        best = self.attack.choose(keys, attacked, batch.images, batch.labels, at_once=at_once)
        stored = {"distance": norms.size(best.images - batch.images, self.attack.norm)}
        if isinstance(self.attack, Strongest):
            stored["winner"] = best.winner
        # From a random point, the distance does not say whether a gradient led the attack.
        if any(getattr(each, "random_start", type(each) is APGD) for each in _members(self.attack)):
            stored["flat"] = batch.flat(attacked, _draws(self.attack))
        if self.kept:
            stored |= {"adversarial": best.images, "original": batch.images}
        return best.images, stored

    def numbers(self, arrays: Mapping[str, np.ndarray]) -> Numbers:
        warnings = [*_short(self.attack), *_blind(arrays, self.attack)]
        details: dict[str, Any] = {}
        if isinstance(self.attack, Strongest):
            won = Counter(arrays["winner"].tolist())
            # As they stand in the identity: the ``repr`` of a function has its address.
            told = [dataclass_json.encode(each, FUNCTIONS) for each in self.attack.attacks]
            told.append("the image itself")
            details["won"] = [{"attack": a, "images": won[i]} for i, a in enumerate(told)]
        return Numbers(accuracy_numbers(arrays), details, tuple(warnings))


@dataclasses.dataclass(frozen=True)
class Corrupted(Judged):
    """Images with a common corruption.

    Attributes:
      corruption: one of ``corruptions.NAMES``.
      severity: 0 to 5.
      form: form of the images that the network gets: one of ``corruptions.FORMS``, or "published"
        if the images of the evaluation are those of a published corrupted set.
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
    def row(self) -> dict[str, Any]:
        row = {"condition": "corruption", "corruption": self.corruption, "severity": self.severity}
        return row | ({} if self.form == "float" else {"form": self.form})

    def identity(self) -> dict[str, Any]:
        if self.frost_images is None:
            return super().identity()
        photographs = files.array_checksum(self.frost_images.images)
        return super().identity() | {"photographs": f"{photographs:08x}"}

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

    def perturb(self, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        if self.form == "published":
            return batch.images, {}
        return self.corrupt(batch.keys("corruption"), batch.images), {}

    def corrupt(self, keys: jax.Array, images: jax.Array) -> jax.Array:
        """The images with the corruption, made in memory."""
        form, frost = self.form, self.frost_images
        return corruptions.corrupt(
            keys, images, self.corruption, self.severity, form=form, frost_images=frost
        )


def check_attacks(attacks: Sequence[Attack]) -> None:
    """Raise a ValueError for attacks that an evaluation cannot make."""
    for attack in attacks:
        arguments.instance("attack", attack, Attack)
        name = type(attack).__name__
        if attack.targeted:
            raise ValueError(
                f"attack must be untargeted, since labels are true classes, got {name}"
            )
        if np.ndim(attack.eps):
            raise ValueError(
                f"attack must have one number as eps in an evaluation, got {name} with an array of "
                f"shape {np.shape(attack.eps)}; measure each radius as a condition of its own"
            )


def attack_words(attack: Attack) -> str:
    """An attack in words: "PGD", "AutoAttack rand", "strongest of PGD, APGD"."""
    if isinstance(attack, Strongest):
        return f"strongest of {', '.join(dict.fromkeys(map(attack_words, attack.attacks)))}"
    if isinstance(attack, Transfer):
        return f"transferred {attack_words(attack.attack)}"
    if isinstance(attack, InBatches):
        return attack_words(attack.attack)
    if isinstance(attack, AutoAttack) and attack.version != "standard":
        return f"AutoAttack {attack.version}"
    return attack.words or type(attack).__name__


def attack_row(attack: Attack) -> dict[str, Any]:
    """The columns of an attack in a row. A composed attack has no number of steps."""
    row = {"norm": attack.norm, "eps": float(attack.eps), "attack": attack_words(attack)}
    members = _members(attack)
    if len(members) == 1 and "steps" in vars(members[0]):
        row["steps"] = int(vars(members[0])["steps"])
    return row | {"attack_draws": _draws(attack)}


def surrogates(attack: Attack, keys: Any, images: Any) -> list[str]:
    """The fingerprints of the classifiers from which an attack carries images over.

    The keys (N,) and images (N, H, W, C) may be shapes and dtypes.
    """
    found = [each.surrogate for each in _wrapped(attack) if isinstance(each, Transfer)]
    # The leaves of a Partial become constants of the program.
    return [fingerprint.digest(lambda *x, f=f: f(*x), keys, images)[:16] for f in found]


def _wrapped(attack: Attack) -> list[Attack]:
    """An attack and those within it."""
    inner = vars(attack).get("attack"), *vars(attack).get("attacks", ())
    return [attack, *(one for each in inner if each is not None for one in _wrapped(each))]


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


def single_draws(attack: Attack, right: np.ndarray) -> list[str]:
    """A warning if decisions (N, R) differ between draws and the attack averages over none."""
    if _draws(attack) > 1 or not np.any(right != right[:, :1]):
        return []
    return [
        "The network is stochastic, but the attack followed a single noise draw at a time. "
        "The accuracy is an upper bound: average over draws (eot_samples)."
    ]


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
    return blind_warning(share) if share > BLIND else []


def blind_warning(share: float) -> list[str]:
    return [
        f"On {share:.0%} of the images, which the network has right, the attack found no gradient "
        "or no change. The accuracy is an upper bound, see --suite masking."
    ]
