"""The log of a run: records as JSON lines, curves for TensorBoard, and the speed."""

import contextlib
import importlib.util
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from vone_jax import files

Record = dict[str, Any]


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
