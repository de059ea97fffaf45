"""Images of a page as PNG."""

import base64
import io

import numpy as np
from PIL import Image


def photograph(image: np.ndarray, side: int) -> str:
    """A float image (height, width, 1 or 3) in [0, 1] as a data URI, shrunk if it is large."""
    pixels = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.thumbnail((side, side), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
