"""The evaluation of tasks over a data set. It continues after a kill and writes result files."""

import abc
import contextlib
import dataclasses
import datetime
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vone_jax import files, mesh, results
from vone_jax.evaluation import judging
from vone_jax.evaluation.conditions import Attacked, Condition, Judged
from vone_jax.evaluation.job import Job, batches, place
from vone_jax.results import ResultError

# The array of a chunk that holds the names of the others.
_FIELDS = "fields"
# Arrays that a chunk of an earlier call may lack. One call may want a gallery and another not, and
# earlier versions did not store the predictions, or where there is no gradient.
_OPTIONAL = ("adversarial", "kept", "predicted", "flat")


class OtherEvaluationError(ResultError):
    """A result of the same name, or another process, is of another evaluation."""


class Figure(abc.ABC):
    """A result for a figure or table of the report, made at once and not in batches.

    It has pictures, a recorded layer, or means over other results.

    Attributes:
      name: the stem of its result files.
      replaces: whether another result of the same name is replaced without ``overwrite``, because
        it is computed from other results and can be computed again.
    """

    name: str
    replaces: bool = False

    @abc.abstractmethod
    def identity(self, job: Job, earlier: Sequence[results.Result]) -> results.Identity | None:
        """The identity of the result, given the results of earlier tasks. None: nothing to make."""

    @abc.abstractmethod
    def make(
        self, job: Job, earlier: Sequence[results.Result]
    ) -> tuple[results.Measured | None, dict[str, Any]]:
        """The numbers, if there are any, and the arrays."""


Task = Condition | Figure


