"""Checks for masked gradients: signs that an attack fails although adversarial images exist.

Each function takes one number per image and returns a verdict with the numbers behind it. Where
two attacks are compared, the images are the same, so the verdict rests on paired differences: a
difference beyond ``WARN`` standard errors is a warning, beyond ``FAIL`` a failure. A pass means
only that nothing was found; with few images, more cannot be said.

References:
  Athalye et al., Obfuscated gradients give a false sense of security, 2018, arXiv:1802.00420.
  Carlini et al., On evaluating adversarial robustness, 2019, arXiv:1902.06705.
  Croce and Hein, 2020, arXiv:2003.01690, and the flags of its reference code.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vone_jax.results import VERDICTS, Check, Verdict, wilson

WARN, FAIL = 2.0, 3.0
# Below this gain of more restarts or draws an attack counts as converged.
PLATEAU = 0.02
# A fall of the loss of this share of its whole rise is the swing of steps of a fixed length.
SWING = 0.02
# The share of images without a gradient from which on an attack is blind.
BLIND = 0.1
# AutoAttack's bounds for outputs that are random, or probabilities.
RANDOM_SPREAD, PROBABILITY_SLACK = 1e-4, 1e-5
# Classes that the targeted DLR loss needs for the nine targets of AutoAttack.
TARGETED_CLASSES = 10


def paired(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Mean of ``second - first`` over images (N,), and its standard error."""
    change = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    if len(change) < 2:
        return float(change.mean()), float("inf")
    return float(change.mean()), float(change.std(ddof=1) / np.sqrt(len(change)))


def falls(name: str, question: str, shares: Mapping[str, np.ndarray], good: str, bad: str) -> Check:
    """Accuracy must not rise from each attack to the next, which is at least as strong.

    Args:
      name: of the check.
      question: of the check.
      shares: attack -> probability of being right for each image, (N,), weakest attack first.
      good: what it means that accuracy never rises.
      bad: what it means that it does.
    """
    broken = _unusable(name, question, shares)
    if broken:
        return broken
    numbers: dict[str, Any] = {f"accuracy, {key}": _mean(value) for key, value in shares.items()}
    verdict: Verdict = "pass"
    for (weak, first), (strong, second) in zip(
        shares.items(), list(shares.items())[1:], strict=False
    ):
        rise, error = paired(first, second)
        numbers[f"rise from {weak} to {strong}"] = rise
        numbers[f"standard error from {weak} to {strong}"] = _finite(error)
        verdict = _worst(verdict, _verdict(rise, error))
    return Check(name, question, verdict, numbers, good if verdict == "pass" else bad)


def plateau(name: str, question: str, shares: Mapping[str, np.ndarray], what: str) -> Check:
    """More of something must no longer lower the accuracy, and never raise it.

    Args:
      name: of the check.
      question: of the check.
      shares: attack -> probability of being right for each image, (N,), ascending effort.
      what: of which there is more, as in "restarts".
    """
    broken = _unusable(name, question, shares)
    if broken:
        return broken
    check = falls(
        name,
        question,
        shares,
        f"More {what} no longer lower the accuracy: the attack has converged in them.",
        f"More {what} raise the accuracy: the attack does not do what it should.",
    )
    (_, before), (_, last) = list(shares.items())[-2:]
    fall, error = paired(last, before)
    if check.verdict != "pass" or fall <= max(PLATEAU, WARN * error):
        return check
    meaning = f"More {what} still lower the accuracy: the true robust accuracy is lower."
    return dataclasses.replace(check, verdict="warning", meaning=meaning)


def unbounded(share: np.ndarray, classes: int, stochastic: bool) -> Check:
    """An attacker who may paint any image must win.

    Args:
      share: probability of being right at L-infinity radius 1 for each image, (N,).
      classes: number of classes.
      stochastic: whether the network is now and then right by luck, up to chance.
    """
    name, question = "unbounded", "Does an attack without a bound break every image?"
    broken = _unusable(name, question, {"unbounded": share})
    if broken:
        return broken
    accuracy, chance = _mean(share), 1 / classes
    low = wilson(float(np.sum(share)), len(share))[0]
    numbers = {"accuracy at eps = 1": accuracy, "95 % interval from": low, "chance": chance}
    if accuracy <= (chance if stochastic else 0.0):
        return Check(
            name, question, "pass", numbers, "Without a bound the attack wins, as it must."
        )
    if low > chance:
        meaning = (
            "Some images survive an attack that may replace them by anything. The gradients do "
            "not lead the attack where it could go: smaller budgets tell nothing."
        )
        return Check(name, question, "fail", numbers, meaning)
    meaning = "A few images survive an attack that may replace them by anything."
    return Check(name, question, "warning", numbers, meaning)


