"""Charts with Vega-Altair, of the page and for use from Python.

Each function returns a chart, which a notebook shows and ``chart.save("chart.html")`` writes. Its
legend selects, and the menu of the page exports it.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from vone_jax import names, results
from vone_jax.report.tables import MEAN, Condition, accuracy, averaged
from vone_jax.results import Run, Runs, humans

# Told apart with every common kind of colour vision, on white.
COLORS = (
    *("#c4500b", "#0b62a8", "#6a7c52", "#b14d7f"),
    *("#452800", "#3e424a", "#238fc3", "#804113"),
)
_SHAPES = (
    *("circle", "square", "diamond", "triangle-up", "triangle-down", "cross"),
    *("triangle-right", "triangle-left"),
)
_MUTED = "#59616c"
_SMALL = 150
# A training log may have a line for each step; so many of them show its course.
_MOST_POINTS = 200
_PERCENT = alt.Axis(format="%", tickCount=5)
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
    "size": ("radius", "radius, degrees"),
}


def _chart(rows: Sequence[Mapping[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=list(rows))).properties(width="container")


def _networks(labels: Sequence[str]) -> dict[str, Any]:
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


def _selected(first: alt.Chart, *others: alt.Chart) -> alt.LayerChart:
    """Layers whose legend selects the networks that are shown; a second click shows all."""
    chosen = alt.selection_point(fields=["network"], bind="legend", name="shown")
    layers = alt.LayerChart(layer=[first.add_params(chosen), *others])
    return layers.transform_filter(chosen)


def _height(rows: int, networks: int) -> int:
    """The height in pixels of a chart with a row for each condition and network."""
    return rows * max(26, 11 * networks + 8)


def _interval_row(label: str, result: results.Result, **fields: Any) -> dict[str, Any]:
    item = accuracy(result)
    return {
        "network": label, "accuracy": item.value, "low": item.low, "high": item.high, **fields,
    }  # fmt: skip


_TOLD = [
    alt.Tooltip("network:N"),
    alt.Tooltip("condition:N"),
    alt.Tooltip("accuracy:Q", format=".1%"),
    alt.Tooltip("low:Q", format=".1%", title="95 % from"),
    alt.Tooltip("high:Q", format=".1%", title="to"),
]


def overview(table: Sequence[Condition], runs: Runs) -> alt.LayerChart | None:
    """Clean images, attacks, and the mean over corruptions: a row for each, a point per network."""
    rows = [
        _interval_row(label, result, condition=condition.label)
        for condition in table
        if condition.kind != "Corrupted"
        for label, result in condition.results.items()
    ]
    for run in runs:
        own = [each.results[run.label] for each in averaged(table) if run.label in each.results]
        if own:
            mean = results.mean_accuracy(own)
            rows.append(
                {
                    "network": run.label,
                    "condition": MEAN,
                    **{"accuracy": mean.value, "low": mean.low, "high": mean.high},
                }
            )
    if not rows:
        return None
    order = list(dict.fromkeys(row["condition"] for row in rows))
    labels = [run.label for run in runs]
    base = _chart(rows).encode(
        y=alt.Y("condition:N", sort=order, title=None, axis=alt.Axis(labelLimit=230)),
        yOffset=alt.YOffset("network:N", sort=labels),
        tooltip=_TOLD,
    )
    domain = alt.Scale(domain=[0, 1])
    whiskers = base.mark_rule(strokeWidth=1.5).encode(
        x=alt.X("low:Q", scale=domain, axis=_PERCENT, title="accuracy"),
        x2="high:Q",
        color=_networks(labels)["color"],
    )
    points = base.mark_point(filled=True, size=55, opacity=1).encode(
        x=alt.X("accuracy:Q", scale=domain), **_networks(labels)
    )
    return _selected(whiskers, points).properties(height=_height(len(order), len(labels)))


def ladder(table: Sequence[Condition], runs: Runs, norm: str) -> alt.LayerChart:
    """The accuracy against the radius of attacks in a norm, a line for each network and attack."""
    rows = [
        _interval_row(
            label, result, condition=each.label, eps=each.eps, attack=each.series,
            radius=names.eps_label(norm, each.eps),
        )
        for each in table
        if each.norm == norm
        for label, result in each.results.items()
    ]  # fmt: skip
    for run in runs:
        for result in run.of_type("Minimal"):
            if result.condition["attack"]["norm"] == norm:
                rows += [
                    {
                        "network": run.label, "attack": result.label, "condition": number,
                        "eps": entry["eps"], "radius": names.eps_label(norm, entry["eps"]),
                        **{"accuracy": entry["value"], "low": entry["low"], "high": entry["high"]},
                    }
                    for number, entry in result.measured.items()
                    if "eps" in entry
                ]  # fmt: skip
    certified = _certified(runs, norm)
    for condition in table:
        if condition.kind == "Clean":
            attacks = {(row["network"], row["attack"]) for row in rows}
            rows += [
                _interval_row(
                    label, condition.results[label], condition=condition.label, eps=0.0,
                    attack=attack, radius="clean",
                )
                for label, attack in sorted(attacks)
                if label in condition.results
            ]  # fmt: skip
            break
    rows += certified
    order = [row["radius"] for row in sorted(rows, key=lambda row: row["eps"])]
    several = len({row["attack"] for row in rows}) > 1
    labels = [run.label for run in runs]
    dashes: dict[str, Any] = {}
    if several:
        legend = alt.Legend(title=None, orient="bottom", columns=1, labelLimit=400)
        dashes = {"strokeDash": alt.StrokeDash("attack:N", legend=legend)}
    base = _chart(rows).encode(
        x=alt.X(
            "radius:O",
            sort=list(dict.fromkeys(order)),
            title=f"{names.NORM_LABELS[norm]} radius",
            axis=alt.Axis(labelAngle=-40),
        ),
        detail="attack:N",
    )
    scale = alt.Scale(domain=[0, 1])
    color = _networks(labels)["color"]
    lines = base.mark_line(strokeWidth=2).encode(
        y=alt.Y("accuracy:Q", scale=scale, axis=_PERCENT, title="accuracy"), color=color, **dashes
    )
    whiskers = base.mark_rule().encode(y="low:Q", y2="high:Q", color=color)
    points = base.mark_point(filled=True, size=50, opacity=1).encode(
        y="accuracy:Q", tooltip=[*_TOLD, alt.Tooltip("attack:N")], **_networks(labels)
    )
    return _selected(lines, whiskers, points).properties(height=260)


def _certified(runs: Runs, norm: str) -> list[dict[str, Any]]:
    """The certified accuracy and that under attack at each radius, both of the vote over noise."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        for result in run.of_type("Certified"):
            if result.condition["norm"] == norm:
                attacked = result.label.replace("certified", "APGD on the vote")
                for start, line in (("certified", result.label), ("accuracy under", attacked)):
                    vote = {"vote over noise": result.measured["accuracy"] | {"eps": 0.0}}
                    vote |= {n: e for n, e in result.measured.items() if n.startswith(start)}
                    rows += [
                        {
                            "network": run.label, "attack": line, "condition": number,
                            "eps": (eps := entry["eps"]), "accuracy": entry["value"],
                            "radius": names.eps_label(norm, eps) if eps else "clean",
                            "low": entry["low"], "high": entry["high"],
                        }
                        for number, entry in vote.items()
                    ]  # fmt: skip
    return rows


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
        _chart(rows)
        .mark_rect()
        .encode(
            x=alt.X("across:O", title="cycles per image, along rows", axis=axis),
            y=alt.Y("down:O", title="along columns", axis=axis),
            color=alt.Color("error:Q", scale=scale, legend=alt.Legend(format="%", title="error")),
            tooltip=["down:O", "across:O", alt.Tooltip("error:Q", format=".1%")],
        )
        .properties(height=260)
    )


