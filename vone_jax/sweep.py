"""Sweeps: train or open many networks, evaluate each, and write one report.

A network is trained, opened from a file of weights, or an ensemble of others. Each training and
each evaluation is a process of its own. A member's directory has a line in ``sweep.jsonl`` for each
command that has ended well. Such commands are skipped; commands that were interrupted continue,
since train.py and eval.py do.
"""

import contextlib
import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vone_jax import arguments, cli, files
from vone_jax.evaluation import Request
from vone_jax.results import ResultError
from vone_jax.results import load as load_results
from vone_jax.training import experiment_files
from vone_jax.training import run as run_dirs
from vone_jax.training.experiment import Experiment
from vone_jax.training.run import saved_steps

STEPS = ("train", "evaluate", "report")
_RECORD = "sweep.jsonl"
# Cures of errors of a command, for those who have typed the sweep and not the command.
_IN_A_SWEEP = {
    "train": "; where train.py says --run-dir, choose another label, group or --runs",
    "evaluate": "; an option that eval.py names is a field of Request, such as overwrite=True, "
    "and --class-names one of Weights",
}


class SweepError(RuntimeError):
    """Some commands of a sweep have failed; the message lists them."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """A network that is opened and not trained: a file below the directory ``--weights``.

    Attributes:
      pattern: pattern of the file's name, such as ``"voneresnet50_e70.pth*"``.
      class_names: path of a file with the name of each logit, see ``eval.py --class-names``.

    Raises:
      ValueError: for a pattern that is empty, no text, or that of an absolute path, and for a path
        that is no text.
    """

    pattern: str
    class_names: str | None = None

    def __post_init__(self):
        pattern = self.pattern
        if not isinstance(pattern, str) or not pattern or Path(pattern).is_absolute():
            raise ValueError(f"pattern must be a relative pattern of file names, got {pattern!r}")
        arguments.fields(self)


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """The mean of the logits of networks that this sweep trains, see ``network.ensemble``.

    Attributes:
      labels: labels of at least two members that come before the ensemble in the sweep.

    Raises:
      ValueError: for labels that are no tuple or list of texts.
    """

    labels: tuple[str, ...]

    def __post_init__(self):
        whole = isinstance(self.labels, tuple | list)
        if not whole or not all(isinstance(each, str) for each in self.labels):
            raise ValueError(f"labels must be a tuple of labels of members, got {self.labels!r}")


@dataclasses.dataclass(frozen=True)
class Member:
    """One network of a sweep.

    Attributes:
      network: the experiment that trains it, its file of weights, or an ensemble.
      evaluations: further evaluations of this network, beyond those of the sweep.
    """

    network: Experiment | Weights | Ensemble
    evaluations: Sequence[Request] = ()


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Networks to train or open, measure and compare.

    Attributes:
      name: name of the report's file.
      group: name of the directory of run directories. Sweeps of one group share their networks: a
        member that another sweep has trained under the same label is not trained again.
      members: by label, which is the name of the run directory. The report shows the label if
        several networks have the same architecture.
      evaluations: the evaluations of every member.
      v1_match: whether the report also compares the V1 match of the networks with their
        robustness.

    Raises:
      ValueError: naming the field that is out of range.
    """

    name: str
    group: str
    members: Mapping[str, Member]
    evaluations: Sequence[Request] = ()
    v1_match: bool = False

    def __post_init__(self):
        if not isinstance(self.members, Mapping) or not self.members:
            raise ValueError("members must map the labels of one or more networks to Member(...)")
        named = [("name", self.name), ("group", self.group)]
        # In commands, SWEEP:LABEL is a member and NETWORK+NETWORK an ensemble.
        excluded = (":", "+", *run_dirs.PATTERN_CHARACTERS)
        for field, name in [*named, *(("members", label) for label in self.members)]:
            arguments.directory_name(field, name)
            if set(excluded) & set(name) or not name.isprintable():
                raise ValueError(
                    f"{field} must be printable and without any of {' '.join(excluded)}, got "
                    f"{name!r}"
                )
        trained: list[str] = []
        for label, member in self.members.items():
            hint = "; write Member(network) for a network"
            arguments.instance(f"members[{label!r}]", member, Member, hint)
            network = f"members[{label!r}].network"
            arguments.instance(network, member.network, Experiment | Weights | Ensemble)
            if isinstance(member.network, Experiment):
                trained.append(label)
            elif isinstance(member.network, Ensemble):
                others = member.network.labels
                if len(others) < 2 or not set(others) <= set(trained):
                    raise ValueError(
                        f"members[{label!r}] must be an ensemble of at least two of the networks "
                        f"that are trained before it, {', '.join(trained) or 'none'}; got "
                        f"{', '.join(others) or 'none'}"
                    )
            for field, requests in (
                ("evaluations", self.evaluations),
                (f"members[{label!r}].evaluations", member.evaluations),
            ):
                if not isinstance(requests, list | tuple):
                    got = f"got {requests!r:.80}"
                    raise ValueError(f"{field} must be a list of Request(...), {got}")
                for request in requests:
                    arguments.instance(field, request, Request)

    def evaluations_of(self, label: str) -> list[Request]:
        """The evaluations of a member, each once."""
        return list(dict.fromkeys([*self.evaluations, *self.members[label].evaluations]))


