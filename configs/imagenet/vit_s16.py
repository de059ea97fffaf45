"""ViT-S/16 on ImageNet with the recipe of big_vision, the base network of VOneViT-S.

90 epochs of batch 1024, AdamW at 1e-3 with 10,000 steps (8 epochs) of warm-up and a cosine to 0,
gradients clipped to a norm of 1, mixup 0.2, two operations of RandAugment. The original multiplies
its weight decay of 1e-4 by the schedule but not by the rate of 1e-3. That of AdamW is multiplied by
both, so it is 1e-4 / 1e-3 = 0.1 here. In both it acts on kernels alone, so not on the class token
and the table of positions.

What differs: the cosine of the original begins behind the warm-up, and here at the first step, so
the rate there is 0.98 of the original's. Magnitude 10 of 10 of RandAugment is 30 of 30 here, with
the same strengths, but of torchvision's 14 operations: those of the original also invert, cut out
and add to dark pixels, and its solarisation does nothing at 10, where here it inverts. The shares
of mixup are drawn for each image, in the original for each batch. The original pools tokens, has
fixed positions and a hidden layer in the head, and keeps its momentum in bfloat16; here are a class
token, a learned table and one linear layer, in float32.

Paper row: ViT-S/16, 90 epochs (Beyer, Zhai and Kolesnikov 2022, arXiv:2205.01580): 76.5 % top-1.
Expected: about that; not measured here. V1: not run.
Hardware: planned for 8 GPUs or a TPU slice. Wall time: not measured (the authors' code took 6 to 7
hours on a TPU v3-8).
Data: see imagenet/resnet50.
Command: python train.py imagenet/vit_s16
"""

from dataclasses import replace

from configs.imagenet.resnet50 import experiment as base
from vone_jax.models import Spec, ViT
from vone_jax.training import Cosine, Mixing, OptimizerConfig

experiment = replace(
    base,
    name="imagenet-vit_s16",
    model=Spec("vit_s16", options=ViT()),
    data=replace(
        base.data,
        batch_size=1024,
        augment=replace(base.data.augment, rand_augment=2, rand_magnitude=30),
    ),
    optimizer=OptimizerConfig(
        method="adamw",
        learning_rate=1e-3,
        schedule=Cosine(),
        warmup_epochs=8.0,
        weight_decay=0.1,
        decayed="kernels",
        gradient_clip=1.0,
    ),
    objectives=(Mixing(mixup=0.2),),
    epochs=90,
)
