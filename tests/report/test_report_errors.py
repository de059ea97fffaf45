"""What a stranger reads when something is wrong with the files, the command, or the numbers."""

import json

import numpy as np
import pytest
from page_reader import read
from report_runs import STRONG, edit, write_run

from vone_jax import report
from vone_jax.report.__main__ import main
from vone_jax.report.cautions import cautions
from vone_jax.report.load import load_runs

SMALL = {"kinds": ("clean", "attack"), "examples": 40}
ATTACK = "attack-linf-0.01569"


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path, "run", "vone_resnet18")


def fails(run, *parts):
    with pytest.raises(report.ReportError) as caught:
        report.write([run], run.parent / "r.html")
    assert not (run.parent / "r.html").exists()
    for part in parts:
        assert str(part) in str(caught.value)


def test_run_directory_does_not_exist(tmp_path):
    fails(tmp_path / "nowhere", tmp_path / "nowhere", "does not exist")
    (tmp_path / "file").write_text("")
    fails(tmp_path / "file", "is not a directory")


def test_run_directory_without_results(tmp_path, run):
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "has no results", "python eval.py", tmp_path / "empty")
    # The parent of runs: name the run that was meant.
    fails(tmp_path, "did you mean", run)


def test_no_run_and_a_run_given_twice(run, tmp_path):
    with pytest.raises(report.ReportError, match="at least one run"):
        report.write([], tmp_path / "r.html")
    with pytest.raises(report.ReportError, match="2 times"):
        report.write([run, run / ".." / "run"], tmp_path / "r.html")
    with pytest.raises(report.ReportError, match="must be a list"):
        report.write(str(run), tmp_path / "r.html")


