"""Units of a layer as an electrophysiologist shows them: distributions, tuning, fields."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator, PercentFormatter

from vone_jax.report.figures import svg
from vone_jax.report.physiology_records import AXES, FIELD_MAPS

# Where the gratings are centred, in degrees right of and below fixation, and how far from there
# the field of a unit that is recorded may be.
_CENTRE, _RADIUS = 0.5, 0.15
# Share of a unit's largest response above which a place belongs to its field.
_IN_FIELD = 0.05
# Every k-th of more units is shown: each point makes the page longer.
_MAX_POINTS = 400
_DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)))
_CURVES = {
    "orientation": "orientation, degrees",
    "spatial_frequency": "spatial frequency, cycles/degree",
    "size": "diameter, degrees",
}
# Bars of the histogram of F1/F0, as the published one has them.
_RATIOS = np.linspace(0.0, 2.0, 11)


def chip_dashes(position: int) -> str:
    """The dashes of a network's line in histograms, as an attribute of SVG; empty if solid."""
    dashes = _DASHES[position % len(_DASHES)]
    return "" if isinstance(dashes, str) else " ".join(f"{2 * part:g}" for part in dashes[1])


@dataclasses.dataclass(frozen=True)
class Line:
    """The distribution of a network in a histogram: its label, its place on the page, shares."""

    label: str
    position: int
    shares: Sequence[float]


def property_panel(
    edges: Sequence[float],
    unit: str,
    neurons: Sequence[float],
    lines: Sequence[Line],
    name: str,
) -> Markup:
    """Shares of the neurons of V1 (bars) and of the units of layers (lines) in the same bins.

    Args:
      edges: of the bins.
      unit: of the property; empty for a pure number.
      neurons: shares of neurons.
      lines: of layers.
      name: an identifier, unique on the page.
    """
    bounds, yes_no = np.asarray(edges, float), len(edges) == 3
    # Bins that nobody is in only make the others narrow.
    used = np.flatnonzero(np.sum([neurons, *(line.shares for line in lines)], axis=0))
    first, last = (used[0], used[-1] + 1) if len(used) else (0, len(neurons))
    bounds = bounds[first : last + 1]
    with svg.drawing(2.6, 1.8) as figure:
        axes = figure.add_subplot()
        axes.bar(
            bounds[:-1], neurons[first:last], np.diff(bounds), align="edge", color=svg.MUTED,
            alpha=0.35, edgecolor=svg.BACKGROUND, linewidth=1.0, zorder=2,
        )  # fmt: skip
        for line in lines:
            axes.stairs(
                line.shares[first:last], bounds, color=svg.color(line.position), linewidth=1.8,
                linestyle=_DASHES[line.position % len(_DASHES)], baseline=0, zorder=3,
            )  # fmt: skip
        if bounds[0] > 0 and bounds[-1] / bounds[0] >= 8:
            _log_axis(axes, bounds)
        elif yes_no:
            axes.set_xticks([0.25, 0.75][first:last], ["no", "yes"][first:last])
        axes.set_ylim(bottom=0)
        _share_axis(axes)
        axes.set_xlabel(unit)
        spoken = [f"V1 neurons: {_spoken(bounds, neurons[first:last])}."]
        spoken += [f"{line.label}: {_spoken(bounds, line.shares[first:last])}." for line in lines]
        return svg.render(figure, name, " ".join(spoken))


def tuning_panel(
    arrays: Mapping[str, np.ndarray],
    curve: str,
    units: Sequence[int],
    position: int,
    name: str,
) -> Markup:
    """Tuning curves of units, each divided by its largest value.

    Args:
      arrays: of a result of the kind ``physiology``.
      curve: ``orientation``, ``spatial_frequency`` or ``size``.
      units: which of the layer.
      position: of the network on the page.
      name: an identifier, unique on the page.
    """
    steps, curves = arrays[f"axis/{AXES[curve]}"], arrays[f"curve/{curve}"]
    if curve == "size":
        steps = 2 * steps
    with svg.drawing(2.9, 2.0) as figure:
        axes = figure.add_subplot()
        best = []
        for place, unit in enumerate(units):
            values = curves[:, unit] / max(float(curves[:, unit].max()), 1e-9)
            axes.plot(
                steps, values, color=svg.color(position), marker=svg.marker(place), markersize=3.5,
                linestyle=_DASHES[place % len(_DASHES)], linewidth=1.2,
            )  # fmt: skip
            best.append(f"unit {place + 1} is largest at {steps[values.argmax()]:.3g}")
        if curve == "orientation":
            axes.set_xticks([0, 45, 90, 135])
        else:
            _log_axis(axes, steps)
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.08)
        axes.set_yticks([0, 0.5, 1])
        axes.set_xlabel(_CURVES[curve])
        return svg.render(figure, name, f"Response against {_CURVES[curve]}: {', '.join(best)}.")


