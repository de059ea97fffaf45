"""Characterises a layer as if it were V1, and compares it with neurons."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Shaped

from vone_jax import arguments, prng
from vone_jax.neurophysiology import recording, stimuli, texture_properties, textures, tuning
from vone_jax.neurophysiology.comparison import BOOTSTRAPS, PropertyScore, compare, group_scores
from vone_jax.neurophysiology.properties import PROPERTIES, PUBLISHED
from vone_jax.neurophysiology.properties import references as all_references
from vone_jax.neurophysiology.recording import (
    NotScoredError,
    OneKey,
    PerUnit,
    RateMap,
    ResponseFn,
    Site,
)
from vone_jax.neurophysiology.selection import find_units, is_stochastic, receptive_field_centres
from vone_jax.neurophysiology.stimuli import Display

# Tuning curve -> the name of its axis.
AXES = {
    "orientation": "orientation",
    "spatial_frequency": "spatial_frequency",
    "size": "diameter",
}


class Curve(NamedTuple):
    """The tuning curves of all units: ``values``, spikes per second, at each place of ``axis``."""

    axis: Float[np.ndarray, " places"]
    values: Float[np.ndarray, "places units"]


@dataclasses.dataclass(frozen=True, eq=False)
class Scores(Mapping[str, PropertyScore]):
    """The scores of a layer: a mapping from the 22 properties, and all values behind them.

    Attributes:
      properties: the scores.
      site: the units, and the part of the images that was shown.
      rate_map: the map from activations to spikes per second.
      trials: presentations over which responses were averaged.
      units: row, col and channel of each unit, and the centre of its receptive field in degrees
        below (field_y) and right (field_x) of fixation.
      per_unit: property -> values of all units; NaN where undefined, and where the unit does not
        respond enough to count. Also baseline and min_dc.
      counted: property -> True for units that count.
      curves: "orientation" (12 orientations in degrees), "spatial_frequency" (22, in cycles per
        degree) and "size" (12 diameters in degrees), each with its axis: rates in spikes per second
        through each unit's best condition; above grey for "size".
      field_maps: activations above grey, without noise, for a small grating at each position
        (y, x), both from -2.5 to 2.5 degrees from fixation in steps of 0.25.
    """

    properties: Mapping[str, PropertyScore]
    site: Site
    rate_map: RateMap
    trials: int
    units: Mapping[str, Shaped[np.ndarray, " units"]]
    per_unit: Mapping[str, PerUnit]
    counted: Mapping[str, Bool[np.ndarray, " units"]]
    curves: Mapping[str, Curve]
    field_maps: Float[np.ndarray, "21 21 units"]

    def __getitem__(self, name: str) -> PropertyScore:
        return self.properties[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.properties)

    def __len__(self) -> int:
        return len(self.properties)

    @property
    def display(self) -> Display:
        """The images that the layer saw."""
        return self.site.display

    @property
    def mean_score(self) -> float:
        """The mean over the 7 properties that can always be scored: one number for a layer."""
        scores = [self.properties[name].score or 0.0 for name in PUBLISHED]
        return sum(scores) / len(scores)

    @property
    def groups(self) -> dict[str, float | None]:
        """The mean score of each group; None where a member has no score."""
        return group_scores(self.properties)

    def summary(self) -> dict[str, Any]:
        """Return scores, distributions and settings as JSON values, without values per unit."""
        return {
            "visual_degrees": self.display.visual_degrees,
            "image_size": self.display.image_size,
            "trials": self.trials,
            "units": len(self.units["channel"]),
            "slope": self.rate_map.slope,
            "offset": self.rate_map.offset,
            "mean_score": self.mean_score,
            "groups": self.groups,
            "properties": {n: dataclasses.asdict(each) for n, each in self.properties.items()},
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all values per unit under flat names, for ``numpy.savez``.

        Receptive-field maps are relative to their largest value, in float16.
        """
        axes = {f"axis/{AXES[name]}": curve.axis for name, curve in self.curves.items()}
        axes["axis/position"] = stimuli.RECEPTIVE_FIELD_POSITIONS
        parts = ("unit", self.units), ("value", self.per_unit)
        curves = {name: curve.values for name, curve in self.curves.items()}
        parts += ("counted", self.counted), ("curve", curves)
        flat = {f"{part}/{name}": a for part, group in parts for name, a in group.items()}
        fields = self.field_maps / self.field_maps.max(axis=(0, 1))
        return axes | flat | {"field/map": fields.astype(np.float16)}

    def __str__(self) -> str:
        row = "{:30}{:>14}{:>8}{:>9}{:>7}{:>9}"
        lines = [row.format("property", "score", "raw", "ceiling", "units", "median")]
        for name, score in self.properties.items():
            outcome = score.status if score.score is None else f"{score.score:.3f}"
            numbers = (score.similarity, score.ceiling, score.units, score.median)
            cells = [_text(number) for number in numbers]
            if score.units is not None and score.median is None:
                cells[-1] = "  no unit has it"
            lines.append(row.format(name, outcome, *cells))
        lines.append(row.format("mean of the 7 published", f"{self.mean_score:.3f}", *[""] * 4))
        return "\n".join(lines)


