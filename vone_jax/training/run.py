"""The directory of a run: its files, its description, and how to load it.

    config.json    description of the run: experiment, class names, versions, command, device
    banks/         imported Gabor banks of the experiment, as arrays in DIGEST.npz
    log.jsonl      one record a line
    checkpoints/   see checkpoint.py
    lock           held while a process trains here; names that process

Evaluations read these files and add results/.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import files
from vone_jax import mesh as meshes
from vone_jax.training.checkpoint import Checkpoints
from vone_jax.training.experiment import Experiment
from vone_jax.training.experiment_files import differences, from_json, imported_banks, to_json
from vone_jax.training.state import initial_state
from vone_jax.v1 import GaborParameters, ImportedBank

CONFIG = "config.json"
LOG = "log.jsonl"
CHECKPOINTS = "checkpoints"
# Orbax looks for its files with patterns that begin with the directory.
PATTERN_CHARACTERS = "*?[\\"
_BANK_PARAMETERS = tuple(field.name for field in dataclasses.fields(GaborParameters))
_PACKAGES = ("vone-jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


class RunDirectoryError(RuntimeError):
    """A run directory is in use, holds another experiment, or holds no run."""


def versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of installed packages. Default: those affecting results."""
    installed = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package.replace("-", "_")] = importlib.metadata.version(package)
    return installed


@dataclasses.dataclass(frozen=True)
class RunDescription:
    """The content of ``config.json``."""

    # The experiment with all fields filled in, see ``resolve``.
    experiment: Experiment
    # The experiment as it was given.
    given: Experiment
    # One name per logit, in order.
    class_names: tuple[str, ...]
    # Number of trained parameters, without frozen ones.
    parameters: int
    # The devices in words.
    device: str = ""
    # The command that started the run.
    command: str = ""
    # Versions of Python and of packages, by name.
    versions: dict[str, str] = dataclasses.field(default_factory=versions)


def read_run(directory: Path | str) -> RunDescription:
    """Read the description of a run.

    Raises:
      RunDirectoryError: if the directory holds no run.
      ValueError: if its description does not describe an experiment of this version.
    """
    path = Path(directory) / CONFIG
    if not path.exists():
        raise RunDirectoryError(
            f"{directory} holds no run: there is no {path.name} in it. train.py makes one"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        for name in ("experiment", "given"):
            config[name] = from_json(config[name], lambda sha: _read_bank(path.parent, sha))
        return RunDescription(**config | {"class_names": tuple(config["class_names"])})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def checked_path(directory: Path | str) -> Path:
    """Return the path of a run, or raise a ``RunDirectoryError`` if checkpoints would be lost."""
    if set(str(directory)) & set(PATTERN_CHARACTERS):
        raise RunDirectoryError(
            f"{directory} has one of the characters {' '.join(PATTERN_CHARACTERS)}, with which "
            "checkpoints are lost; choose another --run-dir"
        )
    return Path(directory)


def write_run(directory: Path, description: RunDescription) -> None:
    """Write the description of a run, and the imported banks of its experiment."""
    for bank in imported_banks(description.experiment):
        path = directory / "banks" / f"{bank.digest}.npz"
        path.parent.mkdir(exist_ok=True)
        arrays = {name: getattr(bank.parameters, name) for name in _BANK_PARAMETERS}
        arrays |= {n: getattr(bank, n) for n in ("in_phase", "quadrature", "pixels_per_degree")}
        # pyright takes the arrays for the option allow_pickle.
        files.replace(path, lambda file, a=arrays: np.savez(file, **a))  # pyright: ignore
    config = {name: to_json(getattr(description, name)) for name in ("experiment", "given")}
    files.replace_json(directory / CONFIG, {**vars(description), **config})


def check_same(directory: Path, ours: Experiment, theirs: Experiment) -> None:
    """Raise a ``RunDirectoryError`` if two experiments differ in a field that affects results."""
    if changes := differences(ours, theirs):
        raise RunDirectoryError(
            f"{directory} holds a run of another experiment; this command and that run have\n  "
            + "\n  ".join(changes)
            + "\nchoose another --run-dir, or delete that run; --initial-weights "
            f"{directory} starts from its weights"
        )


def saved_steps(directory: Path | str) -> list[int]:
    """Return the steps of the checkpoints of a run, which need not exist, oldest first."""
    names = (path.name for path in (Path(directory) / CHECKPOINTS).glob("*"))
    return meshes.agree(lambda: sorted(int(name) for name in names if name.isdecimal()))


def _read_bank(directory: Path, digest: str) -> ImportedBank:
    arrays = files.read_npz(directory / "banks" / f"{digest}.npz")
    return ImportedBank(
        arrays["in_phase"],
        arrays["quadrature"],
        GaborParameters(**{name: arrays[name] for name in _BANK_PARAMETERS}),
        float(arrays["pixels_per_degree"]),
    )


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
    description: RunDescription
    model: nn.Module
    variables: dict[str, Any]

    @property
    def experiment(self) -> Experiment:
        """The experiment with all fields filled in."""
        return self.description.experiment


def load_run(directory: Path | str, step: int | None = None) -> Run:
    """Load a run, which may still be training, from its checkpoint at a step.

    By default it is the last checkpoint, or with ``Experiment.keep_best`` the one with the highest
    validation accuracy. In a program of several processes all of them must call it.

    Raises:
      RunDirectoryError: if the directory holds no run, or no checkpoint at this step.
    """
    description = read_run(directory)
    experiment, model = description.experiment, description.experiment.build()
    like = jax.eval_shape(lambda: initial_state(experiment, model)).variables
    checkpoints = Path(directory) / CHECKPOINTS
    if not checkpoints.is_dir():
        raise RunDirectoryError(f"{directory} has no checkpoint yet")
    with Checkpoints(checkpoints, read_only=True) as saved:
        steps = saved.steps()
        if not steps:
            raise RunDirectoryError(f"{directory} has no checkpoint yet")
        if step is None:
            step = (saved.best() if experiment.keep_best else None) or steps[-1]
        if step not in steps:
            raise RunDirectoryError(f"no checkpoint {step} in {checkpoints}; there are {steps}")
        variables = saved.restore_variables(step, like)
    return Run(step, description, model, jax.tree.map(jnp.asarray, variables))
