"""Guards against untrusted files: one error class, clean text, and regular files only."""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from vone_jax import files

_LONGEST_LINE = 600
_MOST_PROBLEMS = 1000
_LARGEST_JSON = 2**20


class CheckpointError(ValueError):
    """A file that cannot be converted. The message lists every problem, one on each line.

    Names from a hostile file end up in terminals and logs. So long lines are cut, control
    characters are replaced, and a list ends after 1000 problems.

    Attributes:
      problems: the problems, one line each.
    """

    def __init__(self, what: str, problems: Sequence[str] = ()):
        lines = [printable(problem) for problem in problems[:_MOST_PROBLEMS]]
        if len(problems) > _MOST_PROBLEMS:
            lines.append(f"and {len(problems) - _MOST_PROBLEMS} more")
        self.problems = tuple(lines)
        super().__init__("\n  ".join([printable(what), *lines]))


def printable(text: str) -> str:
    """Cut a text to the length of a line, with "?" in place of control characters."""
    line = "".join(c if c.isprintable() else "?" for c in text[:_LONGEST_LINE])
    return line if len(text) <= _LONGEST_LINE else f"{line}..."


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Opening a named pipe would block, and a device such as ``/dev/zero`` does not end.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path.name} must be a regular file, not a pipe, socket or device")
    return path.open("rb")


def parse_json(text: str | bytes, name: str) -> Any:
    """Parse JSON of at most 1 MiB, which bounds the memory of nested lists."""
    if len(text) > _LARGEST_JSON:
        raise CheckpointError(f"{name} must have at most {_LARGEST_JSON} bytes, got {len(text)}")
    try:
        return files.parse_json(text)
    except ValueError as error:
        raise CheckpointError(f"{name} is not JSON: {error}") from None


def read_json(path: Path) -> Any:
    """Read a JSON file, see ``parse_json`` and ``open_regular``."""
    with open_regular(path) as file:
        return parse_json(file.read(_LARGEST_JSON + 1), path.name)
