"""The Gabor bank: mosaics of filters and histograms of their parameters."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator, PercentFormatter

from vone_jax.report.figures import images, svg

_ROWS, _COLUMNS = 6, 8
_GAP = 2
_NAMES = {
    "sf": "spatial frequency, cycles/degree",
    "theta": "orientation θ, degrees",
    "nx": "envelope along carrier nx, periods",
    "ny": "envelope across it ny, periods",
}


@dataclasses.dataclass(frozen=True)
class Mosaic:
    """A picture of filters.

    Attributes:
      title: which cells.
      description: what is shown, in words.
      uri: the picture.
    """

    title: str
    description: str
    uri: str


def mosaics(arrays: Mapping[str, np.ndarray]) -> list[Mosaic]:
    """A picture of simple cells and one of complex cells, as far as the bank has them.

    Rows go from coarse to fine filters; within a row the orientation turns. A filter of a
    coloured image has the colour of the one channel that it reads.

    Args:
      arrays: the arrays of a result of the kind ``v1``.
    """
    in_phase, quadrature = arrays["kernels_in_phase"], arrays["kernels_quadrature"]
    colors = np.asarray(arrays["image"]).shape[-1]
    simple = int(arrays["simple_channels"])
    found = []
    for title, cells, phases in (
        ("Simple cells", np.arange(simple), (in_phase,)),
        ("Complex cells", np.arange(simple, len(in_phase)), (in_phase, quadrature)),
    ):
        if not len(cells):
            continue
        per_row = _COLUMNS // len(phases)
        rows = _arranged(cells, arrays["sf"], arrays["theta"], per_row)
        tiles = [
            [
                tile(kernels[i], np.abs([k[i] for k in phases]).max(), arrays["channel"][i], colors)
                for i in row
                for kernels in phases
            ]
            for row in rows
        ]
        shown = sum(map(len, rows))
        pairs = ", each a pair of filters a quarter period apart" if len(phases) == 2 else ""
        found.append(
            Mosaic(
                title,
                f"{shown} of {len(cells)} {title.lower()}{pairs}",
                images.data_uri(_stitched(tiles)),
            )
        )
    return found


def strip(arrays: Mapping[str, np.ndarray], count: int = 32) -> str:
    """A row of filters from coarse to fine, for decoration, as a data URI."""
    order = np.argsort(arrays["sf"], kind="stable")
    taken = order[np.linspace(0, len(order) - 1, count).round().astype(int)]
    kernels, channel = arrays["kernels_in_phase"], arrays["channel"]
    colors = arrays["image"].shape[-1]
    tiles = [tile(kernels[i], np.abs(kernels[i]).max(), channel[i], colors) for i in taken]
    return images.data_uri(_stitched([tiles]))


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
    """A filter on mid-grey: excitation brighter, inhibition darker, in its channel only.

    Args:
      kernel: (k, k).
      largest: the absolute value that becomes black or white.
      channel: the colour channel it reads.
      colors: number of colour channels of the picture, 1 or 3.

    Returns:
      uint8 pixels of shape (side, side, colors), with sides of about 50.
    """
    values = kernel / largest if largest > 0 else np.zeros_like(kernel)
    tile = np.full((*kernel.shape, colors), 0.5)
    tile[..., min(int(channel), colors - 1)] += 0.5 * values
    pixels = np.rint(255 * tile).astype(np.uint8)
    zoom = max(1, round(50 / len(kernel)))
    return pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _stitched(rows: list[list[np.ndarray]]) -> np.ndarray:
    height, width, colors = rows[0][0].shape
    columns = max(map(len, rows))
    canvas = np.full(
        (len(rows) * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, colors),
        128,
        np.uint8,
    )
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            top, left = _GAP + r * (height + _GAP), _GAP + c * (width + _GAP)
            canvas[top : top + height, left : left + width] = tile
    return canvas


def histogram_panel(arrays: Mapping[str, np.ndarray], parameter: str, name: str) -> Markup:
    """How often a parameter occurs in the bank (bars), over its published histogram (line).

    Args:
      arrays: the arrays of a result of the kind ``v1``.
      parameter: ``sf``, ``theta``, ``nx`` or ``ny``.
      name: an identifier, unique on the page.
    """
    values = np.asarray(arrays[parameter], float)
    edges = arrays.get(f"published_{parameter}_edges")
    weights = arrays.get(f"published_{parameter}_weights")
    published = edges is not None and weights is not None
    if not published:
        edges = np.linspace(values.min(), values.max() + 1e-9, 9)
    edges = np.asarray(edges, float)
    if parameter == "theta":
        values = edges[0] + np.mod(values - edges[0], 180.0)
    share = np.histogram(values, edges)[0] / len(values)
    with svg.drawing(2.6, 1.8) as figure:
        axes = figure.add_subplot()
        axes.bar(
            edges[:-1],
            share,
            np.diff(edges),
            align="edge",
            color=svg.ACCENT,
            alpha=0.45,
            edgecolor=svg.BACKGROUND,
            linewidth=1.0,
            zorder=2,
        )
        spoken = ", ".join(
            f"{low:.3g} to {high:.3g}: {100 * part:.0f} %"
            for low, high, part in zip(edges[:-1], edges[1:], share, strict=True)
        )
        whole = np.asarray(weights if published else [0.0], float)
        if published:
            whole = whole / whole.sum()
            axes.stairs(whole, edges, color=svg.INK, linewidth=1.5, baseline=None, zorder=3)
        if parameter != "theta" and edges[0] > 0:
            axes.set_xscale("log")
            ticks = edges[:: math.ceil(len(edges) / 6)]
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
            axes.xaxis.set_major_formatter(FixedFormatter([f"{tick:.2g}" for tick in ticks]))
        else:
            axes.set_xticks(edges[:: math.ceil(len(edges) / 6)])
        axes.set_ylim(0, 1.1 * max(share.max(), whole.max()))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        axes.locator_params(axis="y", nbins=4)
        axes.set_xlabel(_NAMES[parameter])
        return svg.render(figure, name, f"Histogram of {_NAMES[parameter]}. {spoken}.")
