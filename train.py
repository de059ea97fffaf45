"""Trains one experiment: ``python train.py CONFIG [--run-dir DIR] [--field.sub-field VALUE ...]``.

CONFIG is a name below configs/, such as quickstart/vone_resnet18, or the path of a .py file that
defines an experiment. ``python train.py CONFIG --help`` lists every field with its value there.
A run that was stopped goes on when the same command is given again.

Exit status: 0 finished; 1 failed, as where arguments do not fit the data; 2 wrong arguments;
75 stopped by SIGTERM or Ctrl-C and saved, to be started again. A second signal ends the program
at once.
"""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import tyro

from vone_jax import mesh, training

CONFIGS = Path(__file__).resolve().parent / "configs"
STOPPED = 75  # EX_TEMPFAIL: not done yet, try again.


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The experiment, and where and how it runs."""

    experiment: Annotated[training.Experiment, tyro.conf.arg(name="")]
    # Where the run lives; default: runs/NAME in the current directory.
    run_dir: Path | None = None
    # Also write TensorBoard's files, to RUN_DIR/tensorboard (needs tensorboardX).
    tensorboard: bool = False
    # Train with other processes that run the same command: "auto" under Slurm, Open MPI or on
    # Cloud TPU, or HOST:PORT,N,I for process I of N, the first of which is reached at HOST:PORT.
    distributed: str | None = None


def main(argv: Sequence[str]) -> int:
    """Runs the program with the given arguments; returns the exit status."""
    if not argv or argv[0].startswith("-"):
        names = "\n  ".join(training.config_names(CONFIGS))
        print(f"{__doc__}\nConfigs:\n  {names}", file=sys.stdout if argv else sys.stderr)
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    try:
        experiment = training.load_config(argv[0], CONFIGS)
    except ValueError as error:
        return _fail(error, status=2)
    try:
        arguments = tyro.cli(
            Arguments,
            args=argv[1:],
            default=Arguments(experiment),
            prog=f"train.py {argv[0]}",
            description="Trains the experiment. Its fields:",
            config=(tyro.conf.AvoidSubcommands,),
        )
    except (ValueError, TypeError) as error:  # tyro reports those of nested fields alone.
        return _fail(error, status=2)
    experiment = arguments.experiment
    try:
        mesh.use_all_cores()
        mesh.keep_memory()
        if arguments.distributed is not None:
            mesh.join_processes(arguments.distributed)
        with training.StopOnSignal() as stop:
            outcome = training.train(
                experiment,
                arguments.run_dir or Path("runs") / experiment.name,
                stop=stop,
                command=shlex.join(["python", "train.py", *argv]),
                tensorboard=arguments.tensorboard,
                progress=True,
            )
    except (
        ValueError,
        OSError,
        training.NonFiniteError,
        training.UnreadableDataError,
        training.RunDirectoryError,
        training.CheckpointError,
    ) as error:
        return _fail(error, status=1)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        return _fail(RuntimeError(f"another process seems to have failed: {error}"), status=1)
    return 0 if outcome.finished else STOPPED


def _fail(error: Exception, status: int) -> int:
    print(f"train.py: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    with mesh.ending_together():
        sys.exit(main(sys.argv[1:]))
