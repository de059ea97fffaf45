"""The bookkeeping of a run: its log, metrics, speed, skipped steps, the request to stop.

The log has JSON lines, with a CSV file and TensorBoard files made from them.

The training step never applies an update that is not finite. So a checkpoint is sound even if the
metrics of its last steps are read later.
"""

import contextlib
import csv
import dataclasses
import functools
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vone_jax import files
from vone_jax import mesh as meshes
from vone_jax.progress import Progress
from vone_jax.training.setup import Setup
from vone_jax.training.step import Batch, StepMetrics, Sums

Record = dict[str, Any]
_writing = functools.partial(files.writing, note="; the checkpoints are not affected")
_CURE = "try a lower optimizer.learning_rate in a new run"


class NonFiniteError(FloatingPointError):
    """A loss or gradient is NaN or infinite; the message names the step."""


@dataclasses.dataclass
class Stop:
    """The request to stop a run, which all processes follow at the same step.

    ``requested`` returns True once this process should stop, and from then on. ``here`` is its last
    result. ``everywhere`` is True once all processes know of a request; the run then saves and
    ends.
    """

    requested: Callable[[], bool]
    here: bool = False
    everywhere: bool = False

    def poll(self) -> bool:
        """Return True if this process should stop. Other processes learn it from a later step."""
        self.here = self.requested()
        if jax.process_count() == 1:
            self.everywhere |= self.here
        return self.here

    def poll_all(self) -> bool:
        """Return True if any process should stop. All processes must call this together."""
        self.everywhere |= meshes.any_process(self.requested())
        return self.everywhere


