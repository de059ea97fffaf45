"""Measure this project and its alternatives: ``python -m benchmarks [--quick] [--json FILE]``.

It prints a Markdown table. The row of a library that is not installed says so.
"""

import functools
import os
import sys
from collections.abc import Sequence

# Otherwise JAX reserves most of a GPU's memory at once and leaves none to PyTorch.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax

from benchmarks import attacks, network, table
from benchmarks.sizes import FULL, QUICK
from benchmarks.timing import Apart, Here, measure
from vone_jax import fast

CASES = {
    "bank": network.bank,
    "block": network.block,
    "forward": network.forward,
    "gradient": network.input_gradient,
    "draws": network.averaged_step,
    "train": network.training_step,
    "pgd": attacks.pgd,
    "foreign": attacks.foreign,
    "apgd": attacks.apgd,
    "autoattack": attacks.auto_attack,
}


def main(argv: Sequence[str]) -> int:
    """Run the benchmarks with the given arguments and return the exit status."""
    parser = table.parser("benchmarks", __doc__)
    parser.add_argument(
        "--cases",
        nargs="+",
        choices=CASES,
        default=list(CASES),
        help="Default: all.",
    )
    parser.add_argument(
        "--together", action="store_true",
        help="Run all programs in one process. This changes their times; a TPU needs it.",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    fast.use_all_cores()
    sizes = QUICK if arguments.quick else FULL
    surroundings = table.environment("benchmarks", argv)
    measurements = []
    for name in arguments.cases:
        print(f"{name} ...", file=sys.stderr, flush=True)
        case = CASES[name](sizes)
        start = Here if arguments.together else functools.partial(Apart, CASES[name], sizes)
        with jax.default_matmul_precision("highest"):
            measurements += measure(case, start)
        # Written after every case, so that a run that is stopped leaves its measurements.
        if arguments.json is not None:
            rows = table.rows_of(measurements)
            arguments.json.write_text(table.to_json(surroundings, sizes, measurements=rows))
    print(table.to_markdown(surroundings, measurements))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
