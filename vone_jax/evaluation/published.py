"""The condition ``Published``: corrupted images from files, in place of those made in memory."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from vone_jax import mesh
from vone_jax.data import load_corrupted
from vone_jax.evaluation.conditions import Condition, Corrupted, Judged
from vone_jax.evaluation.runner import Job
from vone_jax.evaluation.subject import Examples

FORM = "published"


@dataclasses.dataclass(frozen=True)
class Published(Judged):
    """Images of a published corrupted set as they are; the job has them.

    Attributes:
      corruption: its name.
      severity: 1 to 5.
    """

    corruption: str
    severity: int

    kind = "corruption"

    @property
    def name(self) -> str:
        return f"corruption-{self.corruption}-{self.severity}-{FORM}"

    def record(self) -> dict[str, Any]:
        return {"corruption": self.corruption, "severity": self.severity, "form": FORM}

    def perturb(self, trial):
        return trial.images, {}


def from_files(
    tasks: Sequence[tuple[Job, Condition]], files: str, data_dir: str | os.PathLike | None
) -> list[tuple[Job, Condition]]:
    """The tasks with corruptions read from files.

    As many images are taken as are corrupted in memory, every k-th of the set. They are not resized
    or cropped again.

    Args:
      tasks: any; those without a corruption stay.
      files: see ``data.load_corrupted``.
      data_dir: where TFDS keeps its sets; for those alone.

    Raises:
      FileNotFoundError, ValueError: if a set is not there or not of this layout; see
        ``load_corrupted``. Also if there is no corruption among the tasks, or one that is to be
        made in another form.
    """
    corrupted = [condition for _, condition in tasks if isinstance(condition, Corrupted)]
    if not corrupted:
        raise ValueError(
            f"corrupted_files is for the suites corruptions and corruptions_quick, got {files!r} "
            f"without one of them"
        )
    if corrupted[0].form != "float":
        raise ValueError(
            f"form is for images that are made in memory, got {corrupted[0].form!r} with "
            f"corrupted_files {files!r}"
        )
    job = tasks[0][0]
    # Placed once: jobs that have placed variables share them.
    placed = mesh.replicate(job.devices, job.subject.variables)
    subject = dataclasses.replace(job.subject, variables=placed, center_crop=1.0)
    found: list[tuple[Job, Condition]] = []
    for job, condition in tasks:
        if isinstance(condition, Corrupted):
            # The files have the frost of photographs.
            name = condition.corruption.replace("frost_procedural", "frost")
            source = load_corrupted(
                files,
                name,
                condition.severity,
                data_dir=data_dir if files.startswith("tfds:") else None,
            )
            examples = Examples(source, min(len(job.examples), len(source)))
            job = dataclasses.replace(job, subject=subject, examples=examples)
            condition = Published(name, condition.severity)
        found.append((job, condition))
    return found
