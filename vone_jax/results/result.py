"""A result: one measured condition of one network, as two files STEM.json and STEM.npz.

The JSON file has the fields of ``Result``. It is written last and whole, so it stands for a
complete result. The NPZ file has arrays with a row for each example, such as ``index`` in the data
set, ``label``, and ``right`` (N, draws).
"""

import dataclasses
import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vone_jax import files
from vone_jax.results import row as rows_of
from vone_jax.results.row import COLUMNS

# A number with its 95 % interval.
_NUMBER = ("value", "low", "high")


class ResultError(ValueError):
    """A result file is damaged or of another evaluation, or there are no results in a place."""


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """One measured condition of one network.

    Attributes:
      row: the condition without numbers, see ``results.row``.
      rows: the row with the columns of each number; at least one, without a number if there is
        none.
      identity: what was measured, as JSON values: "condition", "protocol", "dataset", "network",
        "seed", "tag" and others. Work is continued or used again only if it is equal.
      details: what is no number, such as the answers of the checks for masked gradients.
      warnings: sentences about the numbers, written by the evaluation.
      provenance: "versions", "command", "device", "started", "wall_seconds", "checkpoint_step",
        "class_names" and others.
      arrays: the arrays of the NPZ file by name. Those of a file are read when they are used.
    """

    row: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    identity: dict[str, Any]
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: Sequence[str] = ()
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        """The condition in words, such as "PGD L∞ 4/255, 64 steps"."""
        return rows_of.label(self.row)

    @property
    def name(self) -> str:
        """The stem of its files."""
        return rows_of.stem(self.row)

    def class_name(self, label: int) -> str:
        """The name of a label, or its number where classes have no names."""
        names = self.provenance.get("class_names", ())
        return names[label] if label < len(names) else str(label)

    def find(self, number: str = "accuracy", eps: float | None = None) -> Mapping[str, Any] | None:
        """The row of a number, and of a radius if it is for one of several; None without one."""
        found = (each for each in self.rows if each.get("number") == number)
        return next((each for each in found if eps is None or each.get("eps") == eps), None)

    def value(self, number: str = "accuracy", eps: float | None = None) -> float:
        """A measured number; NaN if it is not defined or was not measured."""
        value = (self.find(number, eps) or {}).get("value")
        return math.nan if value is None else float(value)


@dataclasses.dataclass(frozen=True)
class _Stored(Mapping[str, np.ndarray]):
    """The arrays of an NPZ file, each read when it is used."""

    path: Path
    names: tuple[str, ...]

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise KeyError(name)
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                return archive[name]
        except (
            OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error,
        ) as error:  # fmt: skip
            raise ResultError(f"{self.path} cannot be read as NPZ: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def write(result: Result, directory: str | os.PathLike) -> Path:
    """Write a result with its arrays and return the path of its JSON file.

    Raises:
      ValueError: if a number is NaN or infinite, an accuracy is no share, or a row has an unknown
        column.
      OSError: if a file cannot be written.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{result.name}.json"
    for each in (result.row, *result.rows):
        if unknown := sorted(set(each) - set(COLUMNS)):
            raise ValueError(f"rows must have the columns of results.row, got {unknown}")
    _check_numbers(result.rows)
    row, *present = (
        {name: each[name] for name in COLUMNS if each.get(name) not in (None, "")}
        for each in (result.row, *result.rows)
    )
    arrays: dict[str, Any] = dict(result.arrays)
    record = {
        "row": row,
        "rows": present,
        "identity": result.identity,
        "details": result.details,
        "warnings": list(result.warnings),
        "provenance": result.provenance,
        "arrays": list(arrays),
    }
    # A number that JSON cannot hold is found before any file is written.
    json.dumps(record, allow_nan=False)
    if arrays:
        files.replace(path.with_suffix(".npz"), lambda file: np.savez(file, **arrays))
    files.replace_json(path, record)
    return path


def is_complete(path: str | os.PathLike) -> bool:
    """True if the JSON file of a result is there, and the NPZ file if it names arrays."""
    path = Path(path)
    return path.exists() and (
        not read_json(path).get("arrays") or path.with_suffix(".npz").exists()
    )


def read(path: str | os.PathLike) -> Result:
    """Read a result.

    Raises:
      ResultError: if the file cannot be read, is no result or has a number that ``write`` refuses,
        or if its arrays are missing.
    """
    path = Path(path)
    values = read_json(path)
    try:
        arrays = _Stored(path.with_suffix(".npz"), tuple(values.pop("arrays")))
        result = Result(**values, arrays=arrays)
        _ = result.name, [rows_of.stem(row) for row in result.rows]  # Its rows are rows.
        if not result.rows:
            raise ValueError("it has no rows")
        _check_numbers(result.rows)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ResultError(f"{path} is no result of this version of vone_jax ({error})") from error
    if not is_complete(path):
        raise ResultError(
            f"{arrays.path} is missing, which has the arrays of {path.name}: measure this result "
            "again, or remove the file"
        )
    return result


def _check_numbers(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise a ValueError for a number that is not finite, or an accuracy that is no share."""
    for row in rows:
        name = str(row.get("number"))
        for column in _NUMBER:
            value = row.get(column)
            if value is None:
                continue
            is_share = "accuracy" in name.split()
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (is_number and math.isfinite(value)) or (is_share and not 0 <= value <= 1):
                allowed = "a share from 0 to 1" if is_share else "a finite number"
                raise ValueError(f"{column} of {name!r} must be {allowed}, got {value!r}")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; a ResultError if it cannot be read, or has NaN or infinity."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(value, allow_nan=False)
    except (OSError, ValueError, RecursionError) as error:
        raise ResultError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ResultError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The fields in which two identities differ, as ``"FIELD is OURS, was THEIRS"``.

    A field that one of them lacks is a difference.
    """
    here, there = dict(leaves(ours)), dict(leaves(theirs))
    return [
        f"{name} is {here.get(name, 'absent')}, was {there.get(name, 'absent')}"
        for name in {**here, **there}
        if here.get(name, "absent") != there.get(name, "absent")
    ]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a tree of JSON values as text, with their paths."""
    if isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        value = {str(place): item for place, item in enumerate(value)}
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from leaves(item, f"{path}.{name}" if path else name)
    else:
        yield path, json.dumps(value)
