"""The condition ``Geometry``: manifolds in the layers of a network."""

import dataclasses
import types

import jax
import numpy as np
import pytest
import scipy

from tests.evaluation.tiny import tiny_evaluation, tiny_images, tiny_trained
from vone_jax import evaluation, prng
from vone_jax.perception import Geometry, glue
from vone_jax.perception.geometry import geometry, reduced_responses


@pytest.fixture(scope="module")
def network():
    return tiny_trained()


def example_keys(index, purpose):
    """The keys of examples of an evaluation with seed 0."""
    root = prng.stream(jax.random.key(0), "evaluation")
    return prng.stream(prng.index_keys(root, np.asarray(index)), purpose)


def key_of_all():
    """The key of numbers of all examples together."""
    return example_keys([0], "geometry")[0]


def glued(manifolds):
    return glue.glue(key_of_all(), manifolds, draws=40)


def measured(condition, network, directory, **fields):
    condition.check(network)
    return evaluation.evaluate(tiny_evaluation(network, directory, **fields), condition)


def same(result, found):
    for name in ("capacity", "radius", "dimension"):
        expected = dataclasses.asdict(getattr(found, name))
        row = {each: result.find(name)[each] for each in expected}
        assert row == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_class_manifolds_are_those_of_the_theory_in_any_batches(network, tmp_path):
    images, labels = tiny_images(10)
    keys = prng.fold(example_keys(range(10), "judge"), 0)
    responses = np.asarray(network.response_fn("v1")(keys, images)).reshape(10, -1)
    # Classes have 4, 3 and 3 images.
    manifolds = np.stack([responses[labels == each][:3] for each in range(3)])
    found = glued(manifolds)
    condition = Geometry("v1", draws=40)
    result = measured(condition, network, tmp_path, batch_size=4)
    same(result, found)
    assert (result.value("manifolds"), result.value("points")) == (3, 3)
    # Classes of one image are no manifolds.
    few = condition.result({name: array[:4] for name, array in result.arrays.items()}, None)
    assert not few.measured and "fewer than two manifolds" in few.warnings[0]


@pytest.mark.slow
def test_images_under_noise_and_in_a_ball_are_manifolds(network, tmp_path):
    # Of ten images, the first and the sixth are taken.
    images, keys = tiny_images()[0][::5], example_keys((0, 5), "judge")
    points = [network.response_fn("v1")(prng.fold(keys, m), images) for m in range(5)]
    expected = np.stack(points, axis=1).reshape(2, 5, -1)
    noise = Geometry("v1", "noise", images=2, points=5, draws=40)
    same(measured(noise, network, tmp_path), glued(expected))
    quiet = tiny_trained(noise=None)
    with pytest.raises(ValueError, match="no noise"):
        noise.check(quiet)
    spread = {}
    for kind, eps in (("corners", 0.01), ("corners", 0.1), ("fgsm", 0.1)):
        ball = Geometry("v1", kind, eps, images=2, points=5, draws=40)
        result = measured(ball, quiet, tmp_path / "quiet")
        spread[kind, eps] = result.value("radius")
        found = result.arrays["points"]
        assert found.shape[:2] == (2, 5) and len(np.unique(found, axis=1)[0]) > 1
    assert 0 < spread["corners", 0.01] < min(spread["corners", 0.1], spread["fgsm", 0.1])


def test_changed_images_are_told_from_clean_ones_under_other_noise(network, tmp_path):
    """The clean manifold has draws of its own, so no change is told only by chance."""
    images, keys = tiny_images()[0][::5], example_keys((0, 5), "judge")
    ball = Geometry("v1", "corners", 1e-6, images=2, points=6, draws=40)
    result = measured(ball, network, tmp_path)
    clean = [network.response_fn("v1")(prng.fold(keys, 6 + m), images) for m in range(6)]
    np.testing.assert_allclose(
        result.arrays["clean"], np.stack(clean, axis=1).reshape(2, 6, -1), rtol=1e-5, atol=1e-5
    )
    told, distance = glue.separability(result.arrays["clean"], result.arrays["points"])
    assert result.value("told from clean") == told.mean() < 0.9
    np.testing.assert_array_equal(result.values(result.find("told from clean")), told)
    assert result.value("distance from clean") == pytest.approx(distance.mean())
    # Without noise, all clean points are the same, and so is the distance with any number of them.
    large = dataclasses.replace(ball, eps=0.2)
    assert (
        measured(large, tiny_trained(noise=None), tmp_path / "quiet").value("told from clean") > 0.5
    )


