"""The result format: what a result file holds, as dataclasses.

A result is one JSON file, written by ``vone_jax.evaluation`` and read by reports, sweeps and
users through these classes, and one NPZ file beside it with its arrays, see ``files.py``. Pydantic
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
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import pydantic
from pydantic import Field
from pydantic.dataclasses import dataclass

from vone_jax.names import WITHOUT_EFFECT
from vone_jax.results.conditions import (
    STRICT,
    Attack,
    AttackCondition,
    AttackNoise,
    Condition,
    CorruptionCondition,
    Noise,
    Protocol,
    noise_label,
)
from vone_jax.results.measured import (
    Accuracy,
    Checks,
    CorruptionMeans,
    Distances,
    LayerScores,
    Measured,
    Physiology,
)

FORMAT = 2


@dataclass(frozen=True, config=STRICT)
class Network:
    """The network that was evaluated.

    Attributes:
      name: its architecture, such as ``"vone_resnet18"``.
      label: its name as papers write it.
      stochastic: whether the network as trained draws noise.
      weights: a checksum of all variables.
      checkpoint_step: the training step of its checkpoint; None without one.
      source: the origin of a network that train.py has not made; else empty.
      trained_noise: the noise in training; None for no noise, or where it is not known.
      test_noise: the noise at evaluation; equal to ``trained_noise`` unless it was replaced.
      config: the experiment that trained it, as JSON values; empty if there is none.
      image_size: the side of its images in pixels; None in results of earlier versions.
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
    image_size: Annotated[int, Field(ge=1)] | None = None

    @property
    def noise_replaced(self) -> bool:
        """True if the network was evaluated with other noise than it was trained with."""
        return self.trained_noise != self.test_noise

    @property
    def trained_label(self) -> str:
        """The noise in training in words; only "noise" where it is not known."""
        unknown = self.stochastic and self.trained_noise is None
        return "noise" if unknown else noise_label(self.trained_noise)

    @property
    def test_label(self) -> str:
        """The noise at evaluation in words."""
        return noise_label(self.test_noise) if self.noise_replaced else self.trained_label

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


@dataclass(frozen=True, config=STRICT)
class Dataset:
    """The examples of an evaluation: every ``stride``-th of ``total``.

    Attributes:
      name: the data set, as ``data.load`` accepts it.
      stride: mean distance of neighbours in the split.
      total: size of the split; None if it is not known.
      class_names: names of the classes, in the order of the labels; may be empty.
      checksum: a checksum of the names and sizes of the image files in a folder, or of images and
        labels in arrays; the set with its version for TFDS; None for other sets.
    """

    name: str
    split: str
    examples: Annotated[int, Field(ge=1)]
    stride: int | float = 1
    total: int | None = None
    class_names: tuple[str, ...] = ()
    checksum: str | None = None

    @property
    def part(self) -> tuple[str, str]:
        """The data set and its split."""
        return self.name, self.split

    def changed(self, other: "Dataset") -> bool:
        """Return True if the files of this set are known to have changed between two results."""
        if self.part != other.part:
            return False
        compared = [(self.total, other.total)]
        # The checksum covers only the images that were chosen.
        if (self.examples, self.stride) == (other.examples, other.stride):
            compared += [(self.checksum, other.checksum)]
        return any(None not in pair and pair[0] != pair[1] for pair in compared)

    def class_name(self, label: int) -> str:
        """The name of a class, or its number if it has no known name."""
        known = 0 <= label < len(self.class_names)
        return self.class_names[label] if known else f"class {label}"


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


@dataclass(frozen=True, config=STRICT)
class Key:
    """The root of all random numbers of a result, and the names of the streams below it."""

    seed: int
    stream: str


@dataclass(frozen=True, config=STRICT)
class Provenance:
    """The program and the machine that made a result.

    Attributes:
      started: time in ISO format.
      wall_seconds: time that the evaluation took.
    """

    versions: dict[str, str] = Field(default_factory=dict)
    command: str = ""
    device: str = ""
    started: str = ""
    wall_seconds: float | None = None


@dataclass(frozen=True, config=STRICT, eq=False)
class Identity:
    """The subject of a measurement. Work is continued or reused only if all fields agree.

    Attributes:
      name: the stem of the files, unique among the results of a network.
      condition: what is done to the images; its ``kind`` is the kind of the result.
      matmul_precision: the precision of matrix products and convolutions, "default", "high" or
        "highest". On a CPU it is always "highest". Empty if it is not known.
    """

    name: str
    network: Network
    dataset: Dataset
    condition: Condition
    protocol: Protocol
    key: Key
    matmul_precision: str


