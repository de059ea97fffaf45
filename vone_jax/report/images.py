"""Pixel images as PNG: photographs, maps, and mosaics of Gabor filters."""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

# Larger images are shrunk for the page.
MAX_SIDE = 112
_ROWS, _COLUMNS = 6, 8
_GAP = 2
_PHASES = ("kernels_in_phase", "kernels_quadrature")
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


def _picture(pixels: np.ndarray) -> Image.Image:
    """A picture of uint8 pixels (height, width, 1 or 3)."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def photograph(image: np.ndarray) -> str:
    """A float image (height, width, 1 or 3) in [0, 1] as a data URI, shrunk if it is large."""
    picture = _picture(np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8))
    picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    return _data_uri(picture)


def heat_map(values: np.ndarray, high: float) -> str:
    """A map (height, width) in the colours of "magma" from 0 to ``high``, as a data URI."""
    levels = np.rint(255 * np.clip(values / (high if high > 0 else 1.0), 0, 1)).astype(np.uint8)
    # One byte a pixel and the colours as a palette.
    picture = Image.fromarray(levels).convert("P")
    places = np.linspace(0, 255, len(_MAGMA))
    table = np.stack([np.interp(np.arange(256), places, ends) for ends in _MAGMA.T], axis=1)
    picture.putpalette(np.rint(table).astype(np.uint8).tobytes())
    return _data_uri(picture)


def mosaics(arrays: Mapping[str, np.ndarray]) -> list[dict[str, str]]:
    """A picture of simple cells and one of complex cells, if the bank has them.

    Rows go from coarse to fine filters; within a row the orientation turns. A filter of a
    coloured image has the colour of the one channel that it reads.

    Returns:
      Dictionaries of the title, the description and the picture as a data URI.
    """
    cells, simple = np.arange(len(arrays["sf"])), int(arrays["simple_channels"])
    pictures = []
    for kind, members, phases in (
        ("simple", cells[:simple], _PHASES[:1]),
        ("complex", cells[simple:], _PHASES),
    ):
        if len(members):
            rows = _arranged(members, arrays["sf"], arrays["theta"], _COLUMNS // len(phases))
            tiles = [[each for i in row for each in _tiles(arrays, i, phases)] for row in rows]
            paired = ", each a pair of filters a quarter period apart" if len(phases) > 1 else ""
            about = f"{sum(map(len, rows))} of {len(members)} {kind} cells{paired}"
            title = f"{kind.capitalize()} cells"
            pictures.append({"title": title, "description": about, "uri": _stitched(tiles)})
    return pictures


def _arranged(
    cells: np.ndarray, sf: np.ndarray, theta: np.ndarray, per_row: int
) -> list[np.ndarray]:
    """Cells evenly taken over the frequencies, in rows of rising sf, sorted by orientation."""
    by_frequency = cells[np.argsort(sf[cells], kind="stable")]
    count = min(len(cells), _ROWS * per_row)
    taken = by_frequency[np.linspace(0, len(cells) - 1, count).round().astype(int)]
    rows = [taken[start : start + per_row] for start in range(0, count, per_row)]
    return [row[np.argsort(theta[row], kind="stable")] for row in rows]


def _tiles(
    arrays: Mapping[str, np.ndarray], cell: int, phases: Sequence[str] = _PHASES[:1]
) -> list[np.ndarray]:
    """The filters of a cell on mid-grey, uint8 (side, side, colors) with sides of about 50."""
    kernels = np.array([arrays[name][cell] for name in phases])
    colors = arrays["image"].shape[-1]
    grey = np.full((*kernels.shape, colors), 0.5)
    # Some channels exist only within the network, such as the M cells of an EVNet.
    channel = int(arrays["channel"][cell])
    shown = slice(channel, channel + 1) if channel < colors else slice(None)
    grey[..., shown] += 0.5 * kernels[..., None] / (np.abs(kernels).max() or 1.0)
    zoom = max(1, round(50 / kernels.shape[1]))
    pixels = np.rint(255 * grey).astype(np.uint8)
    return list(pixels.repeat(zoom, axis=1).repeat(zoom, axis=2))


def _stitched(rows: list[list[np.ndarray]]) -> str:
    """Tiles in rows as a data URI."""
    height, width, colors = rows[0][0].shape
    columns = max(map(len, rows))
    shape = (len(rows) * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, colors)
    canvas = np.full(shape, 128, np.uint8)
    for r, row in enumerate(rows):
        for c, pixels in enumerate(row):
            top, left = _GAP + r * (height + _GAP), _GAP + c * (width + _GAP)
            canvas[top : top + height, left : left + width] = pixels
    return _data_uri(_picture(canvas))


def response_maps(arrays: Mapping[str, np.ndarray]) -> list[dict[str, str]]:
    """The responses of simple and complex cells from coarse to fine, of several orientations.

    Both maps of a cell share one scale, from 0 to the largest response without noise.

    Returns:
      Dictionaries of the kind of a cell, a caption, and its filter ("kernel") and its maps without
      and with noise ("clean", "noisy") as data URIs.
    """
    clean, noisy = arrays["responses_clean"], arrays["responses_noisy"]
    cells, simple = np.arange(clean.shape[-1]), int(arrays["simple_channels"])
    shown = []
    for kind, members in (("simple", cells[:simple]), ("complex", cells[simple:])):
        for i in _chosen(members, arrays) if len(members) else []:
            high = float(max(clean[..., i].max(), np.quantile(noisy[..., i], 0.98)))
            orientation = (90 - arrays["theta"][i]) % 180
            shown.append(
                {
                    "kind": kind,
                    "caption": f"{arrays['sf'][i]:.1f} cycles/°, {orientation:.0f}°",
                    "kernel": _data_uri(_picture(_tiles(arrays, i)[0])),
                    "clean": heat_map(clean[..., i], high),
                    "noisy": heat_map(noisy[..., i], high),
                }
            )
    return shown


def _chosen(cells: np.ndarray, arrays: Mapping[str, np.ndarray]) -> list[int]:
    """For each band of frequencies, the cell with the most varied map and a new orientation."""
    theta = arrays["theta"]
    spread = arrays["responses_clean"][..., cells].reshape(-1, len(cells)).std(axis=0)
    chosen: list[int] = []
    by_frequency = np.argsort(arrays["sf"][cells], kind="stable")
    for band in np.array_split(by_frequency, min(_CELLS_OF_A_KIND, len(cells))):
        order = cells[band[np.argsort(-spread[band], kind="stable")]].tolist()
        angles = np.abs((theta[order, None] - theta[chosen] + 90) % 180 - 90)
        chosen.append(order[(angles >= _TURN).all(axis=1).argmax()])
    return chosen