def beats_noise(noise: np.ndarray, attacked: np.ndarray) -> Check:
    """The attack must lower the accuracy more than random noise of the same size."""
    name, question = "random_noise", "Does random noise of the same size do less harm?"
    shares = {"random noise": noise, "attack": attacked}
    broken = _unusable(name, question, shares)
    if broken:
        return broken
    rise, error = paired(noise, attacked)
    numbers: dict[str, Any] = {f"accuracy, {key}": _mean(value) for key, value in shares.items()}
    numbers |= {"rise from noise to attack": rise, "standard error": _finite(error)}
    if rise > FAIL * error:
        meaning = "Random noise does more harm than the attack: the attack is led astray."
        return Check(name, question, "fail", numbers, meaning)
    if rise < -WARN * error:
        return Check(name, question, "pass", numbers, "The attack does more than random noise.")
    meaning = (
        "The attack cannot be told from random noise at this budget: it is too small, or the "
        "attack finds nothing."
    )
    return Check(name, question, "warning", numbers, meaning)


def loss_rises(losses: Mapping[str, np.ndarray]) -> Check:
    """The loss must rise along the run of the attack.

    Args:
      losses: step -> loss of each image (N,), from the clean image on.
    """
    name, question = "loss", "Does the loss rise along the run of the attack?"
    broken = _unusable(name, question, losses)
    if broken:
        return broken
    steps = list(losses.items())
    numbers: dict[str, Any] = {f"loss, {key}": _mean(value) for key, value in steps}
    verdict: Verdict = "pass"
    # At the top of the loss the last steps swing about it.
    slack = SWING * abs(paired(steps[0][1], steps[-1][1])[0])
    for (early, first), (late, second) in zip(steps, steps[1:], strict=False):
        fall, error = paired(second, first)
        numbers[f"fall from {early} to {late}"] = fall
        numbers[f"standard error from {early} to {late}"] = _finite(error)
        verdict = _worst(verdict, _verdict(fall - slack, error))
    higher = float(np.mean(steps[-1][1] > steps[0][1]))
    numbers["share of images with a higher loss at the end"] = higher
    if higher < 0.5:
        verdict = "fail"
    good, bad = "The loss rises.", "The loss does not rise: the steps do not climb it."
    return Check(name, question, verdict, numbers, good if verdict == "pass" else bad)


def zero_radius(clean: np.ndarray, zero: np.ndarray) -> Check:
    """An attack of radius 0 must leave every decision as it is."""
    name, question = "zero_radius", "Is an attack of radius 0 the same as no attack?"
    broken = _unusable(name, question, {"clean": clean, "eps = 0": zero})
    if broken:
        return broken
    differing = int(np.sum(clean != zero))
    numbers = {
        "accuracy, clean": _mean(clean),
        "accuracy, eps = 0": _mean(zero),
        "images that differ": differing,
    }
    if differing == 0:
        meaning = "Every decision is the same."
        return Check(name, question, "pass", numbers, meaning)
    meaning = "Attacked and clean images do not reach the network in the same way."
    return Check(name, question, "fail", numbers, meaning)


