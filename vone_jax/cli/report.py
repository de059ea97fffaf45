"""Make a report: ``python -m vone_jax.report RUN_DIR [RUN_DIR ...] [--out report.html]``.

Exit status: 0 written; 1 a file cannot be written; 2 wrong arguments, or a run directory that
cannot be used; 3 written with gaps, since files are missing, cut off or unfinished (they are named
on stderr and at the top of the page); 75 stopped by SIGTERM or Ctrl-C, run it again.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence

from vone_jax import cli

PROGRAM = cli.program("python -m vone_jax.report")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments and return its exit status."""
    statuses = (__doc__ or "").partition("\n\n")[2]
    parser = cli.Parser(
        prog=PROGRAM,
        description="Make one self-contained HTML page from the result files of runs.",
        epilog=statuses,
    )
    parser.add_argument("run_dirs", nargs="+", metavar="RUN_DIR", help="directory of a run")
    parser.add_argument("--out", default="report.html", help="the page (default: %(default)s)")
    parser.add_argument(
        "--tables",
        metavar="DIR",
        help="also write DIR/numbers.csv with every measured number and DIR/scores.csv and "
        "DIR/scores.md with the aggregate scores",
    )
    parser.add_argument(
        "--v1-match",
        metavar="RADII",
        nargs="?",
        type=_radii,
        const=2,
        help="also write DIR/v1_match.*: the V1 match of the networks against their accuracy at "
        "the RADII smallest radii of each norm (default: %(const)s)",
    )
    arguments = parser.parse_args(argv)
    if arguments.v1_match is not None and arguments.tables is None:
        parser.error("--v1-match needs --tables DIR")
    parser.in_reach("--out", arguments.out)
    if os.path.isdir(arguments.out):
        parser.error(f"--out must be a file, {arguments.out} is a directory")
    parser.directory("--tables", arguments.tables)
    try:
        with cli.interrupted_by_signals(PROGRAM):
            return _write(arguments, sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return cli.stopped(PROGRAM)


def _radii(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        cure = "write --v1-match without RADII behind the run directories"
        raise argparse.ArgumentTypeError(f"RADII must be an integer >= 1, got {text!r}; {cure}")
    return int(text)


def _write(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Write the page and the tables; return the exit status."""
    # pandas and Vega-Altair take a second to import, and wrong arguments need neither.
    from vone_jax import report, results
    from vone_jax.report.wording import printable

    try:
        runs = results.load(arguments.run_dirs)
        path = report.write(runs, arguments.out, arguments.tables, arguments.v1_match)
    except results.ResultError as error:
        message = re.sub("^v1_match", "--v1-match", str(error))
        return cli.fail(PROGRAM, message, cli.WRONG_ARGUMENTS)
    except OSError as error:
        return cli.fail(PROGRAM, error, argv=argv)
    status = cli.tell(PROGRAM, f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    gaps = [gap for run in runs for gap in run.gaps]
    for gap in gaps:
        print(f"{PROGRAM}: {printable(gap)}", file=sys.stderr)
    return status or (cli.WITH_GAPS if gaps else cli.FINISHED)
