"""The white-box attack of the VOneNet authors: PGD, and the ladders of its radii.

Source: Dapello, Marques et al., NeurIPS 2020, and the attack code published by its authors.
"""

import math

from vone_jax import arguments, names
from vone_jax.attacks import PGD

# Nine radii per norm, each twice the one before, for images of 224 x 224 x 3 values in [0, 1].
_FIRST_RADIUS = {"linf": 1 / 4080, "l2": 0.0375, "l1": 10.0}
_FULL_SIZE = 224 * 224 * 3

# Places on the ladder by the number of points: the whole, the set reported for main results, and
# its weak half, used for variants.
POINTS = {9: tuple(range(9)), 4: (2, 4, 6, 8), 2: (2, 4)}


def vonenet_pgd(norm: str, eps: float, **fields) -> PGD:
    """The attack of the VOneNet authors.

    Untargeted PGD on the cross-entropy, 64 steps of eps/32 from the clean image, gradient averaged
    over 10 noise draws. An earlier example of theirs has steps of eps/4 (``step_rule="eps/4"``).

    Args:
      norm: "linf", "l2" or "l1".
      eps: radius in pixel units.
      **fields: fields of ``PGD`` to change.
    """
    return PGD(norm, eps, **({"steps": 64, "step_rule": "eps/32", "eot_samples": 10} | fields))


def ladder(norm: str, points: int, image_shape: tuple[int, int, int]) -> tuple[float, ...]:
    """Return the radii for images of a size.

    At 224 x 224 x 3 they are the authors': 1/1020, 1/255, 4/255, 16/255 (L-infinity), 0.15 to 9.6
    (L2) and 40 to 2560 (L1) for 4 points. Images of another size get the L2 and L1 radii that
    change their values as much on average (root mean square, mean absolute change). This rule is a
    choice of this project.

    Args:
      norm: "linf", "l2" or "l1".
      points: 9, 4 or 2.
      image_shape: (H, W, C).

    Raises:
      ValueError: for another norm or number of points.
    """
    arguments.choice("norm", norm, names.NORMS)
    if points not in POINTS:
        raise ValueError(f"points must be one of {', '.join(map(str, POINTS))}, got {points!r}")
    size = math.prod(image_shape) / _FULL_SIZE
    scale = {"linf": 1.0, "l2": math.sqrt(size), "l1": size}[norm]
    return tuple(_FIRST_RADIUS[norm] * 2**place * scale for place in POINTS[points])
