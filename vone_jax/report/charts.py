"""Charts of accuracies and of training, and the look of all charts, with Vega-Altair.

Each function returns a chart, which a notebook shows and ``chart.save("chart.html")`` writes. Its
legend selects, and the menu of the page exports it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from vone_jax import names
from vone_jax.report.tables import VOTES, Line, chance, is_main, of_kinds
from vone_jax.results import Run, Runs
from vone_jax.results.row import is_of

# Told apart with every common kind of colour vision, on white.
COLORS = (
    *("#c4500b", "#0b62a8", "#6a7c52", "#b14d7f"),
    *("#452800", "#3e424a", "#238fc3", "#804113"),
)
_SHAPES = (
    *("circle", "square", "diamond", "triangle-up", "triangle-down", "cross"),
    *("triangle-right", "triangle-left"),
)
MUTED = "#59616c"
# A training log may have a line for each step; so many of them show its course.
_MOST_POINTS = 200
PERCENT = alt.Axis(format="%", tickCount=5)
SHARES = alt.Scale(domain=[0, 1])
# What a chart tells of a point.
TOLD = [
    alt.Tooltip("network:N"),
    alt.Tooltip("condition:N"),
    alt.Tooltip("accuracy:Q", format=".1%"),
    alt.Tooltip("low:Q", format=".1%", title="95 % from"),
    alt.Tooltip("high:Q", format=".1%", title="to"),
]


def chart_of(rows: Sequence[Mapping[str, Any]]) -> alt.Chart:
    """A chart of rows, as wide as its place on the page."""
    return alt.Chart(alt.InlineData(values=list(rows))).properties(width="container")


def networks(labels: Sequence[str]) -> dict[str, Any]:
    """The channels of networks: colour and shape, each the same in all charts of a page."""
    repeats = -(-len(labels) // len(COLORS))
    colors, shapes = (list(kind) * repeats for kind in (COLORS, _SHAPES))
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=400)
    known = [label or " " for label in labels]
    return {
        "color": alt.Color(
            "network:N", scale=alt.Scale(domain=known, range=colors[: len(known)]), legend=legend
        ),
        "shape": alt.Shape(
            "network:N", scale=alt.Scale(domain=known, range=shapes[: len(known)]), legend=legend
        ),
    }


def selected(first: alt.Chart, *others: alt.Chart) -> alt.LayerChart:
    """Layers whose legend selects the networks that are shown; a second click shows all."""
    chosen = alt.selection_point(fields=["network"], bind="legend", name="shown")
    layers = alt.LayerChart(layer=[first.add_params(chosen), *others])
    return layers.transform_filter(chosen)


def curves(
    base: alt.Chart, y: alt.Y, labels: Sequence[str], told: Sequence[Any], **dashes: Any
) -> alt.LayerChart:
    """Lines of networks through points with intervals, side by side so that none hides another.

    Args:
      base: the chart, whose rows have "network", the number, and "low" and "high".
      y: the axis of the number.
      labels: the labels of the networks.
      told: what a point tells.
      **dashes: further channels of the lines.
    """
    base = base.encode(xOffset=alt.XOffset("network:N", sort=list(labels)))
    color = networks(labels)["color"]
    joined = base.mark_line(strokeWidth=2).encode(y=y, color=color, **dashes)
    whiskers = base.mark_rule().encode(y="low:Q", y2="high:Q", color=color)
    points = base.mark_point(filled=True, size=50, opacity=1)
    return selected(joined, whiskers, points.encode(y=y, tooltip=list(told), **networks(labels)))


def _chance_lines(lines: Sequence[Line], across: bool) -> list[alt.LayerChart]:
    """A dotted line at the accuracy of guessing; two if networks choose among other classes."""
    shares = {chance(each) for line in lines for c in line.cells.values() for each in c.results}
    drawn = []
    for share in sorted(shares):
        base = chart_of([{"chance": share, "is": "chance"}])
        place = {"y": "chance:Q"} if across else {"x": "chance:Q"}
        ends = {"x": alt.value("width")} if across else {"y": alt.value(0)}
        rule = base.mark_rule(color=MUTED, strokeDash=[2, 3]).encode(**place)
        words = base.mark_text(
            color=MUTED,
            align="right" if across else "left",
            baseline="bottom",
            dx=-2 if across else 3,
        ).encode(**place, **ends, text="is:N")
        drawn.append(alt.LayerChart(layer=[rule, words]))
    return drawn


def ladder(lines: Sequence[Line], labels: Sequence[str], norm: str) -> alt.LayerChart | None:
    """The accuracy against the radius in a norm: a line for each network and attack or certificate.

    Only the networks' own noise and the default decision are drawn, if there are any of these.

    Args:
      lines: those of ``tables.accuracies``.
      labels: the labels of the networks, in order.
      norm: "linf", "l2" or "l1".
    """
    drawn = [line for line in lines if line.row.get("norm") == norm and "eps" in line.row]
    drawn = [line for line in drawn if line.is_main] or drawn
    if not drawn:
        return None
    rows = []
    for line in drawn:
        radius = names.eps_label(norm, line.row["eps"])
        rows += _rows(line, line.series, line.row["eps"], radius)
    for series, first in {line.series: line for line in reversed(drawn)}.items():
        start = _at_zero(lines, first)
        rows += _rows(start, series, 0.0, "clean", first.cells) if start else []
    order = dict.fromkeys(row["radius"] for row in sorted(rows, key=lambda row: row["eps"]))
    dashes: dict[str, Any] = {}
    if len({row["attack"] for row in rows}) > 1:
        legend = alt.Legend(title=None, orient="bottom", columns=1, labelLimit=400)
        dashes = {"strokeDash": alt.StrokeDash("attack:N", sort=None, legend=legend)}
    base = chart_of(rows).encode(
        x=alt.X(
            "radius:O",
            sort=list(order),
            title=f"{names.NORM_LABELS[norm]} radius",
            axis=alt.Axis(labelAngle=-40),
        ),
        detail="attack:N",
    )
    y = alt.Y("accuracy:Q", scale=SHARES, axis=PERCENT, title="accuracy")
    shown = curves(base, y, labels, [*TOLD, alt.Tooltip("attack:N")], **dashes)
    return alt.LayerChart(layer=[*_chance_lines(drawn, True), shown]).properties(height=260)


def _rows(
    line: Line, series: str, eps: float, radius: str, only: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The points of a line of the table in a chart."""
    return [
        {
            "network": label, "condition": line.label, "attack": series, "eps": eps,
            "radius": radius, "accuracy": (item := cell.interval).value, "low": item.low,
            "high": item.high,
        }
        for label, cell in line.cells.items()
        if only is None or label in only
    ]  # fmt: skip


