"""Result files, run directories, and their data frame."""

import dataclasses
import json

import numpy as np
import pytest

from tests.results import built
from vone_jax import results


def fails(paths, *parts):
    with pytest.raises(results.ResultError) as caught:
        results.load(paths)
    for part in parts:
        assert str(part) in str(caught.value)


def test_a_result_is_read_as_it_was_written(tmp_path):
    made = built.accuracy(built.attacked("linf", 4 / 255), 0.5, "attack-linf-0.01569")
    path = results.write(dataclasses.replace(made, warnings=["weak"]), tmp_path)
    assert path == tmp_path / "attack-linf-0.01569.json"
    read = results.read(path)
    assert read.measured == made.measured and read.identity == made.identity
    assert read.warnings == ["weak"] and read.value() == made.value()
    assert read.arrays.keys() == made.arrays.keys() and "distance" not in read.arrays
    np.testing.assert_array_equal(read.arrays["right"], made.arrays["right"])


def test_arrays_are_read_when_they_are_used(tmp_path):
    path = results.write(built.accuracy(built.CLEAN, 0.5, "clean"), tmp_path)
    path.with_suffix(".npz").write_bytes(b"PK not an archive")
    read = results.read(path)
    assert 0.4 < read.value() < 0.6
    with pytest.raises(results.ResultError, match=r"clean\.npz cannot be read"):
        _ = read.arrays["right"]


def test_a_number_that_is_not_finite_is_not_written(tmp_path):
    made = built.result(built.CLEAN, "clean", {"x": {"value": np.nan}}, {"a": np.zeros(1)})
    with pytest.raises(ValueError, match="JSON"):
        results.write(made, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_one_clear_error(tmp_path):
    run = built.write(tmp_path, built.measure())
    (run / "results" / "clean.json").write_text('{"name": "clean", ')
    fails([run], "clean.json cannot be read")
    (run / "results" / "clean.json").write_text('{"name": "clean", "format": 2}')
    fails([run], "clean.json is no result of this version", "format")


def test_a_field_that_an_identity_lacks_is_a_difference():
    ours = built.result(built.CLEAN).identity
    assert results.differences(ours, json.loads(json.dumps(ours))) == []
    v1 = built.network("vone_resnet18")
    theirs = built.result(built.CLEAN, network=v1).identity
    other = built.result(
        built.CLEAN,
        network=v1 | {"description": {"model": {"type": "VOneNet", "v1": {"k_exc": 1.0}}}},
    ).identity
    assert results.differences(other, theirs) == [
        "network.description.model.v1.k_exc is 1.0, was 25.0"
    ]
    del theirs["network"]["description"]["model"]["v1"]["k_exc"]
    found = results.differences(other, theirs)
    assert "network.description.model.v1.k_exc is 1.0, was absent" in found
    several = {"attacks": [{"type": "PGD"}, {"type": "APGD"}]}
    assert results.differences(several, {"attacks": [{"type": "PGD"}]}) == [
        'attacks.1.type is "APGD", was absent'
    ]


def test_the_frame_has_a_row_for_each_number(tmp_path):
    ladder = {
        "median distance": {"value": None},
        "accuracy at 1/255": {"value": 0.5, "low": 0.4, "high": 0.6, "eps": 1 / 255},
    }
    minimal = built.result(
        {"type": "Minimal", "attack": {"type": "FMN", "norm": "linf"}, "radii": [1 / 255]},
        "minimal",
        ladder,
    )
    base = built.write(tmp_path, [*built.measure(), minimal], "base")
    vone = built.write(tmp_path, built.measure("vone_resnet18"), "vone")
    frame = results.load(str(tmp_path / "*")).to_frame()
    assert list(frame.columns[:9]) == [
        *("run", "network", "result", "label", "number", "value", "low", "high", "eps")
    ]
    assert len(frame) == 2 * 6 + 2 and set(frame["run"]) == {str(base), str(vone)}
    attacks = frame[frame["condition.type"] == "Attacked"]
    table = attacks[attacks["condition.attack.norm"] == "linf"].pivot(
        index="network", columns="condition.attack.eps", values="value"
    )
    assert table.shape == (2, 3) and table.loc["VOneResNet-18", 4 / 255] > 0.3
    row = frame[frame["number"] == "accuracy at 1/255"].iloc[0]
    assert (row["value"], row["eps"]) == (0.5, 1 / 255)
    assert np.isnan(frame[frame["number"] == "median distance"]["value"].iloc[0])
    assert set(frame["network.description.model.v1.k_exc"].dropna()) == {25.0}
    assert set(frame["protocol.draws"]) == {1, 10}


def test_a_run_knows_its_training(tmp_path):
    run = built.write(tmp_path, built.measure(), experiment={"seed": 3})
    log = run / "log.jsonl"
    log.write_text(log.read_text() + '{"kind": "tra')
    (run / "results" / "attack-l1-40.partial").mkdir()
    (loaded,) = results.load([run])
    assert loaded.experiment == {"seed": 3} and len(loaded.log) == 3
    assert loaded.unfinished == ["attack-l1-40"]
    assert [each.name for each in loaded.of_type("Clean")] == ["clean"]
    elsewhere = results.load([run / "results"])
    assert elsewhere[0].experiment == {"seed": 3}


def test_directories_that_cannot_be_used(tmp_path):
    run = built.write(tmp_path, built.measure())
    fails([tmp_path / "nowhere"], tmp_path / "nowhere", "eval.py")
    fails([tmp_path], "did you mean", run)
    fails([], "at least one run")
    fails([run, run / "results"], "twice")
    fails(str(tmp_path / "x*"), "matches no directory with results")
    # A name that could be a pattern is a name.
    assert len(results.load(str(run.rename(tmp_path / "run[1]")))) == 1
    other = built.accuracy(built.CLEAN, 0.5, "other", network=built.network(checksum="1"))
    mixed = built.write(tmp_path, [*built.measure(), other], "mixed")
    fails([mixed], "different networks", "--results")


def test_labels_are_distinct(tmp_path):
    groups = (("a", "one"), ("a", "two"), ("b", "two"))
    paths = [built.write(tmp_path / group, built.measure(), name) for group, name in groups]
    labels = [run.label for run in results.load(paths)]
    assert labels[0] == "ResNet-18 (one)" and len(set(labels)) == 3
    assert str(paths[2]) in labels[2]
