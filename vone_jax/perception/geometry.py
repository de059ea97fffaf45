"""The condition ``Geometry``: capacity, radius and dimension of manifolds in a layer."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import arguments, corruptions, prng, results
from vone_jax.arguments import Range
from vone_jax.attacks import PGD, Attack, RandomNoise
from vone_jax.evaluation.attacked import usual
from vone_jax.evaluation.condition import Condition, Number, Numbers, fields_of_row, number
from vone_jax.evaluation.corrupted import Corrupted
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.evaluation.judging import Batch
from vone_jax.network import Network
from vone_jax.perception import glue
from vone_jax.results import Interval, Lines

MANIFOLDS = ("classes", "noise", "corners", "fgsm", "corruption")
# Responses of more features are projected at random to this number, as the authors of GLUE do.
_FEATURES = 1000
# Values of a layer that are projected at a time: the whole matrix would not fit into memory.
_BLOCK = 4096
_NUMBERS = {
    "capacity": "capacity",
    "radius": "radius",
    "dimension": "dimension",
    "centre alignment": "centre_alignment",
    "axis alignment": "axis_alignment",
    "centre-axis alignment": "centre_axis_alignment",
}


_DRAWN = ("capacity", "radius", "dimension", "told from clean", "distance from clean")
_ABOUT = (
    "How the responses of each layer lie in space. The capacity is the number of manifolds per "
    "dimension that a random plane separates; it is 2 for single points. Radius and dimension are "
    "measured at the anchor points of the manifolds, which define this plane. A manifold has the "
    "images of a class, or one image under noise or small changes. The accuracy of a linear "
    "readout of perturbed against clean images is one half where both overlap; the distance of "
    "their centres is relative to their spread."
)


@dataclasses.dataclass(frozen=True)
class Geometry(Condition):
    """The geometry of manifolds in a layer, see ``perception.glue``.

    A point of a manifold is the response of the layer to one image, under one draw of the network's
    noise. The result keeps all points, so that other measures can be made of them.

    For a manifold of changed images, it is also measured how far it overlaps with that of the
    unchanged image under the network's noise, which has as many points: see
    ``glue.separability``. Without noise, the latter is a single point.

    Attributes:
      layer: a name of ``Network.layers``.
      manifold: "classes": the images of a class. The others have a manifold for each image: "noise"
        (draws of the network's noise), "corners" (random corners of an L-infinity ball), "fgsm"
        (one step of the fast gradient sign method from random points of the ball) or "corruption"
        (draws of a corruption).
      eps: radius of the ball, in pixel units; 0 for the manifolds without one.
      corruption, severity: a corruption that draws random numbers, and its severity, 1 to 5.
      images: number of images with a manifold of their own.
      points: number of points in a manifold, at most. All manifolds have as many points as the
        smallest class.
      draws: number of random directions.

    Raises:
      ValueError: if a field is out of range, or a radius is missing or has no use.
    """

    section = "Geometry of layers"

    layer: str
    manifold: Annotated[str, MANIFOLDS] = "classes"
    eps: Annotated[float, Range()] = 0.0
    corruption: str = ""
    severity: Annotated[int, Range(0, 5)] = 0
    images: Annotated[int, Range(2)] = 10
    points: Annotated[int, Range(2)] = 50
    draws: Annotated[int, Range(2)] = 300

    def __post_init__(self):
        arguments.fields(self)
        arguments.within_images("eps", self.eps)
        if (self.eps > 0) != (self.manifold in ("corners", "fgsm")):
            raise ValueError(
                f"eps must be above 0 for the manifolds corners and fgsm and 0 for others, got "
                f"{self.eps} for {self.manifold!r}"
            )
        if {bool(self.corruption), self.severity > 0} != {self.manifold == "corruption"}:
            raise ValueError(
                f"the manifold corruption, and no other, needs a corruption and a severity, got "
                f"{self.corruption!r} and {self.severity} for {self.manifold!r}"
            )

    @property
    def examples(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The number of images: those of a few classes, or those with manifolds of their own."""
        return 500 if self.manifold == "classes" else self.images

    def row(self) -> dict[str, Any]:
        own = fields_of_row(self, "layer", "manifold", "eps")
        radius = {"norm": "linf", "eps": self.eps} if self.eps else {}
        return {
            "condition": "geometry",
            **radius,
            "layer": self.layer,
            "manifold": self.manifold,
            **own,
        }

    @property
    def _corrupted(self) -> Corrupted:
        return Corrupted(self.corruption, self.severity)

    @property
    def attacks(self) -> tuple[Attack, ...]:
        if self.manifold == "corners":
            return (RandomNoise("linf", self.eps, noise="signs"),)
        if self.manifold == "fgsm":
            return (PGD("linf", self.eps, steps=1, step_size=self.eps, random_start=True),)
        return ()

    def check(self, network: Network) -> None:
        super().check(network)
        check_layer(network, self.layer)
        if self.corruption:
            self._corrupted.check(network)
        if self.manifold == "noise" and not network.stochastic:
            raise ValueError(f"{network.name} has no noise, so its images have no noise manifolds")

    def make(self, batch: Batch) -> dict[str, Any]:
        response_fn = batch.response_fn(self.layer)
        project = prng.stream(batch.root, "projection")
        classifier: Any = batch.classifier() if self.attacks else None
        found: dict[str, list[jax.Array]] = {"points": []}
        for point in range(1 if self.manifold == "classes" else self.points):
            images = batch.images
            if self.corruption:
                keys = prng.fold(batch.keys("corruption"), point)
                images = self._corrupted.corrupt(keys, images)
            for attack in self.attacks:
                keys = prng.fold(batch.keys("attack"), point)
                images = attack(keys, classifier, images, batch.labels)
            drawn = {"points": (point, images)}
            if self.manifold not in ("classes", "noise"):
                drawn["clean"] = (self.points + point, batch.images)
            for kind, (place, shown) in drawn.items():
                keys = prng.fold(batch.keys("judge"), place)
                responses = reduced_responses(response_fn, keys, shown, project)
                found.setdefault(kind, []).append(responses)
        return {kind: jnp.stack(responses, axis=1) for kind, responses in found.items()}

    def manifolds(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The manifolds (P, M, features) of the arrays of a result.

        A class of a single image is no manifold.
        """
        points = arrays["points"]
        if self.manifold != "classes":
            return points
        classes, counts = np.unique(arrays["label"], return_counts=True)
        classes, counts = classes[counts > 1], counts[counts > 1]
        if len(classes) == 0:
            return points[:0]
        size = min(self.points, counts.min())
        return np.stack([points[arrays["label"] == each, 0][:size] for each in classes])

    def result(self, arrays: Mapping[str, np.ndarray], evaluation: Any) -> Numbers:
        manifolds = self.manifolds(arrays)
        if len(manifolds) < 2:
            few = f"{self.layer} has fewer than two manifolds of several images; take more examples"
            return Numbers(warnings=(f"{few}.",))
        measured: list[Number] = []
        warnings = []
        key = prng.stream(
            jax.random.wrap_key_data(arrays["key"][0], impl="threefry2x32"), "geometry"
        )
        try:
            found = glue.glue(key, manifolds, draws=self.draws)
            measured = [
                number(name, Interval(**dataclasses.asdict(getattr(found, field))))
                for name, field in _NUMBERS.items()
            ]
            measured.append(number("share of active manifolds", found.active, unit="share"))
        except glue.NotSeparableError as error:
            warnings.append(f"{self.layer}: {error}.")
        if "clean" in arrays:
            accuracy, distance = glue.separability(arrays["clean"], manifolds)
            measured.append(number("told from clean", of=accuracy, unit="share"))
            apart = results.mean(distance, share=False)
            apart = dataclasses.replace(apart, low=max(apart.low, 0.0))
            measured.append(number("distance from clean", apart, of=distance))
        measured.append(number("manifolds", manifolds.shape[0]))
        measured.append(number("points", manifolds.shape[1]))
        order = tuple(evaluation.network.layers)
        names = [each.name for each in measured if each.name in _DRAWN]
        views = [Lines(name, "layer", order=order, about=_ABOUT) for name in names]
        return Numbers(measured, views, warnings=warnings)


def check_layer(network: Network, layer: str) -> None:
    """Raise a ValueError if a network has no such layer."""
    if layer not in network.layers:
        raise ValueError(arguments.not_among("layers", layer, network.layers))


@jax.jit
def reduced_responses(response_fn: Any, keys: jax.Array, images: jax.Array, project: jax.Array):
    """Responses (N, features) of a layer, projected at random if they have very many features."""
    responses = response_fn(keys, images)
    flat = responses.reshape(len(responses), -1).astype(jnp.float32)
    size = flat.shape[1]
    if size <= _FEATURES:
        return flat
    padded = jnp.pad(flat, ((0, 0), (0, -size % _BLOCK)))
    blocks = padded.reshape(len(flat), -1, _BLOCK).transpose(1, 0, 2)

    def add(total: jax.Array, block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        number, part = block
        matrix = jax.random.normal(jax.random.fold_in(project, number), (_BLOCK, _FEATURES))
        return total + jnp.matmul(part, matrix, precision="highest"), None

    # Multiplied by 0 and not made of zeros, so that it lies on the same devices as the images.
    start = 0.0 * flat[:, :_FEATURES]
    total, _ = jax.lax.scan(add, start, (jnp.arange(len(blocks)), blocks))
    return total / _FEATURES**0.5


def geometry(
    evaluation: Evaluation, *, eps: tuple[float, ...] = (), layers: tuple[str, ...] = ()
) -> list[Condition]:
    """manifolds of classes, noise, a ball and corruptions in each layer (900 a layer)"""
    made: list[Condition] = []
    for layer in layers or evaluation.network.layers:
        made.append(Geometry(layer))
        if evaluation.network.stochastic:
            made.append(Geometry(layer, "noise"))
        kinds = [(k, each) for k in ("corners", "fgsm") for each in usual(evaluation, "linf", eps)]
        made += [Geometry(layer, kind, each) for kind, each in kinds]
        made += [
            Geometry(layer, "corruption", corruption="gaussian_noise", severity=severity)
            for severity in corruptions.SEVERITIES
        ]
    return made


SUITES = {"geometry": geometry}
