"""The condition ``Certified``: proofs that no perturbation of a radius changes the answer.

A certificate is about the vote over the noise. So an attack on the same vote stands beside it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import jax
import numpy as np

from vone_jax import arguments, certification, names, prng, results
from vone_jax.arguments import Range
from vone_jax.attacks import APGD
from vone_jax.evaluation.conditions import Condition, Numbers, number
from vone_jax.evaluation.judging import Batch, Protocol
from vone_jax.network import Network


@dataclasses.dataclass(frozen=True)
class Certified(Condition):
    """The certified accuracy of the vote over noise, and the accuracy of this vote under APGD.

    See ``certification.certify``. The accuracy under an attack is never below the certified one,
    but for the chance in the votes. The images are attacked and judged with noise of their own.

    Attributes:
      radii: radii at which both are reported, in pixel units.
      norm: "l2" or "linf".
      draws: number of draws that bound the probability of the class.
      choose: number of other draws that choose the class, and that vote on an attacked image.
      alpha: probability that a certificate is wrong, for each image.
      steps: number of steps of the attack at each radius.
      eot_samples: number of draws over which the attack averages a gradient.
      pixel_noise: None to certify V1 with its own noise; or the standard deviation of noise that is
        added to the pixels of any network, instead (Cohen et al. 2019).

    Raises:
      ValueError: if a field is out of range.
    """

    long: ClassVar[bool] = True

    radii: tuple[float, ...]
    norm: Literal["l2", "linf"] = "l2"
    draws: int = 10_000
    choose: Annotated[int, Range(2)] = 100
    alpha: Annotated[float, Range(0.0, 1.0, above=True, below=True)] = 0.001
    steps: int = 100
    eot_samples: int = 20
    pixel_noise: Annotated[float | None, Range(above=True)] = None

    def __post_init__(self):
        arguments.fields(self)

    @property
    def row(self) -> dict[str, Any]:
        row = {"condition": "certified", "norm": self.norm}
        if self.pixel_noise is not None:
            row["noise"] = f"pixel noise {self.pixel_noise:.4g}"
        return row

    @property
    def attacks(self) -> tuple[APGD, ...]:
        return tuple(
            APGD(self.norm, eps, steps=self.steps, eot_samples=self.eot_samples)
            for eps in self.radii
        )

    def check(self, network: Network) -> None:
        super().check(network)
        if self.pixel_noise is None:
            if network.model is None:
                raise ValueError(
                    f"{network.name} is a function, so its sensitivity is not known; give "
                    "pixel_noise, or use certification.from_function"
                )
            certification.from_model(network.model, network.variables)

    def make(self, batch: Batch) -> dict[str, jax.Array | np.ndarray]:
        if self.pixel_noise is None:
            classifier = certification.from_model(batch.network.model, batch.network.variables)
            noisy = batch.logits_fn
        else:
            classifier = certification.smooth_pixels(batch.logits_fn, self.pixel_noise)
            noisy = classifier.back_end
        found = certification.certify(
            batch.keys("judge"), classifier, batch.images, self.choose, self.draws, self.alpha,
            progress=False,
        )  # fmt: skip
        vote = Protocol("fresh", 1, "vote", self.choose)
        stands = []
        for place, attack in enumerate(self.attacks):
            keys = prng.fold(batch.example_keys, place)
            own = dataclasses.replace(batch, protocol=vote, example_keys=keys, logits_fn=noisy)
            images = attack(own.keys("attack"), own.classifier(), own.images, own.labels)
            stands.append(np.asarray(own.judge(images)["right"]))
        return {
            "right": found.certified(batch.labels, 0.0)[:, None],
            "predicted": found.prediction,
            "votes": found.votes,
            "lower bound": found.lower,
            "radius": getattr(found, self.norm),
            "right under attack": np.concatenate(stands, axis=1),
        }

    def numbers(self, arrays: Mapping[str, np.ndarray]) -> Numbers:
        right, radius = arrays["right"], arrays["radius"]
        measured = [
            number("accuracy of the vote", results.accuracy(right)),
            number("abstained", float(np.mean(arrays["lower bound"] <= 0.5))),
            number("median certified radius", float(np.median(radius))),
        ]
        warnings = []
        for eps, attacked in zip(self.radii, arrays["right under attack"].T, strict=True):
            certified = right[:, 0] & (radius > eps)
            measured += [
                number("certified accuracy", results.accuracy(certified[:, None]), eps=eps),
                number("accuracy under APGD", results.accuracy(attacked[:, None]), eps=eps),
            ]
            if broken := int(np.sum(certified & ~attacked)):
                label = names.eps_label(self.norm, eps)
                warnings.append(
                    f"{broken} of {certified.sum()} answers that are certified at {label} did not "
                    f"survive an attack of this radius. A share of {self.alpha:g} may be wrong; "
                    "more of them contradict the proof."
                )
        return Numbers(measured, warnings=tuple(warnings))
