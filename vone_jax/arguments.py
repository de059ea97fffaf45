"""Checks of arguments. Each raises an error that names the argument, its value and what is valid.

Most raise ValueError. A field that must be True or False raises TypeError. Every package uses
these, so the messages read alike. ``fields`` checks a dataclass by the types of its fields. The
checks see plain Python and NumPy values; checks of JAX arrays are in ``batches``.
"""

import dataclasses
import difflib
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, NamedTuple


class Range(NamedTuple):
    """The numbers that a field or an argument may have: from ``least`` to ``most``.

    ``above`` leaves out ``least``, ``below`` leaves out ``most``.
    """

    least: float = 0.0
    most: float = math.inf
    above: bool = False
    below: bool = False

    def __str__(self) -> str:
        top = "" if self.most == math.inf else f" and {'<' if self.below else '<='} {self.most:g}"
        return f"a finite number {'>' if self.above else '>='} {self.least:g}{top}"

    def holds(self, value: Any) -> Any:
        """Return whether a number, or each number of an array, is finite and in the range."""
        low = value > self.least if self.above else value >= self.least
        high = value < self.most if self.below else value <= self.most
        return low & high & (abs(value) < math.inf)


# Devices count in 32 bits.
LARGEST_COUNT = 2**31 - 1
NOT_NEGATIVE, POSITIVE, SHARE = Range(), Range(above=True), Range(most=1.0)
# Types of fields, see ``fields``.
Positive = Annotated[float, POSITIVE]
Share = Annotated[float, SHARE]
FromZero = Annotated[int, Range(0)]
Seed = Annotated[int, Range(0, 2**32 - 1)]


def nearest(name: Any, choices: Collection[str], cutoff: float = 0.5) -> str:
    """The end of a message about a mistyped name: ``"; did you mean 'x'?"``, or an empty string.

    The similarity of a choice must be at least ``cutoff``, in [0, 1]; 0 always names one. Capital
    letters make no difference.
    """
    lower = {each.lower(): each for each in choices}
    close = difflib.get_close_matches(str(name).lower(), list(lower), n=1, cutoff=cutoff)
    return f"; did you mean {lower[close[0]]!r}?" if close else ""


def choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Check that ``value`` is one of ``choices``, see ``not_among`` for the error."""
    if value not in tuple(choices):
        raise ValueError(not_among(name, value, choices))


def not_among(name: str, value: Any, choices: Collection[str]) -> str:
    """The message about a value that is none of ``choices``. It names the most similar one."""
    return f"{name} must be one of {', '.join(choices)}; got {value!r}{nearest(value, choices)}"


def count(name: str, value: Any, least: int = 1, most: float = math.inf) -> None:
    """Check that ``value`` is an integer from ``least`` to ``most``, and not True or False.

    Without ``most``, the limit is ``LARGEST_COUNT``; the error names it if it is exceeded.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    largest = LARGEST_COUNT if most == math.inf else most
    too_large = whole and int(value) > largest
    if not whole or value < least or too_large:
        limit = f" and <= {largest}" if too_large or most < math.inf else ""
        raise ValueError(f"{name} must be an integer >= {least}{limit}, got {value!r}")


def directory_name(name: str, value: Any) -> None:
    """Check that ``value`` can name a directory, and does not look like an option of a command."""
    if not isinstance(value, str) or not value or "/" in value or value.startswith((".", "-")):
        raise ValueError(
            f"{name} must be usable as the name of a directory, got {value!r}; such a name is a "
            "text that is not empty, has no /, and does not begin with . or -"
        )


def in_reach(name: str, path: Path | str) -> None:
    """Check that this process has permission to look up ``path``, which need not exist."""
    try:
        os.stat(path)
    except PermissionError as error:
        raise ValueError(f"{name} {path}: {error.strerror}") from error
    except OSError:
        pass


def seed(name: str, value: Any) -> None:
    """Check that ``value`` is an integer from 0 to 2**32 - 1, as NumPy's generators take."""
    count(name, value, 0, most=2**32 - 1)