class Clock:
    """A clock of the examples per second. It starts after the first step, which compiles."""

    def __init__(self):
        self._start: float | None = None
        self._last = 0.0
        self._examples = 0

    def tick(self, examples: int) -> None:
        """Count the examples of a step, at the same point of the loop for each step."""
        self._last = time.perf_counter()
        if self._start is None:
            self._start = self._last
        else:
            self._examples += examples

    def take_rate(self) -> float:
        """Return the examples per second of the steps since the last call; 0 before step 2."""
        if self._start is None:
            return 0.0
        rate = self._examples / max(self._last - self._start, 1e-9)
        self._start, self._examples = self._last, 0
        return rate

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time within a ``with`` block."""
        begin = time.perf_counter()
        yield
        if self._start is not None:
            self._start += time.perf_counter() - begin


class RunLog(contextlib.AbstractContextManager["RunLog"]):
    """Appends records to ``log.jsonl``. Use it in a ``with`` block.

    Opening the log removes the records after the checkpoint at ``step``, from which the run
    resumes, and after its last validation, so that every step is in the log once. Closing it writes
    ``log.csv``. Only process 0 writes. ``tensorboard`` is a directory for TensorBoard files.

    Raises:
      ValueError: if a number is not finite, or the log is damaged.
      OSError: if the log cannot be written; the message names it.
    """

    def __init__(self, path: Path, step: int, validated: int, tensorboard: Path | None = None):
        self._path = path
        self._file = self._writer = None
        if jax.process_index() != 0:
            return
        before = [
            record
            for record in read_log(path)
            if step > 0
            and record["step"] <= (validated if record["kind"] == "validation" else step)
        ]
        content = "".join(map(_line, before)).encode()
        files.replace(self._path, lambda file: file.write(content))
        with _writing(self._path):
            self._file = open(self._path, "a")
        if tensorboard is not None:
            from tensorboardX import SummaryWriter

            new = not tensorboard.exists()
            # Flushed each second, so that a killed run keeps its curves. SummaryWriter.flush()
            # leaves out events that are still in its queue.
            self._writer = SummaryWriter(str(tensorboard), purge_step=step + 1, flush_secs=1)
            # A resumed run that had no curves gets those of its earlier records.
            for record in before if new else ():
                self._draw(record)

    def write(self, record: Record) -> None:
        """Append a record with ``kind``, ``step`` and finite numbers."""
        line = _line(record)
        if self._file is None:
            return
        with _writing(self._path):
            self._file.write(line)
            self._file.flush()
        self._draw(record)

    def _draw(self, record: Record) -> None:
        """Add a record to the curves of TensorBoard."""
        # Records of step 0 describe the start of the run and are not points of curves.
        if self._writer is not None and record["step"] > 0:
            for name, value in record.items():
                if name not in ("kind", "step"):
                    self._writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def sync(self) -> None:
        """Flush all records to the disk, as is needed before a checkpoint of the same step."""
        if self._file is not None:
            with _writing(self._path):
                os.fsync(self._file.fileno())

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # The error that ended the block must not be hidden.
        suppressed = () if error is None else (OSError,)
        with contextlib.suppress(*suppressed):
            if self._writer is not None:
                self._writer.close()
            if self._file is not None:
                with _writing(self._path):
                    self._file.close()
                    export_csv(self._path)


def read_log(path: Path) -> list[Record]:
    """Read the records of a log, see ``files.read_json_lines``. A line that is cut off is left out.

    Raises:
      ValueError: for a line that is damaged, which the message names.
    """
    return files.read_json_lines(path, _check)[0]


def _check(record: Any) -> None:
    if not isinstance(record, dict) or not {"kind", "step"} <= record.keys():
        raise ValueError("must hold a JSON object with a kind and a step")


def export_csv(path: Path) -> None:
    """Write the records of a JSONL log to a CSV file beside it, with one column per name."""
    records = read_log(path)
    with open(path.with_suffix(".csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(name for each in records for name in each))
        writer.writeheader()
        writer.writerows(records)


def _line(record: Record) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


@dataclasses.dataclass
class Monitor:
    """Follows a run from step to step: reads metrics, logs them, and ends a run that is broken.

    All processes must make the same calls. For ``interval`` and ``passed_over`` see ``Position``.
    ``pending`` is the step whose metrics are not read yet: its number, its batch and its metrics.
    The metrics carry the request to stop to all processes.
    """

    setup: Setup
    run_dir: Path
    log: RunLog
    progress: Progress
    stop: Stop
    interval: Sums
    passed_over: dict[str, int]
    clock: Clock = dataclasses.field(default_factory=Clock)
    pending: tuple[int, Batch, StepMetrics] | None = None

    def follow(self, step: int, batch: Batch, metrics: StepMetrics) -> None:
        """Keep a step that was dispatched, until it is read."""
        self.clock.tick(self.setup.experiment.data.batch_size)
        self.pending = step, batch, metrics

    def read(self, saved: int) -> None:
        """Wait for the metrics of the pending step, and log them if a line of the log is due.

        ``saved`` is the step of the last checkpoint, 0 if there is none. Raises the errors of a
        step that was not finite.
        """
        if self.pending is None:
            return
        (step, batch, metrics), self.pending = self.pending, None
        host = meshes.fetch(metrics)
        self.stop.everywhere |= bool(host.marks.get("stop", 0))
        experiment = self.setup.experiment
        if host.finite:
            self.interval = self.interval.plus(host.sums)
            self.progress.advance(note=f"loss {host.sums.means()['loss']:.4f}")
        else:
            self._skip(step, batch, host, saved)
            self.progress.advance()
        due = step % experiment.log_every == 0 or step == self.setup.total_steps
        # A line that is due at a skipped step covers only the steps before the skipped one.
        if due and self.interval.seen:
            record = {
                "kind": "train",
                "step": step,
                "epoch": step / self.setup.steps_per_epoch,
                **self.interval.means(),
                "learning_rate": float(host.learning_rate),
                "examples_per_second": self.clock.take_rate(),
            }
            if host.finite:
                record["gradient_norm"] = float(host.gradient_norm)
                if host.similarity is not None:
                    record["similarity"] = float(host.similarity)
            self.log.write(record)
            self.interval = Sums()

    def validation(self, step: int, result: dict[str, float]) -> None:
        """Log the result of a validation, or raise an error if its loss is not finite."""
        if not math.isfinite(result["loss"]):
            raise NonFiniteError(f"the validation loss is {result['loss']} at step {step}; {_CURE}")
        epoch = step / self.setup.steps_per_epoch
        self.log.write({"kind": "validation", "step": step, "epoch": epoch, **result})
        self.progress.line(
            f"step {step}, epoch {epoch:.4g}: validation loss {result['loss']:.4f}, "
            f"accuracy {100 * result['accuracy']:.2f} %"
        )

    def _skip(self, step: int, batch: Batch, host: StepMetrics, saved: int) -> None:
        """Store the batch of a step that is not finite, and end the run unless it may continue."""
        experiment = self.setup.experiment
        values = {"loss": host.sums.means()["loss"], "gradient norm": float(host.gradient_norm)}
        bad = [f"the {n} is {v}" for n, v in values.items() if not math.isfinite(v)]
        problem = (
            f"{bad[0] if bad else 'the update is not finite'} at step {step} of "
            f"{self.setup.total_steps} (learning rate {float(host.learning_rate):.4g}); "
            f"{self._store(step, batch)}"
        )
        self.passed_over["steps"] += 1
        limit = 0 if experiment.non_finite == "stop" else experiment.non_finite_limit
        number = self.passed_over["steps"]
        if number > limit:
            many = f"; {number} such steps, non_finite_limit is {limit}" if number > 1 else ""
            last = f"the last checkpoint is that of step {saved}"
            saved_so_far = last if saved else "nothing is saved yet"
            raise NonFiniteError(f"{problem}{many}; {saved_so_far}; {_CURE}")
        self.progress.line(f"skipped: {problem}")
        self.log.write({"kind": "skipped", "step": step, "skipped": number})

    def _store(self, step: int, batch: Batch) -> str:
        """Write a batch as it was put on the devices, and return a phrase that says where."""
        host = meshes.fetch(batch)
        path = self.run_dir / "non_finite" / f"step-{step}.npz"
        if jax.process_index() == 0:
            try:
                path.parent.mkdir(exist_ok=True)
                np.savez(path, **host)
            except OSError as error:
                return f"its batch could not be written ({error})"
        return f"its batch is in {path}"