def modulation_panel(
    ratio: np.ndarray, simple: np.ndarray | None, position: int, name: str
) -> Markup:
    """Histogram of F1/F0, complex cells in grey and simple ones in colour if they are known.

    Args:
      ratio: of each unit; NaN for those that do not count.
      simple: whether each unit is a simple cell, or None if the layer has no such kinds.
      position: of the network on the page.
      name: an identifier, unique on the page.
    """
    known = ~np.isnan(ratio)
    groups = {"all units": known}
    if simple is not None:
        groups = {"complex cells": known & ~simple, "simple cells": known & simple}
    with svg.drawing(2.9, 2.0) as figure:
        axes = figure.add_subplot()
        spoken = []
        for place, (label, members) in enumerate(groups.items()):
            values = np.clip(ratio[members], _RATIOS[0], _RATIOS[-1])
            shares = np.histogram(values, _RATIOS)[0] / max(known.sum(), 1)
            shade = svg.MUTED if place == 0 and len(groups) > 1 else svg.color(position)
            axes.bar(
                _RATIOS[:-1], shares, np.diff(_RATIOS), align="edge", color=shade, alpha=0.6,
                edgecolor=svg.BACKGROUND, linewidth=1.0,
            )  # fmt: skip
            spoken.append(f"{label}: {_spoken(_RATIOS, shares)}.")
        axes.axvline(1.0, color=svg.INK, linewidth=0.9, linestyle=(0, (2, 3)))
        _share_axis(axes)
        axes.set_xlabel("modulation ratio F1/F0")
        return svg.render(figure, name, f"Modulation ratio. {' '.join(spoken)}")


def field_panel(x: np.ndarray, y: np.ndarray, position: int, name: str) -> Markup:
    """Where the receptive fields of the recorded units are centred, in degrees from fixation."""
    reach = 1.25 * _RADIUS
    some = slice(None, None, -(-len(x) // _MAX_POINTS))
    with svg.drawing(2.4, 2.2) as figure:
        axes = figure.add_subplot()
        axes.add_patch(
            Circle((_CENTRE, _CENTRE), _RADIUS, fill=False, edgecolor=svg.MUTED, linewidth=0.9)
        )
        axes.plot(_CENTRE, _CENTRE, "+", color=svg.INK, markersize=9, markeredgewidth=1.2)
        axes.scatter(x[some], y[some], 7, color=svg.color(position), alpha=0.5, linewidths=0)
        axes.set_aspect("equal")
        axes.set_xlim(_CENTRE - reach, _CENTRE + reach)
        axes.set_ylim(_CENTRE + reach, _CENTRE - reach)
        axes.set_xticks([0.35, 0.5, 0.65])
        axes.set_yticks([0.35, 0.5, 0.65])
        axes.set_xlabel("degrees right of fixation")
        axes.set_ylabel("degrees below")
        description = (
            f"Centres of {len(x)} receptive fields, on average {np.mean(x):.3f} degrees right of "
            f"and {np.mean(y):.3f} below fixation."
        )
        return svg.render(figure, name, description)


def field_maps_panel(
    arrays: Mapping[str, np.ndarray], units: Sequence[int], position: int, name: str
) -> Markup:
    """Receptive-field maps of units: response to a small grating at each place.

    Args:
      arrays: of a result of the kind ``physiology``.
      units: which of the layer, at most 4.
      position: of the network on the page.
      name: an identifier, unique on the page.
    """
    places, maps = arrays["axis/position"], arrays[FIELD_MAPS]
    step = places[1] - places[0]
    low, high = places[0] - step / 2, places[-1] + step / 2
    inside = np.unique(np.argwhere(maps[..., list(units)] > _IN_FIELD)[:, :2])
    # As much as the fields need, around the gratings.
    reach = np.abs(places - _CENTRE)[inside].max(initial=0.0) + 1.5 * step
    shown = max(_CENTRE - reach, low), min(_CENTRE + reach, high)
    with svg.drawing(2.9, 2.7) as figure:
        grid = figure.subplots(2, 2, sharex=True, sharey=True, squeeze=False)
        spoken = []
        for place, (axes, unit) in enumerate(zip(grid.ravel(), units, strict=False)):
            # Raw pixels, to be enlarged by the browser.
            axes.imshow(
                maps[..., unit].astype(np.float32), cmap="magma", vmin=0.0, vmax=1.0,
                extent=(low, high, high, low), interpolation="none",
            )  # fmt: skip
            axes.grid(False)
            axes.set_xlim(*shown)
            axes.set_ylim(*shown[::-1])
            axes.locator_params(nbins=4)
            axes.plot(
                0.0, 1.09, color=svg.color(position), marker=svg.marker(place), markersize=5,
                transform=axes.transAxes, clip_on=False,
            )  # fmt: skip
            area = np.sum(maps[..., unit] > _IN_FIELD) * step**2
            spoken.append(f"unit {place + 1} covers {area:.2g}")
        for axes in grid.ravel()[len(units) :]:
            axes.set_visible(False)
        figure.supxlabel("degrees right of fixation", fontsize=9, color=svg.MUTED)
        figure.supylabel("degrees below", fontsize=9, color=svg.MUTED)
        description = f"Receptive-field maps, in square degrees: {', '.join(spoken)}."
        return svg.render(figure, name, description)


def contrast_panel(arrays: Mapping[str, np.ndarray], position: int, name: str) -> Markup | None:
    """Contrast response relative to the largest: median and middle half of the units.

    Args:
      arrays: of a result of the kind ``physiology``.
      position: of the network on the page.
      name: an identifier, unique on the page.

    Returns:
      The figure; None if no unit responds.
    """
    contrasts, curves = arrays["contrast/contrasts"], arrays["contrast/curves"]
    largest = curves.max(axis=0)
    if not (largest > 0).any():
        return None
    relative = curves[:, largest > 0] / largest[largest > 0]
    low, middle, high = np.percentile(relative, [25, 50, 75], axis=1)
    with svg.drawing(2.9, 2.0) as figure:
        axes = figure.add_subplot()
        axes.fill_between(
            contrasts, low, high, color=svg.color(position), alpha=0.25, linewidth=0
        )  # fmt: skip
        axes.plot(
            contrasts, contrasts, color=svg.INK, linewidth=0.9, linestyle=(0, (2, 3)), zorder=3
        )  # fmt: skip
        axes.plot(contrasts, middle, color=svg.color(position), marker="o", markersize=3.5)
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(FixedLocator(list(contrasts)))
        labels = {0.05: "5 %", 0.1: "10 %", 0.2: "20 %", 0.4: "40 %", 1.0: "100 %"}
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: labels.get(value, "")))
        axes.set_ylim(min(0.0, float(low.min())), 1.08)
        axes.set_yticks([0, 0.5, 1])
        axes.set_xlabel("contrast")
        spoken = ", ".join(
            f"{100 * c:.3g} %: {value:.2f}" for c, value in zip(contrasts, middle, strict=True)
        )
        return svg.render(figure, name, f"Median relative response against contrast: {spoken}.")


