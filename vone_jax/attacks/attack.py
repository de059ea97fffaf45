"""The base classes of all attacks: frozen dataclasses that are pytrees, with a pure function.

Numbers with a fraction, such as the radius, are leaves, everything else is static. So one compiled
function serves a whole ladder of radii, and an attack is passed to a jitted function like an array.

An attack may consist of several runs: restarts, targets, or other attacks. One rule chooses the
strongest of all images found, with noise draws of its own, see ``losses.Verdict``.
"""

import abc
import dataclasses
import functools
import math
import numbers
import typing
import warnings
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Int

from vone_jax import arguments, dataclass_json, fast, prng
from vone_jax.arguments import NOT_NEGATIVE, Range
from vone_jax.attacks import classifier, losses, norms
from vone_jax.attacks.classifier import (
    AnyImages,
    AnyKey,
    AnyLabels,
    Images,
    Keys,
    Labels,
    LogitsFn,
    select,
)
from vone_jax.names import NORMS

AnyAttack = TypeVar("AnyAttack", bound="Attack")

# Types of fields with the accepted values, see ``arguments.fields``.
Norm = Annotated[str, NORMS]
Estimator = Annotated[str, losses.ESTIMATORS]
Loss = Annotated[str, (*losses.LOSSES,)]

# Noise draws by which the strongest of several runs is chosen.
CHOICE_DRAWS = 20
# How far the norm of a change may exceed the radius, as a share of it: sums of many values round.
BALL_TOLERANCE = 1e-3
# On CPUs, images that are attacked at once have about this many pixels together, so that their
# activations stay in the caches; but they are at least and at most so many.
_PIXELS, _FEWEST, _MOST = 16 * 32 * 32, 4, 32


class Best(NamedTuple):
    """The strongest images so far, the verdicts on them, and the places of their attacks."""

    images: Images
    verdict: losses.Verdict
    winner: Int[Array, " n"]


