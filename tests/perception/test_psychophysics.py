"""The conditions ``Psychophysics`` and ``CriticalBands``, and decisions among 16 categories."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.evaluation.tiny import tiny_evaluation, tiny_images, tiny_source, tiny_trained
from tests.photographs import write_photographs
from vone_jax import corruptions, data, evaluation, prng, results
from vone_jax.network import Network
from vone_jax.perception import CriticalBands, Psychophysics, humans, in_categories
from vone_jax.perception.critical_bands import critical_bands, fit_channel
from vone_jax.perception.psychophysics import psychophysics

# The categories of classes in the file names of trials, "0005_cop_s01_c03_car_10_n02814533_2236".
IN_TRIALS = {
    "n03041632": "knife", "n03792782": "bicycle", "n02690373": "airplane", "n01532829": "bird",
    "n04111531": "oven", "n02814533": "car", "n02791124": "chair", "n03937543": "bottle",
    "n04505470": "keyboard", "n02504458": "elephant", "n03344393": "boat", "n02132136": "bear",
    "n02708093": "clock", "n02107312": "dog", "n02124075": "cat", "n03796401": "truck",
    "n04429376": "chair", "n02056570": "bird", "n02113978": "dog", "n04467665": "truck",
}  # fmt: skip


def imagenet(permuted=False, channels=1):
    """A network of ImageNet's classes, whose logits depend on the image."""
    names = np.array(data.imagenet_class_names())
    order = np.random.default_rng(5).permutation(1000) if permuted else np.arange(1000)
    weights = jax.random.normal(jax.random.key(7), (144, 1000))[:, order]

    def logits(keys, images):
        return 30 * (images[..., 0].reshape(len(images), -1) - 0.5) @ weights

    return Network("imagenet", logits, (12, 12, channels), tuple(names[order]))


def labelled(*labels):
    """Images of ImageNet's classes."""
    images = tiny_source(len(labels))
    pixels = np.stack([images[n]["image"] for n in range(len(labels))])
    return data.ArraySource(
        pixels, np.array(labels), class_names=data.imagenet_class_names(), name="few", split="test"
    )


def test_categories_are_those_of_the_trials():
    numbers = data.imagenet_class_names()
    category = {
        numbers[label]: name for name in humans.CATEGORIES for label in humans.imagenet_labels(name)
    }
    assert len(humans.CATEGORIES) == 16 and IN_TRIALS.items() <= category.items()
    # No class is in two of them.
    assert len(category) == sum(len(humans.imagenet_labels(n)) for n in humans.CATEGORIES) == 207


@pytest.mark.parametrize("permuted", [False, True])
def test_a_network_of_imagenet_decides_by_the_mean_probability_of_a_category(tmp_path, permuted):
    """Images of other classes do not count, and the order of the logits does not matter."""
    labels = (294, 0, 404, 555, 251, 766, 8)
    network, source = imagenet(permuted), labelled(*labels)
    job = tiny_evaluation(network, tmp_path, source=source, trained_on=False)
    condition = Psychophysics("contrast", levels=(1.0, 0.2))
    result = evaluation.evaluate(job, condition)
    images = np.stack([source[n]["image"] for n in range(7)]).astype(np.float32) / 255
    at = {name: n for n, name in enumerate(network.class_names)}
    names, numbers = list(humans.CATEGORIES), data.imagenet_class_names()
    truth = ["bear", None, "airplane", "truck", None, "oven", "bird"]
    counted = [n for n, name in enumerate(truth) if name is not None]
    for level in (1.0, 0.2):
        logits = network.logits_fn(None, jnp.asarray((1 - level) / 2 + level * images))
        odds = np.exp(np.asarray(logits, np.float64))
        means = [
            np.mean([odds[:, at[numbers[n]]] for n in humans.imagenet_labels(name)], axis=0)
            for name in names
        ]
        decided = np.argmax(means, axis=0)
        expected = np.mean([decided[n] == names.index(truth[n]) for n in counted])
        assert result.value("accuracy", level=level) == pytest.approx(expected)
    assert result.arrays["counted"].tolist() == [name is not None for name in truth]
    assert any("5 of 7 images" in warning for warning in result.warnings)


