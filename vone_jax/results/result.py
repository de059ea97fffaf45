"""A result: one measured condition of one network, as two files STEM.json and STEM.npz.

The JSON file has the fields of ``Result``. It is written last and whole, so it stands for a
complete result. The NPZ file has arrays with a row for each example, such as ``index`` in the data
set, ``label``, and ``right`` (N, draws).
"""

import dataclasses
import functools
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
from vone_jax.results import view as views_of
from vone_jax.results.row import Row
from vone_jax.results.view import View

# The form of the files. A later version of the project reads files of this form or refuses them.
SCHEMA = 1
# A share may be off its range by the rounding of float32.
_SLACK = 1e-6


class ResultError(ValueError):
    """A result file is damaged or of another evaluation, or there are no results in a place."""


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """One measured condition of one network.

    Attributes:
      row: what its numbers are of, see ``results.row``: the network and the condition.
      numbers: what each number adds to the row: its name, its value and columns of its own.
      identity: what was measured, as JSON values: "condition", "protocol", "dataset", "network",
        "seed", "tag" and others. Work is continued or used again only if it is equal.
      section: heading of the page under which it stands.
      views: how its numbers are shown, see ``results.view``.
      references: numbers of other observers, as rows.
      details: what is no number, as JSON values.
      warnings: sentences about the numbers, written by the evaluation.
      provenance: "versions", "command", "device", "started", "wall_seconds", "checkpoint_step",
        "class_names" and others.
      arrays: the arrays of the NPZ file by name. Those of a file are read when they are used.
    """

    row: Row
    numbers: Sequence[Row]
    identity: dict[str, Any]
    section: str = ""
    views: Sequence[View] = ()
    references: Sequence[Row] = ()
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: Sequence[str] = ()
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each number."""
        return [{**self.row, **number} for number in self.numbers]

    @property
    def label(self) -> str:
        """The condition in words, such as "PGD L∞ 4/255, 64 steps"."""
        return rows_of.label(self.row)

    @property
    def name(self) -> str:
        """The stem of its files."""
        return rows_of.stem(self.row)

    @functools.cached_property
    def index(self) -> np.ndarray | None:
        """The places of its examples in the data set (N,), read once; None without examples."""
        return self.arrays.get("index")

    def find(self, number: str = "accuracy", **columns: Any) -> dict[str, Any] | None:
        """The first row of a number with columns of some values; None without one."""
        for row in self.rows:
            if row["number"] == number and all(row.get(n) == v for n, v in columns.items()):
                return row
        return None

    def value(self, number: str = "accuracy", **columns: Any) -> float:
        """A measured number; NaN if it is not defined or was not measured."""
        value = (self.find(number, **columns) or {}).get("value")
        return math.nan if value is None else float(value)

    def values(self, row: Row) -> np.ndarray | None:
        """The values by example behind a number, (N,) or decisions (N, R); None without them."""
        return self.arrays.get(row["of"]) if "of" in row else None


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
      ValueError: if a number is NaN, infinite, or a share that is none.
      OSError: if a file cannot be written.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{result.name}.json"
    _check(result)
    arrays: dict[str, Any] = dict(result.arrays)
    record = {
        "schema": SCHEMA,
        "row": dict(result.row),
        "numbers": list(result.numbers),
        "section": result.section,
        "views": list(map(views_of.encode, result.views)),
        "references": list(result.references),
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
      ResultError: if the file cannot be read, or is no result.
    """
    path = Path(path)
    values = read_json(path)
    try:
        if (schema := values.pop("schema", None)) != SCHEMA:
            raise ValueError(f"it has the form {schema}, and this version reads {SCHEMA}")
        arrays = _Stored(path.with_suffix(".npz"), tuple(values.pop("arrays")))
        views = list(map(views_of.decode, values.pop("views")))
        result = Result(**values, views=views, arrays=arrays)
        _check(result)
        _ = result.name  # Its row is a row.
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ResultError(f"{path} is no result of this version of vone_jax ({error})") from error
    if not is_complete(path):
        raise ResultError(
            f"{arrays.path} is missing, which has the arrays of {path.name}: measure this result "
            "again, or remove the file"
        )
    return result


def _check(result: Result) -> None:
    """Raise a ValueError for a number that cannot be one, or for pictures that are not there."""
    for row in (*result.rows, *result.references):
        number = row["number"]
        given = {name: row[name] for name in ("value", "low", "high") if name in row}
        for name, each in given.items():
            real = type(each) in (int, float) and math.isfinite(each)
            share = row.get("unit") != "share" or (real and -_SLACK <= each <= 1 + _SLACK)
            if not (real and share):
                raise ValueError(f"the {name} of {number} is {each!r}")
    for row in result.references:
        if not {"network", "value"} <= row.keys():
            raise ValueError(f"a reference must have a network and a value, got {row}")
    for view in result.views:
        for name in view.arrays if isinstance(view, views_of.Pictures) else ():
            if name not in result.arrays:
                raise ValueError(f"pictures must be of arrays of the result, got {name!r}")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; a ResultError if it cannot be read."""

    def refuse(text: str) -> Any:
        raise ValueError(f"{text} is no number of JSON")

    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
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


def code(value: Any) -> str:
    """A dataclass in its JSON form as the call that makes it, without what is None."""
    if isinstance(value, Mapping):
        given = (f"{n}={code(v)}" for n, v in value.items() if n != "type" and v is not None)
        return f"{value.get('type', '')}({', '.join(given)})"
    if isinstance(value, list):
        return f"[{', '.join(map(code, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else repr(value)
