"""ResNet-18 on the embedded subset of Fashion-MNIST: the base network of the quickstart.

Paper row: none; a small-image control of this project.
Expected: docs/start.md has the accuracies, under attack as well.
Hardware: 2 CPU cores. Wall time: about 40 seconds.
Command: python train.py quickstart/resnet18
"""

from vone_jax.data import Augment
from vone_jax.models import Spec
from vone_jax.training import Cosine, DataConfig, Experiment, OptimizerConfig

experiment = Experiment(
    name="quickstart-resnet18",
    model=Spec(name="resnet18", image_size=28, in_channels=1, width=8),
    data=DataConfig(
        source="fashion_mnist_small",
        batch_size=128,
        eval_batch_size=256,
        augment=Augment(flip=True),
    ),
    optimizer=OptimizerConfig(learning_rate=0.1, schedule=Cosine(), weight_decay=5e-4),
    epochs=8,
    log_every=10,
)
