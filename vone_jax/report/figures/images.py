"""Arrays as PNG data URIs."""

import base64
import io

import matplotlib
import numpy as np
from PIL import Image

# Larger images are shrunk for the page; a report of a few images should stay small.
MAX_SIDE = 112


def data_uri(pixels: np.ndarray) -> str:
    """An image as a PNG data URI.

    Args:
      pixels: uint8 (height, width), (height, width, 1) or (height, width, 3).
    """
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    return _encode(Image.fromarray(np.ascontiguousarray(pixels)))


def _encode(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def photograph(image: np.ndarray) -> str:
    """A float image (height, width, 1 or 3) in [0, 1] as a data URI, shrunk if it is large."""
    pixels = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
    height, width = pixels.shape[:2]
    if max(height, width) <= MAX_SIDE:
        return data_uri(pixels)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    return _encode(picture)


def heat_map(values: np.ndarray, low: float, high: float) -> str:
    """A map (height, width) in the colours of 'magma' between two values, as a data URI."""
    span = high - low if high > low else 1.0
    levels = np.rint(255 * np.clip((values - low) / span, 0, 1)).astype(np.uint8)
    # One byte a pixel and the colours as a palette.
    picture = Image.fromarray(levels).convert("P")
    table = np.rint(255 * matplotlib.colormaps["magma"](np.arange(256))[:, :3]).astype(np.uint8)
    picture.putpalette(table.tobytes())
    return _encode(picture)
