"""VOneResNet-50 on Imagenette with the recipe of imagenette/resnet50.

Paper row: none. (A user of the authors' code reports about 3 hours on an RTX 2070 Super.)
Expected: not measured.
Hardware: planned for one GPU. Wall time: not measured.
Data: TFDS imagenette/320px-v2 (tfds build imagenette/320px-v2 --file_format=array_record).
Command: python train.py imagenette/vone_resnet50
"""

from dataclasses import replace

from configs.imagenet.vone_resnet50 import experiment as imagenet
from configs.imagenette.resnet50 import experiment as base

experiment = replace(
    base,
    name="imagenette-vone_resnet50",
    model=imagenet.model,
)
