"""The directory of a run: its files, and how to load it. Only this module imports Orbax.

    config.json    description of the run: experiment, class names, versions, command, device
    banks/         imported Gabor banks of the experiment, as arrays in DIGEST.npz
    log.jsonl      one record a line
    checkpoints/   K has the training state after K steps: everything that step K + 1 depends on
    lock           held while a process trains here; names that process

Evaluations read these files and add results/. No file depends on the number of devices, processes
or data workers. Process 0 alone lists, reads and writes checkpoints, in the background, and the
others get from it what it has read.
"""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import files
from vone_jax import mesh as meshes
from vone_jax.training.experiment import Experiment
from vone_jax.training.experiment_files import differences, from_json, to_json
from vone_jax.training.state import initial_state, variables_of
from vone_jax.v1 import GaborParameters, ImportedBank

CONFIG = "config.json"
LOG = "log.jsonl"
CHECKPOINTS = "checkpoints"
# Orbax looks for its files with patterns that begin with the directory.
PATTERN_CHARACTERS = "*?[\\"
_BANK_PARAMETERS = tuple(field.name for field in dataclasses.fields(GaborParameters))
Record = dict[str, Any]
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
    """Write the description of a run, and the imported bank of its experiment."""
    bank = getattr(description.experiment.model.v1, "bank", None)
    if isinstance(bank, ImportedBank):
        path = directory / "banks" / f"{bank.digest}.npz"
        path.parent.mkdir(exist_ok=True)
        arrays = {name: getattr(bank.parameters, name) for name in _BANK_PARAMETERS}
        arrays |= {n: getattr(bank, n) for n in ("in_phase", "quadrature", "pixels_per_degree")}
        # pyright takes the arrays for the option allow_pickle.
        files.replace(path, lambda file: np.savez(file, **arrays))  # pyright: ignore
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


class Checkpoints(contextlib.AbstractContextManager["Checkpoints"]):
    """The checkpoints of one run. Use it in a ``with`` block, which waits for the last write.

    All processes must make the same calls. The newest ``keep`` checkpoints stay, and with
    ``keep_best`` also the one with the highest validation accuracy.
    """

    def __init__(
        self, directory: Path, keep: int = 2, keep_best: bool = False, read_only: bool = False
    ):
        # Imported here, because the import takes long: wrong arguments are reported first.
        import orbax.checkpoint as ocp
        from orbax.checkpoint import checkpoint_managers as managers

        self._args = ocp.args
        self._manager: Any = None
        if jax.process_index() != 0:
            return

        def accuracy(metrics: dict[str, float]) -> float:
            return metrics["accuracy"]

        policies: list[Any] = [managers.LatestN(keep)]
        if keep_best:
            best = managers.BestN(
                get_metric_fn=accuracy, n=1, keep_checkpoints_without_metrics=False
            )
            policies.append(best)
        if not read_only:
            directory.mkdir(parents=True, exist_ok=True)
        # Orbax writes under a temporary name. Here process 0 does not wait for the others.
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                best_fn=accuracy,
                preservation_policy=managers.AnyPreservationPolicy(policies),
                cleanup_tmp_directories=not read_only,
                create=False,
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    primary_host=0, active_processes={0}, barrier_sync_key_prefix="process-0"
                ),
            ),
        )

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints that process 0 finds, oldest first."""
        return meshes.agree(lambda: sorted(self._manager.all_steps()))

    def best(self) -> int | None:
        """Return the step with the highest validation accuracy; None if none was validated."""
        return meshes.agree(lambda: self._manager.best_step())

    def save(self, step: int, state: Any, accuracy: float | None = None) -> None:
        """Start writing a checkpoint, and return once ``state`` may be donated.

        ``accuracy`` is that of a validation at this step.
        """
        if self._manager is not None:
            metrics = None if accuracy is None else {"accuracy": accuracy}
            # Every process has the whole state, so nothing is gathered.
            host = jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), state))
            self._manager.save(step, args=self._args.StandardSave(host), metrics=metrics)

    def restore(self, step: int, like: Any) -> Any:
        """Return the state at a step as NumPy arrays; ``like`` has its form, shapes and dtypes."""
        host = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
        if self._manager is not None:
            host = self._manager.restore(step, args=self._args.StandardRestore(host))
        return meshes.broadcast(host)

    def restore_variables(self, step: int, like: Any) -> Any:
        """Return the variables of the network alone, whatever the optimiser was."""
        host = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
        if self._manager is not None:
            state = self._manager.restore(step, args=self._args.StandardRestore())
            host = variables_of(state["params"], state.get("batch_stats"))
        return meshes.broadcast(host)

    def __exit__(self, *error: Any) -> None:
        if self._manager is not None:
            self._manager.close()


class RunLog(contextlib.AbstractContextManager["RunLog"]):
    """Appends records to ``log.jsonl``. Use it in a ``with`` block. Only process 0 writes.

    Opening the log removes the records after the checkpoint at ``step``, from which the run
    resumes, and after its last validation, so that every step is in the log once. ``tensorboard``
    is a directory for TensorBoard files.

    Raises:
      ValueError: if ``tensorboard`` is given without the package tensorboardX.
    """

    def __init__(self, path: Path, step: int, validated: int, tensorboard: Path | None = None):
        if tensorboard is not None and importlib.util.find_spec("tensorboardX") is None:
            raise ValueError(
                'tensorboard needs the package tensorboardX: pip install "vone-jax[tracking]"'
            )
        self._file = self._writer = None
        if jax.process_index() != 0:
            return
        limits = {"train": step, "validation": validated}
        kept = [record for record in read_log(path) if record["step"] <= limits[record["kind"]]]
        content = "".join(map(_line, kept)).encode()
        files.replace(path, lambda file: file.write(content))
        self._file = open(path, "a")
        if tensorboard is not None:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(tensorboard), purge_step=step + 1, flush_secs=1)

    def write(self, record: Record) -> None:
        """Append a record with ``kind``, ``step`` and finite numbers."""
        if self._file is None:
            return
        self._file.write(_line(record))
        self._file.flush()
        for name, value in record.items():
            if self._writer is not None and name not in ("kind", "step"):
                self._writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def __exit__(self, *error: Any) -> None:
        for opened in (self._writer, self._file):
            if opened is not None:
                opened.close()


def read_log(path: Path) -> list[Record]:
    """Read the records of a log. A last line that a killed writer has cut off is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


class Speed:
    """The examples per second of training. It begins after the first step, which compiles."""

    def __init__(self):
        self._start: float | None = None
        self._examples = 0

    def count(self, examples: int) -> None:
        """Count the examples of a step."""
        if self._start is None:
            self._start = time.perf_counter()
        else:
            self._examples += examples

    def take(self) -> float:
        """Return the rate since the last call; 0 before step 2."""
        now = time.perf_counter()
        rate = self._examples / max(now - (self._start or now), 1e-9)
        self._start, self._examples = now, 0
        return rate

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time within a ``with`` block."""
        begin = time.perf_counter()
        yield
        if self._start is not None:
            self._start += time.perf_counter() - begin


def _line(record: Record) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


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
