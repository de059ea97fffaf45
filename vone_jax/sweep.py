"""Sweeps: command lines that train and evaluate many networks, then one report.

A network is trained, opened from a file of weights, or an ensemble of others. A sweep is a list of
command lines, each a process of its own. A command that has ended well leaves a stamp, a line in
``sweep.jsonl`` of the network's directory, and is skipped from then on. A command that was stopped
continues its work, since train.py and eval.py do.
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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from vone_jax import arguments, cli, files
from vone_jax.training.config import Experiment, load, to_json

Step = Literal["train", "evaluate", "report"]
# The words of an evaluation, as they are typed behind "eval.py NETWORK".
Words = Sequence[str]
_STAMPS = "sweep.jsonl"


class SweepError(RuntimeError):
    """Some commands of a sweep have failed; the message lists them."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """A network that is opened: a file below the directory ``--weights``.

    Attributes:
      pattern: pattern of the file's name, such as ``"voneresnet50_e70.pth*"``.
      class_names: path of a file with the name of each logit, see ``eval.py --class-names``.
    """

    pattern: str
    class_names: str | None = None

    def __post_init__(self):
        arguments.fields(self)


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """The mean of the logits of networks that this sweep trains, see ``network.ensemble``.

    Attributes:
      labels: labels of at least two members that come before the ensemble in the sweep.
    """

    labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Member:
    """One network of a sweep.

    Attributes:
      network: the experiment that trains it, its file of weights, or an ensemble.
      evaluations: words of further evaluations of this network, beyond those of the sweep.
    """

    network: Experiment | Weights | Ensemble
    evaluations: Sequence[Words] = ()


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Networks to train or open, measure and compare.

    Attributes:
      name: name of the report's file.
      group: name of the directory of run directories. Sweeps of one group share their networks: a
        member that another sweep has trained under the same label is not trained again.
      members: by label, which is the name of the run directory.
      evaluations: the evaluations of every member, each as the words that follow the network on
        the command line of eval.py, such as ``("--suite", "linf", "--examples", "200")``.

    Raises:
      ValueError: naming the field that is out of range.
    """

    name: str
    group: str
    members: Mapping[str, Member]
    evaluations: Sequence[Words] = ()

    def __post_init__(self):
        if not isinstance(self.members, Mapping) or not self.members:
            raise ValueError("members must map the labels of one or more networks to Member(...)")
        trained: list[str] = []
        for name in (self.name, self.group, *self.members):
            arguments.directory_name("a name in a sweep", name)
            if set(":+*?[") & set(name):
                raise ValueError(f"a name in a sweep must be without any of : + * ? [, got {name}")
        for label, member in self.members.items():
            arguments.instance(f"members[{label!r}]", member, Member)
            network = member.network
            known = Experiment | Weights | Ensemble
            arguments.instance(f"members[{label!r}].network", network, known)
            if isinstance(network, Experiment):
                trained.append(label)
            elif isinstance(network, Ensemble) and not set(network.labels) <= set(trained):
                raise ValueError(
                    f"members[{label!r}] must be an ensemble of networks that are trained before "
                    f"it, {', '.join(trained) or 'none'}; got {', '.join(network.labels)}"
                )
            for words in (*self.evaluations, *member.evaluations):
                if isinstance(words, str) or not all(isinstance(word, str) for word in words):
                    raise ValueError(
                        f'evaluations must be like ("--suite", "linf"), got {words!r:.80}'
                    )

    def evaluations_of(self, label: str) -> list[tuple[str, ...]]:
        """The words of the evaluations of a member, each once."""
        every = (*self.evaluations, *self.members[label].evaluations)
        return list(dict.fromkeys(map(tuple, every)))


def load_sweep(name: str, configs: Path) -> Sweep:
    """Read a sweep: one of ``training.config_names``, or the path of a file that defines ``sweep``.

    Raises:
      ValueError: if there is no such file (the names are listed), or it defines no sweep, or the
        sweep is not valid.
    """
    return load(name, configs, "sweep", Sweep)


