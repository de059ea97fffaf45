"""The directory of a run: its files. Only this module imports Orbax.

    config.json    description of the run: experiment, class names, versions, command, device
    banks/         imported Gabor banks of the experiment, as arrays in DIGEST.npz
    log.jsonl      one record a line
    checkpoints/   K has the training state after K steps: everything that step K + 1 depends on,
                   and the description of the run with the checksum of the weights
    lock           held while a process trains here; names that process

Evaluations read these files and add results/. No file depends on the number of devices, processes
or data workers. Process 0 alone lists, reads and writes checkpoints, in the background, and the
others get from it what it has read. The directory may be in a bucket, such as
``gs://BUCKET/runs/NAME``. There is no lock then, since a bucket has none.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import platform
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vone_jax import files, models
from vone_jax import mesh as meshes
from vone_jax.training.config import Experiment, differences, from_json, to_json
from vone_jax.training.objective import variables_of
from vone_jax.v1 import ImportedBank

CONFIG = "config.json"
# Of the files of a run. What changes when it does is said by docs/promises.md.
SCHEMA = 1
LOG = "log.jsonl"
CHECKPOINTS = "checkpoints"
# Names in ``RunDescription.made_from``.
TRAIN_IMAGES, VALIDATION_IMAGES = "training images", "validation images"
WEIGHTS = "initial weights"
CODE = "code of "
# Orbax looks for its files with patterns that begin with the directory.
PATTERN_CHARACTERS = "*?[\\"
_VARIABLES = ("params", "batch_stats")
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
    # The experiment as it was written, before these were filled in.
    unresolved: Experiment
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
    # What the run is made from besides the experiment, by name: counts and checksums of the
    # training and validation images, of initial weights, of the networks that objectives open, and
    # of the code of a user's classes.
    made_from: dict[str, str] = dataclasses.field(default_factory=dict)


def read_run(directory: Path | str, code: Sequence[str] = ()) -> RunDescription:
    """Read the description of a run. ``code`` may be imported for it, see ``modules.of_file``.

    Raises:
      RunDirectoryError: if the directory holds no run.
      ValueError: if its description does not describe an experiment of this version, or asks for
        a module that may not be imported.
    """
    path = files.as_path(directory) / CONFIG
    if not path.exists():
        raise RunDirectoryError(
            f"{directory} holds no run: there is no {path.name} in it. train.py makes one"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if (schema := config.pop("schema", None)) != SCHEMA:
            raise ValueError(f"it has the form {schema}, and this version reads {SCHEMA}")
        opened = None if files.in_bucket(path) else path.parent
        for name in ("experiment", "unresolved"):
            config[name] = from_json(
                config[name], lambda sha: _read_bank(path.parent, sha), code, opened
            )
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
    return files.as_path(directory)


def write_run(directory: Path, description: RunDescription) -> None:
    """Write the description of a run, and the imported bank of its experiment."""
    bank = getattr(description.experiment.model.v1, "bank", None)
    if isinstance(bank, ImportedBank):
        path = directory / "banks" / f"{bank.digest}.npz"
        path.parent.mkdir(exist_ok=True)
        arrays = models.bank_arrays(bank)
        # pyright takes the arrays for the option allow_pickle.
        files.replace(path, lambda file: np.savez(file, **arrays))  # pyright: ignore
    config = {name: to_json(getattr(description, name)) for name in ("experiment", "unresolved")}
    files.replace_json(directory / CONFIG, {"schema": SCHEMA, **vars(description), **config})


def check_same(directory: Path, ours: Experiment, theirs: Experiment) -> None:
    """Raise a ``RunDirectoryError`` if two experiments differ in a field that affects results."""
    if changes := differences(to_json(ours), to_json(theirs)):
        raise RunDirectoryError(
            f"{directory} holds a run of another experiment; this command and that run have\n  "
            + "\n  ".join(changes)
            + "\nchoose another --run-dir, or delete that run; --initial-weights "
            f"{directory} starts from its weights"
        )


def _spec(description: RunDescription) -> dict[str, Any]:
    """What a checkpoint says of its run: all that its weights and their use depend on."""
    return to_json(description.experiment) | {"class_names": list(description.class_names)}


def check_made_from(
    directory: Path, ours: dict[str, str], theirs: dict[str, str], changed_code: bool = False
) -> None:
    """Raise a ``RunDirectoryError`` if a run that resumes is made from something else.

    Other code is a difference, too, but with ``changed_code`` it is a warning.
    """
    changes = {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]}
    code = {name for name in changes if name.startswith(CODE)}
    if code and changed_code:
        changes -= code
        edited = ", ".join(sorted(name.removeprefix(CODE) for name in code))
        warnings.warn(
            f"{edited} has changed since the run in {directory} was started; its steps from here "
            "on are those of the code of now",
            stacklevel=3,
        )
    if changes:
        raise RunDirectoryError(
            f"{directory} holds a run that is made from something else: "
            + "; ".join(f"its {n} are {theirs[n]}, now they are {ours[n]}" for n in sorted(changes))
            + "; choose another --run-dir, or delete that run"
            + ("; --changed-code goes on with the code of now" if code else "")
        )


def code_digests(experiment: Experiment) -> dict[str, str]:
    """Return a digest of each file that defines a class or function of a user, by its name."""
    found = {}
    for code in models.code_of_users(experiment):
        if file := inspect.getsourcefile(code):
            digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
            found[f"{CODE}{code.__module__.removeprefix('file_')}"] = digest
    return found


def saved_steps(directory: Path | str) -> list[int]:
    """Return the steps of the complete checkpoints of a run, which need not exist, oldest first."""
    path = files.as_path(directory) / CHECKPOINTS

    def found() -> list[int]:
        if not path.exists():
            return []
        import orbax.checkpoint as ocp

        return sorted(ocp.utils.checkpoint_steps(path))

    return meshes.from_process_0(found)


def _read_bank(directory: Path, digest: str) -> ImportedBank:
    return models.bank_of(files.read_npz(directory / "banks" / f"{digest}.npz"), digest)


class Checkpoints(contextlib.AbstractContextManager["Checkpoints"]):
    """The checkpoints of one run. Use it in a ``with`` block, which waits for the last write.

    All processes must make the same calls. The newest ``keep`` checkpoints stay, and that of the
    step ``best``, which may change between two writes. Each has the experiment and the class names
    of ``description``, and the checksum of its weights. A checkpoint of another description is not
    read. What cannot be written or read is told by Orbax.
    """

    def __init__(
        self, directory: Path, description: RunDescription, keep: int = 2, read_only: bool = False
    ):
        # Imported here, because the import takes long: wrong arguments are reported first.
        import orbax.checkpoint as ocp
        from orbax.checkpoint import checkpoint_managers as managers

        self.best: int | None = None
        self._directory = directory
        self._spec = _spec(description)
        self._args = ocp.args
        self._manager: Any = None
        if jax.process_index() != 0:
            return
        if not read_only:
            directory.mkdir(parents=True, exist_ok=True)
        # Orbax writes under a temporary name. Here process 0 does not wait for the others.
        self._manager = ocp.CheckpointManager(
            directory if files.in_bucket(directory) else directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=managers.AnyPreservationPolicy([managers.LatestN(keep), self]),
                cleanup_tmp_directories=not read_only,
                create=False,
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    primary_host=0, active_processes={0}, barrier_sync_key_prefix="process-0"
                ),
            ),
        )

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Preserve the best checkpoint: this is a policy of Orbax."""
        return [each.step == self.best for each in checkpoints]

    def save(self, step: int, state: Any) -> None:
        """Start writing a checkpoint, and return once ``state`` may be donated.

        An error of the write before this one is raised only now.
        """
        if self._manager is not None:
            # Every process has the whole state, so nothing is gathered.
            host = jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), state))
            checksum = files.weights_checksum(jax.tree.leaves(host.variables))
            self._manager.save(
                step,
                args=self._args.Composite(
                    state=self._args.StandardSave(host),
                    description=self._args.JsonSave({"spec": self._spec, "weights": checksum}),
                ),
            )

    def restore(self, step: int, like: Any) -> Any:
        """Return the state at a step as NumPy arrays; ``like`` has its form, shapes and dtypes."""
        host = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
        if self._manager is not None:
            host = self._read(step, host, lambda state: state.variables)
        return meshes.broadcast(host)

    def restore_variables(self, step: int, like: Any) -> Any:
        """Return the variables of the network alone, their moving means if the run has any."""

        def variables(state: Any) -> Any:
            return variables_of(**(state.get("ema") or {k: state.get(k) for k in _VARIABLES}))

        host = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
        if self._manager is not None:
            host = variables(self._read(step, None, variables))
        return meshes.broadcast(host)

    def _read(self, step: int, like: Any, variables: Callable[[Any], Any]) -> Any:
        """Return the state at a step if it has the weights that were saved, and our description."""
        args, read = self._args, self._manager.restore
        described = read(step, args=args.Composite(description=args.JsonRestore())).description
        if changes := differences(self._spec, described["spec"]):
            raise RunDirectoryError(
                f"{self._directory.parent / CONFIG}, as it is read now, does not describe what its "
                f"checkpoint {step} was trained as; undo the change. They have\n  "
                + "\n  ".join(changes)
            )
        state = read(step, args=args.Composite(state=args.StandardRestore(like))).state
        if described["weights"] != files.weights_checksum(jax.tree.leaves(variables(state))):
            raise RunDirectoryError(
                f"the checkpoint {self._directory / str(step)} has other weights than were saved"
            )
        return state

    def __exit__(self, *error: Any) -> None:
        if self._manager is not None:
            self._manager.wait_until_finished()
            self._manager.close()


