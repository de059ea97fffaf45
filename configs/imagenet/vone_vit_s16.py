"""VOneViT-S/16 on ImageNet with the recipe of imagenet/vit_s16.

V1 is that of VOneResNets. Its map is attached by patches, see docs/front_ends.md.

Paper row: none; nobody has published a VOneViT.
Expected: the base network has 76.5 % top-1 with this recipe in another form, see imagenet/vit_s16.
V1: not run.
Hardware: planned for 8 GPUs or a TPU slice. Wall time: not measured.
Data: see imagenet/resnet50.
Command: python train.py imagenet/vone_vit_s16
"""

from dataclasses import replace

from configs.imagenet.vit_s16 import experiment as base

experiment = replace(
    base, name="imagenet-vone_vit_s16", model=replace(base.model, name="vone_vit_s16")
)
