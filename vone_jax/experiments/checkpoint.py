"""Checkpoints of a run. This is the only module that imports Orbax.

A checkpoint at step k holds everything that step k + 1 depends on: the training state, the state of
the data iterator, and the sums since the last line of the log. It does not depend on the number of
devices, processes or data workers. It is written in the background, and gets its name only when it
is complete:

    N.partial/             step N while it is written or removed
    N/state/               the training state, as Orbax writes it
    N/metadata/metadata    position, and a digest of state and position
    N/SHA256SUMS           digests of all files, including those that are not needed to restore

So a damaged checkpoint is detected, the error names the damaged files, and the checkpoint before it
is used.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vone_jax import files
from vone_jax import mesh as meshes
from vone_jax.experiments.optimizer import PlateauState
from vone_jax.experiments.state import TrainState

# Checkpoints of format 1 have no SHA256SUMS.
_FORMAT = 2
_PARTIAL = ".partial"
# Part of the names of directories that Orbax is still writing.
_TEMPORARY = ".orbax-checkpoint-tmp"


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or no checkpoint could be read."""


@dataclasses.dataclass(frozen=True)
class Position:
    """The part of a checkpoint beside the training state, as JSON values."""

    # Step of the last validation, 0 if there was none.
    validated: int = 0
    # Sums since the last line of the log, see step.Sums.
    interval: dict[str, Any] = dataclasses.field(default_factory=dict)
    # Number of steps that were skipped because they were not finite.
    passed_over: dict[str, int] = dataclasses.field(default_factory=lambda: {"steps": 0})


def saved_steps(directory: Path) -> list[int]:
    """Return the steps of the checkpoints in a directory, which need not exist, oldest first."""
    if not directory.is_dir():
        return []
    names = (path.name for path in directory.iterdir())
    return sorted(int(name) for name in names if name.isdecimal())


