"""What buys a certificate: spontaneous activity, the strength of the noise, or its kind?

VOneNets with the published noise, with twice its strength and with more spontaneous activity, with
stabilised noise of the same levels and with Gaussian noise; and base networks with noise on their
pixels, of the deviations that stand for the Gaussian noise in V1: divided by the sensitivity of V1,
which is 26.3 here. Each has its certified accuracy against L2 radius, and the accuracy of the same
vote under APGD, which must not be lower.

Paper row: none; docs/certificates.md has the theory.
Expected: docs/results/certificates.md; the level sets the radius, and the strength nearly nothing.
Hardware: 2 CPU cores. Wall time: about 5 minutes of one core for each of the 39 networks.
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


def _noisy(noise: Noise) -> Experiment:
    assert _VONE.model.v1 is not None
    return replace(_VONE, model=replace(_VONE.model, v1=replace(_VONE.model.v1, noise=noise)))


_KINDS = {
    "vone-noise-2": NETWORKS["vone-noise-2"],
    **{f"vone-level-{level:g}": _noisy(NeuronalNoise(level=level)) for level in (1.0, 2.0)},
    **{
        f"vone-stabilised-level-{level:g}": _noisy(StabilisedNoise(level=level))
        for level in (0.07, 1.0, 2.0)
    },
    **{f"vone-gaussian-{scale:g}": _noisy(GaussianNoise(scale)) for scale in (1.0, 2.0, 4.0)},
    # A base network learns and votes with noise on its pixels.
    **{
        f"base-pixels-{scale:g}": replace(
            _BASE, objectives=(GaussianImageNoise(scale / _SENSITIVITY, share=1.0),)
        )
        for scale in (1.0, 2.0, 4.0)
    },
}


def _member(label: str, network: Experiment, seed: int) -> Member:
    # A base network is certified with the noise on pixels that it learned with.
    pixels = label.removeprefix("base").replace("-", "_") if label.startswith("base") else ""
    suite = f"certified{pixels}"
    words = ("--suite", f"{SUITES}:{suite}", "--examples", "50")
    return Member(replace(network, seed=seed), [words])


# All kinds with one seed come before the next seed, as ``label``, ``label-1`` and ``label-2``. The
# published noise is that of the networks vone-0, vone-1 and vone-2 of the other sweeps.
members = {}
for _seed in SEEDS:
    members[f"vone-{_seed}"] = _member("vone", _VONE, _seed)
    for _label, _network in _KINDS.items():
        members[f"{_label}-{_seed}" if _seed else _label] = _member(_label, _network, _seed)

sweep = Sweep(
    name="certified", group="laboratory", members=members, evaluations=[("--suite", "clean")]
)
