"""Accuracy by condition at a glance: of all conditions for the answer first, and of corruptions."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt

from vone_jax import names, results
from vone_jax.report import charts, comparison
from vone_jax.report.wording import interval, percent, printable, words
from vone_jax.results import Result, Run

# Pixels of a network in a row of a chart, and between two rows.
_LINE, _GAP = 11, 12
_CLEAN, _CORRUPTED = "Clean images", "Corruptions"


class Point(NamedTuple):
    """The accuracy of a network in a condition: of one result, or a mean."""

    condition: str
    members: Sequence[Result]
    # How it was judged, or what the mean is over.
    detail: str


def overview(runs: Sequence[Run]) -> charts.Figure | None:
    """Clean images, the radii of each norm, and the mean over corruptions, a row for each.

    None if nothing was measured.
    """
    radii = {
        (names.NORMS.index(norm), eps): result.attack.label
        for run in runs
        for norm in comparison.norms([run])
        for eps, result in comparison.curve(run, norm).items()
    }
    attacks = [radii[place] for place in sorted(radii)]
    points = [_conditions(run) for run in runs]
    return _chart(runs, points, [_CLEAN, *attacks, _CORRUPTED], "Accuracy by condition.")


def corruptions(runs: Sequence[Run]) -> charts.Figure | None:
    """The mean over severities of each corruption, a row for each; None if there are none."""
    points: list[list[Point]] = []
    for run in runs:
        by_name: dict[str, dict[int, Result]] = {}
        for (name, severity), result in comparison.corruptions(run).items():
            by_name.setdefault(name, {})[severity] = result
        points.append(
            [
                Point(words(name), list(each.values()), comparison.severity_label(list(each)))
                for name, each in by_name.items()
            ]
        )
    order = list(dict.fromkeys(point.condition for each in points for point in each))
    return _chart(runs, points, order, "Accuracy by corruption.")


def _conditions(run: Run) -> list[Point]:
    points = []
    clean, corrupted = comparison.clean(run), comparison.corruptions(run)
    if clean is not None:
        points.append(Point(_CLEAN, [clean], clean.protocol_label))
    for norm in comparison.norms([run]):
        for result in comparison.curve(run, norm).values():
            points.append(Point(result.attack.label, [result], result.protocol_label))
    if corrupted:
        over = comparison.corruption_label(list(corrupted))
        points.append(Point(_CORRUPTED, list(corrupted.values()), over))
    return points


def _chart(
    runs: Sequence[Run], points: Sequence[Sequence[Point]], order: Sequence[str], about: str
) -> charts.Figure | None:
    """A point with its interval for each network and condition; None if there are no points."""
    rows, spoken = [], []
    for position, (run, members) in enumerate(zip(runs, points, strict=True)):
        told = []
        for point in members:
            mean, low, high = results.mean_accuracy(point.members)
            condition = printable(point.condition)
            known = low == low  # There is no interval where images are not known.
            rows.append(
                {
                    "position": position,
                    "accuracy": mean,
                    "low": low if known else mean,
                    "high": high if known else mean,
                    "Network": run.label,
                    "Condition": condition,
                    "Accuracy": f"{percent(mean)}{f' ({interval(low, high)})' if known else ''}",
                    "Judged": point.detail,
                }
            )
            told.append(f"{condition} {percent(mean)}")
        if told:
            spoken.append(f"{run.label}: {', '.join(told)}.")
    if not rows:
        return None
    present = {row["Condition"] for row in rows}
    shown = [label for label in map(printable, order) if label in present]
    axis = charts.share_axis(grid=True)
    x = alt.X("accuracy:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=axis)
    axis = alt.Axis(grid=False, labelLimit=150)
    y = alt.Y("Condition:N", scale=alt.Scale(domain=shown), title=None, axis=axis)
    offset = alt.YOffset("position:N", scale=alt.Scale(domain=list(range(len(runs)))))
    colors, shapes, _ = charts.styles(runs)
    base = charts.of_networks(rows).encode(y=y, yOffset=offset, color=colors)
    layers: list[Any] = []
    level = comparison.common_chance(runs)
    if level is not None:
        chance = charts.chart_of([{"level": level}]).encode(x=alt.X("level:Q", title=None))
        layers.append(chance.mark_rule(strokeDash=[1, 2], color=charts.MUTED))
    tooltip = ["Network:N", "Condition:N", "Accuracy:N", "Judged:N"]
    layers += [
        base.mark_rule(strokeWidth=1.6).encode(x=alt.X("low:Q", title=None), x2="high:Q"),
        base.mark_point(filled=True, size=55, opacity=1).encode(x=x, shape=shapes, tooltip=tooltip),
    ]
    height = len(shown) * (max(_LINE * len(runs), 14) + _GAP)
    drawn = alt.layer(*layers).properties(width=310, height=height)
    return charts.figure(drawn, " ".join([about, *spoken]), len(runs))