def test_the_interval_of_a_share_ends_at_one_and_that_of_a_distance_at_zero():
    """Two images of three are told apart without an error, and one by chance alone."""
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((3, 8, 3))
    changed = rng.standard_normal((3, 8, 3)) + np.array([0.0, 50.0, 50.0])[:, None, None]
    told, distance = glue.separability(clean, changed)
    ball = Geometry("v1", "corners", 0.1, images=3, points=8)
    keys = np.zeros((3, 2), np.uint32)
    arrays = {"points": changed, "clean": clean, "key": keys}
    found = ball.result(arrays, types.SimpleNamespace(network=tiny_trained()))
    # Four invented images for a share (Agresti and Coull 1998), and Student's t for a distance.
    padded = np.concatenate([told, [0, 0, 1, 1]])
    half = scipy.stats.norm.ppf(0.975) * padded.std() / 7**0.5
    student = scipy.stats.t.interval(0.95, 2, distance.mean(), scipy.stats.sem(distance))
    for name, values, ends in (
        ("told from clean", told, (padded.mean() - half, padded.mean() + half)),
        ("distance from clean", distance, student),
    ):
        interval = found[name].interval
        limits = (0, 1) if name == "told from clean" else (0, np.inf)
        assert interval.value == pytest.approx(values.mean())
        assert (interval.low, interval.high) == pytest.approx(np.clip(ends, *limits)), name
        assert min(ends) < 0 or max(ends) > limits[1]
        np.testing.assert_array_equal(found[name].of, values)


def test_corrupted_images_are_manifolds_that_grow_with_severity(tmp_path):
    quiet, radius = tiny_trained(noise=None), []
    for severity in (1, 5):
        condition = Geometry(
            "v1", "corruption", images=2, points=6, draws=40,
            corruption="gaussian_noise", severity=severity,
        )  # fmt: skip
        result = measured(condition, quiet, tmp_path)
        assert result.row["manifold"] == "corruption" and result.row["severity"] == severity
        radius.append(result.value("radius"))
    assert 0 < radius[0] < radius[1]
    with pytest.raises(ValueError, match="needs a corruption"):
        Geometry("v1", "noise", corruption="fog", severity=1)
    with pytest.raises(ValueError, match="needs a corruption"):
        Geometry("v1", "corruption", corruption="fog")


def test_manifolds_that_no_plane_separates_have_no_capacity_but_a_warning(network, tmp_path):
    condition = Geometry("logits", "corners", 0.2, images=8, points=4, draws=40)
    result = measured(condition, network, tmp_path, examples=10)
    assert result.find("capacity") is None and "not defined" in result.warnings[0]
    assert result.value("told from clean") is not None


def test_many_features_are_projected_without_changing_distances():
    points = jax.random.normal(jax.random.key(1), (3, 64, 64, 1))
    keys = jax.random.split(jax.random.key(2), 3)
    project = jax.random.key(3)
    identity = jax.tree_util.Partial(lambda keys, images: images)
    found = np.asarray(reduced_responses(identity, keys, points, project))
    assert found.shape == (3, 1000)
    lengths = np.linalg.norm(found, axis=1) / np.linalg.norm(points.reshape(3, -1), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=0.1)
    again = reduced_responses(identity, keys[1:2], points[1:2], project)
    np.testing.assert_allclose(again[0], found[1], rtol=1e-3, atol=1e-3)


def test_the_suite_has_all_layers_in_the_order_in_which_they_are_drawn(network, tmp_path):
    given = evaluation.Evaluation(network)
    made = geometry(given)
    assert len(made) == 9 * len(network.layers) and made[0].layer == network.layers[0]
    rows = [each.row() for each in geometry(given, layers=("logits",), eps=(0.1, 0.2))]
    assert {row["layer"] for row in rows} == {"logits"}
    assert [(row["manifold"], row.get("eps")) for row in rows] == [
        ("classes", None), ("noise", None), ("corners", 0.1), ("corners", 0.2), ("fgsm", 0.1),
        ("fgsm", 0.2), *[("corruption", None)] * 5,
    ]  # fmt: skip
    assert [row["severity"] for row in rows[6:]] == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="layers"):
        Geometry("v3").check(network)
    result = measured(Geometry("v1", draws=40), network, tmp_path)
    assert {view.order for view in result.views} == {tuple(network.layers)}
    assert {view.number for view in result.views} == {"capacity", "radius", "dimension"}
