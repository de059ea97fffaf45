"""The conglomerate benchmark on ImageNet: clean, white box in three norms, 15 corruptions.

ResNet-50 against VOneResNet-50, adversarial training (3 steps of 2/3 eps from a random start, at
4/255), training on Gaussian noise (standard deviation 0.5), and V1's noise behind the stem. The
report's table of scores has one line for each network and rule of the attack, with the means over
corruptions by both rules. Every tenth validation image: 5,000.

Paper row: the main comparison (figure 2 and table 1 of Dapello, Marques et al. 2020; the numbers of
the tables are not public).
Expected: not measured.
Hardware: planned for 8 GPUs or a TPU slice. Wall time: not measured. Forward and backward passes
of the attacks on one network: 5,000 images x 4 radii x 64 steps x 6 ladders, 7.7 million
without noise and 77 million with it (10 draws).
Data: see imagenet/resnet50. Corruptions are made in memory; frost has a drawn texture.
Command: python sweep.py benchmark/vonenet
"""

from dataclasses import replace

from configs.benchmark.protocol import attacks, corruptions
from configs.imagenet.resnet50 import experiment as base
from configs.imagenet.vone_resnet50 import experiment as vone
from vone_jax.attacks import PGD
from vone_jax.sweep import Member, Sweep
from vone_jax.training import GaussianImageNoise
from vone_jax.v1 import NeuronalNoise

_EPS = 4 / 255
_EXAMPLES = 5000

sweep = Sweep(
    name="benchmark",
    group="imagenet",
    members={
        "base": Member(base),
        "vone": Member(vone),
        "adversarial": Member(
            replace(
                base,
                objectives=(PGD("linf", _EPS, steps=3, step_size=2 * _EPS / 3, random_start=True),),
            )
        ),
        "gaussian": Member(replace(base, objectives=(GaussianImageNoise(0.5),))),
        # Before training, the gain makes the mean response of the stem to photographs about 1, that
        # of V1.
        "stem-noise": Member(
            replace(
                base,
                model=replace(base.model, stem_noise=NeuronalNoise(0.35, 0.07), stem_gain=1.4),
            )
        ),
    },
    evaluations=[
        ("--suite", "clean", "--examples", str(_EXAMPLES)),
        *attacks(_EXAMPLES),
        corruptions(_EXAMPLES),
    ],
)
