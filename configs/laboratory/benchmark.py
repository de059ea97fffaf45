"""The conglomerate benchmark in small: the table of benchmark/vonenet, by the same code.

Paper row: the main comparison (figure 2 and table 1 of Dapello, Marques et al. 2020) in small.
Expected: mean of white box and corruptions 66.9 (base), 74.1 (VOneNet), 74.3 (adversarial), 76.5
(Gaussian), 74.2 (stem noise), docs/results/training.md.
Hardware: 2 CPU cores. Wall time: not timed; a VOneNet's 20 further attacks are most of it.
Command: python sweep.py laboratory/benchmark
"""

from configs.benchmark.protocol import attacks
from configs.laboratory.networks import laboratory

_LABELS = ["base-0", "vone-0", "base-adversarial-8", "base-gaussian", "base-stem-noise"]

# Both step rules, and the L2 and L1 steps of the paper's time.
sweep = laboratory("benchmark", _LABELS, attacks(200))
