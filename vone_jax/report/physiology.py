"""The section on whether layers are like V1: their scores, and units of the best ones."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from vone_jax.report import provenance
from vone_jax.report.figures import svg, tuning
from vone_jax.report.load import Run
from vone_jax.report.physiology_records import (
    AXES,
    CONTRAST,
    FIELD_MAPS,
    KIND,
    SCORED,
    SPIKES,
    TEXTURES,
    VARIABILITY,
)
from vone_jax.report.results import Result
from vone_jax.report.wording import count, percent, words

# Example units, from the lowest to the highest preferred spatial frequency.
_EXAMPLES = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A layer in the table.

    Attributes:
      label: of the network.
      name: of the layer.
      position: of the network on the page.
      anchor: where the result comes from on the page.
      note: units and what the network was shown.
      mean: of ``scores``.
      scores: one per column of the table.
      result: its files.
    """

    label: str
    name: str
    position: int
    anchor: str
    note: str
    mean: float
    scores: Sequence[float]
    result: Result

    @property
    def dashes(self) -> str:
        """Of the layer's line in the legend."""
        return tuning.chip_dashes(self.position)


def section(runs: Sequence[Run]) -> dict[str, Any] | None:
    """What the template shows; None if no layer was recorded."""
    found = [
        (position, run, result) for position, run in enumerate(runs) for result in run.of_kind(KIND)
    ]
    if not found:
        return None
    scored = [item for item in found if item[2].record["status"] == SCORED]
    columns = shared_properties([result for _, _, result in scored])
    layers = sorted(
        (_layer(position, run, result, columns) for position, run, result in scored),
        key=lambda layer: -layer.mean,
    )
    best: dict[int, Layer] = {}
    for layer in layers:
        best.setdefault(layer.position, layer)
    shown = [best[position] for position in sorted(best)]
    return {
        "columns": [label for _, label in columns],
        "layers": layers,
        "best": shown,
        "failed": [
            (run.label, result.condition["layer"], _reason(result))
            for _, run, result in found
            if result.record["status"] != SCORED
        ],
        "panels": [_panel(name, shown) for name, _ in columns],
        "sources": _sources(scored, columns),
        "needs": _needs([result for _, _, result in scored]),
        "units": [_units(layer) for layer in shown],
    }


def shared_properties(results: Sequence[Result]) -> list[tuple[str, str]]:
    """(name, label) of the properties that have a score in all layers: only these compare."""
    if not results:
        return []
    return [
        (name, words(item["label"]))
        for name, item in results[0].record["properties"].items()
        if all(
            result.record["properties"].get(name, {}).get("status") == SCORED for result in results
        )
    ]


def property_scores(result: Result, columns: Sequence[tuple[str, str]]) -> list[float]:
    """The scores of a layer in properties of ``shared_properties``."""
    return [float(result.record["properties"][name]["score"]) for name, _ in columns]


def _layer(position: int, run: Run, result: Result, columns: Sequence[tuple[str, str]]) -> Layer:
    record = result.record
    scores = property_scores(result, columns)
    presented = f", {record['trials']} trials with noise" if record["trials"] > 1 else ""
    if result.test_noise:
        presented += f", {result.test_noise}"
    return Layer(
        label=run.label,
        name=str(result.condition["layer"]),
        position=position,
        anchor=provenance.anchor(position, result, run),
        note=f"{count(record['units'], 'unit')}, {record['image_size']} px for "
        f"{record['visual_degrees']:.3g}°{presented}",
        mean=float(np.mean(scores)) if scores else float("nan"),
        scores=scores,
        result=result,
    )


def _panel(name: str, shown: Sequence[Layer]) -> tuple[str, Markup]:
    """The histogram of a property: title and figure."""
    items = [layer.result.record["properties"][name] for layer in shown]
    lines = [
        tuning.Line(f"{layer.label}, {layer.name}", layer.position, item["distribution"])
        for layer, item in zip(shown, items, strict=True)
    ]
    first = items[0]
    figure = tuning.property_panel(
        first["edges"],
        str(first.get("unit", "")),
        first["reference_distribution"],
        lines,
        f"physiology-{name}",
    )
    return words(first["label"]), figure


def _sources(
    scored: Sequence[tuple[int, Run, Result]], columns: Sequence[tuple[str, str]]
) -> list[str]:
    """Who measured the neurons, each once."""
    found = {
        str(result.record["properties"][name]["source"]): None
        for _, _, result in scored
        for name, _ in columns
    }
    return list(found)


def _needs(results: Sequence[Result]) -> list[tuple[str, list[str]]]:
    """What is missing -> the properties that no layer has a score for because of it."""
    missing: dict[str, str] = {}
    labels: dict[str, str] = {}
    for result in results:
        for name, item in result.record["properties"].items():
            labels[name] = item["label"]
            if item["status"] != SCORED:
                missing.setdefault(name, item["status"])
    for result in results:
        for name, item in result.record["properties"].items():
            if item["status"] == SCORED:
                missing.pop(name, None)
    return [
        (status, [labels[name] for name, found in missing.items() if found == status])
        for status in dict.fromkeys(missing.values())
    ]


