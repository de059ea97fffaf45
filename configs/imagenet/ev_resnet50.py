"""EVResNet-50 on ImageNet with its authors' recipe, as far as it is known.

50 epochs of batch 256, SGD, one cycle up to a rate of 0.1 in which the momentum goes from 0.95 to
0.85 and back (PyTorch's default), label smoothing 0.1, gradients clipped to a norm of 5, weight
decay 1e-4 on kernels, RandomResizedCrop and flip. The authors' code differs in three things: it
also decays biases and the batch norms behind shortcuts, it moves running statistics by 0.01 per
step (here 0.1), and it computes in half precision.

Paper row: EVResNet-50 (Piper, Oliveira and Marques 2025, arXiv:2506.03089; the numbers of the
tables are not known to this project).
Expected: not measured.
Hardware: planned for 8 GPUs or a TPU slice. Wall time: not measured.
Data: see imagenet/resnet50.
Command: python train.py imagenet/ev_resnet50
"""

from dataclasses import replace

from configs.imagenet.resnet50 import experiment as base
from vone_jax.training import OneCycle, OptimizerConfig

experiment = replace(
    base,
    name="imagenet-ev_resnet50",
    model=replace(base.model, name="ev_resnet50"),
    optimizer=OptimizerConfig(
        learning_rate=0.1,
        schedule=OneCycle(rise=0.3, div_factor=25.0, final_div_factor=1e4),
        weight_decay=1e-4,
        decayed="kernels",
        gradient_clip=5.0,
        label_smoothing=0.1,
    ),
    epochs=50,
)
