"""Settings of the process: cores, memory, and the switch that leaves both alone."""

import os
import platform
import resource
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest

from vone_jax.fast import process

CONVOLUTION = """
import jax, numpy as np
from vone_jax import fast

fast.use_all_cores()
convolution = lambda x, k: jax.lax.conv_general_dilated(
    x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
)
images, kernel = np.ones((4, 32, 32, 32), np.float32), np.ones((3, 3, 32, 64), np.float32)
print("ynn_fusion" in jax.jit(convolution).lower(images, kernel).compile().as_text())
"""


@pytest.mark.skipif(
    not (0, 10, 1) <= jax.__version_info__ < (0, 11)
    or (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="other releases need no help, other platforms get none",
)
@pytest.mark.parametrize(
    ("variables", "by_library"),
    [
        ({}, False),
        ({"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=individual_convolution"}, True),
        pytest.param({"JAX_NUM_CPU_DEVICES": "2"}, True, marks=pytest.mark.slow),
    ],
)
def test_convolutions_are_kept_from_the_library_that_takes_one_core(variables, by_library):
    """Unless there is a device for each core, or the user has chosen."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-c", CONVOLUTION]
    result = subprocess.run(
        command, env=environment | variables, capture_output=True, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    assert result.stdout.strip() == str(by_library)


KEEPING = """
import ctypes, resource, sys
from vone_jax import fast

# No huge pages, of which there would be fewer.
PR_SET_THP_DISABLE = 41
assert ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0

if sys.argv[1] == "keep":
    fast.keep_memory()

import jax, jax.numpy as jnp

def smooth(row):
    rows = jnp.broadcast_to(row, (25, 2**20))
    step = lambda i, rows: 1.01 * rows + jnp.roll(rows, 1, axis=0)
    return jax.lax.fori_loop(0, 2, step, rows).sum()

row, smooth = jnp.ones(2**20), jax.jit(smooth)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    smooth(row).block_until_ready()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(*(faults() for _ in range(8)))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc",
    reason="elsewhere nothing is changed",
)
@pytest.mark.parametrize(
    ("chosen", "plugins", "kept"),
    [("cpu", ["cuda"], True), (None, [], True), (None, ["cuda"], False), ("tpu,cpu", [], False)],
)
def test_a_host_of_an_accelerator_keeps_its_allocator(monkeypatch, chosen, plugins, kept):
    """The settings are for small CPU hosts: one heap for all threads."""
    set_to = []
    library = SimpleNamespace(mallopt=lambda *setting: set_to.append(setting))
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(process.importlib.metadata, "entry_points", lambda group: plugins)
    monkeypatch.setattr(process.importlib.util, "find_spec", lambda name: None)
    config = SimpleNamespace(jax_platforms=chosen)
    monkeypatch.setattr(process, "jax", SimpleNamespace(config=config))
    process.keep_memory()
    assert bool(set_to) == kept


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc",
    reason="elsewhere nothing is changed",
)
def test_memory_is_kept_for_the_next_call():
    """The 200 MiB of temporaries of a compiled program: asked for once, or at every call."""

    def faults(how):
        result = subprocess.run(
            [sys.executable, "-c", KEEPING, how], capture_output=True, text=True, timeout=120,
            check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        return [int(word) for word in result.stdout.split()]

    pages = 100 * 2**20 // resource.getpagesize()
    first, _, *later = faults("keep")
    # Another call may get pages of its own, if its blocks are freed in another order.
    assert first > pages // 2 and sorted(later)[-2] < pages // 10
    assert min(faults("leave")) > pages // 2
