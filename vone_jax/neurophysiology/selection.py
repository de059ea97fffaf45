"""Which units count: those whose receptive field is centred on the stimuli."""

import jax
import numpy as np

from vone_jax.neurophysiology import stimuli
from vone_jax.neurophysiology.display import Display
from vone_jax.neurophysiology.locate import cropped, locate
from vone_jax.neurophysiology.recording import ResponseFn, Site, record, record_blank

# Positions with more than this fraction of a unit's largest response belong to its field.
FIELD_THRESHOLD = 0.05
# Largest distance, in degrees, of the centre of a receptive field from that of the stimuli.
MAX_DISTANCE = 0.15
# With fewer units, distributions of properties mean nothing.
MIN_UNITS = 20

_GRATINGS_PER_POSITION = 8


def receptive_field_maps(response_fn: ResponseFn, key: jax.Array, site: Site) -> np.ndarray:
    """Responses above grey to small gratings at 21 x 21 positions, the best of 8 each.

    Args:
      response_fn: the layer, without noise: noise lifts a map above its threshold everywhere and
        pulls its centre to the middle.
      key: typed key, passed to the layer.
      site: the units to map.

    Returns:
      float32 (21, 21, U) >= 0, by (y, x) of ``stimuli.RECEPTIVE_FIELD_POSITIONS``.
    """
    gratings = stimuli.receptive_field_set()
    best = record(response_fn, key, gratings, site, reduce_last=_GRATINGS_PER_POSITION)
    above = np.maximum(best - record_blank(response_fn, key, site), 0.0)
    positions = len(stimuli.RECEPTIVE_FIELD_POSITIONS)
    return above.reshape(positions, positions, len(site))


def receptive_field_centres(maps: np.ndarray) -> np.ndarray:
    """Centroids (y, x) in degrees of the positions above the threshold, weighted by the map.

    Args:
      maps: (21, 21, U) >= 0.

    Returns:
      float64 (U, 2); NaN for a unit whose map is 0 everywhere.
    """
    maps = maps.astype(np.float64)
    weights = np.where(maps > FIELD_THRESHOLD * maps.max(axis=(0, 1)), maps, 0.0)
    positions = stimuli.RECEPTIVE_FIELD_POSITIONS
    with np.errstate(invalid="ignore"):
        y = np.einsum("yxu,y->u", weights, positions) / weights.sum(axis=(0, 1))
        x = np.einsum("yxu,x->u", weights, positions) / weights.sum(axis=(0, 1))
    return np.stack([y, x], axis=1)


def find_units(
    response_fn: ResponseFn, key: jax.Array, display: Display, crop: bool = True
) -> tuple[Site, np.ndarray]:
    """The units of a layer whose receptive field lies at the centre of the stimuli.

    Args:
      response_fn: the layer, without noise.
      key: typed key, passed to the layer.
      display: what the layer sees.
      crop: see ``locate``.

    Returns:
      Where to record them, and their maps, see ``receptive_field_maps``.

    Raises:
      ValueError: as ``locate``, and if fewer than ``MIN_UNITS`` units are left.
    """
    site, maps = select_units(response_fn, key, locate(response_fn, key, display, crop))
    # Fewer units, which see less.
    return (cropped(response_fn, key, site) if crop else site), maps


def select_units(response_fn: ResponseFn, key: jax.Array, site: Site) -> tuple[Site, np.ndarray]:
    """Keeps the units whose receptive field lies at the centre of the stimuli.

    Args:
      response_fn: the layer, without noise.
      key: typed key, passed to the layer.
      site: the candidates, see ``locate``.

    Returns:
      The site with the kept units, and their maps, see ``receptive_field_maps``.

    Raises:
      ValueError: if fewer than ``MIN_UNITS`` units are left.
    """
    maps = receptive_field_maps(response_fn, key, site)
    centres = receptive_field_centres(maps)
    distance = np.linalg.norm(centres - np.array(stimuli.CENTRE), axis=1)
    near = distance <= MAX_DISTANCE  # False for NaN: a unit without a field is dropped.
    if near.sum() < MIN_UNITS:
        raise ValueError(
            f"response_fn has {near.sum()} units with a receptive field within {MAX_DISTANCE} "
            f"degrees of the stimuli, of {len(site)} candidates; at least {MIN_UNITS} are needed. "
            f"Layers with very large receptive fields, and layers whose units are far apart, "
            f"cannot be characterised in this way"
        )
    return site.keep(near), maps[..., near]
