"""The measurement of a condition: the loop over batches, and the files of what it has made.

An evaluation continues after a kill and writes results.
"""

import contextlib
import dataclasses
import datetime
import glob
import itertools
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vone_jax import files, mesh, results
from vone_jax.evaluation import judging
from vone_jax.evaluation.condition import Condition, Judged, KindError, Number, Numbers, place_of
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.evaluation.identity import decisive, identity, is_of_user, told_apart
from vone_jax.evaluation.judging import Batch
from vone_jax.neurophysiology import recording
from vone_jax.results import Result, ResultError

# Reports progress: examples or stimuli that were finished since the last call, and whether they
# were found.
Report = Callable[[int, bool], Any]
Arrays = dict[str, np.ndarray]
# Images of equal keys differ by less, on devices whose sums depend on their order.
_ROUNDING = 1e-3


def measure(condition: Condition, batches: Iterable[Batch]) -> Iterator[Arrays]:
    """Measure the batches of a condition, and yield the arrays of each.

    Arrays have a row for each example that is not masked: "index", "label" and "key", those of the
    condition, and for judged images "probability_correct". A condition that is not measured by
    example has its arrays alone, of the first batch.

    Raises:
      FloatingPointError: if gradients or logits are not finite; the message names the examples.
    """
    for batch in batches:
        index = np.arange(len(batch.labels)) if batch.index is None else mesh.fetch(batch.index)
        try:
            made = mesh.fetch(_made(condition, batch))
        except FloatingPointError as error:
            error.args = (f"{error}; the batch begins at example {int(index[0])}",)
            raise
        if not condition.by_example:
            yield {name: np.asarray(value) for name, value in made.items()}
            return
        keys = jax.random.key_data(batch.example_keys)
        whole = {"index": index.astype(np.int64), **mesh.fetch({"label": batch.labels}), **made}
        whole |= mesh.fetch({"key": keys})
        mask = slice(None) if batch.mask is None else mesh.fetch(batch.mask)
        arrays = {name: np.asarray(value)[mask] for name, value in whole.items()}
        if not condition.reports_faults:
            for name in (each for each in arrays if each.startswith("loss")):
                loss = arrays[name].reshape(len(arrays[name]), -1).sum(axis=1)
                judging.check_finite(loss, arrays["index"])
        if "right" in arrays and arrays["right"].ndim == 2:
            arrays["probability_correct"] = judging.probability_correct(arrays["right"])
        yield arrays


def _made(condition: Condition, batch: Batch) -> dict[str, Any]:
    """What a condition makes of a batch.

    Raises:
      KindError: if a user's ``make`` returns something else than arrays with a row for each
        example.
    """
    with _noting_place(condition):
        made = condition.make(batch)
    if not isinstance(made, Mapping):
        raise KindError(
            f"{place_of(condition)}: make() must return a dictionary of arrays, got "
            f"{type(made).__name__}"
        )
    count = len(batch.labels)
    for name, each in made.items() if condition.by_example else ():
        if np.shape(each)[:1] != (count,):
            raise KindError(
                f"{place_of(condition)}: make() must return arrays with a row for each of the "
                f"{count} images, got {name!r} of shape {np.shape(each)}"
            )
    return dict(made)


@contextlib.contextmanager
def _noting_place(condition: Condition) -> Iterator[None]:
    """Add a note to an error in a user's code; eval.py shows the traceback of an error with one."""
    try:
        yield
    except FloatingPointError:
        raise  # It names the examples.
    except Exception as error:
        if is_of_user(condition):
            error.add_note(f"The error is from {place_of(condition)}.")
        raise


