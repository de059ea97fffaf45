"""One evaluation of a network: its images, the rules by which it is judged, and its batches."""

import contextlib
import dataclasses
import functools
import inspect
import json
import math
import types
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import arguments, data, files, fingerprint, names, prng
from vone_jax import mesh as meshes
from vone_jax.attacks.classifier import LogitsFn
from vone_jax.data.sources import class_identifier
from vone_jax.dataclass_json import encode, stored_fields
from vone_jax.evaluation.conditions import Clean, Condition, Judged, surrogates
from vone_jax.evaluation.examples import NO_IMAGES, match_classes
from vone_jax.evaluation.judging import AttackNoise, Batch, Protocol, noise_label
from vone_jax.evaluation.masking import quick_checks
from vone_jax.evaluation.masking_checks import Check
from vone_jax.network import Network, open_network

_NONE = NO_IMAGES.name
# Examples that are used by default, at most.
_EXAMPLES = 5000
# Examples at a time. On CPUs, of a long condition as many as have this number of pixels: then the
# progress moves, and little is lost when the work is stopped.
_AT_A_TIME, _PIXELS_ON_CPUS = 50, 10_000
# Noise draws in a gradient, as in the code of the VOneNet authors.
ATTACK_DRAWS = 10
# Examples on which the quick checks for masked gradients are made.
_CHECKED = 10
# The words of an identity that change no number: the name of a network and its place, and that of
# a data set, whose fingerprint decides.
_NAMES = {"network": ("name", "label", "source"), "dataset": ("name",)}


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """A network, the images on which it is measured, and the rules of the measurement.

    ``evaluate`` measures a condition and writes its result. Suites are functions of an evaluation,
    see ``suites``.

    Attributes:
      network: the network, or what ``open_network`` takes.
      images: the split of which the examples are taken, see ``data.load``. Default: a black
        image, for conditions that show images of their own.
      directory: directory of the result files.
      examples: number of examples, every k-th of the images. The VOneNet authors took every tenth
        of ImageNet's 50,000 validation images. Default: 5000, or all if there are fewer.
      protocol: how a network with noise is judged; another one is judged once.
      attack_noise: the noise of the network while it is attacked, see ``judging.AttackNoise``.
      seed: root of all randomness.
      tag: text at the end of the names of results.
      norm, eps: norm and radii of suites that leave them open; radii in pixel units. Without radii,
        suites take those of ``suites.ladder``.
      layers, neurons: layers and files of the suites that record layers.
      others: other networks, or what ``open_network`` takes. The checks for masked gradients carry
        adversarial images of one over, and metamers are shown to all.
      trained_on: whether the network was trained on the data set of the images. Then the labels are
        its classes, even if its classes have no names.
      overwrite: whether finished results and work that was begun are measured again.
      mesh: the devices over which a batch is split. It changes no result.
      batch_size: examples at a time, a multiple of the number of devices. It changes no result.
        Default: a size that fits the condition.
      keep_images: whether decoded images are kept in memory for the next condition.
      provenance: further provenance of the results.

    Raises:
      ValueError: if batch size and devices do not fit; if the images have another number of
        channels than the network's, or labels that cannot be matched with its classes; if there are
        fewer images than examples; or if the noise at the attack does not fit the protocol.
    """

    network: Network
    images: data.Source = NO_IMAGES
    directory: Path = Path("results")
    examples: int | None = None
    protocol: Protocol = Protocol()
    attack_noise: AttackNoise = "same"
    seed: int = 0
    tag: str = ""
    norm: str = "linf"
    eps: tuple[float, ...] = ()
    layers: tuple[str, ...] = ()
    neurons: tuple[Path, ...] = ()
    others: tuple[Network, ...] = ()
    trained_on: bool = False
    overwrite: bool = False
    mesh: meshes.Mesh = dataclasses.field(default_factory=meshes.data_mesh)
    batch_size: int | None = None
    keep_images: bool = False
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        # Opened, which checks functions of the user.
        object.__setattr__(self, "network", open_network(self.network))
        object.__setattr__(self, "directory", Path(self.directory))
        if self.images is NO_IMAGES:
            black = np.zeros((1, *self.network.image_shape), np.uint8)
            images = data.ArraySource(black, np.zeros(1, int), class_names=("0",), name=_NONE)
            object.__setattr__(self, "images", images)
        network, name = self.network, self.images.name
        arguments.seed("seed", self.seed)
        if self.examples is not None:
            arguments.count("examples", self.examples)
        arguments.choice("norm", self.norm, names.NORMS)
        if self.tag:
            arguments.directory_name("tag", self.tag)
        if self.batch_size is not None:
            meshes.check_batch_size(self.mesh, self.batch_size)
        object.__setattr__(self, "others", tuple(map(open_network, self.others)))
        self._check_others()
        channels = self.images.image_shape[-1]
        if channels != network.in_channels:
            folder = ", as all folders do" if name.startswith("folder:") else ""
            raise ValueError(
                f"{name!r} has images with {channels} channel(s){folder}; {network.name} takes "
                f"{network.in_channels}; name other images as source"
            )
        if self.attack_noise != "same" and self.protocol.noise == "frozen":
            raise ValueError(
                f"attack_noise {self.attack_noise!r} needs fresh noise; with noise 'frozen' attack "
                "and judgement share the same draw"
            )
        _ = self.classes, self.subset  # These raise for examples that do not fit.

    # The network and its noise.

    @property
    def noisy(self) -> bool:
        """Whether the network's noise differs between the passes of an attack."""
        return self.network.stochastic and self.protocol.noise != "frozen"

    @property
    def attack_draws(self) -> int:
        """Noise draws in a gradient: averaging over draws makes sense only if they differ."""
        return ATTACK_DRAWS if self._varies(self.attack_noise) else 1

    def _varies(self, seen: AttackNoise) -> bool:
        """Whether the noise that an attack sees differs between its passes."""
        return self.noisy if seen == "same" else seen not in ("none", None, "frozen")

    @property
    def effective_protocol(self) -> Protocol:
        """The protocol as it applies to the network: one draw if the network has no noise."""
        return self.protocol if self.network.stochastic else Protocol("none", 1)

    def protocol_of(self, condition: Condition) -> Protocol:
        """The protocol of a condition: one draw for one that is not judged by a protocol."""
        if condition.judged or not self.network.stochastic:
            return self.effective_protocol
        return Protocol("fresh", 1)

    def _check_others(self) -> None:
        """Raise a ValueError unless the other networks can be shown images of this one."""
        if len({other.name for other in self.others}) < len(self.others):
            raise ValueError("others must have different names")
        for other in self.others:
            ours, theirs = ((x.image_shape, x.num_classes) for x in (self.network, other))
            named = {each.class_names for each in (self.network, other)} - {()}
            if ours != theirs or len(named) > 1:
                raise ValueError(
                    f"{other.name} and {self.network.name} must take images of one shape and have "
                    f"the same classes in the same order, got shapes and numbers of classes "
                    f"{theirs} and {ours}"
                )

    @functools.cached_property
    def checks(self) -> list[Check]:
        """The checks for masked gradients that cost a few passes, on a few of the examples."""
        places = range(0, len(self.subset), max(1, len(self.subset) // _CHECKED))
        batches = self.batches(Clean(), list(places)[:_CHECKED])
        return quick_checks(batches, self.network.stochastic)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed about the network and its images, one line each."""
        height, width, _ = self.images.image_shape
        size = self.network.image_size
        if self.images.name == _NONE or not (height and width) or height == width == size:
            return self.network.notes
        how = "enlarged" if min(height, width) < size else "resized"
        return (*self.network.notes, f"its images of {height} x {width} pixels are {how} to {size}")

    def check(self, condition: Condition) -> None:
        """Raise a ValueError if a condition cannot be measured in this way."""
        condition.check(self.network)
        if self.attack_noise != "same" and condition.attacks and not condition.under_attack_noise:
            raise ValueError(
                f"attack_noise is not for {condition.label}, whose attacks see the noise of the "
                "judgement"
            )

    # What a result is.

    def row(self, condition: Condition) -> dict[str, Any]:
        """What the numbers of a condition are of: a row without numbers, see ``results.row``."""
        examples = self.examples_of(condition)
        row = {
            "network": self.network.label,
            "seed": self.seed,
            "tag": self.tag,
            **condition.row,
        }
        if condition.examples != 0:
            row |= {"dataset": _place(examples.name), "split": examples.split}
            row["examples"] = len(examples)
        network, protocol = self.network, self.protocol_of(condition)
        if network.noise != network.trained_noise:
            row.setdefault("noise", noise_label(network.noise))
        if condition.by_example and network.stochastic:
            row["draws"] = protocol.draws
            if protocol.noise == "frozen":
                row["noise"] = "frozen"
            if protocol.decision != "single":
                row["decision"] = protocol.decided
        if condition.under_attack_noise and self.attack_noise != "same":
            noise = self.attack_noise or "none"
            row["attack_noise"] = noise if isinstance(noise, str) else noise_label(noise)
        if not self._varies(self.attack_noise if condition.under_attack_noise else "same"):
            row.pop("attack_draws", None)
        return {name: value for name, value in row.items() if value not in (None, "")}

    def identity(self, condition: Condition) -> dict[str, Any]:
        """The identity of the result of a condition, see ``results.Result``."""
        protocol = self.protocol_of(condition) if condition.by_example else Protocol("none", 1)
        identity = {
            "condition": self._described(condition),
            "protocol": encode(protocol),
            "dataset": self._dataset(condition),
            "network": self._network,
            "seed": self.seed,
            "tag": self.tag,
            # Layers that are shown images of their own are recorded with full products.
            "matmul_precision": self.matmul_precision if condition.examples != 0 else "highest",
            "dtype": self.network.dtype,
        }
        if condition.under_attack_noise:
            identity["attack_noise"] = encode(self.attack_noise)
        # As it is read from a file, so that tuples are lists.
        return json.loads(json.dumps(identity))

    def _described(self, condition: Condition) -> dict[str, Any]:
        """The condition, with what its fields do not show: other networks, and a user's code."""
        described = condition.identity()
        if condition.asks_others and self.others:
            described["networks"] = [[each.description, each.checksum] for each in self.others]
        for attack in condition.attacks:
            if found := surrogates(attack, *self.network.inputs()):
                described["surrogates"] = found
        if is_of_user(condition):
            described |= self._program(condition)
        return described

    def _program(self, condition: Condition) -> dict[str, Any]:
        """A digest of what a user's code computes of a batch, without the network's weights.

        Code that Python computes on the host cannot be traced. Its digest is that of its files, and
        of what it computes of two images.
        """
        network, shape = self.network, self.network.image_shape
        protocol = self.protocol_of(condition)
        # A network of functions keeps its weights in its program.
        weights = network.variables

        def made(weights: Any, keys: jax.Array, labels: jax.Array, images: jax.Array) -> Any:
            used = network if network.model is None else network.placed(lambda _: weights)
            return condition.make(self._batch(protocol, used, {}, keys, images, labels))

        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
        labels = jax.ShapeDtypeStruct((2,), np.int32)
        images = jax.ShapeDtypeStruct((2, *shape), np.float32)
        traced = ""
        try:
            function = fingerprint.as_pytree(made, weights, keys, labels, images)
            traced = function.fingerprint
            if not function.callbacks:
                return {"program": traced}
        except Exception:
            pass  # It is not a program of JAX.
        digest = f"{_files_of_user(condition)}{self._computed(condition)}"
        return {"program": f"{traced[:16]}{digest}", "on_host": True}

    def _computed(self, condition: Condition) -> str:
        """A digest of what a condition computes of two images; empty if it does not repeat it."""
        images = jax.random.uniform(jax.random.key(0), (2, *self.network.image_shape))
        network, others = self._placed
        batch = self._batch(
            self.protocol_of(condition),
            network,
            others,
            jax.random.split(jax.random.key(0), 2),
            images,
            jnp.zeros(2, jnp.int32),
        )
        if not condition.by_example or condition.long:
            return ""  # It may take hours.
        try:
            first, second = (
                condition.perturb(batch) if isinstance(condition, Judged) else condition.make(batch)
                for _ in range(2)
            )
        except Exception:
            return ""  # The evaluation itself reports the error.
        one, two = (files.array_checksum(jax.tree.leaves(meshes.fetch(x))) for x in (first, second))
        return f"{one:08x}" if one == two else ""

    def _dataset(self, condition: Condition) -> dict[str, Any]:
        if condition.examples == 0:
            row = condition.row
            return {"name": row["dataset"], "examples": row.get("examples")}
        examples = self.examples_of(condition)
        # By which class each label is counted.
        labels = [list(self.class_names), None if self.classes is None else self.classes.tolist()]
        checksums = self.checksums(examples.indices)
        return {
            "name": examples.name,
            "split": examples.split,
            "examples": len(examples),
            "total": examples.total,
            "classes": examples.num_classes,
            "labels": f"{zlib.crc32(json.dumps(labels).encode()):08x}",
            "fingerprint": data.fingerprint(examples, checksums),
            # ImageNet's own classes, on which published means are.
            "wordnet": set(map(class_identifier, examples.class_names))
            == set(data.imagenet_class_names()),
        }

    @functools.cached_property
    def _network(self) -> dict[str, Any]:
        """The network for a result file. Its front end and its weights are part of its identity."""
        network = self.network
        same = ("name", "label", "source", "description", "checksum", "image_size", "stochastic")
        return {name: getattr(network, name) for name in same} | {
            "trained_noise": encode(network.trained_noise),
            "test_noise": encode(network.noise),
        }

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

    # The examples and their batches.

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
        if self.examples is not None and self.images.name != _NONE:
            count = self.examples
        return data.Subset(self.images, count)

    def examples_of(self, condition: Condition) -> data.Subset:
        """The examples that a condition takes."""
        if condition.examples is None or condition.examples >= len(self.subset):
            return self.subset
        return data.Subset(self.images, max(condition.examples, 1))

    def work_of(self, condition: Condition) -> tuple[int, str]:
        """The number of examples or stimuli of a condition, and which of them are counted."""
        if stimuli := condition.stimuli(self.network):
            return stimuli, "stimuli"
        return len(self.examples_of(condition)), "images"

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
            few = condition.long and self._platform == "cpu"
            size = max(_PIXELS_ON_CPUS // pixels, 1) if few else _AT_A_TIME
            size = min(size, _AT_A_TIME)
        # A batch that is too short is padded, and padding costs as much as images.
        return -(-min(size, count) // self.mesh.size) * self.mesh.size

    @functools.cached_property
    def _placed(self) -> tuple[Network, dict[str, LogitsFn]]:
        """The network, and the classifiers of the others by their names, on the devices."""
        place = functools.partial(meshes.replicate, self.mesh)
        others = {each.name: each.placed(place).logits_fn for each in self.others}
        return self.network.placed(place), others

    @functools.cached_property
    def _kept(self) -> data.Prepared:
        """The examples, whose decoded images are kept."""
        return data.Prepared(self.subset, self.network.image_size, self.network.preprocessing)

    def batches(self, condition: Condition, places: Sequence[int] | None = None) -> Iterator[Batch]:
        """The batches of a condition, split over processes and devices.

        Args:
          condition: the condition, which decides about the number of examples and the size.
          places: places of the examples among those of the condition. Default: all.
        """
        examples, start = self.examples_of(condition), 0
        if places is not None:
            start = places[0]
            # The end of the examples, as after a stop, or only those that are missing.
            if list(places) != list(range(start, len(examples))):
                examples, start = examples.pick(np.asarray(places)), 0
        protocol, (network, others) = self.protocol_of(condition), self._placed
        functions = None
        size = self.batch_size_of(condition, len(examples))
        for whole in self._read(examples, size, start):
            keys = self.example_keys(whole["index"])
            batch = self._batch(protocol, network, others, keys, whole["image"], whole["label"])
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
        network, examples = self.network, self.examples_of(condition).pick(places)
        prepared = data.Prepared(examples, network.image_size, network.preprocessing)
        images = np.zeros((len(places), *network.image_shape), np.uint8)
        for number in range(len(places)):
            images[number] = prepared[number]["image"]
        return images.astype(np.float32) / 255

    @functools.cached_property
    def _between_batches(self) -> dict[Condition, Any]:
        """What conditions compute for their first batch and keep for the others."""
        return {}

    def batch(self, indices: jax.Array, images: jax.Array, labels: jax.Array) -> Batch:
        """A batch for the network: indices in the data set, images, and the network's classes."""
        protocol, keys = self.effective_protocol, self.example_keys(indices)
        return self._batch(protocol, *self._placed, keys, images, labels)

    def _batch(
        self,
        protocol: Protocol,
        network: Network,
        others: dict[str, LogitsFn],
        keys: jax.Array,
        images: jax.Array,
        labels: jax.Array,
    ) -> Batch:
        return Batch(
            protocol=protocol,
            example_keys=keys,
            logits_fn=network.logits_fn,
            images=images,
            labels=labels,
            attack_noise=self.attack_noise,
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


def decisive(identity: dict[str, Any]) -> dict[str, Any]:
    """The part of an identity that decides whether two results are of the same measurement.

    A network that was renamed, and a folder that was moved, are the same.
    """
    return identity | {
        field: {n: v for n, v in identity[field].items() if n not in hidden}
        for field, hidden in _NAMES.items()
    }


def _place(name: str) -> str:
    """The name of a data set, without the place of its files."""
    kind, colon, path = name.partition(":")
    return f"{kind}:{Path(path).name}" if colon and kind in ("folder", "npz", "npy") else name


def is_of_user(value: Any) -> bool:
    """Whether a record is of a class of a user, or a field of it holds one, or a function."""
    return any(not each.__module__.startswith("vone_jax.") for each in _code(value))


def _code(value: Any) -> Iterator[Any]:
    """The classes and functions of a record and its fields, of those that are stored."""
    if isinstance(value, types.FunctionType):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _code(each)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type | Network):
        yield type(value)
        for field in stored_fields(type(value)):
            yield from _code(getattr(value, field.name))


def _files_of_user(value: Any) -> str:
    """A digest of the files of the classes and functions of a user."""
    return "".join(
        f"{zlib.crc32(Path(path).read_bytes()):08x}"
        for path in sorted({inspect.getfile(each) for each in _code(value)})
    )


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
