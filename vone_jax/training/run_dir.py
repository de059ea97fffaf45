"""The directory of a run: who may use it, and what it says about the run.

    config.json    the experiment, versions, command, device: written at the start
    log.jsonl      one record a line, the source of truth; log.csv is exported from it
    checkpoints/   see checkpoint.py
    lock           held while a process trains here, and says which
    non_finite/    batches of steps with a loss or gradient that was NaN or infinite, see monitor.py

Evaluations add results/ and read the rest.
"""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from vone_jax import mesh as meshes
from vone_jax.training import experiment as experiments
from vone_jax.training.experiment import Experiment

FORMAT = 1
_PACKAGES = ("vone-jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


class RunDirectoryError(RuntimeError):
    """A run directory is in use, belongs to another experiment, or is not one."""


def config_path(run_dir: Path) -> Path:
    """Of the file that describes the run."""
    return Path(run_dir) / "config.json"


def log_path(run_dir: Path) -> Path:
    """Of the log."""
    return Path(run_dir) / "log.jsonl"


def checkpoints_path(run_dir: Path) -> Path:
    """Of the checkpoints."""
    return Path(run_dir) / "checkpoints"


def read_experiment(run_dir: Path) -> Experiment:
    """The experiment of a run.

    Raises:
      RunDirectoryError: if the directory holds none, or one that this version cannot read.
    """
    path = config_path(run_dir)
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise RunDirectoryError(
            f"{run_dir} holds no run: there is no {path.name} in it. train.py makes one"
        ) from None
    except ValueError as error:
        raise RunDirectoryError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise RunDirectoryError(f"{path} must hold a JSON object, it holds {config!r:.80}")
    if config.get("format") != FORMAT:
        raise RunDirectoryError(
            f"{path} has format {config.get('format')!r}, this version reads {FORMAT}"
        )
    try:
        return experiments.from_json(config.get("experiment"))
    except ValueError as error:
        raise RunDirectoryError(f"{path} cannot be read: {error}") from error


@contextlib.contextmanager
def open_run(
    run_dir: Path, experiment: Experiment, *, parameters: int, device: str, command: str
) -> Iterator[None]:
    """Makes the directory of a new run or checks that it is that of this one, and locks it.

    Args:
      run_dir: need not exist.
      experiment: what is going to be trained.
      parameters: number of trained parameters.
      device: the devices, in words.
      command: that started the program.

    Raises:
      RunDirectoryError: if another process trains there, or the run there is of an experiment
        that differs; the fields are named. Fields that change no number may differ, see
        ``experiment.differences``; ``config.json`` then takes the new ones.
    """
    run_dir = Path(run_dir)
    with contextlib.ExitStack() as stack:
        problem = None
        if jax.process_index() == 0:
            try:
                if run_dir.exists() and not run_dir.is_dir():
                    raise RunDirectoryError(f"{run_dir} must be a directory, it is a file")
                run_dir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(_lock(run_dir))
                if config_path(run_dir).exists():
                    _continue(run_dir, experiment)
                else:
                    _check_unused(run_dir)
                    _write(
                        config_path(run_dir),
                        {
                            "format": FORMAT,
                            "experiment": experiments.to_json(experiment),
                            "versions": versions(),
                            "command": command,
                            "parameters": parameters,
                            "device": device,
                        },
                    )
            except (OSError, RunDirectoryError) as error:
                problem = error
        if meshes.any_process(problem is not None):
            raise problem or RunDirectoryError(f"process 0 could not open {run_dir}")
        yield


def versions() -> dict[str, str]:
    """Of Python and the packages that decide the numbers; absent where not installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package.replace("-", "_")] = importlib.metadata.version(package)
    return found


@contextlib.contextmanager
def _lock(run_dir: Path) -> Iterator[None]:
    # The kernel drops the lock with the process, however that ends.
    with open(run_dir / "lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunDirectoryError(
                f"another process is training in {run_dir}: {file.read().strip() or 'unknown'}"
            ) from None
        except OSError as error:
            raise RunDirectoryError(
                f"{run_dir} cannot be locked ({error}); it must be on a file system with flock"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def _continue(run_dir: Path, experiment: Experiment) -> None:
    differing = experiments.differences(experiment, read_experiment(run_dir))
    if differing:
        raise RunDirectoryError(
            f"{run_dir} holds a run of another experiment (here, there):\n  "
            + "\n  ".join(differing)
            + "\nchoose another --run-dir, or delete that run"
        )
    config = json.loads(config_path(run_dir).read_text())
    ours = experiments.to_json(experiment)
    if ours != config["experiment"]:
        _write(config_path(run_dir), config | {"experiment": ours})


def _check_unused(run_dir: Path) -> None:
    for path in (log_path(run_dir), checkpoints_path(run_dir)):
        if path.exists():
            raise RunDirectoryError(
                f"{run_dir} holds {path.name} but no config.json; choose another directory"
            )


def _write(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    try:
        with open(partial, "w") as file:
            json.dump(content, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        # Where the disk is full, Python does not say what could not be written.
        raise OSError(error.errno, f"{path} cannot be written: {error.strerror}") from error