def load_sweep(name: str, configs: Path) -> Sweep:
    """Read a sweep: one of ``training.config_names``, or the path of a file that defines ``sweep``.

    Raises:
      ValueError: if there is no such file (the names are listed), or it defines no sweep, or the
        sweep is not valid.
    """
    return experiment_files.load(name, configs, "sweep", Sweep)


class _Command(NamedTuple):
    """A process for a member, and the key in the record of commands that have ended well."""

    network: Experiment | Weights | Ensemble
    run_dir: Path
    step: str
    arguments: tuple[str, ...]
    key: str
    # Runs whose weights it makes or uses: this one, those of an ensemble, or none for a file.
    needs: Sequence[Path]

    @property
    def others(self) -> list[Path]:
        """The runs of the members of an ensemble; empty for another network."""
        return [run_dir for run_dir in self.needs if run_dir != self.run_dir]


@dataclasses.dataclass(frozen=True)
class Options:
    """The parts of a sweep to run, and where. Every field is an option of sweep.py."""

    # Every COUNT-th network from the INDEX-th on, counted from 1: a job array runs 1/8 to 8/8.
    shard: str = "1/1"
    # Steps to run. The report covers the networks that have results; a shard writes no report.
    only: tuple[Literal["train", "evaluate", "report"], ...] = STEPS
    # Directory of the files of weights, for networks of the sweep that are not trained.
    weights: Path | None = None
    # Data set of all evaluations, such as folder:DIR. Default: the data set of each run.
    source: str | None = None
    # Split of all evaluations. Default: see eval.py.
    split: str | None = None
    # Directory of run directories.
    runs: Path = Path("runs")
    # Print the commands, but do not run them.
    dry_run: bool = False

    def __post_init__(self):
        arguments.fields(self)
        arguments.instance("runs", self.runs, Path)
        arguments.instance("weights", self.weights, Path | None)
        if not self.only or not set(self.only) <= set(STEPS):
            raise ValueError(
                f"only must be among {', '.join(STEPS)}; got {' '.join(self.only) or 'none'}"
            )
        index, count = self.shard_numbers
        if not 1 <= index <= count:
            raise ValueError(
                f"shard must be INDEX/COUNT such as 3/8, with 1 <= INDEX <= COUNT, got {self.shard}"
            )
        if count > 1 and set(self.only) == {"report"}:
            raise ValueError(
                f"shard must be left out for the report of all networks, got {self.shard}"
            )

    @property
    def shard_numbers(self) -> tuple[int, int]:
        """INDEX and COUNT of ``shard``; zeros if it has another form."""
        match = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        return (int(match[1]), int(match[2])) if match else (0, 0)


