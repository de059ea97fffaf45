"""VOneResNet-50 on ImageNet with the authors' recipe, which is that of imagenet/resnet50.

The front end keeps frequencies up to 5.6 cycles per degree (sf_max 6), the setting of the authors'
training script; their model builder has had 9 since 2021.

Paper row: VOneResNet-50 (Dapello, Marques et al. 2020; the numbers of the tables are not public).
Expected: not measured.
Hardware: planned for 8 GPUs or a TPU slice. Wall time: not measured (the authors' code took about
5 days on one Quadro RTX 6000).
Data: see imagenet/resnet50.
Command: python train.py imagenet/vone_resnet50
"""

from dataclasses import replace

from configs.imagenet.resnet50 import experiment as base
from vone_jax.v1 import VOneBlockConfig

experiment = replace(
    base,
    name="imagenet-vone_resnet50",
    model=replace(base.model, name="vone_resnet50", v1=VOneBlockConfig(sf_max=6.0)),
)
