"""The suite physiology: which layers, what they are shown, and the files that are written."""

import dataclasses
import functools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.evaluation import tiny
from vone_jax import data, evaluation, models, neurophysiology, results, v1
from vone_jax.cli.evaluate import line, summary
from vone_jax.evaluation import physiology, physiology_experiments
from vone_jax.evaluation import request as requests
from vone_jax.models.network import VOneNet
from vone_jax.network import Network, Split
from vone_jax.neurophysiology.recording import RateMap

CONFIG = v1.VOneBlockConfig(
    simple_channels=4,
    complex_channels=4,
    image_size=28,
    visual_degrees=1.0,
    kernel_size=21,
    stride=4,
    in_channels=1,
    noise=v1.GaussianNoise(3.0),
)
# Rows of a table of Ringach et al.'s properties.
CELLS = "circular_variance,or_bandwidth\n" + "".join(f"{i / 30},{i + 10}\n" for i in range(25))


def base_network(name="resnet18", image_size=28, in_channels=1):
    model = models.create(name, 3, image_size, in_channels, width=2)
    variables = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))
    return Network.of_model("tiny-run", model, variables, image_size)


def recorded(network, **fields):
    request = evaluation.Request(suite=("physiology",), **fields)
    return evaluation.recording(network, request)


@pytest.fixture(scope="module")
def network():
    model = VOneNet(v1=CONFIG, back_end=tiny.TinyBackEnd(), bottleneck_features=2)
    return Network.of_model("tiny-run", model, models.init(model, jax.random.key(0)))


