"""Certificates in the units of vision: certified contrast, and what noise hides best and least."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, Float64, Key

from vone_jax import arguments, batches, prng
from vone_jax.arguments import Range
from vone_jax.certification.bounds import displacements
from vone_jax.certification.observer import check_noise, information, largest_size
from vone_jax.v1 import Noise, VOneBlockConfig


@dataclasses.dataclass(frozen=True, eq=False)
class CertifiedContrast:
    """How strong a grating must be before it can change an answer, at each spatial frequency.

    Attributes:
      frequencies: in cycles per degree.
      amplitude: certified amplitude in pixel units, the smallest over orientations and phases. No
        full-field grating of at most this amplitude changes the class of any image. On a grey of
        0.5, the contrast is twice the amplitude.
      gain: largest ||A g|| for gratings g of amplitude 1: the gain of V1 over frequency.
    """

    frequencies: Float64[np.ndarray, " n"]
    amplitude: Float64[np.ndarray, " n"]
    gain: Float64[np.ndarray, " n"]


def certified_contrast(
    config: VOneBlockConfig,
    frequencies: Sequence[float] | np.ndarray,
    probability: float = 0.99,
    noise: Noise = None,
    orientations: int = 8,
    phases: int = 4,
) -> CertifiedContrast:
    """Return the certified contrast sensitivity of V1 and its noise.

    It holds for all images whose class has at least this probability, with any network behind V1.

    Args:
      config: configuration of the block.
      frequencies: in cycles per degree, below the Nyquist limit of the pixel grid.
      probability: of the class on images without the grating, > 1/2.
      noise: default ``config.noise``.
      orientations: number of orientations, evenly from 0 to 180 degrees.
      phases: number of phases, evenly from 0 to 180 degrees; a shift by 180 changes signs only.

    Raises:
      ValueError: if an argument is out of range, or there is no bound for the block or its noise.
    """
    noise = config.noise if noise is None else noise
    check_noise(noise)
    arguments.number("probability", probability, Range(0.5, 1.0, above=True, below=True))
    side, nyquist = config.image_size, config.pixels_per_degree / 2
    offset = (np.arange(side) - (side - 1) / 2) / config.pixels_per_degree
    orientation = np.arange(orientations) * np.pi / orientations
    phase = (np.arange(phases) * np.pi / phases)[:, None, None]
    amplitudes, gains = [], []
    for frequency in frequencies:
        arguments.number("frequencies", frequency, Range(most=nyquist))
        gain = reach = 0.0
        for angle in orientation:
            position = offset[:, None] * np.cos(angle) + offset * np.sin(angle)
            gratings = np.sin(2 * np.pi * frequency * position + phase).astype(np.float32)
            shape = (*gratings.shape, config.in_channels)
            moved = np.asarray(displacements(config, np.broadcast_to(gratings[..., None], shape)))
            moved = moved.reshape(phases, -1).astype(np.float64)
            gain = max(gain, float(np.linalg.norm(moved, axis=1).max()))
            reach = max(reach, float(moved.max()))
        gains.append(gain)
        amplitudes.append(largest_size(noise, probability, gain, reach)[0] if gain else math.inf)
    return CertifiedContrast(*(np.array(each, float) for each in (frequencies, amplitudes, gains)))


@dataclasses.dataclass(frozen=True, eq=False)
class Eigendistortions:
    """Perturbations of an image that an observer of noisy responses detects best and least.

    Attributes:
      most: the most detectable ones of L2 norm 1, first the best, (count, h, w, c).
      most_information: d'^2 of each per squared L2 norm, for small perturbations.
      least: the least detectable ones, first the least.
      least_information: the same for these, to about a hundred-thousandth of the largest.
    """

    most: Float[np.ndarray, "count h w c"]
    most_information: Float64[np.ndarray, " count"]
    least: Float[np.ndarray, "count h w c"]
    least_information: Float64[np.ndarray, " count"]


def eigendistortions(
    key: Key[Array, ""],
    response_fn: Callable[[Array, Array], Array],
    image: Float[Array | np.ndarray, "h w c"],
    noise: Noise = None,
    count: int = 1,
) -> Eigendistortions:
    """Return the extreme eigenvectors of the Fisher information of noisy responses about an image.

    The information is J^T I J, with the Jacobian J of the responses, and the information I of each
    noisy response (Berardino et al. 2017, arXiv:1710.02266). It is never formed: ``jvp`` and
    ``vjp`` multiply by it, and the method of Lanczos (ARPACK) finds its eigenvectors.

    Args:
      key: decides on the start vector, and is the key of ``response_fn``.
      response_fn: a layer (keys, images) -> responses without noise, such as
        ``models.response_fn(models.without_noise(model), variables, "v1")``.
      image: one image in [0, 1].
      noise: noise of the responses; ``v1.NeuronalNoise`` and ``v1.StabilisedNoise`` count spikes.
        None stands for Gaussian noise of deviation 1.
      count: number of eigenvectors at either end.

    Raises:
      ValueError: if count is out of range.
    """
    image = jnp.asarray(batches.check_images(jnp.asarray(image)[None])[0], jnp.float32)
    arguments.count("count", count, most=(image.size - 1) // 2)
    keys = prng.example_keys(key, 1)
    layer = prng.trace(response_fn, keys, image[None], "response_fn")

    def multiply(vector: np.ndarray) -> np.ndarray:
        tangent = jnp.asarray(vector.reshape(image.shape), jnp.float32)
        product = _information_product(layer, keys, image, tangent, noise)
        return np.asarray(product, np.float64).ravel()

    start = np.asarray(jax.random.normal(prng.stream(key, "start"), (image.size,)), np.float64)

    def largest(multiply: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        operator = scipy.sparse.linalg.LinearOperator((image.size,) * 2, multiply, dtype=float)
        # Products are float32, so a closer tolerance is not met.
        values, vectors = scipy.sparse.linalg.eigsh(operator, count, which="LA", v0=start, tol=1e-5)
        return values[::-1], vectors.T[::-1].reshape(count, *image.shape)

    most, best = largest(multiply)
    # The smallest eigenvalues of a matrix are the largest ones of its difference from a multiple of
    # the identity, which Lanczos finds. Their error is a share of the largest eigenvalue.
    least, worst = largest(lambda vector: most[0] * np.ravel(vector) - multiply(vector))
    return Eigendistortions(best, most, worst, np.maximum(most[0] - least, 0.0))


@functools.partial(jax.jit, static_argnames="noise")
def _information_product(
    layer: Any, keys: Array, image: Array, tangent: Array, noise: Noise
) -> Array:
    """The Fisher information matrix about an image, times a perturbation."""

    def of_image(image: Array) -> Array:
        return layer(keys, image[None])

    responses, change = jax.jvp(of_image, (image,), (tangent,))
    _, pull_back = jax.vjp(of_image, image)
    return pull_back(information(noise, responses) * change)[0]
