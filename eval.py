"""Evaluates a trained run: ``python eval.py RUN_DIR [--suite NAME ...] [--option VALUE ...]``.

RUN_DIR is a directory that train.py has made; the results go to RUN_DIR/results. Suites: clean,
linf, l2, l1 (a ladder of radii under the attack of the VOneNet authors), corruptions (five
severities), corruptions_quick (one), gallery (adversarial images), v1 (Gabor bank and responses),
or quick and all, which stand for several. An evaluation that was stopped goes on when the same
command is given again.

Exit status: 0 finished; 1 failed; 2 wrong arguments; 75 stopped by Ctrl-C, to be started again.
"""

import dataclasses
import difflib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from tqdm import tqdm

from vone_jax import data, evaluation, mesh, training
from vone_jax.evaluation import suites, tables
from vone_jax.training.run_dir import versions

STOPPED = 75  # EX_TEMPFAIL: not done yet, try again.
_BATCH_SIZE = 50


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to evaluate, and how."""

    # Made by train.py.
    run_dir: tyro.conf.Positional[Path]
    # Any of clean, linf, l2, l1, corruptions, corruptions_quick, gallery, v1, quick, all.
    suite: tuple[str, ...] = ("quick",)
    # Number of images, every k-th of the split; default: 5000, or all if there are fewer.
    examples: int | None = None
    # Images at a time, a multiple of the number of devices; default: about 50.
    batch_size: int | None = None
    # Root of all randomness.
    seed: int = 0
    # Forward passes with fresh noise by which an image is judged; default: 10.
    draws: int | None = None
    # "fresh": a new draw in every pass. "frozen": one draw an image, for attack and judgement.
    noise: str = "fresh"
    # Attacks and corruptions.
    settings: Annotated[evaluation.Settings, tyro.conf.arg(name="")] = evaluation.Settings()
    # Images in the gallery.
    gallery_images: int = 8
    # Norm of the gallery's attack.
    gallery_norm: str = "linf"
    # Radius of the gallery's attack, in pixel units.
    gallery_eps: float = 4 / 255
    # Split of the data set; default: the one the run was validated on.
    split: str | None = None
    # Another data set than the run's, by a name that data.load knows.
    source: str | None = None
    # Where TFDS keeps its prepared sets; default: as in training.
    data_dir: str | None = None
    # Checkpoint; default: the last.
    step: int | None = None
    # Processes that decode images; 0 does it in threads of this one.
    workers: int = 0
    # Appended to the names of the results, to keep them beside others.
    tag: str = ""
    # Replace results of other settings that have the same name.
    overwrite: bool = False


def main(argv: Sequence[str]) -> int:
    """Runs the program with the given arguments; returns the exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__, file=sys.stdout if argv else sys.stderr)
        if not argv:
            return 2
    # Attack gradients lose meaning in the reduced precision that accelerators default to.
    jax.config.update("jax_default_matmul_precision", "highest")
    try:
        arguments = tyro.cli(Arguments, args=argv, prog="eval.py", description="Options:")
        names = suites.expand(arguments.suite)
        job, conditions, exhibits = _plan(arguments, names, ["python", "eval.py", *argv])
    except (ValueError, TypeError, FileNotFoundError, training.RunDirectoryError) as error:
        return _fail(error, status=2)
    except training.CheckpointError as error:
        return _fail(error, status=1)
    try:
        records = _run(job, conditions)
        for exhibit in exhibits:
            exhibit()
    except KeyboardInterrupt:
        print("eval.py: stopped; the same command goes on from here", file=sys.stderr)
        return STOPPED
    except (ValueError, OSError, FloatingPointError, evaluation.ResultError) as error:
        return _fail(error, status=1)
    if records:
        print(f"{tables.heading(records[0])}\n\n{tables.table(records)}\n")
    print(f"results in {job.results}")
    return 0


