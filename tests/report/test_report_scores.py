"""Aggregate scores: what they are means of, their intervals, and the lines of the table."""

import csv
import io
import json

import numpy as np
import pytest
from page_reader import read
from report_runs import LADDER, STRONG, edit, write_run
from scipy import stats

from vone_jax import corruptions, report
from vone_jax.report import bootstrap, scores, tables, wording
from vone_jax.report.attack_ways import ways
from vone_jax.report.load import load_runs

COMMON = tuple(n if n != "frost" else "frost_procedural" for n in corruptions.SETS["common"])
SMALL = dict(kinds=("clean", "attack", "corruption"), corruptions=COMMON, severities=(1, 5))


def accuracy(run, name):
    return json.loads((run / "results" / f"{name}.json").read_text())["accuracy"]


def copy(run, name, new, **changes):
    """A result under another name with fields changed."""
    source = run / "results" / f"{name}.json"
    target = run / "results" / f"{new}.json"
    target.write_text(source.read_text())
    target.with_suffix(".npz").write_bytes(source.with_suffix(".npz").read_bytes())
    edit(target, name=new, **changes)
    return target


@pytest.fixture(scope="module")
def run_dirs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    found = [
        write_run(root, "base", "resnet18", **SMALL),
        write_run(root, "vone", "vone_resnet18", accuracy=STRONG, **SMALL),
    ]
    for run in found:
        # One corruption that is harder than the others: the two means differ.
        hard = {"corruption": "gaussian_noise", "severity": 1}
        name = "corruption-gaussian_noise-1"
        copy(run, "attack-linf-0.06275", name, kind="corruption", condition=hard)
    return found


def test_groups_are_those_of_the_corruptions():
    assert scores.GROUPS == {g: tuple(corruptions.SETS[g]) for g in scores.GROUPS}
    assert [n for g in scores.GROUPS.values() for n in g] == list(corruptions.SETS["common"])


def test_scores_are_means_by_their_definitions(run_dirs):
    table = scores.table(load_runs(run_dirs))
    assert [line.label for line in table.lines] == ["ResNet-18", "VOneResNet-18"]
    for run, line in zip(run_dirs, table.lines, strict=True):
        found = {name: score.value for name, score in line.scores.items()}
        norms = {
            norm: np.mean([accuracy(run, f"attack-{norm}-{eps:.5f}") for eps in ladder.values()])
            for norm, ladder in LADDER.items()
        }
        each = {
            name: np.mean([accuracy(run, f"corruption-{name}-{s}") for s in (1, 5)])
            for name in COMMON
        }
        each["frost"] = each.pop("frost_procedural")
        groups = {g: np.mean([each[n] for n in names]) for g, names in scores.GROUPS.items()}
        clean, box = accuracy(run, "clean"), np.mean(list(norms.values()))
        fifteen, four = np.mean(list(each.values())), np.mean(list(groups.values()))
        expected = {
            "clean": clean, **norms, "white_box": box, **groups,
            "corruptions": fifteen, "groups": four,
            "robust": (box + fifteen) / 2, "robust_groups": (box + four) / 2,
            "overall": np.mean([clean, *norms.values(), fifteen]),
            "overall_groups": np.mean([clean, *norms.values(), four]),
        }  # fmt: skip
        assert found == pytest.approx(expected)
        assert abs(fifteen - four) > 1e-4
        assert tuple(line.scores) == table.columns == tuple(scores.TITLES)


def test_the_interval_of_one_accuracy_is_the_binomial_one(run_dirs):
    """Of a network without noise the accuracy of drawn images is a binomial share."""
    line = scores.table(load_runs(run_dirs)).lines[0]
    clean = line.scores["clean"]
    low, high = stats.binom.ppf((0.025, 0.975), 100, clean.value) / 100
    assert (clean.low, clean.high) == pytest.approx((low, high), abs=0.011)


