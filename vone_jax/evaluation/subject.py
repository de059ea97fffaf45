"""Who is examined, and on which examples."""

import dataclasses
import functools
import zlib
from typing import Any

import jax
import numpy as np

from vone_jax import data, models
from vone_jax.evaluation import labels, other_noise
from vone_jax.models import BaseNetwork, VOneNet
from vone_jax.v1 import Noise


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A trained network.

    Attributes:
      run: name of its run.
      name: of the network, one of ``models.NAMES``.
      model: the module.
      variables: ``{"params": ..., "batch_stats": ...}``.
      image_size: side of the images in pixels.
      in_channels: 1 or 3.
      center_crop: see ``data.eval_batches``.
      checkpoint_step: which of its checkpoints this is.
      config: the experiment as JSON values.
      trained: the module that was trained, where ``model`` has other noise, see ``with_noise``.
    """

    run: str
    name: str
    model: BaseNetwork | VOneNet
    variables: Any
    image_size: int
    in_channels: int
    center_crop: float | None
    checkpoint_step: int
    config: dict[str, Any]
    trained: BaseNetwork | VOneNet | None = None

    def with_noise(self, given: Noise) -> "Subject":
        """The network with other noise in V1, or behind the stem of a base network, or none."""
        if given == models.noise_of(self.model):
            return self
        model = models.with_noise(self.model, given)
        return dataclasses.replace(self, model=model, trained=self.model)

    @property
    def suffix(self) -> str:
        """What tells the names of its results from those of the network as it was trained."""
        return (
            "" if self.trained is None else f"test-{other_noise.label(models.noise_of(self.model))}"
        )

    @property
    def stochastic(self) -> bool:
        """Whether its logits depend on the key."""
        return models.is_stochastic(self.model)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.image_size, self.image_size, self.in_channels

    def num_classes(self) -> int:
        """Number of logits."""
        image = jax.ShapeDtypeStruct((1, *self.image_shape), np.float32)
        logits_fn = models.logits_fn(self.model, self.variables)
        return jax.eval_shape(logits_fn, jax.random.key(0), image).shape[-1]

    def record(self) -> dict[str, Any]:
        """The network for a result file: as it was trained, and what noise it has instead."""
        parameters = jax.tree.leaves(self.variables["params"])
        trained = self.model if self.trained is None else self.trained
        found = {
            "name": self.name,
            "label": labels.network(self.name),
            "stochastic": models.is_stochastic(trained),
            "parameters": int(sum(leaf.size for leaf in parameters)),
        }
        if self.trained is not None:
            found["noise_at_test"] = {
                "trained": other_noise.words(models.noise_of(trained)),
                "given": other_noise.words(models.noise_of(self.model)),
            }
        return found

    @functools.cached_property
    def weights(self) -> str:
        """A checksum of all variables: a network trained anew is another one."""
        checksum = 0
        for leaf in jax.tree.leaves(self.variables):
            checksum = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), checksum)
        return f"{checksum:08x}"


class Examples(data.Subset):
    """Every k-th example of a split.

    The stride is ``len(source) // count``, as in the VOneNet authors' protocol (every tenth of
    ImageNet's 50,000 validation images).
    """

    def record(self) -> dict[str, Any]:
        """The examples for a result file."""
        return {
            "name": self.name,
            "split": self.split,
            "examples": len(self),
            "stride": self.stride,
            "total": self.total,
            "class_names": list(self.class_names),
        }


def check_fit(subject: Subject, examples: Examples) -> None:
    """Raises a ValueError unless the network can be examined on the examples."""
    channels = examples.image_shape[-1]
    if channels != subject.in_channels:
        raise ValueError(
            f"{examples.name!r} has images of {channels} channels, {subject.run} was trained on "
            f"{subject.in_channels}"
        )
    classes = subject.num_classes()
    if examples.num_classes > classes:
        raise ValueError(
            f"{examples.name!r} has {examples.num_classes} classes, {subject.run} knows {classes}"
        )
