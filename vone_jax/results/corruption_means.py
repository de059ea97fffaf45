"""Means over the common corruptions, computed from the results of one network."""

import math
from collections.abc import Sequence
from itertools import product

from vone_jax.names import COMMON_CORRUPTIONS, CORRUPTION_CATEGORIES, PROCEDURAL_FROST, SEVERITIES
from vone_jax.results import mce
from vone_jax.results.result import Result
from vone_jax.results.statistics import Interval, mean_accuracy

_NO_INTERVAL = math.nan


def corruption_means(
    corrupted: Sequence[Result], clean: Result | None = None
) -> dict[str, Interval]:
    """Means over the common corruptions that were measured, at the severities that all have.

    Two rules are in use: the mean of the 15 corruptions, and the mean of the four categories, in
    which the three kinds of noise weigh as much as the four corruptions of each other category. The
    extra corruptions of ImageNet-C are in neither mean. Where frost was not measured, its drawn
    texture takes its place.

    Args:
      corrupted: results of the kind "Corrupted" of one network, under one protocol and of one form
        of images.
      clean: the clean result of the same evaluation, for the relative mCE.

    Returns:
      "mean over corruptions"; "mean over categories" and "mean over NAME" for each of them, if all
      four are there; "mCE" and "relative mCE" in percent, without an interval, if all 75 were
      measured on ImageNet's classes at 224 pixels. Empty without common corruptions.
    """
    measured = {}
    for result in corrupted:
        name, severity = result.condition["corruption"], result.condition["severity"]
        if name == PROCEDURAL_FROST:
            measured.setdefault(("frost", severity), result)
        elif name in COMMON_CORRUPTIONS:
            measured[name, severity] = result
    used = [name for name in COMMON_CORRUPTIONS if any(name == each for each, _ in measured)]
    shared = [s for s in SEVERITIES if all((name, s) in measured for name in used)]
    counted = {key: r for key, r in measured.items() if key[1] in shared} or measured
    if not counted:
        return {}
    means = {"mean over corruptions": _mean(counted, {name: 1 / len(used) for name in used})}
    members = {
        category: [name for name in each if name in used]
        for category, each in CORRUPTION_CATEGORIES.items()
    }
    if all(members.values()):
        weights = {name: 1 / len(each) / 4 for each in members.values() for name in each}
        means["mean over categories"] = _mean(counted, weights)
        for category, each in members.items():
            means[f"mean over {category}"] = _mean(counted, {name: 1 / len(each) for name in each})
    # AlexNet's errors are on ImageNet-C, which has 224 pixels and 1000 classes.
    identity = next(iter(counted.values())).identity
    imagenet = identity["network"]["image_size"] == 224 and identity["dataset"]["classes"] == 1000
    drawn = any(r.condition["corruption"] == PROCEDURAL_FROST for r in counted.values())
    if imagenet and not drawn and counted.keys() == {*product(COMMON_CORRUPTIONS, SEVERITIES)}:
        errors = {
            name: {s: 1 - counted[name, s].value() for s in SEVERITIES}
            for name in COMMON_CORRUPTIONS
        }
        value = mce.mean_corruption_error(errors)
        means["mCE"] = Interval(value, _NO_INTERVAL, _NO_INTERVAL)
        if clean is not None:
            value = mce.relative_mean_corruption_error(errors, 1 - clean.value())
            means["relative mCE"] = Interval(value, _NO_INTERVAL, _NO_INTERVAL)
    return means


def _mean(counted: dict[tuple[str, int], Result], weights: dict[str, float]) -> Interval:
    """The mean over corruptions with these weights, each at all of its severities."""
    chosen = [(name, result) for (name, _), result in counted.items() if name in weights]
    names = [name for name, _ in chosen]
    shares = [weights[name] / names.count(name) for name in names]
    return mean_accuracy([result for _, result in chosen], shares)
