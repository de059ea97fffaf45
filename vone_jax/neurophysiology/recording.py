"""Records a layer as if it were cortex: stimuli in, responses of chosen units out."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import prng
from vone_jax.neurophysiology import stimuli
from vone_jax.neurophysiology.display import Display, Window
from vone_jax.neurophysiology.stimuli import GratingSet

ResponseFn = Callable[[jax.Array, jax.Array], jax.Array]

# Pixels of a batch of images: about 16 images of 224 pixels, 128 of small ones.
_BATCH_PIXELS = 16 * 224 * 224
_LARGEST_BATCH = 128


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """Which units are recorded, and how much of the image they have to be shown.

    A unit is one channel at one location of the layer.

    Attributes:
      display: what the layer sees.
      window: the part of the image that is shown to the layer; see ``locate``.
      units: position of each unit in the flattened response to the window, int64 (U,).
      row: row of each unit in the layer's map, int64 (U,). 0 for layers without a map.
      col: its column.
      channel: its channel.
    """

    display: Display
    window: Window
    units: np.ndarray
    row: np.ndarray
    col: np.ndarray
    channel: np.ndarray

    def __len__(self) -> int:
        return len(self.units)

    def keep(self, mask: np.ndarray) -> "Site":
        """The site with the units where ``mask``, bool (U,), is true."""
        arrays = {n: getattr(self, n)[mask] for n in ("units", "row", "col", "channel")}
        return dataclasses.replace(self, **arrays)


def record(
    response_fn: ResponseFn,
    key: jax.Array,
    gratings: GratingSet,
    site: Site,
    trials: int = 1,
    reduce_last: int = 1,
) -> np.ndarray:
    """Responses to gratings, clipped at 0, averaged over trials.

    Gratings outside the site's window are not shown: they get the response to grey (one draw of
    it per trial, if the layer has noise).

    Args:
      response_fn: the layer, ``(key, images) -> responses``.
      key: typed key. Trial t of grating i of a set has a key of its own in any batch.
      gratings: what to show.
      site: which units to keep.
      trials: presentations of each grating, >= 1.
      reduce_last: keeps the maximum over this many consecutive gratings (before averaging).

    Returns:
      float32 (len(gratings) / reduce_last, U).

    Raises:
      ValueError: if a response is not finite, or has another shape than (N, H, W, C), (N, units).
    """
    visible = stimuli.visible(gratings.table, site.display, site.window)
    shown = np.any(visible.reshape(-1, reduce_last), axis=1)
    indices = np.arange(len(gratings)).reshape(-1, reduce_last)[shown].ravel()
    # One presentation per trial stands for all gratings that the window does not show.
    hidden = not np.all(shown)
    responses = np.zeros((len(shown), len(site)), np.float32)
    for trial in range(trials):
        trial_key = prng.fold(prng.stream(key, gratings.name), trial)

        def draw(batch: np.ndarray) -> jax.Array:
            return stimuli.render(gratings.table[batch], site.display, site.window)

        responses[shown] += present(response_fn, trial_key, draw, indices, site, reduce_last)
        if hidden:
            responses[~shown] += record_blank(response_fn, trial_key, site)
    return responses / np.float32(trials)


def record_blank(
    response_fn: ResponseFn, key: jax.Array, site: Site, trials: int = 1
) -> np.ndarray:
    """Responses to the uniform grey image, clipped at 0, averaged over trials; float32 (U,)."""
    key = prng.stream(key, "blank")
    grey = stimuli.blank(site.display, site.window)
    return present(
        response_fn, key, lambda batch: np.repeat(grey, len(batch), 0), np.arange(trials), site
    ).mean(axis=0, dtype=np.float32)


def present(
    response_fn: ResponseFn,
    key: jax.Array,
    draw: Callable[[np.ndarray], np.ndarray | jax.Array],
    indices: np.ndarray,
    site: Site,
    reduce_last: int = 1,
    rectify: bool = True,
) -> np.ndarray:
    """Shows images in batches of one size and fetches the site's responses.

    Args:
      response_fn: the layer.
      key: typed key; the image with index i has the key ``fold_in(key, i)``.
      draw: indices -> uint8 images (n, window height, window width).
      indices: of the images to show.
      site: which units to keep.
      reduce_last: see ``record``.
      rectify: clip responses at 0.

    Returns:
      float32 (len(indices) / reduce_last, U).

    Raises:
      ValueError: see ``record``.
    """
    function = as_pytree(response_fn)
    units = jnp.asarray(site.units, jnp.int32)
    size = batch_size(site.window, len(indices), reduce_last)
    results: list[np.ndarray] = []
    pending: jax.Array | None = None
    # The next batch is drawn while the device still works on the last one.
    for batch in _batches(indices, size):
        keys = prng.index_keys(key, jnp.asarray(batch, jnp.uint32))
        images = jnp.asarray(draw(batch))
        if pending is not None:
            results.append(np.asarray(pending))
        pending = _responses(
            function, keys, images, units, site.display.in_channels, reduce_last, rectify
        )
    if pending is not None:
        results.append(np.asarray(pending))
    if not results:
        return np.zeros((0, len(site)), np.float32)
    responses = np.concatenate(results)[: len(indices) // reduce_last]
    if not np.all(np.isfinite(responses)):
        raise ValueError("response_fn returned values that are not finite (NaN or infinite)")
    return responses


def batch_size(window: Window, count: int, multiple: int) -> int:
    """Images per batch for a window, a multiple of ``multiple``, not much above ``count``."""
    fit = min(_BATCH_PIXELS // (window.height * window.width), _LARGEST_BATCH, count)
    return max(fit // multiple, 1) * multiple


def _batches(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cuts indices into equal batches; the last one repeats its last index."""
    for start in range(0, len(indices), size):
        batch = indices[start : start + size]
        yield np.concatenate([batch, np.repeat(batch[-1:], size - len(batch))])


