"""Named key streams: root -> name -> step -> example.

Every random number of the project comes from a typed key that is derived, never stored. So a run
that is resumed, an evaluation that is split differently and a batch on other devices all have the
same keys. ``fold_in`` is the only operation used, so the streams can be read as a path, e.g.
``root / "noise" / step / example``.

Derived keys are Threefry keys, see ``threefry``: under ``jax.vmap``, the other generators of JAX
draw for a whole batch from its first key. So no number depends on ``JAX_DEFAULT_PRNG_IMPL``. But
draws of ``jax.random`` depend on ``jax_threefry_partitionable``, which is True by default; the
commands refuse False.
"""

import functools
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Key

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
