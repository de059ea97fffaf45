"""Corruptions whose images were published: each has a data set of its own."""

import dataclasses
import warnings
from collections.abc import Sequence

from vone_jax import data, names
from vone_jax.data.loading import MissingCorruptionError
from vone_jax.evaluation.conditions import Condition, Corrupted
from vone_jax.evaluation.evaluation import Evaluation


def published(
    evaluation: Evaluation, conditions: Sequence[Condition], files: str
) -> list[tuple[Evaluation, Condition]]:
    """The corruptions on published images, which are not cropped. Extra ones may be missing.

    Args:
      evaluation: an evaluation, whose images are replaced.
      conditions: the corruptions.
      files: the published images, as ``data.load_corrupted`` takes them.

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
                f"source {files} has corrupted images, and {condition.label} needs others; "
                "evaluate it by a command of its own"
            )
        # Published frost is made of photographs.
        name = condition.corruption.replace(names.PROCEDURAL_FROST, "frost")
        try:
            source = data.load_corrupted(files, name, condition.severity)
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
            f"source {files}: its images of {min(sides)} pixels are resized to "
            f"{network.image_size}, which softens some corruptions",
            stacklevel=2,
        )
    if missing:
        warnings.warn(f"left out: {files} has no {', '.join(missing)}", stacklevel=2)
    return found
