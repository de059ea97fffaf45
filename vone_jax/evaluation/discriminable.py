"""The condition ``Discriminable``: accuracy against the d' of an observer of V1.

Attacks are bounded by what an ideal observer of V1 can tell, not by pixels. All networks are
compared in the same set of perturbations. Where the observer has the V1 of the network, the
certified accuracy at a radius is a proven floor of the accuracy under any attack of that radius.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax
import numpy as np
import scipy

from vone_jax import arguments, certification, models, results
from vone_jax.arguments import Range
from vone_jax.attacks import PGD
from vone_jax.evaluation.certified import contradictions, judged_under
from vone_jax.evaluation.conditions import Condition, Numbers, number, settings
from vone_jax.evaluation.judging import Batch, Protocol
from vone_jax.network import Network
from vone_jax.v1 import VOneBlockConfig


@dataclasses.dataclass(frozen=True)
class Discriminable(Condition):
    """The accuracy under PGD within radii in d', see ``certification.Discriminability``.

    A network with noise decides by a vote over noise, as a certificate does. A VOneNet whose V1,
    with its noise, is that of the observer has a "certified accuracy", too.

    Attributes:
      observer: V1 of the observer, with ``GaussianNoise`` or ``StabilisedNoise``.
      radii: bounds of d'.
      steps: number of steps of the attack.
      eot_samples: number of draws over which the attack averages a gradient.
      choose: number of draws that vote on an image.
      draws: number of draws that bound the probability of a certified class.
      alpha: probability that a certificate is wrong, for each image.
      damping: of the norm.

    Raises:
      ValueError: if a field is out of range.
    """

    long: ClassVar[bool] = True

    observer: VOneBlockConfig
    radii: tuple[float, ...]
    steps: int = 50
    eot_samples: int = 10
    choose: Annotated[int, Range(2)] = 100
    draws: int = 1000
    alpha: Annotated[float, Range(0.0, 1.0, above=True, below=True)] = 0.001
    damping: Annotated[float, Range(above=True)] = 0.01

    def __post_init__(self):
        arguments.fields(self)
        self._norm  # noqa: B018 - checks the observer.

    @property
    def row(self) -> dict[str, Any]:
        row = {"condition": "discriminability", "attack": "PGD in d'", "steps": self.steps}
        return row | settings(self, "radii", "steps")

    @property
    def _norm(self) -> certification.Discriminability:
        return certification.Discriminability(self.observer, self.damping)

    def _is_of(self, network: Network) -> bool:
        """Whether the observer has the V1 of a network."""
        if not isinstance(network.model, models.VOneNet) or network.model.subcortical is not None:
            return False
        fixed, _ = models.with_fixed_bank(network.model, network.variables)
        return isinstance(fixed, models.VOneNet) and fixed.v1 == self.observer

    def make(self, batch: Batch) -> dict[str, jax.Array | np.ndarray]:
        noisy = batch.network.stochastic
        vote = Protocol("fresh", 1, "vote", self.choose) if noisy else batch.protocol
        draws, norm = self.eot_samples if noisy else 1, self._norm
        attacks = [PGD(norm, each, steps=self.steps, eot_samples=draws) for each in self.radii]
        stands, sizes = [], []
        for images, right in judged_under(dataclasses.replace(batch, protocol=vote), attacks):
            stands.append(right)
            sizes.append(np.max(np.abs(images - batch.images), axis=(1, 2, 3)))
        arrays: dict[str, jax.Array | np.ndarray] = {
            "right under attack": np.concatenate([each[:, :1] for each in stands], axis=1),
            "largest change": np.stack(sizes, axis=1),
        }
        if self._is_of(batch.network):
            found = certification.certify(
                batch.keys("judge"),
                certification.from_model(batch.network.model, batch.network.variables),
                batch.images, self.choose, self.draws, self.alpha, progress=False,
            )  # fmt: skip
            arrays["certified"] = found.certified(batch.labels, 0.0)
            # The certificate is the ball of this d' in the norm of the attack.
            arrays["certified d'"] = scipy.special.ndtri(np.maximum(found.lower, 0.5))
        return arrays

    def numbers(self, arrays: Mapping[str, np.ndarray]) -> Numbers:
        measured, warnings = [], []
        for place, radius in enumerate(self.radii):
            attacked = arrays["right under attack"][:, place]
            accuracy = results.accuracy(attacked[:, None])
            measured.append(number("accuracy under PGD", accuracy, eps=radius))
            change = float(np.median(arrays["largest change"][:, place]))
            measured.append(number("median largest change of a pixel", change, eps=radius))
            if "certified" not in arrays:
                continue
            certified = arrays["certified"] & (arrays["certified d'"] > radius)
            accuracy = results.accuracy(certified[:, None])
            measured.append(number("certified accuracy", accuracy, eps=radius))
            warnings += contradictions(f"a d' of {radius:g}", self.alpha, certified, attacked)
        return Numbers(measured, warnings=tuple(warnings))
