"""Geometric transforms of one image on the host: uint8 (H, W, C) in, uint8 (H, W, C) out.

The definitions are torchvision's on Pillow images, so that published recipes mean the same here:
bilinear resizing with antialiasing, rounding of crop boxes, the sign of a rotation. Random
transforms take a NumPy generator and draw from nothing else.
"""

import math

import numpy as np
from PIL import Image

_BILINEAR = Image.Resampling.BILINEAR
_RESAMPLING = {"nearest": Image.Resampling.NEAREST, "bilinear": _BILINEAR}


def resize_and_center_crop(image: np.ndarray, size: int, center_crop: float = 1.0) -> np.ndarray:
    """Resizes the shorter side to ``size / center_crop`` and cuts out the central square.

    ``size=224, center_crop=0.875`` is the ImageNet protocol: Resize(256), CenterCrop(224). An
    image that has the size already is returned as it is when ``center_crop`` is 1.

    Args:
      image: uint8, shape (H, W, C).
      size: side of the square, in pixels.
      center_crop: share of the shorter side that is kept, in (0, 1].

    Returns:
      uint8, shape (size, size, C).
    """
    height, width = image.shape[:2]
    short = round(size / center_crop)
    if min(height, width) != short:
        # torchvision truncates the longer side.
        smaller = min(height, width)
        height, width = int(short * height / smaller), int(short * width / smaller)
        image = _resize(image, height, width)
    if (height, width) == (size, size):
        return image
    top, left = round((height - size) / 2.0), round((width - size) / 2.0)
    return image[top : top + size, left : left + size]


def random_resized_crop(
    image: np.ndarray,
    size: int,
    rng: np.random.Generator,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> np.ndarray:
    """A crop of random area and aspect ratio, resized to a square (torchvision).

    Args:
      image: uint8, shape (H, W, C).
      size: side of the result, in pixels.
      rng: generator of the draws.
      scale: smallest and largest area of the crop, as a share of the image's area.
      ratio: smallest and largest aspect ratio of the crop, width over height.

    Returns:
      uint8, shape (size, size, C).
    """
    top, left, height, width = _crop_box(image.shape[0], image.shape[1], rng, scale, ratio)
    return _resize(image[top : top + height, left : left + width], size, size)


def random_shifted_crop(image: np.ndarray, padding: int, rng: np.random.Generator) -> np.ndarray:
    """Pads with black on each side and cuts a random window of the original size.

    Args:
      image: uint8, shape (H, W, C).
      padding: pixels added on each side.
      rng: generator of the draws.

    Returns:
      uint8, the shape of ``image``.
    """
    height, width, channels = image.shape
    # Several times faster than np.pad on a small image.
    padded = np.zeros((height + 2 * padding, width + 2 * padding, channels), image.dtype)
    padded[padding : padding + height, padding : padding + width] = image
    top, left = _integer(rng, 2 * padding), _integer(rng, 2 * padding)
    return padded[top : top + height, left : left + width]


def affine(
    image: np.ndarray,
    *,
    degrees: float,
    shift: tuple[int, int],
    scale: float,
    interpolation: str = "nearest",
) -> np.ndarray:
    """Rotates and scales about the centre, then shifts; black where nothing is known.

    Args:
      image: uint8, shape (H, W, C).
      degrees: clockwise rotation on the screen.
      shift: pixels to the right and down.
      scale: magnification.
      interpolation: ``"nearest"`` (torchvision's default) or ``"bilinear"``.

    Returns:
      uint8, the shape of ``image``.
    """
    height, width = image.shape[:2]
    cos = math.cos(math.radians(degrees)) / scale
    sin = math.sin(math.radians(degrees)) / scale
    # Pillow wants the inverse map, from the place in the result to the place in the image.
    centre_x, centre_y = width / 2.0, height / 2.0
    x, y = -centre_x - shift[0], -centre_y - shift[1]
    matrix = (
        cos, sin, cos * x + sin * y + centre_x,
        -sin, cos, -sin * x + cos * y + centre_y,
    )  # fmt: skip
    turned = _to_pillow(image).transform(
        (width, height), Image.Transform.AFFINE, matrix, _RESAMPLING[interpolation]
    )
    return _to_array(turned)


def random_affine(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    degrees: float,
    shift: float,
    scale: tuple[float, float],
    interpolation: str,
) -> np.ndarray:
    """``affine`` with a rotation, shift and scale drawn uniformly (torchvision's RandomAffine).

    Args:
      image: uint8, shape (H, W, C).
      rng: generator of the draws.
      degrees: the rotation is drawn from [-degrees, degrees].
      shift: largest shift in each direction, as a share of the side.
      scale: smallest and largest magnification.
      interpolation: ``"nearest"`` or ``"bilinear"``.

    Returns:
      uint8, the shape of ``image``.
    """
    height, width = image.shape[:2]
    return affine(
        image,
        degrees=_uniform(rng, -degrees, degrees),
        shift=(
            round(_uniform(rng, -shift * width, shift * width)),
            round(_uniform(rng, -shift * height, shift * height)),
        ),
        scale=_uniform(rng, *scale),
        interpolation=interpolation,
    )


def random_flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrors the image left to right in half of the draws."""
    return image[:, ::-1] if rng.random() < 0.5 else image


def _crop_box(
    height: int,
    width: int,
    rng: np.random.Generator,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """Top, left, height and width of torchvision's RandomResizedCrop."""
    for _ in range(10):
        area = height * width * _uniform(rng, *scale)
        aspect = math.exp(_uniform(rng, math.log(ratio[0]), math.log(ratio[1])))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = _integer(rng, height - crop_height)
            left = _integer(rng, width - crop_width)
            return top, left, crop_height, crop_width
    # Ten misses: the largest central crop of an allowed ratio.
    crop_width = min(width, max(1, round(height * ratio[1])))
    crop_height = min(height, max(1, round(width / ratio[0])))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _integer(rng: np.random.Generator, highest: int) -> int:
    """A uniform integer from 0 to ``highest``, the end included."""
    return int(rng.random() * (highest + 1))


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return _to_array(_to_pillow(image).resize((width, height), _BILINEAR))


def _to_pillow(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def _to_array(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array
