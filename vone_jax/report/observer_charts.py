"""Charts of networks beside human observers, and Fourier maps."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from vone_jax import results
from vone_jax.report.charts import (
    COLORS,
    MUTED,
    PERCENT,
    SHARES,
    TOLD,
    chart_of,
    curves,
    layer_order,
    line_dashes,
    lines_of,
    networks,
    selected,
)
from vone_jax.report.tables import of_kinds
from vone_jax.results import Runs, humans


def fourier(result: results.Result) -> alt.Chart:
    """The error rate under a grating of each spatial frequency, with frequency 0 in the centre."""
    errors = np.asarray(result.details["errors"])
    middle = len(errors) // 2
    rows = [
        {"down": down - middle, "across": across - middle, "error": round(float(error), 4)}
        for (down, across), error in np.ndenumerate(errors)
    ]
    axis = alt.Axis(labelOverlap=True, tickCount=5)
    scale = alt.Scale(scheme="viridis", domain=[0, 1])
    return (
        chart_of(rows)
        .mark_rect()
        .encode(
            x=alt.X("across:O", title="cycles per image, along rows", axis=axis),
            y=alt.Y("down:O", title="along columns", axis=axis),
            color=alt.Color("error:Q", scale=scale, legend=alt.Legend(format="%", title="error")),
            tooltip=["down:O", "across:O", alt.Tooltip("error:Q", format=".1%")],
        )
        .properties(height=260)
    )


def psychophysics(runs: Runs) -> list[alt.LayerChart]:
    """The accuracy at each level of each distortion, beside that of human observers (dashed)."""
    drawn = []
    found = of_kinds(runs, "psychophysics")
    lines = lines_of(found)
    for name, curve in humans.DISTORTIONS.items():
        rows = [
            {
                "network": run.label, "line": line, "level": level,
                "condition": f"{result.label} {level}",
                "accuracy": entry["value"], "low": entry["low"], "high": entry["high"],
            }
            for (run, result), line in zip(found, lines, strict=True)
            if result.row["corruption"] == name
            for level in result.details.get("levels", ())
            for entry in [result.find(f"accuracy at {level}")]
            if entry is not None
        ]  # fmt: skip
        if not rows:
            continue
        people = [
            {"network": f"{curve.observers} observers", "level": f"{level:g}", "accuracy": share}
            for level, share in zip(curve.levels, curve.accuracy, strict=True)
        ]
        # From the easiest: full contrast, and the widest filter that is subtracted.
        order = {row["level"] for row in [*rows, *people]}
        order = sorted(order, key=float, reverse=name in ("contrast", "high_pass"))
        title = [name.replace("_", " "), curve.unit]
        x = alt.X("level:O", sort=order, title=title, axis=alt.Axis(labelAngle=0))
        y = alt.Y("accuracy:Q", scale=SHARES, axis=PERCENT, title="accuracy")
        base = chart_of(rows).encode(x=x, detail="line:N")
        shown = curves(base, y, [run.label for run in runs], TOLD, **line_dashes(rows))
        observed = _dashed(people).encode(x=x, y=y, tooltip=TOLD[:1] + TOLD[2:3])
        drawn.append(alt.LayerChart(layer=[observed, shown]).properties(height=220))
    return drawn


def critical_bands(runs: Runs) -> alt.LayerChart | None:
    """The channel of each network, its bands, and the channel of human observers (dashed)."""
    bands, fits = [], []
    found = of_kinds(runs, "critical bands")
    for (run, result), line in zip(found, lines_of(found), strict=True):
        if (channel := result.details["channel"]) is not None:
            width, centre, height = channel
            fits += [{"network": run.label, "line": line} | row for row in _channel(width, centre)]
            bands += [
                {
                    "network": run.label,
                    "line": line,
                    "frequency": at,
                    "sensitivity": steps / height,
                }
                for at, steps in zip(
                    result.details["centres"], result.details["steps"], strict=True
                )
            ]
    if not bands:
        return None
    channels = networks([run.label for run in runs])
    scale = alt.Scale(type="log", base=2, nice=False)
    x = alt.X("frequency:Q", scale=scale, title="cycles per image", axis=alt.Axis(format="~g"))
    y = alt.Y("sensitivity:Q", title="sensitivity to noise, relative to the peak")
    people = _channel(humans.CHANNEL.bandwidth, humans.CHANNEL.centre)
    told = [
        "network:N",
        "line:N",
        *(alt.Tooltip(f"{n}:Q", format=".3g") for n in ("frequency", "sensitivity")),
    ]
    shown = selected(
        chart_of(fits).mark_line(strokeWidth=2).encode(
            x=x, y=y, color=channels["color"], detail="line:N", **line_dashes(fits)
        ),
        chart_of(bands).mark_point(filled=True, size=50, opacity=1).encode(
            x=x, y=y, tooltip=told, **channels
        ),
    )  # fmt: skip
    observed = _dashed(people).encode(x=x, y=y)
    return alt.LayerChart(layer=[observed, shown]).properties(height=260)


def _channel(width: float, centre: float) -> list[dict[str, float]]:
    """A Gaussian over octaves with a height of 1, from 1 to 128 cycles per image."""
    octaves = np.linspace(0.0, 7.0, 57)
    deviation = width / (2 * np.sqrt(np.log(4)))
    heights = np.exp(-((octaves - np.log2(centre)) ** 2) / (2 * deviation**2))
    return [
        {"frequency": round(float(2**at), 3), "sensitivity": round(float(height), 4)}
        for at, height in zip(octaves, heights, strict=True)
    ]


def _dashed(rows: Sequence[Mapping[str, Any]]) -> alt.Chart:
    """The line of human observers, which no legend hides."""
    return chart_of(rows).mark_line(color=MUTED, strokeDash=[5, 4], strokeWidth=2)


def metamers(runs: Runs) -> list[alt.LayerChart | alt.Chart]:
    """How often metamers are recognised over the layers: by networks here, by humans in print.

    A line for each network whose metamers they are, and for each network that was asked.
    """
    rows = []
    found = of_kinds(runs, "metamers")
    # The originals are those of the first layer.
    begun = set()
    for (run, result), line in zip(found, lines_of(found, "layer"), strict=True):
        own = result.row["layer"]
        is_first = (run.label, line) not in begun
        begun.add((run.label, line))
        for entry in result.rows:
            number = entry.get("number", "")
            kind, _, asked = number.removeprefix("accuracy on ").partition(", ")
            layer = own if kind == "metamers" else kind
            if number.startswith("accuracy on ") and (layer == own or is_first):
                shown = {name: entry[name] for name in ("value", "low", "high")}
                asked = (asked or "itself") + line.removeprefix("metamers")
                rows.append({"network": run.label, "layer": layer, "asked": asked, **shown})
    if not rows:
        return []
    axis = alt.Axis(labelAngle=-40)
    base = chart_of(rows).encode(
        x=alt.X(
            "layer:O",
            sort=["originals", *layer_order(runs, "metamers")],
            title="metamers of a layer",
            axis=axis,
        ),
        detail="asked:N",
    )
    labels = [run.label for run in runs]
    legend = alt.Legend(title="asked", orient="bottom", columns=3)
    y = alt.Y("value:Q", scale=SHARES, axis=PERCENT, title="accuracy")
    told = [f"{name}:N" for name in ("network", "layer", "asked")]
    told += [alt.Tooltip(f"{name}:Q", format=".1%") for name in ("value", "low", "high")]
    shown = curves(base, y, labels, told, strokeDash=alt.StrokeDash("asked:N", legend=legend))
    return [shown.properties(height=260), _human_metamers(axis)]


def _human_metamers(axis: alt.Axis) -> alt.Chart:
    """The published recognition by humans of the metamers of three networks."""
    curves = {name: curve for name, curve in humans.METAMERS.items() if len(curve.levels) > 1}
    rows = [
        {"metamers of": name, "layer": str(layer), "accuracy": accuracy}
        for name, curve in curves.items()
        for layer, accuracy in zip(curve.levels, curve.accuracy, strict=True)
    ]
    legend = alt.Legend(title=None, orient="top", columns=2)
    return (
        chart_of(rows)
        .mark_line(point=True, strokeWidth=2)
        .encode(
            x=alt.X("layer:O", sort=None, title="metamers of a layer", axis=axis),
            y=alt.Y("accuracy:Q", scale=SHARES, axis=PERCENT, title="accuracy of humans"),
            color=alt.Color(
                "metamers of:N", scale=alt.Scale(domain=list(curves), range=COLORS[2:5]),
                legend=legend,
            ),
            tooltip=["metamers of:N", "layer:N", alt.Tooltip("accuracy:Q", format=".0%")],
        )
        .properties(height=260)
    )  # fmt: skip
