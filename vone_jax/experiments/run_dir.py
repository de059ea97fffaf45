"""The directory of a run: its files, its description, its lock, and how to load it.

    config.json    description of the run: experiment, class names, versions, command, device
    banks/         imported Gabor banks of the experiment, as arrays in DIGEST.npz
    log.jsonl      one record a line; log.csv is exported from it
    checkpoints/   see checkpoint.py
    lock           held while a process trains here; names that process
    non_finite/    batches of steps with a loss or gradient that was NaN or infinite, see monitor.py

Evaluations read these files and add results/.
"""

import contextlib
import dataclasses
import importlib.metadata
import itertools
import os
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from vone_jax import files
from vone_jax import mesh as meshes
from vone_jax.experiments.checkpoint import Checkpoints, saved_steps
from vone_jax.experiments.experiment import Experiment
from vone_jax.experiments.experiment_files import differences, from_json, imported_banks, to_json
from vone_jax.experiments.state import initial_state
from vone_jax.v1 import GaborParameters, ImportedBank

CONFIG = "config.json"
LOG = "log.jsonl"
CHECKPOINTS = "checkpoints"
BANKS = "banks"
# Orbax looks for its files with patterns that begin with the directory. With these characters it
# may find none, or those of another directory.
PATTERN_CHARACTERS = "*?[\\".replace(os.sep, "")
# Seconds after which a file is visible on all machines. NFS keeps what it knows for up to 60 s.
_DELAY = 70.0
_FORMAT = 1
_BANK_PARAMETERS = tuple(field.name for field in dataclasses.fields(GaborParameters))
_PACKAGES = ("vone-jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


class RunDirectoryError(RuntimeError):
    """A run directory is in use, holds another experiment, is damaged, or holds no run."""


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

    # The experiment, with the fields that are derived from data filled in.
    experiment: Experiment
    # One name per logit, in order. None for runs that did not store them.
    class_names: tuple[str, ...] | None = None
    # Number of trained parameters, without frozen ones.
    parameters: int = 0
    # The devices in words.
    device: str = ""
    # The command that started the run.
    command: str = ""
    # SHA-256 digest of the weights that the run started from, see initial.py. None without them.
    initial_digest: str | None = None
    # ``Network.checksum`` of a distillation's teacher. None without one.
    teacher_weights: str | None = None
    # SHA-256 digest of the file of measured similarities. None without one.
    similarity_digest: str | None = None
    # SHA-256 digest of the names of the training images of a folder, in their order; a checksum of
    # the arrays of an NPZ file; or the TFDS set with its version. None for other sets.
    names_digest: str | None = None
    # The same digest for the validation images, by which an evaluation recognises them.
    validation_names_digest: str | None = None
    # Versions of Python and of packages, by name.
    versions: dict[str, str] = dataclasses.field(default_factory=versions)


# All but the experiment are JSON values.
_FIELDS = [field.name for field in dataclasses.fields(RunDescription)][1:]
# Fields for inputs outside the run directory, which must not change once there is a checkpoint ->
# names of the inputs in messages.
_CHECKED = {
    "teacher_weights": "weights of distillation.teacher",
    "similarity_digest": "sha256 of similarity.path",
    "names_digest": "training images (files were added, removed or renamed, an NPZ file was "
    "changed, or the TFDS set has another version)",
}
# Fields that must be the same in all processes of a program -> names of them in messages.
_SHARED = {
    "class_names": "class names",
    "initial_digest": "initial weights",
    "teacher_weights": "teachers",
    "similarity_digest": "files of similarities",
    "names_digest": "training images",
    "validation_names_digest": "validation images",
}
# Fields of an experiment that each process may have for itself.
_OF_A_PROCESS = ("compilation_cache", "data.data_dir", "data.prefetch", "data.workers")


def read_run(run_dir: Path | str) -> RunDescription:
    """Read the description of a run.

    Raises:
      RunDirectoryError: if the directory holds no run, if its description is damaged, or if it was
        written by a version with another format.
    """
    path = Path(run_dir) / CONFIG
    try:
        config = files.parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunDirectoryError(
            f"{run_dir} holds no run: there is no {path.name} in it. train.py makes one"
        ) from None
    except ValueError as error:
        raise RunDirectoryError(f"{path} is not JSON: {error}; restore the file") from error
    if not isinstance(config, dict):
        raise RunDirectoryError(f"{path} must hold a JSON object, it holds {config!r:.80}")
    # Runs of earlier versions have no digest.
    if not files.matches_digest(config):
        raise RunDirectoryError(
            f"{path} does not match its digest: it was damaged or edited. Restore the file; if the "
            "edit was intended, remove its field 'digest'"
        )
    if config.get("format") != _FORMAT:
        raise RunDirectoryError(
            f"{path} has format {config.get('format')!r}, this version reads {_FORMAT}"
        )
    try:
        experiment = from_json(config.get("experiment"), lambda sha: _read_bank(path.parent, sha))
    except ValueError as error:
        raise RunDirectoryError(f"{path} cannot be read: {error}") from error
    known = {name: config[name] for name in _FIELDS if name in config}
    if known.get("class_names") is not None:
        known["class_names"] = tuple(known["class_names"])
    return RunDescription(experiment, **known)


def check_path(run_dir: Path) -> None:
    """Raise a ``RunDirectoryError`` if checkpoints may be lost because of a directory's path."""
    path = str(run_dir.absolute())
    if set(path) & set(PATTERN_CHARACTERS):
        raise RunDirectoryError(
            f"{path} has one of the characters {' '.join(PATTERN_CHARACTERS)}, with which "
            "checkpoints may be lost; choose another --run-dir, or rename the directory"
        )
    if path != path.encode(errors="replace").decode():
        raise RunDirectoryError(
            f"{path!a} is not read as UTF-8, so no checkpoint can be written there; choose another "
            "--run-dir, rename the directory, or set PYTHONUTF8=1 if its name is in UTF-8"
        )


@contextlib.contextmanager
def open_run(run_dir: Path, description: RunDescription) -> Iterator[None]:
    """Lock the directory of a run within a ``with`` block, and make it if it does not exist.

    If there is a run already, fields that affect no result may differ, see
    ``experiment_files.differences``. Their new values are then written to ``config.json``. A
    ``RunDirectoryError`` names other fields that differ, or the process that trains there. It is
    raised, too, if the processes of a program have different experiments or images, or do not share
    the directory.
    """
    # Otherwise the processes would wait for each other, or train different things unnoticed.
    shared = {what: getattr(description, name) for name, what in _SHARED.items()}
    for name, value in to_json(description.experiment).items():
        fields = flatten_dict({name: value}, sep=".")
        shared[f"experiment.{name}"] = {n: fields[n] for n in fields if n not in _OF_A_PROCESS}
    if different := meshes.differing(shared):
        raise RunDirectoryError(
            f"the processes have different {', '.join(different)}; start all of them with the same "
            "config and the same options, on the same files"
        )
    with contextlib.ExitStack() as stack:
        problem = None
        if jax.process_index() == 0:
            try:
                if run_dir.exists() and not run_dir.is_dir():
                    raise RunDirectoryError(f"{run_dir} must be a directory, it is a file")
                run_dir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(files.locked(run_dir / "lock"))
                _describe(run_dir, description)
            except files.LockedError as error:
                problem = RunDirectoryError(
                    f"another process is training in {run_dir}; wait for it, or choose another "
                    f"--run-dir: {error}"
                )
            except (OSError, RunDirectoryError) as error:
                problem = error
                if isinstance(error, OSError) and error.errno in files.NOT_PERMITTED:
                    problem = RunDirectoryError(
                        f"{error.filename or run_dir} cannot be opened: {error.strerror}; choose "
                        "another --run-dir"
                    )
        if meshes.any_process(problem is not None):
            raise problem or RunDirectoryError(f"process 0 could not open {run_dir}")
        if meshes.any_process(not _appears(run_dir / CONFIG)):
            raise RunDirectoryError(
                f"not all processes find {run_dir / CONFIG}, which process 0 has written; "
                "--run-dir must be one directory on a file system that they share"
            )
        yield


def _appears(path: Path) -> bool:
    """Return True once a file exists: a network shows what another machine made after a while."""
    end = time.monotonic() + _DELAY
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(1.0)
    return True


def _other_classes(ours: Sequence[str] | None, theirs: Sequence[str] | None) -> str:
    """The difference between two lists of class names, of which a data set can have thousands."""
    pairs = itertools.zip_longest(ours or (), theirs or ())
    place, (here, there) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
    counts = f"{len(ours or ())} here, {len(theirs or ())} there"
    return f"class names: {counts}; class {place} is {ascii(here)} here, {ascii(there)} there"


def _describe(run_dir: Path, description: RunDescription) -> None:
    """Write ``config.json``, unless it is the same; raise if it is of another experiment."""
    if (run_dir / CONFIG).exists():
        before = read_run(run_dir)
        changes = differences(description.experiment, before.experiment)
        if before.class_names not in (None, description.class_names):
            changes.append(_other_classes(description.class_names, before.class_names))
        # A run that resumes does not need the weights again, so it has no digest of them.
        ours, theirs = description.initial_digest, before.initial_digest
        if ours not in (None, theirs):
            changes.append(f"sha256 of initial_weights: {ours} here, {theirs} there")
        trained = bool(saved_steps(run_dir / CHECKPOINTS))
        for name, what in _CHECKED.items():
            ours, theirs = getattr(description, name), getattr(before, name)
            # Runs of earlier versions do not have this field.
            if theirs not in (None, ours) and trained:
                changes.append(f"{what}: {ours} here, {theirs} there")
        if changes:
            resized = any("data.batch_size" in change for change in changes)
            if resized and description.device != before.device:
                changes.append(
                    f"devices: {description.device} here, {before.device} there; a batch larger "
                    f"than the data set is reduced to a multiple of them"
                )
            raise RunDirectoryError(
                f"{run_dir} holds a run of another experiment; this command and that run have\n  "
                + "\n  ".join(changes)
                + "\nchoose another --run-dir, or delete that run; --initial-weights "
                f"{run_dir} starts from its weights"
            )
        description = dataclasses.replace(
            before,
            experiment=description.experiment,
            class_names=description.class_names,
            validation_names_digest=description.validation_names_digest,
            **{name: getattr(description, name) for name in _CHECKED},
        )
        if _config(description) == _config(before):
            return
    for name in (LOG, CHECKPOINTS):
        if (run_dir / name).exists() and not (run_dir / CONFIG).exists():
            raise RunDirectoryError(
                f"{run_dir} holds {name} but no {CONFIG}; choose another directory"
            )
    for bank in imported_banks(description.experiment):
        path = run_dir / BANKS / f"{bank.digest}.npz"
        path.parent.mkdir(exist_ok=True)
        arrays = {name: getattr(bank.parameters, name) for name in _BANK_PARAMETERS}
        arrays |= {n: getattr(bank, n) for n in ("in_phase", "quadrature", "pixels_per_degree")}
        # pyright takes the arrays for the option allow_pickle.
        files.replace(path, lambda file, a=arrays: np.savez(file, **a))  # pyright: ignore
    config = _config(description)
    files.replace_json(run_dir / CONFIG, config | {"digest": files.json_digest(config)})


def _read_bank(run_dir: Path, digest: str) -> ImportedBank:
    path = run_dir / BANKS / f"{digest}.npz"
    try:
        arrays = files.read_npz(path)
        bank = ImportedBank(
            arrays["in_phase"],
            arrays["quadrature"],
            GaborParameters(**{name: arrays[name] for name in _BANK_PARAMETERS}),
            float(arrays["pixels_per_degree"]),
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunDirectoryError(f"Gabor bank {path} cannot be read: {error}; restore it") from error
    if bank.digest != digest:
        raise RunDirectoryError(f"Gabor bank {path} does not match its digest; restore it")
    return bank


def _config(description: RunDescription) -> dict[str, Any]:
    experiment = to_json(description.experiment)
    return {"format": _FORMAT, **vars(description), "experiment": experiment}


def load_run(
    run_dir: Path | str, step: int | None = None
) -> tuple[int, Experiment, nn.Module, dict[str, Any]]:
    """Load a run, which may still be training, at a step; default: the newest undamaged checkpoint.

    Returns:
      The step, the experiment, the network and ``{"params": ..., "batch_stats": ...}`` on the
      default device.

    Raises:
      RunDirectoryError: if the directory holds no run, or no checkpoint yet.
      CheckpointError: if the checkpoints are damaged, or there is none at ``step``.
    """
    experiment = read_run(run_dir).experiment
    model = experiment.build()
    directory = Path(run_dir) / CHECKPOINTS
    restored = None
    if directory.is_dir():
        with Checkpoints(directory, read_only=True) as checkpoints:
            like = jax.eval_shape(lambda: initial_state(experiment, model))
            restored = checkpoints.restore(like.variables, step)
    if restored is None:
        raise RunDirectoryError(f"{run_dir} has no checkpoint yet")
    restored_step, state, _ = restored
    return restored_step, experiment, model, jax.tree.map(jnp.asarray, state.variables)
