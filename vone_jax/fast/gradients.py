"""Functions whose values are simple and whose gradients need help to be fast."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vone_jax.fast import switch


def permute(values: jax.Array, order: np.ndarray) -> jax.Array:
    """Return ``values[..., order]``; the gradient is a gather as well.

    JAX transposes a gather to a scatter, which does not know that ``order`` is a permutation and
    takes longer than all cells of a Gabor bank. Written as the solution of a linear system, the
    transpose is the inverse permutation, in forward and reverse mode and under ``vmap``.

    Args:
      values: array of shape (..., n).
      order: a permutation of 0 to n - 1, shape (n,).

    Returns:
      Array of shape (..., n).
    """
    if not switch.enabled():
        return values[..., order]
    if np.array_equal(order, np.arange(len(order))):
        return values
    inverse = np.argsort(order)
    return lax.custom_linear_solve(
        lambda x: _gather(x, inverse),
        values,
        solve=lambda _, x: _gather(x, order),
        transpose_solve=lambda _, x: _gather(x, inverse),
    )


def _gather(values: jax.Array, order: np.ndarray) -> jax.Array:
    return values.at[..., order].get(mode="promise_in_bounds", unique_indices=True)


def shared_by_draws(values: jax.Array, draws: jax.Array) -> jax.Array:
    """Return ``values``; their gradient is summed over draws by a product of matrices.

    Under a ``vmap`` over draws that share the values, JAX sums the gradient along the axis of
    draws. jaxlib 0.10 gives that sum to a library that takes 15 times as long on CPUs, which is a
    third of an attack on a small network.

    Args:
      values: float array that every draw uses.
      draws: float array, batched under ``vmap`` where ``values`` is not.

    Returns:
      ``values``, of the same shape.
    """
    return _shared(values, draws) if switch.enabled() else values


@jax.custom_jvp
def _shared(values: jax.Array, draws: jax.Array) -> jax.Array:
    return values * _one(values, draws)


@_shared.defjvp
def _(primals, tangents):
    values, draws = primals
    one = _one(values, draws)
    tangent = jnp.matmul(one.reshape(1, 1), tangents[0].reshape(1, -1), precision="highest")
    return values * one, tangent.reshape(values.shape)


def _one(values: jax.Array, draws: jax.Array) -> jax.Array:
    """Return a one of shape () that ``vmap`` batches over ``draws``."""
    if draws.size == 0:
        return jnp.ones((), values.dtype)
    # The comparison makes JAX treat the one as batched; XLA folds it to a constant.
    return ((draws.reshape(-1)[0] > 0) | True).astype(values.dtype)
