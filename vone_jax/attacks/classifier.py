"""What an attack is called with: a classifier, keys, images and labels, and their checks."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from vone_jax import batches, functions, prng

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

Tree = TypeVar("Tree")


def checked(logits_fn: LogitsFn, keys: Keys, images: Images) -> LogitsFn:
    """Return the classifier as a compiled function, after a check of the shape of its logits.

    The function returns logits with the dtype of the images. See ``classes`` for what is raised.
    """
    logits_fn = functions.as_pytree(logits_fn, keys, images)
    classes(logits_fn, keys, images)
    return functools.partial(_logits, logits_fn)


def classes(logits_fn: LogitsFn, keys: Keys, images: Images) -> int:
    """Return the number of classes of a classifier, a pytree, which is traced and not run.

    Raises:
      ValueError: if the logits do not have shape (N, C) with C at least 2.
      TypeError: if the logits are not floating point.
    """
    logits = _logits.eval_shape(logits_fn, keys, images)
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
    logits = functions.call_with_keys(logits_fn, keys, images, "logits_fn", "attacks.per_example")
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


def where(mask: Mask, new: Tree, old: Any) -> Tree:
    """Return the rows of ``new`` where the mask is True, those of ``old`` elsewhere.

    Both are trees of arrays with a row for each example; ``old`` may be a number instead.
    """

    def rows(new: Array, old: Array | float) -> Array:
        return jnp.where(mask.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(rows, new, jax.tree.broadcast(old, new))


def straight_through(
    forward: Callable[..., Any], backward: Callable[..., Any] = lambda values: values
) -> Callable[..., Any]:
    """Return a function with the values of ``forward`` and the derivative of ``backward``.

    An operation without a useful gradient, such as rounding or JPEG, hides the gradient of the
    network behind it. With a smooth approximation in the backward pass, attacks see through it
    (BPDA: Athalye et al., Obfuscated gradients give a false sense of security, 2018,
    arXiv:1802.00420).

    Args:
      forward: any function of arrays; it may be a whole classifier ``(keys, images) -> logits``.
      backward: a function of the same arguments, with results of the same shape and dtype. By
        default the identity: the straight-through estimator.
    """

    @jax.custom_jvp
    def function(*arguments: Any) -> Any:
        return forward(*arguments)

    @function.defjvp
    def _(arguments: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        return forward(*arguments), jax.jvp(backward, arguments, tangents)[1]

    return functools.wraps(forward)(function)


def in_dtype(attack: Tree, dtype: Any) -> Tree:
    """Return an attack whose radius and other single numbers of 64 bits have the images' dtype.

    Where 64 bits are enabled, a radius of NumPy would turn images of 32 bits into 64 within the
    loop of an attack.
    """

    def converted(leaf: Any) -> Any:
        wide = getattr(leaf, "dtype", None) == np.float64 and leaf.ndim == 0
        return jnp.asarray(leaf, dtype) if wide else leaf

    return jax.tree.map(converted, attack)


def check_batch(
    key: AnyKey, logits_fn: LogitsFn, images: AnyImages, labels: AnyLabels
) -> tuple[LogitsFn, Images, Labels]:
    """Check any number of images and labels, and return them as arrays; see ``batches``.

    The classifier, which is returned as a pytree, is traced and not run.

    Raises:
      TypeError: for images that are not float32 or float64, labels that are not integers, or a
        key that is not typed.
      ValueError: for shapes that do not fit, images outside [0, 1] or NaN, or labels out of range.
    """
    functions.check_function(logits_fn)  # Raises if the arguments were passed in another order.
    images = batches.check_images(images)
    keys = prng.example_keys(key, images.shape[0])
    logits_fn = functions.as_pytree(logits_fn, keys, images)
    number = classes(logits_fn, keys, images)
    return logits_fn, images, batches.check_labels(labels, images.shape[0], number)
