"""Result files of a run: written in chunks, published whole, never mixed.

    results/NAME.partial/identity.json   what is being evaluated
    results/NAME.partial/00000300.npz    one value per example of a chunk, from position 300 on
    results/NAME.json, NAME.npz          the finished result

Every file appears under its name complete, by renaming, so a process may be killed at any
moment and loses at most the chunk it was working on. Of several processes that evaluate together
all make the same calls, and process 0 writes.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

# The fields of a result that say what was measured. A chunk or a result is used again only if
# all of them agree.
IDENTITY = (
    "kind", "name", "model", "dataset", "condition", "protocol", "key", "config",
    "checkpoint_step", "weights",
)  # fmt: skip

# Of a chunk: the names of its arrays.
_FIELDS = "fields"


class ResultError(RuntimeError):
    """A result file is damaged, in use, or belongs to another evaluation."""


def config_hash(identity: dict[str, Any]) -> str:
    """A hash of what was measured."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def finished(results: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The finished result of this very evaluation; None if there is no result of its name.

    Raises:
      ResultError: if a result of its name is damaged or of another evaluation.
    """
    path = results / f"{identity['name']}.json"
    if not path.exists():
        return None
    record = _read_json(path)
    _check_same(path, identity, {name: record.get(name) for name in IDENTITY})
    if not path.with_suffix(".npz").exists():
        raise ResultError(f"{path} has lost its arrays; delete it and evaluate again")
    _read_arrays(path.with_suffix(".npz"))
    return record


@contextlib.contextmanager
def locked(results: Path, name: str) -> Iterator[None]:
    """Within the block no other program evaluates what is called ``name``.

    Raises:
      ResultError: if another one is doing so.
    """
    if not _writes():
        yield
        return
    results.mkdir(parents=True, exist_ok=True)
    path = _lock(results, name)
    # The kernel drops the lock with the process, however that ends.
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResultError(
                f"another process is writing {results / name}; wait for it, or give this one "
                "another name (--tag)"
            ) from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def publish(results: Path, record: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Writes a finished result and removes its chunks."""
    if not _writes():
        return
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{record['name']}.json"
    # The arrays first: a JSON file stands for a result that is complete.
    _replace(path.with_suffix(".npz"), lambda file: np.savez(file, **arrays))
    _replace(path, lambda file: file.write(_dump(record)))
    discard(results, record["name"])


def discard(results: Path, name: str) -> None:
    """Removes the chunks of a result."""
    if not _writes():
        return
    shutil.rmtree(_partial(results, name), ignore_errors=True)


def tidy(results: Path, name: str) -> None:
    """Removes what a process has left that was killed just after it had published a result."""
    if not _writes():
        return
    discard(results, name)
    _lock(results, name).unlink(missing_ok=True)


def remove(results: Path, name: str) -> None:
    """Removes a result, finished or not."""
    if not _writes():
        return
    discard(results, name)
    for suffix in (".json", ".npz"):
        (results / f"{name}{suffix}").unlink(missing_ok=True)


def open_chunks(results: Path, identity: dict[str, Any]) -> dict[int, dict[str, np.ndarray]]:
    """The chunks that an evaluation has written so far, by the position of their first example.

    Raises:
      ResultError: if they are damaged or of another evaluation.
    """
    directory = _partial(results, identity["name"])
    described = directory / "identity.json"
    if described.exists():
        _check_same(described, identity, _read_json(described))
    elif _writes():
        directory.mkdir(parents=True, exist_ok=True)
        _replace(described, lambda file: file.write(_dump(identity)))
    return {int(path.stem): _read_chunk(path) for path in sorted(directory.glob("*.npz"))}


def write_chunk(results: Path, name: str, position: int, arrays: dict[str, Any]) -> None:
    """Adds the chunk that begins at a position."""
    if not _writes():
        return
    path = _partial(results, name) / f"{position:08d}.npz"
    # The list of the archive can be damaged, and then an array is not there.
    whole: dict[str, Any] = arrays | {_FIELDS: np.array(sorted(arrays))}
    _replace(path, lambda file: np.savez(file, **whole))


def _lock(results: Path, name: str) -> Path:
    return results / f".{name}.lock"


def _writes() -> bool:
    return jax.process_index() == 0


def _partial(results: Path, name: str) -> Path:
    return results / f"{name}.partial"


def _check_same(path: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    here, there = _flatten(ours), _flatten(theirs)
    differing = [
        f"{name} is {here.get(name, 'absent')}, was {there.get(name, 'absent')}"
        for name in sorted(here | there)
        if here.get(name) != there.get(name)
    ]
    if differing:
        raise ResultError(
            f"{path} is of another evaluation ({'; '.join(differing)}); overwrite it "
            f"(--overwrite) or give this one another name (--tag)"
        )


def _flatten(value: Any, path: str = "") -> dict[str, str]:
    """The leaves of a tree of JSON values as text, by their path."""
    if not isinstance(value, dict):
        return {path: json.dumps(value)}
    flat = {}
    for name, item in value.items():
        flat |= _flatten(item, f"{path}.{name}" if path else name)
    return flat


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode() + b"\n"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise ResultError(f"{path} is damaged ({error}); delete it and evaluate again") from error
    if not isinstance(value, dict):
        raise ResultError(f"{path} is damaged; delete it and evaluate again")
    return value


def _read_chunk(path: Path) -> dict[str, np.ndarray]:
    arrays = _read_arrays(path)
    fields = arrays.pop(_FIELDS, None)
    if fields is None or fields.tolist() != sorted(arrays):
        raise ResultError(f"{path} has lost arrays; delete it and evaluate again")
    return arrays


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    # What zipfile raises for a flipped bit depends on the bit.
    damages = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile)
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except damages as error:
        raise ResultError(f"{path} is damaged ({error}); delete it and evaluate again") from error


def _replace(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # Where the disk is full, Python does not say what could not be written.
        raise OSError(
            error.errno, f"{path} cannot be written: {error.strerror or error}"
        ) from error
