"""The result format: what a result file holds, as dataclasses.

A result is one JSON file, written by ``vone_jax.evaluation`` and read by reports, sweeps and
users through these classes, and one NPZ file beside it with its arrays, see ``arrays.py``. Pydantic
validates them: it is widely used, reads and writes JSON through the same annotations, and its
errors name the field.

The classes are strict. An unknown field, a missing one, a number that is NaN or infinite, or a
value of another type is an error.
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from vone_jax import arguments, names

FORMAT = 2

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

Norm = Literal["linf", "l2", "l1"]
Share = Annotated[float, Field(ge=0, le=1)]
Interval = tuple[Share, Share]
Verdict = Literal["pass", "warning", "fail"]
VERDICTS: tuple[Verdict, ...] = ("pass", "warning", "fail")

SCORED = "scored"

# Rounding of a share that is a quotient of two numbers in the file.
_SLACK = 1e-6


@dataclass(frozen=True, config=_STRICT)
class Noise:
    """The noise of a V1 front end or behind a stem, see ``vone_jax.v1``.

    Attributes:
      scale: spikes per unit of activation, the standard deviation of Gaussian noise, or the Fano
        factor of noise that has one.
      level: baseline of neuronal noise, in spikes, or the floor of the variance of Fano noise.
      strength: standard deviation of neuronal noise, relative to that of a Poisson process.
    """

    kind: Literal["neuronal", "gaussian", "fano"]
    scale: float
    level: float = 0.0
    strength: float = 1.0

    @property
    def slug(self) -> str:
        """The noise in the name of a file, such as ``"neuronal-0.35-0.07-1"``."""
        if self.kind == "gaussian":
            return f"gaussian-{self.scale:g}"
        if self.kind == "fano":
            return f"fano-{self.scale:g}-{self.level:g}"
        return f"neuronal-{self.scale:g}-{self.level:g}-{self.strength:g}"

    def __str__(self) -> str:
        if self.kind == "gaussian":
            return f"Gaussian {self.scale:g}"
        if self.kind == "fano":
            return f"of Fano factor {self.scale:g}"
        strength = "" if self.strength == 1 else f", strength {self.strength:g}"
        return f"neuronal {self.scale:g}, {self.level:g}{strength}"


def noise_label(noise: Noise | None) -> str:
    """The noise in words; ``"none"`` for no noise."""
    return "none" if noise is None else str(noise)


@dataclass(frozen=True, config=_STRICT)
class Network:
    """The network that was evaluated.

    Attributes:
      name: its architecture, such as ``"vone_resnet18"``.
      label: its name as papers write it.
      stochastic: whether the network as trained draws noise.
      weights: a checksum of all variables.
      checkpoint_step: the training step of its checkpoint; None without one.
      source: where a network is from that train.py has not made; else empty.
      trained_noise: the noise in training; None for no noise, or where it is not known.
      test_noise: the noise at evaluation; equal to ``trained_noise`` unless it was replaced.
      config: the experiment that trained it, as JSON values; empty if there is none.
    """

    name: str
    label: str
    stochastic: bool
    parameters: Annotated[int, Field(ge=0)]
    weights: str
    checkpoint_step: int | None
    trained_noise: Noise | None = None
    test_noise: Noise | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    source: str = ""

    @property
    def noise_replaced(self) -> bool:
        """True if the network was evaluated with other noise than it was trained with."""
        return self.trained_noise != self.test_noise

    @property
    def noise_change(self) -> str:
        """The replacement of the noise in words; empty if it was not replaced."""
        if not self.noise_replaced:
            return ""
        if self.test_noise is None:
            return "noise removed"
        if self.trained_noise is None:
            return f"{self.test_noise} added"
        return f"{self.test_noise} in place of {self.trained_noise}"


@dataclass(frozen=True, config=_STRICT)
class Dataset:
    """The examples of an evaluation: every ``stride``-th of ``total``.

    Attributes:
      name: the data set, as ``data.load`` accepts it.
      stride: distance between two of them in the split.
      total: size of the split; None if it is not known.
      class_names: names of the classes, in the order of the labels; may be empty.
    """

    name: str
    split: str
    examples: Annotated[int, Field(ge=1)]
    stride: int = 1
    total: int | None = None
    class_names: tuple[str, ...] = ()

    def class_name(self, label: int) -> str:
        """The name of a class, or its number if it has no known name."""
        known = 0 <= label < len(self.class_names)
        return self.class_names[label] if known else f"class {label}"


NOISE = ("fresh", "frozen")

# The input of a decision. "single": one noise draw. The others use several: the class with the
# highest mean logit, the highest mean probability, or the most votes of the single draws.
DECISIONS = ("single", "mean_logits", "mean_probability", "vote")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The way a network is judged: how its noise is drawn, and how an example is decided.

    *Fresh noise*: every decision uses new draws. *Frozen noise*: each example has one draw, which
    attack and judgement share; it makes a stochastic network the deterministic one that a noise
    sample gives. *Averaged decision*: every decision uses ``averaged`` new draws.

    The probability of being right is the share of the ``draws`` decisions that are right. Whether
    an example is wrong in any decision is no accuracy, since it only grows with their number.

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

    noise: str = "fresh"
    draws: int = 10
    decision: str = "single"
    averaged: int = 1

    # Users make protocols, so the checks and their messages are the project's own.
    __pydantic_config__ = _STRICT

    def __post_init__(self):
        arguments.choice("noise", self.noise, (*NOISE, "none"))
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
    def slug(self) -> str:
        """The protocol in the name of a file; empty for single decisions on fresh noise."""
        noise = "frozen" if self.noise == "frozen" else ""
        decision = "" if self.decision == "single" else f"{self.decision}-{self.averaged}"
        return "-".join(filter(None, (noise, decision)))

    def __str__(self) -> str:
        if self.noise == "none":
            return "no noise"
        if self.noise == "frozen":
            return "frozen noise"
        if self.decision == "single":
            return f"fresh noise, {_count(self.draws, 'draw')}"
        decision = self.decision.replace("_", " ")
        return f"{decision} of {self.averaged} draws, {_count(self.draws, 'decision')}"


@dataclass(frozen=True, config=_STRICT)
class Attack:
    """An attack: the name of its class in ``vone_jax.attacks``, and its fields.

    Attributes:
      eps: radius in pixel units.
      fields: all other fields, as JSON values. An attack within an attack is an object with its
        own name and fields.
    """

    name: str
    norm: Norm
    eps: Annotated[float, Field(ge=0)]
    fields: dict[str, Any]

    @property
    def eps_label(self) -> str:
        """The radius as papers write it."""
        return names.eps_label(self.norm, self.eps)

    @property
    def label(self) -> str:
        """The norm and the radius, such as "L∞ 4/255"."""
        return f"{names.NORM_LABELS[self.norm]} {self.eps_label}"

    @property
    def radius(self) -> float:
        """The radius, rounded so that 4/255 computed in two ways is one radius."""
        return float(f"{self.eps:.6g}")

    def __str__(self) -> str:
        return _code({"name": self.name, "norm": self.norm, "eps": self.eps, **self.fields})


# The noise of the network while it is attacked. "same": as at evaluation. "none": switched off,
# and on again for the judgement. "frozen": one draw for each image, new draws for the judgement.
AttackNoise = Literal["same", "none", "frozen"] | Noise


@dataclass(frozen=True, config=_STRICT)
class CleanCondition:
    """The images as they are."""

    kind: Literal["clean"] = "clean"


@dataclass(frozen=True, config=_STRICT)
class AttackCondition:
    """Adversarial images.

    Attributes:
      attacks: one attack, or several of one norm and radius, of which the worst counts for each
        image, and the image itself if it is worse than all.
      eot_samples: least number of noise draws that a gradient averages over.
      estimator: what is averaged, see ``attacks.PGD``.
    """

    attacks: Annotated[tuple[Attack, ...], Field(min_length=1)]
    attack_noise: AttackNoise = "same"
    eot_samples: Annotated[int, Field(ge=1)] = 1
    estimator: str = "mean_loss"
    kind: Literal["attack"] = "attack"

    @property
    def attack(self) -> Attack:
        """The first attack, which has the norm and the radius of all."""
        return self.attacks[0]

    @property
    def attack_name(self) -> str:
        """The name of the attack, or ``"Worst of PGD, APGD"`` for several."""
        used = dict.fromkeys(attack.name for attack in self.attacks)
        return self.attack.name if len(self.attacks) == 1 else f"Worst of {', '.join(used)}"

    def __str__(self) -> str:
        return "; ".join(map(str, self.attacks))


@dataclass(frozen=True, config=_STRICT)
class CorruptionCondition:
    """Corrupted images.

    Attributes:
      severity: 1 to 5; 0 for no corruption.
      form: in which form the network gets the images: "float", "uint8", "jpeg85", or "published"
        for images that were read from files.
    """

    corruption: str
    severity: Annotated[int, Field(ge=0, le=5)]
    form: str = "float"
    kind: Literal["corruption"] = "corruption"


@dataclass(frozen=True, config=_STRICT)
class MinimalCondition:
    """The smallest change that a minimal-norm attack finds for each image.

    Attributes:
      attack: the attack; its radius is not used.
      radii: radii at which the accuracy is reported, in pixel units.
    """

    attack: Attack
    radii: tuple[float, ...]
    eot_samples: int = 1
    estimator: str = "mean_loss"
    kind: Literal["minimal"] = "minimal"


@dataclass(frozen=True, config=_STRICT)
class MaskingCondition:
    """Checks for masked gradients.

    Attributes:
      attack: the attack under test.
      attacks: all attacks by the names that the checks use.
      transfer: the network whose adversarial images are carried over; empty if there is none.
    """

    attack: Attack
    attacks: dict[str, Attack]
    transfer: str = ""
    eot_samples: int = 1
    estimator: str = "mean_loss"
    kind: Literal["masking"] = "masking"


@dataclass(frozen=True, config=_STRICT)
class CorruptionMeansCondition:
    """Means over corruption results; ``clean`` is True if the clean accuracy is known."""

    form: str
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    clean: bool
    kind: Literal["corruption_means"] = "corruption_means"


@dataclass(frozen=True, config=_STRICT)
class GalleryCondition:
    """Adversarial images to look at.

    Attributes:
      selection: "spread" over the classes, or the "first" images.
    """

    attack: Attack
    images: int
    attack_noise: AttackNoise = "same"
    selection: Literal["spread", "first"] = "spread"
    kind: Literal["gallery"] = "gallery"


@dataclass(frozen=True, config=_STRICT)
class FrontEndCondition:
    """The Gabor bank of a V1 front end, and its responses to an image."""

    kind: Literal["v1"] = "v1"


@dataclass(frozen=True, config=_STRICT)
class TextureImages:
    """Texture images that were shown.

    Attributes:
      proxy: whether they are stand-ins made from photographs.
    """

    proxy: bool
    families: tuple[str, ...]
    samples: int
    sha1: str


@dataclass(frozen=True, config=_STRICT)
class PhysiologyCondition:
    """A layer that is recorded as if it were V1.

    Attributes:
      trials: presentations of each grating.
      bootstraps: populations drawn for each similarity.
      references: file name -> SHA-1 of tables of neurons that were given.
      textures: texture images that were shown, if any.
    """

    layer: str
    visual_degrees: float
    image_size: int
    trials: int
    noise: Literal["on", "off"]
    bootstraps: int
    references: dict[str, str] = Field(default_factory=dict)
    textures: TextureImages | None = None
    kind: Literal["physiology"] = "physiology"


Condition = Annotated[
    CleanCondition
    | AttackCondition
    | CorruptionCondition
    | MinimalCondition
    | MaskingCondition
    | CorruptionMeansCondition
    | GalleryCondition
    | FrontEndCondition
    | PhysiologyCondition,
    Field(discriminator="kind"),
]


@dataclass(frozen=True, config=_STRICT)
class BetweenDraws:
    """The accuracy over all examples of each of the R decisions, and its spread.

    The spread tells the noise of the network apart from what another sample of images would change.

    Attributes:
      accuracy: of each decision, R numbers.
      standard_deviation: over the decisions; None for one decision.
      standard_error: of the mean over the decisions; None for one decision.
    """

    accuracy: tuple[Share, ...]
    standard_deviation: float | None = None
    standard_error: float | None = None


@dataclass(frozen=True, config=_STRICT)
class Accuracy:
    """An accuracy over images.

    Attributes:
      accuracy: ``correct / seen``.
      correct: sum over the images of the share of decisions that were right.
      between_draws: the accuracy of each decision; None in old files.
      right_in_every_draw: share of the images that were right in all decisions. It falls with the
        number of decisions and is no accuracy.
      won: of several attacks, how many images each one won, and last the image itself.
    """

    accuracy: Share
    interval: Interval
    correct: Annotated[float, Field(ge=0)]
    seen: Annotated[int, Field(ge=1)]
    between_draws: BetweenDraws | None = None
    right_in_every_draw: Share | None = None
    won: tuple[int, ...] | None = None
    interval_method: str = "Wilson 95 % over images"
    kind: Literal["accuracy"] = "accuracy"

    def __post_init__(self):
        share = self.correct / self.seen
        if abs(share - self.accuracy) > _SLACK:
            raise ValueError(f"accuracy is {self.accuracy}, but correct / seen is {share}")
        _check_interval(self.accuracy, self.interval)


@dataclass(frozen=True, config=_STRICT)
class Rung:
    """The accuracy at one radius of a ladder."""

    eps: Annotated[float, Field(ge=0)]
    accuracy: Share
    interval: Interval
    between_draws: BetweenDraws | None = None

    def __post_init__(self):
        _check_interval(self.accuracy, self.interval)


@dataclass(frozen=True, config=_STRICT)
class Distances:
    """The smallest adversarial changes.

    Attributes:
      broken: images for which an adversarial image was found at any distance.
      median_distance: in pixel units; None if more than half of the images have none.
    """

    seen: Annotated[int, Field(ge=1)]
    broken: Annotated[int, Field(ge=0)]
    median_distance: Annotated[float, Field(ge=0)] | None
    ladder: tuple[Rung, ...]
    interval_method: str = "Wilson 95 % over images"
    kind: Literal["distances"] = "distances"


@dataclass(frozen=True, config=_STRICT)
class Check:
    """One check for masked gradients.

    Attributes:
      numbers: the numbers behind the verdict; None for one that is not finite.
    """

    name: str
    question: str
    verdict: Verdict
    numbers: Mapping[str, bool | int | float | None]
    meaning: str


@dataclass(frozen=True, config=_STRICT)
class Checks:
    """The checks for masked gradients of one network at one radius."""

    checks: Annotated[tuple[Check, ...], Field(min_length=1)]
    seen: Annotated[int, Field(ge=1)]
    kind: Literal["checks"] = "checks"

    def count(self, verdict: Verdict) -> int:
        """The number of checks that have a verdict."""
        return sum(check.verdict == verdict for check in self.checks)


@dataclass(frozen=True, config=_STRICT)
class CorruptionMeans:
    """Mean accuracies over corruptions.

    Attributes:
      mce: mean corruption error in percent; None where it is not defined.
      relative_mce: relative mean corruption error in percent; None where it is not defined.
    """

    of_corruptions: Share
    of_categories: Share
    categories: dict[str, Share]
    mce: float | None
    relative_mce: float | None
    note: str
    kind: Literal["means"] = "means"


@dataclass(frozen=True, config=_STRICT)
class PropertyScore:
    """One property of a layer beside neurons, see ``neurophysiology.PropertyScore``."""

    name: str
    status: Literal["scored", "needs data", "needs stimuli"]
    similarity: float | None
    similarity_std: float | None
    ceiling: float | None
    score: Annotated[float, Field(ge=0)] | None
    units: int | None
    undefined: int | None
    median: float | None
    distribution: tuple[Share, ...] | None
    neurons: int | None
    reference_undefined: int | None
    reference_distribution: tuple[Share, ...] | None
    source: str | None
    benchmark: str
    label: str
    unit: str
    group: str
    edges: tuple[float, ...]

    def __post_init__(self):
        if self.status != SCORED:
            return
        needed = ("score", "units", "neurons", "source", "distribution", "reference_distribution")
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{self.name} is scored, but has no {', '.join(missing)}")
        bins = len(self.edges) - 1
        for name in ("distribution", "reference_distribution"):
            shares = getattr(self, name)
            if len(shares) != bins or sum(shares) > 1 + _SLACK:
                raise ValueError(f"{name} of {self.name} must be shares of the {bins} bins")


@dataclass(frozen=True, config=_STRICT)
class ContrastResponse:
    """Medians over units of the fit of contrast responses; None if no unit has a value."""

    median_c50: float | None
    median_exponent: float | None


@dataclass(frozen=True, config=_STRICT)
class Variability:
    """Trial-to-trial variability of some units.

    Attributes:
      trials: presentations of each grating.
      median_fano_factor: of responses; None if no unit has a value.
      median_fano_factor_spikes: of spike counts, where responses have them.
      least_mean_spikes: least mean spike count of a response that is used.
      units_above: units with such a response.
    """

    trials: Annotated[int, Field(ge=2)]
    gratings: Annotated[int, Field(ge=1)]
    units: Annotated[int, Field(ge=1)]
    median_fano_factor: float | None = None
    median_fano_factor_spikes: float | None = None
    least_mean_spikes: float | None = None
    units_above: int | None = None

    @property
    def has_spikes(self) -> bool:
        """True if the responses have spike counts."""
        return self.least_mean_spikes is not None


@dataclass(frozen=True, config=_STRICT)
class TextureMedians:
    """The median of each texture property over units.

    Attributes:
      proxy: whether they are stand-ins made from photographs.
      units: units that count.
      medians: property -> median; None if no unit has a value.
    """

    source: str
    proxy: bool
    families: tuple[str, ...]
    samples: int
    units: int
    medians: dict[str, float | None]


@dataclass(frozen=True, config=_STRICT)
class LayerScores:
    """The scores of a layer, see ``neurophysiology.Scores``.

    Attributes:
      slope: of the map from activations to spikes per second.
      mean_score: mean over the 7 properties that can always be scored.
      groups: mean of each group of properties; None where a member has no score.
      simple_channels: how many of the layer's first channels are simple cells; None if the layer
        has no simple and complex cells.
      contrast_response: medians over units; None in old files.
      variability: None for a layer without noise.
      textures: None if no textures were shown.
    """

    visual_degrees: Annotated[float, Field(ge=0)]
    image_size: Annotated[int, Field(ge=1)]
    trials: Annotated[int, Field(ge=1)]
    units: Annotated[int, Field(ge=1)]
    slope: float
    offset: float
    mean_score: float
    groups: dict[str, float | None]
    properties: dict[str, PropertyScore]
    simple_channels: int | None = None
    contrast_response: ContrastResponse | None = None
    variability: Variability | None = None
    textures: TextureMedians | None = None


@dataclass(frozen=True, config=_STRICT)
class Physiology:
    """A recorded layer.

    Attributes:
      status: "scored", or "not scored: ..." with the reason.
      scores: None unless the layer was scored.
    """

    status: str
    scores: LayerScores | None = None
    kind: Literal["physiology"] = "physiology"

    def __post_init__(self):
        if (self.status == SCORED) != (self.scores is not None):
            raise ValueError(f"status is {self.status!r}, scores are {type(self.scores).__name__}")


Measured = Annotated[
    Accuracy | Distances | Checks | CorruptionMeans | Physiology, Field(discriminator="kind")
]

# Kind of condition -> the class of what was measured. Galleries and front ends have arrays alone.
MEASURED = {
    "clean": Accuracy,
    "attack": Accuracy,
    "corruption": Accuracy,
    "minimal": Distances,
    "masking": Checks,
    "corruption_means": CorruptionMeans,
    "physiology": Physiology,
    "gallery": type(None),
    "v1": type(None),
}


@dataclass(frozen=True, config=_STRICT)
class Key:
    """The root of all random numbers of a result, and the names of the streams below it."""

    seed: int
    stream: str


@dataclass(frozen=True, config=_STRICT)
class Provenance:
    """The program and the machine that made a result.

    Attributes:
      matmul_precision: JAX's default precision of matrix products.
      started: time in ISO format.
      wall_seconds: time that the evaluation took.
    """

    versions: dict[str, str] = Field(default_factory=dict)
    command: str = ""
    device: str = ""
    matmul_precision: str = ""
    started: str = ""
    wall_seconds: float | None = None


@dataclass(frozen=True, config=_STRICT, eq=False)
class Identity:
    """The subject of a measurement. Work is continued or used again only if all of it agrees.

    Attributes:
      name: the stem of the files, unique among the results of a network.
      condition: what is done to the images; its ``kind`` is the kind of the result.
    """

    name: str
    network: Network
    dataset: Dataset
    condition: Condition
    protocol: Protocol
    key: Key


@dataclass(frozen=True, config=_STRICT, eq=False)
class Result(Identity):
    """One evaluated condition of one network, with the fields of ``Identity``.

    Attributes:
      measured: the numbers; None for results that are only looked at.
      arrays: the arrays of the NPZ file, by name; not part of the JSON file.
      path: the JSON file it was read from, as text; not part of it.
    """

    run: str
    provenance: Provenance
    measured: Measured | None = None
    format: Literal[2] = FORMAT
    arrays: dict[str, Any] = Field(default_factory=dict, exclude=True, repr=False)
    path: str = Field(default="", exclude=True)

    def __post_init__(self):
        expected = MEASURED[self.condition.kind]
        if not isinstance(self.measured, expected):
            raise ValueError(
                f"measured must be {expected.__name__} for the kind {self.condition.kind!r}, got "
                f"{type(self.measured).__name__}"
            )

    @property
    def kind(self) -> str:
        """The kind of the condition."""
        return self.condition.kind

    @property
    def accuracy(self) -> float:
        """The accuracy of a clean, attack or corruption result; NaN for other kinds."""
        return self.measured.accuracy if isinstance(self.measured, Accuracy) else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy; NaN for other kinds."""
        measured = self.measured
        return measured.interval if isinstance(measured, Accuracy) else (math.nan, math.nan)

    @property
    def images(self) -> int:
        """The number of images behind the result."""
        index = self.arrays.get("index")
        return self.dataset.examples if index is None else len(index)

    @property
    def published(self) -> bool:
        """True if the images are corrupted ones from files, a data set of their own."""
        condition = self.condition
        return isinstance(condition, CorruptionCondition) and condition.form == "published"

    @property
    def attack(self) -> Attack:
        """The attack of a result of any kind that has one."""
        condition: Any = self.condition
        return condition.attack

    @property
    def scores(self) -> LayerScores | None:
        """The scores of a layer; None for other results, and if it could not be scored."""
        return self.measured.scores if isinstance(self.measured, Physiology) else None

    @property
    def attack_noise(self) -> AttackNoise:
        """The noise of the network while it was attacked; "same" where there is no attack."""
        return getattr(self.condition, "attack_noise", "same")

    @property
    def protocol_label(self) -> str:
        """The protocol and a replacement of the noise in words."""
        change = self.network.noise_change
        if self.protocol.noise == "none":
            return change or str(self.protocol)
        return ", ".join(filter(None, (change, str(self.protocol))))

    @property
    def attack_noise_label(self) -> str:
        """The noise at the attack in words, where it differs from that at evaluation."""
        noise = self.attack_noise
        if isinstance(noise, Noise):
            return f"gradients with {noise}"
        labels = {"same": "", "none": "gradients without noise", "frozen": "frozen at the attack"}
        return labels[noise]

    @property
    def identity_hash(self) -> str:
        """A hash of what was measured."""
        canonical = json.dumps(_identity(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


T = TypeVar("T")


@functools.cache
def _adapter(kind: type[T]) -> pydantic.TypeAdapter[T]:
    return pydantic.TypeAdapter(kind)


def to_json(value: Identity) -> dict[str, Any]:
    """A result without its arrays, or an identity, as JSON values."""
    return _adapter(type(value)).dump_python(value, mode="json")


def from_json(values: dict[str, Any], kind: type[T] = Result) -> T:
    """The result of JSON values, or an object of another class of this module.

    Raises:
      pydantic.ValidationError: for a field that is unknown, missing or out of range.
    """
    return _adapter(kind).validate_json(json.dumps(values))


def _identity(value: Identity) -> dict[str, Any]:
    values = to_json(value)
    return {field.name: values[field.name] for field in dataclasses.fields(Identity)}


def differences(ours: Identity, theirs: Identity) -> list[str]:
    """The fields in which two identities differ, as ``"FIELD is OURS, was THEIRS"``."""
    return json_differences(_identity(ours), _identity(theirs))


def json_differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The leaves in which two JSON objects differ, see ``differences``.

    A field of the experiment that theirs lacks is no difference: the version that wrote it did not
    have the field, whose default changes nothing.
    """
    here, there = _flatten(ours), _flatten(theirs)
    new = {name for name in here if name.startswith("network.config.") and name not in there}
    return [
        f"{name} is {here.get(name, 'absent')}, was {there.get(name, 'absent')}"
        for name in sorted((here | there).keys() - new)
        if here.get(name) != there.get(name)
    ]


def _flatten(value: Any, path: str = "") -> dict[str, str]:
    """The leaves of a tree of JSON values as text, by their path."""
    if not isinstance(value, dict):
        return {path: json.dumps(value)}
    flat: dict[str, str] = {}
    for name, item in value.items():
        flat |= _flatten(item, f"{path}.{name}" if path else name)
    return flat


def _check_interval(accuracy: float, interval: Interval) -> None:
    low, high = interval
    if not low - _SLACK <= accuracy <= high + _SLACK:
        raise ValueError(f"interval must contain the accuracy {accuracy}, got [{low}, {high}]")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _code(value: Any) -> str:
    """A field of an attack as code; an attack is an object with its name."""
    if not isinstance(value, dict) or "name" not in value:
        return repr(value)
    fields = [f"{name}={_code(item)}" for name, item in value.items() if name != "name"]
    return f"{value['name']}({', '.join(fields)})"
