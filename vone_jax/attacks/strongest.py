"""The choice of the strongest image of each example: one rule for all attacks of several runs.

Runs are restarts, targets, or other attacks. Of the images that they find, the one is kept that is
classified right in the fewest noise draws and, among equals, has the largest mean margin. No run
uses these draws, so a lucky draw does not beat a classifier with noise. An image that all of them
misclassify takes part in no later run.

``at_once`` makes all runs in one program. ``in_parts`` makes each from the host, on few images at a
time, and packs those that still resist into full calls. Both make the same runs and choices.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from vone_jax import fast, prng
from vone_jax.attacks import classifier, losses
from vone_jax.attacks.classifier import Images, Keys, Labels, LogitsFn, Mask, Values, where

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
    misclassified = losses.misclassified(logits, labels, targeted)
    mean = jnp.mean(losses.margin(logits, labels), axis=0)
    right = jnp.sum(~misclassified, axis=0, dtype=logits.dtype)
    return Verdict(right, -mean if targeted else mean)


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

    An image that all draws misclassify stays. A result or logits that are not finite are kept as
    NaN, so that the failure is reported.
    """
    finite = jnp.all(jnp.isfinite(adversarial), axis=(1, 2, 3)) & jnp.isfinite(verdict.margin)
    adversarial = where(finite, adversarial, jnp.nan)
    verdict = verdict._replace(right=jnp.where(finite, verdict.right, 0.0))
    wins = (best.verdict.right > 0) & (~finite | verdict.beats(best.verdict))
    winner = jnp.full_like(best.winner, 1) * place
    return where(wins, Best(adversarial, verdict, winner.astype(jnp.int32)), best)


class _CleanImages(NamedTuple):
    """The attack that leaves images as they are: what other attacks are compared with."""

    def runs(self, classes: int) -> int:
        return 1

    def for_images(self, rows: Array | np.ndarray) -> "_CleanImages":
        return self

    def run(
        self, keys: Keys, number: Array, logits_fn: LogitsFn, images: Images, labels: Labels
    ) -> tuple[Images]:
        return (images,)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Rule:
    """How the images of several runs are compared.

    Attributes:
      draws: noise draws of a verdict.
      targeted: whether labels are classes to reach.
      lone_run: whether there is one run only. Its image needs no verdict.
    """

    draws: int
    targeted: bool
    lone_run: bool


class _Batch(NamedTuple):
    """Arrays with a row for each image; ``choice_keys`` are those of the verdicts."""

    keys: Keys
    choice_keys: Keys
    images: Images
    labels: Labels
    best: Best


def _run(
    member: AnyAttack, number: Array, logits_fn: LogitsFn, batch: _Batch
) -> tuple[Images, ...]:
    """Make one run of an attack: a pure function."""
    found = member.run(batch.keys, number, logits_fn, batch.images, batch.labels)
    for adversarial in found:
        _check_like(batch.images, adversarial, member)
    return found


def _keep_strongest(
    rule: _Rule,
    found: tuple[Images, ...],
    place: Array | int,
    logits_fn: LogitsFn,
    batch: _Batch,
) -> Best:
    """Return the strongest images so far, after a run that found some: a pure function."""
    best = batch.best
    if rule.lone_run and len(found) == 1:
        return best._replace(images=found[0])

    def judged(candidates: Images) -> Verdict:
        keys, labels = batch.choice_keys, batch.labels
        return judge(logits_fn, keys, candidates, labels, rule.draws, rule.targeted)

    # A map and not several calls, so that the classifier is compiled once.
    verdicts = jax.lax.map(judged, jnp.stack(found))
    for row, adversarial in enumerate(found):
        verdict = jax.tree.map(lambda array, row=row: array[row], verdicts)
        best = stronger(best, adversarial, verdict, place)
    return best


# Takes the rule, an attack, the number of its runs, its place, the classifier and the batch.
_MakeRuns = Callable[[_Rule, AnyAttack, int, int, LogitsFn, _Batch], Best]


def _strongest(
    attack: AnyAttack,
    keys: Keys,
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    classes: int,
    make_runs: _MakeRuns,
) -> Best:
    """Make all runs of an attack with ``make_runs``, and keep the strongest images."""
    members = attack.members(classes)
    several = [
        (len(members), _CleanImages(), keys),
        *(
            (place, member, prng.stream(keys, f"member {place}"))
            for place, member in enumerate(members)
        ),
    ]
    if members[0] is attack:
        several = [(0, attack, keys)]
    lone_run = len(several) == 1 and attack.runs(classes) == 1
    rule = _Rule(attack.choice_draws, attack.targeted, lone_run)
    choice_keys = prng.stream(keys, "choose")
    best = Best.start(images)
    for place, member, own_keys in several:
        batch = _Batch(own_keys, choice_keys, images, labels, best)
        best = make_runs(rule, member, member.runs(classes), place, logits_fn, batch)
    return best


