"""Functions that close over arrays, as arguments of compiled functions.

A compiled program holds the arrays that a function closes over as constants. So a function whose
weights were replaced must not find the program that was compiled before. ``Closure`` is a pytree
whose structure has the identities of these arrays: it changes when one of them is replaced.
"""

import dis
import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

_NUMBERS = (int, float, complex, bool)
# Types without parts, which are passed over before anything else, since lists can be long.
_PLAIN = frozenset((str, bytes, type(None), *_NUMBERS))


@jax.tree_util.register_pytree_node_class
class Closure:
    """A function as a pytree without leaves.

    Its structure changes when an array is replaced in a variable of the function, of a function in
    its module that it calls by name, or in an element or attribute of an object there. It changes
    with a number in a variable, too. It does not change when a NumPy array is changed in place, or
    with attributes of classes and weights of other libraries than JAX and NumPy.
    """

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.function(*arguments, **keywords)

    def __repr__(self) -> str:
        return repr(self.function)

    def tree_flatten(self) -> tuple[tuple[()], "_Version"]:
        return (), _Version(self.function)

    @classmethod
    def tree_unflatten(cls, version: "_Version", _: Any) -> "Closure":
        return cls(version.function)


class _Version:
    """A function with the arrays that it closes over now."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        # Held, so that an identity stands for one object.
        self._constants = list(_constants(function))
        self._identities = tuple(map(id, self._constants))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Version) or self._identities != other._identities:
            return False
        try:
            # A bound method is another object each time, and equal.
            return self.function is other.function or bool(self.function == other.function)
        except Exception:
            return False

    def __hash__(self) -> int:
        return hash(self._identities)


def _constants(function: Callable[..., Any]) -> Iterator[Any]:
    """Yield the arrays and numbers that a function closes over, in a fixed order."""
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    inner = inspect.unwrap(inner)
    inner = inner if hasattr(inner, "__globals__") else type(inner).__call__
    namespace = getattr(inner, "__globals__", None)
    # Objects are held while they are compared by identity.
    seen: dict[int, Any] = {}
    waiting: list[tuple[Any, bool]] = [(function, False)]
    while waiting:
        value, is_variable = waiting.pop()
        if type(value) in _PLAIN:
            if is_variable and type(value) in _NUMBERS:
                yield value
            continue
        try:
            if is_variable and isinstance(value, np.generic):
                yield value
            # The tracers of a program that is being made are gone afterwards.
            if isinstance(value, Tracer | types.ModuleType | type | np.generic):
                continue
            if isinstance(value, jax.Array | np.ndarray):
                yield value
            elif id(value) not in seen:
                seen[id(value)] = value
                waiting += _parts(value, namespace)
        except Exception:
            # The parts of this object cannot be read; it may be a closed file.
            continue


def _parts(value: Any, namespace: Any) -> list[tuple[Any, bool]]:
    """Return the parts of a value, each with True for a variable of a function.

    Global variables are those of functions in the module ``namespace``, not of libraries.
    """
    if isinstance(value, types.FunctionType):
        code, cells = value.__code__, value.__closure__ or ()
        # Variables that the function itself writes are counters and caches.
        written = _written(code)
        shown = [
            cell.cell_contents
            for name, cell in zip(code.co_freevars, cells, strict=True)
            if name not in written and cell != types.CellType()
        ]
        if value.__globals__ is namespace:
            names = sorted(_names(code) & namespace.keys() - written)
            shown += [namespace[name] for name in names]
        defaults = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        return [(part, True) for part in (*shown, *defaults)]
    if isinstance(value, types.MethodType):
        return [(value.__self__, False), (value.__func__, False)]
    if isinstance(value, functools.partial):
        return [(value.func, False), (value.args, False), (value.keywords, False)]
    if isinstance(value, dict):
        return [(part, False) for part in value.values()]
    flat = jax.tree_util.default_registry.flatten_one_level(value)
    if flat is not None:
        return [(part, False) for part in flat[0]]
    slots = (vars(cls).get("__slots__", ()) for cls in type(value).__mro__)
    names = [name for each in slots for name in ((each,) if isinstance(each, str) else each)]
    attributes = [*getattr(value, "__dict__", {}).values()]
    attributes += [getattr(value, name, None) for name in names]
    attributes += [type(value).__call__] if callable(value) else []
    return [(part, False) for part in attributes]


@functools.lru_cache(maxsize=1024)
def _written(code: types.CodeType) -> frozenset[str]:
    """Return the outer variables to which a function assigns."""
    stores = ("STORE_DEREF", "STORE_GLOBAL")
    steps = dis.get_instructions(code)
    return frozenset(str(step.argval) for step in steps if step.opname in stores)


@functools.lru_cache(maxsize=1024)
def _names(code: types.CodeType) -> frozenset[str]:
    """Return the names of global variables and attributes in a function and those within it."""
    inner = (_names(part) for part in code.co_consts if isinstance(part, types.CodeType))
    return frozenset(code.co_names).union(*inner)
