"""Result files of one or more runs -> one self-contained HTML page, and tables.

This package reads result files only and imports neither JAX nor Flax, so a report can be made on
any machine.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from vone_jax import files
from vone_jax.report import page, scores, v1_match
from vone_jax.results import ResultError, Runs, load

__all__ = ["write"]


def write(
    runs: Runs | Iterable[str | os.PathLike],
    out: str | os.PathLike,
    tables_dir: str | os.PathLike | None = None,
    v1_match_radii: int | None = None,
) -> Path:
    """Write a report of runs.

    Args:
      runs: run directories with results, or runs that are loaded; the order is that of the networks
        on the page.
      out: the HTML file; missing parent directories are made, an existing file is replaced.
      tables_dir: a directory for ``numbers.csv`` with every measured number and ``scores.csv`` and
        ``scores.md`` with the aggregate scores; None: no tables.
      v1_match_radii: also write ``v1_match.csv``, ``.md``, ``.png`` and ``.svg`` there: the V1
        match of the networks against their accuracy at this number of smallest radii of each norm.

    Returns:
      The path of the page.

    Raises:
      ResultError: if a run directory or a file in it cannot be used, ``out`` is no file name, or
        ``v1_match_radii`` is given and there is no directory, or results for it are missing.
      OSError: if a file cannot be written.
    """
    if isinstance(runs, str | os.PathLike):
        raise ResultError(
            f"runs must be a list of directories, or results.load(...), got {os.fspath(runs)!r}"
        )
    if not isinstance(runs, Runs):
        runs = load(runs)
    path = Path(out)
    if path.is_dir():
        raise ResultError(f"out must be the name of an HTML file, {path} is a directory")
    if v1_match_radii is not None and tables_dir is None:
        raise ResultError("tables_dir must be given with v1_match_radii, got None")
    matched = None if v1_match_radii is None else v1_match.match(runs, v1_match_radii)
    _replace(path, page.render(runs))
    if tables_dir is not None:
        table = scores.table(runs)
        tables: dict[str, str | bytes] = {
            "numbers.csv": runs.to_frame().to_csv(index=False, lineterminator="\n"),
            "scores.csv": table.to_csv(),
            "scores.md": table.to_markdown(),
        }
        if matched is not None:
            tables |= {
                "v1_match.csv": matched.to_csv(),
                "v1_match.md": matched.to_markdown(),
                "v1_match.png": matched.to_png(),
                "v1_match.svg": matched.to_svg(),
            }
        for name, content in tables.items():
            _replace(Path(tables_dir) / name, content)
    return path


def _replace(path: Path, content: str | bytes) -> None:
    # Tables hold the bytes of a path that are not valid UTF-8 as lone surrogates.
    data = content.encode(errors="replace") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    files.replace(path, lambda file: file.write(data))
