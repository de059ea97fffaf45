"""Ensembles of attacks, of which the strongest result is kept for each image; AutoAttack is one.

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

from vone_jax.attacks.apgd import APGD
from vone_jax.attacks.attack import Attack, Norm
from vone_jax.attacks.classifier import AnyKey, AnyLabels, Images, Keys, Labels, LogitsFn
from vone_jax.attacks.fab import FAB
from vone_jax.attacks.square import Square
from vone_jax.attacks.strongest import CHOICE_DRAWS, strongest

_EOT_SAMPLES = 20


class Ensemble(Attack):
    """Base of the attacks that keep the strongest result of their ``members`` for each image.

    Attributes:
      batch_size: images at a time. None: few on CPUs, and all on other devices. The remaining
        images are packed into as few calls as possible, so a smaller number saves more work once
        most images are misclassified.
    """

    _: dataclasses.KW_ONLY
    batch_size: int | None = None

    def images_at_once(self, images: Images) -> int:
        return self.batch_size or super().images_at_once(images)

    def perturb(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        return strongest(self, keys, logits_fn, images, labels).images


class Strongest(Ensemble):
    """The strongest of several attacks for each image, and of the image itself.

    The members run one after the other, each from the clean image. The image is kept that is
    classified right in the fewest noise draws and, among equals, has the largest mean margin. No
    attack uses these draws of the choice. Later members skip an image only if all of these draws
    misclassify it. So a lucky draw does not beat a classifier with noise. Score the result with yet
    other draws. For a classifier without noise this is the usual worst case. Members with targets
    share the classes to reach, and the image is kept that reaches its class most often.

    ``choose`` also returns which member won, and ``len(attacks)`` for the clean image.

    Attributes:
      attacks: attacks of one norm and radius, all with targets or all without.
      draws: noise draws by which candidates are compared.
      batch_size: images at a time, see ``Ensemble``.
    """

    attacks: tuple[Attack, ...]
    draws: int = CHOICE_DRAWS

    def __post_init__(self) -> None:
        # Comes first, because norm and radius are those of the first member.
        several = self.attacks
        if not isinstance(several, tuple) or not all(isinstance(each, Attack) for each in several):
            raise TypeError(f"attacks must be a tuple of attacks, got {several!r:.80}")
        if not several:
            raise ValueError("attacks must be one attack or more, got none")
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
    least_classes = property(lambda self: max(each.least_classes for each in self.attacks))
    choice_draws = property(lambda self: self.draws)

    def unaveraged(self, logits_fn: LogitsFn) -> list[tuple[Attack, LogitsFn]]:
        return [pair for member in self.attacks for pair in member.unaveraged(logits_fn)]

    def with_checked_surrogates(self, key: AnyKey, images: Images, labels: AnyLabels) -> Attack:
        several = [each.with_checked_surrogates(key, images, labels) for each in self.attacks]
        return dataclasses.replace(self, attacks=tuple(several))

    def members(self, classes: int) -> tuple[Attack, ...]:
        return self.attacks


class AutoAttack(Ensemble):
    """AutoAttack: the strongest of several parameter-free attacks, see ``Strongest``.

    Attributes:
      version: "standard", "plus", or "rand" for classifiers with noise.
      judge_draws: noise draws by which candidates are compared.
      batch_size: images at a time, see ``Ensemble``.
    """

    norm: Norm
    eps: float
    version: Annotated[str, ("standard", "plus", "rand")] = "standard"
    judge_draws: int = CHOICE_DRAWS

    choice_draws = property(lambda self: self.judge_draws)
    # The loss "dlr" needs 3 classes, "targeted_dlr" needs 4.
    least_classes = property(lambda self: 3 if self.version == "rand" else 4)

    def unaveraged(self, logits_fn: LogitsFn) -> list[tuple[Attack, LogitsFn]]:
        return [] if self.version == "rand" else [(self, logits_fn)]

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