@dataclasses.dataclass(frozen=True, eq=False)
class Store:
    """The files of one evaluation: written in chunks, published whole, never mixed.

        STEM.DIGEST.partial/00000300.npz   the arrays of some examples, from number 300 on
        STEM.json, STEM.npz                the finished result
        .STEM.lock                         held by the process that measures

    DIGEST is that of the identity without the number of examples. So chunks belong to one
    measurement, and one over more examples goes on with them. Every file appears under its name
    complete, so a process may be killed at any moment and loses at most the chunk it was working
    on. Of several processes, only process 0 uses it.
    """

    directory: Path
    stem: str
    identity: dict[str, Any]

    @property
    def path(self) -> Path:
        """The JSON file of the finished result."""
        return self.directory / f"{self.stem}.json"

    @property
    def _chunks(self) -> Path:
        return self.directory / f"{self.stem}.{_digest(self.identity)}.partial"

    @property
    def _lock(self) -> Path:
        return self.directory / f".{self.stem}.lock"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the result.

        Raises:
          ResultError: if another process holds it.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(files.locked(self._lock))
            except files.LockedError as error:
                raise ResultError(
                    f"{self.path} is being measured by {error}; wait for it, or give this one "
                    "another name (--tag) or directory (--results)"
                ) from None
            # What processes that were killed while they wrote have left.
            for left in self.directory.glob(f".{glob.escape(self.stem)}.*.tmp"):
                left.unlink(missing_ok=True)
            stack.callback(self._lock.unlink, missing_ok=True)
            yield

    def is_finished(self) -> bool:
        """True if there is a finished result of this evaluation.

        Raises:
          ResultError: if there is one of another evaluation, or it cannot be read.
        """
        if not results.is_complete(self.path):
            return False
        found = results.read(self.path).identity
        if not (differing := told_apart(self.identity, found)):
            return True
        if _digest(found) == _digest(self.identity) and self._grows(found):
            return False
        # Another network can differ in every field of its description.
        if (more := len(differing) - 8) > 0:
            differing[8:] = [f"and {more} more"]
        raise ResultError(
            f"{self.path} is of another evaluation ({'; '.join(differing)}); measure it again "
            "(--overwrite), or give this one another name (--tag) or directory (--results)"
        )

    def _grows(self, found: dict[str, Any]) -> bool:
        """Whether a result is over fewer of the same images."""
        return found["dataset"]["examples"] < self.identity["dataset"]["examples"]

    def discard(self) -> None:
        """Remove the chunks of this evaluation, and the lock of a process that was killed."""
        shutil.rmtree(self._chunks, ignore_errors=True)
        with contextlib.suppress(files.LockedError, OSError):
            if self._lock.exists():
                with files.locked(self._lock):
                    self._lock.unlink()

    def found(self, anew: bool = False) -> list[Arrays]:
        """The chunks that were written so far, and a finished result over fewer examples.

        Args:
          anew: whether a finished result does not count.

        Raises:
          ResultError: if one of them cannot be read.
        """
        if not anew and results.is_complete(self.path):
            earlier = results.read(self.path)
            if _digest(earlier.identity) == _digest(self.identity):
                chunk = dict(earlier.arrays)
                chunk["seconds"] = np.array([earlier.provenance["wall_seconds"]])
                self.add(chunk)
        chunks = []
        for path in sorted(self._chunks.glob("*.npz")):
            try:
                chunks.append(files.read_npz(path))
            except ValueError as error:
                raise ResultError(f"{error}; remove this file") from error
        return chunks

    def add(self, chunk: dict[str, Any]) -> None:
        """Write a chunk, named after its first example."""
        self._chunks.mkdir(parents=True, exist_ok=True)
        path = self._chunks / f"{int(chunk['index'][0]):08d}.npz"
        files.replace(path, lambda file: np.savez(file, **chunk))

    def publish(self, result: Result) -> None:
        """Write the finished result and remove its chunks."""
        # The JSON file stands for a complete result, so it goes before its arrays are replaced.
        self.path.unlink(missing_ok=True)
        results.write(result, self.directory)
        # Also the chunks of other measurements, which this result has taken the place of.
        for chunks in self.directory.glob(f"{glob.escape(self.stem)}.*.partial"):
            shutil.rmtree(chunks, ignore_errors=True)


