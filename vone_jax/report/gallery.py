"""Adversarial images beside the originals, with the perturbation magnified."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vone_jax.names import NORMS
from vone_jax.report import comparison, images
from vone_jax.report.provenance import Entry, entries
from vone_jax.results import Run

# The page stays small: fewer large images than small ones.
_SMALL_SIDE, _MANY, _FEW = 64, 8, 4
_MAX_CONDITIONS = 4
_SELECTIONS = {
    "spread": "The images are spread over the classes of the data set.",
    "first": "The images are among the first of the data set.",
}


def exhibits(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The galleries of the runs by condition; of many conditions, some evenly chosen.

    Each is a title, how the images were selected, the factor that magnifies the changes, and cards:
    an image, its true class, and the attacks on each network.
    """
    conditions: dict[tuple, list[Entry]] = {}
    for entry in entries(runs, "gallery"):
        attack = entry.result.attack
        if entry.result.arrays and comparison.as_deployed(entry.run, entry.result):
            key = (NORMS.index(attack.norm), attack.radius)
            conditions.setdefault(key, []).append(entry)
    keys = sorted(conditions)
    if len(keys) > _MAX_CONDITIONS:
        places = np.linspace(0, len(keys) - 1, _MAX_CONDITIONS).round().astype(int)
        keys = [keys[place] for place in places]
    return [_exhibit(conditions[key]) for key in keys]


def _exhibit(shown: Sequence[Entry]) -> dict[str, Any]:
    stored = [entry.result.arrays for entry in shown]
    changes = [float(np.abs(each["adversarial"] - each["images"]).max()) for each in stored]
    factor = _magnification(max(changes))
    cards: dict[tuple, dict[str, Any]] = {}
    for entry, arrays in zip(shown, stored, strict=True):
        name = entry.result.dataset.class_name
        for i in _shown(arrays):
            original, adversarial = arrays["images"][i], arrays["adversarial"][i]
            label = int(arrays["label"][i])
            key = (label, original.shape, original.tobytes())
            if key not in cards:
                photograph = images.photograph(original)
                cards[key] = {"truth": name(label), "original": photograph, "attacked": []}
            before, after = (int(arrays[f"predicted_{of}"][i]) for of in ("clean", "adversarial"))
            cards[key]["attacked"].append(
                {
                    "position": entry.position,
                    "label": entry.run.label,
                    "perturbation": images.photograph(0.5 + factor * (adversarial - original)),
                    "adversarial": images.photograph(adversarial),
                    "before": name(before),
                    "after": name(after),
                    "right_before": before == label,
                    "right_after": after == label,
                }
            )
    conditions: Any = [entry.result.condition for entry in shown]
    selections = sorted({condition.selection for condition in conditions})
    return {
        "title": shown[0].result.attack.label,
        "factor": factor,
        "selection": " ".join(_SELECTIONS[selection] for selection in selections),
        "cards": list(cards.values()),
    }


def _shown(arrays: dict[str, np.ndarray]) -> list[int]:
    """The images to show: one of each class before a second one, in the order of the file."""
    labels = arrays["label"].tolist()
    most = _MANY if max(arrays["images"].shape[1:3]) <= _SMALL_SIDE else _FEW
    repeats = [labels[:i].count(label) for i, label in enumerate(labels)]
    return sorted(sorted(range(len(labels)), key=lambda i: (repeats[i], i))[:most])


def _magnification(largest: float) -> int:
    """The largest of 1, 2, 5, 10, 20, ... that keeps the perturbation within the grey range."""
    if largest <= 0:
        return 1
    room = 0.5 / largest
    tens = 10 ** max(0, math.floor(math.log10(max(room, 1.0))))
    return max(step * tens for step in (1, 2, 5) if step == 1 or step * tens <= room)
