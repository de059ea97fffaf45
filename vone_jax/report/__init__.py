"""Result files of one or more runs -> one self-contained HTML page, and tables.

Reads result files only; imports neither JAX nor Flax, so a report can be made on any machine.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from vone_jax.report import page, scores, tables, v1_match
from vone_jax.report.figures import scatter
from vone_jax.report.load import load_runs
from vone_jax.report.records import ReportError

__all__ = ["ReportError", "write"]


def write(
    run_dirs: Iterable[str | os.PathLike],
    out: str | os.PathLike,
    tables_dir: str | os.PathLike | None = None,
    v1_match_budgets: int | None = None,
) -> Path:
    """Writes a report of runs.

    Args:
      run_dirs: run directories with results; the order is that of the networks on the page.
      out: the HTML file; missing parent directories are made, an existing file is replaced.
      tables_dir: a directory for ``numbers.csv`` with every measured number and ``scores.csv`` and
        ``scores.md`` with the aggregate scores; None: no tables.
      v1_match_budgets: also write ``v1_match.csv``, ``.md``, ``.png`` and ``.svg`` there: the V1
        match of the networks against their accuracy at so many of the weakest budgets of each norm.

    Returns:
      The path of the page.

    Raises:
      ReportError: if a run directory or a file in it cannot be used, ``out`` is no file name, or
        ``v1_match_budgets`` is given and there is no directory, or what it needs is missing.
    """
    if isinstance(run_dirs, str | os.PathLike):
        raise ReportError(f"run_dirs must be a list of directories, got {os.fspath(run_dirs)!r}")
    path = Path(out)
    if path.is_dir():
        raise ReportError(f"out must be the name of an HTML file, {path} is a directory")
    if v1_match_budgets is not None and tables_dir is None:
        raise ReportError("tables_dir must be given with v1_match_budgets, got None")
    runs = load_runs(run_dirs)
    matched = None if v1_match_budgets is None else v1_match.match(runs, v1_match_budgets)
    found = scores.table(runs)
    _replace(path, page.render(runs, found).encode())
    if tables_dir is not None:
        files = {
            "numbers.csv": tables.numbers_csv(runs).encode(),
            "scores.csv": tables.scores_csv(found).encode(),
            "scores.md": tables.scores_markdown(found).encode(),
        }
        if matched is not None:
            files |= {
                "v1_match.csv": v1_match.to_csv(matched).encode(),
                "v1_match.md": v1_match.to_markdown(matched).encode(),
                **{f"v1_match.{form}": scatter.v1_match(matched, form) for form in scatter.FORMATS},
            }
        for name, content in files.items():
            _replace(Path(tables_dir) / name, content)
    return path


def _replace(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old one or the new one, never half of it."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise ReportError(f"{path} cannot be written ({error.strerror})") from error
