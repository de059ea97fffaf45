"""Data sets, the transforms of their images on the host, and the order of their batches.

``load`` opens a split of a set. ``train_batches`` and ``eval_batches`` make batches of it, with
images as float32 in [0, 1] or as bytes. All of this runs on the host, with NumPy, Pillow, Grain and
TFDS. Grain, which takes long to import, is imported when the first batches are made.
"""

import importlib
from typing import TYPE_CHECKING, Any

from vone_jax.data.images import FolderSource, imagenet_class_names
from vone_jax.data.loading import evaluation_split, load, load_corrupted
from vone_jax.data.sources import ArraySource, Prepared, Source, Subset, describe, fingerprint
from vone_jax.data.transforms import Augment, Preprocessing

if TYPE_CHECKING:
    from vone_jax.data.batches import Batches, batches_per_epoch, eval_batches, train_batches

__all__ = [
    "ArraySource",
    "Augment",
    "Batches",
    "FolderSource",
    "Prepared",
    "Preprocessing",
    "Source",
    "Subset",
    "batches_per_epoch",
    "describe",
    "eval_batches",
    "evaluation_split",
    "fingerprint",
    "imagenet_class_names",
    "load",
    "load_corrupted",
    "train_batches",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("vone_jax.data.batches"), name)
    raise AttributeError(f"module 'vone_jax.data' has no attribute {name!r}")
