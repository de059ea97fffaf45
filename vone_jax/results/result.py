"""A result: one measured condition of one network, as two files NAME.json and NAME.npz.

The JSON file has the fields of ``Result``. It is written last and whole, so it stands for a
complete result. The NPZ file has arrays with a row for each example, such as ``index`` in the data
set, ``label``, and ``right`` (N, draws).
"""

import contextlib
import dataclasses
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vone_jax import files


class ResultError(ValueError):
    """A result file is damaged or of another evaluation, or there are no results in a place."""


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """One measured condition of one network.

    Attributes:
      name: the stem of its files, unique among the results of a network. It ends with the tag.
      identity: what was measured, as JSON values: "condition", "protocol", "dataset", "network",
        "seed", "tag" and "matmul_precision". Work is continued or used again only if it is equal.
      measured: name of a number -> ``{"value": ...}``, with the ends "low" and "high" of its 95 %
        interval over images if it has one, and with "eps" if it is for one radius of several.
        A value of None is not defined or infinite.
      label: the condition in words, such as "PGD L∞ 4/255".
      details: what is no number, such as the answers of the checks for masked gradients.
      warnings: sentences about the numbers, written by the evaluation.
      provenance: "versions", "command", "device", "started", "wall_seconds", "checkpoint_step",
        "class_names" and others.
      arrays: the arrays of the NPZ file by name. Those of a file are read when they are used.
    """

    name: str
    identity: dict[str, Any]
    measured: dict[str, dict[str, Any]]
    label: str = ""
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def condition(self) -> dict[str, Any]:
        """The condition as JSON values; "type" is its kind, such as "Attacked"."""
        return self.identity["condition"]

    def value(self, number: str = "accuracy") -> float:
        """A measured number; NaN if it is not defined or was not measured."""
        value = self.measured.get(number, {}).get("value")
        return float("nan") if value is None else float(value)


@dataclasses.dataclass(frozen=True)
class _Stored(Mapping[str, np.ndarray]):
    """The arrays of an NPZ file, each read when it is used."""

    path: Path

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                yield archive
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ResultError(f"{self.path} cannot be read as NPZ: {error}") from error

    def __getitem__(self, name: str) -> np.ndarray:
        with self._opened() as archive:
            return archive[name]

    def __iter__(self) -> Iterator[str]:
        with self._opened() as archive:
            return iter(archive.files)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return any(name == each for each in self)


def write(result: Result, directory: str | os.PathLike) -> Path:
    """Write a result with its arrays and return the path of its JSON file.

    Raises:
      ValueError: if a number is NaN or infinite.
      OSError: if a file cannot be written.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{result.name}.json"
    record = {field.name: getattr(result, field.name) for field in dataclasses.fields(Result)}
    arrays: dict[str, Any] = dict(record.pop("arrays"))
    # A number that JSON cannot hold is found before any file is written.
    json.dumps(record, allow_nan=False)
    if arrays:
        files.replace(path.with_suffix(".npz"), lambda file: np.savez(file, **arrays))
    files.replace_json(path, record)
    return path


def read(path: str | os.PathLike) -> Result:
    """Read a result.

    Raises:
      ResultError: if the file cannot be read, or is no result.
    """
    path = Path(path)
    values = read_json(path)
    archive = path.with_suffix(".npz")
    try:
        return Result(**values, arrays=_Stored(archive) if archive.exists() else {})
    except TypeError as error:
        raise ResultError(f"{path} is no result of this version of vone_jax ({error})") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; a ResultError if it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ResultError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The fields in which two identities differ, as ``"FIELD is OURS, was THEIRS"``.

    A field that one of them lacks is a difference.
    """
    here, there = dict(_leaves(ours)), dict(_leaves(theirs))
    return [
        f"{name} is {here.get(name, 'absent')}, was {there.get(name, 'absent')}"
        for name in {**here, **there}
        if here.get(name, "absent") != there.get(name, "absent")
    ]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a tree of JSON values as text, with their paths."""
    if isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        value = {str(place): item for place, item in enumerate(value)}
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else name)
    else:
        yield path, json.dumps(value)
