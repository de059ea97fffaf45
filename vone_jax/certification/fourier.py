"""The Fourier heat map: how often gratings of each spatial frequency change the answer.

Reference: Yin, Gontijo Lopes, Shlens, Cubuk, Gilmer (2019), arXiv:1906.08988.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Key

from vone_jax import arguments, batches, prng

Images = Float[Array | np.ndarray, "n h w c"]


def fourier_basis(height: int, width: int, size: int) -> Float32[np.ndarray, "size size h w"]:
    """Return real gratings of L2 norm 1, one for each of the central size x size frequencies.

    Entry [i, j] has one pair of conjugate coefficients, at i - size // 2 cycles per image along
    rows and j - size // 2 along columns. Both of a pair have the same grating.

    Raises:
      ValueError: if ``size`` is even or larger than the image.
    """
    arguments.count("size", size, most=min(height, width))
    if size % 2 == 0:
        raise ValueError(f"size must be odd, so that frequency 0 is in the centre, got {size}")
    cycles = np.arange(size) - size // 2
    rows = cycles[:, None, None, None] * np.arange(height)[:, None] / height
    angle = 2 * np.pi * (rows + cycles[:, None, None] * np.arange(width) / width)
    gratings = np.cos(angle) + np.sin(angle)
    norms = np.linalg.norm(gratings, axis=(2, 3), keepdims=True)
    return (gratings / norms).astype(np.float32)


def fourier_map(
    key: Key[Array, "*keys"],
    logits_fn: Callable[[Array, Array], Array],
    images: Images,
    labels: Int[Array | np.ndarray, " n"],
    norm: float = 4.0,
    size: int = 31,
) -> Bool[np.ndarray, "n size size"]:
    """Return whether the answer is wrong under a grating of each frequency; 0 is in the centre.

    The mean over images is the heat map.

    Each channel of each image gets the grating, multiplied by ``norm`` and by a random sign, and is
    clipped to [0, 1]. The defaults are those of the reference for CIFAR-10; it has 15.7 and 63 for
    ImageNet.

    Args:
      key: one typed key, or one per image. Signs and noise of an image follow from its key and the
        frequency.
      logits_fn: function of (keys, images), one key per example.
      images: in [0, 1]. All of them get a grating at the same time.
      labels: classes.
      norm: L2 norm of the perturbation of a channel, in pixel units.
      size: number of frequencies along each axis, odd.

    Raises:
      ValueError: if an argument, an image or a label is out of range.
      TypeError: if images are not float32 or float64, or labels are not integers.
      FloatingPointError: if logits are not finite.
    """
    arguments.number("norm", norm)
    images = jnp.asarray(batches.check_images(images), jnp.float32)
    basis = fourier_basis(images.shape[1], images.shape[2], size)
    # The other half is the same, mirrored.
    half = basis.reshape(size**2, *basis.shape[2:])[: size**2 // 2 + 1]
    keys = prng.example_keys(key, len(images))
    classifier = prng.trace(logits_fn, keys, images)
    classes = jax.eval_shape(classifier, keys, images).shape[-1]
    labels = batches.check_labels(labels, len(images), classes)
    wrong, finite = _wrong(classifier, keys, images, labels, norm * half)
    if not finite.all():
        raise FloatingPointError("logits_fn returned logits that are NaN or infinite")
    wrong = np.asarray(wrong).T
    return np.concatenate([wrong, wrong[:, -2::-1]], axis=1).reshape(-1, size, size)


@jax.jit
def _wrong(
    classifier: Any, keys: Array, images: Array, labels: Array, gratings: Array
) -> tuple[Array, Array]:
    def of_grating(number_and_grating: tuple[Array, Array]) -> tuple[Array, Array]:
        number, grating = number_and_grating
        own = prng.fold(keys, number)
        flip = functools.partial(jax.random.rademacher, shape=images.shape[3:], dtype=jnp.float32)
        signs = jax.vmap(flip)(prng.stream(own, "signs"))
        moved = images + signs[:, None, None] * grating[None, :, :, None]
        logits = classifier(prng.stream(own, "noise"), jnp.clip(moved, 0.0, 1.0))
        return jnp.argmax(logits, axis=-1) != labels, jnp.isfinite(logits).all()

    return jax.lax.map(of_grating, (jnp.arange(len(gratings)), gratings))
