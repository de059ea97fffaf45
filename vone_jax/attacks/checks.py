"""Checks of the fields and input of an attack before any compute, and of its result."""

import numbers
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vone_jax import arguments, prng
from vone_jax.arguments import NOT_NEGATIVE, Range
from vone_jax.attacks import classifier, norms
from vone_jax.attacks.classifier import AnyImages, AnyKey, AnyLabels, Images, Labels, LogitsFn

# How far images may lie outside [0, 1]. Resizing and decoding leave values such as -3e-8. Images of
# eight bits that were not divided by 255 exceed 1 by far.
BOX_TOLERANCE = 1e-6

# How far the norm of a change may exceed the radius, as a share of it: sums of many values round.
BALL_TOLERANCE = 1e-3

# How far the sum of a softmax may be from 1.
PROBABILITY_TOLERANCE = 1e-5


def fields(attack: Any) -> None:
    """Check the fields of an attack, a dataclass, as ``arguments.fields`` does."""
    arguments.fields(attack, number=radius)
    loss = getattr(attack, "loss", None)
    if getattr(attack, "norm", None) == "linf":
        within_images("eps", attack.eps)
    if getattr(attack, "targeted", False) and loss in ("dlr", "targeted_dlr"):
        raise ValueError(f'loss "{loss}" is for untargeted attacks; take "margin" for a target')


def _known(value: Any) -> np.ndarray:
    """Return numbers as an array, empty for a tracer or for a placeholder of a rebuilt pytree."""
    if isinstance(value, Tracer) or not isinstance(value, (numbers.Real, jax.Array, np.ndarray)):
        return np.empty(0)
    return np.atleast_1d(np.asarray(value, np.float64))


def radius(name: str, value: Any, within: Range = NOT_NEGATIVE) -> None:
    """Check that ``value`` is a finite number in a range, or an array of such numbers for ``vmap``.

    Traced values pass.

    Raises:
      ValueError: if it is out of range.
      TypeError: if it is no number.
    """
    if isinstance(value, (str, bytes, list, tuple, dict, complex)) or value is None:
        raise TypeError(f"{name} must be a number, got {value!r}")
    known = _known(value)
    bad = known[~within.holds(known)]
    if isinstance(value, bool) or bad.size:
        worst = value if isinstance(value, numbers.Real) else float(bad[0])
        raise ValueError(f"{name} must be {within}, got {worst!r}")


def within_images(name: str, value: Any) -> None:
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


def batch(
    key: AnyKey, logits_fn: LogitsFn, images: AnyImages, labels: AnyLabels
) -> tuple[Images, Labels]:
    """Return images and labels as arrays, after a check of them and of the classifier's logits.

    The check takes one forward pass.

    Raises:
      TypeError, ValueError: for input that does not fit, see ``arrays``.
      ValueError: for a classifier that returns probabilities.
      FloatingPointError: for logits of the images that are not finite.
    """
    images, labels = arrays(key, logits_fn, images, labels)
    if isinstance(_ranges(images, labels)[0], Tracer):
        return images, labels
    # The check has keys of its own. The caller's keys are for the attack.
    keys = prng.stream(prng.example_keys(key, images.shape[0]), "check")
    logits = classifier.checked(logits_fn, keys, images)(keys, images)
    if positions := _not_finite(logits):
        raise FloatingPointError(
            f"logits_fn returned logits that are not finite, at batch positions {positions}"
        )
    not_probabilities(logits)
    return images, labels


def arrays(
    key: AnyKey, logits_fn: LogitsFn, images: AnyImages, labels: AnyLabels
) -> tuple[Images, Labels]:
    """Check any number of images and labels, and return them as arrays.

    Shapes and dtypes are checked always, values only where they are known, that is outside of
    ``jit`` and the other transformations. The classifier is traced and not run.

    Raises:
      TypeError: for images that are not float32 or float64, labels that are not integers, or a
        key that is not typed.
      ValueError: for shapes that do not fit, images outside [0, 1] or NaN, or labels out of range.
    """
    prng.check_function(logits_fn)  # Raises if the arguments were passed in another order.
    images, labels = _array("images", images), _array("labels", labels)
    if images.weak_type:
        # The same type whether or not the caller's arrays were made from Python numbers.
        images = jax.lax.convert_element_type(images, images.dtype)
    if images.dtype not in (jnp.float32, jnp.float64):
        hint = "; divide by 255" if images.dtype == jnp.uint8 else ""
        raise TypeError(f"images must be float32 in [0, 1], got {images.dtype}{hint}")
    if images.ndim != 4 or 0 in images.shape:
        empty = ", which is empty" if 0 in images.shape else ""
        raise ValueError(f"images must have shape (N, H, W, C), got {images.shape}{empty}")
    if images.shape[-1] not in (1, 3) and images.shape[1] in (1, 3):
        raise ValueError(f"images must be NHWC, got shape {images.shape}, which looks like NCHW")
    one_hot = "; one-hot labels are not accepted" if labels.ndim == 2 else ""
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"labels must be integers of shape (N,), got dtype {labels.dtype} and shape "
            f"{labels.shape}{one_hot}"
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels must have shape {images.shape[:1]}, got {labels.shape}{one_hot}")
    keys = prng.example_keys(key, images.shape[0])
    ranges = _ranges(images, labels)
    if not isinstance(ranges[0], Tracer):
        inside, first, last = jax.device_get(ranges)
        number = classifier.classes(logits_fn, keys, images)
        if not inside:
            # On the devices, since a process may hold a part of the images only.
            extremes = jnp.min(images), jnp.max(images), jnp.any(jnp.isnan(images))
            low, high, missing = jax.device_get(extremes)
            what = "NaN" if missing else f"values from {low:g} to {high:g}"
            raise ValueError(
                f"images must lie in [0, 1], got {what}; a normalisation belongs in the model"
            )
        if first < 0 or last >= number:
            raise ValueError(
                f"labels must lie in [0, {number - 1}] for {number} classes, "
                f"got values from {first} to {last}"
            )
    return images, labels.astype(jnp.int32)


