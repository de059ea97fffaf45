"""Suites: named lists of conditions.

A suite is a function of a ``Setting`` that returns conditions, or a list of them. A suite of one's
own is given as ``FILE.py:NAME``.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from vone_jax import arguments, corruptions, files, names
from vone_jax.attacks import APGD, FMN, PGD, Attack, AutoAttack, Square, Strongest
from vone_jax.evaluation.certified import Certified
from vone_jax.evaluation.conditions import (
    Attacked,
    Clean,
    Condition,
    Corrupted,
    Minimal,
)
from vone_jax.evaluation.critical_bands import CriticalBands
from vone_jax.evaluation.fourier_map import FourierMap
from vone_jax.evaluation.front_end import FrontEnd
from vone_jax.evaluation.geometry import Geometry
from vone_jax.evaluation.judging import AttackNoise
from vone_jax.evaluation.masking import Masking
from vone_jax.evaluation.metamers import Metamers
from vone_jax.evaluation.physiology import ExplainedVariance, Physiology, layers
from vone_jax.evaluation.psychophysics import Psychophysics
from vone_jax.network import Network, open_network
from vone_jax.neurophysiology.explained_variance import holds_recordings

# The radii of the VOneNet authors: nine per norm, each twice the one before, for images of
# 224 x 224 x 3 values in [0, 1].
_FIRST_RADIUS = {"linf": 1 / 4080, "l2": 0.0375, "l1": 10.0}
_FULL_SIZE = 224 * 224 * 3
# Places on the ladder by the number of points: the whole, the set reported for main results, and
# its weak half, used for variants.
_POINTS = {9: tuple(range(9)), 4: (2, 4, 6, 8), 2: (2, 4)}
# Noise draws in a gradient, as in the code of the authors.
_DRAWS = 10
# The attack whose images the report shows, and how many.
_SHOWN, _KEPT = 4 / 255, 8


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the conditions of a suite depend on.

    Attributes:
      network: the network that is evaluated.
      noisy: whether the network's noise differs between the passes of an attack.
      eps: radii in pixel units, if some were asked for.
      norm: the norm of suites that are not named after one.
      attack_noise: the noise of the network while it is attacked.
      layers: the layers to record, if some were asked for.
      neurons: tables of neurons, a folder of textures, and recorded responses for physiology.
      others: networks whose adversarial images the masking checks carry over (one), or that are
        asked about metamers, in the form that ``open_network`` takes.
    """

    network: Network
    noisy: bool = False
    eps: tuple[float, ...] = ()
    norm: str = "linf"
    attack_noise: AttackNoise = "same"
    layers: tuple[str, ...] = ()
    neurons: tuple[Path, ...] = ()
    others: tuple[str, ...] = ()

    @functools.cached_property
    def other(self) -> Network | None:
        """The other network of the masking checks."""
        if len(self.others) > 1:
            raise ValueError(f"others must be one network for masking, got {len(self.others)}")
        return open_network(self.others[0]) if self.others else None

    def radii(self, norm: str, points: int) -> tuple[float, ...]:
        """The radii that were asked for, or those of ``ladder``."""
        return self.eps or ladder(norm, points, self.network.image_shape)

    @property
    def draws(self) -> int:
        """Noise draws in a gradient: averaging over draws makes sense only if they differ."""
        if self.attack_noise == "same":
            return _DRAWS if self.noisy else 1
        return 1 if self.attack_noise in ("none", None, "frozen") else _DRAWS


Suite = Sequence[Condition] | Callable[[Setting], Sequence[Condition]]


def vonenet_pgd(norm: str, eps: float, **fields: Any) -> PGD:
    """The attack of Dapello, Marques et al. (NeurIPS 2020), as in the code of its authors.

    Untargeted PGD on the cross-entropy, 64 steps of eps/32 from the clean image, gradient averaged
    over 10 noise draws. An earlier example of theirs has steps of eps/4 (``step_rule="eps/4"``).

    Args:
      norm: "linf", "l2" or "l1".
      eps: radius in pixel units.
      **fields: fields of ``attacks.PGD`` to change.
    """
    usual: dict[str, Any] = {"steps": 64, "step_rule": "eps/32", "eot_samples": _DRAWS}
    return PGD(norm, eps, **(usual | fields))


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
    if points not in _POINTS:
        raise ValueError(f"points must be one of {', '.join(map(str, _POINTS))}, got {points!r}")
    size = math.prod(image_shape) / _FULL_SIZE
    scale = {"linf": 1.0, "l2": math.sqrt(size), "l1": size}[norm]
    return tuple(_FIRST_RADIUS[norm] * 2**place * scale for place in _POINTS[points])