def _units(layer: Layer) -> dict[str, Any]:
    """Figures of single units of a layer."""
    arrays, stem = layer.result.arrays, f"physiology{layer.position}"
    chosen = _examples(arrays)
    simple_channels = layer.result.record.get("simple_channels")
    simple = None if simple_channels is None else arrays["unit/channel"] < simple_channels
    ratio = np.asarray(arrays["value/modulation_ratio"], float)
    return {
        "title": f"{layer.label}, layer {layer.name}",
        "position": layer.position,
        "curves": [
            (
                words(curve),
                tuning.tuning_panel(arrays, curve, chosen, layer.position, f"{stem}-{curve}"),
            )
            for curve in AXES
        ]
        if chosen
        else [],
        "examples": [(svg.marker(i), _told(arrays, unit)) for i, unit in enumerate(chosen)],
        "modulation": tuning.modulation_panel(ratio, simple, layer.position, f"{stem}-f1f0")
        if np.isfinite(ratio).any()
        else None,
        "kinds": simple is not None,
        "fields": tuning.field_panel(
            arrays["unit/field_x"], arrays["unit/field_y"], layer.position, f"{stem}-fields"
        ),
        "maps": tuning.field_maps_panel(arrays, chosen, layer.position, f"{stem}-maps")
        if chosen and FIELD_MAPS in arrays
        else None,
        "stand_ins": _stand_ins(layer),
        "contrast": _contrast(layer, stem),
        "variability": _variability(layer, stem),
    }


def _contrast(layer: Layer, stem: str) -> dict[str, Any] | None:
    """The contrast response and what it says; None for a layer that has none."""
    found = layer.result.record.get(CONTRAST)
    if found is None:
        return None
    panel = tuning.contrast_panel(layer.result.arrays, layer.position, f"{stem}-contrast")
    if panel is None or found["median_c50"] is None or found["median_exponent"] is None:
        return None
    c50 = found["median_c50"]
    told = (
        f"half saturated at {percent(c50)} contrast"
        if c50 < 1
        else "not half saturated at full contrast"
    )
    return {
        "panel": panel,
        "told": f"The median unit is {told}; its exponent is {found['median_exponent']:.2f}",
    }


def _stand_ins(layer: Layer) -> str | None:
    """What the units make of texture images that are no stimuli of a published study."""
    found = layer.result.record.get(TEXTURES)
    if found is None or not found["proxy"]:
        return None
    properties = layer.result.record["properties"]
    medians = ", ".join(
        f"{properties[name]['label']} {value:.2g}"
        for name, value in found["medians"].items()
        if value is not None
    )
    if not medians:
        return f"No unit responds enough to the textures ({found['source']})"
    return (
        f"Textures, not scored ({found['source']}): medians over "
        f"{count(found['units'], 'unit')}: {medians}"
    )


def _variability(layer: Layer, stem: str) -> dict[str, Any] | None:
    """Mean and variance over trials and what they say; None for a layer without noise."""
    found, arrays = layer.result.record.get(VARIABILITY), layer.result.arrays
    if found is None:
        return None
    space, unit = ("spike_", "spikes") if SPIKES in found else ("", "responses")
    panel = tuning.variability_panel(
        arrays[f"variability/{space}mean"],
        arrays[f"variability/{space}variance"],
        unit,
        layer.position,
        f"{stem}-variability",
    )
    if panel is None:
        return None
    return {
        "panel": panel,
        "trials": found["trials"],
        "told": _fano_factors(found),
    }


def _fano_factors(found: Mapping[str, Any]) -> str:
    """The median Fano factors in words."""
    in_responses = found["median_fano_factor"]
    if SPIKES not in found:
        if in_responses is None:
            return "No unit responds enough for a Fano factor"
        return (
            f"The median unit has a ratio of {in_responses:.2f}, but these are responses and not "
            f"counts of spikes, so only the slope compares with neurons"
        )
    least = f"{found['least_mean_spikes']:g} spikes"
    if found[SPIKES] is None or in_responses is None:
        return f"No unit reaches a mean of {least}, below which rectification lowers the variance"
    return (
        f"{count(found['units_above'], 'unit')} of {found['units']} reach a mean of {least}, below "
        f"which rectification lowers the variance: their median Fano factor is "
        f"{found[SPIKES]:.2f} in spikes and {in_responses:.2f} in units of the response"
    )


def _examples(arrays: Mapping[str, np.ndarray]) -> list[int]:
    """Units spread over the preferred spatial frequencies, among those that respond enough."""
    frequency = np.asarray(arrays["value/peak_sf"], float)
    usable = np.flatnonzero(np.isfinite(frequency) & np.isfinite(arrays["value/pref_or"]))
    if not len(usable):
        return []
    ordered = usable[np.argsort(frequency[usable], kind="stable")]
    places = np.linspace(0.1, 0.9, _EXAMPLES) * (len(ordered) - 1)
    return list(dict.fromkeys(int(ordered[place]) for place in places.astype(int)))


def _told(arrays: Mapping[str, np.ndarray], unit: int) -> str:
    channel, row, col = (int(arrays[f"unit/{name}"][unit]) for name in ("channel", "row", "col"))
    return (
        f"channel {channel} at ({row}, {col}): {arrays['value/peak_sf'][unit]:.2g} cycles/degree, "
        f"{arrays['value/pref_or'][unit] % 180:.0f}°"
    )


def _reason(result: Result) -> str:
    return str(result.record["status"]).partition(": ")[2] or "no reason given"
