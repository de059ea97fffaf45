"""The evaluation of a condition over a data set. It continues after a kill and writes results."""

import dataclasses
import datetime
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vone_jax import files, mesh, results
from vone_jax.evaluation import judging
from vone_jax.evaluation.conditions import Clean, Condition, Judged
from vone_jax.evaluation.job import Job
from vone_jax.results import ResultError
from vone_jax.results.result import read_json

# A condition with fewer passes per image is not timed before it starts.
_MANY_PASSES = 100
# Reports progress: examples that were finished since the last call, and whether they were found.
Report = Callable[[int, bool], Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Store:
    """The files of one evaluation: written in chunks, published whole, never mixed.

        NAME.partial/identity.json   what is being evaluated
        NAME.partial/00000300.npz    one value per example of a chunk, from position 300 on
        NAME.json, NAME.npz          the finished result

    Every file appears under its name complete, so a process may be killed at any moment and loses
    at most the chunk it was working on. Of several processes, only process 0 uses it. A
    ``ResultError`` tells of files that cannot be read, or are of another evaluation.
    """

    directory: Path
    name: str
    identity: dict[str, Any]

    @property
    def path(self) -> Path:
        """The JSON file of the finished result."""
        return self.directory / f"{self.name}.json"

    @property
    def _partial(self) -> Path:
        return self.directory / f"{self.name}.partial"

    def is_finished(self) -> bool:
        """True if there is a finished result of this evaluation."""
        if not self.path.exists():
            return False
        self._check(self.path, results.read(self.path).identity)
        self._discard()  # A process that was killed just after it had published leaves chunks.
        return True

    def chunks(self) -> list[dict[str, np.ndarray]]:
        """The chunks that were written so far, without a gap from the first example on."""
        described = self._partial / "identity.json"
        if described.exists():
            self._check(described, read_json(described))
        else:
            self._partial.mkdir(parents=True, exist_ok=True)
            files.replace_json(described, self.identity)
        chunks: list[dict[str, np.ndarray]] = []
        while (path := self._chunk(chunks)).exists():
            with np.load(path) as archive:
                chunks.append(dict(archive))
        return chunks

    def add(self, chunk: dict[str, Any], before: list[dict[str, np.ndarray]]) -> None:
        """Write a chunk that follows others."""
        files.replace(self._chunk(before), lambda file: np.savez(file, **chunk))

    def _chunk(self, before: list[dict[str, np.ndarray]]) -> Path:
        return self._partial / f"{_examples(before):08d}.npz"

    def publish(self, result: results.Result) -> None:
        """Write the finished result and remove its chunks."""
        results.write(result, self.directory)
        self._discard()

    def _discard(self) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)

    def _check(self, path: Path, found: dict[str, Any]) -> None:
        if differing := results.differences(self.identity, found):
            # Another network can differ in every field of its description.
            if (more := len(differing) - 8) > 0:
                differing[8:] = [f"and {more} more"]
            raise ResultError(
                f"{path} is of another evaluation ({'; '.join(differing)}); remove it, or give "
                "this one another name (--tag) or directory (--results)"
            )


def _examples(chunks: list[dict[str, np.ndarray]]) -> int:
    return sum(len(chunk["index"]) for chunk in chunks)


