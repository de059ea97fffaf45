"""Attacks made of attacks: the strongest of several, AutoAttack, and a transfer.

References:
  Croce and Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks, 2020, arXiv:2003.01690.
  Croce and Hein, Mind the box: l1-APGD for sparse adversarial attacks on image classifiers,
    2021, arXiv:2103.01208.
"""

import dataclasses
import functools
import numbers
from typing import Annotated

from vone_jax import functions
from vone_jax.attacks import classifier
from vone_jax.attacks.apgd import APGD
from vone_jax.attacks.attack import Attack, AttackFn, Norm, of
from vone_jax.attacks.classifier import Images, Keys, Labels, LogitsFn
from vone_jax.attacks.executor import CHOICE_DRAWS
from vone_jax.attacks.fab import FAB
from vone_jax.attacks.square import Square

_EOT_SAMPLES = 20


@dataclasses.dataclass(frozen=True)
class Strongest(Attack):
    """The strongest of several attacks for each image, and of the image itself.

    The members run one after the other, each from the clean image. The image is kept that is
    classified right in the fewest noise draws and, among equals, has the largest mean margin. No
    attack uses these draws of the choice. Later members skip an image only if all of these draws
    misclassify it. So a lucky draw does not beat a classifier with noise. Score the result with yet
    other draws. For a classifier without noise this is the usual worst case. Members with targets
    share the classes to reach, and the image is kept that reaches its class most often.

    ``choose`` also returns which member won, and ``len(attacks)`` for the clean image.

    Attributes:
      attacks: attacks of one norm and radius, all with targets or all without. A plain function
        takes norm and radius of the others.
      choice_draws: noise draws by which candidates are compared.
    """

    attacks: tuple[Attack | AttackFn, ...]
    choice_draws: int = CHOICE_DRAWS

    def __post_init__(self) -> None:
        # Comes first, because norm and radius are those of the first member.
        several = self.attacks
        if not isinstance(several, tuple) or not all(map(callable, several)):
            raise TypeError(f"attacks must be a tuple of attacks, got {several!r:.80}")
        if not several:
            raise ValueError("attacks must be one attack or more, got none")
        known = next((each for each in several if isinstance(each, Attack)), None)
        ball = {} if known is None else {"norm": known.norm, "eps": known.eps}
        several = tuple(of(each, **ball) for each in several)
        object.__setattr__(self, "attacks", several)
        super().__post_init__()
        for member in several:
            if member.targeted != self.targeted:
                raise ValueError(f"attacks must all have targeted={self.targeted}, got {member!r}")
            if member.norm != self.norm:
                raise ValueError(f"attacks must be of norm {self.norm}, got {member!r}")
            radii = (member.eps, self.eps)
            known = all(isinstance(radius, numbers.Real) for radius in radii)
            if known and radii[0] != radii[1]:
                raise ValueError(f"attacks must be of radius {self.eps}, got {member!r}")

    # Without annotations, so that these are no fields.
    norm = property(lambda self: self.attacks[0].norm)  # pyright: ignore
    eps = property(lambda self: self.attacks[0].eps)  # pyright: ignore
    targeted = property(lambda self: self.attacks[0].targeted)  # pyright: ignore
    least_classes = property(lambda self: max(each.least_classes for each in self.members(0)))

    words = property(lambda self: f"strongest of {_listed(self.members(0))}")  # pyright: ignore

    def members(self, classes: int) -> tuple[Attack, ...]:
        return tuple(map(of, self.attacks))


def _listed(several: tuple[Attack, ...]) -> str:
    return ", ".join(dict.fromkeys(each.label for each in several))


@dataclasses.dataclass(frozen=True)
class AutoAttack(Attack):
    """AutoAttack: the strongest of several parameter-free attacks, see ``Strongest``.

    Attributes:
      version: "standard", "plus", or "rand" for classifiers with noise.
      choice_draws: noise draws by which candidates are compared.
    """

    norm: Norm
    eps: float
    version: Annotated[str, ("standard", "plus", "rand")] = "standard"
    choice_draws: int = CHOICE_DRAWS

    # The loss "dlr" needs 3 classes, "targeted_dlr" needs 4.
    least_classes = property(lambda self: 3 if self.version == "rand" else 4)

    words = property(lambda self: f"AutoAttack {self.version}".removesuffix(" standard"))  # pyright: ignore

    def members(self, classes: int) -> tuple[Attack, ...]:
        if classes < self.least_classes:
            raise ValueError(
                f'AutoAttack version "{self.version}" needs at least {self.least_classes} classes '
                f"for its losses and targets, got {classes}; take Strongest of other attacks, for "
                f'instance APGD with "cross_entropy" and with "margin", FAB and Square'
            )
        apgd = functools.partial(APGD, self.norm, self.eps)
        fab = functools.partial(FAB, self.norm, self.eps)
        square = Square(self.norm, self.eps, rescale_schedule=False)
        targets = min(9, classes - 1)
        if self.version == "rand":
            return apgd(eot_samples=_EOT_SAMPLES), apgd(loss="dlr", eot_samples=_EOT_SAMPLES)
        if self.version == "plus":
            return (
                apgd(restarts=5),
                apgd(restarts=5, loss="dlr"),
                fab(restarts=5),
                square,
                apgd(loss="targeted_dlr", targets=targets),
                fab(targets=targets),
            )
        l1 = self.norm == "l1"
        few = min(5, targets) if l1 else targets
        return (
            apgd(restarts=5 if l1 else 1, large_eps_schedule=l1),
            apgd(loss="targeted_dlr", targets=few, large_eps_schedule=l1),
            fab(targets=targets),
            square,
        )


@dataclasses.dataclass(frozen=True)
class Transfer(Attack):
    """An attack that uses only a surrogate of the classifier it is called with.

    If a white-box attack does less than its transfer from another network, or from the same network
    without noise, the gradients of the attacked network are masked. ``trace`` returns the course of
    the attack on the surrogate.

    Attributes:
      attack: the attack, whose norm, radius and target it shares.
      surrogate: classifier ``(keys, images) -> logits`` that the attack is made on.

    Raises:
      TypeError: if ``attack`` is not an attack or ``surrogate`` cannot be called.
    """

    attack: Attack | AttackFn
    surrogate: LogitsFn = dataclasses.field(repr=False, metadata={"stored": False, "leaf": True})

    def __post_init__(self) -> None:
        object.__setattr__(self, "attack", of(self.attack))
        super().__post_init__()
        functions.check_function(self.surrogate, "surrogate")

    # Without annotations, so that these are no fields.
    norm = property(lambda self: self.attack.norm)  # pyright: ignore
    eps = property(lambda self: self.attack.eps)  # pyright: ignore
    targeted = property(lambda self: self.attack.targeted)  # pyright: ignore
    least_classes = property(lambda self: of(self.attack).least_classes)
    words = property(lambda self: f"transferred {of(self.attack).label}")  # pyright: ignore

    def run(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        surrogate = classifier.checked(self.surrogate, keys, images)
        return of(self.attack).perturb(keys, surrogate, images, labels)
