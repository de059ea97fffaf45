"""Measure this project and its alternatives: ``python -m benchmarks [--quick] [--json FILE]``.

It prints a Markdown table. The row of a library that is not installed says so. With ``truth`` as
the first argument, attacks are graded in place of times, see ``benchmarks.truth``.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# Otherwise JAX reserves most of a GPU's memory at once and leaves none to PyTorch.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

from benchmarks import attacks, network, timing, truth

CASES = {
    "block": ("block with noise", network.block),
    "forward": ("network, forward", network.forward),
    "gradient": ("network, input gradient", network.gradient),
    "pgd": ("network, PGD step of several draws", network.pgd),
    "train": ("network, training step", network.train),
    "loop": ("PGD on a small CNN", attacks.pgd),
    "apgd": ("Auto-PGD on a small CNN", attacks.apgd),
    "autoattack": ("AutoAttack on a small CNN", attacks.auto_attack),
}


def main(argv: Sequence[str]) -> int:
    """Run the benchmarks with the given arguments and return the exit status."""
    if argv[:1] == ["truth"]:
        return truth.main(argv[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="Tiny sizes: show that it runs.")
    parser.add_argument("--json", type=Path, help="File for every number, as JSON.")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, help="Timed calls. Default: 5, of AutoAttack 1.")
    parser.add_argument(
        "--together", action="store_true",
        help="Run all programs in one process. This changes their times; a TPU needs it.",
    )  # fmt: skip
    options = parser.parse_args(argv)
    surroundings = timing.environment("benchmarks", argv)
    measurements = []
    for name in options.cases:
        print(f"{name} ...", file=sys.stderr, flush=True)
        title, contenders_of = CASES[name]
        module = sys.modules[contenders_of.__module__]
        sizes = module.QUICK if options.quick else module.Sizes()
        repeats = options.repeats or (1 if options.quick or name == "autoattack" else 5)
        measurements += timing.measure(
            title, contenders_of, sizes, repeats, apart=not options.together
        )
        # Written after every case, so that a run that is stopped leaves its measurements.
        if options.json is not None:
            options.json.write_text(timing.to_json(surroundings, measurements))
    print(timing.to_markdown(surroundings, measurements))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
