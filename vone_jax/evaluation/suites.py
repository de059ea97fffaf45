"""Suites: named lists of conditions.

A suite is a function of an ``Evaluation`` that returns conditions, or a list of them. A suite of
one's own is given as ``FILE.py:NAME``.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from vone_jax import arguments, corruptions, files, names, results
from vone_jax.attacks import APGD, FMN, PGD, Attack, AutoAttack, Square, Strongest
from vone_jax.evaluation.certified import Certified, Sandwich
from vone_jax.evaluation.conditions import (
    Attacked,
    Clean,
    Condition,
    Corrupted,
)
from vone_jax.evaluation.critical_bands import CriticalBands
from vone_jax.evaluation.evaluation import ATTACK_DRAWS, Evaluation
from vone_jax.evaluation.fourier_map import FourierMap
from vone_jax.evaluation.front_end import FrontEnd
from vone_jax.evaluation.geometry import Geometry
from vone_jax.evaluation.masking import Masking
from vone_jax.evaluation.metamers import Metamers
from vone_jax.evaluation.minimal import Minimal
from vone_jax.evaluation.physiology import ExplainedVariance, Physiology, layers
from vone_jax.evaluation.psychophysics import Psychophysics
from vone_jax.network import Network
from vone_jax.neurophysiology.explained_variance import holds_recordings

# The radii of the VOneNet authors: nine per norm, each twice the one before, for images of
# 224 x 224 x 3 values in [0, 1].
_FIRST_RADIUS = {"linf": 1 / 4080, "l2": 0.0375, "l1": 10.0}
_FULL_SIZE = 224 * 224 * 3
# Places on the ladder by the number of points: the whole, the set reported for main results, and
# its weak half, used for variants.
_POINTS = {9: tuple(range(9)), 4: (2, 4, 6, 8), 2: (2, 4)}
# The attack whose images the report shows, and how many.
_SHOWN, _KEPT = 4 / 255, 8

Suite = Sequence[Condition] | Callable[[Evaluation], Sequence[Condition]]


class Known(NamedTuple):
    """A suite of the project.

    Attributes:
      suite: the conditions.
      about: what it measures, in words.
      passes: passes through the network per image, as text: with ten draws and, if they differ,
        without noise. A gradient counts 3.
    """

    suite: Suite
    about: str
    passes: str


def radii(evaluation: Evaluation, norm: str, points: int) -> tuple[float, ...]:
    """The radii that were asked for, or those of ``ladder``."""
    return evaluation.eps or ladder(norm, points, evaluation.network.image_shape)


def _usual(evaluation: Evaluation, norm: str) -> tuple[float, ...]:
    """The radii that were asked for, or the third of the ladder, such as 4/255."""
    return evaluation.eps or ladder(norm, 4, evaluation.network.image_shape)[2:3]


def default_directory(network: Network) -> Path:
    """The directory of the results of a network.

    It is RUN_DIR/results, or runs/NAME/results. Another checkpoint of a run than its last, whose
    name has its step, has a directory beside that of the run.
    """
    run_dir = network.run_dir
    if run_dir is None:
        return Path("runs", network.name, "results")
    chosen = network.name.rpartition("@")[2] == str(network.checkpoint_step)
    return (run_dir.with_name(network.name) if chosen else run_dir) / "results"


def vonenet_pgd(norm: str, eps: float, **fields: Any) -> PGD:
    """The attack of Dapello, Marques et al. (NeurIPS 2020), as in the code of its authors.

    Untargeted PGD on the cross-entropy, 64 steps of eps/32 from the clean image, gradient averaged
    over 10 noise draws. An earlier example of theirs has steps of eps/4 (``step_rule="eps/4"``).

    Args:
      norm: "linf", "l2" or "l1".
      eps: radius in pixel units.
      **fields: fields of ``attacks.PGD`` to change.
    """
    usual: dict[str, Any] = {"steps": 64, "step_rule": "eps/32", "eot_samples": 10}
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
    evaluation: Evaluation, norm: str, points: int = 4, variant: str = "", **fields: Any
) -> list[Condition]:
    """The attack of the VOneNet authors at a ladder of radii, with fields of PGD to change."""
    fields = {"eot_samples": evaluation.attack_draws} | fields
    return [
        Attacked(
            vonenet_pgd(norm, eps, **fields),
            kept=_KEPT if norm == "linf" and abs(eps - _SHOWN) < 1e-6 else 0,
            variant=variant,
        )
        for eps in radii(evaluation, norm, points)
    ]


def worst_case(norm: str, eps: float, draws: int = 1) -> Strongest:
    """The strongest attack that fits any classifier, with or without noise.

    It is the worst of four for each image: PGD as ``vonenet_pgd``, PGD on the margin from random
    points, and APGD on the cross-entropy and on the margin. None needs more than two classes.

    Args:
      norm: "linf", "l2" or "l1".
      eps: radius in pixel units.
      draws: noise draws in a gradient: 1 for a classifier without noise.
    """
    usual = vonenet_pgd(norm, eps, eot_samples=draws)
    margin = dataclasses.replace(usual, loss="margin", random_start=True)
    apgd = APGD(norm, eps, eot_samples=draws)
    return Strongest((usual, margin, apgd, dataclasses.replace(apgd, loss="margin")))


def corrupted(
    corruption: Sequence[str], severities: Sequence[int] = corruptions.SEVERITIES
) -> list[Condition]:
    """Corruptions by name, made in memory; a drawn texture takes the place of frost."""
    chosen = [names.PROCEDURAL_FROST if name == "frost" else name for name in corruption]
    return [Corrupted(name, severity) for name in chosen for severity in severities]


def _at_each(make: Callable[[Evaluation, float], Attack]) -> Suite:
    """The suite of an attack at the radii of an evaluation."""

    def suite(evaluation: Evaluation) -> list[Condition]:
        return [Attacked(make(evaluation, eps)) for eps in _usual(evaluation, evaluation.norm)]

    return suite


def _auto_attack(evaluation: Evaluation, eps: float) -> Attack:
    version = "rand" if evaluation.attack_draws > 1 else "standard"
    return AutoAttack(evaluation.norm, eps, version=version)


def _masking(evaluation: Evaluation) -> list[Condition]:
    norm, images = evaluation.norm, evaluation.examples or 50
    return [Masking(norm, eps, evaluation.noisy, images=images) for eps in _usual(evaluation, norm)]


def _minimal(evaluation: Evaluation) -> list[Condition]:
    chosen = radii(evaluation, evaluation.norm, 9)
    attack = FMN(evaluation.norm, max(chosen), eot_samples=evaluation.attack_draws)
    return [Minimal(attack, chosen, moved=evaluation.noisy)]


def _physiology(evaluation: Evaluation) -> list[Condition]:
    """The tuning of each layer, and the variance that it explains in each file of recordings."""
    chosen, given = layers(evaluation.network, evaluation.layers), evaluation.neurons
    textures = [path for path in given if path.is_dir()]
    recorded = [path for path in given if holds_recordings(path)]
    if len(textures) > 1:
        raise ValueError(f"neurons must have at most one folder of textures, got {textures}")
    tables = tuple(path for path in given if path not in textures + recorded)
    made: list[Condition] = [Physiology(layer, 1, tables, *textures) for layer in chosen]
    return made + [ExplainedVariance(layer, path) for layer in chosen for path in recorded]


def _certified(evaluation: Evaluation) -> list[Condition]:
    """Certificates of V1's noise, or of noise on the pixels, and an attack at each radius."""
    of_v1 = evaluation.network.v1 is not None and evaluation.network.stochastic
    # ``Certified`` refuses another norm.
    norm = cast(Literal["l2", "linf"], evaluation.norm)
    return [Certified(radii(evaluation, norm, 4), norm, pixel_noise=None if of_v1 else 0.25)]


