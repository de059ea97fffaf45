"""Decodes image files with Pillow, and refuses what cannot be read as 8-bit grey or RGB."""

import io
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

_GREY_MODES = ("1", "L", "LA")
_COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def decode_image(encoded: bytes | str | PathLike, channels: int, name: str = "") -> np.ndarray:
    """Decodes one image.

    Grey images become RGB where 3 channels are asked for. An alpha channel is dropped and EXIF
    orientation is ignored, as torchvision does.

    Args:
      encoded: content of an image file, or its path.
      channels: 1 or 3.
      name: what to call the image in messages; the path by default.

    Returns:
      uint8 array of shape (H, W, channels).

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is not an image, is cut off, has more than 8 bits per channel, or
        has colours where one channel is asked for. The message names the image.
    """
    if not isinstance(encoded, bytes):
        path = Path(encoded)
        name = name or str(path)
        try:
            encoded = path.read_bytes()
        except FileNotFoundError:
            raise FileNotFoundError(f"image {name} does not exist (any more)") from None
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
    # Pillow's decoders raise almost anything on damaged files: OSError, SyntaxError, struct.error,
    # zlib.error, OverflowError, DecompressionBombError, ...
    except Exception as error:
        reason = f"{type(error).__name__}: {error}" if encoded else "the file is empty"
        raise ValueError(f"image {name} cannot be decoded ({reason})") from error
    if image.mode not in _GREY_MODES + _COLOUR_MODES:
        raise ValueError(
            f"image {name} has Pillow mode {image.mode!r}, which is not 8 bits per channel; "
            f"accepted are {', '.join(_GREY_MODES + _COLOUR_MODES)}"
        )
    if channels == 1:
        if image.mode not in _GREY_MODES:
            raise ValueError(f"image {name} has colours (mode {image.mode!r}), expected 1 channel")
        return np.asarray(image.convert("L"))[:, :, None]
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))
