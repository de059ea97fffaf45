"""Are V1-like networks robust? V1 match against accuracy at weak radii, over all networks.

docs/tutorials/v1_match.ipynb correlates the results. The recorded layers are V1 of a VOneNet, and
the stem and the first two stages of a base network: later stages take long on a CPU.

Paper row: V1 explained variance against white-box accuracy (figure 1 of Dapello, Marques et al.
2020), with the tuning of single units in the place of explained variance.
Expected: Pearson .33 over the 22 networks of the second set of docs/results/layers.md, 95 %
bootstrap interval -.44 to .77.
Hardware: 2 CPU cores. Wall time: the physiology of a network takes about 1 minute of one core, its
training and its attacks about 8.
Command: python sweep.py laboratory/v1_match
"""

from configs.laboratory.networks import NETWORKS
from vone_jax.sweep import Member, Sweep

sweep = Sweep(
    name="v1_match",
    group="laboratory",
    members={
        label: Member(
            experiment,
            [
                (
                    *("--suite", "physiology", "--layers"),
                    *(("v1",) if experiment.model.v1 else ("stem", "layer1", "layer2")),
                )
            ],
        )
        for label, experiment in NETWORKS.items()
    },
    evaluations=[
        ("--suite", "clean"),
        # Attacks in the other norms cost as much again, and at 28 pixels they are even weaker.
        ("--suite", "linf", "--examples", "200"),
    ],
)