def _sandwich(evaluation: Evaluation) -> list[Condition]:
    """The strongest attack on the vote at each radius, above the certificate of V1's noise."""
    norm, draws = evaluation.norm, ATTACK_DRAWS if evaluation.network.stochastic else 1
    return [Sandwich(tuple(worst_case(norm, eps, draws) for eps in radii(evaluation, norm, 4)))]


def _fourier(evaluation: Evaluation) -> list[Condition]:
    """The heat map of Yin et al. (2019), with their mean change of a pixel."""
    side = min(evaluation.network.image_shape[:2])
    if side < 64:
        return [FourierMap(side / 8, min(31, side - 1 + side % 2))]
    return [FourierMap(15.7 * side / 224, 63)]


def _geometry(evaluation: Evaluation) -> list[Condition]:
    """Manifolds of classes, of noise, of a ball at each radius and of corrupted images."""
    made: list[Condition] = []
    for layer in evaluation.layers or evaluation.network.layers:
        made.append(Geometry(layer))
        if evaluation.network.stochastic:
            made.append(Geometry(layer, "noise"))
        kinds = [(kind, eps) for kind in ("corners", "fgsm") for eps in _usual(evaluation, "linf")]
        made += [Geometry(layer, kind, eps) for kind, eps in kinds]
        made += [
            Geometry(layer, "corruption", corruption="gaussian_noise", severity=severity)
            for severity in corruptions.SEVERITIES
        ]
    return made