def _plan(arguments: Arguments, names: Sequence[str], command: Sequence[str]):
    """The job, its conditions, and functions that make the exhibits."""
    subject, experiment = _load(arguments)
    source = data.load(
        arguments.source or experiment.data.source,
        arguments.split or experiment.data.eval_split,
        data_dir=arguments.data_dir or (None if arguments.source else experiment.data.data_dir),
    )
    count = min(5000, len(source)) if arguments.examples is None else arguments.examples
    devices = mesh.data_mesh(jax.local_devices())
    draws = 1 if arguments.noise == "frozen" else 10
    batch_size = -(-_BATCH_SIZE // devices.size) * devices.size
    job = evaluation.Job(
        subject=subject,
        examples=evaluation.Examples(source, count),
        protocol=evaluation.Protocol(
            arguments.noise, draws if arguments.draws is None else arguments.draws
        ),
        results=arguments.run_dir / "results",
        devices=devices,
        seed=arguments.seed,
        batch_size=batch_size if arguments.batch_size is None else arguments.batch_size,
        workers=arguments.workers,
        tag=arguments.tag,
        overwrite=arguments.overwrite,
        provenance={"versions": versions(), "command": shlex.join(command)},
    )
    stochastic = subject.stochastic and arguments.noise == "fresh"
    conditions = suites.conditions(names, arguments.settings, subject.image_shape, stochastic)
    exhibits = []
    if "gallery" in names:
        attack = arguments.settings.attack(
            arguments.gallery_norm, arguments.gallery_eps, stochastic
        )
        condition = evaluation.Attacked(attack)
        if arguments.gallery_images < 1:
            raise ValueError(f"gallery_images must be >= 1, got {arguments.gallery_images}")
        shown = min(arguments.gallery_images, len(job.examples))
        exhibits.append(lambda: evaluation.gallery(job, condition, shown))
    if "v1" in names:
        if getattr(subject.model, "v1", None) is not None:
            exhibits.append(lambda: evaluation.front_end(job))
        elif "v1" in arguments.suite:
            raise ValueError(f"suite v1 is for VOneNets, {subject.run} is a {subject.name}")
    return job, conditions, exhibits


def _load(arguments: Arguments) -> tuple[evaluation.Subject, training.Experiment]:
    try:
        step, experiment, model, variables = training.restore_run(arguments.run_dir, arguments.step)
    except training.RunDirectoryError as error:
        runs = [path.parent for path in arguments.run_dir.absolute().parent.glob("*/config.json")]
        near = difflib.get_close_matches(arguments.run_dir.name, [run.name for run in runs], n=1)
        hint = f"; did you mean {arguments.run_dir.parent / near[0]}?" if near else ""
        raise training.RunDirectoryError(f"{error}{hint}") from error
    subject = evaluation.Subject(
        run=arguments.run_dir.resolve().name,
        name=experiment.model.name,
        model=model,  # pyright: ignore[reportArgumentType]
        variables=variables,
        image_size=experiment.model.image_size,
        in_channels=experiment.model.in_channels,
        center_crop=experiment.data.center_crop,
        checkpoint_step=step,
        config=training.to_json(experiment),
    )
    return subject, experiment


def _run(job: evaluation.Job, conditions: Sequence[Any]) -> list[dict[str, Any]]:
    """Evaluates all conditions behind one progress bar."""
    records = []
    with tqdm(
        total=len(conditions) * len(job.examples),
        unit="image",
        file=sys.stderr,
        disable=not (sys.stderr.isatty() and conditions),
        dynamic_ncols=True,
        leave=False,
    ) as bar:
        for condition in conditions:
            bar.set_description(condition.name)
            record = evaluation.evaluate(job, condition, bar.update)
            low, high = record["interval"]
            bar.write(
                f"{record['name']}: {100 * record['accuracy']:.1f} % "
                f"({100 * low:.1f} to {100 * high:.1f}), {record['wall_seconds']:.1f} s",
                file=sys.stderr,
            )
            records.append(record)
    return records


def _fail(error: Exception, status: int) -> int:
    print(f"eval.py: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
