"""The row: what one number is, as a flat dictionary. Everything that names a number is made of it.

A result stores the row of its condition, and each of its numbers adds columns of its own. The
columns are open: a kind of measurement brings those that it needs, and a column that says nothing
about a number is absent. Those that every kind may have:

- ``network``: label of the network.
- ``condition``: kind of the condition, such as "clean" or "attack". A condition that has a column
  of this name is called by its value: "PGD" is an attack, and "fog" a corruption.
- ``norm``, ``eps``: norm and radius of a change of the images.
- ``noise``, ``attack_noise``, ``decision``: of a judged network, where they are not its own noise
  and a single draw, see ``judging.Protocol``.
- ``draws``: number of decisions about an image, for a network with noise.
- ``attack_draws``: noise draws in a gradient.
- ``dataset``, ``split``, ``examples``, ``seed``: the images and their number, and the seed.
- ``tag``: the user's word for this measurement.
- ``number``: name of the number, such as "accuracy".
- ``value``, ``low``, ``high``: the number with its 95 % interval. A number that is not defined or
  not finite has no value.
- ``unit``: "share" for a number from 0 to 1 that is shown in percent, or the unit in words.
- ``main``: whether the number stands in the first table of the page.
- ``section``: heading of the page under which it stands, if it is not that of its condition.
- ``verdict``, ``meaning``: "pass", "warning" or "fail" for the answer of a check, and its words.
- ``note``: what is said below the condition on the page, such as the length of an attack's steps.
- ``of``: name of the array of its values by example.
- ``over``, ``weights``: of a mean, what it is over, and the weight of each label.
"""

import re
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from vone_jax import names

Row = Mapping[str, Any]

# What a number is of belongs to its condition, except these: two networks are compared although
# they differ in them, and the comparison names what differs.
FREE = (
    "network", "seed", "examples", "dataset", "split", "draws", "attack_draws", "value", "low",
    "high",
)  # fmt: skip
# How a number is shown, which is no part of what it is.
SHOWN = (
    "unit", "main", "section", "verdict", "meaning", "note", "of", "over", "weights",
)  # fmt: skip
# The rules by which a network is judged, and the user's word. They stand last in a label.
PROTOCOL = ("attack_noise", "noise", "decision", "tag")
# The columns that every kind may have, which no field of a condition may take.
RESERVED = (*FREE, *SHOWN, *PROTOCOL, "condition", "number")
# Follows from another column, so no label has it.
_UNSAID = ("category",)
_NOISES = {"none": "without noise", "frozen": "frozen noise"}


def columns_of_condition(row: Row) -> dict[str, Any]:
    """The columns of a row that belong to its condition, with the name of the number."""
    return {name: each for name, each in row.items() if name not in (*FREE, *SHOWN)}


def words(column: str, value: Any, row: Row) -> str:
    """A column of a row in words, such as "severity 3" or "4/255"."""
    if column == "eps":
        return names.eps_label(row.get("norm", ""), value)
    if column == "norm":
        return str(names.NORM_LABELS.get(value, value))
    if column == "steps":
        return f"{value} steps"
    if column == "noise":
        return str(_NOISES.get(value, value))
    if column == "attack_noise":
        return f"attacked {'' if value == 'none' else 'under '}{_NOISES.get(value, value)}"
    if isinstance(value, bool):
        return column.replace("_", " ") if value else f"not {column.replace('_', ' ')}"
    if isinstance(value, str):
        return value if column in PROTOCOL else value.replace("_", " ")
    parts = value if isinstance(value, list | tuple) else [value]
    told = (f"{each:.6g}" if isinstance(each, int | float) else str(each) for each in parts)
    return f"{column.replace('_', ' ')} {' '.join(told)}"


def label(row: Row, without: tuple[str, ...] = ()) -> str:
    """The condition of a number in words, such as "PGD L∞ 4/255, 64 steps, vote:8".

    Args:
      row: the row, with or without a number.
      without: columns to leave out.
    """
    head, others = _parts(row, without)
    return ", ".join(
        [" ".join(words(*each, row) for each in head), *(words(*o, row) for o in others)]
    )


def stem(row: Row) -> str:
    """The name of a result's files without their ending: one for each label.

    It has no data set, number of images or seed: results of others need a tag, or a directory of
    their own.
    """
    head, others = _parts(row, ("tag",))
    if head[0][0] != "condition":
        head.insert(0, ("condition", row["condition"]))
    raw = [f"{each:.6g}" if column == "eps" else str(each) for column, each in head]
    parts = [*raw, *(words(*each, row) for each in others)]
    cleaned = [re.sub(r"[^a-z0-9._]+", "-", part.lower()).strip("-.") for part in parts]
    return "-".join(filter(None, [*cleaned, row.get("tag", "")]))


def _parts(
    row: Row, without: tuple[str, ...]
) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """The columns of a label: the condition with its radius, and what sets it apart from others."""
    said = {n: v for n, v in columns_of_condition(row).items() if n not in (*_UNSAID, *without)}
    kind = said.pop("condition")
    said.pop("number", None)
    head = [(kind, said.pop(kind)) if said.get(kind) else ("condition", kind)]
    head += [(name, said.pop(name)) for name in ("norm", "eps") if name in said]
    last = [name for name in PROTOCOL if name in said]
    return head, [(name, said[name]) for name in (*(n for n in said if n not in last), *last)]


def condition_key(row: Row) -> Hashable:
    """The condition and the number of a row, without network and value."""
    return frozenset((name, _hashable(each)) for name, each in columns_of_condition(row).items())


def _hashable(value: Any) -> Hashable:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def same_condition(one: Row, other: Row) -> bool:
    """True if two numbers are of the same condition, so that their networks can be compared.

    A network without noise is the same under any decision, and meets a network with noise under
    each of them. If it draws none by nature and not because its noise was switched off, it also
    meets networks whose noise was replaced or, unless it was itself attacked under a noise,
    replaced at the attack.
    """
    free = _free(one) | _free(other)
    ours, theirs = (
        {n: v for n, v in columns_of_condition(row).items() if n not in free}
        for row in (one, other)
    )
    return ours == theirs


def _free(row: Row) -> set[str]:
    """The columns that do not apply to the network of a row, since it draws no noise."""
    if row.get("draws") is not None:
        return set()
    if row.get("noise") is not None:
        return {"decision"}
    return {"decision", "noise", *(["attack_noise"] if row.get("attack_noise") is None else [])}


def is_own(row: Row) -> bool:
    """True for the network's own noise and the default decision, without a tag."""
    return all(row.get(name) is None for name in PROTOCOL)


def ordered(columns: Iterable[str]) -> list[str]:
    """The columns of a frame: network and condition, those of kinds, then those of every number."""
    last = (
        "attack_draws", "attack_noise", "noise", "decision", "draws", "dataset", "split",
        "examples", "seed", "tag", "number", "value", "low", "high", "unit", "verdict",
    )  # fmt: skip
    own = dict.fromkeys(columns)
    first = ["network", "condition"]
    return [*first, *(n for n in own if n not in (*first, *last, *SHOWN)), *last]
