"""The place of the noise: in training, at the attack, at the test; frozen; more draws and steps.

The report's table of scores has a line for each. The claim to test is that most of the gain comes
from noise in training. A base network with V1's noise behind its stem shows the noise alone.

Paper row: the controls of stochasticity (Dapello, Marques et al. 2020; settings not public), and
the attack on the network without noise (Zimmermann et al. 2022, arXiv:2206.13991).
Expected: docs/results.md; at 16/255 V1 without noise 11.5 %, noise behind the stem 37.5, both 44.9.
Hardware: 2 CPU cores. Wall time: not measured as a whole; 100 draws and 256 steps are most of it.
Command: python sweep.py laboratory/stochasticity
"""

from dataclasses import replace

from configs.laboratory.networks import NETWORKS
from vone_jax.evaluation import Request
from vone_jax.sweep import Member, Sweep

_CLEAN = Request(suite=("clean",))
_LINF = Request(suite=("linf",), examples=200)
_FEWER = Request(suite=("linf",), examples=100)

# Trained with noise: at the attack and the test it may be on or off.
_NOISY = (
    replace(_LINF, attack_noise="none"),
    replace(_CLEAN, test_noise="none"),
    replace(_LINF, test_noise="none"),
    replace(_LINF, test_noise="none", attack_noise="trained"),
)

# Trained without noise: at the attack and the test it may be on or off, too.
_QUIET = (
    replace(_LINF, attack_noise="neuronal"),
    replace(_CLEAN, test_noise="neuronal"),
    replace(_LINF, test_noise="neuronal"),
    replace(_LINF, test_noise="neuronal", attack_noise="none"),
)

# Frozen noise, and stronger attacks on it.
_STRONGER = (
    replace(_CLEAN, noise="frozen"),
    replace(_LINF, noise="frozen"),
    replace(_LINF, attack_noise="frozen"),
    replace(_FEWER, eot_samples=1, tag="1-draw"),
    replace(_FEWER, eot_samples=100, tag="100-draws"),
    replace(_LINF, steps=256, tag="256-steps"),
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
