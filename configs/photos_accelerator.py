"""VOneResNet-18 on a folder of your own colour photographs, on a TPU or GPU, at 224 pixels.

Differs from photos in the size of images and batches, the learning rate, which grows with the
batch, its warm-up, the precision (bfloat16 behind V1, products in one pass) and the processes that
decode. See docs/photographs.md.

Paper row: none.
Expected: depends on the photographs; not measured.
Hardware: one GPU, or a TPU host with up to 8 chips. Wall time: not measured.
Data: yours, a few thousand images or more.
Command: python train.py photos_accelerator --data.source folder:DIR
"""

from dataclasses import replace

from configs.photos import experiment as base

experiment = replace(
    base,
    name="photos_accelerator",
    model=replace(base.model, image_size=224),
    data=replace(base.data, batch_size=128, eval_batch_size=256, workers=8),
    optimizer=replace(base.optimizer, learning_rate=0.1, warmup_epochs=2.0),
    precision="bfloat16",
    matmul_precision="default",
)