# In one program.


def strongest(
    attack: AnyAttack, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels
) -> Best:
    """Make all runs of an attack, and keep the strongest images: a pure function."""
    classes = jax.eval_shape(logits_fn, keys, images).shape[-1]
    return _strongest(attack, keys, logits_fn, images, labels, classes, _runs_at_once)


@jax.jit
@fast.in_fast_layout
def at_once(
    attack: AnyAttack, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels
) -> Best:
    """Do as ``strongest`` does, as one compiled function, on checked input."""
    logits_fn = classifier.checked(logits_fn, keys, images)
    attack = classifier.in_dtype(attack, images.dtype)
    return jax.lax.stop_gradient(strongest(attack, keys, logits_fn, images, labels))


def _runs_at_once(
    rule: _Rule, member: AnyAttack, runs: int, place: int, logits_fn: LogitsFn, batch: _Batch
) -> Best:
    """Make runs until all images are misclassified."""
    if rule.lone_run:
        found = _run(member, jnp.uint32(0), logits_fn, batch)
        return _keep_strongest(rule, found, place, logits_fn, batch)

    def unfinished(state: tuple[Array, Best]) -> Array:
        return (state[0] < runs) & jnp.any(state[1].verdict.right > 0)

    def attempt(state: tuple[Array, Best]) -> tuple[Array, Best]:
        number, best = state
        found = _run(member, number, logits_fn, batch)
        batch_now = batch._replace(best=best)
        return number + 1, _keep_strongest(rule, found, place, logits_fn, batch_now)

    return jax.lax.while_loop(unfinished, attempt, (jnp.uint32(0), batch.best))[1]


# From the host.


def in_parts(
    attack: AnyAttack, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels
) -> Best:
    """Do as ``strongest`` does, on few images at a time, and on those that still resist."""
    classes = classifier.classes(logits_fn, keys, images)
    make_runs = functools.partial(_runs_in_parts, attack.images_at_once(images))
    return _strongest(attack, keys, logits_fn, images, labels, classes, make_runs)


def _runs_in_parts(
    size: int,
    rule: _Rule,
    member: AnyAttack,
    runs: int,
    place: int,
    logits_fn: LogitsFn,
    batch: _Batch,
) -> Best:
    """Make runs on ``size`` images at a time."""
    best = batch.best
    for number in range(runs):
        resisting = np.flatnonzero(np.asarray(best.verdict.right) > 0)
        for rows in _split(resisting, size, batch.images):
            part = _take(batch._replace(best=best), rows)
            found = run(member.for_images(rows), jnp.uint32(number), logits_fn, part)
            best = _put(best, rows, keep_strongest(rule, found, place, logits_fn, part))
    return best


# Two compiled functions, so that the choice is compiled once for all attacks.


@jax.jit
@fast.in_fast_layout
def run(member: AnyAttack, number: Array, logits_fn: LogitsFn, batch: _Batch) -> tuple[Images, ...]:
    """Make one run of an attack as a compiled function."""
    logits_fn = classifier.checked(logits_fn, batch.keys, batch.images)
    member = classifier.in_dtype(member, batch.images.dtype)
    return jax.lax.stop_gradient(_run(member, number, logits_fn, batch))


@jax.jit
@fast.in_fast_layout
def keep_strongest(
    rule: _Rule,
    found: tuple[Images, ...],
    place: Array | int,
    logits_fn: LogitsFn,
    batch: _Batch,
) -> Best:
    """Return the strongest images so far as a compiled function."""
    logits_fn = classifier.checked(logits_fn, batch.keys, batch.images)
    return _keep_strongest(rule, found, place, logits_fn, batch)


def _check_like(images: Images, adversarial: Any, member: AnyAttack) -> None:
    """Check that the result of a run has the shape and dtype of the images."""
    expected = f"{images.dtype} {images.shape}"
    is_array = isinstance(adversarial, jax.Array | np.ndarray)
    got = f"{adversarial.dtype} {adversarial.shape}" if is_array else repr(type(adversarial))
    if got != expected:
        raise TypeError(
            f"perturb of {type(member).__name__} must return an array like the images, "
            f"{expected}, got {got}"
        )


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
