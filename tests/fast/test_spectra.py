"""Correlation in the frequency domain against a direct one in float64."""

import functools
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import mesh, prng, v1
from vone_jax.fast import spectra
from vone_jax.v1.block import filter_bank

# Height and width of the images, size of the kernel, stride; the last two are cut into tiles.
CASES = [
    (16, 16, 9, 1), (17, 13, 9, 2), (12, 30, 13, 4), (9, 21, 7, 3), (8, 8, 15, 1), (1, 5, 5, 2),
    (131, 9, 5, 1), (390, 14, 9, 3),
]  # fmt: skip


def directly(images, kernels, stride):
    """The correlation in the type of the arguments, zero padding k // 2."""
    size = kernels.shape[0]
    padding = [(0, 0), (size // 2, size // 2), (size // 2, size // 2)]
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(images, padding), (size, size), axis=(1, 2)
    )
    return np.einsum("nhwij,ijf->nhwf", windows[:, ::stride, ::stride], kernels)


def arguments(height, width, size):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((2, height, width)).astype(np.float32)
    return images, rng.standard_normal((size, size, 3)).astype(np.float32) / size


@functools.partial(jax.jit, static_argnums=1)
def apply(images, chosen):
    """With the kernels of ``chosen``: height, width, size, stride."""
    height, width, size, stride = chosen
    return spectra.by_spectra(images, arguments(height, width, size)[1], stride)


@pytest.mark.parametrize("chosen", CASES)
def test_responses_are_those_of_a_direct_correlation(chosen):
    images, kernels = arguments(*chosen[:3])
    expected = directly(np.float64(images), np.float64(kernels), chosen[3])
    found = apply(images, chosen)
    assert found.dtype == jnp.float32
    # Rounding of float32: responses have a standard deviation of one.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_no_images_have_no_responses():
    assert apply(np.zeros((0, 17, 13), np.float32), CASES[1]).shape == (0, 9, 7, 3)


def test_the_number_of_images_may_be_open():
    """A classifier can be exported for any number of images."""
    images, _ = arguments(17, 13, 9)
    (number,) = jax.export.symbolic_shape("number")
    shape = jax.ShapeDtypeStruct((number, 17, 13), jnp.float32)
    exported = jax.export.export(jax.jit(lambda images: apply(images, CASES[1])))(shape)
    np.testing.assert_allclose(exported.call(images), apply(images, CASES[1]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("chosen", [(17, 13, 9, 2), (131, 9, 5, 1)])
def test_the_gradient_is_the_transposed_correlation(chosen):
    """<A u, v> = <u, A' v> for the direct A in float64, also under vmap."""
    images, kernels = arguments(*chosen[:3])
    v = np.random.default_rng(1).standard_normal((3, *apply(images, chosen).shape))
    pull = jax.vjp(lambda images: apply(images, chosen), jnp.asarray(images))[1]
    (pulled,) = jax.jit(jax.vmap(pull))(jnp.asarray(v, jnp.float32))
    u = np.random.default_rng(2).standard_normal(images.shape)
    forward = np.einsum("nhwf,dnhwf->d", directly(u, np.float64(kernels), chosen[3]), v)
    np.testing.assert_allclose(np.einsum("nhw,dnhw->d", u, pulled), forward, rtol=2e-5)


@pytest.mark.slow
def test_it_is_as_exact_as_a_convolution():
    """On the published bank: the errors of both against float64."""
    kernels = v1.VOneBlockConfig().gabor_kernels().in_phase[::16].transpose(1, 2, 0)
    images = np.random.default_rng(3).uniform(-1, 1, (1, 100, 100)).astype(np.float32)
    exact = directly(np.float64(images), np.float64(kernels), 4)
    convolved = jax.lax.conv_general_dilated(
        images[..., None],
        kernels[:, :, None],
        (4, 4),
        [(12, 12)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    spectral, direct = (
        np.sqrt(np.mean((found - exact) ** 2))
        for found in (spectra.by_spectra(images, kernels, 4), convolved)
    )
    assert spectral < 1.5 * direct
    assert spectral < 1e-6 * exact.std()


def test_products_of_the_program_are_as_many_as_promised():
    """Counted on the traced program of one column of responses, but for the small transforms."""
    size, stride, side, filters = 25, 4, 96, 40
    kernels = np.ones((size, size, filters), np.float32)
    program = jax.jit(lambda x: spectra.by_spectra(x, kernels, stride)).lower(
        jnp.ones((1, side, side))
    )
    products = []
    for line in program.as_text().splitlines():
        if "stablehlo.dot_general" not in line:
            continue
        *_, operand, result = [
            [int(n) for n in shape.split("x")] for shape in re.findall(r"<([\dx]+)xf32>", line)
        ]
        (summed,) = re.findall(r"contracting_dims = \[\d\] x \[(\d)\]", line)
        products.append(np.prod(result) * operand[int(summed)])
    positions = side // stride
    direct = positions**2 * size**2 * filters
    share = spectra.share_of_products(size, stride, positions)
    assert share < 0.5
    # Of the four, the first two transform images and kernels.
    assert len(products) == 4
    assert sum(products[2:]) == pytest.approx(share * direct)
    assert sum(products[:2]) < 0.15 * direct


LARGE = v1.VOneBlockConfig(4, 4, image_size=32, visual_degrees=1.0, kernel_size=15, stride=2)


def operations(program):
    names = re.findall(r"stablehlo\.(convolution|dot_general)", program)
    return {name: names.count(name) for name in ("convolution", "dot_general")}


def test_a_cpu_takes_the_frequency_domain_and_others_convolve():
    """Forward, on the traced programs of the same function."""
    traced = jax.jit(lambda x: v1.noise_free_responses(LARGE, x)).trace(jnp.ones((2, 32, 32, 3)))
    channels = len(filter_bank(LARGE).sorted_bank.kernels)
    cpu = traced.lower(lowering_platforms=("cpu",)).as_text()
    assert operations(cpu) == {"convolution": 0, "dot_general": 4 * channels}
    # One for simple cells and one for each phase of complex cells.
    for platform in ("cuda", "tpu"):
        other = traced.lower(lowering_platforms=(platform,)).as_text()
        assert operations(other) == {"convolution": 3, "dot_general": 0}


def test_both_ways_are_taken_once_whatever_the_number_of_draws():
    def loss(images):
        keys = jax.vmap(lambda n: prng.fold(jax.random.key(0), n))(jnp.arange(7))
        draws = jax.vmap(lambda key: v1.VOneBlock(LARGE).apply({}, images, noise_key=key))(keys)
        return jnp.sum(draws**2)

    lowered = jax.jit(jax.grad(loss)).lower(jnp.ones((2, 32, 32, 3)))
    images = [
        shape.split("x")
        for line in lowered.as_text().splitlines()
        if "stablehlo.dot_general" in line
        for shape in re.findall(r"<([\dx]+)xf32>", line)
    ]
    channels = len(filter_bank(LARGE).sorted_bank.kernels)
    # Windows of the spectra, which no other product reads or makes: of two images, not fourteen.
    spectra = [shape for shape in images if len(shape) == 6 and shape[-1] == str(2 * 15 * 2)]
    assert len(spectra) == 2 * channels
    assert {shape[2] for shape in spectra} == {"2"}


def test_no_device_of_a_mesh_waits_for_the_images_of_others():
    """A gradient in three tiles of rows takes no images of others, and is that of one device."""
    devices = mesh.data_mesh()
    kernels = arguments(1, 1, 15)[1]
    images = np.random.default_rng(4).standard_normal((2 * devices.size, 262, 20))

    def gradient(images):
        return jax.grad(lambda images: jnp.sum(spectra.by_spectra(images, kernels, 2) ** 2))(images)

    images = jnp.asarray(images, jnp.float32)
    placed = jax.device_put(images, mesh.sharded(devices))
    program = jax.jit(gradient, out_shardings=mesh.sharded(devices)).lower(placed).compile()
    assert devices.size > 1
    assert not re.findall(r"all-gather|all-to-all|collective-permute", program.as_text() or "")
    expected = jax.jit(gradient)(images)
    np.testing.assert_allclose(program(placed), expected, rtol=0, atol=1e-6 * jnp.max(expected))
