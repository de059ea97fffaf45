"""Charts of accuracy: by condition, against radius, severity and epoch."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from vone_jax import names, results
from vone_jax.report import comparison
from vone_jax.report.charts import MUTED, Figure, chart_of, figure, of_networks, share_axis, styles
from vone_jax.report.wording import (
    corruption_label,
    form_labels,
    interval,
    percent,
    phrase,
    printable,
    severity_label,
    words,
)
from vone_jax.results import Result, Run

# Pixels of a network in a row of a chart, and between two rows.
_LINE, _GAP = 11, 12
_CLEAN, _CORRUPTED = "Clean images", "Corruptions"
# More labels on an axis than this overlap on a phone.
_MAX_LABELS = 6
# A training log may have a line for each step; means over this many stretches show its course.
_MAX_LOG_POINTS = 200
_LOGGED = ("train", "validation")
_TOOLTIP = ["Network:N", "Condition:N", "Accuracy:N", "Judged:N"]


def _point(
    position: int, run: Run, condition: str, members: Sequence[Result], detail: str
) -> dict[str, Any]:
    """The accuracy of a network in a condition, in the data of a chart.

    Args:
      position: place of the network on the page.
      members: one result, or several for a mean.
      detail: how it was judged, or what the mean is over.
    """
    mean, low, high = results.mean_accuracy(members)
    if len(members) == 1:
        low, high = members[0].interval
    known = low == low  # There is no interval where images are not known.
    return {
        "position": position,
        "accuracy": mean,
        "low": low if known else None,
        "high": high if known else None,
        "Network": run.label,
        "Condition": printable(condition),
        "Accuracy": f"{percent(mean)}{f' ({interval(low, high)})' if known else ''}",
        "Judged": detail,
    }


def _described(about: str, rows: Sequence[dict[str, Any]]) -> str:
    """A chart of points in words, for readers who do not see it."""
    told = [about]
    for of in comparison.grouped((row["position"], row) for row in rows).values():
        points = [f"{row['Condition']} {percent(row['accuracy'])}" for row in of]
        told.append(f"{of[0]['Network']}: {', '.join(points)}.")
    return " ".join(told)


def _chance(runs: Sequence[Run], channel: Any) -> list[Any]:
    """A line at the chance level along a channel; no line if the level is not known."""
    level = comparison.common_chance(runs)
    rule = chart_of([{"level": level}]).mark_rule(strokeDash=[1, 2], color=MUTED)
    return [] if level is None else [rule.encode(channel)]


def overview(runs: Sequence[Run]) -> Figure | None:
    """Clean images, the radii of each norm, and the mean over corruptions, a row for each.

    None if nothing was measured.
    """
    rows: list[dict[str, Any]] = []
    attacked: list[Result] = []
    for position, (run, headline) in enumerate(zip(runs, comparison.headlines(runs), strict=True)):
        if clean := headline.clean:
            rows.append(_point(position, run, _CLEAN, [clean], clean.protocol_label))
        ladders = list(itertools.chain(*comparison.ladders(run)))
        attacked += ladders
        for result in ladders:
            judged = phrase(result.protocol_label, result.attack_noise_label)
            rows.append(_point(position, run, result.attack.label, [result], judged))
        if corrupted := headline.corrupted:
            members = list(corrupted.values())
            over = _over(corruption_label(list(corrupted)), members)
            rows.append(_point(position, run, _CORRUPTED, members, over))
    attacks = [r.attack.label for r in comparison.by_radius(attacked).values()]
    return _rows_chart(runs, rows, [_CLEAN, *attacks, _CORRUPTED], "Accuracy by condition.")


def by_corruption(runs: Sequence[Run]) -> Figure | None:
    """The mean over severities of each corruption, a row for each; None if there are none."""
    rows: list[dict[str, Any]] = []
    for position, run in enumerate(runs):
        measured = comparison.corruptions(run).items()
        by_name = comparison.grouped((name, (severity, r)) for (name, severity), r in measured)
        for name, each in by_name.items():
            severities, members = zip(*each, strict=True)
            over = _over(severity_label(severities), members)
            rows.append(_point(position, run, words(name), members, over))
    order = list(dict.fromkeys(row["Condition"] for row in rows))
    return _rows_chart(runs, rows, order, "Accuracy by corruption.")


def _over(conditions: str, members: Sequence[Result]) -> str:
    """The conditions of a mean, with the forms of its images unless all are floating point."""
    return phrase(conditions, *form_labels(each.form for each in members))


def _rows_chart(
    runs: Sequence[Run], rows: Sequence[dict[str, Any]], order: Sequence[str], about: str
) -> Figure | None:
    """A point with its interval for each network and condition; None if there are no points.

    Rows are those of ``_point``. Their conditions are among the labels in ``order``.
    """
    if not rows:
        return None
    present = {row["Condition"] for row in rows}
    shown = [label for label in map(printable, order) if label in present]
    scale, axis = alt.Scale(domain=[0, 1]), share_axis(grid=True)
    axis_of_names = alt.Axis(grid=False, labelLimit=150, labelPadding=8)
    y = alt.Y("Condition:N", scale=alt.Scale(domain=shown), title=None, axis=axis_of_names)
    offset = alt.YOffset("position:N", scale=alt.Scale(domain=list(range(len(runs)))))
    colors, shapes, _ = styles(runs)
    base = of_networks(rows).encode(y=y, yOffset=offset, color=colors)
    marks = base.mark_point(filled=True, size=55, opacity=1)
    layers = [
        *_chance(runs, alt.X("level:Q", title=None)),
        base.mark_rule(strokeWidth=1.6).encode(x=alt.X("low:Q", title=None), x2="high:Q"),
        marks.encode(
            x=alt.X("accuracy:Q", title=None, scale=scale, axis=axis),
            shape=shapes,
            tooltip=_TOOLTIP,
        ),
    ]
    height = len(shown) * (max(_LINE * len(runs), 14) + _GAP)
    return figure(layers, _described(about, rows), (310, height), len(runs))


def attack_chart(runs: Sequence[Run], norm: str) -> Figure:
    """Accuracy against the radius of one norm, a line for each network with its 95 % band.

    The axis is logarithmic, with clean accuracy separate at its left end. A network that was
    attacked at one radius has points and no line.
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
    places = {eps: (gap + math.log2(eps / radii[0]), labels[eps]) for eps in radii}
    step = math.ceil(len(radii) / _MAX_LABELS) if radii else 1
    ticks = {0.0: "clean"} | dict([*places.values()][::step])
    norm = f"{names.NORM_LABELS[norm]} radius"
    title, about = f"{norm} ε, log scale", f"Accuracy against the {norm}."
    return _accuracy_chart(runs, curves, places, ticks, title, about, (330, 230))


