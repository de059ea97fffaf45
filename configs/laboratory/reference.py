"""The small CNN on all of Fashion-MNIST at 0.1: numbers that any code of these methods must give.

Paper row: none; measured in PyTorch with the recipes of Wong et al. (2020) for MNIST: Adam, cyclic
rate of 5e-3, batches of 100. PGD and TRADES make 10 steps of a quarter of the radius.
Expected: clean (10,000 images) 91.0, 84.6, 83.4, 83.3 % and robust 0.0, 73.8, 74.6, 73.2 % for
clean, Fast, PGD and TRADES with beta 6: PGD of 50 steps of 0.01, 5 restarts, 500 images, +- 4.
Hardware: 2 CPU cores. Wall time: 1 to 5 minutes of one core per network.
Command: python sweep.py laboratory/reference
"""

from dataclasses import replace

from configs.laboratory.adversarial import BASE
from configs.laboratory.networks import SUITES
from vone_jax.attacks import PGD
from vone_jax.sweep import Member, Sweep
from vone_jax.training import TRADES, Fast

_base = replace(BASE, name="reference")
# As the authors' code for MNIST.
_fast = Fast(0.1, clipped_start=False)
_pgd = PGD("linf", 0.1, steps=10, step_size=0.025, random_start=True)

sweep = Sweep(
    name="reference",
    group="reference",
    members={
        "clean": Member(replace(_base, epochs=5)),
        "fast": Member(replace(_base, epochs=5, objectives=(_fast,))),
        "pgd": Member(replace(_base, epochs=3, objectives=(_pgd,))),
        "trades": Member(replace(_base, epochs=3, objectives=(TRADES(0.1, step_size=0.025),))),
    },
    evaluations=[("--suite", f"{SUITES}:reference", "--examples", "500")],
)
