"""Explained variance of synthetic neurons, whose reliability is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vone_jax.neurophysiology import explained_variance as engine
from vone_jax.neurophysiology import recording
from vone_jax.neurophysiology.recording import layer_features

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: neural)")
pytestmark = pytest.mark.extras

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


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_rotation_changes_nothing():
    features, _, recordings = synthetic(2.0)
    result = engine.explained_variance(features, recordings, STRATA, splits=2)
    neurons = recordings.mean(axis=1)
    from sklearn.cross_decomposition import PLSRegression
    from sklearn.model_selection import StratifiedShuffleSplit

    splitter = StratifiedShuffleSplit(2, train_size=0.9, random_state=1)
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
        monkeypatch.setattr(recording, "_COLUMNS", chunk)
        rotated = recording.rotated(features)
        assert rotated.shape == (9, 9)
        np.testing.assert_allclose(rotated @ rotated.T, centred @ centred.T, atol=1e-10)
    narrow = recording.rotated(features[:, :3])
    assert narrow.shape == (9, 3)
    np.testing.assert_allclose(narrow @ narrow.T, centred[:, :3] @ centred[:, :3].T, atol=1e-10)


def test_reliability_is_spearman_brown_of_the_halves():
    recordings = np.random.default_rng(0).normal(size=(50, 2, 3)) + np.arange(50)[:, None, None] / 9
    # Two repetitions can be halved in one way only.
    found = engine.reliabilities(recordings, half_splits=3)
    r = [np.corrcoef(recordings[:, 0, n], recordings[:, 1, n])[0, 1] for n in range(3)]
    np.testing.assert_allclose(found, np.tile([2 * x / (1 + x) for x in r], (3, 1)), rtol=1e-12)


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


def test_neurons_that_are_constant_on_held_out_images_are_left_out():
    result = engine.ExplainedVariance(
        np.array([[np.nan, 0.4, 0.6], [0.2, 0.2, 0.2]]), np.full((1, 3), 0.5)
    )
    assert result.raw == pytest.approx((0.5 + 0.2) / 2)


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


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, r: {"features": np.full_like(f, np.nan)}, "features must be finite"),
        (lambda f, r: {"features": np.tile(f[:, :12], 4)}, "components must be at most 12"),
        (lambda f, r: {"recordings": r * (np.arange(60) != 5)}, r"\[5\] are constant"),
    ],
)
def test_bad_input_is_refused(change, message):
    features, _, recordings = synthetic(2.0)
    arguments = {"features": features, "recordings": recordings, "strata": STRATA}
    arguments |= change(features, recordings)
    with pytest.raises(ValueError, match=message):
        engine.explained_variance(**arguments)


def noisy_layer(key, images):
    """Average 4 x 4 pixels; the first channel may be negative, the second has noise."""
    pooled = images[..., :1].reshape(images.shape[0], 2, 4, 2, 4).mean(axis=(2, 4))
    noise = jax.vmap(lambda k: jax.random.normal(k, (2, 2), jnp.float32))(key)
    return jnp.stack([pooled - 0.5, pooled + noise], axis=-1)


def test_layer_features_have_the_inner_products_of_the_layer(monkeypatch):
    """Recorded in parts and in other batches, they are the same; the noise is that of the image."""
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8)).astype(np.uint8)
    key = jax.random.key(3)
    keys = recording.prng.index_keys(recording.prng.stream(key, "explained variance"), np.arange(5))
    layer = np.asarray(recording.show(noisy_layer, keys, images, 3)).reshape(5, -1)
    centred = layer - layer.mean(axis=0)
    for part, batch_size in ((2**26, 5), (2**26, 2), (12, 4)):
        monkeypatch.setattr(recording, "_PART", part)
        features = layer_features(noisy_layer, key, images, batch_size=batch_size)
        assert features.shape == (5, 5)
        np.testing.assert_allclose(features @ features.T, centred @ centred.T, atol=1e-5)


def test_recordings_with_their_images_are_explained_by_a_layer(tmp_path):
    """From a file to the score, of neurons that read the layer."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 16, 16), np.uint8)

    def layer(keys, x):
        return x[:, 8:24, 8:24].reshape(len(x), 4, 4, 4, 4).mean((2, 4)).reshape(len(x), 16)

    shown = engine.textures.reframe(images, 4.0, 8.0, 32)
    read = np.asarray(recording.show(layer, jax.random.key(0), shown, 1)) @ rng.normal(size=(16, 9))
    responses = (read / read.std(0))[:, None] + rng.normal(size=(60, 12, 9))
    strata = np.tile(["noise", "texture"], 30)
    np.savez(tmp_path / "r.npz", responses=responses, strata=strata, images=images)
    recordings = engine.load_recordings(tmp_path / "r.npz")
    features = layer_features(layer, jax.random.key(0), shown, 1)
    result = engine.explained_variance(features, responses, strata, components=15)
    assert result.score() > 0.9
    with pytest.raises(ValueError, match="components must be at most 16"):
        engine.of_layer(layer, jax.random.key(0), recordings, 8.0, 32, 1)
    # A layer says its own field: half of the images is cut out, and gratings would not fit in.
    cut = engine.textures.reframe(images, 4.0, 2.0, 32)
    np.testing.assert_array_equal(cut, engine.textures.reframe(images[:, 4:12, 4:12], 2.0, 2.0, 32))
    without = engine.Recordings(responses, strata)
    with pytest.raises(ValueError, match="must hold the images"):
        engine.of_layer(layer, jax.random.key(0), without, 8.0, 32, 1)


def test_recordings_in_a_csv_file_are_those_of_arrays(tmp_path):
    """In any order of the lines, with any names of the repetitions."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 6, 6), np.uint8)
    responses = rng.normal(size=(4, 3, 2))
    lines = []
    for image, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{image}.png")
        lines += [
            f"{image}.png,{image % 2},{10 * trial},n{neuron},{responses[image, trial, neuron]},2.5"
            for trial in range(3)
            for neuron in range(2)
        ]
    path, header = tmp_path / "r.csv", "image,stratum,repetition,neuron,response,degrees"
    path.write_text("\n".join([header, *rng.permutation(lines)]))
    assert engine.holds_recordings(path)
    found = engine.load_recordings(path)
    np.testing.assert_array_equal(found.responses, responses)
    np.testing.assert_array_equal(found.images, images)
    assert found.strata.tolist() == ["0", "1", "0", "1"] and found.degrees == 2.5
    assert engine.recording_files(path) == [path, *(tmp_path / f"{n}.png" for n in range(4))]
    for kept in (lines[:-1], lines[:-2]):
        path.write_text("\n".join([header, *kept]))
        with pytest.raises(ValueError, match="the same number of repetitions"):
            engine.load_recordings(path)
