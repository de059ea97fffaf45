"""Requests: what they accept, their options, and published files in the place of made images."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
import tyro

from tests.evaluation import tiny
from vone_jax import data, evaluation, models, v1
from vone_jax.cli import parsing
from vone_jax.cli.evaluate import Arguments
from vone_jax.data import tfds_sets
from vone_jax.evaluation import request, tasks
from vone_jax.evaluation.judging import noise_slug

GIVEN = v1.GaussianNoise(2.0)


@pytest.mark.untyped
def test_lists_are_tuples():
    assert not evaluation.Request(["clean"], layers=[], eps=[]).layers
    of_lists = evaluation.Request(["clean", "linf"], eps=[0.01])
    assert of_lists == evaluation.Request(("clean", "linf"), eps=(0.01,))
    assert of_lists.to_arguments() == ["--suite", "clean", "linf", "--eps", "0.01"]
    assert {of_lists}


def test_a_single_value_in_place_of_several_is_refused():
    with pytest.raises(TypeError, match=r"suite must be a tuple, such as \('linf',\), got 'linf'"):
        evaluation.Request(suite="linf")
    with pytest.raises(TypeError, match=r"eps must be a tuple, such as \(0.1,\), got 0.1"):
        evaluation.Request(suite=("linf",), eps=0.1)


# A value of every field that is not its default.
OPTIONS = dict(
    suite=("l2", "masking", "corruptions", "physiology", "gallery"), examples=8,
    batch_size=4, seed=3, draws=2, noise="frozen",
    test_noise="gaussian:2", attack_noise="none", decision="vote", averaged=3, points=9,
    eps=(0.05, 1e-7), norm="l2", steps=3, step_rule="eps/4", random_start=True, restarts=2,
    eot_samples=5, loss="margin", norm_offset=1e-7, order="box_then_ball",
    corruptions=("contrast", "frost"), severities=(1, 5), form="uint8",
    frost_dir=Path("frost photographs"), corrupted_files="npy:/some/where", masking_images=4,
    transfer_from="runs/other", layers=("v1", "bottleneck"), physiology_trials=4,
    references=(Path("a.csv"), Path("b.nc")), textures=Path("textures"), gallery_images=2,
    gallery_norm="l1", gallery_eps=1 / 3, split="validation", source="cifar10", data_dir="data",
    step=7, workers=2, tag="-again", overwrite=True, matmul_precision="default",
)  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {},
        # Frozen noise has one decision of one draw.
        OPTIONS | dict(noise="fresh"),
        OPTIONS | dict(draws=1, decision="single", averaged=1),
    ],
    ids=["defaults", "all", "frozen"],
)
def test_the_options_of_a_request_make_it_again(fields):
    default, made = evaluation.Request(), evaluation.Request(**fields)
    argv = made.to_arguments()
    options = {word.partition("=")[0] for word in argv if word.startswith("--")}
    assert options == {
        f"--{name.replace('_', '-')}" for name in fields if fields[name] != getattr(default, name)
    }
    markers = (tyro.conf.OmitArgPrefixes,)
    parsed = parsing.parse(Arguments, ["runs/tiny", *argv], "", "", markers=markers)
    assert parsed.request == made and parsed.network == "runs/tiny"


def test_numbers_can_be_fractions():
    argv = ["net", "--eps", "8/255", "1/1020", "--gallery-eps=16/255", "--norm-offset", "1e-7"]
    parsed = parsing.parse(Arguments, argv, "", "", markers=(tyro.conf.OmitArgPrefixes,)).request
    assert parsed.eps == (8 / 255, 1 / 1020)
    assert (parsed.gallery_eps, parsed.norm_offset) == (16 / 255, 1e-7)


def test_every_field_has_an_option():
    assert set(OPTIONS) == {field.name for field in dataclasses.fields(evaluation.Request)}


@pytest.mark.parametrize(
    ("text", "noise", "slug"),
    [
        ("none", None, "none"),
        ("trained", GIVEN, "gaussian-2"),
        ("neuronal", v1.NeuronalNoise(), "neuronal-0.35-0.07-1"),
        ("neuronal:0.5,0.1", v1.NeuronalNoise(0.5, 0.1), "neuronal-0.5-0.1-1"),
        ("neuronal:0.5,0.1,2", v1.NeuronalNoise(0.5, 0.1, 2.0), "neuronal-0.5-0.1-2"),
        ("gaussian:4", v1.GaussianNoise(4.0), "gaussian-4"),
        ("fano:0.4", v1.FanoNoise(0.4), "fano-0.4-1e-05"),
        ("fano:0.4,0.1", v1.FanoNoise(0.4, 0.1), "fano-0.4-0.1"),
    ],
)
def test_texts_stand_for_noise(text, noise, slug):
    assert request.parse_noise("test_noise", text, GIVEN) == noise
    assert noise_slug(noise) == slug


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loud", "test_noise must be trained, none, neuronal, neuronal:SCALE"),
        ("neuronal:1", "gaussian:SCALE or fano.*; got 'neuronal:1'"),
        ("gaussian", "got 'gaussian'"),
        ("gaussian:-1", "test_noise 'gaussian:-1': scale must be a finite number >= 0"),
        ("neuronal:a,b", "test_noise 'neuronal:a,b': 'a' is not a number; accepted are"),
    ],
)
def test_other_texts_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        evaluation.Request(test_noise=text)


@pytest.mark.parametrize(
    ("text", "noise"),
    [
        ("gaussian:3", "same"),
        ("trained", "same"),
        ("none", "none"),
        ("gaussian:2", v1.GaussianNoise(2.0)),
        ("frozen", "frozen"),
    ],
)
def test_the_noise_of_the_network_itself_is_no_other_noise_at_the_attack(text, noise):
    network = tiny.tiny_trained()
    asked = evaluation.Request(("linf",), attack_noise=text)
    assert tasks._attack_noise(asked, asked.suite, network, network.noise) == noise


@pytest.fixture
def files(tmp_path):
    """Files laid out as CIFAR-10-C: ten images at each of five severities."""
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (50, 12, 12, 1)).astype(np.uint8)
    np.save(tmp_path / "fog.npy", images)
    np.save(tmp_path / "frost.npy", images)
    np.save(tmp_path / "labels.npy", np.tile(np.arange(10) % 3, 5))
    return tmp_path


def from_files(planned, files, data_dir=None, **fields):
    return tasks._from_files(planned, evaluation.Request(corrupted_files=files, **fields), data_dir)


def test_extra_corruptions_that_the_files_lack_are_left_out(files, tmp_path):
    """Tiny-ImageNet-C has the common ones alone."""
    module = tiny.tiny_network(noise=None, classes=10)
    network = tiny.tiny_trained(module=module)
    job = tiny.tiny_job(network, tmp_path / "results", examples=5)
    planned = [(job, evaluation.Corrupted(name, 3)) for name in ("fog", "spatter", "saturate")]
    with pytest.warns(UserWarning, match="left out: npy:.* has no spatter, saturate$"):
        replaced = from_files(planned, f"npy:{files}")
    assert [task.corruption for _, task in replaced] == ["fog"]
    with pytest.raises(FileNotFoundError, match="has no corruption 'spatter'"):
        from_files(planned, f"npy:{files}", corruptions=("fog", "spatter"))
    with pytest.raises(FileNotFoundError, match="has no corruption 'snow'"):
        from_files([(job, evaluation.Corrupted("snow", 3))], f"npy:{files}")


def test_extra_corruptions_that_tfds_has_not_prepared_are_left_out(tmp_path, monkeypatch):
    """Each corruption and severity is a set of its own, which may be prepared or not."""

    class Prepared(tfds_sets.TfdsSource):
        def __new__(cls, name, split, data_dir):
            if name in ("cifar10_corrupted/fog_3", "cifar10_corrupted/saturate_1"):
                return tiny.tiny_source()
            return super().__new__(cls)

    monkeypatch.setattr(tfds_sets, "TfdsSource", Prepared)
    job = tiny.tiny_job(tiny.tiny_trained(noise=None), tmp_path / "results")
    planned = [(job, evaluation.Corrupted(name, 3)) for name in ("fog", "spatter")]
    given = dict(files="tfds:cifar10_corrupted", data_dir=tmp_path)
    planned += [(job, evaluation.Corrupted("saturate", severity)) for severity in (1, 2, 4)]
    told = "left out: tfds:cifar10_corrupted has no spatter, saturate at severity 2 and 4$"
    with pytest.warns(UserWarning, match=told):
        ((_, fog), (_, saturate)) = from_files(planned, **given)
    assert (fog.corruption, saturate.severity) == ("fog", 1)
    with pytest.raises(FileNotFoundError, match="spatter_3' is not prepared in"):
        from_files(planned, **given, corruptions=("fog", "spatter"))


@pytest.mark.slow
def test_the_images_are_those_of_the_files(files, tmp_path):
    model, variables = tiny.tiny_network(noise=None, classes=10)
    network = tiny.tiny_trained(module=(model, variables))
    job = tiny.tiny_job(network, tmp_path / "results", examples=5)
    planned = [
        (job, evaluation.Clean()),
        (job, evaluation.Corrupted("fog", 3)),
        (job, evaluation.Corrupted("frost_procedural", 5)),
    ]
    replaced = from_files(planned, f"npy:{files}")
    names = [condition.name for _, condition in replaced]
    assert names == ["clean", "corruption-fog-3-published", "corruption-frost-5-published"]
    assert replaced[0] == planned[0]
    result = evaluation.evaluate(*replaced[1])
    assert result.condition == evaluation.Corrupted("fog", 3, "published").record()
    assert (result.condition.form, result.published) == ("published", True)
    assert result.dataset.name == f"npy:{files}/fog" and result.dataset.examples == 5
    # Severity 3 is rows 20 to 29, of which every second is taken.
    images = np.load(files / "fog.npy")[20:30:2].astype(np.float32) / 255
    logits = models.logits_fn(network.model, network.variables)(jax.random.key(0), images)
    right = np.argmax(logits, -1) == np.arange(0, 10, 2) % 3
    np.testing.assert_array_equal(result.arrays["right"][:, 0], right)
    assert replaced[2][1] == evaluation.Corrupted("frost", 5, "published")


def test_published_images_are_not_cropped(files, tmp_path):
    network = tiny.tiny_trained(noise=None, preprocessing=data.Preprocessing(0.875))
    job = tiny.tiny_job(network, tmp_path / "results")
    planned = [(job, evaluation.Clean()), (job, evaluation.Corrupted("fog", 3))]
    made = [each.network.preprocessing for each, _ in from_files(planned, f"npy:{files}")]
    assert made == [data.Preprocessing(0.875), data.Preprocessing(1.0)]


def test_what_is_not_there_is_told(files, tmp_path):
    job = tiny.tiny_job(tiny.tiny_trained(noise=None), tmp_path / "results")
    fog = evaluation.Corrupted("fog", 3)
    for source, error, message in (
        (f"npy:{files}/nowhere", FileNotFoundError, "nowhere is not a directory"),
        ("tfds:cifar10", ValueError, "no corrupted images 'tfds:cifar10'; accepted are"),
        ("tfds:cifar10_corrupted", FileNotFoundError, "is not prepared in"),
    ):
        with pytest.raises(error, match=message):
            from_files([(job, fog)], source, tmp_path / "data")
    snow = evaluation.Corrupted("snow", 3)
    with pytest.raises(FileNotFoundError, match="no corruption 'snow'.* fog, frost"):
        from_files([(job, snow)], f"npy:{files}")
    with pytest.raises(ValueError, match="form is for images that are made in memory, got 'uint8'"):
        from_files([(job, fog)], f"npy:{files}", form="uint8")