def evaluate(
    job: Job, condition: Condition, progress: Report = lambda count, found: None
) -> results.Result:
    """Evaluate one condition and write its result.

    Each batch is a chunk on disk when it is done. After a kill, a second call computes what is
    missing, and its result equals that of an uninterrupted call. A finished result is returned as
    it is. If several processes evaluate together, all of them must make the same calls; each loads
    its part of a batch, and process 0 writes.

    Raises:
      ResultError: if files of the same name cannot be read or are of another evaluation, or if the
        processes evaluate different things.
      ValueError: if the condition does not fit the network.
      FloatingPointError: if gradients or logits are not finite.
    """
    condition.check(job.network)
    identity = job.identity(condition)
    described = [identity, job.batch_size_of(condition)]
    if mesh.agree(lambda: described) != described:
        raise ResultError(
            "the processes evaluate different things; start all of them with the same options, on "
            "the same files"
        )
    store = Store(job.directory, job.name(condition), identity)
    if mesh.agree(store.is_finished):
        progress(len(job.examples_of(condition)), True)
        return results.read(store.path)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    # Process 0 has all chunks, the others those of this call.
    chunks: list[dict[str, np.ndarray]] = []

    def find() -> int:
        chunks.extend(store.chunks())
        return _examples(chunks)

    done = mesh.agree(find) if condition.by_example else 0
    progress(done, True)
    with jax.default_matmul_precision(identity["matmul_precision"]):
        try:
            for chunk in _new_chunks(job, condition, done):
                if jax.process_index() == 0 and condition.by_example:
                    store.add(chunk, chunks)
                chunks.append(chunk)
                progress(len(chunk["index"]), False)
        except FloatingPointError as error:
            error.args = (f"{job.network.name}, {condition.name}: {error}",)
            raise

    def publish() -> None:
        arrays = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
        seconds = float(arrays.pop("seconds").sum())
        if not condition.by_example:
            arrays = {name: array[0] for name, array in arrays.items() if name != "index"}
        summary = condition.summary(arrays)
        store.publish(
            results.Result(
                name=store.name,
                identity=identity,
                measured=summary.measured,
                label=condition.label,
                details=summary.details,
                warnings=[*summary.warnings, *_few_classes(arrays, job)],
                provenance=job.provenance
                | {
                    "device": mesh.describe(job.mesh),
                    "started": started,
                    "wall_seconds": round(seconds, 3),
                    "checkpoint_step": job.network.checkpoint_step,
                    "parameters": job.network.parameters,
                    "notes": list(job.network.notes),
                    "class_names": list(job.class_names),
                },
                arrays={name: array for name, array in arrays.items() if array.dtype.kind != "U"},
            )
        )

    mesh.agree(publish)
    return results.read(store.path)


def expected_seconds(job: Job, condition: Condition) -> float:
    """The time that a condition will take, from that of judging the first batch.

    It is 0 for few passes, and for a finished result. The program that judges is compiled for the
    condition anyway.
    """
    finished = job.directory / f"{job.name(condition)}.json"
    passes = job.passes(condition)
    if not condition.by_example or passes < _MANY_PASSES or finished.exists():
        return 0.0
    with jax.default_matmul_precision(job.matmul_precision):
        _, trial = next(job.trials(condition))
        jax.block_until_ready(trial.judge(trial.images))
        since = time.perf_counter()
        jax.block_until_ready(trial.judge(trial.images))
    each = (time.perf_counter() - since) / (job.passes(Clean()) * len(trial.images))
    return each * passes * len(job.examples_of(condition))


def _few_classes(arrays: dict[str, np.ndarray], job: Job) -> list[str]:
    """A warning if all images are of one class of several."""
    labels = np.unique(arrays.get("label", ()))
    if len(labels) != 1 or len(job.class_names) < 2:
        return []
    name = job.class_names[int(labels[0])]
    return [f"All images are of the class {name!r}, so the numbers say little."]


def _new_chunks(job: Job, condition: Condition, start: int) -> Iterator[dict[str, np.ndarray]]:
    """A chunk of arrays for each batch from the position ``start`` on.

    That of a condition that is not measured by example is one row of all its arrays.
    """
    kept = min(getattr(condition, "kept", 0), job.examples)
    shown = job.subset.indices[np.arange(kept) * job.examples // max(kept, 1)]
    since = time.perf_counter()
    for placed, trial in job.trials(condition, start):
        batch = mesh.fetch(placed)
        mask = batch["mask"]
        index = batch["index"][mask].astype(np.int64)
        try:
            arrays = mesh.fetch(condition.measure(trial))
        except FloatingPointError as error:
            error.args = (f"{error}; the batch begins at example {index[0]} of the split",)
            raise
        if not condition.by_example:
            chunk = {name: np.asarray(value)[None] for name, value in arrays.items()}
        else:
            arrays |= mesh.fetch({"key": jax.random.key_data(trial.example_keys)})
            chunk = {"label": batch["label"][mask]}
            chunk |= {name: value[mask] for name, value in arrays.items()}
        if isinstance(condition, Judged):
            judging.check_finite(chunk["loss"], index)
            chunk["probability_correct"] = judging.probability_correct(chunk["right"])
        if kept:
            rows = np.isin(index, shown)
            chunk |= {name: chunk[name][rows] for name in ("adversarial", "original")}
            chunk["kept"] = index[rows]
        now = time.perf_counter()
        yield {"index": index, **chunk, "seconds": np.array([now - since])}
        since = now
