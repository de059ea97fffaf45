"""The place of the noise: in training, at the attack, at the test; frozen; more draws and steps.

The report's table of scores has a line for each. The claim to test is that most of the gain comes
from noise in training. A base network with V1's noise behind its stem shows the noise alone.

Paper row: the controls of stochasticity (Dapello, Marques et al. 2020; settings not public), and
the attack on the network without noise (Zimmermann et al. 2022, arXiv:2206.13991).
Expected: docs/results/parts.md; at 16/255 V1 without noise 11.5 %, noise behind the stem 37.5,
both 44.9.
Hardware: 2 CPU cores. Wall time: not measured as a whole; 100 draws and 256 steps are most of it.
Command: python sweep.py laboratory/stochasticity
"""

from configs.laboratory.networks import NETWORKS, SUITES
from vone_jax.sweep import Member, Sweep

_CLEAN = ("--suite", "clean")
_LINF = ("--suite", "linf", "--examples", "200")

# Trained with noise: at the attack and the test it may be on or off.
_NOISY = (
    (*_LINF, "--attack-noise", "none"),
    (*_CLEAN, "--noise", "none"),
    (*_LINF, "--noise", "none"),
    (*_LINF, "--noise", "none", "--attack-noise", "neuronal"),
)

# Trained without noise: at the attack and the test it may be on or off, too.
_QUIET = (
    (*_LINF, "--attack-noise", "neuronal"),
    (*_CLEAN, "--noise", "neuronal"),
    (*_LINF, "--noise", "neuronal"),
    (*_LINF, "--noise", "neuronal", "--attack-noise", "none"),
)

# Frozen noise, and stronger attacks on it.
_STRONGER = (
    (*_CLEAN, "--noise", "frozen"),
    (*_LINF, "--noise", "frozen"),
    (*_LINF, "--attack-noise", "frozen"),
    ("--suite", f"{SUITES}:one_draw", "--examples", "100"),
    ("--suite", f"{SUITES}:hundred_draws", "--examples", "100"),
    ("--suite", f"{SUITES}:long_attacks", "--examples", "200"),
)

sweep = Sweep(
    name="stochasticity",
    group="laboratory",
    members={
        "base-0": Member(NETWORKS["base-0"]),
        "base-stem-noise": Member(NETWORKS["base-stem-noise"], _NOISY),
        "vone-quiet": Member(NETWORKS["vone-quiet"], _QUIET),
        "vone-0": Member(NETWORKS["vone-0"], (*_NOISY, *_STRONGER)),
    },
    evaluations=[_CLEAN, _LINF],
)
