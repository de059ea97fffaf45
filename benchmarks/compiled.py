"""Use the compilers of accelerators: ``python -m benchmarks.compiled --target v5e:2x2``.

It compiles the real programs for chips that are not there, and prints the estimated cycles of each
part, the memory of a chip and the exchanges between chips. ``train`` is the step of a config as it
stands. Numbers of one run can be compared with each other. They are no times: the compiler
estimates them, and nothing is run. ``--target h100`` has no cycles; it counts the kernels that a
program starts.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# A process that compiles for TPUs computes on the CPU, because there is no TPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

from benchmarks import chips, programs, timing


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark with the given arguments and return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compiled", description=__doc__)
    parser.add_argument("--target", default="v5e:2x2", help="Such as v5e:16x16; or h100.")
    parser.add_argument(
        "--programs", nargs="+", choices=programs.NAMES, metavar="NAME",
        default=["block", "forward", "train"],
        help=f"Default: block forward train. All: {', '.join(programs.NAMES)}.",
    )  # fmt: skip
    parser.add_argument(
        "--configs", nargs="+", default=["imagenet/vone_resnet50", "imagenet/resnet50"]
    )
    parser.add_argument("--images", type=int, default=32, help="Images on each chip.")
    parser.add_argument(
        "--precision", choices=("default", "high", "highest"), default="highest",
        help="Precision of products outside of training, 1, 3 or 6 passes. Default: highest.",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, help="File for every number, as JSON.")
    options = parser.parse_args(argv)
    try:
        mesh = chips.target(options.target)
    except (ImportError, ValueError) as error:
        parser.error(str(error))
    chip = chips.CHIPS.get(options.target.partition(":")[0])
    surroundings = timing.environment("benchmarks.compiled", argv)
    print(
        f"{options.target}, {options.images} images on each chip, {options.precision} precision "
        f"outside of training; jax {jax.__version__}\n"
    )
    costs = []
    for config in options.configs:
        experiment = programs.experiment_of(config)
        setting = programs.Setting(mesh, experiment, options.images, options.precision)
        for name in options.programs:
            # These do not depend on the network.
            if name.startswith(("block", "corruption")) and config != options.configs[0]:
                continue
            print(f"{name} {config} ...", file=sys.stderr, flush=True)
            begun = time.perf_counter()
            program = programs.make(name, setting)
            with jax.default_matmul_precision(program.precision):
                cost = chips.compiled(program.function, *program.arguments)
            about = {"program": name, "config": config, "precision": program.precision}
            header = [*about, *row(cost, chip, mesh.size)]
            table = timing.markdown(header, [], left=9).splitlines()
            cells = [*about.values(), *row(cost, chip, mesh.size).values()]
            line = timing.markdown(cells, []).splitlines()[0]
            print("\n".join([line] if costs else [*table, line]), flush=True)
            seconds = {"seconds to compile": time.perf_counter() - begun}
            costs.append(about | seconds | dataclasses.asdict(cost))
            # Written after every program, so that a run that is stopped leaves its numbers.
            if options.json is not None:
                text = {"environment": surroundings, "target": options.target, "programs": costs}
                options.json.write_text(json.dumps(text, indent=1))
    return 0


def row(cost: chips.Cost, chip: chips.Chip | None, count: int) -> dict[str, str]:
    """Return the cells of a program by column; without a chip, those that a GPU has."""
    held, gathers = f"{(cost.arguments + cost.temporaries) / 1e9:.2f}", str(cost.gathers)
    if chip is None:
        kernels = ", ".join(f"{number} {kind}" for kind, number in cost.kernels.items())
        total = str(sum(cost.kernels.values()))
        return {"kernels": total, "of these": kernels, "GB held": held, "gathers": gathers}
    parts = sorted(cost.cycles.items(), key=lambda item: -item[1])
    exchanges = ", ".join(
        f"{number} {kind} ({size / 1e6:.1f})" for kind, (number, size) in cost.collectives.items()
    )
    least = cost.least_seconds(chip, count).values()
    return {
        "cycles, million": f"{cost.total / 1e6:.1f}",
        "by part": ", ".join(f"{part} {cycles / 1e6:.1f}" for part, cycles in parts),
        "TFLOP": f"{cost.flops / 1e12:.2f}",
        "GB moved": f"{cost.traffic / 1e9:.1f}",
        "GB held": held,
        "exchanges (MB)": exchanges or "none",
        "gathers": gathers,
        "least ms: compute, memory, links": ", ".join(f"{1e3 * s:.1f}" for s in least),
    }


if __name__ == "__main__":
    sys.exit(main())
