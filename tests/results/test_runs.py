"""Run directories: loaded, refused, and as a data frame."""

import builtins
import dataclasses
import errno
import io
import json
import math
import shutil

import numpy as np
import pytest

from tests.results import built
from tests.results.built import CLEAN, judged
from vone_jax import files, names, results
from vone_jax.results.runs import ranked_sets


@pytest.fixture
def run(tmp_path):
    return built.write(tmp_path, built.measure("vone_resnet18", corruptions=("fog",)))


def fails(paths, *parts):
    with pytest.raises(results.ResultError) as caught:
        results.load(paths)
    for part in parts:
        assert str(part) in str(caught.value)


def test_a_whole_run_has_no_gaps(run):
    (loaded,) = results.load([run])
    assert not loaded.gaps and not loaded.warnings
    assert (loaded.label, loaded.model, loaded.stochastic) == (
        *("VOneResNet-18", "vone_resnet18", True),
    )
    assert len(loaded.of_kind("attack")) == 6 and len(loaded.log) == 35
    assert loaded.config["command"] == "python train.py"


def test_results_of_a_run_in_a_directory_of_their_own_know_its_training(tmp_path):
    made = built.measure("resnet18", {"clean": 0.9})
    experiment = {"seed": 3, "data": {"source": "tfds:mnist"}}
    known = dataclasses.replace(made[0].network, config=experiment)
    results.write(tmp_path / "known", built.change(made[0], network=known))
    results.write(tmp_path / "unknown", made[0])
    known, unknown = results.load([tmp_path / "known", tmp_path / "unknown"])
    assert known.config == {"experiment": experiment} and not known.warnings
    assert unknown.config == {} and "how this network was trained" in unknown.warnings[0]
    # In the directory of a run, its config is missed.
    results.write(tmp_path / "run" / "results", known.results[0])
    (run,) = results.load([tmp_path / "run"])
    assert "config.json is missing" in run.warnings[0]


def test_directories_that_cannot_be_used(tmp_path, run):
    fails([tmp_path / "nowhere"], tmp_path / "nowhere", "does not exist")
    (tmp_path / "file").write_text("")
    fails([tmp_path / "file"], "is not a directory")
    (tmp_path / "empty").mkdir()
    fails([tmp_path / "empty"], "has no results", "python eval.py", tmp_path / "empty")
    # The parent of runs: the error names the run that was meant.
    fails([tmp_path], "did you mean", run)
    fails([], "at least one run")
    for paths in (None, [run, None]):
        with pytest.raises(TypeError, match=r"paths must be run dir.* as 'runs/\*', got None"):
            results.load(paths)
    fails([run, run / ".." / "run"], "2 times")
    fails([run, run / "results"], "2 times")
    fails(str(tmp_path / "x*"), "matches no directory with results")
    assert len(results.load(str(tmp_path / "*"))) == 1
    # Root may read everything, so the answer of the system is replaced.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.access", lambda path, mode: path.name != "results")
        fails([run], run / "results", "cannot be read: Permission denied")
    # A name that could be a pattern is a name.
    assert len(results.load(str(run.rename(tmp_path / "run[1]")))) == 1


@pytest.mark.parametrize(
    ("called", "checkout", "told"),
    [
        ("report/__main__.py", True, "python eval.py"),
        ("bin/vone-report", True, "vone-eval"),
        ("report/__main__.py", False, "vone-eval"),
    ],
)
def test_a_hint_names_the_command_that_there_is(tmp_path, monkeypatch, called, checkout, told):
    """A wheel has no eval.py, and a checkout may be installed."""
    monkeypatch.setattr("sys.argv", [called])
    if not checkout:
        monkeypatch.setattr("vone_jax.names.__file__", str(tmp_path / "a" / "names.py"))
    fails([tmp_path], f"make them with {told}")


def test_results_of_two_networks_do_not_mix(run):
    built.edit(run / "results" / "clean.json", network__name="resnet18")
    fails([run], "mixes results", "resnet18, vone_resnet18", "directory of its own in --results")


