"""What an attack is called with: a classifier, keys, images and labels, and their checks."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key

from vone_jax import prng

# The arrays of a batch of n examples. ``Values`` and ``Mask`` hold one entry per example.
Keys = Key[Array, " n"]
Images = Float[Array, "n h w c"]
Labels = Int[Array, " n"]
Logits = Float[Array, "n classes"]
Draws = Float[Array, "draws n classes"]
Values = Float[Array, " n"]
Mask = Bool[Array, " n"]

# What a user may pass: a key per example or one key for all, and arrays of JAX or NumPy.
AnyKey = Keys | Key[Array, ""]
AnyImages = Images | Float[np.ndarray, "n h w c"]
AnyLabels = Labels | Int[np.ndarray, " n"]

# A radius or the length of a step, which may be traced.
Scalar = Array | float

LogitsFn = Callable[[Keys, Images], Logits]

# How far images may lie outside [0, 1]. Resizing and decoding leave values such as -3e-8. Images of
# eight bits that were not divided by 255 exceed 1 by far.
BOX_TOLERANCE = 1e-6

Tree = TypeVar("Tree")


def checked(logits_fn: LogitsFn, keys: Keys, images: Images) -> LogitsFn:
    """Return the classifier as a compiled function, after a check of the shape of its logits.

    The function returns logits with the dtype of the images. See ``classes`` for what is raised.
    """
    logits_fn = prng.trace(logits_fn, keys, images)
    classes(logits_fn, keys, images)
    return functools.partial(_logits, logits_fn)


def classes(logits_fn: LogitsFn, keys: Keys, images: Images) -> int:
    """Return the number of classes of a classifier, which is traced and not run.

    Raises:
      ValueError: if the logits do not have shape (N, C) with C at least 2.
      TypeError: if the logits are not floating point.
    """
    logits = _logits.eval_shape(prng.trace(logits_fn, keys, images), keys, images)
    shape = getattr(logits, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != images.shape[0] or shape[1] < 2:
        raise ValueError(
            f"logits_fn must return logits of shape ({images.shape[0]}, classes) with at least "
            f"2 classes, got {type(logits).__name__ if shape is None else shape}"
        )
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(f"logits_fn must return floating-point logits, got {logits.dtype}")
    return shape[1]


# Compiled, although attacks call this while they are traced themselves: JAX then traces a
# classifier once and not again for each attack. ``checked`` checks the type of the result.
@jax.jit
def _logits(logits_fn: LogitsFn, keys: Keys, images: Images):
    logits = prng.call_with_keys(logits_fn, keys, images, "logits_fn", "attacks.per_example")
    if isinstance(logits, Array) and jnp.issubdtype(logits.dtype, jnp.floating):
        # The loops of attacks need one dtype, whatever dtype a network computes in.
        return logits.astype(images.dtype)
    return logits


def has_noise(logits_fn: LogitsFn, keys: Keys, images: Images) -> bool:
    """Return whether the logits depend on the keys. The classifier is traced and not run."""
    several = jax.ShapeDtypeStruct((2, *keys.shape), keys.dtype)
    try:
        # JAX refuses this for an output that depends on what is mapped.
        alike = jax.vmap(lambda keys, images: _logits(logits_fn, keys, images), (0, None), None)
        jax.eval_shape(alike, several, images)
    except ValueError:
        return True
    return False


def draws(logits_fn: LogitsFn, keys: Keys, images: Images, count: int) -> Draws:
    """Return the logits of ``count`` noise draws of each example.

    The draws are a ``vmap`` over keys, so whatever comes before the noise is computed once. For
    a gradient, ``jax.grad`` belongs around this function and not inside it: then the backward
    pass through the deterministic part runs once, too.
    """
    numbers = jnp.arange(count, dtype=jnp.uint32)
    draw_keys = jax.vmap(lambda number: prng.fold(keys, number))(numbers)
    return jax.vmap(logits_fn, in_axes=(0, None))(draw_keys, images)


def select(chosen: Mask, ours: Tree, theirs: Any) -> Tree:
    """Return the rows of ``ours`` where ``chosen`` holds, of ``theirs`` elsewhere.

    Both are trees of arrays with a row for each example; ``theirs`` may be a number instead.
    """

    def rows(one: Array, other: Array | float) -> Array:
        return jnp.where(chosen.reshape(-1, *[1] * (one.ndim - 1)), one, other)

    return jax.tree.map(rows, ours, jax.tree.broadcast(theirs, ours))


def in_dtype(attack: Tree, dtype: Any) -> Tree:
    """Return an attack whose radius and other single numbers of 64 bits have the images' dtype.

    Where 64 bits are enabled, a radius of NumPy would turn images of 32 bits into 64 within the
    loop of an attack.
    """

    def converted(leaf: Any) -> Any:
        wide = getattr(leaf, "dtype", None) == np.float64 and leaf.ndim == 0
        return jnp.asarray(leaf, dtype) if wide else leaf

    return jax.tree.map(converted, attack)


def is_traced(*trees: Any) -> bool:
    """Return whether an array is traced, or any result would be, as within ``jit`` or ``scan``."""
    leaves = jax.tree.leaves((trees, _nothing()))
    return any(isinstance(leaf, Tracer) for leaf in leaves)


@jax.jit
def _nothing() -> Array:
    return jnp.int32(0)


def check_batch(
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
        low, high, first, last = jax.device_get(ranges)
        number = classes(logits_fn, keys, images)
        # A comparison with NaN is False.
        if not (low >= -BOX_TOLERANCE and high <= 1 + BOX_TOLERANCE):
            what = f"values from {low:g} to {high:g}" if low <= high else "NaN"
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
def _ranges(images: Images, labels: Labels) -> tuple[Array, Array, Array, Array]:
    """Return the smallest and largest value of images and labels, NaN where one of them is.

    Within ``jit`` or ``scan`` the results are tracers, also for arrays from outside.
    """
    # A minimum on the device may ignore NaN.
    missing = jnp.any(jnp.isnan(images))
    low, high = (jnp.where(missing, jnp.nan, each) for each in (jnp.min(images), jnp.max(images)))
    return low, high, jnp.min(labels), jnp.max(labels)
