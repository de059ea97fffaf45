"""The network that is evaluated, the examples, and how labels of the two are matched."""

import copy
import dataclasses
import functools
import zlib
from typing import Any

import jax
import numpy as np

from vone_jax import data, models, names, results, v1
from vone_jax.models import BaseNetwork, VOneNet
from vone_jax.v1 import Noise


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A trained network.

    Attributes:
      run: name of its run.
      name: its architecture, one of ``models.NAMES``.
      model: the module.
      variables: ``{"params": ..., "batch_stats": ...}``.
      image_size: side of the images in pixels.
      in_channels: 1 or 3.
      center_crop: see ``data.eval_batches``.
      checkpoint_step: the training step of its checkpoint.
      config: the experiment as JSON values.
      class_names: names of its classes in the order of the logits; empty if they are not known.
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
    class_names: tuple[str, ...] = ()
    trained: BaseNetwork | VOneNet | None = None

    def with_noise(self, noise: Noise) -> "Subject":
        """The network with other noise in V1, or behind the stem of a base network, or none."""
        if noise == models.noise_of(self.model):
            return self
        model = models.with_noise(self.model, noise)
        return dataclasses.replace(self, model=model, trained=self.model)

    @property
    def slug(self) -> str:
        """The replaced noise in the name of a result; empty for the network as it was trained."""
        if self.trained is None:
            return ""
        return f"test-{noise_slug(models.noise_of(self.model))}"

    @property
    def stochastic(self) -> bool:
        """True if the logits depend on the key."""
        return models.is_stochastic(self.model)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.image_size, self.image_size, self.in_channels

    @functools.cached_property
    def num_classes(self) -> int:
        """Number of logits."""
        images = jax.ShapeDtypeStruct((1, *self.image_shape), np.float32)
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
        logits_fn = models.logits_fn(self.model, self.variables)
        return jax.eval_shape(logits_fn, keys, images).shape[-1]

    @functools.cached_property
    def record(self) -> results.Network:
        """The network for a result file."""
        parameters = jax.tree.leaves(self.variables["params"])
        trained = self.model if self.trained is None else self.trained
        return results.Network(
            name=self.name,
            label=names.network_label(self.name),
            stochastic=models.is_stochastic(trained),
            parameters=int(sum(leaf.size for leaf in parameters)),
            weights=self.weights,
            checkpoint_step=self.checkpoint_step,
            trained_noise=noise_record(models.noise_of(trained)),
            test_noise=noise_record(models.noise_of(self.model)),
            config=self.config,
        )

    @functools.cached_property
    def weights(self) -> str:
        """A checksum of all variables. A network that is trained anew has another one."""
        checksum = 0
        for leaf in jax.tree.leaves(self.variables):
            checksum = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), checksum)
        return f"{checksum:08x}"


class Examples(data.Subset):
    """Every k-th example of a split.

    The stride is ``len(source) // count``, as in the VOneNet authors' protocol (every tenth of
    ImageNet's 50,000 validation images).
    """

    @property
    def record(self) -> results.Dataset:
        """The examples for a result file."""
        return results.Dataset(
            name=self.name,
            split=self.split,
            examples=len(self),
            stride=self.stride,
            total=self.total,
            class_names=tuple(self.class_names),
        )

    def pick(self, positions: np.ndarray) -> "Examples":
        """Only the examples at some positions. They keep their indices in the split."""
        picked = copy.copy(self)
        picked.indices = self.indices[positions]
        return picked


def noise_record(noise: Noise) -> results.Noise | None:
    """The noise for a result file."""
    if noise is None:
        return None
    if isinstance(noise, v1.GaussianNoise):
        return results.Noise("gaussian", float(noise.scale))
    return results.Noise("neuronal", float(noise.scale), float(noise.level), float(noise.strength))


def noise_slug(noise: Noise) -> str:
    """The noise in the name of a file, such as ``"neuronal-0.35-0.07-1"``."""
    record = noise_record(noise)
    return "none" if record is None else record.slug


def match_labels(subject: Subject, examples: Examples) -> np.ndarray | None:
    """Match the labels of the examples with the classes of the network.

    Classes are matched by name, so that a folder with some of the network's classes, or with all
    of them in another order, is scored correctly. Where a side has no names, or has numbers for
    names, the labels are the classes.

    Returns:
      The class of each label, int32, or None if the labels are the classes.

    Raises:
      ValueError: if the network takes images of another number of channels, has fewer classes,
        or lacks a class of the examples.
    """
    channels = examples.image_shape[-1]
    if channels != subject.in_channels:
        raise ValueError(
            f"{examples.name!r} has images of {channels} channels, {subject.run} was trained on "
            f"{subject.in_channels}"
        )
    known, given = list(subject.class_names), list(examples.class_names)
    if not known or known == given or _are_numbers(known) or _are_numbers(given):
        if len(given) > subject.num_classes:
            raise ValueError(
                f"{examples.name!r} has {len(given)} classes, {subject.run} has "
                f"{subject.num_classes}"
            )
        return None
    missing = [name for name in given if name not in known]
    if missing:
        raise ValueError(
            f"{examples.name!r} has classes that {subject.run} was not trained on: "
            f"{', '.join(map(repr, missing[:5]))}{', ...' if len(missing) > 5 else ''}; its "
            f"classes are {', '.join(map(repr, known[:10]))}{', ...' if len(known) > 10 else ''}. "
            f"Rename the classes of the data, or leave these out"
        )
    return np.array([known.index(name) for name in given], np.int32)


def _are_numbers(class_names: list[str]) -> bool:
    """True if the names are the positions, as in a source without names."""
    return class_names == [str(position) for position in range(len(class_names))]
