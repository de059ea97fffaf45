"""Ensembles of attacks, of which the strongest result is kept for each image; AutoAttack is one.

References:
  Croce and Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks, 2020, arXiv:2003.01690.
  Croce and Hein, Mind the box: l1-APGD for sparse adversarial attacks on image classifiers,
    2021, arXiv:2103.01208.
"""

import functools
import numbers
from typing import Annotated, Any

from vone_jax.attacks.apgd import APGD
from vone_jax.attacks.attack import CHOICE_DRAWS, Attack, Norm, strongest
from vone_jax.attacks.classifier import Images, Keys, Labels, LogitsFn
from vone_jax.attacks.fab import FAB
from vone_jax.attacks.square import Square

_EOT_SAMPLES = 20


class Strongest(Attack):
    """The strongest of several attacks for each image, and of the image itself.

    The members run one after the other, each from the clean image. The image is kept that is
    classified right in the fewest noise draws and, among equals, has the largest mean margin. No
    attack uses these judging draws. Later members skip an image only if all of these draws
    misclassify it. So a lucky draw does not beat a classifier with noise. Score the result with yet
    other draws. For a classifier without noise this is the usual worst case.

    ``choose`` also returns which member won, and ``len(attacks)`` for the clean image.

    Attributes:
      attacks: attacks of one norm and radius.
      draws: noise draws by which candidates are compared.
      batch_size: images at a time. None: few on CPUs, and all on other devices. The remaining
        images are packed into as few calls as possible, so a smaller number saves more work once
        most images have fallen.
    """

    attacks: tuple[Attack, ...]
    draws: int = CHOICE_DRAWS
    batch_size: int | None = None

    def __post_init__(self) -> None:
        # Comes first, because norm and radius are those of the first member.
        _check_members(self.attacks)
        if not self.attacks:
            raise ValueError("attacks must be one attack or more, got none")
        super().__post_init__()
        for member in self.attacks:
            _check_bounds(member, self.norm, self.eps)

    # Without annotations, so that these are no fields.
    norm = property(lambda self: self.attacks[0].norm)  # pyright: ignore
    eps = property(lambda self: self.attacks[0].eps)  # pyright: ignore

    @property
    def least_classes(self) -> int:
        return max(member.least_classes for member in self.attacks)

    @property
    def choice_draws(self) -> int:
        return self.draws

    def members(self, classes: int) -> tuple[Attack, ...]:
        return self.attacks

    def images_at_once(self, images: Images) -> int:
        return self.batch_size or super().images_at_once(images)

    def perturb(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        return strongest(self, keys, logits_fn, images, labels).images


class AutoAttack(Attack):
    """AutoAttack: the strongest of several parameter-free attacks, see ``Strongest``.

    Attributes:
      version: "standard", "plus", "rand" for classifiers with noise, or "custom".
      attacks: the members of a "custom" version, of the same norm and radius; else empty.
      judge_draws: noise draws by which candidates are compared.
      batch_size: images at a time, see ``Strongest``.
    """

    norm: Norm
    eps: float
    version: Annotated[str, ("standard", "plus", "rand", "custom")] = "standard"
    attacks: tuple[Attack, ...] = ()
    judge_draws: int = CHOICE_DRAWS
    batch_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_members(self.attacks)
        if (self.version == "custom") != bool(self.attacks):
            raise ValueError(
                f'attacks must be given with version "custom" and with no other version, got '
                f'{len(self.attacks)} attacks with version "{self.version}"'
            )
        for member in self.attacks:
            _check_bounds(member, self.norm, self.eps)

    @property
    def ignores_noise(self) -> bool:
        return self.version in ("standard", "plus")

    @property
    def choice_draws(self) -> int:
        return self.judge_draws

    def images_at_once(self, images: Images) -> int:
        return self.batch_size or super().images_at_once(images)

    @property
    def least_classes(self) -> int:
        if self.version == "custom":
            return max(member.least_classes for member in self.attacks)
        # The loss "dlr" needs 3 classes, "targeted_dlr" needs 4.
        return {"rand": 3, "standard": 4, "plus": 4}[self.version]

    def members(self, classes: int) -> tuple[Attack, ...]:
        if classes < self.least_classes:
            raise ValueError(
                f'AutoAttack version "{self.version}" needs at least {self.least_classes} classes '
                f"for its losses and targets, got {classes}; name the members with "
                f'version="custom", for instance APGD with "cross_entropy" and with "margin", FAB '
                f"and Square"
            )
        if self.version == "custom":
            return self.attacks
        apgd = functools.partial(APGD, self.norm, self.eps)
        fab = functools.partial(FAB, self.norm, self.eps)
        square = Square(self.norm, self.eps)
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

    def perturb(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        return strongest(self, keys, logits_fn, images, labels).images


def _check_members(attacks: Any) -> None:
    if not isinstance(attacks, tuple) or not all(isinstance(each, Attack) for each in attacks):
        raise TypeError(f"attacks must be a tuple of attacks, got {attacks!r:.80}")


def _check_bounds(member: Attack, norm: str, eps: Any) -> None:
    if member.targeted:
        raise ValueError(
            f"attacks must be untargeted, since labels are true classes, got {member!r}"
        )
    if member.norm != norm:
        raise ValueError(f"attacks must be of norm {norm}, got {member!r}")
    radii = (member.eps, eps)
    if all(isinstance(radius, numbers.Real) for radius in radii) and radii[0] != radii[1]:
        raise ValueError(f"attacks must be of radius {eps}, got {member!r}")