def run(name: str, sweep: Sweep, root: Path | None, options: Options) -> int:
    """Train or open the members of a shard, evaluate them, then write the report.

    The report covers the members that have results, except those whose training has failed. With
    several shards, a later call without ``shard`` evaluates the ensembles and writes the report.

    Args:
      name: name of the sweep, as train.py takes it.
      sweep: what to run. Its run directories are in ``options.runs / sweep.group``.
      root: directory of train.py and eval.py. None: the commands of the installed package.
      options: see ``Options``. A network whose file of weights is missing is named, and left out.

    Returns:
      0 if all is done, 75 if the sweep was stopped by SIGTERM or Ctrl-C.

    Raises:
      ValueError: if networks are to be opened and ``weights`` is no directory or holds none of
        them, if a run directory holds another experiment than its member, or if another sweep is
        at work on a member.
      SweepError: if commands have failed. Commands that do not depend on them were run, and the
        report covers the networks that are trained and have results.
    """
    runs, dry_run = options.runs, options.dry_run
    arguments.in_reach("runs", runs)
    if runs.exists() and not runs.is_dir():
        raise ValueError(f"runs must be a directory, {runs} is a file")
    index, count = options.shard_numbers
    group = runs / sweep.group
    opened = _weights_files(sweep, options.weights)
    labels = [
        label
        for label, member in sweep.members.items()
        if label in opened or not isinstance(member.network, Weights)
    ]
    alone = [label for label in labels if not isinstance(sweep.members[label].network, Ensemble)]
    chosen = labels if count == 1 else alone[index - 1 :: count]
    if not chosen:
        print(f"shard {options.shard} has no network: there are only {len(alone)}", flush=True)
    _check_runs(sweep, chosen, group)
    every = list(_commands(name, sweep, chosen, root, options, opened))
    commands = [command for command in every if command.step in options.only]
    keys = {command.key for command in every}
    try:
        with contextlib.nullcontext() if dry_run else _locked(commands):
            failures, untrained = _run_commands(commands, keys, root, dry_run)
            if "report" in options.only and count == 1:
                refused = {
                    each.run_dir.name for each in every if untrained.intersection(each.needs)
                }
                shown = _with_results(labels, refused, group, dry_run)
                if shown:
                    failures += _report(sweep, shown, root, group, dry_run)
                elif not failures:
                    failures.append("the report: no network has results")
    except _StoppedError:
        return cli.STOPPED
    if failures:
        raise SweepError("failed:\n  " + "\n  ".join(failures))
    return cli.FINISHED


class _StoppedError(Exception):
    """A command of a sweep was stopped by SIGTERM or Ctrl-C."""


@contextlib.contextmanager
def _locked(commands: Sequence[_Command]) -> Iterator[None]:
    """Keep other sweeps from members with unfinished commands, within a ``with`` block."""
    unfinished = dict.fromkeys(each.run_dir for each in commands if not _finished(each))
    with contextlib.ExitStack() as locks:
        for run_dir in unfinished:
            run_dir.parent.mkdir(parents=True, exist_ok=True)
            lock = run_dir.with_name(f".{run_dir.name}.lock")
            try:
                locks.enter_context(files.locked(lock))
            except files.LockedError as error:
                cure = f"wait for it, or choose another --runs: {error}"
                raise ValueError(f"another sweep is writing {run_dir}; {cure}") from None
            locks.callback(lock.unlink, missing_ok=True)
        yield


def _run_commands(
    commands: Sequence[_Command], keys: Set[str], root: Path | None, dry_run: bool
) -> tuple[list[str], set[Path]]:
    """Run the commands that are not finished, or print them. For ``keys`` see ``_append``.

    Returns:
      What has failed, one line each, and the directories of the runs whose training has failed.
    """
    failures: list[str] = []
    # Runs whose training has failed. The report leaves them out, with their ensembles.
    untrained: set[Path] = set()
    # Members without a checkpoint. The report shows them if they have results.
    unopened: set[Path] = set()
    # Runs that a dry run would train.
    planned: set[Path] = set()
    for number, command in enumerate(commands, start=1):
        run_dir = command.run_dir
        if run_dir not in untrained and (newer := _outdated(command.network, run_dir)):
            failures.append(
                f"{run_dir.name} was trained from {newer}, which was trained again since; delete "
                f"{run_dir} to train it again"
            )
            untrained.add(run_dir)
        ended = _finished(command) and not planned.intersection(command.others)
        if ended or (untrained | unopened).intersection(command.needs):
            continue
        if command.step == "evaluate" and not planned.intersection(command.needs):
            if problem := _without_checkpoint(command):
                failures.append(problem)
                unopened.add(run_dir)
                continue
        typed = shlex.join(["python", *command.arguments])
        print(typed if dry_run else f"[{number}/{len(commands)}] {typed}", flush=True)
        if dry_run:
            if command.step == "train":
                planned.add(run_dir)
            continue
        before, trained = _results(run_dir), _trained(command)
        status = _execute([sys.executable, *command.arguments], root)
        if status == cli.FINISHED:
            _append(command, before, trained, keys)
            continue
        cure = _IN_A_SWEEP[command.step] if status == cli.WRONG_ARGUMENTS else ""
        failures.append(f"{typed} (exit status {status}{cure})")
        if command.step == "train":
            untrained.add(run_dir)
    return failures, untrained