def _text(number: float | None) -> str:
    if number is None:
        return ""
    return str(number) if isinstance(number, int) else f"{number:.3g}"


def score(
    response_fn: ResponseFn,
    visual_degrees: float = 8.0,
    image_size: int = 224,
    in_channels: int = 3,
    key: OneKey | None = None,
    *,
    selection_response_fn: ResponseFn | None = None,
    trials: int = 1,
    references: Mapping[str, Shaped[np.ndarray, " _"]] | None = None,
    texture_images: textures.TextureSet | None = None,
    bootstraps: int = BOOTSTRAPS,
    crop: bool = True,
) -> Scores:
    """Record a layer with the stimuli of macaque V1 physiology and score it against neurons.

    The steps are those of the MarquesEtAl2020 benchmarks: map receptive fields, select the units at
    the centre of the stimuli, map activations to spikes per second, measure tuning, and compare the
    distribution of each property with the published one.

    Args:
      response_fn: the layer, ``(keys, images) -> responses``: one typed key per image, float32
        images (n, image_size, image_size, in_channels) in [0, 1], responses of shape
        (n, rows, columns, channels) or (n, units). ``per_example`` adapts a function of one key.
      visual_degrees: field of view of the images, at least 6.2 degrees.
      image_size: side of the images in pixels.
      in_channels: channels of the images, all equal.
      key: typed key of noise and bootstraps. Default: ``jax.random.key(0)``.
      selection_response_fn: the layer without noise, which maps the receptive fields. Needed if
        ``response_fn`` has noise.
      trials: presentations of each grating to a layer with noise (Brain-Score: 20).
      references: property -> values of neurons, see ``reference_tables``. Without them 7 of the 22
        properties are scored, from published counts.
      texture_images: images of Freeman & Ziemba (2013), see ``textures``.
      bootstraps: populations drawn for each similarity.
      crop: show only the part of the images that reaches the units, if the layer accepts such
        images (measured, see ``find_units``). The results are the same.

    Raises:
      TypeError: if ``response_fn`` does not take (keys, images), or the key is not typed.
      ValueError: if an argument is out of range; if responses are not finite, all 0, of another
        shape or dependent on the other images of the batch; or if fewer than 20 units are at the
        centre of the stimuli.
    """
    display = Display(visual_degrees, image_size, in_channels)
    key = jax.random.key(0) if key is None else key
    prng.check_key(key)
    if key.shape != ():
        raise ValueError(f"key must be one scalar typed key, got shape {key.shape}")
    arguments.count("trials", trials)
    arguments.count("bootstraps", bootstraps)
    neurons = all_references(references)
    recording_key = prng.stream(key, "recording")
    noisy = is_stochastic(response_fn, recording_key, display)
    if selection_response_fn is None:
        if noisy:
            raise ValueError(
                "response_fn draws noise from its keys; pass the same layer without noise as "
                "selection_response_fn"
            )
        selection_response_fn = response_fn
    elif is_stochastic(selection_response_fn, recording_key, display):
        raise NotScoredError("selection_response_fn must not draw noise from its keys")
    site, maps = find_units(selection_response_fn, recording_key, display, crop)
    centres = receptive_field_centres(maps)
    recorder = Recorder(response_fn, recording_key, site, trials if noisy else 1)

    values, counted, curves, rate_map = recorder.grating_properties()
    if texture_images is not None:
        measured, driven = recorder.texture_properties(texture_images, rate_map)
        values |= measured
        counted |= dict.fromkeys(measured, driven)
    compared = {name: values[name][mask] for name, mask in counted.items()}
    scores = compare(prng.stream(key, "bootstrap"), compared, neurons, bootstraps)
    units = {"row": site.row, "col": site.col, "channel": site.channel}
    return Scores(
        properties=scores,
        site=site,
        rate_map=rate_map,
        trials=recorder.trials,
        units=units | {"field_y": centres[:, 0], "field_x": centres[:, 1]},
        per_unit={
            n: np.where(counted[n], v, np.nan) if n in counted else v for n, v in values.items()
        },
        counted=counted,
        curves=curves,
        field_maps=maps,
    )