def test_results_of_two_files_of_one_name_do_not_mix(tmp_path):
    """Both go to runs/network/results. A file that was moved is still one network."""
    clean, other, *_ = built.measure("resnet18")
    clean = built.change(clean, source="function a/random.py:network")
    moved = built.change(other, source="function b/random.py:network")
    assert len(results.load([built.write(tmp_path, [clean, moved])])) == 1
    run = built.write(tmp_path, [clean, built.change(moved, weights="1")])
    fails(
        [run],
        "a/random.py:network (weights 0badcafe), function b/random.py:network (weights 1)",
        "directory of its own in --results",
    )


def test_labels_are_distinct(tmp_path):
    made = built.measure("resnet18", {"clean": 0.9})
    paths = [built.write(tmp_path / group, made, name) for group, name in
             (("a", "one"), ("a", "two"), ("b", "two"))]  # fmt: skip
    loaded = results.load(paths)
    assert [run.label for run in loaded] == [
        "ResNet-18 (one)",
        *(f"ResNet-18 ({path})" for path in paths[1:]),
    ]
    assert [run.label for run in results.load(paths[:2])] == [
        *("ResNet-18 (one)", "ResNet-18 (two)")
    ]


def test_gaps_are_told_apart_from_other_warnings(run):
    directory = run / "results"
    (directory / "attack-l1-40.00000.json").unlink()
    (directory / "clean.npz").unlink()
    (directory / "corruption-snow-1.partial").mkdir()
    built.edit(directory / "corruption-fog-1.json", condition__kind="telepathy")
    (run / "log.jsonl").unlink()
    (loaded,) = results.load([run])
    assert len(loaded.gaps) == 4
    for part in (
        "clean.npz is missing",
        "not finished: corruption-snow-1. Evaluate again",
        "has arrays without their JSON files: attack-l1-40.00000. Evaluate again, or delete them.",
        "log.jsonl is missing",
    ):
        assert sum(part in gap for gap in loaded.gaps) == 1
    (warning,) = loaded.warnings
    assert "'telepathy'" in warning and warning.endswith("it is not shown.")


def test_a_copy_of_a_result_counts_once(run):
    directory, (before,) = run / "results", results.load([run])
    shutil.copy(directory / "clean.json", directory / "clean (1).json")
    (loaded,) = results.load([run])
    assert [each.name for each in loaded.results] == [each.name for each in before.results]
    assert not loaded.gaps and loaded.warnings == [
        f"{directory / 'clean (1).json'} is a copy of clean.json; it is not shown."
    ]
    # A file that was renamed is the only one of its name.
    (directory / "clean.json").unlink()
    (directory / "clean.npz").rename(directory / "clean (1).npz")
    (loaded,) = results.load([run])
    assert len(loaded.results) == len(before.results) and not loaded.warnings


def test_the_error_over_draws_of_a_ladder_is_in_the_data_frame():
    spread = results.BetweenDraws((0.4, 0.6), 0.14, 0.1)
    rung = results.Rung(0.5, 0.5, (0.4, 0.6), spread)
    condition = results.MinimalCondition(results.Attack("FMN", "l2", 1.0, {}), (0.5,))
    made = built.result(condition, results.Distances(9, 9, 0.5, (rung,)))
    frame = results.Runs([built.run([made])]).to_frame()
    (row,) = frame[frame["quantity"] == "accuracy"].to_dict("records")
    assert row["standard_error_over_draws"] == 0.1


def test_a_result_under_a_tag_comes_after_the_usual_one(tmp_path):
    made = [built.accuracy(CLEAN, [1, 0], name=name) for name in ("clean-a", "clean")]
    (loaded,) = results.load([built.write(tmp_path, made)])
    assert [each.name for each in loaded.results] == ["clean", "clean-a"]


