"""Named key streams: root -> name -> step -> example.

Every random number of the project comes from a typed key that is derived, never stored. So a run
that is resumed, an evaluation that is split differently and a batch on other devices all have the
same keys. ``fold_in`` is the only operation used, so the streams can be read as a path, e.g.
``root / "noise" / step / example``.

Derived keys are Threefry keys, see ``threefry``: under ``jax.vmap``, the other generators of JAX
draw for a whole batch from its first key. So no number depends on ``JAX_DEFAULT_PRNG_IMPL``. But
draws of ``jax.random`` depend on ``jax_threefry_partitionable``, which is True by default; the
commands refuse False.

A classifier or a layer is a function ``(keys, images)`` of one key per example, shape (N,).
``per_example`` adapts a function of a single key.
"""

import dataclasses
import functools
import inspect
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from vone_jax import fingerprint

THREEFRY = "threefry2x32"

Keys = Key[Array, " n"]
AnyShape = Key[Array, "..."]


def check_key(key: Any) -> None:
    """Check that ``key`` is a typed JAX key or an array of them.

    Raises:
      TypeError: if it is not.
    """
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"key must be a typed key made by jax.random.key, got {type(key).__name__}"
            + (f" of dtype {dtype}" if dtype is not None else "")
        )


def threefry(key: AnyShape) -> AnyShape:
    """Return Threefry keys made of the first two words of keys of any implementation.

    A seed has the same two words in every implementation of JAX, so it gives the same keys whatever
    the default implementation is. An "rbg" key has four words, of which only these two are used:
    keys that differ in the other two give the same numbers.

    Raises:
      TypeError: if ``key`` is not a typed key.
    """
    check_key(key)
    if jax.random.key_impl(key) == THREEFRY:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key)[..., :2], impl=THREEFRY)


def stream(key: AnyShape, name: str) -> AnyShape:
    """Return the key of the stream ``name`` under ``key``, elementwise for an array of keys.

    The name is the purpose of the stream, for instance ``"noise"``. Adding a stream never
    disturbs another one.
    """
    return fold(key, jnp.uint32(zlib.crc32(name.encode())))


def fold(key: AnyShape, number: Array | int) -> AnyShape:
    """Return ``jax.random.fold_in`` of each key with one number, for instance a step.

    Raises:
      TypeError: if ``key`` is not a typed key.
    """
    return _fold(threefry(key), jnp.asarray(number, jnp.uint32))


# Compiled, because ``vmap`` takes half a millisecond from Python for a few keys.
@functools.partial(jax.jit, inline=True)
def _fold(key: AnyShape, number: Array) -> AnyShape:
    fold_in = jax.random.fold_in
    for _ in range(key.ndim):
        fold_in = jax.vmap(fold_in, in_axes=(0, None))
    return fold_in(key, number)


def example_keys(key: Key[Array, ""] | Keys, num_examples: int) -> Keys:
    """Return one key per example of a batch.

    A single key numbers the examples by position. An array of ``num_examples`` Threefry keys is
    returned as it is: evaluation passes the keys of the dataset indices, see ``index_keys``.

    Raises:
      TypeError: if ``key`` is not a typed key.
      ValueError: if ``key`` is an array of another shape.
    """
    key = threefry(key)
    if key.ndim == 0:
        # By NumPy, so that no program is compiled for it.
        return index_keys(key, np.arange(num_examples, dtype=np.uint32))
    if key.shape != (num_examples,):
        raise ValueError(
            f"key must be one typed key or one key per example, shape ({num_examples},), "
            f"got shape {key.shape}"
        )
    return key


def index_keys(key: Key[Array, ""], indices: ArrayLike) -> Keys:
    """Return the keys of examples by index in the dataset: batches can be cut anywhere."""
    return _index(threefry(key), jnp.asarray(indices, jnp.uint32))


@functools.partial(jax.jit, inline=True)
def _index(key: Key[Array, ""], indices: Array) -> Keys:
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)


