"""The choice of the strongest image of each example: one rule for all attacks of several runs.

Runs are restarts, targets, or other attacks. Of the images that they find, the one is kept that is
classified right in the fewest noise draws and, among equals, has the largest mean margin. No run
uses these draws, so a lucky draw does not beat a classifier with noise. An image that all of them
misclassify is done, and later runs leave it out.

``at_once`` makes all runs in one program. ``in_parts`` makes them from the host, on few images at a
time, and packs those that are left into full calls.
"""

import functools
import math
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from vone_jax import fast, prng
from vone_jax.attacks import classifier, losses
from vone_jax.attacks.classifier import Images, Keys, Labels, LogitsFn, Mask, Values, select

# Noise draws by which the strongest of several runs is chosen.
CHOICE_DRAWS = 20

# An ``attack.Attack``; that module builds on this one.
AnyAttack = Any
Tree = TypeVar("Tree")


class Verdict(NamedTuple):
    """The decisions of a classifier on images over several noise draws.

    Attributes:
      right: number of draws in which an image is classified right. For a targeted attack: number
        of draws in which the target is not reached.
      margin: mean over the draws of the largest other logit minus the label's. For a targeted
        attack: mean of the target's logit minus the largest other.
    """

    right: Values
    margin: Values

    def beats(self, other: "Verdict") -> Mask:
        """Return where this verdict is right less often or, if as often, has the larger margin."""
        fewer = self.right < other.right
        return fewer | ((self.right == other.right) & (self.margin > other.margin))


def judge(
    logits_fn: LogitsFn,
    keys: Keys,
    images: Images,
    labels: Labels,
    count: int,
    targeted: bool = False,
) -> Verdict:
    """Return the verdict of ``count`` noise draws. Compare candidates with the same ``keys``."""
    logits = classifier.draws(logits_fn, keys, images, count)
    fooled = losses.misled(logits, labels, targeted)
    mean = jnp.mean(losses.margin(logits, labels), axis=0)
    return Verdict(jnp.sum(~fooled, axis=0, dtype=logits.dtype), -mean if targeted else mean)


class Best(NamedTuple):
    """The strongest images so far, the verdicts on them, and the places of their attacks."""

    images: Images
    verdict: Verdict
    winner: Int[Array, " n"]

    @classmethod
    def start(cls, images: Images) -> "Best":
        """Return images with verdicts that any other beats."""
        like = images[:, 0, 0, 0]
        verdict = Verdict(jnp.full_like(like, jnp.inf), jnp.full_like(like, -jnp.inf))
        return cls(images, verdict, jnp.zeros(like.shape, jnp.int32))


def stronger(best: Best, adversarial: Images, verdict: Verdict, place: Array | int) -> Best:
    """Return the stronger image of each example.

    An image that all judging draws misclassify stays. A result or logits that are not finite are
    kept as NaN, so that the failure is reported.
    """
    broken = ~jnp.all(jnp.isfinite(adversarial), axis=(1, 2, 3)) | ~jnp.isfinite(verdict.margin)
    adversarial = select(~broken, adversarial, jnp.nan)
    verdict = verdict._replace(right=jnp.where(broken, 0.0, verdict.right))
    wins = (best.verdict.right > 0) & (broken | verdict.beats(best.verdict))
    winner = jnp.full_like(best.winner, 1) * place
    return select(wins, Best(adversarial, verdict, winner.astype(jnp.int32)), best)


class _Itself(NamedTuple):
    """The attack that leaves an image as it is: what other attacks are compared with."""

    def candidates(
        self, keys: Keys, number: Array, logits_fn: LogitsFn, images: Images, labels: Labels
    ) -> tuple[Images]:
        return (images,)


def _plan(
    attack: AnyAttack, keys: Keys, classes: int
) -> tuple[list[tuple[int, AnyAttack, Keys, int]], bool]:
    """Return what an attack runs, and whether there is one image and nothing to choose from.

    A run has a place, an attack, keys and a number of rounds.
    """
    members = attack.members(classes)
    if members[0] is attack:
        rounds = attack.rounds(classes)
        return [(0, attack, keys, rounds)], rounds * attack.choices == 1
    runs = [
        (place, member, prng.stream(keys, f"member {place}"), member.rounds(classes))
        for place, member in enumerate(members)
    ]
    return [(len(members), _Itself(), keys, 1), *runs], False


# In one program.


def strongest(
    attack: AnyAttack, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels
) -> Best:
    """Make all runs of an attack, and keep the strongest images: a pure function."""
    classes = jax.eval_shape(logits_fn, keys, images).shape[-1]
    runs, single = _plan(attack, keys, classes)
    best = Best.start(images)
    if single:
        return best._replace(images=_found(attack, keys, 0, logits_fn, images, labels)[0])
    choice_keys = prng.stream(keys, "choose")

    def judged(candidate: Images) -> Verdict:
        draws, targeted = attack.choice_draws, attack.targeted
        return judge(logits_fn, choice_keys, candidate, labels, draws, targeted)

    def unfinished(rounds: int, state: tuple[Array, Best]) -> Array:
        return (state[0] < rounds) & jnp.any(state[1].verdict.right > 0)

    def attempt(
        place: int, member: AnyAttack, keys: Keys, state: tuple[Array, Best]
    ) -> tuple[Array, Best]:
        number, best = state
        found = _found(member, keys, number, logits_fn, images, labels)
        # A map and not several calls, so that the classifier is compiled once.
        verdicts = jax.lax.map(judged, jnp.stack(found))
        for each, candidate in enumerate(found):
            verdict = jax.tree.map(lambda array, each=each: array[each], verdicts)
            best = stronger(best, candidate, verdict, place)
        return number + 1, best

    for place, member, own_keys, rounds in runs:
        _, best = jax.lax.while_loop(
            functools.partial(unfinished, rounds),
            functools.partial(attempt, place, member, own_keys),
            (jnp.uint32(0), best),
        )
    return best


