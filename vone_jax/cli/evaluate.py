"""Evaluate a network: ``python eval.py NETWORK [--suite NAME ...] [--OPTION VALUE ...]``.

NETWORK is a run directory of train.py, a folder or a checkpoint file (.pth .pt .tar .safetensors
.bin .ckpt), MODULE:FUNCTION or path/file.py:function for a function of yours that returns a
network, efficientnet_lite0, or NETWORK+NETWORK for the mean of the logits of several.

  python eval.py runs/quickstart/vone_resnet18
  python eval.py resnet50.pth --source folder:/data/imagenet/val --suite clean linf --examples 500
  python eval.py runs/vone --suite masking --eps 4/255 --others runs/base
  python eval.py runs/vone --suite my_suites.py:long_attacks

Run the same command again to continue an evaluation that was stopped. Exit status: 0 finished;
1 failed; 2 wrong arguments; 75 stopped by SIGTERM or Ctrl-C, run it again to continue.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import tyro

from vone_jax import cli, evaluation, fast, mesh, names, results
from vone_jax.cli import parsing
from vone_jax.evaluation.suites import GROUPS, SUITES
from vone_jax.network import Network, NetworkError, open_network
from vone_jax.progress import Progress, aligned
from vone_jax.training.config import config_names

PROGRAM = cli.program("eval.py")
MARKERS = (tyro.conf.OmitArgPrefixes,)
# A condition that takes longer says so before it starts.
_LONG = 600.0


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The network, and what to evaluate."""

    # A run directory, a folder, a checkpoint file or MODULE:FUNCTION, see above.
    network: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NETWORK")]
    # What is measured, and how.
    measurement: evaluation.Options = evaluation.Options()
    # Side of the images in pixels. Default: that of the network, 224 for a checkpoint file that
    # does not say it.
    image_size: int | None = None
    # File with the names of the classes, one on each line, in the order of the logits. They match
    # the logits with the labels of the images. Default: the names that the network has.
    class_names: Path | None = None
    # Evaluate together with other processes that run the same command: "auto" under Slurm, Open
    # MPI or on Cloud TPU, or HOST:PORT,N,I for process I of N, where HOST:PORT reaches process 0.
    distributed: str | None = None


def main(argv: Sequence[str]) -> int:
    """Run the command with the given arguments and return its exit status."""
    words = [word for word in argv[1:2] if word in (*SUITES, *GROUPS)]
    if words:
        return cli.fail(f"{argv[1]} is a suite: --suite {' '.join(argv[1:])}")
    try:
        given = parsing.parse(
            Arguments, argv or ["--help"], PROGRAM, __doc__ or "",
            markers=MARKERS,
        )  # fmt: skip
        if given.distributed is not None:
            mesh.join_processes(given.distributed)
        fast.keep_memory()
    except (ValueError, TypeError) as error:
        return cli.fail(error)
    # Comes after join_processes, because JAX sets its own SIGTERM handler there.
    try:
        with cli.interrupted_by_signals(PROGRAM) as interrupted:
            status = _evaluate(given, argv)
            # JAX can turn the interrupt into an error of its own.
            if status == cli.FAILED and interrupted.is_set():
                raise KeyboardInterrupt
            return status
    except KeyboardInterrupt:
        return cli.stopped(PROGRAM)


def _evaluate(given: Arguments, argv: Sequence[str]) -> int:
    """Plan and carry out the evaluation; return the exit status."""
    first = jax.process_index() == 0
    try:
        mesh.check_jax()
        network = _open(given)
        tasks = evaluation.plan(network, given.measurement, cli.command(PROGRAM, argv))
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if getattr(error, "__notes__", None):
            raise  # It comes from a function of the user, who needs the traceback.
        if isinstance(error, NetworkError) and given.network in config_names(cli.configs()):
            train = f"{names.command('train.py')} {given.network}"
            error = f"{given.network} is a config: train it first ({train}), and give its run"
        return cli.fail(error)
    if first:
        for note in network.notes:
            print(f"{network.name}: {note}", file=sys.stderr)
    try:
        finished = _run(tasks, first)
    except results.ResultError as error:
        return cli.fail(error)
    except (ValueError, OSError, FloatingPointError) as error:
        if getattr(error, "__notes__", None):
            raise
        return cli.fail(error, cli.FAILED)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return cli.fail("there is too little memory; take a smaller --batch-size", cli.FAILED)
    if first:
        for result in finished:
            for warning in result.warnings:
                print(f"warning: {result.name}: {warning}", file=sys.stderr)
        print(f"{summary(finished)}\nresults in {tasks[0][0].directory}", flush=True)
    return cli.FINISHED


def _open(given: Arguments) -> Network:
    """Open the network."""
    class_names = None
    if given.class_names is not None:
        # Skips the byte order mark that Windows programs put in front.
        lines = given.class_names.read_text(encoding="utf-8-sig").splitlines()
        class_names = [line.strip() for line in lines if line.strip()]
    return open_network(given.network, class_names=class_names, image_size=given.image_size)


