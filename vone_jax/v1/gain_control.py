"""Gain control: each cell is divided by the root mean square response of a pool that it is in.

    z = gain r / sqrt(semisaturation^2 + mean of r^2 over the pool)

The pools do not overlap: a pool has all cells of an image, or all cells at one position. Division
by the root, and not by the mean square, makes gain control a contraction: its Jacobian is at most
gain / sqrt(semisaturation^2 + mean of r^2), so a certificate survives it, see
``vone_jax.certification.gain``. Nothing is learned.

References:
  Heeger (1992), Visual Neuroscience 9:181-197: normalisation by a pool of cells.
  Carandini, Heeger (2012), Nature Reviews Neuroscience 13:51-62.
"""

import dataclasses
from typing import Annotated

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vone_jax import arguments
from vone_jax.arguments import Positive

Responses = Float[Array, "n h w cells"]
# The axes over which a mean is taken for the pool of each cell.
POOLS = {"image": (1, 2, 3), "position": (3,)}


@dataclasses.dataclass(frozen=True)
class GainControl:
    """The constants of gain control.

    The response to a grating of contrast c is proportional to c / sqrt(s^2 + c^2): linear at low
    contrast, constant at high contrast. The tuning of a cell keeps its form at all contrasts.

    Attributes:
      semisaturation: root mean square response of a pool at which its cells have 1 / sqrt(2) of
        their largest response, > 0, in units of the response without gain control.
      pool: "image", all cells of the image, or "position", all cells at the same position.
      gain: factor of all responses, > 0.

    Raises:
      ValueError: if a field is out of range.
    """

    semisaturation: Positive = 1.0
    pool: Annotated[str, (*POOLS,)] = "image"
    gain: Positive = 1.0

    def __post_init__(self):
        arguments.fields(self, "normalization.")

    def __call__(self, responses: Responses) -> Responses:
        """Divide responses by the root of their pool, float32.

        The divisor is at least the semisaturation, so that gradients are finite for every image.
        """
        energy = jnp.mean(jnp.square(responses), POOLS[self.pool], keepdims=True)
        # One number for each pool, so that each cell has a product and no division.
        return responses * (self.gain * lax.rsqrt(self.semisaturation**2 + energy))
