"""Geometry of the three threat models: sizes, directions of steps, projections, random points.

The functions work per example. A radius is one number, or one for each image, shape (N,). A norm is
one of ``NORMS``, or an object of its own geometry, see ``Geometry``.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Key

from vone_jax import fast, prng
from vone_jax.attacks.classifier import Images, Keys, Scalar, Values
from vone_jax.names import NORMS as NORMS

# The values of each image in one row, and a column with one number per image.
Flat = Float[Array, "n values"]
Column = Float[Array, "n 1"]


@runtime_checkable
class Geometry(Protocol):
    """A norm of one's own, for PGD, FGSM and APGD. It hashes, since it is static under ``jax.jit``.

    ``certification.Discriminability`` is one.
    """

    def __call__(self, delta: Images) -> Values:
        """Return the norm of each perturbation."""
        ...

    def direction(self, gradient: Images) -> Images:
        """Return a direction of ascent, of norm one; a gradient of zero gives zero."""
        ...

    def project(self, delta: Images, eps: Scalar) -> Images:
        """Return perturbations of norm at most ``eps``, near the given ones."""
        ...

    def shrink(self, delta: Images, eps: Scalar) -> Images:
        """Return perturbations scaled so that their norm is at most ``eps``."""
        ...

    def surface(self, keys: Keys, shape: tuple[int, ...], dtype: DTypeLike) -> Images:
        """Return random perturbations (N, *shape) of norm one."""
        ...


AnyNorm = str | Callable[..., Any]


def geometry(norm: AnyNorm) -> Geometry | None:
    """Return a norm of one's own, None for one of ``NORMS``."""
    return None if isinstance(norm, str) else cast(Geometry, norm)


def size(delta: Images, norm: AnyNorm) -> Values:
    """Return the norm of each perturbation."""
    if own := geometry(norm):
        return own(delta)
    flat = delta.reshape(delta.shape[0], -1)
    if norm == "linf":
        return fast.largest(jnp.abs(flat), axis=-1)
    if norm == "l2":
        return jnp.sqrt(jnp.sum(jnp.square(flat), axis=-1))
    return jnp.sum(jnp.abs(flat), axis=-1)


def direction(gradient: Images, norm: AnyNorm, offset: Scalar = 0.0) -> Images:
    """Return the direction of a step, of norm one; a gradient of zero gives zero.

    For L-infinity and L2 it is that of steepest ascent. For L1 it is the gradient itself, scaled,
    as in foolbox and ART: steepest ascent in L1 would change the largest value alone, see
    ``sparse_direction``.

    Args:
      gradient: gradients of the loss. Values that are not finite make the result not finite.
      norm: the norm of the ball.
      offset: added to the gradient's norm before dividing, for L2 and L1.
    """
    if own := geometry(norm):
        return own.direction(gradient)
    if norm == "linf":
        return jnp.sign(gradient)
    # Dividing by the largest value first keeps the square of a tiny gradient from underflow:
    # a confident network must not look robust because of it.
    largest = size(gradient, "linf")
    scaled = _over(gradient, largest)
    return _over(scaled, size(scaled, norm) + offset / jnp.where(largest == 0, 1.0, largest))


def sparse_direction(gradient: Images, count: Values) -> Images:
    """Return the signs of the largest values of a gradient, scaled to an L1 norm of one.

    ``count`` is the number of these values, rounded down and at least one. Values that tie with
    the last one count, too.
    """
    flat = gradient.reshape(gradient.shape[0], -1)
    magnitude = jnp.abs(flat)
    last = jnp.clip(count.astype(jnp.int32), 1, flat.shape[-1]) - 1
    ascending = jnp.sort(magnitude, axis=-1)
    threshold = jnp.take_along_axis(ascending, (flat.shape[-1] - 1 - last)[:, None], axis=-1)
    signs = _signs(flat, magnitude >= threshold).reshape(gradient.shape)
    return _over(signs, size(signs, "l1"))


def per_image(number: Scalar) -> Scalar:
    """Return one number, or one for each image, in a shape that multiplies images."""
    return number if jnp.ndim(number) == 0 else jnp.reshape(number, (-1, 1, 1, 1))


def project(delta: Images, norm: AnyNorm, eps: Scalar, offset: Scalar = 0.0) -> Images:
    """Return the perturbations within the ball of radius ``eps`` around zero.

    L-infinity clips; in L2 and L1 a perturbation is scaled. ``offset`` is added to its norm before
    this is compared with ``eps``, so that a perturbation that is scaled ends strictly inside.
    """
    if own := geometry(norm):
        return own.project(delta, eps)
    if norm != "linf":
        return _radial(delta, norm, eps, offset)
    limit = per_image(eps)
    return jnp.clip(delta, -limit, limit)


def project_into_box(
    images: Images, delta: Images, norm: AnyNorm, eps: Scalar, offset: Scalar = 0.0
) -> Images:
    """Return the images with perturbations projected onto the ball, then clipped to [0, 1]."""
    perturbed = jnp.clip(images + project(delta, norm, eps, offset), 0.0, 1.0)
    if own := geometry(norm):
        # Clipping may lengthen a perturbation in such a norm. A shorter one stays in the box.
        perturbed = jnp.clip(images + own.shrink(perturbed - images, eps), 0.0, 1.0)
    return perturbed


def project_nearest(delta: Images, norm: str, eps: Scalar) -> Images:
    """Return the Euclidean projection onto the ball; it differs from ``project`` in L1."""
    if norm == "l1":
        delta = _soft_threshold(delta, jnp.full_like(delta, jnp.inf), eps)
    return project(delta, norm, eps)


