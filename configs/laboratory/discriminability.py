"""Does the order of defences change if attacks are bounded by d' and not by pixels?

Networks of the sweep ``adversarial``: alone and behind V1, trained on clean images, on adversarial
ones and on images with noise. All are under PGD within radii in d' of the same observer: their V1
with Gaussian noise of 2. A VOneNet has this V1, so its certified accuracy is a proven floor.

Paper row: none; docs/certificates.md has the theory.
Expected: docs/results/certificates.md has what was measured.
Hardware: 2 CPU cores. Wall time: 1 to 8 minutes of one core to train a network, 2 to evaluate.
Command: python sweep.py laboratory/discriminability
"""

from dataclasses import replace

from configs.laboratory.adversarial import sweep as adversarial
from configs.laboratory.networks import SUITES
from vone_jax.sweep import Member, Sweep
from vone_jax.training import Experiment
from vone_jax.v1 import GaussianNoise, VOneBlockConfig


def _experiment(label: str) -> Experiment:
    network = adversarial.members[label].network
    assert isinstance(network, Experiment)
    return network


_vone = _experiment("vone-clean-0")
assert _vone.model.v1 is not None
OBSERVER: VOneBlockConfig = replace(_vone.model.v1, noise=GaussianNoise(2.0))

_LABELS = (
    "base-clean-0", "base-noise-0", "base-pgd-0.1-0", "vone-clean-0", "vone-pgd-0.1-0",
)  # fmt: skip

sweep = Sweep(
    "discriminability",
    "adversarial",
    {
        **{label: Member(_experiment(label)) for label in _LABELS},
        "vone-gaussian-0": Member(replace(_vone, model=replace(_vone.model, v1=OBSERVER))),
    },
    [("--suite", f"{SUITES}:in_d_prime", "--examples", "100")],
)
