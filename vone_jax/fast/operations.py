"""Loops, stages, gathers and products in forms that XLA compiles well, gradients included."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vone_jax.fast import switch

# The number of float32 values of a map that a CPU keeps in its cache: one megabyte.
_CACHED = 2**18


def stage(function: Callable[..., Any], *operands: Any) -> Any:
    """Return ``function(*operands)``, with operands and results as arrays in memory.

    XLA fuses a value into the operations that read it, and computes it again in each of them. In a
    chain of filters with a few taps that multiplies the work at every filter, up to a hundred times
    on a CPU, where ``lax.optimization_barrier`` has no effect. XLA does not fuse across the ends of
    a conditional, so the function runs in one that is always true. A loop hides that from XLA.
    """
    if not switch.enabled():
        return function(*operands)
    always = lax.fori_loop(0, 2, jnp.add, jnp.int32(0)) == 1
    shapes = jax.eval_shape(function, *operands)
    nothing = lambda *_: jax.tree.map(jnp.zeros_like, shapes)  # noqa: E731
    return lax.cond(always, function, nothing, *operands)


def one_by_one(function: Callable[..., jax.Array], *batches: Any) -> jax.Array:
    """Return ``function(*batches)``, computed image by image on a CPU and at once elsewhere.

    A loop that reads its images again and again is several times faster when one image stays in
    the cache, and it needs memory for one image only. The cores then share an image, not the batch.
    The function takes trees of arrays whose first axis counts the images and returns such an array.
    """
    if not switch.enabled():
        return function(*batches)

    def mapped(*batches):
        alone = lambda trees: function(*jax.tree.map(lambda array: array[None], trees))[0]  # noqa: E731
        return lax.map(alone, batches)

    def fastest(_, *batches):
        return switch.by_platform(*batches, cpu=mapped, default=function)

    return switch.split_by_examples(fastest, jax.tree.leaves(batches)[0], *batches)


def by_rows(function: Callable[..., jax.Array], *maps: jax.Array) -> jax.Array:
    """Return ``function(*maps)``, computed a few rows at a time on a CPU and at once elsewhere.

    The function must treat every position on its own. Its intermediate results stay in the cache,
    and are computed again for gradients. Small maps are not split.

    Args:
      function: takes arrays (N, H, W, channels) and returns such an array.
      maps: its arguments.
    """
    number, height, width = maps[0].shape[:3]
    row = width * sum(one.shape[3] for one in maps)
    rows = max(n for n in range(1, height + 1) if n == 1 or height % n == 0 and n * row <= _CACHED)
    if not switch.enabled() or rows == height:
        return function(*maps)

    def mapped(*maps):
        parts = [one.reshape(-1, 1, rows, *one.shape[2:]) for one in maps]
        results = lax.map(lambda parts: jax.checkpoint(function)(*parts), parts)
        return results.reshape(number, height, width, results.shape[-1])

    def fastest(*maps):
        return switch.by_platform(*maps, cpu=mapped, default=function)

    return switch.split_by_examples(fastest, *maps)


@jax.jit
def relu(values: jax.Array) -> jax.Array:
    """Return max(values, 0), with the gradient 0 at 0. NaN stays NaN, also in what reduces it.

    XLA's CPU compiler ignores NaN in a maximum that it fuses into a reduction: the mean of
    ``jax.nn.relu`` of a map is finite although a value is NaN. It fuses a comparison as fast.
    """
    return lax.select(values <= 0, jnp.zeros_like(values), values)


def largest(values: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """Return ``jnp.max(values, axis)``; NaN where a value is NaN, which XLA's CPU compiler ignores.

    The smallest value is ``-largest(-values)``.
    """
    missing = jnp.any(jnp.isnan(values), axis)
    # A sum, so that gradients are exactly those of the maximum.
    return jnp.max(values, axis) + jnp.where(missing, jnp.nan, 0.0)


def by_groups(
    function: Callable[[slice, jax.Array], jax.Array],
    ends: Sequence[int],
    values: jax.Array,
    join: Callable[[list[jax.Array]], jax.Array] | None = None,
) -> jax.Array:
    """Return ``function(slice(None), values)``, by groups of channels on TPUs and GPUs.

    Groups that were computed apart are then never joined in memory, and XLA fuses the function into
    what computes them: it takes a slice of joined arrays from the array in which it lies.

    Args:
      function: takes the channels of a group, as a slice, and their values.
      ends: of all groups but the last, as in ``jnp.split``.
      values: float array of shape (..., C).
      join: makes the result of what ``function`` returned for the groups. Default: their
        concatenation along the last axis.
    """
    cuts = [0, *ends, values.shape[-1]]
    groups = [slice(*pair) for pair in itertools.pairwise(cuts) if pair[0] < pair[1]]

    def whole(values: jax.Array) -> jax.Array:
        return function(slice(None), values)

    def apart(values: jax.Array) -> jax.Array:
        results = [function(group, values[..., group]) for group in groups]
        return join(results) if join else jnp.concatenate(results, axis=-1)

    if not switch.enabled() or len(groups) < 2:
        return whole(values)
    return switch.by_platform(values, cpu=whole, default=apart)


def repeated(
    count: jax.Array, most: int, body: Callable[[jax.Array, jax.Array], jax.Array], start: jax.Array
) -> jax.Array:
    """Return the result of ``body(number, value)`` for the numbers 0 to ``count - 1`` in turn.

    Unlike ``lax.fori_loop``, it has gradients for a ``count`` that is traced, so the largest number
    of rounds must be known. The fast form skips the rounds beyond ``count``; the plain form drops
    their results. ``count`` is an int32 scalar, at most ``most``.
    """

    def skip(value, number):
        return lax.cond(number < count, body, lambda _, same: same, number, value), None

    def drop(value, number):
        return jnp.where(number < count, body(number, value), value), None

    step = skip if switch.enabled() else drop
    return lax.scan(step, start, jnp.arange(most, dtype=jnp.int32))[0]


def permute(values: jax.Array, order: np.ndarray) -> jax.Array:
    """Return ``values[..., order]``; the gradient is a gather as well.

    JAX transposes a gather to a scatter, which does not know that ``order`` is a permutation and
    takes longer than all cells of a Gabor bank. Written as the solution of a linear system, the
    transpose is the inverse permutation, in forward and reverse mode and under ``vmap``.

    Args:
      values: array of shape (..., n).
      order: a permutation of 0 to n - 1.
    """
    if not switch.enabled():
        return values[..., order]
    if np.array_equal(order, np.arange(len(order))):
        return values
    inverse = np.argsort(order)

    def solved(values: jax.Array) -> jax.Array:
        return lax.custom_linear_solve(
            lambda x: _gather(x, inverse),
            values,
            solve=lambda _, x: _gather(x, order),
            transpose_solve=lambda _, x: _gather(x, inverse),
        )

    return switch.split_by_examples(solved, values)


def _gather(values: jax.Array, order: np.ndarray) -> jax.Array:
    return values.at[..., order].get(mode="promise_in_bounds", unique_indices=True)


def shared_by_draws(values: jax.Array, draws: jax.Array) -> jax.Array:
    """Return ``values``; their gradient is summed over draws by a product of matrices.

    Under a ``vmap`` over draws that share the values, JAX sums the gradient along the axis of
    draws. jaxlib 0.10 gives that sum to a library that takes 15 times as long on CPUs: a third of
    the time of an attack on a small network.

    Args:
      values: float array that every draw uses.
      draws: float array, batched under ``vmap`` where ``values`` is not.
    """
    return switch.split_by_examples(_shared, values, draws) if switch.enabled() else values


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