def _metamers(evaluation: Evaluation) -> list[Condition]:
    chosen = evaluation.layers or evaluation.network.layers
    return [Metamers(layer) for layer in chosen]


_QUICK_CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "brightness", "contrast",
    "pixelate", "speckle_noise", "gaussian_blur",
)  # fmt: skip

SUITES = {
    "clean": Known([Clean()], "the images as they are", "10 (1)"),
    "linf": Known(
        lambda e: white_box(e, "linf"),
        "PGD of the VOneNet authors in L∞, four radii",
        "7,700 (770)",
    ),
    "l2": Known(lambda e: white_box(e, "l2"), "the same in L2", "7,700 (770)"),
    "l1": Known(lambda e: white_box(e, "l1"), "the same in L1", "7,700 (770)"),
    "apgd": Known(
        _at_each(lambda e, eps: APGD(e.norm, eps, eot_samples=e.attack_draws)),
        "APGD at one radius",
        "3,000 (300)",
    ),
    "square": Known(
        _at_each(lambda e, eps: Square(e.norm, eps, eot_samples=e.attack_draws)),
        "Square Attack, by scores alone",
        "50,000 (5,000)",
    ),
    "autoattack": Known(
        _at_each(_auto_attack),
        "AutoAttack; its version rand for a network with noise",
        "12,000 (11,000)",
    ),
    "worst": Known(
        _at_each(lambda e, eps: worst_case(e.norm, eps, e.attack_draws)),
        "the strongest of PGD and APGD on two losses: the number to report",
        "10,000 (1,100)",
    ),
    "masking": Known(_masking, "18 checks for masked gradients, 50 images", "36,000 (3,000)"),
    "minimal": Known(
        _minimal, "the smallest adversarial change (FMN): accuracy at nine radii", "3,100 (300)"
    ),
    "certified": Known(_certified, "certified radii, and APGD on the vote", "35,000"),
    "sandwich": Known(
        _sandwich, "certified radii near each image, the strongest attack above", "11,000 to 55,000"
    ),
    "corruptions": Known(
        corrupted((*corruptions.SETS["common"], *corruptions.SETS["extra"])),
        "ImageNet-C: 19 corruptions at 5 severities",
        "950 (95)",
    ),
    "corruptions_quick": Known(
        corrupted(_QUICK_CORRUPTIONS, (3,)), "nine of them at severity 3", "90 (9)"
    ),
    "corruptions_c_bar": Known(
        corrupted(corruptions.SETS["c_bar"]), "ImageNet-C-bar: 10 at 5 severities", "500 (50)"
    ),
    "psychophysics": Known(
        [Psychophysics(distortion) for distortion in corruptions.DISTORTIONS],
        "distortions that human observers have seen",
        "390 (39)",
    ),
    "critical_bands": Known(
        [CriticalBands()], "the spatial frequencies of recognition", "290 (29)"
    ),
    "fourier": Known(_fourier, "Fourier heat map of the error", "2,000"),
    "geometry": Known(_geometry, "manifolds in each layer, 10 to 500 images", "900 a layer"),
    "metamers": Known(_metamers, "metamers of each layer, 8 images", "6,000 a layer"),
    "physiology": Known(
        _physiology, "layers beside macaque V1, on gratings", "9,096 images a layer"
    ),
    "v1": Known([FrontEnd()], "the kernels of V1 and its responses, a picture", "2"),
}
# Suites that stand for several. They leave out what does not apply to a network.
GROUPS = {
    "quick": ("clean", "linf", "corruptions_quick", "v1"),
    "all": ("clean", *names.NORMS, "corruptions", "v1"),
}