def _with_results(
    labels: Sequence[str], refused: Set[str], group: Path, dry_run: bool
) -> list[str]:
    """The members that the report covers. The refused ones, and those without results, are printed.

    In a dry run, all others would have results.
    """
    shown = [label for label in labels if label not in refused]
    if not dry_run:
        shown = [label for label in shown if _result_files(group / label)]
    without = set(labels) - refused - set(shown)
    for reason, left_out in (("without results", without), ("not trained", refused)):
        if shown and left_out:
            listed = ", ".join(label for label in labels if label in left_out)
            print(f"left out of the report, {reason}: {listed}", flush=True)
    return shown


def _report(
    sweep: Sweep, labels: Sequence[str], root: Path | None, group: Path, dry_run: bool
) -> list[str]:
    """Write the report of some members, or print its command.

    Returns:
      What has failed, one line each.
    """
    report = ["-m", "vone_jax.report", *(str(group / label) for label in labels)]
    report += ["--out", str(group / f"{sweep.name}.html"), "--tables", str(group / sweep.name)]
    report += ["--v1-match"] if sweep.v1_match else []
    if dry_run:
        print(shlex.join(["python", *report]), flush=True)
        return []
    failures = []
    status = _execute([sys.executable, *report], root)
    if status == cli.WRONG_ARGUMENTS:
        damaged = {label: error for label in labels if (error := _damage(group / label))}
        others = [label for label in labels if label not in damaged]
        if damaged and others:
            return [*damaged.values(), *_report(sweep, others, root, group, dry_run)]
    if status == cli.WRONG_ARGUMENTS and sweep.v1_match:
        # A network lacks what the V1 match needs. The page does not need it.
        failures.append(f"the V1 match (exit status {status})")
        status = _execute([sys.executable, *report[:-1]], root)
    if status not in (cli.FINISHED, cli.WITH_GAPS):
        failures.append(f"the report (exit status {status})")
    return failures


def _weights_files(sweep: Sweep, weights: Path | None) -> dict[str, Path]:
    """The file of each network that is opened. Networks whose file is missing are printed."""
    wanted = {
        label: member.network
        for label, member in sweep.members.items()
        if isinstance(member.network, Weights)
    }
    if not wanted:
        if weights is not None:
            raise ValueError(f"weights is for sweeps that open networks, got {weights}")
        return {}
    if weights is None or not weights.is_dir():
        raise ValueError(
            f"weights must be the directory of the files {_patterns(wanted)}, got {weights}"
        )
    found: dict[str, Path] = {}
    for label, each in wanted.items():
        paths = sorted(path for path in weights.rglob(each.pattern) if path.is_file())
        if len(paths) > 1:
            raise ValueError(
                f"weights must hold one file {each.pattern}, {weights} has "
                f"{', '.join(str(path.relative_to(weights)) for path in paths)}"
            )
        if paths:
            found[label] = paths[0]
    missing = {label: each for label, each in wanted.items() if label not in found}
    if len(missing) == len(sweep.members):
        raise ValueError(f"weights must hold at least one of the files {_patterns(wanted)}")
    if missing:
        print(f"left out, not in {weights}: {_patterns(missing)}", flush=True)
    return found


def _patterns(wanted: Mapping[str, Weights]) -> str:
    return ", ".join(f"{each.pattern} ({label})" for label, each in wanted.items())


def _check_runs(sweep: Sweep, labels: Sequence[str], group: Path) -> None:
    """Raise a ``ValueError`` if a member's run directory holds a run of another experiment."""
    others = []
    for label in labels:
        network = sweep.members[label].network
        if isinstance(network, Experiment) and (changes := _changes(network, group / label)):
            others.append(f"{label}, in {group / label}:\n    " + "\n    ".join(changes))
    if others:
        raise ValueError(
            "members of the sweep (here) have run directories that hold runs of other experiments "
            "(there):\n  " + "\n  ".join(others) + "\ngive such a member another label or the "
            "sweep another group, choose another --runs, or delete the run to train it again"
        )