@pytest.fixture(scope="module")
def job(network, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "results"
    return dataclasses.replace(tiny.tiny_job(tiny.tiny_trained(), directory), network=network)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "cells.csv"
    path.write_text(CELLS)
    return path


@pytest.fixture(scope="module")
def recording(network, table):
    return recorded(network, layers=("v1", "bottleneck"), references=(table,))


@pytest.fixture(scope="module")
def result(job, recording):
    return evaluation.evaluate(job, evaluation.Layer(recording, "v1"))


def test_a_layer_has_its_scores_and_its_values_on_disk(job, result):
    path = job.directory / "physiology-v1.json"
    assert json.loads(path.read_text()) == results.to_json(result)
    assert result.kind == "physiology" and result.measured.status == "scored"
    condition, scores = result.condition, result.measured.scores
    assert (condition.layer, condition.noise) == ("v1", "off")
    assert (result.protocol.noise, condition.trials, scores.trials) == ("none", 1, 1)
    # 21 x 21 x 8, 12 x 4 x 24, 22 x 12 x 8 and 12 x 4 x 6 x 8, as the documentation has them.
    assert result.dataset.examples == 3528 + 1152 + 2112 + 2304
    assert (condition.image_size, condition.visual_degrees) == (224, 8.0)
    assert (scores.image_size, scores.visual_degrees) == (224, 8.0)
    assert scores.simple_channels == 4
    scored = {
        name: entry.score for name, entry in scores.properties.items() if entry.score is not None
    }
    # Seven are published, two are in the table.
    assert len(scored) == 9 and {"circular_variance", "or_bandwidth", "peak_sf"} <= set(scored)
    # Layers compare by the seven, whoever has a table.
    seven = [score for name, score in scored.items() if name in neurophysiology.PUBLISHED]
    assert len(seven) == 7 and scores.mean_score == pytest.approx(np.mean(seven))
    arrays = results.read_arrays(path.with_suffix(".npz"))
    assert arrays["value/peak_sf"].shape == (scores.units,)
    assert arrays["curve/size"].shape == (12, scores.units)
    assert arrays["field/map"].shape == (21, 21, scores.units)
    # Complex cells do not follow the phase of a grating, simple cells do.
    ratio, simple = arrays["value/modulation_ratio"], arrays["unit/channel"] < 4
    assert np.nanmax(ratio[~simple]) < 0.6 < 1.2 < np.nanmin(ratio[simple])


def test_units_keep_their_frequency_on_larger_images(result):
    """Each prefers that of its Gabor within half an octave: degrees and pixels are right."""
    channel, frequency = result.arrays["unit/channel"], result.arrays["value/peak_sf"]
    assert np.array_equal(np.unique(channel), np.arange(8))
    octaves = np.log2(frequency / CONFIG.gabor_parameters().sf[channel])
    assert np.abs(octaves).max() < 0.5


def test_the_seed_of_a_request_is_that_of_all_recordings(job, recording, monkeypatch):
    """Its scores have one key, and what is recorded beside them has another."""
    made = []

    def score(*arguments, **fields):
        made.append(jax.random.key_data(arguments[4]).tolist())

    def experiments(*arguments):
        made.append(jax.random.key_data(arguments[-1]).tolist())
        raise InterruptedError

    monkeypatch.setattr(neurophysiology, "score", score)
    monkeypatch.setattr(physiology, "experiments", experiments)
    for seed in (0, 1):
        with pytest.raises(InterruptedError):
            physiology.Layer(recording, "v1").make(tiny.changed(job, seed=seed), [])
    assert len(set(map(tuple, made))) == 4


def test_a_finished_layer_is_not_recorded_again(job, recording, result, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("recorded again")

    def again(job, **fields):
        changed = dataclasses.replace(recording, **fields)
        return results.to_json(evaluation.evaluate(job, evaluation.Layer(changed, "v1")))

    monkeypatch.setattr(neurophysiology, "score", fail)
    assert again(job) == results.to_json(result)
    # Images and decisions of the other suites are no part of what was measured.
    few = data.Subset(tiny.tiny_source(), 4)
    other = tiny.changed(job, examples=few, batch_size=2, noise="frozen", draws=1)
    assert again(other) == results.to_json(result)
    with pytest.raises(evaluation.ResultError, match="condition.trials is 2, was 1"):
        again(job, trials=2)
    with pytest.raises(evaluation.ResultError, match=r"references.cells.csv is absent, was"):
        again(job, tables={})
    with pytest.raises(evaluation.ResultError, match="key.seed is 1, was 0"):
        again(tiny.changed(job, seed=1))


@pytest.mark.slow
def test_a_layer_that_cannot_be_scored_says_why(job, recording, network):
    layer = evaluation.Layer(recording, "bottleneck")
    few = evaluation.evaluate(job, layer)
    assert few.measured.status.startswith("not scored: the layer has ")
    assert "at least 20 are needed" in few.measured.status and few.measured.scores is None
    assert results.to_json(evaluation.evaluate(job, layer)) == results.to_json(few)  # finished
    silent = jax.tree.map(jnp.zeros_like, network.variables)
    silent_job = tiny.changed(
        job, network=Network.of_model("silent", network.model, silent), tag="silent"
    )
    silent = evaluation.evaluate(silent_job, layer)
    assert silent.name == "physiology-bottleneck-silent"
    assert "responds to no grating" in silent.measured.status


def test_the_table_ranks_layers_and_a_line_tells_why_one_has_no_scores(result):
    def layer(name, mean_score):
        return dataclasses.replace(
            result,
            condition=dataclasses.replace(result.condition, layer=name),
            measured=dataclasses.replace(
                result.measured,
                scores=dataclasses.replace(result.measured.scores, mean_score=mean_score),
            ),
        )

    lost = dataclasses.replace(result, measured=results.Physiology("not scored: nothing there"))
    text = summary([layer("worse", 0.25), layer("better", 0.75), lost])
    lines = text.splitlines()
    assert lines[0].split() == ["score", "better", "worse"]
    assert lines[2].split() == ["mean", "0.750", "0.250"]
    scores = result.measured.scores
    assert f"{scores.properties['peak_sf'].score:.3f}" in text
    assert line(result).startswith(f"physiology-v1: mean score {scores.mean_score:.3f}, ")
    assert line(lost).startswith("physiology-v1: not scored: nothing there")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", ("stem", "layer1", "layer2", "layer3", "layer4")),
        ("alexnet", ("conv1", "conv2", "conv3", "conv4", "conv5")),
        ("cornet_s", ("V1", "V2", "V4", "IT")),
        pytest.param(
            "efficientnet_lite0",
            ("stem", *(f"stage{i}" for i in range(1, 8)), "head"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_base_networks_have_all_convolutional_stages(name, expected):
    assert recorded(base_network(name)).layers == expected


def test_vonenets_have_v1_or_all_stages(network):
    assert recorded(network).layers == ("v1",)
    assert recorded(network, layers=("all",)).layers == ("v1", "bottleneck")
    assert recorded(network, layers=("v1.simple", "v1.simple")).layers == ("v1.simple",)


@pytest.mark.parametrize(
    ("image_size", "shown"), [(28, (8.0, 224)), (32, (8.0, 256)), (64, (8.0, 256)),
                              (224, (8.0, 224)), (192, (192 / 28, 192))]
)  # fmt: skip
def test_small_images_grow_at_the_same_pixels_per_degree(image_size, shown):
    display = physiology.display(base_network(image_size=image_size, in_channels=3))
    assert (display.visual_degrees, display.image_size) == pytest.approx(shown)
    assert display.in_channels == 3


def functions_of(network, features):
    """A network of functions, with other features than those of its module."""
    shape, noisy = network.image_shape, network.stochastic
    return Network(network.name, network.logits_fn, shape, (), noisy, features)


def test_wrong_requests_are_refused_before_anything_is_recorded(network, table, tmp_path):
    with pytest.raises(ValueError, match=r"among v1.simple, .* 'botleneck'; did you mean 'bottl"):
        recorded(network, layers=("botleneck",))
    flat = functions_of(network, lambda keys, images: {"code": images[:, 0, :, 0]})
    with pytest.raises(ValueError, match="no convolutional stages; layers must be among code"):
        recorded(flat)
    with pytest.raises(ValueError, match="physiology_trials must be an integer >= 1, got 0"):
        recorded(network, physiology_trials=0)
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(CELLS.replace("or_bandwidth", "or_bandwith"))
    with pytest.raises(ValueError, match=r"wrong.csv.*or_bandwith.*or_bandwidth"):
        recorded(network, references=(wrong,))
    with pytest.raises(FileNotFoundError, match="nowhere.csv"):
        recorded(network, references=(tmp_path / "nowhere.csv",))
    with pytest.raises(ValueError, match="circular_variance, or_bandwidth; leave one table out"):
        recorded(network, references=(table, table))
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / table.name
    other.write_text("grating_summation_field\n" + "0.5\n" * 25)
    with pytest.raises(ValueError, match=f"two files are named {table.name}; rename one"):
        recorded(network, references=(table, other))
    with pytest.raises(ValueError, match="is a directory"):
        recorded(network, references=(tmp_path,))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """White noise and its blocks, as two textures."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for name, grain in (("sand", 1), ("tiles", 8)):
        small = rng.integers(60, 196, (160 // grain,) * 2).astype(np.uint8)
        Image.fromarray(small.repeat(grain, 0).repeat(grain, 1)).save(folder / f"{name}.png")
    return folder


def texture_images(recording):
    """The texture images as a result file names them."""
    return physiology._texture_record(recording.textures)


def test_features_that_take_one_size_only_are_told_the_size_that_is_shown():
    def features(keys, images):
        flat = images.reshape(images.shape[0], -1)
        return {"conv": images, "head": flat @ jnp.ones((28 * 28, 10))}

    network = functions_of(base_network(), features)
    with pytest.raises(TypeError, match="dot_general") as raised:
        recorded(network)
    notes = "\n".join(raised.value.__notes__)
    assert "The error is from features of tiny-run, which did not take an image of 224 x" in notes
    assert "Return convolutional or pooled layers only" in notes


def test_images_of_textures_come_from_a_folder(network, photographs, tmp_path):
    known, same, new = (recorded(network, textures=photographs, seed=seed) for seed in (0, 0, 1))
    assert known.textures.is_proxy and known.textures.families == ("sand", "tiles")
    assert texture_images(known) == texture_images(same) != texture_images(new)
    assert texture_images(known).samples == 15
    with pytest.raises(FileNotFoundError, match="textures: .*nowhere is not a directory"):
        recorded(network, textures=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="textures: .* holds no image"):
        recorded(network, textures=tmp_path)
    (tmp_path / "sand.png").write_bytes((photographs / "sand.png").read_bytes())
    with pytest.raises(ValueError, match="textures: .* at least 2 textures, .*; got sand only"):
        recorded(network, textures=tmp_path)
    Image.new("L", (60, 200)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match=r"textures: images\['small'\] .* 112 x 112"):
        recorded(network, textures=tmp_path)
    Image.new("L", (8, 8)).save(tmp_path / "tex-320x320-im13-smp1.png")
    with pytest.raises(ValueError, match="textures: .* must hold 15 samples per family"):
        recorded(network, textures=tmp_path)


@pytest.mark.slow
def test_stand_ins_of_textures_are_measured_and_not_scored(job, network, photographs):
    recording = recorded(network, textures=photographs)
    layer = evaluation.Layer(recording, "v1")
    result = evaluation.evaluate(tiny.changed(job, tag="textures"), layer)
    assert result.name == "physiology-v1-textures"
    scores = result.measured.scores
    textures = scores.textures
    assert textures.proxy and textures.families == ("sand", "tiles") and textures.units >= 20
    assert textures.source.endswith("Freeman & Ziemba: crops of sand, tiles, contrast 40")
    for name, median in textures.medians.items():
        assert median == pytest.approx(np.nanmedian(result.arrays[f"value/{name}"]))
    # The noise of a texture has its spectrum: V1 makes little of the difference.
    assert abs(textures.medians["texture_modulation_index"]) < 0.2
    assert scores.properties["texture_sparseness"].status == "needs stimuli"
    assert result.condition.textures == texture_images(recording)


def test_trials_are_for_networks_with_noise(network):
    assert recorded(network, physiology_trials=3).trials == 3
    assert recorded(base_network(), physiology_trials=3).trials == 1


def test_the_suite_has_one_task_per_layer(network, tmp_path, monkeypatch):
    validation = Split("fashion_mnist_small", "test")
    other = dataclasses.replace(network, validation=validation, run_dir=tmp_path)
    monkeypatch.setattr(Network, "num_classes", 10)
    asked = evaluation.Request(
        suite=("physiology",), layers=("bottleneck", "v1"), physiology_trials=4
    )
    tasks = [task for _, task in evaluation.plan(other, asked)]
    assert all(isinstance(task, evaluation.Layer) for task in tasks)
    assert [(task.recording.trials, task.layer) for task in tasks] == [(4, "bottleneck"), (4, "v1")]
    missing = dataclasses.replace(asked, textures=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="textures: .*nowhere is not a directory"):
        evaluation.plan(other, missing)
    assert requests.PHYSIOLOGY not in {name for group in requests.GROUPS.values() for name in group}


@pytest.mark.parametrize("examples", [None, 100])
@pytest.mark.parametrize("class_names", [(), tuple("abcdefghij")])
def test_a_network_that_is_no_run_needs_no_images(
    network, examples, class_names, tmp_path, monkeypatch
):
    monkeypatch.setattr(Network, "num_classes", 10)
    other = dataclasses.replace(network, validation=None, class_names=class_names)
    asked = evaluation.Request(suite=("physiology",), examples=examples, layers=("v1",))
    ((job, task),) = evaluation.plan(other, asked, tmp_path)
    assert task.identity(job, []).dataset.name == "gratings"
    with pytest.raises(ValueError, match="source must name the images"):
        evaluation.plan(other, dataclasses.replace(asked, suite=("physiology", "clean")), tmp_path)


def test_noise_that_cannot_be_switched_off_is_told(job):
    """A function has no form without noise."""

    def features(keys, images):
        draw = functools.partial(jax.random.normal, shape=images.shape[1:])
        return {"v1": images + jax.vmap(draw)(keys)}

    noisy = Network("noisy", lambda keys, x: x[:, :10, 0, 0], (28, 28, 1), stochastic=True)
    noisy = dataclasses.replace(noisy, features=features)
    layer = evaluation.Layer(recorded(noisy, layers=("v1",)), "v1")
    measured, _ = layer.make(dataclasses.replace(job, network=noisy), [])
    assert measured.status == (
        "not scored: the layer draws noise that cannot be switched off; record one before it"
    )


@pytest.mark.slow
def test_trials_with_noise_are_recorded_as_such(job, network):
    noisy = recorded(network, layers=("v1",), physiology_trials=2)
    result = evaluation.evaluate(tiny.changed(job, tag="noisy"), evaluation.Layer(noisy, "v1"))
    assert (result.condition.trials, result.condition.noise) == (2, "on")
    assert result.measured.scores.trials == 2
    assert result.protocol == evaluation.Protocol("fresh", 2)
    assert result.measured.status == "scored"


def test_contrast_and_variability_are_stored_beside_the_scores(result):
    arrays, scores = result.arrays, result.measured.scores
    contrasts, curves = arrays["contrast/contrasts"], arrays["contrast/curves"]
    mean, variance = arrays["variability/mean"], arrays["variability/variance"]
    c50, unit = arrays["contrast/c50"], arrays["variability/unit"]
    assert contrasts.tolist() == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
    # A VOneBlock is linear in contrast; 8-bit images round the faint ones.
    largest = curves[-1]
    np.testing.assert_allclose(curves[2:] / largest, contrasts[2:, None] + 0 * curves[2:],
                               atol=0.02)  # fmt: skip
    assert scores.contrast_response.median_c50 == np.median(c50) > 1
    # A VOneBlock has no surround: a grating around the centre adds to the response.
    angles, around = arrays["surround/angles"], arrays["surround/curves"]
    assert angles.tolist() == [0, 30, 60, 90] and around.shape == (4, curves.shape[1])
    suppression = 1 - around / arrays["surround/alone"]
    assert scores.surround_tuning.median_parallel == np.nanmedian(suppression[0]) < 0.05
    assert scores.surround_tuning.median_orthogonal == np.nanmedian(suppression[-1])
    recorded = scores.variability
    assert (recorded.trials, recorded.gratings, recorded.units) == (100, *mean.shape)
    assert mean.shape == variance.shape and len(unit) == mean.shape[1] <= 200
    # Gaussian noise has no spike counts.
    assert recorded.median_fano_factor_spikes is None and not recorded.has_spikes
    # Rectified, a Gaussian about 0 keeps 1/2 - 1/(2 pi) of its variance, one far above 0 all of it.
    assert 9 * (0.5 - 0.5 / np.pi) < variance.mean() < 9
    assert recorded.median_fano_factor == pytest.approx(
        np.median(variance.sum(axis=0) / mean.sum(axis=0))
    )


@pytest.fixture(scope="module")
def scores(result):
    """The part of the scores that the experiments read, without scoring again."""
    units = {name: result.arrays[f"unit/{name}"] for name in ("row", "col", "channel")}
    recorded = result.measured.scores
    display = neurophysiology.Display(recorded.visual_degrees, recorded.image_size, 1)
    row, col, channel = units.values()
    size = 56  # of the map
    site = neurophysiology.Site(
        display, display.whole(), (row * size + col) * 8 + channel, row, col, channel
    )
    return neurophysiology.Scores(
        properties={}, site=site, rate_map=RateMap(1.0, 0.0), trials=1, units=units,
        per_unit={}, counted={}, curves={}, field_maps=np.zeros((21, 21, row.size), np.float32),
    )  # fmt: skip


def run_experiments(network, layer, scores, monkeypatch, trials=20):
    monkeypatch.setattr(physiology_experiments, "TRIALS", trials)
    quiet = models.response_fn(models.without_noise(network.model), network.variables, layer)
    noisy = models.response_fn(network.model, network.variables, layer)
    return physiology_experiments.experiments(
        network, layer, scores, quiet, noisy, jax.random.key(1)
    )


@pytest.mark.slow
def test_the_fano_factor_is_1_in_spikes(network, scores, monkeypatch):
    """Much activity, so that hardly anything is rectified: 1 in spikes, 1 / scale in responses."""
    noise = v1.NeuronalNoise(scale=20.0, level=0.5)
    fields, arrays = run_experiments(network.with_noise(noise), "v1", scores, monkeypatch, 60)
    recorded = fields["variability"]
    assert recorded["units"] == len(scores.units["row"])
    assert recorded["units_above"] == (arrays["variability/spike_mean"] >= 2.0).any(axis=0).sum()
    assert recorded["units_above"] > 0.9 * recorded["units"]
    # A variance from 60 trials is within 18 % (its deviation); the median of many is closer.
    assert recorded["median_fano_factor_spikes"] == pytest.approx(1.0, rel=0.1)
    assert recorded["median_fano_factor"] == pytest.approx(1 / 20.0, rel=0.1)
    np.testing.assert_allclose(arrays["variability/spike_mean"],
                               20.0 * arrays["variability/mean"] + 0.5)  # fmt: skip
    np.testing.assert_allclose(arrays["variability/spike_variance"],
                               400.0 * arrays["variability/variance"])  # fmt: skip


@pytest.mark.slow
def test_responses_with_fano_noise_are_counts(network, scores, monkeypatch):
    fields, _ = run_experiments(network.with_noise(v1.FanoNoise(0.5)), "v1", scores, monkeypatch)
    recorded = fields["variability"]
    assert recorded["median_fano_factor_spikes"] == pytest.approx(0.5, rel=0.15)
    assert recorded["median_fano_factor_spikes"] == recorded["median_fano_factor"]


@pytest.mark.slow
def test_variability_is_for_layers_that_noise_reaches(network, scores, monkeypatch):
    """Simple cells come first among the channels of v1."""
    simple = scores.site.keep(scores.site.channel < 4)
    units = (simple.row * 56 + simple.col) * 4 + simple.channel
    some = dataclasses.replace(scores, site=dataclasses.replace(simple, units=units))
    fields, arrays = run_experiments(network, "v1.simple", some, monkeypatch)
    assert set(fields) == {"contrast_response", "surround_tuning"}
    assert arrays["contrast/curves"].shape == (6, len(simple))
    assert not any(name.startswith("variability") for name in arrays)


def test_the_threshold_in_spikes_holds_for_responses_too(monkeypatch):
    """One of two units reaches 2 spikes, here responses of 3, at half of the gratings."""
    weak = np.tile([[True], [False]], (12, 2)) | [[False, True]]
    given = []

    def trial_statistics(noisy, key, site, trials, gratings):
        given.append(gratings.table)
        mean, variance = np.where(weak, 2.5, 4.0), np.where(weak, 10.0, 8.0)
        return neurophysiology.TrialStatistics(mean, variance, trials)

    monkeypatch.setattr(neurophysiology, "trial_statistics", trial_statistics)
    units = np.arange(2)
    display = neurophysiology.Display()
    site = neurophysiology.Site(display, display.whole(), units, units, units, units)
    noise = v1.NeuronalNoise(scale=0.5, level=0.5)
    fields, arrays = physiology_experiments._variability(None, None, site, noise)
    assert fields["median_fano_factor"] == 8 / 4
    assert fields["median_fano_factor_spikes"] == 0.25 * 8 / (0.5 * 4 + 0.5)
    assert fields["units_above"] == 1
    for name, column in (("spatial_frequency", 3), ("orientation", 4)):
        np.testing.assert_array_equal(arrays[f"variability/{name}"], given[0][:, column])


def test_the_surround_across_is_at_90_degrees(network, monkeypatch):
    angles, alone = np.array([0.0, 30.0, 60.0, 90.0]), np.ones(1)
    surround = neurophysiology.SurroundTuning(angles, alone, np.array([[0.5], [0.6], [0.7], [0.8]]))
    contrast = neurophysiology.ContrastResponse(alone, alone[None], *[alone] * 4)
    monkeypatch.setattr(neurophysiology, "surround_tuning", lambda *_: surround)
    monkeypatch.setattr(neurophysiology, "contrast_response", lambda *_: contrast)
    scores = types.SimpleNamespace(site=None)
    fields, _ = physiology_experiments.experiments(network.quiet(), "v1", scores, None, None, None)
    tuning = fields["surround_tuning"]
    assert list(tuning.values()) == pytest.approx([0.5, 0.2])
    assert list(tuning) == ["median_parallel", "median_orthogonal"]