def _is_leaf(hint: Any) -> bool:
    """Return whether a field holds numbers with a fraction, attacks, or tuples of them."""
    kinds = arguments.union_members(hint)
    inner = [each for kind in kinds if typing.get_origin(kind) is tuple for each in kind.__args__]
    leaves = float, Array, Attack
    return any(isinstance(x, type) and issubclass(x, leaves) for x in (*kinds, *inner))


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
class Attack(abc.ABC):
    """Base of the attacks. A subclass with a method ``perturb`` is an attack.

    It becomes a frozen dataclass and a pytree. Fields that are floats or attacks are its leaves,
    unless their metadata say ``{"leaf": False}``. They are checked when a user makes one, and not
    when JAX rebuilds it.

    Raises:
      ValueError, TypeError: if a field is out of range; the message names it.
    """

    norm: Norm
    eps: float
    eot_samples: int
    loss: Loss
    estimator: Estimator = "mean_loss"
    targeted: bool = False

    # Number of images that a run returns; the strongest is kept.
    choices: ClassVar[int] = 1

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        dataclasses.dataclass(frozen=True)(cls)
        hints = typing.get_type_hints(cls)
        fields = dataclasses.fields(typing.cast(Any, cls))
        names = [f.name for f in fields if f.metadata.get("leaf", _is_leaf(hints[f.name]))]
        static = [f.name for f in fields if f.name not in names]

        def flatten(attack: Any) -> tuple[list[Any], tuple[Any, ...]]:
            leaves = [(jax.tree_util.GetAttrKey(name), getattr(attack, name)) for name in names]
            return leaves, tuple(getattr(attack, name) for name in static)

        def unflatten(values: Any, leaves: Any) -> Any:
            attack = object.__new__(cls)
            for name, value in (
                *zip(names, leaves, strict=True),
                *zip(static, values, strict=True),
            ):
                object.__setattr__(attack, name, value)
            return attack

        jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)

    def __post_init__(self) -> None:
        arguments.fields(self, number=check_radius)
        loss = getattr(self, "loss", None)
        if getattr(self, "norm", None) == "linf":
            check_within_images("eps", self.eps)
        if getattr(self, "targeted", False) and loss in ("dlr", "targeted_dlr"):
            raise ValueError(f'loss "{loss}" is for untargeted attacks; take "margin" for a target')

    @property
    def least_classes(self) -> int:
        """The smallest number of classes for which the attack is defined."""
        return losses.LEAST_CLASSES.get(getattr(self, "loss", ""), 2)

    @property
    def ignores_noise(self) -> bool:
        """True if the attack takes single draws of a classifier with noise for its decisions."""
        return False

    @property
    def choice_draws(self) -> int:
        """Number of noise draws by which the strongest of several images is chosen."""
        return CHOICE_DRAWS

    def members(self, classes: int) -> tuple["Attack", ...]:
        """Return the attacks of which the strongest images count, for a number of classes."""
        del classes
        return (self,)

    def rounds(self, classes: int) -> int:
        """Return the number of independent runs."""
        del classes
        return 1

    def images_at_once(self, images: Images) -> int:
        """Return how many images are attacked in one call of a compiled function."""
        devices = images.sharding.device_set
        if {device.platform for device in devices} != {"cpu"}:
            return len(images)
        fitting = _PIXELS // math.prod(images.shape[1:3])
        return min(max(fitting, _FEWEST), _MOST) * len(devices)

    def __call__(
        self, key: AnyKey, logits_fn: LogitsFn, images: AnyImages, labels: AnyLabels
    ) -> Images:
        """Return adversarial images.

        On CPUs and in ensembles, few images are attacked at a time, and later runs leave out the
        images that have fallen. Results do not depend on that.

        Args:
          key: typed key. With one key, the draws of an example depend on its position. With an
            array of N keys, one per example, a result does not depend on the rest of the batch.
          logits_fn: classifier ``(keys, images) -> logits``; may draw noise from its keys.
          images: images in [0, 1].
          labels: the true classes or, for a targeted attack, the classes to reach.

        Returns:
          Images in [0, 1] within the attack's ball, of the dtype of ``images``. They are constants
          to an outer gradient.

        Raises:
          TypeError, ValueError: for images that are not float32 or float64 (N, H, W, C) in [0, 1],
            labels that are not integers (N,) in range, a key that is not typed, or a classifier
            that does not return logits.
          FloatingPointError: if a gradient or the logits were not finite.
          ValueError: if an attack of your own leaves [0, 1] or its ball.
          TypeError: if it returns another shape or dtype than that of the images.
        """
        return self.choose(key, logits_fn, images, labels).images

    def choose(
        self,
        key: AnyKey,
        logits_fn: LogitsFn,
        images: AnyImages,
        labels: AnyLabels,
        at_once: bool = False,
    ) -> Best:
        """Return adversarial images, the verdicts that chose them, and which member found each.

        The verdicts say nothing where there was no choice. Arguments and errors are those of a
        call. With ``at_once``, all runs attack all images in one compiled function.
        """
        attack, keys, logits_fn, images, labels = self.prepared(key, logits_fn, images, labels)
        arguments = keys, logits_fn, images, labels
        if at_once or _is_traced(attack, arguments) or not images.is_fully_addressable:
            best = _chosen(attack, *arguments)
        else:
            best = _in_parts(attack, *arguments)
        check_result(attack, images, best.images)
        return best

    def prepared(
        self, key: AnyKey, logits_fn: LogitsFn, images: AnyImages, labels: AnyLabels
    ) -> tuple["Attack", Keys, LogitsFn, Images, Labels]:
        """Return the arguments of ``compiled``, after the checks of a call."""
        if jnp.ndim(self.eps):
            raise ValueError(
                f"eps must be one number, got an array of shape {jnp.shape(self.eps)}; "
                f"for several radii, use a loop or jax.vmap over attacks; neither compiles again"
            )
        images, labels = classifier.check_batch(key, logits_fn, images, labels)
        keys = prng.example_keys(key, images.shape[0])

        def traced(leaf: Any) -> Any:
            return prng.trace(leaf, keys, images) if callable(leaf) else leaf

        # Surrogates are functions, too.
        attack, logits_fn = jax.tree.map(traced, (self, logits_fn))
        members = attack.members(classifier.classes(logits_fn, keys, images))
        careless = [each for each in (self, *members) if each.ignores_noise]
        if careless and classifier.has_noise(logits_fn, keys, images):
            warnings.warn(
                f"{type(careless[0]).__name__} decides by single draws of the noise of logits_fn, "
                'and finds too little; take AutoAttack with version="rand", or Square with several '
                "eot_samples",
                stacklevel=4,
            )
        return attack, keys, logits_fn, images, labels

    @abc.abstractmethod
    def perturb(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        """Run the attack: a pure function of checked input, with one key per example."""

    def candidates(
        self, keys: Keys, number: Array, logits_fn: LogitsFn, images: Images, labels: Labels
    ) -> tuple[Images, ...]:
        """Make one of the ``rounds``, and return the images that it found."""
        del number
        return (self.perturb(keys, logits_fn, images, labels),)

    def evaluate(
        self,
        keys: Keys,
        logits_fn: LogitsFn,
        images: Images,
        labels: Labels,
        loss: Callable | None = None,
    ) -> tuple[classifier.Values, classifier.Draws]:
        """Return the averaged loss, which the attack raises, and the logits of the noise draws."""
        logits = classifier.draws(logits_fn, keys, images, self.eot_samples)
        loss = loss or losses.LOSSES[self.loss]
        average = losses.averaged(loss, self.estimator, logits, labels)
        return -average if self.targeted else average, logits

    def gradient(
        self,
        keys: Keys,
        logits_fn: LogitsFn,
        images: Images,
        labels: Labels,
        loss: Callable | None = None,
    ) -> tuple[Images, classifier.Values, classifier.Draws]:
        """Return the gradient of each example's loss, and what ``evaluate`` returns.

        The gradient of an example is NaN where its loss or a logit is not finite. Otherwise an
        operation such as ``where`` could hide that the loss or the logit is not finite.
        """

        def total(images: Images) -> tuple[Array, tuple[Array, Array]]:
            # The examples' losses are summed, so no gradient depends on the size of the batch.
            values, logits = self.evaluate(keys, logits_fn, images, labels, loss)
            return jnp.sum(values), (values, logits)

        slope, (values, logits) = jax.grad(total, has_aux=True)(images)
        finite = jnp.isfinite(values) & jnp.all(jnp.isfinite(logits), axis=(0, 2))
        return select(finite, slope, jnp.nan), values, logits


class Repeated(Attack):
    """Base of attacks of several runs, of which the strongest result is kept for each image.

    Attributes:
      restarts: number of runs with other draws.
    """

    def rounds(self, classes: int) -> int:
        return vars(self).get("restarts", 1)

    def perturb(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        return strongest(self, keys, logits_fn, images, labels).images

    @abc.abstractmethod
    def candidates(
        self, keys: Keys, number: Array, logits_fn: LogitsFn, images: Images, labels: Labels
    ) -> tuple[Images, ...]:
        """Make one of the ``rounds``, and return the images that it found."""


class LossAttack(Attack):
    """Base of the attacks that raise a loss within a ball.

    These fields mean the same in every attack that has them. The docstring of each attack describes
    its other fields, and any addition to these.

    Attributes:
      norm: the norm that bounds perturbations: "linf", "l2" or "l1".
      eps: the radius of the ball in pixel units, for instance 4/255.
      steps: number of steps of a run.
      eot_samples: noise draws per step. The loss is averaged over them before it is differentiated.
      loss: the loss that the attack raises: "cross_entropy", "margin" or "dlr".
      targeted: whether labels are classes to reach rather than to leave. The attack then lowers
        the loss, and reaching the target counts as misclassification. Not allowed with "dlr".
    """

    norm: Norm
    eps: float
    _: dataclasses.KW_ONLY
    eot_samples: int = 1
    loss: Loss = "cross_entropy"
    targeted: bool = False


class GradientAttack(LossAttack):
    """Base of the attacks along the gradient of a loss, see ``LossAttack`` for more fields.

    Attributes:
      estimator: what is averaged over the draws: their losses ("mean_loss"), their logits
        ("mean_logits") or their probabilities ("mean_probability").
    """

    _: dataclasses.KW_ONLY
    estimator: Estimator = "mean_loss"


@jax.jit
@fast.in_fast_layout
def compiled(
    attack: Attack, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels
) -> Images:
    """Run an attack as one compiled function, on checked input, with one key per example."""
    logits_fn = classifier.checked(logits_fn, keys, images)
    adversarial = in_dtype(attack, images.dtype).perturb(keys, logits_fn, images, labels)
    return _alike(attack, adversarial, images)


@jax.jit
@fast.in_fast_layout
def _chosen(
    attack: Attack, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels
) -> Best:
    logits_fn = classifier.checked(logits_fn, keys, images)
    best = strongest(in_dtype(attack, images.dtype), keys, logits_fn, images, labels)
    return best._replace(images=_alike(attack, best.images, images))


@jax.jit
@fast.in_fast_layout
def _run(
    attack: Attack, keys: Keys, number: Array, logits_fn: LogitsFn, images: Images, labels: Labels
) -> tuple[Images, ...]:
    logits_fn = classifier.checked(logits_fn, keys, images)
    attack = in_dtype(attack, images.dtype)
    found = attack.candidates(keys, number, logits_fn, images, labels)
    return tuple(_alike(attack, each, images) for each in found)


def _alike(attack: Attack, adversarial: Any, images: Images) -> Images:
    expected = f"{images.dtype} {images.shape}"
    is_array = isinstance(adversarial, jax.Array | np.ndarray)
    got = f"{adversarial.dtype} {adversarial.shape}" if is_array else type(adversarial).__name__
    if got != expected:
        raise TypeError(
            f"perturb of {type(attack).__name__} must return an array like the images, {expected}, "
            f"got {got}"
        )
    return jax.lax.stop_gradient(adversarial)


def in_dtype(attack: AnyAttack, dtype: DTypeLike) -> AnyAttack:
    """Return an attack whose radius and other single numbers of 64 bits have the images' dtype.

    Where 64 bits are enabled, a radius of NumPy would turn images of 32 bits into 64 within the
    loop of an attack.
    """

    def converted(leaf: Any) -> Any:
        wide = getattr(leaf, "dtype", None) == np.float64 and leaf.ndim == 0
        return jnp.asarray(leaf, dtype) if wide else leaf

    return jax.tree.map(converted, attack)


def _is_traced(*trees: Any) -> bool:
    # Within ``jit`` or ``scan``, results are traced also where no argument is.
    leaves = jax.tree.leaves((trees, _nothing()))
    return any(isinstance(leaf, Tracer) for leaf in leaves)


@jax.jit
def _nothing() -> Array:
    return jnp.int32(0)


# The choice of the strongest image: in one program, and in parts from the host.


class _Plan(NamedTuple):
    """What an attack runs.

    Attributes:
      parts: members with their keys and numbers of rounds.
      compares: whether the members are other attacks; then the image itself is a candidate, too.
      single: whether there is nothing to choose from.
    """

    parts: list[tuple[Attack, Keys, int]]
    compares: bool
    single: bool

    @classmethod
    def of(cls, attack: Attack, keys: Keys, classes: int) -> "_Plan":
        members = attack.members(classes)
        compares = members[0] is not attack
        parts = [
            (member, prng.stream(keys, f"member {place}") if compares else keys, rounds)
            for place, member in enumerate(members)
            for rounds in (member.rounds(classes),)
        ]
        return cls(parts, compares, not compares and parts[0][2] * attack.choices == 1)

    def start(self, images: Images) -> Best:
        """Return the images with verdicts that any other beats."""
        winner = 0 if self.single else len(self.parts)
        winners = jnp.full(images.shape[:1], winner, jnp.int32)
        return Best(images, losses.nothing_yet(images), winners)


def strongest(
    attack: Attack, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels
) -> Best:
    """Run all members of an attack, and keep the strongest images: a pure function.

    A round is made while any image is left that is classified right in a judging draw.
    """
    plan = _Plan.of(attack, keys, jax.eval_shape(logits_fn, keys, images).shape[-1])
    best = plan.start(images)
    if plan.single:
        (found,) = attack.candidates(keys, jnp.uint32(0), logits_fn, images, labels)
        return best._replace(images=found)
    judge_keys = prng.stream(keys, "judge")

    def judge(candidate: Images) -> losses.Verdict:
        return losses.judge(
            logits_fn, judge_keys, candidate, labels, attack.choice_draws, attack.targeted
        )

    if plan.compares:
        best = stronger(best, images, judge(images), len(plan.parts))
    for place, (member, own_keys, rounds) in enumerate(plan.parts):

        def unfinished(state: tuple[Array, Best], rounds: int = rounds) -> Array:
            return (state[0] < rounds) & jnp.any(state[1].verdict.right > 0)

        def attempt(
            state: tuple[Array, Best],
            place: int = place,
            member: Attack = member,
            own_keys: Keys = own_keys,
        ) -> tuple[Array, Best]:
            number, best = state
            found = member.candidates(own_keys, number, logits_fn, images, labels)
            # A map and not several calls, so that the classifier is compiled once.
            verdicts = jax.lax.map(judge, jnp.stack(found))
            for each, candidate in enumerate(found):
                verdict = jax.tree.map(lambda array, each=each: array[each], verdicts)
                best = stronger(best, candidate, verdict, place)
            return number + 1, best

        best = jax.lax.while_loop(unfinished, attempt, (jnp.uint32(0), best))[1]
    return best


def stronger(best: Best, adversarial: Images, verdict: losses.Verdict, place: Array | int) -> Best:
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


def _in_parts(
    attack: Attack, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels
) -> Best:
    """Do as ``strongest`` does, on few images at a time, and on those that have not fallen."""
    plan = _Plan.of(attack, keys, classifier.classes(logits_fn, keys, images))
    best = plan.start(images)
    split = functools.partial(_split, attack, images)
    everything = np.arange(len(images))
    if plan.single:
        for rows in split(everything):
            keys_, images_, labels_ = (_take(array, rows) for array in (keys, images, labels))
            found = compiled(attack, keys_, logits_fn, images_, labels_)
            best = best._replace(images=_put(best.images, rows, found))
        return best
    judge_keys = prng.stream(keys, "judge")

    def judge(best: Best, rows: np.ndarray, candidate: Images, place: int) -> Best:
        draws, targeted = attack.choice_draws, attack.targeted
        part = (_take(judge_keys, rows), _take(labels, rows))
        verdict = _judged(draws, targeted, logits_fn, candidate, *part)
        return _keep_stronger(best, rows, candidate, verdict, place)

    if plan.compares:
        for rows in split(everything):
            best = judge(best, rows, _take(images, rows), len(plan.parts))
    for place, (member, own_keys, rounds) in enumerate(plan.parts):
        for number in range(rounds):
            for rows in split(np.flatnonzero(np.asarray(best.verdict.right) > 0)):
                keys_, images_, labels_ = (_take(x, rows) for x in (own_keys, images, labels))
                found = _run(member, keys_, jnp.uint32(number), logits_fn, images_, labels_)
                for candidate in found:
                    best = judge(best, rows, candidate, place)
    return best


def _split(attack: Attack, images: Images, rows: np.ndarray) -> list[np.ndarray]:
    """Split rows into calls of one size. The last call is filled up with the first row."""
    devices = len(images.sharding.device_set)
    size = math.ceil(min(attack.images_at_once(images), len(images)) / devices) * devices
    padded = np.concatenate([rows, np.repeat(rows[:1], -len(rows) % size)])
    return list(padded.reshape(-1, size))


def _take(array: Array, rows: np.ndarray) -> Array:
    """Return rows of an array with the sharding of the array."""
    if len(rows) == len(array) and (rows == np.arange(len(rows))).all():
        return array
    taken = array[rows]
    # With one device, nothing is placed: a placed array could not be used with arrays on several.
    several = len(array.sharding.device_set) > 1
    return jax.device_put(taken, array.sharding) if several else taken


def _put(array: Array, rows: np.ndarray, part: Array) -> Array:
    return part if len(rows) == len(array) == len(set(rows)) else array.at[rows].set(part)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _judged(
    draws: int, targeted: bool, logits_fn: LogitsFn, images: Images, keys: Keys, labels: Labels
) -> losses.Verdict:
    logits_fn = classifier.checked(logits_fn, keys, images)
    return losses.judge(logits_fn, keys, images, labels, draws, targeted)


@jax.jit
def _keep_stronger(
    best: Best, rows: Array, adversarial: Images, verdict: losses.Verdict, place: Array
) -> Best:
    """Update some rows of the best candidates; a row may be there twice, as padding."""
    part = jax.tree.map(lambda array: array[rows], best)
    update = stronger(part, adversarial, verdict, place)
    return jax.tree.map(lambda array, values: array.at[rows].set(values), best, update)


# Checks of fields and results. Those of the input are in ``classifier``.


def check_radius(name: str, value: Any, within: Range = NOT_NEGATIVE) -> None:
    """Check that ``value`` is a finite number in a range, or an array of such numbers for ``vmap``.

    Traced values pass.

    Raises:
      ValueError: if it is out of range.
      TypeError: if it is no number.
    """
    if not isinstance(value, numbers.Real | Array | np.ndarray):
        raise TypeError(f"{name} must be a number, got {value!r}")
    known = _known(value)
    bad = known[~within.holds(known)]
    if isinstance(value, bool) or bad.size:
        worst = value if isinstance(value, numbers.Real) else float(bad[0])
        raise ValueError(f"{name} must be {within}, got {worst!r}")


def check_within_images(name: str, value: Any) -> None:
    """Check that an L-infinity radius, or each radius of an array, is at most 1.

    Raises:
      ValueError: if it is not.
    """
    largest = np.max(_known(value), initial=0.0)
    if largest > 1:
        meant = f"; did you mean {largest:g}/255?" if largest < 255 else ""
        raise ValueError(
            f"{name} must be at most 1 in norm linf, since images lie in [0, 1], got "
            f"{largest:g}{meant}"
        )


def _known(value: Any) -> np.ndarray:
    """Return numbers as an array, empty for a traced value."""
    return np.empty(0) if isinstance(value, Tracer) else np.atleast_1d(np.asarray(value, float))


def check_result(attack: Attack, images: Images, adversarial: Images) -> None:
    """Check that the result of an attack is finite, in [0, 1] and in its ball.

    An attack of a user may forget a projection, and would then break any network. Traced results
    are not checked.

    Raises:
      FloatingPointError: if a value is not finite; the message names the examples.
      ValueError: if an image leaves [0, 1] or the ball of the attack.
    """
    report = _report(images, adversarial, attack.norm)
    if isinstance(report[0], Tracer) or isinstance(attack.eps, Tracer):
        return
    broken, *numbers = report
    # Another process may hold a part of the images: only single numbers are known to all.
    failed, low, high, largest, eps = jax.device_get((*numbers, attack.eps))
    if failed:
        raise FloatingPointError(_not_finite(broken))
    inside = -classifier.BOX_TOLERANCE <= low and high <= 1 + classifier.BOX_TOLERANCE
    if not inside or largest > eps * (1 + BALL_TOLERANCE) + classifier.BOX_TOLERANCE:
        raise ValueError(
            f"images of {type(attack).__name__} must lie in [0, 1] and in the ball of norm "
            f"{attack.norm} with eps {eps:g}, got values from {low:g} to {high:g} and "
            f"changes of norm up to {largest:g}; clip and project them, see attacks.norms"
        )


def check_finite(adversarial: Images) -> None:
    """Check that images are finite. Traced ones are not checked.

    Raises:
      FloatingPointError: if a value is not finite; the message names the examples.
    """
    broken, failed, *_ = _report(adversarial, adversarial, "")
    if not isinstance(failed, Tracer) and failed:
        raise FloatingPointError(_not_finite(broken))


def _not_finite(broken: Array) -> str:
    positions = jnp.flatnonzero(broken)[:8].tolist()
    return (
        f"the attack met a gradient or logits that are not finite, at batch positions {positions}"
    )


@functools.partial(jax.jit, static_argnames="norm")
def _report(images: Images, adversarial: Images, norm: str) -> tuple[Array, ...]:
    """Return which images are not finite, whether any, the extremes, and the largest change.

    The norm is 0 for a measure of a user that is none of ``NORMS``.
    """
    broken = ~jnp.all(jnp.isfinite(adversarial), axis=(1, 2, 3))
    known = norm in NORMS
    largest = jnp.max(norms.size(adversarial - images, norm)) if known else jnp.zeros(())
    return broken, jnp.any(broken), jnp.min(adversarial), jnp.max(adversarial), largest


def to_json(attack: Attack) -> dict[str, Any]:
    """Return the settings of an attack as a JSON object.

    Returns:
      ``{"type": "PGD", "norm": "linf", "eps": ...}``: the class name and each field, see
      ``dataclass_json.encode``. The surrogate of ``Transfer`` and the mesh of ``InBatches`` are
      left out: they belong to the running program.

    Raises:
      TypeError: if a field holds something else than numbers, text and attacks.
    """
    return dataclass_json.encode(attack)


def from_json(record: Mapping[str, Any], *, surrogate: Any = None, mesh: Any = None) -> Attack:
    """Return the attack that ``to_json`` described; the round trip is exact.

    Args:
      record: the JSON object. A field with a default may be missing.
      surrogate: classifier for a ``Transfer`` in the record, which holds no weights.
      mesh: devices for an ``InBatches`` in the record.

    Raises:
      ValueError: for an unknown attack or field, with the nearest name; for a field that is
        missing, mistyped or out of range.
    """
    return dataclass_json.decode(Attack, record, "attack", {"surrogate": surrogate, "mesh": mesh})
