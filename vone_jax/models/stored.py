"""Networks in JSON: ``Spec``, and what holds one. Code of users has the name of its module.

Banks of a million numbers are replaced by their digests. Who stores the JSON stores them as arrays.
"""

import dataclasses
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vone_jax import dataclass_json, modules
from vone_jax.models.architecture import Architecture
from vone_jax.v1 import GaborParameters, ImportedBank

_MODULE, _DIGEST = "module", "sha256"
_PARAMETERS = tuple(field.name for field in dataclasses.fields(GaborParameters))


# What a user may write of a network, and a file may ask for.
PARTS = (nn.Module, Architecture)


def code_of_users(value: Any) -> Iterator[type | types.FunctionType]:
    """Yield the classes and functions of a user in a dataclass and its fields."""
    if isinstance(value, tuple):
        for item in value:
            yield from code_of_users(item)
    elif isinstance(value, types.FunctionType):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        if not type(value).__module__.startswith(("vone_jax.", "flax.")):
            yield type(value)
        for field in _fields(type(value)):
            yield from code_of_users(getattr(value, field.name))


def to_json(value: Any) -> Any:
    """Return a specification, or a dataclass that holds one, as JSON values.

    Raises:
      ValueError: for code of a user that does not lie in a module, so that nobody can open it.
    """
    return dataclass_json.encode(value, _forms(value))


def from_json(
    hint: Any,
    content: Any,
    path: str,
    read_bank: Callable[[str], ImportedBank] | None = None,
    code: Sequence[str] = (),
    opened: Path | None = None,
    kinds: tuple[type, ...] = PARTS,
) -> Any:
    """Return the value of type ``hint`` that ``to_json`` turned into ``content``.

    Args:
      hint: see ``dataclass_json.decode``.
      content: JSON values.
      path: place of the content for messages, such as "experiment".
      read_bank: returns the imported bank with a digest.
      code: modules that may be imported, see ``modules.of_file``.
      opened: the directory of the content, in which none of these may lie.
      kinds: the bases of the classes that the content may ask for.

    Raises:
      ValueError: for an unknown or missing field, or one of another type; and then for a module
        that may not be imported.
    """
    content = _replaced(content, lambda found: _with_bank(found, read_bank), _DIGEST)
    # All other fields are looked at before a module is imported.
    dataclass_json.decode(hint, content, path, make=False)
    made = _replaced(content, lambda found: _made(found, code, opened, kinds), _MODULE)
    return dataclass_json.decode(hint, made, path)


def bank_arrays(bank: ImportedBank) -> dict[str, np.ndarray]:
    """The numbers of a bank by name."""
    arrays = {name: getattr(bank.parameters, name) for name in _PARAMETERS}
    names = ("in_phase", "quadrature", "pixels_per_degree")
    return arrays | {name: np.asarray(getattr(bank, name)) for name in names}


def bank_of(arrays: Any, digest: str) -> ImportedBank:
    """The bank of ``bank_arrays``.

    Raises:
      ValueError: if its digest is another one.
    """
    bank = ImportedBank(
        arrays["in_phase"],
        arrays["quadrature"],
        GaborParameters(**{name: arrays[name] for name in _PARAMETERS}),
        float(arrays["pixels_per_degree"]),
    )
    if bank.digest != digest:
        raise ValueError(f"the bank of digest {digest} has the digest {bank.digest}")
    return bank


def _replaced(content: Any, replace: Callable[[dict[str, Any]], Any], key: str) -> Any:
    """Replace the objects with a key in a tree of JSON values."""
    if isinstance(content, dict):
        if key in content and dataclass_json.TYPE in content:
            return replace(content)
        return {name: _replaced(value, replace, key) for name, value in content.items()}
    if isinstance(content, list):
        return [_replaced(value, replace, key) for value in content]
    return content


def _with_bank(
    content: dict[str, Any], read_bank: Callable[[str], ImportedBank] | None
) -> ImportedBank:
    if read_bank is None:
        raise ValueError(f"the arrays of the bank {content[_DIGEST]} must be given")
    return read_bank(content[_DIGEST])


