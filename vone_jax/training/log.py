"""The log of a run: JSON lines, with a CSV file and TensorBoard files made from them."""

import contextlib
import csv
import functools
import json
import os
from pathlib import Path
from typing import Any

import jax

from vone_jax import files

Record = dict[str, Any]
_writing = functools.partial(files.writing, note="; the checkpoints are not affected")


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