def _changes(network: Experiment, run_dir: Path) -> list[str]:
    """The fields in which a member differs from the run in its directory, as training finds them.

    A run that does not exist, or whose description is damaged, has none.
    """
    try:
        given = run_dirs.read_run(run_dir).given
    except (ValueError, run_dirs.RunDirectoryError):
        return []
    return experiment_files.differences(network, given)


def _commands(
    name: str,
    sweep: Sweep,
    labels: Sequence[str],
    root: Path | None,
    options: Options,
    opened: Mapping[str, Path],
) -> Iterator[_Command]:
    """The commands that train and evaluate some members.

    The name of the sweep is no part of their keys, because another sweep of the group may have
    trained the same network.
    """
    programs = {"train": ("-m", "vone_jax.cli.train"), "eval": ("-m", "vone_jax.cli.evaluate")}
    if root is not None:
        programs = {program: (str(root / f"{program}.py"),) for program in programs}
    group = options.runs / sweep.group
    given = {"source": options.source, "split": options.split}
    images = {field: value for field, value in given.items() if value is not None}
    keys: dict[str, str] = {}
    for label in labels:
        network, run_dir = sweep.members[label].network, group / label
        needs, results = [run_dir], ("--results", str(run_dir / "results"))
        if isinstance(network, Experiment):
            key, results = files.json_digest(experiment_files.to_json(network)), ()
            train = (*programs["train"], f"{name}:{label}", "--run-dir", str(run_dir))
            yield _Command(network, run_dir, "train", train, key, needs)
        elif isinstance(network, Ensemble):
            needs = [group / other for other in network.labels]
            key = files.json_digest([keys[other] for other in network.labels])
        else:
            needs, key = [], files.digest(opened[label])
            if network.class_names is not None:
                names = Path(network.class_names)
                if not names.is_file():
                    raise ValueError(
                        f"class_names of {label} must be a file, there is none at {str(names)!r}"
                    )
                results += ("--class-names", str(names))
                key += files.digest(names)
        keys[label] = key
        evaluated = "+".join(map(str, needs or [opened[label]]))
        for request in sweep.evaluations_of(label):
            words = dataclasses.replace(request, **images).to_arguments()
            evaluate = (*programs["eval"], evaluated, *results, *words)
            digest = files.json_digest([key, words])
            yield _Command(network, run_dir, "evaluate", evaluate, digest, needs)


def _damage(run_dir: Path) -> str:
    """The error about results that cannot be read, empty if there is none."""
    try:
        load_results([run_dir])
    except ResultError as error:
        return f"the report lacks {run_dir.name}: {error}"
    return ""


def _result_files(run_dir: Path) -> list[Path]:
    return list((run_dir / "results").glob("*.json"))


def _results(run_dir: Path) -> dict[str, str]:
    """Name of each result file, and of each file of its arrays -> checksum."""
    arrays = (run_dir / "results").glob("*.npz")
    return {path.name: files.digest(path) for path in (*_result_files(run_dir), *arrays)}


def _ended(run_dir: Path) -> Iterator[dict[str, Any]]:
    """The commands that have ended well, as ``_append`` writes them."""
    record = run_dir / _RECORD
    text = record.read_text(encoding="utf-8", errors="replace") if record.is_file() else ""
    for line in text.splitlines():
        # The last line of a killed process may be cut off. A command without a whole line runs
        # once more.
        with contextlib.suppress(ValueError):
            ended = files.parse_json(line)
            if isinstance(ended, dict):
                # Older records name neither results nor times.
                ended = {"results": {}, "time": 0.0} | ended
                types = {"key": str, "step": str, "results": dict, "time": int | float}
                if all(isinstance(ended.get(name), types[name]) for name in types):
                    yield ended


def _finished(command: _Command) -> bool:
    """Return True if a command has ended well, and its results have not changed since.

    An evaluation of an ensemble does not count after a new training of one of its members.
    """
    results, trained = _results(command.run_dir).items(), _trained(command)
    last = max(trained.values(), default=0.0)
    return any(
        each["key"] == command.key
        and each["results"].items() <= results
        # Older records have only a time of their own.
        and (each["trained"] == trained if "trained" in each else each["time"] >= last)
        for each in _ended(command.run_dir)
    )


