"""Checks for masked gradients: signs that an attack fails although adversarial images exist.

Each function takes one number per image and returns a ``Check``. Where two attacks are compared,
the images are the same, so the verdict rests on paired differences: a difference beyond ``WARN``
standard errors is a warning, beyond ``FAIL`` a failure. With few images, more standard errors are
needed for the same probability. A pass means only that nothing was found.

References:
  Athalye et al., Obfuscated gradients give a false sense of security, 2018, arXiv:1802.00420.
  Carlini et al., On evaluating adversarial robustness, 2019, arXiv:1902.06705.
  Croce and Hein, 2020, arXiv:2003.01690, and the flags of its reference code.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from vone_jax import fast, prng, results
from vone_jax.attacks import classifier, losses
from vone_jax.evaluation.condition import Number, number

Verdict = Literal["pass", "warning", "fail"]
VERDICTS: tuple[Verdict, ...] = ("pass", "warning", "fail")
# Gradients are taken to be missing if more than this share of the images has a gradient of zero, or
# is right in all draws and not moved by an attack.
BLIND = 0.1
# The heading under which checks stand.
SECTION = "Masked gradients"
# The number of passes that are compared to detect randomness, as in AutoAttack.
_PASSES = 5
_GREYS = (0.0, 0.5, 1.0)
# Standard errors for many images; see ``_quantile`` for few images.
WARN, FAIL = 2.0, 3.0
# Differences of accuracy up to this count as zero. An attack that changes no more has converged.
PLATEAU = 0.02
# An attack is said to have converged if the images rule out a larger fall than this.
MISSED = 0.05
# Near its maximum, the loss swings by up to this share of its whole rise, as steps do not shrink.
SWING = 0.02
# AutoAttack's bound for outputs that are random.
RANDOM_SPREAD = 1e-4
# How far the sum of probabilities may be from 1, if they are rounded to bfloat16.
PROBABILITY_SLACK = 2.0**-7
# Classes that the targeted DLR loss needs for the nine targets of AutoAttack.
TARGETED_CLASSES = 10


# Checks in their order -> the question that each answers.
QUESTIONS = {
    "logits": "Does the network return logits, not probabilities?",
    "randomness": "Is the network as random as the evaluation takes it to be?",
    "gradients": "Are gradients finite and not zero, also for constant images?",
    "classes": "Are there enough classes for the losses of AutoAttack?",
    "zero_radius": "Is an attack of radius 0 the same as no attack?",
    "unbounded": "Does an attack without a bound break every image?",
    "loss": "Does the loss rise along the run of the attack?",
    "random_noise": "Does random noise of the same size do less harm?",
    "radius": "Does a larger radius never leave more accuracy?",
    "steps": "Do more steps of the same length never leave more accuracy?",
    "iterative": "Do many steps do at least as well as one?",
    "other_loss": "Does the cross-entropy do at least as well as the margin loss?",
    "black_box": "Do gradients do at least as well as scores alone?",
    "restarts": "Has the attack converged in restarts?",
    "draws": "Has the attack converged in noise draws per gradient?",
    "equal_cost": "Do k draws per step do at least as well as k times more steps of one draw?",
    "noise_off": "Do gradients with noise do at least as well as those without?",
    "transfer": "Do own gradients do at least as well as those of another network?",
}
# Attack -> one number for each image, (N,); the weakest attack comes first. In ``shares`` the
# number is the probability of being right.
Measured = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Check:
    """One check for masked gradients.

    Attributes:
      verdict: "pass", "warning" or "fail".
      numbers: the numbers behind the verdict; None for one that is not finite.
      meaning: the answer in words.
      name: the name of the check.
      question: what the check asks, in words.
    """

    verdict: Verdict
    numbers: Mapping[str, Any]
    meaning: str
    name: str = ""
    question: str = ""


def paired(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Mean of ``second - first`` over images (N,), and its standard error."""
    change = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    if len(change) < 2:
        return float(change.mean()), float("inf")
    return float(change.mean()), float(change.std(ddof=1) / np.sqrt(len(change)))


