"""ResNet-50 on Imagenette, ten classes of ImageNet: the base network of imagenette/vone_resnet50.

The VOneNet authors' ImageNet recipe, unchanged. Whether it suits the smaller set is not known.

Paper row: none.
Expected: not measured.
Hardware: planned for one GPU. Wall time: not measured.
Data: TFDS imagenette/320px-v2 (tfds build imagenette/320px-v2 --file_format=array_record).
Command: python train.py imagenette/resnet50
"""

from dataclasses import replace

from configs.imagenet.resnet50 import experiment as recipe

experiment = replace(
    recipe,
    name="imagenette-resnet50",
    data=replace(recipe.data, source="tfds:imagenette/320px-v2"),
)
