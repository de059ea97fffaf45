"""Images that show what a layer keeps of an image, and what drives its units.

- ``metamers``: other images with the same responses of a layer (Feather et al. 2023). What they
  lack, the layer does not see.
- ``differentiate``: images that one network takes to be the same as a reference, and another one to
  be different (maximum differentiation, Wang & Simoncelli 2008).
- ``exciting_images``: images that drive a unit as much as possible.

A layer is a function ``response_fn(keys, images) -> responses`` with one key for each example.
Noise is frozen: reference and synthesised image see the same draw, so that equal images have equal
responses.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from vone_jax import batches, fast, functions, prng

Images = Float[Array | np.ndarray, "n h w c"]
ResponseFn = Callable[[Any, Any], Any]

# Responses whose products are summed at a time.
_COLUMNS = 8192


@dataclasses.dataclass(frozen=True)
class Metamers:
    """Images with the responses of a reference, and how close the responses are.

    Attributes:
      images: (K, N, H, W, C): K metamers of each of N references.
      error: (K, N), distance of the responses, relative to the norm of the reference's.
      decibel: (K, N), 10 log10 of the norm of the reference's responses over the distance. It is a
        ratio of norms, as in the authors' code.
    """

    images: Array
    error: np.ndarray
    decibel: np.ndarray

    def matched(self, null: float) -> np.ndarray:
        """Return where the responses are closer than those of any two natural images, (K, N).

        ``null`` is the ``null_decibel`` of many images of the data set. The authors take the
        largest of a million pairs. Few images have a null that is easily exceeded.
        """
        return self.decibel > null


def metamers(
    key: Key[Array, ""] | prng.Keys,
    response_fn: ResponseFn,
    images: Images,
    *,
    rounds: int = 8,
    steps: int = 3000,
    step_size: float | None = None,
    distinct: int = 1,
    diversity: float = 0.1,
) -> Metamers:
    """Make metamers of images by the recipe of Feather et al. 2023 (Nature Neuroscience).

    From grey noise, clip(.5 + .05 z, 0, 1), gradient steps of length ``step_size`` (L2) lower
    ||f(x) - f(r)|| / ||f(r)||. The step is halved after each round. ReLUs at the end of the layer
    have a straight-through estimator, so that units which are silent in the start can be reached;
    see ``fast.with_straight_through_relus``.

    Args:
      key: typed key of the noise and the starts. An example's result depends on its position alone.
        Or a key for each example.
      response_fn: the layer.
      images: the references, in [0, 1].
      rounds, steps: numbers of rounds, and of steps in each.
      step_size: length of a step in the first round, in pixel units. Default: the authors' 1 for
        colour images of 224 pixels, and for others in proportion to the root of the number of
        values. In small images, a last step of 1/128 is a thousandth of all contrast, and the
        responses come no closer.
      distinct: metamers of each image. With several, each step also moves them apart.
      diversity: weight of their mean distance in pixels, for ``distinct`` above 1. It falls to 0
        in the last round.

    Raises:
      ValueError: for images outside [0, 1].
      TypeError: for images that are not float32 or float64.
      FloatingPointError: if responses or gradients are not finite.
    """
    images = batches.check_images(images)
    noise, start = prng.stream(key, "noise"), prng.stream(key, "start")
    keys = prng.example_keys(noise, len(images))
    places = [prng.example_keys(prng.fold(start, place), len(images)) for place in range(distinct)]
    starts = jnp.stack([_grey(each, images) for each in places])
    layer = _Layer(functions.as_pytree(response_fn, keys, images, "response_fn"), keys)
    target = _responses(layer, images)
    found, lengths = starts, step_size
    if lengths is None:
        lengths = math.sqrt(math.prod(images.shape[1:]) / (224 * 224 * 3))
    for number in range(rounds):
        weight = diversity * (distinct > 1) * (number < rounds - 1) / (number + 1)
        found = _round(layer, target, found, jnp.float32(lengths), jnp.float32(weight), steps)
        lengths /= 2
    error = np.asarray(jnp.stack([_relative(_responses(layer, each), target) for each in found]))
    if not np.all(np.isfinite(error)):
        raise FloatingPointError("responses or their gradients are not finite")
    decibel = -10 * np.log10(np.maximum(error, np.finfo(np.float32).tiny))
    return Metamers(found, error, decibel)


def null_decibel(responses: Any) -> float:
    """Return the largest ``decibel`` of any two of N images, from their responses (N, ...).

    Either image of a pair may be the reference. It grows with the number of images.

    Raises:
      ValueError: for fewer than two images.
    """
    flat = np.asarray(responses).reshape(len(responses), -1)
    if len(flat) < 2:
        raise ValueError(f"responses must be those of two images or more, got {len(flat)}")
    inner = np.zeros((len(flat), len(flat)))
    for start in range(0, flat.shape[1], _COLUMNS):
        part = flat[:, start : start + _COLUMNS].astype(np.float64)
        inner += part @ part.T
    squares = np.diag(inner)
    between = np.sqrt(np.maximum(squares[:, None] + squares - 2 * inner, 0.0))
    np.fill_diagonal(between, np.inf)
    error = between / np.maximum(np.sqrt(squares), np.finfo(np.float32).tiny)
    return float(-10 * np.log10(np.maximum(error.min(), np.finfo(np.float32).tiny)))


@dataclasses.dataclass(frozen=True)
class Differentiated:
    """Images that one measure of difference tells from the reference, and another one does not.

    Attributes:
      images: (N, H, W, C).
      moved, held: (N,), the two differences from the reference.
      target: (N,), the value at which the second one was held.
    """

    images: Array
    moved: np.ndarray
    held: np.ndarray
    target: np.ndarray


def differentiate(
    key: Key[Array, ""],
    moved_fn: ResponseFn,
    held_fn: ResponseFn,
    images: Images,
    *,
    direction: str = "raise",
    noise: float = 0.1,
    steps: int = 2000,
    rate: float = 0.05,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Differentiated:
    """Raise or lower one difference from a reference while another one is held (MAD).

    The differences are root mean squared distances of the responses of two layers, of one or two
    networks. Wang & Simoncelli 2008: from the reference plus noise, the first is followed along its
    gradient, without the component that changes the second; a correction takes the second back.

    Args:
      key: typed key of the frozen noise and of the start.
      moved_fn, held_fn: layers.
      images: the references.
      direction: "raise" or "lower" the difference of ``moved_fn``.
      noise: standard deviation of the start around the reference.
      steps: number of steps.
      rate: length of the first steps, in pixel units (L2).
      bounds: range of the pixels, or None.
    """
    if direction not in ("raise", "lower"):
        raise ValueError(f"direction must be raise or lower, got {direction!r}")
    images = batches.check_images(images)
    keys = prng.example_keys(prng.stream(key, "noise"), len(images))
    draw = prng.example_keys(prng.stream(key, "start"), len(images))
    normal = jax.vmap(lambda each: jax.random.normal(each, images.shape[1:], images.dtype))(draw)
    start = images + noise * normal
    start = start if bounds is None else jnp.clip(start, *bounds)
    layers = [_Layer(functions.as_pytree(fn, keys, images), keys) for fn in (moved_fn, held_fn)]
    sign = 1.0 if direction == "raise" else -1.0
    found, moved, held, target = _differentiate(
        tuple(layers), images, start, jnp.float32(sign * rate), bounds, steps
    )
    numbers = [np.asarray(each) for each in (moved, held, target)]
    if not all(np.all(np.isfinite(each)) for each in numbers):
        raise FloatingPointError("responses or their gradients are not finite")
    return Differentiated(found, *numbers)


def exciting_images(
    key: Key[Array, ""],
    response_fn: ResponseFn,
    units: Array | np.ndarray,
    image_shape: tuple[int, int, int],
    *,
    norm: float,
    low_pass: float | None = None,
    steps: int = 300,
    rate: float = 0.1,
) -> tuple[Array, Array]:
    """Make the images that drive units the most, on grey, with a given L2 norm of the contrast.

    Args:
      key: typed key of the noise and the starts.
      response_fn: the layer; its responses are taken as (N, features) in C order.
      units: (N,), the index of the unit that each image drives.
      image_shape: (H, W, C).
      norm: L2 norm of the image minus grey (.5), in pixel units.
      low_pass: largest spatial frequency in cycles per image, or None for all.
      steps: number of steps.
      rate: length of a step, as a share of ``norm``.

    Returns:
      The images (N, H, W, C), and the responses (N,) of their units. Pixels may lie outside [0, 1]
      where the norm asks for it.
    """
    units = jnp.asarray(units)
    keys = prng.example_keys(prng.stream(key, "noise"), len(units))
    draw = prng.example_keys(prng.stream(key, "start"), len(units))
    start = jax.vmap(lambda each: jax.random.normal(each, image_shape))(draw)
    responses = jax.eval_shape(response_fn, keys, start)
    batches.check_indices("units", units, math.prod(responses.shape[1:]), "units")
    layer = _Layer(functions.as_pytree(response_fn, keys, start, "response_fn"), keys)
    images, driven = _excite(layer, units, start, norm, low_pass, steps, rate)
    if not bool(jnp.all(jnp.isfinite(driven))):
        raise FloatingPointError("responses or their gradients are not finite")
    return images, driven


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Layer:
    """A layer with the keys of its frozen noise."""

    response_fn: Any
    keys: Array

    def __call__(self, images: Array) -> Array:
        responses = self.response_fn(self.keys, images)
        if not isinstance(responses, Array):
            raise TypeError("response_fn must return one array")
        return responses

    @property
    def straight(self) -> Callable[[Array], Array]:
        """The layer with straight-through estimators for the ReLUs at its end."""
        return fast.with_straight_through_relus(self)


@jax.jit
def _responses(layer: _Layer, images: Array) -> Array:
    return layer(images)


def _grey(keys: Array, images: Array) -> Array:
    """The start of a metamer: clip(.5 + .05 z, 0, 1)."""
    normal = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
    return jnp.clip(0.5 + 0.05 * normal, 0.0, 1.0)


def _norms(values: Array) -> Array:
    """The norm of each example, with a gradient of 0 where it is 0."""
    squares = jnp.sum(values.reshape(len(values), -1) ** 2, axis=1)
    # NaN stays NaN.
    nonzero = squares != 0
    return jnp.where(nonzero, jnp.sqrt(jnp.where(nonzero, squares, 1.0)), 0.0)


def _relative(responses: Array, target: Array) -> Array:
    tiny = jnp.finfo(target.dtype).tiny
    return _norms(responses - target) / jnp.maximum(_norms(target), tiny)


def _unit(values: Array) -> Array:
    """Each example divided by its norm; 0 stays 0."""
    norms = jnp.maximum(_norms(values), jnp.finfo(values.dtype).tiny)
    return values / norms.reshape(-1, *[1] * (values.ndim - 1))


@functools.partial(jax.jit, static_argnames="steps", donate_argnames="found")
def _round(
    layer: _Layer, target: Array, found: Array, length: Array, weight: Array, steps: int
) -> Array:
    """Take the steps of one round, of K metamers of each image together."""

    def loss(candidates: Array) -> Array:
        # In turn: each metamer is a batch as large as the references.
        errors = jnp.stack([jnp.sum(_relative(layer.straight(x), target)) for x in candidates])
        centre = candidates.mean(axis=0, keepdims=True)
        apart = jnp.sum(_norms((candidates - centre).reshape(-1, *candidates.shape[2:])))
        return jnp.sum(errors) - weight * apart

    def step(_: Any, candidates: Array) -> Array:
        slope = fast.in_fast_layout(jax.grad(loss))(candidates)
        flat = slope.reshape(-1, *slope.shape[2:])
        return jnp.clip(candidates - length * _unit(flat).reshape(slope.shape), 0.0, 1.0)

    return jax.lax.fori_loop(0, steps, step, found)


@functools.partial(jax.jit, static_argnames=("bounds", "steps"))
def _differentiate(
    layers: tuple[_Layer, _Layer],
    images: Array,
    start: Array,
    rate: Array,
    bounds: tuple[float, float] | None,
    steps: int,
) -> tuple[Array, Array, Array, Array]:
    references = [layer(images) for layer in layers]

    def distances(which: int, candidates: Array) -> Array:
        difference = layers[which](candidates) - references[which]
        return _norms(difference) / (difference.size / len(images)) ** 0.5

    def slopes(which: int, candidates: Array) -> Array:
        return fast.in_fast_layout(jax.grad(lambda x: jnp.sum(distances(which, x))))(candidates)

    def inner(one: Array, two: Array) -> Array:
        return jnp.sum((one * two).reshape(len(one), -1), axis=1).reshape(-1, 1, 1, 1)

    target = distances(1, start)

    def hold(_: Any, candidates: Array) -> Array:
        """A Newton step along the gradient of the second difference, back to its target."""
        across = slopes(1, candidates)
        excess = (distances(1, candidates) - target).reshape(-1, 1, 1, 1)
        moved = candidates - excess * across / jnp.maximum(inner(across, across), 1e-20)
        return moved if bounds is None else jnp.clip(moved, *bounds)

    def step(number: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        candidates, velocity = state
        # Long steps first, short ones to settle.
        length = rate * 0.5 * (1 + jnp.cos(jnp.pi * number.astype(jnp.float32) / steps))
        along, across = slopes(0, candidates), _unit(slopes(1, candidates))
        along = along - inner(along, across) * across
        velocity = 0.9 * velocity + 0.1 * _unit(along)
        velocity = velocity - inner(velocity, across) * across
        return hold(0, candidates + length * velocity), velocity

    found, _ = jax.lax.fori_loop(0, steps, step, (start, jnp.zeros_like(start)))
    found = jax.lax.fori_loop(0, 20, hold, found)
    return found, distances(0, found), distances(1, found), target


@functools.partial(jax.jit, static_argnames=("norm", "low_pass", "steps", "rate"))
def _excite(
    layer: _Layer,
    units: Array,
    start: Array,
    norm: float,
    low_pass: float | None,
    steps: int,
    rate: float,
) -> tuple[Array, Array]:
    height, width = start.shape[1:3]
    rows, columns = np.fft.fftfreq(height, 1 / height), np.fft.rfftfreq(width, 1 / width)
    frequencies = np.hypot(rows[:, None], columns)
    kept = np.asarray(low_pass is None or frequencies <= low_pass, np.float32)

    def limited(contrast: Array) -> Array:
        """The contrast with the allowed frequencies and the norm."""
        if low_pass is not None:
            spectrum = jnp.fft.rfft2(contrast, axes=(1, 2)) * kept[None, :, :, None].astype(
                np.complex64
            )
            contrast = jnp.fft.irfft2(spectrum, s=(height, width), axes=(1, 2))
        return norm * _unit(contrast)

    def drive(contrast: Array) -> Array:
        responses = layer.straight(0.5 + contrast).reshape(len(units), -1)
        return jnp.take_along_axis(responses, units[:, None], axis=1)[:, 0]

    def step(number: Any, contrast: Array) -> Array:
        slope = fast.in_fast_layout(jax.grad(lambda x: jnp.sum(drive(x))))(contrast)
        share = 0.5 * (1 + jnp.cos(jnp.pi * number.astype(jnp.float32) / steps))
        return limited(contrast + share * rate * norm * _unit(slope))

    start = limited(start)
    # A rectified unit is silent for one of a pattern and its negative, and has no gradient there.
    brighter = drive(start) >= drive(-start)
    start = jnp.where(brighter.reshape(-1, 1, 1, 1), start, -start)
    contrast = jax.lax.fori_loop(0, steps, step, start)
    return 0.5 + contrast, drive(contrast)
