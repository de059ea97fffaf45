"""V1 match against robustness: pairs, correlations with their intervals, files, and errors."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from report_runs import LADDER, edit, write_run
from scipy import stats
from test_report_physiology import write_layer

from vone_jax import report
from vone_jax.report import __main__ as command
from vone_jax.report import v1_match
from vone_jax.report.load import load_runs

KINDS = ("clean", "attack")


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Six networks, the more V1-like the more robust but for one; each has a worse layer, too."""
    root = tmp_path_factory.mktemp("pool")
    found = []
    for place, robust in enumerate((0.1, 0.2, 0.5, 0.4, 0.6, 0.8)):
        accuracy = {"clean": 0.9, "linf": (robust, robust / 2, 0.0), "l2": (robust, 0.0)}
        accuracy["l1"] = (robust,)
        run = write_run(root, f"net{place}", "resnet18", kinds=KINDS, accuracy=accuracy)
        match = 0.3 + 0.1 * place
        write_layer(run, "deep", {"pref_or": 0.1, "peak_sf": 0.1})
        write_layer(run, "stem", {"pref_or": match, "peak_sf": match, "sf_selective": 1.0})
        found.append(run)
    return found


def test_the_best_layer_is_paired_with_weak_budgets(pool):
    found = v1_match.match(load_runs(pool), weakest=1)
    assert found.budgets == (("linf", "1/255"), ("l2", "0.15"), ("l1", "40"))
    # The third property is not scored in all layers.
    assert len(found.properties) == 2
    assert {point.layer for point in found.points} == {"stem"}
    assert [p.match for p in found.points] == pytest.approx(np.arange(3, 9) / 10)
    assert [p.robust for p in found.points] == pytest.approx([0.1, 0.2, 0.5, 0.4, 0.6, 0.8])
    pearson, spearman = found.correlations
    x, y = np.arange(6), [0.1, 0.2, 0.5, 0.4, 0.6, 0.8]
    assert (pearson.value, pearson.p) == pytest.approx(tuple(stats.pearsonr(x, y)))
    assert (spearman.value, spearman.p) == pytest.approx(tuple(stats.spearmanr(x, y)))
    assert pearson.low < pearson.value < pearson.high <= 1


def test_a_stronger_attack_on_one_network_does_not_make_it_look_weak(pool, tmp_path):
    """Controls and other settings that only some have are left out."""
    strong = shutil.copytree(pool[5], tmp_path / "net5")
    path = strong / "results" / "attack-linf-0.00392.json"
    condition = json.loads(path.read_text())["condition"]
    steps = condition | {"attack": condition["attack"].replace("steps=64", "steps=256")}
    for name, changed in (("x", steps), ("y", condition | {"noise_free_gradients": True})):
        low = pool[0] / "results" / path.name
        for suffix in (".json", ".npz"):
            target = path.with_name(f"{name}{suffix}")
            target.write_bytes(low.with_suffix(suffix).read_bytes())
        edit(path.with_name(f"{name}.json"), name=name, condition=changed)
    found = v1_match.match(load_runs([*pool[:5], strong]), weakest=1)
    assert found.points[5].robust == pytest.approx(0.8)
    assert "steps=64" in found.attacks["linf"]


def test_intervals_are_those_of_scipy():
    rng = np.random.default_rng(4)
    x = rng.standard_normal(40)
    y = x + rng.standard_normal(40)
    functions = (stats.pearsonr, stats.spearmanr)
    measured = v1_match.correlations(x.tolist(), y.tolist())
    for found, function in zip(measured, functions, strict=True):
        expected = stats.bootstrap(
            (x, y), lambda a, b, f=function: f(a, b)[0], paired=True, vectorized=False,
            n_resamples=1000, method="percentile", rng=np.random.default_rng(1),
        ).confidence_interval  # fmt: skip
        assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.04)
    assert measured == v1_match.correlations(x.tolist(), y.tolist(), seed=0)
    assert measured != v1_match.correlations(x.tolist(), y.tolist(), seed=1)


def test_the_report_writes_table_and_plot(pool, tmp_path, capsys):
    arguments = [*map(str, pool), "--out", str(tmp_path / "r.html"), "--tables", str(tmp_path)]
    assert command.main([*arguments, "--v1-match", "1"]) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "v1_match.csv").read_text())))
    assert [row["layer"] for row in rows] == ["stem"] * 6
    assert float(rows[5]["robust"]) == pytest.approx(0.8) and rows[5]["linf_1/255"] == "0.8"
    text = (tmp_path / "v1_match.md").read_text()
    assert "6 networks." in text and "| Pearson | 0.9" in text and "seed 0" in text
    assert text.index("net5") < text.index("net2") < text.index("net3")
    assert (tmp_path / "v1_match.png").read_bytes().startswith(b"\x89PNG")
    drawn = (tmp_path / "v1_match.svg").read_bytes()
    assert b"<svg" in drawn
    report.write(pool, tmp_path / "r.html", tmp_path, 1)
    assert (tmp_path / "v1_match.svg").read_bytes() == drawn


def test_what_is_missing_is_told(pool, tmp_path, capsys):
    runs = load_runs(pool)
    with pytest.raises(report.ReportError, match="needs at least 5 networks, got 4"):
        v1_match.match(runs[:4])
    with pytest.raises(report.ReportError, match="needs 2 budgets in L1 .* there are 1"):
        v1_match.match(runs)
    with pytest.raises(report.ReportError, match="budgets >= 1, got 0"):
        v1_match.match(runs, 0)
    bare = write_run(tmp_path, "bare", "resnet18", kinds=("clean",))
    with pytest.raises(report.ReportError, match=r"no scored layer .*bare; .*--suite physiology"):
        v1_match.match(load_runs([*pool, bare]))
    write_layer(bare, "stem", {"pref_or": 0.5})
    with pytest.raises(report.ReportError, match=r"no attack .*bare; .*--suite linf"):
        v1_match.match(load_runs([*pool, bare]))
    other = write_run(tmp_path, "other", "resnet18", kinds=KINDS, ladder={"l1": LADDER["l1"]})
    write_layer(other, "stem", {"sf_selective": 0.5})
    with pytest.raises(report.ReportError, match="no property is scored in all layers"):
        v1_match.match(load_runs([*pool, other]), 1)
    with pytest.raises(report.ReportError, match="all networks have the same V1 match, 1"):
        v1_match.correlations([1.0] * 5, [1.0, 2, 3, 4, 5])
    with pytest.raises(report.ReportError, match="tables_dir must be given"):
        report.write(pool, tmp_path / "r.html", v1_match_budgets=1)
    with pytest.raises(SystemExit):
        command.main([str(pool[0]), "--v1-match"])
    assert "--v1-match needs --tables DIR" in capsys.readouterr().err