def test_a_config_that_was_edited_is_a_gap(run):
    config = json.loads((run / "config.json").read_text())
    config["digest"] = files.json_digest(config)
    (run / "config.json").write_text(json.dumps(config))
    (loaded,) = results.load([run])
    assert not loaded.gaps
    # The name of a file that is not UTF-8.
    odd = {name: value for name, value in config.items() if name != "digest"}
    odd["command"] = "train.py \udcff"
    (run / "config.json").write_text(json.dumps(odd | {"digest": files.json_digest(odd)}))
    (loaded,) = results.load([run])
    assert not loaded.gaps
    (run / "config.json").write_text(json.dumps(config | {"device": "another"}))
    (loaded,) = results.load([run])
    assert "config.json does not match its digest" in loaded.gaps[0]


def test_a_network_that_was_not_trained_here_has_no_gap(run):
    (run / "config.json").unlink()
    (loaded,) = results.load([run])
    assert "config.json is missing" in loaded.gaps[0]
    (run / "log.jsonl").unlink()
    (loaded,) = results.load([run])
    assert not loaded.gaps and "config.json is missing" in loaded.warnings[0]


def test_pictures_without_their_arrays_are_a_gap(first_format, tmp_path):
    for name in ("v1", "gallery-linf-0.01569"):
        path = tmp_path / "tiny" / "results" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((first_format / "tiny" / "results" / path.name).read_bytes())
    (loaded,) = results.load([tmp_path / "tiny"])
    assert len(loaded.gaps) == 2 and all("pictures are not shown" in gap for gap in loaded.gaps)


def test_log_of_a_killed_training(run):
    with open(run / "log.jsonl", "a") as log:
        log.write('{"kind": "train", "step": 310, "lo')
    (loaded,) = results.load([run])
    assert "log.jsonl is cut off" in loaded.gaps[0] and len(loaded.log) == 35


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", '{"step": 1}', '{"kind": "train", "step": 1}',
     '{"kind": "train", "step": 1, "epoch": 0, "loss": NaN, "accuracy": 0}',
     '{"kind": "train", "step": 1, "epoch": 0, "loss": 1, "accuracy": 2}',
     '{"kind": "train", "step": 1, "epoch": 0, "loss": 1, "accuracy": true}'],
)  # fmt: skip
def test_damaged_log(run, line):
    text = (run / "log.jsonl").read_text()
    (run / "log.jsonl").write_text(line + "\n" + text)
    fails([run], "log.jsonl, line 1")
    (run / "log.jsonl").write_bytes(b"\xff" + text.encode())
    fails([run], "log.jsonl")


@pytest.mark.parametrize("name", ["log.jsonl", "results/clean.npz", "results/clean.json"])
def test_a_file_without_permission_is_not_called_damaged(run, name, monkeypatch):
    opened = io.open

    def denied(path, *arguments, **options):
        if path == run / name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(io, "open", denied)
    monkeypatch.setattr(builtins, "open", denied)
    with pytest.raises(results.ResultError) as error:
        results.load([run])
    assert str(error.value) == f"{run / name} cannot be read: Permission denied"


@pytest.mark.parametrize("text", ["{", "[]", '{"seed": NaN}'])
def test_damaged_config(run, text):
    (run / "config.json").write_text(text)
    fails([run], "config.json", "restore it, or move it away")