def variability_panel(
    mean: np.ndarray, variance: np.ndarray, unit: str, position: int, name: str
) -> Markup | None:
    """Variance over trials against the mean, with the line where they are equal.

    Args:
      mean: of units and gratings.
      variance: of the same shape.
      unit: of the mean.
      position: of the network on the page.
      name: an identifier, unique on the page.

    Returns:
      The figure; None if nothing is above 0, as logarithms need.
    """
    above = (mean > 0) & (variance > 0)
    mean, variance = mean[above], variance[above]
    if not len(mean):
        return None
    some = slice(None, None, -(-len(mean) // _MAX_POINTS))
    with svg.drawing(2.9, 2.2) as figure:
        axes = figure.add_subplot()
        axes.scatter(
            mean[some], variance[some], 6, color=svg.color(position), alpha=0.5, linewidths=0
        )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        reach = (
            min(axes.get_xlim()[0], axes.get_ylim()[0]),
            max(axes.get_xlim()[1], axes.get_ylim()[1]),
        )
        axes.plot(reach, reach, color=svg.INK, linewidth=0.9, linestyle=(0, (2, 3)))
        axes.set_xlim(reach)
        axes.set_ylim(reach)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
            axis.set_major_locator(LogLocator(numticks=5))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel(f"mean, {unit}")
        axes.set_ylabel("variance")
        ratio = np.median(variance / mean)
        description = (
            f"Variance against mean of {unit} of {len(mean)} pairs of unit and grating; the "
            f"median ratio is {ratio:.2f}."
        )
        return svg.render(figure, name, description)


def _share_axis(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.locator_params(axis="y", nbins=4)


def _log_axis(axes: Axes, values: np.ndarray) -> None:
    """Octaves, with a tick at the powers of 2, or of 4 if there are many."""
    axes.set_xscale("log", base=2)
    low, high = np.ceil(np.log2(values.min()) - 1e-9), np.floor(np.log2(values.max()) + 1e-9)
    step = 1 if high - low < 5 else 2
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator(list(2.0 ** np.arange(low, high + 1, step))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


def _spoken(edges: np.ndarray, shares: Sequence[float]) -> str:
    return ", ".join(
        f"{low:.3g} to {high:.3g}: {100 * share:.0f} %"
        for low, high, share in zip(edges[:-1], edges[1:], shares, strict=True)
    )