def _describe(part: Any) -> dict[str, Any]:
    """An object of a user in JSON: the module of its class, and its fields."""
    cls = type(part)
    if cls.__module__ not in sys.modules:
        raise ValueError(
            f"{cls.__name__}: there is no module {cls.__module__!r}; define the class in a file of "
            "its own, which lies beside the config and which the config imports"
        )
    _class_of(cls.__module__, cls.__name__, vars(sys.modules[cls.__module__]), (cls,))
    fields = {f.name: _describe_field(getattr(part, f.name), f.name) for f in _fields(cls)}
    # A file that was loaded by its path stands for the module of its name.
    return {_MODULE: cls.__module__.removeprefix("file_"), **fields}


def _describe_function(function: Any) -> dict[str, Any]:
    """A function of a user in JSON: its module and its name."""
    name, module = function.__name__, function.__module__
    if vars(sys.modules.get(module, types)).get(name) is not function:
        raise ValueError(
            f"{function.__qualname__} cannot be stored: define it by def at the top of a file of "
            "its own, which lies beside the config and which the config imports"
        )
    return {dataclass_json.TYPE: name, _MODULE: module.removeprefix("file_")}


def _fields(cls: Any) -> list[dataclasses.Field]:
    """The fields that are stored, without the two that Flax adds."""
    hidden = ("parent", "name") if issubclass(cls, nn.Module) else ()
    return [field for field in dataclass_json.stored_fields(cls) if field.name not in hidden]


def _describe_field(value: Any, name: str) -> Any:
    """A field of an object in JSON. Most modules of Flax have one that is a type of numbers."""
    if isinstance(value, np.dtype | type) and hasattr(value, "dtype"):
        return {"dtype": jnp.dtype(value).name}
    return dataclass_json.encode(value, _forms(value), name)


def _forms(value: Any) -> dataclass_json.Forms:
    forms: dict[type, Callable[[Any], dict[str, Any]]] = {
        ImportedBank: lambda bank: {_DIGEST: bank.digest},
        nn.Module: _describe,
    }
    classes = (each for each in code_of_users(value) if isinstance(each, type))
    return forms | {types.FunctionType: _describe_function} | dict.fromkeys(classes, _describe)


def _class_of(module: str, name: Any, defined: Any, kinds: tuple[type, ...]) -> Any:
    """The class of a name that a module of Python has itself defined or imported."""
    # Not getattr, by which a package may import its parts.
    cls = defined.get(name)
    if not (isinstance(cls, type) and issubclass(cls, kinds)):
        listed = ", ".join(each.__name__ for each in kinds)
        raise ValueError(f"{module} has no class {name!r:.80} that is one of {listed}")
    return cls


def _made(
    content: dict[str, Any], code: Sequence[str], opened: Path | None, kinds: tuple[type, ...]
) -> Any:
    """What ``_describe`` or ``_describe_function`` has described."""
    fields = {
        field: _replaced(value, lambda found: _made(found, code, opened, kinds), _MODULE)
        for field, value in content.items()
    }
    name = fields.pop(dataclass_json.TYPE)
    try:
        module = modules.of_file(fields.pop(_MODULE), code, opened)
        function = vars(module).get(name)
        if isinstance(function, types.FunctionType):
            # Functions of other modules that are imported, such as os, may do anything.
            if not modules.is_of_user(module, code):
                raise ValueError(f"if you trust this function, add --code {module.__name__}")
            return function
        cls = _class_of(module.__name__, name, vars(module), kinds)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{name!r:.80}: {error}") from error
    dtypes = {
        field: getattr(jnp, value["dtype"])
        for field, value in fields.items()
        if isinstance(value, dict) and value.keys() == {"dtype"}
    }
    others = {field: value for field, value in fields.items() if field not in dtypes}
    made = dataclass_json.decode(cls, others, str(name))
    return made.clone(**dtypes) if dtypes else made
