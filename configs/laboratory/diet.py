"""The developmental visual diet with and without V1, three seeds each.

The base network and the VOneNet see the training images at an age that rises, at the same ages in
shuffled order, or at that of an adult, which leaves grey images as they are. Evaluation is on
unchanged images. The question is whether V1 makes the diet redundant. Noise of the phases asks
whether a network recognises by form. Critical bands have images of low contrast, at which all these
networks are at chance.

Paper row: none; the diet is that of Lu et al. (2025, arXiv:2507.03168).
Expected: docs/your_training.md; the diet gains 5 points at 8/255, V1 34; both together no more.
Hardware: 2 CPU cores. Wall time: about 6 minutes of one core for each of the 18 networks.
Data: Fashion-MNIST at 28 pixels; docs/guide.md (Data) says how to get the images.
Command: python sweep.py laboratory/diet
"""

from dataclasses import replace

from configs.laboratory.networks import NETWORKS, SEEDS, SHORT, SUITES
from vone_jax.sweep import Member, Sweep
from vone_jax.training import Diet

members = {}
for kind in ("base", "vone"):
    for seed in SEEDS:
        # Adults see grey images as they are, so this is the network without a diet.
        members[f"{kind}-{seed}"] = Member(adult := NETWORKS[f"{kind}-{seed}"])
        for order in ("true", "shuffled"):
            experiment = replace(adult, objectives=(Diet(order),))
            members[f"{kind}-diet-{order}-{seed}"] = Member(experiment)

sweep = Sweep(
    name="diet",
    group="laboratory",
    members=members,
    evaluations=[
        *SHORT,
        ("--suite", f"{SUITES}:phase_noise", "--examples", "200"),
    ],
)
