"""Run directories as checked, typed values."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vone_jax.report import physiology_records
from vone_jax.report.records import Record, ReportError, read_json_lines
from vone_jax.report.results import Result, load_result, read_format
from vone_jax.report.wording import listing


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A trained network with its training log and results.

    Attributes:
      path: the run directory.
      name: its name.
      label: how the network is called on the page; unique among the runs of a report.
      model: name of the network, such as ``vone_resnet18``.
      stochastic: whether its answers are random.
      parameters: number of trained parameters, if recorded.
      config: the content of config.json, empty if there is none.
      log: the lines of log.jsonl.
      results: all results, in the order of their file names.
      warnings: problems that leave the results usable and that a reader must know of.
    """

    path: Path
    name: str
    label: str
    model: str
    stochastic: bool
    parameters: int | None
    config: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    results: Sequence[Result]
    warnings: Sequence[str]

    def of_kind(self, *kinds: str) -> list[Result]:
        """The results of some kinds."""
        return [result for result in self.results if result.kind in kinds]

    @property
    def on_images(self) -> list[Result]:
        """The results on images of one data set: all but those on gratings, and on the sets that
        corrupted images are published as."""
        return [
            result
            for result in self.results
            if result.kind != physiology_records.KIND and not result.published
        ]


def load_runs(run_dirs: Iterable[str | os.PathLike]) -> list[Run]:
    """Reads run directories.

    Args:
      run_dirs: directories that training and evaluation have written.

    Returns:
      The runs in the given order, with distinct labels.

    Raises:
      ReportError: if there is no directory, one does not exist, has no results or is given
        twice, or a file in it is damaged, of another format, or contradicts itself.
    """
    paths = [Path(run_dir) for run_dir in run_dirs]
    if not paths:
        raise ReportError("run_dirs must name at least one run directory, got none")
    for path, count in Counter(path.resolve() for path in paths).items():
        if count > 1:
            raise ReportError(f"the run directory {path} is given {count} times, give it once")
    runs = [_load_run(path) for path in paths]
    labels = [run.label for run in runs]
    for names in ([run.name for run in runs], [str(run.path) for run in runs]):
        if len(set(labels)) == len(runs):
            break
        labels = [
            f"{run.label} ({name})" if labels.count(label) > 1 else label
            for run, label, name in zip(runs, labels, names, strict=True)
        ]
    return [dataclasses.replace(run, label=label) for run, label in zip(runs, labels, strict=True)]


def _load_run(path: Path) -> Run:
    if not path.is_dir():
        state = "is not a directory" if path.exists() else "does not exist"
        raise ReportError(f"the run directory {path} {state}")
    warnings: list[str] = []
    results = []
    for file in sorted((path / "results").glob("*.json")):
        result = load_result(file, warnings)
        if result is not None:
            results.append(result)
    unfinished = {file.stem for file in (path / "results").glob("*.partial")} | {
        file.stem for file in (path / "results").glob("*.npz")
    } - {file.stem for file in (path / "results").glob("*.json")}
    if unfinished:
        warnings.append(
            f"{path / 'results'} has evaluations that have not finished: "
            f"{listing(sorted(unfinished))}. Run the same eval.py command again, it continues "
            f"where it stopped."
        )
    if not results:
        inner = sorted(str(found.parent) for found in path.glob("*/results"))
        hint = f"; did you mean {' '.join(inner)}?" if inner else ""
        raise ReportError(
            f"the run directory {path} has no results (files results/*.json); make them with "
            f"python eval.py {path}{hint}"
        )
    models = [Record(result.path, dict(result.record)).section("model") for result in results]
    names = sorted({model.text("name") for model in models})
    if len(names) > 1:
        raise ReportError(
            f"{path / 'results'} mixes results of different networks: {', '.join(names)}"
        )
    config = path / "config.json"
    if not config.exists():
        warnings.append(f"{config} is missing: how this network was trained is not known.")
    parameters = models[0].data.get("parameters")
    return Run(
        path=path,
        name=Path(os.path.abspath(path)).name,
        label=models[0].text("label"),
        model=names[0],
        stochastic=models[0].data.get("stochastic") is True,
        parameters=parameters if isinstance(parameters, int) else None,
        config=read_format(config).data if config.exists() else {},
        log=_load_log(path / "log.jsonl", warnings),
        results=results,
        warnings=warnings,
    )


def _load_log(path: Path, warnings: list[str]) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines, cut_off = read_json_lines(path)
    if cut_off:
        warnings.append(f"the last line of {path} is cut off and was left out.")
    for number, line in enumerate(lines, start=1):
        record = Record(Path(f"{path}, line {number}"), line)
        if record.text("kind") in ("train", "validation"):
            for name in ("step", "epoch"):
                record.number(name, low=0)
            record.number("loss")
            record.number("accuracy", low=0, high=1)
    return lines