def test_images_that_are_hard_for_all_conditions_widen_the_interval_of_their_mean(run_dirs):
    """Twice the same result is no more evidence than once; independent ones would be."""
    (run,) = load_runs(run_dirs[:1])
    (clean,) = run.of_kind("clean")
    once = bootstrap.accuracies([clean])
    twice = bootstrap.accuracies([clean, clean])
    assert once is not None and twice is not None
    np.testing.assert_array_equal(twice[:, 0], twice[:, 1])
    assert twice.mean(1).std() == pytest.approx(np.sqrt(0.9 * 0.1 / 100), rel=0.1)
    np.testing.assert_array_equal(once, bootstrap.accuracies([clean]))
    other = bootstrap.accuracies([clean], seed=1)
    assert other is not None and not np.array_equal(once, other)


def test_results_on_other_images_keep_their_number(tmp_path):
    """Half of the images of one result are those of the other: no resample lacks either."""
    run = write_run(tmp_path, "run", "resnet18", **SMALL)
    path = run / "results" / "attack-linf-0.00392.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays | {"index": arrays["index"] + 50})
    (loaded,) = load_runs([run])
    chosen = [r for r in loaded.results if r.name in ("clean", "attack-linf-0.00392")]
    found = bootstrap.accuracies(chosen)
    assert found is not None
    assert found.mean(0) == pytest.approx([r.accuracy for r in chosen], abs=0.02)


def test_without_values_of_images_there_is_no_interval(tmp_path):
    run = write_run(tmp_path, "run", "resnet18", kinds=("clean",))
    (run / "results" / "clean.npz").unlink()
    table = scores.table(load_runs([run]))
    assert table.lines[0].scores["clean"] == scores.Score(0.9, None, None)
    assert "| 90.0 |" in tables.scores_markdown(table)


def test_every_way_of_attacking_and_judging_has_its_line(tmp_path):
    """Noise off at the test, at the attack, more draws: none is mixed with another."""
    kinds = ("clean", "attack")
    run = write_run(tmp_path, "vone", "vone_resnet18", kinds=kinds, ladder={"linf": LADDER["linf"]})
    plain = write_run(tmp_path, "base", "resnet18", kinds=kinds, ladder={"linf": LADDER["linf"]})
    name = "attack-linf-0.00392"
    neuronal = {"kind": "NeuronalNoise", "scale": 0.35, "level": 0.07, "strength": 1.0}
    for path in (run / "results").glob("*.json"):
        edit(path, config={"model": {"name": "vone_resnet18", "v1": {"noise": neuronal}}})
    record = json.loads((run / "results" / f"{name}.json").read_text())
    quiet = record["condition"] | {"eot_samples": 1}
    removed = {"noise_at_test": {"trained": "NeuronalNoise(scale=0.35)", "given": "none"}}
    none = {"noise": "none", "draws": 1}
    copy(run, name, f"{name}-noise-free", condition=quiet | {"noise_free_gradients": True})
    copy(run, name, f"{name}-100", condition=record["condition"] | {"eot_samples": 100})
    copy(run, name, f"{name}-test-none", model=record["model"] | removed, protocol=none)
    copy(run, "clean", "clean-test-none", model=record["model"] | removed, protocol=none)
    given = record["condition"] | {"attack_noise": "GaussianNoise(scale=2.0)"}
    copy(run, name, f"{name}-x", model=record["model"] | removed, protocol=none, condition=given)
    frozen = {"noise": "frozen_attack", "draws": 10}
    copy(run, name, f"{name}-frozen-attack", protocol=frozen, condition=quiet)
    runs = load_runs([plain, run])
    table = scores.table(runs)
    found = [(line.attacked, line.judged, line.attack) for line in table.lines]
    pgd = "PGD, 64 steps of eps/32"
    assert sorted(found) == sorted([
        ("none", "none", pgd),
        ("neuronal 0.35, 0.07", "neuronal 0.35, 0.07", f"{pgd}, 10 draws"),
        ("neuronal 0.35, 0.07", "neuronal 0.35, 0.07", f"{pgd}, 100 draws"),
        ("none", "neuronal 0.35, 0.07", pgd),
        ("neuronal 0.35, 0.07, frozen", "neuronal 0.35, 0.07", pgd),
        ("none", "none", f"{pgd}, 10 draws"),
        ("Gaussian 2", "none", f"{pgd}, 10 draws"),
    ])  # fmt: skip
    # Only whole ladders have a mean; every number is there by its budget.
    means = [line.attack for line in table.lines if "linf" in line.scores]
    assert means == [pgd, f"{pgd}, 10 draws"]
    assert all(("linf", "1/255") in line.budgets for line in table.lines)
    # In the table of all numbers, too, no two rows have one name.
    page = read(report.write([plain, run], tmp_path / "r.html").read_text(encoding="utf-8"))
    cells = page.find(id="numbers").all("th")
    heads = [cell.text for cell in cells if cell.attributes["scope"] == "row"]
    assert len(heads) == len(set(heads))
    assert any("noise removed" in head for head in heads)
    assert not any("lacks" in item.text for item in page.all("li"))


