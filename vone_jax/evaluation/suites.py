"""Suites: named lists of conditions, with the settings that they share."""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from vone_jax import arguments, corruptions, prng
from vone_jax.attacks import APGD, FMN, PGD, AutoAttack, Square, checks, norms
from vone_jax.evaluation import authors
from vone_jax.evaluation.conditions import Attacked, Clean, Condition, Corrupted, WorstOf
from vone_jax.evaluation.masking import Masking
from vone_jax.evaluation.minimal import Minimal

_QUICK = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "brightness", "contrast",
    "pixelate", "speckle_noise", "gaussian_blur",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a suite may be asked for.

    Attributes:
      points: radii per norm, 9, 4 or 2: the authors' whole ladder, their main or reduced set.
      eps: radii in pixel units to use instead; only with one norm.
      norm: "linf", "l2" or "l1", for the suites that are not named after one.
      steps: steps of the attack.
      step_rule: length of a step: "2.5*eps/steps", "eps/32" or "eps/4".
      random_start: begin at a random point of the ball.
      restarts: runs of the attack, of which each example keeps the worst.
      eot_samples: noise draws averaged in a gradient; a network without noise has one.
      loss: what is increased: "cross_entropy", "margin" or "dlr".
      l1_step: direction of L1 steps: "dense", "max_coordinate" or "sparse".
      norm_offset: added to L2 and L1 norms before dividing by them; ART before 1.18 has 1e-7.
      order: of projections in a step: "ball_then_box", or "box_then_ball" as ART has it.
      noise_free_gradients: attack the network with its noise switched off, judge the noisy one;
        in the suites linf, l2, l1 and gallery.
      corruptions: names; none means ImageNet-C's 15 and its 4 extra ones, and 9 that are quick
        to compute in the suite quick.
      severities: of corruptions; none means 1 to 5, and 3 in the suite quick.
      frost_dir: directory of the benchmark's photographs of frost, see ``corruptions.load_frost``.
        Without it, a drawn texture takes their place and has its own name, "frost_procedural".
      form: of corrupted images: "float", "uint8" or "jpeg85".

    Raises:
      ValueError, TypeError: naming the field that is out of range.
    """

    points: int = 4
    eps: tuple[float, ...] = ()
    norm: str = "linf"
    steps: int = 64
    step_rule: str = "eps/32"
    random_start: bool = False
    restarts: int = 1
    eot_samples: int = 10
    loss: str = "cross_entropy"
    l1_step: str = "dense"
    norm_offset: float = 0.0
    order: str = "ball_then_box"
    noise_free_gradients: bool = False
    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = ()
    form: str = "float"
    frost_dir: Path | None = None

    def __post_init__(self):
        if self.points not in authors.POINTS:
            raise ValueError(f"points must be one of 9, 4, 2; got {self.points!r}")
        for value in self.eps:
            checks.radius("eps", value)
        for name in self.corruptions:
            corruptions.check_name(name)
        if "frost" in self.corruptions and self.frost_dir is None:
            raise ValueError(
                "corruptions has 'frost', whose photographs frost_dir must name; "
                "'frost_procedural' does without"
            )
        for severity in self.severities:
            corruptions.check_severity(severity)
        arguments.choice("form", self.form, corruptions.FORMS)
        self.attack(self.norm, 0.0)

    def radii(self, image_shape: tuple[int, int, int]) -> tuple[float, ...]:
        """Radii in ``norm``: those asked for, or the third of the authors' four, 4/255."""
        return self.eps or (authors.ladder(self.norm, 4, image_shape)[2],)

    def attack(self, norm: str, eps: float, stochastic: bool = True) -> PGD:
        """The attack for one radius."""
        # Without noise, or with its gradients, all draws are the same.
        averaged = stochastic and not self.noise_free_gradients
        return authors.vonenet_pgd(
            norm,
            eps,
            steps=self.steps,
            step_rule=self.step_rule,
            random_start=self.random_start,
            restarts=self.restarts,
            eot_samples=self.eot_samples if averaged else 1,
            loss=self.loss,
            l1_step=self.l1_step,
            norm_offset=self.norm_offset,
            order=self.order,
        )

    def attacked(self, norm: str, eps: float, stochastic: bool = True) -> Attacked:
        """The condition for one radius: the attack, and whether it sees the noise."""
        surrogate = self.noise_free_gradients and stochastic
        return Attacked(self.attack(norm, eps, stochastic and not surrogate), surrogate)


