"""Line plots: accuracy against attack budget and corruption severity, and training curves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vone_jax.report import compare
from vone_jax.report.figures import svg
from vone_jax.report.load import Run
from vone_jax.report.results import Result
from vone_jax.report.wording import NORM_NAMES, eps_label, interval, percent, words

# More ticks than this overlap on a phone.
_MAX_LABELS = 6
# A training log may have a line per step; averages of this many stretches show its course.
_MAX_LOG_POINTS = 200


def attack_panel(runs: Sequence[Run], norm: str) -> Markup:
    """Accuracy against the budget of one norm, a line per network with its 95 % band.

    The axis is logarithmic, with clean accuracy set apart at its left end.
    """
    curves = [compare.curve(run, norm) for run in runs]
    labels = {
        eps: eps_label(result.condition)
        for measured in reversed(curves)
        for eps, result in measured.items()
        if eps > 0
    }
    ticks = sorted(labels)
    # Clean accuracy stands one mean step of the ladder to the left of the smallest budget.
    steps = max(1, len(ticks) - 1)
    gap = math.log2(ticks[-1] / ticks[0]) / steps if len(ticks) > 1 else 1.0

    def place(eps: float) -> float:
        return gap + math.log2(eps / ticks[0]) if eps > 0 else 0.0

    with svg.drawing(3.5, 2.7) as figure:
        axes = figure.add_subplot()
        _accuracy_axis(axes, runs)
        tips: dict[str, str] = {}
        spoken = []
        for position, (run, measured) in enumerate(zip(runs, curves, strict=True)):
            clean = compare.clean(run)
            points = ({0.0: clean} if clean else {}) | measured
            named = {
                place(eps): ("clean" if eps == 0 else labels[eps], result)
                for eps, result in points.items()
            }
            _line(axes, run, position, named, tips)
            spoken.append(_spoken(run, named))
        shown = ticks[:: math.ceil(len(ticks) / _MAX_LABELS)] if ticks else []
        axes.set_xticks([0.0, *map(place, shown)], ["clean", *(labels[eps] for eps in shown)])
        axes.axvline(gap / 2, color=svg.GRID, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.set_xlabel(f"{NORM_NAMES[norm]} budget ε, log scale")
        description = f"Accuracy against the {NORM_NAMES[norm]} budget. {' '.join(spoken)}"
        return svg.render(figure, f"attack-{norm}", description, tips)


def severity_panel(runs: Sequence[Run], corruption: str) -> Markup:
    """Accuracy against the severity of one corruption; severity 0 is the clean image."""
    with svg.drawing(2.7, 1.9) as figure:
        axes = figure.add_subplot()
        _accuracy_axis(axes, runs)
        tips: dict[str, str] = {}
        spoken = []
        for position, run in enumerate(runs):
            clean = compare.clean(run)
            named = {0.0: ("clean", clean)} if clean else {}
            for (name, severity), result in sorted(compare.corruptions(run).items()):
                if name == corruption:
                    named[float(severity)] = (f"severity {severity}", result)
            _line(axes, run, position, named, tips)
            spoken.append(_spoken(run, named))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("severity")
        description = f"Accuracy against the severity of {words(corruption)}. {' '.join(spoken)}"
        return svg.render(figure, f"severity-{_identifier(corruption)}", description, tips)


def training_panel(runs: Sequence[Run], quantity: str) -> Markup:
    """Loss or accuracy against the epoch: thin on training batches, bold on validation images."""
    with svg.drawing(4.4, 3.0) as figure:
        axes = figure.add_subplot()
        spoken = []
        for position, run in enumerate(runs):
            thin: dict[str, Any] = {"linewidth": 1.0, "alpha": 0.55}
            bold: dict[str, Any] = {"marker": svg.marker(position), "markersize": 3.5}
            for kind, style in (("train", thin), ("validation", bold)):
                lines = [line for line in run.log if line["kind"] == kind]
                if not lines:
                    continue
                epoch, value = _thinned(
                    np.array([line["epoch"] for line in lines], float),
                    np.array([line[quantity] for line in lines], float),
                )
                axes.plot(epoch, value, color=svg.color(position), linestyle=_dashes(run), **style)
                spoken.append(f"{run.label}, {kind}: {value[-1]:.3g} at epoch {epoch[-1]:.3g}.")
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0)
        if quantity == "accuracy":
            axes.set_ylim(top=1)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        description = f"{words(quantity)} during training. {' '.join(spoken)}"
        return svg.render(figure, f"training-{quantity}", description)


def _accuracy_axis(axes: Axes, runs: Sequence[Run]) -> None:
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    classes = {len(result.dataset.class_names) for run in runs for result in run.on_images}
    if len(classes) == 1 and min(classes) > 1:
        axes.axhline(1 / classes.pop(), color=svg.MUTED, linewidth=0.9, linestyle=(0, (1, 2)))


def _dashes(run: Run) -> str | tuple:
    return "solid" if run.stochastic else (0, (5, 2))


def _line(
    axes: Axes,
    run: Run,
    position: int,
    points: Mapping[float, tuple[str, Result]],
    tips: dict[str, str],
) -> None:
    """A network's line with its band, and a marker with a tip at each measured point."""
    if not points:
        return
    x = sorted(points)
    results = [points[place][1] for place in x]
    style: dict[str, Any] = {"color": svg.color(position), "zorder": 3}
    axes.fill_between(
        x,
        [result.interval[0] for result in results],
        [result.interval[1] for result in results],
        color=svg.color(position),
        alpha=0.18,
        linewidth=0,
    )
    axes.plot(x, [result.accuracy for result in results], linestyle=_dashes(run), **style)
    for place, result in zip(x, results, strict=True):
        tip = f"tip{len(tips)}"
        tips[tip] = (
            f"{run.label}, {points[place][0]}: {percent(result.accuracy)} "
            f"({interval(*result.interval)}), {result.protocol}"
        )
        axes.plot([place], [result.accuracy], svg.marker(position), gid=tip, clip_on=False, **style)


def _spoken(run: Run, points: Mapping[float, tuple[str, Result]]) -> str:
    parts = [f"{points[x][0]} {percent(points[x][1].accuracy)}" for x in sorted(points)]
    return f"{run.label}: {', '.join(parts)}." if parts else ""


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over consecutive stretches, if there are too many points to draw."""
    if len(x) <= _MAX_LOG_POINTS:
        return x, y
    starts = np.linspace(0, len(x), _MAX_LOG_POINTS, endpoint=False).astype(int)
    sizes = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x, starts) / sizes, np.add.reduceat(y, starts) / sizes


def _identifier(text: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text)
