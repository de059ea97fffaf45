"""Charts of a layer in the style of electrophysiology, and of the parameters of a Gabor bank."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from vone_jax.report import charts
from vone_jax.report.charts import ACCENT, DASHES, INK, MUTED, PAGE, Figure, chart_of, color, figure
from vone_jax.results import TUNING_AXES

# Where the gratings are centred, in degrees right of and below fixation, and how far from there
# the field of a unit that is recorded may be.
CENTRE, _RADIUS = 0.5, 0.15
# Of more points, every k-th is shown, because each point makes the page longer.
_MAX_POINTS = 400
_CURVES = {
    "orientation": "orientation, degrees",
    "spatial_frequency": "spatial frequency, cycles/degree",
    "size": "diameter, degrees",
}
PARAMETERS = {
    "sf": "spatial frequency, cycles/degree",
    "theta": "direction of the carrier θ, degrees",
    "nx": "envelope along carrier nx, periods",
    "ny": "envelope across it ny, periods",
}
# Bars of the histogram of F1/F0, as the published one has them.
_RATIOS = np.linspace(0.0, 2.0, 11)


def bank_histogram(arrays: Mapping[str, np.ndarray], parameter: str) -> Figure:
    """The shares of one of the ``PARAMETERS`` (bars) and its published histogram (line)."""
    sample = np.asarray(arrays[parameter], float)
    published = f"published_{parameter}_edges" in arrays
    edges = np.linspace(sample.min(), sample.max() + 1e-9, 9)
    if published:
        edges = np.asarray(arrays[f"published_{parameter}_edges"], float)
    if parameter == "theta":
        sample = edges[0] + np.mod(sample - edges[0], 180.0)
    shares = np.histogram(sample, edges)[0] / len(sample)
    logarithmic = parameter != "theta" and edges[0] > 0
    x = _x(edges, PARAMETERS[parameter], logarithmic, edges)
    layers = [_bars(edges, shares.tolist(), ACCENT, 0.45, x, "this bank")]
    if published:
        weights = np.asarray(arrays[f"published_{parameter}_weights"], float)
        layers.append(_steps(edges, weights / weights.sum(), INK, [1, 0], x, "published"))
    return figure(
        layers, f"Histogram of {PARAMETERS[parameter]}. {_spoken(edges, shares.tolist())}."
    )


def property_chart(
    edges: Sequence[float],
    unit: str,
    neurons: Sequence[float],
    layers: Sequence[tuple[str, int, Sequence[float]]],
) -> Figure:
    """Shares of the neurons of V1 (bars) and of the units of layers (lines) in the same bins.

    Args:
      layers: (label, position of the network on the page, shares of units).
    """
    bounds, yes_no = np.asarray(edges, float), len(edges) == 3
    # Empty bins at both ends are left out: they only make the others narrower.
    used = np.flatnonzero(np.sum([neurons, *(shares for _, _, shares in layers)], axis=0))
    first, last = (used[0], used[-1] + 1) if len(used) else (0, len(neurons))
    bounds = bounds[first : last + 1]
    logarithmic = bool(bounds[0] > 0 and bounds[-1] / bounds[0] >= 8)
    x = _x(bounds, unit, logarithmic)
    if yes_no:
        names = "datum.value < 0.5 ? 'no' : 'yes'"
        labels = alt.Axis(values=[0.25, 0.75][first:last], labelExpr=names, title=unit or None)
        x = alt.X("low:Q", axis=labels, scale=alt.Scale(domain=[bounds[0], bounds[-1]]))
    drawn = [_bars(bounds, neurons[first:last], MUTED, 0.35, x, "V1 neurons")]
    spoken = [f"V1 neurons: {_spoken(bounds, neurons[first:last])}."]
    for label, position, shares in layers:
        line = color(position), charts.dashes(position)
        drawn.append(_steps(bounds, shares[first:last], *line, x, label))
        spoken.append(f"{label}: {_spoken(bounds, shares[first:last])}.")
    return figure(drawn, " ".join(spoken))


def tuning_chart(
    arrays: Mapping[str, np.ndarray], curve: str, units: Sequence[int], position: int
) -> Figure:
    """Tuning curves of units, one of ``TUNING_AXES``, each divided by its largest value."""
    steps, curves = arrays[f"axis/{TUNING_AXES[curve]}"], arrays[f"curve/{curve}"]
    if curve == "size":
        steps = 2 * steps
    rows, best = [], []
    for place, unit in enumerate(units):
        relative = curves[:, unit] / max(float(curves[:, unit].max()), 1e-9)
        rows += [
            {"unit": place, "low": float(x), "response": round(float(y), 4)}
            for x, y in zip(steps, relative, strict=True)
        ]
        best.append(f"unit {place + 1} is largest at {steps[relative.argmax()]:.3g}")
    if curve == "orientation":
        x = alt.X("low:Q", axis=alt.Axis(values=[0, 45, 90, 135], title=_CURVES[curve]))
    else:
        x = _x(steps, _CURVES[curve], logarithmic=True)
    y = _relative_axis("response", min(0.0, *(row["response"] for row in rows)))
    places = range(len(units))
    dashes = charts.styled(alt.StrokeDash, [DASHES[at % len(DASHES)] for at in places], "unit")
    base = chart_of(rows).encode(x=x, y=y)
    line = base.mark_line(color=color(position), strokeWidth=1.2)
    points = base.mark_point(filled=True, color=color(position), size=22, opacity=1)
    layers = [
        line.encode(strokeDash=dashes),
        points.encode(shape=charts.styled(alt.Shape, map(charts.marker, places), "unit")),
    ]
    return figure(layers, f"Response against {_CURVES[curve]}: {', '.join(best)}.")


def modulation_chart(ratio: np.ndarray, simple: np.ndarray | None, position: int) -> Figure:
    """A histogram of F1/F0, complex cells in grey and simple ones in colour if they are known.

    A ratio of NaN does not count. ``simple`` is None if the layer has no such kinds of cells.
    """
    known = ~np.isnan(ratio)
    groups = {"all units": known}
    if simple is not None:
        groups = {"complex cells": known & ~simple, "simple cells": known & simple}
    x = _x(_RATIOS, "modulation ratio F1/F0", logarithmic=False)
    layers, spoken = [], []
    for place, (label, members) in enumerate(groups.items()):
        clipped = np.clip(ratio[members], _RATIOS[0], _RATIOS[-1])
        shares = np.histogram(clipped, _RATIOS)[0] / max(known.sum(), 1)
        shade = MUTED if place == 0 and len(groups) > 1 else color(position)
        layers.append(_bars(_RATIOS, shares, shade, 0.6, x, label))
        spoken.append(f"{label}: {_spoken(_RATIOS, shares)}.")
    border = chart_of([{"low": 1.0}]).mark_rule(color=INK, strokeDash=[2, 3])
    layers.append(border.encode(x=x))
    return figure(layers, f"Modulation ratio. {' '.join(spoken)}")


def field_chart(x: np.ndarray, y: np.ndarray, position: int) -> Figure:
    """The centres of the receptive fields of the recorded units, in degrees from fixation."""
    reach = 1.25 * _RADIUS
    domain = [CENTRE - reach, CENTRE + reach]
    ticks = {"values": [0.35, 0.5, 0.65], "grid": False}
    angle = np.linspace(0, 2 * np.pi, 61)
    circle = [
        {"order": i, "x": CENTRE + _RADIUS * np.cos(a), "y": CENTRE + _RADIUS * np.sin(a)}
        for i, a in enumerate(angle.tolist())
    ]
    right = alt.Axis(title="degrees right of fixation", **ticks)
    below = alt.Axis(title="degrees below", **ticks)
    places = {
        "x": alt.X("x:Q", axis=right, scale=alt.Scale(domain=domain)),
        "y": alt.Y("y:Q", axis=below, scale=alt.Scale(domain=domain, reverse=True)),
    }
    middle = chart_of([{"x": CENTRE, "y": CENTRE}])
    border = chart_of(circle).mark_line(color=MUTED, strokeWidth=1)
    layers = [
        border.encode(order="order:Q", **places),
        middle.mark_point(shape="cross", color=INK, size=60, filled=True).encode(**places),
        _points(x, y, position).encode(**places),
    ]
    about = (
        f"Centres of {len(x)} receptive fields, on average {np.mean(x):.3f} degrees right of "
        f"and {np.mean(y):.3f} below fixation."
    )
    return figure(layers, about, (190, 190))


def contrast_chart(arrays: Mapping[str, np.ndarray], position: int) -> Figure | None:
    """The response against contrast, relative to the largest; dotted, in proportion to contrast.

    Median and middle half of the units; None if no unit responds.
    """
    contrasts, curves = arrays["contrast/contrasts"], arrays["contrast/curves"]
    ticks, largest = [0.05, 0.1, 0.2, 0.4, 1.0], curves.max(axis=0)
    x = alt.X("level:Q", scale=alt.Scale(type="log"), axis=alt.Axis(values=ticks, format="%"))
    told, x = [f"{100 * contrast:.3g} %" for contrast in contrasts], x.title("contrast")
    return _relative_chart(contrasts, curves, largest, contrasts, x, told, position)


def surround_chart(arrays: Mapping[str, np.ndarray], position: int) -> Figure | None:
    """The response to a centre with a surround, by orientation; dotted, to the centre alone.

    Median and middle half of the units, relative to the centre alone; None if no unit responds.
    """
    angles, curves, alone = (arrays[f"surround/{name}"] for name in ("angles", "curves", "alone"))
    x = alt.X("level:Q", axis=alt.Axis(values=[0, 30, 60, 90]))
    told, x = [f"{angle:g}" for angle in angles], x.title("degrees of the surround from the centre")
    return _relative_chart(angles, curves, alone, np.ones(len(angles)), x, told, position)


def _relative_chart(
    levels: np.ndarray,
    curves: np.ndarray,
    whole: np.ndarray,
    reference: np.ndarray,
    x: alt.X,
    told: Sequence[str],
    position: int,
) -> Figure | None:
    """Quartiles of curves (levels, units) over ``whole`` (units,); ``told`` names the levels."""
    if not (whole > 0).any():
        return None
    quartiles = np.percentile(curves[:, whole > 0] / whole[whole > 0], [25, 50, 75], axis=1)
    names = ("level", "reference", "first", "median", "third")
    rows = pd.DataFrame(dict(zip(names, (levels, reference, *quartiles), strict=True)))
    ends = min(0.0, float(quartiles[0].min())), max(1.08, float(quartiles[2].max()))
    first, median, equal = (_relative_axis(n, *ends) for n in ("first", "median", "reference"))
    base, shade = chart_of(rows.to_dict("records")).encode(x=x), color(position)
    line = base.mark_line(color=shade, point={"color": shade})
    layers = [
        base.mark_area(color=shade, opacity=0.25).encode(y=first, y2="third:Q"),
        base.mark_line(color=INK, strokeWidth=1, strokeDash=[2, 3]).encode(y=equal),
        line.encode(y=median, tooltip=[alt.Tooltip("level:Q", title=x["title"]), "median:Q"]),
    ]
    spoken = ", ".join(f"{name}: {at:.2f}" for name, at in zip(told, quartiles[1], strict=True))
    return figure(layers, f"Median relative response against {x['title']}: {spoken}.")


def variability_chart(
    arrays: Mapping[str, np.ndarray], spikes: bool, position: int
) -> Figure | None:
    """Variance over trials against the mean, for each unit and grating; equal on the line.

    Both are of spike counts if ``spikes``, else of responses. It is None if nothing is above 0,
    since the axes are logarithmic.
    """
    space, unit = ("spike_", "spikes") if spikes else ("", "responses")
    mean, variance = (arrays[f"variability/{space}{moment}"] for moment in ("mean", "variance"))
    above = (mean > 0) & (variance > 0)
    mean, variance = mean[above], variance[above]
    if not len(mean):
        return None
    both = np.concatenate([mean, variance])
    ends = [float(f"{end:.3g}") for end in (both.min(), both.max())]
    scale, ticks = alt.Scale(type="log", domain=ends), {"tickCount": 4, "format": "~g"}
    places = {
        "x": alt.X("x:Q", scale=scale, axis=alt.Axis(title=f"mean, {unit}", **ticks)),
        "y": alt.Y("y:Q", scale=scale, axis=alt.Axis(title=f"variance, {unit}²", **ticks)),
    }
    points = _points(mean, variance, position)
    equal = chart_of([{"x": end, "y": end} for end in ends])
    line = equal.mark_line(color=INK, strokeWidth=1, strokeDash=[2, 3])
    about = (
        f"Variance against mean of {unit} of {len(mean)} pairs of unit and grating; the median "
        f"ratio is {np.median(variance / mean):.2f}."
    )
    return figure([points.encode(**places), line.encode(**places)], about)


def _points(x: np.ndarray, y: np.ndarray, position: int) -> alt.Chart:
    """A chart of points with four digits, of at most ``_MAX_POINTS``, in the network's colour."""
    pairs = list(zip(x, y, strict=True))[:: -(-len(x) // _MAX_POINTS)]
    rows = [{"x": float(f"{a:.4g}"), "y": float(f"{b:.4g}")} for a, b in pairs]
    return chart_of(rows).mark_circle(color=color(position), size=12, opacity=0.5)


def _relative_axis(field: str, floor: float, top: float = 1.08) -> alt.Y:
    return alt.Y(
        f"{field}:Q",
        title=None,
        axis=alt.Axis(values=[0, 0.5, 1]),
        scale=alt.Scale(domain=[floor, top], nice=False),
    )


def _x(places: np.ndarray, title: str, logarithmic: bool, ticks: np.ndarray | None = None) -> alt.X:
    """An axis from the first to the last place, with powers of 2 or 4, or some of ``ticks``."""
    scale: dict[str, Any] = {"domain": [float(places.min()), float(places.max())], "nice": False}
    axis: dict[str, Any] = {"title": title or None, "format": ".4~g", "tickCount": 5}
    if logarithmic:
        scale |= {"type": "log", "base": 2}
        low, high = np.ceil(np.log2(places.min())), np.floor(np.log2(places.max()))
        axis["values"] = (2.0 ** np.arange(low, high + 1, 1 if high - low < 5 else 2)).tolist()
    if ticks is not None:
        axis["values"] = ticks[:: -(-len(ticks) // 6)].tolist()
    return alt.X("low:Q", scale=alt.Scale(**scale), axis=alt.Axis(**axis))


def _bars(
    edges: np.ndarray, shares: Sequence[float], fill: str, opacity: float, x: alt.X, label: str
) -> alt.Chart:
    rows = [
        {"of": label, "low": low, "high": high, "share": share, "zero": 0, "Share": text}
        for low, high, share, text in _bins(edges, shares)
    ]
    bars = chart_of(rows).mark_rect(color=fill, opacity=opacity, stroke=PAGE)
    told = [alt.Tooltip("of:N", title="Of"), alt.Tooltip("Share:N")]
    return bars.encode(x=x, x2="high:Q", y=_shares(), y2="zero:Q", tooltip=told)


def _steps(
    edges: np.ndarray,
    shares: Sequence[float],
    stroke: str,
    dashes: Sequence[float],
    x: alt.X,
    label: str,
) -> alt.Chart:
    """The outline of a histogram."""
    ends = zip(map(float, edges), map(float, [*shares, shares[-1]]), strict=True)
    # Equal rows of two layers would be one data set of the chart, so each has its label.
    steps = chart_of([{"of": label, "low": low, "share": share} for low, share in ends])
    style = {"color": stroke, "strokeWidth": 1.7, "strokeDash": list(dashes)}
    return steps.mark_line(interpolate="step-after", **style).encode(x=x, y=_shares())


def _shares() -> alt.Y:
    return alt.Y("share:Q", title=None, axis=charts.share_axis())


def _bins(edges: np.ndarray, shares: Sequence[float]) -> list[tuple[float, float, float, str]]:
    """(low, high, share, all three in words) of each bin."""
    bins = zip(map(float, edges), map(float, edges[1:]), map(float, shares), strict=False)
    return [(a, b, share, f"{a:.4g} to {b:.4g}: {100 * share:.0f} %") for a, b, share in bins]


def _spoken(edges: np.ndarray, shares: Sequence[float]) -> str:
    return ", ".join(text for *_, text in _bins(edges, shares))
