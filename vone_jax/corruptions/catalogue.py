"""Corruptions by name and severity."""

import dataclasses
import difflib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from vone_jax import prng
from vone_jax.corruptions import blur, digital, noise, tables


def _scalar(parameter: float, shape: tuple[int, int, int]) -> np.ndarray:
    return np.asarray(parameter, np.float32)


@dataclasses.dataclass(frozen=True)
class _Corruption:
    """``apply(keys, images, prepare(parameter, (H, W, C)))``.

    ``prepare`` runs on the host and returns arrays. They are arguments of the compiled function,
    so one compilation serves all severities whose arrays have the same shapes.
    """

    apply: Callable[[jax.Array, jax.Array, Any], jax.Array]
    prepare: Callable[[Any, tuple[int, int, int]], Any] = _scalar


_CORRUPTIONS = {
    "gaussian_noise": _Corruption(noise.gaussian),
    "shot_noise": _Corruption(noise.shot),
    "impulse_noise": _Corruption(noise.impulse),
    "speckle_noise": _Corruption(noise.speckle),
    "defocus_blur": _Corruption(blur.disk, blur.disk_kernel),
    "gaussian_blur": _Corruption(blur.separable, blur.gaussian_matrices),
    "brightness": _Corruption(digital.brightness),
    "contrast": _Corruption(digital.contrast),
    "pixelate": _Corruption(digital.pixelate, digital.box_matrices),
}

NAMES = tuple(_CORRUPTIONS)
SEVERITIES = (1, 2, 3, 4, 5)


def corrupt(
    key: jax.Array, images: jax.Array, name: str, severity: int, table: str | None = None
) -> jax.Array:
    """Images with a common corruption, as ImageNet-C defines it, before its 8-bit truncation.

    Args:
      key: typed key; a scalar numbers the examples by position, an array of N keys gives each
        its own draws in any batch.
      images: floating point in [0, 1], shape (N, H, W, C), 1 or 3 channels.
      name: one of ``NAMES``.
      severity: 1 to 5; 0 returns the images as they are.
      table: whose parameters, one of ``tables.TABLES``. Default: by the size of the images, see
        ``tables.table_for``.

    Returns:
      Images in [0, 1], same shape and dtype. Works under ``jit`` and ``vmap``; name and severity
      are static.

    Raises:
      ValueError: for an unknown name or table, a severity that is not an integer from 0 to 5, a
        wrong shape, or values outside [0, 1].
      TypeError: for images that are not floating point, or a key that is not typed.
    """
    check_name(name)
    check_severity(severity)
    if table is not None and table not in tables.TABLES:
        raise ValueError(f"table must be one of {', '.join(tables.TABLES)}; got {table!r}")
    images = jnp.asarray(images)
    _check_images(images)
    keys = prng.example_keys(key, images.shape[0])
    if severity == 0:
        return images
    height, width, channels = images.shape[1:]
    parameters = tables.SEVERITIES[name][table or tables.table_for(height, width)]
    corruption = _CORRUPTIONS[name]
    arrays = corruption.prepare(parameters[severity - 1], (height, width, channels))
    return _apply(name, keys, images, arrays)


@functools.partial(jax.jit, static_argnames="name")
def _apply(name, keys, images, arrays):
    # Each corruption draws from its own stream, the same one at every severity.
    keys = prng.stream(keys, name)
    return jnp.clip(_CORRUPTIONS[name].apply(keys, images, arrays), 0.0, 1.0)


def check_name(name: str) -> None:
    """Raises a ValueError that names the nearest corruption unless ``name`` is one."""
    if name not in NAMES:
        close = difflib.get_close_matches(str(name), NAMES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"name must be one of {', '.join(NAMES)}; got {name!r}{hint}")


def check_severity(severity: int) -> None:
    """Raises a ValueError unless ``severity`` is an integer from 0 to 5."""
    whole = isinstance(severity, (int, np.integer)) and not isinstance(severity, bool)
    if not whole or not 0 <= severity <= 5:
        raise ValueError(f"severity must be an integer from 0 to 5, got {severity!r}")


def _check_images(images: jax.Array) -> None:
    if not jnp.issubdtype(images.dtype, jnp.floating):
        hint = "; divide by 255" if images.dtype == jnp.uint8 else ""
        raise TypeError(f"images must be floating point in [0, 1], got {images.dtype}{hint}")
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise ValueError(f"images must have shape (N, H, W, 1 or 3), got {images.shape}")
    if not isinstance(images, Tracer):
        low, high = float(jnp.min(images)), float(jnp.max(images))
        if not (low >= -1e-6 and high <= 1 + 1e-6):
            raise ValueError(f"images must lie in [0, 1], got values from {low:g} to {high:g}")
