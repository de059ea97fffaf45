"""Learned normalisations of V1, and Gabor parameters that are trained with the network.

Paper row: none. Cirincione et al. (2022) and Miller et al. (2022) compare the normalisations with
none on larger images.
Expected: docs/results/front_ends.md; oriented pools 6 points more on corruptions, GDN 1.6;
tuned banks 1.5 more on clean images and 4 to 6 less at 16/255.
Hardware: 2 CPU cores. Wall time: about 8 minutes of one core per network, 40 for oriented pools.
Command: python sweep.py laboratory/learned
"""

from configs.laboratory.networks import laboratory

_LABELS = [
    "vone-0", "vone-1", "vone-2",
    "vone-oriented-pools", "vone-oriented-pools-1", "vone-oriented-pools-2",
    "vone-gdn", "vone-gdn-1", "vone-gdn-2",
    "vone-uniform", "vone-uniform-1", "vone-uniform-2",
    "vone-tuned", "vone-tuned-1", "vone-tuned-2",
    "vone-tuned-uniform", "vone-tuned-uniform-1", "vone-tuned-uniform-2",
]  # fmt: skip

sweep = laboratory("learned", _LABELS)
