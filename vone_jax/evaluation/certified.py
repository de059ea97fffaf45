"""The condition ``Certified``: proofs that no perturbation of a radius changes the answer."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax
import numpy as np

from vone_jax import arguments, certification, names, results
from vone_jax.arguments import Range
from vone_jax.evaluation.conditions import Condition, Summary
from vone_jax.evaluation.judging import Trial
from vone_jax.network import Network


@dataclasses.dataclass(frozen=True)
class Certified(Condition):
    """The certified accuracy of the vote over noise, see ``certification.certify``.

    Attributes:
      radii: radii at which it is reported, in pixel units.
      norm: "l2" or "linf".
      draws: number of draws that bound the probability of the class.
      choose: number of other draws that choose the class.
      alpha: probability that a certificate is wrong, for each image.
      pixel_noise: None to certify V1 with its own noise; or the standard deviation of noise that is
        added to the pixels of any network, instead (Cohen et al. 2019).

    Raises:
      ValueError: if a field is out of range.
    """

    radii: tuple[float, ...]
    norm: Literal["l2", "linf"] = "l2"
    draws: int = 10_000
    choose: int = 100
    alpha: Annotated[float, Range(0.0, 1.0, above=True, below=True)] = 0.001
    pixel_noise: Annotated[float | None, Range(above=True)] = None

    def __post_init__(self):
        arguments.fields(self)

    @property
    def name(self) -> str:
        noise = "" if self.pixel_noise is None else f"-pixels-{self.pixel_noise:.4g}"
        return f"certified-{self.norm}{noise}"

    @property
    def label(self) -> str:
        noise = "" if self.pixel_noise is None else f", pixel noise {self.pixel_noise:.4g}"
        return f"certified {names.NORM_LABELS[self.norm]}{noise}"

    def passes(self, draws: int) -> int:
        return self.choose + self.draws

    def check(self, network: Network) -> None:
        super().check(network)
        if self.pixel_noise is None:
            if network.model is None:
                raise ValueError(
                    f"{network.name} is a function, so its sensitivity is not known; give "
                    "pixel_noise, or use certification.from_function"
                )
            certification.from_model(network.model, network.variables)

    def measure(self, trial: Trial) -> dict[str, jax.Array | np.ndarray]:
        if self.pixel_noise is None:
            classifier = certification.from_model(trial.network.model, trial.network.variables)
        else:
            classifier = certification.smooth_pixels(trial.logits_fn, self.pixel_noise)
        found = certification.certify(
            trial.keys("judge"), classifier, trial.images, self.choose, self.draws, self.alpha,
            progress=False,
        )  # fmt: skip
        return {
            "right": found.certified(trial.labels, 0.0)[:, None],
            "predicted": found.prediction,
            "votes": found.votes,
            "lower bound": found.lower,
            "radius": getattr(found, self.norm),
        }

    def summary(self, arrays: Mapping[str, np.ndarray]) -> Summary:
        right = arrays["right"]
        measured: dict[str, dict[str, Any]] = {
            "accuracy": dataclasses.asdict(results.accuracy(right)),
            "abstained": {"value": float(np.mean(arrays["lower bound"] <= 0.5))},
            "median certified radius": {"value": float(np.median(arrays["radius"]))},
        }
        for eps in self.radii:
            stands = right & (arrays["radius"] > eps)[:, None]
            entry = dataclasses.asdict(results.accuracy(stands)) | {"eps": eps}
            measured[f"certified accuracy at {names.eps_label(self.norm, eps)}"] = entry
        return Summary(measured)
