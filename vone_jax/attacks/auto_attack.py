"""AutoAttack: an ensemble of parameter-free attacks, which keeps the worst result for each image.

References:
  Croce and Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks, 2020, arXiv:2003.01690.
  Croce and Hein, Mind the box: l1-APGD for sparse adversarial attacks on image classifiers,
    2021, arXiv:2103.01208.
"""

import functools
import math
import numbers
from typing import Annotated, Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vone_jax import prng
from vone_jax.attacks import attack as attack_module
from vone_jax.attacks import checks, classifier, losses, norms
from vone_jax.attacks.apgd import APGD
from vone_jax.attacks.attack import Attack, Norm, pytree
from vone_jax.attacks.classifier import AnyImages, AnyKey, AnyLabels, Images, Keys, Labels, LogitsFn
from vone_jax.attacks.fab import FAB
from vone_jax.attacks.losses import Verdict
from vone_jax.attacks.square import Square

_EOT_SAMPLES = 20

# The strongest images so far, and the verdicts on them.
Best = tuple[Images, Verdict]


@pytree("eps", "attacks")
class AutoAttack(Attack):
    """An ensemble that runs its member attacks one after the other, each from the clean image.

    The strongest of the clean image and all adversarial ones is kept: the one that is classified
    right in the fewest noise draws and, among equals, has the largest mean margin. No attack uses
    these judging draws. Later members skip an image only if all of these draws misclassify it. So a
    lucky draw does not beat a classifier with noise. Score the result with yet other draws. For a
    classifier without noise this is the usual worst case.

    Attributes:
      version: "standard", "plus", "rand" for classifiers with noise, or "custom".
      attacks: the members of a "custom" version, of the same norm and radius; else empty.
      judge_draws: noise draws by which candidates are compared.
      batch_size: images per compiled call. The remaining images are packed into as few calls as
        possible, so a smaller number saves more work once most images have fallen.
    """

    norm: Norm
    eps: float
    version: Annotated[str, ("standard", "plus", "rand", "custom")] = "standard"
    attacks: tuple[Attack, ...] = ()
    judge_draws: int = 20
    batch_size: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.attacks, tuple):
            # A pytree that JAX is rebuilding may hold a placeholder here.
            if isinstance(self.attacks, (list, Attack, str)):
                raise TypeError(f"attacks must be a tuple of attacks, got {self.attacks!r:.80}")
            return
        if (self.version == "custom") != bool(self.attacks):
            raise ValueError(
                f'attacks must be given with version "custom" and with no other version, got '
                f'{len(self.attacks)} attacks with version "{self.version}"'
            )
        for member in self.attacks:
            _check_member(member, self.norm, self.eps)

    @property
    def least_classes(self) -> int:
        if self.version == "custom":
            return max(member.least_classes for member in self.attacks)
        # The loss "dlr" needs 3 classes, "targeted_dlr" needs 4.
        return {"rand": 3, "standard": 4, "plus": 4}[self.version]

    def members(self, classes: int) -> tuple[Attack, ...]:
        """Return the attacks in their order, for a classifier with this number of classes.

        Raises:
          ValueError: if a member is not defined for so few classes.
        """
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

    def __call__(
        self, key: AnyKey, logits_fn: LogitsFn, images: AnyImages, labels: AnyLabels
    ) -> Images:
        """Return the strongest candidate of each image; see ``Attack`` for arguments and errors.

        Later members leave out the images that are misclassified in all draws. The host selects
        them. Under ``jit`` and ``vmap``, and for arrays that are spread over several hosts, every
        member attacks every image instead, with the same result.
        """
        # The input is checked before anything is computed.
        images, labels = checks.arrays(key, logits_fn, images, labels)
        self.members(classifier.classes(logits_fn, prng.example_keys(key, len(images)), images))
        attack, keys, logits_fn, images, labels = self.prepared(key, logits_fn, images, labels)
        members = cast(AutoAttack, attack).members(classifier.classes(logits_fn, keys, images))
        # The logits are traced within ``jit``, and if anything that the classifier uses is traced.
        logits = classifier.checked(logits_fn, keys, images)(keys, images)
        traced = any(isinstance(leaf, Tracer) for leaf in (*jax.tree.leaves(self), logits, labels))
        if traced or not images.is_fully_addressable:
            return checks.finite(attack_module.compiled(attack, keys, logits_fn, images, labels))
        judge_keys = prng.stream(keys, "judge")
        best = (images, losses.nothing_yet(images))

        def compare(best: Best, rows: np.ndarray, adversarial: Array) -> Best:
            part = (_take(array, rows) for array in (judge_keys, labels))
            verdict = _judged(self.judge_draws, logits_fn, adversarial, *part)
            return _keep_stronger(best, rows, adversarial, verdict)

        for rows in self._calls(images, np.arange(images.shape[0])):
            best = compare(best, rows, _take(images, rows))
        for number, member in enumerate(members):
            member_keys = prng.stream(keys, f"member {number}")
            for rows in self._calls(images, np.flatnonzero(np.asarray(best[1].right) > 0)):
                part = [_take(array, rows) for array in (member_keys, images, labels)]
                adversarial = attack_module.compiled(member, part[0], logits_fn, *part[1:])
                best = compare(best, rows, adversarial)
        return checks.finite(best[0])

    def perturb(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        classes = jax.eval_shape(logits_fn, keys, images).shape[-1]
        judge_keys = prng.stream(keys, "judge")

        def judge(adversarial: Images) -> Verdict:
            return losses.judge(logits_fn, judge_keys, adversarial, labels, self.judge_draws)

        best = (images, judge(images))
        for number, member in enumerate(self.members(classes)):
            member_keys = prng.stream(keys, f"member {number}")
            adversarial = member.perturb(member_keys, logits_fn, images, labels)
            best = _stronger(best, adversarial, judge(adversarial))
        return best[0]

    def _calls(self, images: Images, rows: np.ndarray) -> list[np.ndarray]:
        """Split rows into calls of one size. The last call is filled up with the first row."""
        devices = len(images.sharding.device_set)
        size = math.ceil(min(self.batch_size, images.shape[0]) / devices) * devices
        padded = np.concatenate([rows, np.repeat(rows[:1], -len(rows) % size)])
        return list(padded.reshape(-1, size))


def _check_member(member: Any, norm: str, eps: Any) -> None:
    if not isinstance(member, Attack):
        raise TypeError(f"attacks must be a tuple of attacks, got {member!r:.80} in it")
    if member.targeted:
        raise ValueError(
            f"attacks must be untargeted, since labels are true classes, got {member!r}"
        )
    if member.norm != norm:
        raise ValueError(f"attacks must be of norm {norm}, got {member!r}")
    radii = (member.eps, eps)
    if all(isinstance(radius, numbers.Real) for radius in radii) and radii[0] != radii[1]:
        raise ValueError(f"attacks must be of radius {eps}, got {member!r}")


def _take(array: Array, rows: np.ndarray) -> Array:
    """Return rows of an array with the sharding of the array."""
    taken = array[rows]
    # With one device, nothing is placed: a placed array could not be used with arrays on several.
    several = len(array.sharding.device_set) > 1
    return jax.device_put(taken, array.sharding) if several else taken


@functools.partial(jax.jit, static_argnums=0)
def _judged(draws: int, logits_fn: LogitsFn, images: Images, keys: Keys, labels: Labels) -> Verdict:
    logits_fn = classifier.checked(logits_fn, keys, images)
    return losses.judge(logits_fn, keys, images, labels, draws)


@jax.jit
def _keep_stronger(best: Best, rows: Array, adversarial: Array, verdict: Verdict) -> Best:
    """Update some rows of the best candidates; a row may be there twice, as padding."""
    part = jax.tree.map(lambda array: array[rows], best)
    stronger = _stronger(part, adversarial, verdict)
    return jax.tree.map(lambda array, values: array.at[rows].set(values), best, stronger)


def _stronger(best: Best, adversarial: Images, verdict: Verdict) -> Best:
    # A result or logits that are not finite are kept as NaN, so that the failure is reported.
    broken = ~jnp.all(jnp.isfinite(adversarial), axis=(1, 2, 3)) | ~jnp.isfinite(verdict.margin)
    adversarial = norms.select(~broken, adversarial, jnp.nan)
    verdict = verdict._replace(right=jnp.where(broken, 0.0, verdict.right))
    wins = (best[1].right > 0) & (broken | verdict.beats(best[1]))
    return norms.select(wins, (adversarial, verdict), best)
