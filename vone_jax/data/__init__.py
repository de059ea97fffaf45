"""Data sets, the transforms of their images on the host, and the order of their batches.

``load`` opens a split of a set. ``train_batches`` and ``eval_batches`` make float32 batches in
[0, 1] of it. All of this runs on the host, with NumPy, Pillow, Grain and TFDS.
"""

from vone_jax.data.imagenet import imagenet_class_names
from vone_jax.data.images import FolderSource
from vone_jax.data.loading import evaluation_split, load, load_corrupted
from vone_jax.data.pipeline import Batches, batches_per_epoch, eval_batches, train_batches
from vone_jax.data.sources import ArraySource, Source, Subset
from vone_jax.data.transforms import AUGMENTS, Augment, Preprocessing

__all__ = [
    "AUGMENTS",
    "ArraySource",
    "Augment",
    "Batches",
    "FolderSource",
    "Preprocessing",
    "Source",
    "Subset",
    "batches_per_epoch",
    "eval_batches",
    "evaluation_split",
    "imagenet_class_names",
    "load",
    "load_corrupted",
    "train_batches",
]
