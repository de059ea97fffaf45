"""EVNets, also with a surround in V1, against VOneNets and base networks, three seeds each.

Paper row: none. Piper et al. (2025) compare them on ImageNet.
Expected: docs/results/front_ends.md; 4 points more on corruptions than VOneNets, 6 less at 16/255;
with a surround not measured.
Hardware: 2 CPU cores. Wall time: 5 to 16 minutes of one core per network, training included.
Command: python sweep.py laboratory/subcortical
"""

from configs.laboratory.networks import SEEDS, laboratory

_NAMES = ("base", "vone", "ev", "ev-surround")

sweep = laboratory("subcortical", [f"{name}-{seed}" for name in _NAMES for seed in SEEDS])
