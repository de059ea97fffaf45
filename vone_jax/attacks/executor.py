"""The executor of all attacks: checks, batches, restarts, the choice of the strongest, the trace.

An attack is one function of a batch, ``run`` or ``search``. Everything else is done here, once:

    checked input -> runs (restarts, targets, members) -> the strongest image -> checked result

Of the images that several runs find, the one is kept that is classified right in the fewest noise
draws and, among equals, has the largest mean margin. No run uses these draws, so a lucky draw does
not beat a classifier with noise. An image that all of them misclassify takes part in no later run.

``at_once`` makes all runs in one program. ``in_batches`` makes each from the host, in batches, and
packs the images that still resist into full ones. Both make the same runs and choices.
"""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import GetAttrKey, Partial
from jaxtyping import Array, Float, Int

from vone_jax import arguments, batches, fast, functions, prng
from vone_jax.attacks import classifier, losses, minimal, norms
from vone_jax.attacks.classifier import (
    AnyImages,
    AnyKey,
    AnyLabels,
    Images,
    Keys,
    Labels,
    Logits,
    LogitsFn,
    Mask,
    Scalar,
    Values,
    where,
)
from vone_jax.progress import Progress

# Noise draws by which the strongest of several images is chosen.
CHOICE_DRAWS = 20
# How far the norm of a change may exceed the radius, as a share of it: sums of many values round.
BALL_TOLERANCE = 1e-3
# On CPUs, images that are attacked at once have about this many pixels together, so that their
# activations stay in the caches; but they are at least and at most so many.
_PIXELS, _FEWEST, _MOST = 16 * 32 * 32, 4, 32

# An ``attack.Attack``; that module builds on this one.
AnyAttack = Any
Tree = TypeVar("Tree")


# The rule of the choice.


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


# The runs of an attack.


class _Runs(NamedTuple):
    """Runs of one attack, or of no attack: the clean images, with which an ensemble begins.

    Attributes:
      place: position of the attack in the ensemble; of the clean images, that behind the last one.
      copies: the attack; of an attack with targets, one for each target. None for clean images.
      keys: keys of the attack.
      count: number of runs, a multiple of the copies.
      numbered: whether each run has keys of its own. An attack that always has one run, or a search
        that numbers its keys itself, draws from the keys of the attack.
    """

    place: int
    copies: tuple[AnyAttack, ...] | None
    keys: Keys
    count: int = 1
    numbered: bool = False


def _runs(attack: AnyAttack, keys: Keys, classes: int) -> list[_Runs]:
    """Return the runs of an attack or of all members of an ensemble."""
    if not attack.is_ensemble:
        return [_runs_of_one(0, attack, keys, classes)]
    members = attack.members(classes)
    if members == (attack,):
        raise TypeError(f"{type(attack).__name__} must define run, search or members")
    return [
        _Runs(len(members), None, keys),
        *(
            _runs_of_one(place, member, prng.stream(keys, f"member {place}"), classes)
            for place, member in enumerate(members)
        ),
    ]


def _runs_of_one(place: int, attack: AnyAttack, keys: Keys, classes: int) -> _Runs:
    copies = (attack,) if attack.is_ensemble else attack.members(classes)
    if attack.is_search:
        return _Runs(place, copies, keys, len(copies))
    numbered = len(copies) > 1 or "restarts" in vars(attack)
    return _Runs(place, copies, keys, attack.restarts * len(copies), numbered)


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
    attack: AnyAttack | None, number: Array | None, logits_fn: LogitsFn, batch: _Batch
) -> tuple[Images, ...]:
    """Make one run, and return the images that it found: a pure function."""
    keys = batch.keys if number is None else prng.fold(batch.keys, number)
    arguments = keys, logits_fn, batch.images, batch.labels
    if attack is None:
        return (batch.images,)
    if attack.is_ensemble:
        found: Any = strongest(attack, *arguments).images
    elif attack.is_search:
        found = minimal.within(attack, minimal.closest(attack, *arguments), batch.images)
    else:
        found = attack.run(*arguments)
    found = found if isinstance(found, tuple) else (found,)
    for adversarial in found:
        _check_like(batch.images, adversarial, attack)
    return found


