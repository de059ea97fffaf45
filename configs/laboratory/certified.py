"""What buys a certificate: spontaneous activity, or the strength of the noise?

VOneNets with the published noise, with twice its strength and with more spontaneous activity, and a
base network with noise on its pixels, of the deviation that stands for Gaussian noise of 4 in V1:
4 divided by the sensitivity of V1, which is 26.3 here. Each has its certified accuracy against L2
radius, and the accuracy of the same vote under APGD, which must not be lower.

Paper row: none; docs/certificates.md has the theory.
Expected: docs/results.md; the level sets the radius, and the strength nearly nothing.
Hardware: 2 CPU cores. Wall time: not measured as a whole; minutes for each network.
Command: python sweep.py laboratory/certified
"""

from dataclasses import replace

from configs.laboratory.networks import NETWORKS, SEEDS, SUITES
from vone_jax import certification
from vone_jax.sweep import Member, Sweep
from vone_jax.training import GaussianImageNoise
from vone_jax.v1 import NeuronalNoise, Noise

_VONE, _BASE = NETWORKS["vone-0"], NETWORKS["base-0"]
assert _VONE.model.v1 is not None
_SENSITIVITY = certification.sensitivity(_VONE.model.v1)
_CERTIFIED = ("--suite", f"{SUITES}:certified", "--examples", "50")


def _noisy(noise: Noise) -> Member:
    assert _VONE.model.v1 is not None
    model = replace(_VONE.model, v1=replace(_VONE.model.v1, noise=noise))
    return Member(replace(_VONE, model=model), [_CERTIFIED])


def _pixels(deviation: float) -> Member:
    """A base network that learns and votes with noise on its pixels."""
    noise = GaussianImageNoise(deviation / _SENSITIVITY, share=1.0)
    words = ("--suite", f"{SUITES}:certified_pixels_{deviation:g}", "--examples", "50")
    return Member(replace(_BASE, perturbation=noise), [words])


_NEW = {
    "vone-level-2": _noisy(NeuronalNoise(level=2.0)),
    "vone-noise-2": _noisy(NeuronalNoise(strength=2.0)),
    "base-pixels-4": _pixels(4.0),
}

sweep = Sweep(
    name="certified",
    group="laboratory",
    # Further seeds and amounts are a line each. The labels are those of the other sweeps.
    members={f"vone-{seed}": Member(NETWORKS[f"vone-{seed}"], [_CERTIFIED]) for seed in SEEDS}
    | _NEW,
    evaluations=[("--suite", "clean")],
)
