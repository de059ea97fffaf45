"""Conditions of recorded layers and of V1: what is shown, and the files that are written."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluation import tiny
from tests.networks import MeanBackEnd
from tests.neurophysiology.test_textures import write_freeman_ziemba
from vone_jax import evaluation, models, neurophysiology, prng, results, v1
from vone_jax.network import Network
from vone_jax.neurophysiology import measured
from vone_jax.neurophysiology.measured import ExplainedVariance, FrontEnd, Physiology

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
    shapes = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return Network.of_model("tiny-run", model, variables, image_size)


@pytest.fixture(scope="module")
def network():
    model = models.create("vone_resnet18", 3, v1=CONFIG, back_end=MeanBackEnd(), width=2)
    return Network.of_model("tiny-run", model, models.init(model, jax.random.key(0)))


@pytest.fixture(scope="module")
def job(network, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "results"
    return dataclasses.replace(
        tiny.tiny_evaluation(tiny.tiny_trained(), directory), network=network
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "cells.csv"
    path.write_text(CELLS)
    return path


@pytest.fixture(scope="module")
def recorded(table):
    return Physiology("v1", references=(table,))


@pytest.fixture(scope="module")
def reported():
    return []


@pytest.fixture(scope="module")
def result(job, recorded, reported):
    return evaluation.evaluate(job, recorded, lambda shown, found: reported.append((shown, found)))


def test_a_layer_has_its_scores_and_its_values_on_disk(job, result):
    assert (result.name, result.label) == ("physiology-v1", "physiology, v1")
    identity, details = result.identity, result.details
    assert identity["condition"] == {
        "type": "Physiology", "layer": "v1", "trials": 1,
        "files": {"cells.csv": identity["condition"]["files"]["cells.csv"]},
    }  # fmt: skip
    assert "decision" not in result.row
    # 21 x 21 x 8, 12 x 4 x 24, 22 x 12 x 8 and 12 x 4 x 6 x 8, as the documentation has them.
    assert identity["dataset"]["examples"] == 3528 + 1152 + 2112 + 2304
    assert (details["image_size"], details["visual_degrees"]) == (224, 8.0)
    assert details["simple_channels"] == 4
    scored = {row["property"]: row["value"] for row in result.rows if row["number"] == "score"}
    # Seven are published, two are in the table.
    of = neurophysiology.PROPERTIES
    in_table = {of["circular_variance"].label, of["or_bandwidth"].label}
    assert len(scored) == 9 and in_table <= set(scored)
    # Layers compare by the seven, whoever has a table.
    seven = [score for name, score in scored.items() if name not in in_table]
    own = {row["property"] for row in result.rows if row.get("neurons") == "user table"}
    assert own == in_table
    assert result.value("mean score", properties=7) == pytest.approx(np.mean(seven))
    arrays, units = result.arrays, details["units"]
    assert arrays["value/peak_sf"].shape == (units,)
    assert arrays["curve/size"].shape == (12, units) and arrays["axis/diameter"].shape == (12,)
    assert arrays["field/map"].shape == (21, 21, units)
    # Complex cells do not follow the phase of a grating, simple cells do.
    ratio, simple = arrays["value/modulation_ratio"], arrays["unit/channel"] < 4
    assert np.nanmax(ratio[~simple]) < 0.6 < 1.2 < np.nanmin(ratio[simple])


def test_progress_is_told_by_stimulus(job, recorded, result, reported):
    assert not any(found for _, found in reported) and len(reported) > 20
    assert sum(shown for shown, _ in reported) == job.data.work_of(recorded)[0] == 9096
    noisy = dataclasses.replace(recorded, trials=3)
    assert job.data.work_of(noisy) == (3528 + 3 * (1152 + 2112 + 2304), "stimuli")
    assert job.data.work_of(evaluation.Clean()) == (len(job.data.subset), "images")


def test_units_keep_their_frequency_on_larger_images(result):
    """Each prefers that of its Gabor within half an octave: degrees and pixels are right."""
    channel, frequency = result.arrays["unit/channel"], result.arrays["value/peak_sf"]
    assert np.array_equal(np.unique(channel), np.arange(8))
    octaves = np.log2(frequency / CONFIG.gabor_parameters().sf[channel])
    assert np.abs(octaves).max() < 0.5


def test_scores_have_the_key_of_the_seed(job, network, recorded, monkeypatch):
    made = []

    def score(*arguments, **fields):
        made.append(jax.random.key_data(arguments[4]).tolist())
        raise InterruptedError

    monkeypatch.setattr(neurophysiology, "score", score)
    for seed in (0, 1):
        with pytest.raises(InterruptedError):
            evaluation.evaluate(dataclasses.replace(job, seed=seed, tag="again"), recorded)
    expected = [prng.stream(jax.random.key(seed), "physiology") for seed in (0, 1)]
    assert made == [jax.random.key_data(key).tolist() for key in expected]


def test_a_finished_layer_is_not_recorded_again(job, recorded, result, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("recorded again")

    monkeypatch.setattr(neurophysiology, "score", fail)
    again = evaluation.evaluate(job, recorded)
    assert again.rows == result.rows and again.identity == result.identity
    # Images and decisions of the other suites are no part of what was measured.
    frozen = evaluation.Protocol("frozen", 1)
    other = dataclasses.replace(job, examples=4, batch_size=2, protocol=frozen)
    assert evaluation.evaluate(other, recorded).identity == result.identity
    for changed, of, message in (
        (dataclasses.replace(recorded, references=()), job, "cells.csv is absent"),
        (recorded, dataclasses.replace(job, seed=1), "seed is 1, was 0"),
    ):
        with pytest.raises(results.ResultError, match=message):
            evaluation.evaluate(of, changed)
    assert job.row(dataclasses.replace(recorded, trials=2)) != result.row
    path = recorded.references[0]
    path.write_text(CELLS.replace("0.5,", "0.6,"))
    with pytest.raises(results.ResultError, match=r"cells.csv is .*, was "):
        evaluation.evaluate(job, recorded)
    path.write_text(CELLS)


@pytest.mark.slow
def test_a_layer_that_cannot_be_scored_says_why(job, network):
    few = evaluation.evaluate(job, Physiology("bottleneck"))
    assert "at least 20 are needed" in few.details["reason"] and not few.rows
    assert few.warnings[0].startswith("bottleneck was not scored: the layer has ")
    silent = jax.tree.map(jnp.zeros_like, network.variables)
    silent_job = dataclasses.replace(
        job, network=Network.of_model("silent", network.model, silent), tag="silent"
    )
    silent = evaluation.evaluate(silent_job, Physiology("bottleneck"))
    assert silent.name == "physiology-bottleneck-silent"
    assert "responds to no grating" in silent.details["reason"]


def test_an_error_of_ones_own_layer_is_no_result(job, tmp_path):
    """A ValueError within the layer was stored as a finished result."""

    def layer(keys, images):
        if images.shape[1] > 28:  # As the gratings are.
            raise ValueError("a mistake of mine")
        return {"conv": images}

    network = Network("own", lambda keys, x: x[:, 0, :3, 0], (28, 28, 1), features=layer)
    own = dataclasses.replace(job, network=network, directory=tmp_path)
    with pytest.raises(ValueError, match="a mistake of mine"):
        evaluation.evaluate(own, Physiology("conv"))
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", ("stem", "layer1", "layer2", "layer3", "layer4")),
        ("cornet_s", ("V1", "V2", "V4", "IT")),
    ],
)
def test_base_networks_have_all_convolutional_stages(name, expected):
    assert measured.layers_of(base_network(name)) == expected


def test_vonenets_have_v1_or_all_stages(network):
    assert measured.layers_of(network) == ("v1",)
    assert measured.layers_of(network, ("all",)) == ("v1", "bottleneck")
    assert measured.layers_of(network, ("v1.simple", "v1.simple")) == ("v1.simple",)
    with pytest.raises(ValueError, match=r"among v1.simple, .* 'botleneck'; did you mean 'bottl"):
        Physiology("botleneck").check(network)


@pytest.mark.parametrize(
    ("image_size", "shown"), [(28, (8.0, 224)), (32, (8.0, 256)), (64, (8.0, 256)),
                              (224, (8.0, 224)), (192, (192 / 28, 192))]
)  # fmt: skip
def test_small_images_grow_at_the_same_pixels_per_degree(image_size, shown):
    display = measured.display(base_network(image_size=image_size, in_channels=3))
    assert (display.visual_degrees, display.image_size) == pytest.approx(shown)
    assert display.in_channels == 3


@pytest.mark.parametrize(("degrees", "shown"), [(7.0, (7.0, 64)), (2.0, (8.0, 256))])
def test_a_network_says_its_own_degrees(degrees, shown):
    network = Network("mine", lambda keys, x: x[:, 0, :2, 0], (64, 64, 1), visual_degrees=degrees)
    display = measured.display(network)
    assert (display.visual_degrees, display.image_size) == shown
    other = dataclasses.replace(network, visual_degrees=6.5)
    assert network.description != other.description
    with pytest.raises(ValueError, match="visual_degrees must be a finite number > 0"):
        dataclasses.replace(network, visual_degrees=0.0)


def test_features_that_do_not_fit_are_told():
    def features(keys, images):
        flat = images.reshape(images.shape[0], -1)
        return {"conv": images, "head": flat @ jnp.ones((28 * 28, 10))}

    def of(features):
        return Network("tiny-run", lambda keys, x: x[:, 0, :2, 0], (28, 28, 1), features=features)

    with pytest.raises(TypeError, match="dot_general"):
        measured.layers_of(of(features))
    flat = of(lambda keys, images: {"code": images[:, 0, :, 0]})
    with pytest.raises(ValueError, match="no convolutional stages; layers must be among code"):
        measured.layers_of(flat)
    with pytest.raises(ValueError, match="has none to record"):
        measured.layers_of(of(None))


def test_tables_and_textures_that_do_not_fit_are_refused(job, table, tmp_path):
    for references, error, message in (
        ((tmp_path / "nowhere.csv",), FileNotFoundError, "nowhere.csv"),
        ((table, table), ValueError, "two files have one name"),
    ):
        with pytest.raises(error, match=message):
            Physiology("v1", references=references).identity()
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(CELLS.replace("or_bandwidth", "or_bandwith"))
    tagged = dataclasses.replace(job, tag="wrong")
    with pytest.raises(ValueError, match=r"wrong.csv.*or_bandwith.*or_bandwidth"):
        evaluation.evaluate(tagged, Physiology("v1", references=(wrong,)))
    with pytest.raises(FileNotFoundError, match="nowhere is not a directory"):
        evaluation.evaluate(tagged, Physiology("v1", textures=tmp_path / "nowhere"))


@pytest.mark.slow
def test_the_texture_properties_are_measured_with_the_images_of_their_study(job, tmp_path):
    rng = np.random.default_rng(0)

    def image_of(family, sample, kind):
        return rng.integers(60, 196, (8, 8)).astype(np.uint8)

    write_freeman_ziemba(tmp_path, image_of)
    condition = Physiology("v1", textures=tmp_path)
    found = evaluation.evaluate(dataclasses.replace(job, tag="textures"), condition)
    assert len(found.identity["condition"]["files"]["textures"]) == 40
    assert np.isfinite(found.arrays["value/texture_modulation_index"]).any()


@pytest.mark.slow
def test_several_trials_are_made_with_noise(job):
    found = evaluation.evaluate(job, Physiology("v1", trials=2, references=()))
    assert found.identity["condition"]["trials"] == found.details["trials"] == 2


def test_the_front_end_has_its_kernels_and_responses(tmp_path):
    network = tiny.tiny_trained()
    result = evaluation.evaluate(tiny.tiny_evaluation(network, tmp_path), FrontEnd())
    arrays = result.arrays
    assert result.name == "front-end" and result.value("cells") == 4
    np.testing.assert_array_equal(arrays["kernels_in_phase"], tiny.CONFIG.gabor_kernels().in_phase)
    assert arrays["image"].shape == (12, 12, 1) and arrays["sf"].shape == (4,)
    assert arrays["responses_clean"].shape == arrays["responses_noisy"].shape
    assert np.any(arrays["responses_clean"] != arrays["responses_noisy"])
    # All that is shown is stored.
    shown = {name for view in result.views for name in getattr(view, "arrays", ())}
    assert {"Simple cells", "Complex cells", "shown image"} <= shown <= set(arrays)
    # It does not depend on how decisions are made.
    again = tiny.tiny_evaluation(network, tmp_path, protocol=evaluation.Protocol("frozen", 1))
    assert evaluation.evaluate(again, FrontEnd()).provenance == result.provenance
    plain = Network("x", network.logits_fn, (12, 12, 1), stochastic=True)
    with pytest.raises(ValueError, match="suite v1 is for VOneNets"):
        FrontEnd().check(plain)
    assert measured.front_end(evaluation.Evaluation(plain)) == []


def test_the_suite_tells_tables_textures_and_recordings_apart(network, table, tmp_path):
    (tmp_path / "textures").mkdir()
    recordings = tmp_path / "recordings.npz"
    np.savez(recordings, responses=np.zeros((2, 2, 2)), images=np.zeros((2, 8, 8), np.uint8))
    given = evaluation.Evaluation(network)
    made = measured.physiology(
        given, layers=("v1", "bottleneck"), neurons=(table, tmp_path / "textures", recordings)
    )
    assert made == [
        *(Physiology(n, 1, (table,), tmp_path / "textures") for n in ("v1", "bottleneck")),
        *(ExplainedVariance(n, recordings) for n in ("v1", "bottleneck")),
    ]
    with pytest.raises(ValueError, match="at most one folder"):
        measured.physiology(given, neurons=(tmp_path, tmp_path / "textures"))


@pytest.mark.slow
@pytest.mark.extras
def test_recordings_of_the_layer_itself_are_explained(job, network, tmp_path):
    """Neurons that are the main directions of the layer's responses, with a little noise."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: neural)")
    rng = np.random.default_rng(0)
    shown = rng.integers(0, 256, (60, 64, 64)).astype(np.uint8)
    display = measured.display(network)
    placed = neurophysiology.textures.reframe(
        shown, 4.0, display.visual_degrees, display.image_size
    )
    features = neurophysiology.layer_features(
        network.quiet().response_fn("v1"), jax.random.key(0), placed, 1
    )
    left, _, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    neurons = left[:, :8] / left[:, :8].std(axis=0)
    responses = neurons[:, None] + 0.1 * rng.standard_normal((60, 4, 8))
    path = tmp_path / "recordings.npz"
    np.savez(path, responses=responses, strata=np.arange(60) % 2, images=shown)
    result = evaluation.evaluate(job, ExplainedVariance("v1", path))
    assert result.name == "explained-variance-v1-recordings.npz"
    assert result.identity["dataset"]["name"] == "recordings.npz"
    assert result.value("ceiling") > 0.95
    assert result.value("explained variance", version="v3") > 0.3
    np.savez(path, responses=responses + 1, strata=np.arange(60) % 2, images=shown)
    with pytest.raises(results.ResultError, match=r"files.recordings is .*, was "):
        evaluation.evaluate(job, ExplainedVariance("v1", path))
    # Nothing repeats: there is no score.
    shuffled = np.stack([rng.permutation(responses[:, i]) for i in range(4)], axis=1)
    np.savez(tmp_path / "noise.npz", responses=shuffled, strata=np.arange(60) % 2, images=shown)
    noise = ExplainedVariance("v1", tmp_path / "noise.npz")
    found = evaluation.evaluate(dataclasses.replace(job, tag="noise"), noise)
    assert found.find("explained variance", version="v3") is None
    assert "no reliable signal" in found.warnings[0]
