"""The convolutions against ``lax.conv_general_dilated`` and JAX's own derivatives of it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vone_jax.fast import convolve

NUMBERS = ("NHWC", "HWIO", "NHWC")
ATOL = 1e-4


def slow(*cases):
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


# Channels, side of the image, of the kernel, stride, padding: images smaller than the kernel; 1x1;
# few channels under a small kernel. All others are XLA's own.
CASES = [
    (5, 2, 3, 2, 1), (5, 5, 1, 2, 0), (1, 8, 2, 3, 1),
    *slow((5, 1, 3, 1, 1), (5, 4, 1, 2, 1), (3, 3, 3, 1, 0), (3, 8, 3, 1, 1), (1, 7, 5, 3, 0)),
]  # fmt: skip
# Depthwise, with padding before and after: the blocks of EfficientNets; images smaller than the
# kernel; windows that do not reach the border; no padding.
DEPTHWISE = [
    (8, 3, 2, (0, 1)), (2, 3, 1, (1, 1)),
    *slow((7, 5, 1, (2, 2)), (8, 5, 2, (1, 2)), (2, 5, 2, (1, 2)), (10, 3, 3, (0, 0))),
]  # fmt: skip


def arguments(side, kernel, channels=5, depthwise=False):
    keys = jax.random.split(jax.random.key(0), 2)
    ends = (1, channels) if depthwise else (channels, 7)
    return (
        jax.random.normal(keys[0], (2, side, side + 1, channels)),
        jax.random.normal(keys[1], (kernel, kernel, *ends)),
    )


def pair(stride, padding, depthwise=False):
    """Our convolution and JAX's."""
    sides = padding if isinstance(padding, tuple) else (padding, padding)
    options = {"window_strides": (stride, stride), "padding": [sides] * 2}

    def theirs(x, k):
        groups = x.shape[-1] if depthwise else 1
        return lax.conv_general_dilated(
            x, k, **options, dimension_numbers=NUMBERS, feature_group_count=groups
        )

    def ours(x, k):
        groups = x.shape[-1] if depthwise else 1
        return convolve(x, k, (stride, stride), [sides] * 2, feature_group_count=groups)

    return ours, theirs


def assert_close(found, expected, atol=ATOL):
    chosen = {"rtol": 1e-5, "atol": atol}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **chosen), found, expected)


def compare(pair, x, k, atol=ATOL):
    """Values, forward mode, reverse mode in both arguments, and both at once."""

    def everything(function):
        def run(x, k, dx, dk):
            value, tangent = jax.jvp(function, (x, k), (dx, dk))
            slope = jnp.sin(value)
            of_both = jax.vjp(function, x, k)[1](slope)
            of_images = jax.vjp(lambda x: function(x, k), x)[1](slope)
            of_kernel = jax.vjp(lambda k: function(x, k), k)[1](slope)
            return value, tangent, of_both, of_images, of_kernel

        return jax.jit(run)

    ours, theirs = map(everything, pair)
    inputs = (x, k, jnp.cos(x), jnp.cos(k))
    assert_close(ours(*inputs), theirs(*inputs), atol)


def gradients(function):
    """Those of a curved loss in both arguments."""
    return jax.grad(lambda x, k: jnp.sum(jnp.sin(function(x, k))), argnums=(0, 1))


def compare_second(pair, x, k, atol=ATOL):
    """Products with the second derivatives of a loss."""

    def product(function):
        gradient = gradients(function)
        return jax.jit(lambda: jax.jvp(gradient, (x, k), (jnp.cos(x), jnp.cos(k)))[1])

    ours, theirs = map(product, pair)
    assert_close(ours(), theirs(), atol)


def compare_under_vmap(pair, x, k, axes, atol=ATOL):
    """Gradients of several images, of several kernels, or of both."""
    x, k = (
        jnp.stack([a, 2 * a, jnp.cos(a)]) if axis == 0 else a
        for a, axis in zip((x, k), axes, strict=True)
    )
    ours, theirs = (jax.jit(jax.vmap(gradients(function), axes)) for function in pair)
    assert_close(ours(x, k), theirs(x, k), atol)


@pytest.mark.parametrize(("channels", "side", "kernel", "stride", "padding"), CASES)
def test_values_and_derivatives_are_those_of_jax(channels, side, kernel, stride, padding):
    compare(pair(stride, padding), *arguments(side, kernel, channels))


