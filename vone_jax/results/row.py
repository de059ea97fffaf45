"""The row: what one number is, as a flat dictionary. Everything that names a number is made of it.

A row has some of the ``COLUMNS``; a column that says nothing about the number is absent.

- ``network``: label of the network.
- ``condition``: kind of the condition, such as "clean", "attack", "corruption" or "certified".
- ``norm``, ``eps``: norm and radius of an attack, also of one that is composed of several, or of a
  certificate. A number for one radius of several has the radius in its own row.
- ``corruption``, ``severity``, ``form``: the corruption, and the form of the images: absent for
  float images, "uint8" or "published".
- ``category``: of a corruption of one's own, over which ``means`` averages; of a mean, that of its
  corruptions.
- ``layer``: the layer that was recorded.
- ``attack``, ``steps``: the attack in words, such as "PGD" or "strongest of PGD, APGD".
- ``settings``: fields of the condition that differ from their defaults and are in no other column,
  in words, such as "steps 3000, null images 200".
- ``attack_draws``: noise draws in each of its gradients.
- ``attack_noise``: noise that the attack sees; absent if it is that of the judged network.
- ``noise``: noise of the judged network; absent if it is the network's own.
- ``decision``: what a decision is made of, such as "vote:8"; absent for a single draw.
- ``draws``: number of decisions about an image, 1 in a condition that is not judged by the
  protocol, such as a Fourier map. A network that draws no noise is judged once: it
  has no ``draws`` or ``decision``, and ``attack_draws`` and ``attack_noise`` only where noise was
  added for the attack.
- ``dataset``, ``split``, ``examples``, ``seed``: the images and their number, and the seed.
- ``tag``: the user's word for this measurement.
- ``number``: name of the number, such as "accuracy". A condition without numbers has one row, which
  has none.
- ``value``, ``low``, ``high``: the number with its 95 % interval. A number that is not defined or
  not finite has no value.
"""

import re
from collections.abc import Hashable, Mapping
from typing import Any

from vone_jax import names

Row = Mapping[str, Any]

COLUMNS = (
    "network", "condition", "norm", "eps", "corruption", "severity", "form", "category", "layer",
    "attack", "steps", "settings", "attack_draws", "attack_noise", "noise", "decision", "draws",
    "dataset", "split", "examples", "seed", "tag", "number", "value", "low", "high",
)  # fmt: skip
# Two numbers are of the same condition if these agree. Others, such as the number of images, may
# differ between networks: a comparison names them.
_CONDITION = (
    "condition", "norm", "eps", "corruption", "severity", "form", "layer", "attack", "steps",
    "settings", "attack_noise", "noise", "decision", "tag",
)  # fmt: skip


# A condition that its own column says better: "PGD" is an attack, and "fog" a corruption.
_SAID = ("attack", "corruption")
_NOISES = {"none": "without noise", "frozen": "frozen noise"}


def label(row: Row) -> str:
    """The condition of a number in words, such as "PGD L∞ 4/255, 64 steps, vote:8"."""
    norm, eps = row.get("norm"), row.get("eps")
    radius = [] if norm is None else [names.NORM_LABELS[norm]]
    radius += [] if eps is None else [names.eps_label(norm or "", eps)]
    return ", ".join(_words(row, radius))


def stem(row: Row) -> str:
    """The name of a result's files without their ending: one for each label.

    It has no data set, number of images or seed: results of others need a tag, or a directory of
    their own.
    """
    norm, eps = row.get("norm"), row.get("eps")
    radius = [] if norm is None else [norm]
    radius += [] if eps is None else [f"{eps:.4g}"]
    kind = [row["condition"]] if row["condition"] in _SAID else []
    *words, tag = [*kind, *_words(row, radius), *([] if row.get("tag") else [""])]
    parts = [re.sub(r"[^a-z0-9._]+", "-", word.lower()).strip("-.") for word in words]
    return "-".join(filter(None, [*parts, tag]))


def _words(row: Row, radius: list[str]) -> list[str]:
    """The parts of a label: the condition with its radius, and what sets it apart from others."""
    condition, corruption, severity = (row.get(n) for n in ("condition", "corruption", "severity"))
    steps, seen, noise = (row.get(name) for name in ("steps", "attack_noise", "noise"))
    head = [
        None if condition in _SAID and row.get(condition) else condition,
        corruption.replace("_", " ") if corruption else None,
        row.get("attack"),
        *radius,
    ]
    words = [
        " ".join(filter(None, head)),
        None if severity is None else f"severity {severity}",
        row.get("form"),
        row.get("layer"),
        None if steps is None else f"{steps} steps",
        row.get("settings"),
        f"attacked {'' if seen == 'none' else 'under '}{_NOISES.get(seen, seen)}" if seen else None,
        _NOISES.get(noise, noise) if noise else None,
        row.get("decision"),
        row.get("tag"),
    ]
    return [word for word in words if word]


def is_of(row: Row, *kinds: str) -> bool:
    """True for a condition of one of some kinds, by its whole name."""
    return row["condition"] in kinds


def condition_key(row: Row) -> Hashable:
    """The condition and the number of a row, without network and value."""
    return (*(row.get(name) for name in _CONDITION), row.get("number"))


def same_condition(one: Row, other: Row) -> bool:
    """True if two numbers are of the same condition, so that their networks can be compared.

    A network without noise is the same under any decision, and meets a network with noise under
    each of them. If it draws none by nature and not because its noise was switched off, it also
    meets networks whose noise was replaced or, unless it was itself attacked under a noise,
    replaced at the attack.
    """
    free = _free(one) | _free(other)
    same = (one.get(name) == other.get(name) for name in _CONDITION if name not in free)
    return one.get("number") == other.get("number") and all(same)


def _free(row: Row) -> set[str]:
    """The columns that do not apply to the network of a row, since it draws no noise."""
    if row.get("draws") is not None:
        return set()
    if row.get("noise") is not None:
        return {"decision"}
    return {"decision", "noise", *(["attack_noise"] if row.get("attack_noise") is None else [])}