@dataclasses.dataclass(frozen=True)
class Options:
    """The parts of a sweep to run, and where. Every field is an option of sweep.py."""

    # Every COUNT-th network from the INDEX-th on, counted from 1: a job array runs 1/8 to 8/8.
    shard: str = "1/1"
    # Steps to run. The report covers the networks that have results; a shard writes no report.
    only: tuple[Step, ...] = ("train", "evaluate", "report")
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
        match = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"shard must be INDEX/COUNT such as 3/8, got {self.shard}")

    @property
    def shard_numbers(self) -> tuple[int, int]:
        """INDEX and COUNT of ``shard``."""
        index, _, count = self.shard.partition("/")
        return int(index), int(count)


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line for a member.

    Attributes:
      label: the member.
      step: the step that it belongs to.
      words: the program and its arguments.
      needs: labels whose training must have ended well.
      subject: what the stamp depends on beside the words: the experiment, or the file of weights.
    """

    label: str
    step: Step
    words: tuple[str, ...]
    needs: tuple[str, ...]
    subject: Any


def run(name: str, sweep: Sweep, root: Path | None, options: Options) -> int:
    """Train or open the members of a shard, evaluate them, then write the report.

    A failed command does not stop the others, except those that need its network. With several
    shards, a later call without ``shard`` evaluates the ensembles and writes the report.

    Args:
      name: name of the sweep, as train.py takes it.
      sweep: what to run. Its run directories are in ``options.runs / sweep.group``.
      root: directory of train.py and eval.py. None: the commands of the installed package.
      options: see ``Options``.

    Returns:
      0 if all is done, 75 if the sweep was stopped by SIGTERM or Ctrl-C.

    Raises:
      ValueError: if networks are to be opened and ``weights`` holds none of them.
      SweepError: if commands have failed, or no network has results.
    """
    group = options.runs / sweep.group
    failures: list[str] = []
    untrained: set[str] = set()
    chosen = [c for c in commands(name, sweep, root, options) if c.step in options.only]
    for number, command in enumerate(chosen, start=1):
        if untrained.intersection(command.needs):
            continue
        if not options.dry_run and _stamp(command, group) in _stamps(group / command.label):
            continue
        typed = shlex.join(["python", *command.words])
        print(typed if options.dry_run else f"[{number}/{len(chosen)}] {typed}", flush=True)
        if options.dry_run:
            continue
        status = _execute(command.words, root)
        if status == cli.STOPPED:
            return status
        if status == cli.FINISHED:
            _append(command, group)
            continue
        failures.append(f"{typed} (exit status {status})")
        if command.step == "train":
            untrained.add(command.label)
    if "report" in options.only and options.shard_numbers[1] == 1:
        shown = [group / label for label in sweep.members]
        if not options.dry_run:
            shown = [path for path in shown if any(path.glob("results/*.json"))]
        report = ["-m", "vone_jax.report", *map(str, shown)]
        report += ["--out", str(group / f"{sweep.name}.html")]
        print(shlex.join(["python", *report]), flush=True)
        if not options.dry_run:
            status = _execute(report, root) if shown else "no network has results"
            if status == cli.STOPPED:
                return cli.STOPPED
            if status != cli.FINISHED:
                failures.append(f"the report ({status})")
    if failures:
        raise SweepError("failed:\n  " + "\n  ".join(failures))
    return cli.FINISHED


def commands(name: str, sweep: Sweep, root: Path | None, options: Options) -> Iterator[Command]:
    """The commands that train and evaluate the members of a shard; arguments as for ``run``."""
    programs = {"train": ("-m", "vone_jax.cli.train"), "eval": ("-m", "vone_jax.cli.evaluate")}
    if root is not None:
        programs = {program: (str(root / f"{program}.py"),) for program in programs}
    group = options.runs / sweep.group
    opened = _weights_files(sweep, options.weights)
    index, count = options.shard_numbers
    alone = [label for label, m in sweep.members.items() if not isinstance(m.network, Ensemble)]
    shard = list(sweep.members) if count == 1 else alone[index - 1 :: count]
    images = [("--source", options.source), ("--split", options.split)]
    images = [word for option, value in images if value is not None for word in (option, value)]
    for label in shard:
        network, run_dir = sweep.members[label].network, str(group / label)
        results, needs, subject = ["--results", f"{run_dir}/results"], (), None
        if isinstance(network, Experiment):
            experiment, results = to_json(network), []
            words = (*programs["train"], f"{name}:{label}", "--run-dir", run_dir)
            yield Command(label, "train", words, (), experiment)
            evaluated, needs = run_dir, (label,)
        elif isinstance(network, Ensemble):
            evaluated = "+".join(str(group / other) for other in network.labels)
            needs = network.labels
        elif label in opened:
            evaluated, subject = str(opened[label]), opened[label].stat().st_mtime
            results += ["--class-names", network.class_names] if network.class_names else []
        else:
            continue
        for words in sweep.evaluations_of(label):
            words = (*programs["eval"], evaluated, *words, *results, *images)
            yield Command(label, "evaluate", words, needs, subject)


def _weights_files(sweep: Sweep, weights: Path | None) -> dict[str, Path]:
    """The file of each network that is opened. Networks whose file is missing are printed."""
    patterns = {
        label: member.network.pattern
        for label, member in sweep.members.items()
        if isinstance(member.network, Weights)
    }
    if not patterns:
        return {}
    if weights is None or not weights.is_dir():
        raise ValueError(f"weights must be the directory of {', '.join(patterns.values())}")
    found = {label: sorted(weights.rglob(pattern)) for label, pattern in patterns.items()}
    for label, paths in found.items():
        if len(paths) > 1:
            raise ValueError(f"weights must hold one file {patterns[label]}, {weights} has {paths}")
        if not paths:
            print(f"left out, not in {weights}: {patterns[label]} ({label})", flush=True)
    if not any(found.values()):
        raise ValueError(f"weights must hold at least one of {', '.join(patterns.values())}")
    return {label: paths[0] for label, paths in found.items() if paths}


def _stamp(command: Command, group: Path) -> str:
    """The key of a command. It changes with its words, its experiment, and its trained networks.

    The name of the sweep is no part of it, since another sweep may have trained the same network.
    """
    words = [word for word in command.words if not word.endswith(f":{command.label}")]
    trained = [
        line
        for other in command.needs
        for key, line in _stamps(group / other).items()
        if line["step"] == "train"
    ]
    return files.json_digest([words[1:], command.subject, trained])


def _stamps(run_dir: Path) -> dict[str, dict[str, Any]]:
    """The commands that have ended well, by their keys."""
    path, found = run_dir / _STAMPS, {}
    for line in path.read_text().splitlines() if path.exists() else ():
        # A killed process leaves a line that is cut off. Its command runs once more.
        with contextlib.suppress(ValueError):
            stamp = json.loads(line)
            found[stamp["key"]] = stamp
    return found


def _append(command: Command, group: Path) -> None:
    run_dir = group / command.label
    run_dir.mkdir(parents=True, exist_ok=True)
    stamp = {"key": _stamp(command, group), "step": command.step, "time": time.time()}
    with open(run_dir / _STAMPS, "a") as file:
        file.write(f"{json.dumps(stamp | {'command': shlex.join(command.words)})}\n")


def _execute(words: Sequence[str], root: Path | None) -> int:
    """Run a process and return its exit status. SIGTERM and Ctrl-C are passed on to it."""
    environment = dict(os.environ)
    if root is not None:
        # The package can be imported from any directory.
        path = filter(None, [str(root), environment.get("PYTHONPATH", "")])
        environment["PYTHONPATH"] = os.pathsep.join(path)
    # A session of its own: a terminal sends Ctrl-C to all processes that it has started, so the
    # child would receive two signals, and the second ends it without saving.
    process = subprocess.Popen([sys.executable, *words], env=environment, start_new_session=True)
    stopped = False

    def stop(number, frame):
        nonlocal stopped
        stopped = True
        process.send_signal(number)

    with cli.handling_signals(stop):
        status = process.wait()
    return cli.STOPPED if stopped else status
