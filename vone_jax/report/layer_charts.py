"""Charts of layers: parameters of Gabor banks, tuning and properties of units, and geometry."""

import textwrap
import warnings
from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np

from vone_jax.report.charts import COLORS, chart_of, curves, layer_order, lines_of
from vone_jax.report.tables import of_kinds
from vone_jax.results import Runs

_SMALL = 150
_MAP = 110
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


def bank_histogram(arrays: Mapping[str, np.ndarray], parameter: str) -> alt.LayerChart:
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
) -> alt.LayerChart:
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
    colors = ["#b9c0c8", *COLORS] if len(known) > 1 else [COLORS[1]]
    color = alt.Color(
        "of:N",
        scale=alt.Scale(domain=known, range=(colors * len(known))[: len(known)]),
        legend=alt.Legend(title=None, orient="top", columns=1, labelLimit=300),
    )
    told = [
        "of:N", alt.Tooltip("low:Q", format=".3~g", title="from"),
        alt.Tooltip("high:Q", format=".3~g", title="to"), alt.Tooltip("share:Q", format=".0%"),
    ]  # fmt: skip
    base = chart_of(rows).encode(
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
        chart_of([*rows, *ends_of])
        .transform_filter(f"datum.of !== {known[0]!r}")
        .mark_line(interpolate="step-after", strokeWidth=1.8)
        .encode(x=alt.X("low:Q", scale=scale), y="share:Q", color=color, detail="of:N")
    )
    y = alt.Y("share:Q", title="share", axis=alt.Axis(format="%", tickCount=4))
    layers = [bars.encode(x2="high:Q", y=y, y2=alt.datum(0)), lines]
    return alt.LayerChart(layer=layers[: len(known)]).properties(height=_SMALL)


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
        chart_of(rows)
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
        chart_of(rows)
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


def of_units(arrays: Mapping[str, np.ndarray]) -> tuple[list[alt.Chart], alt.FacetChart]:
    """The tuning curves and the receptive fields of some units of a scored layer."""
    kept = dict(arrays)
    return [tuning(kept, curve) for curve in CURVES], receptive_fields(kept)


def explained(correlations: np.ndarray, reliabilities: np.ndarray) -> alt.LayerChart:
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
        chart_of(rows)
        .mark_point(filled=True, opacity=0.6, color=COLORS[0])
        .encode(
            x=alt.X("reliability:Q", title="reliability of the neuron"),
            y=alt.Y("r:Q", title="r of its prediction"),
            tooltip=told,
        )
    )
    most = [{"at": float(at), "bound": float(at) ** 0.5} for at in np.linspace(0.0, 1.0, 21)]
    bound = (
        chart_of(most)
        .mark_line(strokeDash=[2, 2], color="#777")
        .encode(x=alt.X("at:Q", title="reliability of the neuron"), y="bound:Q")
    )
    return alt.LayerChart(layer=[bound, points]).properties(height=2 * _SMALL)


def spread_units(arrays: Mapping[str, np.ndarray], count: int = 4) -> list[int]:
    """Units spread over the preferred spatial frequencies, among those that respond enough."""
    frequency = np.asarray(arrays["value/peak_sf"], float)
    usable = np.flatnonzero(np.isfinite(frequency) & np.isfinite(arrays["value/pref_or"]))
    ordered = usable[np.argsort(frequency[usable], kind="stable")]
    places = np.linspace(0.1, 0.9, count) * (len(ordered) - 1)
    return list(dict.fromkeys(int(ordered[place]) for place in places.astype(int)))


def geometry(runs: Runs) -> list[alt.LayerChart]:
    """The numbers of manifolds over the layers, a line for each network and manifold."""
    measured = of_kinds(runs, "geometry")
    order = layer_order(runs, "geometry")
    measured.sort(key=lambda pair: order.index(pair[1].row["layer"]))
    labels = [run.label for run in runs]
    lines = [line.removeprefix("geometry of ") for line in lines_of(measured, "layer")]
    legend = alt.Legend(title=None, orient="bottom", columns=3)
    drawn = []
    for number in ("capacity", "radius", "dimension", "told from clean", "distance from clean"):
        rows = [
            {
                "network": run.label, "layer": row["layer"], "manifold": line,
                "value": row["value"], "low": row.get("low"), "high": row.get("high"),
            }
            for (run, result), line in zip(measured, lines, strict=True)
            for row in [result.find(number)]
            if row is not None and "value" in row
        ]  # fmt: skip
        if not rows:
            continue
        told = [f"{name}:N" for name in ("network", "layer", "manifold")] + [
            alt.Tooltip(f"{name}:Q", format=".3g") for name in ("value", "low", "high")
        ]
        base = chart_of(rows).encode(
            x=alt.X("layer:O", sort=order, title=None, axis=alt.Axis(labelAngle=-40)),
            detail="manifold:N",
        )
        # Half of the points are separated by chance.
        scale = alt.Scale(domain=[0.4, 1.0]) if number == "told from clean" else alt.Undefined
        y = alt.Y("value:Q", title=number, scale=scale)
        dashes = alt.StrokeDash("manifold:N", sort=None, legend=legend)
        shown = curves(base, y, labels, told, strokeDash=dashes)
        drawn.append(shown.properties(height=220))
    return drawn
