"""Adversarial images and metamers beside their originals."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vone_jax.report.images import photograph
from vone_jax.report.tables import Line, drawn, of_kinds
from vone_jax.results import Result, Run, Runs

# The pairs of a gallery.
PAIRS = 8
# The page stays small: fewer large metamers than small ones.
_SMALL_SIDE, _MANY, _FEW = 64, 8, 4
# The numbers of the closest pair of images, above which a metamer is a match.
_NULL = ("decibel of two images", "images of the null")


def attacked(lines: Sequence[Line], runs: Runs) -> dict[str, Any] | None:
    """Images that an attack changed from classified to misclassified, each with its difference.

    They are of the first attack of the table that changed enough of the images that its results
    keep, or else of the one that changed most of them.

    Args:
      lines: those of ``tables.accuracies``.
      runs: the networks.

    Returns:
      The title; the factor that magnifies the differences; and the pairs: the network, the classes
      before and after the attack, and the original, the adversarial image and their difference on
      grey as data URIs. None if no result keeps such images.
    """
    most: list[dict[str, Any]] = []
    title = ""
    for line in drawn(line for line in lines if line.row["condition"] == "attack"):
        of_each = (
            list(_changed(run, line.cells[run.label].results[0]))
            for run in runs
            if run.label in line.cells
        )
        # One of each network in turn.
        turns = itertools.chain(*itertools.zip_longest(*of_each))
        found = [pair for pair in turns if pair is not None][:PAIRS]
        if len(found) > len(most):
            most, title = found, line.label
        if len(most) == PAIRS:
            break
    if not most:
        return None
    factor = _magnification(max(float(np.abs(pair["change"]).max()) for pair in most))
    for pair in most:
        pair["change"] = photograph(0.5 + factor * pair["change"])
        pair |= {name: photograph(pair[name]) for name in ("original", "adversarial")}
    return {"title": title, "factor": factor, "pairs": most}


def _changed(run: Run, result: Result) -> Iterator[dict[str, Any]]:
    """The kept images that most decisions have right before the attack and wrong after it."""
    clean = next((each for each in run.of("clean") if each.row == _clean_row(result)), None)
    if clean is None or "predicted" not in clean.arrays:
        return
    if not {"kept", "adversarial", "predicted"} <= result.arrays.keys():
        return
    before, after = (_decisions(each) for each in (clean, result))
    images = [result.arrays[name] for name in ("kept", "original", "adversarial")]
    for index, original, adversarial in zip(*images, strict=True):
        if int(index) not in before or int(index) not in after:
            continue
        (was, was_right), (now, now_right) = before[int(index)], after[int(index)]
        if was_right and not now_right:
            yield {
                "network": run.label,
                "before": result.class_name(was),
                "after": result.class_name(now),
                "original": original,
                "adversarial": adversarial,
                "change": adversarial - original,
            }


def _clean_row(result: Result) -> dict[str, Any]:
    """The row of the clean images that a result of an attack is compared with."""
    attack = ("norm", "eps", "attack", "steps", "attack_draws", "attack_noise")
    return {n: v for n, v in result.row.items() if n not in attack} | {"condition": "clean"}


def _decisions(result: Result) -> dict[int, tuple[int, bool]]:
    """Index of an image -> the class of a decision, and whether it and most others are right."""
    arrays = result.arrays
    right = (arrays["right"].mean(axis=1) > 0.5) & (arrays["predicted"] == arrays["label"])
    wrong = (arrays["right"].mean(axis=1) < 0.5) & (arrays["predicted"] != arrays["label"])
    return {
        int(index): (int(predicted), bool(is_right))
        for index, predicted, is_right, is_wrong in zip(
            arrays["index"], arrays["predicted"], right, wrong, strict=True
        )
        if is_right or is_wrong
    }


def metamers(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Strips of metamers: the originals and a row for each layer of a network, in its order.

    Each strip is a title and images, which have a caption: the true class, or what the network took
    the metamer for and how well it matches.
    """
    strips = []
    for run in runs:
        found = (result for _, result in of_kinds([run], "metamers"))
        made = sorted(found, key=lambda result: result.details["place"])
        for result in made:
            arrays, name = dict(result.arrays), result.class_name
            most = _MANY if arrays["original"].shape[1] <= _SMALL_SIDE else _FEW
            if result is made[0]:
                shown = zip(arrays["original"][:most], arrays["label"].tolist(), strict=False)
                originals = [{"uri": photograph(x), "caption": name(y)} for x, y in shown]
                strips.append({"title": f"{run.label}: originals", "images": originals})
            columns = (arrays[each] for each in ("metamers", "predicted", "decibel"))
            row = [
                {
                    "uri": photograph(image),
                    "caption": f"{name(int(predicted))}, {decibel:.1f} dB",
                }
                for image, predicted, decibel in list(zip(*columns, strict=True))[:most]
            ]
            null, count = (result.value(each) for each in _NULL)
            of_null = f", {null:.1f} dB between two of {count:.0f} images" if null == null else ""
            strips.append({"title": f"{run.label}: {result.label}{of_null}", "images": row})
    return strips


def _magnification(largest: float) -> int:
    """The largest of 1, 2, 5, 10, 20, ... that keeps the perturbation within the grey range."""
    if largest <= 0:
        return 1
    room = 0.5 / largest
    tens = 10 ** max(0, math.floor(math.log10(max(room, 1.0))))
    return max(step * tens for step in (1, 2, 5) if step == 1 or step * tens <= room)
