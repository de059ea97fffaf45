"""ResNet-18 on Tiny ImageNet: the base network of tiny_imagenet/vone_resnet18.

The recipe of Baidya et al. (2021), arXiv:2110.10645: 60 epochs of batch 128, SGD 0.1 with momentum
0.9 and weight decay 5e-4, the rate times 0.1 when the validation loss has not fallen for 5 epochs,
affine transforms and flip. (Their base network had 80 epochs.)

Paper row: ResNet-18 with a stem of stride 1: about 58.6 % validation, from their logs.
Expected: not measured.
Hardware: planned for one GPU. Wall time: not measured.
Data: the folder tiny-imagenet-200 in the current directory, with the images of val/ sorted into
class folders like those of train/.
Command: python train.py tiny_imagenet/resnet18
"""

from vone_jax.data import Augment
from vone_jax.models import Spec
from vone_jax.training import DataConfig, Experiment, OptimizerConfig, Plateau

experiment = Experiment(
    name="tiny_imagenet-resnet18",
    model=Spec(name="resnet18", image_size=64),
    data=DataConfig(
        source="folder:tiny-imagenet-200",
        batch_size=128,
        augment=Augment(affine_degrees=30.0, affine_shift=0.05, affine_scale=(1.0, 1.2), flip=True),
        workers=4,
    ),
    optimizer=OptimizerConfig(
        learning_rate=0.1,
        schedule=Plateau(decay=0.1, patience=5),
        momentum=0.9,
        weight_decay=5e-4,
    ),
    epochs=60,
    precision="bfloat16",
    matmul_precision="default",
)
