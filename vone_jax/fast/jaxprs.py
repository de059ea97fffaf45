"""The only module that reads and rewrites jaxprs, the programs that JAX makes of functions.

- ``in_fast_layout`` brings all convolutions to the layout that is fast on CPUs.
- ``with_straight_through_relus`` gives ReLUs at the end of a layer the gradient of the identity.
- ``callbacks``, ``closes_over_tracers`` and ``constants`` say what a function needs beside its
  arguments.

XLA's CPU compiler has one fast convolution: batch first, channels last, and kernels with inputs
before outputs. It brings the convolutions of a program to that layout, but not those in the body of
a loop, where it leaves a plain loop nest that is several times slower. JAX's gradients of a
convolution have other layouts, and attacks are loops over gradients. ``in_fast_layout`` does for a
whole program, loops included, what XLA does outside of loops: it exchanges axes.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import (
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    Literal,
    jaxpr_as_fun,
    jaxprs_in_params,
)
from jax.extend.core.primitives import conv_general_dilated_p

from vone_jax.fast import switch
from vone_jax.fast.operations import relu

Function = TypeVar("Function", bound=Callable[..., Any])

# Programs with their rewritten forms, by ``id``. It keeps the programs alive: Python reuses ids.
_Known = dict[int, tuple[Any, Any]]


def in_fast_layout(function: Function) -> Function:
    """Return the function with all its convolutions in the layout that CPUs compute fast.

    The function is traced, and the convolutions of floating-point numbers in the program are
    replaced: in the bodies of its loops and in all functions that it calls. Results differ by
    rounding at most. Gradients that are taken within the function are part of the program. They
    keep their rules and profit as well, so this belongs around loops and gradients and inside
    ``jax.jit``. On other devices than CPUs the program stays as it is.

    Args:
      function: takes pytrees of arrays and returns one. What it raises reaches the caller as it is.
    """

    @functools.wraps(function)
    def rewritten(*arguments: Any) -> Any:
        if not switch.enabled():
            return function(*arguments)
        program, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        results = jaxpr_as_fun(_program(program, {}))(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return cast(Function, rewritten)


def _program(program: Any, known: _Known) -> Any:
    """Return the rewritten program, or the same object if there is nothing to change.

    ``known`` has the programs rewritten before, so a function called several times stays one.
    """
    if id(program) not in known:
        result = program
        # The order matters: from JAX 0.12 on, both names mean one class, with equations.
        if isinstance(program, Jaxpr):
            equations = [_equation(equation, known) for equation in program.eqns]
            if any(new is not old for new, old in zip(equations, program.eqns, strict=True)):
                result = program.replace(eqns=equations)
        else:
            inner = _program(program.jaxpr, known)
            if inner is not program.jaxpr:
                result = program.replace(jaxpr=inner)
        known[id(program)] = program, result
    return known[id(program)][1]


def _equation(equation: JaxprEqn, known: _Known) -> JaxprEqn:
    if equation.primitive is conv_general_dilated_p:
        return _convolution(equation)
    params = {name: _parameter(value, known) for name, value in equation.params.items()}
    if all(params[name] is value for name, value in equation.params.items()):
        return equation
    return equation.replace(params=params)


def _parameter(value: Any, known: _Known) -> Any:
    """Rewrite the program of a call or a loop, or the tuple of programs of a conditional."""
    if isinstance(value, (Jaxpr, ClosedJaxpr)):
        return _program(value, known)
    if not isinstance(value, tuple):
        return value
    parts = [_parameter(part, known) for part in value]
    if all(new is old for new, old in zip(parts, value, strict=True)):
        return value
    return jax.tree.unflatten(jax.tree.structure(value, is_leaf=lambda x: x is not value), parts)


def _convolution(equation: JaxprEqn) -> JaxprEqn:
    """Return a convolution in the fast layout, as the call of a function."""
    numbers = equation.params["dimension_numbers"]
    images, kernel = (cast(Any, operand.aval) for operand in equation.invars)
    # The axes in the order of the fast layout. JAX's specifications begin with batch and channels,
    # or with the outputs and inputs of the kernel.
    of_images = (numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1])
    of_kernel = (*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0])
    of_results = (numbers.out_spec[0], *numbers.out_spec[2:], numbers.out_spec[1])
    axes = tuple(range(len(of_images)))
    if of_images == of_kernel == of_results == axes:
        return equation
    if not jnp.issubdtype(images.dtype, jnp.floating):
        return equation
    last_first = (0, axes[-1], *axes[1:-1])
    fast = lax.ConvDimensionNumbers(last_first, (axes[-1], axes[-2], *axes[:-2]), last_first)

    def convolve(images: jax.Array, kernel: jax.Array, **changed: Any) -> jax.Array:
        return equation.primitive.bind(images, kernel, **equation.params | changed)

    def exchanged(images: jax.Array, kernel: jax.Array) -> jax.Array:
        operands = images.transpose(of_images), kernel.transpose(of_kernel)
        return convolve(*operands, dimension_numbers=fast).transpose(np.argsort(of_results))

    def convolution(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return switch.by_platform(images, kernel, cpu=exchanged, default=convolve)

    call = _called(convolution, images, kernel)
    return call.replace(
        invars=equation.invars, outvars=equation.outvars, source_info=equation.source_info
    )


def _called(function: Callable[..., Any], *arguments: Any) -> JaxprEqn:
    """Return the call of a compiled function of such arguments as an equation."""
    # A user who debugs without ``jit`` needs the call all the same. The mesh is that of the
    # arguments, which may have Auto axes in a program of Explicit ones.
    with jax.disable_jit(False), jax.sharding.use_abstract_mesh(arguments[0].sharding.mesh):
        (call,) = jax.make_jaxpr(jax.jit(function))(*arguments).eqns
    return call


# Straight-through estimators.

# Operations that place, select, pool or scale values.
_PLACING = {
    "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "custom_linear_solve",
    "div", "dynamic_slice", "gather", "mul", "optimization_barrier", "pad", "reduce_max",
    "reduce_precision", "reduce_sum", "reduce_window_max", "reduce_window_sum", "reshape", "rev",
    "select_n", "sharding_constraint", "slice", "split", "squeeze", "transpose",
}  # fmt: skip
# Calls of functions -> the parameter with their programs.
_CALLS = {
    "jit": "jaxpr", "pjit": "jaxpr", "remat2": "jaxpr", "checkpoint": "jaxpr", "cond": "branches",
}  # fmt: skip


def with_straight_through_relus(function: Function) -> Function:
    """Return the function with a straight-through estimator for each ReLU at its end.

    A ReLU is at the end if its values are only placed, selected, pooled or multiplied by constants
    afterwards: also in a slice of several layers, before a pool, or as one of several outputs. Its
    gradient becomes that of the identity, so silent units have one, too. The values stay.

    Args:
      function: takes pytrees of arrays and returns one.
    """

    @functools.wraps(function)
    def rewritten(*arguments: Any) -> Any:
        program, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        jaxpr, _ = _with_estimators(program.jaxpr, [True] * len(program.jaxpr.outvars), None)
        results = jaxpr_as_fun(ClosedJaxpr(jaxpr, program.consts))(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return cast(Function, rewritten)


def _with_estimators(
    jaxpr: Any, outputs: Sequence[bool], inputs: Sequence[bool] | None
) -> tuple[Any, list[bool]]:
    """Rewrite the ReLUs from which some outputs come.

    ``inputs`` says which inputs depend on the arguments of the function; None for all. Returns the
    program, and which of its inputs are outputs that are only placed.
    """
    depending = {v for n, v in enumerate(jaxpr.invars) if inputs is None or inputs[n]}
    for equation in jaxpr.eqns:
        if any(v in depending for v in _variables(equation.invars)):
            depending |= set(equation.outvars)
    placed = {v for v, wanted in zip(jaxpr.outvars, outputs, strict=True) if wanted} & depending
    equations = []
    for equation in reversed(jaxpr.eqns):
        if not placed.isdisjoint(equation.outvars):
            wanted = [v in placed for v in equation.outvars]
            equation, before = _with_estimator(equation, wanted, depending)
            placed |= before & depending
        equations.append(equation)
    found = jaxpr if equations == jaxpr.eqns[::-1] else jaxpr.replace(eqns=equations[::-1])
    return found, [v in placed for v in jaxpr.invars]


def _with_estimator(
    equation: JaxprEqn, wanted: list[bool], depending: set[Any]
) -> tuple[JaxprEqn, set[Any]]:
    """Rewrite an equation of which some results are wanted; return what else to go back to."""
    name = equation.primitive.name
    if _is_relu(equation):
        (before,) = _variables(equation.invars)
        call = _called(_straight_through_relu, before.aval)
        new = call.replace(invars=[before], outvars=equation.outvars)
        return new.replace(source_info=equation.source_info), set()
    if name in ("mul", "div") and len(depending & set(_variables(equation.invars))) > 1:
        return equation, set()
    if name in _PLACING:
        return equation, set(_variables(equation.invars))
    if name not in _CALLS:
        return equation, set()
    programs = equation.params[_CALLS[name]]
    several = programs if isinstance(programs, tuple) else (programs,)
    operands = equation.invars[-len(_inner(several[0]).invars) :] if several else []
    varying = [not isinstance(v, Literal) and v in depending for v in operands]
    rewritten, before = [], set()
    for program in several:
        inner, reached = _with_estimators(_inner(program), wanted, varying)
        is_open = isinstance(program, Jaxpr)
        rewritten.append(inner if is_open else program.replace(jaxpr=inner))
        before |= {v for v, on in zip(operands, reached, strict=True) if on}
    value = tuple(rewritten) if isinstance(programs, tuple) else rewritten[0]
    return equation.replace(params=equation.params | {_CALLS[name]: value}), before


def _is_relu(equation: JaxprEqn) -> bool:
    """Return whether an equation is max(x, 0) of an array, ``jax.nn.relu`` or ``relu`` of ours."""
    name, inputs = equation.primitive.name, _variables(equation.invars)
    if name == "max":
        zeros = [v for v in equation.invars if isinstance(v, Literal) and np.all(v.val == 0)]
        return len(inputs) == len(zeros) == 1
    parameter = {"custom_jvp_call": "call_jaxpr"}.get(name, _CALLS.get(name))
    if parameter is None or name == "cond" or len(inputs) != 1:
        return False
    inner = _inner(equation.params[parameter]).eqns
    if [each.primitive.name for each in inner] == ["le", "broadcast_in_dim", "select_n"]:
        test, zeros, choice = inner
        literals = [v for each in (test, zeros) for v in each.invars if isinstance(v, Literal)]
        same = choice.invars == [*test.outvars, test.invars[0], *zeros.outvars]
        return same and len(literals) == 2 and all(v.val == 0 for v in literals)
    return len(inner) == 1 and _is_relu(inner[0])


@jax.custom_jvp
def _straight_through_relu(values: jax.Array) -> jax.Array:
    return relu(values)


@_straight_through_relu.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    return _straight_through_relu(*primals), tangents[0]


def _variables(atoms: Sequence[Any]) -> list[Any]:
    return [atom for atom in atoms if not isinstance(atom, Literal)]


def _inner(program: Any) -> Any:
    """Return the equations' holder of a program with or without constants."""
    return program if isinstance(program, Jaxpr) else program.jaxpr


