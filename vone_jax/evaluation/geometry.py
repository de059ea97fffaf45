"""The condition ``Geometry``: capacity, radius and dimension of manifolds in a layer."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import arguments, geometry, names, prng
from vone_jax.arguments import Range
from vone_jax.attacks import PGD, Attack, RandomNoise
from vone_jax.evaluation.conditions import Condition, Summary
from vone_jax.evaluation.judging import Trial
from vone_jax.network import Network

MANIFOLDS = ("classes", "noise", "corners", "fgsm")
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


@dataclasses.dataclass(frozen=True)
class Geometry(Condition):
    """The geometry of manifolds in a layer, see ``geometry.glue``.

    A point of a manifold is the response of the layer to one image, under one draw of the network's
    noise. The result keeps all points, so that other measures can be made of them.

    Attributes:
      layer: a name of ``Network.layers``.
      manifold: "classes": the images of a class. The others have a manifold for each image: "noise"
        (draws of the network's noise), "corners" (random corners of an L-infinity ball) or "fgsm"
        (one step of the fast gradient sign method from random points of the ball).
      eps: radius of the ball, in pixel units; 0 for the manifolds without one.
      images: number of images with a manifold of their own.
      points: number of points in a manifold, at most. All manifolds have as many points as the
        smallest class.
      draws: number of random directions.

    Raises:
      ValueError: if a field is out of range, or a radius is missing or has no use.
    """

    layer: str
    manifold: Annotated[str, MANIFOLDS] = "classes"
    eps: Annotated[float, Range(0.0, 1.0)] = 0.0
    images: Annotated[int, Range(2)] = 10
    points: Annotated[int, Range(2)] = 50
    draws: Annotated[int, Range(2)] = 300

    def __post_init__(self):
        arguments.fields(self)
        if (self.eps > 0) != (self.manifold in ("corners", "fgsm")):
            raise ValueError(
                f"eps must be above 0 for the manifolds corners and fgsm and 0 for others, got "
                f"{self.eps} for {self.manifold!r}"
            )

    @property
    def limit(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The number of images: those of a few classes, or those with manifolds of their own."""
        return 500 if self.manifold == "classes" else self.images

    @property
    def name(self) -> str:
        size = f"-{self.eps:.4g}" if self.eps else ""
        return f"geometry-{self.manifold}{size}-{self.layer}"

    @property
    def label(self) -> str:
        size = f" {names.eps_label('linf', self.eps)}" if self.eps else ""
        return f"geometry of {self.manifold}{size} in {self.layer}"

    @property
    def attacks(self) -> tuple[Attack, ...]:
        if self.manifold == "corners":
            return (RandomNoise("linf", self.eps, noise="signs"),)
        if self.manifold == "fgsm":
            return (PGD("linf", self.eps, steps=1, step_size=self.eps, random_start=True),)
        return ()

    def passes(self, draws: int) -> int:
        if self.manifold == "classes":
            return 1
        return self.points * (4 if self.manifold == "fgsm" else 1)

    def check(self, network: Network) -> None:
        super().check(network)
        check_layer(network, self.layer)
        if self.manifold == "noise" and not network.stochastic:
            raise ValueError(f"{network.name} has no noise, so its images have no noise manifolds")

    def measure(self, trial: Trial) -> dict[str, Any]:
        response_fn = trial.network.response_fn(self.layer)
        project = prng.stream(trial.root, "projection")
        found = []
        for point in range(1 if self.manifold == "classes" else self.points):
            images = trial.images
            for attack in self.attacks:
                keys = prng.fold(trial.keys("attack"), point)
                images = attack(keys, trial.classifier(), images, trial.labels)
            keys = prng.fold(trial.keys("judge"), point)
            found.append(reduced_responses(response_fn, keys, images, project))
        place = trial.network.layers.index(self.layer)
        return {
            "points": jnp.stack(found, axis=1),
            "place": np.full(len(trial.images), place, np.int32),
        }

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

    def summary(self, arrays: Mapping[str, np.ndarray]) -> Summary:
        manifolds = self.manifolds(arrays)
        details = {"place": int(arrays["place"][0])}
        if len(manifolds) < 2:
            few = f"{self.layer} has fewer than two manifolds of several images; take more examples"
            return Summary({}, details, (f"{few}.",))
        if manifolds.shape[2] < len(manifolds):
            few = f"{self.layer} has {manifolds.shape[2]} features for {len(manifolds)} manifolds"
            return Summary({}, details, (f"{few}, too few to separate them.",))
        key = jax.random.wrap_key_data(arrays["key"][0], impl="threefry2x32")
        found = geometry.glue(prng.stream(key, "geometry"), manifolds, draws=self.draws)
        measured = {
            name: dataclasses.asdict(getattr(found, field)) for name, field in _NUMBERS.items()
        }
        measured |= {
            "share of active manifolds": {"value": found.active},
            "manifolds": {"value": manifolds.shape[0]},
            "points": {"value": manifolds.shape[1]},
        }
        return Summary(measured, details)


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
