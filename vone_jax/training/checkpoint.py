"""Checkpoints of a run. The one module that imports Orbax.

A checkpoint at step k holds everything the step k + 1 depends on: the training state and the
position of the data iterator, with the interval that the log is averaging over. Nothing in it
depends on the number of devices, processes or data workers. It is written in the background,
and appears under its name only when it is whole:

    N.partial/             of step N while it is written, or removed
    N/state/               the training state, as Orbax writes it
    N/metadata/metadata    position, digest of state and position
    N/SHA256SUMS           digests of all files, those that restoring does not need too

So a damaged one is found out, what is damaged is named, and the one before it is used.
"""

import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from vone_jax import mesh as meshes
from vone_jax.training import file_digests
from vone_jax.training.state import TrainState

# Those of format 1 have no SHA256SUMS.
_FORMAT = 2
_PARTIAL = ".partial"
# In the names of what Orbax is still writing.
_TEMPORARY = ".orbax-checkpoint-tmp"


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or none of those there could be read."""


@dataclasses.dataclass(frozen=True)
class Position:
    """What belongs to a checkpoint beside the training state, as JSON values.

    Attributes:
      data: state of the data iterator, the same in all processes.
      validated: the last step at which the run was validated, 0 if never.
      interval: sums that the log has gathered since its last line.
      passed_over: what the run has done without since it began, see ``meters.PassedOver``.
    """

    data: dict[str, Any]
    validated: int
    interval: dict[str, Any]
    passed_over: dict[str, int] = dataclasses.field(default_factory=dict)


class Checkpoints:
    """The checkpoints of one run; use it in a ``with`` block, which waits for the last write.

    All processes must make the same calls; the files are written once.

    Args:
      directory: made if it is not there.
      keep: number of checkpoints kept, the newest ones.
      read_only: touch no file, because another process may be writing there.
    """

    def __init__(self, directory: Path, keep: int = 2, read_only: bool = False):
        self.directory = Path(directory).absolute()
        self._keep = keep
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

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.wait()
        except CheckpointError:
            if error is None:
                raise
            # The error that ended the block is the one to see.
        finally:
            self._thread.shutdown()
            self._checkpointer.close()

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, oldest first."""
        if not self.directory.is_dir():
            return []
        names = (path.name for path in self.directory.iterdir())
        return sorted(int(name) for name in names if name.isdecimal())

    def save(self, step: int, state: TrainState, position: Position) -> None:
        """Starts writing a checkpoint; returns once ``state`` may be donated.

        Args:
          step: its number, above that of every checkpoint there.
          state: on any mesh.
          position: see ``Position``.

        Raises:
          CheckpointError: if this one cannot be started, or the one before could not be written.
        """
        self.wait()
        steps = self.steps()
        if steps and step <= steps[-1]:
            raise CheckpointError(f"checkpoint {step} is not newer than {steps}")
        host_state = meshes.fetch(state)
        self._check_room(sum(leaf.nbytes for leaf in jax.tree.leaves(host_state)))
        content = dataclasses.asdict(position)
        metadata = {
            "format": _FORMAT,
            "layout": _layout(host_state),
            "digest": _digest(host_state, content),
            "position": content,
        }
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(host_state), metadata=ocp.args.JsonSave(metadata)
        )
        try:
            self._checkpointer.save(self._partial(step), args=items)
        except Exception as error:
            raise self._not_written(error) from error
        self._writing = self._thread.submit(self._complete, step)

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
          CheckpointError: if a checkpoint could not be written.
        """
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        try:
            writing.result()
        except Exception as error:
            raise self._not_written(error) from error

    def restore(
        self, like: TrainState, step: int | None = None
    ) -> tuple[int, TrainState, Position] | None:
        """The newest checkpoint that is undamaged, or the one at ``step``.

        A damaged checkpoint is named in a warning and left where it is.

        Args:
          like: shapes and dtypes of the state, see ``jax.eval_shape``.
          step: of the one to read; default: the newest, or an older one if that is damaged.

        Returns:
          Its step, state (NumPy arrays, for any mesh) and position; None if there are none.

        Raises:
          CheckpointError: if those there are all damaged, or ``step`` is not among them.
          ValueError: if it belongs to another network or optimiser than ``like``.
        """
        steps = self.steps()
        if step is not None and step not in steps:
            raise CheckpointError(f"no checkpoint {step} in {self.directory}; there are {steps}")
        damaged = []
        for candidate in [step] if step is not None else reversed(steps):
            problem, restored = self._damage(candidate), None
            # Processes read at the same time, and must not go on from different checkpoints.
            if not meshes.any_process(bool(problem)):
                problem, restored = self._read(candidate, like)
            if not meshes.any_process(restored is None) and restored is not None:
                if damaged:
                    warnings.warn(
                        f"checkpoint damaged, going back to step {candidate}: "
                        + "; ".join(damaged),
                        stacklevel=2,
                    )
                return candidate, restored[0], restored[1]
            damaged.append(f"{self.directory / str(candidate)} ({problem})")
        if damaged:
            raise CheckpointError("no checkpoint can be read: " + "; ".join(damaged))
        return None

    def set_aside(self, newer_than: int) -> None:
        """Moves the checkpoints above a step to ``damaged/`` beside the directory."""
        for step in self.steps():
            if step > newer_than and jax.process_index() == 0:
                aside = self.directory.parent / "damaged"
                aside.mkdir(exist_ok=True)
                number = sum(1 for path in aside.iterdir() if path.name.startswith(f"{step}-"))
                (self.directory / str(step)).rename(aside / f"{step}-{number}")
        meshes.barrier("set aside")

    def _check_room(self, needed: int) -> None:
        """Says that ``needed`` bytes have no room, before Orbax does so in hundreds of lines."""
        free = shutil.disk_usage(self.directory).free
        # What is written is compressed: weights hardly, an optimiser's zeros away.
        if free < needed / 2:
            raise self._not_written(
                OSError(
                    f"{os.strerror(errno.ENOSPC)}, {free / 1e6:.3g} MB are free and the state has "
                    f"{needed / 1e6:.3g} MB"
                )
            )

    def _complete(self, step: int) -> None:
        """Waits for Orbax, gives a checkpoint its digests and its name, and drops old ones."""
        self._checkpointer.wait_until_finished()
        if jax.process_index() == 0:
            file_digests.write(self._partial(step))
            self._partial(step).rename(self.directory / str(step))
            for old in self.steps()[: -self._keep]:
                # Under its name it would be damaged if the program ended meanwhile.
                (self.directory / str(old)).rename(self._partial(old))
                shutil.rmtree(self._partial(old))

    def _partial(self, step: int) -> Path:
        return self.directory / f"{step}{_PARTIAL}"

    def _damage(self, step: int) -> str:
        """Which files of a checkpoint are damaged; empty if none, or none has a digest."""
        directory = self.directory / str(step)
        if not (directory / file_digests.NAME).exists():
            return ""
        return "; ".join(file_digests.damage(directory))

    def _read(self, step: int, like: TrainState) -> tuple[str, tuple[TrainState, Position] | None]:
        """What is wrong with a checkpoint, or its content."""
        directory = self.directory / str(step)
        target = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
        try:
            metadata = self._checkpointer.restore(
                directory, args=ocp.args.Composite(metadata=ocp.args.JsonRestore())
            )["metadata"]
            layout, digest = metadata["layout"], metadata["digest"]
            listed = metadata["format"] > 1
            position = Position(**metadata["position"])
        except Exception as error:
            return _first_line(error), None
        if listed and not (directory / file_digests.NAME).exists():
            return f"{file_digests.NAME} is missing", None
        if layout != _layout(target):
            raise ValueError(
                f"checkpoint {directory} belongs to another network or optimiser: "
                "its arrays have other names, shapes or dtypes"
            )
        try:
            state = self._checkpointer.restore(
                directory, args=ocp.args.Composite(state=ocp.args.StandardRestore(target))
            )["state"]
        except Exception as error:
            return _first_line(error), None
        if digest != _digest(state, metadata["position"]):
            return "its content does not match its digest", None
        return "", (state, position)

    def _not_written(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"a checkpoint could not be written to {self.directory}: {_first_line(error)}; "
            f"those of the steps {self.steps()} are intact"
        )


def _layout(state: TrainState) -> str:
    """A digest of the names, shapes and dtypes of all arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    text = "\n".join(f"{jax.tree_util.keystr(k)} {x.dtype} {x.shape}" for k, x in leaves)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(state: TrainState, position: dict[str, Any]) -> str:
    """A digest of all that a checkpoint holds."""
    digest = hashlib.sha256(json.dumps(position, sort_keys=True).encode())
    for leaf in jax.tree.leaves(state):
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    line = str(error).splitlines()[0] if str(error) else ""
    # TensorStore says at the end of a long line what the system has said.
    system = re.search(r"os_error_code='(\d+)'", line)
    cause = f"{os.strerror(int(system[1]))}: " if system else ""
    return f"{cause}{type(error).__name__}: {line[:400]}"