def _digest(identity: dict[str, Any]) -> str:
    """The digest of a measurement, whatever the number of its examples."""
    whole = decisive(identity)
    counted = ("examples", "fingerprint")
    dataset = {name: v for name, v in whole["dataset"].items() if name not in counted}
    return files.json_digest(whole | {"dataset": dataset})[:12]


def evaluate(
    evaluation: Evaluation, condition: Condition, progress: Report = lambda count, found: None
) -> Result:
    """Measure one condition and write its result.

    Each batch is a chunk on disk when it is done. After a kill, a second call computes what is
    missing, and its result equals that of an uninterrupted call. A result over fewer examples is
    continued in the same way, where its examples are among those that are asked for. A finished
    result is returned as it is. If several processes evaluate together, all of them must make the
    same calls; each loads its part of a batch, and process 0 writes.

    Args:
      evaluation: the network, the images and the rules.
      condition: what is measured.
      progress: called with the number of examples, or of stimuli of the condition's own, that were
        finished since the last call, and whether they were found on disk.

    Raises:
      ResultError: if files of the same name cannot be read or are of another evaluation, if another
        process measures the same result, or if the processes evaluate different things.
      ValueError: if the condition does not fit the network.
      FloatingPointError: if gradients or logits are not finite.
    """
    evaluation.check(condition)
    what, examples = identity(evaluation, condition), evaluation.data.of(condition)
    described = [what, evaluation.data.batch_size_of(condition, len(examples))]
    if mesh.from_process_0(lambda: described) != described:
        raise ResultError(
            "the processes evaluate different things; start all of them with the same options, on "
            "the same files"
        )
    row = evaluation.row(condition)
    store = Store(evaluation.directory, results.stem(row), what)

    def is_finished() -> bool:
        if evaluation.overwrite or not store.is_finished():
            return False
        if is_of_user(condition):
            _check_numbers(condition, evaluation, results.read(store.path), store.path)
        return True

    with contextlib.ExitStack() as stack:
        if not mesh.from_process_0(is_finished):
            mesh.from_process_0(lambda: stack.enter_context(store.locked()))
        # Another process may have finished it since.
        if mesh.from_process_0(is_finished):
            mesh.from_process_0(store.discard)
            progress(evaluation.data.work_of(condition)[0], True)
            return results.read(store.path)
        if evaluation.overwrite:
            mesh.from_process_0(store.discard)
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with jax.default_matmul_precision(what["matmul_precision"]):
            try:
                chunks = _measured(evaluation, condition, store, progress)
                doubts = _doubts(evaluation, condition, what)
            except FloatingPointError as error:
                error.args = (f"{evaluation.network.name}, {condition.label}: {error}",)
                raise

        def publish() -> None:
            seconds = sum(float(chunk.pop("seconds").sum()) for chunk in chunks)
            arrays = _joined(chunks, evaluation, condition)
            found = _found(condition, arrays, evaluation)
            arrays |= {name: np.asarray(each) for name, each in found.arrays.items()}
            numbers = [_stored(each, arrays) for each in found.measured]
            provenance = evaluation.provenance | {
                "device": mesh.describe(evaluation.mesh),
                "started": started,
                "wall_seconds": round(seconds, 3),
                "checkpoint_step": evaluation.network.checkpoint_step,
                "parameters": evaluation.network.parameters,
                "notes": list(evaluation.notes),
                "class_names": list(evaluation.class_names),
                "logits_classes": evaluation.network.num_classes,
            }
            result = Result(
                row=row,
                numbers=numbers,
                identity=what,
                section=condition.heading,
                views=found.views,
                references=found.references,
                details=dict(found.details),
                warnings=[*found.warnings, *doubts, *_few_classes(arrays, evaluation)],
                provenance=provenance,
                arrays={name: array for name, array in arrays.items() if array.dtype.kind != "U"},
            )
            store.publish(result)

        mesh.from_process_0(publish)
        return results.read(store.path)


