"""The common part of the tasks of an evaluation: network, examples, and batches of these."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import data, models, names, prng, results
from vone_jax import mesh as meshes
from vone_jax.data.sources import Prepared, are_numbers, class_identifier
from vone_jax.evaluation.judging import Trial, noise_record, noise_slug
from vone_jax.evaluation.request import Request
from vone_jax.network import Network
from vone_jax.results import Protocol

# The largest number of images that are read for each image of a gallery, to find another class.
_READ_PER_IMAGE = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """The common part of the tasks of an evaluation: network, examples, request, devices.

    Attributes:
      network: the network.
      examples: the images. The VOneNet authors took every tenth of ImageNet's 50,000 validation
        images.
      request: the request, which has the seed, the protocol, the precision, the workers, the tag,
        and whether results may be replaced.
      directory: directory of the result files.
      mesh: the devices over which a batch is split. It changes no result.
      batch_size: examples at a time, a multiple of the number of devices. It changes no result.
      other: another network, whose adversarial images some conditions carry over to the network.
      versions: package -> version, for the result files.
      command: the command line, for the result files.
      trained_on: whether the network was trained on the data set of the examples. Then the labels
        are its classes, even if its classes have no names.
      keep_images: whether decoded images are kept in memory for the next task, see
        ``data.Prepared``.

    Raises:
      ValueError: if batch size and devices do not fit; if the network takes images of another
        number of channels, has fewer classes than the examples, lacks a class of the examples, has
        several classes of one name, or has no class names to compare; or if the other network has
        other images or classes.
    """

    network: Network
    examples: data.Subset
    request: Request
    directory: Path
    mesh: meshes.Mesh
    batch_size: int
    other: Network | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    command: str = ""
    trained_on: bool = False
    keep_images: bool = False

    def __post_init__(self):
        meshes.check_batch_size(self.mesh, self.batch_size)
        _ = self.classes  # raises for examples that do not fit
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
    def classes(self) -> np.ndarray | None:
        """The network's class for each label of the examples, int32; None if they are the same.

        Classes are matched by name, or by the WordNet number with which both names begin, so that a
        folder with some of the network's classes, or with all of them in another order, is scored
        correctly. Names 0, 1, 2, ... of the examples count as no names: their labels are the
        network's classes, unless the network has all of these names.
        """
        network, examples = self.network, self.examples
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
            return self.examples
        return Prepared(self.examples, network.image_size, network.preprocessing)

    @property
    def effective_protocol(self) -> Protocol:
        """The protocol as it applies to the network: one draw if the network has no noise."""
        return self.request.protocol if self.network.stochastic else Protocol("none", 1)

    @property
    def effective_precision(self) -> str:
        """The precision of matrix products as it applies to the devices."""
        platform = self.mesh.devices.flat[0].platform
        if platform == "cpu" or self.request.matmul_precision is None:
            # The lowest precision that changed the accuracy of no image, see docs/accelerators.md.
            return "high" if platform == "tpu" else "highest"
        return self.request.matmul_precision

    def identity(
        self, name: str, condition: results.Condition, /, **fields: Any
    ) -> results.Identity:
        """The identity of a result; ``fields`` replace the fields that the job gives."""
        dataset = _dataset_record(self.examples)
        if self.classes is not None:
            # The labels in a result are the network's classes.
            dataset = dataclasses.replace(dataset, class_names=self.network.class_names)
        values = {
            "network": network_record(self.network),
            "dataset": dataset,
            "condition": condition,
            "protocol": self.effective_protocol,
            "key": results.Key(
                self.request.seed,
                "evaluation / index in the dataset / purpose (attack, judge, ...)",
            ),
            "matmul_precision": self.effective_precision,
        } | fields
        # Noise is part of the name only if it replaces the noise of training.
        noise = self.network.noise
        test_noise = "" if self.network.trained is None else f"test-{noise_slug(noise)}"
        parts = (name, test_noise, values["protocol"].slug, self.request.tag)
        return results.Identity(name="-".join(filter(None, parts)), **values)

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
        )

    def spread(self, count: int) -> np.ndarray:
        """Ascending positions of some examples, spread over the data set and over its classes.

        The n-th example is the first of a class that is not chosen yet, from the beginning of the
        n-th of ``count`` equal parts on. Once all classes are chosen, they may come again. If there
        are fewer than ``count`` examples, all of them are chosen.
        """
        examples, total = self.examples, len(self.examples)
        count = min(count, total)
        # Enough positions, even if all the images that are chosen already lie among them.
        span = min(_READ_PER_IMAGE + count, total)
        positions: list[int] = []
        classes: set[int] = set()
        for part in range(count):
            start = part * total // count
            free = [p % total for p in range(start, start + span) if p % total not in positions]
            candidates = free[:_READ_PER_IMAGE]
            labels = [int(examples[candidates[0]]["label"])]
            while labels[-1] in classes and len(labels) < len(candidates):
                labels.append(int(examples[candidates[len(labels)]]["label"]))
            chosen = 0 if labels[-1] in classes else len(labels) - 1
            positions.append(candidates[chosen])
            classes.add(labels[chosen])
            if len(classes) == examples.num_classes:
                classes = set()
        return np.array(sorted(positions), np.int64)

    def example_keys(self, indices: jax.Array) -> jax.Array:
        """One key for each example by its dataset index, the root of all its random numbers."""
        root = prng.stream(jax.random.key(self.request.seed), "evaluation")
        return prng.index_keys(root, indices)


def batches(job: Job, batch_size: int | None = None, **fields: Any) -> "data.Batches":
    """This process's part of the batches of a job, see ``data.eval_batches``."""
    return data.eval_batches(
        job.images,
        batch_size=job.batch_size if batch_size is None else batch_size,
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
            "index": job.examples.indices[numbers].astype(np.uint32),
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


def _dataset_record(examples: data.Subset) -> results.Dataset:
    """The examples for a result file."""
    return results.Dataset(
        name=examples.name,
        split=examples.split,
        examples=len(examples),
        stride=examples.stride,
        total=examples.total,
        class_names=tuple(examples.class_names),
        checksum=examples.checksum,
    )


def network_record(network: Network) -> results.Network:
    """The network for a result file."""
    trained = network.model if network.trained is None else network.trained
    config = dict(network.config)
    if "data" not in config:
        # A network that is not a run has its preprocessing nowhere else in the record.
        config.setdefault("preprocessing", dataclasses.asdict(network.preprocessing))
    stochastic = network.stochastic if trained is None else models.is_stochastic(trained)
    architecture = network.architecture
    return results.Network(
        name=architecture or network.name,
        label=names.network_label(architecture) if architecture else network.name,
        stochastic=stochastic,
        parameters=network.parameters,
        weights=network.weights,
        checkpoint_step=network.checkpoint_step,
        trained_noise=None if trained is None else noise_record(models.noise_of(trained)),
        test_noise=noise_record(network.noise),
        config=config,
        source=network.source,
        image_size=network.image_shape[0],
    )


def _first(names: list[str], most: int) -> str:
    return ", ".join(names[:most] + (["..."] if len(names) > most else []))
