"""The sizes of the measured programs."""

import dataclasses

from vone_jax.v1 import VOneBlockConfig


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of all cases. The defaults are the full sizes."""

    v1: VOneBlockConfig = VOneBlockConfig()
    # Base network behind the front end, as torchvision names it.
    network: str = "resnet50"
    # Channels behind the bottleneck; torchvision's networks always have 64.
    width: int = 64
    # Images per call.
    batch: int = 8
    # Noise draws per gradient of an attack, and images per call in that case.
    draws: int = 10
    draw_batch: int = 2
    # Attacks on the small CNN: images per attack, and images at a time if it splits the batch.
    loop_batch: int = 256
    loop_part: int = 16
    # Steps of PGD and of Auto-PGD.
    loop_steps: int = 50
    auto_steps: int = 100
    # Channels of the first layer of the small CNN, and its training steps.
    loop_width: int = 32
    loop_training: int = 150
    # AutoAttack on the small CNN: images per attack, and images at a time in smaller parts.
    ensemble_batch: int = 32
    ensemble_part: int = 8
    # Steps and queries of the members of AutoAttack, or None for those of version "standard".
    ensemble_steps: int | None = None
    # Timed calls of AutoAttack, and of each other program.
    ensemble_repeats: int = 1
    repeats: int = 5


FULL = Sizes()

# Shows that everything runs. Its times mean nothing.
QUICK = Sizes(
    v1=VOneBlockConfig(4, 4, image_size=32, visual_degrees=1.0, kernel_size=5),
    network="resnet18",
    width=4,
    batch=2,
    draws=2,
    draw_batch=1,
    loop_batch=2,
    loop_part=1,
    loop_steps=2,
    auto_steps=2,
    loop_width=4,
    loop_training=20,
    ensemble_batch=2,
    ensemble_part=1,
    ensemble_steps=2,
    repeats=1,
)
