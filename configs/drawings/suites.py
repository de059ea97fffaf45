"""Attacks and changes of colour for the drawings, named on the command line of eval.py as

python eval.py RUN --suite configs/drawings/suites.py:colours
"""

import dataclasses
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from vone_jax import arguments
from vone_jax.arguments import Range
from vone_jax.attacks import APGD, Strongest
from vone_jax.certification.measured import Certified
from vone_jax.evaluation.attacked import Attacked, radii, vonenet_pgd
from vone_jax.evaluation.condition import Condition, Judged
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.evaluation.judging import Batch

# Steps of each attack, and noise draws in a gradient of a network with noise.
_STEPS, _DRAWS = 20, 3
# The share of red, green and blue in a grey image, as in corruptions.distort.
_GREY = (0.2125, 0.7154, 0.0721)


def strongest(evaluation: Evaluation, norm: Literal["linf", "l2"]) -> list[Condition]:
    """The worst of PGD on the cross-entropy and APGD on the margin, at four radii."""
    draws = _DRAWS if evaluation.noisy else 1
    made: list[Condition] = []
    for eps in radii(evaluation, norm, 4):
        pgd = vonenet_pgd(norm, eps, steps=_STEPS, step_rule="eps/4", eot_samples=draws)
        apgd = APGD(norm, eps, steps=_STEPS, eot_samples=draws, loss="margin")
        made.append(Attacked(Strongest((pgd, apgd))))
    return made


def linf(evaluation: Evaluation) -> list[Condition]:
    return strongest(evaluation, "linf")


def l2(evaluation: Evaluation) -> list[Condition]:
    return strongest(evaluation, "l2")


@dataclasses.dataclass(frozen=True)
class Recoloured(Judged):
    """The same drawings in other colours.

    Attributes:
      change: ``"grey"``; ``"hue"``, a rotation about the axis of greys; or ``"channels"``, red and
        blue exchanged.
      degrees: the rotation, of hue alone.
    """

    change: Annotated[str, ("grey", "hue", "channels")]
    degrees: Annotated[float, Range(0.0, 360.0)] = 0.0

    def __post_init__(self):
        arguments.fields(self)

    def row(self) -> dict[str, Any]:
        turned = f" {self.degrees:g}" if self.change == "hue" else ""
        return {"condition": "recoloured", "corruption": f"{self.change}{turned}"}

    def perturb(self, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        if self.change == "channels":
            return batch.images[..., ::-1], {}
        if self.change == "hue":
            return rotate_hue(batch.images, self.degrees), {}
        grey = jnp.einsum("...i,i->...", batch.images, jnp.array(_GREY), precision="highest")
        return jnp.stack([grey] * 3, axis=-1), {}


def rotate_hue(images: jax.Array, degrees: float) -> jax.Array:
    """Rotate colours about the axis of greys, and clip; 120 degrees permute the channels.

    Args:
      images: (..., 3) in [0, 1].
      degrees: the angle; greys keep their values.
    """
    angle = jnp.deg2rad(degrees)
    grey = jnp.full((3, 3), 1 / 3)
    cross = jnp.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / 3**0.5
    turn = grey + jnp.cos(angle) * (jnp.eye(3) - grey) + jnp.sin(angle) * cross
    turned = jnp.einsum("...i,oi->...o", images, turn, precision="highest")
    return jnp.clip(turned, 0.0, 1.0)


colours = [
    Recoloured("grey"), Recoloured("hue", 60.0), Recoloured("hue", 180.0), Recoloured("channels"),
]  # fmt: skip
certified = [Certified(radii=(0.02, 0.05, 0.2), draws=1000, steps=10, eot_samples=_DRAWS)]
