"""The base classes of all attacks: frozen dataclasses that are pytrees, with a pure function.

Numbers with a fraction, such as the radius, are leaves, everything else is static. So one compiled
function serves a whole ladder of radii, and an attack is passed to a jitted function like an array.

An attack may consist of several runs: restarts, targets, or other attacks. One rule chooses the
strongest of all images found, see ``strongest.py``.
"""

import abc
import dataclasses
import functools
import math
import numbers
import operator
import typing
import warnings
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vone_jax import arguments, batches, dataclass_json, fingerprint, prng
from vone_jax.arguments import NOT_NEGATIVE, Range
from vone_jax.attacks import classifier, losses, norms, strongest
from vone_jax.attacks.classifier import (
    AnyImages,
    AnyKey,
    AnyLabels,
    Images,
    Keys,
    Labels,
    LogitsFn,
    Scalar,
    where,
)
from vone_jax.attacks.trace import Recorder, Trace
from vone_jax.names import NORMS

AnyAttack = TypeVar("AnyAttack", bound="Attack")

# Types of fields with the accepted values, see ``arguments.fields``.
Norm = Annotated[str, NORMS]
# For attacks that also take a norm of one's own, see ``norms.Geometry``.
AnyNorm = Norm | Callable[..., Any]
Estimator = Annotated[str, losses.ESTIMATORS]
Loss = Annotated[str, (*losses.LOSSES,)] | losses.LossFn

# How far the norm of a change may exceed the radius, as a share of it: sums of many values round.
BALL_TOLERANCE = 1e-3
# On CPUs, images that are attacked at once have about this many pixels together, so that their
# activations stay in the caches; but they are at least and at most so many.
_PIXELS, _FEWEST, _MOST = 16 * 32 * 32, 4, 32


