"""Random transforms of one image on the host, and the preprocessing of evaluation.

Images are uint8 arrays (H, W, C). The definitions are torchvision's on Pillow images, so a
published recipe means the same here: bilinear resizing with antialiasing, rounding of crop boxes,
the sign of a rotation. Random transforms draw from the NumPy generator that they take.

References:
  Cubuk et al., RandAugment, 2019, arXiv:1909.13719.
  Zhong et al., Random erasing data augmentation, 2017, arXiv:1708.04896.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vone_jax import arguments
from vone_jax.arguments import FromZero, Range, Share

# The smallest and the largest value of a draw.
Span = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The resizing and cropping of an image in evaluation, to the size that a network takes.

    The shorter side is resized to ``size / center_crop`` pixels, and the central square is cut out.
    ``center_crop=0.875`` is the ImageNet protocol at 224 pixels: Resize(256), CenterCrop(224).

    Attributes:
      center_crop: in (0, 1]. Default: 0.875 for images of different sizes (photographs) at 112
        pixels or more, else 1, a plain resize.
      squash: resize both sides to the size. Nothing is cut off, but the aspect ratio is not kept.
      interpolation: "bilinear", "bicubic" or "lanczos", all with antialiasing, as in Pillow.

    Raises:
      ValueError, TypeError: naming the field that is out of range.
    """

    center_crop: Annotated[float | None, Range(most=1.0, above=True)] = None
    squash: bool = False
    interpolation: Annotated[str, ("bilinear", "bicubic", "lanczos")] = "bilinear"

    def __post_init__(self):
        arguments.fields(self)
        if self.squash and self.center_crop not in (None, 1):
            raise ValueError(
                f"center_crop must be 1 with squash, which cuts nothing off, got {self.center_crop}"
            )

    def resolved(self, image_shape: tuple[int | None, ...], size: int) -> "Preprocessing":
        """Return this with the default of ``center_crop``, for the ``image_shape`` of a source."""
        if self.center_crop is not None or self.squash:
            return self
        photographs = None in image_shape and size >= 112
        return dataclasses.replace(self, center_crop=0.875 if photographs else 1.0)

    def __call__(self, image: np.ndarray, size: int) -> np.ndarray:
        """Return an image, uint8 of shape (H, W, C), as a square of ``size`` pixels a side.

        An image that has the size already is returned unchanged, unless it is cropped.
        """
        height, width = image.shape[:2]
        short = round(size / (self.center_crop or 1.0))
        smaller = min(height, width)
        if self.squash:
            new = (size, size)
        elif smaller == short:
            new = (height, width)
        else:
            # torchvision truncates the longer side.
            new = (int(short * height / smaller), int(short * width / smaller))
        if new != (height, width):
            image = _resize(image, *new, self.interpolation)
        if new == (size, size):
            return image
        top, left = round((new[0] - size) / 2.0), round((new[1] - size) / 2.0)
        return image[top : top + size, left : left + size]


def random_resized_crop(
    image: np.ndarray, size: int, rng: np.random.Generator, scale: Span, ratio: Span
) -> np.ndarray:
    """Cut out a box of random area and aspect ratio and resize it to a square (torchvision).

    The area is a share of the image's area in ``scale``; the ratio is width over height.
    """
    top, left, height, width = _crop_box(image.shape[0], image.shape[1], rng, scale, ratio)
    return _resize(image[top : top + height, left : left + width], size, size)


def random_shifted_crop(image: np.ndarray, padding: int, rng: np.random.Generator) -> np.ndarray:
    """Pad with black on each side, in pixels, and cut out a random window of the original size."""
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
    """Rotate and scale about the centre, then shift; pixels from outside the image are black.

    The rotation is clockwise on the screen, and the shift in pixels to the right and down. The
    interpolation is ``"nearest"`` (torchvision's default) or ``"bilinear"``.
    """
    height, width = image.shape[:2]
    cos = math.cos(math.radians(degrees)) / scale
    sin = math.sin(math.radians(degrees)) / scale
    # Pillow takes the inverse map, from a place in the result to the place in the image.
    centre_x, centre_y = width / 2.0, height / 2.0
    x, y = -centre_x - shift[0], -centre_y - shift[1]
    matrix = (
        cos, sin, cos * x + sin * y + centre_x,
        -sin, cos, -sin * x + cos * y + centre_y,
    )  # fmt: skip
    turned = to_pillow(image).transform(
        (width, height), Image.Transform.AFFINE, matrix, Image.Resampling[interpolation.upper()]
    )
    return _to_array(turned)


