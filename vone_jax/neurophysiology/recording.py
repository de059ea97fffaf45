"""Records a layer as if it were cortex: stimuli in, responses and firing rates of units out."""

import contextlib
import contextvars
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Float64, Int, Key, Shaped, UInt8

from vone_jax import arguments, fast, functions, prng
from vone_jax.neurophysiology import stimuli
from vone_jax.neurophysiology.stimuli import Display, GratingSet, Window

# A layer: (keys, images) -> responses, with one typed key (n,) for each float32 image (n, h, w, c)
# in [0, 1], and floating-point responses (n, rows, columns, channels) or (n, units).
ResponseFn = Callable[[jax.Array, jax.Array], jax.Array]
OneKey = Key[Array, ""]
PerUnit = Float[np.ndarray, " units"]

# What messages call a layer and the adapter of a function of a single key.
_NAMES = "response_fn", "neurophysiology.per_example"

# Medians and maximum over neurons of macaque V1, in spikes per second, and the rate above grey
# that a unit must exceed to count: MarquesEtAl2020, from Ringach et al. (2002), J. Neuroscience
# 22:5639-5651.
MEDIAN_MAX = 33.8
MEDIAN_SPONTANEOUS = 0.82
LARGEST_MAX = 243.1
RESPONSE_THRESHOLD = 5.0

# Pixels of a batch of images: about 16 images of 224 pixels, 128 of small ones.
_BATCH_PIXELS = 16 * 224 * 224
_LARGEST_BATCH = 128
# Responses of a layer that are kept at a time, and columns that are reduced at a time.
_PART, _COLUMNS = 2**26, 8192
# A response may differ by this share of the largest between two batches: a GPU may add in another
# order.
_SAME = 1e-3
# The same for a response at another place of the batch. A compiled program may round by the place,
# which makes a difference of 1 % in layers of bfloat16.
_SAME_ELSEWHERE = 0.05


# Called with the number of images of a data set or of gratings that are shown, see ``reporting``.
_report: contextvars.ContextVar[Callable[[int], object]] = contextvars.ContextVar(
    "report", default=lambda shown: None
)


@contextlib.contextmanager
def reporting(report: Callable[[int], object]) -> Iterator[None]:
    """Call ``report`` with the number of stimuli of each batch, within a ``with`` block.

    Each grating counts once for each trial, also those outside a site's window, and each image of
    ``layer_features`` once. Images that only find units or measure the response to grey do not.
    """
    token = _report.set(report)
    try:
        yield
    finally:
        _report.reset(token)


class NotScoredError(ValueError):
    """A layer that cannot be characterised in this way, such as one with too few units."""


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """The recorded units of a layer, and the part of the image that they need.

    A unit is one channel at one location of the layer.

    Attributes:
      display: what the layer sees.
      window: the part of the image that is shown to the layer; see ``find_units``.
      units: position of each unit in the flattened response to the window.
      row: row of each unit in the layer's map; 0 for layers without a map.
      col: column of each unit, likewise.
      channel: channel of each unit.
    """

    display: Display
    window: Window
    units: Int[np.ndarray, " units"]
    row: Int[np.ndarray, " units"]
    col: Int[np.ndarray, " units"]
    channel: Int[np.ndarray, " units"]

    def __len__(self) -> int:
        return len(self.units)

    def keep(self, mask: np.ndarray) -> "Site":
        """Return the site with the units where ``mask``, bool (units,), is true.

        Raises:
          ValueError: if no unit is left.
        """
        if not np.any(mask):
            raise ValueError(f"mask must keep at least one of {len(self)} units, got none")
        arrays = {n: getattr(self, n)[mask] for n in ("units", "row", "col", "channel")}
        return dataclasses.replace(self, **arrays)


def record(
    response_fn: ResponseFn,
    key: OneKey,
    gratings: GratingSet,
    site: Site,
    trials: int = 1,
    reduce_last: int = 1,
) -> Float32[np.ndarray, "conditions units"]:
    """Record responses to gratings, clipped at 0 and averaged over trials.

    Each grating is presented ``trials`` times. Gratings outside the site's window are not shown.
    Their response is that to grey, with one draw of the noise per trial. ``reduce_last`` returns
    the maximum of this many consecutive gratings, before averaging.

    Raises:
      ValueError: if a response is not finite, or neither (n, rows, columns, channels) nor
        (n, units), or for fewer than one trial.
    """
    arguments.count("trials", trials)
    tables = (gratings.table,) if gratings.below is None else (gratings.table, gratings.below)
    visible = np.any([stimuli.visible(t, site.display, site.window) for t in tables], axis=0)
    shown = np.any(visible.reshape(-1, reduce_last), axis=1)
    indices = np.arange(len(gratings)).reshape(-1, reduce_last)[shown].ravel()

    def draw(batch: np.ndarray) -> jax.Array:
        # The last batch is filled up with its last grating.
        _report.get()(len(np.unique(batch)))
        below = None if gratings.below is None else gratings.below[batch]
        return stimuli.render(gratings.table[batch], site.display, site.window, below)

    def once(trial_key: OneKey) -> np.ndarray:
        _report.get()(len(gratings) - len(indices))
        responses = np.empty((len(shown), len(site)), np.float32)
        responses[shown] = present(response_fn, trial_key, draw, indices, site, reduce_last)
        if not np.all(shown):
            responses[~shown] = record_blank(response_fn, trial_key, site)
        return responses

    return averaged(once, prng.stream(key, gratings.name), trials)


