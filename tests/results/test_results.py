"""Result files, run directories, and their data frame."""

import dataclasses
import json

import numpy as np
import pytest

from tests.results import built
from vone_jax import report, results


def fails(paths, *parts):
    with pytest.raises(results.ResultError) as caught:
        results.load(paths)
    for part in parts:
        assert str(part) in str(caught.value)


def test_a_result_is_read_as_it_was_written(tmp_path):
    made = built.accuracy(built.attacked("linf", 4 / 255), 0.5)
    path = results.write(dataclasses.replace(made, warnings=["weak"]), tmp_path)
    assert path == tmp_path / "attack-pgd-linf-0.0156863-64-steps.json"
    read = results.read(path)
    assert read.rows == made.rows and read.identity == made.identity
    assert (read.row, read.label, read.name) == (made.row, made.label, made.name)
    assert read.warnings == ["weak"] and read.value() == made.value()
    assert read.arrays.keys() == made.arrays.keys() and "distance" not in read.arrays
    np.testing.assert_array_equal(read.arrays["right"], made.arrays["right"])


def test_arrays_are_read_when_they_are_used(tmp_path):
    path = results.write(built.accuracy(built.CLEAN, 0.5), tmp_path)
    path.with_suffix(".npz").write_bytes(b"PK not an archive")
    read = results.read(path)
    assert 0.4 < read.value() < 0.6
    with pytest.raises(results.ResultError, match=r"clean\.npz cannot be read"):
        _ = read.arrays["right"]


def test_views_and_references_are_read_as_they_were_written(tmp_path):
    views = [
        results.Lines("accuracy", "layer", "norm", "clean", ("v1", "logits"), True, True, "Why."),
        results.Chart({"mark": "bar", "data": {"values": [{"x": 1}]}}, "bars", section="Else"),
        results.Pictures(("shown",), ("one", "two"), "two", 48),
    ]
    people = [{"network": "9 observers", "number": "accuracy", "layer": "v1", "value": 0.25}]
    made = built.accuracy(
        built.CLEAN, 0.5, views=views, references=people, section="Rooms",
        arrays={"shown": np.zeros((2, 4, 4, 1))},
    )  # fmt: skip
    read = results.read(results.write(made, tmp_path))
    assert list(read.views) == views and read.references == people and read.section == "Rooms"


