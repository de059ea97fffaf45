"""The one base class of all attacks.

An attack writes **one** method: ``run``, a pure function of a batch. An attack that looks for the
smallest change writes ``search`` in its place, and an ensemble ``members``. The executor does the
rest: checks, batches, restarts, the choice of the strongest image, the trace. See ``executor``.

    @dataclasses.dataclass(frozen=True)
    class Nudge(attacks.Attack):
        norm: str
        eps: float
        share: float = 1.0

        def run(self, keys, logits_fn, images, labels):
            slope, _, _ = self.gradient(keys, logits_fn, images, labels)
            delta = self.share * self.eps * attacks.norms.of(self.norm).direction(slope)
            return jnp.clip(images + delta, 0.0, 1.0)
"""

import dataclasses
import numbers
import typing
from collections.abc import Callable, Mapping
from copy import copy
from typing import Annotated, Any, ClassVar, NoReturn, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vone_jax import arguments, dataclass_json
from vone_jax.arguments import NOT_NEGATIVE, Range
from vone_jax.attacks import classifier, executor, losses, minimal, norms
from vone_jax.attacks.classifier import (
    AnyImages,
    AnyKey,
    AnyLabels,
    Images,
    Keys,
    Labels,
    LogitsFn,
    where,
)
from vone_jax.attacks.executor import Best, Trace
from vone_jax.attacks.losses import AnyLogits, AnyValues
from vone_jax.attacks.minimal import Closest, MinimalPerturbation
from vone_jax.names import NORMS

AnyAttack = TypeVar("AnyAttack", bound="Attack")

# A plain function that is taken for an attack: ``(keys, logits_fn, images, labels) -> images``.
AttackFn = Callable[..., Any]

# Types of fields with the accepted values, see ``arguments.fields``.
Norm = Annotated[str, NORMS]
# For attacks that also take a norm of one's own, see ``norms.Norm``.
AnyNorm = Annotated[str, (*norms.NAMES,)] | norms.Norm
Estimator = Annotated[str, losses.ESTIMATORS]
Loss = Annotated[str, (*losses.LOSSES,)] | losses.LossFn