@dataclass(frozen=True, config=STRICT, eq=False)
class Result(Identity):
    """One evaluated condition of one network, with the fields of ``Identity``.

    Attributes:
      measured: the numbers; None for galleries and front ends, which have arrays alone.
      arrays: the arrays of the NPZ file, by name; not part of the JSON file.
    """

    run: str
    provenance: Provenance
    measured: Measured | None = None
    format: Literal[2] = FORMAT
    arrays: dict[str, Any] = Field(default_factory=dict, exclude=True, repr=False)

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

    def same_images(self, other: "Result") -> bool:
        """Return True unless an index is known to mean other images in the two results.

        All published sets of one data set have the same order. Sets with other numbers of images or
        classes belong to another data set. Their names do not tell: these contain the corruption.
        """
        one, two = self.dataset, other.dataset
        if self.published or other.published:
            # Where classes have no names, their number is not known.
            classes = {len(each.class_names) for each in (one, two)} - {0}
            sizes = {one.total, two.total} - {None}
            return self.published == other.published and max(len(classes), len(sizes)) <= 1
        return one.part == two.part and not one.changed(two)

    @property
    def published(self) -> bool:
        """True if the images are corrupted ones from files, a data set of their own."""
        return self.form == "published"

    @property
    def attack(self) -> Attack:
        """The attack of a result of any kind that has one."""
        condition: Any = self.condition
        return condition.attack

    @property
    def blind(self) -> float:
        """The share of images that are right in all draws, where an attack had nothing to follow.

        There the margin has no gradient (the array ``flat``), or, if this was not measured, the
        attack did not move the image. For an attack on the cross-entropy, this loss may also be 0.
        For a search for the smallest change, it is the share of images for which none was found.
        It is 0 for a radius of 0, and for the attacks that return the image itself where they find
        no adversarial one.
        """
        if "distance" not in self.arrays:
            return 0.0
        if self.kind == "minimal":
            return float(np.mean(np.isinf(self.arrays["distance"])))
        if self.kind != "attack" or self.attack.eps == 0 or self.attack.keeps_unbroken:
            return 0.0
        condition: Any = self.condition
        blind = self.arrays.get("flat", self.arrays["distance"] == 0)
        if all(each.fields.get("loss") == "cross_entropy" for each in condition.attacks):
            blind = blind | (self.arrays.get("loss", np.inf) == 0)
        # An attack may stop at an image that is wrong in its own draws, and right in some others.
        return float(np.mean(blind & (self.arrays["probability_correct"] == 1)))

    @property
    def scores(self) -> LayerScores | None:
        """The scores of a layer; None for other results, and if it could not be scored."""
        return self.measured.scores if isinstance(self.measured, Physiology) else None

    @property
    def attack_noise(self) -> AttackNoise:
        """The noise of the network while it was attacked; "same" where there is no attack."""
        return getattr(self.condition, "attack_noise", "same")

    @property
    def form(self) -> str:
        """The form of corrupted images; empty for other conditions."""
        return getattr(self.condition, "form", "")

    @property
    def condition_label(self) -> tuple[str, str]:
        """The condition of an accuracy and its strength in words; the strength may be empty."""
        condition = self.condition
        if isinstance(condition, AttackCondition):
            attack = f"{condition.attack_name} {condition.attack.norm}"
            noise = self.attack_noise_label
            return f"{attack}, {noise}" if noise else attack, condition.attack.eps_label
        if isinstance(condition, CorruptionCondition):
            form = "" if condition.form == "float" else f", {condition.form}"
            name = condition.corruption.replace("_", " ")
            return f"{name}{form}", f"severity {condition.severity}"
        return condition.kind, ""

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
        values = _identity(self)
        # Files of earlier versions lack it; it follows from the weights and the config.
        del values["network"]["image_size"]
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
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


def _identity(value: Identity | Mapping[str, Any]) -> dict[str, Any]:
    values = to_json(value) if isinstance(value, Identity) else value
    fields = [field.name for field in dataclasses.fields(Identity)]
    return {name: values[name] for name in fields if name in values}


def differences(ours: Identity, theirs: Identity | Mapping[str, Any]) -> list[str]:
    """The fields in which two identities differ, as ``"FIELD is OURS, was THEIRS"``.

    ``theirs`` may be JSON values. These are ignored:

    - fields of an experiment, or of the experiment of an ensemble's member, that ``theirs`` lacks:
      an earlier version wrote ``theirs``, and the default of a new field changes nothing;
    - fields that affect only the speed and safety of a training, such as ``data.workers``;
    - the number of parameters, which follows from the weights;
    - the precision of products, the checksum of the images' files and the size of images, if
      ``theirs`` lacks them.
    """
    here, there = (_flatten(_identity(each)) for each in (ours, theirs))
    new = {name for name in here if name.startswith("network.config.") and name not in there}
    new.add("network.parameters")
    later = {"matmul_precision": '""', "dataset.checksum": "null", "network.image_size": "null"}
    if here.get("condition.moved") == "false" and "condition.moved" not in there:
        # Files of earlier versions lack it; their images were not moved.
        new.add("condition.moved")
    new |= {name for name, absent in later.items() if there.get(name, absent) == absent}
    new |= {name for name in here | there if _OF_EXPERIMENT.sub("", name) in WITHOUT_EFFECT}
    pairs = {name: (here.get(name, "absent"), there.get(name, "absent")) for name in here | there}
    return [
        f"{name} is {_cut(one, other)}, was {_cut(other, one)}"
        for name, (one, other) in sorted(pairs.items())
        if name not in new and one != other
    ]


def _cut(text: str, other: str) -> str:
    """The part of a long value, such as the names of a thousand classes, where another differs."""
    if len(text) <= 80:
        return text
    start = max(0, len(os.path.commonprefix([text, other])) - 20)
    return f"{'...' * (start > 0)}{text[start : start + 80]}{'...' * (start + 80 < len(text))}"


# The path of an experiment: that of the network, or of an ensemble's member.
_OF_EXPERIMENT = re.compile(r"network\.config\.(members\[\d+\]\.)?")


def _flatten(value: Any, path: str = "") -> dict[str, str]:
    """The leaves of a tree of JSON values as text, by their path."""
    flat: dict[str, str] = {}
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        flat[f"{path}.length"] = str(len(value))
        parts = {f"{path}[{place}]": item for place, item in enumerate(value)}
    elif isinstance(value, dict):
        parts = {f"{path}.{name}" if path else name: item for name, item in value.items()}
    else:
        return {path: json.dumps(value)}
    for name, item in parts.items():
        flat |= _flatten(item, name)
    return flat
