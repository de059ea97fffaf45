"""Charts of accuracies and of training, and the look of all charts, with Vega-Altair.

Each function returns a chart, which a notebook shows and ``chart.save("chart.html")`` writes. Its
legend selects, and the menu of the page exports it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from vone_jax import names, results
from vone_jax.report.tables import VOTES, Cell, Line, chance, corrupted, drawn, of_kinds
from vone_jax.results import Result, Run, Runs
from vone_jax.results.row import Row, is_of

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
# Columns of a row that are no condition, and those that change images or decisions.
_OF_NUMBER = ("network", "number", "value", "low", "high", "draws")
_IMAGES = ("dataset", "split", "examples", "seed")
_JUDGED = ("noise", "decision", "tag", "corruption", "severity", "form", "layer")
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

    Of a network only its own noise and the default decision are drawn, if it has any of these. A
    line begins at what differs from its points in the radius alone, if that was measured.

    Args:
      lines: those of ``tables.accuracies``.
      labels: the labels of the networks, in order.
      norm: "linf", "l2" or "l1".
    """
    shown = drawn(line for line in lines if line.row.get("norm") == norm and "eps" in line.row)
    if not shown:
        return None
    points = [(line, label, cell) for line in shown for label, cell in line.cells.items()]
    ladders: dict[tuple[str, str], list[tuple[Line, Cell]]] = {}
    of_images = images_apart([{**cell.row, "network": label} for _, label, cell in points])
    for (line, label, cell), images in zip(points, of_images, strict=True):
        ladders.setdefault((line.series + images, label), []).append((line, cell))
    rows = []
    for (series, label), steps in ladders.items():
        for line, cell in steps:
            radius = names.eps_label(norm, line.row["eps"])
            rows.append(_point(line, cell, label, series, line.row["eps"], radius))
        start = _at_zero(lines, *steps[0], label)
        if start is not None:
            rows.append(_point(start, start.cells[label], label, series, 0.0, "clean"))
    order = dict.fromkeys(row["radius"] for row in sorted(rows, key=lambda row: row["eps"]))
    dashes = line_dashes(rows, "attack")
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
    told = [*TOLD, alt.Tooltip("attack:N")]
    layers = [*_chance_lines(shown, True), curves(base, y, labels, told, **dashes)]
    return alt.LayerChart(layer=layers).properties(height=260)


def _point(
    line: Line, cell: Cell, label: str, series: str, eps: float, radius: str
) -> dict[str, Any]:
    """A point of a ladder."""
    item = cell.interval
    return {
        "network": label, "condition": line.label, "attack": series, "eps": eps, "radius": radius,
        "accuracy": item.value, "low": item.low, "high": item.high,
    }  # fmt: skip


def _at_zero(lines: Sequence[Line], line: Line, cell: Cell, label: str) -> Line | None:
    """The line for radius 0 of a point: the vote for certificates, clean images for attacks.

    It agrees with the point in all of its columns, and has each that changes images or decisions.
    """
    of_vote = is_of(line.row, *VOTES)
    condition = line.row["condition"] if of_vote else "clean"
    for start in lines:
        row = start.row
        if row["condition"] != condition or "eps" in row or label not in start.cells:
            continue
        columns = {*row, *_JUDGED} - {"condition", *_OF_NUMBER, *_IMAGES}
        same = all(row.get(name) == line.row.get(name) for name in columns)
        first = start.cells[label].row
        if same and all(first.get(name) == cell.row.get(name) for name in _IMAGES):
            return start
    return None


