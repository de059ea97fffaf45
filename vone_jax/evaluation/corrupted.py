"""The condition ``Corrupted``: images with a common corruption, made in memory or published."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import arguments, corruptions, data, files, names
from vone_jax.arguments import Range
from vone_jax.data.loading import MissingCorruptionError
from vone_jax.evaluation.attacked import guessing
from vone_jax.evaluation.condition import Condition, Judged, Numbers, accuracy_numbers
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.evaluation.judging import Batch
from vone_jax.network import Network
from vone_jax.results import Lines

# How corruptions are shown, also those of one's own.
LINES = Lines("accuracy", "severity", "category", share=True)


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

    section = "Corruptions"

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

    def row(self) -> dict[str, Any]:
        row = {"condition": "corruption", "corruption": self.corruption, "severity": self.severity}
        row["category"] = names.category(self.corruption)
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

    def result(self, arrays: Mapping[str, np.ndarray], evaluation: Any) -> Numbers:
        # Published severities are folders of their own.
        lines = dataclasses.replace(LINES, own_images=self.form == "published")
        return Numbers(accuracy_numbers(arrays, main=False), [lines], [guessing(evaluation)])

    def corrupt(self, keys: jax.Array, images: jax.Array) -> jax.Array:
        """The images with the corruption, made in memory."""
        form, frost = self.form, self.frost_images
        return corruptions.corrupt(
            keys, images, self.corruption, self.severity, form=form, frost_images=frost
        )


def published(
    evaluation: Evaluation, conditions: Sequence[Condition], published_files: str
) -> list[tuple[Evaluation, Condition]]:
    """The corruptions on published images, which are not cropped. Extra ones may be missing.

    Args:
      evaluation: an evaluation, whose images are replaced.
      conditions: the corruptions.
      published_files: the published images, as ``data.load_corrupted`` takes them.

    Raises:
      ValueError: for a condition that is no corruption.
      FileNotFoundError: for a corruption of the 15 common ones that is missing.
    """
    network = evaluation.network
    whole = dataclasses.replace(network, preprocessing=data.Preprocessing(1.0))
    missing: list[str] = []
    sides: set[int] = set()
    found: list[tuple[Evaluation, Condition]] = []
    for condition in conditions:
        if not isinstance(condition, Corrupted):
            raise ValueError(
                f"source {published_files} has corrupted images, and {condition.label} needs "
                "others; evaluate it by a command of its own"
            )
        # Published frost is made of photographs.
        name = condition.corruption.replace(names.PROCEDURAL_FROST, "frost")
        try:
            source = data.load_corrupted(published_files, name, condition.severity)
        except MissingCorruptionError:
            if condition.corruption not in names.EXTRA_CORRUPTIONS:
                raise
            missing.append(condition.label)
            continue
        sides.add(source[0]["image"].shape[0])
        shown = Corrupted(name, condition.severity, "published")
        found.append((dataclasses.replace(evaluation, network=whole, images=source), shown))
    if sides - {network.image_size}:
        warnings.warn(
            f"source {published_files}: its images of {min(sides)} pixels are resized to "
            f"{network.image_size}, which softens some corruptions",
            stacklevel=2,
        )
    if missing:
        warnings.warn(f"left out: {published_files} has no {', '.join(missing)}", stacklevel=2)
    return found


def corrupted(
    corruption: Sequence[str], severities: Sequence[int] = corruptions.SEVERITIES
) -> list[Condition]:
    """Corruptions by name, made in memory; a drawn texture takes the place of frost."""
    chosen = [names.PROCEDURAL_FROST if name == "frost" else name for name in corruption]
    return [Corrupted(name, severity) for name in chosen for severity in severities]


_QUICK = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "brightness", "contrast",
    "pixelate", "speckle_noise", "gaussian_blur",
)  # fmt: skip


def common(evaluation: Evaluation) -> list[Condition]:
    """ImageNet-C: 19 corruptions at 5 severities (950; 95)"""
    return corrupted((*corruptions.SETS["common"], *corruptions.SETS["extra"]))


def quick(evaluation: Evaluation) -> list[Condition]:
    """nine of them at severity 3 (90; 9)"""
    return corrupted(_QUICK, (3,))


def c_bar(evaluation: Evaluation) -> list[Condition]:
    """ImageNet-C-bar: 10 corruptions at 5 severities (500; 50)"""
    return corrupted(corruptions.SETS["c_bar"])


SUITES = {"corruptions": common, "corruptions_quick": quick, "corruptions_c_bar": c_bar}