def test_the_data_frame_has_one_row_for_each_number(run, first_format):
    loaded = results.load(
        [run, first_format / "base", first_format / "tiny", first_format / "vone"]
    )
    frame = loaded.to_frame()
    assert tuple(frame.columns) == results.COLUMNS
    assert set(frame["quantity"]) >= {
        *("accuracy", "median distance", "mean over corruptions", "mean over categories"),
        *("mean score", "score: pref_or", "logits: largest output"),
    }
    ours = frame[frame["run"] == str(run)]
    assert len(ours) == len(loaded[0].results)
    for result in loaded[0].results:
        (row,) = ours[ours["result"] == result.name].to_dict("records")
        assert (row["value"], row["low"], row["high"]) == (result.accuracy, *result.interval)
        assert row["correct"] == result.measured.correct and row["images"] == 100
        assert row["protocol"] == "fresh noise, 10 draws" and row["network"] == loaded[0].label
    attack = ours[ours["kind"] == "attack"].iloc[0]
    assert (attack["norm"], attack["attack"]) == ("l1", "PGD")
    assert attack["eot_samples"] == 10 and "steps=64" in attack["attack_settings"]
    fog = ours[ours["corruption"] == "fog"]
    assert sorted(fog["severity"]) == [1, 3] and math.isnan(fog.iloc[0]["eps"])
    assert frame["value"].dtype == float
    rungs = frame[(frame["kind"] == "minimal") & (frame["quantity"] == "accuracy")]
    assert len(rungs) == 9 and rungs.iloc[0]["eps_label"] == "1/4080"
    assert rungs.iloc[0]["eps"] == pytest.approx(1 / 4080)
    found = frame[frame["kind"] == "masking"].set_index("quantity")["value"]
    checks = next(r.measured.checks for r in loaded[3].results if r.kind == "masking")
    numbers = {f"{c.name}: {name}": value for c in checks for name, value in c.numbers.items()}
    assert len(numbers) > 20 and dict(found) == numbers
    noises = frame[frame["kind"] == "attack"]["attack_noise"]
    assert set(noises) == {"same", "none", "frozen", "neuronal-0.35-0.07-1"}


@pytest.mark.parametrize(
    ("norm", "eps", "label"),
    [
        ("linf", 4 / 255, "4/255"),
        ("linf", 1 / 1020, "1/1020"),
        ("linf", 0.03, "0.03"),
        ("linf", 0.0, "0"),
        ("linf", 1.0, "255/255"),
        ("l2", 0.15, "0.15"),
        ("l1", 2560.0, "2560"),
    ],
)
def test_radii_have_their_names(norm, eps, label):
    assert names.eps_label(norm, eps) == label


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        (results.Noise("neuronal", 0.35, 0.07), "neuronal 0.35, 0.07"),
        (results.Noise("neuronal", 0.35, 0.07, 2.0), "neuronal 0.35, 0.07, strength 2"),
        (results.Noise("gaussian", 4.0), "Gaussian 4"),
        (None, "none"),
    ],
)
def test_noise_in_short(noise, words):
    assert results.noise_label(noise) == words


def test_the_usual_data_set_is_that_of_most_runs_then_of_most_results_then_without_a_tag():
    def of(*sets):
        names = ("clean", "clean-tagged", "clean-tagged-2", "clean-tagged-3")
        named = zip(names, sets, strict=False)
        measured = ((CLEAN, [1, 0], name, {"dataset": each}) for name, each in named)
        return judged("resnet18", *measured)

    assert ranked_sets([of("b", "a", "a", "a"), of("b")])[0] == ("b", "test")
    assert ranked_sets([of("b", "a", "a")])[0] == ("a", "test")
    assert ranked_sets([of("b", "a")])[0] == ("b", "test")


def test_those_on_the_most_images_come_first_and_published_ones_last():
    published = (built.corrupted("fog", 1, "published"), [1] * 9, "fog")
    run = judged("resnet18", published, (CLEAN, [1] * 2, "few"), (CLEAN, [1] * 5, "many"))
    assert [each.name for each in run.comparable(run.results)] == ["many", "few", "fog"]


def test_images_are_those_of_one_data_set(run):
    (loaded,) = results.load([run])
    published = built.accuracy(built.corrupted("fog", 1, "published"), np.ones(4))
    mixed = built.run([*loaded.results, published])
    assert len(mixed.on_images) == len(loaded.results)


def test_a_directory_of_results_alone_is_read(tmp_path, run):
    """``--results DIR`` of eval.py; the name of a folder "results" is that of the one around it."""
    shutil.copytree(run / "results", tmp_path / "elsewhere")
    loaded = results.load([tmp_path / "elsewhere", run / "results"])
    assert [each.name for each in loaded] == ["elsewhere", run.name]
    expected = [result.name for result in results.load([run])[0].results]
    assert all([result.name for result in each.results] == expected for each in loaded)
    assert [each.name for each in results.load(f"{tmp_path}/else*")] == ["elsewhere"]