class Checkpoints(contextlib.AbstractContextManager["Checkpoints"]):
    """The checkpoints of one run. Use it in a ``with`` block, which waits for the last write.

    All processes must make the same calls. Process 0 makes the directory and writes the files. The
    newest ``keep`` checkpoints stay. With ``read_only`` no file is changed, because another process
    may be writing there.
    """

    def __init__(self, directory: Path, keep: int = 2, read_only: bool = False):
        # Imported here, because the import takes long: wrong arguments are reported first.
        import orbax.checkpoint as ocp

        self.directory = Path(directory).absolute()
        self._keep = keep
        self._args = ocp.args
        self._checkpointer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        if not read_only:
            if jax.process_index() == 0:
                self.directory.mkdir(parents=True, exist_ok=True)
                for path in self.directory.iterdir():
                    if path.suffix == _PARTIAL or _TEMPORARY in path.name:
                        shutil.rmtree(path)
            meshes.barrier("checkpoints")

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # The error that ended the block must not be hidden.
        suppressed = () if error is None else (CheckpointError,)
        try:
            with contextlib.suppress(*suppressed):
                self.wait()
        finally:
            self._thread.shutdown()
            self._checkpointer.close()

    def steps(self) -> list[int]:
        """Return the steps of the existing checkpoints, oldest first."""
        return saved_steps(self.directory)

    def save(self, step: int, state: TrainState, position: Position) -> None:
        """Start writing a checkpoint, and return once ``state`` may be donated.

        Raises a ``CheckpointError`` if this one cannot be started or the last one was not written.
        """
        self.wait()
        steps = self.steps()
        if steps and step <= steps[-1]:
            raise CheckpointError(f"checkpoint {step} is not newer than {steps}")
        host_state = meshes.fetch(state)
        content = dataclasses.asdict(position)
        metadata = {
            "format": _FORMAT,
            "layout": _layout(host_state),
            "digest": _digest(host_state, content),
            "position": content,
        }
        items = self._args.Composite(
            state=self._args.StandardSave(host_state), metadata=self._args.JsonSave(metadata)
        )
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(host_state))
        with self._naming_failures():
            free = shutil.disk_usage(self.directory).free
            # Checked here, since the error of Orbax has hundreds of lines. Half of the size may be
            # enough: files are compressed, and the zeros of a new optimiser need no space.
            if free < needed / 2:
                raise OSError(
                    f"{os.strerror(errno.ENOSPC)}, {free / 1e6:.3g} MB are free and the state has "
                    f"{needed / 1e6:.3g} MB"
                )
            self._checkpointer.save(self._partial(step), args=items)
        self._writing = self._thread.submit(self._complete, step)

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk, or raise a ``CheckpointError``."""
        writing, self._writing = self._writing, None
        if writing is not None:
            with self._naming_failures():
                writing.result()

    def restore(
        self, like: TrainState | dict[str, Any], step: int | None = None
    ) -> tuple[int, TrainState, Position] | None:
        """Read the newest undamaged checkpoint, or the one at ``step``.

        A warning names damaged checkpoints. They are not changed. ``like`` has the shapes and
        dtypes of the state, see ``jax.eval_shape``. With those of its ``variables`` alone, any
        state of the optimiser is accepted, also one of another version of Optax.

        Returns:
          The step, the state (NumPy arrays, for any mesh) and the position of the checkpoint; None
          if there is no checkpoint.

        Raises:
          CheckpointError: if all checkpoints are damaged, there is none at ``step``, or one cannot
            be read for a reason that may pass, such as a missing permission.
          ValueError: if the checkpoint belongs to another network or optimiser than ``like``.
        """
        steps = self.steps()
        if step is not None and step not in steps:
            raise CheckpointError(f"no checkpoint {step} in {self.directory}; there are {steps}")
        damaged = []
        for candidate in [step] if step is not None else reversed(steps):
            directory = self.directory / str(candidate)
            problem, restored, barred = "", None, ""
            try:
                if (directory / files.DIGESTS).exists():
                    problem = "; ".join(files.damage(directory))
            except OSError as error:
                where = "" if error.filename is None else f"{error.filename}: "
                barred = f"{where}{error.strerror}"
            if meshes.any_process(bool(barred)):
                raise CheckpointError(
                    f"checkpoint {directory} may be whole, but "
                    f"{barred or 'another process cannot read it'}. Nothing was changed. Remove "
                    f"the cause and start again, or move the checkpoint away to use the one before "
                    f"it"
                )
            # All processes read at the same time, and must resume from the same checkpoint.
            if not meshes.any_process(bool(problem)):
                problem, restored = self._read(directory, like)
            if not meshes.any_process(restored is None) and restored is not None:
                if damaged:
                    going_back = f"checkpoint damaged, going back to step {candidate}: "
                    warnings.warn(going_back + "; ".join(damaged), stacklevel=2)
                return candidate, restored[0], restored[1]
            damaged.append(f"{directory} ({problem})")
        if damaged:
            raise CheckpointError(
                f"no checkpoint can be read: {'; '.join(damaged)}. Restore one from a copy, "
                f"or train again in another directory"
            )
        return None

    def set_aside(self, newer_than: int) -> None:
        """Move the checkpoints after a step to ``damaged/`` beside the directory."""
        for step in self.steps():
            if step > newer_than and jax.process_index() == 0:
                aside = self.directory.parent / "damaged"
                aside.mkdir(exist_ok=True)
                number = sum(1 for path in aside.iterdir() if path.name.startswith(f"{step}-"))
                (self.directory / str(step)).rename(aside / f"{step}-{number}")
        meshes.barrier("set aside")

    def _complete(self, step: int) -> None:
        """Wait for Orbax, give a checkpoint its digests and its name, and remove old ones."""
        self._checkpointer.wait_until_finished()
        if jax.process_index() == 0:
            files.write_digests(self._partial(step))
            self._partial(step).rename(self.directory / str(step))
            for old in self.steps()[: -self._keep]:
                # Renamed before it is removed: a half removed checkpoint would count as damaged.
                (self.directory / str(old)).rename(self._partial(old))
                shutil.rmtree(self._partial(old))

    def _partial(self, step: int) -> Path:
        return self.directory / f"{step}{_PARTIAL}"

    def _read(
        self, directory: Path, like: TrainState | dict[str, Any]
    ) -> tuple[str, tuple[TrainState, Position] | None]:
        """Return an empty string and the content of a checkpoint, or its problem and None."""
        whole = isinstance(like, TrainState)
        target = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like) if whole else None
        try:
            metadata = self._checkpointer.restore(
                directory, args=self._args.Composite(metadata=self._args.JsonRestore())
            )["metadata"]
            layout, digest = metadata["layout"], metadata["digest"]
            listed = metadata["format"] > 1
            position = Position(**metadata["position"])
        except Exception as error:
            return _first_line(error), None
        if listed and not (directory / files.DIGESTS).exists():
            return f"{files.DIGESTS} is missing", None
        other = (
            f"checkpoint {directory} belongs to another network{' or optimiser' if whole else ''}: "
            "its arrays have other names, shapes or dtypes"
        )
        if whole and layout != _layout(like):
            raise ValueError(other)
        try:
            state = self._checkpointer.restore(
                directory, args=self._args.Composite(state=self._args.StandardRestore(target))
            )["state"]
            if not whole:
                # Orbax has returned dictionaries, without those that are empty.
                plateau = PlateauState(**state.pop("plateau"))
                state = TrainState(**{"batch_stats": {}, "opt_state": (), **state}, plateau=plateau)
        except Exception as error:
            return _first_line(error), None
        # Dictionaries are sorted by name, so the state of an optimiser may come in another order
        # than it was saved. It does not in checkpoints without SHA256SUMS.
        if (whole or not listed) and digest != _digest(state, metadata["position"]):
            return "its content does not match its digest", None
        if not whole and _layout(state.variables) != _layout(like):
            raise ValueError(other)
        return "", (state, position)

    @contextlib.contextmanager
    def _naming_failures(self) -> Iterator[None]:
        """Turn any error into a ``CheckpointError`` that names the directory and what is intact."""
        try:
            yield
        except Exception as error:
            raise CheckpointError(
                f"a checkpoint could not be written to {self.directory}: {_first_line(error)}; "
                f"the checkpoints of the steps {self.steps()} are intact"
            ) from error


def _layout(state: TrainState | dict[str, Any]) -> str:
    """Return a digest of the names, shapes and dtypes of all arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    text = "\n".join(f"{jax.tree_util.keystr(k)} {x.dtype} {x.shape}" for k, x in leaves)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(state: TrainState, position: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(position, sort_keys=True).encode())
    for leaf in jax.tree.leaves(state):
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    line = str(error).splitlines()[0] if str(error) else ""
    # TensorStore puts the error of the system at the end of a long line.
    system = re.search(r"os_error_code='(\d+)'", line)
    cause = f"{os.strerror(int(system[1]))}: " if system else ""
    return f"{cause}{type(error).__name__}: {line[:400]}"
