"""Base network against VOneNets on coloured drawings, three seeds each: a shift of style.

Clean accuracy on four tests, attacks in two norms, common corruptions and those of C-bar, changes
of colour, and certificates of V1's noise.

Paper row: the main comparison of Dapello, Marques et al. 2020 in small, in colour.
Expected: docs/results/drawings.md, with the predictions that were written before.
Hardware: 2 CPU cores. Wall time: about 2 hours of one core per VOneNet, by the time of a pass.
Data: see drawings/prepare.py.
Command: python sweep.py drawings/headline
"""

from configs.drawings.networks import SEEDS, SUITES, TESTS, members
from vone_jax.sweep import Sweep

_LABELS = [
    f"{network}-{seed}"
    for seed in SEEDS
    for network in ("base", "vone", "vone-cornet", "vone-convnext")
]
# The certificates are those of V1's noise, which the base network lacks.
_CERTIFIED = ("--suite", f"{SUITES}:certified", "--examples", "50")

sweep = Sweep(
    "headline",
    "drawings",
    members(_LABELS, {label: [_CERTIFIED] for label in _LABELS if label.startswith("vone")}),
    [
        *TESTS,
        ("--suite", f"{SUITES}:colours", "--examples", "400"),
        ("--suite", "corruptions", "--examples", "200", "--draws", "1"),
        ("--suite", "corruptions_c_bar", "--examples", "200", "--draws", "1"),
        ("--suite", f"{SUITES}:linf", "--examples", "200"),
        ("--suite", f"{SUITES}:l2", "--examples", "200"),
    ],
)