@pytest.mark.parametrize(
    ("channels", "stride", "padding"),
    [(1, 2, (8, 8)), (3, 3, (2, 5)), *slow((3, 2, (8, 8)), (1, 2, (0, 0)))],
)
def test_kernels_as_wide_as_images_are_those_of_jax(channels, stride, padding):
    """In derivatives, sums up to 170 are rounded in float32."""
    images, kernel = arguments(18, 17, channels)
    compare(pair(stride, padding), images, kernel / 17, 5e-4)


@pytest.mark.parametrize(("side", "kernel", "stride", "padding"), DEPTHWISE)
def test_depthwise_values_and_derivatives_are_those_of_jax(side, kernel, stride, padding):
    compare(pair(stride, padding, True), *arguments(side, kernel, 6, True), 3e-5)


def test_second_derivatives_of_depthwise_are_those_of_jax():
    compare_second(pair(2, (0, 1), True), *arguments(6, 3, 6, True), 3e-5)


@pytest.mark.parametrize("axes", [(0, None), *slow(((None, 0),), ((0, 0),))])
def test_gradients_of_depthwise_under_vmap_are_those_of_jax(axes):
    compare_under_vmap(pair(1, 1, True), *arguments(6, 3, 6, True), axes, 3e-5)


def test_the_gradient_of_a_1x1_kernel_is_a_product_of_matrices():
    """For a sum over three axes, XLA transposes first, which took a third of a training step."""
    x, k = arguments(5, 1)
    ours, _ = pair(1, 0)
    gradient = jax.grad(lambda k: jnp.sum(jnp.sin(ours(x, k))))
    summed = re.findall(r"contracting_dims = (\[.*?\]) x", jax.jit(gradient).lower(k).as_text())
    assert len(summed) == 2
    assert all("," not in axes for axes in summed), summed


def test_small_kernels_on_few_channels_are_products_of_matrices():
    x, k = arguments(8, 3, 3)
    ours, _ = pair(1, 1)
    both = jax.grad(lambda x, k: jnp.sum(jnp.sin(ours(x, k))), argnums=(0, 1))
    program = jax.jit(both).lower(x, k).as_text()
    assert program.count("stablehlo.dot_general") == 3
    assert "stablehlo.convolution" not in program


@pytest.mark.parametrize(
    "options",
    [
        {"lhs_dilation": (2, 1)},
        {"rhs_dilation": (2, 2)},
        {"batch_group_count": 2, "kernel": (3, 3, 5, 8)},
        {"feature_group_count": 2, "kernel": (3, 3, 3, 8), "channels": 6},
        {"dimension_numbers": ("NHWC", "HWOI", "NHWC"), "kernel": (3, 3, 7, 5)},
    ],
)
def test_any_other_convolution_is_that_of_jax(options):
    """The same program, so it need not run."""
    shape, channels = options.pop("kernel", (3, 3, 5, 7)), options.pop("channels", 5)
    x, k = (jax.ShapeDtypeStruct(each, jnp.float32) for each in ((2, 8, 9, channels), shape))
    options = {"dimension_numbers": NUMBERS} | options
    ours, theirs = (
        jax.make_jaxpr(lambda x, k, f=f: f(x, k, (1, 1), [(1, 1)] * 2, **options))(x, k)
        for f in (convolve, lax.conv_general_dilated)
    )
    assert str(ours) == str(theirs)


def depthwise_loss_and_gradients(x, k):
    ours, _ = pair(2, (1, 2), True)
    return jax.value_and_grad(lambda x, k: jnp.sum(jnp.sin(ours(x, k))), (0, 1))(x, k)


@pytest.mark.parametrize(("platform", "convolutions"), [("cpu", 0), ("cuda", 3), ("tpu", 3)])
def test_cpus_multiply_depthwise_and_accelerators_convolve(platform, convolutions):
    """In the value and in both gradients."""
    traced = jax.jit(depthwise_loss_and_gradients).trace(*arguments(9, 5, 6, True))
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    assert program.count("stablehlo.convolution") == convolutions


def test_depthwise_sums_in_sixteen_bits_are_left_to_xla():
    x, k = (argument.astype(jnp.bfloat16) for argument in arguments(9, 5, 6, True))
    program = jax.jit(pair(1, 2, True)[0]).lower(x, k).as_text()
    assert "stablehlo.convolution" in program


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_the_gradient_of_a_depthwise_kernel_keeps_no_windows():
    """Stacked over rows, the windows would be 25 times the images."""
    x, k = arguments(40, 5, 16, True)
    compiled = jax.jit(depthwise_loss_and_gradients).lower(x, k).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 5 * x.nbytes
