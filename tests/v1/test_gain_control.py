"""Gain control: its equation, its place before the noise, and its physiology."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.certification.test_bounds import block
from tests.networks import changed
from vone_jax import dataclass_json, models, prng, v1

PLAIN = v1.VOneBlockConfig(
    16, 16, image_size=28, visual_degrees=1.0, kernel_size=21, stride=2, in_channels=1,
    k_exc=15.0, noise=None,
)  # fmt: skip
POOLS = ("image", "position")


def controlled(config=PLAIN, **fields):
    return dataclasses.replace(config, normalization=v1.GainControl(**fields))


def grating(contrast, orientation, frequency=3.0, phase=0.0):
    """A grating that fills the image, (28, 28, 1), without its mean of 1/2."""
    y, x = (np.mgrid[:28, :28] - 13.5) / 28.0
    along = x * np.cos(np.deg2rad(orientation)) + y * np.sin(np.deg2rad(orientation))
    wave = 0.5 * contrast * np.cos(2 * np.pi * frequency * along + phase)
    return wave[..., None].astype(np.float32)


def responses(config, patterns):
    return np.asarray(v1.noise_free_responses(config, jnp.asarray(0.5 + np.stack(patterns))))


@pytest.mark.parametrize(("pool", "axes"), [("image", (1, 2, 3)), ("position", (3,))])
@pytest.mark.parametrize(("semisaturation", "gain"), [(0.02, 3.0), (1.0, 1.0), (30.0, 0.5)])
def test_responses_equal_a_direct_computation(pool, axes, semisaturation, gain):
    images = jax.random.uniform(jax.random.key(0), (3, 28, 28, 1))
    before = np.asarray(v1.noise_free_responses(PLAIN, images), np.float64)
    energy = np.mean(before**2, axis=axes, keepdims=True)
    expected = gain * before / np.sqrt(semisaturation**2 + energy)
    after = v1.noise_free_responses(controlled(PLAIN, semisaturation=semisaturation, pool=pool,
                                               gain=gain), images)  # fmt: skip
    assert after.dtype == jnp.float32
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)


def test_noise_follows_gain_control():
    config = controlled(dataclasses.replace(PLAIN, noise=v1.GaussianNoise(3.0)))
    images = jax.random.uniform(jax.random.key(0), (2, 28, 28, 1))
    before = v1.noise_free_responses(config, images)
    key = jax.random.key(1)
    noisy = v1.VOneBlock(config).apply({}, images, noise_key=key)
    z = v1.standard_normal(prng.stream(prng.example_keys(key, 2), "v1 noise"), before.shape[1:])
    np.testing.assert_allclose(noisy, jax.nn.relu(before + 3.0 * z), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool", POOLS)
def test_gradients_are_finite_where_nothing_responds(pool):
    config = controlled(semisaturation=0.5, pool=pool)
    slope = jax.grad(lambda x: v1.noise_free_responses(config, x).sum())(
        jnp.full((1, 28, 28, 1), 0.5)
    )
    assert bool(jnp.all(jnp.isfinite(slope)))


@pytest.mark.slow
def test_gain_control_follows_a_subcortical_stage_and_a_tuned_bank():
    small = controlled(block((2, 2), size=28, in_channels=1, tuned=True))
    model = models.create("vone_cornet_z", num_classes=2, v1=small, width=4)
    variables = models.init(model, jax.random.key(0))
    fixed, _ = models.with_fixed_bank(model, variables)
    assert fixed.v1.normalization == v1.GainControl()
    ev = models.create("ev_cornet_z", num_classes=2, image_size=32, width=4)
    ev = changed(ev, v1=controlled(ev.v1))
    images = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3))
    cells = models.response_fn(models.without_noise(ev), models.init(ev, jax.random.key(0)), "v1")
    energy = jnp.mean(cells(jax.random.split(jax.random.key(1)), images) ** 2, axis=(1, 2, 3))
    assert bool(jnp.all((0 < energy) & (energy < 1)))


def test_a_configuration_with_gain_control_is_stored_and_read_back():
    config = controlled(semisaturation=0.3, pool="position", gain=2.0)
    stored = dataclass_json.encode(config)
    assert dataclass_json.decode(v1.VOneBlockConfig, stored, "config") == config


@pytest.mark.parametrize("fields", [{"pool": "surround"}, {"semisaturation": 0.0}, {"gain": 0.0}])
def test_other_pools_and_constants_are_refused(fields):
    with pytest.raises(ValueError, match=f"normalization.{next(iter(fields))}"):
        v1.GainControl(**fields)


@pytest.mark.parametrize("pool", POOLS)
def test_the_contrast_response_is_hyperbolic_with_an_exponent_of_one(pool):
    """z = G c / sqrt(s^2 + c^2): half of the largest response at c50 = s / sqrt(3)."""
    contrasts = np.geomspace(0.01, 1.0, 9)
    patterns = [grating(each, 30.0) for each in contrasts]
    before = responses(PLAIN, patterns)
    after = responses(controlled(semisaturation=0.7, pool=pool), patterns)
    axes = (1, 2, 3) if pool == "image" else (3,)
    energy = np.sqrt(np.mean(before[-1:].astype(np.float64) ** 2, axis=axes, keepdims=True))[0]
    s, c = 0.7 / energy, contrasts[:, None, None, None]
    driven = before[-1] > 1.0
    expected = before[-1] / energy * c / np.sqrt(s**2 + c**2)
    np.testing.assert_allclose(after[:, driven], expected[:, driven], rtol=2e-3)
    # The slope of the logarithms is 1 at low contrast and falls towards 0.
    slopes = np.diff(np.log(after[:, driven]), axis=0) / np.diff(np.log(contrasts))[:, None]
    assert slopes[0].min() > 0.9 and np.all(slopes[-1] < slopes[0])


COMPLEX = dataclasses.replace(PLAIN, simple_channels=0, complex_channels=64)


def test_orientation_tuning_keeps_its_form_at_all_contrasts():
    """Up to how evenly the bank covers orientations: the pool hardly depends on orientation."""
    orientations = np.arange(0.0, 180.0, 15.0)
    config = controlled(COMPLEX, semisaturation=0.2)
    faint, strong = (
        responses(config, [grating(contrast, each) for each in orientations])[:, 7, 7]
        for contrast in (0.05, 1.0)
    )
    selective = (strong.min(axis=0) < 0.3 * strong.max(axis=0)) & (strong.max(axis=0) > 0.1)
    assert selective.sum() > 10
    faint, strong = faint[:, selective], strong[:, selective]
    # 20 times the contrast.
    assert np.all(strong.max(axis=0) < 10 * faint.max(axis=0))
    for one, other in zip(faint.T, strong.T, strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.9
        assert abs(int(one.argmax()) - int(other.argmax())) in (0, 1, 11)


@pytest.mark.parametrize("pool", POOLS)
def test_a_mask_of_another_orientation_suppresses(pool):
    """A cell answers less to its grating with an orthogonal mask, to which it hardly responds."""
    test, mask = grating(0.2, 0.0), grating(0.6, 90.0, phase=1.0)
    before, after = (
        responses(each, [test, mask, test + mask])[:, 7, 7]
        for each in (COMPLEX, controlled(COMPLEX, semisaturation=0.3, pool=pool))
    )
    blind = (before[1] < 0.05 * before[0]) & (before[0] > 0.1)
    assert blind.any()
    np.testing.assert_allclose(before[2, blind], before[0, blind], rtol=0.1)
    assert np.all(after[2, blind] < 0.8 * after[0, blind])
