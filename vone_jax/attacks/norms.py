"""Norms: objects with a size, directions of steps, projections and random points.

They work per example. A radius is one number, or one for each image, shape (N,). ``of`` returns the
norm of a short name: "linf", "l2", "l1" or "l0". A norm of one's own is any object with the four
methods of ``Norm``; it hashes, since it is static under ``jax.jit``.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Key

from vone_jax import arguments, fast, prng
from vone_jax.attacks.classifier import Images, Keys, Scalar, Values
from vone_jax.names import NORMS as NORMS

# The values of each image in one row, and a column with one number per image.
Flat = Float[Array, "n values"]
Column = Float[Array, "n 1"]


@runtime_checkable
class Norm(Protocol):
    """A norm of perturbations. ``certification.Discriminability`` is one."""

    def size(self, delta: Images) -> Values:
        """Return the norm of each perturbation."""
        ...

    def direction(self, gradient: Images) -> Images:
        """Return a direction of ascent, of norm one; a gradient of zero gives zero.

        Values that are not finite make the result not finite.
        """
        ...

    def project(self, delta: Images, eps: Scalar) -> Images:
        """Return perturbations of norm at most ``eps``, near the given ones."""
        ...

    def sample(self, keys: Keys, shape: tuple[int, ...], eps: Scalar, dtype: DTypeLike) -> Images:
        """Return random perturbations (n, *shape) of norm at most ``eps``."""
        ...


AnyNorm = str | Norm


def of(norm: AnyNorm, offset: float = 0.0) -> Norm:
    """Return the norm of a short name, and a norm as it is.

    Args:
      norm: the name or the norm.
      offset: added to norms before dividing by them, for "l2" and "l1".

    Raises:
      ValueError: for an unknown name.
      TypeError: for an object that lacks a method.
    """
    if not isinstance(norm, str):
        if not isinstance(norm, Norm):
            raise TypeError(
                f"norm must have the methods size, direction, project and sample, got {norm!r:.80}"
            )
        return norm
    arguments.choice("norm", norm, NAMES)
    return NAMES[norm](offset) if norm in ("l2", "l1") else NAMES[norm]()


def short(norm: AnyNorm) -> AnyNorm:
    """Return the short name of a norm that has one, and any other norm as it is."""
    return next((name for name, kind in NAMES.items() if norm == kind()), norm)


@dataclasses.dataclass(frozen=True)
class Linf:
    """The largest change of a value."""

    # See ``is_shortened_by_box``.
    shortened_by_box: ClassVar[bool] = True

    def size(self, delta: Images) -> Values:
        return fast.largest(jnp.abs(delta.reshape(delta.shape[0], -1)), axis=-1)

    def direction(self, gradient: Images) -> Images:
        """Return the steepest direction, the signs."""
        return jnp.sign(gradient)

    def project(self, delta: Images, eps: Scalar) -> Images:
        limit = per_image(eps)
        return jnp.clip(delta, -limit, limit)

    def sample(self, keys: Keys, shape: tuple[int, ...], eps: Scalar, dtype: DTypeLike) -> Images:
        """Return points that are uniform in the ball."""
        draw = jax.vmap(lambda key: jax.random.uniform(key, shape, dtype, -1.0, 1.0))
        return draw(keys) * per_image(eps)


@dataclasses.dataclass(frozen=True)
class L2:
    """The Euclidean norm. ``offset`` is added to norms before dividing by them."""

    shortened_by_box: ClassVar[bool] = True
    offset: float = 0.0

    def size(self, delta: Images) -> Values:
        return jnp.sqrt(jnp.sum(jnp.square(delta.reshape(delta.shape[0], -1)), axis=-1))

    def direction(self, gradient: Images) -> Images:
        """Return the steepest direction, the gradient divided by its norm."""
        return _scaled(gradient, self.size, self.offset)

    def project(self, delta: Images, eps: Scalar) -> Images:
        return shrink(delta, self.size(delta) + self.offset, eps)

    def sample(self, keys: Keys, shape: tuple[int, ...], eps: Scalar, dtype: DTypeLike) -> Images:
        """Return points that are uniform in the ball."""
        count = math.prod(shape)

        def draw(key: Array) -> Array:
            # The first d of d + 2 coordinates of a point on the sphere fill the ball evenly.
            normal = jax.random.normal(key, (count + 2,), dtype)
            return (normal[:count] / jnp.linalg.norm(normal)).reshape(shape)

        return jax.vmap(draw)(keys) * per_image(eps)


@dataclasses.dataclass(frozen=True)
class L1:
    """The sum of the changes of all values. ``offset`` is that of ``L2``."""

    shortened_by_box: ClassVar[bool] = True
    offset: float = 0.0

    def size(self, delta: Images) -> Values:
        return jnp.sum(jnp.abs(delta.reshape(delta.shape[0], -1)), axis=-1)

    def direction(self, gradient: Images) -> Images:
        """Return the gradient divided by its norm, as foolbox and ART do.

        Steepest ascent would change the largest value alone, see ``sparse_direction``.
        """
        return _scaled(gradient, self.size, self.offset)

    def project(self, delta: Images, eps: Scalar) -> Images:
        """Return scaled perturbations; for the nearest ones see ``project_nearest``."""
        return shrink(delta, self.size(delta) + self.offset, eps)

    def sample(self, keys: Keys, shape: tuple[int, ...], eps: Scalar, dtype: DTypeLike) -> Images:
        """Return points that are uniform in the ball."""
        count = math.prod(shape)

        def draw(key: Array) -> Array:
            ordered = jnp.sort(jax.random.uniform(prng.stream(key, "gaps"), (count,), dtype))
            gaps = jnp.diff(ordered, prepend=jnp.zeros((1,), dtype))
            signs = random_signs(prng.stream(key, "signs"), (count,), dtype)
            return (gaps * signs).reshape(shape)

        return jax.vmap(draw)(keys) * per_image(eps)


@dataclasses.dataclass(frozen=True)
class L0:
    """The number of pixels that change, in whichever channels. A radius is rounded down.

    Croce and Hein, Sparse and imperceivable adversarial attacks, 2019, arXiv:1909.05040.
    """

    shortened_by_box: ClassVar[bool] = True

    def size(self, delta: Images) -> Values:
        pixels = _pixels(delta)
        count = jnp.sum(pixels != 0, axis=-1, dtype=delta.dtype)
        return jnp.where(jnp.any(jnp.isnan(pixels), axis=-1), jnp.nan, count)

    def direction(self, gradient: Images) -> Images:
        """Return the gradient divided by its L1 norm: changes of at most one pixel value."""
        return L1().direction(gradient)

    def project(self, delta: Images, eps: Scalar) -> Images:
        """Return the nearest perturbations: those of the pixels that change most, others zero."""
        return _largest_pixels(delta, _pixels(delta), eps)

    def sample(self, keys: Keys, shape: tuple[int, ...], eps: Scalar, dtype: DTypeLike) -> Images:
        """Return uniform changes of random pixels, as many as the radius allows."""
        uniform = jax.vmap(lambda key: jax.random.uniform(key, shape[:2], dtype, 0.5, 1.0))
        order = uniform(prng.stream(keys, "pixels")).reshape(len(keys), -1)
        drawn = Linf().sample(prng.stream(keys, "values"), shape, 1.0, dtype)
        return _largest_pixels(drawn, order, eps)


NAMES: dict[str, Any] = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}


def size(delta: Images, norm: AnyNorm) -> Values:
    """Return the norm of each perturbation."""
    return of(norm).size(delta)


def per_image(number: Scalar) -> Scalar:
    """Return one number, or one for each image, in a shape that multiplies images."""
    return number if jnp.ndim(number) == 0 else jnp.reshape(number, (-1, 1, 1, 1))


def shrink(delta: Images, length: Values, eps: Scalar) -> Images:
    """Return perturbations of these lengths, scaled to at most ``eps``."""
    outside = length > eps
    scale = jnp.where(outside, eps / jnp.where(outside, length, jnp.ones_like(length)), 1.0)
    return delta * scale[:, None, None, None]


def into_box(norm: Norm, images: Images, delta: Images, eps: Scalar) -> Images:
    """Return the images with perturbations projected onto the ball, then clipped to [0, 1]."""
    perturbed = jnp.clip(images + norm.project(delta, eps), 0.0, 1.0)
    if not is_shortened_by_box(norm):
        # Clipping may lengthen a perturbation in such a norm. A shorter one stays in the box.
        delta = perturbed - images
        perturbed = jnp.clip(images + shrink(delta, norm.size(delta), eps), 0.0, 1.0)
    return perturbed


def is_shortened_by_box(norm: Norm) -> bool:
    """Return whether clipping to the pixel box never makes a perturbation longer."""
    return getattr(norm, "shortened_by_box", False)


def surface(keys: Keys, shape: tuple[int, ...], norm: Norm, dtype: DTypeLike) -> Images:
    """Return random perturbations of norm one: points of the ball, moved to its surface."""
    drawn = norm.sample(keys, shape, 1.0, dtype)
    return drawn / norm.size(drawn)[:, None, None, None]


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
    return _over(signs, L1().size(signs))


def project_nearest(delta: Images, norm: str, eps: Scalar) -> Images:
    """Return the Euclidean projection onto the ball; it differs from ``L1.project``."""
    if norm == "l1":
        delta = _soft_threshold(delta, jnp.full_like(delta, jnp.inf), eps)
    return of(norm).project(delta, eps)


def project_l1_box(images: Images, delta: Images, eps: Scalar) -> Images:
    """Return the Euclidean projection of perturbations onto the L1 ball and the pixel box at once.

    The results have an L1 norm of at most ``eps``, and ``images + delta`` lies in [0, 1] up to
    the rounding of that sum (Croce and Hein, 2021, arXiv:2103.01208, proposition 2.2).
    """
    room = jnp.where(delta > 0, 1.0 - images, images)
    return L1().project(_soft_threshold(delta, room, eps), eps)


def random_signs(key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Return independent signs, 1 or -1 with equal probability.

    They are those of ``jax.random.rademacher``, whose draws differ where 64 bits are enabled.
    """
    return jnp.where(jax.random.bernoulli(key, jnp.float32(0.5), shape), 1, -1).astype(dtype)


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


def _scaled(gradient: Images, size: Callable[[Images], Values], offset: float) -> Images:
    # Dividing by the largest value first keeps the square of a tiny gradient from underflow:
    # a confident network must not look robust because of it.
    largest = Linf().size(gradient)
    scaled = _over(gradient, largest)
    return _over(scaled, size(scaled) + offset / jnp.where(largest == 0, 1.0, largest))


def _pixels(delta: Images) -> Flat:
    """Return the square length of the change of each pixel over its channels."""
    return jnp.sum(jnp.square(delta), axis=-1).reshape(delta.shape[0], -1)


def _largest_pixels(delta: Images, order: Flat, eps: Scalar) -> Images:
    """Return perturbations of the ``eps`` pixels that are highest in an order alone."""
    ranks = jnp.argsort(jnp.argsort(-order, axis=-1), axis=-1)
    radii = jnp.broadcast_to(jnp.asarray(eps, delta.dtype), delta.shape[:1])
    kept = ranks.astype(delta.dtype) < jnp.floor(radii)[:, None]
    # Zero times the other values, rather than zero, so that a NaN among them is not lost.
    return jnp.where(kept.reshape(*delta.shape[:3], 1), delta, 0.0 * delta)
