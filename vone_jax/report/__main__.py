"""``python -m vone_jax.report RUN_DIR [RUN_DIR ...] --out report.html``."""

import argparse
import sys
from collections.abc import Sequence

from vone_jax import report


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, writes, reports. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m vone_jax.report",
        description="Make one self-contained HTML page from the result files of runs.",
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
        metavar="BUDGETS",
        nargs="?",
        type=int,
        const=2,
        help="also write to DIR how V1-like networks are against how robust: their accuracy at the "
        "BUDGETS weakest budgets of each norm (default: %(const)s)",
    )
    parsed = parser.parse_args(arguments)
    if parsed.v1_match is not None and parsed.tables is None:
        parser.error("--v1-match needs --tables DIR")
    try:
        path = report.write(parsed.run_dirs, parsed.out, parsed.tables, parsed.v1_match)
    except report.ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
