"""Result files: NAME.json, see ``format.py``, and NAME.npz with its arrays, see ``arrays.py``.

A JSON file stands for a complete result: it is written last, and whole.
"""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pydantic

from vone_jax import files
from vone_jax.results import arrays as checks
from vone_jax.results import first_format
from vone_jax.results.format import FORMAT, Result, from_json, to_json


class ResultError(ValueError):
    """A result file is damaged, in use, or of another evaluation; or a request about results that
    cannot be met. The message names the file and the cure."""


class UnknownKindError(ResultError):
    """A result file is of a kind that this version does not know."""


def write(directory: Path, result: Result) -> Path:
    """Write a result with its arrays and return the path of the JSON file.

    Raises:
      ValueError: if the arrays do not belong to the result.
      OSError: if a file cannot be written.
    """
    checks.check(result)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{result.name}.json"
    if result.arrays:
        files.replace(path.with_suffix(".npz"), lambda file: np.savez(file, **result.arrays))
    files.replace_json(path, to_json(result))
    return path


def read(path: Path, with_arrays: bool = True) -> Result:
    """Read a result of this format or of the one before, with its arrays if there are any.

    Raises:
      UnknownKindError: for a kind of result that this version does not know.
      ResultError: for files that are damaged, of an unknown format, or contradict themselves.
    """
    values = read_json(path)
    if values.get("format") == first_format.FORMAT:
        try:
            values = first_format.upgrade(values)
        except (KeyError, TypeError, ValueError, AttributeError, SyntaxError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ResultError(f"{path} is damaged: {reason}; evaluate again") from error
    elif values.get("format") != FORMAT:
        raise ResultError(
            f"{path} has the format {values.get('format')!r}; this version of vone_jax reads "
            f"{first_format.FORMAT} and {FORMAT}"
        )
    provenance = values.get("provenance")
    if "matmul_precision" not in values and isinstance(provenance, dict):
        # Until it became a part of the identity, the default of JAX stood there.
        precision = provenance.pop("matmul_precision", "")
        cpu = str(provenance.get("device")).endswith("(cpu)")
        values["matmul_precision"] = "highest" if cpu else precision
    try:
        result = from_json(values)
    except pydantic.ValidationError as error:
        _raise(path, error)
    archive = path.with_suffix(".npz")
    loaded = read_arrays(archive) if with_arrays and archive.exists() else {}
    # The class is frozen, and no validator needs to see these two.
    object.__setattr__(result, "arrays", loaded)
    object.__setattr__(result, "path", str(path))
    try:
        checks.check(result)
    except ValueError as error:
        raise ResultError(f"{archive}: {error}") from error
    return result


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Lone surrogates, which Python uses for bytes of a path that are not UTF-8, become replacement
    characters.

    Raises:
      ResultError: if the file cannot be read or is not one JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{path} is damaged ({error}); delete it and evaluate again") from error
    if not isinstance(value, dict):
        got = type(value).__name__
        raise ResultError(
            f"{path} must hold a JSON object, got {got}; delete it and evaluate again"
        )
    # UTF-16 can hold lone surrogates, and its decoder replaces them.
    text = json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass")
    return json.loads(text.decode("utf-16", "replace"))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an NPZ file.

    Raises:
      ResultError: if the file is truncated, damaged, or holds Python objects.
    """
    try:
        # np.load would leave its own file open for a damaged archive.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (
        # The error for a flipped bit depends on the bit.
        *(OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, RuntimeError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        raise ResultError(
            f"{path} is damaged ({error}); delete it and its JSON file and evaluate again"
        ) from error


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number that a result may hold")


def _raise(path: Path, error: pydantic.ValidationError) -> NoReturn:
    """Raise a ResultError for the first problem that pydantic names."""
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    if first["type"] == "union_tag_invalid" and field == "condition":
        kind = first.get("ctx", {}).get("tag")
        raise UnknownKindError(f"{path} is of the kind {kind!r}, which this version does not know")
    message = first["msg"].removeprefix("Value error, ")
    got = "" if first["type"] in ("missing", "value_error") else f", got {first['input']!r:.80}"
    where = f"{field}: " if field else ""
    raise ResultError(f"{path} is damaged: {where}{message}{got}; evaluate again") from error