def _clean(settings, image_shape, stochastic):
    return [Clean()]


def _ladder(norm):
    def conditions(settings, image_shape, stochastic):
        radii = settings.eps or authors.ladder(norm, settings.points, image_shape)
        return [settings.attacked(norm, eps, stochastic) for eps in radii]

    return conditions


def _each_radius(build):
    """Conditions ``build(settings, eps, noise draws)`` at the radii asked for."""

    def conditions(settings, image_shape, stochastic):
        draws = settings.eot_samples if stochastic else 1
        return [build(settings, eps, draws) for eps in settings.radii(image_shape)]

    return conditions


def _apgd(settings, eps, draws):
    return Attacked(APGD(settings.norm, eps, eot_samples=draws))


def _square(settings, eps, draws):
    return Attacked(Square(settings.norm, eps, eot_samples=draws))


def _autoattack(settings, image_shape, stochastic):
    version = "rand" if stochastic else "standard"
    return [
        Attacked(AutoAttack(settings.norm, eps, version=version))
        for eps in settings.radii(image_shape)
    ]


def _worst(settings, eps, draws):
    usual = settings.attack(settings.norm, eps, draws > 1)
    return WorstOf(
        (
            usual,
            dataclasses.replace(usual, loss="margin", random_start=True),
            APGD(settings.norm, eps, eot_samples=draws),
            APGD(settings.norm, eps, eot_samples=draws, loss="margin"),
        )
    )


def _minimal(settings, image_shape, stochastic):
    radii = settings.eps or authors.ladder(settings.norm, 9, image_shape)
    draws = settings.eot_samples if stochastic else 1
    return [Minimal(FMN(settings.norm, max(radii), eot_samples=draws), radii)]


def _corruptions(names, severities):
    def conditions(settings, image_shape, stochastic):
        frost = None if settings.frost_dir is None else corruptions.load_frost(settings.frost_dir)
        found = settings.corruptions or names
        if frost is None and not settings.corruptions:
            found = ["frost_procedural" if name == "frost" else name for name in found]
        made = [
            Corrupted(name, severity, settings.form, frost if name == "frost" else None)
            for name in found
            for severity in settings.severities or severities
        ]
        _check_size({each.corruption: each for each in made}.values(), image_shape)
        return made

    return conditions


