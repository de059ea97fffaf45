"""Finds the units whose receptive field is centred on the stimuli, and the pixels they need.

The gratings lie around one point of the visual field, so few locations of a map respond to them as
required. If these locations depend on a part of the image only, the rest need not be computed: the
published VOneBlock then takes 1/16 of the work. Whether this holds is measured: responses to a crop
must equal the responses to the whole image.
"""

import dataclasses
import functools

import jax
import numpy as np
from jaxtyping import Float, UInt8

from vone_jax import functions, prng
from vone_jax.neurophysiology import recording, stimuli
from vone_jax.neurophysiology.recording import NotScoredError, OneKey, ResponseFn, Site, show
from vone_jax.neurophysiology.stimuli import Display, Window

# A location is a candidate if all its channels together respond to a small grating at the centre
# of the stimuli with this fraction of the most responsive location.
CANDIDATE_THRESHOLD = 0.05
# Bounds the memory of the receptive-field maps: 441 positions of 4 bytes for each unit.
MAX_CANDIDATES = 200_000
# Positions with more than this fraction of a unit's largest response belong to its field.
FIELD_THRESHOLD = 0.05
# Largest distance, in degrees, between the centre of a receptive field and that of the stimuli.
MAX_DISTANCE = 0.15
# Distributions of properties need at least this many units.
MIN_UNITS = 20
Maps = Float[np.ndarray, "21 21 units"]
_GRATINGS_PER_POSITION = 8
# Sides of the crops that are tried, as fractions of the image.
_CROPS = (0.25, 0.375, 0.5, 0.625, 0.75)
# Largest difference between crop and whole image, relative to the largest response.
_LOCALITY_TOLERANCE = 1e-5


def find_units(
    response_fn: ResponseFn, key: OneKey, display: Display, crop: bool = True
) -> tuple[Site, Maps]:
    """Find the units of a layer whose receptive field lies at the centre of the stimuli.

    The layer must have no noise. ``crop`` looks for a crop of the image that gives the same
    responses; a layer that accepts one image size only is shown whole images.

    Returns:
      The site to record, and the maps of its units: responses above grey to a small grating at each
      of 21 x 21 positions, see ``Scores.field_maps``.

    Raises:
      ValueError: if the layer responds to no grating, if a response depends on the other images of
        its batch, for the responses that ``record`` refuses, or if fewer than 20 units are near
        enough.
    """
    site = locate(response_fn, key, display, crop)
    maps = receptive_field_maps(response_fn, key, site)
    centres = receptive_field_centres(maps)
    distance = np.linalg.norm(centres - np.array(stimuli.CENTRE), axis=1)
    near = distance <= MAX_DISTANCE  # False for NaN: a unit without a field is dropped.
    if near.sum() < MIN_UNITS:
        raise NotScoredError(
            f"response_fn has {near.sum()} units with a receptive field within {MAX_DISTANCE} "
            f"degrees of the stimuli, of {len(site)} candidates; at least {MIN_UNITS} are needed. "
            f"Layers with very large receptive fields, and layers whose units are far apart, "
            f"cannot be characterised in this way"
        )
    site = site.keep(near)
    # The selected units may need fewer pixels than all candidates.
    return (cropped(response_fn, key, site) if crop else site), maps[..., near]


def receptive_field_maps(response_fn: ResponseFn, key: OneKey, site: Site) -> Maps:
    """Map responses above grey to small gratings at 21 x 21 positions, the best of 8 at each.

    The layer must have no noise, which would lift a map above its threshold everywhere and pull its
    centre to the middle.

    Returns:
      float32 maps >= 0, by (y, x) of ``stimuli.RECEPTIVE_FIELD_POSITIONS``.
    """
    gratings = stimuli.receptive_field_set()
    best = recording.record(response_fn, key, gratings, site, reduce_last=_GRATINGS_PER_POSITION)
    above = np.maximum(best - recording.record_blank(response_fn, key, site), 0.0)
    positions = len(stimuli.RECEPTIVE_FIELD_POSITIONS)
    return above.reshape(positions, positions, len(site))


def receptive_field_centres(maps: Maps) -> Float[np.ndarray, "units 2"]:
    """Return the centroids of maps above 5 % of their peaks, weighted by the response.

    Returns:
      (y, x) in degrees from fixation, float64; NaN for a unit whose map is 0 everywhere.
    """
    maps = maps.astype(np.float64)
    weights = np.where(maps > FIELD_THRESHOLD * maps.max(axis=(0, 1)), maps, 0.0)
    positions = stimuli.RECEPTIVE_FIELD_POSITIONS
    with np.errstate(invalid="ignore"):
        y = np.einsum("yxu,y->u", weights, positions) / weights.sum(axis=(0, 1))
        x = np.einsum("yxu,x->u", weights, positions) / weights.sum(axis=(0, 1))
    return np.stack([y, x], axis=1)