@pytest.mark.slow
def test_a_network_may_be_made_an_observer(tmp_path):
    """It knows the folders of stimuli, which are named by category."""
    network = in_categories(imagenet(channels=3))
    assert network.num_classes == 16 and network.class_names[0] == "airplane"
    stimuli = [
        "truck/0001_cop_dnn_c30_truck_10_n03796401_5.png",
        "bear/0002_cop_dnn_c100_bear_10_n02132136_7.png",
        "truck/0003_cop_dnn_c100_truck_10_n04467665_9.png",
    ]
    write_photographs(tmp_path / "stimuli", *stimuli)
    source = data.load(f"folder:{tmp_path}/stimuli", ".")
    job = tiny_evaluation(network, tmp_path, source=source, trained_on=False)
    result = evaluation.evaluate(job, evaluation.Clean())
    # As the recipe of the documentation reads its decisions.
    truth = np.array(result.provenance["class_names"])[result.arrays["label"]]
    files = np.array(source.files)[result.arrays["index"]]
    assert sorted(zip(truth, files, strict=True)) == sorted((f.split("/")[0], f) for f in stimuli)
    # As when the condition decides about photographs of ImageNet's classes.
    images = labelled(152, 294, 499)
    job = tiny_evaluation(imagenet(), tmp_path, source=images, trained_on=False)
    judged = evaluation.evaluate(job, Psychophysics("contrast", levels=(1.0,)))
    pixels = np.stack([images[n]["image"] for n in range(3)]) / np.float32(255)
    logits = in_categories(imagenet()).logits_fn(None, jnp.asarray(pixels))
    names = [network.class_names[n] for n in np.argmax(logits, axis=1)]
    right = [name == truth for name, truth in zip(names, ("dog", "bear", "knife"), strict=True)]
    assert right == [True, False, True]
    assert judged.arrays["right at levels"][:, 0, 0].tolist() == right
    with pytest.raises(ValueError, match="ImageNet's 1000 classes"):
        in_categories(tiny_trained())