@jax.jit
@fast.in_fast_layout
def at_once(
    attack: AnyAttack, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels
) -> Best:
    """Do as ``strongest`` does, as one compiled function, on checked input."""
    logits_fn = classifier.checked(logits_fn, keys, images)
    attack = classifier.in_dtype(attack, images.dtype)
    return jax.lax.stop_gradient(strongest(attack, keys, logits_fn, images, labels))


# From the host.


def in_parts(
    attack: AnyAttack, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels
) -> Best:
    """Do as ``strongest`` does, on few images at a time, and on those that are not done."""
    runs, single = _plan(attack, keys, classifier.classes(logits_fn, keys, images))
    best, choice_keys = Best.start(images), prng.stream(keys, "choose")
    for place, member, own_keys, rounds in runs:
        for number in range(rounds):
            left = np.flatnonzero(np.asarray(best.verdict.right) > 0)
            for rows in _split(left, attack.images_at_once(images), images):
                part = _take((own_keys, images, labels, choice_keys, best), rows)
                own, part_images, part_labels, judges, best_part = part
                found = run(member, own, jnp.uint32(number), logits_fn, part_images, part_labels)
                for candidate in found:
                    if single:
                        best_part = best_part._replace(images=candidate)
                        continue
                    rule = attack.choice_draws, attack.targeted
                    verdict = _judged(rule, logits_fn, candidate, judges, part_labels)
                    best_part = _stronger(best_part, candidate, verdict, place)
                best = _put(best, rows, best_part)
    return best


@jax.jit
@fast.in_fast_layout
def run(
    member: AnyAttack,
    keys: Keys,
    number: Array,
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
) -> tuple[Images, ...]:
    """Make one round of an attack as a compiled function, and return the images that it found."""
    logits_fn = classifier.checked(logits_fn, keys, images)
    member = classifier.in_dtype(member, images.dtype)
    return jax.lax.stop_gradient(_found(member, keys, number, logits_fn, images, labels))


@functools.partial(jax.jit, static_argnums=0)
def _judged(
    rule: tuple[int, bool], logits_fn: LogitsFn, images: Images, keys: Keys, labels: Labels
) -> Verdict:
    logits_fn = classifier.checked(logits_fn, keys, images)
    return judge(logits_fn, keys, images, labels, *rule)


_stronger = jax.jit(stronger)


def _found(
    member: AnyAttack,
    keys: Keys,
    number: Array | int,
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
) -> tuple[Images, ...]:
    """Return the images of one round, after a check of their shapes and dtypes."""
    found = member.candidates(keys, jnp.uint32(number), logits_fn, images, labels)
    for adversarial in found:
        expected = f"{images.dtype} {images.shape}"
        is_array = isinstance(adversarial, jax.Array | np.ndarray)
        got = f"{adversarial.dtype} {adversarial.shape}" if is_array else repr(type(adversarial))
        if got != expected:
            raise TypeError(
                f"perturb of {type(member).__name__} must return an array like the images, "
                f"{expected}, got {got}"
            )
    return found


def _split(rows: np.ndarray, size: int, images: Images) -> list[np.ndarray]:
    """Split rows into calls of one size. The last call is filled up with the first row."""
    devices = len(images.sharding.device_set)
    size = math.ceil(min(size, len(images)) / devices) * devices
    padded = np.concatenate([rows, np.repeat(rows[:1], -len(rows) % size)]).astype(np.int32)
    return list(padded.reshape(-1, size))


def _take(tree: Tree, rows: np.ndarray) -> Tree:
    """Return rows of arrays with the sharding of the arrays."""

    def taken(array: Array) -> Array:
        if len(rows) == len(array) and (rows == np.arange(len(rows))).all():
            return array
        part = _rows(array, rows)
        # With one device, nothing is placed: a placed array could not be used with others.
        several = len(array.sharding.device_set) > 1
        return jax.device_put(part, array.sharding) if several else part

    return jax.tree.map(taken, tree)


@jax.jit
def _rows(array: Array, rows: Array) -> Array:
    return array[rows]


def _put(best: Best, rows: np.ndarray, part: Best) -> Best:
    """Update rows; a row may be there twice, as padding."""
    if len(rows) == len(best.images) == len(set(rows.tolist())):
        return part
    return _with_rows(best, rows, part)


@jax.jit
def _with_rows(best: Best, rows: Array, part: Best) -> Best:
    return jax.tree.map(lambda array, values: array.at[rows].set(values), best, part)
