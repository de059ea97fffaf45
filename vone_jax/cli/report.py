"""Make a report: ``python -m vone_jax.cli.report RUN [RUN ...] [--out report.html]``.

A RUN is a directory of train.py, or a directory with result files. The page compares all of them.

Exit status: 0 written; 1 the page cannot be written; 2 wrong arguments, or results that cannot be
used.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from vone_jax import cli
from vone_jax.cli import parsing

PROGRAM = cli.program("python -m vone_jax.cli.report")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The results, and the page."""

    # Directories with results, in the order of the networks on the page.
    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN")]
    # The page, in a directory that exists.
    out: Path = Path("report.html")
    # Directory of the network with which the others are compared. Default: the first network
    # without a V1, else the first.
    baseline: str | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments and return its exit status."""
    words = sys.argv[1:] if argv is None else argv
    given = parsing.parse(Arguments, words or ["--help"], PROGRAM, __doc__ or "")
    # pandas and Vega-Altair take a second to import, and wrong arguments need neither.
    from vone_jax import report, results

    try:
        path = report.write(given.runs, given.out, given.baseline)
    except results.ResultError as error:
        return cli.fail(error)
    except OSError as error:
        return cli.fail(error, cli.FAILED)
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return cli.FINISHED


if __name__ == "__main__":
    sys.exit(main())
