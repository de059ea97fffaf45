"""Finds where in a layer to record, and how little of the image has to be shown for it.

The gratings lie around one point of the visual field, so only few locations of a map respond to
them in the way that is asked for. If those locations see only a part of the image, the rest need
not be computed: for the published VOneBlock this is 1/16 of the work. Whether they do is measured,
not assumed: the responses to a crop must equal those to the whole image.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import prng
from vone_jax.neurophysiology import stimuli
from vone_jax.neurophysiology.display import Display, Window
from vone_jax.neurophysiology.recording import (
    ResponseFn,
    Site,
    as_pytree,
    call_layer,
    to_images,
)

# A location is a candidate if its channels together respond to a small grating at the centre of
# the stimuli with this fraction of the most responsive location.
CANDIDATE_THRESHOLD = 0.05
# Bounds the memory of the receptive-field maps: 441 positions of 4 bytes for each unit.
MAX_CANDIDATES = 200_000
# Sides of the crops that are tried, as fractions of the image.
_CROPS = (0.25, 0.375, 0.5, 0.625, 0.75)
# Largest difference between crop and whole image, relative to the largest response.
_LOCALITY_TOLERANCE = 1e-5


def locate(response_fn: ResponseFn, key: jax.Array, display: Display, crop: bool = True) -> Site:
    """The candidate units around the centre of the stimuli, to map the receptive fields of.

    Args:
      response_fn: the layer, without noise.
      key: typed key, passed to the layer.
      display: what the layer sees.
      crop: look for a part of the image that is enough. Needs a layer that accepts other image
        sizes; it is left out where one does not.

    Returns:
      A site with all channels of the candidate locations (for a layer without a map, all units).

    Raises:
      ValueError: if the layer responds to no grating, gives values that are not finite, or has
        responses of another shape than (N, H, W, C) or (N, units).
    """
    function = as_pytree(response_fn)
    table = _central_gratings()
    pixels = np.concatenate([stimuli.blank(display), stimuli.render(table, display)])
    responses = np.maximum(_show(function, key, jnp.asarray(pixels), display.in_channels), 0.0)
    driven = np.maximum(responses[1:] - responses[:1], 0.0).max(axis=0)
    if not driven.max() > 0:
        raise ValueError(
            "response_fn responds to no grating at the centre of the stimuli: all responses are "
            "0, or equal to the response to grey"
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
    whole = Site(
        display=display,
        window=display.whole(),
        units=units.ravel(),
        row=np.repeat(rows, channels),
        col=np.repeat(cols, channels),
        channel=np.tile(np.arange(channels), len(locations)),
    )
    return cropped(function, key, whole) if crop else whole


def _central_gratings() -> np.ndarray:
    """The small gratings of the receptive-field set at the centre of all other stimuli."""
    table = stimuli.receptive_field_set().table
    return table[np.all(table[:, :2] == stimuli.CENTRE, axis=1)]


def cropped(response_fn: ResponseFn, key: jax.Array, site: Site) -> Site:
    """The same units, seen through the smallest crop that gives the same responses.

    Args:
      response_fn: the layer, without noise.
      key: typed key, passed to the layer.
      site: units of a layer with a map, in any window.

    Returns:
      The site with another window, or as it is where no crop is smaller and enough, or the layer
      does not accept images of other sizes.
    """
    function, display = as_pytree(response_fn), site.display
    size = display.image_size
    if site.window.height * site.window.width <= (_CROPS[0] * size) ** 2:
        return site
    probes = _probes(display)
    images = jnp.asarray(probes)
    whole = _show(function, key, images, display.in_channels)
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
        cut = images[
            :, window.top : window.top + window.height, window.left : window.left + window.width
        ]
        try:
            responses = _show(function, key, cut, display.in_channels)
        except Exception:
            # It took the whole images, so it takes images of one size only. What a layer raises
            # then is its framework's choice.
            return site
        if responses.shape[1:] != (height, width, channels):
            return site
        difference = np.abs(responses[:, row, col, site.channel] - expected).max()
        if difference <= _LOCALITY_TOLERANCE * np.abs(expected).max():
            units = (row * width + col) * channels + site.channel
            return dataclasses.replace(site, window=window, units=units)
    return site


def _span(locations: np.ndarray, count: int, fraction: float) -> tuple[int, int]:
    """First location and number of locations of a crop around locations, inside the map."""
    size = min(int(np.ceil(count * fraction)), count)
    middle = (locations.min() + locations.max() + 1) / 2
    first = int(round(middle - size / 2))
    return min(max(first, 0), count - size), size


def _probes(display: Display) -> np.ndarray:
    """Images with structure everywhere: white noise, and the largest gratings."""
    size = display.image_size
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (4, size, size), np.uint8)
    largest = stimuli.size_set().table.reshape(-1, 4, 6, 8, len(stimuli.PARAMETERS))[-1, :, 0, 0]
    return np.concatenate([noise, stimuli.render(largest, display)])


def _show(function, key, pixels: jax.Array, in_channels: int) -> np.ndarray:
    keys = prng.example_keys(key, pixels.shape[0])
    responses = np.asarray(_everywhere(function, keys, pixels, in_channels))
    if not np.all(np.isfinite(responses)):
        raise ValueError("response_fn returned values that are not finite (NaN or infinite)")
    return responses


@functools.partial(jax.jit, static_argnums=3)
def _everywhere(function, keys, pixels, in_channels):
    with jax.default_matmul_precision("highest"):
        return call_layer(function, keys, to_images(pixels, in_channels))


def is_stochastic(response_fn: ResponseFn, key: jax.Array, display: Display) -> bool:
    """Whether two draws of the key give different responses to the same grating."""
    function = as_pytree(response_fn)
    pixels = jnp.asarray(stimuli.render(_central_gratings()[:1], display))
    first, second = (
        _show(
            function, prng.fold(prng.stream(key, "is stochastic"), n), pixels, display.in_channels
        )
        for n in range(2)
    )
    return not np.array_equal(first, second)
