"""The log of a run: JSON lines are the truth; CSV and TensorBoard are made from them."""

import contextlib
import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

Record = dict[str, Any]


class RunLog:
    """Appends records to ``log.jsonl``, in process 0 only; use it in a ``with`` block.

    Opening it drops what a run that was cut off has written beyond the checkpoint it goes on
    from, so that every step is in the log once. Closing it writes ``log.csv``.

    Args:
      path: of the JSONL file.
      step: of the checkpoint; 0 starts an empty log.
      validated: the last step whose validation the checkpoint knows of.
      tensorboard: directory for TensorBoard's files, or None for none.

    Raises:
      ValueError: if TensorBoard's files are wanted and tensorboardX is not installed, or for a log
        that is damaged, see ``read_log``.
      OSError: naming the log, if it cannot be written.
    """

    def __init__(self, path: Path, step: int, validated: int, tensorboard: Path | None = None):
        self._path = Path(path)
        self._file = self._writer = None
        if jax.process_index() != 0:
            return
        kept = [record for record in read_log(path) if _is_before(record, step, validated)]
        partial = self._path.with_suffix(".partial")
        with _writing(self._path):
            partial.write_text("".join(_line(record) for record in kept))
            partial.replace(self._path)
            self._file = open(self._path, "a")
        if tensorboard is not None:
            try:
                from tensorboardX import SummaryWriter
            except ModuleNotFoundError:
                raise ValueError("tensorboard needs the package tensorboardX") from None
            self._writer = SummaryWriter(str(tensorboard), purge_step=step + 1)

    def write(self, record: Record) -> None:
        """Adds a record with ``kind``, ``step`` and finite numbers.

        Raises:
          ValueError: for a number that is not finite.
          OSError: naming the log, if it cannot be written.
        """
        line = _line(record)
        if self._file is None:
            return
        with _writing(self._path):
            self._file.write(line)
            self._file.flush()
        if self._writer is not None:
            for name, value in record.items():
                if name not in ("kind", "step"):
                    self._writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def sync(self) -> None:
        """Puts all records on disk. To be called before a checkpoint that builds on them."""
        if self._file is not None:
            with _writing(self._path):
                os.fsync(self._file.fileno())

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
            if self._file is not None:
                with _writing(self._path):
                    self._file.close()
                    export_csv(self._path)
        except OSError:
            if error is None:
                raise
            # The error that ended the block is the one to see.


def read_log(path: Path) -> list[Record]:
    """The records of a log. A last line that was cut off is left out; no file is an empty log.

    Raises:
      ValueError: naming the line, if any other line is not JSON, or any is no record.
    """
    path = Path(path)
    if not path.exists():
        return []
    try:
        lines = path.read_text().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number} is not JSON: {line[:80]!r}") from error
        if not isinstance(records[-1], dict) or not {"kind", "step"} <= records[-1].keys():
            raise ValueError(f"{path}, line {number} is no record: {line[:80]!r}")
    return records


def export_csv(path: Path) -> Path:
    """Writes the records of a JSONL log beside it as CSV, one column for each name in it."""
    records = read_log(path)
    columns = list(dict.fromkeys(name for record in records for name in record))
    target = Path(path).with_suffix(".csv")
    with open(target, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(records)
    return target


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Where the disk is full, Python does not say what could not be written."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{path} cannot be written: {error.strerror}; the checkpoints are as they were",
        ) from error


def _line(record: Record) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _is_before(record: Record, step: int, validated: int) -> bool:
    return record["step"] <= (validated if record["kind"] == "validation" else step)
