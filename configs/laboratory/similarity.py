"""Networks trained to have the similarities of V1, of pixels, or of shuffled V1 (control).

Paper row: Li et al. 2019, arXiv:1911.05072, figure 4, with V1 in the place of mouse neurons; Attias
et al. 2024, arXiv:2410.03952, for pixels. Images are grey, as theirs.
Expected: docs/results/training.md; at 16/255 27.0 % V1, 11.5 pixels, 0.0 shuffled, 2.0 without.
Hardware: 2 CPU cores. Wall time: about 4 minutes of one core per network, training included.
Command: python sweep.py laboratory/similarity
"""

from configs.laboratory.networks import laboratory

_LABELS = ["base-0", "base-similar-v1", "base-similar-pixels", "base-similar-shuffled"]

sweep = laboratory("similarity", _LABELS)
