"""The condition ``Geometry``: manifolds in the layers of a network."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy

from tests.evaluation.tiny import tiny_evaluation, tiny_images, tiny_trained
from tests.report.test_charts import rows_of
from vone_jax import evaluation, geometry, prng, report
from vone_jax.evaluation import suites
from vone_jax.evaluation.geometry import reduced_responses
from vone_jax.report import layer_charts
from vone_jax.results import Run, Runs


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


def glue(manifolds):
    return geometry.glue(key_of_all(), manifolds, draws=40)


def measured(condition, network, directory, **fields):
    condition.check(network)
    return evaluation.evaluate(tiny_evaluation(network, directory, **fields), condition)


def same(result, found):
    for name in ("capacity", "radius", "dimension"):
        expected = dataclasses.asdict(getattr(found, name))
        row = {each: result.find(name)[each] for each in expected}
        assert row == pytest.approx(expected, rel=1e-4)


def test_class_manifolds_are_those_of_the_theory_in_any_batches(network, tmp_path):
    images, labels = tiny_images(10)
    keys = prng.fold(example_keys(range(10), "judge"), 0)
    responses = np.asarray(network.response_fn("v1")(keys, images)).reshape(10, -1)
    # Classes have 4, 3 and 3 images.
    manifolds = np.stack([responses[labels == each][:3] for each in range(3)])
    found = glue(manifolds)
    condition = evaluation.Geometry("v1", draws=40)
    result = measured(condition, network, tmp_path, batch_size=4)
    same(result, found)
    assert (result.value("manifolds"), result.value("points")) == (3, 3)
    # Classes of one image are no manifolds.
    few = condition.numbers({name: array[:4] for name, array in result.arrays.items()})
    assert not few.measured and "fewer than two manifolds" in few.warnings[0]


def test_images_under_noise_and_in_a_ball_are_manifolds(network, tmp_path):
    # Of ten images, the first and the sixth are taken.
    images, keys = tiny_images()[0][::5], example_keys((0, 5), "judge")
    points = [network.response_fn("v1")(prng.fold(keys, m), images) for m in range(5)]
    expected = np.stack(points, axis=1).reshape(2, 5, -1)
    noise = evaluation.Geometry("v1", "noise", images=2, points=5, draws=40)
    same(measured(noise, network, tmp_path), glue(expected))
    quiet = tiny_trained(noise=None)
    with pytest.raises(ValueError, match="no noise"):
        noise.check(quiet)
    spread = {}
    for kind, eps in (("corners", 0.01), ("corners", 0.1), ("fgsm", 0.1)):
        ball = evaluation.Geometry("v1", kind, eps, images=2, points=5, draws=40)
        result = measured(ball, quiet, tmp_path / "quiet")
        spread[kind, eps] = result.value("radius")
        found = result.arrays["points"]
        assert found.shape[:2] == (2, 5) and len(np.unique(found, axis=1)[0]) > 1
    assert 0 < spread["corners", 0.01] < min(spread["corners", 0.1], spread["fgsm", 0.1])


def test_changed_images_are_told_from_clean_ones_under_other_noise(network, tmp_path):
    """The clean manifold has draws of its own, so no change is told only by chance."""
    images, keys = tiny_images()[0][::5], example_keys((0, 5), "judge")
    ball = evaluation.Geometry("v1", "corners", 1e-6, images=2, points=6, draws=40)
    result = measured(ball, network, tmp_path)
    clean = [network.response_fn("v1")(prng.fold(keys, 6 + m), images) for m in range(6)]
    np.testing.assert_allclose(
        result.arrays["clean"], np.stack(clean, axis=1).reshape(2, 6, -1), rtol=1e-5, atol=1e-5
    )
    told, distance = geometry.separability(result.arrays["clean"], result.arrays["points"])
    assert result.value("told from clean") == told.mean() < 0.9
    # Two images: the interval of Student's t, and not of the normal distribution.
    ends = scipy.stats.t.interval(0.95, 1, told.mean(), scipy.stats.sem(told))
    row = result.find("told from clean")
    assert (row["low"], row["high"]) == pytest.approx(np.clip(ends, 0, 1))
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
    told, distance = geometry.separability(clean, changed)
    ball = evaluation.Geometry("v1", "corners", 0.1, images=3, points=8)
    keys = np.zeros((3, 2), np.uint32)
    arrays = {"points": changed, "clean": clean, "key": keys, "place": np.zeros(3, int)}
    rows = {row["number"]: row for row in ball.numbers(arrays).measured}
    for name, of, limits in (
        ("told from clean", told, (0, 1)), ("distance from clean", distance, (0, np.inf)),
    ):  # fmt: skip
        ends = scipy.stats.t.interval(0.95, 2, of.mean(), scipy.stats.sem(of))
        row = rows[name]
        assert (row["low"], row["high"]) == pytest.approx(np.clip(ends, *limits)), name
        assert min(ends) < 0 or max(ends) > limits[1]


def test_corrupted_images_are_manifolds_that_grow_with_severity(tmp_path):
    quiet, radius = tiny_trained(noise=None), []
    for severity in (1, 5):
        condition = evaluation.Geometry(
            "v1", "corruption", images=2, points=6, draws=40,
            corruption="gaussian_noise", severity=severity,
        )  # fmt: skip
        result = measured(condition, quiet, tmp_path)
        assert result.row["condition"] == "geometry of corruption"
        assert result.row["severity"] == severity
        radius.append(result.value("radius"))
    assert 0 < radius[0] < radius[1]
    with pytest.raises(ValueError, match="needs a corruption"):
        evaluation.Geometry("v1", "noise", corruption="fog", severity=1)
    with pytest.raises(ValueError, match="needs a corruption"):
        evaluation.Geometry("v1", "corruption", corruption="fog")


def test_manifolds_that_no_plane_separates_have_no_capacity_but_a_warning(network, tmp_path):
    condition = evaluation.Geometry("logits", "corners", 0.2, images=8, points=4, draws=40)
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


def test_the_suite_has_all_layers_and_the_page_draws_them(network, tmp_path):
    given = evaluation.Evaluation(network)
    made = suites.conditions(["geometry"], given)
    assert len(made) == 9 * len(network.layers) and made[0].layer == network.layers[0]
    chosen = dataclasses.replace(given, layers=("logits",), eps=(0.1, 0.2))
    rows = [each.row for each in suites.conditions(["geometry"], chosen)]
    assert {row["layer"] for row in rows} == {"logits"}
    assert [(row["condition"].split()[-1], row.get("eps")) for row in rows] == [
        ("classes", None), ("noise", None), ("corners", 0.1), ("corners", 0.2), ("fgsm", 0.1),
        ("fgsm", 0.2), *[("corruption", None)] * 5,
    ]  # fmt: skip
    assert [row["severity"] for row in rows[6:]] == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="layers"):
        evaluation.Geometry("v3").check(network)
    early = measured(evaluation.Geometry("v1", draws=40), network, tmp_path / "results")
    row, *rows = ({**row, "layer": "logits"} for row in (early.row, *early.rows))
    late = dataclasses.replace(early, row=row, rows=rows, details={"place": 99})
    capacity, *_ = layer_charts.geometry(Runs([Run(tmp_path, "tiny", [late, early])]))
    rows = rows_of(capacity)
    assert [row["layer"] for row in rows] == ["v1", "logits"]
    assert rows[1]["value"] == late.value("capacity")
    page = report.write([tmp_path / "results"], tmp_path / "page.html").read_text()
    assert '<section id="geometry">' in page
