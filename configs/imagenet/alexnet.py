"""AlexNet on ImageNet: the base network of VOneAlexNet.

The recipe of imagenet/resnet50, except for the learning rate of 0.01, which is this project's
choice: the authors' rate for AlexNet is not published, and 0.1 is too high without batch norm.

Paper row: AlexNet (Dapello, Marques et al. 2020; the numbers of the tables are not public).
Expected: not measured.
Hardware: planned for 8 GPUs or a TPU slice. Wall time: not measured.
Data: see imagenet/resnet50.
Command: python train.py imagenet/alexnet
"""

from dataclasses import replace

from configs.imagenet.resnet50 import experiment as recipe

experiment = replace(
    recipe,
    name="imagenet-alexnet",
    model=replace(recipe.model, name="alexnet"),
    optimizer=replace(recipe.optimizer, learning_rate=0.01),
)
