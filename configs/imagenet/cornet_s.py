"""CORnet-S on ImageNet with the recipe of imagenet/resnet50: the base network of VOneCORnet-S.

The authors probably used the same recipe for CORnet-S, but this is not published.

Paper row: CORnet-S (Dapello, Marques et al. 2020; the numbers of the tables are not public).
Expected: not measured.
Hardware: planned for 8 GPUs or a TPU slice. Wall time: not measured.
Data: see imagenet/resnet50.
Command: python train.py imagenet/cornet_s
"""

from dataclasses import replace

from configs.imagenet.resnet50 import experiment as recipe

experiment = replace(
    recipe,
    name="imagenet-cornet_s",
    model=replace(recipe.model, name="cornet_s"),
)
