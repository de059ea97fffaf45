"""Settings of the whole process: memory and cores.

Call these functions at the start of a program, before JAX uses a device. Without them, or with
``VONE_JAX_FAST=0``, the same numbers are computed more slowly.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import sys

import jax

from vone_jax.fast import switch

# XLA ends the process at a flag that it does not know, so the flag is set only where it was tried.
_LIBRARY_FUSIONS = "xla_cpu_experimental_ynn_fusion_type"

# Parameters of mallopt in malloc.h, with their values: give no memory back to the system, map no
# block on its own, and use one heap for all threads.
_KEEPING = {"M_TRIM_THRESHOLD": (-1, -1), "M_MMAP_MAX": (-4, 0), "M_ARENA_MAX": (-8, 1)}


def use_all_cores() -> None:
    """Let the convolutions of a single CPU device use all cores.

    jaxlib 0.10.1 and 0.10.2 give most convolutions to a library that uses one core, and that takes
    up to twice the processor time in the gradients of kernels. This function restores the earlier
    choice through ``XLA_FLAGS``. It does nothing if ``XLA_FLAGS`` already sets that option, if
    there is a CPU device for each core (no core is idle then), in other releases, or on platforms
    other than Linux on x86-64, where it was not tried.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    devices = jax.config.jax_num_cpu_devices  # pyright: ignore[reportAttributeAccessIssue]
    tried = jax.__version__.startswith("0.10.") and sys.platform == "linux"
    tried = tried and platform.machine() == "x86_64"
    if switch.enabled() and tried and devices <= 1 and _LIBRARY_FUSIONS not in flags:
        chosen = f"--{_LIBRARY_FUSIONS}=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
        os.environ["XLA_FLAGS"] = f"{flags} {chosen}".strip()


def keep_memory() -> None:
    """Let this process keep the memory that it frees, if JAX will compute on its CPU.

    On a CPU, XLA allocates the temporaries of every call anew, and the C library returns blocks of
    that size to the system at once. A training step of VOneResNet-50 then waits for 250,000 pages
    of zeros. With this setting the pages stay after the first step, and the process stays as large
    as its peak. It acts on Linux with the GNU C library only, and not where JAX has a plug-in for
    an accelerator, unless ``JAX_PLATFORMS`` is ``cpu``.

    Call it before JAX looks for its devices: the threads that XLA starts then have heaps of their
    own, which hold no block of more than 64 MiB.
    """
    glibc = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
    if switch.enabled() and glibc and _computes_on_cpu():
        libc = ctypes.CDLL(None)
        for parameter, value in _KEEPING.values():
            libc.mallopt(parameter, value)


def _computes_on_cpu() -> bool:
    """Return True if JAX will find no other device, without looking for devices."""
    chosen = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    if chosen:
        return chosen.split(",")[0] == "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and importlib.util.find_spec("libtpu") is None
