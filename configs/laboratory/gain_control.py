"""Does gain control keep the certificate, and what does it bring at low contrast?

A VOneNet with Gaussian noise in V1, alone, with gain control by the root mean square response of
the image, and with a normalising surround, which divides by squares and has no certificate. The
semisaturation is a share of the median root mean square response to the images, 1.78; the gain
keeps the mean response, 1.06. Certified accuracy and APGD are at contrasts 1, 0.5 and 0.25 of the
images; networks learn at contrast 1 alone.

Paper row: none; docs/certificates.md has the theory.
Expected: docs/results/certificates.md, with the prediction that was written down before.
Hardware: 2 CPU cores. Wall time: about 15 minutes of one core for each of the 15 networks.
Command: python sweep.py laboratory/gain_control
"""

from dataclasses import replace

from configs.laboratory.networks import EVALUATIONS, NETWORKS, SEEDS, SUITES
from vone_jax.sweep import Member, Sweep
from vone_jax.training import Experiment
from vone_jax.v1 import GainControl, GaussianNoise, SurroundNormalization

_MEDIAN = 1.78
# Semisaturation, as a share of the median response -> gain.
_GAINS = {0.25: 1.80, 0.5: 1.97, 1.0: 2.51}


def _network(normalization: GainControl | SurroundNormalization | None) -> Experiment:
    network = NETWORKS["vone-0"]
    assert network.model.v1 is not None
    v1 = replace(network.model.v1, noise=GaussianNoise(2.0), normalization=normalization)
    return replace(network, model=replace(network.model, v1=v1))


_surround = NETWORKS["vone-surround-0"].model.v1
assert _surround is not None and isinstance(_surround.normalization, SurroundNormalization)

# The first has the label that it has in the sweep ``certified``, which trains the same network.
_KINDS = {
    "vone-gaussian-2": _network(None),
    **{
        f"vone-gain-control-{share:g}": _network(GainControl(share * _MEDIAN, gain=gain))
        for share, gain in _GAINS.items()
    },
    "vone-surround-gaussian-2": _network(_surround.normalization),
}
# At other radii than those of the sweep ``certified``.
_CERTIFICATES = (
    "--suite", f"{SUITES}:certified_contrasts", "--examples", "50", "--tag", "contrasts"
)  # fmt: skip


def _member(network: Experiment, seed: int) -> Member:
    assert network.model.v1 is not None
    without_proof = isinstance(network.model.v1.normalization, SurroundNormalization)
    return Member(replace(network, seed=seed), [] if without_proof else [_CERTIFICATES])


# All kinds with one seed come before the next seed, as ``label``, ``label-1`` and ``label-2``.
members = {
    f"{label}-{seed}" if seed else label: _member(network, seed)
    for seed in SEEDS
    for label, network in _KINDS.items()
}
sweep = Sweep("gain_control", "laboratory", members, EVALUATIONS)
