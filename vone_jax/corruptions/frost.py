"""Frost: crops of photographs of frost, blended into the images.

The licence of ImageNet-C's photographs is unknown, so this package does not contain them. Its
repository and the package imagecorruptions do; ``load_frost`` reads them from a directory.
"""

import dataclasses
import functools
import hashlib
import io
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from PIL import Image

from vone_jax.corruptions import levels
from vone_jax.corruptions.levels import Images, Keys, Shape

# MD5 sums of the files. ImageNet-C has a sixth one, which its code never uses.
MD5 = {
    "frost1.png": "6ead634ace1f366d77e87078b465863c",
    "frost2.png": "98f0d2b1d74a048d3bc9c7ecfd886939",
    "frost3.png": "b3ed8eb147824261888e730f916c0d8b",
    "frost4.jpg": "d70b9d6aa0b1fe7bd8133b113787e078",
    "frost5.jpg": "50984ae2c871b7df2c28f1d71ca460a0",
}


# The photograph and the upper left corner of its crop for each image.
Crops = tuple[Int[Array, " n"], Int[Array, "n 2"]]


@dataclasses.dataclass(frozen=True, eq=False)
class FrostImages:
    """Photographs of frost for the corruption ``frost``.

    Attributes:
      images: uint8 arrays (H, W, 3); their sizes may differ.

    Raises:
      ValueError: if there are none, or one is not such an array.
    """

    images: tuple[np.ndarray, ...]

    def __post_init__(self):
        if not self.images:
            raise ValueError("images must hold at least one photograph of frost, got none")
        for image in self.images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
                raise ValueError(
                    f"images must be uint8 arrays (H, W, 3), got {image.dtype} {image.shape}"
                )


def load_frost(path: str | os.PathLike, verify: bool = True) -> FrostImages:
    """Read ImageNet-C's photographs ``frost1.png`` to ``frost5.jpg`` from a directory.

    Args:
      path: the directory, for instance ``ImageNet-C/imagenet_c/imagenet_c/frost`` in the
        repository hendrycks/robustness.
      verify: check the MD5 sums of the files.

    Raises:
      FileNotFoundError: if a file is missing; the message lists the missing ones.
      ValueError: if a file differs from ImageNet-C's.
    """
    folder = Path(os.path.expanduser(path))
    missing = [name for name in MD5 if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks the frost images {', '.join(missing)}")
    images = []
    for name, expected in MD5.items():
        content = (folder / name).read_bytes()
        actual = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if verify and actual != expected:
            raise ValueError(
                f"{folder / name} is not ImageNet-C's file: its MD5 sum is {actual}, expected "
                f"{expected}; pass verify=False to use it anyway"
            )
        with Image.open(io.BytesIO(content)) as image:
            images.append(np.asarray(image.convert("RGB")))
    return FrostImages(tuple(images))


def prepare(
    weights: tuple[float, float], shape: Shape, photographs: FrostImages | None, scale: float
) -> tuple:
    """Return the weights of image and frost, the photographs in one padded array, and their sizes.

    The photographs are resized to ``scale`` times their size, or to a larger one if the smallest
    photograph would not be larger than the images.

    Raises:
      ValueError: without photographs.
      TypeError: if ``photographs`` is of another type.
    """
    if photographs is None:
        raise ValueError(
            "frost needs ImageNet-C's photographs: pass frost_images=corruptions.load_frost(path), "
            "or use frost_procedural, a drawn texture that is not part of ImageNet-C"
        )
    if not isinstance(photographs, FrostImages):
        raise TypeError(
            f"frost_images must be a FrostImages, see load_frost; got {type(photographs).__name__}"
        )
    smallest = np.min([image.shape[:2] for image in photographs.images], axis=0)
    scale = max(scale, (shape[0] + 1) / smallest[0], (shape[1] + 1) / smallest[1])
    stack, sizes = _packed(photographs, float(scale))
    return np.asarray(weights, np.float32), stack, sizes


@functools.lru_cache(maxsize=4)
def _packed(photographs: FrostImages, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the scaled photographs as one uint8 array (n, H, W, 3), and their sizes (n, 2)."""
    images = [_resized(image, scale) for image in photographs.images]
    sizes = np.asarray([image.shape[:2] for image in images], np.int32)
    stack = np.zeros((len(images), *sizes.max(axis=0), 3), np.uint8)
    for slot, image in zip(stack, images, strict=True):
        slot[: image.shape[0], : image.shape[1]] = image
    return stack, sizes


def _resized(image: np.ndarray, scale: float) -> np.ndarray:
    """Resize bilinearly without antialiasing, as OpenCV does."""
    if scale == 1:
        return image
    values = image.astype(np.float64)
    for axis in (0, 1):
        side = image.shape[axis]
        position = (np.arange(round(side * scale)) + 0.5) / scale - 0.5
        position = np.clip(position, 0, side - 1)
        low = np.minimum(np.floor(position).astype(int), side - 2)
        weight = np.expand_dims(position - low, tuple(a for a in range(3) if a != axis))
        values = (1 - weight) * values.take(low, axis) + weight * values.take(low + 1, axis)
    return np.round(values).astype(np.uint8)


def draw(keys: Keys, shape: Shape, arrays: tuple) -> Crops:
    """Draw the index of a photograph and the upper left corner of its crop for each image."""
    sizes = arrays[2]

    def draw_one(key: jax.Array):
        index = jax.random.randint(jax.random.fold_in(key, 0), (), 0, len(sizes), jnp.int32)
        room = jnp.asarray(sizes)[index] - jnp.asarray(shape[:2], jnp.int32)
        start = jax.random.randint(jax.random.fold_in(key, 1), (2,), 0, room, jnp.int32)
        return index, start

    return jax.vmap(draw_one)(keys)


def frost(draws: Crops, images: Images, arrays: tuple) -> Images:
    """Return the weighted sum of the images and of crops of the photographs."""
    weights, stack, _ = arrays

    def crop(index: jax.Array, start: jax.Array):
        place = (index, start[0], start[1], jnp.int32(0))
        return jax.lax.dynamic_slice(jnp.asarray(stack), place, (1, *images.shape[1:3], 3))[0]

    layer = jax.vmap(crop)(*draws).astype(jnp.float32) / 255
    return levels.blended(images, layer, weights)