def gradients(images: Mapping[str, np.ndarray], constant: np.ndarray) -> Check:
    """Gradients must be finite and not zero.

    Args:
      images: loss -> largest value of its gradient at each image, (N,).
      constant: the same for the cross-entropy at black, grey and white images, (N, 3).
    """
    name, question = "gradients", "Are gradients finite and not zero, also for constant images?"
    numbers: dict[str, Any] = {"images": int(len(constant))}
    verdict: Verdict = "pass"
    faults: list[str] = []
    for key, size in {**images, "constant images": constant}.items():
        broken, zero = float(np.mean(~np.isfinite(size))), float(np.mean(size == 0))
        numbers |= {f"share not finite, {key}": broken, f"share zero, {key}": zero}
        blind = key != "constant images" and zero > BLIND
        worse: Verdict = "fail" if broken or blind else "warning" if zero else "pass"
        if worse != "pass":
            faults.append(f"{key}, {'not finite' if broken else 'zero'}")
        verdict = _worst(verdict, worse)
    if verdict == "pass":
        return Check(name, question, verdict, numbers, "All gradients can be followed.")
    meaning = f"An attack along the gradient is blind where it vanishes: {'; '.join(faults)}."
    return Check(name, question, verdict, numbers, meaning)


def randomness(spread: np.ndarray, stochastic: bool) -> Check:
    """The outputs must differ between passes if, and only if, the network is stochastic.

    Args:
      spread: largest distance between the normalised logits of five passes for each image, (N,).
      stochastic: whether the evaluation takes the network to be stochastic.
    """
    name, question = "randomness", "Is the network as random as the evaluation takes it to be?"
    largest = float(np.max(spread))
    random = not largest <= RANDOM_SPREAD
    numbers = {"largest distance of normalised logits": _finite(largest), "random": random}
    if random and not stochastic:
        meaning = "The outputs are random, but the attack takes them to be fixed."
        return Check(name, question, "fail", numbers, meaning)
    if stochastic and not random:
        meaning = "The network has noise that does not reach its outputs."
        return Check(name, question, "warning", numbers, meaning)
    meaning = (
        "The outputs are random; attacks average over draws and results over decisions."
        if random
        else "The outputs are the same in every pass."
    )
    return Check(name, question, "pass", numbers, meaning)


def outputs(lowest: np.ndarray, highest: np.ndarray, sum_error: np.ndarray) -> Check:
    """The outputs must be logits, not probabilities, as AutoAttack checks.

    Args:
      lowest: smallest output for each image, (N,).
      highest: largest output for each image, (N,).
      sum_error: distance of the sum of the outputs from 1 for each image, (N,).
    """
    name, question = "logits", "Does the network return logits, not probabilities?"
    low, high, error = float(lowest.min()), float(highest.max()), float(sum_error.max())
    numbers = {
        "smallest output": _finite(low),
        "largest output": _finite(high),
        "largest distance of a sum from 1": _finite(error),
    }
    if not np.isfinite([low, high, error]).all():
        return Check(name, question, "fail", numbers, "Some outputs are not finite.")
    if low >= 0 and high <= 1 and error < PROBABILITY_SLACK:
        meaning = "A second softmax inside the losses flattens their gradients."
        return Check(name, question, "fail", numbers, meaning)
    return Check(name, question, "pass", numbers, "The outputs are logits.")


def enough_classes(classes: int) -> Check:
    """There must be as many classes as the losses of AutoAttack need."""
    name, question = "classes", "Are there enough classes for the losses of AutoAttack?"
    numbers = {"classes": classes, "for the DLR loss": 3, "for nine targets": TARGETED_CLASSES}
    if classes >= TARGETED_CLASSES:
        return Check(name, question, "pass", numbers, "Enough classes for all of them.")
    meaning = (
        "The DLR loss is not defined: take the margin."
        if classes < 3
        else "The targeted attacks of AutoAttack must do with fewer targets."
    )
    return Check(name, question, "warning", numbers, meaning)


def _worst(first: Verdict, second: Verdict) -> Verdict:
    return first if VERDICTS.index(first) >= VERDICTS.index(second) else second


def _verdict(rise: float, error: float) -> Verdict:
    """A rise that should not be: within its error, or beyond."""
    if rise <= 0 or rise <= WARN * error:
        return "pass"
    return "warning" if rise <= FAIL * error else "fail"


def _unusable(name: str, question: str, measured: Mapping[str, np.ndarray]) -> Check | None:
    """A failed check if something measured is not a number."""
    bad = [key for key, values in measured.items() if not np.isfinite(values).all()]
    if not bad:
        return None
    meaning = f"Gradients or logits are not finite: {', '.join(bad)}."
    return Check(name, question, "fail", {"images": len(measured[bad[0]])}, meaning)


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64))


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return float(value) if np.isfinite(value) else None
