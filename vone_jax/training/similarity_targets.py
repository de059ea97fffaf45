"""Target similarities of neural-similarity regularisation: measured, of V1, or of pixels."""

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vone_jax import data, models, prng
from vone_jax.training.similarity import Similarity, correlation
from vone_jax.v1 import VOneBlockConfig, noise_free_responses

_BATCH = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Targets:
    """Images and how alike they should look to the network.

    Attributes:
      images: float32 (n, H, W, C) in [0, 1].
      similarity: float32 (n, n) in [-1, 1], symmetric.
    """

    images: np.ndarray
    similarity: np.ndarray


def make_targets(
    config: Similarity,
    source: str,
    data_dir: str | None,
    image_size: int,
    in_channels: int,
    seed: int,
) -> Targets:
    """Reads or computes the targets.

    Args:
      config: what to compare.
      source: images to take where ``config`` names none.
      data_dir: where TFDS keeps its prepared sets.
      image_size: of the network.
      in_channels: of the network.
      seed: of the experiment; it permutes the targets if they are to be shuffled.

    Raises:
      ValueError: if a file of similarities is wrong, or the images do not fit the network.
    """
    if config.target == "neural":
        targets = load_matrix(str(config.path))
        expected = (image_size, image_size, in_channels)
        if targets.images.shape[1:] != expected:
            raise ValueError(
                f"{config.path}: images must have shape {expected} for this network, got "
                f"{targets.images.shape[1:]}"
            )
        if len(targets.images) < config.batch:
            raise ValueError(
                f"{config.path} has {len(targets.images)} images, fewer than batch {config.batch}"
            )
    else:
        images = _images(config, source, data_dir, image_size, in_channels)
        targets = Targets(images, _similarity(config, images))
    if not config.shuffled:
        return targets
    key = prng.stream(jax.random.key(seed), "shuffled similarity")
    order = np.asarray(jax.random.permutation(key, len(targets.images)))
    return Targets(targets.images, targets.similarity[np.ix_(order, order)])


def load_matrix(path: str | Path) -> Targets:
    """Measured similarities from an NPZ file.

    The file holds ``images``, (n, H, W) or (n, H, W, C), bytes or floats in [0, 1], and
    ``similarity``, (n, n): symmetric, in [-1, 1], 1 on the diagonal. Li et al. centre the responses
    of each neuron over the images, scale each image's population response to unit length and take
    cosines, averaged over recordings.

    Raises:
      ValueError: saying what of this does not hold.
      FileNotFoundError: if there is no such file.
    """
    images, similarity = _arrays(Path(path))
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"{path}: images must be (n, H, W) or (n, H, W, C), got {images.shape}")
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / 255
    images = images.astype(np.float32)
    if not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        raise ValueError(f"{path}: images must be bytes, or floats in [0, 1]")
    n = len(images)
    if similarity.shape != (n, n):
        raise ValueError(
            f"{path}: similarity must have shape ({n}, {n}) for {n} images, got {similarity.shape}"
        )
    similarity = similarity.astype(np.float64)
    for holds, what in (
        (np.isfinite(similarity).all(), "be finite"),
        (np.abs(similarity).max() <= 1 + 1e-4, "lie in [-1, 1]"),
        (np.allclose(similarity, similarity.T, atol=1e-4), "be symmetric"),
        (np.allclose(np.diag(similarity), 1.0, atol=1e-4), "have 1 on its diagonal"),
    ):
        if not holds:
            raise ValueError(f"{path}: similarity must {what}")
    return Targets(images, np.clip(similarity, -1, 1).astype(np.float32))


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The two arrays of a file of similarities, of numbers."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of similarities {path}")
    try:
        # Opened here: np.load leaves its own file open when the archive is damaged.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            content = dict(archive)
    except (ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable NPZ file ({error})") from error
    missing = sorted({"images", "similarity"} - set(content))
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it has {', '.join(content)}")
    found = content["images"], content["similarity"]
    for name, array in zip(("images", "similarity"), found, strict=True):
        if array.dtype.kind not in "uif":
            raise ValueError(f"{path}: {name} must be real numbers, got {array.dtype}")
    return found


def _images(
    config: Similarity, source: str, data_dir: str | None, image_size: int, in_channels: int
) -> np.ndarray:
    found = data.load(config.source or source, config.split, data_dir=data_dir)
    if found.image_shape[-1] != in_channels:
        raise ValueError(
            f"similarity.source has {found.image_shape[-1]} channel(s), the network {in_channels}"
        )
    if len(found) < config.images:
        raise ValueError(f"similarity.images is {config.images}, but there are {len(found)}")
    batches: Any = data.eval_batches(
        data.Subset(found, config.images), batch_size=_BATCH, image_size=image_size
    )
    try:
        return np.concatenate([batch["image"][batch["mask"]] for batch in batches])
    finally:
        batches.close()


def _similarity(config: Similarity, images: np.ndarray) -> np.ndarray:
    if config.target == "pixels":
        found = np.asarray(correlation(jax.numpy.asarray(images)))
        return np.where(np.abs(found) < config.threshold, 0, found).astype(np.float32)
    block = config.v1 or models.v1_config(images.shape[1], images.shape[3])
    return _population_similarity(_responses(block, images))


def _responses(block: VOneBlockConfig, images: np.ndarray) -> np.ndarray:
    call = jax.jit(lambda batch: noise_free_responses(block, batch))
    parts = []
    for start in range(0, len(images), _BATCH):
        # The last batch is filled up, so that nothing compiles anew.
        rows = np.minimum(np.arange(start, start + _BATCH), len(images) - 1)
        parts.append(np.asarray(call(images[rows])).reshape(_BATCH, -1))
    return np.concatenate(parts)[: len(images)]


def _population_similarity(responses: np.ndarray) -> np.ndarray:
    """Cosines of population responses (n, units), each unit centred over the images."""
    centred = responses - responses.mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.where(length > 0, length, 1)
    return np.clip(unit @ unit.T, -1, 1).astype(np.float32)