def _of_numbers(check: Callable[..., Check]) -> Callable[..., Check]:
    """Make a check fail if a value in its first argument is not finite."""

    @functools.wraps(check)
    def checked(measured: Measured, *args: Any) -> Check:
        bad = [key for key, values in measured.items() if not np.isfinite(values).all()]
        if not bad:
            return check(measured, *args)
        meaning = f"Gradients or logits are not finite: {', '.join(bad)}."
        return Check("fail", {"images": len(measured[bad[0]])}, meaning)

    return checked


@_of_numbers
def falls(shares: Measured, good: str, bad: str) -> Check:
    """Check that accuracy does not rise from one attack to the next, which is at least as strong.

    ``good`` is the message if accuracy never rises, ``bad`` the message if it does.
    """
    verdict, numbers = _never_rises(shares, "accuracy", "rise")
    for (weak, first), (strong, second) in itertools.pairwise(shares.items()):
        if verdict == "pass" and (paired(first, second)[0] > PLATEAU or len(first) < 2):
            good = f"The accuracies of {weak} and {strong} cannot be told apart {_on(len(first))}."
    return Check(verdict, numbers, good if verdict == "pass" else bad)


@_of_numbers
def plateau(shares: Measured, what: str) -> Check:
    """Check that more of ``what``, such as "restarts", neither lowers nor raises the accuracy."""
    finding = falls(
        shares,
        f"More {what} no longer lower the accuracy: the attack has converged in them.",
        f"More {what} raise the accuracy: the attack does not do what it should.",
    )
    before, last = list(shares.values())[-2:]
    fall, error = paired(last, before)
    if finding.verdict != "pass":
        return finding
    if fall <= PLATEAU:
        # If no image changed, the error is unknown. An interval bounds the share of images
        # that could.
        most = (
            fall + _quantile(WARN, len(last)) * error
            if error
            else results.accuracy(np.zeros(len(last))).high
        )
        if most <= MISSED or len(last) < 2:
            return finding
        missed = f"a fall of up to {100 * most:.0f} points may be missed {_on(len(last))}"
        return dataclasses.replace(
            finding, meaning=f"More {what} do not lower the accuracy; {missed}."
        )
    if not _beyond(fall, error, WARN, len(last)):
        fewer = f"by {100 * fall:.1f} points, which may be chance {_on(len(last))}"
        return dataclasses.replace(finding, meaning=f"More {what} lower the accuracy {fewer}.")
    meaning = f"More {what} still lower the accuracy: the true robust accuracy is lower."
    return dataclasses.replace(finding, verdict="warning", meaning=meaning)


@_of_numbers
def unbounded(shares: Measured, classes: int, stochastic: bool) -> Check:
    """An attack that may make any image, with L-infinity radius 1, must win.

    A stochastic network may be right by luck, as often as chance.
    """
    (share,) = shares.values()
    accuracy, chance = _mean(share), 1 / classes
    low = results.accuracy(share).low
    numbers = {"accuracy at eps = 1": accuracy, "95 % interval from": low, "chance": chance}
    if accuracy == 0 or (stochastic and accuracy <= chance):
        return Check("pass", numbers, "Without a bound the attack wins, as it must.")
    if stochastic and low <= chance:
        meaning = f"Without a bound, no more is right than by chance {_on(len(share))}."
        return Check("pass", numbers, meaning)
    if low > chance:
        meaning = (
            "Some images survive an attack that may replace them by anything. The gradients do "
            "not lead the attack where it could go: smaller radii tell nothing."
        )
        return Check("fail", numbers, meaning)
    meaning = "A few images survive an attack that may replace them by anything."
    return Check("warning", numbers, meaning)