def test_a_number_that_is_not_finite_is_not_written(tmp_path):
    made = built.result(built.CLEAN, {"x": {"value": np.nan}}, {"a": np.zeros(1)})
    with pytest.raises(ValueError, match="value of x is nan"):
        results.write(made, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_one_clear_error(tmp_path):
    run = built.write(tmp_path, built.measure())
    file = run / "results" / "clean.json"
    whole = json.loads(file.read_text())
    file.write_text('{"numbers": [], ')
    fails([run], "clean.json cannot be read")
    for wrong in (
        {"schema": 2},
        {"numbers": [1]},
        {"numbers": [{"value": 0.5}]},
        {"row": {}},
        {"views": [{"view": "hologram"}]},
        {"views": [{"view": "lines", "number": "x"}]},
        {"references": [{"value": 0.5}]},
        {"references": [{"number": "accuracy", "value": 0.5}]},
        {"references": [{"network": "9 observers", "number": "accuracy"}]},
    ):
        file.write_text(json.dumps(whole | wrong))
        fails([run], "clean.json is no result of this version")


def test_a_result_whose_arrays_are_lost_is_refused_by_name(tmp_path):
    """Its numbers vanished from the page without a word."""
    run = built.write(tmp_path, built.measure())
    path = run / "results" / "clean.json"
    assert results.is_complete(path)
    path.with_suffix(".npz").unlink()
    assert not results.is_complete(path)
    fails([run], run / "results" / "clean.npz", "missing")
    # A result without arrays has no such file.
    bare = results.write(built.result({"condition": "v1"}), tmp_path)
    assert results.is_complete(bare) and not bare.with_suffix(".npz").exists()
    assert not results.read(bare).arrays


@pytest.mark.parametrize("wrong", ["NaN", "Infinity", "-Infinity", "1e999", "7.5", "-3", "true"])
@pytest.mark.parametrize("column", ["value", "low"])
def test_reading_refuses_a_number_that_writing_refuses(tmp_path, wrong, column):
    """An accuracy is a share, and JSON has no NaN: browsers cannot read a page with one."""
    run = built.write(tmp_path, [built.accuracy(built.CLEAN, 0.5)])
    file = run / "results" / "clean.json"
    record = json.loads(file.read_text())
    record["numbers"][0][column] = "WRONG"
    file.write_text(json.dumps(record).replace('"WRONG"', wrong))
    fails([run], file)
    value = {"true": True}.get(wrong) or float(wrong)
    made = built.result(built.CLEAN, {"accuracy": built.INTERVAL | {column: value}})
    with pytest.raises(ValueError):
        results.write(made, tmp_path / "written")
    assert not list((tmp_path / "written").iterdir())


def test_a_number_that_is_no_share_may_be_of_any_size(tmp_path):
    made = built.result(built.CLEAN, {"decibel": {"value": 37.5}, "distance": {"value": -3.0}})
    assert results.read(results.write(made, tmp_path)).rows == made.rows


def test_pictures_that_a_result_has_not_are_refused_before_it_is_written(tmp_path):
    made = built.result(built.CLEAN, views=[results.Pictures(("shown",))])
    with pytest.raises(ValueError, match="pictures must be of arrays of the result, got 'shown'"):
        results.write(made, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_field_that_an_identity_lacks_is_a_difference():
    ours = built.result(built.CLEAN).identity
    assert results.differences(ours, json.loads(json.dumps(ours))) == []
    v1 = built.network("vone_resnet18")
    theirs = built.result(built.CLEAN, of=v1).identity
    changed = json.loads(json.dumps(v1))
    changed["description"]["model"]["v1"]["k_exc"] = 1.0
    other = built.result(built.CLEAN, of=changed).identity
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


def minimal():
    """A result with a number at each of two radii, and one that is not defined."""
    at = [{"number": "accuracy", "eps": eps / 255} | built.INTERVAL for eps in (1, 4)]
    condition = {"condition": "minimal", "attack": "FMN", "norm": "linf"}
    made = built.result(condition, {"median distance": {}})
    return dataclasses.replace(made, numbers=[*made.numbers, *at])


def test_numbers_of_one_name_differ_in_their_columns(tmp_path):
    made = results.read(results.write(minimal(), tmp_path))
    assert "eps" not in made.row and (made.label, made.name) == (
        "minimal L∞, FMN",
        "minimal-linf-fmn",
    )
    assert [results.label(row) for row in made.rows][1:] == [
        "minimal L∞ 1/255, FMN", "minimal L∞ 4/255, FMN"
    ]  # fmt: skip
    assert made.value(eps=4 / 255) == 0.5 and np.isnan(made.value(eps=8 / 255))
    assert np.isnan(made.value("median distance"))


def test_the_frame_has_a_row_for_each_number_and_all_columns_of_kinds(tmp_path):
    mine = built.result(
        {"condition": "rooms", "power": 2.0, "walls": ["red", "blue"]},
        {"sure": {"value": 0.25, "level": 0.3, "section": "Elsewhere"}},
    )
    base = built.write(tmp_path, [*built.measure(), minimal(), mine], "base")
    vone = built.write(tmp_path, built.measure("vone_resnet18"), "vone")
    frame = results.load(str(tmp_path / "*")).to_frame()
    assert list(frame)[:4] == ["run", "label", "network", "condition"]
    assert len(frame) == 2 * 6 + 3 + 1 and set(frame["run"]) == {str(base), str(vone)}
    attacks = frame[(frame["condition"] == "attack") & (frame["norm"] == "linf")]
    table = attacks.pivot(index="network", columns="eps", values="value")
    assert table.shape == (2, 3) and table.loc["VOneResNet-18", 4 / 255] > 0.3
    row = frame[frame["label"] == "minimal L∞ 1/255, FMN"].iloc[0]
    assert (row["value"], row["eps"], row["condition"]) == (0.5, 1 / 255, "minimal")
    assert np.isnan(frame[frame["number"] == "median distance"]["value"].iloc[0])
    own = frame[frame["condition"] == "rooms"].iloc[0]
    assert (own["power"], own["level"], own["walls"]) == (2.0, 0.3, ["red", "blue"])
    # How a number is shown is no part of what it is.
    assert not {"section", "main", "of"} & {*frame}
    assert set(frame["network.description.model.v1.k_exc"].dropna()) == {25.0}
    assert set(frame["draws"].dropna()) == {10} and set(frame["protocol.draws"]) == {1, 10}


def test_a_frame_with_a_column_of_lists_has_means_and_a_page(tmp_path):
    """Such columns are those of fields with several values."""
    made = [
        built.accuracy(built.corrupted(name, 3, walls=["red", "blue"]), 0.5)
        for name in ("fog", "snow")
    ]
    run = built.write(tmp_path, made)
    (*_, mean) = results.means(results.load(run).to_frame()).to_dict("records")
    assert mean["value"] == pytest.approx(np.mean([each.value() for each in made]))
    assert report.write([run], tmp_path / "page.html").exists()


def test_no_network_has_two_rows_of_one_label_and_number(tmp_path):
    """Other noise, decisions, tags and corruptions, as a user measures them one after another."""
    made = [
        each
        for fields in ({}, {"noise": "none"}, {"decision": "vote:8"}, {"tag": "again", "seed": 1})
        for each in built.measure("vone_resnet18", corruptions=("fog",), **fields)
    ]
    run = built.write(tmp_path, made)
    frame = results.load([run]).to_frame()
    assert len(frame) == 4 * 7 and not frame.duplicated(["network", "label", "number"]).any()
    own = frame[frame["noise"].isna() & frame["decision"].isna() & frame["tag"].isna()]
    assert sorted(own["value"]) == sorted(each.value() for each in made[:7])
    again = json.loads((run / "results" / "clean.json").read_text())
    again["arrays"] = again["views"] = []
    (run / "results" / "copy.json").write_text(json.dumps(again))
    fails([run], "has two results 'clean'", "--tag")


def test_a_run_knows_its_training(tmp_path):
    run = built.write(tmp_path, built.measure(), experiment={"seed": 3})
    log = run / "log.jsonl"
    log.write_text(log.read_text() + '{"kind": "tra')
    (run / "results" / "attack-l1-40.0123456789ab.partial").mkdir()
    (loaded,) = results.load([run])
    assert loaded.experiment == {"seed": 3} and len(loaded.log) == 3
    assert loaded.unfinished == ["attack-l1-40"]
    assert [each.name for each in loaded.of("clean")] == ["clean"]
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
    other = built.accuracy(built.CLEAN, 0.5, tag="other", of=built.network(checksum="1"))
    mixed = built.write(tmp_path, [*built.measure(), other], "mixed")
    fails([mixed], "different networks", "--results")


def test_labels_are_distinct(tmp_path):
    groups = (("a", "one"), ("a", "two"), ("b", "two"))
    paths = [built.write(tmp_path / group, built.measure(), name) for group, name in groups]
    labels = [run.label for run in results.load(paths)]
    assert labels[0] == "ResNet-18 (one)" and len(set(labels)) == 3
    assert str(paths[2]) in labels[2]
