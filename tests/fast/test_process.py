"""Settings of the process: cores, memory, and the switch that leaves both alone."""

import os
import platform
import resource
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest

from vone_jax import fast
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
        pytest.param(
            {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=true"}, False, marks=pytest.mark.slow
        ),
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


@pytest.mark.parametrize(
    ("version", "system", "machine", "devices", "chosen"),
    [
        ("0.10.2", "linux", "x86_64", 1, True),
        ("0.12.0", "linux", "x86_64", 1, False),
        ("0.10.2", "darwin", "x86_64", 1, False),
        ("0.10.2", "linux", "aarch64", 1, False),
        ("0.10.2", "linux", "x86_64", 2, False),
    ],
)
def test_where_the_flag_was_not_tried_nothing_is_changed(
    monkeypatch, version, system, machine, devices, chosen
):
    """XLA would not start with a flag that it does not know."""
    monkeypatch.setenv("XLA_FLAGS", "--given")
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    config = SimpleNamespace(jax_num_cpu_devices=devices)
    monkeypatch.setattr(process, "jax", SimpleNamespace(__version__=version, config=config))
    with fast.plain():
        fast.use_all_cores()
    assert os.environ["XLA_FLAGS"] == "--given"
    fast.use_all_cores()
    assert (os.environ["XLA_FLAGS"] != "--given") == chosen
    assert os.environ["XLA_FLAGS"].startswith("--given")


KEEPING = """
import ctypes, resource, sys, threading
from vone_jax import fast

# No huge pages, of which there would be fewer.
PR_SET_THP_DISABLE = 41
assert ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0

if sys.argv[1] == "keep":
    fast.keep_memory()

def use():
    b"x" * 100 * 2**20

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    # XLA computes in threads of its own.
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(*(faults() for _ in range(4)))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc",
    reason="elsewhere nothing is changed",
)
def test_memory_is_kept_for_the_next_use():
    """The pages of 100 MiB: asked for once, or every time."""

    def faults(how):
        result = subprocess.run(
            [sys.executable, "-c", KEEPING, how], capture_output=True, text=True, timeout=120,
            check=True,
        )  # fmt: skip
        return [int(word) for word in result.stdout.split()]

    pages = 100 * 2**20 // resource.getpagesize()
    first, *later = faults("keep")
    assert first > pages // 2 and max(later) < pages // 100
    assert min(faults("leave")) > pages // 2


@pytest.mark.parametrize(
    ("system", "library", "kept"),
    [("linux", "glibc", True), ("linux", "", False), ("darwin", "glibc", False)],
)
def test_memory_is_kept_with_the_gnu_library_on_linux_only(monkeypatch, system, library, kept):
    calls = []
    libc = SimpleNamespace(mallopt=lambda *pair: calls.append(pair))
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: libc)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "libc_ver", lambda: (library, "2.39"))
    with fast.plain():
        fast.keep_memory()
    assert not calls
    fast.keep_memory()
    # Never trim, never map a block, one arena, by the numbers of malloc.h.
    assert calls == ([(-1, -1), (-4, 0), (-8, 1)] if kept else [])