@_of_numbers
def beats_noise(shares: Measured) -> Check:
    """The attack, which comes second, must lower the accuracy more than noise of the same size."""
    rise, error = paired(*shares.values())
    numbers = _means("accuracy", shares)
    numbers |= {"rise from noise to attack": rise, "standard error": _finite(error)}
    images = len(next(iter(shares.values())))
    if _beyond(rise, error, WARN, images):
        meaning = "Random noise does more harm than the attack: the attack is led astray."
        failed = _beyond(rise, error, FAIL, images)
        return Check("fail" if failed else "warning", numbers, meaning)
    if _beyond(-rise, error, WARN, images):
        return Check("pass", numbers, "The attack does more than random noise.")
    if rise < -PLATEAU:
        lower = f"by {-100 * rise:.1f} points more than random noise"
        meaning = f"The attack lowers the accuracy {lower}; this may be chance {_on(images)}."
        return Check("warning", numbers, meaning)
    meaning = (
        "The attack cannot be told from random noise at this radius: it is too small, or the "
        "attack finds nothing."
    )
    return Check("warning", numbers, meaning)


@_of_numbers
def loss_rises(losses: Measured) -> Check:
    """The losses of an attack must rise along its run, from the clean image on."""
    first, *_, last = losses.values()
    slack = SWING * abs(paired(first, last)[0])
    verdict, numbers = _never_rises(losses, "loss", "fall", -1.0, slack)
    higher = float(np.mean(last > first))
    numbers["share of images with a higher loss at the end"] = higher
    if higher < 0.5:
        verdict = "fail"
    good, bad = "The loss rises.", "The loss does not rise: the steps do not climb it."
    return Check(verdict, numbers, good if verdict == "pass" else bad)


@_of_numbers
def zero_radius(shares: Measured) -> Check:
    """An attack of radius 0 must leave every decision as it is on clean images."""
    clean, zero = shares.values()
    differing = int(np.sum(clean != zero))
    numbers = _means("accuracy", shares) | {"images that differ": differing}
    if differing == 0:
        return Check("pass", numbers, "Every decision is the same.")
    meaning = "Attacked and clean images do not reach the network in the same way."
    return Check("fail", numbers, meaning)


def gradients(images: Measured, constant: np.ndarray | None = None) -> Check:
    """Gradients must be finite and not zero.

    Args:
      images: loss -> largest value of its gradient at each image.
      constant: the same for the cross-entropy at black, grey and white images, (N, 3).
    """
    numbers: dict[str, Any] = {"images": len(next(iter(images.values())))}
    verdict: Verdict = "pass"
    faults: list[str] = []
    every = dict(images) if constant is None else {**images, "constant images": constant}
    for key, size in every.items():
        broken, zero = float(np.mean(~np.isfinite(size))), float(np.mean(size == 0))
        numbers |= {f"share not finite, {key}": broken, f"share zero, {key}": zero}
        blind = key != "constant images" and zero > BLIND
        worse: Verdict = "fail" if broken or blind else "warning" if zero else "pass"
        if worse != "pass":
            faults.append(f"{key}, {'not finite' if broken else 'zero'}")
        verdict = _worst(verdict, worse)
    if verdict == "pass":
        return Check(verdict, numbers, "All gradients can be followed.")
    meaning = f"No attack can follow a gradient that is zero or not finite: {'; '.join(faults)}."
    return Check(verdict, numbers, meaning)


def randomness(spread: np.ndarray, stochastic: bool) -> Check:
    """The outputs must differ between passes if, and only if, the network is stochastic.

    ``spread`` is the largest distance between the normalised logits of five passes, (N,).
    """
    largest = float(np.max(spread))
    random = not largest <= RANDOM_SPREAD
    numbers = {"largest distance of normalised logits": _finite(largest), "random": random}
    if random and not stochastic:
        meaning = "The outputs are random, but the attack takes them to be fixed."
        return Check("fail", numbers, meaning)
    if stochastic and not random:
        meaning = "The network has noise that does not reach its outputs."
        return Check("warning", numbers, meaning)
    meaning = (
        "The outputs are random; attacks average over draws and results over decisions."
        if random
        else "The outputs are the same in every pass."
    )
    return Check("pass", numbers, meaning)


