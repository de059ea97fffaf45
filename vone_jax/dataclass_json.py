"""Converts dataclasses to JSON values, and back, by the types of their fields.

A dataclass is an object of its fields. Where a field may hold one of several dataclasses, the
object also names the class under ``"kind"``.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vone_jax.arguments import nearest, union_members

KIND = "kind"
# Class -> a function that makes its JSON form, where this is not an object of its fields.
Forms = Mapping[type, Callable[[Any], dict[str, Any]]]


def encode(value: Any, forms: Forms | None = None) -> Any:
    """Return the JSON form of a dataclass, or of a value that a field of one may hold."""
    if forms and type(value) in forms:
        return forms[type(value)](value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints, encoded = typing.get_type_hints(type(value)), {}
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            encoded[field.name] = encode(item, forms)
            if dataclasses.is_dataclass(item) and len(_classes(hints[field.name])) > 1:
                encoded[field.name] = {KIND: type(item).__name__, **encoded[field.name]}
        return encoded
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [encode(item, forms) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form here: {value!r}")


def decode(hint: Any, content: Any, path: str) -> Any:
    """Return the value of type ``hint`` that ``encode`` turned into ``content``.

    The annotation ``hint`` is a dataclass, union, Literal, tuple, array or plain type. A dataclass
    in ``content`` is returned unchanged. A ValueError names the ``path`` of an unknown, missing or
    mistyped field, such as "experiment.optimizer"; for an unknown field also the most similar one.
    """
    classes = _classes(hint)
    if isinstance(content, tuple(classes.values())):
        return content
    if isinstance(content, dict) and classes:
        return _decode_dataclass(classes, content, path)
    for option in union_members(hint):
        if isinstance(content, list) and option is np.ndarray:
            return np.asarray(content)
        if isinstance(content, list) and typing.get_origin(option) is tuple:
            item_types = typing.get_args(option)
            if item_types[-1] is Ellipsis:
                item_types = item_types[:1] * len(content)
            if len(item_types) == len(content):
                return tuple(
                    decode(item_type, item, f"{path}[{i}]")
                    for i, (item_type, item) in enumerate(zip(item_types, content, strict=True))
                )
        if typing.get_origin(option) is typing.Literal and content in typing.get_args(option):
            return content
        if option is float and type(content) is int:
            return float(content)
        if option in (bool, int, float, str, types.NoneType) and type(content) is option:
            return content
    expected = hint.__name__ if isinstance(hint, type) else str(hint)
    raise ValueError(f"{path} must be of type {expected}, got {content!r}")


def _decode_dataclass(classes: dict[str, type], content: dict[str, Any], path: str) -> Any:
    kind = content.get(KIND) if len(classes) > 1 else next(iter(classes))
    if kind not in classes:
        raise ValueError(f"{path}.{KIND} must be one of {', '.join(classes)}, got {kind!r}")
    cls = classes[kind]
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    values = {}
    for name, item in content.items():
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


def _classes(hint: Any) -> dict[str, type]:
    """Return the dataclasses among the options, by name."""
    options = [option for option in union_members(hint) if isinstance(option, type)]
    return {cls.__name__: cls for cls in options if dataclasses.is_dataclass(cls)}