def as_pytree(response_fn: ResponseFn) -> jax.tree_util.Partial:
    """The layer as a pytree, so that compiled functions take it as an argument.

    Raises:
      TypeError: if it cannot be called.
    """
    if not callable(response_fn):
        raise TypeError(
            f"response_fn must be a function of (key, images), got {type(response_fn).__name__}"
        )
    if isinstance(response_fn, jax.tree_util.Partial):
        return response_fn
    return jax.tree_util.Partial(response_fn)


def call_layer(function: ResponseFn, keys: jax.Array, images: jax.Array) -> jax.Array:
    """Responses of a layer whose key is one per image or, failing that, one scalar.

    Args:
      function: the layer.
      keys: typed keys (N,).
      images: float32 (N, H, W, C) in [0, 1].

    Returns:
      float32 responses (N, H, W, C) or (N, units).

    Raises:
      ValueError: for a layer that fails on images of this shape, or responses of another shape.
      TypeError: for responses that are not floating point.
    """

    def one_by_one(keys, images):
        return jax.vmap(lambda key, image: function(key, image[None])[0])(keys, images)

    call = function
    # What a layer raises is its framework's choice.
    try:
        jax.eval_shape(function, keys, images)
    except Exception:
        call = one_by_one
        try:
            jax.eval_shape(one_by_one, keys, images)
        except Exception as error:
            # What follows the first line is about JAX.
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"response_fn fails on images of shape {images.shape}; image_size and in_channels "
                f"must be those of the layer ({type(error).__name__}: {reason})"
            ) from error
    responses = call(keys, images)
    shape = getattr(responses, "shape", None)
    if shape is None or len(shape) not in (2, 4) or shape[0] != images.shape[0]:
        raise ValueError(
            f"response_fn must return responses of shape (N, H, W, C) or (N, units) with "
            f"N = {images.shape[0]}, got {type(responses).__name__ if shape is None else shape}"
        )
    if not jnp.issubdtype(responses.dtype, jnp.floating):
        raise TypeError(f"response_fn must return floating-point responses, got {responses.dtype}")
    return responses.astype(jnp.float32)


def to_images(pixels: jax.Array, in_channels: int) -> jax.Array:
    """uint8 (N, H, W) as float32 (N, H, W, in_channels) in [0, 1]."""
    grey = pixels.astype(jnp.float32) / 255.0
    return jnp.repeat(grey[..., None], in_channels, axis=-1)


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _responses(function, keys, pixels, units, in_channels, reduce_last, rectify):
    # Tuning must not depend on the rounding of an accelerator's fast matrix products.
    with jax.default_matmul_precision("highest"):
        responses = call_layer(function, keys, to_images(pixels, in_channels))
    kept = jnp.take(responses.reshape(responses.shape[0], -1), units, axis=1)
    if rectify:
        # maximum would replace a NaN on some devices; where keeps it.
        kept = jnp.where(kept < 0, 0.0, kept)
    return kept.reshape(-1, reduce_last, units.shape[0]).max(axis=1)