def outputs(lowest: np.ndarray, highest: np.ndarray, sum_error: np.ndarray) -> Check:
    """The outputs must be logits, not probabilities, as AutoAttack checks.

    ``sum_error`` is the distance of the sum of an image's outputs from 1.
    """
    low, high, error = float(lowest.min()), float(highest.max()), float(sum_error.max())
    numbers = {
        "smallest output": _finite(low),
        "largest output": _finite(high),
        "largest distance of a sum from 1": _finite(error),
    }
    if not np.isfinite([low, high, error]).all():
        return Check("fail", numbers, "Some outputs are not finite.")
    if low >= 0 and high <= 1 and error < PROBABILITY_SLACK:
        meaning = (
            "The outputs are probabilities, and a second softmax inside the losses flattens their "
            "gradients: return the values before the softmax."
        )
        return Check("fail", numbers, meaning)
    return Check("pass", numbers, "The outputs are logits.")


def enough_classes(classes: int) -> Check:
    """There must be as many classes as the losses of AutoAttack need."""
    numbers = {"classes": classes, "for the DLR loss": 3, "for nine targets": TARGETED_CLASSES}
    if classes >= TARGETED_CLASSES:
        return Check("pass", numbers, "Enough classes for all of them.")
    meaning = (
        "The DLR loss is not defined: take the margin."
        if classes < 3
        else "The targeted attacks of AutoAttack must do with fewer targets."
    )
    return Check("warning", numbers, meaning)


def _never_rises(
    measured: Measured, what: str, change: str, sign: float = 1.0, slack: float = 0.0
) -> tuple[Verdict, dict[str, Any]]:
    """The worst verdict on rises above ``slack`` from each to the next; ``sign`` -1 for falls."""
    numbers = _means(what, measured)
    verdict: Verdict = "pass"
    for (early, first), (late, second) in itertools.pairwise(measured.items()):
        rise, error = paired(sign * first, sign * second)
        numbers[f"{change} from {early} to {late}"] = rise
        numbers[f"standard error from {early} to {late}"] = _finite(error)
        beyond = rise - slack
        if _beyond(beyond, error, WARN, len(first)):
            failed = _beyond(beyond, error, FAIL, len(first))
            verdict = _worst(verdict, "fail" if failed else "warning")
    return verdict, numbers


def _quantile(deviations: float, images: int) -> float:
    """The quantile of Student's t with the probability of so many normal standard deviations."""
    if images < 2:
        return np.inf
    return float(scipy.special.stdtrit(images - 1, scipy.special.ndtr(deviations)))


def _beyond(difference: float, error: float, deviations: float, images: int) -> bool:
    """True for a mean paired difference that is larger than chance makes it."""
    return difference > (_quantile(deviations, images) * error if error else 0.0)


def _on(images: int) -> str:
    return f"on {images} image{'s' if images > 1 else ''}: take more (--examples)"


def _worst(first: Verdict, second: Verdict) -> Verdict:
    return first if VERDICTS.index(first) >= VERDICTS.index(second) else second


def _means(what: str, measured: Measured) -> dict[str, Any]:
    return {f"{what}, {key}": _mean(values) for key, values in measured.items()}


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64))


def _finite(value: float) -> float | None:
    """The number, or None if it is not finite: JSON has no infinity."""
    return float(value) if np.isfinite(value) else None


