"""The conditions ``Certified`` and ``Sandwich``: proofs that no perturbation changes the answer.

A certificate is about the vote over the noise. So an attack on the same vote stands beside it.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import jax
import numpy as np

from vone_jax import arguments, certification, dataclass_json, files, names, prng, results
from vone_jax.arguments import Range
from vone_jax.attacks import APGD, Attack
from vone_jax.attacks.classifier import LogitsFn
from vone_jax.evaluation.conditions import (
    FUNCTIONS,
    Condition,
    Numbers,
    attack_words,
    check_attacks,
    number,
    settings,
)
from vone_jax.evaluation.judging import Batch, Protocol
from vone_jax.network import Network
from vone_jax.v1 import VOneBlockConfig

# Images that are attacked at once by ``Sandwich``. Their number differs between radii and batches,
# and each other number of images would compile all attacks again.
_OPEN_AT_ONCE = 4


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
      contrast: factor of the difference of pixels from 0.5, in (0, 1]. Images are certified and
        attacked at this contrast.
      pixel_noise: None to certify V1 with its own noise; or the standard deviation of noise that is
        added to the pixels of any network (Cohen et al. 2019), beside the noise that it draws.
      local: certify V1 near each image, with the bound that ``Sandwich`` has.

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
    contrast: Annotated[float, Range(0.0, 1.0, above=True)] = 1.0
    pixel_noise: Annotated[float | None, Range(above=True)] = None
    local: bool = False

    def __post_init__(self):
        arguments.fields(self)
        if self.local and self.pixel_noise is not None:
            raise ValueError("local is of V1's own noise, and cannot be combined with pixel_noise")
        if self.norm == "linf":
            arguments.within_images("radii", max(self.radii, default=0.0), "linf")

    @property
    def row(self) -> dict[str, Any]:
        row = {"condition": "certified near images" if self.local else "certified"}
        row["norm"] = self.norm
        shown = [] if self.contrast == 1 else [f"contrast {self.contrast:g}"]
        # The column "noise" is that of the network, which stays or is replaced by itself.
        shown += [] if self.pixel_noise is None else [f"pixel noise {self.pixel_noise:.4g}"]
        row |= {"corruption": ", ".join(shown)} if shown else {}
        return row | settings(self, "radii", "norm", "contrast", "pixel_noise", "local")

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
        batch = dataclasses.replace(batch, images=0.5 + self.contrast * (batch.images - 0.5))
        if self.pixel_noise is None:
            classifier = certification.from_model(batch.network.model, batch.network.variables)
            noisy = batch.logits_fn
        else:
            classifier = certification.smooth_pixels(batch.logits_fn, self.pixel_noise)
            noisy = classifier.back_end
        arrays = _certificates(self, batch, classifier, self.local)
        stands = [right for _, right in judged_under(_voting(self, batch, noisy), self.attacks)]
        return {**arrays, "right under attack": np.concatenate(stands, axis=1)}

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
            radius_label = names.eps_label(self.norm, eps)
            warnings += contradictions(radius_label, self.alpha, certified, attacked)
        return Numbers(measured, warnings=tuple(warnings))


@dataclasses.dataclass(frozen=True)
class Sandwich(Condition):
    """The truth about the vote over V1's noise, between a certificate and the strongest attack.

    No perturbation of a radius can push the accuracy of the vote below the certified one, and the
    attack found images at which it is as low as the accuracy under attack. The distance of the two
    is the share of images about which neither says anything. The certificate is that of the image
    at hand, see ``certification.local_sensitivity`` and ``certification.gain``.

    Only images that are still open are attacked: the vote on the clean image is right, the image is
    not certified at the radius, and no attack of a smaller radius broke it. The rest is decided, so
    the certificates are no more put to the test here; ``Certified(local=True)`` has the same ones
    and attacks all images. The images of the attack are judged with noise of their own.

    Attributes:
      strongest: the attacks, one for each radius, all in the norm "l2" or "linf".
      draws, choose, alpha: see ``Certified``.

    Raises:
      ValueError: if a field is out of range.
    """

    long: ClassVar[bool] = True

    strongest: tuple[Attack, ...]
    draws: int = 10_000
    choose: Annotated[int, Range(2)] = 100
    alpha: Annotated[float, Range(0.0, 1.0, above=True, below=True)] = 0.001

    def __post_init__(self):
        arguments.fields(self)
        check_attacks(self.attacks)
        found = {attack.norm for attack in self.strongest}
        if found not in ({"l2"}, {"linf"}):
            raise ValueError(f"strongest must be attacks of one norm, l2 or linf, got {found}")

    @property
    def norm(self) -> str:
        return self.strongest[0].norm

    @property
    def attacks(self) -> tuple[Attack, ...]:
        return self.strongest

    @property
    def row(self) -> dict[str, Any]:
        # The radii are those of the numbers, so attacks that differ in nothing else are one.
        attacks = [_without_radius(dataclass_json.encode(each, FUNCTIONS)) for each in self.attacks]
        digest = files.json_digest(
            [each for i, each in enumerate(attacks) if each not in attacks[:i]]
        )
        words = dict.fromkeys(map(attack_words, self.attacks))
        told = [f"{', '.join(words)} {digest[:8]}", *settings(self, "strongest").values()]
        return {"condition": "sandwich", "norm": self.norm, "settings": ", ".join(told)}

    def check(self, network: Network) -> None:
        super().check(network)
        if network.model is None:
            raise ValueError(f"{network.name} is a function, so its sensitivity is not known")
        certification.from_model(network.model, network.variables)

    def make(self, batch: Batch) -> dict[str, jax.Array | np.ndarray]:
        classifier = certification.from_model(batch.network.model, batch.network.variables)
        arrays = _certificates(self, batch, classifier, near=True)
        voting, radius = _voting(self, batch, batch.logits_fn), arrays["radius"]
        real = np.ones(len(radius), bool) if batch.mask is None else np.asarray(batch.mask)
        resisting = arrays["right"][:, 0].copy()
        stands = np.empty((len(radius), len(self.attacks)), bool)
        for place in np.argsort([float(attack.eps) for attack in self.attacks]):
            attack = self.attacks[place]
            is_open = np.flatnonzero(real & resisting & (radius <= float(attack.eps)))
            for rows in np.split(is_open, range(_OPEN_AT_ONCE, len(is_open), _OPEN_AT_ONCE)):
                if len(rows):
                    _, right = _judged_under(_rows(voting, rows), int(place), attack)
                    resisting[rows] = right[: len(rows), 0]
            stands[:, place] = resisting
        return {**arrays, "right under attack": stands}

    def numbers(self, arrays: Mapping[str, np.ndarray]) -> Numbers:
        right, radius = arrays["right"], arrays["radius"]
        measured = [number("accuracy of the vote", results.accuracy(right))]
        for attack, attacked in zip(self.attacks, arrays["right under attack"].T, strict=True):
            eps = float(attack.eps)
            certified = right[:, 0] & (radius > eps)
            distance = results.paired_difference(attacked[:, None], certified[:, None])
            measured += [
                number("certified accuracy", results.accuracy(certified[:, None]), eps=eps),
                number("accuracy under attack", results.accuracy(attacked[:, None]), eps=eps),
                number("distance", distance, eps=eps),
            ]
        return Numbers(measured)


def _without_radius(attack: Any) -> Any:
    """An attack as JSON values, without its radius and those of the attacks within it."""
    if isinstance(attack, dict):
        return {name: _without_radius(each) for name, each in attack.items() if name != "eps"}
    return list(map(_without_radius, attack)) if isinstance(attack, list) else attack


def _certificates(
    condition: Certified | Sandwich,
    batch: Batch,
    classifier: certification.NoisyClassifier,
    near: bool,
) -> dict[str, np.ndarray]:
    """The certificates of the images of a batch, ``near`` each image if its bound can be."""
    v1 = classifier.front_end
    local = near and isinstance(v1, VOneBlockConfig) and v1.normalization is None
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


def _voting(condition: Certified | Sandwich, batch: Batch, logits_fn: LogitsFn) -> Batch:
    """The batch with the vote over the noise of a classifier."""
    vote = Protocol("fresh", 1, "vote", condition.choose)
    return dataclasses.replace(batch, protocol=vote, logits_fn=logits_fn)


def _rows(batch: Batch, rows: np.ndarray) -> Batch:
    """At most ``_OPEN_AT_ONCE`` examples of a batch, and the first of them again to fill up."""
    rows = np.concatenate([rows, np.repeat(rows[:1], _OPEN_AT_ONCE - len(rows))])
    return dataclasses.replace(
        batch, example_keys=batch.example_keys[rows], images=batch.images[rows],
        labels=batch.labels[rows], index=None, mask=None,
    )  # fmt: skip


def judged_under(batch: Batch, attacks: Sequence[Attack]) -> Iterator[tuple[jax.Array, np.ndarray]]:
    """The images of each attack, and which decisions about them are right, with keys of its own."""
    for place, attack in enumerate(attacks):
        yield _judged_under(batch, place, attack)


def _judged_under(batch: Batch, place: int, attack: Attack) -> tuple[jax.Array, np.ndarray]:
    own = dataclasses.replace(batch, example_keys=prng.fold(batch.example_keys, place))
    images = attack(own.keys("attack"), own.classifier(), own.images, own.labels)
    return images, np.asarray(own.judge(images)["right"])


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