def white_box(
    setting: Setting, norm: str, points: int = 4, variant: str = "", **fields: Any
) -> list[Condition]:
    """The attack of the VOneNet authors at a ladder of radii, with fields of PGD to change."""
    fields = {"eot_samples": setting.draws} | fields
    return [
        Attacked(
            vonenet_pgd(norm, eps, **fields),
            setting.attack_noise,
            kept=_KEPT if norm == "linf" and abs(eps - _SHOWN) < 1e-6 else 0,
            variant=variant,
        )
        for eps in setting.radii(norm, points)
    ]


def corrupted(
    corruption: Sequence[str], severities: Sequence[int] = corruptions.SEVERITIES
) -> list[Condition]:
    """Corruptions by name, made in memory; a drawn texture takes the place of frost."""
    chosen = [names.PROCEDURAL_FROST if name == "frost" else name for name in corruption]
    return [Corrupted(name, severity) for name in chosen for severity in severities]


def _at_each(make: Callable[[Setting, float], Attack]) -> Callable[[Setting], list[Condition]]:
    """The suite of an attack at the radii of a setting."""

    def suite(setting: Setting) -> list[Condition]:
        radii = setting.eps or ladder(setting.norm, 4, setting.network.image_shape)[2:3]
        return [Attacked(make(setting, eps), setting.attack_noise) for eps in radii]

    return suite


def _auto_attack(setting: Setting, eps: float) -> Attack:
    return AutoAttack(setting.norm, eps, version="rand" if setting.draws > 1 else "standard")


def _worst(setting: Setting) -> list[Condition]:
    made: list[Condition] = []
    for eps in setting.eps or ladder(setting.norm, 4, setting.network.image_shape)[2:3]:
        usual = vonenet_pgd(setting.norm, eps, eot_samples=setting.draws)
        margin = dataclasses.replace(usual, loss="margin", random_start=True)
        apgd = APGD(setting.norm, eps, eot_samples=setting.draws)
        several = (usual, margin, apgd, dataclasses.replace(apgd, loss="margin"))
        made.append(Attacked(Strongest(several), setting.attack_noise))
    return made


def _masking(setting: Setting) -> list[Condition]:
    other, network = setting.other, setting.network
    return [
        Masking(
            setting.norm,
            eps,
            setting.noisy,
            transfer="" if other is None else f"{other.name}, weights {other.checksum}",
            eot_samples=_DRAWS,
            without_noise=network.model is not None,
            transfer_stochastic=other is not None and other.stochastic,
        )
        for eps in setting.eps or ladder(setting.norm, 4, network.image_shape)[2:3]
    ]


def _minimal(setting: Setting) -> list[Condition]:
    radii = setting.radii(setting.norm, 9)
    attack = FMN(setting.norm, max(radii), eot_samples=setting.draws)
    return [Minimal(attack, radii, moved=setting.noisy)]


def _physiology(setting: Setting) -> list[Condition]:
    """The tuning of each layer, and the variance that it explains in each file of recordings."""
    chosen = layers(setting.network, setting.layers)
    textures = [path for path in setting.neurons if path.is_dir()]
    recorded = [path for path in setting.neurons if holds_recordings(path)]
    if len(textures) > 1:
        raise ValueError(f"neurons must have at most one folder of textures, got {textures}")
    tables = tuple(path for path in setting.neurons if path not in textures + recorded)
    made: list[Condition] = [Physiology(layer, 1, tables, *textures) for layer in chosen]
    return made + [ExplainedVariance(layer, path) for layer in chosen for path in recorded]


def _certified(setting: Setting) -> list[Condition]:
    """Certificates of V1's noise, or of noise on the pixels, and an attack at each radius."""
    of_v1 = setting.network.v1 is not None and setting.noisy
    # ``Certified`` refuses another norm.
    norm = cast(Literal["l2", "linf"], setting.norm)
    return [Certified(setting.radii(norm, 4), norm, pixel_noise=None if of_v1 else 0.25)]


def _fourier(setting: Setting) -> list[Condition]:
    """The heat map of Yin et al. (2019), with their mean change of a pixel."""
    side = min(setting.network.image_shape[:2])
    if side < 64:
        return [FourierMap(side / 8, min(31, side - 1 + side % 2))]
    return [FourierMap(15.7 * side / 224, 63)]


def _geometry(setting: Setting) -> list[Condition]:
    """Manifolds of classes, of noise, of a ball at each radius and of corrupted images."""
    radii = setting.eps or ladder("linf", 4, setting.network.image_shape)[2:3]
    made: list[Condition] = []
    for layer in setting.layers or setting.network.layers:
        made.append(Geometry(layer))
        if setting.noisy:
            made.append(Geometry(layer, "noise"))
        made += [Geometry(layer, kind, eps) for kind in ("corners", "fgsm") for eps in radii]
        made += [
            Geometry(layer, "corruption", corruption="gaussian_noise", severity=severity)
            for severity in corruptions.SEVERITIES
        ]
    return made


