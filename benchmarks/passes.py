"""The products of accelerators, computed on any device.

A TPU's matrix unit multiplies bfloat16 numbers and sums in float32. So a float32 number, with 24
significant bits, is cut into parts of 8 bits each, and the precision of a product says how many
products of parts are summed: 1 pass is the product of the first parts alone, 3 passes are those
above 2^-16 of the whole, and 6 passes those above 2^-24. The tensor cores of NVIDIA's GPUs multiply
float32 numbers that are rounded to 11 bits (TF32), unless the highest precision is asked for.

Everything else of a program is computed as usual, although accelerators have exponentials of their
own and sum in another order.

References:
  JAX, "Matmul precision", and the docstring of ``jax.lax.Precision``.
  Henry, Tang and Heinecke, Leveraging the bfloat16 artificial intelligence datatype for
  higher-precision computations, ARITH 2019, arXiv:1904.06376 (sums of products of parts).
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn, primitives

from vone_jax import fast
from vone_jax.fast import layout

F = TypeVar("F", bound=Callable[..., Any])

# Parts of both operands in each pass, the smallest products first.
_PAIRS = {
    1: ((0, 0),),
    3: ((1, 0), (0, 1), (0, 0)),
    6: ((2, 0), (1, 1), (0, 2), (1, 0), (0, 1), (0, 0)),
}
PASSES = {"default": 1, "high": 3, "highest": 6}
# Bits of a part behind the first one. bfloat16 has 7, TF32 has 10.
_BITS = {"tpu": 7, "gpu": 10}

_PRODUCTS = (primitives.dot_general_p, primitives.conv_general_dilated_p)


def parts(values: jax.Array, count: int, bits: int = _BITS["tpu"]) -> list[jax.Array]:
    """Cut float32 values into ``count`` numbers of fewer bits, by default bfloat16 numbers.

    The first part is the nearest such number, each further one the nearest to the remainder. Three
    bfloat16 parts sum to the value exactly, unless the last is too small for a float32.
    """
    cut = []
    for _ in range(count):
        # Not a cast to bfloat16 and back, which XLA may leave out.
        cut.append(lax.reduce_precision(values, exponent_bits=8, mantissa_bits=bits))
        values = values - cut[-1]
    return cut


def on_matrix_unit(function: F, platform: str = "tpu") -> F:
    """Return ``function`` with its float32 products as a TPU or a GPU computes them.

    Each product takes as many passes as its precision asks for, which may be that of
    ``jax.default_matmul_precision``: "default" 1, "high" 3, "highest" 6. On a GPU "default" and
    "high" are one pass of TF32, and "highest" is float32. Functions of ``vone_jax.fast`` take the
    forms that they have on the platform. The program is traced to its end, and its products are
    replaced, also those in loops, branches and compiled functions. So take gradients inside of
    ``function``: gradients of the returned function would differentiate the sums of parts.

    Args:
      function: takes and returns pytrees of arrays, and can be traced.
      platform: "tpu" or "gpu".

    Raises:
      NotImplementedError: for a program within ``jax.shard_map``, or a product whose precision is
        an algorithm.
    """

    computed = layout.rewritten(function, functools.partial(_replace, platform))

    @functools.wraps(function)
    def on_platform(*arguments: Any) -> Any:
        with fast.forms_of(platform):
            return computed(*arguments)

    return on_platform  # pyright: ignore[reportReturnType]


def _replace(platform: str, equation: JaxprEqn) -> JaxprEqn | None:
    if equation.primitive.name == "shard_map":
        raise NotImplementedError("programs within shard_map cannot be rewritten")
    types = {getattr(operand.aval, "dtype", None) for operand in equation.invars}
    if equation.primitive not in _PRODUCTS or types != {jnp.dtype(jnp.float32)}:
        return None
    return layout.as_call(functools.partial(_product, platform, equation), equation)


def _product(platform: str, equation: JaxprEqn, left: jax.Array, right: jax.Array) -> jax.Array:
    """Return a product or a convolution as the sum of its passes on a platform."""
    asked = equation.params["precision"]
    both = asked if isinstance(asked, tuple) else (asked, asked)
    if not all(each is None or isinstance(each, lax.Precision) for each in both):
        raise NotImplementedError(f"precision must be default, high or highest, got {asked}")
    count = max(PASSES[(each or lax.Precision.DEFAULT).name.lower()] for each in both)
    # The products of parts are exact in float32, also where they are computed by a matrix unit.
    params = equation.params | {"precision": (lax.Precision.HIGHEST,) * 2}
    if platform == "gpu" and count == PASSES["highest"]:
        return equation.primitive.bind(left, right, **params)
    pairs = _PAIRS[1 if platform == "gpu" else count]
    lefts, rights = (
        parts(values, max(map(max, pairs)) + 1, _BITS[platform]) for values in (left, right)
    )
    passes = [equation.primitive.bind(lefts[i], rights[j], **params) for i, j in pairs]
    return functools.reduce(jnp.add, passes)
