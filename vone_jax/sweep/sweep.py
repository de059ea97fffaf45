"""What a sweep is: named networks, what is measured on each, one report."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from vone_jax.training import Experiment, experiment_files

# Arguments of eval.py behind the run directory, such as ("--suite", "linf", "--points", "9").
Evaluation = Sequence[str]


@dataclasses.dataclass(frozen=True)
class Member:
    """One network of a sweep.

    Attributes:
      experiment: how it is trained.
      evaluations: what is measured on it beyond what is measured on all.
    """

    experiment: Experiment
    evaluations: Sequence[Evaluation] = ()


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Networks to train, measure and compare.

    Attributes:
      name: of the report's file.
      group: of run directories. Sweeps of one group share their networks: a member that another
        sweep has trained under the same label is not trained again.
      members: by label, which is the name of the run directory and of a row in the report.
      evaluations: what is measured on every member, each as arguments of eval.py.
      report: further arguments of ``python -m vone_jax.report``.

    Raises:
      ValueError: naming the field that is out of range.
    """

    name: str
    group: str
    members: Mapping[str, Member]
    evaluations: Sequence[Evaluation] = ()
    report: Sequence[str] = ()

    def __post_init__(self):
        for field in ("name", "group"):
            _check_name(field, getattr(self, field))
        if not self.members:
            raise ValueError("members must name at least one network")
        for label, member in self.members.items():
            _check_name("members", label)
            if not isinstance(member, Member):
                raise ValueError(f"members[{label!r}] must be a Member(...), got {member!r}")

    def evaluations_of(self, label: str) -> list[tuple[str, ...]]:
        """All that is measured on a member, each once."""
        wanted = [*self.evaluations, *self.members[label].evaluations]
        return list(dict.fromkeys(tuple(arguments) for arguments in wanted))


def sweep_names(configs: Path) -> list[str]:
    """Names of the sweeps below a directory, for instance ``"laboratory/components"``."""
    return experiment_files.config_names(configs, "sweep")


def load_sweep(name: str, configs: Path) -> Sweep:
    """Reads a sweep: one of ``sweep_names(configs)``, or the path of a file that defines ``sweep``.

    Raises:
      ValueError: if there is no such file (the names are listed), or it defines no sweep, or one
        that is wrong.
    """
    sweep = experiment_files.load(name, configs, "sweep")
    if not isinstance(sweep, Sweep):
        raise ValueError(f"{name} must define sweep = Sweep(...), it has {sweep!r}")
    return sweep


def _check_name(field: str, name: str) -> None:
    if not name or "/" in name or name.startswith((".", "-")):
        raise ValueError(f"{field} must be usable as the name of a directory, got {name!r}")