def _metamers(setting: Setting) -> list[Condition]:
    chosen = setting.layers or setting.network.layers
    return [Metamers(layer, others=setting.others) for layer in chosen]


def _front_end(setting: Setting) -> list[Condition]:
    return [FrontEnd()]


_QUICK_CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "brightness", "contrast",
    "pixelate", "speckle_noise", "gaussian_blur",
)  # fmt: skip

SUITES: dict[str, Suite] = {
    "clean": [Clean()],
    "linf": lambda setting: white_box(setting, "linf"),
    "l2": lambda setting: white_box(setting, "l2"),
    "l1": lambda setting: white_box(setting, "l1"),
    "apgd": _at_each(lambda s, eps: APGD(s.norm, eps, eot_samples=s.draws)),
    "autoattack": _at_each(_auto_attack),
    "square": _at_each(lambda s, eps: Square(s.norm, eps, eot_samples=s.draws)),
    "worst": _worst,
    "masking": _masking,
    "minimal": _minimal,
    "certified": _certified,
    "fourier": _fourier,
    "geometry": _geometry,
    "metamers": _metamers,
    "corruptions": corrupted((*corruptions.SETS["common"], *corruptions.SETS["extra"])),
    "corruptions_quick": corrupted(_QUICK_CORRUPTIONS, (3,)),
    "corruptions_c_bar": corrupted(corruptions.SETS["c_bar"]),
    "psychophysics": [Psychophysics(distortion) for distortion in corruptions.DISTORTIONS],
    "critical_bands": [CriticalBands()],
    "physiology": _physiology,
    "v1": _front_end,
}
# Suites that stand for several. They leave out what does not apply to a network.
GROUPS = {
    "quick": ("clean", "linf", "corruptions_quick", "v1"),
    "all": ("clean", *names.NORMS, "corruptions", "v1"),
}


def conditions(suite: Sequence[str], setting: Setting) -> list[Condition]:
    """The conditions of suites, each once.

    Args:
      suite: names of ``SUITES`` and ``GROUPS``, or ``FILE.py:NAME`` for a suite in a file.

    Raises:
      ValueError: for an unknown suite, with the nearest name; for options that no suite reads; or
        for two conditions of one name.
    """
    found: dict[str, Condition] = {}
    # Suites that are lists do not read the setting.
    made: list[Condition] = []
    for name in suite:
        for each in GROUPS.get(name, (name,)):
            if name in GROUPS and each == "v1" and setting.network.v1 is None:
                continue
            members: Any = _load(each) if ":" in each else SUITES.get(each)
            if members is None:
                raise ValueError(arguments.not_among("suite", each, (*SUITES, *GROUPS)))
            if callable(members):
                members = members(setting)
                made += members
            for condition in members:
                arguments.instance(f"suite {name}", condition, Condition)
                if found.setdefault(condition.name, condition) != condition:
                    raise ValueError(
                        f"two conditions of the suites have the name {condition.name!r}; give one "
                        "of them a variant, or radii that differ in the first four digits"
                    )
    attacked = [attack.norm for condition in made for attack in condition.attacks]
    recorded = [condition for condition in made if isinstance(condition, Physiology)]
    seen = [each for each in made if isinstance(each, Physiology | Geometry | Metamers)]
    noisy = [each for each in made if isinstance(each, Attacked)]
    asked = [each for each in made if isinstance(each, Masking | Metamers)]
    for option, given, used in (
        ("eps", bool(setting.eps), attacked),
        ("attack_noise", setting.attack_noise != "same", noisy),
        ("layers", bool(setting.layers), seen),
        ("neurons", bool(setting.neurons), recorded),
        ("others", bool(setting.others), asked),
    ):
        if given and not used:
            raise ValueError(f"{option} has no effect on the suites {', '.join(suite)}")
    if setting.eps and len(set(attacked)) > 1:
        raise ValueError(
            f"eps is for one norm, since each has its own units; the suites attack in "
            f"{', '.join(sorted(set(attacked)))}"
        )
    return list(found.values())


def _load(name: str) -> Suite:
    """The suite NAME of FILE.py:NAME."""
    # The configs are part of the package, wherever the command is started.
    root, file = Path(__file__).parents[1], name.rpartition(":")[0]
    if (root / file).is_file() and not Path(file).exists():
        name = str(root / name)
    try:
        return files.imported(name)
    except ValueError as error:
        raise ValueError(f"suite {name}: {error}") from error
