"""Does V1 add to adversarial training? V1 with and without noise, before six ways of training.

The network is the small CNN of Wong et al. (2020), alone and behind 16 simple and 16 complex cells,
trained for one epoch of all of Fashion-MNIST. The radii of training are 8/255 and 0.1; PGD and
TRADES make 5 steps of a quarter of the radius. The attack of the evaluation is the strongest of
four at four radii. A network without V1 is the surrogate of the masking checks.

Paper row: none; nobody has asked.
Expected: docs/results.md has the prediction, and what was measured.
Hardware: 2 CPU cores. Wall time: 1 to 4 minutes of one core to train a network, 2 to 4 to evaluate.
Command: python sweep.py laboratory/adversarial
"""

from dataclasses import replace

from configs.laboratory.networks import SEEDS, SUITES
from vone_jax import models
from vone_jax.attacks import PGD
from vone_jax.models import Spec
from vone_jax.sweep import Member, Sweep
from vone_jax.training import (
    AWP,
    TRADES,
    Cyclic,
    DataConfig,
    Experiment,
    Fast,
    GaussianImageNoise,
    OptimizerConfig,
)

# Batch, optimiser and schedule are those of the authors for MNIST.
BASE = Experiment(
    name="adversarial-base",
    model=Spec("small_cnn", image_size=28, in_channels=1, mean=(0.0,), std=(1.0,)),
    data=DataConfig("tfds:fashion_mnist", batch_size=100),
    optimizer=OptimizerConfig("adam", 5e-3, schedule=Cyclic(0.4), weight_decay=0.0),
    epochs=1,
)
# The gain is that of the quickstart.
_V1 = replace(models.v1_config(28, 1), simple_channels=16, complex_channels=16, k_exc=15.0)


def _vone(**fields) -> Experiment:
    v1 = replace(_V1, **fields)
    model = Spec("vone_small_cnn", image_size=28, in_channels=1, v1=v1)
    return replace(BASE, name="adversarial-vone", model=model)


_NETWORKS = {"base": BASE, "vone": _vone(), "vone-quiet": _vone(noise=None)}
_RADII = {"8of255": 8 / 255, "0.1": 0.1}


def _trainings() -> dict[str, tuple]:
    """The objectives of each way of training, at the larger radius first."""
    found = {"clean": (), "noise": (GaussianImageNoise(0.2),)}
    for label, eps in reversed(_RADII.items()):
        pgd = PGD("linf", eps, steps=5, step_size=eps / 4, random_start=True)
        trades = TRADES(eps, step_size=eps / 4, steps=5)
        found |= {
            f"pgd-{label}": (pgd,),
            f"trades-{label}": (trades,),
            f"trades-awp-{label}": (trades, AWP(0.005)),
            # As the authors' code for MNIST.
            f"fast-{label}": (Fast(eps, clipped_start=False),),
        }
    return found


def _member(label: str, network: Experiment, seed: int) -> Member:
    masking = (
        "--suite",
        "masking",
        "--eps",
        "0.1",
        "--others",
        f"runs/adversarial/base-clean-{seed}",
    )
    return Member(replace(network, seed=seed), [masking] if label.startswith("vone") else [])


# All networks with one seed come before the next seed.
sweep = Sweep(
    name="adversarial",
    group="adversarial",
    members={
        f"{label}-{training}-{seed}": _member(label, replace(network, objectives=objectives), seed)
        for seed in SEEDS
        for training, objectives in _trainings().items()
        for label, network in _NETWORKS.items()
    },
    evaluations=[
        ("--suite", "clean"),
        ("--suite", f"{SUITES}:strongest", "--examples", "100"),
        ("--suite", "corruptions", "--examples", "200", "--draws", "1"),
    ],
)
