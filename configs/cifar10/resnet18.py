"""ResNet-18 (3x3 stem) on CIFAR-10: the base network of cifar10/vone_resnet18.

Of the recipe of the published CIFAR-10 VOneNets only its 150 epochs are public. The rest is this
project's choice: batch 128, SGD 0.1 with momentum 0.9 and weight decay 5e-4, cosine, crops of 4
padded pixels and flip.

Paper row: ResNet-18 on CIFAR-10 (Dapello et al. 2021, arXiv:2111.06979): 94.91 % clean.
Expected: not measured.
Hardware: planned for one GPU. Wall time: not measured.
Data: TFDS cifar10 (tfds build cifar10 --file_format=array_record).
Command: python train.py cifar10/resnet18
"""

from vone_jax.data import Augment
from vone_jax.models import Spec
from vone_jax.training import Cosine, DataConfig, Experiment, OptimizerConfig

experiment = Experiment(
    name="cifar10-resnet18",
    model=Spec(name="resnet18", image_size=32),
    data=DataConfig(
        source="tfds:cifar10",
        batch_size=128,
        augment=Augment(crop_padding=4, flip=True),
        workers=2,
    ),
    optimizer=OptimizerConfig(
        learning_rate=0.1, schedule=Cosine(), momentum=0.9, weight_decay=5e-4
    ),
    epochs=150,
    precision="bfloat16",
    matmul_precision="default",
    checkpoint_every=5,
)
