"""Run a sweep: ``python sweep.py SWEEP [--only STEP ...] [--dry-run]``.

SWEEP is a name below configs/, such as laboratory/components, or the path of a .py file that
defines a sweep. Each of its networks is trained, opened from a file of weights, or an ensemble of
others, and then evaluated. One report compares all networks.

A sweep is a list of command lines, which --dry-run prints: run them in any way you like, a line
with train.py before those of its network. Run the same command again to continue a sweep that was
stopped; what is done is found again. ``python train.py SWEEP:LABEL`` trains one network of a sweep.

Exit status: 0 finished; 1 failed; 2 wrong arguments; 75 stopped by SIGTERM or Ctrl-C, run it again
to continue.
"""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from vone_jax import cli
from vone_jax import sweep as sweeps
from vone_jax.cli import parsing
from vone_jax.training.config import config_names

PROGRAM = cli.program("sweep.py")


class SweepError(RuntimeError):
    """Some commands of a sweep have failed; the message lists them."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The sweep, the steps to run, and where."""

    # A name below configs/, or the path of a .py file.
    sweep: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SWEEP")]
    # Steps to run. The report covers the networks that have results.
    only: tuple[sweeps.Step, ...] = ("train", "evaluate", "report")
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


def main(argv: Sequence[str]) -> int:
    """Run the command with the given arguments and return its exit status."""
    configs = cli.configs()
    root = configs.resolve().parent
    names = "\n  ".join(config_names(configs, "sweep"))
    description = f"{__doc__}\nSweeps:\n  {names}\n"
    try:
        given = parsing.parse(Arguments, argv or ["--help"], PROGRAM, description)
        sweep = sweeps.load_sweep(given.sweep, configs)
        root = root if (root / "train.py").exists() else None
        return execute(sweep, given, root)
    except ValueError as error:
        return cli.fail(error)
    except (OSError, SweepError) as error:
        return cli.fail(error, cli.FAILED)


def execute(sweep: sweeps.Sweep, given: Arguments, root: Path | None) -> int:
    """Run the commands of a sweep one after the other.

    A failed command does not stop the others, except those that need its network.

    Returns:
      0 if all is done, 75 if the sweep was stopped by SIGTERM or Ctrl-C.

    Raises:
      ValueError: if networks are to be opened and ``weights`` holds none of them.
      SweepError: if commands have failed, or no network has results.
    """
    options = {"--source": given.source, "--split": given.split}
    images = [w for name, value in options.items() if value is not None for w in (name, value)]
    every = list(sweeps.commands(given.sweep, sweep, given.runs, given.weights, images, root))
    chosen = [command for command in every if command.step in given.only]
    failures: list[str] = []
    untrained: set[str] = set()
    for number, command in enumerate(chosen, start=1):
        if untrained.intersection(command.needs):
            continue
        if command.step == "report" and not given.dry_run:
            if not (words := _with_results(command)):
                failures.append("the report: no network has results")
                continue
            command = dataclasses.replace(command, words=words)
        place = "" if given.dry_run else f"[{number}/{len(chosen)}] "
        print(f"{place}{command}", flush=True)
        if given.dry_run:
            continue
        status = _execute(command.words, root)
        if status == cli.STOPPED:
            return status
        if status != cli.FINISHED:
            failures.append(f"{command} (exit status {status})")
            untrained |= {command.label} if command.step == "train" else set()
    if failures:
        raise SweepError("failed:\n  " + "\n  ".join(failures))
    return cli.FINISHED


def _with_results(report: sweeps.Command) -> tuple[str, ...]:
    """The words of the report on the networks that have results; none if no network has any."""
    module, name, *shown, out, page = report.words
    found = [path for path in shown if any(Path(path).glob("results/*.json"))]
    return (module, name, *found, out, page) if found else ()


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


def run() -> None:
    """Run the command as a program of its own."""
    sys.exit(main(sys.argv[1:]))
