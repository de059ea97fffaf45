"""VOneAlexNet on ImageNet with the recipe of imagenet/alexnet.

The front end keeps frequencies up to 5.6 cycles per degree (sf_max 6), the setting of the authors'
training script; their model builder has had 9 since 2021.

Paper row: VOneAlexNet (Dapello, Marques et al. 2020; the numbers of the tables are not public).
Expected: not measured.
Hardware: planned for 8 GPUs or a TPU slice. Wall time: not measured.
Data: see imagenet/resnet50.
Command: python train.py imagenet/vone_alexnet
"""

from dataclasses import replace

from configs.imagenet.alexnet import experiment as base
from vone_jax.v1 import VOneBlockConfig

experiment = replace(
    base,
    name="imagenet-vone_alexnet",
    model=replace(base.model, name="vone_alexnet", v1=VOneBlockConfig(sf_max=6.0)),
)
