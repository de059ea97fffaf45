"""Evaluates a trained run: ``python eval.py RUN_DIR [--suite NAME ...] [--option VALUE ...]``.

RUN_DIR is a directory that train.py has made; the results go to RUN_DIR/results. Suites:

  clean                      images as they are
  linf, l2, l1               a ladder of radii under the attack of the VOneNet authors
  apgd, autoattack, square   other attacks, at --eps in --norm
  minimal                    smallest adversarial changes, in --norm
  worst                      several attacks, of which the worst counts for each image
  masking                    checks whether the attacks work
  corruptions, corruptions_quick   five severities, one
  physiology                 are its --layers like macaque V1?
  gallery, v1                adversarial images; Gabor bank and responses
  quick, all                 several of these

An evaluation that was stopped goes on when the same command is given again.

Exit status: 0 finished; 1 failed; 2 wrong arguments; 75 stopped by SIGTERM or Ctrl-C, to be started
again.
"""

import contextlib
import dataclasses
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import tyro
from tqdm import tqdm

from vone_jax import evaluation, fast, mesh, training
from vone_jax.evaluation import physiology, planning, tables

STOPPED = 75  # EX_TEMPFAIL: not done yet, try again.


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to evaluate, and how."""

    # Made by train.py.
    run_dir: tyro.conf.Positional[Path]
    request: planning.Request = planning.Request()
    # Where compiled programs are kept, so that the next start does not wait for the compiler.
    compilation_cache: Path | None = None
    # Evaluate with other processes that run the same command: "auto" under Slurm, Open MPI or on
    # Cloud TPU, or HOST:PORT,N,I for process I of N, the first of which is reached at HOST:PORT.
    distributed: str | None = None


def main(argv: Sequence[str]) -> int:
    """Runs the program with the given arguments; returns the exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__, file=sys.stdout if argv else sys.stderr)
        if not argv:
            return 2
    # Attack gradients lose meaning in the reduced precision that accelerators default to.
    jax.config.update("jax_default_matmul_precision", "highest")
    try:
        arguments = tyro.cli(
            Arguments,
            args=argv,
            prog="eval.py",
            description="Options:",
            config=(tyro.conf.OmitArgPrefixes,),
        )
        fast.keep_memory()
        if arguments.compilation_cache is not None:
            fast.keep_compiled(arguments.compilation_cache)
        if arguments.distributed is not None:
            mesh.join_processes(arguments.distributed)
    except (ValueError, TypeError) as error:
        return _fail(error, status=2)
    except ConnectionError as error:
        return _fail(error, status=1)
    try:
        with _terminated_as_interrupted():
            return _evaluate(arguments, shlex.join(["python", "eval.py", *argv]))
    except KeyboardInterrupt:
        print("eval.py: stopped; the same command goes on from here", file=sys.stderr)
        return STOPPED
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        return _fail(RuntimeError(f"another process seems to have failed: {error}"), status=1)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does. JAX, when it joins processes, would catch it for itself."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        # None stands for a handler that was not set from Python.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)


def _evaluate(arguments: Arguments, command: str) -> int:
    """Plans and does what is asked; returns the exit status."""
    try:
        plan = planning.plan(arguments.run_dir, arguments.request, command)
    except (ValueError, TypeError, FileNotFoundError, training.RunDirectoryError) as error:
        return _fail(error, status=2)
    except training.CheckpointError as error:
        return _fail(error, status=1)
    try:
        records = _run(plan)
        layers = _exhibit(plan, records)
    except (ValueError, OSError, FloatingPointError, evaluation.ResultError) as error:
        return _fail(error, status=1)
    if not _reports():
        return 0
    for text in tables.summary(records):
        print(f"{text}\n")
    if layers:
        print(f"{physiology.table(layers)}\n")
    print(f"results in {plan.job.results}")
    return 0


def _reports() -> bool:
    """Of several processes one speaks for all."""
    return jax.process_index() == 0


def _run(plan: planning.Plan) -> list[dict[str, Any]]:
    """Carries out all tasks behind one progress bar."""
    records = []
    with tqdm(
        total=sum(len(job.examples) for job, _ in plan.tasks),
        unit="image",
        file=sys.stderr,
        disable=not (sys.stderr.isatty() and plan.tasks and _reports()),
        dynamic_ncols=True,
        leave=False,
    ) as bar:
        for job, condition in plan.tasks:
            bar.set_description(condition.name)
            record = evaluation.evaluate(job, condition, bar.update)
            if _reports():
                bar.write(tables.line(record), file=sys.stderr)
            records.append(record)
    return records


def _exhibit(plan: planning.Plan, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Makes the exhibits; returns the layers that were recorded among them."""
    layers = []
    for exhibit in plan.exhibits:
        record = exhibit(records)
        if record is not None and record["kind"] == physiology.KIND:
            if _reports():
                print(physiology.line(record), file=sys.stderr)
            layers.append(record)
    return layers


def _fail(error: Exception, status: int) -> int:
    print(f"eval.py: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    with mesh.ending_together(alone=(1, STOPPED)):
        sys.exit(main(sys.argv[1:]))
