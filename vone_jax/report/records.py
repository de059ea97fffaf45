"""Reads JSON, JSON-lines and NPZ files so that every problem names the file and the field."""

import json
import math
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Control characters and lone surrogates, which JSON can carry and HTML cannot.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class ReportError(ValueError):
    """A result file, or a request, from which no report can be made. The message says why."""


def _clean(value: Any) -> Any:
    """Replaces characters that no page can hold, in all strings of a JSON value."""
    if isinstance(value, str):
        return _UNPRINTABLE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return value


def _reject_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number a result may hold")


def _parse(text: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_reject_constant)
    except json.JSONDecodeError as error:
        raise ReportError(
            f"{place}: not valid JSON, truncated or damaged? ({error}); delete it and run its "
            f"command again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{place}: {error}") from error
    if not isinstance(value, dict):
        raise ReportError(f"{place}: must hold a JSON object, got {type(value).__name__}")
    return _clean(value)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ReportError(f"{path}: not a text file in UTF-8 ({error})") from error
    except OSError as error:
        raise ReportError(f"{path}: cannot be read ({error.strerror})") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      ReportError: if the file cannot be read, is not JSON, or is not one object.
    """
    return _parse(_read_text(path), str(path))


def read_json_lines(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The JSON objects of a file with one object a line.

    Returns:
      The objects, and whether the last line was cut off: a writer that was killed leaves such a
      line, and the lines before it are good.

    Raises:
      ReportError: if any other line is not a JSON object.
    """
    text = _read_text(path)
    lines = text.splitlines()
    cut_off = False
    if lines and not text.endswith("\n"):
        try:
            _parse(lines[-1], str(path))
        except ReportError:
            cut_off = True
            lines.pop()
    return [
        _parse(line, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ], cut_off


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an NPZ file.

    Raises:
      ReportError: if the file is truncated, damaged, or holds Python objects.
    """
    try:
        # Opened here: np.load leaves its own file open when the archive is damaged.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError) as error:
        problem: Exception = error
    except (zipfile.BadZipFile, zlib.error) as error:
        problem = error
    raise ReportError(
        f"{path}: not a readable NPZ file, truncated or damaged? ({problem}); delete it and its "
        f"JSON file and run the evaluation again"
    ) from problem


class Record:
    """A JSON object with checked access to its fields.

    Attributes:
      path: the file it was read from, named in every error.
      data: the object.
    """

    def __init__(self, path: Path, data: dict[str, Any], prefix: str = ""):
        self.path = path
        self.data = data
        self._prefix = prefix

    def error(self, name: str, expected: str) -> ReportError:
        """An error that names the file, the field, what was expected and what was found."""
        field = self._prefix + name
        if name not in self.data:
            return ReportError(f"{self.path}: the field {field} is missing, expected {expected}")
        return ReportError(f"{self.path}: {field} must be {expected}, got {self.data[name]!r:.80}")

    def section(self, name: str) -> "Record":
        """The object in a field."""
        value = self.data.get(name)
        if not isinstance(value, dict):
            raise self.error(name, "a JSON object")
        return Record(self.path, value, f"{self._prefix}{name}.")

    def text(self, name: str, choices: Sequence[str] = ()) -> str:
        """A string, one of ``choices`` if there are any."""
        value = self.data.get(name)
        if not isinstance(value, str) or not value or (choices and value not in choices):
            raise self.error(name, f"one of {', '.join(choices)}" if choices else "a string")
        return value

    def number(self, name: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number in [low, high]."""
        value = self.data.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            if math.isfinite(value) and low <= value <= high:
                return float(value)
        raise self.error(name, f"a number in [{low:g}, {high:g}]")

    def integer(self, name: str, low: int = 0) -> int:
        """An integer >= low."""
        value = self.data.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise self.error(name, f"an integer >= {low}")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        value = self.data.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(name, "a list of strings")
        return tuple(value)
