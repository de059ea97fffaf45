"""The examples of an evaluation: their images, which class each label is, and their batches."""

import contextlib
import dataclasses
import functools
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import data, prng
from vone_jax import mesh as meshes
from vone_jax.attacks.classifier import LogitsFn
from vone_jax.data.sources import are_numbers, class_identifier
from vone_jax.evaluation.condition import Condition
from vone_jax.evaluation.judging import AttackNoise, Batch, Protocol
from vone_jax.network import Network

# Examples that are used by default, at most.
_EXAMPLES = 5000
# Examples at a time. On CPUs, of a long condition as many as have this number of pixels: then the
# progress moves, and little is lost when the work is stopped.
_AT_A_TIME, _PIXELS_ON_CPUS = 50, 10_000

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


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """The examples of a network, which are read in batches.

    Attributes:
      network: the network.
      others: other networks that conditions ask.
      images: the split of which the examples are taken.
      count: number of examples, every k-th of the images. Default: 5000, or all.
      trained_on: whether the network was trained on the data set of the images.
      seed: root of the keys of examples.
      mesh: the devices over which a batch is split.
      batch_size: examples at a time. Default: a size that fits the condition.
      keep_images: whether decoded images are kept in memory for the next condition.
    """

    network: Network
    others: tuple[Network, ...]
    images: data.Source
    count: int | None
    trained_on: bool
    seed: int
    mesh: meshes.Mesh
    batch_size: int | None
    keep_images: bool

    @functools.cached_property
    def classes(self) -> np.ndarray | None:
        """The network's class for each label, see ``match_classes``."""
        return match_classes(self.network, self.images, self.trained_on)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the labels in a result: those of the network where they were matched."""
        return tuple((self.images if self.classes is None else self.network).class_names)

    @functools.cached_property
    def subset(self) -> data.Subset:
        """The examples."""
        count = min(_EXAMPLES, len(self.images))
        if self.count is not None and self.images.name != NO_IMAGES.name:
            count = self.count
        return data.Subset(self.images, count)

    def of(self, condition: Condition) -> data.Subset:
        """The examples that a condition takes."""
        if condition.examples is None or condition.examples >= len(self.subset):
            return self.subset
        return data.Subset(self.images, max(condition.examples, 1))

    def work_of(self, condition: Condition) -> tuple[int, str]:
        """The number of examples or stimuli of a condition, and which of them are counted."""
        if stimuli := condition.stimuli(self.network):
            return stimuli, "stimuli"
        return len(self.of(condition)), "images"

    @functools.cached_property
    def _checksums(self) -> dict[int, int]:
        return {}

    def checksums(self, indices: np.ndarray) -> np.ndarray:
        """The checksums of some examples, see ``Source.checksums``. Each is computed once."""
        known = self._checksums
        missing = np.array([index for index in indices.tolist() if index not in known], np.int64)
        known |= zip(missing.tolist(), self.images.checksums(missing).tolist(), strict=True)
        return np.array([known[index] for index in indices.tolist()], np.uint32)

    def batch_size_of(self, condition: Condition, count: int) -> int:
        """The number of examples that are measured at a time, of ``count``."""
        size = self.batch_size
        if size is None:
            pixels = math.prod(self.network.image_shape[:2])
            few = condition.long and self.mesh.devices.flat[0].platform == "cpu"
            size = max(_PIXELS_ON_CPUS // pixels, 1) if few else _AT_A_TIME
            size = min(size, _AT_A_TIME)
        # A batch that is too short is padded, and padding costs as much as images.
        return -(-min(size, count) // self.mesh.size) * self.mesh.size

    @functools.cached_property
    def placed(self) -> tuple[Network, dict[str, LogitsFn]]:
        """The network, and the classifiers of the others by their names, on the devices."""
        place = functools.partial(meshes.replicate, self.mesh)
        others = {each.name: each.placed(place).logits_fn for each in self.others}
        return self.network.placed(place), others

    @functools.cached_property
    def _kept(self) -> data.Prepared:
        """The examples, whose decoded images are kept."""
        return data.Prepared(self.subset, self.network.image_size, self.network.preprocessing)

    def batches(
        self,
        condition: Condition,
        protocol: Protocol,
        attack_noise: AttackNoise,
        places: Sequence[int] | None = None,
    ) -> Iterator[Batch]:
        """The batches of a condition, split over processes and devices.

        Args:
          condition: the condition, which decides about the number of examples and the size.
          protocol, attack_noise: how the network is judged and attacked.
          places: places of the examples among those of the condition. Default: all.
        """
        examples, start = self.of(condition), 0
        if places is not None:
            start = places[0]
            # The end of the examples, as after a stop, or only those that are missing.
            if list(places) != list(range(start, len(examples))):
                examples, start = examples.pick(np.asarray(places)), 0
        network, others = self.placed
        functions = None
        size = self.batch_size_of(condition, len(examples))
        for whole in self._read(examples, size, start):
            keys = self.example_keys(whole["index"])
            batch = self.batch(network, others, keys, whole["image"], whole["label"])
            batch = dataclasses.replace(batch, protocol=protocol, attack_noise=attack_noise)
            # All batches have one shape, so functions are lowered for the first one alone.
            functions = functions or batch.functions()
            yield dataclasses.replace(
                batch,
                index=whole["index"],
                mask=whole["mask"],
                label=condition.label,
                **functions,
            )

    def sample(self, count: int) -> Iterator[tuple[jax.Array, jax.Array, jax.Array]]:
        """The keys, images and mask of every k-th image of the split in batches, ``count`` or all.

        Rows that fill the last batch up are not in the mask.
        """
        examples = data.Subset(self.images, min(count, len(self.images)))
        size = -(-min(_AT_A_TIME, len(examples)) // self.mesh.size) * self.mesh.size
        for whole in self._read(examples, size):
            yield self.example_keys(whole["index"]), whole["image"], whole["mask"]

    def _read(
        self, examples: data.Subset, size: int, start: int = 0
    ) -> Iterator[dict[str, jax.Array]]:
        """Batches of examples from one on, split over processes and devices."""
        kept = self.keep_images and examples is self.subset
        parts = data.eval_batches(
            self._kept if kept else examples,
            batch_size=size,
            image_size=self.network.image_size,
            preprocessing=None if kept else self.network.preprocessing,
            start=start,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        fill = _fill_padding(self.mesh)
        with contextlib.closing(parts):
            for part in _without_notes(parts):
                # Padding has an index beyond the examples. It gets a valid one, no matter which.
                numbers = np.where(part["mask"], part["index"], 0)
                part["index"] = examples.indices[numbers].astype(np.uint32)
                if self.classes is not None:
                    part["label"] = self.classes[part["label"]].astype(part["label"].dtype)
                yield fill(meshes.shard_batch(self.mesh, part))

    def prepared(self, condition: Condition, places: np.ndarray) -> np.ndarray:
        """Some images of a condition by their places (n, H, W, C), on this process alone."""
        network, examples = self.network, self.of(condition).pick(places)
        prepared = data.Prepared(examples, network.image_size, network.preprocessing)
        images = np.zeros((len(places), *network.image_shape), np.uint8)
        for number in range(len(places)):
            images[number] = prepared[number]["image"]
        return images.astype(np.float32) / 255

    @functools.cached_property
    def _between_batches(self) -> dict[Condition, Any]:
        """What conditions compute for their first batch and keep for the others."""
        return {}

    def batch(
        self,
        network: Network,
        others: dict[str, LogitsFn],
        keys: jax.Array,
        images: jax.Array,
        labels: jax.Array,
    ) -> Batch:
        return Batch(
            protocol=Protocol(),
            example_keys=keys,
            logits_fn=network.logits_fn,
            images=images,
            labels=labels,
            with_noise=None
            if network.model is None
            else lambda noise: network.with_noise(noise).logits_fn,
            others=others,
            network=network,
            root=jax.random.key(self.seed),
            sample=self.sample,
            kept=self._between_batches,
        )

    def example_keys(self, indices: jax.Array) -> jax.Array:
        """One key for each example by its dataset index, the root of all its random numbers."""
        root = prng.stream(jax.random.key(self.seed), "evaluation")
        return prng.index_keys(root, indices)


def _without_notes(parts: Iterator[Any]) -> Iterator[dict[str, np.ndarray]]:
    """Read batches. An error about an image says all that a user needs, without Grain's notes."""
    while True:
        try:
            part = next(parts)
        except StopIteration:
            return
        except Exception as error:
            getattr(error, "__notes__", []).clear()
            raise
        yield part


@functools.cache
def _fill_padding(mesh: meshes.Mesh) -> Callable[..., dict[str, jax.Array]]:
    """A function that fills masked rows with copies of the first example.

    The first example is a valid image, so padding cannot raise an error.
    """

    def fill(batch):
        rows = jnp.where(batch["mask"], jnp.arange(len(batch["mask"])), 0)
        return {name: x if name == "mask" else x[rows] for name, x in batch.items()}

    return jax.jit(fill, out_shardings=meshes.sharded(mesh))
