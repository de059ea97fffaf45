"""Programs that are rewritten against the same programs as they were.

The tests of each operation are canaries: they fail if JAX renames what the module reads.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from vone_jax import fast

FAST = "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((4, 9, 8, 6)), jnp.float32)
KERNEL = jnp.asarray(np.random.default_rng(1).standard_normal((3, 3, 6, 6)) / 8, jnp.float32)

# Layout of images, kernel and results, and other arguments of the convolution.
CASES = {
    "plain": ("NHWC", "HWIO", "NHWC", {}),
    "NCHW": ("NCHW", "OIHW", "NCHW", {}),
    "mixed": ("CHWN", "IHOW", "HNCW", {}),
    "padding": ("NCHW", "OIHW", "NHWC", {"padding": [(2, 0), (-1, 3)]}),
    "transposed": ("NHWC", "HWIO", "NHWC", {"lhs_dilation": (2, 2), "padding": [(2, 3), (2, 2)]}),
    "depthwise": ("NCHW", "OIHW", "NCHW", {"feature_group_count": 6, "window_strides": (2, 2)}),
    "groups of images": ("NCHW", "OIHW", "NCHW", {"batch_group_count": 2}),
}


def placed(array, axes, layout):
    """An array with its axes, which are named in ``axes``, in another order."""
    return jnp.transpose(array, [axes.index(axis) for axis in layout])


def gradients_in_a_loop(of_images, of_kernel, of_results, options):
    """A function of arrays in the usual order: three steps along gradients of both."""
    groups = options.get("feature_group_count", 1)
    window = {"window_strides": (1, 1), "padding": [(1, 1), (1, 1)]} | options

    def loss(x, k):
        y = lax.conv_general_dilated(
            placed(x, "NHWC", of_images),
            placed(k, "HWIO", of_kernel),
            dimension_numbers=(of_images, of_kernel, of_results),
            **window,
        )
        return jnp.sum(jnp.sin(y))

    def run(x, k):
        def step(_, pair):
            slopes = jax.grad(loss, argnums=(0, 1))(*pair)
            return jax.tree.map(lambda a, slope: a + 0.003 * slope, pair, slopes)

        return lax.fori_loop(0, 3, step, (x, k[:, :, : 6 // groups]))

    return run


def layouts(function, *arguments, platform="cpu"):
    traced = jax.jit(function).trace(*arguments)
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    return re.findall(r"dim_numbers = (.*?), window", program)


def assert_close(found, expected):
    chosen = {"rtol": 1e-5, "atol": 1e-5}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **chosen), found, expected)


@pytest.mark.parametrize("name", CASES)
def test_gradients_in_a_loop_are_the_same(name):
    run = gradients_in_a_loop(*CASES[name])
    rewritten = fast.in_fast_layout(run)
    assert set(layouts(rewritten, IMAGES, KERNEL)) == {FAST}
    assert_close(jax.jit(rewritten)(IMAGES, KERNEL), jax.jit(run)(IMAGES, KERNEL))


def test_xla_leaves_them_as_they_are():
    """The reason for all this."""
    run = gradients_in_a_loop(*CASES["plain"])
    assert set(layouts(run, IMAGES, KERNEL)) - {FAST}, "JAX has the fast layout by itself now"


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_devices_get_the_same_convolutions(platform):
    run = gradients_in_a_loop(*CASES["NCHW"])
    expected = layouts(run, IMAGES, KERNEL, platform=platform)
    assert layouts(fast.in_fast_layout(run), IMAGES, KERNEL, platform=platform) == expected


def test_three_axes_of_space():
    numbers, rng = ("NCDHW", "OIDHW", "NCDHW"), np.random.default_rng(2)
    x = jnp.asarray(rng.standard_normal((2, 5, 4, 3, 6)), jnp.float32)
    k = jnp.asarray(rng.standard_normal((5, 5, 2, 2, 2)), jnp.float32)

    def run(x):
        def loss(x):
            y = lax.conv_general_dilated(x, k, (1, 1, 1), "SAME", dimension_numbers=numbers)
            return jnp.sum(jnp.sin(y))

        return lax.fori_loop(0, 2, lambda _, x: x + 0.1 * jax.grad(loss)(x), x)

    rewritten = fast.in_fast_layout(run)
    assert set(layouts(rewritten, x)) == {"[b, 0, 1, 2, f]x[0, 1, 2, i, o]->[b, 0, 1, 2, f]"}
    assert_close(jax.jit(rewritten)(x), jax.jit(run)(x))


def convolve(x, k):
    """A convolution in a layout that is not fast."""
    numbers = ("NHWC", "HWOI", "NHWC")
    return lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=numbers)


@jax.custom_jvp
def with_a_rule(x):
    return convolve(x, KERNEL)


@with_a_rule.defjvp
def _(primals, tangents):
    return with_a_rule(*primals), 3 * convolve(tangents[0], KERNEL)


@jax.custom_vjp
def with_a_reverse_rule(x):
    return convolve(x, KERNEL)


with_a_reverse_rule.defvjp(
    lambda x: (convolve(x, KERNEL), x), lambda x, slope: (convolve(slope * jnp.cos(x), KERNEL),)
)


def solved(x):
    """A linear system whose operator has a convolution."""

    def operator(y):
        return 2 * y + 0.01 * convolve(y, KERNEL)

    def solve(operator, b):
        return lax.fori_loop(0, 3, lambda _, y: y + 0.4 * (b - operator(y)), jnp.zeros_like(b))

    return lax.custom_linear_solve(operator, x, solve, transpose_solve=solve)


def repeated(x):
    return lax.while_loop(
        lambda pair: (pair[0] < 2) & (jnp.sum(convolve(pair[1], KERNEL)) < 1e9),
        lambda pair: (pair[0] + 1, jnp.tanh(convolve(pair[1], KERNEL))),
        (0, x),
    )[1]


FUNCTIONS = {
    "jit": jax.jit(lambda x: convolve(x, KERNEL)),
    "checkpoint": jax.checkpoint(lambda x: jnp.sin(convolve(x, KERNEL))),
    "scan": lambda x: lax.scan(lambda y, _: (jnp.tanh(convolve(y, KERNEL)), y), x, length=2)[0],
    "map": lambda x: lax.map(lambda one: convolve(one[None], KERNEL)[0], x),
    "cond": lambda x: lax.cond(jnp.sum(x) > 0, jnp.sin, lambda x: convolve(x, KERNEL), x),
    "switch": lambda x: lax.switch(
        jnp.int32(x[0, 0, 0, 0] > 9), [lambda x: convolve(x, KERNEL), jnp.sin, jnp.cos], x
    ),
    "rule": with_a_rule,
    "reverse rule": with_a_reverse_rule,
    "linear solve": solved,
    "vmap": jax.vmap(lambda one: convolve(one[None], KERNEL)[0]),
}
SLOW = ("map", "switch", "linear solve", "vmap", "checkpoint")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in FUNCTIONS],
)
def test_whatever_a_network_is_written_with(name):
    """Its convolutions are found, and its own rules for derivatives are used."""

    def run(x):
        slope = jax.grad(lambda x: jnp.sum(jnp.sin(FUNCTIONS[name](x))))
        return lax.fori_loop(0, 2, lambda _, x: x + 0.1 * slope(x), x), FUNCTIONS[name](x)

    rewritten = fast.in_fast_layout(run)
    assert set(layouts(run, IMAGES)) - {FAST}
    assert set(layouts(rewritten, IMAGES)) == {FAST}
    assert_close(jax.jit(rewritten)(IMAGES), jax.jit(run)(IMAGES))


def test_the_condition_of_a_loop():
    rewritten = fast.in_fast_layout(repeated)
    assert layouts(rewritten, IMAGES) == [FAST, FAST]
    assert_close(jax.jit(rewritten)(IMAGES), jax.jit(repeated)(IMAGES))


@pytest.mark.parametrize("transformed", [jax.vmap, jax.hessian])
def test_rewritten_functions_are_transformed_like_others(transformed):
    function = (
        (lambda x: jnp.sin(convolve(x[None], KERNEL)))
        if transformed is jax.vmap
        else (lambda x: jnp.sum(jnp.sin(convolve(jnp.tile(x, (1, 3, 3, 6)), KERNEL))))
    )
    x = IMAGES if transformed is jax.vmap else IMAGES[:1, :2, :2, :1]
    found = jax.jit(transformed(fast.in_fast_layout(function)))(x)
    assert_close(found, jax.jit(transformed(function))(x))


def test_a_function_called_twice_stays_one():
    inner = jax.jit(lambda x: jnp.tanh(convolve(x, KERNEL)))
    assert layouts(fast.in_fast_layout(lambda x: inner(inner(x))), IMAGES) == [FAST]


# What may follow a ReLU at the end of a layer.
ENDS = {
    "nothing": lambda x: x,
    "reshape": lambda x: x.reshape(len(x), -1),
    "slice": lambda x: x[:, 1:, ::2, 2:4],
    "take": lambda x: jnp.take(x, np.array([3, 0, 5]), axis=-1),
    "dynamic slice": lambda x: lax.dynamic_slice_in_dim(x, jnp.int32(2), 3, axis=3),
    "transpose": lambda x: x.transpose(0, 3, 1, 2)[..., None],
    "concatenate": lambda x: jnp.concatenate([x, jnp.ones_like(x)], axis=-1),
    "pad": lambda x: jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))),
    "flip": lambda x: jnp.flip(x, axis=1),
    "split": lambda x: jnp.split(x, 3, axis=-1)[1],
    "where": lambda x: jnp.where(np.arange(6) < 3, x, jnp.cos(x)),
    "maximum": lambda x: x.max(axis=2),
    "mean": lambda x: x.mean(axis=(1, 2)),
    "max pool": lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))),
    "average pool": lambda x: (
        lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4.0
    ),
    "scale": lambda x: 25.0 * x / jnp.full((1, 1, 1, 6), 3.0),
    "type": lambda x: x.astype(jnp.bfloat16),
    "permutation": lambda x: fast.permute(x, np.array([5, 3, 1, 0, 2, 4])),
    "barrier": lax.optimization_barrier,
    "jit": jax.jit(lambda x: x[:, 1:]),
    "checkpoint": jax.checkpoint(lambda x: x[:, 1:]),
    "branches": lambda x: lax.cond(jnp.sum(x) > -1, lambda x: x[:, 1:], lambda x: x[:, :-1], x),
    "platforms": lambda x: fast.by_platform(x, cpu=jnp.ravel, default=lambda x: x.reshape(-1)),
}
RELUS = {
    "jax.nn": jax.nn.relu,
    "flax": nn.relu,
    "ours": fast.relu,
    "maximum": lambda x: jnp.maximum(x, 0),
    "jit": jax.jit(lambda x: jax.nn.relu(x)),
}


def slope_of(function, x):
    return jax.grad(lambda x: jnp.sum(function(x).astype(jnp.float32)))(x)


@pytest.mark.parametrize(
    ("end", "relu"), [*((end, "jax.nn") for end in ENDS), *(("slice", relu) for relu in RELUS)]
)
def test_relus_at_the_end_of_a_layer_have_the_gradient_of_the_identity(end, relu):
    """If JAX renames an operation, its case fails."""
    layer = lambda x: ENDS[end](RELUS[relu](jnp.sin(x)))  # noqa: E731
    straight = fast.with_straight_through_relus(layer)
    np.testing.assert_allclose(straight(IMAGES), layer(IMAGES), rtol=1e-6)
    behind = slope_of(ENDS[end], jax.nn.relu(jnp.sin(IMAGES)))
    np.testing.assert_allclose(slope_of(straight, IMAGES), behind * jnp.cos(IMAGES), atol=1e-6)
    assert np.any(slope_of(layer, IMAGES) != slope_of(straight, IMAGES))


def test_other_rectifications_keep_their_gradients():
    """A ReLU within a layer, before a sum, as a gate, or with another bound."""
    relu, mixing = jax.nn.relu, IMAGES[0, 0, :6]
    for layer in (
        lambda x: jnp.matmul(relu(x), mixing),
        lambda x: relu(x) + jnp.sin(x),
        lambda x: relu(x) * jnp.cos(x),
        lambda x: jnp.maximum(x, 0.1),
        jax.jit(lambda x: lax.select(x <= 0, x, jnp.zeros_like(x))),
        jax.jit(lambda x: lax.select(x <= 0.1, jnp.zeros_like(x), x)),
        jax.nn.relu6,
        jax.nn.leaky_relu,
    ):
        straight = fast.with_straight_through_relus(layer)
        np.testing.assert_array_equal(slope_of(straight, IMAGES), slope_of(layer, IMAGES))


def test_each_output_of_a_layer_has_its_estimator_within_loops_and_transformations():
    def layers(x):
        first = jax.nn.relu(jnp.sin(x))
        return {"first": first, "second": [jax.nn.relu(jnp.cos(first)) * 2.0]}

    straight = fast.with_straight_through_relus(layers)
    total = lambda x: jnp.sum(straight(x)["second"][0])  # noqa: E731
    # The first ReLU is an output, too, so that its gradient is also straight.
    expected = -2.0 * jnp.sin(jax.nn.relu(jnp.sin(IMAGES))) * jnp.cos(IMAGES)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(IMAGES), expected, atol=1e-6)
    rows = jax.vmap(jax.grad(lambda x: total(x[None])))(IMAGES)
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_a_program_runs_without_jit():
    """Users who debug a network switch it off."""

    def loss(images):
        return jnp.sum(jnp.square(lax.conv(images, KERNEL.transpose(3, 2, 0, 1), (1, 1), "SAME")))

    images = IMAGES.transpose(0, 3, 1, 2)
    expected = jax.grad(fast.in_fast_layout(loss))(images)
    with jax.disable_jit():
        slopes = jax.grad(fast.in_fast_layout(loss))(images)
    np.testing.assert_allclose(slopes, expected, rtol=1e-4, atol=1e-5)
