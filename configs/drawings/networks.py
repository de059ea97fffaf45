"""The networks on coloured drawings: ResNet-18, CORnet-S and ConvNeXt, alone and behind V1.

Drawings of 64 pixels in eight classes, see prepare.py, which must have written ``drawings/`` where
the command runs. Networks are small and see each drawing eight times, so that one trains in 5 to 10
minutes of a core. V1 is that
of Baidya et al. (2021) for 64 pixels, ``models.v1_config(64, 3)``, with 32 simple and 32 complex
cells: 2 degrees, 32 pixels per degree, kernels of 25 pixels, stride 2, frequencies up to 11.2
cycles per degree, each cell in one of the three colour channels. Its mean response to the training
drawings is 1.3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vone_jax import models
from vone_jax.data import Augment
from vone_jax.models import ConvNeXt, Spec
from vone_jax.sweep import Member, Words
from vone_jax.training import Cosine, DataConfig, Experiment, OptimizerConfig

SEEDS = (0, 1, 2)
STYLES = ("fluent-emoji-flat", "noto", "openmoji", "twemoji")
# Its black outlines are unlike the other styles.
LEFT_OUT = "openmoji"

_base = Experiment(
    name="drawings-base",
    # The normalisation is that of V1.
    model=Spec(name="resnet18", image_size=64, width=16, mean=(0.5,) * 3, std=(0.5,) * 3),
    data=DataConfig(
        source=f"folder:drawings/without-{LEFT_OUT}",
        eval_split="new_things",
        batch_size=32,
        augment=Augment(random_resized_crop=True, crop_scale=(0.4, 1.0), flip=True),
    ),
    optimizer=OptimizerConfig(learning_rate=0.03, schedule=Cosine(), weight_decay=5e-4),
    epochs=8,
)
_block = replace(models.v1_config(64, 3), simple_channels=32, complex_channels=32)


def _behind_v1(name: str, network: Experiment = _base, **fields: Any) -> Experiment:
    model = replace(network.model, name=name, v1=_block, mean=None, std=None, **fields)
    return replace(network, name="drawings-vone", model=model)


_vone = _behind_v1("vone_resnet18")
_cornet = _behind_v1("vone_cornet_s")
_adamw = OptimizerConfig(
    method="adamw",
    learning_rate=2e-3,
    schedule=Cosine(),
    warmup_epochs=1.0,
    weight_decay=0.05,
    decayed="kernels",
)
_convnext = _behind_v1(
    "vone_convnext_t",
    replace(_base, optimizer=_adamw),
    width=24,
    options=ConvNeXt(depth=(1, 1, 3, 1)),
)


def _without(network: Experiment, style: str) -> Experiment:
    """The network, trained on all styles but this one."""
    return replace(network, data=replace(network.data, source=f"folder:drawings/without-{style}"))


NETWORKS: dict[str, Experiment] = {
    **{
        f"{label}-{seed}": replace(network, seed=seed)
        for label, network in {
            "base": _base, "vone": _vone, "vone-cornet": _cornet, "vone-convnext": _convnext,
        }.items()
        for seed in SEEDS
    },
    **{
        f"{label}-without-{style}": _without(network, style)
        for style in STYLES
        if style != LEFT_OUT
        for label, network in {"base": _base, "vone": _vone}.items()
    },
}  # fmt: skip


# Words of eval.py: the four tests of a set. A run is validated on new things, and is evaluated on
# them by all other suites.
TESTS = [
    ("--suite", "clean", "--split", split, "--tag", split, "--examples", count)
    for split, count in (
        ("new_things", "1000"), ("new_style", "1000"), ("new_things_new_style", "390"),
        ("train", "1000"),
    )
]  # fmt: skip
# The file of further suites.
SUITES = Path(__file__).with_name("suites.py")


def members(
    labels: Sequence[str], further: Mapping[str, Sequence[Words]] = {}
) -> dict[str, Member]:
    """Networks by label, as members of a sweep, with further evaluations of some of them."""
    return {label: Member(NETWORKS[label], further.get(label, ())) for label in labels}
