"""Result files of one or more runs -> one self-contained HTML page, and tables.

Reads result files only; imports neither JAX nor Flax, so a report can be made on any machine.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from vone_jax.report import page, tables
from vone_jax.report.load import load_runs
from vone_jax.report.records import ReportError

__all__ = ["ReportError", "write"]


def write(
    run_dirs: Iterable[str | os.PathLike],
    out: str | os.PathLike,
    tables_dir: str | os.PathLike | None = None,
) -> Path:
    """Writes a report of runs.

    Args:
      run_dirs: run directories with results; the order is that of the networks on the page.
      out: the HTML file; missing parent directories are made, an existing file is replaced.
      tables_dir: a directory for ``numbers.csv`` with every measured number; None: no table.

    Returns:
      The path of the page.

    Raises:
      ReportError: if a run directory or a file in it cannot be used, or ``out`` is no file name.
    """
    if isinstance(run_dirs, str | os.PathLike):
        raise ReportError(f"run_dirs must be a list of directories, got {os.fspath(run_dirs)!r}")
    path = Path(out)
    if path.is_dir():
        raise ReportError(f"out must be the name of an HTML file, {path} is a directory")
    runs = load_runs(run_dirs)
    _replace(path, page.render(runs))
    if tables_dir is not None:
        _replace(Path(tables_dir) / "numbers.csv", tables.numbers_csv(runs))
    return path


def _replace(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old one or the new one, never half of it."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(path)
    except OSError as error:
        raise ReportError(f"{path} cannot be written ({error.strerror})") from error
