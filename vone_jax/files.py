"""Files that appear whole, locks, files of code, and checksums of values.

A process can be killed at any moment, and a disk can be full. These functions write a file
completely or not at all. Their errors name the file.
"""

import contextlib
import errno
import fcntl
import hashlib
import importlib
import importlib.util
import json
import os
import platform
import re
import shlex
import sys
import types
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.npyio import NpzFile


class LockedError(RuntimeError):
    """Another process holds the lock. The message says which one, if it is known."""


def in_bucket(path: Path | str) -> bool:
    """Return True for a place in a bucket, such as ``gs://BUCKET/FOLDER``."""
    return "://" in os.fspath(path)


def as_path(path: Path | str) -> Path:
    """Return a path with ``~`` expanded, or one of etils for a place in a bucket.

    ``pathlib`` would make a local directory ``gs:`` of the latter.
    """
    if in_bucket(path):
        from etils import epath

        return epath.Path(path)  # pyright: ignore[reportReturnType]
    if re.match(r"[a-z0-9]+:/", os.fspath(path)):
        raise ValueError(f"{path} must be text, such as 'gs://BUCKET/FOLDER', not a pathlib.Path")
    return Path(os.path.expanduser(path))


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


def provide_configs(configs: Path) -> None:
    """Make a folder of configs importable as ``configs``, beside a user's own of that name.

    In a checkout it is so; for an installed package, files of users import configs by that name.
    """
    if "configs" not in sys.modules:
        found = importlib.util.find_spec("configs")
        package = types.ModuleType("configs")
        package.__path__ = [str(configs), *(found and found.submodule_search_locations or ())]
        sys.modules["configs"] = package


def imported(spec: str) -> Any:
    """The object NAME of "module:NAME", also in the working directory, or of "path/FILE.py:NAME".

    Raises:
      ValueError: if there is no such module, file or name.
      Exception: what the module raises.
    """
    module, _, name = spec.rpartition(":")
    found = loaded(module)
    if not hasattr(found, name):
        raise ValueError(f"{module} has no {name!r}")
    return getattr(found, name)


def loaded(module: str) -> ModuleType:
    """Run and return a module: "package.module", also in the working directory, or "path/FILE.py".

    A file is in ``sys.modules`` as ``file_FILE``. For errors see ``imported``.
    """
    path = Path(os.path.expanduser(module))
    if path.suffix == ".py":
        if not path.is_file():
            raise ValueError(f"there is no file {module}")
        provide_configs(Path(__file__).parent / "configs")
        # A name of its own: a file random.py must not take the place of Python's module.
        described = importlib.util.spec_from_file_location(f"file_{path.stem}", path)
        assert described is not None and described.loader is not None
        made = importlib.util.module_from_spec(described)
        # Dataclasses look their module up by name.
        sys.modules[made.__name__] = made
        try:
            described.loader.exec_module(made)
        except ModuleNotFoundError as error:
            beside = shlex.quote(str(path.parent))
            error.add_note(
                f"if the module lies beside {path.name}, start the command with PYTHONPATH={beside}"
            )
            raise
        return made
    before = list(sys.path)
    sys.path.insert(0, "")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise ValueError(f"there is no module {module!r}; {error}") from error
    finally:
        sys.path[:] = before


def replace(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file under a temporary name and rename it to ``path`` when it is complete.

    The function ``write`` gets the open binary file. The directory must exist.
    """
    # Of this process, since another may write the same file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    if in_bucket(path):
        # An object appears when it is complete.
        with writing(path), path.open("wb") as file:
            write(file)
        return
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
        with path.open("rb") as file, NpzFile(file, allow_pickle=False) as archive:
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


def weights_checksum(arrays: Iterable[Any]) -> str:
    """The checksum that names the weights of a network in results and checkpoints."""
    return f"{array_checksum(arrays):08x}"
