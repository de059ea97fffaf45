"""The section on layers as models of V1: their scores, and units of the best ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vone_jax import results
from vone_jax.report import charts, images, tuning
from vone_jax.report.charts import Figure
from vone_jax.report.provenance import Entry, entries
from vone_jax.report.wording import count, listing, phrase, words
from vone_jax.results import FIELD_MAPS, SCORED, TUNING_AXES, LayerScores, PropertyScore, Run

# Example units, from the lowest to the highest preferred spatial frequency.
_EXAMPLES = 4
# Scores of fewer units are uncertain. The smallest sample of neurons behind a score has 87.
FEW_UNITS = 100
# Twice the rate that the median unit of a layer has at its best grating, in spikes per second. With
# more, the map to rates has clipped many at 0, see ``neurophysiology.recording.warn_of_offset``.
_LARGEST_RATE = 67.6
# Share of a unit's largest response above which a place belongs to its field.
_IN_FIELD = 0.05


class Layer(Entry):
    """A layer that was scored."""

    @property
    def measured(self) -> LayerScores:
        """The scores of the layer."""
        assert self.result.scores is not None
        return self.result.scores

    @property
    def name(self) -> str:
        """The name of the recorded layer."""
        condition = self.result.condition
        assert isinstance(condition, results.PhysiologyCondition)
        return condition.layer

    @property
    def title(self) -> str:
        """The network and the layer, with what tells the result from others of the network."""
        return phrase(self.run.label, self.name, self.detail)

    @property
    def note(self) -> str:
        """The units, images and noise in words, and what tells the result from others."""
        measured = self.measured
        trials = f"{measured.trials} trials with noise" if measured.trials > 1 else ""
        size = f"{measured.image_size} px for {measured.visual_degrees:.3g}°"
        units = count(measured.units, "unit")
        return phrase(units, size, trials, self.detail)

    @property
    def scored(self) -> dict[str, PropertyScore]:
        """The properties with a score, by name."""
        properties = self.measured.properties
        return {name: item for name, item in properties.items() if item.status == SCORED}

    @property
    def is_control(self) -> bool:
        """True if the noise of the network was replaced."""
        return self.result.network.noise_replaced

    @property
    def few(self) -> bool:
        """True if a score is of fewer than ``FEW_UNITS`` units."""
        return any((item.units or 0) < FEW_UNITS for item in self.scored.values())

    @property
    def clipped(self) -> bool:
        """True if responses fall below those to grey as they rise above, so rates mean nothing."""
        largest = self.measured.properties.get("max_dc")
        return largest is not None and (largest.median or 0.0) > _LARGEST_RATE

    @property
    def dashes(self) -> str:
        """The dashes of the layer's line in histograms, as an attribute of SVG."""
        return " ".join(f"{2 * part:g}" for part in charts.dashes(self.position))

    def scores(self, columns: Sequence[tuple[str, str]]) -> list[float]:
        """The scores in properties of ``shared_properties``."""
        return [float(self.measured.properties[name].score or 0.0) for name, _ in columns]


def layers(runs: Sequence[Run]) -> list[Layer]:
    """The layers that were scored."""
    recorded = entries(runs, "physiology")
    return [Layer(*entry) for entry in recorded if entry.result.scores is not None]


def shared_properties(
    compared: Sequence[Layer], same_neurons: bool = True
) -> list[tuple[str, str]]:
    """(name, label) of the properties scored in all layers: only these can be compared.

    The scores are against the same neurons, or without ``same_neurons`` against different ones.
    """
    if not compared:
        return []
    scored = [layer.scored for layer in compared]
    shared = [
        [each[name] for each in scored]
        for name in scored[0]
        if all(name in each for each in scored)
    ]
    return [
        (items[0].name, words(items[0].label))
        for items in shared
        if same_neurons == (len(set(map(_reference, items))) == 1)
    ]


def _reference(item: PropertyScore) -> tuple:
    """The neurons of a score: their number, those without a value, and the shares in the bins."""
    shares = item.reference_distribution or ()
    return item.neurons, item.reference_undefined, tuple(round(share, 6) for share in shares)


def section(runs: Sequence[Run]) -> dict[str, Any] | None:
    """The values for the template; None if no layer was recorded."""
    recorded, scored = entries(runs, "physiology"), layers(runs)
    if not recorded:
        return None
    columns = shared_properties(scored)
    rows = []
    for layer in scored:
        scores = layer.scores(columns)
        rows.append((layer, float(np.mean(scores)) if scores else None, scores))
    # Without a shared property no layer has a mean.
    rows.sort(key=lambda row: (row[0].is_control, row[0].clipped, row[0].few, -(row[1] or 0.0)))
    best: dict[int, Layer] = {}
    for layer, _, _ in rows:
        best.setdefault(layer.position, layer)
    shown = [best[position] for position in sorted(best)]
    sources = [layer.measured.properties[name].source for layer in scored for name, _ in columns]
    return {
        "columns": [label for _, label in columns],
        "few": FEW_UNITS,
        "layers": rows,
        "best": shown,
        "failed": [entry for entry in recorded if entry.result.scores is None],
        "panels": [_panel(name, shown) for name, _ in columns],
        "sources": list(dict.fromkeys(sources)),
        "partly": _partly(scored),
        "needs": _needs(scored),
        "units": [_units(layer) for layer in shown if layer.result.arrays],
    }