class Recorder:
    """A layer, the units to record, and the number of presentations of each stimulus."""

    def __init__(self, response_fn: ResponseFn, key: OneKey, site: Site, trials: int):
        self.response_fn, self.key, self.site, self.trials = response_fn, key, site, trials
        self.blank = recording.record_blank(response_fn, key, site, trials)

    def record(self, gratings: stimuli.GratingSet) -> np.ndarray:
        """Return the activations, (*shape of the set, units)."""
        flat = recording.record(self.response_fn, self.key, gratings, self.site, self.trials)
        return flat.reshape(*gratings.shape, len(self.site))

    def grating_properties(self) -> tuple[dict, dict, dict, RateMap]:
        """Return values, masks of the units that count, curves, and the rate map of the layer."""
        activations = self.record(stimuli.orientation_set())
        largest = tuning.f0(activations).reshape(-1, len(self.site)).max(axis=0)
        rate_map = recording.fit_rate_map(largest, self.blank)
        blank = rate_map(self.blank)
        values: dict[str, np.ndarray] = {}
        driven: dict[tuple[str, str], np.ndarray] = {}

        def measure(experiment: str, activations: np.ndarray, properties: Callable) -> None:
            rates = rate_map(activations)
            values.update(properties(rates, blank))
            either = tuning.f0_and_f1(rates, blank)
            for kind, response in (("f0", either[0]), ("f0 or f1", either.max(axis=0))):
                top = response.reshape(-1, len(self.site)).max(axis=0)
                driven[experiment, kind] = top > recording.RESPONSE_THRESHOLD

        measure("orientation", activations, tuning.orientation_properties)
        recording.warn_of_offset(largest, self.blank, values["max_dc"])
        activations = self.record(stimuli.spatial_frequency_set())
        measure("spatial frequency", activations, tuning.spatial_frequency_properties)
        measure("size", self.record(stimuli.size_set()), tuning.size_properties)
        places = (stimuli.ORIENTATIONS, stimuli.SPATIAL_FREQUENCIES, 2.0 * stimuli.RADII)
        curves = {
            name: Curve(np.asarray(axis), values.pop(f"{name}_curve"))
            for name, axis in zip(AXES, places, strict=True)
        }
        counted = {
            name: driven[p.experiment, p.driven]
            for name, p in PROPERTIES.items()
            if p.experiment != "texture"
        }
        return values, counted, curves, rate_map

    def texture_properties(self, images: textures.TextureSet, rate_map: RateMap) -> tuple:
        """Return the values of the texture properties, and True for units that count."""

        def draw(batch: np.ndarray) -> np.ndarray:
            return textures.render(images, batch, self.site.display, self.site.window)

        def once(key: OneKey) -> np.ndarray:
            indices = np.arange(len(images))
            return recording.present(self.response_fn, key, draw, indices, self.site)

        mean = recording.averaged(once, prng.stream(self.key, "textures"), self.trials)
        rates = rate_map(mean).reshape(*images.shape, len(self.site))
        blank = rate_map(self.blank)
        measured = texture_properties.texture_properties(rates, blank)
        return measured, texture_properties.responsive(rates, blank)
