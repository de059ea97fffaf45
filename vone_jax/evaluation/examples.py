"""The images of an evaluation: which split they are of, and which class each label is."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vone_jax import data
from vone_jax.data.sources import are_numbers, class_identifier
from vone_jax.evaluation.conditions import Condition
from vone_jax.network import Network

# In the place of images, for conditions that show images of their own.
NO_IMAGES = data.ArraySource(
    np.zeros((1, 1, 1, 1), np.uint8), np.zeros(1, int), class_names=("0",), name="none"
)


def match_classes(network: Network, source: data.Source, trained_on: bool) -> np.ndarray | None:
    """The network's class for each label of a source, int32; None if they are the same.

    Classes are matched by name, or by the WordNet number with which both names begin, so that a
    folder with some of the network's classes, or with all of them in another order, is scored
    correctly. Names 0, 1, 2, ... of the source count as no names: its labels are the network's
    classes, unless the network has all of these names. So are those of the data set that a network
    without names was ``trained_on``.

    Raises:
      ValueError: if the network lacks a class of the source, has several of one name, has fewer
        classes than the source, or has no names to compare.
    """
    known, given = network.class_names, source.class_names
    places = defaultdict(list)
    for place, name in enumerate(known):
        places[class_identifier(name)].append(place)
    found = {name: places[class_identifier(name)] for name in given}
    missing = [name for name, where in found.items() if not where]
    unnamed = are_numbers(known)
    if tuple(known) == tuple(given):
        return None
    if several := [name for name, where in found.items() if len(where) > 1]:
        fault = f"{network.name} has several classes of the name {several[0]!r}; give each once"
    elif not missing:
        return np.array([found[name][0] for name in given], np.int32)
    elif are_numbers(given) or (unnamed and trained_on):
        if len(given) <= network.num_classes:
            return None
        fault = f"there are {len(given)}, and {network.name} has {network.num_classes}"
    elif unnamed:
        fault = (
            f"the classes of {network.name} have no names; give class_names (--class-names FILE), "
            f"one name for each of its {network.num_classes} logits, to match {_first(given)}"
        )
    else:
        fault = (
            f"{network.name} does not know {_first(missing)}; its classes are {_first(known)}. "
            "Rename the classes of the data, or leave these out"
        )
    raise ValueError(f"the classes of {source.name!r} cannot be matched: {fault}")


def _first(names: Any, most: int = 5) -> str:
    return ", ".join([*map(repr, names[:most]), *(["..."] if len(names) > most else [])])


def find_images(
    network: Network,
    conditions: Sequence[Condition],
    source: str | None = None,
    split: str | None = None,
) -> tuple[data.Source, bool]:
    """The images for some conditions, and whether the network was trained on their data set.

    Conditions that show images of their own get ``NO_IMAGES``.

    Args:
      network: the network.
      conditions: the conditions. Those that show images of their own need none.
      source: the data set, as ``data.load`` takes it. Default: that of a run.
      split: its split. Default: that on which a run was validated, or see
        ``data.evaluation_split``.

    Raises:
      ValueError, FileNotFoundError: if there are no such images, or they are not named.
    """

    def location(source: str) -> str:
        kind, _, path = source.partition(":")
        files = kind in ("folder", "npz")
        return f"{kind}:{Path(os.path.expanduser(path)).resolve()}" if files else source

    known = network.validation
    if known is not None and source is None and split in (None, known.split):
        return known.open(), True
    if known is not None and (source is None or location(source) == location(known.source)):
        # In a folder without splits, these are the images that the network was not trained on.
        return data.load(
            source or known.source, split or known.split, data_dir=known.data_dir
        ), True
    if source is not None:
        return data.load(source, split or data.evaluation_split(source)), False
    if all(not each.by_example for each in conditions):
        return NO_IMAGES, False
    raise ValueError(
        f"source must name the images, since {network.name} is not a run of train.py: for "
        f"instance --source folder:DIR --split val, or --source tfds:imagenet2012"
    )