def _panel(name: str, shown: Sequence[Layer]) -> tuple[str, Figure]:
    """The histogram of a property: title and figure."""
    first = shown[0].measured.properties[name]
    shares = [layer.measured.properties[name].distribution or () for layer in shown]
    lines = [(layer.title, layer.position, of) for layer, of in zip(shown, shares, strict=True)]
    neurons = first.reference_distribution or ()
    return words(first.label), tuning.property_chart(first.edges, first.unit, neurons, lines)


def _partly(scored: Sequence[Layer]) -> list[str]:
    """The scores in properties that only some layers have, which are not compared, in words."""
    parts = []
    labels = {n: p.label for layer in scored for n, p in layer.measured.properties.items()}
    for name, label in labels.items():
        having = [layer for layer in scored if name in layer.scored]
        values = [f"{layer.title}: {layer.scored[name].score:.3f}" for layer in having]
        if 0 < len(values) < len(scored):
            parts.append(f"{label} ({listing(values)})")
    return parts


def _needs(scored: Sequence[Layer]) -> dict[str, list[str]]:
    """A map from the reason of missing scores to the properties without a score in any layer."""
    told = {name for layer in scored for name in layer.scored}
    needs: dict[str, list[str]] = {}
    for item in (item for layer in scored for item in layer.measured.properties.values()):
        if item.name not in told:
            told.add(item.name)
            needs.setdefault(item.status, []).append(item.label)
    return needs


def _units(layer: Layer) -> dict[str, Any]:
    """Figures of single units of a layer."""
    arrays, position = layer.result.arrays, layer.position
    measured, chosen = layer.measured, _examples(arrays)
    curves = TUNING_AXES if chosen else ()
    simple = measured.simple_channels
    simple = None if simple is None else arrays["unit/channel"] < simple
    ratio = np.asarray(arrays["value/modulation_ratio"], float)
    response, trials = measured.contrast_response, measured.variability
    fitted = response and None not in (response.median_c50, response.median_exponent)
    return {
        "layer": layer,
        "curves": [(words(c), tuning.tuning_chart(arrays, c, chosen, position)) for c in curves],
        "examples": [(charts.marker(i), _label(arrays, unit)) for i, unit in enumerate(chosen)],
        "modulation": np.isfinite(ratio).any() and tuning.modulation_chart(ratio, simple, position),
        "kinds": simple is not None,
        "fields": tuning.field_chart(arrays["unit/field_x"], arrays["unit/field_y"], position),
        "maps": _field_maps(arrays, chosen) if chosen and FIELD_MAPS in arrays else [],
        "contrast": fitted and tuning.contrast_chart(arrays, position),
        "surround": measured.surround_tuning and tuning.surround_chart(arrays, position),
        "variability": trials and tuning.variability_chart(arrays, trials.has_spikes, position),
    }


def _field_maps(arrays: Mapping[str, np.ndarray], units: Sequence[int]) -> list[tuple[str, str]]:
    """Maps of responses to a small grating, relative to the largest: picture and description."""
    places, maps = arrays["axis/position"], np.asarray(arrays[FIELD_MAPS], np.float32)
    step = float(places[1] - places[0]) if len(places) > 1 else 1.0
    covered = maps[..., list(units)] > _IN_FIELD
    inside = covered.any(axis=(1, 2)) | covered.any(axis=(0, 2))
    # A square around the gratings that is large enough for the fields.
    distance = np.abs(places - tuning.CENTRE)
    shown = np.flatnonzero(distance <= distance[inside].max(initial=0.0) + 1.5 * step)
    cut = slice(shown[0], shown[-1] + 1) if len(shown) else slice(None)
    return [
        (
            images.heat_map(maps[cut, cut, unit], 1.0),
            f"Receptive-field map of unit {place + 1}, from {places[cut][0]:.3g} to "
            f"{places[cut][-1]:.3g} degrees: it covers {area:.2g} square degrees",
        )
        for place, unit in enumerate(units)
        for area in [np.sum(covered[..., place]) * step**2]
    ]


def _examples(arrays: Mapping[str, np.ndarray]) -> list[int]:
    """Units spread over the preferred spatial frequencies, among those that respond enough."""
    frequency = np.asarray(arrays["value/peak_sf"], float)
    usable = np.flatnonzero(np.isfinite(frequency) & np.isfinite(arrays["value/pref_or"]))
    if not len(usable):
        return []
    ordered = usable[np.argsort(frequency[usable], kind="stable")]
    places = np.linspace(0.1, 0.9, _EXAMPLES) * (len(ordered) - 1)
    return list(dict.fromkeys(int(ordered[place]) for place in places.astype(int)))


def _label(arrays: Mapping[str, np.ndarray], unit: int) -> str:
    channel, row, col = (int(arrays[f"unit/{name}"][unit]) for name in ("channel", "row", "col"))
    return (
        f"channel {channel} at ({row}, {col}): {arrays['value/peak_sf'][unit]:.2g} cycles/degree, "
        f"{arrays['value/pref_or'][unit] % 180:.0f}°"
    )
