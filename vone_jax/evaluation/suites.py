"""Suites: named lists of conditions.

The white-box ladders are those of the VOneNet authors (Dapello, Marques et al., NeurIPS 2020, and
the attack code published by its authors).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from vone_jax import arguments, corruptions, names, prng
from vone_jax.attacks import APGD, FMN, PGD, AutoAttack, Square
from vone_jax.evaluation.conditions import Attacked, Clean, Condition, Corrupted, Minimal, WorstOf
from vone_jax.evaluation.judging import AttackNoise
from vone_jax.evaluation.masking import Masking

if TYPE_CHECKING:
    from vone_jax.evaluation.request import Request

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
      **fields: of ``PGD``, to change.
    """
    return PGD(norm, eps, **({"steps": 64, "step_rule": "eps/32", "eot_samples": 10} | fields))


def ladder(norm: str, points: int, image_shape: tuple[int, int, int]) -> tuple[float, ...]:
    """Radii for images of a size.

    At 224 x 224 x 3 they are the authors': 1/1020, 1/255, 4/255, 16/255 (L-infinity), 0.15 to 9.6
    (L2) and 40 to 2560 (L1) for 4 points. Images of another size get the L2 and L1 radii that
    change their values as much on average (root mean square, mean absolute change); this rule
    is this project's.

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


@dataclasses.dataclass(frozen=True)
class Target:
    """The properties of a network that the conditions of a suite depend on.

    Attributes:
      image_shape: (H, W, C) of its images, for the radii.
      noisy: whether its noise differs between the passes of an attack, unless the attack has
        other noise.
      attack_noise: the noise at the attack, see ``Attacked``.
      transfer: name of another network whose adversarial images the masking checks carry over.
      without_noise: whether its noise can be turned off, for the masking checks.
    """

    image_shape: tuple[int, int, int]
    noisy: bool
    attack_noise: AttackNoise = "same"
    transfer: str = ""
    without_noise: bool = True

    @property
    def draws_differ(self) -> bool:
        """True if averaging over draws makes sense in an attack."""
        if self.attack_noise == "same":
            return self.noisy
        return self.attack_noise not in ("none", "frozen")


# Fields of a request that are fields of ``PGD``.
_OF_PGD = (
    "steps", "step_rule", "random_start", "restarts", "loss", "l1_step", "norm_offset", "order"
)  # fmt: skip


def pgd(request: "Request", norm: str, eps: float, noisy: bool = True) -> PGD:
    """The attack for one radius; ``noisy`` says whether averaging over draws makes sense."""
    fields = {name: getattr(request, name) for name in _OF_PGD}
    return vonenet_pgd(norm, eps, **fields, eot_samples=request.eot_samples if noisy else 1)


def attacked(request: "Request", norm: str, eps: float, target: Target) -> Attacked:
    """The condition for one radius."""
    return Attacked(pgd(request, norm, eps, target.draws_differ), target.attack_noise)


def _at_radius(name: str, request: "Request", eps: float, target: Target) -> Condition:
    """The condition of a suite in the norm of the request, for one radius."""
    norm, noisy = request.norm, target.noisy
    draws = request.eot_samples if noisy else 1
    if name == MASKING:
        fields = {"eot_samples": request.eot_samples, "without_noise": target.without_noise}
        return Masking(norm, eps, noisy, target.transfer, **fields)
    if name == "autoattack":
        return Attacked(AutoAttack(norm, eps, version="rand" if noisy else "standard"))
    if name == "square":
        return Attacked(Square(norm, eps, eot_samples=draws))
    apgd = APGD(norm, eps, eot_samples=draws)
    if name == "apgd":
        return Attacked(apgd)
    usual = pgd(request, norm, eps, noisy)
    other = dataclasses.replace(usual, loss="margin", random_start=True)
    return WorstOf((usual, other, apgd, dataclasses.replace(apgd, loss="margin")))


def _corrupted(
    request: "Request", usual: Sequence[str], severities: Sequence[int], target: Target
) -> list[Corrupted]:
    """The corruptions of the request, else the usual ones."""
    frost = None if request.frost_dir is None else corruptions.load_frost(request.frost_dir)
    chosen = request.corruptions or usual
    if frost is None and not request.corruptions:
        chosen = [names.PROCEDURAL_FROST if name == "frost" else name for name in chosen]
    corrupted = [
        Corrupted(name, severity, request.form, frost if name == "frost" else None)
        for name in chosen
        for severity in request.severities or severities
    ]
    # Images that are too small for a corruption are an error now, before any work.
    images = jax.ShapeDtypeStruct((1, *target.image_shape), jnp.float32)
    keys = jax.eval_shape(lambda: prng.example_keys(jax.random.key(0), 1))
    for one_severity in {each.corruption: each for each in corrupted}.values():
        jax.eval_shape(one_severity.corrupt, keys, images)
    return corrupted


# Corruptions and severities of a suite, unless the request names others.
_CORRUPTIONS: dict[str, tuple[Sequence[str], Sequence[int]]] = {
    "corruptions": (
        (*corruptions.SETS["common"], *corruptions.SETS["extra"]),
        corruptions.SEVERITIES,
    ),
    "corruptions_quick": (
        (
            "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "brightness",
            "contrast", "pixelate", "speckle_noise", "gaussian_blur",
        ),
        (3,),
    ),
}  # fmt: skip

# The checks for masked gradients, on few images.
MASKING = "masking"

# Layers recorded as if they were V1. In no group, since it can take long.
PHYSIOLOGY = "physiology"

# Results that are looked at, see ``exhibits``.
GALLERY, FRONT_END = "gallery", "v1"

# Suites of one condition for each radius, in ``Request.norm``; and all suites in that norm.
_AT_RADII = ("apgd", "autoattack", "square", "worst", MASKING)
IN_ONE_NORM = (*_AT_RADII, "minimal")

# Fields of a request -> the suites that read them, where these are not all that attack.
READERS = {
    "norm": IN_ONE_NORM,
    "transfer_from": (MASKING,),
    **dict.fromkeys(_OF_PGD, (*names.NORMS, "worst", GALLERY)),
}

# Suites whose attacks can use other noise than the judgement.
WITH_ATTACK_NOISE = (*names.NORMS, GALLERY)

# Names that stand for several suites.
GROUPS = {
    "quick": ("clean", "linf", "corruptions_quick", GALLERY, FRONT_END),
    "all": ("clean", *names.NORMS, "corruptions", GALLERY, FRONT_END),
}

NAMES = (
    "clean", *names.NORMS, *IN_ONE_NORM, *_CORRUPTIONS, PHYSIOLOGY, GALLERY, FRONT_END, *GROUPS
)  # fmt: skip


def expand(suite: Sequence[str]) -> tuple[str, ...]:
    """The suites that names and groups stand for, each once, in the given order.

    Raises:
      ValueError: for an unknown name (the nearest is named), or none.
    """
    if not suite:
        raise ValueError(f"suite must name at least one of {', '.join(NAMES)}")
    expanded: dict[str, None] = {}
    for name in suite:
        if "," in name:
            raise ValueError(f"suite must be names with spaces between them, got {name!r}")
        arguments.choice("suite", name, NAMES)
        expanded |= dict.fromkeys(GROUPS.get(name, (name,)))
    return tuple(expanded)


def norms(suite: Sequence[str], norm: str) -> list[str]:
    """The norms of the attacks of suites, given expanded names, and ``Request.norm``."""
    used = {norm if name in IN_ONE_NORM else name for name in suite}
    return [name for name in names.NORMS if name in used]


def conditions(suite: Sequence[str], request: "Request", target: Target) -> list[Condition]:
    """The conditions of suites, each once.

    Args:
      suite: expanded names; ``PHYSIOLOGY``, ``GALLERY`` and ``FRONT_END`` have no conditions.
      request: settings of attacks and corruptions.
      target: what they depend on in the network.

    Raises:
      ValueError: if the images are too small for a corruption.
    """
    shape = target.image_shape
    members: list[Condition] = []
    for name in suite:
        if name == "clean":
            members.append(Clean())
        elif name in names.NORMS:
            eps = request.eps or ladder(name, request.points, shape)
            members += [attacked(request, name, each, target) for each in eps]
        elif name in _AT_RADII:
            eps = request.eps or (ladder(request.norm, 4, shape)[2],)
            members += [_at_radius(name, request, each, target) for each in eps]
        elif name == "minimal":
            eps = request.eps or ladder(request.norm, 9, shape)
            draws = request.eot_samples if target.noisy else 1
            members.append(Minimal(FMN(request.norm, max(eps), eot_samples=draws), eps))
        elif name in _CORRUPTIONS:
            members += _corrupted(request, *_CORRUPTIONS[name], target)
    found: dict[str, Condition] = {}
    for each in members:
        if found.setdefault(each.name, each).record() != each.record():
            raise ValueError(f"eps must differ within four digits, two radii are {each.name!r}")
    return list(found.values())
