"""Strict settings for every test, made before JAX starts its backend."""

import contextlib
import ctypes
import gc
import os
import platform
import re
import resource
import sys
import tempfile
from pathlib import Path

import jax
import jaxtyping
import numpy as np
import pytest
from absl import flags

from tests import typecheck

TESTS = Path(__file__).parent

# What a test may read: the clone, temporary files, Python with its packages, and the system.
READABLE = tuple(
    os.path.realpath(place) + os.sep
    for place in (
        TESTS.parent,
        tempfile.gettempdir(),
        sys.prefix,
        sys.base_prefix,
        "/dev",
        "/etc",
        "/lib",
        "/proc",
        "/sys",
        "/usr/lib",
        "/usr/share/fonts",
        "/usr/share/zoneinfo",
        Path.home() / ".cache",
    )
)
read_outside: list[str] = []


def watch_reading(event, arguments):
    """Note the name of a file that is opened and not in ``READABLE``."""
    if event == "open" and isinstance(arguments[0], str | bytes):
        name = os.path.realpath(os.fsdecode(arguments[0]))
        if not name.startswith(READABLE) and os.path.isfile(name):
            read_outside.append(name)


sys.addaudithook(watch_reading)

# Before any of these packages is imported.
jaxtyping.install_import_hook(list(typecheck.PACKAGES), "tests.typecheck.check")

# Grain reads absl flags in its workers, also when no absl app was started.
flags.FLAGS.mark_as_parsed()

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_default_matmul_precision", "highest")
# The time of most tests is the time that XLA compiles. Their arrays are tiny, so code that is
# compiled without optimisation runs as fast, and it is there three times sooner.
jax.config.update("jax_disable_most_optimizations", True)
# What was compiled is kept in the virtual environment, also for commands that tests start, so that
# the next run takes half of the time. Small programs too: each module compiles the same ones.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(sys.prefix, "compiled-for-tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update(
    "jax_persistent_cache_min_compile_time_secs",
    float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]),
)
# Tracing makes many small objects, and a collection goes over all that were compiled before.
gc.set_threshold(200_000, 20, 50)


def pytest_configure(config):
    """Compile for the default tests with the code generators that XLA had before.

    They take half of the time. Their exponential is not 0 for very negative numbers, so the slow
    tests have what users have. XLA ends a process at a flag that it does not know, and jaxlib has
    this one no more from 0.11.1 or 0.11.2 on.
    """
    if config.option.markexpr == "not slow" and jax.__version__.startswith("0.10."):
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Fail a test that is skipped for a missing package and has no marker that says so.

    CI has the packages of the extras in the run of these markers only.
    """
    report = yield
    missing = report.skipped and re.search("could not import|not installed", str(report.longrepr))
    if missing and not any(map(item.get_closest_marker, ("extras", "compilers"))):
        report.outcome = "failed"
    return report


@pytest.fixture(autouse=True)
def untyped(request):
    """Switch the checker of ``tests/typecheck.py`` off in tests with the marker ``untyped``."""
    off = request.node.get_closest_marker("untyped") is not None
    jaxtyping.config.update("jaxtyping_disable", off)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def reads_within_the_clone(request):
    """Fail a test that reads a file that a fresh clone on a bare machine does not have.

    Tests against other people's tools may: some of these keep settings in the home directory.
    """
    read_outside.clear()
    yield
    if request.node.get_closest_marker("extras") is None:
        assert not read_outside, f"files outside the clone were read: {sorted(set(read_outside))}"


@pytest.fixture(scope="module", autouse=True)
def programs_of_a_module():
    """Forget what was compiled for a module, and give its memory back: all programs take 5 GB."""
    yield
    jax.clear_caches()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="session", autouse=True)
def memory_goes_back():
    """Commands that run within a test do not make the process of all tests keep its memory."""
    from vone_jax import fast

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "keep_memory", lambda: None)
        yield


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """Processes that tests of a module start compile each program once between them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        yield


@pytest.fixture(scope="module")
def optimised():
    """Programs of a module that are compiled as users compile them.

    For tests of what XLA makes of a program, and for programs that run longer than they compile.
    """
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def full_disk():
    """A context that gives a function which limits the size of files, as a full disk does.

    It ends within the test, because pytest itself may write to a file.
    """

    @contextlib.contextmanager
    def limited():
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


def read_golden(name):
    with np.load(TESTS / "golden" / name) as archive:
        return dict(archive)


@pytest.fixture(scope="session")
def golden():
    """The reference values of the original PyTorch VOneNet, see tests/golden/README.md."""
    return read_golden("vonenet_golden.npz")


@pytest.fixture(scope="session")
def evnet_golden():
    """The reference values of the original PyTorch EVNet, see tests/golden/README.md."""
    return read_golden("evnet_golden.npz")
