"""Geometry of the three threat models: sizes, steepest directions, projections, random points.

Every function works per example on perturbations of shape (N, H, W, C). The rules per norm are
those of the attack literature; where toolkits differ the variant has a name, because results of
different variants are not comparable.
"""

import jax
import jax.numpy as jnp

from vone_jax import prng
from vone_jax.names import NORMS as NORMS

# Directions of the L1 step. "dense" is the gradient itself (foolbox, ART up to 1.17);
# "max_coordinate" moves the one value with the largest gradient (ART since 1.18); "sparse" is
# sparse L1 descent (Tramer and Boneh, 2019, arXiv:1904.13000).
L1_STEPS = ("dense", "max_coordinate", "sparse")

# Projections onto the L1 ball. "radial" scales the perturbation (foolbox, ART); "exact" is the
# Euclidean projection. For L2 both are the same, and L-infinity clips.
PROJECTIONS = ("radial", "exact")

_SPARSE_QUANTILE = 0.99


def size(delta: jax.Array, norm: str) -> jax.Array:
    """The norm of each perturbation, shape (N,)."""
    flat = delta.reshape(delta.shape[0], -1)
    if norm == "linf":
        return jnp.max(jnp.abs(flat), axis=-1)
    if norm == "l2":
        return jnp.sqrt(jnp.sum(jnp.square(flat), axis=-1))
    return jnp.sum(jnp.abs(flat), axis=-1)


def direction(
    gradient: jax.Array, norm: str, l1_step: str, images: jax.Array, offset: float = 0.0
) -> jax.Array:
    """Return the direction of one step, of norm one; a gradient of zero gives zero.

    Args:
      gradient: gradients of the loss, shape (N, H, W, C).
      norm: one of ``NORMS``.
      l1_step: one of ``L1_STEPS``; used for L1 only.
      images: the current images; "sparse" takes no step across the border of the pixel box.
      offset: added to the gradient's norm before dividing, for L2 and the dense L1 step.

    Returns:
      Array of the gradient's shape. What is not finite in the gradient is not finite here.
    """
    if norm == "linf":
        return jnp.sign(gradient)
    if norm == "l2" or l1_step == "dense":
        # Dividing by the largest value first keeps the square of a tiny gradient from underflow:
        # a confident network must not look robust because of it.
        largest = size(gradient, "linf")
        scaled = _over(gradient, largest)
        return _over(scaled, size(scaled, norm) + offset / jnp.where(largest == 0, 1.0, largest))
    if l1_step == "max_coordinate":
        flat = gradient.reshape(gradient.shape[0], -1)
        largest = jnp.argmax(jnp.abs(flat), axis=-1, keepdims=True)
        chosen = jnp.arange(flat.shape[-1])[None] == largest
        return _signs(flat, chosen).reshape(gradient.shape)
    outward = ((images <= 0) & (gradient < 0)) | ((images >= 1) & (gradient > 0))
    flat = jnp.where(outward, jnp.zeros_like(gradient), gradient)
    flat = flat.reshape(gradient.shape[0], -1)
    threshold = jnp.quantile(jnp.abs(flat), _SPARSE_QUANTILE, axis=-1, keepdims=True)
    signs = _signs(flat, jnp.abs(flat) >= threshold).reshape(gradient.shape)
    return _over(signs, size(signs, "l1"))


def sparse_direction(gradient: jax.Array, count: jax.Array) -> jax.Array:
    """Return the signs of the largest values of a gradient, scaled to an L1 norm of one.

    Args:
      gradient: shape (N, H, W, C).
      count: how many values per example, shape (N,); rounded down, and at least one. Values
        that tie with the last one count, too.
    """
    flat = gradient.reshape(gradient.shape[0], -1)
    magnitude = jnp.abs(flat)
    last = jnp.clip(count.astype(jnp.int32), 1, flat.shape[-1]) - 1
    ascending = jnp.sort(magnitude, axis=-1)
    threshold = jnp.take_along_axis(ascending, (flat.shape[-1] - 1 - last)[:, None], axis=-1)
    signs = _signs(flat, magnitude >= threshold).reshape(gradient.shape)
    return _over(signs, size(signs, "l1"))


def project(
    delta: jax.Array,
    norm: str,
    eps: jax.Array | float,
    projection: str = "radial",
    offset: float = 0.0,
) -> jax.Array:
    """The perturbations brought back into the ball of radius ``eps`` around zero.

    Args:
      delta: perturbations, shape (N, H, W, C).
      norm: one of ``NORMS``.
      eps: radius of the ball.
      projection: one of ``PROJECTIONS``.
      offset: added to the norm before a perturbation is scaled, which ends inside the ball.
    """
    if norm == "linf":
        return jnp.clip(delta, -eps, eps)
    if norm == "l1" and projection == "exact":
        delta = _soft_threshold(delta, jnp.full_like(delta, jnp.inf), eps)
    return _radial(delta, norm, eps, offset)