def _array(name: str, value: Any) -> Array:
    """Return ``value`` as an array, or raise a TypeError if it does not hold numbers."""
    array = value
    if any(isinstance(each, Tracer) for each in jax.tree.leaves(value)):
        array = jnp.asarray(value)  # NumPy takes no list of traced values.
    elif not isinstance(value, jax.Array):
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise TypeError(f"{name} must be an array of numbers: {error}") from error
    if not jnp.issubdtype(array.dtype, np.number) and array.dtype != bool:
        got = "None" if value is None else f"{type(value).__name__} of dtype {array.dtype}"
        raise TypeError(f"{name} must be an array of numbers, got {got}")
    if isinstance(array, np.ndarray) and array.dtype.kind in "iu":
        # JAX would wrap labels beyond 32 bits, which may then be in range.
        array = array.clip(np.iinfo(np.int32).min, np.iinfo(np.int32).max)
    return jnp.asarray(array)


@jax.jit
def _ranges(images: Images, labels: Labels) -> tuple[Array, Array, Array]:
    """Return whether all images lie in [0, 1], and the smallest and largest label.

    Within ``jit`` or ``scan`` the results are tracers, also for arrays from outside.
    """
    # A minimum on the device may ignore NaN. A comparison with NaN is False.
    inside = jnp.all((images >= -BOX_TOLERANCE) & (images <= 1 + BOX_TOLERANCE))
    return inside, jnp.min(labels), jnp.max(labels)


def not_probabilities(logits: classifier.Logits) -> None:
    """Refuse logits that are probabilities for every example.

    Raises:
      ValueError: if all rows are probabilities.
    """
    probabilities = _are_probabilities(logits)
    if not isinstance(probabilities, Tracer) and probabilities:
        raise ValueError(
            "logits_fn must return logits, got probabilities: values in [0, 1] that sum to 1; "
            "return the values before the softmax, or the logarithm of the probabilities"
        )


@jax.jit
def _are_probabilities(logits: classifier.Logits) -> Array:
    tolerance: Array | float = PROBABILITY_TOLERANCE
    # A network in half precision rounds its probabilities, so their sums are farther from 1.
    for bits in ((5, 10), (8, 7)):
        rounded = jnp.all(logits == jax.lax.reduce_precision(logits, *bits))
        tolerance = jnp.where(rounded, 2.0 ** -bits[1], tolerance)
    sums = jnp.sum(logits, axis=-1)
    return jnp.all(logits >= 0) & jnp.all(jnp.abs(sums - 1) < tolerance)


def within(attack: Any, images: Images, adversarial: Images) -> Images:
    """Return the result of an attack after a check that it is finite, in [0, 1] and in its ball.

    An attack of a user may forget a projection, and would then break any network.

    Raises:
      FloatingPointError: if a value is not finite. Traced results are not checked.
      ValueError: if an image leaves [0, 1] or the ball of the attack.
    """
    reach = _reach(images, finite(adversarial), attack.norm)
    if not any(isinstance(each, Tracer) for each in (*reach, attack.eps)):
        low, high, largest, eps = map(float, jax.device_get((*reach, attack.eps)))
        inside = -BOX_TOLERANCE <= low and high <= 1 + BOX_TOLERANCE
        if not inside or largest > eps * (1 + BALL_TOLERANCE) + BOX_TOLERANCE:
            raise ValueError(
                f"images of {type(attack).__name__} must lie in [0, 1] and in the ball of norm "
                f"{attack.norm} with eps {eps:g}, got values from {low:g} to {high:g} and "
                f"changes of norm up to {largest:g}; clip and project them, see attacks.norms"
            )
    return adversarial


@partial(jax.jit, static_argnames="norm")
def _reach(images: Images, adversarial: Images, norm: str) -> tuple[Array, Array, Array]:
    """Return the smallest and the largest value, and the largest norm of a change.

    The norm is 0 for a measure of a user that is none of ``NORMS``.
    """
    known = norm in norms.NORMS
    largest = jnp.max(norms.size(adversarial - images, norm)) if known else jnp.zeros(())
    return jnp.min(adversarial), jnp.max(adversarial), largest


def finite(adversarial: Images) -> Images:
    """Return the result of an attack after a check that its values are finite.

    Raises:
      FloatingPointError: if a value is not. Traced results are not checked.
    """
    if positions := _not_finite(adversarial):
        raise FloatingPointError(
            f"the attack met a gradient or logits that are not finite, at batch positions "
            f"{positions}"
        )
    return adversarial


def _not_finite(values: Array) -> list[int]:
    """Return the first positions in the batch with a value that is not finite; none if traced."""
    bad, somewhere = _faults(values)
    known = not isinstance(somewhere, Tracer)
    return jnp.flatnonzero(bad)[:8].tolist() if known and somewhere else []


@jax.jit
def _faults(values: Array) -> tuple[classifier.Mask, Array]:
    bad = ~jnp.all(jnp.isfinite(values), axis=tuple(range(1, values.ndim)))
    return bad, jnp.any(bad)
