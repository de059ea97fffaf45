"""Base network against VOneNet, three seeds each: clean, white-box and corrupted accuracy.

Paper row: the main comparison (figure 2 and table 1 of Dapello, Marques et al. 2020) in small.
Expected: clean 89.4 and 86.2 %, L-infinity 16/255 1.7 and 45.2 % (base, VOneNet), docs/results.md.
Hardware: 2 CPU cores. Wall time: 21 minutes of one core to evaluate; training was not timed.
Command: python sweep.py laboratory/headline
"""

from configs.laboratory.networks import SEEDS, SUITES, laboratory

_LABELS = [f"{network}-{seed}" for network in ("base", "vone") for seed in SEEDS]

_WEAK = ("--suite", f"{SUITES}:weak_attacks", "--examples", "200")

sweep = laboratory("headline", _LABELS, [_WEAK])
