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
from vone_jax.corruptions import (
    blur,
    digital,
    elastic,
    frost,
    glass,
    jpeg,
    levels,
    motion,
    noise,
    spatter,
    tables,
    weather,
)


def _scalar(parameter: float, shape: tuple[int, int, int]) -> np.ndarray:
    return np.asarray(parameter, np.float32)


def _keys(keys: jax.Array, shape: tuple[int, int, int], arrays: Any) -> jax.Array:
    return keys


@dataclasses.dataclass(frozen=True)
class Corruption:
    """Three pure functions.

    Attributes:
      apply: ``apply(draws, images, arrays)``, the corrupted images before clipping. Noise draws
        value by value: its ``draws`` are the keys. What draws nothing takes the keys and leaves
        them alone. All others take numbers, so that those of another implementation can be given.
      prepare: ``prepare(parameter, (H, W, C))`` runs on the host and returns arrays. They are
        arguments of the compiled function, so that one compilation serves all severities whose
        arrays have the same shapes.
      draw: ``draw(keys, (H, W, C), arrays)``, the random numbers of each image from its key.
    """

    apply: Callable[[Any, jax.Array, Any], jax.Array]
    prepare: Callable[..., Any] = _scalar
    draw: Callable[[jax.Array, tuple[int, int, int], Any], Any] = _keys


CORRUPTIONS = {
    "gaussian_noise": Corruption(noise.gaussian),
    "shot_noise": Corruption(noise.shot, noise.shot_arrays),
    "impulse_noise": Corruption(noise.impulse),
    "defocus_blur": Corruption(blur.disk, blur.disk_kernel),
    "glass_blur": Corruption(glass.blur, glass.prepare, glass.draw_moves),
    "motion_blur": Corruption(motion.blur, motion.taps, motion.draw_angles),
    "zoom_blur": Corruption(blur.zoom, blur.zoom_places),
    "snow": Corruption(weather.snow, weather.snow_arrays, weather.draw_snow),
    "frost": Corruption(frost.frost, frost.prepare, frost.draw_crops),
    "fog": Corruption(weather.fog, weather.fog_arrays, weather.draw_plasma),
    "brightness": Corruption(digital.brightness),
    "contrast": Corruption(digital.contrast),
    "elastic_transform": Corruption(elastic.transform, elastic.prepare, elastic.draw),
    "pixelate": Corruption(digital.pixelate, digital.box_weights),
    "jpeg_compression": Corruption(jpeg.compress, jpeg.quantisers),
    "speckle_noise": Corruption(noise.speckle),
    "gaussian_blur": Corruption(blur.separable, blur.gaussian_matrices),
    "spatter": Corruption(spatter.spatter, spatter.prepare, spatter.draw),
    "saturate": Corruption(digital.saturate, digital.saturation_numbers),
    "frost_procedural": Corruption(frost.procedural, frost.procedural_arrays, frost.draw_textures),
}

# In the order of ImageNet-C: its 15, its 4 extra ones, and one of this project.
NAMES = tuple(CORRUPTIONS)
SEVERITIES = (1, 2, 3, 4, 5)

SETS = {
    "common": NAMES[:15],
    "extra": NAMES[15:19],
    "noise": NAMES[:3],
    "blur": NAMES[3:7],
    "weather": NAMES[7:11],
    "digital": NAMES[11:15],
}

FORMS = ("float", "uint8", "jpeg85")


def corrupt(
    key: jax.Array,
    images: jax.Array,
    name: str,
    severity: int,
    table: str | None = None,
    *,
    form: str = "float",
    frost_images: frost.FrostImages | None = None,
) -> jax.Array:
    """Images with a common corruption, as ImageNet-C defines it.

    Args:
      key: typed key; a scalar numbers the examples by position, an array of N keys gives each
        its own draws in any batch.
      images: floating point in [0, 1], shape (N, H, W, C), 1 or 3 channels. Grey images are
        treated like colour images with equal channels, and the result is its luma.
      name: one of ``NAMES``.
      severity: 1 to 5; 0 returns the images as they are.
      table: whose parameters, one of ``tables.TABLES``. Default: by the size of the images, see
        ``tables.table_for``.
      form: one of ``FORMS``. The published files hold the result cut down to 8 bits ("uint8";
        CIFAR-10-C) and then compressed to JPEG of quality 85 ("jpeg85"; ImageNet-C and
        Tiny-ImageNet-C). "float" is the result before either.
      frost_images: the photographs that ``frost`` needs, see ``load_frost``.

    Returns:
      Images in [0, 1], same shape and dtype. Works under ``jit`` and ``vmap``; name, severity,
      table and form are static.

    Raises:
      ValueError: for an unknown name, table or form, a severity that is not an integer from 0 to
        5, a wrong shape, values outside [0, 1], or frost without photographs.
      TypeError: for images that are not floating point, or a key that is not typed.
    """
    check_name(name)
    check_severity(severity)
    if table is not None and table not in tables.TABLES:
        raise ValueError(f"table must be one of {', '.join(tables.TABLES)}; got {table!r}")
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}; got {form!r}")
    images = jnp.asarray(images)
    _check_images(images)
    keys = prng.example_keys(key, images.shape[0])
    if severity == 0:
        return images
    height, width, channels = images.shape[1:]
    arrays = prepare(name, severity, (height, width, channels), table, frost_images)
    return _apply(name, form, keys, images, arrays)


def prepare(
    name: str,
    severity: int,
    shape: tuple[int, int, int],
    table: str | None = None,
    frost_images: frost.FrostImages | None = None,
) -> Any:
    """The arrays of a corruption for images (H, W, C), see ``Corruption`` and ``corrupt``."""
    table = table or tables.table_for(*shape[:2])
    parameters = tables.SEVERITIES[name][table][severity - 1]
    if name == "frost":
        arrays = frost.prepare(parameters, shape, frost_images, tables.FROST_SCALE[table])
    else:
        arrays = CORRUPTIONS[name].prepare(parameters, shape)
    return jax.tree.map(jnp.asarray, arrays)


@functools.partial(jax.jit, static_argnames=("name", "form"))
def _apply(name, form, keys, images, arrays):
    # Each corruption draws from its own stream, the same one at every severity.
    keys = prng.stream(keys, name)
    corruption = CORRUPTIONS[name]
    clean = images.astype(jnp.float32)
    draws = corruption.draw(keys, images.shape[1:], arrays)
    out = jnp.clip(corruption.apply(draws, clean, arrays), 0.0, 1.0)
    if form != "float":
        out = levels.truncate(255 * out) / 255
    if form == "jpeg85":
        out = jpeg.compress(keys, out, jnp.asarray(jpeg.quantisers(85, images.shape[1:])))
    return out.astype(images.dtype)


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
        # A minimum on the device may pass over NaN; no comparison holds for it.
        with jax.ensure_compile_time_eval():
            inside = bool(jnp.all((images >= -1e-6) & (images <= 1 + 1e-6)))
        if not inside:
            values = np.asarray(images, np.float32)
            raise ValueError(
                f"images must lie in [0, 1], got values from {values.min():g} to {values.max():g}"
            )
