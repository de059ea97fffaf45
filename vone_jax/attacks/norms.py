"""Geometry of the three threat models: sizes, steepest directions, projections, random points.

Every function works per example on perturbations of shape (N, H, W, C). The rules per norm are
those of the attack literature; where toolkits differ the variant has a name, because results of
different variants are not comparable.
"""

import jax
import jax.numpy as jnp

from vone_jax import prng

NORMS = ("linf", "l2", "l1")

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


def direction(gradient: jax.Array, norm: str, l1_step: str, images: jax.Array) -> jax.Array:
    """Direction of one step, of norm one; a gradient of zero gives zero.

    Args:
      gradient: gradients of the loss, shape (N, H, W, C).
      norm: one of ``NORMS``.
      l1_step: one of ``L1_STEPS``; used for L1 only.
      images: the current images; "sparse" takes no step across the border of the pixel box.

    Returns:
      Array of the gradient's shape. What is not finite in the gradient is not finite here.
    """
    if norm == "linf":
        return jnp.sign(gradient)
    if norm == "l2":
        # Dividing by the largest value first keeps the square of a tiny gradient from underflow:
        # a confident network must not look robust because of it.
        scaled = _over(gradient, size(gradient, "linf"))
        return _over(scaled, size(scaled, "l2"))
    if l1_step == "dense":
        scaled = _over(gradient, size(gradient, "linf"))
        return _over(scaled, size(scaled, "l1"))
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


def project(
    delta: jax.Array, norm: str, eps: jax.Array | float, projection: str = "radial"
) -> jax.Array:
    """The perturbations brought back into the ball of radius ``eps`` around zero."""
    if norm == "linf":
        return jnp.clip(delta, -eps, eps)
    if norm == "l1" and projection == "exact":
        delta = _soft_threshold(delta, eps)
    length = size(delta, norm)
    outside = length > eps
    scale = jnp.where(outside, eps / jnp.where(outside, length, jnp.ones_like(length)), 1.0)
    return delta * _per_example(scale, delta)


def sample(
    keys: jax.Array, shape: tuple[int, ...], norm: str, eps: jax.Array | float, dtype
) -> jax.Array:
    """Points drawn uniformly from the ball, one per key.

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


def _soft_threshold(delta: jax.Array, eps: jax.Array | float) -> jax.Array:
    """Euclidean projection onto the L1 ball (Duchi et al., 2008), by sorting."""
    flat = delta.reshape(delta.shape[0], -1)
    magnitude = jnp.abs(flat)
    descending = -jnp.sort(-magnitude, axis=-1)
    rank = jnp.arange(1, flat.shape[-1] + 1, dtype=flat.dtype)[None]
    thresholds = (jnp.cumsum(descending, axis=-1) - eps) / rank
    support = jnp.sum(descending > thresholds, axis=-1, keepdims=True)
    threshold = jnp.take_along_axis(thresholds, jnp.maximum(support - 1, 0), axis=-1)
    # With eps = 0 no rank qualifies, and everything goes.
    threshold = jnp.where(support == 0, descending[:, :1], jnp.maximum(threshold, 0.0))
    return (jnp.sign(flat) * jnp.maximum(magnitude - threshold, 0.0)).reshape(delta.shape)


def _signs(flat: jax.Array, chosen: jax.Array) -> jax.Array:
    # Zero times the rest, rather than zero, so that NaN anywhere is not lost.
    return jnp.where(chosen, jnp.sign(flat), 0.0 * flat)


def _over(delta: jax.Array, length: jax.Array) -> jax.Array:
    return delta / _per_example(jnp.where(length == 0, jnp.ones_like(length), length), delta)


def _per_example(values: jax.Array, like: jax.Array) -> jax.Array:
    return values.reshape((-1,) + (1,) * (like.ndim - 1))