def _one_of(copies: tuple[AnyAttack, ...] | None, number: Array) -> AnyAttack | None:
    """Return the copy for a run. Copies differ in leaves alone, so all are one program."""
    if copies is None:
        return None

    def chosen(*leaves: Any) -> Any:
        if all(leaf is leaves[0] for leaf in leaves):
            return leaves[0]
        return jnp.stack([jnp.asarray(leaf) for leaf in leaves])[number % len(leaves)]

    return jax.tree.map(chosen, *copies)


def _check_like(images: Images, adversarial: Any, attack: AnyAttack) -> None:
    """Check that the result of a run has the shape and dtype of the images."""
    expected = f"{images.dtype} {images.shape}"
    is_array = isinstance(adversarial, jax.Array | np.ndarray)
    got = f"{adversarial.dtype} {adversarial.shape}" if is_array else repr(type(adversarial))
    if got != expected:
        raise TypeError(
            f"run of {attack.label} must return an array like the images, {expected}, got {got}"
        )


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


# Takes the rule, the runs, the classifier and the batch.
_MakeRuns = Callable[[_Rule, _Runs, LogitsFn, _Batch], Best]


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
    several = list(_runs(attack, keys, classes))
    lone_run = len(several) == 1 and several[0].count == 1
    rule = _Rule(attack.choice_draws, attack.targeted, lone_run)
    choice_keys = prng.stream(keys, "choose")
    best = Best.start(images)
    for runs in several:
        batch = _Batch(runs.keys, choice_keys, images, labels, best)
        best = make_runs(rule, runs, logits_fn, batch)
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


def _runs_at_once(rule: _Rule, runs: _Runs, logits_fn: LogitsFn, batch: _Batch) -> Best:
    """Make runs until all images are misclassified."""
    if rule.lone_run:
        number = jnp.uint32(0)
        found = _run(
            _one_of(runs.copies, number), number if runs.numbered else None, logits_fn, batch
        )
        return _keep_strongest(rule, found, runs.place, logits_fn, batch)

    def unfinished(state: tuple[Array, Best]) -> Array:
        return (state[0] < runs.count) & jnp.any(state[1].verdict.right > 0)

    def attempt(state: tuple[Array, Best]) -> tuple[Array, Best]:
        number, best = state
        found = _run(
            _one_of(runs.copies, number), number if runs.numbered else None, logits_fn, batch
        )
        batch_now = batch._replace(best=best)
        return number + 1, _keep_strongest(rule, found, runs.place, logits_fn, batch_now)

    return jax.lax.while_loop(unfinished, attempt, (jnp.uint32(0), batch.best))[1]


# In batches, from the host.


def in_batches(
    attack: AnyAttack,
    keys: Keys,
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    size: int,
    progress: bool = False,
) -> Best:
    """Do as ``strongest`` does in batches of a size, each of images that still resist."""
    classes = classifier.classes(logits_fn, keys, images)
    total = len(images) * sum(runs.count for runs in _runs(attack, keys, classes))
    with Progress(total, unit="images", shown=progress) as reported:
        make_runs = functools.partial(_runs_in_batches, size, reported.advance)
        return _strongest(attack, keys, logits_fn, images, labels, classes, make_runs)


def _usual_batch_size(images: Images) -> int:
    devices = images.sharding.device_set
    if {device.platform for device in devices} != {"cpu"}:
        return len(images)
    fitting = _PIXELS // math.prod(images.shape[1:3])
    return min(max(fitting, _FEWEST), _MOST) * len(devices)


def _runs_in_batches(
    size: int,
    report: Callable[[int], Any],
    rule: _Rule,
    runs: _Runs,
    logits_fn: LogitsFn,
    batch: _Batch,
) -> Best:
    """Make runs in batches of ``size``."""
    best = batch.best
    for number in range(runs.count):
        resisting = np.flatnonzero(np.asarray(best.verdict.right) > 0)
        attack = None if runs.copies is None else runs.copies[number % len(runs.copies)]
        own_number = jnp.uint32(number) if runs.numbered else None
        done = 0
        for rows in _split(resisting, size, batch.images):
            part = _take(batch._replace(best=best), rows)
            found = run(rows_of(attack, rows), own_number, logits_fn, part)
            best = _put(best, rows, keep_strongest(rule, found, runs.place, logits_fn, part))
            report(min(size, len(batch.images) - done))
            done += size
        report(max(len(batch.images) - done, 0))
    return best


# Two compiled functions, so that the choice is compiled once for all attacks.


