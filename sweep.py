"""Runs a sweep: ``python sweep.py SWEEP [--shard INDEX/COUNT] [--only STEP ...]``.

SWEEP is a name below configs/, such as laboratory/components, or the path of a .py file that
defines a sweep. Each of its networks is trained and evaluated, then one report compares them.
What is done is skipped and what was stopped goes on when the same command is given again.
One network of a sweep is trained alone by ``python train.py SWEEP:LABEL``.

Exit status: 0 finished; 1 failed; 2 wrong arguments; 75 stopped by SIGTERM or Ctrl-C, to be
started again.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from vone_jax import sweep as sweeps

ROOT = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to run, and where."""

    # A name below configs/, or the path of a .py file.
    sweep: tyro.conf.Positional[str]
    # Every COUNT-th network from the INDEX-th on, counted from 1: a job array runs 1/8 to 8/8.
    shard: str = "1/1"
    # Steps to run; the report needs all networks and is left out of a shard.
    only: tuple[Literal["train", "evaluate", "report"], ...] = sweeps.STEPS
    # Directory of run directories.
    runs: Path = Path("runs")
    # Print the commands that would run, and run none.
    dry_run: bool = False


def main(argv: Sequence[str]) -> int:
    """Runs the program with the given arguments; returns the exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        names = "\n  ".join(sweeps.sweep_names(ROOT / "configs"))
        print(f"{__doc__}\nSweeps:\n  {names}\n", file=sys.stdout if argv else sys.stderr)
        if not argv:
            return 2
    arguments = tyro.cli(Arguments, args=argv, prog="sweep.py", description="Options:")
    try:
        sweep = sweeps.load_sweep(arguments.sweep, ROOT / "configs")
        shard = sweeps.Shard.parse(arguments.shard)
    except ValueError as error:
        return _fail(error, status=2)
    try:
        return sweeps.run(
            arguments.sweep,
            sweep,
            root=ROOT,
            runs=arguments.runs,
            shard=shard,
            steps=arguments.only,
            dry_run=arguments.dry_run,
        )
    except sweeps.SweepError as error:
        return _fail(error, status=1)


def _fail(error: Exception, status: int) -> int:
    print(f"sweep.py: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
