"""Pictures of V1 and of recorded layers: kernels, responses, tuning, distributions.

Functions return specifications of Vega-Lite, or images as arrays in [0, 1].
"""

import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from vone_jax.results import Chart, Pictures, View

_COLORS = ("#c4500b", "#0b62a8", "#6a7c52", "#b14d7f")
_SMALL, _MAP = 150, 110
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
PARAMETERS = {
    "sf": "spatial frequency, cycles/degree",
    "theta": "direction of the carrier θ, degrees",
    "nx": "envelope along carrier nx, periods",
    "ny": "envelope across it ny, periods",
}
# Tuning curve -> its axis among the arrays, and the title of the axis.
CURVES = {
    "orientation": ("orientation", "orientation, degrees"),
    "spatial_frequency": ("spatial_frequency", "spatial frequency, cycles/degree"),
    "size": ("diameter", "diameter, degrees"),
}


def _chart_of(rows: Sequence[Mapping[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=list(rows))).properties(width="container")


def _bank_histogram(arrays: Mapping[str, np.ndarray], parameter: str) -> dict[str, Any]:
    """The shares of a parameter of a Gabor bank (bars) and its published histogram (line).

    Args:
      arrays: the arrays of a result of the suite "v1".
      parameter: one of ``PARAMETERS``.
    """
    sample = np.asarray(arrays[parameter], float)
    edges = np.linspace(sample.min(), sample.max() + 1e-9, 9)
    published = f"published_{parameter}_edges" in arrays
    if published:
        edges = np.asarray(arrays[f"published_{parameter}_edges"], float)
    if parameter == "theta":
        sample = edges[0] + np.mod(sample - edges[0], 180.0)
    shares = np.histogram(sample, edges)[0] / len(sample)
    layers = {"this bank": shares}
    if published:
        weights = np.asarray(arrays[f"published_{parameter}_weights"], float)
        layers["macaque V1"] = weights / weights.sum()
    return histogram(edges, layers, PARAMETERS[parameter])


def histogram(
    edges: np.ndarray, shares: Mapping[str, Sequence[float] | np.ndarray], title: str
) -> dict[str, Any]:
    """The distribution of a property of units, beside that of neurons of macaque V1.

    Args:
      edges: bin edges.
      shares: whose distribution it is -> the share in each bin; drawn as bars for the first, and
        as lines for the others.
      title: the property in words, with its unit.
    """
    known = list(shares)
    filled = np.flatnonzero(np.sum([np.asarray(each) for each in shares.values()], axis=0))
    first, last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, len(edges) - 1)
    rows = [
        {"of": name, "low": float(edges[at]), "high": float(edges[at + 1]), "share": float(of[at])}
        for name, of in shares.items()
        for at in range(first, last)
    ]
    ends = [float(edges[first]), float(edges[last])]
    logarithmic = ends[0] > 0 and ends[1] / ends[0] >= 8
    scale = alt.Scale(domain=ends, type="log" if logarithmic else "linear", nice=False)
    colors = ["#b9c0c8", *_COLORS] if len(known) > 1 else [_COLORS[1]]
    color = alt.Color(
        "of:N",
        scale=alt.Scale(domain=known, range=(colors * len(known))[: len(known)]),
        legend=alt.Legend(title=None, orient="top", columns=1, labelLimit=300),
    )
    told = [
        "of:N", alt.Tooltip("low:Q", format=".3~g", title="from"),
        alt.Tooltip("high:Q", format=".3~g", title="to"), alt.Tooltip("share:Q", format=".0%"),
    ]  # fmt: skip
    base = _chart_of(rows).encode(
        x=alt.X(
            "low:Q",
            scale=scale,
            title=textwrap.wrap(title, 30),
            axis=alt.Axis(format=".3~g", tickCount=4),
        ),
        color=color,
        tooltip=told,
    )
    bars = base.transform_filter(f"datum.of === {known[0]!r}").mark_rect(stroke="white")
    # A step reaches the end of the last bin.
    ends_of = [row | {"low": row["high"]} for row in rows if row["high"] == float(edges[last])]
    lines = (
        _chart_of([*rows, *ends_of])
        .transform_filter(f"datum.of !== {known[0]!r}")
        .mark_line(interpolate="step-after", strokeWidth=1.8)
        .encode(x=alt.X("low:Q", scale=scale), y="share:Q", color=color, detail="of:N")
    )
    y = alt.Y("share:Q", title="share", axis=alt.Axis(format="%", tickCount=4))
    layers = [bars.encode(x2="high:Q", y=y, y2=alt.datum(0)), lines]
    drawn = alt.LayerChart(layer=layers[: len(known)]).properties(height=_SMALL)
    return drawn.to_dict(validate=False)


