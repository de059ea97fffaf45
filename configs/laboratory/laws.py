"""V1 with constants that were learned by gradient, with those set before, and with none.

The learned constants are those of the first seed of docs/examples/laws.py, which fits the bank and
the surround to distributions of macaque cells. Pools are as small as images of one degree need, and
the gain gives all three networks the same mean response.

Paper row: none.
Expected: docs/laws.md; both surrounds gain 4 to 5 points on corruptions, the learned no more.
Hardware: 2 CPU cores. Wall time: 5 to 12 minutes of one core per network, training included.
Data: Fashion-MNIST at 28 pixels; docs/guide.md (Data) says how to get the images.
Command: python sweep.py laboratory/laws
"""

from dataclasses import replace

from configs.laboratory.networks import NETWORKS, SEEDS, SHORT
from vone_jax.neurophysiology.cells import Constants
from vone_jax.sweep import Member, Sweep

LEARNED = Constants(
    frequency=1.0089, frequency_spread=1.2425, size_x=1.295, size_y=0.5854,
    c50=0.2258, own=0.4634, local=0.0275, orientation_tuning=0.7527,
    position_pooling=0.4644, extent=0.5641, growth=0.6818, scatter=0.6148,
)  # fmt: skip

_vone = NETWORKS["vone-0"]
assert _vone.model.v1 is not None
_v1 = replace(
    _vone.model.v1,
    bank=LEARNED.bank(_vone.model.v1.gabor_parameters()),
    normalization=LEARNED.surround(position_pooling=0.1, largest_extent=0.27, gain=1.17),
)
_learned = replace(_vone, model=replace(_vone.model, v1=_v1))

members = {}
for seed in SEEDS:
    for label in (f"vone-{seed}", f"vone-surround-{seed}"):
        members[label] = Member(NETWORKS[label])
    members[f"vone-laws-{seed}"] = Member(replace(_learned, seed=seed))

sweep = Sweep(
    name="laws",
    group="laboratory",
    members=members,
    evaluations=SHORT,
)
