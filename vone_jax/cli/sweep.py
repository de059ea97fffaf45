"""Run a sweep: ``python sweep.py SWEEP [--shard INDEX/COUNT] [--only STEP ...]``.

SWEEP is a name below configs/, such as laboratory/components, or the path of a .py file that
defines a sweep. Each of its networks is trained, opened from a file of weights, or an ensemble of
others, and then evaluated. One report compares all networks.
Run the same command again to continue a sweep that was stopped; finished commands are skipped.
``python train.py SWEEP:LABEL`` trains one network of a sweep.

Exit status: 0 finished; 1 failed; 2 wrong arguments; 75 stopped by SIGTERM or Ctrl-C, run it again
to continue.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from vone_jax import cli
from vone_jax import sweep as sweeps
from vone_jax.cli import parsing
from vone_jax.training.config import config_names

PROGRAM = cli.program("sweep.py")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The sweep, and where it runs."""

    # A name below configs/, or the path of a .py file.
    sweep: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SWEEP")]
    options: Annotated[sweeps.Options, tyro.conf.arg(name="")] = sweeps.Options()


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
        return sweeps.run(given.sweep, sweep, root, given.options)
    except ValueError as error:
        return cli.fail(error)
    except (OSError, sweeps.SweepError) as error:
        return cli.fail(error, cli.FAILED)


def run() -> None:
    """Run the command as a program of its own."""
    sys.exit(main(sys.argv[1:]))
