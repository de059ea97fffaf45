"""Digests of the files of a directory, in the directory: SHA256SUMS, as ``sha256sum -c`` reads it.

The first line is a comment with the digest of the lines below, so that damage to the list is not
taken for damage to the files.
"""

import hashlib
import os
from pathlib import Path

NAME = "SHA256SUMS"


def write(directory: Path) -> None:
    """Lists the digests of all files in a directory and below. They must not change any more.

    Raises:
      OSError: if a file cannot be read, or the list not be written.
    """
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    lines = [f"{_digest(path)}  {path.relative_to(directory).as_posix()}\n" for path in paths]
    with open(directory / NAME, "wb") as file:
        file.write(_with_digest("".join(lines).encode()))
        file.flush()
        os.fsync(file.fileno())


def damage(directory: Path) -> list[str]:
    """What is wrong with the list and the files in it, each named; nothing if they are whole.

    Files that are not in the list are left out of account.
    """
    try:
        content = (directory / NAME).read_bytes()
    except OSError as error:
        return [_unreadable(NAME, error)]
    _, _, lines = content.partition(b"\n")
    if content != _with_digest(lines):
        return [f"{NAME} is damaged"]
    found = []
    for line in lines.decode().splitlines():
        digest, name = line.split("  ", 1)
        try:
            if _digest(directory / name) != digest:
                found.append(f"{name} does not match its digest")
        except OSError as error:
            found.append(_unreadable(name, error))
    return found


def _with_digest(lines: bytes) -> bytes:
    return b"# %s\n%s" % (hashlib.sha256(lines).hexdigest().encode(), lines)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreadable(name: str, error: OSError) -> str:
    missing = isinstance(error, FileNotFoundError)
    return f"{name} is missing" if missing else f"{name} cannot be read: {error.strerror}"