def number(name: str, value: Any, within: Range = NOT_NEGATIVE) -> None:
    """Check that ``value`` is a finite number in a range."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not within.holds(float(value)):
        raise ValueError(f"{name} must be {within}, got {value!r}")


def within_images(name: str, largest: float, norm: str = "") -> None:
    """Check that a length on the scale of one pixel is at most 1, the range of an image.

    It is a radius or a step in L-infinity, or a standard deviation. The error asks whether a number
    of levels of grey was meant.
    """
    if largest > 1:
        meant = f"; did you mean {largest:g}/255?" if largest < 255 else ""
        raise ValueError(
            f"{name} must be at most 1{norm and f' in norm {norm}'}, since images lie in [0, 1], "
            f"got {largest:g}{meant}"
        )


def instance(name: str, value: Any, kinds: Any, hint: str = "") -> None:
    """Check that ``value`` is of a class, or of one in a union of classes and None.

    The error ends with the hint.
    """
    if not isinstance(value, kinds):
        listed = [
            "None" if kind is types.NoneType else f"{kind.__name__}(...)"
            for kind in typing.get_args(kinds) or (kinds,)
        ]
        valid = " or ".join(filter(None, (", ".join(listed[:-1]), listed[-1])))
        raise ValueError(f"{name} must be {valid}, got {value!r:.80}{hint}")


def fields(record: Any, prefix: str = "", number: Callable[..., None] = number) -> None:
    """Check the fields of a dataclass by their types.

    An integer is at least 1, a float is finite and not negative, and a bool is True or False.
    ``Annotated[int, Range(...)]``, also of a float, is in the range. A Literal, or
    ``Annotated[str, choices]``, is one of the choices; another str is text. If the type is a
    dataclass, or a union of dataclasses, the value is an instance. ``| None`` also allows None, and
    ``| Callable[...]`` any function, and ``| P`` of a protocol P that is runtime-checkable any
    object that has its methods.
    Fields of other types and of other unions are not checked. Annotations must be types, not
    strings.

    Names in messages begin with ``prefix``, such as "normalization.". ``number`` checks a float; it
    takes the arguments of the function ``number`` above.
    """
    for field in dataclasses.fields(record):
        name, value = prefix + field.name, getattr(record, field.name)
        # Limits are around a union with None or within it.
        hint, *limits = _annotated(field.type)
        kinds = [kind for kind in union_members(hint) if kind is not types.NoneType]
        if value is None and types.NoneType in union_members(hint):
            continue
        functions = [kind for kind in kinds if typing.get_origin(kind) is Callable]
        if functions and callable(value):
            continue
        protocols = [kind for kind in kinds if typing.Protocol in getattr(kind, "__mro__", ())]
        if any(isinstance(value, kind) for kind in protocols):
            continue
        kinds = [kind for kind in kinds if kind not in functions and kind not in protocols]
        if len(kinds) != 1:
            if kinds and all(map(_is_record, kinds)):
                instance(name, value, hint)
            continue
        kind, *inner = _annotated(kinds[0])
        limits += inner
        if kind is bool:
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, got {value!r}")
        elif kind is int:
            count(name, value, *(limits[0][:2] if limits else ()))
        elif kind is float:
            number(name, value, *limits)
        elif limits:
            choice(name, value, limits[0])
        elif kind is str and not isinstance(value, str):
            raise ValueError(f"{name} must be text, for a path str(...), got {value!r}")
        elif typing.get_origin(kind) is typing.Literal:
            choice(name, value, typing.get_args(kind))
        elif dataclasses.is_dataclass(kind):
            instance(name, value, hint)


def _is_record(kind: Any) -> bool:
    """Whether a class is a dataclass, or the base of classes that become one by themselves."""
    return dataclasses.is_dataclass(kind) or hasattr(kind, "__dataclass_transform__")


def _annotated(hint: Any) -> tuple[Any, ...]:
    """A type and its annotations."""
    return typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)


def union_members(hint: Any) -> tuple[Any, ...]:
    """The members of a union of types, or the type itself."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)