def averaged(once: Callable[[OneKey], np.ndarray], key: OneKey, trials: int) -> np.ndarray:
    """Return the mean of float32 responses over trials, each with a key of its own."""
    total = once(prng.fold(key, 0))
    for trial in range(1, trials):
        total += once(prng.fold(key, trial))
    return total / np.float32(trials)


def record_blank(response_fn: ResponseFn, key: OneKey, site: Site, trials: int = 1) -> PerUnit:
    """Record responses to uniform grey, clipped at 0 and averaged over trials, in float32."""
    key = prng.stream(key, "blank")
    grey = stimuli.blank(site.display, site.window)
    return present(
        response_fn, key, lambda batch: np.repeat(grey, len(batch), 0), np.arange(trials), site
    ).mean(axis=0, dtype=np.float32)


def present(
    response_fn: ResponseFn,
    key: OneKey,
    draw: Callable[[np.ndarray], np.ndarray | jax.Array],
    indices: Int[np.ndarray, " images"],
    site: Site,
    reduce_last: int = 1,
    rectify: bool = True,
) -> Float32[np.ndarray, "conditions units"]:
    """Show images in batches of one size, once, and return the site's responses as ``record`` does.

    The function ``draw`` returns uint8 images (n, window height, window width) by their indices.
    The image with index i has the key ``fold_in(key, i)``. ``rectify`` clips responses at 0.
    """
    units = jnp.asarray(site.units, jnp.int32)
    size = batch_size(site.window, len(indices), reduce_last)
    shape = (size, site.window.height, site.window.width)
    recorded = functools.partial(
        _responses,
        _traced(response_fn, shape, site.display.in_channels),
        in_channels=site.display.in_channels,
        units=units,
        reduce_last=reduce_last,
        rectify=rectify,
    )
    nothing = np.zeros((0, len(site)), np.float32)
    responses = np.concatenate([nothing, *_in_batches(recorded, key, draw, indices, size)])
    return responses[: len(indices) // reduce_last]


def layer_features(
    response_fn: ResponseFn,
    key: OneKey,
    images: Shaped[np.ndarray, "n s s"],
    in_channels: int = 3,
    batch_size: int = 16,
) -> Float64[np.ndarray, "n dimensions"]:
    """Record a whole layer without rectification, as the features of ``explained_variance``.

    The grey images in uint8, for instance from ``textures.reframe``, are shown in ``in_channels``
    equal channels, once for each part of a large layer, whose responses would not fit in memory.
    The noise of an image does not depend on the batch.

    Returns:
      The responses as ``rotated`` returns them: distances and angles between images are those of
      the whole layer.

    Raises:
      TypeError: if images are not uint8 or the key is not typed.
      ValueError: if a shape does not fit, a response is not finite, or it depends on the other
        images of its batch.
    """
    prng.check_key(key)
    stimuli.check_uint8(images)
    if images.ndim != 3 or 0 in images.shape:
        raise ValueError(f"images must have shape (n, s, s), got {images.shape}")
    arguments.count("batch_size", batch_size)
    key, indices = prng.stream(key, "explained variance"), np.arange(len(images))
    size = min(batch_size, len(images))
    first, again = (prng.index_keys(key, indices[:size]) for _ in range(2))
    shown = show(response_fn, first, images[:size], in_channels)
    check_alone(response_fn, again, images[:size], in_channels, shown)
    units = np.arange(np.prod(shown.shape[1:]))
    traced = _traced(response_fn, (size, *images.shape[1:]), in_channels)
    basis, most, reported = None, _PART // len(images) + 1, 0
    for part in np.split(units, range(most, len(units), most)):
        layer = functools.partial(
            _responses, traced, in_channels=in_channels, units=jnp.asarray(part, jnp.int32)
        )
        responses = np.concatenate([*_in_batches(layer, key, images.__getitem__, indices, size)])
        basis = rotated(responses[: len(images)], basis)
        done = len(images) * int(part[-1] + 1) // len(units)
        _report.get()(done - reported)
        reported = done
    assert basis is not None
    return basis


def rotated(
    features: Shaped[np.ndarray, "n features"], basis: Float64[np.ndarray, "n _"] | None = None
) -> Float64[np.ndarray, "n dimensions"]:
    """Return centred features in an orthonormal basis of the space that the images span.

    All distances and angles between images stay as they are: this is a change of basis, not a
    selection of components. The result has at most n columns. With ``basis``, the result of other
    features of the same images, it is the result of all of them together.
    """
    triangle = np.zeros((len(features), 0)) if basis is None else basis
    for start in range(0, features.shape[1], _COLUMNS):
        columns = features[:, start : start + _COLUMNS].astype(np.float64)
        # The triangular factor has the same inner products as the columns so far.
        stacked = np.concatenate([triangle, columns - columns.mean(axis=0)], axis=1)
        triangle = np.asarray(np.linalg.qr(stacked.T, mode="r")).T
    return triangle


def batch_size(window: Window, count: int, multiple: int) -> int:
    """Return the images per batch, a multiple of ``multiple`` and not much above ``count``."""
    fit = min(_BATCH_PIXELS // (window.height * window.width), _LARGEST_BATCH, count)
    return max(fit // multiple, 1) * multiple


def _in_batches(
    layer: Callable[[jax.Array, jax.Array], jax.Array],
    key: OneKey,
    draw: Callable[[np.ndarray], np.ndarray | jax.Array],
    indices: np.ndarray,
    size: int,
) -> Iterator[np.ndarray]:
    """Yield a layer's responses to equal batches; the last batch repeats its last image."""
    waiting = None
    # The host draws a batch while the device computes the responses to the batch before.
    for start in range(0, len(indices), size):
        batch = indices[start : start + size]
        batch = np.pad(batch, (0, size - len(batch)), mode="edge")
        keys = prng.index_keys(key, jnp.asarray(batch, jnp.uint32))
        images = jnp.asarray(draw(batch))
        if waiting is not None:
            yield _finite(np.asarray(waiting))
        waiting = layer(keys, images)
    if waiting is not None:
        yield _finite(np.asarray(waiting))


def _traced(response_fn: ResponseFn, shape: tuple[int, ...], in_channels: int) -> ResponseFn:
    """Return a layer as a pytree, for grey images of a shape (n, h, w); see ``functions``."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), shape[0]))
    images = jax.ShapeDtypeStruct((*shape, in_channels), np.float32)
    with _noting_shape(images.shape):
        return functions.as_pytree(response_fn, keys, images, *_NAMES)


@contextlib.contextmanager
def _noting_shape(shape: tuple[int, ...]) -> Iterator[None]:
    """Add a note to what a layer raises, which states the shape of the images."""
    try:
        yield
    except Exception as error:
        error.add_note(
            f"response_fn was called with images of shape {shape}; image_size and "
            f"in_channels must be those of the layer."
        )
        raise


def call_layer(
    function: ResponseFn, keys: Key[Array, " n"], pixels: UInt8[Array, "n h w"], in_channels: int
) -> Float[Array, "n ..."]:
    """Call a layer with one key per image, in full float32 precision.

    The grey images are repeated in all channels and scaled to [0, 1].

    Raises:
      Exception: what the layer raises, with a note that states the shape of the images.
      ValueError: if responses are neither (n, rows, columns, channels) nor (n, units).
      TypeError: if the responses are not floating point.
    """
    grey = pixels.astype(jnp.float32) / 255.0
    images = jnp.repeat(grey[..., None], in_channels, axis=-1)
    # Tuning must not depend on the rounding of an accelerator's fast matrix products.
    with jax.default_matmul_precision("highest"), _noting_shape(images.shape):
        responses = functions.call_with_keys(function, keys, images, *_NAMES)
    shape = getattr(responses, "shape", None)
    if shape is None or len(shape) not in (2, 4) or shape[0] != images.shape[0]:
        raise ValueError(
            f"response_fn must return responses of shape (n, rows, columns, channels) or "
            f"(n, units) with n = {images.shape[0]}, got "
            f"{type(responses).__name__ if shape is None else shape}"
        )
    if not jnp.issubdtype(responses.dtype, jnp.floating):
        raise TypeError(f"response_fn must return floating-point responses, got {responses.dtype}")
    return responses.astype(jnp.float32)


def show(
    response_fn: ResponseFn,
    key: OneKey | prng.Keys,
    pixels: UInt8[np.ndarray | Array, "n h w"],
    in_channels: int,
) -> Float[np.ndarray, "n ..."]:
    """Return the responses of the whole layer. ``key`` is one key, or one key per image."""
    keys = prng.example_keys(key, len(pixels))
    function = _traced(response_fn, pixels.shape, in_channels)
    responses = _responses(function, keys, jnp.asarray(pixels), in_channels=in_channels)
    return _finite(np.asarray(responses))


def check_alone(
    response_fn: ResponseFn,
    key: OneKey | prng.Keys,
    pixels: UInt8[np.ndarray, "n h w"],
    in_channels: int,
    responses: Float[np.ndarray, "n ..."],
) -> None:
    """Check that a response does not depend on the other images of its batch.

    ``responses`` are those of ``show`` to the images. The last image is shown again, with its key,
    at both ends of a batch of noise. The batch has the same shape, so nothing is compiled again.

    Raises:
      ValueError: if the response to this image has changed.
    """
    # The seed is unusual, since a user may show noise with the seed 0.
    noise = np.random.Generator(np.random.PCG64(7919)).integers(0, 256, pixels.shape, np.uint8)
    last, keys = pixels[-1:], prng.example_keys(key, len(pixels))
    others = np.concatenate([last, noise[1:-1], last])[-len(pixels) :]
    again = show(response_fn, jnp.roll(keys, 1).at[-1].set(keys[-1]), others, in_channels)
    moved, stayed = (np.abs(each - responses[-1]).max() for each in (again[0], again[-1]))
    if max(moved / _SAME_ELSEWHERE, stayed / _SAME) > np.abs(responses).max():
        raise ValueError(
            "response_fn must respond to an image by its own pixels and key alone, but the "
            "response changes with the other images of the batch, their keys or its place in it; "
            "compute batch norm with its running statistics, subtract no mean over the batch, and "
            "draw the noise of each image from its own key"
        )


def _finite(responses: np.ndarray) -> np.ndarray:
    if not np.all(np.isfinite(responses)):
        raise ValueError("response_fn returned values that are not finite (NaN or infinite)")
    return responses


@functools.partial(jax.jit, static_argnames=("in_channels", "reduce_last", "rectify"))
def _responses(function, keys, pixels, *, in_channels, units=None, reduce_last=1, rectify=False):
    responses = call_layer(function, keys, pixels, in_channels)
    if units is None:
        return responses
    recorded = jnp.take(responses.reshape(responses.shape[0], -1), units, axis=1)
    if rectify:
        recorded = fast.relu(recorded)
    return fast.largest(recorded.reshape(-1, reduce_last, units.shape[0]), axis=1)


@dataclasses.dataclass(frozen=True)
class RateMap:
    """The map max(0, slope * activation + offset) of a layer to rates in spikes per second."""

    slope: float
    offset: float

    def __call__(self, activations: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return np.maximum(self.slope * activations + self.offset, 0.0).astype(activations.dtype)


def fit_rate_map(largest_f0: PerUnit, blank: PerUnit) -> RateMap:
    """Fit the map that gives responsive units the median rates of macaque V1.

    ``largest_f0`` is each unit's largest mean response in the orientation set, ``blank`` its
    response to grey.

    Raises:
      ValueError: if no unit responds more to gratings than to grey.
    """
    if not (largest_f0 - blank).max() > 0:
        raise NotScoredError("response_fn responds to no grating of the orientation set above grey")
    responsive = _responsive(largest_f0, blank)
    top = float(np.median(largest_f0[responsive]))
    spontaneous = float(np.median(blank[responsive]))
    slope = (MEDIAN_MAX - MEDIAN_SPONTANEOUS) / (top - spontaneous)
    return RateMap(slope, MEDIAN_SPONTANEOUS - slope * spontaneous)


def warn_of_offset(largest_f0: PerUnit, blank: PerUnit, largest_rate: PerUnit) -> None:
    """Warn if the median unit is more than twice as active as the median neuron of V1.

    The rate map has then clipped many rates at 0. ``largest_rate`` is the largest mean rate of each
    unit in spikes per second; see ``fit_rate_map`` for the other arguments.
    """
    median = float(np.median(largest_rate[_responsive(largest_f0, blank)]))
    if median > 2 * MEDIAN_MAX:
        warnings.warn(
            f"the median unit has {median:.0f} spikes/s at its best grating, expected "
            f"{MEDIAN_MAX}: the responses of this layer fall below those to grey about as much as "
            f"they rise above them, so its rates mean nothing; record it behind its nonlinearity",
            stacklevel=2,
        )


def _responsive(largest_f0: PerUnit, blank: PerUnit) -> Bool[np.ndarray, " units"]:
    evoked = largest_f0 - blank
    return evoked > RESPONSE_THRESHOLD / LARGEST_MAX * evoked.max()