def _is_leaf(hint: Any) -> bool:
    """Return whether a field holds numbers with a fraction, attacks, or tuples of them."""
    kinds = arguments.union_members(hint)
    items = [each for kind in kinds if typing.get_origin(kind) is tuple for each in kind.__args__]
    inner = [kind for each in items for kind in arguments.union_members(each)]
    leaves = float, Array, Attack
    return any(isinstance(x, type) and issubclass(x, leaves) for x in (*kinds, *inner))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Array | np.ndarray) or isinstance(other, Array | np.ndarray):
        return one is other or (jnp.shape(one) == jnp.shape(other) and bool(np.all(one == other)))
    return bool(one == other)


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(dataclasses.field,))
class Attack:
    """An attack: a frozen dataclass and a pytree, called as a pure function.

    A subclass writes ``run``, ``search`` or ``members``, and its fields. It need not be decorated,
    and may be. Fields that are floats or attacks are leaves of the pytree, unless their metadata
    say ``{"leaf": False}``: one compiled function serves a whole ladder of radii. Everything else
    is static. Fields are checked when a user makes an attack, and not when JAX rebuilds it.

    The attributes mean the same in every attack that has them.

    Attributes:
      norm: the norm that bounds perturbations, "linf", "l2", "l1", "l0", or an object, see
        ``norms``.
      eps: the radius of the ball in pixel units, for instance 4/255; or an array (N,), one radius
        for each image. A search does not need it, but a call keeps to it.
      steps: number of steps of a run.
      restarts: number of runs with other keys, of which the strongest result is kept. An attack
        that declares it is run again by the executor.
      eot_samples: noise draws per step, decision or gradient.
      loss: the loss that the attack raises: "cross_entropy", "margin", "dlr", or a function
        ``(logits, labels) -> losses`` of shapes (N, classes), (N,) and (N,). A function has no
        JSON form, so ``to_json`` refuses it.
      estimator: what is averaged over the draws before it is differentiated: their losses
        ("mean_loss"), their logits ("mean_logits") or their probabilities ("mean_probability").
      targeted: whether labels are classes to reach rather than to leave. The attack then lowers
        the loss, and reaching the target counts as misclassification. Not allowed with "dlr".
      choice_draws: noise draws by which the strongest of several images is chosen. No run uses
        them.

    Raises:
      ValueError, TypeError: if a field is out of range; the message names it.
    """

    norm: norms.AnyNorm
    eps: float
    # Of an attack without these fields. They are no fields here: Attack is no dataclass itself.
    restarts: int = 1
    eot_samples: int = 1
    loss: Any = "cross_entropy"
    estimator: str = "mean_loss"
    targeted: bool = False
    choice_draws: int = executor.CHOICE_DRAWS
    # Margin in logits beyond which an image counts as adversarial in a search.
    confidence: float = 0.0

    # The attack in tables and names of files. Default: the name of the class.
    words: ClassVar[str] = ""
    # Whether the attack takes a misclassification in its noise draws for a success.
    decides_by_draws: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        given = {name: copy(v) for name, v in vars(cls).items() if _is_field(v)}
        dataclasses.dataclass(frozen=True, eq=False)(cls)
        # A decorated class is made a dataclass twice. The second time needs what the first found,
        # and must find no method of the first that it would have to replace.
        for name, field in given.items():
            setattr(cls, name, field)
        del cls.__setattr__, cls.__delattr__
        for name in ("__eq__", "__hash__"):
            if name not in vars(cls):
                setattr(cls, name, getattr(cls, name))
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

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def _values(self) -> tuple[Any, ...]:
        fields = dataclasses.fields(typing.cast(Any, self))
        return tuple(getattr(self, field.name) for field in fields if field.compare)

    def __eq__(self, other: object) -> bool:
        """Return whether an attack has the same class and fields; arrays have the same values."""
        if type(other) is not type(self):
            return NotImplemented
        return all(map(_same, self._values(), typing.cast(Attack, other)._values()))

    def __hash__(self) -> int:
        return hash((type(self), *self._values()))

    def __post_init__(self) -> None:
        if "norm" in vars(self):
            object.__setattr__(self, "norm", norms.short(self.norm))
        arguments.fields(self, number=check_radius)
        if getattr(self, "norm", None) == "linf":
            for name in ("eps", "step_size"):
                if (value := vars(self).get(name)) is not None:
                    check_within_images(name, value)
        if self.targeted and self.loss in ("dlr", "targeted_dlr"):
            raise ValueError(
                f'loss "{self.loss}" is for untargeted attacks; take "margin" for a target'
            )

    # What an attack writes: one of these three.

    def run(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Any:
        """Return adversarial images (N, H, W, C), or a tuple of candidates to choose from.

        A pure function of checked input: images in [0, 1], labels in range, one key for each
        example, and a classifier ``(keys, images) -> logits``.
        """
        raise NotImplementedError

    def search(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Closest:
        """Return the closest adversarial images of a search, with the arguments of ``run``.

        ``Closest.start`` is its beginning, ``closer`` compares, and the executor confirms.
        """
        raise NotImplementedError

    def members(self, classes: int) -> tuple["Attack", ...]:
        """Return the attacks of which the strongest images count, for a number of classes.

        An ensemble has no ``run`` and no ``search``. Members of an attack with one of them are
        copies of itself that differ in leaves alone, such as the number of a target.
        """
        del classes
        return (self,)

    # What an attack may say.

    def doubts(self, noisy: bool) -> tuple[str, ...]:
        """Return why accuracies under the attack may be far too high, a sentence each.

        Evaluations warn with them. docs/truth.md has what attacks leave on networks whose worst
        images are known.

        Args:
          noisy: whether the decisions of the classifier differ between noise draws.
        """
        if noisy and self.is_search:
            return (
                "The attack looks for the smallest change and stops at the boundary, where half "
                "of the noise draws are right. The accuracy is an upper bound: take PGD or APGD.",
            )
        return ()

    # What there is to be called in them.

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
        loss = loss or losses.of(self.loss)
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
        return where(finite, slope, jnp.nan), values, logits

    def margin(self, logits: AnyLogits, labels: Labels) -> AnyValues:
        """Return the margin of logits: positive for an adversarial image."""
        margin = losses.margin(logits, labels)
        return (-margin if self.targeted else margin) - self.confidence

    def closer(
        self,
        closest: Closest,
        candidates: Images,
        logits: classifier.Draws,
        images: Images,
        labels: Labels,
    ) -> tuple[Closest, classifier.Mask]:
        """Return the closest images so far, and True for the candidates that are adversarial.

        The logits (draws, N, classes) are those of the candidates.
        """
        return minimal.closer(self, closest, candidates, logits, images, labels)

    # What a user calls.

    def __call__(
        self,
        key: AnyKey,
        logits_fn: LogitsFn,
        images: AnyImages,
        labels: AnyLabels,
        *,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> Images:
        """Return adversarial images.

        Args:
          key: typed key. With one key, the draws of an example depend on its position. With an
            array of N keys, one per example, a result does not depend on the rest of the batch.
          logits_fn: classifier ``(keys, images) -> logits``; may draw noise from its keys.
          images: images in [0, 1].
          labels: the true classes or, for a targeted attack, the classes to reach.
          batch_size: images at a time; later runs are packed with the images that still resist.
            Results do not depend on it. Default: few on CPUs, and all on other devices. Within
            transformations, all images are attacked at once.
          progress: whether to report the progress on stderr.

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
        return executor.choose(self, key, logits_fn, images, labels, batch_size, progress).images

    def choose(
        self,
        key: AnyKey,
        logits_fn: LogitsFn,
        images: AnyImages,
        labels: AnyLabels,
        *,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> Best:
        """Return adversarial images, the verdicts that chose them, and which member found each.

        The verdicts say nothing where there was no choice. Arguments and errors are those of a
        call.
        """
        return executor.choose(self, key, logits_fn, images, labels, batch_size, progress)

    def perturb(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        """Return adversarial images as a pure function of checked input, with one key per example.

        It is for functions of your own under ``jit``, and a gradient goes through it.
        """
        return executor.strongest(self, keys, logits_fn, images, labels).images

    def minimal(
        self, key: AnyKey, logits_fn: LogitsFn, images: AnyImages, labels: AnyLabels
    ) -> MinimalPerturbation:
        """Return the closest adversarial images of a search, whatever their distance.

        Arguments and errors are those of a call.

        Raises:
          TypeError: for an attack that is no search.
        """
        if not self.is_search:
            raise TypeError(f"{type(self).__name__} does not search for the smallest change")
        attack, *given = executor.prepared(self, key, logits_fn, images, labels)
        result = minimal.compiled(attack, *given)
        executor.check_finite(result.images)
        return result

    def trace(
        self, key: AnyKey, logits_fn: LogitsFn, images: AnyImages, labels: AnyLabels
    ) -> Trace:
        """Make the attack, and return its loss at each evaluation and the number of queries.

        All images are attacked at once, in a program of its own, which is compiled for each trace.
        The loss is that of the attack, or the margin for an attack that has none or
        "targeted_dlr". Arguments and errors are those of a call, outside of transformations.
        """
        return executor.trace(self, key, logits_fn, images, labels)

    # What the executor asks.

    @property
    def label(self) -> str:
        """The attack in words, such as "PGD" or "strongest of PGD, APGD"."""
        return self.words or type(self).__name__

    @property
    def is_search(self) -> bool:
        """Whether the attack looks for the smallest change."""
        return type(self).search is not Attack.search

    @property
    def is_ensemble(self) -> bool:
        """Whether the attack runs its members alone."""
        return type(self).run is Attack.run and not self.is_search

    @property
    def least_classes(self) -> int:
        """The smallest number of classes for which the attack is defined."""
        return losses.LEAST_CLASSES.get(self.loss, 2) if isinstance(self.loss, str) else 2


def _is_field(value: Any) -> bool:
    return isinstance(value, dataclasses.Field)


@dataclasses.dataclass(frozen=True)
class Function(Attack):
    """A plain function ``(keys, logits_fn, images, labels) -> images`` as an attack, see ``of``.

    Attributes:
      function: a pure function, as ``Attack.run``.
      norm, eps: the ball of its results. Default: that of all images.
    """

    function: Callable[..., Any]
    norm: AnyNorm = "linf"
    eps: float = 1.0

    @property
    def words(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The name of the function."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    def run(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Any:
        return self.function(keys, logits_fn, images, labels)


def of(attack: Any, **ball: Any) -> Attack:
    """Return an attack as it is, and a plain function as an attack in a ball.

    Args:
      attack: an attack or a function ``(keys, logits_fn, images, labels) -> images``.
      **ball: ``norm`` and ``eps`` of a function. Default: the ball of all images.

    Raises:
      ValueError: if ``attack`` is neither.
    """
    if isinstance(attack, Attack):
        return attack
    if not callable(attack) or isinstance(attack, type):
        raise ValueError(
            "attack must be an attack, or a function (keys, logits_fn, images, labels) -> images, "
            f"got {attack!r:.80}"
        )
    return Function(attack, **ball)


# Checks of fields.


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
    """Check that a length in L-infinity, or each of an array, is at most 1. Traced values pass.

    Raises:
      ValueError: if it is not.
    """
    arguments.within_images(name, float(np.max(_known(value), initial=0.0)), "linf")


def _known(value: Any) -> np.ndarray:
    """Return numbers as an array, empty for a traced value."""
    return np.empty(0) if isinstance(value, Tracer) else np.atleast_1d(np.asarray(value, float))


def to_json(attack: Attack) -> dict[str, Any]:
    """Return the settings of an attack as a JSON object.

    Returns:
      ``{"type": "PGD", "norm": "linf", "eps": ...}``: the class name and each field, see
      ``dataclass_json.encode``. The surrogate of ``Transfer`` is left out: it
      belongs to the running program.

    Raises:
      TypeError: if a field holds something else than numbers, text and attacks.
    """
    return dataclass_json.encode(attack)


def from_json(record: Mapping[str, Any], *, surrogate: Any = None) -> Attack:
    """Return the attack that ``to_json`` described; the round trip is exact.

    Args:
      record: the JSON object. A field with a default may be missing.
      surrogate: classifier for a ``Transfer`` in the record, which holds no weights.

    Raises:
      ValueError: for an unknown attack or field, with the nearest name; for a field that is
        missing, mistyped or out of range.
    """
    return dataclass_json.decode(Attack, record, "attack", {"surrogate": surrogate})
