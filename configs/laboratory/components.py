"""The parts of V1 that matter: distributions, spatial frequencies, cell types, gain, noise.

Paper row: the ablations (table 2 of Dapello, Marques et al. 2020) in small; the cut-offs of the
frequency bands are those of Baidya et al. 2021, arXiv:2110.10645.
Expected: docs/results.md; at 16/255 36 to 53 % for all with noise, base network 2.
Hardware: 2 CPU cores. Wall time: about 8 minutes of one core per VOneNet, training and all.
Command: python sweep.py laboratory/components
"""

from configs.laboratory.networks import laboratory

_LABELS = [
    "base-0", "vone-0", "vone-uniform", "vone-low", "vone-mid", "vone-high", "vone-simple",
    "vone-complex", "vone-gain-5", "vone-gain-45", "vone-quiet", "vone-noise-0.5", "vone-noise-2",
]  # fmt: skip

sweep = laboratory("components", _LABELS)
