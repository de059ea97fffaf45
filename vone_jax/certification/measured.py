"""Measured certificates: proofs that no perturbation changes the answer, beside attacks.

A certificate is about the vote over the noise. So an attack on the same vote stands beside it.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, cast

import jax
import numpy as np
import scipy

from vone_jax import arguments, certification, dataclass_json, files, models, names, prng
from vone_jax.arguments import Range
from vone_jax.attacks import APGD, PGD, Attack
from vone_jax.attacks.classifier import LogitsFn
from vone_jax.evaluation.attacked import check_attacks, guessing, radii, worst_case
from vone_jax.evaluation.condition import FUNCTIONS, Condition, Numbers, fields_of_row, number
from vone_jax.evaluation.evaluation import ATTACK_DRAWS, Evaluation
from vone_jax.evaluation.judging import Batch, Protocol
from vone_jax.network import Network
from vone_jax.results import Lines, View
from vone_jax.v1 import VOneBlockConfig

_SECTION = "Under attack"


class _Usual(tuple[Attack, ...]):
    """Attacks that follow from the other fields: a copy with other fields makes its own."""


@dataclasses.dataclass(frozen=True)
class Certified(Condition):
    """The certified accuracy of the vote over noise, and the accuracy of this vote under attack.

    See ``certification.certify``. No perturbation of a radius can push the accuracy of the vote
    below the certified one, but for the chance in the votes; and the attack found images at which
    it is as low as the accuracy under attack. The share left open is that of the images about which
    neither says anything. The images are attacked and judged with noise of their own.

    Attributes:
      radii: radii at which both are reported, in pixel units.
      norm: "l2" or "linf".
      draws: number of draws that bound the probability of the class.
      choose: number of other draws that choose the class, and that vote on an attacked image.
      alpha: probability that a certificate is wrong, for each image.
      steps: number of steps of APGD at each radius.
      eot_samples: number of draws over which APGD averages a gradient.
      contrast: factor of the difference of pixels from 0.5, in (0, 1]. Images are certified and
        attacked at this contrast.
      pixel_noise: None to certify V1 with its own noise; or the standard deviation of noise that is
        added to the pixels of any network (Cohen et al. 2019), beside the noise that it draws.
      local: certify V1 near each image, see ``certification.local_sensitivity``.
      attacks: the attacks, one for each radius, in the norm. Default: APGD.

    Raises:
      ValueError: if a field is out of range.
    """

    section = _SECTION
    long: ClassVar[bool] = True

    radii: tuple[float, ...]
    norm: Literal["l2", "linf"] = "l2"
    draws: int = 10_000
    choose: Annotated[int, Range(2)] = 100
    alpha: Annotated[float, Range(0.0, 1.0, above=True, below=True)] = 0.001
    steps: int = 100
    eot_samples: int = 20
    contrast: Annotated[float, Range(0.0, 1.0, above=True)] = 1.0
    pixel_noise: Annotated[float | None, Range(above=True)] = None
    local: bool = False
    attacks: tuple[Attack, ...] = ()  # pyright: ignore[reportIncompatibleMethodOverride]

    def __post_init__(self):
        arguments.fields(self)
        if self.local and self.pixel_noise is not None:
            raise ValueError("local is of V1's own noise, and cannot be combined with pixel_noise")
        if self.norm == "linf":
            arguments.within_images("radii", max(self.radii, default=0.0), "linf")
        if not self.attacks or isinstance(self.attacks, _Usual):
            object.__setattr__(self, "attacks", self._usual)
        check_attacks(self.attacks)
        if [(self.norm, eps) for eps in self.radii] != [
            (a.norm, float(a.eps)) for a in self.attacks
        ]:
            raise ValueError(f"attacks must be one in {self.norm} for each radius, in their order")

    def row(self) -> dict[str, Any]:
        own = fields_of_row(self, "radii", "norm", "attacks")
        attack = {}
        if self.attacks != self._usual:
            # The radii are those of the numbers, so attacks that differ in nothing else are one.
            told = [
                _without_radius(dataclass_json.encode(each, FUNCTIONS)) for each in self.attacks
            ]
            digest = files.json_digest(
                [each for i, each in enumerate(told) if each not in told[:i]]
            )
            words = ", ".join(dict.fromkeys(each.label for each in self.attacks))
            attack = {"attack": f"{words} {digest[:8]}"}
        return {"condition": "certified", "norm": self.norm, **attack, **own}

    @property
    def _usual(self) -> tuple[Attack, ...]:
        return _Usual(
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

    def make(self, batch: Batch) -> dict[str, Any]:
        batch = dataclasses.replace(batch, images=0.5 + self.contrast * (batch.images - 0.5))
        if self.pixel_noise is None:
            classifier = certification.from_model(batch.network.model, batch.network.variables)
            noisy = batch.logits_fn
        else:
            classifier = certification.smooth_pixels(batch.logits_fn, self.pixel_noise)
            noisy = classifier.back_end
        arrays = _certificates(self, batch, classifier)
        vote = Protocol("fresh", 1, "vote", self.choose)
        voting = dataclasses.replace(batch, protocol=vote, logits_fn=cast(LogitsFn, noisy))
        stands = [right for _, right in judged_under(voting, self.attacks)]
        return {**arrays, "right under attack": np.concatenate(stands, axis=1)}

    def result(self, arrays: Mapping[str, np.ndarray], evaluation: Any) -> Numbers:
        right, radius = arrays["right"], arrays["radius"]
        measured = [
            number("accuracy of the vote", of=right, main=True),
            number("abstained", of=arrays["lower bound"] <= 0.5),
            number("median certified radius", float(np.median(radius))),
        ]
        warnings = []
        for eps, attacked in zip(self.radii, arrays["right under attack"].T, strict=True):
            certified = right[:, 0] & (radius > eps)
            measured += [
                number("certified accuracy", of=certified, main=True, eps=eps),
                number("accuracy under attack", of=attacked, main=True, eps=eps),
                number("share left open", of=attacked & ~certified, eps=eps),
            ]
            radius_label = names.eps_label(self.norm, eps)
            warnings += contradictions(radius_label, self.alpha, certified, attacked)
        references = [guessing(evaluation, "accuracy under attack")]
        return Numbers(measured, _views("certified"), references, warnings)


def _without_radius(attack: Any) -> Any:
    """An attack as JSON values, without its radius and those of the attacks within it."""
    if isinstance(attack, dict):
        return {name: _without_radius(each) for name, each in attack.items() if name != "eps"}
    return list(map(_without_radius, attack)) if isinstance(attack, list) else attack


def _views(origin: str | None = None) -> list[View]:
    """The certificate, a floor, and the attack, a ceiling, in one chart."""
    shown = ("certified accuracy", "accuracy under attack")
    return [Lines(name, "eps", "norm", origin, share=True) for name in shown]


def _certificates(
    condition: Certified, batch: Batch, classifier: certification.NoisyClassifier
) -> dict[str, np.ndarray]:
    """The certificates of the images of a batch, near each image if its bound can be."""
    v1 = classifier.front_end
    local = condition.local and isinstance(v1, VOneBlockConfig) and v1.normalization is None
    found = certification.certify(
        batch.keys("judge"), classifier, batch.images, condition.choose, condition.draws,
        condition.alpha, local=local, progress=False,
    )  # fmt: skip
    return {
        "right": found.certified(batch.labels, 0.0)[:, None],
        "predicted": found.prediction,
        "votes": found.votes,
        "lower bound": found.lower,
        "radius": getattr(found, condition.norm),
    }


def judged_under(batch: Batch, attacks: Sequence[Attack]) -> Iterator[tuple[jax.Array, np.ndarray]]:
    """The images of each attack, and which decisions about them are right, with keys of its own."""
    for place, attack in enumerate(attacks):
        own = dataclasses.replace(batch, example_keys=prng.fold(batch.example_keys, place))
        images = attack(own.keys("attack"), own.classifier(), own.images, own.labels)
        yield images, np.asarray(own.judge(images)["right"])


def contradictions(
    radius: str, alpha: float, certified: np.ndarray, attacked: np.ndarray
) -> list[str]:
    """A warning if images that are certified at a radius did not survive an attack, (N,) each."""
    broken = int(np.sum(certified & ~attacked))
    if not broken:
        return []
    return [
        f"{broken} of {certified.sum()} answers that are certified at {radius} did not survive an "
        f"attack of this radius. A share of {alpha:g} may be wrong; more of them contradict the "
        "proof."
    ]


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

    section = _SECTION
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

    def row(self) -> dict[str, Any]:
        own = fields_of_row(self, "radii", "steps")
        return {"condition": "discriminability", "attack": "PGD in d'", "steps": self.steps, **own}

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

    def result(self, arrays: Mapping[str, np.ndarray], evaluation: Any) -> Numbers:
        measured, warnings = [], []
        for place, radius in enumerate(self.radii):
            at: dict[str, Any] = {"d'": radius}
            attacked = arrays["right under attack"][:, place]
            change = float(np.median(arrays["largest change"][:, place]))
            measured += [
                number("accuracy under attack", of=attacked, main=True, **at),
                number("median largest change of a pixel", change, **at),
            ]
            if "certified" not in arrays:
                continue
            certified = arrays["certified"] & (arrays["certified d'"] > radius)
            measured.append(number("certified accuracy", of=certified, main=True, **at))
            warnings += contradictions(f"a d' of {radius:g}", self.alpha, certified, attacked)
        certificate = ["certified accuracy"] * ("certified" in arrays)
        shown = [*certificate, "accuracy under attack"]
        views = [Lines(name, "d'", share=True) for name in shown]
        references = [guessing(evaluation, "accuracy under attack")]
        return Numbers(measured, views, references, warnings)


def certified(
    evaluation: Evaluation,
    *,
    eps: tuple[float, ...] = (),
    norm: Literal["linf", "l2"] = "linf",
) -> list[Condition]:
    """certified radii of V1's noise or of noise on the pixels, and APGD on the vote (35,000)"""
    of_v1 = evaluation.network.v1 is not None and evaluation.network.stochastic
    chosen = radii(evaluation, norm, 4, eps)
    return [Certified(chosen, norm, pixel_noise=None if of_v1 else 0.25)]


def certified_local(
    evaluation: Evaluation,
    *,
    eps: tuple[float, ...] = (),
    norm: Literal["linf", "l2"] = "linf",
) -> list[Condition]:
    """certified radii near each image, and the strongest attack on the vote (55,000)"""
    draws = ATTACK_DRAWS if evaluation.network.stochastic else 1
    chosen = radii(evaluation, norm, 4, eps)
    attacks = tuple(worst_case(norm, each, draws) for each in chosen)
    return [Certified(chosen, norm, local=True, attacks=attacks)]


SUITES = {"certified": certified, "certified_local": certified_local}
