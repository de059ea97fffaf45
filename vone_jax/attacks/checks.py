"""Refuses bad input to an attack before any compute, and results that are not finite."""

import math
import numbers

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from vone_jax import prng
from vone_jax.attacks import classifier

# Resizing and decoding leave values like -3e-8; eight-bit inputs are off by hundreds.
BOX_TOLERANCE = 1e-6

# How far the sum of a softmax may be from 1.
PROBABILITY_TOLERANCE = 1e-5


def radius(name: str, value) -> None:
    """Raises unless ``value`` is a finite number that is not negative. Traced values pass."""
    if isinstance(value, (jax.Array, np.ndarray)) and not isinstance(value, Tracer):
        # Several at a time: a ladder, which ``vmap`` takes apart.
        worst = np.asarray(value, np.float64)
        bad = worst[~(np.isfinite(worst) & (worst >= 0))]
        value = float(bad[0]) if bad.size else 0.0
    if not isinstance(value, numbers.Real):
        # A leaf of a pytree that JAX is rebuilding: a tracer or a placeholder.
        if isinstance(value, (str, bytes, list, tuple, dict, complex)) or value is None:
            raise TypeError(f"{name} must be a number, got {value!r}")
        return
    if isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a finite number >= 0 in pixel units, got {value!r}")


def single(name: str, value) -> None:
    """Raises unless ``value`` is one number, traced or not."""
    if jnp.ndim(value):
        raise ValueError(
            f"{name} must be one number, got an array of shape {jnp.shape(value)}; "
            f"jax.vmap over attacks, or a loop, makes a ladder without compiling again"
        )


def count(name: str, value) -> None:
    """Raises unless ``value`` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}")


def flag(name: str, value) -> None:
    """Raises unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def choice(name: str, value, choices) -> None:
    """Raises unless ``value`` is one of ``choices``."""
    if value not in tuple(choices):
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def batch(key, logits_fn, images, labels) -> tuple[jax.Array, jax.Array]:
    """Checks a batch and the classifier's answer to it, which takes one forward pass.

    Returns:
      Images and labels as arrays.

    Raises:
      TypeError, ValueError: for input that does not fit, see ``arrays``.
      ValueError: for a classifier that returns probabilities.
      FloatingPointError: for logits of the images that are not finite.
    """
    images, labels = arrays(key, logits_fn, images, labels)
    if _known(images, labels):
        # Keys of its own: the caller's are for the attack.
        keys = prng.stream(prng.example_keys(key, images.shape[0]), "check")
        _logits(classifier.checked(logits_fn, keys, images)(keys, images))
    return images, labels


def arrays(key, logits_fn, images, labels) -> tuple[jax.Array, jax.Array]:
    """Checks any number of images and labels, and returns them as arrays.

    Shapes and dtypes are checked always, values only where they are known, that is outside of
    ``jit`` and the other transformations. The classifier is traced and not run.

    Raises:
      TypeError: for images that are not float32 or float64, labels that are not integers, or a
        key that is not typed.
      ValueError: for shapes that do not fit, images outside [0, 1] or NaN, or labels out of range.
    """
    for name, value in (("images", images), ("labels", labels)):
        if value is None:
            raise TypeError(f"{name} must be an array, got None")
    images, labels = jnp.asarray(images), jnp.asarray(labels)
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
    if _known(images, labels):
        call = classifier.checked(logits_fn, keys, images)
        _values(images, labels, jax.eval_shape(call, keys, images).shape[-1])
    return images, labels.astype(jnp.int32)


def _known(images: jax.Array, labels: jax.Array) -> bool:
    """Whether there are values to look at.

    Within ``jit`` or ``scan`` there are none, not even of arrays from outside: what is computed
    from them is traced.
    """
    return not any(isinstance(jnp.max(array), Tracer) for array in (images, labels))


def _values(images: jax.Array, labels: jax.Array, classes: int) -> None:
    # A minimum on the device may pass over NaN; no comparison holds for it.
    if not jnp.all((images >= -BOX_TOLERANCE) & (images <= 1 + BOX_TOLERANCE)):
        values = np.asarray(images)
        low, high = values.min(), values.max()
        what = "NaN" if math.isnan(low) else f"values from {low:g} to {high:g}"
        raise ValueError(
            f"images must lie in [0, 1], got {what}; a normalisation belongs into the model"
        )
    first, last = int(jnp.min(labels)), int(jnp.max(labels))
    if first < 0 or last >= classes:
        raise ValueError(
            f"labels must lie in [0, {classes - 1}] for {classes} classes, "
            f"got values from {first} to {last}"
        )


def _logits(logits: jax.Array) -> None:
    if isinstance(logits, Tracer):
        return
    bad = ~jnp.all(jnp.isfinite(logits), axis=-1)
    if bool(jnp.any(bad)):
        positions = jnp.flatnonzero(bad)[:8].tolist()
        raise FloatingPointError(
            f"logits_fn returned logits that are not finite, at batch positions {positions}"
        )
    not_probabilities(logits)


def not_probabilities(logits: jax.Array) -> None:
    """Raises a ValueError if logits (N, C) are probabilities for every example."""
    # The probabilities of a network in half precision are rounded to it.
    tolerance = max(PROBABILITY_TOLERANCE, float(jnp.finfo(logits.dtype).eps))
    sums = jnp.sum(logits.astype(jnp.float32), axis=-1)
    if bool(jnp.all(logits >= 0) & jnp.all(jnp.abs(sums - 1) < tolerance)):
        raise ValueError(
            "logits_fn must return logits, got probabilities: values in [0, 1] that sum to 1; "
            "take them before the softmax, or their logarithm"
        )


def finite(adversarial: jax.Array) -> jax.Array:
    """Returns the result of an attack; raises a FloatingPointError if it is known to hold NaN."""
    if isinstance(adversarial, Tracer):
        return adversarial
    bad = ~jnp.all(jnp.isfinite(adversarial), axis=(1, 2, 3))
    if bool(jnp.any(bad)):
        positions = jnp.flatnonzero(bad)[:8].tolist()
        raise FloatingPointError(
            f"the attack met a gradient or logits that are not finite, at batch positions "
            f"{positions}"
        )
    return adversarial
