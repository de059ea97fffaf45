"""The networks of the laboratory: small ResNet-18s on Fashion-MNIST, every control of the paper.

Full Fashion-MNIST at 28 pixels, 3 epochs: small enough for 2 CPU cores, so that anybody can repeat
every experiment of the paper. docs/guide.md (Data) says how to get the images. Sweeps pick
networks from here by label. A label is also the name of a run directory, so sweeps share trained
networks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from configs.quickstart.resnet18 import experiment as quickstart
from configs.quickstart.vone_resnet18 import experiment as quickstart_vone
from vone_jax import models
from vone_jax.attacks import PGD
from vone_jax.sweep import Member, Sweep
from vone_jax.training import Distillation, Experiment, GaussianImageNoise, Similarity
from vone_jax.v1 import (
    GDN,
    NeuronalNoise,
    OrientedPools,
    SurroundNormalization,
)

_base = replace(
    quickstart,
    name="laboratory-base",
    data=replace(quickstart.data, source="tfds:fashion_mnist"),
    epochs=3,
)
_vone = replace(_base, name="laboratory-vone", model=quickstart_vone.model)
# The gains are the published ones: the mean response of this V1 to these images is 1.2.
_ev = replace(
    _base,
    name="laboratory-ev",
    model=replace(
        _base.model,
        name="ev_resnet18",
        v1=replace(models.v1_config(28, 2, "ev_resnet18"), simple_channels=32, complex_channels=32),
    ),
)


def _v1(network: Experiment = _vone, **fields) -> Experiment:
    """The VOneNet, or another network, with another V1."""
    assert network.model.v1 is not None
    return replace(network, model=replace(network.model, v1=replace(network.model.v1, **fields)))


def _learned(rule: OrientedPools | GDN) -> Experiment:
    return replace(_vone, model=replace(_vone.model, learned_normalization=rule))


def _frequencies(low: float, high: float) -> Experiment:
    return _v1(sf_min=low, sf_max=high, distribution="physiological_extended")


def _fast(eps: float) -> PGD:
    """One step from a random start (Wong et al. 2020)."""
    return PGD("linf", eps, steps=1, step_size=1.25 * eps, random_start=True)


def _similar(**fields) -> Experiment:
    return replace(_base, objectives=(Similarity(**fields),))


def _seeds(label: str, network: Experiment) -> dict[str, Experiment]:
    """The network with each seed, as ``label``, ``label-1`` and ``label-2``."""
    return {f"{label}-{seed}" if seed else label: replace(network, seed=seed) for seed in SEEDS}


SEEDS = (0, 1, 2)
# An image spans one degree here, so the pools are small. The gain keeps the mean response.
_surround = SurroundNormalization(largest_extent=0.27, position_pooling=0.1, gain=1.2)

# The eight V1 variants of Baidya et al. (2021).
VARIANTS = (
    "vone-0", "vone-low", "vone-mid", "vone-high", "vone-simple", "vone-complex", "vone-quiet",
    "vone-noise-0.5",
)  # fmt: skip

NETWORKS: dict[str, Experiment] = {
    **{f"base-{seed}": replace(_base, seed=seed) for seed in SEEDS},
    **{f"vone-{seed}": replace(_vone, seed=seed) for seed in SEEDS},
    **{f"ev-{seed}": replace(_ev, seed=seed) for seed in SEEDS},
    # Components of the front end.
    **_seeds("vone-uniform", _v1(distribution="uniform")),
    **_seeds("vone-low", _frequencies(0, 2)),
    **_seeds("vone-mid", _frequencies(2, 5.6)),
    **_seeds("vone-high", _frequencies(5.6, 11.3)),
    **_seeds("vone-simple", _v1(simple_channels=64, complex_channels=0)),
    **_seeds("vone-complex", _v1(simple_channels=0, complex_channels=64)),
    # Half the gain gives complex cells the mean response of simple ones.
    **_seeds("vone-complex-gain-7.5", _v1(simple_channels=0, complex_channels=64, k_exc=7.5)),
    # A third and three times the gain: mean responses of about 0.4 and 3. The variance of the noise
    # follows the mean, so relative to the response it is stronger and weaker.
    "vone-gain-5": _v1(k_exc=5.0),
    "vone-gain-45": _v1(k_exc=45.0),
    # Stochasticity. Before training, the gain makes the mean response of the stem 1, that of V1.
    **_seeds("vone-quiet", _v1(noise=None)),
    **_seeds("vone-noise-0.5", _v1(noise=NeuronalNoise(strength=0.5))),
    **_seeds("vone-noise-2", _v1(noise=NeuronalNoise(strength=2.0))),
    "base-stem-noise": replace(
        _base, model=replace(_base.model, stem_noise=NeuronalNoise(), stem_gain=2.5)
    ),
    # A normalising surround, with noise and without.
    **{f"vone-surround-{seed}": replace(_v1(normalization=_surround), seed=seed) for seed in SEEDS},
    **{
        f"vone-surround-quiet-{seed}": replace(_v1(normalization=_surround, noise=None), seed=seed)
        for seed in SEEDS
    },
    **{
        f"ev-surround-{seed}": replace(_v1(_ev, normalization=_surround), seed=seed)
        for seed in SEEDS
    },
    # Learned normalisations behind V1, and banks whose parameters are trained.
    **_seeds("vone-oriented-pools", _learned(OrientedPools(9))),
    **_seeds("vone-gdn", _learned(GDN())),
    **_seeds("vone-tuned", _v1(tuned=True)),
    **_seeds("vone-tuned-uniform", _v1(tuned=True, distribution="uniform")),
    # A network without noise that learns from the eight variants, which must be in runs/laboratory.
    "vone-distilled": replace(
        _v1(noise=None),
        objectives=(Distillation("+".join(f"runs/laboratory/{label}" for label in VARIANTS)),),
    ),
    # Training on other images.
    "base-adversarial-2": replace(_base, objectives=(_fast(2 / 255),)),
    "base-adversarial-8": replace(_base, objectives=(_fast(8 / 255),)),
    "base-pgd-8": replace(_base, objectives=(PGD("linf", 8 / 255, steps=5, random_start=True),)),
    "vone-adversarial-8": replace(_vone, objectives=(_fast(8 / 255),)),
    "base-gaussian": replace(_base, objectives=(GaussianImageNoise(0.2),)),
    # Similarity regularisation (Li et al. 2019; Attias et al. 2024 for pixels).
    "base-similar-v1": _similar(target="v1"),
    "base-similar-pixels": _similar(target="pixels", alpha=10.0, threshold=0.8),
    "base-similar-shuffled": _similar(target="v1", shuffled=True),
}

# The evaluations of every network, as words of eval.py.
EVALUATIONS = (
    ("--suite", "clean"),
    ("--suite", "linf", "--examples", "200"),
    ("--suite", "corruptions", "--examples", "500", "--draws", "1"),
)
# The file of further suites.
SUITES = Path(__file__).with_name("suites.py")
# Shorter evaluations, for sweeps in which every network has three seeds.
SHORT = (
    ("--suite", "clean"),
    ("--suite", f"{SUITES}:expected", "--examples", "100", "--tag", "expected"),
    ("--suite", "corruptions", "--examples", "200", "--draws", "1"),
)


def members(labels: Sequence[str]) -> dict[str, Member]:
    """Networks by label, as members of a sweep."""
    return {label: Member(NETWORKS[label]) for label in labels}


def laboratory(name: str, labels: Sequence[str], further: Iterable[Sequence[str]] = ()) -> Sweep:
    """The sweep over the networks of these labels, with ``EVALUATIONS`` and ``further`` ones."""
    return Sweep(name, "laboratory", members(labels), [*EVALUATIONS, *further])