def explained() -> str:
    """A line for each suite: its name, its cost in passes, and what it measures."""
    lines = [("SUITE", "PASSES PER IMAGE", "")]
    lines += [(name, each.passes, each.about) for name, each in SUITES.items()]
    lines += [(name, "", f"stands for {', '.join(each)}") for name, each in GROUPS.items()]
    rows = "\n".join(f"{name:18}  {cost:22}  {about}".rstrip() for name, cost, about in lines)
    return (
        f"{rows}\nPasses are those with ten noise draws; in brackets those of a network without "
        "noise.\nFILE.py:NAME is a suite of your own."
    )


def conditions(suite: Sequence[str], evaluation: Evaluation) -> list[Condition]:
    """The conditions of suites, each once.

    Args:
      suite: names of ``SUITES`` and ``GROUPS``, or ``FILE.py:NAME`` for a suite in a file.
      evaluation: the evaluation, whose network, noise, norm and radii suites read.

    Raises:
      ValueError: for an unknown suite, with the nearest name; for fields of the evaluation that no
        suite reads; for two conditions of one name; or for a condition that does not fit.
    """
    found: dict[str, Condition] = {}
    # Suites that are lists do not read the evaluation.
    made: list[Condition] = []
    for name in suite:
        for each in GROUPS.get(name, (name,)):
            if name in GROUPS and each == "v1" and evaluation.network.v1 is None:
                continue
            known = SUITES.get(each)
            members: Any = _load(each) if ":" in each else known and known.suite
            if members is None:
                raise ValueError(arguments.not_among("suite", each, (*SUITES, *GROUPS)))
            if callable(members):
                members = members(evaluation)
                made += members
            for condition in members:
                arguments.instance(f"suite {name}", condition, Condition)
                stem = results.stem(evaluation.row(condition))
                if found.setdefault(stem, condition) != condition:
                    raise ValueError(
                        f"two conditions of the suites have the name {stem!r}; give one of them a "
                        "variant, or radii that differ in the first four digits"
                    )
    every = found.values()
    attacked = [attack.norm for condition in made for attack in condition.attacks]
    for option, given, used in (
        ("eps", bool(evaluation.eps), attacked),
        ("norm", evaluation.norm != "linf", evaluation.norm in attacked),
        ("attack_noise", evaluation.attack_noise != "same", [x for x in every if x.attacks]),
        ("layers", bool(evaluation.layers), [x for x in made if hasattr(x, "layer")]),
        ("neurons", bool(evaluation.neurons), [x for x in made if isinstance(x, Physiology)]),
        ("others", bool(evaluation.others), [x for x in every if x.asks_others]),
    ):
        if given and not used:
            raise ValueError(f"{option} has no effect on the suites {', '.join(suite)}")
    if evaluation.eps and len(set(attacked)) > 1:
        raise ValueError(
            f"eps is for one norm, since each has its own units; the suites attack in "
            f"{', '.join(sorted(set(attacked)))}"
        )
    for condition in every:
        evaluation.check(condition)
    return list(every)


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
