"""How large the measured programs are."""

import dataclasses

from vone_jax.v1 import VOneBlockConfig


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of all cases.

    Attributes:
      v1: the front end.
      network: base network behind it, as torchvision names it.
      width: channels behind the bottleneck; torchvision's networks always have 64.
      batch: images per call.
      draws: noise draws per gradient of an attack.
      draw_batch: images per call in the case with several draws.
      loop_batch: images per attack on the small CNN.
      loop_part: images at a time where the attack goes through the batch in parts.
      loop_steps: steps of PGD.
      auto_steps: steps of Auto-PGD.
      loop_width: channels of the small CNN's first layer.
      loop_training: training steps of the small CNN.
      ensemble_batch: images per AutoAttack on the small CNN.
      ensemble_part: images at a time where it attacks them in smaller portions.
      ensemble_steps: steps and queries of its members, or None for those of version "standard".
      ensemble_repeats: timed calls of AutoAttack.
      repeats: timed calls of each program.
    """

    v1: VOneBlockConfig
    network: str
    width: int
    batch: int
    draws: int
    draw_batch: int
    loop_batch: int
    loop_part: int
    loop_steps: int
    auto_steps: int
    loop_width: int
    loop_training: int
    ensemble_batch: int
    ensemble_part: int
    ensemble_steps: int | None
    ensemble_repeats: int
    repeats: int


FULL = Sizes(
    v1=VOneBlockConfig(),
    network="resnet50",
    width=64,
    batch=8,
    draws=10,
    draw_batch=2,
    loop_batch=256,
    loop_part=16,
    loop_steps=50,
    auto_steps=100,
    loop_width=32,
    loop_training=150,
    ensemble_batch=32,
    ensemble_part=8,
    ensemble_steps=None,
    ensemble_repeats=1,
    repeats=5,
)

# Says that everything runs; its times mean nothing.
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
    ensemble_repeats=1,
    repeats=1,
)
