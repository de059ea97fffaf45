"""Times the gradient that attacks take, of the networks of laboratory/front_ends, on one CPU core.

    taskset -c 0 python docs/examples/front_end_cost.py runs/laboratory

Programs take turns, and the least of their times counts, so that other work disturbs all alike.
"""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from vone_jax import open_network

KINDS = ("base", "vone", "push-pull", "push-pull-v1", "r-blur")
IMAGES, TURNS = 64, 15


def main(runs: Path) -> None:
    """Print the seconds of each network and their ratio to those of the base network."""
    keys = jax.random.split(jax.random.key(0), IMAGES)
    images = jax.random.uniform(jax.random.key(1), (IMAGES, 28, 28, 1))

    def program(kind: str):
        logits_fn = open_network(runs / f"{kind}-0").logits_fn

        @jax.jit
        def gradient(images):
            return jax.grad(lambda x: jnp.sum(logits_fn(keys, x) ** 2))(images)

        gradient(images).block_until_ready()
        return gradient

    programs = {kind: program(kind) for kind in KINDS}
    best = dict.fromkeys(KINDS, float("inf"))
    for _ in range(TURNS):
        for kind, run in programs.items():
            began = time.perf_counter()
            run(images).block_until_ready()
            best[kind] = min(best[kind], time.perf_counter() - began)
    for kind, seconds in best.items():
        print(f"{kind}: {1e3 * seconds:.1f} ms, {seconds / best['base']:.2f} of the base network")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
