"""Pixel images as PNG: photographs, maps, and mosaics of Gabor filters."""

import base64
import dataclasses
import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

# Larger images are shrunk for the page; a report of a few images should stay small.
MAX_SIDE = 112
_ROWS, _COLUMNS = 6, 8
_GAP = 2
_CELLS_OF_A_KIND = 4
# Cells shown together differ by at least this many degrees of orientation, if the bank allows.
_TURN = 25.0
# Nine steps of the colour map "magma", between which colours are interpolated.
_MAGMA = np.array(
    [
        *((0, 0, 4), (28, 16, 68), (79, 18, 123), (129, 37, 129), (181, 54, 122)),
        *((229, 80, 100), (251, 135, 97), (254, 194, 135), (252, 253, 191)),
    ]
)


def data_uri(pixels: np.ndarray) -> str:
    """A uint8 image (height, width) or (height, width, 1 or 3) as a PNG data URI."""
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
    """A map (height, width) in the colours of "magma" between two values, as a data URI."""
    span = high - low if high > low else 1.0
    levels = np.rint(255 * np.clip((values - low) / span, 0, 1)).astype(np.uint8)
    # One byte a pixel and the colours as a palette.
    picture = Image.fromarray(levels).convert("P")
    places = np.linspace(0, 255, len(_MAGMA))
    table = np.stack([np.interp(np.arange(256), places, ends) for ends in _MAGMA.T], axis=1)
    picture.putpalette(np.rint(table).astype(np.uint8).tobytes())
    return _encode(picture)


@dataclasses.dataclass(frozen=True)
class Mosaic:
    """A picture of filters as a data URI, with the kind of its cells and a description."""

    title: str
    description: str
    uri: str


def mosaics(arrays: Mapping[str, np.ndarray]) -> list[Mosaic]:
    """A picture of simple cells and one of complex cells, as far as the bank has them.

    Rows go from coarse to fine filters; within a row the orientation turns. A filter of a
    coloured image has the colour of the one channel that it reads.
    """
    in_phase, quadrature = arrays["kernels_in_phase"], arrays["kernels_quadrature"]
    colors = np.asarray(arrays["image"]).shape[-1]
    simple = int(arrays["simple_channels"])
    pictures = []
    for title, cells, phases in (
        ("Simple cells", np.arange(simple), (in_phase,)),
        ("Complex cells", np.arange(simple, len(in_phase)), (in_phase, quadrature)),
    ):
        if not len(cells):
            continue
        rows = _arranged(cells, arrays["sf"], arrays["theta"], _COLUMNS // len(phases))
        tiles = [
            [
                tile(kernels[i], np.abs([k[i] for k in phases]).max(), arrays["channel"][i], colors)
                for i in row
                for kernels in phases
            ]
            for row in rows
        ]
        paired = ", each a pair of filters a quarter period apart" if len(phases) == 2 else ""
        about = f"{sum(map(len, rows))} of {len(cells)} {title.lower()}{paired}"
        pictures.append(Mosaic(title, about, data_uri(_stitched(tiles))))
    return pictures


def strip(arrays: Mapping[str, np.ndarray], count: int = 32) -> str:
    """A row of filters from coarse to fine, for decoration, as a data URI."""
    order = np.argsort(arrays["sf"], kind="stable")
    taken = order[np.linspace(0, len(order) - 1, count).round().astype(int)]
    kernels, channel = arrays["kernels_in_phase"], arrays["channel"]
    colors = arrays["image"].shape[-1]
    tiles = [tile(kernels[i], np.abs(kernels[i]).max(), channel[i], colors) for i in taken]
    return data_uri(_stitched([tiles]))


def _arranged(
    cells: np.ndarray, sf: np.ndarray, theta: np.ndarray, per_row: int
) -> list[np.ndarray]:
    """Cells evenly taken over the frequencies, in rows of rising sf, sorted by orientation."""
    by_frequency = cells[np.argsort(sf[cells], kind="stable")]
    count = min(len(cells), _ROWS * per_row)
    taken = by_frequency[np.linspace(0, len(cells) - 1, count).round().astype(int)]
    rows = [taken[start : start + per_row] for start in range(0, count, per_row)]
    return [row[np.argsort(theta[row], kind="stable")] for row in rows]


def tile(kernel: np.ndarray, largest: float, channel: int | np.ndarray, colors: int) -> np.ndarray:
    """A filter (k, k) on mid-grey: excitation brighter, inhibition darker, in its channel only.

    The absolute value ``largest`` becomes black or white.

    Returns:
      uint8 pixels of shape (side, side, colors), with sides of about 50.
    """
    values = kernel / largest if largest > 0 else np.zeros_like(kernel)
    grey = np.full((*kernel.shape, colors), 0.5)
    grey[..., min(int(channel), colors - 1)] += 0.5 * values
    pixels = np.rint(255 * grey).astype(np.uint8)
    zoom = max(1, round(50 / len(kernel)))
    return pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _stitched(rows: list[list[np.ndarray]]) -> np.ndarray:
    height, width, colors = rows[0][0].shape
    columns = max(map(len, rows))
    shape = (len(rows) * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, colors)
    canvas = np.full(shape, 128, np.uint8)
    for r, row in enumerate(rows):
        for c, pixels in enumerate(row):
            top, left = _GAP + r * (height + _GAP), _GAP + c * (width + _GAP)
            canvas[top : top + height, left : left + width] = pixels
    return canvas


@dataclasses.dataclass(frozen=True)
class Cell:
    """A V1 channel with its filter and its maps, as data URIs."""

    kind: str
    caption: str
    kernel: str
    clean: str
    noisy: str


def response_maps(arrays: Mapping[str, np.ndarray]) -> list[Cell]:
    """The responses of simple and complex cells from coarse to fine, of several orientations.

    Both maps of a cell share one scale, from 0 to the largest response without noise.
    """
    clean, noisy = arrays["responses_clean"], arrays["responses_noisy"]
    simple = int(arrays["simple_channels"])
    colors = arrays["image"].shape[-1]
    shown = []
    kinds = {"simple": np.arange(simple), "complex": np.arange(simple, clean.shape[-1])}
    for kind, cells in kinds.items():
        for i in _chosen(cells, arrays) if len(cells) else []:
            high = float(max(clean[..., i].max(), np.quantile(noisy[..., i], 0.98)))
            kernel = arrays["kernels_in_phase"][i]
            shown.append(
                Cell(
                    kind,
                    f"{arrays['sf'][i]:.1f} cycles/°, θ {arrays['theta'][i] % 180:.0f}°",
                    data_uri(tile(kernel, np.abs(kernel).max(), arrays["channel"][i], colors)),
                    heat_map(clean[..., i], 0.0, high),
                    heat_map(noisy[..., i], 0.0, high),
                )
            )
    return shown


def _chosen(cells: np.ndarray, arrays: Mapping[str, np.ndarray]) -> list[int]:
    """From coarse to fine, the cell with the most varied map, each of another orientation."""
    theta = arrays["theta"]
    spread = arrays["responses_clean"][..., cells].reshape(-1, len(cells)).std(axis=0)
    chosen: list[int] = []
    by_frequency = np.argsort(arrays["sf"][cells], kind="stable")
    for band in np.array_split(by_frequency, min(_CELLS_OF_A_KIND, len(cells))):
        order = [int(i) for i in cells[band[np.argsort(-spread[band], kind="stable")]]]
        turned = (
            i
            for i in order
            if all(abs((theta[i] - theta[j] + 90) % 180 - 90) >= _TURN for j in chosen)
        )
        chosen.append(next(turned, order[0]))
    return chosen
