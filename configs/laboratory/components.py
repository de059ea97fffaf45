"""The parts of V1 that matter: distributions, spatial frequencies, cell types, gain, noise.

Paper row: the ablations (table 2 of Dapello, Marques et al. 2020) in small; the cut-offs of the
frequency bands are those of Baidya et al. 2021, arXiv:2110.10645.
Expected: docs/results/parts.md; at 16/255 36 to 52 % for all with noise, base network 2.
Hardware: 2 CPU cores. Wall time: about 8 minutes of one core per VOneNet, training included.
Command: python sweep.py laboratory/components
"""

from configs.laboratory.networks import laboratory

_LABELS = [
    "base-0", "vone-0", "vone-1", "vone-2",
    "vone-uniform", "vone-uniform-1", "vone-uniform-2",
    "vone-low", "vone-low-1", "vone-low-2",
    "vone-mid", "vone-mid-1", "vone-mid-2",
    "vone-high", "vone-high-1", "vone-high-2",
    "vone-simple", "vone-simple-1", "vone-simple-2",
    "vone-complex", "vone-complex-1", "vone-complex-2",
    "vone-complex-gain-7.5", "vone-complex-gain-7.5-1", "vone-complex-gain-7.5-2",
    "vone-gain-5", "vone-gain-45",
    "vone-quiet", "vone-quiet-1", "vone-quiet-2",
    "vone-noise-0.5", "vone-noise-0.5-1", "vone-noise-0.5-2",
    "vone-noise-2", "vone-noise-2-1", "vone-noise-2-2",
]  # fmt: skip

sweep = laboratory("components", _LABELS)
