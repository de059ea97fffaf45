"""One evaluation of a network: its images, and the rules by which it is judged."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vone_jax import arguments, data
from vone_jax import mesh as meshes
from vone_jax.evaluation.condition import Condition, check_row
from vone_jax.evaluation.examples import NO_IMAGES, Examples
from vone_jax.evaluation.judging import AttackNoise, Protocol, noise_label
from vone_jax.network import Network, open_network

# Noise draws in a gradient, as in the code of the VOneNet authors.
ATTACK_DRAWS = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """A network, the images on which it is measured, and the rules of the measurement.

    ``evaluate`` measures a condition and writes its result. Suites are functions of an evaluation
    that return conditions.

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
            images = data.ArraySource(
                black, np.zeros(1, int), class_names=("0",), name=NO_IMAGES.name
            )
            object.__setattr__(self, "images", images)
        network, name = self.network, self.images.name
        arguments.seed("seed", self.seed)
        if self.examples is not None:
            arguments.count("examples", self.examples)
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
        _ = self.data.classes, self.data.subset  # These raise for examples that do not fit.

    @functools.cached_property
    def data(self) -> Examples:
        """The examples, which are read in batches."""
        return Examples(
            self.network, self.others, self.images, self.examples, self.trained_on, self.seed,
            self.mesh, self.batch_size, self.keep_images,
        )  # fmt: skip

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the labels in a result: those of the network where they were matched."""
        return self.data.class_names

    def prepared(self, condition: Condition, places: np.ndarray) -> np.ndarray:
        """Some images of a condition by their places (n, H, W, C), on this process alone."""
        return self.data.prepared(condition, places)

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

    def protocol_of(self, condition: Condition) -> Protocol:
        """The protocol as it applies to the network and a condition.

        A network without noise is judged once. The rules of the evaluation belong to judged
        conditions alone.
        """
        if not self.network.stochastic:
            return Protocol("none", 1)
        return self.protocol if condition.judged else Protocol("fresh", 1)

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

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed about the network and its images, one line each."""
        height, width, _ = self.images.image_shape
        size = self.network.image_size
        if self.images.name == NO_IMAGES.name or not (height and width) or height == width == size:
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

    def row(self, condition: Condition) -> dict[str, Any]:
        """What the numbers of a condition are of: a row without numbers, see ``results.row``."""
        row = {"network": self.network.label, **check_row(condition)}
        row |= {"seed": self.seed, "tag": self.tag}
        if condition.examples != 0:
            examples = self.data.of(condition)
            row |= {"dataset": _place(examples.name), "split": examples.split}
            row["examples"] = len(examples)
        network, protocol = self.network, self.protocol_of(condition)
        if network.noise != network.trained_noise:
            row.setdefault("noise", noise_label(network.noise))
        if network.stochastic:
            row["draws"] = protocol.draws
        if condition.judged and network.stochastic:
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

    @property
    def matmul_precision(self) -> str:
        """The precision of matrix products, as JAX was told, or as it applies to the devices.

        The default is the lowest that changed the accuracy of no image, see docs/accelerators.md.
        """
        platform = self.mesh.devices.flat[0].platform
        if platform == "cpu":
            return "highest"
        told = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
        return told or ("high" if platform == "tpu" else "highest")


def _place(name: str) -> str:
    """The name of a data set, without the place of its files."""
    kind, colon, path = name.partition(":")
    return f"{kind}:{Path(path).name}" if colon and kind in ("folder", "npz", "npy") else name
