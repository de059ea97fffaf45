"""The common part of the conditions of an evaluation: network, examples, and batches of these."""

import dataclasses
import functools
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable
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
      ValueError: if batch size and devices do not fit; if the network takes images of another
        number of channels, has fewer classes than the examples, lacks a class of the examples, has
        several classes of one name, or has no class names to compare; or if the other network has
        other images or classes.
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
        _ = self.classes, self.subset  # These raise for examples that do not fit.
        if self.other is not None and self.other.image_shape != self.network.image_shape:
            raise ValueError(
                f"{self.other.name} takes images of {self.other.image_shape}, {self.network.name} "
                f"of {self.network.image_shape}, so none carry over"
            )
        if self.other is not None and self.other.num_classes != self.network.num_classes:
            raise ValueError(
                f"{self.other.name} has {self.other.num_classes} classes, {self.network.name} has "
                f"{self.network.num_classes}, so no adversarial images carry over"
            )
        known = {each.class_names for each in (self.network, self.other) if each is not None}
        if len(known - {()}) > 1:
            assert self.other is not None
            raise ValueError(
                f"{self.other.name} and {self.network.name} must have the same classes in the same "
                f"order, else the labels by which images are attacked are those of other classes"
            )

    @functools.cached_property
    def subset(self) -> data.Subset:
        """The examples."""
        return data.Subset(self.source, self.examples)

    @functools.cached_property
    def classes(self) -> np.ndarray | None:
        """The network's class for each label of the examples, int32; None if they are the same.

        Classes are matched by name, or by the WordNet number with which both names begin, so that a
        folder with some of the network's classes, or with all of them in another order, is scored
        correctly. Names 0, 1, 2, ... of the examples count as no names: their labels are the
        network's classes, unless the network has all of these names.
        """
        network, examples = self.network, self.source
        channels = examples.image_shape[-1]
        if channels != network.image_shape[-1]:
            folder = ", as all folders do" if examples.name.startswith("folder:") else ""
            raise ValueError(
                f"{examples.name!r} has images with {channels} channel(s){folder}; {network.name} "
                f"takes {network.image_shape[-1]}; name other images as source"
            )
        known, given = list(network.class_names), list(examples.class_names)
        unnamed = are_numbers(known)
        if known == given or unnamed and are_numbers(given) and len(given) < len(known):
            return None
        places = {class_identifier(name): position for position, name in enumerate(known)}
        missing = [name for name in given if class_identifier(name) not in places]
        several = Counter(map(class_identifier, known))
        if unclear := [name for name in given if several[class_identifier(name)] > 1]:
            raise ValueError(
                f"{network.name} has several classes of the name {unclear[0]!r}, so labels of "
                f"{examples.name!r} cannot be matched; give class_names with each name once"
            )
        if not missing:
            return np.array([places[class_identifier(name)] for name in given], np.int32)
        if unnamed and not are_numbers(given) and not self.trained_on:
            numbers = "numbers and " if known else ""
            raise ValueError(
                f"the classes of {network.name} have {numbers}no names, so the labels of "
                f"{examples.name!r} ({_first(given, 3)}) cannot be matched with its logits; give "
                f"class_names, one name for each of its {network.num_classes} logits"
            )
        if unnamed or are_numbers(given):
            if len(given) > network.num_classes:
                raise ValueError(
                    f"{examples.name!r} has {len(given)} classes, {network.name} has "
                    f"{network.num_classes}; name other images as source, or leave classes out"
                )
            return None
        raise ValueError(
            f"{examples.name!r} has classes that {network.name} does not know: "
            f"{_first(list(map(repr, missing)), 5)}; its classes are "
            f"{_first(list(map(repr, known)), 10)}. Rename the classes of the data, or leave "
            f"these out"
        )

    @functools.cached_property
    def images(self) -> data.Source:
        """The examples, whose decoded images may be kept."""
        network = self.network
        if not self.keep_images:
            return self.subset
        return data.Prepared(self.subset, network.image_size, network.preprocessing)

    def of(self, condition: Condition) -> "Job":
        """The job with as many examples, and in such batches, as a condition takes."""
        count = min(self.examples, condition.limit or self.examples)
        size = self.batch_size
        if size is None:
            work = self.passes(condition) * math.prod(self.network.image_shape[:2])
            most = _WORK_ON_CPUS if self._platform == "cpu" else _WORK * self.mesh.size
            size = min(max(int(most / work), 1), _IMAGES)
        size = -(-min(size, count) // self.mesh.size) * self.mesh.size
        if (count, size) == (self.examples, self.batch_size):
            return self
        keep = self.keep_images and count == self.examples
        limited = dataclasses.replace(self, examples=count, batch_size=size, keep_images=keep)
        # The network is described and on the devices, and images are decoded, once.
        for name in ("described", "placed", *(["images"] if keep else [])):
            vars(limited)[name] = getattr(self, name)
        return limited

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
        identity = {
            "condition": condition.identity(),
            "protocol": encode(self.effective_protocol),
            "dataset": self._dataset(),
            "network": self.described,
            "seed": self.seed,
            "tag": self.tag,
            "matmul_precision": self.matmul_precision,
        }
        # As it is read from a file, so that tuples are lists.
        return json.loads(json.dumps(identity | condition.context(self.network)))

    @functools.cached_property
    def described(self) -> dict[str, Any]:
        """The network for a result file. Its front end and its weights are part of its identity."""
        network = self.network
        return {
            "name": network.name,
            "label": network.label,
            "description": network.description,
            "checksum": network.checksum,
            "image_size": network.image_size,
            "trained_noise": encode(network.trained_noise),
            "test_noise": encode(network.noise),
            "source": network.source,
        }

    def _dataset(self) -> dict[str, Any]:
        examples = self.subset
        names = self.class_names
        # By which class each label is counted.
        labels = [list(names), None if self.classes is None else self.classes.tolist()]
        return {
            "name": examples.name,
            "split": examples.split,
            "examples": len(examples),
            "stride": examples.stride,
            "total": examples.total,
            "classes": examples.num_classes,
            "labels": f"{zlib.crc32(json.dumps(labels).encode()):08x}",
            "checksum": examples.checksum,
        }

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the labels in a result: those of the network where they were matched."""
        names = self.subset.class_names if self.classes is None else self.network.class_names
        return tuple(names)

    @functools.cached_property
    def placed(self) -> tuple[Network, Network | None]:
        """The network and the other one, on the devices."""
        place = functools.partial(meshes.replicate, self.mesh)
        other = None if self.other is None else self.other.placed(place)
        return self.network.placed(place), other

    def trial(self, indices: jax.Array, images: jax.Array, labels: jax.Array) -> Trial:
        """A batch for the network: indices in the dataset, images, and the network's classes."""
        network, other = self.placed
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
        )

    def example_keys(self, indices: jax.Array) -> jax.Array:
        """One key for each example by its dataset index, the root of all its random numbers."""
        root = prng.stream(jax.random.key(self.seed), "evaluation")
        return prng.index_keys(root, indices)


