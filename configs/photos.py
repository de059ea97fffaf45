"""VOneResNet-18 on a folder of your own colour photographs, at 64 pixels.

``--data.source folder:DIR`` names the folder. DIR holds a folder for each class, DIR/CLASS/IMAGE,
of which about one image of five, chosen by its name, is kept for validation; or splits,
DIR/train/CLASS/IMAGE and DIR/validation/CLASS/IMAGE. The number of classes is that of the folders.
The batches are small and the learning rate is moderate, for a few hundred to a few thousand images.
With fewer images, start from weights trained on photographs, see docs/photographs.md.

Paper row: none.
Expected: depends on the photographs.
Hardware: any. Wall time: an epoch of 100 images takes 6 seconds of processor time.
Data: yours.
Command: python train.py photos --data.source folder:DIR
"""

from vone_jax.data import Augment
from vone_jax.models import Spec
from vone_jax.training import Cosine, DataConfig, Experiment, OptimizerConfig

experiment = Experiment(
    name="photos",
    model=Spec(name="vone_resnet18", image_size=64),
    data=DataConfig(
        source="folder:photos",
        batch_size=16,
        augment=Augment(random_resized_crop=True, crop_scale=(0.35, 1.0), flip=True),
    ),
    optimizer=OptimizerConfig(learning_rate=0.02, schedule=Cosine(), weight_decay=5e-4),
    epochs=30,
)