@jax.jit
@fast.in_fast_layout
def run(
    attack: AnyAttack | None, number: Array | None, logits_fn: LogitsFn, batch: _Batch
) -> tuple[Images, ...]:
    """Make one run of an attack as a compiled function."""
    logits_fn = classifier.checked(logits_fn, batch.keys, batch.images)
    attack = classifier.in_dtype(attack, batch.images.dtype)
    return jax.lax.stop_gradient(_run(attack, number, logits_fn, batch))


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


def rows_of(attack: Tree, rows: np.ndarray) -> Tree:
    """Return an attack, or a tree of attacks, on some rows of a batch: with their radii."""
    return _with_radii(attack, lambda radii: radii[rows])


def _with_radii(attack: Tree, change: Callable[[Array], Array]) -> Tree:
    """Return attacks with their radii changed where there is one for each image."""

    def changed(path: Any, leaf: Any) -> Any:
        own = path[-1] == GetAttrKey("eps") and GetAttrKey("surrogate") not in path
        return change(leaf) if own and jnp.ndim(leaf) == 1 else leaf

    return jax.tree_util.tree_map_with_path(changed, attack)


def _split(rows: np.ndarray, size: int, images: Images) -> list[np.ndarray]:
    """Split rows into batches of one size. The last batch is filled up with its first row.

    If all images fit into one batch, each keeps its place.
    """
    if len(rows) and size >= len(images):
        return [np.arange(len(images), dtype=np.int32)]
    devices = len(images.sharding.device_set)
    size = math.ceil(size / devices) * devices
    padded = np.concatenate([rows, np.repeat(rows[:1], -len(rows) % size)]).astype(np.int32)
    return list(padded.reshape(-1, size))


def _take(tree: Tree, rows: np.ndarray) -> Tree:
    """Return rows of arrays with the sharding of the arrays."""

    def taken(array: Array) -> Array:
        if _is_all(rows, len(array)):
            return array
        part = _rows(array, rows)
        # With one device, nothing is placed: a placed array could not be used with others.
        several = len(array.sharding.device_set) > 1
        return jax.device_put(part, array.sharding) if several else part

    return jax.tree.map(taken, tree)


def _is_all(rows: np.ndarray, count: int) -> bool:
    return len(rows) == count and bool((rows == np.arange(count)).all())


@jax.jit
def _rows(array: Array, rows: Array) -> Array:
    return array[rows]


def _put(best: Best, rows: np.ndarray, part: Best) -> Best:
    """Update rows; a row may be there twice, as padding."""
    return part if _is_all(rows, len(best.images)) else _with_rows(best, rows, part)


@jax.jit
def _with_rows(best: Best, rows: Array, part: Best) -> Best:
    return jax.tree.map(lambda array, values: array.at[rows].set(values), best, part)


# What a user calls.


def choose(
    attack: AnyAttack,
    key: AnyKey,
    logits_fn: LogitsFn,
    images: AnyImages,
    labels: AnyLabels,
    batch_size: int | None = None,
    progress: bool = False,
) -> Best:
    """Make an attack on input that is checked; see ``Attack.choose``."""
    if batch_size is not None:
        arguments.count("batch_size", batch_size)
    attack, keys, function, checked, indices = prepared(attack, key, logits_fn, images, labels)
    given = keys, function, checked, indices
    if functions.is_traced(attack, given) or not checked.is_fully_addressable:
        best = at_once(attack, *given)
    else:
        size = batch_size or _usual_batch_size(checked)
        output_keys = prng.stream(keys, "outputs")[:size]
        best = in_batches(attack, *given, size, progress)
        _warn_of_probabilities(output_keys, function, checked[:size])
    check_result(attack, checked, best.images)
    return best