def _found(condition: Condition, arrays: Arrays, evaluation: Evaluation) -> Numbers:
    """What a condition has found.

    Raises:
      KindError: if a user's ``result`` returns something else.
    """
    with _noting_place(condition):
        found = condition.result(arrays, evaluation)
    if not isinstance(found, Numbers) or not all(hasattr(x, "columns") for x in found.measured):
        raise KindError(
            f"{place_of(condition)}: result() must return evaluation.Numbers of numbers that "
            f"evaluation.number has made, got {found!r:.80}"
        )
    if taken := [name for name, each in found.arrays.items() if each is not arrays.get(name, each)]:
        raise KindError(
            f"{place_of(condition)}: result() must give the array {taken[0]!r} another name, since "
            "make() has made one of this name"
        )
    row = condition.row()
    for view in (view for view in found.views if isinstance(view, results.Lines)):
        if not any(
            x.name == view.number and view.x in {**row, **x.columns} for x in found.measured
        ):
            raise KindError(
                f"{place_of(condition)}: a view draws {view.number!r} against {view.x!r}, and "
                f"result() measured no such number with this column; it measured "
                f"{', '.join(dict.fromkeys(repr(x.name) for x in found.measured)) or 'nothing'}"
            )
    return found


def _stored(number: Number, arrays: Arrays) -> dict[str, Any]:
    """The columns of a number, with the name of the array of its values by example."""
    if number.of is None:
        return number.row()
    name = next((name for name, each in arrays.items() if each is number.of), None)
    if name is None:
        name = f"values {sum(each.startswith('values ') for each in arrays)}"
        arrays[name] = number.of
    return number.row() | {"of": name}


def _measured(
    evaluation: Evaluation, condition: Condition, store: Store, progress: Report
) -> list[Arrays]:
    """The arrays of a condition in chunks, each with the "seconds" that it took.

    Process 0 has all chunks, the others those of this call.
    """
    since, examples = time.perf_counter(), evaluation.data
    how = evaluation.protocol_of(condition), evaluation.attack_noise
    if not condition.by_example:
        with recording.reporting(lambda shown: progress(shown, False)):
            (chunk,) = measure(condition, examples.batches(condition, *how))
        if examples.work_of(condition)[1] != "stimuli":
            progress(1, False)
        return [chunk | {"seconds": np.array([time.perf_counter() - since])}]
    indices, chunks = examples.of(condition).indices, list[Arrays]()
    checksums = examples.checksums(indices)

    def find() -> list[int]:
        chunks.extend(store.found(anew=evaluation.overwrite))
        found = _rows(chunks, indices, checksums)
        return [place for place, index in enumerate(indices.tolist()) if index not in found]

    missing = mesh.from_process_0(find)
    progress(len(indices) - len(missing), True)
    kept = _kept(condition, indices)
    batches = examples.batches(condition, *how, missing) if missing else ()
    for chunk in measure(condition, batches):
        shown = [name for name in condition.shown if name in chunk]
        if shown:
            rows = np.isin(chunk["index"], kept)
            chunk |= {name: chunk[name][rows] for name in shown}
            chunk["kept"] = chunk["index"][rows]
        chunk["checksum"] = examples.checksums(chunk["index"])
        now = time.perf_counter()
        chunk["seconds"], since = np.array([now - since]), now
        if jax.process_index() == 0:
            store.add(chunk)
        chunks.append(chunk)
        progress(len(chunk["index"]), False)
    return chunks