def metamers(runs: Runs) -> list[alt.LayerChart | alt.Chart]:
    """How often metamers are recognised over the layers: by networks here, by humans in print.

    A line for each network whose metamers they are, and for each network that was asked.
    """
    rows = []
    for run in runs:
        made = run.of_type("Metamers")
        for result in made:
            own = result.condition["layer"]
            for number, entry in result.measured.items():
                kind, _, asked = number.removeprefix("accuracy on ").partition(", ")
                layer = own if kind == "metamers" else kind
                if number.startswith("accuracy on ") and (layer == own or result is made[0]):
                    asked = asked or "itself"
                    rows.append({"network": run.label, "layer": layer, "asked": asked, **entry})
    if not rows:
        return []
    axis = alt.Axis(labelAngle=-40)
    base = _chart(rows).encode(
        x=alt.X(
            "layer:O",
            sort=["originals", *_layers(runs, "Metamers")],
            title="metamers of a layer",
            axis=axis,
        ),
        detail="asked:N",
    )
    labels = [run.label for run in runs]
    color, scale = _networks(labels)["color"], alt.Scale(domain=[0, 1])
    legend = alt.Legend(title="asked", orient="bottom", columns=3)
    told = [f"{name}:N" for name in ("network", "layer", "asked")]
    lines = base.mark_line(strokeWidth=2).encode(
        y=alt.Y("value:Q", scale=scale, axis=_PERCENT, title="accuracy"),
        color=color, strokeDash=alt.StrokeDash("asked:N", sort=None, legend=legend),
    )  # fmt: skip
    points = base.mark_point(filled=True, size=50, opacity=1).encode(
        y="value:Q",
        tooltip=[*told, *(alt.Tooltip(f"{n}:Q", format=".1%") for n in ("value", "low", "high"))],
        **_networks(labels),
    )
    return [_selected(lines, points).properties(height=260), _human_metamers(axis, scale)]