def per_example(function: Callable[[Key[Array, ""], Array], Any]) -> Callable[[Keys, Array], Any]:
    """Adapt a function of a single key to the contract of one key per example.

    Args:
      function: takes a scalar typed key and images of shape (1, H, W, C). The outputs have a
        leading axis of size 1. A ``jax.tree_util.Partial`` keeps its leaves.

    Returns:
      A function of keys (N,) and images (N, H, W, C), which applies ``function`` to each example
      with its own key under ``jax.vmap``. The noise of an example does not depend on its batch.
      A scalar key numbers the examples by position, see ``example_keys``.

    Raises:
      TypeError: if ``function`` cannot be called with two positional arguments.
    """
    check_function(function, "function")
    partial = Partial if fingerprint.is_pytree(function) else functools.partial
    return partial(_one_by_one, function)


def _one_by_one(function: Callable[..., Any], keys: Array, images: Array) -> Any:
    def one(key: Array, image: Array) -> Any:
        return jax.tree.map(lambda leaf: leaf[0], function(key, image[None]))

    return jax.vmap(one)(example_keys(keys, images.shape[0]), images)


def check_function(function: Any, name: str = "logits_fn") -> None:
    """Check that a classifier or layer is a function of (keys, images).

    Raises:
      TypeError: if it cannot be called with two positional arguments.
    """
    contract = f"{name} must be a function of (keys, images)"
    # A module of Flax without variables can be called, but only fails within.
    unbound = hasattr(function, "bind") and getattr(function, "scope", "") is None
    if unbound or not callable(function):
        cure = " without its variables; see models.logits_fn" if unbound else ""
        raise TypeError(f"{contract}, got {type(function).__name__}{cure}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # Some builtin functions have no signature.
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise TypeError(
            f"{contract}: typed keys of shape (N,), one per example, and images of shape "
            f"(N, H, W, C). Got a function with the arguments {signature}: {error}. "
            f"A function f of images alone becomes one by lambda keys, images: f(images)"
        ) from None


def as_pytree(
    function: Callable[[Keys, Array], Any],
    keys: Any,
    images: Any,
    name: str = "logits_fn",
    adapter: str = "attacks.per_example",
) -> Any:
    """Return a classifier or layer as an argument of compiled functions.

    A pytree stays as it is, any other function is lowered once; see ``fingerprint.as_pytree``. The
    keys (N,) and the images (N, H, W, C), with which it will be called, may be shapes and dtypes.
    For the names see ``call_with_keys``.

    Raises:
      TypeError: see ``check_function``.
      Exception: what ``function`` raises, as it is, with a note that states the contract.
    """
    check_function(function, name)
    if fingerprint.is_pytree(function):
        return function
    named = functools.partial(call_with_keys, function, name=name, adapter=adapter)
    return dataclasses.replace(fingerprint.as_pytree(named, keys, images), function=function)


def call_with_keys(
    function: Callable[[Keys, Array], Any], keys: Keys, images: Array, name: str, adapter: str
) -> Any:
    """Call a classifier or layer with one key per example.

    Messages use the function's ``name``, and as ``adapter`` the public name of ``per_example``,
    for instance ``"attacks.per_example"``.

    Raises:
      Exception: what ``function`` raises, as it is, with a note that states the contract.
    """
    try:
        return function(keys, images)
    except Exception as error:
        inner = getattr(function, "function", function)
        # The wrapped function of ``per_example`` got a single key: the note would mislead.
        if getattr(inner, "func", None) is not _one_by_one:
            error.add_note(
                f"{name} was called as {name}(keys, images), with one key per example, keys of "
                f"shape {keys.shape}. If it takes a single key, adapt it: {adapter}({name}). If it "
                f"takes images first, as modules and their apply do, reorder its arguments: "
                f"lambda keys, images: model.apply(variables, images)."
            )
        raise
