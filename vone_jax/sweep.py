"""Sweeps: command lines that train and evaluate many networks, then one report.

A network is trained, opened from a file of weights, or an ensemble of others. A sweep is a list of
command lines, each a process of its own, and is continued by running all of them again: train.py
and eval.py know what is done. What has to be measured anew, say after other weights, eval.py
refuses until its result is removed or its command line has ``--overwrite``.
"""

import dataclasses
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from vone_jax import arguments
from vone_jax.training.config import Experiment, load

Step = Literal["train", "evaluate", "report"]
# The words of an evaluation, as they are typed behind "eval.py NETWORK".
Words = Sequence[str]


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

    def __post_init__(self):
        arguments.instance("network", self.network, Experiment | Weights | Ensemble)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Networks to train or open, measure and compare.

    Attributes:
      name: name of the report's file.
      group: name of the directory of run directories. Sweeps of one group share their networks: a
        member that another sweep has trained under the same label is not trained again. A path
        runs/GROUP/LABEL in an evaluation, or of a teacher or initial weights, names such a network
        also where --runs gives another directory than runs.
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
        trained: list[str] = []
        for name in (self.name, self.group, *self.members):
            arguments.directory_name("a name in a sweep", name)
            if set(":+*?[") & set(name):
                raise ValueError(f"a name in a sweep must be without any of : + * ? [, got {name}")
        if not self.members:
            raise ValueError("members must have at least one network")
        for label, member in self.members.items():
            arguments.instance(f"members[{label!r}]", member, Member)
            network = member.network
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
class Command:
    """A command line of a sweep.

    Attributes:
      label: the member; empty for the report.
      step: the step that it belongs to.
      words: the program and its arguments, as they follow "python".
      needs: labels whose training must have ended well.
    """

    label: str
    step: Step
    words: tuple[str, ...]
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The command line as it is typed."""
        return shlex.join(["python", *self.words])


def commands(
    name: str,
    sweep: Sweep,
    runs: Path,
    weights: Path | None = None,
    images: Words = (),
    root: Path | None = None,
) -> Iterator[Command]:
    """Return the commands that train and evaluate the members of a sweep, then report on them.

    Args:
      name: name of the sweep, as train.py takes it.
      sweep: the sweep. Its run directories are in ``runs / sweep.group``.
      runs: directory of run directories.
      weights: directory of the files of weights, for networks that are not trained.
      images: words of all evaluations, such as ``("--source", "folder:DIR")``.
      root: directory of train.py and eval.py. None: the commands of the installed package.

    Raises:
      ValueError: if networks are to be opened and ``weights`` holds none of them.
    """
    programs = {"train": ("-m", "vone_jax.cli.train"), "eval": ("-m", "vone_jax.cli.evaluate")}
    if root is not None:
        programs = {program: (str(root / f"{program}.py"),) for program in programs}
    group = runs / sweep.group
    usual = f"runs/{sweep.group}/"
    shown = []

    def placed(words: str) -> str:
        """The networks of this group in a word, A+B for several, in the directory ``runs``."""
        places = (
            f"{group}/{word.removeprefix(usual)}" if word.startswith(usual) else word
            for word in words.split("+")
        )
        return "+".join(places)

    for label, member in sweep.members.items():
        network, run_dir = member.network, str(group / label)
        results, needs = ["--results", f"{run_dir}/results"], ()
        if isinstance(network, Experiment):
            results, needs, evaluated = [*network.code], (label,), run_dir
            words = (*programs["train"], f"{name}:{label}", "--run-dir", run_dir)
            for option, opened in _texts(network):
                if placed(opened) != opened:
                    words += (option, placed(opened))
            yield Command(label, "train", words)
        elif isinstance(network, Ensemble):
            evaluated = "+".join(str(group / other) for other in network.labels)
            needs = network.labels
            trained = (sweep.members[other].network for other in needs)
            results += [w for each in trained if isinstance(each, Experiment) for w in each.code]
        elif (path := _file_of(network, label, weights)) is not None:
            evaluated = str(path)
            results += ["--class-names", network.class_names] if network.class_names else []
        else:
            continue
        shown.append(run_dir)
        for words in sweep.evaluations_of(label):
            line = (*programs["eval"], evaluated, *map(placed, words), *results, *images)
            yield Command(label, "evaluate", line, needs)
    if not shown:
        raise ValueError(f"weights must hold a file of the sweep, {weights} has none")
    out = ("--out", str(group / f"{sweep.name}.html"))
    yield Command("", "report", ("-m", "vone_jax.cli.report", *shown, *out))


def _texts(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Yield the option and the text of each field that may name a network to open."""
    if experiment.initial_weights is not None:
        yield "--initial-weights", experiment.initial_weights
    for place, objective in enumerate(experiment.objectives):
        for name, value in vars(objective).items():
            if isinstance(value, str):
                yield f"--objectives.{place}.{name.replace('_', '-')}", value


def _file_of(network: Weights, label: str, weights: Path | None) -> Path | None:
    """The file of a network that is opened; None after a warning if it is missing."""
    if weights is None or not weights.is_dir():
        raise ValueError(f"weights must be the directory of {network.pattern}, got {weights}")
    found = sorted(weights.rglob(network.pattern))
    if len(found) > 1:
        raise ValueError(f"weights must hold one file {network.pattern}, {weights} has {found}")
    if not found:
        warnings.warn(f"not in {weights}, left out: {network.pattern} ({label})", stacklevel=2)
    return found[0] if found else None
