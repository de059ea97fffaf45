"""Every fast form agrees with its plain form, and one switch chooses between them."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import fast, models, v1

# Tested in what XLA makes of them, with its optimisations.
pytestmark = pytest.mark.usefixtures("optimised")

RNG = np.random.default_rng(0)
ORDER = RNG.permutation(6)
IMAGES = RNG.standard_normal((3, 16, 14, 6)).astype(np.float32)
BLOCKS = 0.3 * RNG.standard_normal((9, 9, 6, 4)).astype(np.float32)


def smooth(images):
    padded = fast.stage(lambda x: jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0))), images)
    return padded[:, 2:] + padded[:, :-2]


FUNCTIONS = {
    "correlate_blocks": lambda x: jnp.concatenate(
        fast.correlate_blocks(x, [jnp.asarray(BLOCKS)[..., :2], jnp.asarray(BLOCKS)[..., 2:]], 3),
        axis=-1,
    ),
    "permute": lambda x: fast.permute(x, ORDER),
    "shared_by_draws": lambda x: jax.vmap(lambda z: fast.shared_by_draws(x, z) * z)(
        jnp.stack([jnp.cos(jnp.asarray(IMAGES)), jnp.sin(jnp.asarray(IMAGES))])
    ),
    "stage": smooth,
    # Many channels, so that a map does not fit into the cache.
    "by_rows": lambda x: fast.by_rows(
        lambda x, y: jnp.sin(x) * y[..., :1] / 300.0, jnp.tile(x, (1, 1, 1, 300)), x
    ),
    "one_by_one": lambda x: fast.one_by_one(smooth, x),
    "repeated": lambda x: fast.repeated(
        jnp.int32(3), 5, lambda number, value: jnp.sin(value + number.astype(jnp.float32)), x
    ),
    "standard_normal": lambda x: x[0] * fast.standard_normal(jax.random.key(1), (16, 14, 6)),
    "standard_normal, rbg": lambda x: (
        x[0] * fast.standard_normal(jax.random.key(1, impl="rbg"), (16, 14, 6))
    ),
    "symmetric_uniform": lambda x: x[0] * fast.symmetric_uniform(jax.random.key(2), (16, 14, 6)),
}


def both_forms(function, *arguments):
    compiled = jax.jit(function)
    quick = compiled(*arguments)
    with fast.plain():
        return quick, compiled(*arguments)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients_agree(name):
    def everything(x):
        values, pull = jax.vjp(FUNCTIONS[name], x)
        return values, pull(jnp.sin(values))

    for quick, plain in zip(*both_forms(everything, jnp.asarray(IMAGES)), strict=True):
        np.testing.assert_allclose(
            quick, plain, rtol=1e-5, atol=1e-4 if "rrelate" in name else 3e-5
        )


@pytest.mark.slow
def test_a_whole_network_agrees():
    """A VOneNet with noise of a fixed key, and the gradient of its images."""
    block = v1.VOneBlockConfig(4, 4, image_size=32, visual_degrees=1.0, kernel_size=15, stride=2)
    model = models.create("vone_resnet18", 3, v1=block, width=2)
    images = jnp.asarray(RNG.random((2, 32, 32, 3)), jnp.float32)
    key = jax.random.key(0)
    variables = jax.jit(model.init)({"params": key, "noise": key}, images)
    logits_fn = models.logits_fn(model, variables)

    def slope(images):
        return jax.value_and_grad(lambda x: jnp.sum(jnp.sin(logits_fn(key, x))))(images)

    (quick, quick_slope), (plain, plain_slope) = both_forms(slope, images)
    np.testing.assert_allclose(quick, plain, rtol=1e-4)
    scale = float(jnp.abs(plain_slope).max())
    assert scale > 0
    np.testing.assert_allclose(quick_slope, plain_slope, rtol=0, atol=1e-3 * scale)


def test_one_compiled_function_follows_the_switch():
    """The switch is in the keys of JAX's caches, so no program of the other form is reused."""
    traced = []

    @jax.jit
    def function(x):
        traced.append(fast.enabled())
        return fast.permute(x, np.array([1, 0]))

    x = jnp.arange(2.0)
    function(x)
    with fast.plain():
        function(x)
        assert not fast.enabled()
    function(x)
    assert traced == [True, False]


@pytest.mark.parametrize(("value", "enabled"), [("0", False), ("1", True)])
def test_the_environment_sets_the_switch_of_a_process(value, enabled):
    """Process-wide settings follow it as well."""
    program = (
        "import os; from vone_jax import fast; fast.use_all_cores(); fast.keep_memory();"
        "print(fast.enabled(), 'XLA_FLAGS' in os.environ)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True,
        env={"VONE_JAX_FAST": value, "PATH": "", "PYTHONPATH": "."},
    )  # fmt: skip
    switched, flagged = result.stdout.split()
    assert switched == str(enabled)
    if not enabled:
        assert flagged == "False"