def project_l1_box(images: Images, delta: Images, eps: Scalar) -> Images:
    """Return the Euclidean projection of perturbations onto the L1 ball and the pixel box at once.

    The results have an L1 norm of at most ``eps``, and ``images + delta`` lies in [0, 1] up to
    the rounding of that sum (Croce and Hein, 2021, arXiv:2103.01208, proposition 2.2).
    """
    room = jnp.where(delta > 0, 1.0 - images, images)
    return _radial(_soft_threshold(delta, room, eps), "l1", eps)


def _radial(delta: Images, norm: AnyNorm, eps: Scalar, offset: Scalar = 0.0) -> Images:
    length = size(delta, norm) + offset
    outside = length > eps
    scale = jnp.where(outside, eps / jnp.where(outside, length, jnp.ones_like(length)), 1.0)
    return delta * scale[:, None, None, None]


def sample(
    keys: Keys, shape: tuple[int, ...], norm: AnyNorm, eps: Scalar, dtype: DTypeLike
) -> Images:
    """Return points drawn uniformly from the ball, each an array of ``shape`` (H, W, C).

    Those of a norm of one's own are drawn from the surface of its ball.
    """
    if own := geometry(norm):
        return own.surface(keys, shape, dtype) * per_image(eps)
    count = math.prod(shape)

    def draw(key: Array) -> Array:
        if norm == "linf":
            return jax.random.uniform(key, shape, dtype, -1.0, 1.0)
        if norm == "l2":
            # The first d of d + 2 coordinates of a point on the sphere fill the ball evenly.
            normal = jax.random.normal(key, (count + 2,), dtype)
            return (normal[:count] / jnp.linalg.norm(normal)).reshape(shape)
        ordered = jnp.sort(jax.random.uniform(prng.stream(key, "gaps"), (count,), dtype))
        gaps = jnp.diff(ordered, prepend=jnp.zeros((1,), dtype))
        return (gaps * random_signs(prng.stream(key, "signs"), (count,), dtype)).reshape(shape)

    return jax.vmap(draw)(keys) * per_image(eps)


def random_signs(key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Return independent signs, 1 or -1 with equal probability.

    They are those of ``jax.random.rademacher``, whose draws differ where 64 bits are enabled.
    """
    return jnp.where(jax.random.bernoulli(key, jnp.float32(0.5), shape), 1, -1).astype(dtype)


def surface(
    keys: Keys, shape: tuple[int, ...], norm: str, dtype: DTypeLike, noise: str = "uniform"
) -> Images:
    """Return random perturbations of norm one, see ``RandomNoise`` for the kinds of ``noise``."""
    if noise == "uniform":
        drawn = sample(keys, shape, norm, 1.0, dtype)
    else:
        generator = {"gaussian": jax.random.normal, "signs": random_signs}[noise]
        drawn = jax.vmap(lambda key: generator(key, shape, dtype))(keys)
    return drawn / size(drawn, norm)[:, None, None, None]


def _soft_threshold(delta: Images, room: Images, eps: Scalar) -> Images:
    """Return sign(d) min(room, max(|d| - t, 0)) with the smallest t >= 0 that ends in the L1 ball.

    A fixed number of bisections finds which values are cut to zero, shortened or stopped by
    their room; between these events the length is linear in t, so one more step is exact.
    """
    magnitude = jnp.abs(delta).reshape(delta.shape[0], -1)
    limits = room.reshape(magnitude.shape)

    def shrink(threshold: Column) -> Flat:
        return jnp.clip(magnitude - threshold, 0.0, limits)

    def length(threshold: Column) -> Column:
        return jnp.sum(shrink(threshold), axis=-1, keepdims=True)

    eps = eps if jnp.ndim(eps) == 0 else jnp.reshape(eps, (-1, 1))
    zero = jnp.zeros_like(magnitude[:, :1])
    highest = fast.largest(magnitude, axis=-1)[:, None]
    _, high = bisect(lambda middle: length(middle) > eps, zero, highest)
    shortened = (magnitude > high) & (magnitude - high < limits)
    count = jnp.sum(shortened, axis=-1, keepdims=True, dtype=delta.dtype)
    exact = jnp.maximum(high - (eps - length(high)) / jnp.maximum(count, 1.0), 0.0)
    threshold = jnp.where(length(zero) > eps, exact, zero)
    return jnp.sign(delta) * shrink(threshold).reshape(delta.shape)


def bisect(
    below: Callable[[Column], Bool[Array, "n 1"]], low: Column, high: Column
) -> tuple[Column, Column]:
    """Return a bracket as narrow as rounding allows; ``below`` holds for values below the root."""

    def halve(_: Array, bracket: tuple[Column, Column]) -> tuple[Column, Column]:
        low, high = bracket
        middle = 0.5 * (low + high)
        is_below = below(middle)
        return jnp.where(is_below, middle, low), jnp.where(is_below, high, middle)

    rounds = int(jnp.finfo(low.dtype).nmant) + 8
    return jax.lax.fori_loop(0, rounds, halve, (low, high))


def _signs(flat: Flat, mask: Bool[Array, "n values"]) -> Flat:
    # Zero times the other values, rather than zero, so that a NaN among them is not lost.
    return jnp.where(mask, jnp.sign(flat), 0.0 * flat)


def _over(delta: Images, length: Values) -> Images:
    return delta / jnp.where(length == 0, jnp.ones_like(length), length)[:, None, None, None]