def tuning(
    arrays: Mapping[str, np.ndarray], curve: str = "orientation", units: Sequence[int] = ()
) -> alt.Chart:
    """Tuning curves of units, each divided by its largest value.

    Args:
      arrays: the arrays of a scored layer, see ``neurophysiology.Scores.arrays``.
      curve: one of ``CURVES``.
      units: positions of units. Default: four, spread over the preferred spatial frequencies.
    """
    if curve not in CURVES:
        raise ValueError(f"curve must be one of {', '.join(CURVES)}, got {curve!r}")
    axis, title = CURVES[curve]
    steps, curves = arrays[f"axis/{axis}"], arrays[f"curve/{curve}"]
    rows = []
    for unit in units or spread_units(arrays):
        relative = curves[:, unit] / max(float(curves[:, unit].max()), 1e-9)
        rows += [
            {"unit": f"unit {unit}", "level": float(level), "response": round(float(value), 4)}
            for level, value in zip(steps, relative, strict=True)
        ]
    linear = curve == "orientation"
    scale = alt.Scale() if linear else alt.Scale(type="log", nice=False)
    # On a linear scale Vega would make 1e+2 of 100.
    ticks = alt.Axis(tickCount=5, format="d" if linear else "~g")
    return (
        _chart_of(rows)
        .mark_line(point=True)
        .encode(
            x=alt.X("level:Q", scale=scale, title=title, axis=ticks),
            y=alt.Y("response:Q", title="relative response"),
            color=alt.Color("unit:N", legend=alt.Legend(title=None, orient="top", columns=2)),
            tooltip=["unit:N", "level:Q", "response:Q"],
        )
        .properties(height=_SMALL)
    )


def receptive_fields(arrays: Mapping[str, np.ndarray], units: Sequence[int] = ()) -> alt.FacetChart:
    """Receptive-field maps of units: the response to a small grating at each position.

    Positions are relative to fixation.

    Args:
      arrays: the arrays of a scored layer, see ``neurophysiology.Scores.arrays``.
      units: positions of units. Default: those of ``tuning``.
    """
    places = [float(place) for place in arrays["axis/position"]]
    rows = [
        {"unit": f"unit {unit}", "x": x, "y": y, "response": round(float(value), 2)}
        for unit in units or spread_units(arrays)
        for y, line in zip(places, arrays["field/map"][..., unit], strict=True)
        for x, value in zip(places, line, strict=True)
    ]
    # An ordinal axis counts downwards, as the positions in the visual field do.
    ticks = alt.Axis(values=[-2, -1, 0, 1, 2], labelAngle=0, ticks=False, domain=False)
    return (
        _chart_of(rows)
        .mark_rect()
        .encode(
            x=alt.X("x:O", title="right, degrees", axis=ticks),
            y=alt.Y("y:O", title="down, degrees", axis=ticks),
            color=alt.Color("response:Q", scale=alt.Scale(scheme="greys"), legend=None),
            tooltip=["unit:N", "x:Q", "y:Q", "response:Q"],
        )
        .properties(width=_MAP, height=_MAP)
        .facet(alt.Facet("unit:N", title=None), columns=2)
    )