@dataclasses.dataclass(frozen=True, eq=False)
class Store:
    """The files of one evaluation: written in chunks, published whole, never mixed.

        NAME.partial/identity.json   what is being evaluated
        NAME.partial/00000300.npz    one value per example of a chunk, from position 300 on
        NAME.json, NAME.npz          the finished result

    Every file appears under its name complete, so a process may be killed at any moment and loses
    at most the chunk it was working on. If several processes evaluate together, all of them make
    the same calls, and process 0 writes.

    Attributes:
      directory: directory of the results of the network.
      identity: what is evaluated.
    """

    directory: Path
    identity: results.Identity

    def path(self, suffix: str) -> Path:
        """The file of the result with a suffix, such as ``".json"``."""
        return self.directory / f"{self.identity.name}{suffix}"

    @property
    def _partial(self) -> Path:
        return self.path(".partial")

    def _chunk(self, position: int) -> Path:
        return self._partial / f"{position:08d}.npz"

    @property
    def lock(self) -> Path:
        """The file that is locked while the result is made."""
        return self.directory / f".{self.identity.name}.lock"

    def finished(self) -> results.Result | None:
        """The finished result of this evaluation; None if there is no result of its name.

        Raises:
          ResultError: if a result of its name is damaged or of another evaluation.
        """
        path = self.path(".json")
        if not path.exists():
            return None
        result = results.read(path)
        self._check_same(path, result)
        # A layer that could not be scored has no arrays.
        scored = not isinstance(result.measured, results.Physiology) or result.measured.scores
        if scored and not result.arrays:
            raise ResultError(f"{path} has lost its arrays; delete it and evaluate again")
        return result

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other programs from this evaluation within a ``with`` block.

        Raises:
          ResultError: if another process holds the lock.
        """
        if not _writes():
            yield
            return
        with contextlib.ExitStack() as stack:
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
                stack.enter_context(files.locked(self.lock))
            except OSError as error:
                if error.errno not in files.NOT_PERMITTED:
                    raise
                raise ResultError(
                    f"{self.directory} cannot be written to: {error.strerror}; name another "
                    f"directory (--results)"
                ) from error
            except files.LockedError as error:
                raise ResultError(
                    f"another process is writing {self.path('')}; wait for "
                    f"it, or give this one another name (--tag): {error}"
                ) from None
            try:
                yield
            finally:
                self.lock.unlink(missing_ok=True)

    def chunks(self) -> list[dict[str, np.ndarray]]:
        """The chunks that were written so far, in order and without a gap from the first example.

        Raises:
          ResultError: if they are damaged or of another evaluation.
        """
        described = self._partial / "identity.json"
        if described.exists():
            self._check_same(described, results.read_json(described))
        elif _writes():
            self._partial.mkdir(parents=True, exist_ok=True)
            files.replace_json(described, results.to_json(self.identity))
        chunks, position = [], 0
        while (path := self._chunk(position)).exists():
            chunks.append(_read_chunk(path))
            position += len(chunks[-1]["index"])
        return chunks

    def add_chunk(self, position: int, arrays: dict[str, Any]) -> None:
        """Write the chunk that begins at a position."""
        if _writes():
            # A damaged archive can lose an array without an error, so the names are stored, too.
            whole: dict[str, Any] = arrays | {_FIELDS: np.array(sorted(arrays))}
            files.replace(self._chunk(position), lambda file: np.savez(file, **whole))

    def publish(self, result: results.Result) -> None:
        """Write the finished result and remove its chunks."""
        if _writes():
            results.write(self.directory, result)
            self.discard()

    def discard(self, *others: Path) -> None:
        """Remove the chunks, and other files."""
        if _writes():
            shutil.rmtree(self._partial, ignore_errors=True)
            for path in others:
                path.unlink(missing_ok=True)

    def _check_same(self, path: Path, found: results.Identity | dict[str, Any]) -> None:
        if differing := results.differences(self.identity, found):
            # Another network can differ in every field of its config.
            if (more := len(differing) - 8) > 0:
                differing[8:] = [f"and {more} more"]
            raise OtherEvaluationError(
                f"{path} is of another evaluation ({'; '.join(differing)}); overwrite it "
                f"(--overwrite), or give this one another name (--tag) or directory (--results)"
            )


def _writes() -> bool:
    return jax.process_index() == 0


def _read_chunk(path: Path) -> dict[str, np.ndarray]:
    arrays = results.read_arrays(path)
    fields = arrays.pop(_FIELDS, None)
    if fields is None or fields.tolist() != sorted(arrays):
        raise ResultError(f"{path} has lost arrays; delete it and evaluate again")
    return arrays


def evaluate(
    job: Job,
    task: Task,
    earlier: Sequence[results.Result] = (),
    progress: Callable[[int, bool], Any] = lambda count, found: None,
) -> results.Result | None:
    """Evaluate one task and write its result.

    Each batch of a condition is a chunk on disk when it is done. After a kill, a second call
    computes what is missing, and its result equals that of an uninterrupted call. A finished result
    is returned as it is, unless it is made of other results that were replaced. If several
    processes evaluate together, all of them must make the same calls; each loads its part of a
    batch, and process 0 writes.

    Args:
      job: the common part of the tasks.
      task: the task.
      earlier: results of earlier tasks, for tasks that need them.
      progress: called with the number of examples that were finished since the last call, and
        whether they were found in files.

    Returns:
      The result, or None if there is nothing to make.

    Raises:
      ResultError: if files of the same name are damaged, of another evaluation, or being
        written by another program, or if the processes evaluate different things.
      FloatingPointError: if gradients or logits are not finite.
    """
    if isinstance(task, Condition):
        identity = job.identity(task.name, task.record())
        replaces = False
    else:
        identity, replaces = task.identity(job, earlier), task.replaces
        if identity is None:
            return None
    fields = dict(vars(identity))
    check_same_evaluation(
        {
            "networks": fields.pop("network"),
            "images": fields.pop("dataset"),
            "--batch-size": job.batch_size,
            "settings": fields,
        }
    )
    store = Store(job.directory, identity)
    result = _finished(job, store, replaces)
    if result is not None and replaces:
        # The results that it is made of may have been replaced.
        assert isinstance(task, Figure)
        if task.make(job, earlier)[0] != result.measured:
            result = None
    if result is not None:
        # A process that was killed just after it had published its result leaves chunks and lock.
        store.discard(store.lock)
        if isinstance(task, Condition):
            progress(len(job.examples), True)
        return result
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with store.locked(), jax.default_matmul_precision(identity.matmul_precision):
        if isinstance(task, Condition):
            try:
                measured, arrays, seconds = _measured(job, task, store, progress)
            except FloatingPointError as error:
                error.args = (f"{job.network.name}, {task.name}: {error}",)
                raise
        else:
            since = time.perf_counter()
            measured, arrays = task.make(job, earlier)
            seconds = time.perf_counter() - since
        result = results.Result(
            **vars(identity),
            run=job.network.name,
            provenance=results.Provenance(
                versions=job.versions,
                command=job.command,
                device=mesh.describe(job.mesh),
                started=started,
                wall_seconds=round(seconds, 3),
            ),
            measured=measured,
            arrays=arrays,
        )
        store.publish(result)
    return result


def _finished(job: Job, store: Store, replaces: bool) -> results.Result | None:
    """The finished result of an evaluation, if there is one. All processes must agree on it."""
    with mesh.first_process_first("finished result"):
        try:
            result = store.finished()
        except ResultError:
            if not (job.request.overwrite or replaces):
                raise
            store.discard(store.path(".json"), store.path(".npz"))
            result = None
    check_same_files(job, result is not None)
    return result


def check_same_evaluation(parts: Mapping[str, Any]) -> None:
    """Raise an ``OtherEvaluationError`` if parts of an evaluation differ between processes."""
    if different := mesh.differing(parts):
        raise OtherEvaluationError(
            f"the processes have different {', '.join(different)}; start all of them with the "
            "same options, on the same files"
        )


def check_same_files(job: Job, found: Any) -> None:
    """Check that all processes found the same result files; ``found`` depends on these files."""
    if mesh.differing({"files": found}):
        raise ResultError(
            f"the processes do not find the same files in {job.directory}; it must be on a file "
            "system that they share"
        )


def _measured(
    job: Job, condition: Condition, store: Store, progress: Callable[[int, bool], Any]
) -> tuple[results.Measured, dict[str, Any], float]:
    """The numbers, the arrays and the seconds of a condition; its chunks are written on the way."""
    with mesh.first_process_first("chunks"):
        try:
            chunks = store.chunks()
        except ResultError:
            if not job.request.overwrite:
                raise
            store.discard()
            chunks = store.chunks()
    done = sum(len(chunk["index"]) for chunk in chunks)
    check_same_files(job, done)
    progress(done, True)
    for chunk in _new_chunks(job, condition, done):
        store.add_chunk(done, chunk)
        chunks.append(chunk)
        done += len(chunk["index"])
        progress(len(chunk["index"]), False)
    arrays = {
        name: np.concatenate([chunk[name] for chunk in chunks])
        for name in chunks[0]
        if name not in _OPTIONAL or all(name in chunk for chunk in chunks)
    }
    seconds = float(arrays.pop("seconds").sum())
    return condition.summary(arrays), arrays, seconds


def _new_chunks(job: Job, condition: Condition, start: int) -> Iterator[dict[str, np.ndarray]]:
    """A chunk of arrays for each batch from the position ``start`` on."""
    kept = condition.kept if isinstance(condition, Attacked) else 0
    for_gallery = job.examples.indices[job.spread(kept)]
    since = time.perf_counter()
    with contextlib.closing(batches(job, start=start, workers=job.request.workers)) as parts:
        for part in parts:
            placed, trial = place(job, part)
            batch = mesh.fetch(placed)
            try:
                arrays = condition.measure(trial)
            except FloatingPointError as error:
                begin = f"the batch begins at example {batch['index'][0]} of the split"
                error.args = (f"{error}; {begin}",)
                raise
            arrays |= {"key": jax.random.key_data(trial.example_keys)}
            mask = batch["mask"]
            index = batch["index"][mask].astype(np.int64)
            arrays = {name: value[mask] for name, value in mesh.fetch(arrays).items()}
            if isinstance(condition, Judged):
                judging.check_finite(arrays["loss"], index)
                arrays["probability_correct"] = judging.probability_correct(arrays["right"])
            if "adversarial" in arrays:
                shown = np.isin(index, for_gallery)
                arrays |= {"adversarial": arrays["adversarial"][shown], "kept": index[shown]}
            chunk = {"index": index, "label": batch["label"][mask], **arrays}
            now = time.perf_counter()
            yield chunk | {"seconds": np.array([now - since])}
            since = now