def locate(response_fn: ResponseFn, key: OneKey, display: Display, crop: bool = True) -> Site:
    """Find the candidate units around the centre of the stimuli, whose fields are then mapped.

    For arguments and errors see ``find_units``.

    Returns:
      A site with all channels of the candidate locations; for a layer without a map, all units.
    """
    pixels = _central_images(display)
    shown = show(response_fn, key, pixels, display.in_channels)
    recording.check_alone(response_fn, key, pixels, display.in_channels, shown)
    responses = np.maximum(shown, 0.0)
    driven = np.maximum(responses[1:] - responses[:1], 0.0).max(axis=0)
    if not driven.max() > 0:
        reason = "all responses are negative, and a negative one counts as 0"
        if shown.max() >= 0:
            reason = "no response is above that to grey, where a negative one counts as 0"
        raise NotScoredError(
            f"response_fn responds to no grating at the centre of the stimuli: {reason}"
        )
    if responses.ndim == 2:
        units = np.arange(responses.shape[1])
        zeros = np.zeros_like(units)
        return Site(display, display.whole(), units, zeros, zeros, units)

    height, width, channels = responses.shape[1:]
    strength = driven.sum(axis=-1).ravel()
    most = max(MAX_CANDIDATES // channels, 1)
    strongest = np.argsort(-strength, kind="stable")[:most]
    locations = np.sort(strongest[strength[strongest] >= CANDIDATE_THRESHOLD * strength.max()])
    rows, cols = np.divmod(locations, width)
    units = locations[:, None] * channels + np.arange(channels)
    channel = np.tile(np.arange(channels), len(locations))
    row, col = np.repeat(rows, channels), np.repeat(cols, channels)
    whole = Site(display, display.whole(), units.ravel(), row, col, channel)
    return cropped(response_fn, key, whole) if crop else whole


def cropped(response_fn: ResponseFn, key: OneKey, site: Site) -> Site:
    """Return the same units with the smallest window that gives the same responses.

    The site, of a layer without noise, is returned as it is if no smaller window is enough, or if
    the layer has no map or does not accept images of other sizes.
    """
    display, size = site.display, site.display.image_size
    if site.window.height * site.window.width <= (_CROPS[0] * size) ** 2:
        return site
    images = _probes(display)
    whole = show(response_fn, key, images, display.in_channels)
    if whole.ndim == 2:
        return site
    map_height, map_width, channels = whole.shape[1:]
    if size % map_height or size % map_width:
        return site
    stride = (size // map_height, size // map_width)
    expected = whole[:, site.row, site.col, site.channel]
    for fraction in _CROPS:
        top, height = _span(site.row, map_height, fraction)
        left, width = _span(site.col, map_width, fraction)
        window = Window(top * stride[0], left * stride[1], height * stride[0], width * stride[1])
        if window.height * window.width >= site.window.height * site.window.width:
            return site
        row, col = site.row - top, site.col - left
        if min(row.min(), col.min()) < 0 or row.max() >= height or col.max() >= width:
            continue
        bottom, right = window.top + window.height, window.left + window.width
        cut = images[:, window.top : bottom, window.left : right]
        if not _accepts(response_fn, key, cut, display):
            return site
        responses = show(response_fn, key, cut, display.in_channels)
        if responses.shape[1:] != (height, width, channels):
            return site
        difference = np.abs(responses[:, row, col, site.channel] - expected).max()
        if difference <= _LOCALITY_TOLERANCE * np.abs(expected).max():
            units = (row * width + col) * channels + site.channel
            return dataclasses.replace(site, window=window, units=units)
    return site


def is_stochastic(response_fn: ResponseFn, key: OneKey, display: Display) -> bool:
    """Return True if other keys give other responses to the same images.

    Raises:
      ValueError: if a response depends on the other images of its batch.
    """
    pixels = _central_images(display)[:2]
    keys = [prng.fold(prng.stream(key, "is stochastic"), n) for n in range(2)]
    first, second = (show(response_fn, key, pixels, display.in_channels) for key in keys)
    recording.check_alone(response_fn, keys[0], pixels, display.in_channels, first)
    return not np.array_equal(first, second)


def _central_images(display: Display) -> UInt8[np.ndarray, "9 side side"]:
    """Draw grey, and the gratings of the receptive-field set at the centre of the other sets."""
    table = stimuli.receptive_field_set().table
    central = table[np.all(table[:, :2] == stimuli.CENTRE, axis=1)]
    return np.concatenate([stimuli.blank(display), stimuli.render(central, display)])


def _span(locations: np.ndarray, count: int, fraction: float) -> tuple[int, int]:
    """Return the first location and the length of a crop around locations, inside the map."""
    size = min(int(np.ceil(count * fraction)), count)
    middle = (locations.min() + locations.max() + 1) / 2
    first = int(round(middle - size / 2))
    return min(max(first, 0), count - size), size


def _probes(display: Display) -> np.ndarray:
    """Draw images with structure everywhere: white noise and the largest gratings."""
    size = display.image_size
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (4, size, size), np.uint8)
    largest = stimuli.size_set().table.reshape(-1, 4, 6, 8, len(stimuli.PARAMETERS))[-1, :, 0, 0]
    return np.concatenate([noise, stimuli.render(largest, display)])


def _accepts(response_fn: ResponseFn, key: jax.Array, pixels: np.ndarray, display: Display) -> bool:
    """Return True if a layer that takes whole images takes images of this size, too."""
    functions.check_function(response_fn, "response_fn")
    keys = prng.example_keys(key, len(pixels))
    call = functools.partial(recording.call_layer, in_channels=display.in_channels)
    try:
        # Only shapes are computed. The layer's framework decides which error it raises for a size
        # that it does not take.
        jax.eval_shape(lambda *shown: call(response_fn, *shown), keys, pixels)
    except Exception:
        return False
    return True
