"""Pixel images as PNG: adversarial images, maps, and mosaics of Gabor filters."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from vone_jax.results import Result, Run

# The page stays small: fewer large images than small ones.
_SMALL_SIDE, _MANY, _FEW = 64, 8, 4
_MAX_CONDITIONS = 4
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


def galleries(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Adversarial images that results keep, beside the originals: one gallery for each attack.

    Each is a title, the factor that magnifies the changes, and cards: an image, its true class, and
    what each network took it for, before the attack and after it.
    """
    shown: dict[str, list[tuple[Run, Result]]] = {}
    for run in runs:
        for result in run.of_type("Attacked"):
            if "adversarial" in result.arrays:
                shown.setdefault(result.label, []).append((run, result))
    return [_gallery(title, kept) for title, kept in list(shown.items())[:_MAX_CONDITIONS]]


def _gallery(title: str, kept: Sequence[tuple[Run, Result]]) -> dict[str, Any]:
    largest = max(
        float(np.abs(result.arrays["adversarial"] - result.arrays["original"]).max())
        for _, result in kept
    )
    factor = _magnification(largest)
    cards: dict[int, dict[str, Any]] = {}
    for run, result in kept:
        arrays = dict(result.arrays)
        names = result.provenance.get("class_names", ())
        before = _predictions(run)
        most = _MANY if arrays["original"].shape[1] <= _SMALL_SIDE else _FEW
        places = {int(index): place for place, index in enumerate(arrays["index"])}
        for i, index in enumerate(arrays["kept"][:most].tolist()):
            place, original = places[index], arrays["original"][i]
            adversarial, label = arrays["adversarial"][i], int(arrays["label"][place])
            after = int(arrays["predicted"][place])
            card = {"truth": _name(names, label), "original": photograph(original), "attacked": []}
            cards.setdefault(index, card)["attacked"].append(
                {
                    "network": run.label,
                    "perturbation": photograph(0.5 + factor * (adversarial - original)),
                    "adversarial": photograph(adversarial),
                    "before": _name(names, before[index]) if index in before else "",
                    "after": _name(names, after),
                    "right": after == label,
                }
            )
    return {"title": title, "factor": factor, "cards": list(cards.values())}


def metamers(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Strips of metamers: the originals and a row for each layer of a network, in its order.

    Each strip is a title and images, which have a caption: the true class, or what the network took
    the metamer for and how well it matches.
    """
    strips = []
    for run in runs:
        made = sorted(run.of_type("Metamers"), key=lambda result: result.details["place"])
        for result in made:
            arrays, names = dict(result.arrays), result.provenance.get("class_names", ())
            most = _MANY if arrays["original"].shape[1] <= _SMALL_SIDE else _FEW
            if result is made[0]:
                shown = zip(arrays["original"][:most], arrays["label"].tolist(), strict=False)
                originals = [{"uri": photograph(x), "caption": _name(names, y)} for x, y in shown]
                strips.append({"title": f"{run.label}: originals", "images": originals})
            columns = (arrays[name] for name in ("metamers", "predicted", "decibel"))
            row = [
                {
                    "uri": photograph(image),
                    "caption": f"{_name(names, int(predicted))}, {decibel:.1f} dB",
                }
                for image, predicted, decibel in list(zip(*columns, strict=True))[:most]
            ]
            strips.append({"title": f"{run.label}: {result.label}", "images": row})
    return strips


def _predictions(run: Run) -> dict[int, int]:
    """Index of an image -> the class that a network takes the clean image for."""
    for result in run.of_type("Clean"):
        arrays = result.arrays
        return dict(zip(arrays["index"].tolist(), arrays["predicted"].tolist(), strict=True))
    return {}


def _name(names: Sequence[str], label: int) -> str:
    return names[label] if label < len(names) else str(label)


def _magnification(largest: float) -> int:
    """The largest of 1, 2, 5, 10, 20, ... that keeps the perturbation within the grey range."""
    if largest <= 0:
        return 1
    room = 0.5 / largest
    tens = 10 ** max(0, math.floor(math.log10(max(room, 1.0))))
    return max(step * tens for step in (1, 2, 5) if step == 1 or step * tens <= room)
