"""The base class of all attacks: a frozen dataclass that is a pytree, with a pure function.

An attack's radius and step size are leaves, everything else is static. So one compiled function
serves a whole ladder of radii, and an attack is passed to a jitted function like an array.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, TypeVar, cast, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from vone_jax import dataclass_json, fast, prng
from vone_jax.attacks import checks, classifier, losses, norms
from vone_jax.attacks.classifier import AnyImages, AnyKey, AnyLabels, Images, Keys, Labels, LogitsFn
from vone_jax.names import NORMS

Class = TypeVar("Class", bound=type)
AnyAttack = TypeVar("AnyAttack", bound="Attack")

# Types of fields with the accepted values, see ``arguments.fields``.
Norm = Annotated[str, NORMS]
Estimator = Annotated[str, losses.ESTIMATORS]
Loss = Annotated[str, (*losses.LOSSES,)]


class Attack(abc.ABC):
    """Base of the attacks; subclasses are frozen dataclasses with a method ``perturb``.

    These fields mean the same in every attack that has them. The docstring of each attack describes
    its other fields, and any addition to these.

    Attributes:
      norm: the norm that bounds or measures perturbations: "linf", "l2" or "l1".
      eps: the radius of the ball in pixel units, for instance 4/255.
      steps: number of steps of a run.
      eot_samples: noise draws per step. The loss is averaged over them before it is differentiated.
      estimator: what is averaged over the draws: their losses ("mean_loss"), their logits
        ("mean_logits") or their probabilities ("mean_probability").
      loss: the loss that the attack raises: "cross_entropy", "margin" or "dlr".
      targeted: whether labels are classes to reach rather than to leave. The attack then lowers
        the loss, and reaching the target counts as misclassification. Not allowed with "dlr".

    Raises:
      ValueError, TypeError: if a field is out of range; the message names it.
    """

    norm: Norm
    eps: float
    eot_samples: int
    loss: Loss
    estimator: Estimator = "mean_loss"
    targeted: bool = False

    # True for attacks whose result is NaN where a logit was not finite, see ``gradient``.
    propagates_nan: ClassVar[bool] = False

    def __post_init__(self) -> None:
        checks.fields(self)

    @property
    def least_classes(self) -> int:
        """The smallest number of classes for which the attack is defined."""
        return losses.LEAST_CLASSES.get(getattr(self, "loss", ""), 2)

    def __call__(
        self, key: AnyKey, logits_fn: LogitsFn, images: AnyImages, labels: AnyLabels
    ) -> Images:
        """Return adversarial images.

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
        inputs = self.prepared(key, logits_fn, images, labels)
        return checks.within(self, inputs[3], compiled(*inputs))

    def prepared(
        self, key: AnyKey, logits_fn: LogitsFn, images: AnyImages, labels: AnyLabels
    ) -> tuple["Attack", Keys, LogitsFn, Images, Labels]:
        """Return the arguments of ``compiled``, after the checks of a call."""
        if jax.tree_util.all_leaves([self]):
            raise TypeError(
                f"{type(self).__name__} must be a pytree; put @pytree('eps') of "
                "vone_jax.attacks.attack above the class"
            )
        if jnp.ndim(self.eps):
            raise ValueError(
                f"eps must be one number, got an array of shape {jnp.shape(self.eps)}; "
                f"for several radii, use a loop or jax.vmap over attacks; neither compiles again"
            )
        # A network of this package returns logits, and its NaN shows in the result. Without the
        # check of its logits, a forward pass and a compilation are saved.
        known = getattr(getattr(logits_fn, "func", None), "returns_logits", False)
        check = checks.arrays if known and self.propagates_nan else checks.batch
        images, labels = check(key, logits_fn, images, labels)
        keys = prng.example_keys(key, images.shape[0])

        def traced(leaf: Any) -> Any:
            return prng.trace(leaf, keys, images) if callable(leaf) else leaf

        # Surrogates are functions, too.
        attack, logits_fn = jax.tree.map(traced, (self, logits_fn))
        return attack, keys, logits_fn, images, labels

    @abc.abstractmethod
    def perturb(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        """Run the attack: a pure function of checked input, with one key per example."""

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
        return norms.select(finite, slope, jnp.nan), values, logits


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def pytree(*leaves: str) -> Callable[[Class], Class]:
    """Make a class a frozen dataclass that is a pytree; it may be a dataclass already.

    The fields ``leaves`` are traced, the others static.
    """

    def register(given: Class) -> Class:
        known = "__dataclass_fields__" in vars(given)
        dataclass = given if known else dataclasses.dataclass(frozen=True)(given)
        names = [field.name for field in dataclasses.fields(cast(Any, dataclass))]
        static = [name for name in names if name not in leaves]
        # JAX rebuilds a pytree with tracers and placeholders in its fields. No type checker may
        # refuse them; ``checks.fields`` tells them from wrong values.
        setattr(dataclass, "__no_type_check__", True)  # noqa: B010
        return jax.tree_util.register_dataclass(dataclass, leaves, static)

    return register


@jax.jit
@fast.in_fast_layout
def compiled(
    attack: Attack, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels
) -> Images:
    """Run an attack as one compiled function, on checked input, with one key per example."""
    logits_fn = classifier.checked(logits_fn, keys, images)
    adversarial = in_dtype(attack, images.dtype).perturb(keys, logits_fn, images, labels)
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
