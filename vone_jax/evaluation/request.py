"""A request to evaluate a network, and the attack of the VOneNet authors, which is its default.

The command line, a sweep and Python code all make the same ``Request``.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from vone_jax import arguments, corruptions, names
from vone_jax.arguments import FromZero, Range, Seed
from vone_jax.attacks import PGD
from vone_jax.attacks.attack import check_radius, check_within_images
from vone_jax.evaluation.judging import NOISES
from vone_jax.results import Protocol
from vone_jax.v1 import Noise

# The suite of checks for masked gradients, on few images.
MASKING = "masking"

# The suite that records layers as if they were V1. It is in no group, since it can take long.
PHYSIOLOGY = "physiology"

# The suites whose results are pictures, see ``figures``.
GALLERY, FRONT_END = "gallery", "v1"

# Suites with one condition for each radius, in ``Request.norm``; and all suites in that norm.
AT_RADII = ("apgd", "autoattack", "square", "worst", MASKING)
IN_ONE_NORM = (*AT_RADII, "minimal")

# Fields of a request that are fields of ``PGD``.
_OF_PGD = (
    "steps", "step_rule", "random_start", "restarts", "loss", "norm_offset", "order"
)  # fmt: skip

# Fields of a request -> the suites that read them, if not all suites do.
READERS = {
    "norm": IN_ONE_NORM,
    "points": names.NORMS,
    # AutoAttack has a number of draws of its own.
    "eot_samples": (*names.NORMS, *(name for name in IN_ONE_NORM if name != "autoattack"), GALLERY),
    **dict.fromkeys(_OF_PGD, (*names.NORMS, "worst", GALLERY)),
    **dict.fromkeys(("masking_images", "transfer_from"), (MASKING,)),
    **dict.fromkeys(
        ("corruptions", "severities", "form", "frost_dir", "corrupted_files"),
        ("corruptions", "corruptions_quick"),
    ),
    **dict.fromkeys(("layers", "physiology_trials", "references", "textures"), (PHYSIOLOGY,)),
    **dict.fromkeys(("gallery_images", "gallery_norm", "gallery_eps"), (GALLERY,)),
}

# Suites whose attacks can use other noise than the judgement.
WITH_ATTACK_NOISE = (*names.NORMS, GALLERY)

# Names that stand for several suites.
GROUPS = {
    "quick": ("clean", "linf", "corruptions_quick", GALLERY, FRONT_END),
    "all": ("clean", *names.NORMS, "corruptions", GALLERY, FRONT_END),
}

NAMES = (
    "clean", *names.NORMS, *IN_ONE_NORM, "corruptions", "corruptions_quick", PHYSIOLOGY, GALLERY,
    FRONT_END, *GROUPS,
)  # fmt: skip

TRAINED, SAME = "trained", "same"
_WORDS_FOR_NOISE = {"test_noise": (TRAINED,), "attack_noise": (SAME, "frozen", TRAINED)}
# Kind of noise -> how many of its fields can be given.
_FIELDS_OF_NOISE = {"neuronal": (0, 2, 3), "gaussian": (1,), "fano": (1, 2)}
_NOISE_FORMS = (
    "none, neuronal, neuronal:SCALE,LEVEL[,STRENGTH], gaussian:SCALE or fano:FACTOR[,FLOOR]"
)

# The radii of the VOneNet authors: nine per norm, each twice the one before, for images of
# 224 x 224 x 3 values in [0, 1].
_FIRST_RADIUS = {"linf": 1 / 4080, "l2": 0.0375, "l1": 10.0}
_FULL_SIZE = 224 * 224 * 3

# Places on the ladder by the number of points: the whole, the set reported for main results, and
# its weak half, used for variants.
_POINTS = {9: tuple(range(9)), 4: (2, 4, 6, 8), 2: (2, 4)}


@dataclasses.dataclass(frozen=True)
class Request:
    """A request to evaluate a network. Every field is an option of eval.py.

    Attributes:
      suite: Names of suites, see --help.
      examples: Number of images, every k-th of the split. Default: 5000, or all if there are
        fewer.
      batch_size: Images at a time, a multiple of the number of devices. Default: about 50, or
        all if there are fewer.
      matmul_precision: Precision of matrix products and convolutions: "default", "high"
        or "highest". Default: "high" on TPUs, "highest" on GPUs. A CPU always uses the highest, and
        so does the suite physiology.
      seed: Root of all randomness.
      draws: Decisions by which an image is judged, each with fresh noise. Default: 10, or 1 for
        noise "frozen". A network without noise is judged once.
      noise: "fresh": new draws in every pass. "frozen": one draw for each image, which attack and
        judgement share.
      test_noise: Noise to evaluate with. Default: the noise the network was trained with. Others
        are "none", "neuronal", "neuronal:SCALE,LEVEL[,STRENGTH]", "gaussian:SCALE"
        and "fano:FACTOR[,FLOOR]". A base network gets it behind its stem.
      attack_noise: Noise that the attack uses. Default: the same as at evaluation. "none":
        gradients without noise, the deterministic-surrogate control. "frozen": one draw for each
        image. Or a noise as for test_noise, or "trained". For linf, l2, l1 and gallery.
      decision: Input of a decision: one draw ("single"), or "mean_logits", "mean_probability"
        or "vote" of several.
      averaged: Draws in a decision. Default: 1 for "single", else 10.
      points: Number of radii in the suites linf, l2 and l1: 9 (the whole ladder of the VOneNet
        authors), 4 (their main set) or 2 (their reduced set).
      eps: Radii in pixel units; only for suites of one norm. Default: radii of the VOneNet authors.
      norm: Norm of the suites that are not named after one: "linf", "l2" or "l1".
      steps: Steps of the attack.
      step_rule: Length of a step: "2.5*eps/steps", "eps/32" or "eps/4".
      random_start: Begin at a random point of the ball.
      restarts: Runs of the attack, of which each image keeps the worst.
      eot_samples: Noise draws averaged in a gradient. For a network without noise it is 1.
      loss: Loss that is increased: "cross_entropy", "margin" or "dlr".
      norm_offset: Added to L2 and L1 norms before dividing by them; ART before 1.18 has 1e-7.
      order: Order of the projections in a step: "ball_then_box", or "box_then_ball" as in ART.
      corruptions: Names of corruptions. Default: ImageNet-C's 15 and its 4 extra ones; in the
        suites quick and corruptions_quick, 9 that are quick to compute.
      severities: Severities of corruptions. Default: 1 to 5; 3 in the quick suites.
      form: Form of corrupted images: "float", "uint8" or "jpeg85".
      frost_dir: Directory of the benchmark's photographs of frost. Without it, a drawn texture is
        used under its own name, "frost_procedural".
      corrupted_files: Published corrupted images, to use instead of images made in memory. They
        are "tfds:imagenet2012_corrupted", "tfds:cifar10_corrupted", "folder:PATH" (as ImageNet-C)
        or "npy:PATH" (as CIFAR-10-C). Extra corruptions that they lack are left out.
      masking_images: Images for the checks for masked gradients.
      transfer_from: Another network, given in one of the forms of NETWORK. The masking checks carry
        its adversarial images over.
      layers: Layers for the suite physiology. Default: V1 of a VOneNet, all convolutional stages
        of another network ("all": all of either).
      physiology_trials: Presentations of each grating. A single one is made without noise, several
        are made with it.
      references: Tables of neurons, CSV or NetCDF, for the properties without published counts.
      textures: Folder of images for the texture properties: those of Freeman & Ziemba (2013), or
        one photograph per texture. Stand-ins made from photographs are not scored.
      gallery_images: Images in the gallery.
      gallery_norm: Norm of the gallery's attack.
      gallery_eps: Radius of the gallery's attack, in pixel units.
      split: Split of the data set. Default: the one a run was validated on; for other
        networks "validation", "val", "valid" or "test", or all images of a folder without splits.
      source: Data set, by a name that data.load accepts, such as "folder:DIR". Default: the
        data set of a run.
      data_dir: Directory of the sets that TFDS has prepared. Default: as in training.
      step: Training step of the checkpoint. Default: the last.
      workers: Processes that decode images. 0: threads of this process, up to four. Images are
        decoded once and kept, at a byte per value. If this would take more than a quarter of the
        memory, each condition decodes them anew, and processes take some 3 seconds to start.
      tag: Text at the end of the names of the results, to keep them beside other results.
      overwrite: Replace results of other settings that have the same name. A finished result of the
        same settings is used again; delete its file to measure anew.

    Raises:
      ValueError, TypeError: naming the field that is out of range, or that no suite reads.
    """

    suite: tuple[str, ...] = ("quick",)
    examples: int | None = None
    batch_size: int | None = None
    matmul_precision: Annotated[str | None, names.MATMUL_PRECISIONS] = None
    seed: Seed = 0
    draws: int | None = None
    noise: Annotated[str, ("fresh", "frozen")] = "fresh"
    test_noise: str = TRAINED
    attack_noise: str = SAME
    decision: str = "single"
    averaged: int | None = None
    points: int = 4
    eps: tuple[float, ...] = ()
    norm: str = "linf"
    steps: int = 64
    step_rule: str = "eps/32"
    random_start: bool = False
    restarts: int = 1
    eot_samples: int = 10
    loss: str = "cross_entropy"
    norm_offset: float = 0.0
    order: str = "ball_then_box"
    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = ()
    form: str = "float"
    frost_dir: Path | None = None
    corrupted_files: str | None = None
    masking_images: int = 50
    transfer_from: str | None = None
    layers: tuple[str, ...] = ()
    physiology_trials: int = 1
    references: tuple[Path, ...] = ()
    textures: Path | None = None
    gallery_images: int = 8
    gallery_norm: Annotated[str, names.NORMS] = "linf"
    gallery_eps: float = 4 / 255
    split: str | None = None
    source: str | None = None
    data_dir: str | None = None
    step: Annotated[int | None, Range(0)] = None
    workers: FromZero = 0
    tag: str = ""
    overwrite: bool = False

    def __post_init__(self):
        for name in ("suite", "eps", "corruptions", "severities", "layers", "references"):
            value = getattr(self, name)
            if not isinstance(value, tuple | list):
                raise TypeError(f"{name} must be a tuple, such as ({value!r},), got {value!r}")
            object.__setattr__(self, name, tuple(value))
        arguments.fields(self)
        suite = expand(self.suite)
        norms = _norms(suite, self.norm)
        ladder(self.norm, self.points, (1, 1, 1))
        if self.eps and not norms:
            raise ValueError(f"eps is for suites that attack, got suite {' '.join(self.suite)}")
        if self.eps and len(norms) != 1:
            raise ValueError(
                f"eps is for one norm, since each has its own units; the suites attack in "
                f"{', '.join(norms)}"
            )
        radii = [("eps", value, norms) for value in self.eps]
        for name, value, used in [*radii, ("gallery_eps", self.gallery_eps, [self.gallery_norm])]:
            check_radius(name, value)
            if "linf" in used:
                check_within_images(name, value)
        for name in self.corruptions:
            arguments.choice("corruptions", name, corruptions.NAMES)
        drawn = self.frost_dir is None and self.corrupted_files is None
        if "frost" in self.corruptions and drawn:
            raise ValueError(
                f"corruptions has 'frost', whose photographs frost_dir must name; "
                f"{names.PROCEDURAL_FROST!r} needs none"
            )
        for severity in self.severities:
            arguments.count("severities", severity, most=5)
        if not re.fullmatch(r"[\w.-]*", self.tag):
            raise ValueError(
                f"tag must consist of letters, digits, '-', '_' and '.', got {self.tag!r}"
            )
        arguments.choice("form", self.form, corruptions.FORMS)
        self.pgd(self.norm, 0.0)
        _ = self.protocol
        for name in _WORDS_FOR_NOISE:
            parse_noise(name, getattr(self, name), None)
        for field in dataclasses.fields(self):
            readers, given = READERS.get(field.name, suite), getattr(self, field.name)
            if given != field.default and not set(suite) & set(readers):
                raise ValueError(
                    f"{field.name} is for the suite{'s' * (len(readers) > 1)} "
                    f"{', '.join(readers)}; got {', '.join(suite)}"
                )

    @property
    def protocol(self) -> Protocol:
        """The way the network is judged."""
        draws = (1 if self.noise == "frozen" else 10) if self.draws is None else self.draws
        averaged = self.averaged
        if averaged is None:
            averaged = 1 if self.decision == "single" else 10
        return Protocol(self.noise, draws, self.decision, averaged)

    def pgd(self, norm: str, eps: float, noisy: bool = True) -> PGD:
        """The attack for one radius; it averages over draws only if they are ``noisy``."""
        fields = {name: getattr(self, name) for name in _OF_PGD}
        return PGD(norm, eps, **fields, eot_samples=self.eot_samples if noisy else 1)

    def to_arguments(self) -> list[str]:
        """The options of eval.py that make this request; defaults are left out."""
        argv: list[str] = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            option = f"--{field.name.replace('_', '-')}"
            if isinstance(value, bool):
                argv.append(option if value else f"--no-{option[2:]}")
            elif isinstance(value, tuple):
                argv += [option, *map(str, value)]
            elif str(value).startswith("-"):
                argv.append(f"{option}={value}")
            else:
                argv += [option, str(value)]
        return argv


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


def _norms(suite: Sequence[str], norm: str) -> list[str]:
    """The norms of the attacks of suites, given expanded names, and ``Request.norm``."""
    used = {norm if name in IN_ONE_NORM else name for name in suite}
    return [name for name in names.NORMS if name in used]


def parse_noise(name: str, text: str, trained: Noise) -> Noise:
    """The noise that a text stands for.

    Args:
      name: "test_noise" or "attack_noise".
      text: ``"none"``; ``"neuronal"`` as in the released models; ``"neuronal:0.35,0.07"`` or
        ``"gaussian:4"`` or ``"fano:0.93"`` with the fields of ``NeuronalNoise``,
        ``GaussianNoise`` or ``FanoNoise``; or a word of the option for the trained noise, such as
        ``"trained"``.
      trained: the noise that the network was trained with, which is returned for such a word.

    Raises:
      ValueError: if the text is none of these.
    """
    words = _WORDS_FOR_NOISE[name]
    if text in words:
        return trained
    if text == "none":
        return None
    kind, colon, rest = text.partition(":")
    accepted = f"{', '.join(words)}, {_NOISE_FORMS}"
    try:
        fields = list(map(_number_of_noise, rest.split(","))) if colon else []
        if len(fields) in _FIELDS_OF_NOISE.get(kind, ()):
            return NOISES[kind](*fields)
    except ValueError as error:
        raise ValueError(f"{name} {text!r}: {error}; accepted are {accepted}") from error
    raise ValueError(f"{name} must be {accepted}; got {text!r}")


def _number_of_noise(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def vonenet_pgd(norm: str, eps: float, **fields) -> PGD:
    """The attack of Dapello, Marques et al. (NeurIPS 2020), as in the code of its authors.

    Untargeted PGD on the cross-entropy, 64 steps of eps/32 from the clean image, gradient averaged
    over 10 noise draws. An earlier example of theirs has steps of eps/4 (``step_rule="eps/4"``).

    Args:
      norm: "linf", "l2" or "l1".
      eps: radius in pixel units.
      **fields: fields of ``attacks.PGD`` to change.
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
    if points not in _POINTS:
        raise ValueError(f"points must be one of {', '.join(map(str, _POINTS))}, got {points!r}")
    size = math.prod(image_shape) / _FULL_SIZE
    scale = {"linf": 1.0, "l2": math.sqrt(size), "l1": size}[norm]
    return tuple(_FIRST_RADIUS[norm] * 2**place * scale for place in _POINTS[points])
