"""Checks of arguments. Each raises an error that names the argument, its value and what is valid.

Every package uses these, so the messages read alike. The checks see plain Python and NumPy values;
checks of JAX arrays are in ``attacks`` and ``corruptions``.
"""

import difflib
import math
import numbers
import types
import typing
from collections.abc import Collection
from typing import Any


def nearest(name: Any, choices: Collection[str], cutoff: float = 0.5) -> str:
    """The end of an error message about a mistyped name.

    It is ``"; did you mean 'x'?"`` for the most similar choice, or an empty string. A choice must
    be as similar as ``cutoff``, in [0, 1]; 0 always names one.
    """
    close = difflib.get_close_matches(str(name), list(choices), n=1, cutoff=cutoff)
    return f"; did you mean {close[0]!r}?" if close else ""


def choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Check that ``value`` is one of ``choices``.

    Raises:
      ValueError: if it is not. The message names the most similar choice.
    """
    if value not in tuple(choices):
        raise ValueError(
            f"{name} must be one of {', '.join(choices)}; got {value!r}{nearest(value, choices)}"
        )


def count(name: str, value: Any, least: int = 1, most: int | None = None) -> None:
    """Check that ``value`` is an integer from ``least`` to ``most``.

    Raises:
      ValueError: if it is not. True and False are not integers here.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and int(value) > most):
        limit = "" if most is None else f" and <= {most}"
        raise ValueError(f"{name} must be an integer >= {least}{limit}, got {value!r}")


def seed(name: str, value: Any) -> None:
    """Check that ``value`` is an integer from 0 to 2**32 - 1, as NumPy's generators take.

    Raises:
      ValueError: if it is not.
    """
    count(name, value, 0, most=2**32 - 1)


def number(
    name: str,
    value: Any,
    *,
    positive: bool = False,
    most: float = math.inf,
    below: bool = False,
) -> None:
    """Check that ``value`` is a finite number from 0 to ``most``.

    ``positive`` refuses 0, and ``below`` refuses ``most`` itself.

    Raises:
      ValueError: if it is not.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    size = float(value) if real else math.nan
    valid = math.isfinite(size) and (size > 0 if positive else size >= 0)
    if not valid or size > most or (below and size == most):
        least = "> 0" if positive else ">= 0"
        limit = "" if most == math.inf else f" and {'<' if below else '<='} {most:g}"
        raise ValueError(f"{name} must be a finite number {least}{limit}, got {value!r}")


def instance(name: str, value: Any, kinds: Any, hint: str = "") -> None:
    """Check that ``value`` is of a class, or of one in a union of classes and None.

    Raises:
      ValueError: if it is not. The message ends with the hint.
    """
    if not isinstance(value, kinds):
        listed = [
            "None" if kind is types.NoneType else f"{kind.__name__}(...)"
            for kind in typing.get_args(kinds) or (kinds,)
        ]
        valid = " or ".join(filter(None, (", ".join(listed[:-1]), listed[-1])))
        raise ValueError(f"{name} must be {valid}, got {value!r}{hint}")


def flag(name: str, value: Any) -> None:
    """Check that ``value`` is True or False.

    Raises:
      TypeError: if it is not.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
