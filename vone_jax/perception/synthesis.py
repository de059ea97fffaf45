"""Metamers: images that show what a layer keeps of an image (Feather et al. 2023).

They have the same responses of a layer as a reference. What they lack, the layer does not see.

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
