"""VOneResNet-18 on CIFAR-10 with the recipe of cifar10/resnet18.

The front end is this project's form for 32 pixels: 1 degree of visual angle, stride 1, neuronal
noise. That of the published network is not public beyond its stride; it had Gaussian noise.

Paper row: VOneResNet-18 on CIFAR-10 (Dapello et al. 2021, arXiv:2111.06979): 89.11 % clean.
Expected: not measured.
Hardware: planned for one GPU. Wall time: not measured.
Data: TFDS cifar10 (tfds build cifar10 --file_format=array_record).
Command: python train.py cifar10/vone_resnet18
"""

from dataclasses import replace

from configs.cifar10.resnet18 import experiment as base
from vone_jax import models

experiment = replace(
    base,
    name="cifar10-vone_resnet18",
    model=replace(base.model, name="vone_resnet18", v1=models.v1_config(32, 3)),
)
