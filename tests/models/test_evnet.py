"""EVNets: logits of the original (tests/golden), their two noises, their forms and errors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.golden import formula_weights
from tests.networks import changed
from vone_jax import convert, models, v1
from vone_jax.v1 import block

# Few filters and pixels, so that tests are fast.
STAGE = v1.SubcorticalConfig(image_size=16, visual_degrees=0.5)
BLOCK = v1.VOneBlockConfig(
    4, 4, image_size=16, visual_degrees=0.5, kernel_size=5, stride=2, in_channels=4,
    distribution="evnet", sf_max=8.0, noise=v1.FanoNoise(), image_mean=0.0, image_std=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)


def features(model, images, key=0):
    """The activations up to V1."""
    layers = model.apply({}, images, noise_key=jax.random.key(key), method="front_end")
    return {name: np.asarray(maps) for name, maps in layers.items()}


@pytest.fixture(scope="module")
def model():
    return models.create("ev_resnet18", 3, width=4, v1=BLOCK, subcortical=STAGE)


def golden_images():
    """The noise pair, then the image ``colour``."""
    pair = np.random.Generator(np.random.PCG64(0)).random((2, 224, 224, 3))
    row, col = np.meshgrid(np.arange(224), np.arange(224), indexing="ij")
    inside = (row - 112) ** 2 + (col - 112) ** 2 <= 3600
    wave = np.where(inside, 0.5 + 0.4 * np.sin(2 * np.pi * (row + 2 * col) / 32), 0.25)
    return np.concatenate([pair, np.stack([row / 223, col / 223, wave], -1)[None]]).astype(
        np.float32
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reference", "trained", "fixed"),
    [
        ("ev_resnet50", "evresnet50", 25_580_264, 3_936_256),
        ("ev_cornet_z", "evcornet_z", 2_094_952, 3_936_256),
        ("ev_efficientnet_b0", "evefficientnet_b0", 5_295_812, 2 * 256 * 4 * 31 * 31),
    ],
)
def test_logits_names_and_shapes_equal_the_original(name, reference, trained, fixed, evnet_golden):
    model = models.without_noise(models.create(name))
    model = changed(model, v1=dataclasses.replace(model.v1, distribution="evnet_published"))
    variables = convert.from_state_dict(model, formula_weights.evnet_state_dict(reference))
    logits = jax.jit(models.logits_fn(model, variables))(jax.random.key(0), golden_images())
    expected = evnet_golden[f"logits_{reference}"]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-4)

    tensors = convert.to_torch(model, variables)
    shapes = {n: t.shape for n, t in tensors.items()}
    assert shapes == formula_weights.evnet_shapes(reference)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == trained
    bank = sum(t.size for n, t in tensors.items() if n.startswith("voneblock."))
    stage = sum(t.size for n, t in tensors.items() if n.startswith("subcorticalblock."))
    assert (bank, stage) == (fixed, 16_824 + 12)


@pytest.mark.slow
def test_logits_with_both_noises_equal_the_original(evnet_golden):
    model = models.create("ev_resnet50")
    variables = convert.from_state_dict(model, formula_weights.evnet_state_dict("evresnet50"))

    def draws(seed, shape):
        return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32)

    before = v1.subcortical_responses(model.subcortical, golden_images()[:2])
    before = model.subcortical.noise(before, jnp.asarray(draws(1, (2, 224, 224, 4))))
    responses = v1.noise_free_responses(model.v1, before)
    responses = model.v1.noise(responses, jnp.asarray(draws(2, (2, 56, 56, 512))))
    bottleneck = responses @ variables["params"]["bottleneck"]["kernel"][0, 0]
    back_end = {collection: leaves["back_end"] for collection, leaves in variables.items()}
    layers = model.spec.behind(jnp.float32).apply(back_end, bottleneck, False)
    expected = evnet_golden["logits_evresnet50_noisy"]
    np.testing.assert_allclose(layers["logits"], expected, rtol=0, atol=2e-4)


def test_the_front_end_is_the_two_stages_in_turn(model, images):
    layers = features(models.without_noise(model), images)
    assert list(layers) == [
        "subcortical.p", "subcortical.m", "subcortical", "v1.simple", "v1.complex", "v1",
    ]  # fmt: skip
    quiet = dataclasses.replace(STAGE, noise=None)
    before = v1.subcortical_responses(quiet, images)
    np.testing.assert_allclose(layers["subcortical"], before, atol=1e-5)
    np.testing.assert_array_equal(layers["subcortical.m"], layers["subcortical"][..., 3:])
    behind = v1.noise_free_responses(BLOCK, before)
    np.testing.assert_allclose(layers["v1"], behind, atol=1e-4)
    parts = np.concatenate([layers["v1.simple"], layers["v1.complex"]], axis=-1)
    np.testing.assert_array_equal(layers["v1"], parts)


def test_none_turns_both_noises_off_and_other_noise_is_that_of_v1(model, images):
    assert models.noise_of(model) == v1.FanoNoise() and models.is_stochastic(model)
    quiet = models.with_noise(model, None)
    assert (quiet.v1.noise, quiet.subcortical.noise) == (None, None)
    assert not models.is_stochastic(quiet) and models.without_noise(quiet) is quiet
    first, second = (features(quiet, images, key)["v1"] for key in (0, 1))
    np.testing.assert_array_equal(first, second)
    other = models.with_noise(model, v1.GaussianNoise(1.0))
    assert (other.v1.noise, other.subcortical) == (v1.GaussianNoise(1.0), STAGE)


@pytest.mark.parametrize("v1_noise", [v1.FanoNoise(), v1.GaussianNoise(1.0), STAGE.noise, None])
@pytest.mark.parametrize("stage_noise", [STAGE.noise, None])
def test_noise_that_was_turned_off_comes_back_in_both_stages(model, v1_noise, stage_noise):
    made = changed(
        model,
        v1=dataclasses.replace(BLOCK, noise=v1_noise),
        subcortical=dataclasses.replace(STAGE, noise=stage_noise),
    )
    quiet = models.without_noise(made)
    assert not models.is_stochastic(quiet) and models.without_noise(quiet) is quiet
    assert (quiet.v1.noise, quiet.subcortical.noise) == (None, None)
    assert models.with_noise(quiet, models.noise_of(made)) == made
    assert models.with_noise(made, models.noise_of(made)) == made
    other = models.with_noise(quiet, v1.GaussianNoise(2.0))
    assert other == models.with_noise(made, v1.GaussianNoise(2.0))
    assert other.subcortical.noise == stage_noise


def test_noise_before_v1_alone_makes_a_network_stochastic(model, images):
    alone = changed(model, v1=dataclasses.replace(BLOCK, noise=None))
    assert models.noise_of(alone) == STAGE.noise and models.is_stochastic(alone)
    first, second = (features(alone, images, key) for key in (0, 1))
    assert not np.allclose(first["v1"], second["v1"])
    np.testing.assert_array_equal(first["subcortical.p"], second["subcortical.p"])
    assert not models.is_stochastic(models.without_noise(alone))


@pytest.mark.parametrize(
    ("image_size", "kernel_size", "stride"), [(224, 31, 4), (64, 25, 2), (32, 21, 1), (28, 21, 2)]
)
def test_forms_for_small_images(image_size, kernel_size, stride):
    model = models.create("ev_resnet18", image_size=image_size)
    assert (model.v1.kernel_size, model.v1.stride) == (kernel_size, stride)
    assert model.v1.pixels_per_degree == model.subcortical.pixels_per_degree == 32
    assert (model.image_size, model.in_channels, model.v1.in_channels) == (image_size, 3, 4)


def test_grey_images_have_one_kind_of_p_cells():
    model = models.create("ev_cornet_z", 10, in_channels=1, image_size=28)
    assert (model.in_channels, model.v1.in_channels) == (1, 2)
    key = jax.random.key(0)
    variables = jax.eval_shape(lambda k: model.init(k, jnp.ones((1, 28, 28, 1)), noise_key=k), key)
    shapes = {path[1:]: leaf.shape for path, leaf in flatten_dict(variables).items()}
    assert shapes["back_end", "IT", "conv", "kernel"] == (3, 3, 256, 512)


@pytest.mark.parametrize(
    ("named", "arguments"),
    [
        ("v1.in_channels", {"v1": dataclasses.replace(BLOCK, in_channels=3)}),
        ("in_channels is 1", {"in_channels": 1, "subcortical": STAGE}),
        ("image_size is 32", {"image_size": 32, "subcortical": STAGE}),
        (
            "visual_degrees must be equal",
            {"v1": dataclasses.replace(BLOCK, visual_degrees=0.25), "subcortical": STAGE},
        ),
    ],
)
def test_contradictions_are_refused(named, arguments):
    with pytest.raises(ValueError, match=named):
        models.create(**({"name": "ev_resnet18"} | arguments))


def test_a_surround_is_relative_to_the_responses_of_the_stage_to_gratings():
    """The mean square of a complex cell is half of the squared amplitude of its filters."""
    stage = v1.SubcorticalConfig(image_size=96, visual_degrees=3.0, noise=None)
    config = dataclasses.replace(
        BLOCK, simple_channels=0, complex_channels=12, image_size=96, visual_degrees=3.0,
        kernel_size=31, noise=None,
    )  # fmt: skip
    surround = v1.SurroundNormalization(largest_extent=0.5)
    model = models.create(
        "ev_resnet18", 3, width=4, subcortical=stage,
        v1=dataclasses.replace(config, normalization=surround),
    )  # fmt: skip
    pools = block.surround_pools(model.v1, model.subcortical)
    bank, position = config.gabor_parameters(), np.arange(96) / 32
    angle = np.deg2rad(bank.theta)[:, None, None]
    along = position[:, None] * np.cos(angle) + position * np.sin(angle)
    waves = 0.5 + 0.5 * np.sin(2 * np.pi * bank.sf[:, None, None] * along)
    gratings = np.repeat(waves[..., None], 3, axis=-1).astype(np.float32)
    cells = v1.subcortical_responses(stage, gratings)
    middle = np.asarray(v1.noise_free_responses(config, cells))[:, 12:-12, 12:-12]
    squares = np.square(middle).mean(axis=(1, 2))
    fast_enough = bank.sf > 1.0
    assert fast_enough.sum() > 6
    found = np.sqrt(2.0 * np.diag(squares))[fast_enough]
    np.testing.assert_allclose(pools.amplitude[fast_enough], found, rtol=0.1)
    # The block within the network has these pools.
    expected = pools(v1.noise_free_responses(config, cells))
    np.testing.assert_allclose(features(model, gratings)["v1"], expected, rtol=1e-4, atol=1e-4)
