"""EVResNet-50 on ImageNet, fine-tuned on images of PRIME with its authors' recipe.

50 epochs that start from a trained EVResNet-50: one cycle up to a rate of 0.01, which it reaches
after a tenth of the run. Everything else is as in ev_resnet50.py. The weights are given by
``--initial-weights``: a run of that config, or the authors' file; without it, training starts from
random weights. The loss is that of the PRIME images alone.

Paper row: EVResNet-50 + PRIME (Piper, Oliveira and Marques 2025, arXiv:2506.03089; the numbers of
the tables are not known to this project).
Expected: not measured.
Hardware: planned for 8 GPUs or a TPU slice. Wall time: not measured.
Data: see imagenet/resnet50.
Command: python train.py imagenet/ev_resnet50_prime --initial-weights runs/imagenet-ev_resnet50
"""

from dataclasses import replace

from configs.imagenet.ev_resnet50 import experiment as base
from vone_jax.training import PRIME, OneCycle

experiment = replace(
    base,
    name="imagenet-ev_resnet50_prime",
    optimizer=replace(
        base.optimizer,
        learning_rate=0.01,
        schedule=OneCycle(rise=0.1, div_factor=25.0, final_div_factor=1e4),
    ),
    objectives=(PRIME(),),
)
