"""Functions as arguments of compiled functions: what they compute, and the arrays they close over.

A compiled program would hold the arrays that a function closes over as constants: they would stay
as they were, or cost a compilation each time they are replaced. ``trace`` finds them by tracing the
function once. They become the leaves of a small pytree, and the text of the program its structure.
So new weights never meet an old program, and need no new one.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun, jaxprs_in_params
from jax.tree_util import Partial


@jax.tree_util.register_pytree_node_class
class Traced:
    """A function with the arrays that it closes over as leaves, see ``trace``.

    A call traces the function again, for the shapes that it meets, and puts the leaves in place of
    the arrays. An array whose shape follows from the arguments, such as their positions, is taken
    as the call makes it.

    Attributes:
      constants: the arrays, in the order in which the program needs them.
      function: the function.
      text: the program, without addresses, so that it is the same in each process.
      hidden: what decides the result and is neither an array nor in the text: functions of Python
        behind callbacks, the bytes of exported programs, and arrays in custom derivatives.
    """

    def __init__(self, constants: Any, program: "_Program"):
        self.constants, self._program = tuple(constants), program

    @property
    def function(self) -> Callable[..., Any]:
        return self._program.function

    @property
    def text(self) -> str:
        return self._program.text

    @property
    def hidden(self) -> tuple[Any, ...]:
        return tuple(each.value for each in self._program.hidden)

    def __call__(self, *arguments: Any) -> Any:
        program, shapes = _traced(self.function, arguments)
        found = _constants(program)
        if len(found) != len(self.constants):
            raise ValueError(
                "a function must use the same arrays for any number of images, got "
                f"{len(self.constants)} arrays for one number and {len(found)} for another"
            )
        known = (
            ours if jnp.shape(ours) == jnp.shape(theirs) else theirs
            for ours, theirs in zip(self.constants, found, strict=True)
        )
        outputs = _evaluate(program, known, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    def tree_flatten(self) -> tuple[tuple[Any, ...], "_Program"]:
        return self.constants, self._program

    @classmethod
    def tree_unflatten(cls, program: "_Program", constants: Any) -> "Traced":
        return cls(constants, program)


def trace(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return a function as a pytree whose leaves are the arrays that it closes over now.

    Two results have the same structure, and so share compiled programs, if the functions compute
    the same from their arguments and their arrays. Only what a function under ``jax.jit`` of the
    caller has read when it was first called stays as it was, as everywhere in JAX.

    Args:
      function: any function that JAX can trace. A pytree that can be called is returned as it is,
        unless it is a ``Partial`` of a method or of a function that closes over something.
      arguments: arrays, or their shapes and dtypes.
    """
    if is_pytree(function):
        return function
    program, _ = _traced(function, arguments)
    constants = _constants(program)
    hidden = list(_hidden(program))
    if any(equation.primitive.name == "custom_vjp_call" for equation in _equations(program.jaxpr)):
        hidden += _held_by_derivative(program, constants, arguments)
    return Traced(constants, _Program(function, str(program), tuple(map(_Hidden, hidden))))


def is_pytree(function: Any) -> bool:
    """Return whether all that a function needs are its leaves: arrays and numbers.

    A ``Partial`` of a method or of a function that closes over something needs more. So does a
    module of Equinox, which has functions among its leaves.
    """
    leaves = jax.tree.leaves(function)
    inner = getattr(function, "func", None) if isinstance(function, Partial) else None
    closes_over = inspect.ismethod(inner) or getattr(inner, "__closure__", None)
    return (
        not jax.tree_util.all_leaves([function]) and not closes_over and all(map(_is_array, leaves))
    )


def _is_array(leaf: Any) -> bool:
    has_dtype = hasattr(leaf, "dtype") and not isinstance(leaf, type)
    return has_dtype or isinstance(leaf, int | float | complex)


@dataclasses.dataclass(frozen=True)
class _Program:
    """The static part of a traced function. The function itself may be another object each time."""

    function: Callable[..., Any] = dataclasses.field(compare=False)
    text: str
    hidden: tuple["_Hidden", ...]


class _Hidden:
    """A part that is compared by its value if this can be hashed, and else by its identity."""

    def __init__(self, value: Any):
        self.value = value
        try:
            hash(value)
            self._key = value
        except TypeError:
            self._key = id(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hidden) and bool(self._key == other._key)

    def __hash__(self) -> int:
        return hash(self._key)


def _traced(function: Callable[..., Any], arguments: Any) -> tuple[ClosedJaxpr, Any]:
    """Return the program of a function now, and the shapes of its result."""
    # JAX would give a function that it knows its first program.
    return jax.make_jaxpr(lambda *inputs: function(*inputs), return_shape=True)(*arguments)


def _compiled_part(equation: Any) -> ClosedJaxpr | None:
    """Return the program of a function under ``jax.jit``, which holds arrays of its own."""
    return equation.params["jaxpr"] if equation.primitive.name in ("jit", "pjit") else None


def _constants(program: ClosedJaxpr) -> list[Any]:
    """Return the arrays that a program closes over, and those of compiled functions in it."""
    found = [np.asarray(x) if not isinstance(x, jax.Array) else x for x in program.consts]
    for equation in program.jaxpr.eqns:
        if inner := _compiled_part(equation):
            found += _constants(inner)
    return found


def _evaluate(program: ClosedJaxpr, constants: Iterator[Any], arguments: list[Any]) -> list[Any]:
    """Run a program with other arrays, which come in the order of ``_constants``."""
    own = [next(constants) for _ in program.consts]
    parts = map(_compiled_part, program.jaxpr.eqns)
    if not any(part is not None and _constants(part) for part in parts):
        return jaxpr_as_fun(ClosedJaxpr(program.jaxpr, own))(*arguments)
    jaxpr = program.jaxpr
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*own, *arguments), strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        inputs, inner = [read(variable) for variable in equation.invars], _compiled_part(equation)
        if inner is not None and _constants(inner):
            outputs = _evaluate(inner, constants, inputs)
        else:
            known = {v: read(v) for v in equation.invars if not isinstance(v, Literal)}
            alone = jaxpr.replace(
                constvars=list(known), invars=[], outvars=equation.outvars, eqns=[equation]
            )
            outputs = jaxpr_as_fun(ClosedJaxpr(alone, list(known.values())))()
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _equations(jaxpr: Any) -> Iterator[Any]:
    """Yield the equations of a program and of those within it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from _equations(inner)


def _hidden(program: ClosedJaxpr) -> Iterator[Any]:
    for equation in _equations(program.jaxpr):
        if "callback" in equation.params:
            yield equation.params["callback"]
        if isinstance(exported := equation.params.get("exported"), jax.export.Exported):
            yield exported.mlir_module_serialized


def _held_by_derivative(
    program: ClosedJaxpr, constants: list[Any], arguments: Any
) -> Sequence[Any]:
    """Return the arrays that custom derivatives close over, beside those of the program."""

    def gradient(constants: Any, arguments: Any) -> Any:
        *others, last = jax.tree.leaves(arguments)
        outputs, pull_back = jax.vjp(
            lambda last: _evaluate(program, iter(constants), [*others, last]), last
        )
        return pull_back(jax.tree.map(jnp.zeros_like, outputs))

    try:
        return jax.make_jaxpr(gradient)(constants, arguments).consts
    except Exception:
        return ()  # A function without a derivative, such as one with a callback, can be called.
