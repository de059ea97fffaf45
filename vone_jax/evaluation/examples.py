"""The examples of an evaluation, the match of their labels, and the network for a result file."""

import copy
import re

import numpy as np

from vone_jax import data, models, names, results, v1
from vone_jax.network import Network
from vone_jax.v1 import Noise

# The number of a noun in WordNet, by which ImageNet names its classes.
_WORDNET = re.compile(r"n\d{8}(?!\d)")


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
    if isinstance(noise, v1.FanoNoise):
        return results.Noise("fano", float(noise.fano_factor), float(noise.floor))
    return results.Noise("neuronal", float(noise.scale), float(noise.level), float(noise.strength))


def noise_slug(noise: Noise) -> str:
    """The noise in the name of a file, such as ``"neuronal-0.35-0.07-1"``."""
    record = noise_record(noise)
    return "none" if record is None else record.slug


def network_record(network: Network) -> results.Network:
    """The network for a result file."""
    trained = network.model if network.trained is None else network.trained
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
        config=dict(network.config),
        source=network.source,
    )


def match_labels(network: Network, examples: Examples, trained_on: bool) -> np.ndarray | None:
    """Match the labels of the examples with the classes of the network.

    Classes are matched by name, or by the WordNet number with which both names begin, so that a
    folder with some of the network's classes, or with all of them in another order, is scored
    correctly. Where a side has numbers for names, the labels are the classes.

    Args:
      network: the network.
      examples: the images with their labels.
      trained_on: True if the network was trained on this data set, so that the labels of a network
        without class names are its classes.

    Returns:
      The class of each label, int32, or None if the labels are the classes.

    Raises:
      ValueError: if the network takes images of another number of channels, has fewer classes,
        lacks a class of the examples, or has no names to compare with theirs.
    """
    channels = examples.image_shape[-1]
    if channels != network.image_shape[-1]:
        raise ValueError(
            f"{examples.name!r} has images of {channels} channels, {network.name} takes "
            f"{network.image_shape[-1]}"
        )
    known, given = list(network.class_names), list(examples.class_names)
    numbered = _are_numbers(given) or bool(known) and _are_numbers(known)
    if not known and not numbered and not trained_on:
        raise ValueError(
            f"the classes of {network.name} have no names, so the labels of {examples.name!r} "
            f"({', '.join(given[:3])}{', ...' if len(given) > 3 else ''}) cannot be matched with "
            f"its logits; give class_names, a file with one name a line for each of its "
            f"{network.num_classes} logits"
        )
    if not known or known == given or numbered:
        if len(given) > network.num_classes:
            raise ValueError(
                f"{examples.name!r} has {len(given)} classes, {network.name} has "
                f"{network.num_classes}"
            )
        return None
    places = {_identifier(name): position for position, name in enumerate(known)}
    missing = [name for name in given if _identifier(name) not in places]
    if missing:
        raise ValueError(
            f"{examples.name!r} has classes that {network.name} does not know: "
            f"{', '.join(map(repr, missing[:5]))}{', ...' if len(missing) > 5 else ''}; its "
            f"classes are {', '.join(map(repr, known[:10]))}{', ...' if len(known) > 10 else ''}. "
            f"Rename the classes of the data, or leave these out"
        )
    return np.array([places[_identifier(name)] for name in given], np.int32)


def _identifier(name: str) -> str:
    """The WordNet number at the beginning of a class name, else the name."""
    number = _WORDNET.match(name)
    return name if number is None else number[0]


def _are_numbers(class_names: list[str]) -> bool:
    """True if the names are the positions, as in a source without names."""
    return class_names == [str(position) for position in range(len(class_names))]
