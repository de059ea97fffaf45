"""Corruptions by name and severity."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from vone_jax import arguments, batches, prng
from vone_jax.corruptions import (
    blur,
    c_bar,
    digital,
    frost,
    jpeg,
    levels,
    matrices,
    noise,
    spatter,
    weather,
)
from vone_jax.corruptions.levels import Images, Keys, Shape
from vone_jax.corruptions.tables import CONTINUOUS, FROST_SCALE, TABLES, parameters, table_for
from vone_jax.names import (
    C_BAR_CORRUPTIONS,
    COMMON_CORRUPTIONS,
    CORRUPTION_CATEGORIES,
    EXTRA_CORRUPTIONS,
)


@dataclasses.dataclass(frozen=True)
class Corruption:
    """Three pure functions that make a corruption.

    Attributes:
      apply: ``apply(draws, images, arrays)`` returns the corrupted images before clipping.
        ``draws`` are random numbers, so numbers of another implementation can be passed. The noise
        corruptions draw value by value and take the keys instead. Corruptions without randomness
        ignore ``draws``.
      prepare: ``prepare(parameters, (H, W, C))`` runs on the host and returns arrays. They are
        arguments of the compiled function, so one compilation serves all severities whose arrays
        have the same shapes.
      draw: ``draw(keys, (H, W, C), arrays)`` returns the random numbers of each image.
    """

    apply: Callable[[Any, jax.Array, Any], jax.Array]
    prepare: Callable[..., Any] = lambda parameters, shape: np.asarray(parameters, np.float32)
    draw: Callable[[Keys, Shape, Any], Any] = lambda keys, shape, arrays: keys


CORRUPTIONS = {
    "gaussian_noise": Corruption(noise.gaussian),
    "shot_noise": Corruption(noise.shot, noise.prepare_shot),
    "impulse_noise": Corruption(noise.impulse),
    "defocus_blur": Corruption(blur.defocus, blur.prepare_defocus),
    "glass_blur": Corruption(blur.glass, blur.prepare_glass, blur.draw_moves),
    "motion_blur": Corruption(blur.motion, blur.prepare_motion, blur.draw_angles),
    "zoom_blur": Corruption(blur.zoom, blur.prepare_zoom),
    "snow": Corruption(weather.snow, weather.prepare_snow, weather.draw_snow),
    "frost": Corruption(frost.frost, frost.prepare, frost.draw),
    "fog": Corruption(weather.fog, draw=weather.draw_fog),
    "brightness": Corruption(digital.brightness),
    "contrast": Corruption(digital.contrast),
    "elastic_transform": Corruption(digital.elastic, digital.prepare_elastic, digital.draw_elastic),
    "pixelate": Corruption(digital.pixelate, digital.prepare_pixelate),
    "jpeg_compression": Corruption(jpeg.compress, jpeg.quantisers),
    "speckle_noise": Corruption(noise.speckle),
    "gaussian_blur": Corruption(blur.gaussian, matrices.gaussian),
    "spatter": Corruption(spatter.spatter, spatter.prepare, spatter.draw),
    "saturate": Corruption(digital.saturate),
    "frost_procedural": Corruption(weather.drawn_frost, draw=weather.draw_frost),
    "single_frequency_greyscale": Corruption(c_bar.single_frequency, draw=c_bar.draw_numbers),
    "cocentric_sine_waves": Corruption(c_bar.concentric_waves, draw=c_bar.draw_numbers),
    "plasma_noise": Corruption(c_bar.plasma, draw=c_bar.draw_numbers),
    "sparkles": Corruption(c_bar.sparkles, draw=c_bar.draw_stars),
    "inverse_sparkles": Corruption(c_bar.inverse_sparkles, draw=c_bar.draw_stars),
    "perlin_noise": Corruption(c_bar.perlin, draw=c_bar.draw_lattices),
    "brownish_noise": Corruption(c_bar.brownish_noise, draw=c_bar.draw_phases),
    "blue_noise_sample": Corruption(c_bar.blue_noise_sample, draw=c_bar.draw_phases),
    "checkerboard_cutout": Corruption(c_bar.checkerboard, draw=c_bar.draw_board),
    "caustic_refraction": Corruption(c_bar.caustics, c_bar.prepare_caustics, c_bar.draw_numbers),
}

# In the order of ImageNet-C: its 15 corruptions, its 4 extra ones, and one of this project; then
# the ten of ImageNet-C-bar.
NAMES = tuple(CORRUPTIONS)

SETS = {
    "common": COMMON_CORRUPTIONS,
    "extra": EXTRA_CORRUPTIONS,
    "c_bar": C_BAR_CORRUPTIONS,
    **CORRUPTION_CATEGORIES,
}

FORMS = ("float", "uint8", "jpeg85")


def corrupt(
    key: Key[Array, ""] | Keys,
    images: Images | Float[np.ndarray, "n h w c"],
    name: str,
    severity: int | float,
    table: str | None = None,
    *,
    form: str = "float",
    frost_images: frost.FrostImages | None = None,
) -> Images:
    """Apply a corruption as ImageNet-C or ImageNet-C-bar defines it.

    Args:
      key: one typed key, or one key for each image. With one key, the draws of an image depend on
        its position. With a key of its own, an image gets the same corruption in any batch.
      images: float32 in [0, 1], with 1 or 3 channels. A grey image is treated as a colour
        image with equal channels, and the result is its luma.
      name: one of ``NAMES``.
      severity: 1 to 5; 0 returns the images unchanged. The benchmarks have whole severities. As an
        extension, a corruption of ``CONTINUOUS`` also takes numbers between them, for which its
        parameters are interpolated.
      table: the benchmark whose parameters are used, one of ``TABLES``. Default: by the size of
        the images, see ``table_for``.
      form: one of ``FORMS``: "float" is the result itself; "uint8" is truncated to eight bits, as
        in CIFAR-10-C; "jpeg85" is then compressed to JPEG of quality 85, as in ImageNet-C and
        Tiny-ImageNet-C.
      frost_images: the photographs for ``frost``, see ``load_frost``.

    Returns:
      Images in [0, 1], of the same shape and dtype. The function works under ``jit`` and ``vmap``;
      name, severity, table and form are static. Values are not checked under ``jit``.

    Raises:
      ValueError: if the name, table, form or severity does not exist, if images have a wrong shape,
        are too small, contain NaN or leave [0, 1], or if frost has no photographs.
      TypeError: if images are not float32 or float64, or the key is not a typed key.

    References:
      Hendrycks and Dietterich, Benchmarking neural network robustness to common corruptions and
      perturbations, 2019, arXiv:1903.12261.
    """
    arguments.choice("name", name, NAMES)
    if name in CONTINUOUS and not isinstance(severity, int):
        arguments.number("severity", severity, arguments.Range(1.0, 5.0))
    else:
        arguments.count("severity", severity, 0, most=5)
    if table is not None:
        arguments.choice("table", table, TABLES)
    arguments.choice("form", form, FORMS)
    images = check_images(images)
    keys = prng.example_keys(key, images.shape[0])
    if severity == 0:
        return images
    shape: Any = images.shape[1:]
    arrays = prepare(name, severity, shape, table, frost_images)
    return _apply(name, form, keys, images, arrays)


def prepare(
    name: str,
    severity: int | float,
    shape: Shape,
    table: str | None = None,
    frost_images: frost.FrostImages | None = None,
) -> Any:
    """Return the arrays of a corruption for one shape (H, W, C) of images; see ``corrupt``."""
    table = table or table_for(*shape[:2])
    if name == "frost":
        weights = parameters(name, table, severity)
        arrays = frost.prepare(weights, shape, frost_images, FROST_SCALE[table])
    else:
        arrays = _prepared(name, severity, shape, table)
    return jax.tree.map(jnp.asarray, arrays)


@functools.lru_cache(maxsize=128)
def _prepared(name: str, severity: int | float, shape: Shape, table: str) -> Any:
    return CORRUPTIONS[name].prepare(parameters(name, table, severity), shape)


@functools.partial(jax.jit, static_argnames=("name", "form"))
def _apply(name: str, form: str, keys: jax.Array, images: jax.Array, arrays: Any) -> jax.Array:
    # Each corruption draws from a stream of its own, which is the same at every severity.
    keys = prng.stream(keys, name)
    corruption = CORRUPTIONS[name]
    shape: Any = images.shape[1:]
    draws = corruption.draw(keys, shape, arrays)
    out = jnp.clip(corruption.apply(draws, images.astype(jnp.float32), arrays), 0.0, 1.0)
    if form != "float":
        out = levels.truncate(255 * out) / 255
    if form == "jpeg85":
        out = jpeg.compress(keys, out, jnp.asarray(jpeg.quantisers(85, shape)))
    return out.astype(images.dtype)


def check_images(images: Images | Float[np.ndarray, "n h w c"]) -> Images:
    """Check that images lie in [0, 1] and have shape (N, H, W, 1 or 3), and return an array."""
    images = batches.check_images(images)
    if images.shape[-1] not in (1, 3):
        raise ValueError(f"images must have shape (N, H, W, 1 or 3), got {images.shape}")
    return images
