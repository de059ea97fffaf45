"""Proxies of the texture images of Freeman & Ziemba (2013).

A proxy has the form of the original set (families, samples, textures and noise with the same
spectrum, equal contrast), so that all texture properties can be computed. Its numbers say nothing
about the match to the recorded neurons: the families and the synthesis are different.
"""

import contextlib
import os
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real, UInt8

from vone_jax import arguments, prng
from vone_jax.neurophysiology import textures
from vone_jax.neurophysiology.recording import OneKey
from vone_jax.neurophysiology.stimuli import GREY
from vone_jax.neurophysiology.textures import TextureSet

_IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".tif", ".tiff")
# A texture has heavier tails than its noise, so clipping to 8 bits makes their contrasts unequal.
_MOST_CLIPPED = 0.01
_LEAST_KEPT = 0.98
_CURE = "leave this image out, or take a smaller contrast"
# Grey levels; photographs with heavy tails take a lower contrast than others.
_CONTRASTS = (40.0, 30.0, 20.0, 10.0)


class ClippingError(ValueError):
    """An error for images whose contrast does not fit into 8 bits."""


def load(folder: str | os.PathLike, key: OneKey) -> TextureSet:
    """Read the texture images of Freeman & Ziemba (2013) in a folder, or make a proxy of them.

    Args:
      folder: a folder of the 450 images (``load_freeman_ziemba``), or of photographs of at least 2
        textures (``load_images``). Crops of photographs become a proxy with a contrast of 40 grey
        levels, or of 30, 20 or 10 where more would not fit into 8 bits.
      key: typed key of the crops and their noise.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if images are missing, too few, too small or cannot be read.
    """
    if textures.holds_freeman_ziemba(folder):
        return textures.load_freeman_ziemba(folder)
    photographs = load_images(folder)
    if len(photographs) < 2:
        raise ValueError(
            f"{os.fspath(folder)} must hold photographs of at least 2 textures, or the 450 images "
            f"of Freeman & Ziemba (2013); got {', '.join(photographs)} only"
        )
    for contrast in _CONTRASTS[:-1]:
        with contextlib.suppress(ClippingError):
            return proxy_from_images(key, photographs, rms_contrast=contrast)
    return proxy_from_images(key, photographs, rms_contrast=_CONTRASTS[-1])


def proxy_from_images(
    key: OneKey,
    images: Mapping[str, Real[np.ndarray, "_ _"]],
    samples: int = 15,
    pixels: int = 112,
    rms_contrast: float = 40.0,
) -> TextureSet:
    """Make a proxy of random crops of one image per family, and their noise.

    Crops of one image may overlap. Every crop has mean 128 and the same root-mean-square
    contrast as its noise image. They depend on the key, the family name and the sample number only.

    Args:
      key: typed key.
      images: name of the family -> grey image, at least ``pixels`` on each side.
      samples: crops per family, >= 2.
      pixels: side of a crop, a multiple of 8. It spans 4 degrees: 112 are 28 per degree.
      rms_contrast: standard deviation in grey levels of 8 bits.

    Raises:
      ValueError: if an image is too small, not finite or constant within a crop, if the contrast
        does not fit into 8 bits, or a number is out of range.
    """
    if not images:
        raise ValueError("images must hold at least one family, got none")
    _check_set(samples, pixels, rms_contrast)
    for name, image in images.items():
        shape = np.shape(image)
        if len(shape) != 2 or min(shape) < pixels:
            raise ValueError(
                f"images[{name!r}] must be a grey image (height, width) of at least {pixels} x "
                f"{pixels} pixels, got shape {shape}"
            )

    def crop(name: str, sample_key: jax.Array) -> np.ndarray:
        image = np.asarray(images[name], np.float64)
        room = jnp.asarray([side - pixels + 1 for side in image.shape], jnp.int32)
        corner = jax.random.randint(prng.stream(sample_key, "corner"), (2,), 0, room, jnp.int32)
        top, left = (int(c) for c in corner)
        return image[top : top + pixels, left : left + pixels]

    names = tuple(images)
    return _proxy(key, names, crop, samples, rms_contrast, f"crops of {', '.join(names)}")