def prepared(
    attack: AnyAttack, key: AnyKey, logits_fn: LogitsFn, images: AnyImages, labels: AnyLabels
) -> tuple[AnyAttack, Keys, LogitsFn, Images, Labels]:
    """Return the arguments of ``at_once``, after the checks of a call."""
    logits_fn, images, labels = classifier.check_batch(key, logits_fn, images, labels)
    if jnp.ndim(attack.eps) and jnp.shape(attack.eps) != labels.shape:
        raise ValueError(
            f"eps must be one number, or one for each image, shape {labels.shape}, got an "
            f"array of shape {jnp.shape(attack.eps)}; for several radii, use a loop or jax.vmap "
            f"over attacks; neither compiles again"
        )
    keys = prng.example_keys(key, images.shape[0])

    def checked(leaf: Any) -> Any:
        # A function among the leaves is a surrogate.
        surrogate: Any = leaf
        return classifier.check_batch(key, surrogate, images, labels)[0] if callable(leaf) else leaf

    attack = jax.tree.map(checked, attack, is_leaf=lambda x: callable(x) and not is_attack(x))
    attack = _with_radii(attack, lambda radii: jnp.asarray(radii, images.dtype))
    # Raises for a number of classes that does not fit.
    classes = classifier.classes(logits_fn, keys, images)
    attack.members(classes)
    _warn_of_single_draws(attack, classes, logits_fn, keys, images)
    return attack, keys, logits_fn, images, labels


def is_attack(value: Any) -> bool:
    """Return whether a value is an ``Attack``, which is a callable too."""
    return hasattr(type(value), "is_ensemble")


def parts(attack: AnyAttack, classes: int) -> list[AnyAttack]:
    """Return the attacks that an attack runs in the end: the attack itself, unless it holds some.

    ``classes`` is the number of classes, which may decide how many members an ensemble has.
    """
    return [part for part, _ in _parts(attack, None, classes)]


def _parts(attack: AnyAttack, logits_fn: Any, classes: int) -> list[tuple[AnyAttack, Any]]:
    """Return the attacks that an attack runs in the end, each with the classifier that it sees."""
    logits_fn = vars(attack).get("surrogate", logits_fn)
    held = attack.members(classes) if attack.is_ensemble else (vars(attack).get("attack"),)
    held = [each for each in held if each is not attack]
    inner = [part for each in held if is_attack(each) for part in _parts(each, logits_fn, classes)]
    return inner or [(attack, logits_fn)]


def _warn_of_single_draws(
    attack: AnyAttack, classes: int, logits_fn: LogitsFn, keys: Keys, images: Images
) -> None:
    for part, seen in _parts(attack, logits_fn, classes):
        if part.decides_by_draws and part.eot_samples == 1:
            if classifier.has_noise(seen, keys, images):
                own, other = type(attack).__name__, type(part).__name__
                name = own if own == other else f"{own} (its {other})"
                warnings.warn(
                    f"{name} decides by single draws of the classifier's noise, so it may stop at "
                    "images that are misclassified by luck; take eot_samples=10 or more, or "
                    'AutoAttack with version="rand"',
                    stacklevel=5,
                )
                return


# Classifiers that are known to return logits.
_known = functions.ByObject()


def _warn_of_probabilities(keys: Keys, logits_fn: LogitsFn, images: Images) -> None:
    """Warn of a classifier whose outputs are probabilities, which make attacks weak.

    A classifier is asked once, about the first batch of its first attack.
    """
    kept = _known.of(getattr(logits_fn, "function", logits_fn))
    if "probabilities" not in kept:
        kept["probabilities"] = bool(_are_probabilities(logits_fn, keys, images))
    if kept["probabilities"]:
        warnings.warn(
            "logits_fn returns probabilities, rows that sum to one. Their gradients vanish "
            "where a network is sure, so attacks are weak and accuracies too high; return the "
            "logits before the softmax, or logarithms of the probabilities",
            stacklevel=5,
        )


@jax.jit
def _are_probabilities(logits_fn: LogitsFn, keys: Keys, images: Images) -> Array:
    outputs = classifier.checked(logits_fn, keys, images)(keys, images)
    sums = jnp.abs(jnp.sum(outputs, axis=-1) - 1) < 1e-3
    return jnp.all(sums) & jnp.all(outputs >= 0)


def trace(
    attack: AnyAttack, key: AnyKey, logits_fn: LogitsFn, images: AnyImages, labels: AnyLabels
) -> "Trace":
    """Make an attack, and return its course; see ``Attack.trace``."""
    attack, keys, logits_fn, images, labels = prepared(attack, key, logits_fn, images, labels)
    logits: list[np.ndarray] = []
    surrogate = vars(attack).get("surrogate")
    if surrogate is None:
        logits_fn = _recorded(logits, logits_fn)
    else:
        attack = dataclasses.replace(attack, surrogate=_recorded(logits, surrogate))
    best = at_once(attack, keys, logits_fn, images, labels)
    check_result(attack, images, best.images)
    own = vars(attack).get("attack", attack)
    loss = vars(own).get("loss", "margin")
    function = losses.of("margin" if loss == "targeted_dlr" else loss)
    jax.effects_barrier()
    several = [jnp.reshape(each, (-1, *each.shape[-2:])) for each in logits]
    means = [jnp.mean(jax.vmap(function, (0, None))(draws, labels), axis=0) for draws in several]
    found = np.stack(means) if means else np.empty((0, len(labels)), images.dtype)
    return Trace(best.images, found, sum(len(draws) for draws in several))


