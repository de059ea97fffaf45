"""A VOneNet against training on other images: adversarial, noisy, and both together.

Paper row: the comparison with adversarial training and augmentation (table 1 of Dapello, Marques et
al. 2020) in small.
Expected: docs/results/training.md; at 16/255 2.0 % base, 44 VOneNet, 66 to 69 adversarial at 8/255.
Hardware: 2 CPU cores. Wall time: per network 4 (base) to 8 minutes of one core (VOneNets, five-step
adversarial training), training included.
Command: python sweep.py laboratory/training
"""

from configs.laboratory.networks import laboratory

_LABELS = [
    "base-0", "vone-0", "base-adversarial-2", "base-adversarial-8", "base-pgd-8",
    "vone-adversarial-8", "base-gaussian", "base-stem-noise",
]  # fmt: skip

sweep = laboratory("training", _LABELS)