def procedural_proxy(
    key: OneKey,
    samples: int = 15,
    pixels: int = 112,
    rms_contrast: float = 40.0,
    families: tuple[str, ...] | None = None,
) -> TextureSet:
    """Make a proxy that needs no images.

    Every texture is filtered noise after a nonlinearity, which adds structure beyond the spectrum:
    blobs, creases, dots, strokes and weaves, each at 1, 2 and 4 cycles per degree. The noise is
    periodic, so that edges add no cross to the spectra.

    The families are some of ``PROCEDURAL_FAMILIES``; by default all 15. Images have sides of at
    least 64 pixels. See ``proxy_from_images`` for the other arguments.

    Raises:
      ValueError: for an unknown family or a number out of range.
    """
    families = PROCEDURAL_FAMILIES if families is None else tuple(families)
    if not families:
        raise ValueError(f"families must be some of {', '.join(PROCEDURAL_FAMILIES)}; got none")
    for name in families:
        arguments.choice("families", name, PROCEDURAL_FAMILIES)
    _check_set(samples, pixels, rms_contrast)
    if pixels < 64:
        raise ValueError(f"pixels must be >= 64 for 4 cycles per degree, got {pixels}")

    def draw(name: str, sample_key: jax.Array) -> np.ndarray:
        kind, frequency = name.split("-")
        white = jax.random.normal(prng.stream(sample_key, "white"), (pixels, pixels), jnp.float32)
        cycles = float(frequency.removesuffix("cpd")) * textures.IMAGE_DEGREES
        return _KINDS[kind](np.fft.fft2(np.asarray(white, np.float64)), cycles)

    return _proxy(key, families, draw, samples, rms_contrast, "procedural textures")


def phase_randomised(
    key: OneKey, image: Real[np.ndarray, "height width"]
) -> Float[np.ndarray, "height width"]:
    """Return a float64 image with the same amplitude spectrum and the phases of white noise.

    The mean stays the same, and so does the variance (Parseval).

    Raises:
      ValueError: if the image is not finite or not two-dimensional.
    """
    image = np.asarray(image, np.float64)
    if image.ndim != 2 or not np.all(np.isfinite(image)):
        raise ValueError(f"image must be a finite (height, width) array, got shape {image.shape}")
    white = jax.random.normal(prng.stream(key, "phases"), image.shape, jnp.float32)
    # The phases of a real image are odd, as those of another real image must be.
    phases = np.exp(1j * np.angle(np.fft.fft2(np.asarray(white, np.float64))))
    phases[0, 0] = 1.0
    amplitude = np.abs(np.fft.fft2(image))
    amplitude[0, 0] = image.sum()
    return np.real(np.fft.ifft2(amplitude * phases))


def load_images(folder: str | os.PathLike) -> dict[str, UInt8[np.ndarray, "_ _"]]:
    """Read one grey image per family for ``proxy_from_images``, in the sorted order of their names.

    The name of an 8-bit image file (PNG, JPEG, TIFF, BMP, PGM) without its ending is the name of
    the family; colours become luminance.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if it holds no image, two files give the same name, or one cannot be read.
    """
    images: dict[str, np.ndarray] = {}
    for path in textures.files_in(folder):
        if not path.name.lower().endswith(_IMAGE_ENDINGS):
            continue
        if path.stem in images:
            raise ValueError(f"{folder} has two images for the family {path.stem!r}")
        images[path.stem] = textures.read_grey(path)
    if not images:
        raise ValueError(
            f"{folder} holds no image; accepted endings are {', '.join(_IMAGE_ENDINGS)}"
        )
    return images


