"""ResNet-50 on ImageNet with the VOneNet authors' recipe: the base network of VOneResNet-50.

70 epochs of batch 256, SGD 0.1 with momentum 0.9 and weight decay 1e-4 on all parameters, the rate
times 0.1 after 20, 40 and 60 epochs, RandomResizedCrop and flip. Layers behind V1 compute in
bfloat16, and matrix units take one pass; parameters, statistics, V1 and the loss are float32.

Paper row: ResNet-50 (Dapello, Marques et al. 2020; the numbers of the tables are not public).
Expected: not measured. Torchvision's ResNet-50, with another recipe: 76.13 % top-1.
Hardware: planned for 8 GPUs or a TPU slice. Wall time: not measured.
Data: TFDS imagenet2012 (tfds build imagenet2012 --file_format=array_record). Its archives must be
downloaded by hand.
Command: python train.py imagenet/resnet50
"""

from vone_jax.data import Augment
from vone_jax.models import Spec
from vone_jax.training import DataConfig, Experiment, OptimizerConfig, Step

experiment = Experiment(
    name="imagenet-resnet50",
    model=Spec(name="resnet50"),
    data=DataConfig(
        source="tfds:imagenet2012",
        batch_size=256,
        augment=Augment(random_resized_crop=True, flip=True),
        workers=8,
    ),
    optimizer=OptimizerConfig(
        learning_rate=0.1,
        schedule=Step(epochs=(20, 40, 60), decay=0.1),
        momentum=0.9,
        weight_decay=1e-4,
    ),
    epochs=70,
    precision="bfloat16",
    matmul_precision="default",
)
