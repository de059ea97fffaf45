"""The convolution against ``lax.conv_general_dilated`` and JAX's own derivatives of it."""

import re

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from tests.fast import derivatives
from vone_jax.fast import convolve

NUMBERS = ("NHWC", "HWIO", "NHWC")
ATOL = 1e-4

# Channels, side of the image, of the kernel, stride, padding: ordinary; images smaller than the
# kernel; 1x1; few channels under a small kernel; few channels under a large one.
CASES = [
    (5, 8, 3, 1, 1), (5, 9, 3, 2, 1), (5, 8, 3, 2, 1), (5, 7, 5, 3, 0), (5, 12, 5, 4, 2),
    (5, 1, 3, 1, 1), (5, 2, 3, 2, 1), (5, 2, 3, 1, 1),
    (5, 5, 1, 1, 0), (5, 5, 1, 2, 0), (5, 4, 1, 2, 1),
    (3, 8, 3, 1, 1), (1, 9, 3, 2, 1), (3, 3, 3, 1, 0), (1, 7, 5, 3, 0), (1, 8, 2, 3, 1),
    (1, 13, 9, 1, 4), (1, 14, 9, 2, 4), (3, 12, 5, 4, 2), (3, 11, 9, 3, 0), (2, 16, 7, 2, 5),
]  # fmt: skip


def arguments(side, kernel, channels=5):
    keys = jax.random.split(jax.random.key(0), 2)
    return (
        jax.random.normal(keys[0], (2, side, side + 1, channels)),
        jax.random.normal(keys[1], (kernel, kernel, channels, 7)),
    )


def pair(stride, padding):
    """Our convolution and JAX's."""
    window = ((stride, stride), [(padding, padding)] * 2)
    return (
        lambda x, k: convolve(x, k, *window),
        lambda x, k: lax.conv_general_dilated(x, k, *window, dimension_numbers=NUMBERS),
    )


@pytest.mark.parametrize(("channels", "side", "kernel", "stride", "padding"), CASES)
def test_values_and_derivatives_are_those_of_jax(channels, side, kernel, stride, padding):
    derivatives.compare(pair(stride, padding), *arguments(side, kernel, channels), ATOL)


def test_second_derivatives_are_those_of_jax():
    derivatives.compare_second(pair(2, 1), *arguments(6, 3), ATOL)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_gradients_under_vmap_are_those_of_jax(axes):
    derivatives.compare_under_vmap(pair(1, 1), *arguments(6, 3), axes, ATOL)


@pytest.mark.parametrize("argument", [0, 1])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("channels", "kernel"), [(5, 3), (1, 9)])
def test_gradients_in_a_loop_are_convolutions_in_the_order_that_is_fast(
    argument, stride, channels, kernel
):
    """What JAX's own rules leave in a loop's body, a CPU computes four to seventy times slower."""
    x, k = arguments(12, kernel, channels)

    def orders(function):
        gradient = jax.grad(lambda *pair: jnp.sum(jnp.sin(function(*pair))), argnums=argument)

        def step(_, pair):
            changed = list(pair)
            changed[argument] += gradient(*pair)
            return tuple(changed)

        lowered = jax.jit(lambda x, k: lax.fori_loop(0, 3, step, (x, k))).lower(x, k)
        return set(re.findall(r"dim_numbers = (.*?), window", lowered.as_text()))

    ours, theirs = map(orders, pair(stride, 1))
    assert ours == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}
    assert theirs > ours, "JAX has the fast order by itself now: the rules can go"


def test_the_gradient_of_a_1x1_kernel_is_a_product_of_matrices():
    """As a sum over three axes XLA transposes first, which took a third of a training step."""
    x, k = arguments(5, 1)
    ours, _ = pair(1, 0)
    gradient = jax.grad(lambda k: jnp.sum(jnp.sin(ours(x, k))))
    summed = re.findall(r"contracting_dims = (\[.*?\]) x", jax.jit(gradient).lower(k).as_text())
    assert len(summed) == 2
    assert all("," not in axes for axes in summed), summed


def test_gradients_of_few_channels_are_not_taken_from_responses_spread_with_zeros():
    """A large kernel that JAX would move over them."""
    x, k = arguments(16, 9, 1)

    def program(function):
        gradient = jax.grad(lambda x: jnp.sum(jnp.sin(function(x, k))))
        return jax.jit(gradient).lower(x).as_text()

    ours, theirs = map(program, pair(2, 4))
    assert "stablehlo.convolution" in ours and "lhs_dilate = [2, 2]" not in ours
    assert "lhs_dilate = [2, 2]" in theirs


def test_small_kernels_on_few_channels_are_products_of_matrices():
    x, k = arguments(8, 3, 3)
    ours, _ = pair(1, 1)
    both = jax.grad(lambda x, k: jnp.sum(jnp.sin(ours(x, k))), argnums=(0, 1))
    program = jax.jit(both).lower(x, k).as_text()
    assert program.count("stablehlo.dot_general") == 3
    assert "stablehlo.convolution" not in program


def test_a_constant_kernel_costs_no_convolution_of_zeros():
    x, k = arguments(8, 3)
    ours, _ = pair(1, 1)
    gradient = jax.grad(lambda x: jnp.sum(jnp.sin(ours(x, k))))
    assert jax.jit(gradient).lower(x).as_text().count("stablehlo.convolution") == 2


def test_as_many_groups_as_channels_are_a_depthwise_convolution():
    x, _ = arguments(8, 3)
    k = jax.random.normal(jax.random.key(2), (3, 3, 1, 5))
    window = ((2, 2), [(0, 1)] * 2)
    theirs = lax.conv_general_dilated(
        x, k, *window, dimension_numbers=NUMBERS, feature_group_count=5
    )
    derivatives.assert_close(convolve(x, k, *window, feature_group_count=5), theirs, ATOL)


@pytest.mark.parametrize(
    "options",
    [
        {"lhs_dilation": (2, 1)},
        {"rhs_dilation": (2, 2)},
        {"feature_group_count": 5},
        {"batch_group_count": 2},
        {"dimension_numbers": ("NHWC", "HWOI", "NHWC")},
    ],
)
def test_another_convolution_is_refused(options):
    x, k = arguments(8, 3)
    with pytest.raises(ValueError, match=next(iter(options))):
        convolve(x, k, (1, 1), [(1, 1)] * 2, **options)
