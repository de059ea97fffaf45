"""The common part of the conditions of an evaluation: network, examples, and batches of these."""

import contextlib
import dataclasses
import functools
import json
import math
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import data, prng
from vone_jax import mesh as meshes
from vone_jax.data.sources import are_numbers, class_identifier
from vone_jax.dataclass_json import encode
from vone_jax.evaluation.conditions import Condition
from vone_jax.evaluation.judging import Protocol, Trial, noise_slug
from vone_jax.network import Network

# Images at a time, at most; and passes through the network times pixels, on CPUs and on each other
# device. A batch then takes at most about 20 s if an image does, so that the progress moves, and
# that little is lost when the work is stopped. They are no times, so batches are always the same.
_IMAGES, _WORK_ON_CPUS, _WORK = 50, 2e7, 2e9


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """The common part of the conditions of an evaluation: network, examples, protocol, devices.

    Attributes:
      network: the network.
      source: the split of which the examples are taken.
      directory: directory of the result files.
      examples: number of examples, every k-th of the source. The VOneNet authors took every tenth
        of ImageNet's 50,000 validation images.
      protocol: how a network with noise is judged; another one is judged once.
      seed: root of all randomness.
      tag: text at the end of the names of results.
      mesh: the devices over which a batch is split. It changes no result.
      batch_size: examples at a time, a multiple of the number of devices. It changes no result.
        Default: a size that fits the condition.
      other: another network, whose adversarial images some conditions carry over to the network.
      provenance: further provenance of the results.
      trained_on: whether the network was trained on the data set of the examples. Then the labels
        are its classes, even if its classes have no names.
      keep_images: whether decoded images are kept in memory for the next condition.

    Raises:
      ValueError: if batch size and devices do not fit; if the images have another number of
        channels than the network's, or labels that cannot be matched with its classes; or if the
        other network has other images or classes.
    """

    network: Network
    source: data.Source
    directory: Path
    examples: int
    protocol: Protocol = Protocol()
    seed: int = 0
    tag: str = ""
    mesh: meshes.Mesh = dataclasses.field(default_factory=meshes.data_mesh)
    batch_size: int | None = None
    other: Network | None = None
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    trained_on: bool = False
    keep_images: bool = False

    def __post_init__(self):
        if self.batch_size is not None:
            meshes.check_batch_size(self.mesh, self.batch_size)
        network, other, name = self.network, self.other, self.source.name
        channels = self.source.image_shape[-1]
        if channels != network.in_channels:
            folder = ", as all folders do" if name.startswith("folder:") else ""
            raise ValueError(
                f"{name!r} has images with {channels} channel(s){folder}; {network.name} takes "
                f"{network.in_channels}; name other images as source"
            )
        _ = self.classes, self.subset  # These raise for examples that do not fit.
        if other is not None:
            ours, theirs = ((each.image_shape, each.num_classes) for each in (network, other))
            if ours != theirs or len({network.class_names, other.class_names} - {()}) > 1:
                raise ValueError(
                    f"{other.name} and {network.name} must take images of one shape and have the "
                    f"same classes in the same order, or no adversarial images carry over; got "
                    f"shapes and numbers of classes {theirs} and {ours}"
                )

    @functools.cached_property
    def classes(self) -> np.ndarray | None:
        """The network's class for each label, see ``match_classes``."""
        return match_classes(self.network, self.source, self.trained_on)

    @functools.cached_property
    def subset(self) -> data.Subset:
        """The examples."""
        return data.Subset(self.source, self.examples)

    def examples_of(self, condition: Condition) -> data.Subset:
        """The examples that a condition takes."""
        if condition.limit is None or condition.limit >= self.examples:
            return self.subset
        return data.Subset(self.source, condition.limit)

    def batch_size_of(self, condition: Condition) -> int:
        """The number of images that are measured at a time."""
        size, count = self.batch_size, len(self.examples_of(condition))
        if size is None:
            work = self.passes(condition) * math.prod(self.network.image_shape[:2])
            most = _WORK_ON_CPUS if self._platform == "cpu" else _WORK * self.mesh.size
            size = min(max(int(most / work), 1), _IMAGES)
        # A batch that is too short is padded, and padding costs as much as images.
        return -(-min(size, count) // self.mesh.size) * self.mesh.size

    def passes(self, condition: Condition) -> int:
        """The rough number of passes through the network per image, to estimate times."""
        protocol = self.effective_protocol
        return condition.passes(protocol.draws * protocol.averaged)

    @property
    def effective_protocol(self) -> Protocol:
        """The protocol as it applies to the network: one draw if the network has no noise."""
        return self.protocol if self.network.stochastic else Protocol("none", 1)

    @property
    def matmul_precision(self) -> str:
        """The precision of matrix products, as JAX was told, or as it applies to the devices.

        The default is the lowest that changed the accuracy of no image, see docs/accelerators.md.
        """
        if self._platform == "cpu":
            return "highest"
        told = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
        return told or ("high" if self._platform == "tpu" else "highest")

    @property
    def _platform(self) -> str:
        return self.mesh.devices.flat[0].platform

    def name(self, condition: Condition) -> str:
        """The stem of the result files of a condition."""
        # Noise is part of the name only if it replaces the noise of training.
        noise, trained = self.network.noise, self.network.trained_noise
        test_noise = "" if noise == trained else f"test-{noise_slug(noise)}"
        slug = self.effective_protocol.slug if condition.by_example else ""
        return "-".join(filter(None, (condition.name, test_noise, slug, self.tag)))

    def identity(self, condition: Condition) -> dict[str, Any]:
        """The identity of the result of a condition, see ``results.Result``."""
        examples = self.examples_of(condition)
        # By which class each label is counted.
        labels = [list(self.class_names), None if self.classes is None else self.classes.tolist()]
        identity = {
            "condition": condition.identity(),
            "protocol": encode(self.effective_protocol),
            "dataset": {
                "name": examples.name,
                "split": examples.split,
                "examples": len(examples),
                "stride": examples.stride,
                "total": examples.total,
                "classes": examples.num_classes,
                "labels": f"{zlib.crc32(json.dumps(labels).encode()):08x}",
                "checksum": data.fingerprint(examples),
            },
            "network": self._described,
            "seed": self.seed,
            "tag": self.tag,
            "matmul_precision": self.matmul_precision,
        }
        # As it is read from a file, so that tuples are lists.
        return json.loads(json.dumps(identity | condition.context(self.network)))

    @functools.cached_property
    def _described(self) -> dict[str, Any]:
        """The network for a result file. Its front end and its weights are part of its identity."""
        network = self.network
        same = ("name", "label", "description", "checksum", "image_size", "source")
        return {name: getattr(network, name) for name in same} | {
            "trained_noise": encode(network.trained_noise),
            "test_noise": encode(network.noise),
        }

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the labels in a result: those of the network where they were matched."""
        return tuple((self.source if self.classes is None else self.network).class_names)

    @functools.cached_property
    def _placed(self) -> tuple[Network, Network | None]:
        """The network and the other one, on the devices."""
        place = functools.partial(meshes.replicate, self.mesh)
        other = None if self.other is None else self.other.placed(place)
        return self.network.placed(place), other

    @functools.cached_property
    def _kept(self) -> data.Prepared:
        """The examples, whose decoded images are kept."""
        return data.Prepared(self.subset, self.network.image_size, self.network.preprocessing)

    def trials(
        self, condition: Condition, start: int = 0
    ) -> Iterator[tuple[dict[str, jax.Array], Trial]]:
        """The batches of a condition from an example on, split over processes and devices.

        Yields:
          ``index`` in the data set, ``label`` (the network's class) and ``mask``, each (N,), and
          the batch as a trial for the network. Rows that fill the last batch up are not in the
          mask.
        """
        functions = None
        examples, size = self.examples_of(condition), self.batch_size_of(condition)
        for batch in self._batches(examples, size, start):
            trial = self.trial(batch["index"], batch.pop("image"), batch["label"])
            # All batches have one shape, so functions are lowered for the first one alone.
            functions = functions or trial.functions()
            yield batch, dataclasses.replace(trial, **functions)

    def sample(self, count: int) -> Iterator[tuple[jax.Array, jax.Array, jax.Array]]:
        """The keys, images and mask of every k-th image of the source in batches, ``count`` or all.

        Rows that fill the last batch up are not in the mask.
        """
        examples = data.Subset(self.source, min(count, len(self.source)))
        size = -(-min(_IMAGES, len(examples)) // self.mesh.size) * self.mesh.size
        for batch in self._batches(examples, size, 0):
            yield self.example_keys(batch["index"]), batch["image"], batch["mask"]

    def _batches(
        self, examples: data.Subset, size: int, start: int
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
            for part in parts:
                # Padding has an index beyond the examples. It gets a valid one, no matter which.
                numbers = np.where(part["mask"], part["index"], 0)
                part["index"] = examples.indices[numbers].astype(np.uint32)
                if self.classes is not None:
                    part["label"] = self.classes[part["label"]].astype(part["label"].dtype)
                yield fill(meshes.shard_batch(self.mesh, part))

    def trial(self, indices: jax.Array, images: jax.Array, labels: jax.Array) -> Trial:
        """A batch for the network: indices in the dataset, images, and the network's classes."""
        network, other = self._placed
        return Trial(
            protocol=self.effective_protocol,
            example_keys=self.example_keys(indices),
            logits_fn=network.logits_fn,
            images=images,
            labels=labels,
            with_noise=lambda noise: network.with_noise(noise).logits_fn,
            other=None if other is None else other.logits_fn,
            network=network,
            root=jax.random.key(self.seed),
            place=functools.partial(meshes.replicate, self.mesh),
            sample=self.sample,
            kept=self._between_batches,
        )

    @functools.cached_property
    def _between_batches(self) -> dict[Condition, Any]:
        """What conditions compute for their first batch and keep for the others."""
        return {}

    def example_keys(self, indices: jax.Array) -> jax.Array:
        """One key for each example by its dataset index, the root of all its random numbers."""
        root = prng.stream(jax.random.key(self.seed), "evaluation")
        return prng.index_keys(root, indices)


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
            f"the classes of {network.name} have no names; give class_names, one name for each of "
            f"its {network.num_classes} logits, to match {_first(given)}"
        )
    else:
        fault = (
            f"{network.name} does not know {_first(missing)}; its classes are {_first(known)}. "
            "Rename the classes of the data, or leave these out"
        )
    raise ValueError(f"the classes of {source.name!r} cannot be matched: {fault}")


def _first(names: Any, most: int = 5) -> str:
    return ", ".join([*map(repr, names[:most]), *(["..."] if len(names) > most else [])])


@functools.cache
def _fill_padding(mesh: meshes.Mesh) -> Callable[..., dict[str, jax.Array]]:
    """A function that fills masked rows with copies of the first example.

    The first example is a valid image, so padding cannot raise an error.
    """

    def fill(batch):
        rows = jnp.where(batch["mask"], jnp.arange(len(batch["mask"])), 0)
        return {name: x if name == "mask" else x[rows] for name, x in batch.items()}

    return jax.jit(fill, out_shardings=meshes.sharded(mesh))