def test_the_recipe_compares_a_network_with_published_trials(tmp_path, monkeypatch, capsys):
    """The block of docs/perception.md, with trials as the study released them."""
    page = (Path(__file__).parents[2] / "docs" / "perception.md").read_text()
    (recipe,) = (block for block in page.split("```") if "# compare.py" in block)

    def bright(keys, images):
        """A bear if the first pixel is bright."""
        others = jnp.zeros((len(images), len(humans.CATEGORIES) - 2))
        return jnp.concatenate([jnp.full((len(images), 1), 0.5), images[:, 0, 0, :1], others], 1)

    network = Network("resnet50", bright, (12, 12, 3), tuple(humans.CATEGORIES))
    shown = [("bear", n, "c10" if n < 4 else "c100") for n in range(8)]
    names = [f"{n:04d}_cop_dnn_{c}_{kind}_10_n02132136_{n}.png" for kind, n, c in shown]
    own = np.array([1, 0, 0, 1, 1, 1, 1, 0])
    (tmp_path / "stimuli" / "bear").mkdir(parents=True)
    for name, is_bright in zip(names, own.tolist(), strict=True):
        Image.new("L", (12, 12), 255 * is_bright).save(tmp_path / "stimuli" / "bear" / name)
    source = data.load(f"folder:{tmp_path}/stimuli", ".")
    directory = tmp_path / "runs" / "resnet50" / "results"
    plan = tiny_evaluation(network, directory, source=source, trained_on=False)
    evaluation.evaluate(plan, evaluation.Clean())
    # Both observers saw the photographs in an order of their own.
    answers = ["bear", "dog", "bear", "na", "bear", "bear", "cat", "bear"]
    lines = ["subj,object_response,category,condition,imagename"]
    for trial, n in enumerate([5, 2, 7, 1, 0, 3, 6, 4]):
        name = names[n].replace(f"{n:04d}_cop_dnn", f"{trial:04d}_cop_s01")
        lines.append(f"subject-01,{answers[n]},bear,{shown[n][2]},{name}")
    (tmp_path / "raw-data" / "contrast").mkdir(parents=True)
    (tmp_path / "raw-data" / "contrast" / "s01.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    exec(recipe, {})
    person = np.array(answers) == "bear"
    expected = [
        f"{condition} resnet50 subject-01 {results.error_consistency(own[where], person[where])}"
        for condition, where in (("c10", slice(0, 4)), ("c100", slice(4, 8)))
    ]
    assert capsys.readouterr().out.splitlines() == expected


def test_other_networks_decide_among_their_own_classes_in_any_batches(tmp_path):
    network, distortion = tiny_trained(), "phase_noise"
    condition = Psychophysics(distortion)
    levels = humans.DISTORTIONS[distortion].levels
    images, labels = tiny_images()
    root = prng.stream(jax.random.key(0), "evaluation")
    keys = prng.stream(prng.index_keys(root, np.arange(10)), "corruption")
    # Judged at once here, and there in batches over two devices.
    job = tiny_evaluation(network, tmp_path, batch_size=4, devices=2)
    result = evaluation.evaluate(job, condition)
    assert [row["level"] for row in result.rows] == list(levels)
    assert "own classes" in result.warnings[0]
    # The observers stand beside it.
    people = {row["level"]: row["value"] for row in result.references}
    assert people == dict(zip(levels, humans.DISTORTIONS[distortion].accuracy, strict=True))
    for place, level in enumerate(levels[:4:3]):
        shown = corruptions.distort(keys, images, distortion, level)
        batch = job.data.batch(
            network, {}, prng.index_keys(root, np.arange(10)), shown, jnp.asarray(labels)
        )
        right = dataclasses.replace(batch, protocol=job.protocol).judge(shown)["right"]
        np.testing.assert_array_equal(result.arrays["right at levels"][:, 3 * place], right)


def grating_network(cycles, side=32, classes=8):
    """A network that tells gratings of several orientations apart, and images of these."""
    angles = np.pi * np.arange(classes) / classes
    y, x = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    along = np.cos(angles)[:, None, None] * x + np.sin(angles)[:, None, None] * y
    waves = np.cos(2 * np.pi * cycles * along / side)
    templates = jnp.float32((waves - waves.mean(axis=(1, 2), keepdims=True)).reshape(classes, -1))

    def logits(keys, images):
        return images.reshape(len(images), -1) @ templates.T

    names = tuple("abcdefgh"[:classes])
    network = Network("grating", logits, (side, side, 1), names)
    labels = np.arange(48) % classes
    pixels = np.uint8(np.round(127.5 + 10 * waves[labels, ..., None]))
    return network, data.ArraySource(pixels, labels, class_names=names, name="g", split="test")


@pytest.mark.slow
def test_the_channel_of_a_network_follows_the_gratings_that_it_sees(tmp_path):
    centres = {}
    for cycles in (2, 8):
        network, source = grating_network(cycles)
        path = tmp_path / str(cycles)
        condition = CriticalBands((0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8))
        result = evaluation.evaluate(
            tiny_evaluation(network, path, source=source, batch_size=24), condition
        )
        assert result.value("accuracy without noise") == 1.0
        right = result.arrays["right at levels"][:, 1:].mean(axis=(0, 2)).reshape(4, 7)
        for band, centre in enumerate((2.0, 4.0, 8.0, 16.0)):
            told = [result.value("accuracy", frequency=centre, deviation=each)
                    for each in condition.deviations]  # fmt: skip
            np.testing.assert_allclose(told, right[band])
        number = result.find("centre")
        assert number["low"] <= number["value"] <= number["high"]
        centres[cycles] = number["value"]
        if cycles == 2:
            # Of noise of the same strength, that of the grating's octave hides most.
            assert np.argmin(right[:, 1]) == 1 and np.all(right[3, :3] == 1)
    assert centres[2] * 1.5 < centres[8]


def test_the_fit_is_that_of_the_authors_to_the_pooled_observers():
    """A channel of one octave around 39.6 cycles per image, whose height is at its bound."""
    width, centre, height = fit_channel(np.array([0, 0, 0, 0, 2, 2, 0]), 4, 1.75)
    assert (width, centre, height) == pytest.approx((1.0, 39.6, 4.0), abs=0.02)


def test_a_known_channel_is_found_again():
    bands = np.arange(7)
    exact = 3.2 * np.exp(-((bands - 3.7) ** 2) / (2 * 0.9**2))
    width, centre, height = fit_channel(exact, 4, 1.75)
    assert width == pytest.approx(2 * np.sqrt(np.log(4)) * 0.9, rel=1e-4)
    assert (centre, height) == pytest.approx((1.75 * 2**3.7, 3.2), rel=1e-4)
    assert fit_channel(np.array([4, 4, 4, 4]), 4, 1.75) is None


def stored(right, **fields):
    """The arrays of a result of 3 images, one decision each, for 4 bands and 2 deviations."""
    levels = np.tile(np.asarray(right, bool)[None, :, None], (3, 1, 1))
    return {
        "right at levels": levels, "loss at levels": np.zeros(levels.shape[:2]),
        "index": np.arange(3), "counted": np.ones(3, bool), "categories": np.ones(3, bool),
        "centres": np.tile([2.0, 4.0, 8.0, 16.0], (3, 1)),
    } | fields  # fmt: skip


def test_thresholds_are_the_strongest_noise_that_leaves_more_than_half_right():
    condition = CriticalBands((0.02, 0.16))
    # For each band: right at 0.02, right at 0.16. So 0, 1, 2 and 0 steps of two.
    found = condition.result(stored([1, 1, 1, 1, 0, 0, 0, 0, 1]), None)
    drawn = [each.value for each in found.measured if each.name == "sensitivity"]
    np.testing.assert_allclose(drawn, np.array([0, 1, 2, 0]) / found.details["channel"][2])
    width = found["bandwidth"].interval
    assert width.low <= width.value == found.details["channel"][0]
    assert any("stands on 2 of 4 bands" in each for each in found.warnings)
    assert any("smaller deviation" in each for each in found.warnings)
    for right, message in (([0] * 9, "without noise"), ([1] * 9, "same threshold")):
        found = condition.result(stored(right), None)
        assert "value" not in found["bandwidth"].row()
        assert not any(each.name == "sensitivity" for each in found.measured)
        # An evaluation refuses a view of numbers that were not measured.
        assert not found.views and not found.references
        assert any(message in each for each in found.warnings)
    none = condition.result(stored([1] * 9, counted=np.zeros(3, bool)), None)
    assert not none.measured and "0 of 3 images" in none.warnings[0]


def test_the_channel_of_the_observers_has_their_centre_and_width():
    found = CriticalBands((0.02, 0.16)).result(stored([1, 1, 1, 1, 0, 0, 0, 0, 1]), None)
    drawn = {row["frequency"]: row["value"] for row in found.references}
    assert max(drawn, key=drawn.get) == pytest.approx(humans.CHANNEL.centre, rel=0.05)
    # Half of the height at half of the width from the centre.
    half = humans.CHANNEL.centre * 2 ** (humans.CHANNEL.bandwidth / 2)
    assert np.interp(half, list(drawn), list(drawn.values())) == pytest.approx(0.5, abs=0.02)


def test_levels_stand_from_the_easiest_to_the_hardest():
    """Those of the observers and those of the network on one axis."""
    condition = Psychophysics("contrast", levels=(1.0, 0.1, 0.02))
    right = np.ones((2, 3, 1), bool)
    arrays = {"right at levels": right, "counted": right[:, 0, 0], "categories": right[:, 0, 0]}
    (lines,) = condition.result(arrays, None).views
    assert lines.order == (1.0, 0.5, 0.3, 0.15, 0.1, 0.05, 0.03, 0.02, 0.01)
    # No filter at all is no number of JSON.
    wide = Psychophysics("high_pass", levels=(float("inf"), 0.4))
    found = wide.result(arrays | {"right at levels": right[:, :2]}, None)
    assert [each.columns["level"] for each in found.measured] == ["none", 0.4]
    assert found.views[0].order[:2] == ("none", 3.0) and found.references[0]["level"] == "none"


def test_suites_and_what_they_refuse():
    small = evaluation.Evaluation(Network("small", lambda keys, x: x[:, :2, 0, 0], (32, 32, 3)))
    assert [each.distortion for each in psychophysics(small)] == list(humans.DISTORTIONS)
    assert set(humans.DISTORTIONS) == set(corruptions.DISTORTIONS)
    (bands,) = critical_bands(small)
    bands.check(small.network)
    with pytest.raises(ValueError, match="at least 4 octaves; those of tiny-run have 3"):
        bands.check(tiny_trained())
    with pytest.raises(ValueError, match="deviations must rise"):
        dataclasses.replace(bands, deviations=(0.1, 0.05))
