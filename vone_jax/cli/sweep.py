"""Run a sweep: ``python sweep.py SWEEP [--shard INDEX/COUNT] [--only STEP ...]``.

SWEEP is a name below configs/, such as laboratory/components, or the path of a .py file that
defines a sweep. Each of its networks is trained, opened from a file of weights, or an ensemble of
others, and then evaluated. One report compares all networks.
Run the same command again to continue a sweep that was stopped; finished commands are skipped.
``python train.py SWEEP:LABEL`` trains one network of a sweep.

Exit status: 0 finished; 1 failed; 2 wrong arguments; 75 stopped by SIGTERM or Ctrl-C, run it again
to continue.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from vone_jax import cli, data
from vone_jax import sweep as sweeps
from vone_jax.cli import parsing
from vone_jax.training.experiment import Experiment
from vone_jax.training.experiment_files import config_names

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
    if not argv or argv[0] in ("-h", "--help"):
        names = "\n  ".join(config_names(configs, "sweep"))
        status = cli.manual(f"{__doc__}\nSweeps:\n  {names}\n", "sweep.py", argv)
        if not argv:
            return status
    try:
        arguments = parsing.parse(Arguments, argv, PROGRAM, "Options:")
        options = arguments.options
        sweep = sweeps.load_sweep(arguments.sweep, configs)
        # A wrong data set or split is refused before the first training.
        if options.source is not None:
            data.load(options.source, options.split or data.evaluation_split(options.source))
        elif options.split is not None and "evaluate" in options.only:
            for source, data_dir in _own_sources(sweep):
                # If the data are missing, the error of the training command names the cure.
                with contextlib.suppress(FileNotFoundError):
                    data.load(source, options.split, data_dir=data_dir)
        return sweeps.run(
            arguments.sweep, sweep, root if (root / "train.py").exists() else None, options
        )
    except (ValueError, FileNotFoundError) as error:
        return cli.fail(PROGRAM, error, cli.WRONG_ARGUMENTS, (sweeps.Options,), argv)
    except BrokenPipeError:
        # A program that reads the commands, such as head, has closed the pipe.
        return cli.FINISHED
    except OSError as error:
        return cli.fail(PROGRAM, error, argv=argv)
    except sweeps.SweepError as error:
        return cli.fail(PROGRAM, error)


def _own_sources(sweep: sweeps.Sweep) -> set[tuple[str, str | None]]:
    """The data sets on which trained networks are evaluated, and the directories of TFDS."""
    return {
        (request.source or member.network.data.source, member.network.data.data_dir)
        for label, member in sweep.members.items()
        if isinstance(member.network, Experiment)
        for request in sweep.evaluations_of(label)
    }


def run() -> None:
    """Run the command as a program of its own."""
    sys.exit(main(sys.argv[1:]))
