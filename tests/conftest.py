"""Strict settings for every test, made before JAX starts its backend."""

import jax
import jaxtyping
import pytest
from absl import flags

from tests import typecheck

# Before any of these packages is imported.
jaxtyping.install_import_hook(list(typecheck.PACKAGES), "tests.typecheck.check")

# Grain reads absl flags in its workers, also when no absl app was started.
flags.FLAGS.mark_as_parsed()

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(autouse=True)
def untyped(request):
    """Switch the checker of ``tests/typecheck.py`` off in tests with the marker ``untyped``."""
    off = request.node.get_closest_marker("untyped") is not None
    jaxtyping.config.update("jaxtyping_disable", off)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def golden():
    """The reference values of the original PyTorch VOneNet, see tests/golden/README.md."""
    from pathlib import Path

    import numpy as np

    with np.load(Path(__file__).parent / "golden" / "vonenet_golden.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="session")
def evnet_golden():
    """The reference values of the original PyTorch EVNet, see tests/golden/README.md."""
    from pathlib import Path

    import numpy as np

    with np.load(Path(__file__).parent / "golden" / "evnet_golden.npz") as archive:
        return dict(archive)
