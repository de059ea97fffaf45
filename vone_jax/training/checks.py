"""Checks of configuration fields: each raises a ValueError that names the field and its value."""

import math
import typing
from typing import Any

from vone_jax.training.codec import nearest


def check_at_least(name: str, value: int, least: int) -> None:
    """An integer, not below ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")


def check_number(
    name: str, value: float, *, positive: bool = False, most: float = math.inf, below: bool = False
) -> None:
    """A finite number >= 0, or > 0 if ``positive``; at most (or ``below``) ``most``."""
    valid = isinstance(value, (int, float)) and math.isfinite(value)
    valid = valid and (value > 0 if positive else value >= 0)
    if not valid or value > most or (below and value == most):
        least = "> 0" if positive else ">= 0"
        limit = "" if most == math.inf else f" and {'<' if below else '<='} {most:g}"
        raise ValueError(f"{name} must be a finite number {least}{limit}, got {value!r}")


def check_choice(name: str, value: str, literal: Any) -> None:
    """One of the values of a ``Literal`` type."""
    choices = typing.get_args(literal)
    if value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(choices)}, got {value!r}"
            + nearest(str(value), choices)
        )


def check_span(name: str, value: tuple[int, int], choices: tuple[int, ...]) -> None:
    """A pair (low, high) of two of the increasing ``choices``."""
    valid = isinstance(value, tuple) and len(value) == 2 and all(v in choices for v in value)
    if not valid or value[0] > value[1]:
        raise ValueError(
            f"{name} must be a pair (low, high) with {choices[0]} <= low <= high <= {choices[-1]}, "
            f"got {value!r}"
        )