def batches(job: Job, **fields: Any) -> "data.Batches":
    """This process's part of the batches of a job, see ``data.eval_batches``."""
    assert job.batch_size is not None, "Job.of chooses a batch size"
    return data.eval_batches(
        job.images,
        batch_size=job.batch_size,
        image_size=job.network.image_size,
        preprocessing=None if job.keep_images else job.network.preprocessing,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        **fields,
    )


def place(job: Job, part: dict[str, np.ndarray]) -> tuple[dict[str, jax.Array], Trial]:
    """Put this process's part of a batch, see ``batches``, on the devices.

    Returns:
      ``index`` in the dataset, ``label`` (the network's class) and ``mask`` of the whole batch,
      each (N,), and the batch as a trial for the network.
    """
    # The padding has an index beyond the examples. It gets a valid index, no matter which.
    numbers = np.where(part["mask"], part["index"], 0)
    labels = part["label"]
    if job.classes is not None:
        labels = job.classes[labels].astype(labels.dtype)
    placed = meshes.shard_batch(
        job.mesh,
        {
            "index": job.subset.indices[numbers].astype(np.uint32),
            "image": part["image"],
            "label": labels,
            "mask": part["mask"],
        },
    )
    filled = _fill_padding(job.mesh)(placed)
    images = filled.pop("image")
    return filled, job.trial(filled["index"], images, filled["label"])


@functools.cache
def _fill_padding(mesh: meshes.Mesh) -> Callable[..., dict[str, jax.Array]]:
    """A function that fills masked rows with copies of the first example.

    The first example is a valid image, so padding cannot raise an error.
    """

    def fill(batch):
        rows = jnp.where(batch["mask"], jnp.arange(len(batch["mask"])), 0)
        return {name: x if name == "mask" else x[rows] for name, x in batch.items()}

    return jax.jit(fill, out_shardings=meshes.sharded(mesh))


def _first(names: list[str], most: int) -> str:
    return ", ".join(names[:most] + (["..."] if len(names) > most else []))
