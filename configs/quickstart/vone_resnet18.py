"""VOneResNet-18 on the embedded subset of Fashion-MNIST: the VOneNet of the quickstart.

Differs from quickstart/resnet18 in the front end alone: a VOneBlock and a bottleneck in the place
of the stem.

Paper row: none; a small-image form of this project.
Expected: docs/start.md has the accuracies, under attack as well.
Hardware: 2 CPU cores. Wall time: about 80 seconds.
Command: python train.py quickstart/vone_resnet18
"""

from dataclasses import replace

from configs.quickstart.resnet18 import experiment as base
from vone_jax import models

experiment = replace(
    base,
    name="quickstart-vone_resnet18",
    # A gain of 15 instead of 25: the mean response to these images, which have far more contrast
    # than photographs, is then near 1, as the noise constants assume.
    model=replace(
        base.model,
        name="vone_resnet18",
        v1=replace(models.v1_config(28, 1), simple_channels=32, complex_channels=32, k_exc=15.0),
    ),
)
