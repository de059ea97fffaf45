"""The condition ``Psychophysics``: distorted images, as human observers have seen them."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vone_jax import arguments, corruptions, data, functions
from vone_jax.data.sources import class_identifier
from vone_jax.evaluation.condition import Condition, Numbers, fields_of_row, number
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.evaluation.judging import Batch
from vone_jax.network import Network
from vone_jax.perception import humans
from vone_jax.results import Lines

# The number of ImageNet's classes.
_IMAGENET = 1000


@dataclasses.dataclass(frozen=True)
class Psychophysics(Condition):
    """The accuracy at each level of a distortion of Geirhos et al., see ``corruptions.distort``.

    A network with the classes of ImageNet decides among the 16 categories of the observers, see
    ``in_categories``; images of other classes do not count. Another network decides among its own
    classes, with a warning.

    Attributes:
      distortion: one of ``corruptions.DISTORTIONS``.
      levels: the levels; none for those that the observers saw, see ``humans.DISTORTIONS``.

    Raises:
      ValueError: for another distortion.
    """

    section = "Human observers"
    judged: ClassVar[bool] = True

    distortion: Annotated[str, tuple(corruptions.DISTORTIONS)]
    levels: tuple[float, ...] = ()

    def __post_init__(self):
        arguments.fields(self)

    def row(self) -> dict[str, Any]:
        return {"condition": "psychophysics", **fields_of_row(self)}

    @property
    def _levels(self) -> tuple[float, ...]:
        published = humans.DISTORTIONS[self.distortion].levels
        return self.levels or tuple(map(float, published))

    def make(self, batch: Batch) -> dict[str, Any]:
        def distorted(level: float) -> jax.Array:
            keys = batch.keys("corruption")
            return corruptions.distort(keys, batch.images, self.distortion, level)

        return judge_each(batch, map(distorted, self._levels))

    def result(self, arrays: Mapping[str, np.ndarray], evaluation: Any) -> Numbers:
        right, warnings = counted(arrays)
        if not len(right):
            return Numbers(warnings=warnings)
        # JSON has no infinity, and the widest filter is none.
        levels = [_level(each) for each in self._levels]
        measured = [
            number("accuracy", of=right[:, place], level=level)
            for place, level in enumerate(levels)
        ]
        curve = humans.DISTORTIONS[self.distortion]
        people = [
            {"network": f"{curve.observers} observers", "number": "accuracy", "value": share,
             "level": _level(float(level)), "distortion": self.distortion}
            for level, share in zip(curve.levels, curve.accuracy, strict=True)
        ]  # fmt: skip
        # From the easiest: full contrast, and the widest filter that is subtracted.
        order = sorted({*map(float, curve.levels), *self._levels})
        if self.distortion in ("contrast", "high_pass"):
            order.reverse()
        about = (
            "Accuracy on grey, distorted photographs. Dashed: human observers, who chose among 16 "
            "categories, so that 1 in 16 is chance, and saw other photographs. Levels: "
            f"{curve.unit}. Observers: {curve.source}."
        )
        ordered = tuple(map(_level, order))
        lines = Lines("accuracy", "level", "distortion", order=ordered, share=True, about=about)
        return Numbers(measured, [lines], people, warnings, {"images": len(right)})


def _level(value: float) -> float | str:
    return "none" if np.isinf(value) else float(value)


def judge_each(batch: Batch, versions: Any) -> dict[str, Any]:
    """Judge several versions of the images of a batch, as observers do.

    Returns:
      "right at levels" (N, levels, R); "loss at levels" (N, levels); "counted" (N,), false for
      images of no category; and "categories" (N,), true if the decision was among the 16.
    """
    weights = category_weights(batch.network)
    count = np.ones(len(batch.images), bool)
    if weights is not None:
        member = jnp.asarray(weights > 0)[:, batch.labels]
        count = jnp.any(member, axis=0)
        logits_fn = Partial(
            _in_categories,
            functions.as_pytree(batch.logits_fn, batch.example_keys, batch.images),
            jnp.asarray(weights),
        )
        labels = jnp.argmax(member, axis=0).astype(batch.labels.dtype)
        batch = dataclasses.replace(batch, logits_fn=logits_fn, labels=labels)
    judged = [batch.judge(images) for images in versions]
    return {
        "right at levels": jnp.stack([each["right"] for each in judged], axis=1),
        "loss at levels": jnp.stack([each["loss"] for each in judged], axis=1),
        "counted": count,
        "categories": np.full(len(batch.images), weights is not None),
    }


def counted(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The decisions (N, levels, R) about images of the categories, and warnings."""
    right = arrays["right at levels"][arrays["counted"]]
    if not arrays["categories"].all():
        return right, (
            "The network decides among its own classes, the human observers among 16 categories: "
            "compare how the curves fall, not their heights.",
        )
    if len(right) < len(arrays["counted"]):
        return right, (
            f"{len(right)} of {len(arrays['counted'])} images are of the 16 categories of human "
            "observers; only these count.",
        )
    return right, ()


def category_weights(network: Network) -> np.ndarray | None:
    """The weight of each class in each category, float32 (16, classes).

    The weights of a category are equal and sum to 1. It is None for a network whose classes are not
    those of ImageNet, by WordNet number and in any order.
    """
    if len(network.class_names) != _IMAGENET:
        return None
    places = {class_identifier(name): place for place, name in enumerate(network.class_names)}
    numbers = data.imagenet_class_names()
    if places.keys() != set(numbers):
        return None
    weights = np.zeros((len(humans.CATEGORIES), _IMAGENET), np.float32)
    for row, category in zip(weights, humans.CATEGORIES, strict=True):
        labels = humans.imagenet_labels(category)
        row[[places[numbers[label]] for label in labels]] = 1 / len(labels)
    return weights


def _in_categories(
    logits_fn: Any, weights: jax.Array, keys: jax.Array, images: jax.Array
) -> jax.Array:
    """The logarithm of the mean probability of the classes of each category, (N, 16)."""
    probability = jax.nn.log_softmax(logits_fn(keys, images).astype(jnp.float32))
    return jax.nn.logsumexp(probability[:, None], axis=-1, b=weights[None])


def in_categories(network: Network) -> Network:
    """The network as an observer: it decides among 16 categories, by the mean probability.

    With it, images in folders of the 16 categories can be evaluated, such as the stimuli of the
    observers.

    Raises:
      ValueError: for a network whose classes are not those of ImageNet.
    """
    weights = category_weights(network)
    if weights is None:
        raise ValueError(f"{network.name} must have ImageNet's 1000 classes, by WordNet number")
    return Network(
        network.name,
        Partial(_in_categories, network.logits_fn, jnp.asarray(weights)),
        network.image_shape,
        tuple(humans.CATEGORIES),
        network.stochastic,
        preprocessing=network.preprocessing,
        source=network.source,
    )


def psychophysics(evaluation: Evaluation) -> list[Condition]:
    """distortions that human observers have seen (390; 39)"""
    return [Psychophysics(distortion) for distortion in corruptions.DISTORTIONS]


SUITES = {"psychophysics": psychophysics}
