"""Are V1-like networks robust? V1 match against accuracy at weak budgets, over all networks.

The report's v1_match.md has both correlations, v1_match.png the plot.

Paper row: V1 explained variance against white-box accuracy (figure 1 of Dapello, Marques et al.
2020), with the tuning of single units in the place of explained variance.
Expected: not measured yet.
Hardware: 2 CPU cores. Wall time: not measured yet.
Command: python sweep.py laboratory/v1_match
"""

from configs.laboratory.networks import NETWORKS, members
from vone_jax.sweep import Sweep

sweep = Sweep(
    name="v1_match",
    group="laboratory",
    members=members(list(NETWORKS)),
    evaluations=[
        ("--suite", "clean"),
        ("--suite", "linf", "--examples", "200"),
        ("--suite", "l2", "l1", "--examples", "200", "--points", "2"),
        ("--suite", "physiology"),
    ],
    report=("--v1-match",),
)
