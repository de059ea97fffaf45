"""The form every attack has: a frozen dataclass that is a pytree and a pure function.

An attack's radius and step size are leaves, everything else is static. So one compiled function
serves a whole ladder of radii, and an attack is passed to a jitted function like an array.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax import Array

from vone_jax import prng
from vone_jax.arguments import nearest
from vone_jax.attacks import checks, classifier, losses
from vone_jax.attacks.classifier import LogitsFn

Class = TypeVar("Class", bound=type)


class Attack(abc.ABC):
    """Base of the attacks; subclasses are frozen dataclasses with a method ``perturb``.

    Attributes:
      norm: "linf", "l2" or "l1", in which the attack is bounded.
      eps: its bound in pixel units.
      targeted: whether labels are classes to reach rather than to leave.
    """

    norm: str
    eps: float
    targeted: bool = False

    @property
    def least_classes(self) -> int:
        """The smallest number of classes for which the attack is defined."""
        return losses.LEAST_CLASSES.get(getattr(self, "loss", ""), 2)

    def __call__(
        self,
        key: Array,
        logits_fn: LogitsFn,
        images: Array,
        labels: Array,
    ) -> Array:
        """Return adversarial images.

        Args:
          key: typed key. A scalar numbers the examples by position; an array of N keys gives
            each example its own, and then its result does not depend on the batch around it.
          logits_fn: classifier ``(key, images) -> logits``; may draw noise from its key.
          images: floating point in [0, 1], shape (N, H, W, C).
          labels: integers of shape (N,): the true classes or, for a targeted attack, the
            classes to reach.

        Returns:
          Images in [0, 1] within the attack's ball, same shape and dtype as ``images``.

        Raises:
          TypeError, ValueError: for input that does not fit, see ``checks.batch``.
          FloatingPointError: if a gradient or the logits were not finite.
        """
        checks.single("eps", self.eps)
        images, labels = checks.batch(key, logits_fn, images, labels)
        keys = prng.example_keys(key, images.shape[0])
        adversarial = compiled(self, keys, classifier.as_pytree(logits_fn), images, labels)
        return checks.finite(adversarial)

    @abc.abstractmethod
    def perturb(
        self,
        keys: Array,
        logits_fn: LogitsFn,
        images: Array,
        labels: Array,
    ) -> Array:
        """The attack itself: pure, on checked input, with one key per example."""


def pytree(*leaves: str) -> Callable[[Class], Class]:
    """Register a dataclass as a pytree.

    Args:
      *leaves: names of the fields that are traced. The other fields are static.
    """

    def register(dataclass: Class) -> Class:
        names = [field.name for field in dataclasses.fields(cast(Any, dataclass))]
        static = [name for name in names if name not in leaves]
        return jax.tree_util.register_dataclass(dataclass, leaves, static)

    return register


@jax.jit
def compiled(
    attack: Attack, keys: Array, logits_fn: LogitsFn, images: Array, labels: Array
) -> Array:
    """The attack as one compiled function, on checked input, with one key per example."""
    logits_fn = classifier.checked(logits_fn, keys, images)
    return jax.lax.stop_gradient(attack.perturb(keys, logits_fn, images, labels))


def to_json(attack: Attack) -> dict[str, Any]:
    """Return the settings of an attack as a JSON object.

    Args:
      attack: any attack.

    Returns:
      ``{"name": "PGD", "norm": "linf", "eps": ...}``: the class name and each field, as None, bool,
      int, float, str, a list of these, or the object of a nested attack. The surrogate of
      ``Transfer`` and the mesh of ``InBatches`` are left out: they belong to the running program.

    Raises:
      TypeError: if a field holds something else. The message names the field.
    """
    record: dict[str, Any] = {"name": type(attack).__name__}
    for field in dataclasses.fields(cast(Any, attack)):
        if field.metadata.get("stored", True):
            value = getattr(attack, field.name)
            record[field.name] = _plain(f"{record['name']}.{field.name}", value)
    return record


def from_json(record: Mapping[str, Any], *, surrogate: Any = None, mesh: Any = None) -> Attack:
    """Return the attack that ``to_json`` described; the round trip is exact.

    Args:
      record: the JSON object. A field with a default may be missing.
      surrogate: classifier for a ``Transfer`` in the record, which holds no weights.
      mesh: devices for an ``InBatches`` in the record.

    Raises:
      ValueError: for an unknown attack or field, with the nearest name; for a field that is
        missing or out of range.
      TypeError: for a field of the wrong type.
    """
    classes = _classes(Attack)
    name = record.get("name")
    if name not in classes:
        raise ValueError(
            f"attack must be one of {', '.join(classes)}; got {name!r}{nearest(name, classes)}"
        )
    attack_class = classes[name]
    fields = {field.name: field for field in dataclasses.fields(cast(Any, attack_class))}
    stored = [key for key, field in fields.items() if field.metadata.get("stored", True)]
    values = {}
    for key, value in record.items():
        if key == "name":
            continue
        if key not in stored:
            raise ValueError(f"attack {name} has no field {key!r}{nearest(key, stored)}")
        values[key] = _restored(value, surrogate, mesh)
    values |= {
        key: value
        for key, value in {"surrogate": surrogate, "mesh": mesh}.items()
        if key in fields and value is not None
    }
    missing = [
        key
        for key, field in fields.items()
        if key not in values and field.default is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"attack {name} needs {', '.join(missing)}, got {dict(record)}")
    return attack_class(**values)


def _classes(base: type) -> dict[str, type]:
    """The attacks by name, from all subclasses of ``base`` that can be called."""
    classes: dict[str, type] = {}
    for subclass in base.__subclasses__():
        if dataclasses.is_dataclass(subclass):
            classes.setdefault(subclass.__name__, subclass)
        # A class of this package wins over a later one of the same name.
        classes = _classes(subclass) | classes
    return classes


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Attack):
        return to_json(value)
    if isinstance(value, (list, tuple)):
        return [_plain(name, item) for item in value]
    if isinstance(value, (np.generic, np.ndarray, Array)) and value.ndim == 0:
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{name} cannot be stored as JSON, got {type(value).__name__}: {value!r}")


def _restored(value: Any, surrogate: Any, mesh: Any) -> Any:
    if isinstance(value, Mapping):
        return from_json(value, surrogate=surrogate, mesh=mesh)
    if isinstance(value, list):
        return tuple(_restored(item, surrogate, mesh) for item in value)
    return value