class Trace(NamedTuple):
    """What an attack evaluated, in order.

    Attributes:
      images: the adversarial images, those of a call.
      losses: the loss of each evaluation and image: the mean over the noise draws of that
        evaluation. For ``PGD`` these are the losses at the beginning of each step. Other attacks
        also evaluate the clean image, or choose among several images at the end.
      queries: forward passes through the classifier for each image, a pass for each noise draw.
    """

    images: Images
    losses: Float[np.ndarray, "evaluations n"]
    queries: int


def _recorded(kept: list[np.ndarray], logits_fn: LogitsFn) -> LogitsFn:
    """Return the classifier, a pytree, whose logits are kept while a compiled attack runs."""

    @jax.custom_batching.custom_vmap
    def record(logits: Array) -> Array:
        jax.debug.callback(kept.append, logits, ordered=True)
        return logits

    @record.def_vmap
    def _(size: int, is_batched: list[bool], logits: Array) -> tuple[Array, bool]:
        # The draws of an evaluation are a ``vmap``, and belong together.
        return record(logits), True

    def watched(logits_fn: LogitsFn, keys: Keys, images: Images) -> Logits:
        logits = logits_fn(keys, images)
        record(jax.lax.stop_gradient(logits))
        return logits

    return Partial(watched, logits_fn)


# The check of results. That of the input is in ``classifier``.


def check_result(attack: AnyAttack, images: Images, adversarial: Images) -> None:
    """Check that the result of an attack is finite, in [0, 1] and in its ball.

    An attack of a user may forget a projection, and would then break any network. Traced results
    are not checked.

    Raises:
      FloatingPointError: if a value is not finite; the message names the examples.
      ValueError: if an image leaves [0, 1] or the ball of the attack.
    """
    report = _report(images, adversarial, attack.norm, attack.eps)
    if isinstance(report[0], Tracer):
        return
    check_finite(adversarial)
    # Another process may hold a part of the images: only single numbers are known to all.
    low, high, excess = jax.device_get(report)
    inside = -batches.BOX_TOLERANCE <= low and high <= 1 + batches.BOX_TOLERANCE
    if not inside or excess > 0:
        raise ValueError(
            f"images of {attack.label} must lie in [0, 1] and in the ball of norm "
            f"{attack.norm} and radius eps, got values from {low:g} to {high:g} and changes of "
            f"norm up to eps + {max(excess, 0.0):g}; clip and project them, see attacks.norms"
        )


@functools.partial(jax.jit, static_argnames="norm")
def _report(
    images: Images, adversarial: Images, norm: norms.AnyNorm, eps: Scalar
) -> tuple[Array, ...]:
    """Return the extremes of images, and the largest change beyond the radius, at least 0.

    It is 0 within the tolerance, and for the name of a measure that is not known.
    """
    excess = jnp.zeros(())
    if norm in norms.NAMES or not isinstance(norm, str):
        allowed = jnp.asarray(eps, images.dtype) * (1 + BALL_TOLERANCE) + batches.BOX_TOLERANCE
        excess = jnp.max(norms.size(adversarial - images, norm) - allowed, initial=0.0)
    return jnp.min(adversarial), jnp.max(adversarial), excess


def check_finite(adversarial: Images) -> None:
    """Check that images are finite. Traced ones are not checked.

    Raises:
      FloatingPointError: if a value is not finite; the message names the examples.
    """
    bad, failed = _not_finite(adversarial)
    if not isinstance(failed, Tracer) and jax.device_get(failed):
        raise FloatingPointError(
            "the attack met a gradient or logits that are not finite, at batch positions "
            f"{jnp.flatnonzero(bad)[:8].tolist()}"
        )


@jax.jit
def _not_finite(images: Images) -> tuple[Array, Array]:
    rows = ~jnp.all(jnp.isfinite(images), axis=(1, 2, 3))
    return rows, jnp.any(rows)
