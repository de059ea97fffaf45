"""Functions that close over arrays, as arguments of compiled functions.

A compiled program holds the arrays that a function closes over as constants. So a function whose
weights were replaced must not find the program that was compiled before. ``Closure`` is a pytree
whose structure has the identities of these arrays: it changes when one of them is replaced. The
same holds for the functions that it calls, and for settings: numbers, strings, booleans and None.
"""

import contextlib
import dis
import functools
import inspect
import itertools
import re
import types
from collections.abc import Callable, Iterator
from typing import Any
from weakref import ref

import jax
import numpy as np
from flax.ids import FlaxId
from jax.core import Tracer

# Settings: types without parts. They are found before anything else, since lists can be long.
_PLAIN = frozenset((str, bytes, type(None), int, float, complex, bool))
# Instructions that read an attribute of what the instruction before them has loaded.
_ATTRIBUTES = frozenset(("LOAD_ATTR", "LOAD_METHOD"))
# In place of the attributes of a variable: it is used as a whole.
_WHOLE = frozenset(("",))


@jax.tree_util.register_pytree_node_class
class Closure:
    """A function as a pytree without leaves.

    Its structure changes when an array or a function is replaced in a variable of the function, of
    a function in its module that it calls by name, or in an element or attribute of an object
    there, such as ``net.forward`` of a module ``net`` that is loaded again. It changes with a
    number, a string, a boolean or None there, too, unless it is what a call of the function or the
    object writes. Where a function reads only some attributes of an object, such as ``trainer.net``
    or ``state.apply_fn``, the others do not matter. It does not change when a NumPy array is
    changed in place, or with attributes of classes and of installed modules, with weights of other
    libraries than JAX and NumPy, or with what a function of another module reads there.
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
        self._identities = tuple(
            (type(value), value) if type(value) in _PLAIN else id(value)
            for value in self._constants
        )

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


def closes_over(function: Callable[..., Any]) -> bool:
    """Return True for a function or method in Python that uses more than its own code."""
    kinds = types.FunctionType | types.MethodType
    return isinstance(function, kinds) and len(list(_constants(function))) > 1


def _constants(function: Callable[..., Any]) -> Iterator[Any]:
    """Yield the arrays, functions and settings that a function closes over, in a fixed order."""
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    inner = inspect.unwrap(inner)
    inner = inner if hasattr(inner, "__globals__") else type(inner).__call__
    namespace = getattr(inner, "__globals__", None)
    counters = _written(_code(inner), ("STORE_ATTR",))
    # Objects are held while they are compared by identity.
    seen: dict[int, Any] = {}
    waiting = [function]
    while waiting:
        value = waiting.pop()
        if type(value) in _PLAIN:
            yield value
            continue
        try:
            # The tracers of a program that is being made are gone afterwards. Bound modules of Flax
            # make others in each call, with other numbers, and keep references to them.
            if isinstance(value, Tracer | types.ModuleType | type | FlaxId | ref):
                continue
            if isinstance(value, jax.Array | np.ndarray | np.generic):
                yield value
            elif id(value) not in seen:
                seen[id(value)] = value
                # A function that is made again, for instance in each call, has the same code. An
                # object of another class has other methods. Of containers, the content counts.
                if type(value) not in (list, tuple, dict):
                    yield value.__code__ if isinstance(value, types.FunctionType) else type(value)
                waiting += _parts(value, namespace, counters)
        except Exception:
            # The parts of this object cannot be read; it may be a closed file.
            if type(value) in (types.FunctionType, types.MethodType):
                raise


def _parts(value: Any, namespace: Any, counters: frozenset[str]) -> list[Any]:
    """Return the parts of a value, without settings in attributes that calls of it write.

    Global variables are those of functions in the module ``namespace``, not of libraries. The
    function that is called writes the attributes ``counters``.
    """
    if isinstance(value, types.FunctionType):
        code, cells = value.__code__, value.__closure__ or ()
        reads = _reads(code)
        variables = {
            name: cell.cell_contents
            for name, cell in zip(code.co_freevars, cells, strict=True)
            if cell != types.CellType()
        }
        if value.__globals__ is namespace:
            names = reads.keys() & namespace.keys() - {*code.co_varnames}
            variables |= {name: namespace[name] for name in sorted(names)}
        # Variables that the function itself writes are counters and caches.
        written = _written(code, ("STORE_DEREF", "STORE_GLOBAL"))
        shown = [
            part
            for name, content in variables.items()
            if name not in written
            for part in _used(content, reads.get(name, _WHOLE))
        ]
        defaults = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        return [*shown, *defaults]
    if isinstance(value, types.MethodType):
        code = _code(value.__func__)
        # super() uses the object without reading its variable.
        whole = not code.co_argcount or "__class__" in code.co_freevars
        reads = _WHOLE if whole else _reads(code).get(code.co_varnames[0], frozenset())
        return [*_used(value.__self__, reads), value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, dict):
        return [*value.values()]
    flat = jax.tree_util.default_registry.flatten_one_level(value)
    parts = [] if flat is None else [*flat[0]]
    slots = (vars(cls).get("__slots__", ()) for cls in type(value).__mro__)
    names = [name for each in slots for name in ((each,) if isinstance(each, str) else each)]
    attributes = {name: getattr(value, name, None) for name in names}
    attributes |= getattr(value, "__dict__", {})
    if callable(value):
        parts.append(type(value).__call__)
        counters = counters | _written(_code(type(value).__call__), ("STORE_ATTR",))
    return parts + [
        part
        for name, part in attributes.items()
        if name not in counters or type(part) not in _PLAIN
    ]


def _code(function: Any) -> types.CodeType:
    """Return the code of a function; that of an empty one for a function not in Python."""
    return getattr(function, "__code__", (lambda: None).__code__)


# Remembered by their code: functions would keep the weights that they close over.
@functools.lru_cache(maxsize=1024)
def _written(code: types.CodeType, stores: tuple[str, ...]) -> frozenset[str]:
    """Return the names to which a function assigns by the instructions ``stores``."""
    steps = dis.get_instructions(code)
    return frozenset(str(step.argval) for step in steps if step.opname in stores)


def _used(value: Any, attributes: frozenset[str]) -> list[Any]:
    """Return the parts of a variable of which a function reads the attributes."""
    own: Any = {}
    is_module = issubclass(type(value), types.ModuleType)
    # Installed packages stay as they are.
    installed = is_module and "-packages" in str(vars(value).get("__file__"))
    if not installed and not issubclass(type(value), type):
        # Some objects have no attributes, or do not show them.
        with contextlib.suppress(Exception):
            own = vars(value)
    # Methods and properties can read the other attributes.
    return [own[name] for name in sorted(attributes)] if attributes <= own.keys() else [value]


@functools.lru_cache(maxsize=1024)
def _reads(code: types.CodeType) -> dict[str, frozenset[str]]:
    """Return the variables of a function, and of those within it -> the attributes it reads."""
    reads: dict[str, frozenset[str]] = {}
    steps = list(dis.get_instructions(code))
    for step, following in itertools.pairwise(steps):
        if re.search("FAST|DEREF|GLOBAL|NAME$", step.opname):
            # Some instructions access two variables at once.
            alone = isinstance(step.argval, str) and following.opname in _ATTRIBUTES
            part = frozenset((following.argval,)) if alone else _WHOLE
            for name in (step.argval,) if isinstance(step.argval, str) else step.argval:
                reads[name] = reads.get(name, frozenset()) | part
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            for name, parts in _reads(inner).items():
                if name not in inner.co_varnames:
                    reads[name] = reads.get(name, frozenset()) | parts
    return reads
