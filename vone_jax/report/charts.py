"""Charts with Vega-Altair: their look, and accuracy against radius, severity and epoch.

The page shows each chart as a static SVG. Where JavaScript runs, the Vega-Lite specification takes
its place and shows numbers under the pointer. Colours are CSS variables of the page, so one chart
serves light mode, dark mode and print.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import altair as alt
import numpy as np
import vl_convert
from markupsafe import Markup

from vone_jax.names import NORM_LABELS, SEVERITIES
from vone_jax.report import comparison
from vone_jax.report.wording import interval, percent, printable, words
from vone_jax.results import Result, Run

INK, MUTED, RULE, PAGE, ACCENT = (
    f"var(--{name})" for name in ("ink", "muted", "rule", "page", "accent")
)
COLORS = 8
# Shapes of Vega, so that colour is never the only difference between networks.
MARKERS = (
    *("circle", "square", "diamond", "triangle-up", "triangle-down", "cross"),
    *("triangle-right", "triangle-left"),
)
# Dashes of lines that are told apart within a chart; the first is solid.
DASHES = ([1, 0], [6, 2], [2, 1.5], [7, 2, 1.5, 2])
_DETERMINISTIC = [5, 3]
# More labels on an axis than this overlap on a phone.
_MAX_LABELS = 6
# A training log may have a line for each step; means over this many stretches show its course.
_MAX_LOG_POINTS = 200
_LOGGED = ("train", "validation")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_AXIS = {
    "labelColor": MUTED,
    "titleColor": MUTED,
    "titleFontWeight": "normal",
    "labelFontSize": 11,
    "titleFontSize": 11.5,
    "domainColor": RULE,
    "tickColor": RULE,
    "gridColor": RULE,
    "labelLimit": 110,
    "labelFlush": False,
}
_CONFIG: dict[str, Any] = {
    # The element around a chart describes it in words.
    "aria": False,
    "background": "transparent",
    "font": _FONT,
    "view": {"stroke": None},
    "axis": _AXIS,
    "axisX": {"grid": False},
    "axisY": {"domain": False, "ticks": False},
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """A chart on the page: static picture, Vega-Lite specification, and what it shows in words."""

    svg: Markup
    spec: dict[str, Any]
    description: str


def figure(chart: alt.TopLevelMixin, description: str, networks: int = 0) -> Figure:
    """A chart as the page shows it.

    Args:
      chart: the chart.
      description: for readers who do not see it.
      networks: number of networks, for a chart of rows of ``of_networks``.
    """
    # Validation takes ten times as long as all the rest.
    spec = chart.to_dict(validate=False) | {"config": _CONFIG}
    if networks:
        spec["params"] = [{"name": "shown", "value": list(range(networks))}]
    # An address, which a page that loads nothing does not need.
    del spec["$schema"]
    svg = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    # The namespaces name addresses, and HTML needs none.
    start = svg.index(">")
    head = " ".join(part for part in svg[:start].split(" ") if not part.startswith("xmlns"))
    return Figure(Markup(printable(head + svg[start:])), spec, description)


@functools.cache
def script() -> str:
    """The script of the page, with Vega, Vega-Lite and Vega-Embed in one text."""
    text = resources.files("vone_jax.report").joinpath("templates/page.js").read_text("utf-8")
    return vl_convert.javascript_bundle(text)


def color(position: int) -> str:
    """The colour of the network at a position on the page."""
    return f"var(--net-{position % COLORS})"


def marker(position: int) -> str:
    """The marker of the network at a position on the page."""
    return MARKERS[position % len(MARKERS)]


def chart_of(rows: Sequence[dict[str, Any]]) -> alt.Chart:
    """A chart of rows of data."""
    return alt.Chart(alt.Data(values=list(rows)))


def of_networks(rows: Sequence[dict[str, Any]]) -> alt.Chart:
    """A chart of rows with the "position" of a network; the reader chooses the networks."""
    return chart_of(rows).transform_filter("indexof(shown, datum.position) >= 0")


def share_axis(title: str | None = None, **fields: Any) -> alt.Axis:
    """A vertical axis of shares in percent."""
    options: dict[str, Any] = {"tickCount": 4} | fields
    return alt.Axis(title=title, format="%", **options)


def attack_chart(runs: Sequence[Run], norm: str) -> Figure:
    """Accuracy against the radius of one norm, a line for each network with its 95 % band.

    The axis is logarithmic, with clean accuracy apart at its left end. A network that was attacked
    at one radius has points and no line.
    """
    curves = [comparison.curve(run, norm) for run in runs]
    labels = {
        eps: result.attack.eps_label
        for measured in reversed(curves)
        for eps, result in measured.items()
        if eps > 0
    }
    radii = sorted(labels)
    # Clean accuracy stands one mean step of the ladder to the left of the smallest radius.
    gap = math.log2(radii[-1] / radii[0]) / (len(radii) - 1) if len(radii) > 1 else 1.0
    places = {eps: gap + math.log2(eps / radii[0]) for eps in radii}
    step = math.ceil(len(radii) / _MAX_LABELS) if radii else 1
    ticks = {0.0: "clean"} | {places[eps]: labels[eps] for eps in radii[::step]}
    norm = f"{NORM_LABELS[norm]} radius"
    title, about = f"{norm} ε, log scale", f"Accuracy against the {norm}."
    return _accuracy_chart(runs, curves, labels, places, ticks, title, about, (330, 230))


def severity_chart(runs: Sequence[Run], corruption: str) -> Figure:
    """Accuracy against the severity of one corruption; severity 0 is the clean image."""
    conditions = [comparison.corruptions(run).items() for run in runs]
    curves = [{float(s): r for (name, s), r in each if name == corruption} for each in conditions]
    labels = {float(severity): f"severity {severity}" for severity in SEVERITIES}
    places = {place: place for place in labels}
    ticks = {float(severity): str(severity) for severity in (0, *SEVERITIES)}
    about = f"Accuracy against the severity of {words(corruption)}."
    return _accuracy_chart(runs, curves, labels, places, ticks, "severity", about, (210, 130))


def _accuracy_chart(
    runs: Sequence[Run],
    curves: Sequence[Mapping[float, Result]],
    labels: Mapping[float, str],
    places: Mapping[float, float],
    ticks: Mapping[float, str],
    title: str,
    about: str,
    size: tuple[int, int],
) -> Figure:
    """Lines with bands and markers, from the clean images at 0.

    Args:
      curves: strength of a condition -> result, for each network.
      labels: strength -> its name.
      places: strength -> place on the axis.
      ticks: place on the axis -> label.
    """
    rows, spoken = [], []
    for position, (run, curve) in enumerate(zip(runs, curves, strict=True)):
        clean = comparison.clean(run)
        points = ({0.0: clean} if clean else {}) | dict(curve)
        told = []
        for strength in sorted(points):
            result, label = points[strength], labels.get(strength, "clean")
            low, high = result.interval
            told.append(f"{label} {percent(result.accuracy)}")
            rows.append(
                {
                    "place": places.get(strength, 0.0),
                    "position": position,
                    # A line through clean images and one condition would invent a course.
                    "joined": len(points) > 2,
                    "accuracy": result.accuracy,
                    "low": low,
                    "high": high,
                    "Network": run.label,
                    "Condition": label,
                    "Accuracy": f"{percent(result.accuracy)} ({interval(low, high)})",
                    "Judged": result.protocol_label,
                }
            )
        if told:
            spoken.append(f"{run.label}: {', '.join(told)}.")
    names = " : ".join(f"abs(datum.value - {at}) < 1e-6 ? '{ticks[at]}'" for at in sorted(ticks))
    axis = {"values": sorted(ticks), "title": title, "labelExpr": f"{names} : ''"}
    x = alt.X("place:Q", axis=alt.Axis(labelOverlap=False, **axis))
    colors, shapes, dashes = styles(runs)
    axis = share_axis(values=[0, 0.25, 0.5, 0.75, 1])

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=axis)

    base = of_networks(rows).encode(x=x, color=colors)
    joined, apart = base.transform_filter("datum.joined"), base.transform_filter("!datum.joined")
    layers = []
    level = comparison.common_chance(runs)
    if level is not None:
        chance = chart_of([{"level": level}]).encode(y=y("level"))
        layers.append(chance.mark_rule(strokeDash=[1, 2], color=MUTED))
    if any(row["joined"] for row in rows):
        layers += [
            joined.mark_area(opacity=0.18).encode(y=y("low"), y2="high:Q"),
            joined.mark_line(strokeWidth=1.8).encode(y=y("accuracy"), strokeDash=dashes),
        ]
    if not all(row["joined"] for row in rows):
        layers.append(apart.mark_rule().encode(y=y("low"), y2="high:Q"))
    layers.append(
        base.mark_point(filled=True, size=34, opacity=1).encode(
            y=y("accuracy"),
            shape=shapes,
            tooltip=["Network:N", "Condition:N", "Accuracy:N", "Judged:N"],
        )
    )
    width, height = size
    chart = alt.layer(*layers).properties(width=width, height=height)
    return figure(chart, " ".join([about, *spoken]), len(runs))


def styled(channel: Any, styles: Iterable[Any], field: str = "position") -> Any:
    """A channel with the style of each network, or of each value of another field from 0.

    The page has legends, so charts have none.
    """
    shown = list(styles)
    scale = alt.Scale(domain=list(range(len(shown))), range=shown)
    return channel(f"{field}:N", scale=scale, legend=None)


def styles(runs: Sequence[Run]) -> tuple[alt.Color, alt.Shape, alt.StrokeDash]:
    """Colours, shapes and dashes: lines of stochastic networks are solid."""
    places = range(len(runs))
    dashes = [DASHES[0] if run.stochastic else _DETERMINISTIC for run in runs]
    colors, shapes = styled(alt.Color, map(color, places)), styled(alt.Shape, map(marker, places))
    return colors, shapes, styled(alt.StrokeDash, dashes)


def training_charts(runs: Sequence[Run]) -> list[tuple[str, Figure]]:
    """(title, chart) of the loss and the accuracy; none if no network has a training log."""
    logs = [(run, kind) for run in runs for kind in _LOGGED if _log(run, kind)]
    return [(words(q), _training_chart(runs, q)) for q in ("loss", "accuracy")] if logs else []


def _log(run: Run, kind: str) -> list[Mapping[str, Any]]:
    return [line for line in run.log if line["kind"] == kind]


def _training_chart(runs: Sequence[Run], quantity: str) -> Figure:
    """Loss or accuracy against the epoch: thin on training batches, bold on validation images."""
    rows, spoken = [], []
    for position, run in enumerate(runs):
        for kind in _LOGGED:
            lines = np.array([(line["epoch"], line[quantity]) for line in _log(run, kind)], float)
            if not len(lines):
                continue
            # Means over consecutive stretches, if there are too many points to draw.
            stretches = np.array_split(lines, min(len(lines), _MAX_LOG_POINTS))
            points = np.array([stretch.mean(axis=0) for stretch in stretches])
            rows += [
                {
                    "position": position,
                    "kind": kind,
                    "epoch": float(f"{epoch:.5g}"),
                    "value": float(f"{value:.5g}"),
                    "Network": f"{run.label}, {kind}",
                }
                for epoch, value in points
            ]
            epoch, value = points[-1]
            spoken.append(f"{run.label}, {kind}: {value:.3g} at epoch {epoch:.3g}.")
    share = quantity == "accuracy"
    scale = alt.Scale(domain=[0, 1]) if share else alt.Scale(zero=True)
    y = alt.Y("value:Q", scale=scale, title=None, axis=share_axis() if share else alt.Axis())
    x = alt.X("epoch:Q", axis=alt.Axis(tickCount=6))
    colors, shapes, dashes = styles(runs)
    base = of_networks(rows).encode(x=x, y=y, color=colors)
    train, validation = (base.transform_filter(f"datum.kind == '{kind}'") for kind in _LOGGED)
    points = validation.mark_point(filled=True, size=26, opacity=1)
    tooltip = ["Network:N", "epoch:Q", alt.Tooltip("value:Q", title=quantity)]
    drawn = (
        ("train", train.mark_line(strokeWidth=1, opacity=0.55).encode(strokeDash=dashes)),
        ("validation", validation.mark_line(strokeWidth=1.8).encode(strokeDash=dashes)),
        ("validation", points.encode(shape=shapes, tooltip=tooltip)),
    )
    # A layer without data has no extent.
    logged = {row["kind"] for row in rows}
    layers = [layer for kind, layer in drawn if kind in logged]
    chart = alt.layer(*layers).properties(width=400, height=240)
    return figure(chart, f"{words(quantity)} during training. {' '.join(spoken)}", len(runs))
