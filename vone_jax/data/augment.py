"""What is done to a training image, as a value; and the published recipes."""

from dataclasses import dataclass

import numpy as np

from vone_jax.data import transforms

_INTERPOLATIONS = ("nearest", "bilinear")


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random transforms of a training image; everything is off by default.

    They are applied in the order of the fields. An image is brought to the training size by the
    random resized crop, or else by the transform that evaluation uses.

    Raises:
      ValueError: if a field is out of its range; the message names the field.
    """

    # A crop of random area and aspect ratio, resized to the training size.
    random_resized_crop: bool = False
    # Smallest and largest area of that crop, as a share of the image, in (0, 1].
    crop_scale: tuple[float, float] = (0.08, 1.0)
    # Smallest and largest aspect ratio of that crop, width over height.
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    # Largest rotation in either direction, in degrees, in [0, 180].
    affine_degrees: float = 0.0
    # Largest shift in each direction, as a share of the side, in [0, 1).
    affine_shift: float = 0.0
    # Smallest and largest magnification.
    affine_scale: tuple[float, float] = (1.0, 1.0)
    # "nearest", torchvision's default, or "bilinear".
    affine_interpolation: str = "nearest"
    # Pixels of black added on each side before a crop of the original size.
    crop_padding: int = 0
    # Mirror half of the images left to right.
    flip: bool = False

    def __post_init__(self):
        for name in ("random_resized_crop", "flip"):
            _require(isinstance(getattr(self, name), bool), name, "True or False", self)
        for name in ("crop_scale", "crop_ratio", "affine_scale"):
            pair = getattr(self, name)
            valid = isinstance(pair, tuple) and len(pair) == 2 and 0 < pair[0] <= pair[1] < np.inf
            _require(valid, name, "a tuple (low, high) with 0 < low <= high", self)
        _require(self.crop_scale[1] <= 1, "crop_scale", "at most 1", self)
        _require(0 <= self.affine_degrees <= 180, "affine_degrees", "in [0, 180]", self)
        _require(0 <= self.affine_shift < 1, "affine_shift", "in [0, 1)", self)
        _require(
            self.affine_interpolation in _INTERPOLATIONS,
            "affine_interpolation",
            f"one of {', '.join(_INTERPOLATIONS)}",
            self,
        )
        padding = self.crop_padding
        is_count = isinstance(padding, int) and not isinstance(padding, bool) and padding >= 0
        _require(is_count, "crop_padding", "a number of pixels, 0 or more", self)

    @property
    def _moves(self) -> bool:
        return bool(self.affine_degrees or self.affine_shift or self.affine_scale != (1.0, 1.0))

    def __call__(
        self, image: np.ndarray, size: int, rng: np.random.Generator, center_crop: float = 1.0
    ) -> np.ndarray:
        """Augments one image.

        Args:
          image: uint8, shape (H, W, C).
          size: side of the result, in pixels.
          rng: generator of the draws; the same generator state gives the same image.
          center_crop: see ``transforms.resize_and_center_crop``; used without
            ``random_resized_crop``.

        Returns:
          uint8, shape (size, size, C).
        """
        if self.random_resized_crop:
            image = transforms.random_resized_crop(
                image, size, rng, self.crop_scale, self.crop_ratio
            )
        else:
            image = transforms.resize_and_center_crop(image, size, center_crop)
        if self._moves:
            image = transforms.random_affine(
                image,
                rng,
                degrees=self.affine_degrees,
                shift=self.affine_shift,
                scale=self.affine_scale,
                interpolation=self.affine_interpolation,
            )
        if self.crop_padding:
            image = transforms.random_shifted_crop(image, self.crop_padding, rng)
        if self.flip:
            image = transforms.random_flip(image, rng)
        return image


def _require(valid: bool, name: str, accepted: str, augment: Augment) -> None:
    if not valid:
        raise ValueError(f"{name} must be {accepted}, got {getattr(augment, name)!r}")


AUGMENTS = {
    "none": Augment(),
    # The VOneNet and EVNet training scripts: RandomResizedCrop(224), flip.
    "imagenet": Augment(random_resized_crop=True, flip=True),
    # Ten ImageNet classes, the same recipe.
    "imagenette": Augment(random_resized_crop=True, flip=True),
    # The usual recipe; the one of the published CIFAR-10 VOneNets is not known.
    "cifar10": Augment(crop_padding=4, flip=True),
    # V1-variant ensembles (arXiv 2110.10645), RetinaNets (arXiv 2409.16838): affine and flip.
    "tiny_imagenet": Augment(
        affine_degrees=30.0, affine_shift=0.05, affine_scale=(1.0, 1.2), flip=True
    ),
    # Ours: clothes have no handedness, and the frame leaves about 2 px.
    "fashion_mnist": Augment(crop_padding=2, flip=True),
}