def _is_leaf(hint: Any) -> bool:
    """Return whether a field holds numbers with a fraction, attacks, or tuples of them."""
    kinds = arguments.union_members(hint)
    inner = [each for kind in kinds if typing.get_origin(kind) is tuple for each in kind.__args__]
    leaves = float, Array, Attack
    return any(isinstance(x, type) and issubclass(x, leaves) for x in (*kinds, *inner))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Array | np.ndarray) or isinstance(other, Array | np.ndarray):
        return one is other or (jnp.shape(one) == jnp.shape(other) and bool(np.all(one == other)))
    return bool(one == other)


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(dataclasses.field,))
class Attack(abc.ABC):
    """Base of the attacks. A subclass writes one of three methods.

    ``perturb`` is an attack of one run. ``run``, of a ``Repeated`` attack, is one of several runs,
    of which the strongest result is kept. ``search``, of a ``MinimalNormAttack``, looks for the
    closest adversarial image.

    A subclass becomes a frozen dataclass and a pytree. Fields that are floats or attacks are its
    leaves, unless their metadata say ``{"leaf": False}``. They are checked when a user makes one,
    and not when JAX rebuilds it.

    Raises:
      ValueError, TypeError: if a field is out of range; the message names it.
    """

    norm: Norm
    eps: float
    eot_samples: int
    loss: Loss
    estimator: Estimator = "mean_loss"
    targeted: bool = False

    # The attack in tables and names of files. Default: the name of the class.
    words: ClassVar[str] = ""
    # Whether the attack takes a misclassification in its noise draws for a success.
    decides_by_draws: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        dataclasses.dataclass(frozen=True, eq=False)(cls)
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
        arguments.fields(self, number=check_radius)
        loss = getattr(self, "loss", None)
        if getattr(self, "norm", None) == "linf":
            for name in ("eps", "step_size"):
                if (value := getattr(self, name, None)) is not None:
                    check_within_images(name, value)
        if getattr(self, "targeted", False) and loss in ("dlr", "targeted_dlr"):
            raise ValueError(f'loss "{loss}" is for untargeted attacks; take "margin" for a target')

    @property
    def least_classes(self) -> int:
        """The smallest number of classes for which the attack is defined."""
        return losses.LEAST_CLASSES.get(getattr(self, "loss", ""), 2)

    def unaveraged(self, logits_fn: LogitsFn) -> list[tuple["Attack", LogitsFn]]:
        """Return the attacks that decide by single draws, each with the classifier that it sees.

        If that classifier has noise, a lucky draw counts as a misclassification.
        """
        return [(self, logits_fn)] if self.decides_by_draws and self.eot_samples == 1 else []

    @property
    def choice_draws(self) -> int:
        """Number of noise draws by which the strongest of several images is chosen."""
        return strongest.CHOICE_DRAWS

    def members(self, classes: int) -> tuple["Attack", ...]:
        """Return the attacks of which the strongest images count, for a number of classes."""
        del classes
        return (self,)

    def runs(self, classes: int) -> int:
        """Return the number of runs, for a number of classes."""
        del classes
        return 1

    def for_images(self, rows: Array | np.ndarray) -> "Attack":
        """Return the attack on some rows of a batch: with their radii, if each image has one."""
        return self._with_radii(lambda radii: radii[rows])

    def _with_radii(self, change: Callable[[Array], Array]) -> "Attack":
        """Return the attack with radii per image changed, also in the attacks that it runs."""

        def changed(value: Any) -> Any:
            if isinstance(value, Attack):
                return value._with_radii(change)
            if not isinstance(value, tuple):
                return value
            items = tuple(map(changed, value))
            return items if any(map(operator.is_not, items, value)) else value

        attack = typing.cast(Any, self)
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(attack)}
        new = {name: changed(value) for name, value in fields.items()}
        if jnp.ndim(new.get("eps", 0.0)) == 1:
            new["eps"] = change(new["eps"])
        differ = any(new[name] is not fields[name] for name in fields)
        return dataclasses.replace(attack, **new) if differ else self

    def with_checked_surrogates(self, key: AnyKey, images: Images, labels: AnyLabels) -> "Attack":
        """Return the attack after the checks of the classifiers from which it carries images."""
        return self

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
        images that are misclassified. Results do not depend on that.

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
    ) -> strongest.Best:
        """Return adversarial images, the verdicts that chose them, and which member found each.

        The verdicts say nothing where there was no choice. Arguments and errors are those of a
        call. With ``at_once``, all runs attack all images in one compiled function.
        """
        attack, keys, logits_fn, images, labels = self.prepared(key, logits_fn, images, labels)
        arguments = keys, logits_fn, images, labels
        if at_once or fingerprint.is_traced(attack, arguments) or not images.is_fully_addressable:
            best = strongest.at_once(attack, *arguments)
        else:
            best = strongest.in_parts(attack, *arguments)
        check_result(attack, images, best.images)
        return best

    def trace(
        self, key: AnyKey, logits_fn: LogitsFn, images: AnyImages, labels: AnyLabels
    ) -> Trace:
        """Make the attack, and return its loss at each evaluation and the number of queries.

        All images are attacked at once, in a program of its own, which is compiled for each trace.
        The loss is that of the attack, or the margin for an attack that has none or
        "targeted_dlr". Arguments and errors are those of a call, outside of transformations.
        """
        attack, keys, logits_fn, images, labels = self.prepared(key, logits_fn, images, labels)
        recorder = Recorder()
        best = strongest.at_once(attack, keys, recorder.watch(logits_fn), images, labels)
        check_result(attack, images, best.images)
        loss = getattr(self, "loss", "margin")
        loss = losses.of("margin" if loss == "targeted_dlr" else loss)
        return recorder.trace(best.images, labels, loss)

    def prepared(
        self, key: AnyKey, logits_fn: LogitsFn, images: AnyImages, labels: AnyLabels
    ) -> tuple["Attack", Keys, LogitsFn, Images, Labels]:
        """Return the arguments of ``strongest.at_once``, after the checks of a call."""
        logits_fn, images, labels = classifier.check_batch(key, logits_fn, images, labels)
        if jnp.ndim(self.eps) and jnp.shape(self.eps) != labels.shape:
            raise ValueError(
                f"eps must be one number, or one for each image, shape {labels.shape}, got an "
                f"array of shape {jnp.shape(self.eps)}; for several radii, use a loop or jax.vmap "
                f"over attacks; neither compiles again"
            )
        keys = prng.example_keys(key, images.shape[0])

        def as_pytree(leaf: Any) -> Any:
            return prng.as_pytree(leaf, keys, images) if callable(leaf) else leaf

        # Surrogates are functions, too.
        attack = jax.tree.map(as_pytree, self.with_checked_surrogates(key, images, labels))
        attack = attack._with_radii(lambda radii: jnp.asarray(radii, images.dtype))
        # Raises for a number of classes that does not fit.
        attack.members(classifier.classes(logits_fn, keys, images))
        for unaveraged, attacked in attack.unaveraged(logits_fn):
            if classifier.has_noise(attacked, keys, images):
                warnings.warn(
                    f"{type(unaveraged).__name__} decides by single draws of the classifier's "
                    "noise, so it may stop at images that are misclassified by luck; take "
                    'eot_samples=10 or more, or AutoAttack with version="rand"',
                    stacklevel=4,
                )
                break
        return attack, keys, logits_fn, images, labels

    @abc.abstractmethod
    def perturb(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        """Run the attack: a pure function of checked input, with one key per example."""

    def run(
        self, keys: Keys, number: Array, logits_fn: LogitsFn, images: Images, labels: Labels
    ) -> tuple[Images, ...]:
        """Make the run of a number, and return the images that it found, the candidates."""
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


class Repeated(Attack):
    """Base of attacks of several runs, of which the strongest result is kept for each image.

    Attributes:
      restarts: number of runs with other draws.
    """

    def runs(self, classes: int) -> int:
        return vars(self).get("restarts", 1)

    def perturb(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        return strongest.strongest(self, keys, logits_fn, images, labels).images

    @abc.abstractmethod
    def run(
        self, keys: Keys, number: Array, logits_fn: LogitsFn, images: Images, labels: Labels
    ) -> tuple[Images, ...]:
        """Make the run of a number, and return the images that it found, the candidates."""


class LossAttack(Attack):
    """Base of the attacks that raise a loss within a ball.

    These fields mean the same in every attack that has them. The docstring of each attack describes
    its other fields, and any addition to these.

    Attributes:
      norm: the norm that bounds perturbations: "linf", "l2" or "l1". FGSM, PGD and APGD also take a
        norm of one's own, such as ``certification.Discriminability``.
      eps: the radius of the ball in pixel units, for instance 4/255; or an array (N,), one radius
        for each image.
      steps: number of steps of a run.
      eot_samples: noise draws per step. The loss is averaged over them before it is differentiated.
      loss: the loss that the attack raises: "cross_entropy", "margin", "dlr", or a function
        ``(logits, labels) -> losses`` of shapes (N, classes), (N,) and (N,). A function has no
        JSON form, so ``to_json`` refuses it.
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
    """Check that a length in L-infinity, or each of an array, is at most 1. Traced values pass.

    Raises:
      ValueError: if it is not.
    """
    arguments.within_images(name, float(np.max(_known(value), initial=0.0)), "linf")


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
    report = _report(images, adversarial, attack.norm, attack.eps)
    if isinstance(report[0], Tracer):
        return
    not_finite, *numbers = report
    # Another process may hold a part of the images: only single numbers are known to all.
    failed, low, high, excess = jax.device_get(numbers)
    if failed:
        raise FloatingPointError(_not_finite(not_finite))
    inside = -batches.BOX_TOLERANCE <= low and high <= 1 + batches.BOX_TOLERANCE
    if not inside or excess > 0:
        raise ValueError(
            f"images of {type(attack).__name__} must lie in [0, 1] and in the ball of norm "
            f"{attack.norm} and radius eps, got values from {low:g} to {high:g} and changes of "
            f"norm up to eps + {max(excess, 0.0):g}; clip and project them, see attacks.norms"
        )


def check_finite(adversarial: Images) -> None:
    """Check that images are finite. Traced ones are not checked.

    Raises:
      FloatingPointError: if a value is not finite; the message names the examples.
    """
    not_finite, failed, *_ = _report(adversarial, adversarial, "", 0.0)
    if not isinstance(failed, Tracer) and failed:
        raise FloatingPointError(_not_finite(not_finite))


def _not_finite(not_finite: Array) -> str:
    positions = jnp.flatnonzero(not_finite)[:8].tolist()
    return (
        f"the attack met a gradient or logits that are not finite, at batch positions {positions}"
    )


@functools.partial(jax.jit, static_argnames="norm")
def _report(
    images: Images, adversarial: Images, norm: norms.AnyNorm, eps: Scalar
) -> tuple[Array, ...]:
    """Return which images are not finite, whether any, the extremes, and the excess of radius.

    This is the largest change beyond ``eps`` and its tolerance, at least 0. It is 0 for the name of
    a measure that is none of ``NORMS``.
    """
    not_finite = ~jnp.all(jnp.isfinite(adversarial), axis=(1, 2, 3))
    excess = jnp.zeros(())
    if norm in NORMS or not isinstance(norm, str):
        allowed = jnp.asarray(eps, images.dtype) * (1 + BALL_TOLERANCE) + batches.BOX_TOLERANCE
        excess = jnp.max(norms.size(adversarial - images, norm) - allowed, initial=0.0)
    return not_finite, jnp.any(not_finite), jnp.min(adversarial), jnp.max(adversarial), excess


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
