"""Dataclass trees to JSON and back, checked field by field.

A dataclass becomes an object of its fields. Where a field may hold one of several dataclasses,
the object also names the class under ``"kind"``.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any

import numpy as np

KIND = "kind"


def nearest(name: str, choices: Iterable[str]) -> str:
    """``"; did you mean ...?"`` for the choice closest to a mistyped name, or an empty string."""
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def encode(value: Any) -> Any:
    """The JSON form of a dataclass, or of anything a field of one may hold.

    Raises:
      TypeError: for a value that has no JSON form.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = typing.get_type_hints(type(value))
        encoded = {}
        for field in dataclasses.fields(value):
            item = encode(getattr(value, field.name))
            if isinstance(item, dict) and len(_classes(hints[field.name])) > 1:
                item = {KIND: type(getattr(value, field.name)).__name__, **item}
            encoded[field.name] = item
        return encoded
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form here: {value!r}")


def decode(hint: Any, data: Any, path: str) -> Any:
    """The value of type ``hint`` that ``encode`` turned into ``data``.

    Args:
      hint: a type as annotated: dataclass, union, Literal, tuple, array or plain type.
      data: parsed JSON.
      path: name of the value in error messages, for instance ``"experiment.optimizer"``.

    Raises:
      ValueError: for an unknown, missing or mistyped field, named with its path.
    """
    classes = _classes(hint)
    if isinstance(data, dict) and classes:
        return _decode_dataclass(_choose(classes, data, path), data, path)
    for option in _options(hint):
        if isinstance(data, list) and option is np.ndarray:
            return np.asarray(data)
        if isinstance(data, list) and typing.get_origin(option) is tuple:
            # All items of the tuples that occur have one type.
            item_type = typing.get_args(option)[0]
            return tuple(decode(item_type, item, f"{path}[{i}]") for i, item in enumerate(data))
        if typing.get_origin(option) is typing.Literal and data in typing.get_args(option):
            return data
        if option is float and type(data) is int:
            return float(data)
        if option in (bool, int, float, str, types.NoneType) and type(data) is option:
            return data
    expected = hint.__name__ if isinstance(hint, type) else str(hint)
    raise ValueError(f"{path} must be of type {expected}, got {data!r}")


def _options(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _classes(hint: Any) -> list[type]:
    return [
        option
        for option in _options(hint)
        if isinstance(option, type) and dataclasses.is_dataclass(option)
    ]


def _choose(classes: list[type], data: dict, path: str) -> type:
    if len(classes) == 1:
        return classes[0]
    by_name = {cls.__name__: cls for cls in classes}
    kind = data.get(KIND)
    if kind not in by_name:
        raise ValueError(f"{path}.{KIND} must be one of {', '.join(by_name)}, got {kind!r}")
    return by_name[kind]


def _decode_dataclass(cls: type, data: dict, path: str) -> Any:
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    values = {}
    for name, item in data.items():
        if name == KIND and KIND not in fields:
            continue
        if name not in fields:
            raise ValueError(f"{path} has no field {name!r}{nearest(name, fields)}")
        values[name] = decode(hints[name], item, f"{path}.{name}")
    for name, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if name not in values and required:
            raise ValueError(f"{path} lacks the field {name!r}")
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
