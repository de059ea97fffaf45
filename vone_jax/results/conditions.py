"""The conditions of a result: noise, attacks, other changes to the images, and the protocol."""

import dataclasses
import math
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from vone_jax import arguments, names

# An unknown field, a missing one, a number that is not finite, or a value of another type is an
# error.
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

Norm = Literal["linf", "l2", "l1"]
# Attacks that look for the smallest change of an image.
_FOR_MINIMAL_CHANGES = ("CW", "DDN", "DeepFool", "FAB", "FMN")


@dataclass(frozen=True, config=STRICT)
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
        used = {"gaussian": 1, "fano": 2, "neuronal": 3}[self.kind]
        fields = (self.scale, self.level, self.strength)[:used]
        return "-".join([self.kind, *(f"{field:g}" for field in fields)])

    def __str__(self) -> str:
        if self.kind == "gaussian":
            return f"Gaussian {self.scale:g}"
        if self.kind == "fano":
            return f"Fano factor {self.scale:g}"
        strength = "" if self.strength == 1 else f", strength {self.strength:g}"
        return f"neuronal {self.scale:g}, {self.level:g}{strength}"


def noise_label(noise: Noise | None) -> str:
    """The noise in words; ``"none"`` for no noise."""
    return "none" if noise is None else str(noise)


@dataclass(frozen=True, config=STRICT)
class Attack:
    """An attack: the name of its class in ``vone_jax.attacks``, and its fields.

    Attributes:
      eps: radius in pixel units.
      fields: all other fields, as JSON values. An attack within an attack is an object with its
        own name and fields.
    """

    name: str
    norm: Norm
    eps: Annotated[float, Field(ge=0, le=1e38)]
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

    @property
    def reach(self) -> float:
        """The length of all steps of PGD relative to its radius; infinite for other attacks.

        An attack from the image itself whose reach is below 1 cannot use its radius.
        """
        if self.name != "PGD" or self.eps == 0 or self.fields.get("random_start"):
            return math.inf
        try:
            step, steps = self.fields.get("step_size"), self.fields["steps"]
            if step is None:
                step = names.STEP_RULES[self.fields["step_rule"]](self.eps, steps)
            # Steps of eps / 45 reach all of the radius in 45 steps, whatever their rounding.
            return float(f"{steps * step / self.eps:.6g}")
        except (KeyError, TypeError, ZeroDivisionError):
            return math.inf  # A file may have other fields than the attack of this version.

    @property
    def keeps_unbroken(self) -> bool:
        """True if the attack returns the image itself where it finds no adversarial one.

        An attack that consists of others does so if all of them do.
        """
        return _keeps_unbroken({"name": self.name, **self.fields})

    def __str__(self) -> str:
        return _code({"name": self.name, "norm": self.norm, "eps": self.eps, **self.fields})


# The noise of the network while it is attacked. "same": as at evaluation. "none": switched off,
# and on again for the judgement. "frozen": one draw for each image, new draws for the judgement.
AttackNoise = Literal["same", "none", "frozen"] | Noise


# The input of a decision. "single": one noise draw. The others use several: the class with the
# highest mean logit, the highest mean probability, or the most votes of the single draws.
DECISIONS = ("single", "mean_logits", "mean_probability", "vote")


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

    # Users make protocols, so the checks and their messages are the project's own.
    __pydantic_config__ = STRICT

    def __post_init__(self):
        arguments.fields(self)
        if self.decision == "single" and self.averaged != 1:
            raise ValueError(
                f"averaged must be 1 for the decision of a single draw, got {self.averaged}; "
                f"a decision of several is one of {', '.join(DECISIONS[1:])}"
            )
        if self.decision != "single" and self.averaged < 2:
            raise ValueError(
                f"averaged must be >= 2 for the decision {self.decision!r}, got {self.averaged}"
            )
        if self.noise == "frozen" and self.decision != "single":
            raise ValueError(
                f"decision must be 'single' with noise 'frozen', where all draws are the same, got "
                f"{self.decision!r}"
            )
        if self.noise == "frozen" and self.draws != 1:
            raise ValueError(
                f"draws must be 1 with noise 'frozen', where all draws are the same, got "
                f"{self.draws}"
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
        many = "" if self.draws == 1 else "s"
        if self.decision == "single":
            return f"fresh noise, {self.draws} draw{many}"
        decision = self.decision.replace("_", " ")
        return f"{decision} of {self.averaged} draws, {self.draws} decision{many}"


@dataclass(frozen=True, config=STRICT)
class CleanCondition:
    """The images as they are."""

    kind: Literal["clean"] = "clean"


@dataclass(frozen=True, config=STRICT)
class AttackCondition:
    """Adversarial images.

    Attributes:
      attacks: one attack, or several of one norm and radius. For each image the worst attack
        counts, or the image itself if that is worse.
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


@dataclass(frozen=True, config=STRICT)
class CorruptionCondition:
    """Corrupted images.

    Attributes:
      severity: 1 to 5; 0 for no corruption.
      form: form of the images that the network gets: "float", "uint8", "jpeg85", or "published"
        for images that were read from files.
    """

    corruption: str
    severity: Annotated[int, Field(ge=0, le=5)]
    form: str = "float"
    kind: Literal["corruption"] = "corruption"


@dataclass(frozen=True, config=STRICT)
class MinimalCondition:
    """The smallest change that a minimal-norm attack finds for each image.

    Attributes:
      attack: the attack; its radius is not used.
      radii: radii at which the accuracy is reported, in pixel units.
      moved: True if each image was moved along its change to every radius and judged there, as for
        networks with noise. Otherwise the image as found is judged from its distance on, and the
        original image at smaller radii.
    """

    attack: Attack
    radii: tuple[float, ...]
    moved: bool = False
    eot_samples: int = 1
    estimator: str = "mean_loss"
    kind: Literal["minimal"] = "minimal"


@dataclass(frozen=True, config=STRICT)
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


@dataclass(frozen=True, config=STRICT)
class CorruptionMeansCondition:
    """Means over corruption results; ``clean`` is True if the clean accuracy is known."""

    form: str
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    clean: bool
    kind: Literal["corruption_means"] = "corruption_means"


@dataclass(frozen=True, config=STRICT)
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


@dataclass(frozen=True, config=STRICT)
class FrontEndCondition:
    """The Gabor bank of a V1 front end, and its responses to an image."""

    kind: Literal["v1"] = "v1"


@dataclass(frozen=True, config=STRICT)
class TextureImages:
    """Texture images that were shown.

    Attributes:
      proxy: whether they are stand-ins made from photographs.
    """

    proxy: bool
    families: tuple[str, ...]
    samples: int
    sha1: str


@dataclass(frozen=True, config=STRICT)
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


def _keeps_unbroken(attack: dict[str, Any]) -> bool:
    parts = [part for item in attack.values() for part in (item if type(item) is list else [item])]
    inner = [part for part in parts if isinstance(part, dict) and "name" in part]
    return all(map(_keeps_unbroken, inner)) if inner else attack["name"] in _FOR_MINIMAL_CHANGES


def _code(value: Any) -> str:
    """A field of an attack as code; an attack is an object with its name."""
    if not isinstance(value, dict) or "name" not in value:
        return repr(value)
    fields = [f"{name}={_code(item)}" for name, item in value.items() if name != "name"]
    return f"{value['name']}({', '.join(fields)})"
