"""Explained variance of synthetic neurons, whose reliability is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression

from vone_jax.neurophysiology import explained_variance as engine
from vone_jax.neurophysiology.recording import layer_features

STRATA = np.arange(135) % 2


def synthetic(noise, seed=1):
    """Make 135 images with 12 latents and 400 features, and 60 neurons with 20 repetitions.

    With this seed the power iteration of the regression meets its limit, which must not warn.
    """
    generator = np.random.default_rng(seed)
    latents = generator.normal(size=(135, 12))
    features = latents @ generator.normal(size=(12, 400))
    features += 0.05 * generator.normal(size=features.shape)
    signal = latents @ generator.normal(size=(12, 60)) / np.sqrt(12)
    recordings = signal[:, None] + noise * generator.normal(size=(135, 20, 60))
    return features, signal, recordings


# Measured once on another sample of the same design; the tolerances are three standard deviations
# over 8 samples.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise", "raw", "ceiling", "v3", "v2", "tolerance"),
    [
        (0.5, 0.992, 0.986, 0.999, 1.01, (0.002, 0.002, 0.003, 0.005)),
        (2.0, 0.883, 0.812, 0.962, 1.19, (0.020, 0.024, 0.036, 0.055)),
        (5.0, 0.595, 0.409, 0.867, 2.12, (0.037, 0.052, 0.125, 0.450)),
    ],
)
def test_synthetic_neurons(noise, raw, ceiling, v3, v2, tolerance):
    features, signal, recordings = synthetic(noise)
    result = engine.explained_variance(features, recordings, STRATA)
    assert result.correlations.shape == result.reliabilities.shape == (10, 60)
    assert result.raw == pytest.approx(raw, abs=tolerance[0])
    assert result.ceiling == pytest.approx(ceiling, abs=tolerance[1])
    assert result.score() == pytest.approx(v3, abs=tolerance[2])
    assert result.score("v1-v2") == pytest.approx(v2, abs=tolerance[3])
    assert result.score() <= 1
    # v3 = r^2 / c, v1-v2 = (r / c)^2.
    assert result.score("v1-v2") * result.ceiling == pytest.approx(result.score("v3"))


@pytest.mark.parametrize("noise", [0.5, 2.0, 5.0])
def test_ceiling_is_the_theoretical_reliability(noise):
    _, signal, recordings = synthetic(noise)
    variance = signal.var(axis=0)
    theory = np.median(variance / (variance + noise**2 / 20))
    # The sampling error of a median of 60 correlations over 135 images.
    ceiling = np.median(engine.reliabilities(recordings), axis=1).mean()
    assert ceiling == pytest.approx(theory, abs=0.03)


def test_the_best_prediction_is_bound_by_the_square_root_of_the_reliability():
    _, signal, recordings = synthetic(2.0)
    result = engine.explained_variance(signal, recordings, STRATA, components=11)
    variance = signal.var(axis=0)
    bound = np.sqrt(np.median(variance / (variance + 4 / 20)))
    assert bound - 0.03 < result.raw < bound + 0.01


def test_neurons_without_noise_are_explained_fully_whatever_their_scale():
    features, signal, _ = synthetic(0.0)
    scaled = signal * np.logspace(-3, 3, 60) + np.linspace(-5, 5, 60)
    recordings = np.repeat(scaled[:, None], 4, axis=1)
    result = engine.explained_variance(signal[:, :12], recordings, STRATA, components=12)
    assert result.score() == pytest.approx(1.0, abs=1e-9)
    assert result.ceiling == pytest.approx(1.0, abs=1e-12)
    assert features.shape == (135, 400)


@pytest.mark.slow
def test_features_of_other_images_explain_nothing():
    features, _, recordings = synthetic(2.0)
    shuffled = np.random.default_rng(1).permutation(features)
    result = engine.explained_variance(shuffled, recordings, STRATA)
    assert abs(result.raw) < 0.15
    assert result.score() < 0.03


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_rotation_changes_nothing():
    features, _, recordings = synthetic(2.0)
    result = engine.explained_variance(features, recordings, STRATA, splits=2)
    neurons = recordings.mean(axis=1)
    splitter = engine.StratifiedShuffleSplit(2, train_size=0.9, random_state=1)
    for split, (fit, test) in enumerate(splitter.split(features, STRATA)):
        assert (len(fit), len(test)) == (121, 14)
        regression = PLSRegression(25, scale=False).fit(features[fit], neurons[fit])
        predicted = regression.predict(features[test])
        expected = [np.corrcoef(predicted[:, n], neurons[test, n])[0, 1] for n in range(60)]
        np.testing.assert_allclose(result.correlations[split], expected, atol=1e-9)


def test_rotated_features_keep_all_inner_products(monkeypatch):
    features = np.random.default_rng(0).normal(3.0, 1.0, (9, 31)).astype(np.float32)
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    for chunk in (4, 31, 100):
        monkeypatch.setattr(engine, "_CHUNK", chunk)
        rotated = engine.rotated(features)
        assert rotated.shape == (9, 9)
        np.testing.assert_allclose(rotated @ rotated.T, centred @ centred.T, atol=1e-10)
    narrow = engine.rotated(features[:, :3])
    assert narrow.shape == (9, 3)
    np.testing.assert_allclose(narrow @ narrow.T, centred[:, :3] @ centred[:, :3].T, atol=1e-10)


def test_reliability_is_spearman_brown_of_the_halves():
    recordings = np.random.default_rng(0).normal(size=(50, 2, 3)) + np.arange(50)[:, None, None] / 9
    # Two repetitions can be halved in one way only.
    found = engine.reliabilities(recordings, half_splits=3)
    r = [np.corrcoef(recordings[:, 0, n], recordings[:, 1, n])[0, 1] for n in range(3)]
    np.testing.assert_allclose(found, np.tile([2 * x / (1 + x) for x in r], (3, 1)), rtol=1e-12)


def test_halves_that_are_opposite_have_no_reliability():
    """Where r is -1, the formula divides by zero."""
    recordings = np.random.default_rng(0).normal(size=(4, 2, 2))
    recordings[:, 0, 1], recordings[:, 1, 1] = [-1, 1, -1, 1], [2, -2, 2, -2]
    found = engine.reliabilities(recordings, half_splits=3)
    assert np.isnan(found[:, 1]).all() and np.isfinite(found[:, 0]).all()


@pytest.mark.slow
def test_seeds_and_strata():
    features, _, recordings = synthetic(2.0)

    def run(**changes):
        arguments = {"splits": 2, "half_splits": 2, "components": 12} | changes
        return engine.explained_variance(features, recordings, STRATA, **arguments)

    once, again, other = run(), run(), run(seed=2)
    np.testing.assert_array_equal(once.correlations, again.correlations)
    np.testing.assert_array_equal(once.reliabilities, again.reliabilities)
    assert not np.array_equal(once.correlations, other.correlations)
    assert not np.array_equal(once.reliabilities, other.reliabilities)
    names = np.where(STRATA == 0, "noise", "texture")
    named = engine.explained_variance(
        features, recordings, names, splits=2, half_splits=2, components=12
    )
    np.testing.assert_array_equal(named.correlations, once.correlations)


def test_features_of_half_precision_span_what_they_span_in_single():
    """Rounding errors of 10 bits lie below 25 of their dimensions, and above the 13th of 12."""
    rng = np.random.default_rng(0)
    falling = rng.standard_normal((len(STRATA), 200)) / np.arange(1, 201)
    half = (falling @ np.linalg.qr(rng.standard_normal((200, 200)))[0]).astype(np.float16)
    recordings = half[:, :4, None].astype(float) + 0.1 * rng.standard_normal((len(STRATA), 4, 6))
    recordings = np.moveaxis(recordings, 1, 2)
    options = {"strata": STRATA, "splits": 2, "half_splits": 2}
    found, expected = (
        engine.explained_variance(features, recordings, components=25, **options)
        for features in (half, half.astype(np.float32))
    )
    np.testing.assert_array_equal(found.correlations, expected.correlations)
    low = (half[:, :12].astype(float) @ rng.standard_normal((12, 40))).astype(np.float16)
    with pytest.raises(ValueError, match="components must be at most 12"):
        engine.explained_variance(low, recordings, components=13, **options)


def test_rounding_errors_of_features_with_a_large_mean_span_nothing():
    """They are those of the features, not of the differences between images."""
    rng = np.random.default_rng(0)
    low = rng.standard_normal((len(STRATA), 20)) @ rng.standard_normal((20, 500))
    raised = (low + 160 * low.std()).astype(np.float32)
    recordings = low[:, None, :4] + 0.1 * rng.standard_normal((len(STRATA), 6, 4))
    options = {"strata": STRATA, "splits": 2, "half_splits": 2}
    with pytest.raises(ValueError, match="components must be at most 20, the dimensions"):
        engine.explained_variance(raised, recordings, components=25, **options)
    assert engine.explained_variance(raised, recordings, components=20, **options).raw > 0.9


def test_negative_correlation_scores_0():
    result = engine.ExplainedVariance(np.full((2, 3), -0.5), np.full((2, 3), 0.8))
    assert result.raw == -0.5
    assert result.score() == result.score("v1-v2") == 0.0


def test_neurons_that_are_constant_on_held_out_images_are_left_out():
    result = engine.ExplainedVariance(
        np.array([[np.nan, 0.4, 0.6], [0.2, 0.2, 0.2]]), np.full((1, 3), 0.5)
    )
    assert result.raw == pytest.approx((0.5 + 0.2) / 2)


def test_neurons_that_are_all_constant_on_held_out_images_are_refused():
    """Their only neuron fires for one image, and no correlation can be told for the others."""
    recordings = np.zeros((40, 2, 1))
    recordings[0] = 1.0
    features = np.random.default_rng(0).standard_normal((40, 5))
    with pytest.raises(ValueError, match="is constant over the held-out images of a split"):
        engine.explained_variance(features, recordings, np.arange(40) % 2, components=2)


def test_components_are_at_most_the_dimensions_of_the_images_to_fit():
    """Each of the first 12 images has a dimension of its own, and some are held out."""
    rng = np.random.default_rng(0)
    features = np.eye(40, 12)
    features[12:] = rng.integers(0, 2, (28, 1))
    recordings = rng.standard_normal((40, 2, 3))
    with pytest.raises(ValueError, match="components must be at most 1[01], the dimensions"):
        engine.explained_variance(features, recordings, np.arange(40) % 2, components=12)


def test_noise_alone_has_no_score():
    """A positive ceiling by chance does not make a score of a correlation by chance."""
    rng, refused = np.random.default_rng(0), 0
    features = rng.standard_normal((len(STRATA), 20))
    for _ in range(10):
        noise = rng.standard_normal((len(STRATA), 6, 8))
        result = engine.explained_variance(
            features, noise, STRATA, components=3, splits=2, half_splits=4
        )
        try:
            result.score()
        except ValueError as error:
            assert "have no reliable signal" in str(error)
            refused += 1
    assert refused >= 9


def test_unknown_version_and_unreliable_recordings_are_refused():
    result = engine.ExplainedVariance(np.ones((1, 1)), np.full((1, 1), -0.1))
    with pytest.raises(ValueError, match="version must be one of v1-v2, v3; got 'v2'"):
        result.score("v2")
    with pytest.raises(ValueError, match="no reliable signal: their ceiling is -0.1"):
        result.score()


def _with(array, index, value):
    changed = np.array(array, np.float64)
    changed[index] = value
    return changed


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, r: {"features": f[:-1]}, "with the 135 images of the recordings"),
        (lambda f, r: {"features": f[:, 0]}, r"features must have shape \(images, ...\)"),
        (lambda f, r: {"features": f[:, :20]}, "at most the 20 features, got 25"),
        (lambda f, r: {"features": _with(f, (3, 4), np.nan)}, "features must be finite"),
        (lambda f, r: {"features": np.ones_like(f)}, "features must vary between images"),
        (lambda f, r: {"features": np.tile(f[:, :12], 4)}, "components must be at most 12, the"),
        (lambda f, r: {"recordings": r.mean(axis=1)}, "recordings must have shape"),
        (lambda f, r: {"recordings": r[:, :1]}, r"repetitions >= 2, neurons\)"),
        (lambda f, r: {"recordings": _with(r, (0, 0, 7), np.inf)}, r"neurons \[7\] are not"),
        (lambda f, r: {"recordings": _with(r, np.s_[..., 5], 1.0)}, r"neurons \[5\] are constant"),
        (lambda f, r: {"strata": STRATA[:-1]}, r"strata must be text or integers of shape \(135"),
        (lambda f, r: {"strata": STRATA * 0.5}, "strata must be text or integers"),
        (lambda f, r: {"strata": _with(STRATA, 0, 7).astype(int)}, "the smallest of 1 images"),
        (lambda f, r: {"strata": np.arange(135) % 15}, "no more than the 14 images"),
        (lambda f, r: {"components": 0}, "components must be an integer >= 1"),
        (lambda f, r: {"components": 121}, "components must be below the 121 images"),
        (lambda f, r: {"splits": 1.5}, "splits must be an integer >= 1"),
        (lambda f, r: {"half_splits": True}, "half_splits must be an integer >= 1"),
        (
            lambda f, r: {"train_fraction": 1.0},
            "train_fraction must be a finite number > 0 and < 1, got 1.0",
        ),
        (
            lambda f, r: {"train_fraction": 0.99},
            "train_fraction must leave at least 3 of the 135 .*; got 0.99, which leaves 2",
        ),
        (
            lambda f, r: {"recordings": np.ma.masked_where(r == r[0, 0, 7], r)},
            r"recordings must be finite; neurons \[7\] are not",
        ),
        (lambda f, r: {"features": np.ma.masked_less(f, 0)}, "features must be finite"),
        (lambda f, r: {"features": f + 1j}, "features must be real numbers, got complex"),
        (lambda f, r: {"strata": STRATA.astype(object)}, r"to text with labels.astype\(str\)"),
        (lambda f, r: {"seed": 2**32}, "seed must be an integer >= 0 and <= 4294967295"),
        (lambda f, r: {"seed": -1}, "seed must be an integer >= 0"),
    ],
)
def test_bad_input_is_refused(change, message):
    features, _, recordings = synthetic(2.0)
    arguments = {"features": features, "recordings": recordings, "strata": STRATA}
    arguments |= change(features, recordings)
    with pytest.raises(ValueError, match=message):
        engine.explained_variance(**arguments)


def test_a_stratum_may_have_two_images():
    """One of them is fitted and one held out."""
    features, _, recordings = synthetic(2.0)
    strata = np.where(np.arange(135) < 2, 2, STRATA)
    options = {"components": 12, "splits": 1, "half_splits": 1}
    result = engine.explained_variance(features, recordings, strata, **options)
    assert np.isfinite(result.score())


def test_too_few_images_for_the_components():
    features, _, recordings = synthetic(2.0)
    with pytest.raises(ValueError, match="below the 25 images that are fitted"):
        engine.explained_variance(features[:28], recordings[:28], STRATA[:28])


def noisy_layer(key, images):
    """Average 4 x 4 pixels; the first channel may be negative, the second has noise."""
    pooled = images[..., :1].reshape(images.shape[0], 2, 4, 2, 4).mean(axis=(2, 4))
    noise = jax.vmap(lambda k: jax.random.normal(k, (2, 2), jnp.float32))(key)
    return jnp.stack([pooled - 0.5, pooled + noise], axis=-1)


def test_layer_features_are_unscaled_and_do_not_depend_on_the_batch():
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8)).astype(np.uint8)
    key = jax.random.key(3)
    features = layer_features(noisy_layer, key, images, batch_size=2)
    assert features.shape == (5, 8) and features.dtype == np.float32
    pooled = images.reshape(5, 2, 4, 2, 4).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(features[:, ::2], pooled.reshape(5, 4) - 0.5, atol=1e-6)
    np.testing.assert_allclose(
        layer_features(noisy_layer, key, images, batch_size=5), features, atol=1e-6
    )
    assert np.unique(features[:, 1] - features[:, 0]).size == 5


@pytest.mark.untyped
def test_bad_images_of_layer_features_are_refused():
    images = np.zeros((3, 8, 8), np.uint8)
    key = jax.random.key(0)
    with pytest.raises(TypeError, match="images must be a uint8 array, got float32"):
        layer_features(noisy_layer, key, images.astype(np.float32))
    with pytest.raises(ValueError, match=r"images must have shape \(n, s, s\)"):
        layer_features(noisy_layer, key, images[0])
    with pytest.raises(TypeError, match="key must be a typed key"):
        layer_features(noisy_layer, jnp.zeros(2, jnp.uint32), images)
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1"):
        layer_features(noisy_layer, key, images, batch_size=0)
    with pytest.raises(ValueError, match="not finite"):
        layer_features(lambda k, x: jnp.log(x[:, 0, :, 0] - 1.0), key, images)
