"""Naturalistic textures and spectrally matched noise, and their place in the visual field.

Freeman, Ziemba et al. (2013), Nature Neuroscience 16:974-981, showed V1 neurons 15 families of
synthetic textures, 15 samples each, and for every sample a noise image with the same amplitude
spectrum. The user supplies these 450 images (``load_freeman_ziemba``).

Images are 8-bit grey values around 128. A texture image spans 4 degrees.
"""

import dataclasses
import math
import os
import re
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from vone_jax import arguments
from vone_jax.neurophysiology.stimuli import CENTRE, GREY, Display, Window, check_uint8

IMAGE_DEGREES = 4.0
CANVAS_DEGREES = 8.0
TYPES = ("noise", "texture")

FREEMAN_ZIEMBA_FAMILIES = (13, 18, 23, 30, 38, 48, 52, 56, 60, 71, 99, 327, 336, 393, 402)
FREEMAN_ZIEMBA_SAMPLES = 15
_FILE_NAME = re.compile(r"(aperture_)?(tex|noise)-\d+x\d+-im(\d+)-smp(\d+)\.png")
_EIGHT_BIT_MODES = ("1", "CMYK", "L", "LA", "P", "PA", "RGB", "RGBA", "YCbCr")


@dataclasses.dataclass(frozen=True, eq=False)
class TextureSet:
    """Textures and their noise images.

    In the numbering of images the type varies fastest, then the sample, then the family. So
    ``rates.reshape(*textures.shape, units)`` has the form that the texture properties take.

    Attributes:
      images: grey levels around 128. Type 0 is the noise, type 1 the texture (types 1 and 2 of
        Freeman & Ziemba). The side is a multiple of 8, so that the stimulus centre is a pixel.
      families: one name per family.
      has_aperture: False for plain images of 4 degrees; True for images of the 8-degree canvas with
        the aperture applied.

    Raises:
      TypeError: if images are not uint8.
      ValueError: if shapes do not fit.
    """

    images: UInt8[np.ndarray, "families samples 2 side side"]
    families: tuple[str, ...]
    has_aperture: bool = False

    def __post_init__(self):
        check_uint8(self.images)
        shape = self.images.shape
        if len(shape) != 5 or shape[2] != 2 or shape[3] != shape[4] or 0 in shape:
            raise ValueError(
                f"images must have shape (families, samples, 2, side, side), got {shape}"
            )
        check_pixels(shape[-1])
        if len(self.families) != shape[0]:
            raise ValueError(f"families must name {shape[0]} families, got {len(self.families)}")

    def __len__(self) -> int:
        return math.prod(self.shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The numbers of families, samples and types."""
        families, samples, types = self.images.shape[:3]
        return families, samples, types


def render(
    textures: TextureSet,
    indices: Int[np.ndarray, " n"],
    display: Display,
    window: Window | None = None,
) -> UInt8[np.ndarray, "n height width"]:
    """Place images of the texture benchmarks in the field of view of a layer.

    The contrast around 128 is multiplied by 0.5 (1 + cos(pi d / 2 deg)) up to a distance d of 2
    degrees from the point 0.5 degrees right of and below fixation, and by 0 beyond. By default the
    window is the whole image.
    """
    images = textures.images.reshape(len(textures), *textures.images.shape[-2:])[indices]
    if not textures.has_aperture:
        images = _with_aperture(images)
    framed = reframe(images, CANVAS_DEGREES, display.visual_degrees, display.image_size)
    window = window or display.whole()
    rows = slice(window.top, window.top + window.height)
    return framed[:, rows, window.left : window.left + window.width]


def reframe(
    images: UInt8[np.ndarray, "n side side"],
    degrees: float,
    visual_degrees: float,
    image_size: int,
) -> UInt8[np.ndarray, "n size size"]:
    """Place images of a known size in degrees at fixation, in the field of view of a layer.

    The field has ``visual_degrees`` and ``image_size`` pixels. The images have a side of
    ``degrees``, for instance 4 for those of the recordings. Larger ones are cut around the centre,
    smaller ones padded with grey 128. Then they are resized with an antialiased bilinear filter.

    Raises:
      TypeError: if images are not uint8.
      ValueError: if the shape or ``degrees`` is out of range.
    """
    check_uint8(images)
    if images.ndim != 3 or images.shape[1] != images.shape[2] or 0 in images.shape:
        raise ValueError(f"images must have shape (n, side, side), got {images.shape}")
    arguments.number("degrees", degrees, arguments.POSITIVE)
    arguments.number("visual_degrees", visual_degrees, arguments.POSITIVE)
    arguments.count("image_size", image_size)
    side = images.shape[1]
    # An even difference leaves the centre where it is.
    # At least one pixel, or two, stays.
    border = max(round((visual_degrees / degrees - 1) * side / 2), -((side - 1) // 2))
    if border >= 0:
        field = np.pad(images, ((0, 0), (border, border), (border, border)), constant_values=GREY)
    else:
        field = images[:, -border : side + border, -border : side + border]
    size = (image_size, image_size)
    if field.shape[1:] == size:
        return field
    resample = Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(one).resize(size, resample)) for one in field])


def load_freeman_ziemba(folder: str | os.PathLike) -> TextureSet:
    """Read the 450 images of Freeman & Ziemba (2013) from the user's copy.

    The files are 8-bit PNGs named ``tex-320x320-im<family>-smp<sample>.png`` for textures and
    ``noise-320x320-im<family>-smp<sample>.png`` for noise, with the 15 family numbers of
    ``FREEMAN_ZIEMBA_FAMILIES`` and 15 samples each. Two forms are read: the original images of 4
    degrees, and those of Brain-Score's stimulus set FreemanZiemba2013_properties, which start
    with ``aperture_`` and show the 8-degree canvas with the aperture applied. Other files in the
    folder are skipped.

    Returns:
      The set, with families and samples in ascending order of their numbers.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if these are not the 450 images of one form, or a file cannot be read.
    """
    files: dict[tuple[int, int, str], Path] = {}
    forms = set()
    for path in files_in(folder):
        if match := _FILE_NAME.fullmatch(path.name):
            aperture, kind, family, sample = match.groups()
            forms.add(aperture is not None)
            files[int(family), int(sample), "texture" if kind == "tex" else "noise"] = path
    samples = sorted({sample for _, sample, _ in files})
    expected = [(f, s, t) for f in FREEMAN_ZIEMBA_FAMILIES for s in samples for t in TYPES]
    wrong = [*{*expected} - files.keys(), *files.keys() - {*expected}]
    if wrong or len(forms) != 1 or len(samples) != FREEMAN_ZIEMBA_SAMPLES:
        raise ValueError(
            f"{folder} must hold the 450 images such as tex-320x320-im13-smp1.png: noise and "
            f"textures of the families {FREEMAN_ZIEMBA_FAMILIES} with {FREEMAN_ZIEMBA_SAMPLES} "
            "samples each, all or none with the prefix aperture_; missing or in excess are "
            f"(family, sample, type) {sorted(wrong)[:3]}"
        )
    images = [read_grey(files[entry]) for entry in expected]
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1 or shapes[0][0] != shapes[0][1]:
        raise ValueError(f"the images of {folder} must be squares of one size, got {shapes}")
    return TextureSet(
        np.stack(images).reshape(len(FREEMAN_ZIEMBA_FAMILIES), len(samples), 2, *shapes[0]),
        families=tuple(f"im{family}" for family in FREEMAN_ZIEMBA_FAMILIES),
        has_aperture=forms == {True},
    )


def read_grey(path: Path) -> np.ndarray:
    """Read an 8-bit image file as uint8 (height, width); colours become luminance."""
    try:
        with Image.open(path) as image:
            image.load()
    # Pillow's decoders raise almost anything on damaged files.
    except Exception as error:
        raise ValueError(f"image {path} cannot be decoded ({error})") from error
    if image.mode not in _EIGHT_BIT_MODES:
        raise ValueError(f"image {path} must have 8 bits per channel, got mode {image.mode}")
    return np.asarray(image.convert("L"))


def files_in(folder: str | os.PathLike) -> list[Path]:
    """Return the sorted paths of the files in a folder, or raise a FileNotFoundError.

    Hidden files are left out, such as those that macOS puts beside others.
    """
    root = Path(os.path.expanduser(folder))
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a directory")
    return sorted(path for path in root.iterdir() if path.is_file() and path.name[0] != ".")


def check_pixels(pixels: int) -> None:
    """Raise a ValueError unless the side of an image is a multiple of 8 pixels."""
    if pixels < 8 or pixels % 8:
        raise ValueError(f"pixels must be a multiple of 8, got {pixels}")


def _with_aperture(images: np.ndarray) -> np.ndarray:
    """Return 8-degree canvases with each 4-degree image behind the raised-cosine aperture."""
    pixels = images.shape[-1]
    per_degree = pixels / IMAGE_DEGREES
    # Pixel i of an image lies at (i - pixels / 2) / per_degree from the stimulus centre.
    axis = (np.arange(pixels) - pixels / 2) / per_degree
    distance = np.hypot(axis[:, None], axis[None, :])
    radius = IMAGE_DEGREES / 2
    aperture = np.where(distance < radius, 0.5 * (1.0 + np.cos(np.pi * distance / radius)), 0.0)
    side = round(CANVAS_DEGREES * per_degree)
    canvas = np.full((len(images), side, side), GREY, np.uint8)
    # The stimuli are as far below fixation as to its right.
    start = (side - pixels) // 2 + round(CENTRE[0] * per_degree)
    inside = slice(start, start + pixels)
    canvas[:, inside, inside] = np.floor((images.astype(np.float64) - GREY) * aperture + GREY)
    return canvas
