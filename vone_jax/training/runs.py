"""Trained runs, for those who come after training."""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vone_jax.training import run_dir as run_dirs
from vone_jax.training.checkpoint import Checkpoints
from vone_jax.training.experiment import Experiment
from vone_jax.training.setup import build_model, initial_state


def load_run(
    run_dir: Path | str, step: int | None = None
) -> tuple[Experiment, nn.Module, dict[str, Any]]:
    """The experiment, network and variables of a run.

    Args:
      run_dir: of ``train``; it may still be training.
      step: of the checkpoint; default: the last undamaged one.

    Returns:
      The experiment, the network and ``{"params": ..., "batch_stats": ...}`` on the default device.

    Raises:
      RunDirectoryError: if the directory holds no run, or no checkpoint yet.
      CheckpointError: if the checkpoints are damaged, or there is none at ``step``.
    """
    _, experiment, model, variables = restore_run(run_dir, step)
    return experiment, model, variables


def restore_run(
    run_dir: Path | str, step: int | None = None
) -> tuple[int, Experiment, nn.Module, dict[str, Any]]:
    """As ``load_run``, with the step of the checkpoint in front."""
    experiment = run_dirs.read_experiment(Path(run_dir))
    model = build_model(experiment.model, experiment.precision)
    directory = run_dirs.checkpoints_path(Path(run_dir))
    restored = None
    if directory.is_dir():
        with Checkpoints(directory, read_only=True) as checkpoints:
            like = jax.eval_shape(lambda: initial_state(experiment, model))
            restored = checkpoints.restore(like, step)
    if restored is None:
        raise run_dirs.RunDirectoryError(f"{run_dir} has no checkpoint yet")
    found, state, _ = restored
    return found, experiment, model, jax.tree.map(jnp.asarray, state.variables)
