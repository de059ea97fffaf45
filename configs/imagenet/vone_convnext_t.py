"""VOneConvNeXt-T on ImageNet with the recipe of imagenet/convnext_t.

V1 is that of VOneResNets. Its map has the grid of the first stage, see docs/front_ends.md.

Paper row: none; nobody has published a VOneConvNeXt.
Expected: the base network has 82.1 % top-1, see imagenet/convnext_t. V1: not run.
Hardware: planned for 32 GPUs or a TPU slice. Wall time: not measured.
Data: see imagenet/resnet50.
Command: python train.py imagenet/vone_convnext_t
"""

from dataclasses import replace

from configs.imagenet.convnext_t import experiment as base

experiment = replace(
    base, name="imagenet-vone_convnext_t", model=replace(base.model, name="vone_convnext_t")
)
