"""Characterises a layer as if it were V1, and compares it with neurons."""

from collections.abc import Mapping

import jax
import numpy as np

from vone_jax import prng
from vone_jax.neurophysiology import stimuli, texture_properties, textures, tuning
from vone_jax.neurophysiology.comparison import compare
from vone_jax.neurophysiology.display import Display
from vone_jax.neurophysiology.locate import is_stochastic
from vone_jax.neurophysiology.orientation import orientation_properties
from vone_jax.neurophysiology.properties import PROPERTIES
from vone_jax.neurophysiology.rates import RESPONSE_THRESHOLD, RateMap, fit_rate_map
from vone_jax.neurophysiology.recording import ResponseFn, Site, present, record, record_blank
from vone_jax.neurophysiology.references import references as all_references
from vone_jax.neurophysiology.results import Scores
from vone_jax.neurophysiology.selection import find_units, receptive_field_centres
from vone_jax.neurophysiology.similarity import BOOTSTRAPS
from vone_jax.neurophysiology.size import size_properties
from vone_jax.neurophysiology.spatial_frequency import spatial_frequency_properties

_CURVES = ("orientation", "spatial_frequency", "size")


def score(
    response_fn: ResponseFn,
    visual_degrees: float = 8.0,
    image_size: int = 224,
    in_channels: int = 3,
    key: jax.Array | None = None,
    *,
    selection_response_fn: ResponseFn | None = None,
    trials: int = 1,
    references: Mapping[str, np.ndarray] | None = None,
    texture_images: textures.TextureSet | None = None,
    bootstraps: int = BOOTSTRAPS,
    crop: bool = True,
) -> Scores:
    """Records a layer with the stimuli of macaque V1 physiology and scores it against neurons.

    The steps are those of the MarquesEtAl2020 benchmarks: map receptive fields, keep the units at
    the centre of the stimuli, map activations to spikes per second, measure tuning, compare the
    distribution of each property with the published one.

    Args:
      response_fn: the layer, ``(key, images) -> responses`` of shape (N, H, W, C) or (N, units),
        with images float32 (N, image_size, image_size, in_channels) in [0, 1].
      visual_degrees: field of view of the images, at least 6.2 degrees.
      image_size: side of the images in pixels.
      in_channels: channels of the images, all equal.
      key: scalar typed key of noise and bootstraps. Default: ``jax.random.key(0)``.
      selection_response_fn: the layer without noise, needed if ``response_fn`` has noise:
        receptive fields must not be mapped with it.
      trials: presentations of each grating to a layer with noise (Brain-Score takes 20).
      references: values of neurons by property, see ``reference_tables``. Without them, 7 of the
        22 properties can be scored, from published counts.
      texture_images: of Freeman & Ziemba (2013), see ``textures``. Properties of a proxy are
        measured, but not scored.
      bootstraps: populations drawn for each similarity.
      crop: whether to show only the part of the images that reaches the units, if there is one
        (measured, see ``locate``). The results are the same.

    Returns:
      A mapping from property to score, with all values and curves per unit.

    Raises:
      TypeError: if ``response_fn`` cannot be called or the key is not typed.
      ValueError: for arguments out of range, responses that are not finite, of another shape, or
        all 0, or fewer than 20 units at the centre of the stimuli.
    """
    display = Display(visual_degrees, image_size, in_channels)
    key = jax.random.key(0) if key is None else key
    _check(key, trials, bootstraps)
    known = all_references(references)
    recording_key = prng.stream(key, "recording")
    noisy = is_stochastic(response_fn, recording_key, display)
    without_noise = response_fn if selection_response_fn is None else selection_response_fn
    if is_stochastic(without_noise, recording_key, display):
        raise ValueError(
            "response_fn draws noise from its key; give the same layer without noise as "
            "selection_response_fn"
            if selection_response_fn is None
            else "selection_response_fn must not draw noise from its key"
        )
    site, maps = find_units(without_noise, recording_key, display, crop)
    centres = receptive_field_centres(maps)
    recorder = _Recorder(response_fn, recording_key, site, trials if noisy else 1)

    values, counted, curves, rate_map = recorder.grating_properties()
    scored = dict(counted)
    if texture_images is not None:
        measured, driven = recorder.texture_properties(texture_images, rate_map)
        values |= measured
        counted |= dict.fromkeys(measured, driven)
        if not texture_images.is_proxy:
            scored = counted
    compared = {name: values[name][mask] for name, mask in scored.items()}
    scores = compare(prng.stream(key, "bootstrap"), compared, known, bootstraps)
    return Scores(
        properties=scores,
        site=site,
        rate_map=rate_map,
        trials=recorder.trials,
        units={
            "row": site.row,
            "col": site.col,
            "channel": site.channel,
            "field_y": centres[:, 0],
            "field_x": centres[:, 1],
        },
        per_unit={
            n: np.where(counted[n], v, np.nan) if n in counted else v for n, v in values.items()
        },
        counted=counted,
        curves=curves,
        field_maps=maps,
    )