def test_out_cannot_be_written(run, tmp_path):
    with pytest.raises(report.ReportError, match="is a directory"):
        report.write([run], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(report.ReportError, match="cannot be written"):
        report.write([run], tmp_path / "file" / "r.html")


@pytest.mark.parametrize("name", ["config.json", "results/clean.json", "log.jsonl"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2] + "\n",
        lambda text: "[1, 2]\n" + text,
        lambda text: text.replace("300", "NaN", 1),
        lambda text: "\udcff\udcfe" + text,
    ],
    ids=["truncated", "no object", "NaN", "bytes"],
)
def test_damaged_text(run, name, damage):
    text = damage((run / name).read_text()) if name != "config.json" else None
    if text is None:
        text = damage((run / name).read_text().replace('"seed": 0', '"seed": 300'))
    (run / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    fails(run, run / name)


def test_truncated_arrays(run):
    for name in ("clean.npz", "v1.npz", "gallery-linf.npz"):
        path = run / "results" / name
        whole = path.read_bytes()
        for keep in (0, 10, len(whole) // 2, len(whole) - 30):
            path.write_bytes(whole[:keep])
            fails(run, path, "not a readable NPZ file")
        middle = bytearray(whole)
        middle[len(whole) // 3] ^= 0xFF
        path.write_bytes(bytes(middle))
        fails(run, path)
        path.write_bytes(whole)
    np.savez(run / "results" / "clean.npz", index=np.array([{}], dtype=object))
    fails(run, "clean.npz", "not a readable NPZ file")


@pytest.mark.parametrize("name", ["config.json", "results/clean.json"])
@pytest.mark.parametrize("version", [None, 0, 2, "1"])
def test_unknown_format(run, name, version):
    edit(run / name, format=version)
    fails(run, run / name, "format", "1 (this version of vone_jax reads no other format)")


@pytest.mark.parametrize(
    ("name", "changes", "parts"),
    [
        ("clean", {"accuracy": 1.5}, ["accuracy", "[0, 1]", "1.5"]),
        ("clean", {"accuracy": 0.123}, ["accuracy is 0.123", "sums.correct / sums.seen"]),
        ("clean", {"accuracy": "high"}, ["accuracy", "'high'"]),
        ("clean", {"accuracy": None}, ["accuracy is missing"]),
        ("clean", {"interval": [0.9, 0.95]}, ["interval[0]", "0.9"]),
        ("clean", {"interval": 0.5}, ["interval", "[low, high]"]),
        ("clean", {"sums": {"correct": 2.0, "seen": 0}}, ["sums.seen"]),
        ("clean", {"kind": None}, ["kind is missing"]),
        ("clean", {"dataset": {"name": "x", "split": "test", "examples": 0}}, ["examples"]),
        ("clean", {"dataset": "fashion"}, ["dataset must be a JSON object"]),
        ("clean", {"model": {"name": "resnet18", "label": "x"}}, ["mixes results", "resnet18"]),
        ("clean", {"protocol": None}, ["protocol is missing"]),
        (ATTACK, {"condition": {"norm": "l3", "eps": 1}}, ["norm", "linf, l2, l1", "'l3'"]),
        (ATTACK, {"condition": {"norm": "l2", "eps": -1}}, ["eps"]),
        (ATTACK, {"condition": {"norm": "l2", "eps": 1, "eot_samples": 0}}, ["eot_samples"]),
        (
            "corruption-contrast-1",
            {"condition": {"corruption": "x", "severity": "1"}},
            ["severity"],
        ),
    ],
)
def test_fields_out_of_range(run, name, changes, parts):
    edit(run / "results" / f"{name}.json", **changes)
    fails(run, run / "results" / "", *parts)


@pytest.mark.parametrize(
    ("name", "change", "parts"),
    [
        ("clean", {"probability_correct": np.full(100, 0.5)}, ["0.500000", "not of one eval"]),
        ("clean", {"probability_correct": np.full(100, np.nan)}, ["not finite"]),
        ("clean", {"probability_correct": np.full(100, 1.5)}, ["must be in [0, 1]"]),
        ("clean", {"probability_correct": np.zeros(7)}, ["shape (100)", "(7,)"]),
        ("clean", {"index": None}, ["index is missing", "label"]),
        ("clean", {"label": np.array(["a"] * 100)}, ["label must be numbers"]),
        ("gallery-linf", {"images": np.full((6, 4, 4, 1), 2.0)}, ["adversarial", "shape"]),
        ("gallery-linf", {"label": np.zeros(3, int)}, ["label", "shape (6)"]),
        ("v1", {"image": np.full((4, 4, 1), -1.0)}, ["image must be in [0, 1]"]),
        ("v1", {"image": np.zeros((4, 4, 2))}, ["1 or 3 channels"]),
        ("v1", {"sf": np.ones(3)}, ["sf", "shape (16)"]),
        ("v1", {"simple_channels": np.int64(17)}, ["simple_channels", "17"]),
        ("v1", {"published_sf_edges": np.ones(8)}, ["published_sf_edges must ascend"]),
        ("v1", {"published_nx_weights": np.ones(4)}, ["published_nx_edges", "shape (5)"]),
    ],
)
def test_arrays_out_of_range(run, name, change, parts):
    path = run / "results" / f"{name}.npz"
    with np.load(path) as archive:
        arrays = dict(archive) | change
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    fails(run, path, *parts)


def test_pictures_without_arrays(run):
    (run / "results" / "v1.npz").unlink()
    fails(run, "v1.json", "v1.npz are missing")


def test_command_line(run, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert main([str(run), "--out", str(out), "--tables", str(tmp_path)]) == 0
    assert out.exists() and (tmp_path / "numbers.csv").exists()
    assert f"wrote {out}" in capsys.readouterr().out
    assert main([str(tmp_path / "nowhere"), "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: the run directory") and "Traceback" not in captured.err


def warned(runs, *parts):
    """There is one caution that has all these parts."""
    given = cautions(load_runs(runs))
    found = [text for text in given if all(part in text for part in parts)]
    assert len(found) == 1, given


def test_good_runs_raise_no_caution(tmp_path):
    runs = [
        write_run(tmp_path, "a", "resnet18"),
        write_run(tmp_path, "b", "vone_resnet18", accuracy=STRONG),
    ]
    (text,) = cautions(load_runs(runs))
    assert text.startswith("Not every ladder of budgets reaches chance: VOneResNet-18 keeps 44.9")
    assert "at L1 40" in text


def test_mixed_datasets(tmp_path):
    runs = [
        write_run(tmp_path, "a", "resnet18", **SMALL),
        write_run(tmp_path, "b", "vone_resnet18", dataset="others", **SMALL),
    ]
    warned(runs, "different datasets", "must not be compared", "shapes (test) by ResNet-18")
    page = report.write(runs, tmp_path / "r.html").read_text(encoding="utf-8")
    shown = [item.text for item in read(page).find(**{"class": "cautions"}).all("li")]
    assert shown == cautions(load_runs(runs))
    assert 'class="verdict"' not in page


def test_unfinished_evaluations(run):
    (run / "results" / f"{ATTACK}.json").unlink()
    edit(
        run / "results" / "clean.json",
        dataset={"name": "shapes", "split": "test", "examples": 300},
    )
    (run / "results" / "corruption-fog-1.partial").mkdir()
    warned([run], f"not finished: {ATTACK} and corruption-fog-1", "continues where it stopped")
    warned([run], "incomplete evaluations", "clean (100 of 300 images)")


def test_missing_companions(run):
    (run / "results" / f"{ATTACK}.npz").unlink()
    (run / "config.json").unlink()
    warned([run], f"{ATTACK}.npz is missing")
    warned([run], "config.json is missing")


def test_log_of_a_killed_training(run):
    with open(run / "log.jsonl", "a") as log:
        log.write('{"kind": "train", "step": 310, "lo')
    warned([run], "log.jsonl is cut off")


def test_results_of_two_checkpoints_and_an_unknown_kind(run):
    edit(run / "results" / "clean.json", checkpoint_step=200)
    edit(run / "results" / "corruption-contrast-1.json", kind="telepathy")
    warned([run], "different checkpoints", "200 and 300")
    warned([run], "'telepathy' are not shown")
    edit(run / "results" / "clean.json", checkpoint_step=300, weights="00000000")
    warned([run], "results of different weights")


def test_weak_attacks(tmp_path):
    rising = STRONG | {"linf": (0.3, 0.3, 0.8)}
    run = write_run(tmp_path, "run", "vone_resnet18", accuracy=rising)
    path = run / "results" / f"{ATTACK}.json"
    condition = json.loads(path.read_text())["condition"]
    edit(path, condition=condition | {"eot_samples": 1})
    other = path.with_name("attack-linf-0.00392.json")
    condition = json.loads(other.read_text())["condition"] | {"noise_free_gradients": True}
    edit(other, condition=condition | {"eot_samples": 1})
    with np.load(path.with_suffix(".npz")) as archive:
        arrays = dict(archive)
    arrays["distance"][3] = 0.5
    np.savez(path.with_suffix(".npz"), **arrays)
    warned([run], "single noise draw", "upper bound", "1 attack followed")
    warned([run], ATTACK, "moved an image by 0.5, beyond its budget 0.0156863")
    warned([run], "a larger L∞ budget (16/255) leaves more accuracy than a smaller one (4/255)")
    warned([run], "reaches chance", "VOneResNet-18 keeps", "at L∞ 16/255")


def test_networks_measured_differently(tmp_path):
    base = write_run(tmp_path, "a", "resnet18", **SMALL)
    kinds = ("clean", "attack", "corruption")
    vone = write_run(tmp_path, "b", "vone_resnet18", kinds=kinds, examples=50)
    path = base / "results" / f"{ATTACK}.json"
    condition = json.loads(path.read_text())["condition"]
    edit(path, condition=condition | {"attack": condition["attack"].replace("=64", "=5")})
    warned([base, vone], "not attacked in the same way under L∞", "steps=5", "steps=64")
    warned([base, vone], "ResNet-18 lacks", "conditions that other networks have")
    warned([base, vone], "tested on different images (40 and 50)")