def _layers(runs: Runs, kind: str) -> list[str]:
    """The layers of all networks in their order; the deepest network decides."""
    places: dict[str, int] = {}
    for result in (result for run in runs for result in run.of_type(kind)):
        layer, place = result.condition["layer"], result.details["place"]
        places[layer] = max(place, places.get(layer, 0))
    return sorted(places, key=lambda layer: places[layer])


def _human_metamers(axis: alt.Axis, scale: alt.Scale) -> alt.Chart:
    """The published recognition by humans of the metamers of three networks."""
    curves = {name: curve for name, curve in humans.METAMERS.items() if len(curve.levels) > 1}
    rows = [
        {"metamers of": name, "layer": str(layer), "accuracy": accuracy}
        for name, curve in curves.items()
        for layer, accuracy in zip(curve.levels, curve.accuracy, strict=True)
    ]
    legend = alt.Legend(title=None, orient="top", columns=2)
    return (
        _chart(rows)
        .mark_line(point=True, strokeWidth=2)
        .encode(
            x=alt.X("layer:O", sort=None, title="metamers of a layer", axis=axis),
            y=alt.Y("accuracy:Q", scale=scale, axis=_PERCENT, title="accuracy of humans"),
            color=alt.Color(
                "metamers of:N", scale=alt.Scale(domain=list(curves), range=COLORS[2:5]),
                legend=legend,
            ),
            tooltip=["metamers of:N", "layer:N", alt.Tooltip("accuracy:Q", format=".0%")],
        )
        .properties(height=260)
    )  # fmt: skip


def geometry(runs: Runs) -> list[alt.LayerChart]:
    """The numbers of manifolds over the layers, a line for each network and manifold."""
    measured = [(run, result) for run in runs for result in run.of_type("Geometry")]
    order = _layers(runs, "Geometry")
    measured.sort(key=lambda pair: order.index(pair[1].condition["layer"]))
    labels = [run.label for run in runs]
    legend = alt.Legend(title=None, orient="bottom", columns=3)
    drawn = []
    for number in ("capacity", "radius", "dimension", "told from clean", "distance from clean"):
        rows = [
            {
                "network": run.label, "layer": result.condition["layer"],
                "manifold": _manifold(result.condition), **result.measured[number],
            }
            for run, result in measured
            if result.measured.get(number, {}).get("value") is not None
        ]  # fmt: skip
        if not rows:
            continue
        told = [f"{name}:N" for name in ("network", "layer", "manifold")] + [
            alt.Tooltip(f"{name}:Q", format=".3g") for name in ("value", "low", "high")
        ]
        base = _chart(rows).encode(
            x=alt.X("layer:O", sort=order, title=None, axis=alt.Axis(labelAngle=-40)),
            detail="manifold:N",
        )
        # A share of points that are told right is one half by chance.
        scale = alt.Scale(domain=[0.4, 1.0]) if number == "told from clean" else alt.Undefined
        color = _networks(labels)["color"]
        dashes = alt.StrokeDash("manifold:N", sort=None, legend=legend)
        lines = base.mark_line(strokeWidth=2).encode(
            y=alt.Y("value:Q", title=number, scale=scale), color=color, strokeDash=dashes
        )
        whiskers = base.mark_rule().encode(y="low:Q", y2="high:Q", color=color)
        points = base.mark_point(filled=True, size=50, opacity=1).encode(
            y="value:Q", tooltip=told, **_networks(labels)
        )
        drawn.append(_selected(lines, whiskers, points).properties(height=220))
    return drawn


