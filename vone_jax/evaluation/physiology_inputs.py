"""What a user may bring to a recording: tables of neurons, and images of textures."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vone_jax import prng
from vone_jax.neurophysiology import reference_tables, texture_properties, texture_proxies
from vone_jax.neurophysiology.score import Scores
from vone_jax.neurophysiology.textures import TextureSet


def load_references(paths: Sequence[Path]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The joined tables of neurons, and the SHA-1 of each by its file name.

    Raises:
      ValueError: for a table that cannot be used, or a property that two of them have.
      FileNotFoundError: for a table that is not there.
    """
    values: dict[str, np.ndarray] = {}
    hashes: dict[str, str] = {}
    for path in paths:
        try:
            found = reference_tables.load(path)
        except ImportError as error:
            raise ValueError(f"references: {path} cannot be read ({error})") from error
        except IsADirectoryError as error:
            raise ValueError(f"references: {path} is a directory, not a table") from error
        twice = sorted(values.keys() & found.values.keys())
        if twice:
            raise ValueError(f"references: {path} has {', '.join(twice)}, as a table before it")
        values |= found.values
        hashes[Path(path).name] = found.sha1
    return values, hashes


def load_textures(folder: Path, seed: int) -> TextureSet:
    """The texture images of a folder, see ``texture_proxies.load``.

    Args:
      folder: of the images.
      seed: root of the crops and the noise of a proxy.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if its images cannot be used.
    """
    key = prng.stream(jax.random.key(seed), "texture images")
    try:
        return texture_proxies.load(folder, key)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"textures: {error}") from error


def identity(textures: TextureSet) -> dict[str, Any]:
    """What tells texture images from others; not where they are."""
    return {
        "proxy": textures.is_proxy,
        "families": list(textures.families),
        "samples": textures.shape[1],
        "sha1": hashlib.sha1(textures.images.tobytes()).hexdigest(),
    }


def texture_summary(textures: TextureSet, scores: Scores) -> dict[str, Any]:
    """What the units make of the images: the median of each property over those that count."""
    medians: dict[str, float | None] = {}
    for name in texture_properties.PROPERTIES:
        values = scores.per_unit[name]
        known = values[np.isfinite(values)]
        medians[name] = float(np.median(known)) if len(known) else None
    return {
        "source": textures.source,
        "proxy": textures.is_proxy,
        "families": list(textures.families),
        "samples": textures.shape[1],
        "units": int(scores.counted[texture_properties.PROPERTIES[0]].sum()),
        "medians": medians,
    }