def _proxy(
    key: jax.Array,
    families: tuple[str, ...],
    texture: Callable[[str, jax.Array], np.ndarray],
    samples: int,
    rms_contrast: float,
    source: str,
) -> TextureSet:
    """Make textures by ``texture(family, key)``, their noise, and both at the same contrast."""
    prng.check_key(key)
    stacked = []
    for name in families:
        for sample in range(samples):
            sample_key = prng.fold(prng.stream(key, f"texture {name}"), sample)
            contrast = _standardised(texture(name, sample_key), name) * rms_contrast
            noise = phase_randomised(sample_key, contrast)
            stacked += [_eight_bit(noise, name), _eight_bit(contrast, name)]
    pixels = stacked[0].shape[0]
    return TextureSet(
        np.stack(stacked).reshape(len(families), samples, 2, pixels, pixels),
        families,
        is_proxy=True,
        source=f"proxy, not the images of Freeman & Ziemba: {source}, contrast {rms_contrast:g}",
    )


def _standardised(image: np.ndarray, name: str) -> np.ndarray:
    """Return the image with mean 0 and standard deviation 1."""
    centred = image - image.mean()
    deviation = centred.std()
    if not np.isfinite(deviation):
        raise ValueError(f"the image of family {name!r} holds NaN or infinite values")
    if deviation < 1e-9 * max(1.0, float(np.abs(image).max())):
        raise ValueError(f"a crop of family {name!r} has no contrast; leave this image out")
    return centred / deviation


def _eight_bit(contrast: np.ndarray, name: str) -> np.ndarray:
    grey = np.rint(contrast + GREY)
    clipped = float(np.mean((grey < 0) | (grey > 255)))
    if clipped > _MOST_CLIPPED:
        raise ClippingError(
            f"rms_contrast is too large for family {name!r}: {clipped:.1%} of an image would "
            f"leave [0, 255], at most {_MOST_CLIPPED:.0%} is accepted; {_CURE}"
        )
    kept = float(np.clip(contrast + GREY, 0, 255).std() / contrast.std())
    if kept < _LEAST_KEPT:
        raise ClippingError(
            f"rms_contrast is too large for family {name!r}: in [0, 255] an image would keep "
            f"{kept:.1%} of it, at least {_LEAST_KEPT:.0%} is accepted; {_CURE}"
        )
    return np.clip(grey, 0, 255).astype(np.uint8)


def _band(spectrum: np.ndarray, cycles: float, orientation: float | None = None) -> np.ndarray:
    """Return noise of about one octave around ``cycles`` per image, with deviation 1."""
    pixels = len(spectrum)
    y, x = np.meshgrid(*[np.fft.fftfreq(pixels, 1 / pixels)] * 2, indexing="ij")
    radius = np.hypot(x, y)
    radius[0, 0] = 1.0
    gain = np.exp(-(np.log(radius / cycles) ** 2) / (2 * 0.35**2))
    gain[0, 0] = 0.0
    if orientation is not None:
        angle = np.angle(np.exp(2j * (np.arctan2(y, x) - np.deg2rad(orientation)))) / 2
        gain = gain * np.exp(-(angle**2) / (2 * np.deg2rad(12.0) ** 2))
    noise = np.real(np.fft.ifft2(spectrum * gain))
    return noise / noise.std()


_KINDS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "blobs": lambda spectrum, cycles: np.tanh(3 * _band(spectrum, cycles)),
    "creases": lambda spectrum, cycles: np.sqrt(np.abs(_band(spectrum, cycles))),
    "dots": lambda spectrum, cycles: np.tanh(4 * (_band(spectrum, cycles) - 1)),
    "strokes": lambda spectrum, cycles: np.tanh(3 * _band(spectrum, cycles, 30.0)),
    "weave": lambda spectrum, cycles: np.tanh(
        3 * np.maximum(_band(spectrum, cycles, 0.0), _band(spectrum, cycles, 90.0))
    ),
}
PROCEDURAL_FAMILIES = tuple(f"{kind}-{cpd}cpd" for kind in _KINDS for cpd in (1, 2, 4))


def _check_set(samples: int, pixels: int, rms_contrast: float) -> None:
    arguments.count("samples", samples, 2)
    textures.check_pixels(pixels)
    arguments.number("rms_contrast", rms_contrast, arguments.POSITIVE)
