"""Push-pull inhibition against its equations in NumPy and in closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d

from vone_jax import models
from vone_jax.front_ends import PushPull, PushPullV1, push_pull_responses
from vone_jax.v1 import VOneBlockConfig

BANK = VOneBlockConfig(
    simple_channels=6, complex_channels=0, image_size=28, visual_degrees=1, kernel_size=9,
    stride=2, in_channels=1, noise=None,
)  # fmt: skip


def reference(images, kernel, strength, average, stride, reads=None):
    """The equations in float64, with the complement as a kernel of its own."""
    half, features = kernel.shape[0] // 2, kernel.shape[-1]
    out = []
    for image in np.pad(images, [(0, 0), (half, half), (half, half), (0, 0)]):
        maps = []
        for f in range(features):
            inputs = [c for c in range(image.shape[-1]) if reads is None or reads[c, f]]
            w = kernel[:, :, inputs, f]
            responses = [
                sum(correlate2d(image[..., c], each[..., i], "valid") for i, c in enumerate(inputs))
                for each in (w, -w + w.max() + w.min())
            ]
            push, pull = (each[::stride, ::stride] for each in responses)
            mean, reach = np.zeros_like(pull), average // 2
            for i, j in np.ndindex(*pull.shape):
                mean[i, j] = pull[
                    max(i - reach, 0) : i + reach + 1, max(j - reach, 0) : j + reach + 1
                ].mean()
            factor = np.broadcast_to(strength, features)[f]
            maps.append(np.maximum(push, 0) - factor * np.maximum(mean, 0))
        out.append(np.stack(maps, -1))
    return np.stack(out)


def example(size=5, channels=2, features=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 9, 8, channels)), rng.normal(size=(size, size, channels, features))


@pytest.mark.parametrize(("average", "stride", "strength"), [(1, 1, 1.0), (3, 2, 0.4), (5, 1, 1.0)])
def test_units_are_the_equations(average, stride, strength):
    images, kernel = example()
    found = push_pull_responses(jnp.float32(images), jnp.float32(kernel), strength, average, stride)
    expected = reference(images, kernel, strength, average, stride)
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=2e-5)


def test_an_even_kernel_with_opposite_extrema_has_its_negative_as_pull():
    kernel = np.zeros((3, 3, 1, 1))
    kernel[1, 1], kernel[0, 1], kernel[2, 1] = 1.0, -1.0, -1.0
    images, _ = example(channels=1)
    linear = np.stack([correlate2d(each[..., 0], kernel[..., 0, 0], "same") for each in images])
    found = push_pull_responses(jnp.float32(images), jnp.float32(kernel), 0.5, average=1)[..., 0]
    np.testing.assert_allclose(
        found, np.maximum(linear, 0) - 0.5 * np.maximum(-linear, 0), atol=1e-6
    )


def test_a_constant_image_has_a_closed_form():
    _, kernel = example()
    level, n = 0.7, kernel[..., 0].size
    found = push_pull_responses(
        jnp.full((1, 15, 15, 2), level), jnp.float32(kernel), 0.8, average=3
    )[0, 7, 7]
    total, extrema = kernel.sum((0, 1, 2)), kernel.max((0, 1, 2)) + kernel.min((0, 1, 2))
    expected = np.maximum(level * total, 0) - 0.8 * np.maximum(level * (n * extrema - total), 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_finite_differences_of_the_equations():
    images, kernel = example(size=3)
    weights = np.random.default_rng(1).normal(size=(2, 9, 8, 3))

    def loss(images, kernel, strength):
        return jnp.sum(weights * push_pull_responses(images, kernel, strength))

    found = jax.grad(loss, (0, 1, 2))(*map(jnp.float32, (images, kernel, np.full(3, 0.6))))
    points = [images, kernel, np.full(3, 0.6)]
    rng = np.random.default_rng(2)
    for place, gradient in enumerate(found):
        for _ in range(3):
            step, ends = 1e-7 * rng.normal(size=points[place].shape), []
            for sign in (1, -1):
                moved = [p + sign * step if i == place else p for i, p in enumerate(points)]
                ends.append(np.sum(weights * reference(moved[0], moved[1], moved[2], 3, 1)))
            assert np.sum(step * np.asarray(gradient)) == pytest.approx(
                (ends[0] - ends[1]) / 2, rel=2e-3, abs=1e-9
            )


def test_over_the_bank_each_filter_has_the_complement_of_what_it_reads():
    bank = dataclasses.replace(BANK, in_channels=2)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 28, 28, 2))
    module = PushPullV1(bank, channels=4)
    x = jnp.float32(images)
    cells = module.apply(module.init(jax.random.key(0), x, False), x, False)["v1"]
    reads = np.arange(2)[:, None] == bank.gabor_parameters().channel
    assert reads.any(1).all()
    kernel = 25.0 * bank.gabor_kernels().in_phase.transpose(1, 2, 0)[:, :, None] * reads
    expected = reference(images, kernel.astype(np.float64), 1.0, 3, 2, reads)
    np.testing.assert_allclose(cells, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("front_end", [PushPull(8, strength=None), PushPullV1(BANK, 8)])
def test_a_network_has_its_layers_and_an_equal_specification_when_stored(front_end):
    model = models.create("resnet18", 10, 28, 1, width=8, front_end=front_end)
    variables = models.init(model, jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (2, 28, 28, 1))
    layers = models.features_fn(model, variables)(jax.random.key(2), images)
    assert layers["logits"].shape == (2, 10) and not models.is_stochastic(model)
    trained = [k for k in jax.tree_util.tree_leaves_with_path(variables["params"]["stem"])]
    names = {path[0].key for path, _ in trained}
    expected = {"kernel", "strength", "norm"} if "push_pull" in layers else {"bottleneck"}
    assert names == expected
    stored = models.to_json(model.spec)
    assert models.from_json(models.Spec, stored, "spec") == model.spec


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PushPull(kernel_size=4), "kernel_size must be odd, got 4"),
        (lambda: PushPull(average=0), "average must be an integer >= 1, got 0"),
        (lambda: PushPull(strength=-1.0), "strength must be a finite number >= 0, got -1.0"),
        (lambda: PushPullV1(dataclasses.replace(BANK, complex_channels=2)), "simple cells alone"),
    ],
)
def test_a_wrong_field_is_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