def _trained(command: _Command) -> dict[str, float]:
    """The last training of each member of an ensemble by label, see ``_last_training``."""
    return {other.name: _last_training(other) for other in command.others}


def _without_checkpoint(command: _Command) -> str:
    """The error about a run of a command that has no checkpoint, empty if there is none."""
    for run_dir in command.needs:
        if not saved_steps(run_dir):
            if _last_training(run_dir) > 0:
                return f"{run_dir} has no checkpoint any more; delete it to train it again"
            return f"{run_dir} has no checkpoint yet; train it with --only train, or without --only"
    return ""


def _outdated(network: Experiment | Weights | Ensemble, run_dir: Path) -> str | None:
    """A run of the group that a network was trained from, and that was trained after it.

    Both the time of its checkpoints and the recorded time of its training must be later. A copy of
    a run has a new time of its checkpoints, and a command that finds a finished run records a new
    time. A recorded time counts only if both runs have one.
    """
    if not isinstance(network, Experiment):
        return None
    teacher = network.distillation and network.distillation.teacher
    specs = "+".join(filter(None, (network.initial_weights, teacher))).split("+")
    group = run_dir.parent.resolve()
    saved, recorded = _training_times(run_dir)
    for path in map(Path, filter(None, specs)):
        if path.resolve().parent == group:
            newly_saved, newly_recorded = _training_times(path)
            later = newly_recorded > recorded or not (newly_recorded and recorded)
            if 0 < saved < newly_saved and later:
                return path.name
    return None


def _training_times(run_dir: Path) -> tuple[float, float]:
    """The times of a run's newest checkpoint and recorded training, each 0 if it is not known."""
    directory = run_dir / run_dirs.CHECKPOINTS
    times = ((directory / str(step)).stat().st_mtime for step in saved_steps(run_dir))
    return max(times, default=0.0), _last_training(run_dir)


def _last_training(run_dir: Path) -> float:
    """The end of the last training of a member in seconds of ``time.time``; 0 if not known."""
    return max((each["time"] for each in _ended(run_dir) if each["step"] == "train"), default=0.0)


def _append(
    command: _Command, before: Mapping[str, str], trained: Mapping[str, float], keys: Set[str]
) -> None:
    """Record a command, with the results that it wrote or that no other command has recorded.

    Only commands with the ``keys`` of this sweep count as others, since only these run again if a
    result is gone. A result of a command outside the sweep is recorded by the one that reuses it.
    """
    run_dir = command.run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    ended = [each for each in _ended(run_dir) if each["key"] in keys - {command.key}]
    others = {name for each in ended for name in each["results"]}
    results = {
        name: digest
        for name, digest in _results(run_dir).items()
        if before.get(name) != digest or name not in others
    }
    line: dict[str, Any] = {
        "key": command.key,
        "step": command.step,
        "arguments": command.arguments,
        "time": time.time(),
        "trained": trained,
    }
    if command.step == "evaluate":
        line["results"] = results
    record = run_dir / _RECORD
    # A line that a killed process has cut off must not be joined to this one.
    cut_off = record.exists() and record.read_bytes()[-1:] not in (b"", b"\n")
    with open(record, "a") as file:
        file.write("\n" * cut_off + json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _execute(command: Sequence[str], root: Path | None) -> int:
    """Run a process and return its exit status. SIGTERM and Ctrl-C are passed on.

    A ``_StoppedError`` is raised after one of them, and if the status is that of a stopped command.
    """
    stopped, environment = False, dict(os.environ)
    if root is not None:
        # The package can be imported from any directory.
        path = filter(None, [str(root), environment.get("PYTHONPATH", "")])
        environment["PYTHONPATH"] = os.pathsep.join(path)
    # A session of its own: a terminal sends Ctrl-C to all processes that it has started, so the
    # child would receive two signals, and the second ends it without saving.
    process = subprocess.Popen(command, env=environment, start_new_session=True)

    def stop(number, frame):
        nonlocal stopped
        stopped = True
        process.send_signal(number)

    with cli.handling_signals(stop):
        status = process.wait()
    if stopped or status == cli.STOPPED:
        raise _StoppedError
    return status