class RunLog(contextlib.AbstractContextManager["RunLog"]):
    """Appends records to ``log.jsonl``. Use it in a ``with`` block. Only process 0 writes.

    Opening the log removes the records after the checkpoint at ``step``, from which the run
    resumes, so that every step is in the log once. A validation at this step stays: it judged the
    weights of the checkpoint. ``tensorboard`` is a directory for TensorBoard files. ``on_log`` is
    called with each record in process 0.

    Raises:
      ValueError: if ``tensorboard`` is given without the package tensorboardX.
    """

    def __init__(
        self,
        path: Path,
        step: int,
        tensorboard: Path | None = None,
        on_log: Callable[[Record], Any] | None = None,
    ):
        if tensorboard is not None and importlib.util.find_spec("tensorboardX") is None:
            raise ValueError(
                'tensorboard needs the package tensorboardX: pip install "vone-jax[tracking]"'
            )
        self._file = self._writer = None
        if jax.process_index() != 0:
            return
        kept = [record for record in read_log(path) if record["step"] <= step]
        self._path, self._on_log = path, on_log
        self._content = "".join(map(_line, kept))
        files.replace(path, lambda file: file.write(self._content.encode()))
        # An object in a bucket cannot be appended to; it is written anew with each record.
        self._file = None if files.in_bucket(path) else open(path, "a")
        if tensorboard is not None:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(tensorboard), purge_step=step + 1, flush_secs=1)

    def write(self, record: Record) -> None:
        """Append a record with ``kind``, ``step`` and finite numbers."""
        if jax.process_index() != 0:
            return
        line = _line(record)
        if self._file is None:
            self._content += line
            self._path.write_text(self._content)
        else:
            self._file.write(line)
            self._file.flush()
        if self._on_log is not None:
            self._on_log(dict(record))
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


def validations(directory: Path, steps: Sequence[int]) -> tuple[Record | None, Record | None]:
    """Return the validations of the best and of the last of some checkpoints, as the log has them.

    The best one has the highest accuracy, and is the first of several. A checkpoint that was not
    validated has None.
    """
    of_steps = {
        record["step"]: record
        for record in read_log(directory / LOG)
        if record["kind"] == "validation" and record["step"] in steps
    }
    best = max(of_steps.values(), key=lambda record: record["accuracy"], default=None)
    return best, of_steps.get(steps[-1]) if steps else None


def _line(record: Record) -> str:
    return json.dumps(record, allow_nan=False) + "\n"
