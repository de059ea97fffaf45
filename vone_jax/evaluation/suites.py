"""Suites: named lists of conditions, with the settings that they share."""

import dataclasses
import difflib
from collections.abc import Callable, Sequence

from vone_jax import corruptions
from vone_jax.attacks import PGD, checks, norms
from vone_jax.evaluation import authors
from vone_jax.evaluation.conditions import Attacked, Clean, Condition, Corrupted


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a suite may be asked for.

    Attributes:
      points: radii per norm, 9, 4 or 2: the authors' whole ladder, their main or reduced set.
      eps: radii in pixel units to use instead; only with one norm.
      steps: steps of the attack.
      step_rule: length of a step: "2.5*eps/steps", "eps/32" or "eps/4".
      random_start: begin at a random point of the ball.
      restarts: runs of the attack, of which each example keeps the worst.
      eot_samples: noise draws averaged in a gradient; a network without noise has one.
      loss: what is increased: "cross_entropy", "margin" or "dlr".
      l1_step: direction of L1 steps: "dense", "max_coordinate" or "sparse".
      noise_free_gradients: attack the network with its noise switched off, judge the noisy one.
      corruptions: names; none means all.
      severities: of corruptions; none means 1 to 5, and 3 in the suite quick.

    Raises:
      ValueError, TypeError: naming the field that is out of range.
    """

    points: int = 4
    eps: tuple[float, ...] = ()
    steps: int = 64
    step_rule: str = "eps/32"
    random_start: bool = False
    restarts: int = 1
    eot_samples: int = 10
    loss: str = "cross_entropy"
    l1_step: str = "dense"
    noise_free_gradients: bool = False
    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = ()

    def __post_init__(self):
        if self.points not in authors.POINTS:
            raise ValueError(f"points must be one of 9, 4, 2; got {self.points!r}")
        for value in self.eps:
            checks.radius("eps", value)
        for name in self.corruptions:
            corruptions.check_name(name)
        for severity in self.severities:
            corruptions.check_severity(severity)
        self.attack("linf", 0.0)

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
        )


def _clean(settings, image_shape, stochastic):
    return [Clean()]


def _ladder(norm):
    def conditions(settings, image_shape, stochastic):
        radii = settings.eps or authors.ladder(norm, settings.points, image_shape)
        surrogate = settings.noise_free_gradients and stochastic
        return [
            Attacked(settings.attack(norm, eps, stochastic and not surrogate), surrogate)
            for eps in radii
        ]

    return conditions


def _corruptions(severities):
    def conditions(settings, image_shape, stochastic):
        return [
            Corrupted(name, severity)
            for name in settings.corruptions or corruptions.NAMES
            for severity in settings.severities or severities
        ]

    return conditions


_SUITES: dict[str, Callable[..., Sequence[Condition]]] = {
    "clean": _clean,
    **{norm: _ladder(norm) for norm in norms.NORMS},
    "corruptions": _corruptions(corruptions.SEVERITIES),
    "corruptions_quick": _corruptions((3,)),
}

# Results that are looked at, see ``exhibits``.
EXHIBITS = ("gallery", "v1")

# Names that stand for several suites.
GROUPS = {
    "quick": ("clean", "linf", "corruptions_quick", "gallery", "v1"),
    "all": ("clean", *norms.NORMS, "corruptions", *EXHIBITS),
}

NAMES = (*_SUITES, *EXHIBITS, *GROUPS)


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
      suites: expanded names; exhibits have no conditions.
      settings: what they share.
      image_shape: (H, W, C) of the images, for the radii.
      stochastic: whether the network draws noise.

    Raises:
      ValueError: if ``settings.eps`` is given for several norms.
    """
    attacked = [name for name in suites if name in norms.NORMS]
    if settings.eps and len(attacked) != 1:
        raise ValueError(
            f"eps is for one norm, since each has its own units; the suites attack in "
            f"{', '.join(attacked) or 'none'}"
        )
    found = [
        condition
        for name in suites
        if name in _SUITES
        for condition in _SUITES[name](settings, image_shape, stochastic)
    ]
    return list({condition.name: condition for condition in found}.values())
