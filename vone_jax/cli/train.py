"""Train one experiment: ``python train.py CONFIG [--run-dir DIR] [--FIELD.SUB-FIELD VALUE ...]``.

CONFIG is a name below configs/, such as quickstart/vone_resnet18, or the path of a .py file that
defines an experiment. ``python train.py CONFIG --help`` shows the fields that people change, with
their values there, and ``--help-all`` shows all fields.
Run the same command again to continue a run that was stopped.

Exit status: 0 finished; 1 failed; 2 wrong arguments, or arguments that do not fit the data; 75
stopped by SIGTERM or Ctrl-C, with a checkpoint to continue from. A second signal, more
than a second after the first, ends the program at once.
"""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from flax.traverse_util import flatten_dict

from vone_jax import cli, fast, mesh, names, training
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
    "model.num_classes": "classes; None takes those of the data",
    "optimizer.learning_rate": "base rate, which the schedule multiplies",
    "precision": "float32, or bfloat16 on TPUs and GPUs",
    "initial_weights": "network to start from",
    "freeze": "patterns of parts that are not trained",
}

# Options that do nothing while another field is off -> that field, and what to type behind it.
_OFF = ((), False, "stop")
_NEEDS = {
    "data.augment.crop_scale": ("data.augment.random_resized_crop", ""),
    "data.augment.crop_ratio": ("data.augment.random_resized_crop", ""),
    "data.corruption_severity": ("data.corruptions", " NAME"),
    "data.corruption_probability": ("data.corruptions", " NAME"),
    "non_finite_limit": ("non_finite", " skip"),
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The experiment, and where it runs."""

    experiment: Annotated[training.Experiment, tyro.conf.arg(name="")]
    # Directory of the run. Default: runs/NAME in the current directory.
    run_dir: Path | None = None
    # Also write TensorBoard files to RUN_DIR/tensorboard (pip install "vone-jax[tracking]").
    tensorboard: bool = False
    # Train together with other processes that run the same command: "auto" under Slurm, Open MPI
    # or on Cloud TPU, or HOST:PORT,N,I for process I of N, where HOST:PORT reaches process 0.
    distributed: str | None = None


_OPTIONS = (Arguments, training.Experiment)


def main(argv: Sequence[str]) -> int:
    """Run the command with the given arguments and return its exit status."""
    configs = cli.configs()
    if argv and argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--help-all"):
        return cli.fail(PROGRAM, f"CONFIG must come before {argv[0]}", cli.WRONG_ARGUMENTS)
    if not argv or argv[0].startswith("-"):
        known = "\n  ".join(training.config_names(configs))
        return cli.manual(f"{__doc__}\nConfigs:\n  {known}", "train.py", argv)
    if len(argv) > 1 and not argv[1].startswith("-"):
        message = f"CONFIG must be one config, got {argv[0]} and {argv[1]}; train each by itself"
        return cli.fail(PROGRAM, message, cli.WRONG_ARGUMENTS)
    try:
        experiment = training.load_config(argv[0], configs)
        if {"-h", "--help"} & set(argv):
            print(_short_help(argv[0], experiment))
            return cli.FINISHED
        arguments, given = _parse(argv, experiment), _given(argv)
        # Without a value, an option makes a list of the config empty.
        lists = {
            cli.option(path): not value
            for path, value in flatten_dict(training.to_json(experiment), sep=".").items()
            if isinstance(value, list)
        }
        parsing.check_lists(argv, lists)
        # Typed options override the initial weights, which override the data, which override the
        # config.
        experiment = arguments.experiment
        if "epochs" in given and experiment.steps is not None:
            raise ValueError(
                f"--epochs has no effect beside --steps {experiment.steps}; add --steps None"
            )
        for name, (switch, value) in _NEEDS.items():
            if name in given and attrgetter(switch)(experiment) in _OFF:
                raise ValueError(
                    f"{cli.option(name)} has no effect without {cli.option(switch)}{value}"
                )
        fast.use_all_cores()
        fast.keep_memory()
        if arguments.distributed is not None:
            mesh.join_processes(arguments.distributed)
        if "data.source" in given:
            experiment = training.for_data(experiment, given)
    # tyro reports errors of nested fields itself, but not those of the experiment's own fields.
    except (ValueError, TypeError, OSError) as error:
        return cli.fail(PROGRAM, error, cli.WRONG_ARGUMENTS, _OPTIONS, argv)
    run_dir = arguments.run_dir or Path("runs") / experiment.name
    stop = cli.StopOnSignal()
    try:
        with stop:
            mesh.check_jax()
            if experiment.initial_weights is not None:
                experiment = _with_front_end(argv, experiment, run_dir)
            outcome = training.train(
                experiment,
                run_dir,
                stop=stop,
                command=cli.command(PROGRAM, argv),
                tensorboard=arguments.tensorboard,
                progress=True,
            )
    except (ValueError, FileNotFoundError, NotADirectoryError) as error:
        # In the middle of a run the error is a failure, which ends the other processes.
        status = cli.FAILED if stop.read else cli.WRONG_ARGUMENTS
        source = f"--data.source={experiment.data.source}"
        return cli.fail(PROGRAM, error, status, _OPTIONS, [*argv, source])
    except training.RunDirectoryError as error:
        status = cli.FAILED if stop.read else cli.WRONG_ARGUMENTS
        return cli.fail(PROGRAM, error, status, argv=argv)
    except (
        OSError,
        training.NonFiniteError,
        training.CheckpointError,
    ) as error:
        return cli.fail(PROGRAM, cli.located(error, run_dir), options=_OPTIONS, argv=argv)
    if not outcome.finished:
        return cli.STOPPED
    if jax.process_index() == 0 and training.read_run(run_dir).experiment.model.num_classes != 1:
        # A network of one class cannot be evaluated.
        evaluate = f"{names.command('eval.py')} {shlex.quote(str(run_dir))}"
        return cli.tell(PROGRAM, f"evaluate it: {evaluate}")
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


def _given(argv: Sequence[str]) -> dict[str, str]:
    """The fields that are given as options -> the word after the option."""
    given = {}
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            given[name.replace("-", "_")] = value if equals else following
    return given


def _parse(argv: Sequence[str], experiment: training.Experiment) -> Arguments:
    given, model = _given(argv), experiment.model
    # These fields are set first: the defaults of V1 and of other parts are computed from them.
    fields: dict[str, Any] = {"name": given.get("model.name", model.name)}
    for name in ("image_size", "in_channels"):
        value = given.get(f"model.{name}", "")
        fields[name] = int(value) if value.isdecimal() else getattr(model, name)
    try:
        experiment = dataclasses.replace(experiment, model=model.moved(**fields))
    except ValueError as error:
        raise ValueError(f"model.{error}") from None
    return parsing.parse(
        Arguments,
        argv[1:],
        f"{PROGRAM} {argv[0]}",
        "Train the experiment. Its fields:",
        default=Arguments(experiment),
        markers=(tyro.conf.AvoidSubcommands,),
    )


def _with_front_end(
    argv: Sequence[str], experiment: training.Experiment, run_dir: Path
) -> training.Experiment:
    """Replace the config's front end by that of the initial weights; typed options still apply."""
    assert experiment.initial_weights is not None
    started = training.start_from(experiment, experiment.initial_weights, run_dir)
    asked, taken = (each.model.v1 for each in (experiment, started))
    if asked is not None and asked.normalization is not None and jax.process_index() == 0:
        if taken is not None and taken.normalization is None:
            print(
                f"{PROGRAM}: --initial-weights {experiment.initial_weights} has a V1 without "
                "normalization, which replaces the V1 of the config; leave --initial-weights out "
                "to train with the V1 of the config",
                file=sys.stderr,
            )
    parsed = _parse(argv, started).experiment
    v1, given = parsed.model.v1, _given(argv)
    sampling = ("gabor_seed", "sf_min", "sf_max", "distribution")
    if v1 is not None and any(f"model.v1.{name}" in given for name in sampling):
        # These options describe how a bank is sampled, so the stored bank is dropped.
        v1 = dataclasses.replace(v1, bank=None)
        parsed = dataclasses.replace(parsed, model=dataclasses.replace(parsed.model, v1=v1))
    return parsed


def run() -> None:
    """Run the command as a program of its own."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
