"""Does V1 help a transformer or a ConvNeXt as it helps a ResNet? Three seeds of each.

ResNet-18 is that of the laboratory. The transformer has patches of 4 pixels, 96 channels and 4
blocks, the ConvNeXt patches of 2 pixels and 24 channels. Their controls have a convolutional stem
in place of V1 and the bottleneck, with as many parameters as the bottleneck. Parameters without V1,
in the control, and with V1: 455,050, 482,398 and 482,314 (transformer), 591,778, 593,278 and
593,194 (ConvNeXt). All see all of Fashion-MNIST for 3 epochs. The attack is the strongest of four
at four radii.

Paper row: none; nobody has published a VOneViT or a VOneConvNeXt with these measures.
Expected: docs/results/trunks.md has the prediction, and what was measured.
Hardware: 2 CPU cores. Wall time: 4 to 11 minutes to train a network, 3 to 15 to attack 100 images.
Command: python sweep.py laboratory/trunks
"""

from dataclasses import replace

from configs.laboratory.networks import NETWORKS, SEEDS, SUITES
from vone_jax.models import ConvNeXt, Spec, Trunk, ViT
from vone_jax.sweep import Member, Sweep
from vone_jax.training import Cosine, Experiment, OptimizerConfig

_RESNET, _VONE = NETWORKS["base-0"], NETWORKS["vone-0"]
# AdamW with the weight decay and the warm-up of DeiT and ConvNeXt, in the proportions of 3 epochs.
_ADAMW = OptimizerConfig(
    "adamw", 1e-3, schedule=Cosine(), warmup_epochs=0.3, weight_decay=0.05, decayed="kernels"
)


def _trunk(name: str, width: int, options: Trunk) -> dict[str, Experiment]:
    """The base network, its control and the VOneNet."""
    base = Spec(name, image_size=28, in_channels=1, width=width, options=options)
    # As many parameters as the bottleneck behind the 64 cells of this V1 has.
    control = replace(options, attachment="patches", stem_width=7)
    models = {
        "base": base,
        "control": replace(base, options=control),
        "vone": replace(base, name=f"vone_{name}", v1=_VONE.model.v1),
    }
    return {
        label: replace(_RESNET, name=f"laboratory-{label}", model=model, optimizer=_ADAMW)
        for label, model in models.items()
    }


_NETWORKS = {
    **{f"resnet18-{label}": each for label, each in (("base", _RESNET), ("vone", _VONE))},
    **{
        f"vit-{label}": each for label, each in _trunk("vit_s16", 96, ViT(depth=4, heads=3)).items()
    },
    **{
        f"convnext-{label}": each
        for label, each in _trunk("convnext_t", 24, ConvNeXt(depth=(1, 1, 2, 1))).items()
    },
}

# All networks with one seed come before the next seed.
sweep = Sweep(
    name="trunks",
    group="trunks",
    members={
        f"{label}-{seed}": Member(replace(network, seed=seed))
        for seed in SEEDS
        for label, network in _NETWORKS.items()
    },
    evaluations=[
        ("--suite", "clean"),
        ("--suite", f"{SUITES}:strongest", "--examples", "100"),
        ("--suite", "corruptions", "--examples", "200", "--draws", "1"),
    ],
)