def quick_check(arrays: Mapping[str, np.ndarray], stochastic: bool) -> tuple[Number, list[str]]:
    """The checks beside every attack, which cost a few passes, and the warnings of those failed.

    They find probabilities in place of logits, a network without gradients, and noise that the
    network does not state.

    Args:
      arrays: those of ``diagnose`` for all images, by names that begin with "check ".
      stochastic: whether the network states that it has noise.
    """
    found = quick_checks(arrays, stochastic)
    worst = max((check.verdict for check in found), key=VERDICTS.index)
    told = [check.meaning for check in found if check.verdict != "pass"]
    meaning = " ".join(told) or f"{len(found)} checks of a few passes found no sign."
    answer = number("quick checks", section=SECTION, verdict=worst, meaning=meaning)
    return answer, [check.meaning for check in found if check.verdict == "fail"]


def quick_checks(arrays: Mapping[str, np.ndarray], stochastic: bool) -> list[Check]:
    """The checks behind ``quick_check``."""
    arrays = {name.removeprefix("check "): each for name, each in arrays.items()}
    found = {
        "logits": outputs(arrays["lowest"], arrays["highest"], arrays["sum error"]),
        "randomness": randomness(arrays["spread"], stochastic),
        "gradients": gradients(gradients_of(arrays)),
    }
    return [
        dataclasses.replace(check, name=name, question=QUESTIONS[name])
        for name, check in found.items()
    ]


def gradients_of(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        "cross-entropy": arrays["gradient cross_entropy"],
        "margin loss": arrays["gradient margin"],
    }


@functools.partial(jax.jit, static_argnames="quick")
def diagnose(
    logits_fn: classifier.LogitsFn,
    example_keys: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    quick: bool = False,
) -> dict[str, jax.Array]:
    """Numbers about the outputs and gradients of a classifier, arrays (N, ...).

    Returns:
      The number of classes; over passes, the lowest and the highest output and the distance of
      their sum from 1; the greatest distance between the outputs of two passes, scaled to unit
      length; the greatest magnitude of the gradients of two losses, and of one loss on constant
      images. The magnitude is NaN if any value of a gradient is not finite.
    """
    keys = prng.stream(example_keys, "diagnosis")
    call = classifier.checked(logits_fn, keys, images)
    passes = classifier.draws(call, keys, images, 2 if quick else _PASSES)
    size = jnp.sqrt(jnp.sum(jnp.square(passes), axis=-1, keepdims=True))
    unit = passes / jnp.maximum(size, jnp.finfo(size.dtype).tiny)
    apart = jnp.sqrt(jnp.sum(jnp.square(unit[:, None] - unit[None]), axis=-1))

    def gradient(loss, images, name):
        noise_keys = prng.stream(keys, name)

        def total(images):
            return jnp.sum(loss(call(noise_keys, images), labels))

        return _largest(jax.grad(total)(images))

    greys = [] if quick else [jnp.full_like(images, grey) for grey in _GREYS]
    constant = [gradient(losses.cross_entropy, grey, f"grey {i}") for i, grey in enumerate(greys)]
    found = {
        "classes": jnp.full(labels.shape, passes.shape[-1], jnp.int32),
        "lowest": -fast.largest(-passes, axis=(0, 2)),
        "highest": fast.largest(passes, axis=(0, 2)),
        "sum error": fast.largest(jnp.abs(jnp.sum(passes, axis=-1) - 1.0), axis=0),
        "spread": fast.largest(apart, axis=(0, 1)),
        "gradient cross_entropy": gradient(losses.cross_entropy, images, "cross_entropy"),
        "gradient margin": gradient(losses.margin, images, "margin"),
    }
    return found if quick else found | {"gradient constant": jnp.stack(constant, axis=-1)}


def _largest(gradients: jax.Array) -> jax.Array:
    """Greatest magnitude in each image's gradient, NaN where any of it is not finite: (N,)."""
    largest = fast.largest(jnp.abs(gradients), axis=(1, 2, 3))
    return jnp.where(jnp.isfinite(largest), largest, jnp.nan)
