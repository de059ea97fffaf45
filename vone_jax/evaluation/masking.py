"""The condition ``Masking``: many attacks on a network, to see whether the attacks work."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import jax
import numpy as np

from vone_jax import arguments, functions, names
from vone_jax.arguments import Range
from vone_jax.attacks import FGSM, PGD, Attack, RandomNoise, Square, classifier
from vone_jax.attacks.executor import at_once
from vone_jax.evaluation import masking_checks as checks
from vone_jax.evaluation.attacked import usual
from vone_jax.evaluation.condition import (
    Condition,
    Numbers,
    fields_of_row,
    number,
)
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.evaluation.judging import Batch, probability_correct
from vone_jax.evaluation.masking_checks import Check

# Check -> its attacks, each at least as strong as the one before; the message if accuracy never
# rises from one attack to the next; and the message if it does. A check is made if all its attacks
# were run.
_FALLING = {
    "radius": (
        ("clean", "eps/4", "eps", "4 eps"),
        "A larger radius never leaves more accuracy.",
        "A larger radius leaves more accuracy: the attack does not use it.",
    ),
    "steps": (
        ("S/4 steps", "eps", "4 S steps"),
        "More steps never leave more accuracy.",
        "More steps leave more accuracy: they do not lead uphill.",
    ),
    "iterative": (
        ("one step", "eps"),
        "Many steps do at least as well as one.",
        "One step does more than many: gradients mislead.",
    ),
    "other_loss": (
        ("margin loss", "eps"),
        "The margin loss finds no more.",
        "The margin loss finds more: the cross-entropy is flat where it should lead.",
    ),
    "black_box": (
        ("scores", "eps"),
        "An attack without gradients finds no more.",
        "An attack without gradients finds more: gradients are masked.",
    ),
    "equal_cost": (
        ("k S steps of 1 draw", "eps"),
        "At equal cost, averaging over draws does at least as well.",
        "At equal cost, more steps of one draw do more than averaging over draws.",
    ),
    "noise_off": (
        ("without noise", "eps"),
        "The network without its noise gives no better attack.",
        "Attacking the network without its noise does more: noise masks gradients.",
    ),
    "transfer": (
        ("transfer", "eps"),
        "The other network's adversarial images do no more.",
        "The other network's adversarial images do more: gradients are masked.",
    ),
}
# Resource -> the attacks in order of increasing use of it.
_PLATEAUS = {"restarts": ("1 restart", "restarts"), "draws": ("1 draw", "eps", "4 k draws")}


@dataclasses.dataclass(frozen=True)
class Masking(Condition):
    """Checks for masked gradients, see ``masking_checks``.

    The images are attacked by PGD at several radii, numbers of steps, restarts and noise draws,
    with two losses, by one step, by random noise and by the scores alone, and through other
    networks where there are any.

    Attributes:
      norm: "linf", "l2" or "l1".
      eps: radius in pixel units.
      stochastic: whether the network has noise.
      steps: steps S of PGD; their length is 2.5 eps / S, as in the runs of S/4 and 4 S steps.
      eot_samples: noise draws averaged in a gradient. Without noise, one draw is used.
      queries: queries of the attack that uses scores alone.
      restarts: runs from random points.
      images: number of images, at most.

    Raises:
      ValueError: if a field is out of range.
    """

    section = checks.SECTION
    judged: ClassVar[bool] = True
    long: ClassVar[bool] = True
    asks_others: ClassVar[bool] = True
    reports_faults: ClassVar[bool] = True

    norm: Annotated[str, names.NORMS]
    eps: float
    stochastic: bool
    steps: int = 40
    eot_samples: int = 10
    queries: int = 1000
    restarts: int = 5
    # Another number of images is not another measurement.
    images: Annotated[int, Range(1)] = dataclasses.field(default=50, metadata={"stored": False})

    def __post_init__(self):
        arguments.fields(self)
        if self.eps == 0 or self.steps < 4 or self.restarts < 2:
            raise ValueError(
                f"masking needs eps > 0, steps >= 4 and restarts >= 2, got {self.eps}, "
                f"{self.steps} and {self.restarts}"
            )

    @property
    def examples(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.images

    def row(self) -> dict[str, Any]:
        own = fields_of_row(self, "norm", "eps", "stochastic")
        return {"condition": "masking", "norm": self.norm, "eps": float(self.eps), **own}

    @property
    def attacks(self) -> tuple[Attack, ...]:
        return (self._base,)

    @functools.cached_property
    def _base(self) -> PGD:
        draws = self.eot_samples if self.stochastic else 1
        step = 2.5 * self.eps / self.steps
        return PGD(self.norm, self.eps, self.steps, step_size=step, eot_samples=draws)

    def by_name(self) -> dict[str, Attack]:
        """The attacks on the network itself by name."""
        base, eps, steps = self._base, self.eps, self.steps
        change = functools.partial(dataclasses.replace, base)

        def radius(factor):
            # In L-infinity, a ball of radius 1 holds all images, and a step of 1 crosses it.
            most = 1.0 if self.norm == "linf" else math.inf
            larger, step = min(factor * eps, most), min(factor * base.step_size, most)
            return change(eps=larger, step_size=step)

        started = change(random_start=True)
        attacks: dict[str, Attack] = {
            "eps 0": radius(0.0),
            "eps/4": radius(0.25),
            "eps": base,
            "4 eps": radius(4.0),
            "unbounded": change(norm="linf", eps=1.0, step_size=2.5 / steps),
            "S/4 steps": change(steps=steps // 4),
            "4 S steps": change(steps=4 * steps),
            "one step": FGSM(self.norm, eps, eot_samples=base.eot_samples),
            "margin loss": change(loss="margin"),
            "1 restart": started,
            "restarts": dataclasses.replace(started, restarts=self.restarts),
            "random noise": RandomNoise(self.norm, eps, noise="signs"),
            "scores": Square(self.norm, eps, self.queries, eot_samples=base.eot_samples),
        }
        if self.stochastic:
            many = self.eot_samples
            attacks |= {
                "1 draw": change(eot_samples=1),
                "4 k draws": change(eot_samples=4 * many),
                "k S steps of 1 draw": change(
                    eot_samples=1, steps=many * steps, step_size=2.5 * eps / (many * steps)
                ),
            }
        return attacks

    def runs(self, batch: Batch) -> dict[str, tuple[Attack, classifier.LogitsFn]]:
        """Each attack by name, with the classifier that it attacks.

        "without noise" attacks the network without its noise, which is not known of functions, and
        "transfer" another network.
        """
        own = batch.classifier()
        found = {name: (attack, own) for name, attack in self.by_name().items()}
        if self.stochastic and batch.with_noise is not None:
            quiet = dataclasses.replace(self._base, eot_samples=1)
            found["without noise"] = quiet, batch.classifier("none")
        if len(batch.others) > 1:
            raise ValueError(f"others must be one network for masking, got {len(batch.others)}")
        for function in batch.others.values():
            other = functions.as_pytree(function, batch.example_keys, batch.images)
            noisy = classifier.has_noise(other, batch.example_keys, batch.images)
            draws = self.eot_samples if self.stochastic or noisy else 1
            found["transfer"] = dataclasses.replace(self._base, eot_samples=draws), other
        return found

    def make(self, batch: Batch) -> dict[str, jax.Array]:
        arrays = checks.diagnose(batch.classifier(), batch.example_keys, batch.images, batch.labels)
        arrays |= _named("clean", batch.judge(batch.images))
        for name, (attack, attacked) in self.runs(batch).items():
            # ``at_once`` and not a call: a call raises errors for gradients that are not finite
            # and for outputs that are not logits, but here the checks report them.
            adversarial = at_once(
                attack,
                batch.keys("attack"),
                attacked,
                batch.images,
                batch.labels,
            ).images
            arrays |= _named(name, batch.judge_any(adversarial))
        return arrays

    def checks(self, arrays: Mapping[str, np.ndarray]) -> list[Check]:
        """The checks, from the arrays of ``measure`` for all images."""
        classes = int(arrays["classes"][0])
        names = [name.removeprefix("right ") for name in arrays if name.startswith("right ")]
        share = {name: _share(name, arrays) for name in names}
        losses = {
            "clean": arrays["loss clean"],
            "S/4 steps": arrays["loss S/4 steps"],
            "S steps": arrays["loss eps"],
        }
        zero = {"clean": share["clean"], "eps = 0": share["eps 0"]}
        noise = {"random noise": share["random noise"], "attack": share["eps"]}
        found = {
            "logits": checks.outputs(arrays["lowest"], arrays["highest"], arrays["sum error"]),
            "randomness": checks.randomness(arrays["spread"], self.stochastic),
            "gradients": checks.gradients(checks.gradients_of(arrays), arrays["gradient constant"]),
            "classes": checks.enough_classes(classes),
            "zero_radius": checks.zero_radius(zero),
            "unbounded": checks.unbounded(
                {"unbounded": share["unbounded"]}, classes, self.stochastic
            ),
            "loss": checks.loss_rises(losses),
            "random_noise": checks.beats_noise(noise),
        }
        for name, (compared, good, bad) in _FALLING.items():
            if share.keys() >= set(compared):
                found[name] = checks.falls({each: share[each] for each in compared}, good, bad)
        for what, compared in _PLATEAUS.items():
            if share.keys() >= set(compared):
                found[what] = checks.plateau({each: share[each] for each in compared}, what)
        return [
            dataclasses.replace(found[name], name=name, question=question)
            for name, question in checks.QUESTIONS.items()
            if name in found
        ]

    def result(self, arrays: Mapping[str, np.ndarray], evaluation: Any) -> Numbers:
        found = self.checks(arrays)
        measured = [
            number(check.question, check=check.name, verdict=check.verdict, meaning=check.meaning)
            for check in found
        ]
        measured += [
            number(name, value, section=f"{checks.SECTION}, numbers", check=check.name)
            for check in found
            for name, value in check.numbers.items()
        ]
        failed = [check.name for check in found if check.verdict == "fail"]
        warnings = []
        if failed:
            told = f"The network fails {', '.join(failed)}: its robust accuracy may be too high."
            warnings.append(told)
        elif self.stochastic:
            warnings.append(
                "Noise can mask gradients: an attack then fails although adversarial images exist. "
                "A pass means only that no sign of that was found."
            )
        return Numbers(measured, warnings=warnings)


def _named(name: str, judged: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {f"right {name}": judged["right"], f"loss {name}": judged["loss"]}


def _share(name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Shares (N,) of the decisions that are right; NaN where the loss is not finite."""
    usable = np.isfinite(arrays[f"loss {name}"])
    return np.where(usable, probability_correct(arrays[f"right {name}"]), np.nan)


def masking(
    evaluation: Evaluation,
    *,
    eps: tuple[float, ...] = (),
    norm: Literal["linf", "l2", "l1"] = "linf",
) -> list[Condition]:
    """18 checks for masked gradients, 50 images (36,000; 3,000)"""
    images, chosen = evaluation.examples or 50, usual(evaluation, norm, eps)
    return [Masking(norm, each, evaluation.noisy, images=images) for each in chosen]


SUITES = {"masking": masking}
