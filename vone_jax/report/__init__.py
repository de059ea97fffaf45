"""Result files of one or more networks -> one self-contained HTML page.

This package reads result files only and imports neither JAX nor Flax, so a report can be made on
any machine.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from vone_jax import files
from vone_jax.report import page
from vone_jax.results import ResultError, Runs, load

__all__ = ["write"]


def write(
    runs: Runs | Iterable[str | os.PathLike],
    out: str | os.PathLike,
    baseline: str | None = None,
) -> Path:
    """Write a report of networks.

    Args:
      runs: directories with results, or runs that are loaded; the order is that of the networks on
        the page.
      out: the HTML file, in a directory that exists. An existing file is replaced.
      baseline: directory or label of the network with which the others are compared. Default: the
        first network without a V1, else the first.

    Returns:
      The path of the page.

    Raises:
      ResultError: if a directory or a file in it cannot be used, or ``baseline`` is none of them.
      OSError: if the page cannot be written.
    """
    if isinstance(runs, str | os.PathLike):
        raise ResultError(
            f"runs must be a list of directories, or results.load(...), got {os.fspath(runs)!r}"
        )
    if not isinstance(runs, Runs):
        runs = load(runs)
    path = Path(out)
    if path.is_dir() or not path.parent.is_dir():
        reason = "is a directory" if path.is_dir() else "is in no directory that exists"
        raise ResultError(f"out must be the name of an HTML file, {path} {reason}")
    content = page.render(runs, baseline).encode(errors="replace")
    files.replace(path, lambda file: file.write(content))
    return path
