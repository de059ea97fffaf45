"""Results of many networks: run directories, and their data frame."""

import dataclasses
import glob
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vone_jax import names
from vone_jax.results.result import Result, ResultError, read, read_json
from vone_jax.results.row import condition_key, label, ordered

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A network with its results, and its training if it is a run of ``train.py``.

    Attributes:
      path: the directory.
      label: the network's name as papers write it; unique among runs that are loaded together.
      results: in the order of their names.
      experiment: the experiment in config.json; None without one.
      log: the lines of log.jsonl; empty without one.
      unfinished: names of results that were begun and are not finished.
    """

    path: Path
    label: str
    results: Sequence[Result]
    experiment: dict[str, Any] | None = None
    log: Sequence[dict[str, Any]] = ()
    unfinished: Sequence[str] = ()

    def of(self, condition: str) -> list[Result]:
        """The results of a kind of condition, such as "attack"."""
        return [result for result in self.results if result.row["condition"] == condition]


class Runs(tuple[Run, ...]):
    """Several runs, in the order in which they were given."""

    def __repr__(self) -> str:
        return f"Runs({', '.join(run.label for run in self)})"

    def to_frame(self) -> "pd.DataFrame":
        """The measured numbers, one row each.

        Columns: ``run`` (path), ``label`` (the condition in words), those of ``results.row``, with
        all columns of the kinds that were measured, and the fields of the identity by their paths:
        "condition.attack.step_size", "network.description.model.v1.k_exc". A column that does not
        apply to a row is missing there.
        """
        import pandas as pd

        rows = [
            {"run": str(run.path), "label": label(row), **row, "network": run.label, "at": at}
            for at, (run, result) in enumerate((run, r) for run in self for r in run.results)
            for row in result.rows
        ]
        columns = ["run", "label", *ordered(name for row in rows for name in row), "at"]
        numbers = pd.DataFrame(rows).reindex(columns=list(dict.fromkeys(columns)))
        for column in ("eps", "value", "low", "high"):
            if column in numbers:
                numbers[column] = numbers[column].astype(float)
        identities = pd.json_normalize([r.identity for run in self for r in run.results])
        # The seed and the tag are columns of the row.
        paths = identities[[name for name in identities if name not in numbers]]
        return numbers.join(paths, on="at").drop(columns="at")


def load(paths: str | os.PathLike | Iterable[str | os.PathLike]) -> Runs:
    """Read the results of networks.

    Args:
      paths: directories of result files, or run directories, which have them in "results"; or one
        pattern such as ``"runs/*"``. Of the directories that a pattern matches, those without
        results are left out.

    Returns:
      The runs in the given order, with distinct labels.

    Raises:
      ResultError: if there is no directory, one has no results or is given twice, a file in it
        cannot be read, or two of its results are of one condition.
    """
    if isinstance(paths, str | os.PathLike):
        # A directory whose name has a bracket is no pattern.
        pattern = os.fspath(paths)
        found = [pattern] if Path(pattern).is_dir() else sorted(glob.glob(pattern))
        directories = [Path(match) for match in found]
        if len(found) > 1:
            directories = [path for path in directories if any(_results(path).glob("*.json"))]
        if not directories:
            raise ResultError(f"{pattern} matches no directory with results")
    else:
        directories = list(map(Path, paths))
    if not directories:
        raise ResultError("at least one run directory must be named, got none")
    directories = [path.parent if path.name == "results" else path for path in directories]
    resolved = [path.resolve() for path in directories]
    if len(set(resolved)) < len(resolved):
        twice = next(path for path in resolved if resolved.count(path) > 1)
        raise ResultError(f"the run directory {twice} is given twice, give it once")
    runs = [_load(path) for path in directories]
    labels = [run.label for run in runs]
    for distinct in ([path.name for path in resolved], list(map(str, directories))):
        labels = [
            f"{run.label} ({name})" if labels.count(label) > 1 else label
            for run, label, name in zip(runs, labels, distinct, strict=True)
        ]
    return Runs(
        dataclasses.replace(run, label=label) for run, label in zip(runs, labels, strict=True)
    )


def _results(path: Path) -> Path:
    """The directory of the result files of a run directory, or the directory itself."""
    is_run = (path / "results").is_dir() or (path / "config.json").exists()
    return path / "results" if is_run else path


def _load(path: Path) -> Run:
    directory = _results(path)
    # Names are sorted without their ending, because "-" sorts before ".".
    found = sorted(directory.glob("*.json"), key=lambda file: file.stem)
    results = [read(file) for file in found]
    if not results:
        inner = sorted(str(folder.parent) for folder in path.glob("*/results"))
        hint = f"; did you mean {' '.join(inner)}?" if inner else ""
        raise ResultError(
            f"there are no results in {path} (files results/*.json); make them with "
            f"{names.command('eval.py')}{hint}"
        )
    networks = [result.identity["network"] for result in results]
    # Two files of weights with the same name have the same directory of results.
    if len({network["checksum"] for network in networks}) > 1:
        described = sorted({f"{each['name']} (weights {each['checksum']})" for each in networks})
        raise ResultError(
            f"{path} has results of different networks: {', '.join(described)}; evaluate each with "
            "a directory of its own (--results)"
        )
    labels = {condition_key(row): label(row) for each in results for row in each.rows}
    measured = Counter(condition_key(row) for each in results for row in each.rows)
    if twice := next((key for key, count in measured.items() if count > 1), None):
        raise ResultError(
            f"{path} has two results {labels[twice]!r}; give one of them a tag (--tag)"
        )
    config, log = path / "config.json", path / "log.jsonl"
    return Run(
        path=path,
        label=networks[0]["label"],
        results=results,
        experiment=read_json(config).get("experiment") if config.exists() else None,
        log=_read_log(log) if log.exists() else (),
        # STEM.DIGEST.partial, see ``evaluation.run``.
        unfinished=sorted(
            {folder.stem.rpartition(".")[0] for folder in directory.glob("*.partial")}
        ),
    )


def _read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a training log. A process that was killed leaves the last one cut off."""
    lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
            json.dumps(records[-1], allow_nan=False)
        except ValueError as error:
            if number < len(lines):
                raise ResultError(f"{path}, line {number}: {error}") from error
    return records