def severity_chart(runs: Sequence[Run], corruption: str) -> Figure:
    """Accuracy against the severity of one corruption; severity 0 is the clean image."""
    conditions = [comparison.corruptions(run).items() for run in runs]
    curves = [{float(s): r for (name, s), r in each if name == corruption} for each in conditions]
    places = {float(s): (float(s), f"severity {s}") for s in names.SEVERITIES}
    ticks = {float(severity): str(severity) for severity in (0, *names.SEVERITIES)}
    about = f"Accuracy against the severity of {words(corruption)}."
    return _accuracy_chart(runs, curves, places, ticks, "severity", about, (210, 130))


def _accuracy_chart(
    runs: Sequence[Run],
    curves: Sequence[Mapping[float, Result]],
    places: Mapping[float, tuple[float, str]],
    ticks: Mapping[float, str],
    title: str,
    about: str,
    size: tuple[int, int],
) -> Figure:
    """Lines from the clean images at 0.

    Args:
      curves: strength -> result, for each network.
      places: strength -> place on the axis and label.
      ticks: place on the axis -> text.
    """
    rows = []
    for position, (run, curve) in enumerate(zip(runs, curves, strict=True)):
        clean = comparison.clean(run)
        measured = ({0.0: clean} if clean else {}) | dict(curve)
        # No line joins results on different images, nor the clean images and one condition.
        alike = clean and all(comparison.same_places(clean, each) for each in curve.values())
        joined = {strength for strength in measured if strength > 0 or alike}
        for strength, result in sorted(measured.items()):
            place, label = places.get(strength, (0.0, "clean"))
            drawn = {"place": place, "joined": len(joined) > 2 and strength in joined}
            rows.append(_point(position, run, label, [result], result.protocol_label) | drawn)
    shown = " : ".join(f"abs(datum.value - {at}) < 1e-6 ? '{ticks[at]}'" for at in sorted(ticks))
    axis = {"values": sorted(ticks), "title": title, "labelExpr": f"{shown} : ''"}
    # The same for any choice of networks in the legend.
    ends = [min(ticks), max([*ticks, *(place for place, _ in places.values())])]
    scale = alt.Scale(domain=ends, nice=False) if ends[0] < ends[1] else alt.Undefined
    x = alt.X("place:Q", axis=alt.Axis(labelOverlap=False, **axis), scale=scale)
    colors, shapes, dashes = styles(runs)
    axis = share_axis(values=[0, 0.25, 0.5, 0.75, 1])

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=axis)

    base = of_networks(rows).encode(x=x, color=colors)
    joined, apart = base.transform_filter("datum.joined"), base.transform_filter("!datum.joined")
    layers = _chance(runs, y("level"))
    if any(row["joined"] for row in rows):
        layers += [
            joined.mark_area(opacity=0.18).encode(y=y("low"), y2="high:Q"),
            joined.mark_line(strokeWidth=1.8).encode(y=y("accuracy"), strokeDash=dashes),
        ]
    if not all(row["joined"] for row in rows):
        layers.append(apart.mark_rule().encode(y=y("low"), y2="high:Q"))
    marks = base.mark_point(filled=True, size=34, opacity=1)
    layers.append(marks.encode(y=y("accuracy"), shape=shapes, tooltip=_TOOLTIP))
    return figure(layers, _described(about, rows), size, len(runs))


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
                    "alone": len(points) == 1,
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
    # One point makes no line.
    alone = train.transform_filter("datum.alone").mark_point(filled=True, size=20, opacity=0.55)
    tooltip = ["Network:N", "epoch:Q", alt.Tooltip("value:Q", title=quantity)]
    drawn = (
        ("train", train.mark_line(strokeWidth=1, opacity=0.55).encode(strokeDash=dashes)),
        ("alone", alone.encode(shape=shapes, tooltip=tooltip)),
        ("validation", validation.mark_line(strokeWidth=1.8).encode(strokeDash=dashes)),
        ("validation", points.encode(shape=shapes, tooltip=tooltip)),
    )
    # A layer without data has no extent.
    logged = {row["kind"] for row in rows}
    if any(row["alone"] for row in rows if row["kind"] == "train"):
        logged.add("alone")
    layers = [layer for kind, layer in drawn if kind in logged]
    about = f"{words(quantity)} during training. {' '.join(spoken)}"
    return figure(layers, about, (400, 240), len(runs))