def corruptions(runs: Runs, members: Sequence[str]) -> alt.LayerChart | None:
    """The accuracy under some corruptions: the mean over severities, and each if there are several.

    The mean is over the severities that all networks have. Of a network only its own noise, single
    draws and float images are drawn, if it has any of these.

    Args:
      runs: the networks.
      members: names of corruptions.
    """
    order = list(members)
    shown = drawn(line for line in corrupted(runs) if line.row["corruption"] in order)
    shown.sort(key=lambda line: order.index(line.row["corruption"]))
    points = [(line, label, cell) for line in shown for label, cell in line.cells.items()]
    # A published corruption has a data set for each severity.
    sets = [() if line.row.get("form") == "published" else _IMAGES[:2] for line, _, _ in points]
    of_images = images_apart(
        [
            {n: cell.row.get(n) for n in (*of, *_IMAGES[2:])} | {"network": label}
            for (_, label, cell), of in zip(points, sets, strict=True)
        ]
    )
    # Name -> network -> severity -> row.
    groups: dict[str, dict[str, dict[int, Row]]] = {}
    for (line, label, cell), images in zip(points, of_images, strict=True):
        name = results.label({n: each for n, each in line.row.items() if n != "severity"}) + images
        if "value" in cell.row:
            of_label = groups.setdefault(name, {}).setdefault(label, {})
            of_label[cell.row["severity"]] = cell.row
    rows: list[dict[str, Any]] = []
    each_severity: list[dict[str, Any]] = []
    levels: set[str] = set()
    for name, networks_of in groups.items():
        common = sorted(set.intersection(*map(set, networks_of.values())))
        level = f"severity {', '.join(map(str, common))}" if common else "no common severity"
        levels.add(level)
        for label, found in networks_of.items():
            base_row = {"network": label, "corruption": name, "level": level}
            if common:
                numbers = {
                    column: sum(found[severity][source] for severity in common) / len(common)
                    for column, source in (("accuracy", "value"), ("low", "low"), ("high", "high"))
                }
                rows.append(base_row | {"condition": level} | numbers)
            if len(found) > 1 or not common:
                each_severity += [
                    base_row | {"condition": f"severity {severity}", "accuracy": row["value"]}
                    for severity, row in sorted(found.items())
                ]
    # Where corruptions differ in their severities, each name has its own.
    if len(levels) > 1:
        for row in (*rows, *each_severity):
            row["corruption"] += f", {row['level']}"
    if not groups:
        return None
    labels = [run.label for run in runs]
    order = list(dict.fromkeys(row["corruption"] for row in (*rows, *each_severity)))

    def base(values: Sequence[Mapping[str, Any]]) -> alt.Chart:
        return chart_of(values).encode(
            y=alt.Y("corruption:N", sort=order, title=None),
            yOffset=alt.YOffset("network:N", sort=labels),
            tooltip=[alt.Tooltip("corruption:N"), *TOLD],
        )

    title = "accuracy, mean over severities" if each_severity else "accuracy"
    title = f"accuracy, {min(levels)}" if len(levels) == 1 else title
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


def images_apart(rows: Sequence[Row]) -> list[str]:
    """The images and the seed of each row in words, where a network has several; else empty."""
    counts = {n: len({(row["network"], row.get(n)) for row in rows}) for n in _IMAGES}
    several = [n for n in _IMAGES if counts[n] > len({row["network"] for row in rows})]
    return ["".join(f", {n} {row[n]}" for n in several if row.get(n) is not None) for row in rows]


def lines_of(found: Sequence[tuple[Run, Result]], axis: str = "") -> list[str]:
    """What a chart joins of each result: its condition without the axis, and its images.

    Two points of a line of a network then differ in the axis alone.
    """
    rows = [
        {**{n: v for n, v in result.row.items() if n != axis}, "network": run.label}
        for run, result in found
    ]
    return [
        results.label(row) + images for row, images in zip(rows, images_apart(rows), strict=True)
    ]


def line_dashes(rows: Sequence[Mapping[str, Any]], name: str = "line") -> dict[str, Any]:
    """The dashes of lines, with a legend where there are several."""
    if len({row[name] for row in rows}) < 2:
        return {}
    legend = alt.Legend(title=None, orient="bottom", columns=1, labelLimit=400)
    return {"strokeDash": alt.StrokeDash(f"{name}:N", sort=None, legend=legend)}


def layer_order(runs: Runs, kind: str) -> list[str]:
    """The layers of all networks in their order; the deepest network decides."""
    places: dict[str, int] = {}
    for _, result in of_kinds(runs, kind):
        layer, place = result.row["layer"], result.details["place"]
        places[layer] = max(place, places.get(layer, 0))
    return sorted(places, key=lambda layer: places[layer])
