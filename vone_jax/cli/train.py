"""Train one experiment: ``python train.py CONFIG [--run-dir DIR] [--FIELD.SUB-FIELD VALUE ...]``.

CONFIG is a name below configs/, such as quickstart/vone_resnet18, or the path of a .py file that
defines an experiment. ``python train.py CONFIG --help`` shows the fields that people change, with
their values there, and ``--help-all`` shows all fields. ``--version`` prints the version.
Run the same command again to continue a run that was stopped.

Exit status: 0 finished; 1 failed; 2 wrong arguments, or arguments that do not fit the data; 75
stopped by SIGTERM or Ctrl-C, with a checkpoint to continue from. A second signal ends the program
at once.
"""

import contextlib
import dataclasses
import functools
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Annotated

import jax
import tyro

from vone_jax import cli, fast, files, mesh, names, open_network, training
from vone_jax.cli import parsing

PROGRAM = cli.program("train.py")

# The fields that people change, and their meaning.
_FIELDS = {
    "epochs": "passes over the training images",
    "seed": "root of all randomness",
    "data.source": "folder:DIR, npz:FILE, tfds:NAME or fashion_mnist_small",
    "data.batch_size": "images in a step, over all devices",
    "data.workers": "processes that decode images",
    "model.name": "network",
    "model.image_size": "side of the images in pixels",
    "optimizer.learning_rate": "base rate, which the schedule multiplies",
    "precision": "float32, or bfloat16 on TPUs and GPUs",
    "initial_weights": "network to start from",
    "freeze": "patterns of parts that are not trained",
    "keep_best": "evaluate the checkpoint with the best validation",
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The experiment, and where it runs."""

    experiment: Annotated[training.Experiment, tyro.conf.arg(name="")]
    # Directory of the run, also in a bucket: gs://BUCKET/FOLDER (pip install "vone-jax[bucket]").
    # Default: runs/NAME in the current directory.
    run_dir: str | None = None
    # Also write TensorBoard files to RUN_DIR/tensorboard (pip install "vone-jax[tracking]").
    tensorboard: bool = False
    # Call this function, FILE.py:FUNCTION, with each record of the log.
    on_log: str | None = None
    # Code that the networks of initial_weights and of objectives may ask for, such as a teacher.
    code: parsing.Code = ()
    # Resume a run also if the code of its objectives has changed.
    changed_code: bool = False
    # Write a trace of ten steps from this one on to RUN_DIR/profile, for XProf or Perfetto.
    profile: int | None = None
    # Train together with other processes that run the same command: "auto" under Slurm, Open MPI
    # or on Cloud TPU, or HOST:PORT,N,I for process I of N, where HOST:PORT reaches process 0.
    distributed: str | None = None


_WRONG_PATHS = (FileNotFoundError, FileExistsError, NotADirectoryError)


def main(argv: Sequence[str]) -> int:
    """Run the command with the given arguments and return its exit status."""
    configs = cli.configs()
    if list(argv) == ["--version"]:
        print(training.versions()["vone_jax"])
        return cli.FINISHED
    if argv and argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--help-all"):
        return cli.fail(f"CONFIG must come before {argv[0]}")
    if not argv or argv[0].startswith("-"):
        known = "\n  ".join(training.config_names(configs))
        usage = (__doc__ or "").replace("python train.py", names.command("train.py"))
        print(f"{usage}\nConfigs:\n  {known}", file=sys.stdout if argv else sys.stderr)
        return cli.FINISHED if argv else cli.WRONG_ARGUMENTS
    try:
        experiment = training.load_config(argv[0], configs)
        if {"-h", "--help"} & set(argv):
            print(_short_help(argv[0], experiment))
            return cli.FINISHED
        arguments = parsing.parse(
            Arguments,
            ["--help" if word == "--help-all" else word for word in argv[1:]],
            f"{PROGRAM} {argv[0]}",
            "Train the experiment. Its fields:",
            default=Arguments(experiment),
            markers=(tyro.conf.AvoidSubcommands,),
        )
        fast.use_all_cores()
        fast.keep_memory()
        if arguments.distributed is not None:
            mesh.join_processes(arguments.distributed)
        mesh.check_jax()
        experiment = arguments.experiment
        run_dir = arguments.run_dir or f"runs/{experiment.name}"
        on_log = None if arguments.on_log is None else files.imported(arguments.on_log)
        with _stop_on_signals() as stop:
            outcome = training.train(
                experiment,
                run_dir,
                open_network=functools.partial(open_network, code=arguments.code),
                stop=stop,
                command=cli.command(PROGRAM, argv),
                tensorboard=arguments.tensorboard,
                on_log=on_log,
                profile=arguments.profile,
                changed_code=arguments.changed_code,
                progress=True,
            )
    except (ValueError, TypeError, *_WRONG_PATHS, training.RunDirectoryError) as error:
        return cli.fail(error)
    except (OSError, training.NonFiniteError) as error:
        return cli.fail(error, cli.FAILED)
    if not outcome.finished:
        return cli.STOPPED
    if jax.process_index() == 0:
        words = shlex.join([run_dir, *experiment.code])
        print(f"evaluate it: {names.command('eval.py')} {words}")
    return cli.FINISHED


def _short_help(config: str, experiment: training.Experiment) -> str:
    """The fields that people change, with their values in a config."""
    lines = [f"usage: {PROGRAM} {config} [--run-dir DIR] [--FIELD VALUE ...]", ""]
    for path, meaning in _FIELDS.items():
        value = attrgetter(path)(experiment)
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
        option = f"--{path.replace('_', '-')} {shown}"
        lines.append(f"  {option:<42} {meaning}")
    return "\n".join([*lines, "", "--help-all shows all fields."])


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Give a flag that SIGTERM or Ctrl-C sets. A second signal ends the process at once.

    In a program of several processes JAX itself takes SIGTERM, see ``mesh.stop_requested``.
    """
    received = []

    def receive(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    alone = jax.process_count() == 1
    with cli.handling_signals(receive) if alone else contextlib.nullcontext():
        yield lambda: bool(received)


def run() -> None:
    """Run the command as a program of its own."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
