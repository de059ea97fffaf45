"""What buys a certificate: spontaneous activity, or the strength of the noise?

VOneNets with the published noise, stabilised noise and Gaussian noise of several amounts, and base
networks with noise on their pixels, of the deviation that stands for the same Gaussian noise in V1:
that of V1 divided by the sensitivity of V1, which is 26.3 here. Each has its certified accuracy
against L2 radius, and the accuracy of the same vote under APGD, which must not be lower.

Paper row: none; docs/certificates.md has the theory.
Expected: not run yet. With the published noise, the level and not the strength should set the
radius; pixel noise should do best in L2.
Hardware: 2 CPU cores. Wall time: not measured as a whole.
Command: python sweep.py laboratory/certified
"""

from dataclasses import replace

from configs.laboratory.networks import NETWORKS, SEEDS, SUITES
from vone_jax import certification
from vone_jax.sweep import Member, Sweep
from vone_jax.training import Experiment, GaussianImageNoise
from vone_jax.v1 import GaussianNoise, NeuronalNoise, Noise, StabilisedNoise

_VONE, _BASE = NETWORKS["vone-0"], NETWORKS["base-0"]
assert _VONE.model.v1 is not None
_SENSITIVITY = certification.sensitivity(_VONE.model.v1)
_CERTIFIED = ("--suite", f"{SUITES}:certified", "--examples", "100")


def _noisy(noise: Noise) -> Member:
    assert _VONE.model.v1 is not None
    model = replace(_VONE.model, v1=replace(_VONE.model.v1, noise=noise))
    return Member(replace(_VONE, model=model), [_CERTIFIED])


def _pixels(deviation: float) -> Member:
    """A base network that learns and votes with noise on its pixels."""
    noise = GaussianImageNoise(deviation / _SENSITIVITY, share=1.0)
    words = ("--suite", f"{SUITES}:certified_pixels_{deviation:g}", "--examples", "100")
    return Member(replace(_BASE, perturbation=noise), [words])


# The networks that the question needs have three seeds.
_MAIN = {
    "vone": _noisy(NeuronalNoise()),
    "vone-level-2": _noisy(NeuronalNoise(level=2.0)),
    "vone-noise-2": _noisy(NeuronalNoise(strength=2.0)),
    "vone-stabilised-2": _noisy(StabilisedNoise(level=2.0)),
    "vone-gaussian-4": _noisy(GaussianNoise(4.0)),
    "base-pixels-4": _pixels(4.0),
}
_FURTHER = {
    "vone-level-1": _noisy(NeuronalNoise(level=1.0)),
    "vone-stabilised-0.07": _noisy(StabilisedNoise()),
    "vone-gaussian-1": _noisy(GaussianNoise(1.0)),
    "base-pixels-1": _pixels(1.0),
    "vone-stabilised-1": _noisy(StabilisedNoise(level=1.0)),
    "vone-gaussian-2": _noisy(GaussianNoise(2.0)),
    "base-pixels-2": _pixels(2.0),
}


def _seeded(label: str, member: Member, seed: int) -> tuple[str, Member]:
    assert isinstance(member.network, Experiment)
    # The labels of the other sweeps, which share these networks.
    named = f"{label}-{seed}" if seed or label == "vone" else label
    return named, replace(member, network=replace(member.network, seed=seed))


sweep = Sweep(
    name="certified",
    group="laboratory",
    members=dict(
        _seeded(label, member, seed)
        for seed in SEEDS
        for label, member in ({**_MAIN, **_FURTHER} if seed == 0 else _MAIN).items()
    ),
    evaluations=[("--suite", "clean")],
)