class _Recorder:
    """A layer, the units to record from, and how often each stimulus is shown."""

    def __init__(self, response_fn: ResponseFn, key: jax.Array, site: Site, trials: int):
        self.response_fn, self.key, self.site, self.trials = response_fn, key, site, trials
        self.blank = record_blank(response_fn, key, site, trials)

    def record(self, gratings: stimuli.GratingSet) -> np.ndarray:
        """Activations, (*shape of the set, U)."""
        flat = record(self.response_fn, self.key, gratings, self.site, self.trials)
        return flat.reshape(*gratings.shape, len(self.site))

    def grating_properties(self) -> tuple[dict, dict, dict, RateMap]:
        """Values, masks of the units that count, curves, and the rate map of the layer."""
        activations = self.record(stimuli.orientation_set())
        largest = tuning.f0(activations).reshape(-1, len(self.site)).max(axis=0)
        rate_map = fit_rate_map(largest, self.blank)
        blank = rate_map(self.blank)
        values: dict[str, np.ndarray] = {}
        driven: dict[tuple[str, str], np.ndarray] = {}
        for experiment, gratings, properties in (
            ("orientation", None, orientation_properties),
            ("spatial frequency", stimuli.spatial_frequency_set(), spatial_frequency_properties),
            ("size", stimuli.size_set(), size_properties),
        ):
            rates = rate_map(activations if gratings is None else self.record(gratings))
            values |= properties(rates, blank)
            evoked = tuning.f0(rates) - blank
            either = np.maximum(evoked, tuning.f1(rates))
            for kind, response in (("f0", evoked), ("f0 or f1", either)):
                top = response.reshape(-1, len(self.site)).max(axis=0)
                driven[experiment, kind] = top > RESPONSE_THRESHOLD
        curves = {name: values.pop(f"{name}_curve") for name in _CURVES}
        counted = {
            name: driven[p.experiment, p.driven]
            for name, p in PROPERTIES.items()
            if p.experiment != "texture"
        }
        return values, counted, curves, rate_map

    def texture_properties(
        self, images: textures.TextureSet, rate_map: RateMap
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Values of the texture properties, and the units that count."""

        def draw(batch: np.ndarray) -> np.ndarray:
            return textures.render(images, batch, self.site.display, self.site.window)

        total = np.zeros((len(images), len(self.site)), np.float32)
        for trial in range(self.trials):
            key = prng.fold(prng.stream(self.key, "textures"), trial)
            total += present(self.response_fn, key, draw, np.arange(len(images)), self.site)
        activations = total / np.float32(self.trials)
        rates = rate_map(activations).reshape(*images.shape, len(self.site))
        blank = rate_map(self.blank)
        measured = texture_properties.texture_properties(rates, blank)
        return measured, texture_properties.responsive(rates, blank)


def _check(key: jax.Array, trials: int, bootstraps: int) -> None:
    prng.check_key(key)
    if key.shape != ():
        raise ValueError(f"key must be one scalar typed key, got shape {key.shape}")
    for name, value in (("trials", trials), ("bootstraps", bootstraps)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