def _manifold(condition: Mapping[str, Any]) -> str:
    kind, eps = condition["manifold"], condition["eps"]
    if kind == "corruption":
        kind = f"{condition['corruption'].replace('_', ' ')} {condition['severity']}"
    elif eps:
        kind = f"{kind} {names.eps_label('linf', eps)}"
    return kind


def psychophysics(runs: Runs) -> list[alt.LayerChart]:
    """The accuracy at each level of each distortion, beside that of human observers (dashed)."""
    color = _networks([run.label for run in runs])["color"]
    drawn = []
    for name, curve in humans.DISTORTIONS.items():
        rows = [
            {
                "network": run.label, "level": level, "condition": f"{result.label} {level}",
                "accuracy": entry["value"], "low": entry["low"], "high": entry["high"],
            }
            for run in runs
            for result in run.of_type("Psychophysics")
            if result.condition["distortion"] == name
            for level in result.details.get("levels", ())
            for entry in [result.measured[f"accuracy at {level}"]]
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
        scale = alt.Scale(domain=[0, 1])
        y = alt.Y("accuracy:Q", scale=scale, axis=_PERCENT, title="accuracy")
        base = _chart(rows).encode(x=x)
        shown = _selected(
            base.mark_line(strokeWidth=2).encode(y=y, color=color),
            base.mark_rule().encode(y="low:Q", y2="high:Q", color=color),
            base.mark_point(filled=True, size=50, opacity=1).encode(
                y=y, tooltip=_TOLD, **_networks([run.label for run in runs])
            ),
        )
        observed = _dashed(people).encode(x=x, y=y, tooltip=_TOLD[:1] + _TOLD[2:3])
        drawn.append(alt.LayerChart(layer=[observed, shown]).properties(height=220))
    return drawn


def critical_bands(runs: Runs) -> alt.LayerChart | None:
    """The channel of each network, its bands, and the channel of human observers (dashed)."""
    bands, fits = [], []
    for run in runs:
        for result in run.of_type("CriticalBands"):
            if (channel := result.details.get("channel")) is not None:
                width, centre, height = channel
                fits += [{"network": run.label} | row for row in _channel(width, centre)]
                bands += [
                    {"network": run.label, "frequency": at, "sensitivity": steps / height}
                    for at, steps in zip(
                        result.details["centres"], result.details["steps"], strict=True
                    )
                ]
    if not bands:
        return None
    channels = _networks([run.label for run in runs])
    scale = alt.Scale(type="log", base=2, nice=False)
    x = alt.X("frequency:Q", scale=scale, title="cycles per image", axis=alt.Axis(format="~g"))
    y = alt.Y("sensitivity:Q", title="sensitivity to noise, relative to the peak")
    people = _channel(humans.CHANNEL.bandwidth, humans.CHANNEL.centre)
    told = [
        "network:N",
        *(alt.Tooltip(f"{n}:Q", format=".3g") for n in ("frequency", "sensitivity")),
    ]
    shown = _selected(
        _chart(fits).mark_line(strokeWidth=2).encode(x=x, y=y, color=channels["color"]),
        _chart(bands).mark_point(filled=True, size=50, opacity=1).encode(
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
    return _chart(rows).mark_line(color=_MUTED, strokeDash=[5, 4], strokeWidth=2)


def corruptions(table: Sequence[Condition], runs: Runs) -> alt.LayerChart:
    """The accuracy under each corruption, the mean over its severities."""
    rows = []
    corrupted = [each for each in table if each.kind == "Corrupted"]
    kinds = list(dict.fromkeys(each.fields["corruption"] for each in corrupted))
    for run in runs:
        for kind in kinds:
            own = [
                each.results[run.label]
                for each in corrupted
                if each.fields["corruption"] == kind and run.label in each.results
            ]
            if own:
                mean = results.mean_accuracy(own)
                severities = ", ".join(str(each.condition["severity"]) for each in own)
                rows.append(
                    {
                        "network": run.label,
                        "corruption": kind.replace("_", " "),
                        "condition": f"severity {severities}",
                        **{"accuracy": mean.value, "low": mean.low, "high": mean.high},
                    }
                )
    labels = [run.label for run in runs]
    base = _chart(rows).encode(
        y=alt.Y("corruption:N", sort=None, title=None),
        yOffset=alt.YOffset("network:N", sort=labels),
        tooltip=[alt.Tooltip("corruption:N"), *_TOLD],
    )
    scale = alt.Scale(domain=[0, 1])
    whiskers = base.mark_rule().encode(
        x=alt.X("low:Q", scale=scale, axis=_PERCENT, title="accuracy, mean over severities"),
        x2="high:Q",
        color=_networks(labels)["color"],
    )
    points = base.mark_point(filled=True, size=45, opacity=1).encode(
        x="accuracy:Q", **_networks(labels)
    )
    return _selected(whiskers, points).properties(height=_height(len(kinds), len(labels)))


def training(runs: Runs, number: str) -> alt.LayerChart | None:
    """A logged number against the epoch, of training batches and of validation images."""
    rows = [row for run in runs for row in _logged(run, number)]
    if not rows:
        return None
    labels = [run.label for run in runs]
    base = _chart(rows).encode(
        x=alt.X("epoch:Q", title="epoch"),
        y=alt.Y("value:Q", title=number.replace("_", " "), scale=alt.Scale(zero=False)),
        color=_networks(labels)["color"],
        strokeDash=alt.StrokeDash(
            "images:N", legend=alt.Legend(title=None, orient="bottom"),
            scale=alt.Scale(domain=["validation", "training"], range=[[1, 0], [2, 2]]),
        ),
        tooltip=["network:N", "images:N", "epoch:Q", alt.Tooltip("value:Q", format=".4~g")],
    )  # fmt: skip
    lines = base.mark_line(strokeWidth=1.5)
    return _selected(lines).properties(height=200)


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
    return _histogram(edges, layers, PARAMETERS[parameter])


def property_histogram(
    label: str, edges: Sequence[float], shares: Mapping[str, Sequence[float]]
) -> alt.LayerChart:
    """The distribution of a property of units, beside that of neurons of macaque V1.

    Args:
      label: the property in words, with its unit.
      edges: bin edges.
      shares: whose distribution it is -> the share in each bin; drawn as bars for the first, and
        as lines for the others.
    """
    return _histogram(np.asarray(edges, float), shares, label)


def _histogram(
    edges: np.ndarray, shares: Mapping[str, Sequence[float] | np.ndarray], title: str
) -> alt.LayerChart:
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
    base = _chart(rows).encode(
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
        _chart([*rows, *ends_of])
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
        _chart(rows)
        .mark_line(point=True)
        .encode(
            x=alt.X("level:Q", scale=scale, title=title, axis=ticks),
            y=alt.Y("response:Q", title="relative response"),
            color=alt.Color("unit:N", legend=alt.Legend(title=None, orient="top", columns=2)),
            tooltip=["unit:N", "level:Q", "response:Q"],
        )
        .properties(height=_SMALL)
    )


def spread_units(arrays: Mapping[str, np.ndarray], count: int = 4) -> list[int]:
    """Units spread over the preferred spatial frequencies, among those that respond enough."""
    frequency = np.asarray(arrays["value/peak_sf"], float)
    usable = np.flatnonzero(np.isfinite(frequency) & np.isfinite(arrays["value/pref_or"]))
    ordered = usable[np.argsort(frequency[usable], kind="stable")]
    places = np.linspace(0.1, 0.9, count) * (len(ordered) - 1)
    return list(dict.fromkeys(int(ordered[place]) for place in places.astype(int)))
