"""Neural-similarity regularisation against NumPy and closed forms."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vone_jax import models, training
from vone_jax.training import Similarity
from vone_jax.training.objectives import similarity


def features(seed, shape=(5, 4, 4, 3)):
    return jax.random.normal(jax.random.key(seed), shape)


def test_similarity_is_the_correlation_coefficient():
    found = similarity.correlation(features(0))
    flat = np.asarray(features(0)).reshape(5, -1)
    np.testing.assert_allclose(found, np.corrcoef(flat), atol=1e-6)


@pytest.mark.slow
def test_constant_features_have_no_similarity_and_a_finite_gradient():
    constant = features(1).at[2].set(3.0)
    assert np.all(np.asarray(similarity.correlation(constant))[2] == 0)
    gradient = jax.grad(lambda x: jnp.sum(similarity.correlation(x)))(constant)
    assert np.isfinite(gradient).all()


def test_loss_is_the_mean_squared_difference_of_inverse_hyperbolic_tangents():
    layers = {"a": features(2), "b": features(3, (5, 7)), "other": features(4)}
    weights = jnp.array([0.3, -1.0])
    target = np.corrcoef(np.random.RandomState(0).randn(5, 40)).astype(np.float32)
    # Equal images count as similar by 0.9999, since the tangent is infinite at 1.
    target[0, 1], clipped = 1.0, target.copy()
    clipped[0, 1] = 0.9999
    gamma = np.exp(weights) / np.exp(weights).sum()
    ours = sum(
        g * np.corrcoef(np.asarray(layers[name]).reshape(5, -1))
        for g, name in zip(gamma, "ab", strict=True)
    )
    pairs = np.triu_indices(5, k=1)
    expected = np.mean((np.arctanh(ours[pairs]) - np.arctanh(clipped[pairs])) ** 2)
    found = similarity.similarity_loss(layers, ("a", "b"), weights, jnp.asarray(target))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def experiment(image_size=28, **fields):
    return training.Experiment(
        name="x",
        model=models.Spec(name="resnet18", image_size=image_size, in_channels=1, width=2),
        data=training.DataConfig(source="fashion_mnist_small", batch_size=8),
        objectives=(Similarity(**fields),),
    )


def made(run):
    (config,) = run.objectives
    return similarity.make_targets(config, run)


def targets(**fields):
    return made(experiment(images=20, batch_size=8, **fields))


def test_pixel_similarities_below_the_threshold_are_zero():
    found = targets(target="pixels", threshold=0.8)
    all_of_them = np.corrcoef(found["images"].reshape(20, -1))
    expected = np.where(np.abs(all_of_them) < 0.8, 0, all_of_them)
    assert 0 < np.count_nonzero(np.triu(expected, 1)) < 190
    np.testing.assert_allclose(found["similarity"], expected, atol=1e-5)


def test_v1_similarities_are_those_of_centred_population_responses():
    from vone_jax import models
    from vone_jax.v1 import noise_free_responses

    found = targets(target="v1")
    responses = noise_free_responses(models.v1_config(28, 1), jnp.asarray(found["images"]))
    responses = np.asarray(responses, np.float64).reshape(20, -1)
    responses -= responses.mean(axis=0)
    responses /= np.linalg.norm(responses, axis=1, keepdims=True)
    np.testing.assert_allclose(found["similarity"], responses @ responses.T, atol=1e-4)


def test_images_are_cropped_as_those_of_the_run(tmp_path):
    """A crop of half the side shows the bright middle of an image without its dark frame."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:48, 16:48] = np.random.default_rng(0).integers(64, 256, (32, 32, 3))
    for place in ("train/a/1.png", "train/b/2.png"):
        (tmp_path / place).parent.mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / place)
    whole = experiment(images=2, batch_size=2, target="pixels")
    run = replace(
        whole,
        model=replace(whole.model, in_channels=3, image_size=32),
        data=replace(whole.data, source=f"folder:{tmp_path}", center_crop=0.5),
    )
    expected = np.stack([image[16:48, 16:48]] * 2) / 255
    np.testing.assert_allclose(made(run)["images"], expected, atol=1e-6)


def test_shuffling_keeps_the_values_and_moves_them():
    straight, shuffled = targets(target="pixels"), targets(target="pixels", shuffled=True)
    assert np.array_equal(straight["images"], shuffled["images"])
    assert not np.allclose(straight["similarity"], shuffled["similarity"], atol=0.1)
    np.testing.assert_allclose(
        np.sort(straight["similarity"], axis=None), np.sort(shuffled["similarity"], axis=None)
    )
    # Whole images change places.
    np.testing.assert_array_equal(shuffled["similarity"], shuffled["similarity"].T)
    np.testing.assert_allclose(np.diag(shuffled["similarity"]), 1, rtol=1e-5)


def matrix(tmp_path, **changes):
    path = tmp_path / "matrix.npz"
    images = np.random.RandomState(0).randint(0, 256, (6, 28, 28)).astype(np.uint8)
    similarity = np.corrcoef(images.reshape(6, -1))
    content = {"images": images, "similarity": similarity} | changes
    np.savez(path, **{name: value for name, value in content.items() if value is not None})
    return path


def test_a_measured_matrix_is_read(tmp_path):
    fields = {"target": "neural", "path": str(matrix(tmp_path)), "images": 6, "batch_size": 4}
    found = made(experiment(**fields))
    assert found["images"].shape == (6, 28, 28, 1) and found["images"].dtype == np.float32
    assert found["images"].max() <= 1
    np.testing.assert_allclose(np.diag(found["similarity"]), 1.0)
    with pytest.raises(ValueError, match=r"must have shape \(32, 32, 1\) for this network"):
        made(experiment(image_size=32, **fields))


def test_pixels_that_are_opposite_are_not_taken_for_unlike():
    image = np.random.default_rng(0).random((8, 8, 1), np.float32)
    config = Similarity("pixels", images=2, batch_size=2, threshold=0.5)
    found = similarity._similarity(config, np.stack([image, 1 - image]))
    np.testing.assert_allclose(found, [[1, -1], [-1, 1]], atol=1e-5)


_ASYMMETRIC = np.eye(6) + np.triu(np.full((6, 6), 0.5), 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"similarity": None}, "lacks similarity"),
        ({"similarity": np.eye(5)}, r"shape \(6, 6\)"),
        ({"similarity": np.full((6, 6), np.nan)}, r"lie in \[-1, 1\]"),
        ({"similarity": _ASYMMETRIC}, "symmetric"),
        ({"similarity": np.zeros((6, 6))}, "diagonal"),
        ({"images": np.full((6, 28, 28), 9.0)}, r"in \[0, 1\]"),
    ],
)
def test_a_wrong_matrix_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        similarity.load_matrix(matrix(tmp_path, **changes))


def test_an_unknown_layer_is_named_before_any_training(tmp_path):
    mistyped = experiment(target="v1", layers=("layer1", "layr2"))
    with pytest.raises(ValueError, match="got 'layr2'; did you mean 'layer2'"):
        training.train(mistyped, tmp_path / "run")
