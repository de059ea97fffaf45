"""Adversarial images beside the originals, with the perturbation magnified."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from vone_jax.report.compare import as_deployed
from vone_jax.report.figures import images
from vone_jax.report.load import Run
from vone_jax.report.results import NORMS, Result
from vone_jax.report.wording import NORM_NAMES, eps_label

# The page stays small: fewer large images than small ones.
_SMALL_SIDE, _MANY, _FEW = 64, 8, 4
_MAX_CONDITIONS = 4


@dataclasses.dataclass(frozen=True)
class Attacked:
    """What an attack on one network made of an image, and what the network says to it."""

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
    cards: list[Card]


def exhibits(runs: Sequence[Run]) -> list[Exhibit]:
    """The galleries of the runs, by condition; of many conditions, some evenly chosen."""
    conditions: dict[tuple, list[tuple[int, Run, Result]]] = {}
    for position, run in enumerate(runs):
        for result in run.of_kind("gallery"):
            if as_deployed(run, result):
                condition = result.condition
                key = (NORMS.index(condition["norm"]), float(f"{condition['eps']:.6g}"))
                conditions.setdefault(key, []).append((position, run, result))
    keys = sorted(conditions)
    if len(keys) > _MAX_CONDITIONS:
        places = np.linspace(0, len(keys) - 1, _MAX_CONDITIONS).round().astype(int)
        keys = [keys[place] for place in places]
    return [_exhibit(conditions[key]) for key in keys]


def _exhibit(entries: Sequence[tuple[int, Run, Result]]) -> Exhibit:
    largest = max(
        float(np.abs(result.arrays["adversarial"] - result.arrays["images"]).max())
        for _, _, result in entries
    )
    factor = _magnification(largest)
    cards: dict[tuple, Card] = {}
    for position, run, result in entries:
        arrays = result.arrays
        side = max(arrays["images"].shape[1:3])
        name = result.dataset.class_name
        for i in range(min(len(arrays["images"]), _MANY if side <= _SMALL_SIDE else _FEW)):
            original, label = arrays["images"][i], int(arrays["label"][i])
            before, after = (
                int(arrays[field][i]) for field in ("predicted_clean", "predicted_adversarial")
            )
            key = (label, original.shape, original.tobytes())
            card = cards.setdefault(key, Card(name(label), images.photograph(original), []))
            card.attacked.append(
                Attacked(
                    position,
                    run.label,
                    images.photograph(0.5 + factor * (arrays["adversarial"][i] - original)),
                    images.photograph(arrays["adversarial"][i]),
                    name(before),
                    name(after),
                    before == label,
                    after == label,
                )
            )
    condition = entries[0][2].condition
    title = f"{NORM_NAMES[condition['norm']]} budget {eps_label(condition)}"
    return Exhibit(title, factor, list(cards.values()))


def _magnification(largest: float) -> int:
    """The largest of 1, 2, 5, 10, 20, ... that keeps the perturbation within the grey range."""
    if largest <= 0:
        return 1
    room = 0.5 / largest
    tens = 10 ** max(0, math.floor(math.log10(max(room, 1.0))))
    return max(step * tens for step in (1, 2, 5) if step == 1 or step * tens <= room)