def test_rules_of_l2_and_l1_share_the_results_of_l_infinity(tmp_path):
    run = write_run(tmp_path, "run", "resnet18", kinds=("clean", "attack"))
    for name in ("attack-l2-0.15000", "attack-l2-0.60000", "attack-l1-40.00000"):
        condition = json.loads((run / "results" / f"{name}.json").read_text())["condition"]
        text = condition["attack"].replace(")", ", l1_step='max_coordinate', norm_offset=0.0)")
        copy(run, name, f"{name}-art", condition=condition | {"attack": text})
    table = scores.table(load_runs([run]))
    assert len(table.lines) == 2
    assert all({"linf", "l2", "l1", "white_box"} <= set(line.scores) for line in table.lines)
    told = {line.attack for line in table.lines}
    assert told == {
        "PGD, 64 steps of eps/32",
        "PGD, 64 steps of eps/32, l1_step max_coordinate, norm_offset 0.0",
    }
    (loaded,) = load_runs([run])
    assert ways([]) == [] and len(ways(loaded.of_kind("attack"))) == 2


def test_published_corruptions_are_no_other_data_set(tmp_path):
    """They have sets of their own, whose images are those of each other and not the clean ones."""
    run = write_run(tmp_path, "run", "resnet18", **SMALL)
    for name in COMMON:
        for severity in (1, 5):
            path = run / "results" / f"corruption-{name}-{severity}.json"
            record = json.loads(path.read_text())
            form = {"form": "published"}
            dataset = record["dataset"] | {"name": f"npy:{name}"}
            edit(path, condition=record["condition"] | form, dataset=dataset)
    (loaded,) = load_runs([run])
    assert {result.dataset.name for result in loaded.on_images} == {"shapes"}
    table = scores.table([loaded])
    assert "corruptions" in table.columns
    (clean,) = loaded.of_kind("clean")
    first, second = loaded.of_kind("corruption")[:2]
    found = bootstrap.accuracies([clean, first, second])
    assert found is not None
    together = np.corrcoef(found.T)
    assert abs(together[0, 1]) < 0.15 and together[1, 2] > 0.3
    page = report.write([run], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "different datasets" not in page


def test_tables_and_page_have_the_same_numbers(run_dirs, tmp_path):
    out = report.write(run_dirs, tmp_path / "r.html", tmp_path / "t")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "t" / "scores.csv").read_text())))
    assert [row["network"] for row in rows] == ["ResNet-18", "VOneResNet-18"]
    assert rows[1]["trained"] == "noise" and rows[0]["trained"] == "none"
    overall = float(rows[1]["overall"])
    assert float(rows[1]["overall_low"]) < overall < float(rows[1]["overall_high"])
    shown = f"{100 * overall:.1f}"
    markdown = (tmp_path / "t" / "scores.md").read_text()
    assert f"| {shown} (" in markdown and "resamples, seed 0" in markdown
    section = read(out.read_text(encoding="utf-8")).find(id="scores")
    values = [float(cell.attributes["value"]) for cell in section.all("data")]
    assert any(abs(value - overall) < 1e-12 for value in values)
    assert "L∞ mean: over the budgets 1/255, 4/255 and 16/255." in section.text


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        ("NeuronalNoise(scale=0.35, level=0.07, strength=1.0)", "neuronal 0.35, 0.07"),
        ("NeuronalNoise(scale=0.35, level=0.07, strength=2.0)", "neuronal 0.35, 0.07, strength 2"),
        ("GaussianNoise(scale=4.0)", "Gaussian 4"),
        ("none", "none"),
    ],
)
def test_noise_in_short(noise, words):
    assert wording.noise_words(noise) == words
