"""Adversarial images beside the originals, with the perturbation magnified."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from vone_jax import results
from vone_jax.names import NORMS
from vone_jax.report import comparison, images
from vone_jax.results import Result, Run

# The page stays small: fewer large images than small ones.
_SMALL_SIDE, _MANY, _FEW = 64, 8, 4
_MAX_CONDITIONS = 4
_SELECTIONS = {
    "spread": "The images are spread over the classes of the data set.",
    "first": "The images are among the first of the data set.",
}


@dataclasses.dataclass(frozen=True)
class Attacked:
    """An attack on one network: its picture and its change, and the answers of the network.

    Attributes:
      position: of the network on the page.
      perturbation: the change as a picture, magnified around grey.
      before: the answer to the original image.
      after: the answer to the attacked image.
    """

    position: int
    label: str
    perturbation: str
    adversarial: str
    before: str
    after: str
    right_before: bool
    right_after: bool


@dataclasses.dataclass
class Card:
    """An image, its true class, and the attacks on each network."""

    truth: str
    original: str
    attacked: list[Attacked]


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """All images of one attack condition; ``factor`` magnifies the perturbations."""

    title: str
    factor: int
    selection: str
    cards: list[Card]


def exhibits(runs: Sequence[Run]) -> list[Exhibit]:
    """The galleries of the runs by condition; of many conditions, some evenly chosen."""
    conditions: dict[tuple, list[tuple[int, Run, Result]]] = {}
    for position, run in enumerate(runs):
        for result in run.of_kind("gallery"):
            if result.arrays and comparison.as_deployed(run, result):
                norm = result.attack.norm
                key = (NORMS.index(norm), result.attack.radius)
                conditions.setdefault(key, []).append((position, run, result))
    keys = sorted(conditions)
    if len(keys) > _MAX_CONDITIONS:
        places = np.linspace(0, len(keys) - 1, _MAX_CONDITIONS).round().astype(int)
        keys = [keys[place] for place in places]
    return [_exhibit(conditions[key]) for key in keys]


def _exhibit(entries: Sequence[tuple[int, Run, Result]]) -> Exhibit:
    changes = [r.arrays["adversarial"] - r.arrays["images"] for _, _, r in entries]
    factor = _magnification(max(float(np.abs(change).max()) for change in changes))
    cards: dict[tuple, Card] = {}
    selections = set()
    for position, run, result in entries:
        arrays, name = result.arrays, result.dataset.class_name
        assert isinstance(result.condition, results.GalleryCondition)
        selections.add(result.condition.selection)
        for i in _shown(arrays):
            original, adversarial = arrays["images"][i], arrays["adversarial"][i]
            label, before, after = (
                int(arrays[field][i])
                for field in ("label", "predicted_clean", "predicted_adversarial")
            )
            key = (label, original.shape, original.tobytes())
            card = cards.setdefault(key, Card(name(label), images.photograph(original), []))
            card.attacked.append(
                Attacked(
                    position=position,
                    label=run.label,
                    perturbation=images.photograph(0.5 + factor * (adversarial - original)),
                    adversarial=images.photograph(adversarial),
                    before=name(before),
                    after=name(after),
                    right_before=before == label,
                    right_after=after == label,
                )
            )
    return Exhibit(
        title=entries[0][2].attack.label,
        factor=factor,
        selection=" ".join(_SELECTIONS[selection] for selection in sorted(selections)),
        cards=list(cards.values()),
    )


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
