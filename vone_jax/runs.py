"""Trained networks in run directories. ``network`` opens them; a training does not need them."""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vone_jax import files
from vone_jax import mesh as meshes
from vone_jax.training import run
from vone_jax.training.config import Experiment
from vone_jax.training.objective import Setup


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A trained network of a run.

    Attributes:
      step: step of its checkpoint.
      description: content of ``config.json``.
      model: the network.
      variables: ``{"params": ..., "batch_stats": ...}`` on the default device.
    """

    step: int
    description: run.RunDescription
    model: nn.Module
    variables: dict[str, Any]

    @property
    def experiment(self) -> Experiment:
        """The experiment with all fields filled in."""
        return self.description.experiment

    @property
    def validation_images(self) -> str | None:
        """The number and checksum of its validation images, see ``data.describe``."""
        return self.description.made_from.get(run.VALIDATION_IMAGES)


def load_run(
    directory: Path | str,
    step: int | None = None,
    *,
    precision: Literal["float32", "bfloat16"] = "float32",
    code: Sequence[str] = (),
) -> Run:
    """Load a run, which may still be training, from its checkpoint at a step.

    By default it is the last checkpoint, or with ``Experiment.keep_best`` the one with the highest
    validation accuracy in the log. The network computes in the given ``precision``, "float32" or
    "bfloat16", whatever it was trained in. Modules of ``code`` may be imported for it, by name or
    as FILE.py, beside those that are imported already. In a program of several processes all of
    them must call this.

    Raises:
      RunDirectoryError: if the directory holds no run, or no checkpoint at this step.
    """
    description = run.read_run(directory, code)
    experiment = description.experiment
    made_from = description.made_from
    for name, digest in run.code_digests(experiment).items():
        if made_from.get(name) != digest:
            warnings.warn(
                f"{name.removeprefix(run.CODE)} has changed since the run in {directory} was "
                "started; its weights belong to the code of then",
                stacklevel=2,
            )
    model = dataclasses.replace(experiment, precision=precision).build()
    like = dict(jax.eval_shape(Setup(experiment, model).variables))
    directory = files.as_path(directory)
    checkpoints, steps = directory / run.CHECKPOINTS, run.saved_steps(directory)
    if not steps:
        raise run.RunDirectoryError(f"{directory} has no checkpoint yet")
    if step is None and experiment.keep_best:
        if not meshes.from_process_0(lambda: (directory / run.LOG).exists()):
            raise run.RunDirectoryError(
                f"{directory} has lost its {run.LOG}, which says which checkpoint is the best; "
                f"give a step, one of {steps}"
            )
        best, _ = meshes.from_process_0(lambda: run.validations(directory, steps))
        step = best and best["step"]
    step = steps[-1] if step is None else step
    if step not in steps:
        raise run.RunDirectoryError(f"no checkpoint {step} in {checkpoints}; there are {steps}")
    with run.Checkpoints(checkpoints, description, read_only=True) as saved:
        variables = saved.restore_variables(step, like)
    return Run(step, description, model, jax.tree.map(jnp.asarray, variables))
