"""The one switch between fast and plain forms.

The switch is a JAX user context, so its value is a part of every cache key of ``jax.jit``. A
function that was compiled with fast forms is traced and compiled again inside ``plain()``, and the
first program is used again after it. A program that was compiled ahead of time
(``jax.jit(f).lower(...).compile()``) keeps the forms it was traced with.
"""

import contextlib
import os

import jax

_switch = jax.make_user_context(os.environ.get("VONE_JAX_FAST", "1") != "0")


def enabled() -> bool:
    """Return whether the fast forms are used here: True, unless the user chose the plain forms."""
    return _switch.value


def plain() -> contextlib.AbstractContextManager[None]:
    """Return a context manager inside which every function of ``fast`` takes its plain form.

    It acts on the current thread. ``keep_memory`` and ``use_all_cores``, which act on the whole
    process when they are called, do nothing inside it. To choose the plain forms for a process
    and all its threads, set ``VONE_JAX_FAST=0`` in its environment.
    """
    return _switch(False)
