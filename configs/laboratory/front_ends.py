"""Two front ends of others beside V1: push-pull inhibition and R-Blur, three seeds each.

Push-pull in the place of the first convolution, and over V1's fixed bank of simple cells, with the
same bank without inhibition as its control. R-Blur before the stem of the base network, evaluated
from five fixations. All are attacked through the expectation over what they draw and where they
look; R-Blur also plainly, through its central fixation and one draw of its noise.

Paper row: none; docs/front_ends.md has the equations and sources.
Expected: docs/front_ends.md; the pull is worth 19 points at 16/255 over V1's bank without noise.
Hardware: 2 CPU cores. Wall time: about 6 minutes of one core for each of the 18 networks.
Data: Fashion-MNIST at 28 pixels; docs/guide.md (Data) says how to get the images.
Command: python sweep.py laboratory/front_ends
"""

from dataclasses import replace

import flax.linen as nn
import jax.numpy as jnp

from configs.laboratory.networks import NETWORKS, SEEDS, SHORT, SUITES
from vone_jax.front_ends import PushPull, PushPullV1, RBlur
from vone_jax.sweep import Member, Sweep
from vone_jax.training import Experiment

_base, _vone = NETWORKS["base-0"].model, NETWORKS["vone-0"].model
assert _vone.v1 is not None and _base.width is not None
_bank = replace(_vone.v1, simple_channels=64, complex_channels=0, noise=None)
_stem = _base.complete().stem(jnp.float32)


def _behind(front_end: nn.Module, **fields) -> Experiment:
    model = replace(_base, front_end=front_end, **fields)
    return replace(NETWORKS["base-0"], model=model)


_KINDS = {
    "base": NETWORKS["base-0"],
    "vone": NETWORKS["vone-0"],
    "push-pull": _behind(PushPull(_base.width)),
    "push-pull-v1": _behind(PushPullV1(_bank, _base.width)),
    "no-pull-v1": _behind(PushPullV1(_bank, _base.width, strength=0.0)),
    # Pixels in [0, 1], as the noise is meant.
    "r-blur": _behind(RBlur(_stem), mean=(0.0,), std=(1.0,)),
}
_PLAIN = ("--suite", f"{SUITES}:through_the_centre", "--examples", "100", "--tag", "plain")


def _member(label: str, seed: int) -> Member:
    return Member(replace(_KINDS[label], seed=seed), [_PLAIN] if label == "r-blur" else [])


members = {f"{label}-{seed}": _member(label, seed) for seed in SEEDS for label in _KINDS}
sweep = Sweep(
    name="front_ends",
    group="laboratory",
    members=members,
    evaluations=SHORT,
)
