"""A normalising surround against none, with and without noise, three seeds each.

Paper row: none.
Expected: docs/results/front_ends.md; with noise 6 to 9 points more on corruptions, 1 less
on clean images.
Hardware: 2 CPU cores. Wall time: 5 to 12 minutes of one core per network, training included.
Command: python sweep.py laboratory/surround
"""

from configs.laboratory.networks import SEEDS, laboratory

# The network without noise and with the first seed is one of ``components``.
_LABELS = [f"{name}-{seed}" for name in ("vone", "vone-surround", "vone-surround-quiet")
           for seed in SEEDS]  # fmt: skip
_LABELS += ["vone-quiet", "vone-quiet-1", "vone-quiet-2"]

sweep = laboratory("surround", _LABELS)
