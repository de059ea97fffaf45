"""Ensembles of V1 variants, and one network that learns from such an ensemble.

The eight variants differ in the spatial frequencies, the cells and the noise of their V1. Three
seeds of one network are the ensemble to compare with, and so are eight draws of a single network.

Paper row: Baidya et al. (2021), figures; their numbers are not public.
Expected: docs/results/front_ends.md; the ensemble 6 points above its best member at 16/255.
Hardware: 2 CPU cores. Wall time: 8 minutes of one core per variant, 40 for the ensemble of eight.
Command: python sweep.py laboratory/variants
"""

from dataclasses import replace

from configs.laboratory.networks import EVALUATIONS, SEEDS, VARIANTS, members
from vone_jax.sweep import Ensemble, Member, Sweep

_single = members([*VARIANTS, *(f"vone-{seed}" for seed in SEEDS[1:])])
# The mean of eight draws of one network, and of one draw of each of eight networks.
_single["vone-0"] = replace(
    _single["vone-0"],
    evaluations=[
        (*words, "--decision", "mean_logits:8", "--tag", "8-draws") for words in EVALUATIONS
    ],
)

sweep = Sweep(
    name="variants",
    group="laboratory",
    members={
        **_single,
        "ensemble-variants": Member(Ensemble(VARIANTS)),
        "ensemble-seeds": Member(Ensemble(tuple(f"vone-{seed}" for seed in SEEDS))),
        **members(["vone-distilled"]),
    },
    evaluations=EVALUATIONS,
)
