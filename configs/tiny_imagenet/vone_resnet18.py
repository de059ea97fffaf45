"""VOneResNet-18 on Tiny ImageNet with the recipe and front end of Baidya et al. (2021).

The front end: 2 degrees, 25 x 25 kernels at stride 2, 256 simple and 256 complex cells, frequencies
up to 11.2 cycles per degree, gain 23.5, neuronal noise of scale 0.286 and level 0.071.

Paper row: "all frequencies, all cells, normal noise" of arXiv:2110.10645; no public number.
Expected: not measured.
Hardware: planned for one GPU. Wall time: not measured.
Data: see tiny_imagenet/resnet18.
Command: python train.py tiny_imagenet/vone_resnet18
"""

from dataclasses import replace

from configs.tiny_imagenet.resnet18 import experiment as base
from vone_jax import models

experiment = replace(
    base,
    name="tiny_imagenet-vone_resnet18",
    model=replace(base.model, name="vone_resnet18", v1=models.v1_config(64, 3)),
)