def _at_zero(lines: Sequence[Line], first: Line) -> Line | None:
    """The line for radius 0 of a ladder: the vote for certificates, clean images for attacks."""
    of_vote = is_of(first.row, *VOTES)
    condition = first.row["condition"] if of_vote else "clean"
    same = ("noise", "decision", "tag")
    for line in lines:
        row = line.row
        at_zero = row["condition"] == condition and "eps" not in row
        if at_zero and all(row.get(name) == first.row.get(name) for name in same):
            return line
    return None


def corruptions(runs: Runs, members: Sequence[str]) -> alt.LayerChart | None:
    """The accuracy under some corruptions: the mean over severities, and each if there are several.

    It shows float images and the networks' own noise, judged by the default decision.

    Args:
      runs: the networks.
      members: names of corruptions.
    """
    rows: list[dict[str, Any]] = []
    each_severity: list[dict[str, Any]] = []
    for run in runs:
        for name in members:
            own = [
                result.find()
                for _, result in of_kinds([run], "corruption")
                if result.row["corruption"] == name and is_main(result.row)
            ]
            found = [row for row in own if row is not None]
            if not found:
                continue
            severities = [row["severity"] for row in found]
            common = {"network": run.label, "corruption": name.replace("_", " ")}
            numbers = {
                column: sum(row[source] for row in found) / len(found)
                for column, source in (("accuracy", "value"), ("low", "low"), ("high", "high"))
            }
            told = f"severity {', '.join(map(str, severities))}"
            rows.append(common | {"condition": told} | numbers)
            if len(found) > 1:
                each_severity += [
                    common | {"condition": f"severity {row['severity']}", "accuracy": row["value"]}
                    for row in found
                ]
    if not rows:
        return None
    labels = [run.label for run in runs]
    order = list(dict.fromkeys(row["corruption"] for row in rows))

    def base(values: Sequence[Mapping[str, Any]]) -> alt.Chart:
        return chart_of(values).encode(
            y=alt.Y("corruption:N", sort=order, title=None),
            yOffset=alt.YOffset("network:N", sort=labels),
            tooltip=[alt.Tooltip("corruption:N"), *TOLD],
        )

    title = "accuracy, mean over severities" if each_severity else "accuracy"
    color = networks(labels)["color"]
    whiskers = (
        base(rows)
        .mark_rule(strokeWidth=1.5)
        .encode(x=alt.X("low:Q", scale=SHARES, axis=PERCENT, title=title), x2="high:Q", color=color)
    )
    points = (
        base(rows)
        .mark_point(filled=True, size=45, opacity=1)
        .encode(x="accuracy:Q", **networks(labels))
    )
    small = (
        base(each_severity)
        .mark_point(filled=True, size=9, opacity=0.6)
        .encode(x="accuracy:Q", color=color)
    )
    layers = [whiskers, points, *([small] if each_severity else [])]
    height = len(order) * max(26, 11 * len(labels) + 8)
    return selected(*layers).properties(height=height)


def training(runs: Runs, number: str) -> alt.LayerChart | None:
    """A logged number against the epoch, of training batches and of validation images."""
    rows = [row for run in runs for row in _logged(run, number)]
    if not rows:
        return None
    labels = [run.label for run in runs]
    base = chart_of(rows).encode(
        x=alt.X("epoch:Q", title="epoch"),
        y=alt.Y("value:Q", title=number.replace("_", " "), scale=alt.Scale(zero=False)),
        color=networks(labels)["color"],
        strokeDash=alt.StrokeDash(
            "images:N", legend=alt.Legend(title=None, orient="bottom"),
            scale=alt.Scale(domain=["validation", "training"], range=[[1, 0], [2, 2]]),
        ),
        tooltip=["network:N", "images:N", "epoch:Q", alt.Tooltip("value:Q", format=".4~g")],
    )  # fmt: skip
    lines = base.mark_line(strokeWidth=1.5)
    return selected(lines).properties(height=200)


def _logged(run: Run, number: str) -> list[dict[str, Any]]:
    rows = []
    for kind, images in (("train", "training"), ("validation", "validation")):
        lines = [line for line in run.log if line.get("kind") == kind and number in line]
        step = -(-len(lines) // _MOST_POINTS) or 1
        rows += [
            {"network": run.label, "images": images, "epoch": line["epoch"], "value": line[number]}
            for line in lines[::step]
        ]
    return rows


def layer_order(runs: Runs, kind: str) -> list[str]:
    """The layers of all networks in their order; the deepest network decides."""
    places: dict[str, int] = {}
    for _, result in of_kinds(runs, kind):
        layer, place = result.row["layer"], result.details["place"]
        places[layer] = max(place, places.get(layer, 0))
    return sorted(places, key=lambda layer: places[layer])
