"""The suite physiology: which layers, what they are shown, and the files that are written."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.evaluation import tiny
from vone_jax import evaluation, models, neurophysiology, training, v1
from vone_jax.evaluation import (
    physiology,
    physiology_experiments,
    physiology_inputs,
    planning,
    suites,
)
from vone_jax.models.network import VOneNet
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


def vone_subject():
    model = VOneNet(v1=CONFIG, back_end=tiny.TinyBackEnd(), bottleneck_features=2)
    keys = {"params": jax.random.key(0), "noise": jax.random.key(1)}
    variables = model.init(keys, jnp.zeros((1, 28, 28, 1)))
    return dataclasses.replace(tiny.tiny_subject(), model=model, variables=variables, image_size=28)


def base_subject(name="resnet18", image_size=28, in_channels=1):
    model = models.create(name, 3, image_size, in_channels, width=2)
    variables = jax.eval_shape(
        model.init, jax.random.key(0), jnp.zeros((1, image_size, image_size, in_channels))
    )
    return dataclasses.replace(
        tiny.tiny_subject(),
        name=name,
        model=model,
        variables=variables,
        image_size=image_size,
        in_channels=in_channels,
    )


@pytest.fixture(scope="module")
def subject():
    return vone_subject()


@pytest.fixture(scope="module")
def job(subject, tmp_path_factory):
    return dataclasses.replace(
        tiny.tiny_job(tiny.tiny_subject(), tmp_path_factory.mktemp("run") / "results"),
        subject=subject,
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "cells.csv"
    path.write_text(CELLS)
    return path


@pytest.fixture(scope="module")
def how(subject, table):
    return physiology.recording(subject, ("v1", "bottleneck"), references=[table])


@pytest.fixture(scope="module")
def record(job, how):
    return physiology.record_layer(job, how, "v1")


def test_a_layer_has_its_scores_and_its_values_on_disk(job, record):
    path = job.results / "physiology-v1.json"
    assert json.loads(path.read_text()) == record
    assert record["kind"] == "physiology" and record["status"] == "scored"
    assert record["condition"]["layer"] == "v1" and record["condition"]["noise"] == "off"
    assert record["protocol"]["noise"] == "none" and record["trials"] == 1
    # 21 x 21 x 8, 12 x 4 x 24, 22 x 12 x 8 and 12 x 4 x 6 x 8, as the documentation has them.
    assert record["dataset"]["examples"] == 3528 + 1152 + 2112 + 2304
    assert (record["image_size"], record["visual_degrees"]) == (224, 8.0)
    assert record["simple_channels"] == 4
    scored = {
        name: entry["score"]
        for name, entry in record["properties"].items()
        if entry["score"] is not None
    }
    # Seven are published, two are in the table.
    assert len(scored) == 9 and {"circular_variance", "or_bandwidth", "peak_sf"} <= set(scored)
    # Layers compare by the seven, whoever has a table.
    seven = [score for name, score in scored.items() if name in neurophysiology.PUBLISHED]
    assert len(seven) == 7 and record["mean_score"] == pytest.approx(np.mean(seven))
    with np.load(path.with_suffix(".npz")) as arrays:
        assert arrays["value/peak_sf"].shape == (record["units"],)
        assert arrays["curve/size"].shape == (12, record["units"])
        assert arrays["field/map"].shape == (21, 21, record["units"])
        # Complex cells do not follow the phase of a grating, simple cells do.
        ratio, simple = arrays["value/modulation_ratio"], arrays["unit/channel"] < 4
        assert np.nanmax(ratio[~simple]) < 0.6 < 1.2 < np.nanmin(ratio[simple])


def test_units_keep_their_frequency_on_larger_images(job, record):
    """Each prefers that of its Gabor within half an octave: degrees and pixels are right."""
    with np.load(job.results / "physiology-v1.npz") as arrays:
        channel, frequency = arrays["unit/channel"], arrays["value/peak_sf"]
    assert np.array_equal(np.unique(channel), np.arange(8))
    octaves = np.log2(frequency / CONFIG.gabor_parameters().sf[channel])
    assert np.abs(octaves).max() < 0.5


def test_a_finished_layer_is_not_recorded_again(job, how, record, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("recorded again")

    monkeypatch.setattr(neurophysiology, "score", fail)
    assert physiology.record_layer(job, how, "v1") == record
    # Images and decisions of the other suites are no part of what was measured.
    other = dataclasses.replace(
        job, examples=evaluation.Examples(tiny.tiny_source(), 4), batch_size=2,
        protocol=evaluation.Protocol("frozen", 1),
    )  # fmt: skip
    assert physiology.record_layer(other, how, "v1") == record
    with pytest.raises(evaluation.ResultError, match="condition.trials is 2, was 1"):
        physiology.record_layer(job, dataclasses.replace(how, trials=2), "v1")
    with pytest.raises(evaluation.ResultError, match=r"references.cells.csv is absent, was"):
        physiology.record_layer(job, dataclasses.replace(how, tables={}), "v1")
    with pytest.raises(evaluation.ResultError, match="key.seed is 1, was 0"):
        physiology.record_layer(dataclasses.replace(job, seed=1), how, "v1")


def test_a_layer_that_cannot_be_scored_says_why_and_resumes(job, how):
    record = physiology.record_layer(job, how, "bottleneck")
    assert record["status"].startswith("not scored: the layer has ")
    assert "at least 20 are needed" in record["status"] and "properties" not in record
    assert physiology.record_layer(job, how, "bottleneck") == record


def test_a_layer_that_is_silent_says_so(job, how, subject):
    silent = jax.tree.map(jnp.zeros_like, subject.variables)
    silent_job = dataclasses.replace(
        job, subject=dataclasses.replace(subject, variables=silent), tag="silent"
    )
    record = physiology.record_layer(silent_job, how, "bottleneck")
    assert record["name"] == "physiology-bottleneck-silent"
    assert "responds to no grating" in record["status"]


def test_the_table_ranks_layers_and_keeps_those_without_scores(record):
    def layer(name, **fields):
        return record | {"condition": record["condition"] | {"layer": name}} | fields

    text = physiology.table(
        [
            layer("worse", mean_score=0.25),
            layer("better", mean_score=0.75),
            layer("lost", status="not scored: nothing there"),
        ]
    )
    lines = text.splitlines()
    assert lines[0].split() == ["score", "better", "worse"]
    assert lines[2].split() == ["mean", "0.750", "0.250"]
    assert lines[-1].startswith("lost: not scored: nothing there")
    assert f"{record['properties']['peak_sf']['score']:.3f}" in text
    assert physiology.line(record).startswith(f"v1: mean score {record['mean_score']:.3f}")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", ("stem", "layer1", "layer2", "layer3", "layer4")),
        ("alexnet", ("conv1", "conv2", "conv3", "conv4", "conv5")),
        ("cornet_s", ("V1", "V2", "V4", "IT")),
    ],
)
def test_base_networks_have_all_convolutional_stages(name, expected):
    assert physiology.recording(base_subject(name)).layers == expected


def test_vonenets_have_v1_or_all_stages(subject):
    assert physiology.recording(subject).layers == ("v1",)
    assert physiology.recording(subject, ("all",)).layers == ("v1", "bottleneck")
    assert physiology.recording(subject, ("v1.simple", "v1.simple")).layers == ("v1.simple",)


@pytest.mark.parametrize(
    ("image_size", "shown"), [(28, (8.0, 224)), (32, (8.0, 256)), (64, (8.0, 256)),
                              (224, (8.0, 224)), (192, (192 / 28, 192))]
)  # fmt: skip
def test_small_images_grow_at_the_same_pixels_per_degree(image_size, shown):
    display = physiology.display(base_subject(image_size=image_size, in_channels=3))
    assert (display.visual_degrees, display.image_size) == pytest.approx(shown)
    assert display.in_channels == 3


def test_wrong_requests_are_refused_before_anything_is_recorded(subject, table, tmp_path):
    with pytest.raises(ValueError, match=r"among v1.simple, .* 'botleneck'; did you mean 'bottl"):
        physiology.recording(subject, ("botleneck",))
    with pytest.raises(ValueError, match="physiology_trials must be >= 1, got 0"):
        physiology.recording(subject, trials=0)
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(CELLS.replace("or_bandwidth", "or_bandwith"))
    with pytest.raises(ValueError, match=r"wrong.csv.*or_bandwith.*or_bandwidth"):
        physiology.recording(subject, references=[wrong])
    with pytest.raises(FileNotFoundError, match="nowhere.csv"):
        physiology.recording(subject, references=[tmp_path / "nowhere.csv"])
    with pytest.raises(ValueError, match="has circular_variance, or_bandwidth, as a table before"):
        physiology.recording(subject, references=[table, table])
    with pytest.raises(ValueError, match="is a directory"):
        physiology.recording(subject, references=[tmp_path])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """White noise and its blocks, as two textures."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for name, grain in (("sand", 1), ("tiles", 8)):
        small = rng.integers(60, 196, (160 // grain,) * 2).astype(np.uint8)
        Image.fromarray(small.repeat(grain, 0).repeat(grain, 1)).save(folder / f"{name}.png")
    return folder


def test_images_of_textures_come_from_a_folder(subject, photographs, tmp_path):
    how = physiology.recording(subject, textures=photographs)
    assert how.textures is not None
    assert how.textures.is_proxy and how.textures.families == ("sand", "tiles")
    again, other = (physiology.recording(subject, textures=photographs, seed=s) for s in (0, 1))
    known, same, new = (physiology_inputs.identity(h.textures) for h in (how, again, other))
    assert known == same != new and known["samples"] == 15
    with pytest.raises(FileNotFoundError, match="textures: .*nowhere is not a directory"):
        physiology.recording(subject, textures=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="textures: .* holds no image"):
        physiology.recording(subject, textures=tmp_path)
    (tmp_path / "sand.png").write_bytes((photographs / "sand.png").read_bytes())
    with pytest.raises(ValueError, match="textures: .* at least 2 textures, .*; got sand only"):
        physiology.recording(subject, textures=tmp_path)
    Image.new("L", (60, 200)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match=r"textures: images\['small'\] .* 112 x 112"):
        physiology.recording(subject, textures=tmp_path)
    Image.new("L", (8, 8)).save(tmp_path / "tex-320x320-im13-smp1.png")
    with pytest.raises(ValueError, match="textures: .* must hold 15 samples per family"):
        physiology.recording(subject, textures=tmp_path)


def test_stand_ins_of_textures_are_measured_and_not_scored(job, subject, photographs):
    how = physiology.recording(subject, textures=photographs)
    record = physiology.record_layer(dataclasses.replace(job, tag="textures"), how, "v1")
    found = record["textures"]
    assert found["proxy"] and found["families"] == ["sand", "tiles"] and found["units"] >= 20
    assert found["source"].endswith("Freeman & Ziemba: crops of sand, tiles, contrast 40")
    with np.load(job.results / "physiology-v1-textures.npz") as arrays:
        for name, median in found["medians"].items():
            assert median == pytest.approx(np.nanmedian(arrays[f"value/{name}"]))
    # The noise of a texture has its spectrum: V1 makes little of the difference.
    assert abs(found["medians"]["texture_modulation_index"]) < 0.2
    assert record["properties"]["texture_sparseness"]["status"] == "needs stimuli"
    assert (
        record["condition"]["textures"]["sha1"] == physiology_inputs.identity(how.textures)["sha1"]
    )


def test_trials_are_for_networks_with_noise(subject):
    assert physiology.recording(subject, trials=3).trials == 3
    assert physiology.recording(base_subject(), trials=3).trials == 1


def test_the_suite_makes_one_exhibit_per_layer(subject, tmp_path, monkeypatch):
    experiment = training.Experiment(
        name="tiny",
        model=training.ModelConfig(name="vone_resnet18", image_size=28, in_channels=1, v1=CONFIG),
        data=training.DataConfig(source="fashion_mnist_small"),
    )
    monkeypatch.setattr(planning, "load_subject", lambda *args: (subject, experiment))
    monkeypatch.setattr(evaluation.Subject, "num_classes", lambda self: 10)
    recorded = []
    monkeypatch.setattr(
        physiology, "record_layer", lambda job, how, layer: recorded.append((how.trials, layer))
    )
    request = planning.Request(
        suite=("physiology",), layers=("bottleneck", "v1"), physiology_trials=4
    )
    plan = planning.plan(tmp_path, request, "command")
    assert plan.tasks == () and len(plan.exhibits) == 2
    for exhibit in plan.exhibits:
        exhibit([])
    assert recorded == [(4, "bottleneck"), (4, "v1")]
    missing = dataclasses.replace(request, textures=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="textures: .*nowhere is not a directory"):
        planning.plan(tmp_path, missing, "command")
    assert suites.PHYSIOLOGY not in {name for group in suites.GROUPS.values() for name in group}


@pytest.mark.slow
def test_trials_with_noise_are_recorded_as_such(job, subject):
    noisy = physiology.recording(subject, ("v1",), trials=2)
    record = physiology.record_layer(dataclasses.replace(job, tag="noisy"), noisy, "v1")
    assert record["trials"] == 2 and record["condition"]["noise"] == "on"
    assert record["protocol"]["noise"] == "fresh" and record["protocol"]["draws"] == 2
    assert record["status"] == "scored"


def spiking_model(subject, noise):
    return dataclasses.replace(subject, model=models.with_noise(subject.model, noise))


def test_contrast_and_variability_are_stored_beside_the_scores(job, record):
    with np.load(job.results / "physiology-v1.npz") as arrays:
        contrasts, curves = arrays["contrast/contrasts"], arrays["contrast/curves"]
        mean, variance = arrays["variability/mean"], arrays["variability/variance"]
        c50, unit = arrays["contrast/c50"], arrays["variability/unit"]
    assert contrasts.tolist() == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
    # A VOneBlock is linear in contrast; 8-bit images round the faint ones.
    largest = curves[-1]
    np.testing.assert_allclose(curves[2:] / largest, contrasts[2:, None] + 0 * curves[2:],
                               atol=0.02)  # fmt: skip
    assert record["contrast_response"]["median_c50"] == np.median(c50) > 1
    found = record["variability"]
    assert (found["trials"], found["gratings"], found["units"]) == (100, *mean.shape)
    assert mean.shape == variance.shape and len(unit) == mean.shape[1] <= 200
    # Gaussian noise has no spike counts.
    assert "median_fano_factor_spikes" not in found
    # Rectified, a Gaussian about 0 keeps 1/2 - 1/(2 pi) of its variance, one far above 0 all of it.
    assert 9 * (0.5 - 0.5 / np.pi) < variance.mean() < 9
    assert found["median_fano_factor"] == pytest.approx(
        np.median(variance.sum(axis=0) / mean.sum(axis=0))
    )


@pytest.fixture(scope="module")
def scores(job, record):
    """As much of the scores as the experiments read, without scoring again."""
    with np.load(job.results / "physiology-v1.npz") as arrays:
        units = {name: arrays[f"unit/{name}"] for name in ("row", "col", "channel")}
    display = neurophysiology.Display(record["visual_degrees"], record["image_size"], 1)
    row, col, channel = units.values()
    size = 56  # of the map
    site = neurophysiology.Site(
        display, display.whole(), (row * size + col) * 8 + channel, row, col, channel
    )
    return neurophysiology.Scores(
        properties={}, site=site, rate_map=RateMap(1.0, 0.0), trials=1, units=units,
        per_unit={}, counted={}, curves={}, field_maps=np.zeros((21, 21, row.size), np.float32),
    )  # fmt: skip


def run_experiments(subject, layer, scores, monkeypatch, trials=20):
    monkeypatch.setattr(physiology_experiments, "TRIALS", trials)
    quiet = models.response_fn(models.without_noise(subject.model), subject.variables, layer)
    noisy = models.response_fn(subject.model, subject.variables, layer)
    return physiology_experiments.experiments(
        subject, layer, scores, quiet, noisy, jax.random.key(1)
    )


def test_the_fano_factor_is_1_in_spikes(subject, scores, monkeypatch):
    """Much activity, so that hardly anything is rectified: 1 in spikes, 1 / scale in responses."""
    noise = v1.NeuronalNoise(scale=20.0, level=0.5)
    fields, arrays = run_experiments(spiking_model(subject, noise), "v1", scores, monkeypatch, 60)
    found = fields["variability"]
    assert found["units"] == len(scores.units["row"])
    assert found["units_above"] == (arrays["variability/spike_mean"] >= 2.0).any(axis=0).sum()
    assert found["units_above"] > 0.9 * found["units"]
    # A variance from 60 trials is within 18 % (its deviation); the median of many is closer.
    assert found["median_fano_factor_spikes"] == pytest.approx(1.0, rel=0.1)
    assert found["median_fano_factor"] == pytest.approx(1 / 20.0, rel=0.1)
    np.testing.assert_allclose(arrays["variability/spike_mean"],
                               20.0 * arrays["variability/mean"] + 0.5)  # fmt: skip
    np.testing.assert_allclose(arrays["variability/spike_variance"],
                               400.0 * arrays["variability/variance"])  # fmt: skip


def test_variability_is_for_layers_that_noise_reaches(subject, scores, monkeypatch):
    """Simple cells come first among the channels of v1."""
    simple = scores.site.keep(scores.site.channel < 4)
    units = (simple.row * 56 + simple.col) * 4 + simple.channel
    some = dataclasses.replace(scores, site=dataclasses.replace(simple, units=units))
    fields, arrays = run_experiments(subject, "v1.simple", some, monkeypatch)
    assert set(fields) == {"contrast_response"}
    assert arrays["contrast/curves"].shape == (6, len(simple))
    assert not any(name.startswith("variability") for name in arrays)
