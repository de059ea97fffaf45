"""The depthwise convolution against ``lax.conv_general_dilated`` and JAX's derivatives of it."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from tests.fast import derivatives
from vone_jax import fast

ATOL = 3e-5

# Side of the image, of the kernel, stride, padding before and after: the blocks of EfficientNets;
# images smaller than the kernel; windows that do not reach the border; no padding.
CASES = [
    (8, 3, 1, (1, 1)), (9, 3, 2, (1, 1)), (8, 3, 2, (0, 1)), (7, 5, 1, (2, 2)), (8, 5, 2, (1, 2)),
    (1, 5, 1, (2, 2)), (2, 5, 2, (1, 2)), (2, 3, 1, (1, 1)), (10, 3, 3, (0, 0)), (7, 1, 2, (0, 0)),
]  # fmt: skip


def arguments(side, kernel, channels=6):
    keys = jax.random.split(jax.random.key(0), 2)
    return (
        jax.random.normal(keys[0], (2, side, side + 1, channels)),
        jax.random.normal(keys[1], (kernel, kernel, 1, channels)),
    )


def pair(stride, padding):
    """Our convolution and JAX's."""
    window = ((stride, stride), [padding] * 2)
    numbers = ("NHWC", "HWIO", "NHWC")
    return (
        lambda x, k: fast.convolve_depthwise(x, k, *window),
        lambda x, k: lax.conv_general_dilated(
            x, k, *window, dimension_numbers=numbers, feature_group_count=x.shape[-1]
        ),
    )


@pytest.mark.parametrize(("side", "kernel", "stride", "padding"), CASES)
def test_values_and_derivatives_are_those_of_jax(side, kernel, stride, padding):
    derivatives.compare(pair(stride, padding), *arguments(side, kernel), ATOL)


def test_second_derivatives_are_those_of_jax():
    derivatives.compare_second(pair(2, (0, 1)), *arguments(6, 3), ATOL)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_gradients_under_vmap_are_those_of_jax(axes):
    derivatives.compare_under_vmap(pair(1, (1, 1)), *arguments(6, 3), axes, ATOL)


def loss_and_gradients(x, k):
    ours, _ = pair(2, (1, 2))
    return jax.value_and_grad(lambda x, k: jnp.sum(jnp.sin(ours(x, k))), (0, 1))(x, k)


@pytest.mark.parametrize(("platform", "convolutions"), [("cpu", 0), ("cuda", 3), ("tpu", 3)])
def test_cpus_multiply_and_accelerators_convolve(platform, convolutions):
    """In the value and in both gradients."""
    traced = jax.jit(loss_and_gradients).trace(*arguments(9, 5))
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    assert program.count("stablehlo.convolution") == convolutions


def test_the_gradient_of_the_kernel_keeps_no_windows():
    """Stacked over rows, the windows would be 25 times the images."""
    x, k = arguments(40, 5, channels=16)
    compiled = jax.jit(loss_and_gradients).lower(x, k).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 5 * x.nbytes


def test_sums_in_sixteen_bits_are_left_to_xla():
    x, k = (argument.astype(jnp.bfloat16) for argument in arguments(9, 5))
    program = jax.jit(pair(1, (2, 2))[0]).lower(x, k).as_text()
    assert "stablehlo.convolution" in program
