"""Data: where images come from, what is done to them on the host, and in which order.

``load`` opens a split of a set, ``train_batches`` and ``eval_batches`` turn it into float32 batches
in [0, 1]. Host code only: NumPy, Pillow, Grain and TFDS.
"""

from vone_jax.data.augment import AUGMENTS, Augment
from vone_jax.data.folder import FolderSource
from vone_jax.data.loading import load
from vone_jax.data.pipeline import Batches, batches_per_epoch, eval_batches, train_batches
from vone_jax.data.sources import ArraySource, Source
from vone_jax.data.subset import Subset

__all__ = [
    "AUGMENTS",
    "ArraySource",
    "Augment",
    "Batches",
    "FolderSource",
    "Source",
    "Subset",
    "batches_per_epoch",
    "eval_batches",
    "load",
    "train_batches",
]
