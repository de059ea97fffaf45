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
        "--tables", metavar="DIR", help="also write DIR/numbers.csv with every measured number"
    )
    parsed = parser.parse_args(arguments)
    try:
        path = report.write(parsed.run_dirs, parsed.out, parsed.tables)
    except report.ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
