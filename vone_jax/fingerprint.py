"""Functions as arguments of compiled functions, told apart by what they compute.

A function under ``jax.jit`` takes arrays and static values. A pytree that can be called, such as a
``Partial`` of a plain function, has arrays as leaves and is an argument as it is. Any other
function is a static value: it is lowered once, together with its gradient, and the SHA-256 of the
text is its fingerprint. The text has all arrays that the function closes over as constants, also
those in loops, branches, other compiled functions and custom derivatives. So functions with the
same fingerprint share compiled programs, and others never do.
"""

import dataclasses
import hashlib
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial

from vone_jax import fast


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Fingerprinted:
    """A function as a static value, which equals others with the same fingerprint.

    Attributes:
      function: the function.
      fingerprint: its ``digest`` for the shapes with which it is called; of a function that is
        being transformed an object of its own, which equals nothing else.
      callbacks: the functions of Python that it calls on the host. The text does not show them.
    """

    function: Callable[..., Any] = dataclasses.field(compare=False)
    fingerprint: str | object
    callbacks: tuple[Any, ...] = ()

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


def as_pytree(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return a function as an argument of compiled functions.

    A pytree stays as it is. Any other function becomes a ``Fingerprinted`` for the shapes of the
    arguments. Within ``jit``, ``vmap`` or ``grad`` of the caller, it is not lowered, and shares no
    program.

    Args:
      function: any function that JAX can trace.
      arguments: arrays, or their shapes and dtypes; the gradient is that of the last one.
    """
    if is_pytree(function):
        return function
    if not is_traced(arguments):
        traced = _traced(function, arguments)
        if not fast.closes_over_tracers(traced):
            return Fingerprinted(function, _digest(traced), fast.callbacks(traced))
    return Fingerprinted(function, object())


def digest(function: Callable[..., Any], *arguments: Any) -> str:
    """Return the SHA-256 of what a function computes, with its gradient and all its constants.

    It is the same in each process. Another version of JAX, or another kind of device, may write the
    same program in another way. The text does not show what Python computes in a host callback.
    """
    return _digest(_traced(function, arguments))


def is_pytree(function: Any) -> bool:
    """Return whether a function is a pytree that computes the same while its leaves are the same.

    The leaves are arrays and numbers. A ``Partial`` of a method or of a function that closes over
    something is none, and no module of Equinox, which has functions among its leaves. But a
    ``Partial`` of a function under ``jit`` is one whatever that closes over, since JAX keeps its
    first program, and so is one of a dataclass, which compares by its fields. What a function reads
    from its module is taken to stay.
    """
    if jax.tree_util.all_leaves([function]):
        return False
    if isinstance(function, Partial) and not _is_fixed(function.func):
        return False
    leaves = jax.tree.leaves(
        function, is_leaf=lambda node: node is not function and isinstance(node, Partial)
    )
    return all(is_pytree(x) if isinstance(x, Partial) else _is_array(x) for x in leaves)


def is_traced(*trees: Any) -> bool:
    """Return whether an array is traced, or any result would be, as within ``jit`` or ``scan``."""
    leaves = jax.tree.leaves((trees, _nothing()), is_leaf=lambda x: isinstance(x, Fingerprinted))
    return any(
        isinstance(leaf, Tracer)
        or (isinstance(leaf, Fingerprinted) and not isinstance(leaf.fingerprint, str))
        for leaf in leaves
    )


@jax.jit
def _nothing() -> jax.Array:
    return jnp.int32(0)


def _is_fixed(function: Any) -> bool:
    """Return whether a function always computes the same: it has no state and closes over none."""
    if isinstance(function, types.FunctionType):
        return not function.__closure__
    # JAX keeps the first program of a function under ``jit``. Dataclasses compare by their fields.
    return isinstance(function, jax.stages.Wrapped) or dataclasses.is_dataclass(function)


def _is_array(leaf: Any) -> bool:
    has_dtype = hasattr(leaf, "dtype") and not isinstance(leaf, type)
    return has_dtype or isinstance(leaf, int | float | complex)


def _traced(function: Callable[..., Any], arguments: Any) -> jax.stages.Traced:
    # Functions of their own, since JAX gives a function that it knows its first program.
    def forward(*arguments: Any) -> Any:
        return function(*arguments)

    def with_gradient(*arguments: Any) -> Any:
        *others, last = arguments
        outputs, pull_back = jax.vjp(lambda last: function(*others, last), last)
        return outputs, pull_back(jax.tree.map(_change, outputs))

    shapes = jax.tree.map(lambda each: jax.ShapeDtypeStruct(each.shape, each.dtype), arguments)
    try:
        return jax.jit(with_gradient).trace(*shapes)
    except Exception:
        # It has no gradient, as with a host callback, or raises an error, which it raises again.
        return jax.jit(forward).trace(*shapes)


def _change(output: jax.Array) -> Any:
    if jnp.issubdtype(output.dtype, jnp.inexact):
        return jnp.ones_like(output)
    return np.zeros(output.shape, jax.dtypes.float0)


def _digest(traced: jax.stages.Traced) -> str:
    return hashlib.sha256(traced.lower().as_text().encode()).hexdigest()