# What a function needs beside its arguments.


def callbacks(traced: jax.stages.Traced) -> tuple[Any, ...]:
    """Return the functions of Python that a traced function calls on the host."""
    found = (equation.params.get("callback") for equation in _equations(traced.jaxpr.jaxpr))
    return tuple(callback for callback in found if callback is not None)


def closes_over_tracers(traced: jax.stages.Traced) -> bool:
    """Return whether a traced function closes over arrays that a transformation traces."""
    # JAX makes them further arguments of the program.
    return len(traced.jaxpr.in_avals) > traced.in_tree.num_leaves


def has_products_in_loops(traced: jax.stages.Traced) -> bool:
    """Return whether a loop of a traced function has convolutions or matrix products in it."""
    return any(
        inner.primitive.name in ("conv_general_dilated", "dot_general")
        for loop in _equations(traced.jaxpr.jaxpr)
        if loop.primitive.name in ("scan", "while")
        for body in jaxprs_in_params(loop.params)
        for inner in _equations(body)
    )


def constants(traced: jax.stages.Traced) -> list[Any]:
    """Return the arrays that a traced function closes over, each once."""
    found = {id(array): array for array in traced.jaxpr.consts}
    for equation in _equations(traced.jaxpr.jaxpr):
        for value in jax.tree.leaves(list(equation.params.values())):
            if isinstance(value, ClosedJaxpr):
                found |= {id(array): array for array in value.consts}
    return list(found.values())


def _equations(jaxpr: Any) -> Iterator[JaxprEqn]:
    """Yield the equations of a program and of those within it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from _equations(inner)
