"""Results of many networks: run directories, read and checked, and their data frame."""

import dataclasses
import errno
import glob
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vone_jax import arguments, files, names
from vone_jax.arguments import NOT_NEGATIVE, SHARE, Range
from vone_jax.results.conditions import AttackCondition, MaskingCondition, MinimalCondition
from vone_jax.results.files import ResultError, UnknownKindError, read, read_json
from vone_jax.results.format import Result
from vone_jax.results.measured import Accuracy, Checks, CorruptionMeans, Distances, Rung

if TYPE_CHECKING:
    import pandas as pd

# Columns of ``Runs.to_frame``. ``run`` is the path of the run, ``network`` its label and ``model``
# its architecture. ``kind`` is the kind of the result and ``result`` the stem of its file. ``eps``
# is in pixel units, and ``eps_label`` as papers write it. ``attack_settings`` is the attack as
# code. ``test_noise`` has words only if the noise of training was replaced. ``noise``, ``draws``,
# ``decision`` and ``averaged`` are the fields of ``Protocol``, and ``protocol`` has them in words.
# ``low`` and ``high`` are the 95 % interval of ``value`` over images. ``correct`` is the sum over
# the ``seen`` images of the share of decisions that were right. ``images`` is the number of images
# behind the result.
COLUMNS = (
    *("run", "network", "model", "kind", "result", "dataset", "split"),
    *("norm", "eps", "eps_label", "attack", "attack_settings", "eot_samples", "estimator"),
    *("attack_noise", "test_noise", "corruption", "severity", "form", "layer"),
    *("noise", "draws", "decision", "averaged", "protocol"),
    *("quantity", "value", "low", "high", "standard_error_over_draws", "correct", "seen"),
    *("images", "interval_method"),
)
# The numbers in a line of a training log.
_LOGGED = {"step": NOT_NEGATIVE, "epoch": NOT_NEGATIVE, "loss": Range(-math.inf), "accuracy": SHARE}


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A network with its training log and its results.

    Attributes:
      name: the name of the run directory.
      label: the network's name as papers write it; unique among runs that are loaded together.
      model: the architecture, such as ``"vone_resnet18"``.
      stochastic: whether the network as trained draws noise.
      config: the content of config.json; empty if there is none.
      log: the lines of log.jsonl; empty if there is none.
      results: all results in the order of their names, so that one which was measured again under
        a tag comes after the usual one.
      gaps: files that are missing, cut off or unfinished. The other results are usable.
      warnings: other problems that leave the results usable.
      sets: pairs of data set and split, the preferred one first. They are the same for all runs
        loaded together, so that these are shown on the same images. Empty: the run's own pairs.
    """

    path: Path
    name: str
    label: str
    model: str
    stochastic: bool
    parameters: int
    config: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    results: Sequence[Result]
    gaps: Sequence[str]
    warnings: Sequence[str]
    sets: Sequence[tuple[str, str]] = ()

    def of_kind(self, *kinds: str) -> list[Result]:
        """The results of some kinds."""
        return [result for result in self.results if result.kind in kinds]

    @property
    def on_images(self) -> list[Result]:
        """The results on the images of one data set.

        Left out are results on gratings, and on published corrupted images, which are data sets
        of their own.
        """
        return [each for each in self.results if each.kind != "physiology" and not each.published]

    def comparable(self, results: Iterable[Result]) -> list[Result]:
        """Return the results that may be shown together, those on the most images first.

        They are on one data set, the first of ``sets`` that any of them uses, or on published
        corrupted images, which come last.
        """
        results = list(results)
        sets = self.sets or ranked_sets([self])
        used = {each.dataset.part for each in results if not each.published}
        chosen = min(used, key=sets.index, default=None)
        shown = [each for each in results if each.published or each.dataset.part == chosen]
        return sorted(shown, key=lambda each: (each.published, -each.images))


def ranked_sets(runs: Sequence[Run]) -> tuple[tuple[str, str], ...]:
    """Data sets and splits, first by the runs with results on them, then by the results.

    Of two that are equally frequent, the one with the shortest name of a result comes first,
    because a tag makes the names of unusual results longer.
    """
    measured = [(place, r) for place, run in enumerate(runs) for r in run.on_images]

    def order(part: tuple[str, str]) -> tuple:
        on_part = [(place, r.name) for place, r in measured if r.dataset.part == part]
        having = {place for place, _ in on_part}
        return -len(having), -len(on_part), min(len(name) for _, name in on_part), part

    return tuple(sorted({r.dataset.part for _, r in measured}, key=order))


class Runs(tuple[Run, ...]):
    """Several runs, in the order in which they were given."""

    def to_frame(self) -> "pd.DataFrame":
        """The measured numbers, one row each, with the columns ``COLUMNS``.

        ``quantity`` names the number: "accuracy" of clean, attacked and corrupted images and at
        each radius of a ladder, "median distance", means over corruptions and "mCE", the numbers of
        the checks for masked gradients as "CHECK: NUMBER", and of a layer "mean score" and "score:
        PROPERTY". ``value`` is the number, ``low`` and ``high`` its 95 % interval. A column that
        does not apply to a row is missing there.
        """
        import pandas as pd

        rows = [row for run in self for result in run.results for row in _rows(run, result)]
        return pd.DataFrame(rows, columns=pd.Index(COLUMNS))


def load(paths: str | os.PathLike | Iterable[str | os.PathLike]) -> Runs:
    """Read the results of networks.

    Args:
      paths: directories of result files, or run directories, which have them in "results"; or one
        pattern such as ``"runs/*"``. Of the directories that a pattern matches, those without
        results are left out.

    Returns:
      The runs in the given order, with distinct labels.

    Raises:
      TypeError: for something else than paths.
      ResultError: if there is no directory, one does not exist, has no results or is given
        twice, or a file in it is damaged or contradicts itself.
    """
    if isinstance(paths, str | os.PathLike):
        pattern = os.fspath(paths)
        directories = [Path(match) for match in sorted(glob.glob(pattern))]
        directories = [path for path in directories if _result_files(path)]
        if Path(pattern).is_dir():
            # A directory whose name has a bracket is no pattern.
            directories = [Path(pattern)]
        if not directories:
            raise ResultError(f"{pattern} matches no directory with results (results/*.json)")
    else:
        directories = []
        for path in paths if isinstance(paths, Iterable) else [paths]:
            if not isinstance(path, str | os.PathLike):
                raise TypeError(
                    "paths must be run directories, or one pattern such as 'runs/*', got "
                    f"{path!r:.80}"
                )
            directories.append(Path(path))
    if not directories:
        raise ResultError("at least one run directory must be named, got none")
    directories = [path.parent if path.name == "results" else path for path in directories]
    for path, count in Counter(path.resolve() for path in directories).items():
        if count > 1:
            raise ResultError(f"the run directory {path} is given {count} times, give it once")
    runs = [_load(path) for path in directories]
    labels = [run.label for run in runs]
    for distinct in ([run.name for run in runs], [str(run.path) for run in runs]):
        labels = [
            f"{run.label} ({name})" if labels.count(label) > 1 else label
            for run, label, name in zip(runs, labels, distinct, strict=True)
        ]
    sets = ranked_sets(runs)
    return Runs(
        dataclasses.replace(run, label=label, sets=sets)
        for run, label in zip(runs, labels, strict=True)
    )


def _load(path: Path) -> Run:
    if not path.is_dir():
        state = "is not a directory" if path.exists() else "does not exist"
        raise ResultError(f"the run directory {path} {state}")
    for directory in (path, path / "results"):
        # Path.glob finds nothing in a directory that may not be read.
        if directory.is_dir() and not os.access(directory, os.R_OK | os.X_OK):
            raise ResultError(f"{directory} cannot be read: {os.strerror(errno.EACCES)}")
    gaps: list[str] = []
    warnings: list[str] = []
    results = list(_results(path, gaps, warnings))
    if not results:
        inner = sorted(str(folder.parent) for folder in path.glob("*/results"))
        hint = f"; did you mean {' '.join(inner)}?" if inner else ""
        raise ResultError(
            f"the run directory {path} has no results (files results/*.json); make them with "
            f"{names.command('eval.py')}{hint}"
        )
    networks = [result.network for result in results]
    # Two files of weights with the same name have the same directory of results.
    sources = {network.source: network.weights for network in networks if network.source}
    weights = [f"{source} (weights {weights})" for source, weights in sources.items()]
    # The same file in two places is one network.
    weights = weights if len(set(sources.values())) > 1 else []
    architectures = list(dict.fromkeys(network.name for network in networks))
    for different in (architectures, weights):
        if len(different) > 1:
            raise ResultError(
                f"{path} mixes results of different networks: {', '.join(sorted(different))}; "
                f"evaluate each anew, with a directory of its own in --results"
            )
    config, log = path / "config.json", path / "log.jsonl"
    # Results of a run that are stored elsewhere contain its experiment.
    elsewhere = not (path / "results").is_dir() and "data" in networks[0].config
    if config.exists():
        if not log.exists():
            gaps.append(f"{log} is missing: the course of the training is not known.")
        described = read_json(config, "restore it, or move it away to read the results alone")
        # The digest is of the text, in which a path may have bytes that are not UTF-8.
        if not files.matches_digest(files.parse_json(config.read_text(encoding="utf-8"))):
            gaps.append(
                f"{config} does not match its digest: it was damaged or edited, and the network "
                "may have been trained in another way."
            )
    else:
        described = {"experiment": networks[0].config} if elsewhere else {}
        # A network that is no run has neither of the two files.
        if log.exists() or not (networks[0].source or elsewhere):
            told = gaps if log.exists() else warnings
            told.append(f"{config} is missing: how this network was trained is not known.")
    return Run(
        path=path,
        name=Path(os.path.abspath(path)).name,
        label=networks[0].label,
        model=networks[0].name,
        stochastic=networks[0].stochastic,
        parameters=networks[0].parameters,
        config=described,
        log=_read_log(log, gaps),
        results=results,
        gaps=gaps,
        warnings=warnings,
    )


def _result_files(path: Path) -> list[Path]:
    """The result files of a run directory, or of a directory that holds nothing else, by name.

    Names are sorted without their ending, because "-" sorts before ".".
    """
    if (path / "results").is_dir() or (path / "config.json").exists():
        path = path / "results"
    return sorted(path.glob("*.json"), key=lambda file: file.stem)


def _results(run: Path, gaps: list[str], warnings: list[str]) -> Iterator[Result]:
    paths = _result_files(run)
    directory = paths[0].parent if paths else run
    for path in paths:
        try:
            result = read(path)
        except UnknownKindError as error:
            warnings.append(f"{error}; it is not shown.")
            continue
        if result.name != path.stem and path.parent / f"{result.name}.json" in paths:
            warnings.append(f"{path} is a copy of {result.name}.json; it is not shown.")
            continue
        loss = None if result.arrays else _loss(result)
        if loss is not None:
            gaps.append(f"{path.with_suffix('.npz')} is missing: {loss}.")
        yield result
    finished = {path.stem for path in paths}
    unfinished = {path.stem for path in directory.glob("*.partial")}
    lost = {path.stem for path in directory.glob("*.npz")} - finished - unfinished
    if lost:
        gaps.append(
            f"{directory} has arrays without their JSON files: {', '.join(sorted(lost))}. Evaluate "
            f"again, or delete them."
        )
    if unfinished:
        gaps.append(
            f"{directory} has evaluations that have not finished: {', '.join(sorted(unfinished))}. "
            f"Evaluate again with the same options; each continues where it stopped."
        )


def _loss(result: Result) -> str | None:
    """The consequence of missing arrays in words; None for a result that has none."""
    if isinstance(result.measured, Accuracy):
        unknown = "the difference between networks is known less precisely"
        return f"without the answers for each image, {unknown}"
    if result.kind in ("gallery", "v1"):
        return "its pictures are not shown"
    if result.scores is not None:
        return "its units are not shown"
    return None


def _read_log(path: Path, gaps: list[str]) -> list[dict[str, Any]]:
    """The lines of a training log."""
    try:
        records, cut_off = files.read_json_lines(path, _check_line)
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ResultError(
            f"{error}; mend it, or move {path.name} away to see the run without its log"
        ) from error
    if cut_off:
        gaps.append(f"the last line of {path} is cut off and was left out.")
    return records


def _check_line(record: Any) -> None:
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        raise ValueError(f"must hold a JSON object with a kind, got {record!r:.80}")
    if record["kind"] in ("train", "validation"):
        for name, within in _LOGGED.items():
            arguments.number(name, record.get(name), within)


def _rows(run: Run, result: Result) -> Iterator[dict[str, Any]]:
    """The rows of a result in the data frame."""
    common, measured = _common_columns(run, result), result.measured

    def share(item: Accuracy | Rung, method: str, **fields: Any) -> dict[str, Any]:
        columns = {"quantity": "accuracy", "value": item.accuracy, "interval_method": method}
        error = None if item.between_draws is None else item.between_draws.standard_error
        ends = dict(zip(("low", "high"), item.interval, strict=True))
        return common | columns | ends | {"standard_error_over_draws": error} | fields

    if isinstance(measured, Accuracy):
        counts = {"correct": measured.correct, "seen": measured.seen}
        yield share(measured, measured.interval_method, **counts)
    for quantity, value in _numbers(result).items():
        yield common | {"quantity": quantity, "value": value}
    if isinstance(measured, Distances):
        for rung in measured.ladder:
            label = names.eps_label(result.attack.norm, rung.eps)
            yield share(rung, measured.interval_method, eps=rung.eps, eps_label=label)


def _numbers(result: Result) -> dict[str, float | None]:
    """The numbers of a result that have no interval."""
    measured, scores = result.measured, result.scores
    if isinstance(measured, Distances):
        return {"median distance": measured.median_distance}
    if isinstance(measured, Checks):
        return {
            f"{check.name}: {name}": None if value is None else float(value)
            for check in measured.checks
            for name, value in check.numbers.items()
        }
    numbers: dict[str, float | None] = {}
    if isinstance(measured, CorruptionMeans):
        numbers = {
            "mean over corruptions": measured.of_corruptions,
            "mean over categories": measured.of_categories,
            **{f"mean over {name}": value for name, value in measured.categories.items()},
            "mCE": measured.mce,
            "relative mCE": measured.relative_mce,
        }
    elif scores is not None:
        items = scores.properties.items()
        numbers = {"mean score": scores.mean_score} | {f"score: {n}": p.score for n, p in items}
    return {name: value for name, value in numbers.items() if value is not None}


def _common_columns(run: Run, result: Result) -> dict[str, Any]:
    condition = result.condition
    columns: dict[str, Any] = {
        "run": str(run.path),
        "network": run.label,
        "model": run.model,
        "kind": result.kind,
        "result": result.name,
        "dataset": result.dataset.name,
        "split": result.dataset.split,
        "test_noise": result.network.noise_change,
        "protocol": result.protocol_label,
        "images": result.images,
        **dataclasses.asdict(result.protocol),
    }
    # The fields of conditions have the names of their columns.
    names = ("eot_samples", "estimator", "corruption", "severity", "form", "layer")
    columns |= {name: getattr(condition, name) for name in names if hasattr(condition, name)}
    if isinstance(condition, AttackCondition):
        noise = condition.attack_noise
        columns |= {
            "attack": condition.attack_name,
            "attack_settings": str(condition),
            "attack_noise": noise if isinstance(noise, str) else noise.slug,
        }
    elif isinstance(condition, MinimalCondition | MaskingCondition):
        columns |= {"attack": condition.attack.name, "attack_settings": str(condition.attack)}
    if "attack" in columns:
        columns["norm"] = result.attack.norm
    if isinstance(condition, AttackCondition | MaskingCondition):
        columns |= {"eps": condition.attack.eps, "eps_label": condition.attack.eps_label}
    return columns