def _run(
    tasks: Sequence[tuple[evaluation.Job, evaluation.Condition]], first: bool
) -> list[results.Result]:
    """Measure all conditions, with reports on the progress."""
    finished: list[results.Result] = []
    # The unit of work is a pass of an image through the network, so that the estimate of the
    # remaining time allows for attacks, which take longer than corruptions.
    work = [
        (job, condition, job.passes(condition), len(job.examples_of(condition)))
        for job, condition in tasks
    ]
    total = sum(passes * examples for _, _, passes, examples in work)
    with Progress(total, unit="passes", shown=first) as progress:
        for number, (job, condition, passes, examples) in enumerate(work, start=1):
            progress.doing(f"{condition.label}, {number} of {len(work)}")

            def count(images: int, found: bool, passes: int = passes) -> None:
                (progress.found if found else progress.advance)(images * passes)

            if seconds := evaluation.expected_seconds(job, condition):
                progress.expect(seconds / (passes * examples))
            if seconds > _LONG:
                progress.line(f"{condition.label}: takes about {_duration(seconds)}")
            result = evaluation.evaluate(job, condition, count)
            finished.append(result)
            progress.line(line(result))
    return finished


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def line(result: results.Result) -> str:
    """A finished result in one line: its first number."""
    seconds = f"{result.provenance['wall_seconds']:.1f} s"
    numbers = [f"{name} {_number(name, entry)}" for name, entry in result.measured.items()][:1]
    return ", ".join([f"{result.name}: {''.join(numbers) or 'done'}", seconds])


def summary(finished: Sequence[results.Result]) -> str:
    """All results as a table for a terminal, and the network in one line."""
    rows = [("condition", "number", "value", "95 % interval")]
    for result in finished:
        if result.condition["type"] == "Corrupted":
            continue  # Their means follow.
        entries = list(result.measured.items())
        shown = [item for item in entries if "low" in item[1]] or entries[:1]
        rows += [
            (result.label, name, _number(name, entry), _ends(name, entry)) for name, entry in shown
        ]
    for name, mean in _means(finished).items():
        entry = dataclasses.asdict(mean)
        rows.append(("corruptions", name, _number(name, entry), _ends(name, entry)))
    header, *others = aligned(rows, 2)
    checks = [
        f"{check['verdict']:8}{check['question']} {check['meaning']}"
        for result in finished
        for check in result.details.get("checks", ())
    ]
    return "\n".join([header, "-" * len(header), *others, *checks, "", headline(finished)])


def headline(finished: Sequence[results.Result]) -> str:
    """A network in one line: clean, the strongest radius of each attack, mean over corruptions."""
    parts: dict[str, str] = {}
    radii: dict[str, float] = {}
    for result in finished:
        if "accuracy" not in result.measured or result.condition["type"] == "Corrupted":
            continue
        attack = result.condition.get("attack", {})
        kind = str([attack.get("type"), attack.get("norm"), result.condition.get("attack_noise")])
        kind = kind if attack else result.label
        eps = attack.get("eps", 0.0)
        if eps >= radii.get(kind, 0.0):
            radii[kind] = eps
            parts[kind] = f"{result.label} {100 * result.value():.1f}"
    if mean := _means(finished).get("mean over corruptions"):
        parts["corruptions"] = f"corruptions {100 * mean.value:.1f}"
    identity = finished[0].identity
    few = " (an illustration, not a measurement)" if identity["dataset"]["name"] == "demo" else ""
    where = f"{identity['dataset']['examples']} images of {identity['dataset']['name']}{few}"
    told = ", ".join(parts.values()) or "no accuracies"
    return f"{identity['network']['label']} ({identity['network']['name']}), {where}: {told}"


def _means(finished: Sequence[results.Result]) -> dict[str, results.Interval]:
    corrupted = [result for result in finished if result.condition["type"] == "Corrupted"]
    clean = next((each for each in finished if each.condition["type"] == "Clean"), None)
    return results.corruption_means(corrupted, clean)


def _number(name: str, entry: dict) -> str:
    """A number as text; an accuracy in percent."""
    value = entry["value"]
    if value is None:
        return "none"
    return f"{100 * value:.1f} %" if _is_share(name) else f"{value:.4g}"


def _ends(name: str, entry: dict) -> str:
    low, high = entry.get("low"), entry.get("high")
    if low is None or high is None or low != low:
        return ""
    if not _is_share(name):
        return f"{low:.4g} to {high:.4g}"
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def _is_share(name: str) -> bool:
    shares = ("accuracy", "certified accuracy", "mean over", "right", "share", "standard error")
    return name.startswith(shares)


def run() -> None:
    """Run the command as a program of its own."""
    status = main(sys.argv[1:])
    if status == cli.STOPPED:
        cli.end_at_once(status)
    sys.exit(status)


if __name__ == "__main__":
    run()