def _check_size(corrupted, image_shape) -> None:
    """Raises a ValueError for corruptions that images of this shape are too small for."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    keys = jax.eval_shape(lambda: prng.example_keys(jax.random.key(0), 1))
    for each in corrupted:
        corrupt = functools.partial(
            corruptions.corrupt,
            name=each.corruption,
            severity=each.severity,
            form=each.form,
            frost_images=each.frost_images,
        )
        jax.eval_shape(corrupt, keys, images)


# A suite is a function of settings, image shape (H, W, C) and whether the network is stochastic,
# to conditions; anything that is a condition can be in one.
_SUITES: dict[str, Callable[..., Sequence[Condition]]] = {
    "clean": _clean,
    **{norm: _ladder(norm) for norm in norms.NORMS},
    "apgd": _each_radius(_apgd),
    "autoattack": _autoattack,
    "square": _each_radius(_square),
    "minimal": _minimal,
    "worst": _each_radius(_worst),
    "corruptions": _corruptions(
        (*corruptions.SETS["common"], *corruptions.SETS["extra"]), corruptions.SEVERITIES
    ),
    "corruptions_quick": _corruptions(_QUICK, (3,)),
}

# Suites whose attacks are in ``Settings.norm``.
_IN_ONE_NORM = ("apgd", "autoattack", "square", "minimal", "worst", "masking")

# Suites whose attacks may see other noise than the judgement, see ``check_seen_noise``.
_OF_SEEN_NOISE = (*norms.NORMS, "gallery")

# The checks for masked gradients, on few images.
MASKING = "masking"

# Layers recorded as if they were V1, see ``physiology``. In no group, since it can take long.
PHYSIOLOGY = "physiology"

# Results that are looked at, see ``exhibits``.
EXHIBITS = ("gallery", "v1")

# Names that stand for several suites.
GROUPS = {
    "quick": ("clean", "linf", "corruptions_quick", "gallery", "v1"),
    "all": ("clean", *norms.NORMS, "corruptions", *EXHIBITS),
}

NAMES = (*_SUITES, MASKING, PHYSIOLOGY, *EXHIBITS, *GROUPS)


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """The suites and exhibits that names and groups stand for, each once, in the given order.

    Raises:
      ValueError: for an unknown name (the nearest is named), or none.
    """
    if not names:
        raise ValueError(f"suite must name at least one of {', '.join(NAMES)}")
    found: dict[str, None] = {}
    for name in names:
        if name not in NAMES:
            close = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"suite must be among {', '.join(NAMES)}; got {name!r}{hint}")
        found |= dict.fromkeys(GROUPS.get(name, (name,)))
    return tuple(found)


def conditions(
    suites: Sequence[str],
    settings: Settings,
    image_shape: tuple[int, int, int],
    stochastic: bool,
) -> list[Condition]:
    """The conditions of suites, each once.

    Args:
      suites: expanded names; exhibits and ``PHYSIOLOGY`` have no conditions, and for ``MASKING``
        see ``masking``.
      settings: what they share.
      image_shape: (H, W, C) of the images, for the radii.
      stochastic: whether the network draws noise.

    Raises:
      ValueError: if ``settings.eps`` is given for several norms.
    """
    attacked = {name for name in suites if name in norms.NORMS}
    attacked |= {settings.norm for name in suites if name in _IN_ONE_NORM}
    if settings.eps and len(attacked) != 1:
        raise ValueError(
            f"eps is for one norm, since each has its own units; the suites attack in "
            f"{', '.join(sorted(attacked)) or 'none'}"
        )
    found = [
        condition
        for name in suites
        if name in _SUITES
        for condition in _SUITES[name](settings, image_shape, stochastic)
    ]
    return list({condition.name: condition for condition in found}.values())


def check_seen_noise(suites: Sequence[str], option: str) -> None:
    """Checks that an option on the noise that attacks see has an effect on all attacks of suites.

    Raises:
      ValueError: naming the option, if there is no such attack, or one on which it has none.
    """
    deaf = [name for name in suites if name in _IN_ONE_NORM]
    if deaf or not set(suites) & set(_OF_SEEN_NOISE):
        got = ", ".join(deaf or suites)
        raise ValueError(
            f"{option} is for the attacks of the suites {', '.join(_OF_SEEN_NOISE)}; got {got}"
        )


def masking(
    settings: Settings, image_shape: tuple[int, int, int], stochastic: bool, transfer: str = ""
) -> list[Masking]:
    """The checks for masked gradients, one per radius.

    Args:
      settings: norm and radii, and the noise draws of a gradient.
      image_shape: (H, W, C) of the images, for the radius.
      stochastic: whether the network draws noise.
      transfer: name of another network whose adversarial images are carried over, if any.
    """
    return [
        Masking(settings.norm, eps, stochastic, transfer, eot_samples=settings.eot_samples)
        for eps in settings.radii(image_shape)
    ]
