"""Converts dataclasses to JSON values, and back, by the types of their fields.

A dataclass is an object of its fields, with the name of its class under ``"type"``. So a field, or
a file, may hold any one of several classes. A field with the metadata ``{"stored": False}`` belongs
to the running program, such as a network or a mesh, and is left out.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vone_jax.arguments import nearest, not_among, union_members

TYPE = "type"
# Class -> a function that makes its JSON form, and that of its subclasses, where this is not an
# object of their fields.
Forms = Mapping[type, Callable[[Any], dict[str, Any]]]


def encode(value: Any, forms: Forms | None = None, path: str = "value") -> Any:
    """Return the JSON form of a dataclass, or of a value that a field of one may hold.

    Tuples become lists, arrays lists or numbers, and paths text.

    Raises:
      TypeError: for a value without a JSON form; the message names its field.
    """
    name = type(value).__name__
    for cls in type(value).__mro__:
        if forms and cls in forms:
            return {TYPE: name, **forms[cls](value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in stored_fields(type(value))]
        items = {field: encode(getattr(value, field), forms, f"{name}.{field}") for field in fields}
        return {TYPE: name, **items}
    if hasattr(value, "__array__"):
        return np.asarray(value).tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {name: encode(item, forms, f"{path}.{name}") for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item, forms, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{path} has no JSON form: {type(value).__name__} {value!r:.80}")


def decode(
    hint: Any,
    content: Any,
    path: str,
    running: Mapping[str, Any] | None = None,
    make: bool = True,
) -> Any:
    """Return the value of type ``hint`` that ``encode`` turned into ``content``.

    Args:
      hint: annotation: a dataclass or an abstract base of dataclasses, a union, Literal, tuple,
        dict, array or plain type. ``"type"`` names the class, or a subclass, of one of the options;
        it may be missing if only one dataclass is possible.
      content: JSON values. A dataclass in it is returned unchanged.
      path: place of the content for messages, such as "experiment.optimizer".
      running: name -> value of the fields that are not stored.
      make: False only looks at names and types, and makes None of each dataclass. An object of a
        user's class is not looked at, see ``is_of_user``.

    Raises:
      ValueError: for an unknown, missing or mistyped field or class, with its path and the most
        similar name.
    """
    if not make and is_of_user(content):
        return None
    bases = tuple(option for option in union_members(hint) if _has_dataclasses(option))
    if bases and isinstance(content, bases):
        return content
    if isinstance(content, Mapping) and bases:
        return _decode_dataclass(bases, content, path, running, make)
    for option in union_members(hint):
        origin, parts = typing.get_origin(option), typing.get_args(option)
        if origin is Callable and callable(content):
            return content
        if option in (Any, object):
            return content
        if option is np.ndarray and isinstance(content, list):
            return np.asarray(content)
        if tuple in (option, origin) and isinstance(content, list):
            if not parts or parts[-1] is Ellipsis:
                parts = (parts[:1] or (Any,)) * len(content)
            if len(parts) == len(content):
                items = enumerate(zip(parts, content, strict=True))
                return tuple(
                    decode(part, x, f"{path}[{i}]", running, make) for i, (part, x) in items
                )
        if dict in (option, origin) and isinstance(content, Mapping):
            part = parts[1] if parts else Any
            return {k: decode(part, x, f"{path}.{k}", running, make) for k, x in content.items()}
        if origin is typing.Literal and content in parts:
            return content
        if option is float and type(content) is int:
            return float(content)
        if option is Path and isinstance(content, str):
            return Path(content)
        if option in (bool, int, float, str, types.NoneType) and type(content) is option:
            return content
    expected = hint.__name__ if isinstance(hint, type) else str(hint)
    raise ValueError(f"{path} must be of type {expected}, got {content!r:.80}")


def is_of_user(content: Any) -> bool:
    """Return True for the JSON form of an object that names the module of its class."""
    return isinstance(content, Mapping) and {TYPE, "module"} <= content.keys()


def stored_fields(cls: type) -> list[dataclasses.Field]:
    """Return the fields of a dataclass that its JSON form has."""
    fields = dataclasses.fields(typing.cast(Any, cls))
    return [field for field in fields if field.metadata.get("stored", True)]


def _decode_dataclass(
    bases: tuple[type, ...],
    content: Mapping[str, Any],
    path: str,
    running: Mapping[str, Any] | None,
    make: bool,
) -> Any:
    known = [cls for base in bases for cls in _dataclasses_under(base)]
    if TYPE in content or len(known) > 1:
        cls = _named(content.get(TYPE), known, bases, path)
    else:
        (cls,) = known
    hints = typing.get_type_hints(cls)
    stored = [field.name for field in stored_fields(cls)]
    values = {}
    for name, item in content.items():
        if name == TYPE:
            continue
        if name not in stored:
            raise ValueError(f"{path} has no field {name!r}{nearest(name, stored)}")
        values[name] = decode(hints[name], item, f"{path}.{name}", running, make)
    for field in dataclasses.fields(cls):
        if field.name not in stored and running and running.get(field.name) is not None:
            values[field.name] = running[field.name]
        required = field.default is field.default_factory is dataclasses.MISSING
        if field.name not in values and required:
            raise ValueError(f"{path} lacks the field {field.name!r}")
    try:
        return cls(**values) if make else None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _named(name: Any, known: list[Any], bases: tuple[type, ...], path: str) -> Any:
    """Return the class of a name, the only class of the hint where no name is given."""
    # A class that was defined again, for instance in a notebook, replaces the earlier one.
    places = {(cls.__module__, cls.__qualname__): cls for cls in known if cls.__name__ == name}
    if name is None and len(bases) == 1 and bases[0] in known:
        return bases[0]
    # A class of a user that has the name of one of ours is told apart, see ``is_of_user``.
    places = {at: cls for at, cls in places.items() if at[0].startswith("vone_jax.")} or places
    if not places:
        raise ValueError(not_among(f"{path}.{TYPE}", name, {cls.__name__: None for cls in known}))
    if len(places) > 1:
        listed = " and ".join(sorted(f"{module}.{where}" for module, where in places))
        raise ValueError(f"{path}.{TYPE}: several classes are named {name}: {listed}")
    return next(iter(places.values()))


def _dataclasses_under(base: type) -> Iterator[type]:
    """Yield a class and its subclasses, without abstract ones and those that are no dataclasses."""
    if dataclasses.is_dataclass(base) and not inspect.isabstract(base):
        yield base
    for subclass in base.__subclasses__():
        yield from _dataclasses_under(subclass)


def _has_dataclasses(option: Any) -> bool:
    return isinstance(option, type) and next(_dataclasses_under(option), None) is not None
