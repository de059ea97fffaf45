"""The contract of classifiers and layers, and functions as arguments of compiled functions.

A classifier or a layer is a function ``(keys, images)`` of one key per example, shape (N,).
``per_example`` adapts a function of a single key.

A function under ``jax.jit`` takes arrays and static values. A pytree that can be called, such as a
``Partial`` of a plain function, has arrays as leaves and is an argument as it is. Any other
function is a static value: it is lowered once, together with its gradient, and the SHA-256 of the
text is its fingerprint. The text has all arrays that the function closes over as constants, also
those in loops, branches, other compiled functions and custom derivatives. So functions with the
same fingerprint share compiled programs, and others never do.

**A function object computes the same as long as it lives**: ``as_pytree`` lowers it once for each
shape. A function that changes what it holds, such as its weights, says so by a new object.
``prepare`` makes such an object, which is not lowered at all.
"""

import dataclasses
import functools
import hashlib
import inspect
import types
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial
from jaxtyping import Array, Key

from vone_jax import fast, prng
from vone_jax.prng import Keys


def per_example(function: Callable[[Key[Array, ""], Array], Any]) -> Callable[[Keys, Array], Any]:
    """Adapt a function of a single key to the contract of one key per example.

    Args:
      function: takes a scalar typed key and images of shape (1, H, W, C). The outputs have a
        leading axis of size 1. A ``jax.tree_util.Partial`` keeps its leaves.

    Returns:
      A function of keys (N,) and images (N, H, W, C), which applies ``function`` to each example
      with its own key under ``jax.vmap``. The noise of an example does not depend on its batch.
      A scalar key numbers the examples by position, see ``prng.example_keys``.

    Raises:
      TypeError: if ``function`` cannot be called with two positional arguments.
    """
    check_function(function, "function")
    partial = Partial if is_pytree(function) else functools.partial
    return partial(_one_by_one, function)


def _one_by_one(function: Callable[..., Any], keys: Array, images: Array) -> Any:
    def one(key: Array, image: Array) -> Any:
        return jax.tree.map(lambda leaf: leaf[0], function(key, image[None]))

    return jax.vmap(one)(prng.example_keys(keys, images.shape[0]), images)


def check_function(function: Any, name: str = "logits_fn") -> None:
    """Check that a classifier or layer is a function of (keys, images).

    Raises:
      TypeError: if it cannot be called with two positional arguments.
    """
    contract = f"{name} must be a function of (keys, images)"
    # A module of Flax without variables can be called, but only fails within.
    unbound = hasattr(function, "bind") and getattr(function, "scope", "") is None
    if unbound or not callable(function):
        cure = " without its variables; see models.logits_fn" if unbound else ""
        raise TypeError(f"{contract}, got {type(function).__name__}{cure}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # Some builtin functions have no signature.
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise TypeError(
            f"{contract}: typed keys of shape (N,), one per example, and images of shape "
            f"(N, H, W, C). Got a function with the arguments {signature}: {error}. "
            f"A function f of images alone becomes one by lambda keys, images: f(images)"
        ) from None


def as_pytree(
    function: Callable[[Keys, Array], Any],
    keys: Any,
    images: Any,
    name: str = "logits_fn",
    adapter: str = "attacks.per_example",
) -> Any:
    """Return a classifier or layer as an argument of compiled functions.

    A pytree stays as it is. Any other function is lowered at its first call for each shape; see
    ``fingerprinted``. The keys (N,) and the images (N, H, W, C), with which it will be called, may
    be shapes and dtypes. For the names see ``call_with_keys``.

    Raises:
      TypeError: see ``check_function``.
      Exception: what ``function`` raises, as it is, with a note that states the contract.
    """
    check_function(function, name)
    if is_pytree(function):
        return function
    shapes = tuple((each.shape, each.dtype) for each in (keys, images))
    kept = _fingerprints.of(function)
    if shapes in kept and not is_traced(keys, images):
        return Fingerprinted(function, *kept[shapes])
    named = functools.partial(call_with_keys, function, name=name, adapter=adapter)
    made = dataclasses.replace(fingerprinted(named, keys, images), function=function)
    if isinstance(made.fingerprint, str):
        kept[shapes] = made.fingerprint, made.callbacks
    return made


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A function as a static value that equals itself alone, see ``prepare``."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


def prepare(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function as an argument of compiled functions, which is never lowered to be known.

    Prepare a classifier once, before many calls with it, and again after its weights have changed:
    programs are shared between calls with the same prepared object, and with nothing else.
    """
    check_function(function)
    return Prepared(function)


class ByObject:
    """Values that are kept as long as an object lives. Objects are told apart by identity."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Any, dict[Any, Any]]] = {}

    def of(self, owner: Any) -> dict[Any, Any]:
        """Return the values of an object, those of a new dictionary for an unknown one."""
        place = id(owner)
        if place in self._kept and self._kept[place][0]() is owner:
            return self._kept[place][1]
        try:
            reference = weakref.ref(owner, lambda _: self._kept.pop(place, None))
        except TypeError:  # It cannot be referenced weakly, as a builtin function.
            return {}
        self._kept[place] = reference, {}
        return self._kept[place][1]


# The fingerprints of functions, for each shape of keys and images.
_fingerprints = ByObject()


def call_with_keys(
    function: Callable[[Keys, Array], Any], keys: Keys, images: Array, name: str, adapter: str
) -> Any:
    """Call a classifier or layer with one key per example.

    Messages use the function's ``name``, and as ``adapter`` the public name of ``per_example``,
    for instance ``"attacks.per_example"``.

    Raises:
      Exception: what ``function`` raises, as it is, with a note that states the contract.
    """
    try:
        return function(keys, images)
    except Exception as error:
        inner = getattr(function, "function", function)
        # The wrapped function of ``per_example`` got a single key: the note would mislead.
        if getattr(inner, "func", None) is not _one_by_one:
            error.add_note(
                f"{name} was called as {name}(keys, images), with one key per example, keys of "
                f"shape {keys.shape}. If it takes a single key, adapt it: {adapter}({name}). If it "
                f"takes images first, as modules and their apply do, reorder its arguments: "
                f"lambda keys, images: model.apply(variables, images)."
            )
        raise


# Fingerprints.


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


def fingerprinted(function: Callable[..., Any], *arguments: Any) -> Any:
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