def of_units(arrays: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """The tuning curves and the receptive fields of some units of a scored layer."""
    kept = dict(arrays)
    drawn = [*(tuning(kept, curve) for curve in CURVES), receptive_fields(kept)]
    return [each.to_dict(validate=False) for each in drawn]


def explained(correlations: np.ndarray, reliabilities: np.ndarray) -> dict[str, Any]:
    """The correlation of each neuron with its prediction against its own reliability.

    No prediction is expected above the line, the square root of the reliability. Both are means
    over splits; neurons without one are left out.

    Args:
      correlations: (splits, neurons), NaN where one is not defined, see
        ``neurophysiology.explained_variance``.
      reliabilities: (splits, neurons).
    """
    with warnings.catch_warnings():
        # A neuron may be constant in every split.
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        r, reliability = (np.nanmean(x, axis=0) for x in (correlations, reliabilities))
    rows = [
        {"neuron": neuron, "r": float(each), "reliability": float(most)}
        for neuron, (each, most) in enumerate(zip(r, reliability, strict=True))
        if np.isfinite(each) and np.isfinite(most)
    ]
    told = [
        "neuron:Q",
        alt.Tooltip("r:Q", format=".2f"),
        alt.Tooltip("reliability:Q", format=".2f"),
    ]
    points = (
        _chart_of(rows)
        .mark_point(filled=True, opacity=0.6, color=_COLORS[0])
        .encode(
            x=alt.X("reliability:Q", title="reliability of the neuron"),
            y=alt.Y("r:Q", title="r of its prediction"),
            tooltip=told,
        )
    )
    most = [{"at": float(at), "bound": float(at) ** 0.5} for at in np.linspace(0.0, 1.0, 21)]
    bound = (
        _chart_of(most)
        .mark_line(strokeDash=[2, 2], color="#777")
        .encode(x=alt.X("at:Q", title="reliability of the neuron"), y="bound:Q")
    )
    drawn = alt.LayerChart(layer=[bound, points]).properties(height=2 * _SMALL)
    return drawn.to_dict(validate=False)


def spread_units(arrays: Mapping[str, np.ndarray], count: int = 4) -> list[int]:
    """Units spread over the preferred spatial frequencies, among those that respond enough."""
    frequency = np.asarray(arrays["value/peak_sf"], float)
    usable = np.flatnonzero(np.isfinite(frequency) & np.isfinite(arrays["value/pref_or"]))
    ordered = usable[np.argsort(frequency[usable], kind="stable")]
    places = np.linspace(0.1, 0.9, count) * (len(ordered) - 1)
    return list(dict.fromkeys(int(ordered[place]) for place in places.astype(int)))


def bank(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[View]]:
    """Pictures of a Gabor bank: its kernels, parameters, and responses to an image.

    Args:
      arrays: the arrays of a result of the suite "v1".

    Returns:
      The pictures as arrays by name, and the views of them.
    """
    stored, views = dict[str, np.ndarray](), list[View]()
    side = arrays["kernels_in_phase"].shape[1]
    degrees = side / float(arrays["pixels_per_degree"])
    about = (
        "The filters in front of a VOneNet are Gabor functions, whose parameters are drawn from "
        "measurements in macaque V1. Simple cells keep the positive part of a filter's "
        "response. Complex cells keep the energy of two filters a quarter "
        "period apart."
    )
    each = f"Each filter covers {side} × {side} pixels, {degrees:.2g}° of the visual field."
    for name, description, mosaic in _mosaics(arrays):
        stored[name] = mosaic[None]
        caption = f"{description}. {each} Rows go from coarse to fine."
        views.append(Pictures((name,), (caption,), name, side=480, about=about))
    views += [Chart(_bank_histogram(arrays, name)) for name in PARAMETERS]
    shown = _response_maps(arrays)
    image = arrays["image"]
    stored["shown image"] = image[None]
    views.append(Pictures(("shown image",), ("the input image",), "Responses to an image"))
    stored["map without noise"], stored["map with noise"] = (
        np.stack([maps[at] for _, maps in shown]) for at in (0, 1)
    )
    scale = "each without and with noise, on one scale, from black for no response to bright"
    views.append(
        Pictures(
            ("map without noise", "map with noise"), tuple(caption for caption, _ in shown), scale
        )
    )
    return stored, views


def _mosaics(arrays: Mapping[str, np.ndarray]) -> list[tuple[str, str, np.ndarray]]:
    """A picture of simple cells and one of complex cells, if the bank has them.

    Rows go from coarse to fine filters; within a row the orientation turns. A filter of a
    coloured image has the colour of the one channel that it reads.

    Returns:
      The title, the description and the picture of each.
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
            pictures.append((title, about, _stitched(tiles)))
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


def _stitched(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Tiles in rows as one image in [0, 1]."""
    height, width, colors = rows[0][0].shape
    columns = max(map(len, rows))
    shape = (len(rows) * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, colors)
    canvas = np.full(shape, 128, np.uint8)
    for r, row in enumerate(rows):
        for c, pixels in enumerate(row):
            top, left = _GAP + r * (height + _GAP), _GAP + c * (width + _GAP)
            canvas[top : top + height, left : left + width] = pixels
    return canvas.astype(np.float32) / 255


def _response_maps(
    arrays: Mapping[str, np.ndarray],
) -> list[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """The responses of simple and complex cells from coarse to fine, of several orientations.

    Both maps of a cell share one scale, from 0 to the largest response without noise.

    Returns:
      A caption, and the maps without and with noise, of each cell.
    """
    clean, noisy = arrays["responses_clean"], arrays["responses_noisy"]
    cells, simple = np.arange(clean.shape[-1]), int(arrays["simple_channels"])
    shown = []
    for kind, members in (("simple", cells[:simple]), ("complex", cells[simple:])):
        for i in _chosen(members, arrays) if len(members) else []:
            high = float(max(clean[..., i].max(), np.quantile(noisy[..., i], 0.98)))
            orientation = (90 - arrays["theta"][i]) % 180
            caption = f"{kind} cell, {arrays['sf'][i]:.1f} cycles/°, {orientation:.0f}°"
            maps = _heat_map(clean[..., i], high), _heat_map(noisy[..., i], high)
            shown.append((caption, maps))
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


def _heat_map(values: np.ndarray, high: float) -> np.ndarray:
    """A map (height, width) in the colours of "magma" from 0 to ``high``, as an image."""
    levels = np.clip(values / (high if high > 0 else 1.0), 0, 1)
    places = np.linspace(0, 1, len(_MAGMA))
    return np.stack([np.interp(levels, places, ends / 255) for ends in _MAGMA.T], axis=-1)
