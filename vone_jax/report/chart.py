"""Charts of numbers against a column and of training, and the look of all charts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from vone_jax.results import Lines, Result, Run, Runs
from vone_jax.results.row import FREE, PROTOCOL, SHOWN, Row, words

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
# Names of lines in a legend, in rows that a telephone has room for.
_IN_ROWS = "split(replace(datum.label, regexp('(.{16,34}) (?=.{8})', 'g'), '$1\\n'), '\\n')"
_SHORT = 16
# A training log may have a line for each step; so many of them show its course.
_MOST_POINTS = 200
# What a network's points of one line must have in common although networks that differ in it are
# compared; and which of it an origin must have.
_IMAGES = ("dataset", "split", "examples", "seed")
_OF_A_LINE = (*_IMAGES, "attack_draws")
# A panel with more lines of one network is split.
_MOST_LINES = 5
_LEGEND: dict[str, Any] = {"labelLimit": 0, "labelExpr": _IN_ROWS}
# Pixels between the points of two networks at one tick.
_APART = 8
_PERCENT = alt.Axis(format="%", tickCount=5)
_SHARES = alt.Scale(domain=[0, 1])


def chart_of(rows: Sequence[Mapping[str, Any]]) -> alt.Chart:
    """A chart of rows, as wide as its place on the page."""
    return alt.Chart(alt.InlineData(values=list(rows))).properties(width="container")


def networks(labels: Sequence[str], shown: Sequence[str]) -> dict[str, Any]:
    """The channels of networks: colour and shape, each the same in all charts of a page.

    Args:
      labels: the labels of all networks of the page.
      shown: those with a point in the chart, which its legend has.
    """
    places = [place for place, label in enumerate(labels) if label in shown]
    known = [labels[place] or " " for place in places]
    columns = 2 if max(map(len, known), default=0) <= _SHORT else 1
    legend = alt.Legend(title=None, orient="top", columns=columns, **_LEGEND)

    def scale(kinds: Sequence[str]) -> alt.Scale:
        return alt.Scale(domain=known, range=[kinds[place % len(kinds)] for place in places])

    return {
        "color": alt.Color("network:N", scale=scale(COLORS), legend=legend),
        "shape": alt.Shape("network:N", scale=scale(_SHAPES), legend=legend),
    }


def selected(first: alt.Chart, *others: alt.Chart) -> alt.LayerChart:
    """Layers whose legend selects the networks that are shown; a second click shows all."""
    chosen = alt.selection_point(fields=["network"], bind="legend", name="shown")
    layers = alt.LayerChart(layer=[first.add_params(chosen), *others])
    return layers.transform_filter(chosen)


@dataclasses.dataclass(frozen=True, eq=False)
class _Point:
    """A number in a chart.

    Attributes:
      row: its row.
      at: its place on the axis.
      network: the label of its line.
      origin: the condition whose number may stand at 0 of its line.
      starts: the numbers of this condition.
    """

    row: Row
    at: Any
    network: str
    origin: str | None = None
    starts: Sequence[Row] = ()


def lines(
    views: Sequence[tuple[Run, Result, Lines]], runs: Runs
) -> list[tuple[str, alt.LayerChart]]:
    """The charts of views of one section, axis and panel: a line for whatever differs.

    Two numbers of one line never differ in anything but the axis. A network's number at the origin
    belongs to a line if it agrees with it in every column that it has.

    Args:
      views: the views, each with its result and run.
      runs: the networks of the page.

    Returns:
      The title of each panel with its chart.
    """
    view, labels = views[0][2], [run.label for run in runs]
    points, observed = list[_Point](), list[_Point]()
    for run, result, each in views:
        starts = _starts(run, each.origin)
        rows = [row for row in result.rows if row["number"] == each.number and "value" in row]
        points += [
            _Point(row, row[each.x], run.label, each.origin, starts)
            for row in rows
            if each.x in row
        ]
        observed += [
            _Point(row, row.get(each.x), row["network"])
            for row in result.references
            if row["number"] == each.number
        ]
    charts, across = [], dict(zip(map(id, points), _names(view, points), strict=True))
    for panel in dict.fromkeys(point.row.get(view.panel or "") for point in points):
        within = [p for p in points if p.row.get(view.panel or "") == panel]
        beside = [p for p in observed if p.row.get(view.panel or "", panel) == panel]
        title = "" if panel is None else words(view.panel or "", panel, {})
        named = _names(view, within)
        if len(set(named)) == 1:
            named = [across[id(point)] for point in within]
        order = _order(views, within, beside)
        charts += _panel(title, view, within, named, beside, labels, order)
    return charts


def _starts(run: Run, condition: str | None) -> list[Row]:
    """The first main number of each result of a condition."""
    found = (
        next((row for row in each.rows if row.get("main")), None)
        for each in run.results
        if each.row["condition"] == condition
    )
    return [row for row in found if row is not None and "value" in row]


def _order(
    views: Sequence[tuple[Run, Result, Lines]], points: Sequence[_Point], observed: Sequence[_Point]
) -> list[Any]:
    """The values of the axis in their order; the longest order that was given decides."""
    present = dict.fromkeys(p.at for p in (*points, *observed) if p.at is not None)
    given = sorted((view.order for *_, view in views), key=len, reverse=True)
    whole = dict.fromkeys(value for order in given for value in order if value in present)
    others = [value for value in present if value not in whole]
    if all(isinstance(value, int | float) for value in others):
        others = sorted(others)
    return [*whole, *others]


def _panel(
    title: str, view: Lines, points: Sequence[_Point], named: Sequence[str],
    observed: Sequence[_Point], labels: Sequence[str], order: Sequence[Any],
) -> list[tuple[str, alt.LayerChart]]:  # fmt: skip
    """The charts of a panel: one, or one for each line where there are too many."""
    known = list(dict.fromkeys(named))
    rows = [_shown(p, name, view.x) for p, name in zip(points, named, strict=True)]
    origins = _origins(view, points, named)
    # A row of points for each line, where the axis has one value.
    if len({point.at for point in points}) == 1 and not origins:
        at = words(view.x, points[0].at, points[0].row)
        at = at if view.x in at or isinstance(points[0].at, str) else f"{view.x} {at}"
        return [(", ".join(filter(None, (title, at))), _rows_of_points(view, rows, labels, known))]
    if len(known) > _MOST_LINES:
        return [
            (", ".join(filter(None, (title, name))), chart)
            for name in known
            for own in [[p for p, n in zip(points, named, strict=True) if n == name]]
            for _, chart in _panel("", view, own, [name] * len(own), observed, labels, order)
        ]
    several = len(known) > 1
    return [(title, _joined(view, rows + origins, observed, labels, order, several))]


def _names(view: Lines, points: Sequence[_Point]) -> list[str]:
    """The name of the line of each point: the columns in which the points differ, in words."""
    free = {*FREE, *SHOWN, view.x, view.panel, "category"}
    columns = dict.fromkeys(name for p in points for name in p.row if name not in free)
    varying = [n for n in columns if len({str(p.row.get(n)) for p in points}) > 1]
    if "number" in varying:
        varying = [*(n for n in varying if n != "number"), "number"]

    def name(row: Row, more: Sequence[str] = ()) -> str:
        said = [n for n in (*varying, *more) if row.get(n) is not None]
        # A condition that has a column of its name is called by its value.
        said = [n for n in said if n != "condition" or row["condition"] not in row]
        return ", ".join(words(n, row[n], row) for n in said)

    # A line of one network that would have points on other images is several.
    known = [(p.network, name(p.row)) for p in points]
    own = _IMAGES[:2] if view.own_images else ()
    more = [
        column
        for column in _OF_A_LINE
        if column not in own
        and len({(of, p.row.get(column)) for of, p in zip(known, points, strict=True)})
        > len(set(known))
    ]
    return [name(p.row, more) or view.number for p in points]


def _shown(point: _Point, line: str, x: str) -> dict[str, Any]:
    row = point.row
    images = " of ".join(str(row[n]) for n in ("examples", "dataset") if n in row)
    tick = words(x, point.at, row).removeprefix(f"{x.replace('_', ' ')} ")
    return {
        "network": point.network, "number": row["number"], "line": line, "x": point.at,
        "tick": tick,
        **{name: row.get(name) for name in ("value", "low", "high")}, "images": images,
    }  # fmt: skip


def _origins(view: Lines, points: Sequence[_Point], named: Sequence[str]) -> list[dict[str, Any]]:
    """The points at 0 of the lines."""
    found = []
    first = {(p.network, name): p for p, name in reversed(list(zip(points, named, strict=True)))}
    for (network, name), point in first.items():
        agreeing = [row for row in point.starts if _agrees(row, point.row, view)]
        if len(agreeing) == 1 and all(p.at != 0 for p in points):
            start = _shown(_Point(agreeing[0], 0.0, network), name, view.x)
            found.append(start | {"number": point.row["number"], "tick": "0"})
    return found


def _agrees(start: Row, row: Row, view: Lines) -> bool:
    """Whether a number is that of a line at 0.

    One of the same condition agrees in all columns, another one in those that it has and in the
    rules by which networks are judged. Both are on the same images.
    """
    free = {*FREE, *SHOWN, "number", view.x}
    if start["condition"] == row["condition"]:
        columns = {*start, *row} - free
    else:
        columns = {*start, *PROTOCOL} - free - {"condition", "attack_noise"}
    return all(start.get(name) == row.get(name) for name in (*columns, *_IMAGES))


def _joined(
    view: Lines, rows: Sequence[dict[str, Any]], observed: Sequence[_Point],
    labels: Sequence[str], order: Sequence[Any], several: bool,
) -> alt.LayerChart:  # fmt: skip
    """Lines through points with intervals, side by side so that none hides another."""
    places = [0.0, *order] if any(row["x"] == 0 for row in rows) else order
    people = [_shown(p, p.network, view.x) for p in observed if p.at is not None]
    ticks = {row["x"]: row["tick"] for row in (*people, *rows)}
    title = {"eps": "radius"}.get(view.x, view.x.replace("_", " "))
    if view.log:
        scale = alt.Scale(type="log", nice=False)
        x: Any = alt.X("x:Q", scale=scale, title=title, axis=alt.Axis(format="~g"))
    else:
        sort = list(dict.fromkeys(ticks[value] for value in places if value in ticks))
        x = alt.X("tick:N", sort=sort, title=title, axis=alt.Axis(labelAngle=-40))
    numbers = dict.fromkeys(row["number"] for row in rows)
    shares: dict[str, Any] = (
        {"scale": _SHARES, "axis": _PERCENT} if view.share else {"scale": alt.Scale(zero=False)}
    )
    y = alt.Y("value:Q", title=list(numbers) if len(numbers) < 3 else "share", **shares)
    form = ".1%" if view.share else ".3g"
    told = ["network:N", "line:N", "tick:N"]
    told += [alt.Tooltip(f"{name}:Q", format=form) for name in ("value", "low", "high")]
    told.append("images:N")
    legend = alt.Legend(title=None, orient="bottom", columns=1, **_LEGEND)
    dash: dict[str, Any] = (
        {"strokeDash": alt.StrokeDash("line:N", sort=None, legend=legend)} if several else {}
    )
    channels = networks(labels, [row["network"] for row in rows])
    base = chart_of(rows).encode(x=x, detail="line:N")
    if not view.log:
        present = [label for label in labels if any(row["network"] == label for row in rows)]
        # Beside each other around the tick, however wide the place between two ticks is.
        half = f"min({_APART * (len(present) - 1) / 2}, bandwidth('x') / 2)"
        ends = [alt.ExprRef(f"bandwidth('x') / 2 {sign} {half}") for sign in "-+"]
        beside = alt.Scale(type="point", domain=present, range=ends, padding=0)
        base = base.encode(xOffset=alt.XOffset("network:N", scale=beside))
    joined = base.mark_line(strokeWidth=2).encode(y=y, color=channels["color"], **dash)
    whiskers = base.mark_rule().encode(y="low:Q", y2="high:Q", color=channels["color"])
    dots = base.mark_point(filled=True, size=50, opacity=1).encode(y=y, tooltip=told, **channels)
    marks = (joined, whiskers, dots) if _have_intervals(rows) else (joined, dots)
    layers: list[Any] = [*_across(observed, y), selected(*marks)]
    if people:
        human = chart_of(people).mark_line(color=MUTED, strokeDash=[5, 4], strokeWidth=2)
        layers.insert(0, human.encode(x=x, y=y, detail="network:N", tooltip=told[:1] + told[2:4]))
    return alt.LayerChart(layer=layers).properties(height=250)


def _across(observed: Sequence[_Point], y: alt.Y) -> list[alt.LayerChart]:
    """A dotted line for each reference that has no place on the axis, such as chance."""
    found = dict.fromkeys((p.network, p.row["value"]) for p in observed if p.at is None)
    drawn = []
    for network, value in found:
        several = sum(name == network for name, _ in found) > 1
        words = f"{network}, {value:.3g}" if several else network
        base = chart_of([{"value": value, "is": words}])
        rule = base.mark_rule(color=MUTED, strokeDash=[2, 3]).encode(y=y)
        text = base.mark_text(color=MUTED, align="right", baseline="bottom", dx=-2)
        drawn.append(
            alt.LayerChart(layer=[rule, text.encode(y=y, x=alt.value("width"), text="is:N")])
        )
    return drawn


def _rows_of_points(
    view: Lines, rows: Sequence[dict[str, Any]], labels: Sequence[str], known: Sequence[str]
) -> alt.LayerChart:
    """A row of points for each line, of networks beside each other."""
    channels = networks(labels, [row["network"] for row in rows])
    base = chart_of(rows).encode(
        y=alt.Y("line:N", sort=list(known), title=None, axis=alt.Axis(labelLimit=300)),
        yOffset=alt.YOffset("network:N", sort=list(labels)),
    )
    shares: dict[str, Any] = (
        {"scale": _SHARES, "axis": _PERCENT} if view.share else {"scale": alt.Scale(zero=False)}
    )
    x = alt.X("value:Q", title=view.number, **shares)
    form = ".1%" if view.share else ".3g"
    told = ["network:N", "line:N"]
    told += [alt.Tooltip(f"{name}:Q", format=form) for name in ("value", "low", "high")]
    whiskers = base.mark_rule(strokeWidth=1.5).encode(
        x=alt.X("low:Q", title=view.number, **shares), x2="high:Q", color=channels["color"]
    )
    dots = base.mark_point(filled=True, size=45, opacity=1).encode(
        x=x, tooltip=[*told, "images:N"], **channels
    )
    height = len(known) * max(26, 11 * len(labels) + 8)
    marks = (whiskers, dots) if _have_intervals(rows) else (dots,)
    return selected(*marks).properties(height=height)


def _have_intervals(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any point has an interval: Vega warns of a layer without numbers."""
    return any(row["low"] is not None for row in rows)


def training(runs: Runs, number: str) -> alt.LayerChart | None:
    """A logged number against the epoch, of training batches and of validation images."""
    rows = [row for run in runs for row in _logged(run, number)]
    if not rows:
        return None
    channels = networks([run.label for run in runs], [row["network"] for row in rows])
    base = chart_of(rows).encode(
        x=alt.X("epoch:Q", title="epoch"),
        y=alt.Y("value:Q", title=number.replace("_", " "), scale=alt.Scale(zero=False)),
        color=channels["color"],
        strokeDash=alt.StrokeDash(
            "images:N", legend=alt.Legend(title=None, orient="bottom"),
            scale=alt.Scale(domain=["validation", "training"], range=[[1, 0], [2, 2]]),
        ),
        tooltip=["network:N", "images:N", "epoch:Q", alt.Tooltip("value:Q", format=".4~g")],
    )  # fmt: skip
    return selected(base.mark_line(strokeWidth=1.5)).properties(height=200)


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