def _rows(chunks: list[Arrays], indices: np.ndarray, checksums: np.ndarray) -> dict[int, int]:
    """Index of an example -> its row in the chunks, of those whose pixels are what they were."""
    if not chunks:
        return {}
    known = dict(zip(indices.tolist(), checksums.tolist(), strict=True))
    index, checksum = (
        np.concatenate([chunk[name] for chunk in chunks]).tolist() for name in ("index", "checksum")
    )
    # Of an example that was measured again, the later row counts.
    return {i: row for row, i in enumerate(index) if known.get(i) == checksum[row]}


def _joined(chunks: list[Arrays], evaluation: Evaluation, condition: Condition) -> Arrays:
    """The arrays of all chunks in the order of the examples."""
    if not condition.by_example:
        return chunks[0]
    indices = evaluation.data.of(condition).indices
    found = _rows(chunks, indices, evaluation.data.checksums(indices))
    rows = [found[index] for index in indices.tolist()]
    whole = {
        name: np.concatenate([chunk[name] for chunk in chunks if name in chunk])
        for name in chunks[-1]
    }
    shown: Arrays = {}
    if "kept" in whole:
        # Of an example that was measured again, the later one is shown.
        _, last = np.unique(whole["kept"][::-1], return_index=True)
        order = len(whole["kept"]) - 1 - last
        shown = {n: whole[n][order] for n in ("kept", *condition.shown) if n in whole}
    return {name: each[rows] for name, each in whole.items() if name not in shown} | shown


def _kept(condition: Condition, indices: np.ndarray) -> np.ndarray:
    """The examples that a result keeps to show them, spread over all."""
    kept = min(condition.kept, len(indices))
    return indices[np.arange(kept) * len(indices) // max(kept, 1)]


def _doubts(evaluation: Evaluation, condition: Condition, what: dict[str, Any]) -> list[str]:
    """Warnings about a user's code, of which the identity or the keys do not say everything."""
    warnings = []
    if what["condition"].get("on_host"):
        warnings.append(
            "A part is computed by Python on the host, which JAX cannot see. What it makes of two "
            "images and its files are in the identity; another change of it is not noticed."
        )
    if isinstance(condition, Judged) and not condition.attacks and is_of_user(condition):
        how = evaluation.protocol_of(condition), evaluation.attack_noise
        batch = next(evaluation.data.batches(condition, *how))
        first, second = (mesh.fetch(condition.perturb(batch)[0]) for _ in range(2))
        if not np.allclose(first, second, rtol=0, atol=_ROUNDING):
            warnings.append(
                "Two calls with the same keys gave different images, so the numbers cannot be "
                'repeated: draw from batch.keys("corruption"), not from numpy.random.'
            )
    return warnings


def _check_numbers(
    condition: Condition, evaluation: Evaluation, result: Result, path: Path
) -> None:
    """Raise a ResultError if a condition makes other numbers of the arrays of its result."""
    try:
        measured = condition.result(result.arrays, evaluation).measured
    except KeyError:
        return  # An array of text, which is not stored.
    ours, theirs = ([(x["number"], x.get("value", math.nan)) for x in rows] for rows in (
        [number.row() for number in measured], result.numbers
    ))  # fmt: skip
    for (one, value), (two, known) in itertools.zip_longest(
        ours, theirs, fillvalue=("absent", math.nan)
    ):
        if one != two or not np.isclose(value, known, rtol=1e-5, equal_nan=True):
            raise ResultError(
                f"{path} is of another evaluation ({one} is {value}, was {two} {known}: the "
                "condition makes other numbers of the same arrays); measure it again "
                "(--overwrite), or give this one another name (--tag) or directory (--results)"
            )


def _few_classes(arrays: Arrays, evaluation: Evaluation) -> list[str]:
    """A warning if all images are of one class of several."""
    labels = np.unique(arrays.get("label", ()))
    if len(labels) != 1 or len(evaluation.class_names) < 2:
        return []
    name = evaluation.class_names[int(labels[0])]
    return [f"All images are of the class {name!r}, so the numbers say little."]