def project_l1_box(images: jax.Array, delta: jax.Array, eps: jax.Array | float) -> jax.Array:
    """Euclidean projection of perturbations onto the L1 ball and the pixel box at once.

    Args:
      images: in [0, 1], shape (N, H, W, C).
      delta: perturbations of the same shape.
      eps: radius of the ball.

    Returns:
      The nearest perturbations with ``images + delta`` in [0, 1], up to the rounding of that
      sum, and an L1 norm of at most ``eps``.

    References:
      Croce and Hein, Mind the box, 2021, arXiv:2103.01208, proposition 2.2.
    """
    room = jnp.where(delta > 0, 1.0 - images, images)
    return _radial(_soft_threshold(delta, room, eps), "l1", eps)


def _radial(delta, norm, eps, offset=0.0):
    length = size(delta, norm) + offset
    outside = length > eps
    scale = jnp.where(outside, eps / jnp.where(outside, length, jnp.ones_like(length)), 1.0)
    return delta * per_example(scale, delta)


def sample(
    keys: jax.Array, shape: tuple[int, ...], norm: str, eps: jax.Array | float, dtype
) -> jax.Array:
    """Draw points uniformly from the ball, one per key.

    Args:
      keys: typed keys of shape (N,).
      shape: (H, W, C).
      norm: one of ``NORMS``.
      eps: radius.
      dtype: floating dtype of the result.

    Returns:
      Array of shape (N, H, W, C).
    """

    def draw(key):
        if norm == "linf":
            return jax.random.uniform(key, shape, dtype, -1.0, 1.0)
        count = 1
        for side in shape:
            count *= side
        if norm == "l2":
            # The first d of d + 2 coordinates of a point on the sphere fill the ball evenly.
            normal = jax.random.normal(key, (count + 2,), dtype)
            return (normal[:count] / jnp.linalg.norm(normal)).reshape(shape)
        ordered = jnp.sort(jax.random.uniform(prng.stream(key, "gaps"), (count,), dtype))
        gaps = jnp.diff(ordered, prepend=jnp.zeros((1,), dtype))
        return (gaps * jax.random.rademacher(prng.stream(key, "signs"), (count,), dtype)).reshape(
            shape
        )

    return jax.vmap(draw)(keys) * eps


def _soft_threshold(delta: jax.Array, room: jax.Array, eps: jax.Array | float) -> jax.Array:
    """sign(d) min(room, max(|d| - t, 0)) with the smallest t >= 0 that ends in the L1 ball.

    A fixed number of bisections finds which values are cut to zero, shortened or stopped by
    their room; between these events the length is linear in t, so one more step is exact.
    """
    magnitude = jnp.abs(delta).reshape(delta.shape[0], -1)
    room = room.reshape(magnitude.shape)

    def shrink(threshold):
        return jnp.clip(magnitude - threshold, 0.0, room)

    def length(threshold):
        return jnp.sum(shrink(threshold), axis=-1, keepdims=True)

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        outside = length(middle) > eps
        return jnp.where(outside, middle, low), jnp.where(outside, high, middle)

    zero = jnp.zeros_like(magnitude[:, :1])
    bracket = (zero, jnp.max(magnitude, axis=-1, keepdims=True))
    rounds = int(jnp.finfo(delta.dtype).nmant) + 8
    _, high = jax.lax.fori_loop(0, rounds, halve, bracket)
    shortened = (magnitude > high) & (magnitude - high < room)
    count = jnp.sum(shortened, axis=-1, keepdims=True, dtype=delta.dtype)
    exact = jnp.maximum(high - (eps - length(high)) / jnp.maximum(count, 1.0), 0.0)
    threshold = jnp.where(length(zero) > eps, exact, zero)
    return jnp.sign(delta) * shrink(threshold).reshape(delta.shape)


def _signs(flat: jax.Array, chosen: jax.Array) -> jax.Array:
    # Zero times the rest, rather than zero, so that NaN anywhere is not lost.
    return jnp.where(chosen, jnp.sign(flat), 0.0 * flat)


def _over(delta: jax.Array, length: jax.Array) -> jax.Array:
    return delta / per_example(jnp.where(length == 0, jnp.ones_like(length), length), delta)


def per_example(values: jax.Array, like: jax.Array) -> jax.Array:
    """Return values (N,) in a shape that multiplies or selects arrays (N, H, W, C)."""
    return values.reshape((-1,) + (1,) * (like.ndim - 1))


def select(chosen: jax.Array, images: jax.Array, others: jax.Array) -> jax.Array:
    """``images`` where ``chosen`` (N,) holds and ``others`` elsewhere."""
    return jnp.where(per_example(chosen, images), images, others)
