"""The condition ``FourierMap``: the error rate under a grating of each spatial frequency."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax
import numpy as np

from vone_jax import arguments, diagnostics
from vone_jax.arguments import Range
from vone_jax.evaluation.conditions import Condition, Numbers, number, settings
from vone_jax.evaluation.judging import Batch
from vone_jax.network import Network


@dataclasses.dataclass(frozen=True)
class FourierMap(Condition):
    """The Fourier heat map of Yin et al. (2019), see ``diagnostics.fourier_map``.

    Attributes:
      l2: L2 norm of the grating on a channel, in pixel units.
      size: number of frequencies along each axis, odd.
    """

    long: ClassVar[bool] = True

    l2: Annotated[float, Range(above=True)] = 4.0
    size: int = 31

    def __post_init__(self):
        arguments.fields(self)

    @property
    def row(self) -> dict[str, Any]:
        return {"condition": "fourier map", "norm": "l2", "eps": self.l2, **settings(self, "l2")}

    def check(self, network: Network) -> None:
        super().check(network)
        diagnostics.fourier_basis(*network.image_shape[:2], self.size)

    def make(self, batch: Batch) -> dict[str, jax.Array | np.ndarray]:
        keys, classifier = batch.keys("judge"), batch.classifier()
        wrong = diagnostics.fourier_map(
            keys, classifier, batch.images, batch.labels, self.l2, self.size
        )
        # Logits that are not finite are found in the loss, and not counted as wrong.
        return {"wrong": wrong, "loss": batch.judge(batch.images)["loss"]}

    def numbers(self, arrays: Mapping[str, np.ndarray]) -> Numbers:
        errors = arrays["wrong"].mean(axis=0, dtype=np.float64)
        # The centre is a change of brightness.
        gratings = np.delete(errors.ravel(), errors.size // 2)
        measured = [number("mean error", float(gratings.mean()))]
        return Numbers(measured, {"errors": errors.tolist()})
