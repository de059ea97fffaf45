"""Named key streams: root -> name -> step -> example.

Every random number of the project comes from a typed key that is derived, never stored: a run
that is resumed, an evaluation that is split differently and a batch that lands on other devices
all find the same keys again. ``fold_in`` is the only operation used, so the streams can be
read as a path, e.g. ``root / "noise" / step / example``.
"""

import zlib

import jax
import jax.numpy as jnp


def check_key(key: jax.Array, name: str = "key") -> None:
    """Raises a TypeError that names the argument unless ``key`` is a typed JAX key (array)."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"{name} must be a typed key made by jax.random.key, got {type(key).__name__}"
            + (f" of dtype {dtype}" if dtype is not None else "")
        )


def stream(key: jax.Array, name: str) -> jax.Array:
    """The key of the stream ``name`` under ``key``.

    Args:
      key: typed key of any shape; every element is folded.
      name: the purpose of the stream, for instance ``"noise"``. Adding a stream never
        disturbs another one.

    Returns:
      A key array of the same shape.
    """
    return fold(key, jnp.uint32(zlib.crc32(name.encode())))


def fold(key: jax.Array, number: jax.Array | int) -> jax.Array:
    """``jax.random.fold_in`` over key arrays of any shape, with one number for all of them.

    Args:
      key: typed key of any shape.
      number: scalar integer, for instance a step or the index of a noise draw.

    Returns:
      A key array of the same shape.
    """
    check_key(key)
    fold_in = jax.random.fold_in
    for _ in range(key.ndim):
        fold_in = jax.vmap(fold_in, in_axes=(0, None))
    return fold_in(key, jnp.asarray(number, jnp.uint32))


def example_keys(key: jax.Array, num_examples: int) -> jax.Array:
    """One key per example of a batch.

    Args:
      key: a scalar typed key, which numbers the examples by position, or an array of
        ``num_examples`` keys, which is returned as it is (evaluation passes the keys of the
        dataset indices, see ``index_keys``).
      num_examples: the number of examples N in the batch.

    Returns:
      Typed keys of shape (N,).

    Raises:
      TypeError: if ``key`` is not a typed key.
      ValueError: if ``key`` is an array of another shape.
    """
    check_key(key)
    if key.ndim == 0:
        return index_keys(key, jnp.arange(num_examples, dtype=jnp.uint32))
    if key.shape != (num_examples,):
        raise ValueError(
            f"key must be one typed key or one key per example, shape ({num_examples},), "
            f"got shape {key.shape}"
        )
    return key


def index_keys(key: jax.Array, indices: jax.Array) -> jax.Array:
    """Keys of examples by their index in the dataset, so that batches can be cut anywhere.

    Args:
      key: scalar typed key.
      indices: integers of shape (N,).

    Returns:
      Typed keys of shape (N,).
    """
    check_key(key)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.asarray(indices, jnp.uint32))