def _mapped(image: Image.Image, *matrix: float) -> Image.Image:
    """Map a place in the result to a place in the image; outside of it is black."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


# The operations of RandAugment as functions of a Pillow image and a strength: from -1 to 1 for the
# first nine, from 0 to 1 for the next two, without effect for the others.
OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "shear_x": lambda image, s: _mapped(image, 1, 0.3 * s, 0, 0, 1, 0),
    "shear_y": lambda image, s: _mapped(image, 1, 0, 0, 0.3 * s, 1, 0),
    "translate_x": lambda image, s: _mapped(
        image, 1, 0, -int(150 / 331 * image.width * s), 0, 1, 0
    ),
    "translate_y": lambda image, s: _mapped(
        image, 1, 0, 0, 0, 1, -int(150 / 331 * image.height * s)
    ),
    "rotate": lambda image, s: image.rotate(30.0 * s),
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(1.0 + 0.9 * s),
    "colour": lambda image, s: ImageEnhance.Color(image).enhance(1.0 + 0.9 * s),
    "contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(1.0 + 0.9 * s),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(1.0 + 0.9 * s),
    "posterize": lambda image, s: ImageOps.posterize(image, 8 - round(4 * s)),
    "solarize": lambda image, s: ImageOps.solarize(image, math.ceil(255 - 255 * s)),
    "autocontrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "identity": lambda image, s: image,
}
_SIGNED = 9


def rand_augment(
    image: np.ndarray, operations: int, magnitude: int, rng: np.random.Generator
) -> np.ndarray:
    """Apply some operations in turn, each drawn among 14, at a magnitude of 0 to 30 (torchvision).

    Of an operation with two directions, one is drawn.
    """
    changed = to_pillow(image)
    for _ in range(operations):
        number = _integer(rng, len(OPERATIONS) - 1)
        sign = -1.0 if number < _SIGNED and rng.random() < 0.5 else 1.0
        changed = list(OPERATIONS.values())[number](changed, sign * magnitude / 30)
    return _to_array(changed)


def random_erasing(
    image: np.ndarray,
    rng: np.random.Generator,
    scale: Span = (0.02, 0.33),
    ratio: Span = (0.3, 3.3),
) -> np.ndarray:
    """Replace a box of random area and aspect ratio, height over width, by random values.

    As in torchvision, nothing is erased if none of ten boxes is smaller than the image.
    """
    height, width, channels = image.shape
    for _ in range(10):
        area = height * width * _uniform(rng, *scale)
        aspect = math.exp(_uniform(rng, math.log(ratio[0]), math.log(ratio[1])))
        rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < rows < height and 0 < columns < width:
            top, left = _integer(rng, height - rows), _integer(rng, width - columns)
            image = image.copy()
            values = rng.integers(0, 256, (rows, columns, channels), np.uint8)
            image[top : top + rows, left : left + columns] = values
            return image
    return image


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
    """Random transforms of a training image; everything is off by default.

    The transforms are applied in the order of the fields. The random resized crop brings an image
    to the training size. Without it, the preprocessing of evaluation does.

    Raises:
      ValueError: if a field is out of its range; the message names the field.
      TypeError: if ``random_resized_crop`` or ``flip`` is not True or False.
    """

    # A crop of random area and aspect ratio, resized to the training size.
    random_resized_crop: bool = False
    # Smallest and largest area of that crop, as a share of the image, in (0, 1].
    crop_scale: Span = (0.08, 1.0)
    # Smallest and largest aspect ratio of that crop, width over height.
    crop_ratio: Span = (3 / 4, 4 / 3)
    # Largest rotation in either direction, in degrees, in [0, 180].
    affine_degrees: Annotated[float, Range(most=180.0)] = 0.0
    # Largest shift in each direction, as a share of the side, in [0, 1).
    affine_shift: Annotated[float, Range(most=1.0, below=True)] = 0.0
    # Smallest and largest magnification.
    affine_scale: Span = (1.0, 1.0)
    # "nearest", torchvision's default, or "bilinear".
    affine_interpolation: Annotated[str, ("nearest", "bilinear")] = "nearest"
    # Pixels of black added on each side before a crop of the original size.
    crop_padding: FromZero = 0
    # Mirror half of the images left to right.
    flip: bool = False
    # Operations of RandAugment, such as 2; 0 is none.
    rand_augment: FromZero = 0
    # Their magnitude, 0 to 30 as in torchvision.
    rand_magnitude: Annotated[int, Range(0, 30)] = 9
    # Probability that a box is replaced by random values.
    erasing: Share = 0.0

    def __post_init__(self):
        arguments.fields(self)
        for name in ("crop_scale", "crop_ratio", "affine_scale"):
            pair = getattr(self, name)
            valid = isinstance(pair, tuple) and len(pair) == 2 and 0 < pair[0] <= pair[1] < np.inf
            # A share of the area is at most 1.
            if not valid or (name == "crop_scale" and pair[1] > 1):
                limit = " <= 1" if name == "crop_scale" else ""
                raise ValueError(
                    f"{name} must be a tuple (low, high) with 0 < low <= high{limit}, got {pair!r}"
                )

    def __call__(
        self,
        image: np.ndarray,
        size: int,
        rng: np.random.Generator,
        preprocessing: Preprocessing | None = None,
    ) -> np.ndarray:
        """Augment one image to a square of ``size`` pixels a side.

        The same state of the generator gives the same image. Without ``random_resized_crop``, the
        image is resized by ``preprocessing``.
        """
        if self.random_resized_crop:
            image = random_resized_crop(image, size, rng, self.crop_scale, self.crop_ratio)
        else:
            image = (preprocessing or Preprocessing())(image, size)
        if self.affine_degrees or self.affine_shift or self.affine_scale != (1.0, 1.0):
            degrees = _uniform(rng, -self.affine_degrees, self.affine_degrees)
            x, y = (
                round(_uniform(rng, -self.affine_shift * size, self.affine_shift * size))
                for _ in range(2)
            )
            image = affine(
                image,
                degrees=degrees,
                shift=(x, y),
                scale=_uniform(rng, *self.affine_scale),
                interpolation=self.affine_interpolation,
            )
        if self.crop_padding:
            image = random_shifted_crop(image, self.crop_padding, rng)
        if self.flip and rng.random() < 0.5:
            image = image[:, ::-1]
        if self.rand_augment:
            image = rand_augment(image, self.rand_augment, self.rand_magnitude, rng)
        if self.erasing and rng.random() < self.erasing:
            image = random_erasing(image, rng)
        return image


def _crop_box(
    height: int, width: int, rng: np.random.Generator, scale: Span, ratio: Span
) -> tuple[int, int, int, int]:
    """Draw top, left, height and width as torchvision's RandomResizedCrop does."""
    for _ in range(10):
        area = height * width * _uniform(rng, *scale)
        aspect = math.exp(_uniform(rng, math.log(ratio[0]), math.log(ratio[1])))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = _integer(rng, height - crop_height)
            left = _integer(rng, width - crop_width)
            return top, left, crop_height, crop_width
    # None of ten boxes fits in the image: take the largest central box of an allowed ratio.
    crop_width = min(width, max(1, round(height * ratio[1])))
    crop_height = min(height, max(1, round(width / ratio[0])))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _integer(rng: np.random.Generator, highest: int) -> int:
    """Draw a uniform integer from 0 to ``highest``, both included."""
    return int(rng.random() * (highest + 1))


def _resize(
    image: np.ndarray, height: int, width: int, interpolation: str = "bilinear"
) -> np.ndarray:
    resampling = Image.Resampling[interpolation.upper()]
    return _to_array(to_pillow(image).resize((width, height), resampling))


def to_pillow(image: np.ndarray) -> Image.Image:
    """A uint8 image (H, W, C) as Pillow's, which has no axis for a single channel."""
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def _to_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).reshape(image.height, image.width, -1)
