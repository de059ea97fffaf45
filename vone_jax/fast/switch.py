"""The one switch between the forms of the functions of ``fast``.

The switch is a JAX user context, so its value is a part of every cache key of ``jax.jit``. A
function that was compiled with fast forms is traced and compiled again inside ``plain()``, and the
first program is used again after it. A program that was compiled ahead of time
(``jax.jit(f).lower(...).compile()``) keeps the forms it was traced with.
"""

import contextlib
import os
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import NamedSharding

from vone_jax import arguments

# "auto" is the fast form for the platform that a program is compiled for.
_PLATFORMS = ("cpu", "gpu", "tpu")
_switch = jax.make_user_context("plain" if os.environ.get("VONE_JAX_FAST", "1") == "0" else "auto")


def enabled() -> bool:
    """Return whether the fast forms are used here: True, unless the user chose the plain forms."""
    return _switch.value != "plain"


def plain() -> contextlib.AbstractContextManager[None]:
    """Return a context manager inside which every function of ``fast`` takes its plain form.

    It acts on the current thread. ``keep_memory`` and ``use_all_cores``, which act on the whole
    process when they are called, do nothing inside it. To choose the plain forms for a process
    and all its threads, set ``VONE_JAX_FAST=0`` in its environment.
    """
    return _switch("plain")


def forms_of(platform: str) -> contextlib.AbstractContextManager[None]:
    """Return a context manager inside which fast forms are those of a platform, on any device.

    The tests use it to compute on a CPU what a TPU or a GPU computes.

    Raises:
      ValueError: if the platform is not "cpu", "gpu" or "tpu".
    """
    arguments.choice("platform", platform, _PLATFORMS)
    return _switch(platform)


def by_platform(*operands: Any, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    """Return ``cpu(*operands)`` in programs for CPUs, ``default(*operands)`` in all others."""
    if _switch.value == "auto":
        return lax.platform_dependent(*operands, cpu=cpu, default=default)
    return (cpu if _switch.value == "cpu" else default)(*operands)


def split_by_examples(function: Callable[..., Any], examples: jax.Array, *operands: Any) -> Any:
    """Return ``function(examples, *operands)``, also in a mesh of Explicit axes.

    There, JAX asks of a program how each array is split over devices, and refuses most reshapes and
    gathers, even of axes that are not split. So the function runs with Auto axes, which leave it to
    XLA. The first axis of its results counts the examples and is split like that of ``examples``.
    """
    placed = jax.typeof(examples).sharding
    if not placed.mesh.explicit_axes:
        return function(examples, *operands)
    split = NamedSharding(placed.mesh, jax.P(placed.spec[0]))
    return jax.sharding.auto_axes(function, out_sharding=split)(examples, *operands)
