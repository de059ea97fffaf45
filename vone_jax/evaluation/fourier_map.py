"""The condition ``FourierMap``: the error rate under a grating of each spatial frequency."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated

import jax
import numpy as np

from vone_jax import arguments, diagnostics
from vone_jax.arguments import Range
from vone_jax.evaluation.conditions import Condition, Summary
from vone_jax.evaluation.judging import Trial
from vone_jax.network import Network


@dataclasses.dataclass(frozen=True)
class FourierMap(Condition):
    """The Fourier heat map of Yin et al. (2019), see ``diagnostics.fourier_map``.

    Attributes:
      l2: L2 norm of the grating on a channel, in pixel units.
      size: number of frequencies along each axis, odd.
    """

    l2: Annotated[float, Range(above=True)] = 4.0
    size: int = 31

    def __post_init__(self):
        arguments.fields(self)

    @property
    def name(self) -> str:
        return f"fourier-{self.l2:.4g}"

    @property
    def label(self) -> str:
        return f"gratings of L2 {self.l2:.4g}"

    def passes(self, draws: int) -> int:
        return self.size**2 // 2 + 1

    def check(self, network: Network) -> None:
        super().check(network)
        diagnostics.fourier_basis(*network.image_shape[:2], self.size)

    def measure(self, trial: Trial) -> dict[str, jax.Array | np.ndarray]:
        keys, classifier = trial.keys("judge"), trial.classifier()
        wrong = diagnostics.fourier_map(
            keys, classifier, trial.images, trial.labels, self.l2, self.size
        )
        return {"wrong": wrong}

    def summary(self, arrays: Mapping[str, np.ndarray]) -> Summary:
        errors = arrays["wrong"].mean(axis=0, dtype=np.float64)
        # The centre is a change of brightness.
        gratings = np.delete(errors.ravel(), errors.size // 2)
        measured = {"mean error": {"value": float(gratings.mean())}}
        return Summary(measured, {"errors": errors.tolist()})
