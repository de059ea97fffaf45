"""What buys a certificate: spontaneous activity, or the strength of the noise?

VOneNets with the published noise, stabilised noise and Gaussian noise of several amounts, and base
networks with noise on their pixels, of the deviation that stands for the same Gaussian noise in V1:
that of V1 divided by the sensitivity of V1, which is 26.3 here. Each has its certified accuracy
against L2 radius, and its accuracy under APGD beside it, which must not be lower.

Paper row: none; docs/certificates.md has the theory.
Expected: not run yet. With the published noise, the level and not the strength should set the
radius; pixel noise should do best in L2.
Hardware: 2 CPU cores. Wall time: not measured as a whole. The 10,000 draws of an image take about
20 seconds of one core, which is nearly all of it.
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
_LEVELS, _DEVIATIONS = (0.07, 1.0, 2.0), (1.0, 2.0, 4.0)
_CLEAN = ("--suite", "clean")
_EXAMPLES = ("--examples", "200")


def _noisy(noise: Noise) -> Experiment:
    assert _VONE.model.v1 is not None
    return replace(_VONE, model=replace(_VONE.model, v1=replace(_VONE.model.v1, noise=noise)))


_NOISES: dict[str, Noise] = {
    **{f"neuronal-{level:g}": NeuronalNoise(level=level) for level in _LEVELS},
    "neuronal-0.07-strength-2": NeuronalNoise(strength=2.0),
    **{f"stabilised-{level:g}": StabilisedNoise(level=level) for level in _LEVELS},
    **{f"gaussian-{deviation:g}": GaussianNoise(deviation) for deviation in _DEVIATIONS},
}


def _pixels(deviation: float) -> Member:
    """A base network that learns and votes with noise on its pixels."""
    scale = deviation / _SENSITIVITY
    words = ("--suite", f"{SUITES}:certified_pixels_{deviation:g}", *_EXAMPLES)
    return Member(replace(_BASE, perturbation=GaussianImageNoise(scale, share=1.0)), [words])


_MEMBERS = {
    **{
        f"certified-{label}": Member(
            _noisy(noise), [("--suite", f"{SUITES}:certified", *_EXAMPLES)]
        )
        for label, noise in _NOISES.items()
    },
    **{f"certified-pixels-{deviation:g}": _pixels(deviation) for deviation in _DEVIATIONS},
}

sweep = Sweep(
    name="certified",
    group="laboratory",
    members={
        f"{label}-{seed}": replace(member, network=replace(member.network, seed=seed))
        for label, member in _MEMBERS.items()
        for seed in SEEDS
    },
    evaluations=[_CLEAN],
)
