"""Measures this project and its alternatives: ``python -m benchmarks [--quick] [--json FILE]``.

Prints a Markdown table. Where PyTorch or a library of attacks is not installed, its row says so.
"""

import argparse
import functools
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

# JAX would take most of a GPU's memory at once and leave none to PyTorch.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax

from benchmarks import apart, attack_loops, front_end, network, table
from benchmarks.sizes import FULL, QUICK
from benchmarks.timing import Here, measure
from vone_jax import fast

CASES = {
    "bank": front_end.bank,
    "block": front_end.block,
    "forward": network.forward,
    "gradient": network.input_gradient,
    "draws": network.averaged_step,
    "train": network.training_step,
    "pgd": attack_loops.pgd,
    "apgd": attack_loops.apgd,
    "autoattack": attack_loops.auto_attack,
}


def main(argv: Sequence[str]) -> int:
    """Runs the benchmarks with the given arguments; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only shows that it runs")
    parser.add_argument("--json", type=Path, help="also write every number to this file")
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=list(CASES), help="default: all"
    )
    parser.add_argument(
        "--together", action="store_true",
        help="all programs in one process, which changes their times; a TPU needs it",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    fast.use_all_cores()
    sizes = QUICK if arguments.quick else FULL
    surroundings = table.environment(shlex.join(["python", "-m", "benchmarks", *argv]))
    measurements = []
    for name in arguments.cases:
        print(f"{name} ...", file=sys.stderr, flush=True)
        case = CASES[name](sizes)
        start = Here if arguments.together else functools.partial(apart.Apart, CASES[name], sizes)
        with jax.default_matmul_precision("highest"):
            measurements += measure(case, start)
        # After every case, so that a run that is cut off leaves what it has.
        if arguments.json is not None:
            arguments.json.write_text(table.to_json(surroundings, sizes, measurements))
    print(table.to_markdown(surroundings, measurements))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
