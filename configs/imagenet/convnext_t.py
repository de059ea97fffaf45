"""ConvNeXt-T on ImageNet with its authors' recipe, the base network of VOneConvNeXt-T.

300 epochs of batch 4096, AdamW at 4e-3 with 20 epochs of warm-up and a cosine to 1e-6, weight decay
0.05 on kernels, label smoothing 0.1, stochastic depth 0.1, a moving average of the weights, mixup
0.8 or CutMix 1.0, RandAugment, random erasing.

What differs: the authors draw two operations of RandAugment and apply each with probability 0.5;
here one is applied, as many in the mean. Their magnitude 9 of 10 is 27 of 30 here, without scatter,
and there is no colour jitter. Their cosine begins behind the warm-up, and here at the first step,
so the rate there is 0.99 of theirs.

Paper row: ConvNeXt-T (Liu et al. 2022, arXiv:2201.03545): 82.1 % top-1.
Expected: about that; not measured here. V1: not run.
Hardware: planned for 32 GPUs or a TPU slice. Wall time: not measured.
Data: see imagenet/resnet50.
Command: python train.py imagenet/convnext_t
"""

from dataclasses import replace

from configs.imagenet.resnet50 import experiment as base
from vone_jax.models import ConvNeXt, Spec
from vone_jax.training import Cosine, Mixing, OptimizerConfig

experiment = replace(
    base,
    name="imagenet-convnext_t",
    model=Spec("convnext_t", options=ConvNeXt(drop_path=0.1)),
    data=replace(
        base.data,
        batch_size=4096,
        augment=replace(base.data.augment, rand_augment=1, rand_magnitude=27, erasing=0.25),
    ),
    optimizer=OptimizerConfig(
        method="adamw",
        learning_rate=4e-3,
        schedule=Cosine(final=2.5e-4),
        warmup_epochs=20.0,
        weight_decay=0.05,
        decayed="kernels",
        label_smoothing=0.1,
    ),
    objectives=(Mixing(mixup=0.8, cutmix=1.0),),
    ema_decay=0.9999,
    epochs=300,
)
