"""The page: complete in itself, true to the files, safe, well formed."""

import base64
import csv
import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import altair as alt
import pytest

from tests.report.page_reader import read, rendered, specs, unpacked
from tests.results import built
from tests.results.built import STRONG, WEAK, judged
from vone_jax import report, results
from vone_jax.report import accuracy, charts
from vone_jax.report import page as pages

MEASURED = ("clean", "attack", "corruption")
KINDS = {*MEASURED, "masking", "gallery", "v1", "training"}
# The part of the config.json of a run that other networks lack.
CONFIG = {"command": "python train.py"}


def measured(run_dirs):
    """(number of the run, result) of all results."""
    for number, run in enumerate(results.load(run_dirs), start=1):
        for result in run.results:
            yield number, result


def test_a_norm_that_was_attacked_only_with_other_noise_has_no_chart():
    quiet = built.network("vone_resnet18", test_noise=None)
    replaced = built.measure("vone_resnet18", {"linf": STRONG["linf"]}, of=quiet)
    usual = built.measure("vone_resnet18", {"clean": 0.8, "l2": STRONG["l2"]})
    told = "no network was attacked as it was trained, with its own noise and one new draw"
    for others, panels in (([], 0), (usual, 1)):
        attacks = rendered([built.run([*replaced, *others])]).find(id="attacks")
        assert len(attacks.of_class("plot")) == panels
        assert f"In L∞, {told}" in attacks.words
    assert told not in rendered([built.run(usual)]).find(id="attacks").text


def test_the_axis_of_a_chart_does_not_follow_the_choice_of_networks():
    runs = built.pair({"clean": 0.8}, WEAK)
    for figure in (accuracy.attack_chart(runs, "linf"), accuracy.severity_chart(runs, "fog")):
        ends = [
            layer["encoding"]["x"]["scale"]["domain"]
            for layer in figure.spec["layer"]
            if layer.get("encoding", {}).get("x", {}).get("field") == "place"
        ]
        assert ends and all(low == 0 and high >= 3 for low, high in ends)


def test_loads_nothing_and_runs_only_its_own_scripts(page):
    tree = read(page)
    names = {element.name for element in tree.all()}
    assert not names & {"link", "iframe", "object", "embed", "base", "foreignobject"}
    for element in tree.all():
        for name, value in element.attributes.items():
            assert not name.startswith("on"), (element.name, name)
            if name == "src":
                assert value.startswith("data:image/png;base64,")
            if name in ("href", "xlink:href"):
                assert value.startswith("#")
    without_scripts = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", without_scripts))
    assert "@import" not in without_scripts and "://" not in without_scripts
    policy = tree.find(**{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    assert policy.startswith("default-src 'none'") and "unsafe-eval" not in policy
    (loader,) = [s for s in tree.all("script") if "type" not in s.attributes]
    digests = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (loader.text, unpacked(tree, "script"))
    ]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    assert policy.endswith(f"; script-src {allowed}") and len(page) < 1_000_000


def test_every_chart_has_a_picture_a_specification_and_a_description(page):
    tree = read(page)
    plots = tree.of_class("plot")
    # The answer, one norm, all and two corruptions, four parameters of the bank, two of training.
    assert len(plots) == 1 + 1 + 1 + 2 + 4 + 2
    for plot, (name, spec) in zip(plots, specs(tree).items(), strict=True):
        assert plot.attributes["role"] == "img" and plot.attributes["aria-label"]
        (picture,) = plot.children[:1]
        assert picture.name == "svg" and "viewbox" in picture.attributes
        # A specification of the schema, with data and no address of data.
        alt.Chart.from_dict(spec, validate=True)
        assert plot.attributes["id"] == name and '"url"' not in json.dumps(spec)


def test_curves_carry_the_numbers(page, run_dirs):
    tree = read(page)
    plot = tree.find(id="attacks").of_class("plot")[0]
    label = plot.attributes["aria-label"]
    spec = specs(tree)[plot.attributes["id"]]
    # The layers share the rows.
    rows = max(spec["datasets"].values(), key=len)
    tips = {(row["Network"], row["Condition"]): row for row in rows}
    for _, result in measured(run_dirs):
        if result.kind == "attack":
            share = f"{100 * result.accuracy:.1f}\u202f%"
            tip = tips[result.network.label, result.attack.eps_label]
            assert tip["Accuracy"].startswith(share) and tip["Judged"] == result.protocol_label
            assert f"{result.attack.eps_label} {share}" in label
    shown = {text.text for text in plot.all("text")}
    assert {"clean", "1/1020", "4/255", "16/255"} <= shown


def test_charts_by_condition_have_the_intervals_of_the_files():
    """They hold for a single result. A mean over several has an interval over their images."""
    run = built.run(built.measure("resnet18", {"clean": 1.0, "linf": (0.2,)}))
    figure = accuracy.overview([run])
    drawn = figure.spec["datasets"][figure.spec["layer"][-1]["data"]["name"]]
    rows = {row["Condition"]: row for row in drawn}
    for condition, result in zip(("Clean images", "L∞ 1/255"), run.results, strict=True):
        shown = [rows[condition][name] for name in ("accuracy", "low", "high")]
        assert shown == [result.accuracy, *result.interval]
    assert rows["Clean images"]["low"] < 1


def test_a_mean_without_values_of_images_has_no_interval_and_names_its_form():
    fog, snow = (built.corrupted(name, 3, "jpeg85") for name in ("fog", "snow"))
    bare = {"index": False}
    run = judged("resnet18", (fog, 0.6, "a", bare), (snow, 0.6, "b", bare))
    figure = accuracy.overview([run])
    (row,) = figure.spec["datasets"][figure.spec["layer"][-1]["data"]["name"]]
    assert (row["low"], row["high"]) == (None, None) and row["accuracy"] == pytest.approx(0.6)
    assert row["Judged"] == "Mean of 2 corruptions, severity 3, JPEG 85"


def test_every_number_of_the_table_is_the_one_in_the_file(page, run_dirs):
    tree = read(page)
    shown = {}
    for cell in tree.find(id="numbers").all("td"):
        for link in cell.all("a"):
            target = link.attributes["href"].removeprefix("#")
            name = next(tree.find(id=target).all("th")).text
            (value,) = link.all("data")
            notes = [small.text for small in cell.all("small")]
            shown[int(re.match(r"run(\d+)-", target)[1]), name] = (value, *notes)
    expected = {(n, r.name): r for n, r in measured(run_dirs) if r.kind in MEASURED}
    assert len(expected) == 18 and shown.keys() == expected.keys()
    for key, result in expected.items():
        value, interval, judged = shown[key]
        assert float(value.attributes["value"]) == result.accuracy
        assert value.text == f"{100 * result.accuracy:.1f}\u202f%"
        low, high = (f"{100 * end:.1f}" for end in result.interval)
        assert interval == f"{low}–{high}\u202f%" and judged == result.protocol_label


def test_differences_of_the_tables_are_paired_means(page):
    for part in ("numbers", "differences"):
        rows = [list(row.all("data")) for row in read(page).find(id=part).all("tr")]
        lines = [line for line in rows if line]
        assert all(len(line) == 3 for line in lines) and len(lines) >= 6
        for base, vone, difference in lines:
            expected = float(vone.attributes["value"]) - float(base.attributes["value"])
            assert float(difference.attributes["value"]) == pytest.approx(expected, abs=1e-12)


def test_provenance_of_every_result(page, run_dirs):
    provenance = read(page).find(id="provenance")
    text = provenance.text
    for number, result in measured(run_dirs):
        rows = [
            row
            for row in provenance.all("tr")
            if row.attributes.get("id", "").startswith(f"run{number}-")
            and next(row.all("th")).text == result.name
        ]
        assert len(rows) == 1
        if result.kind == "attack":
            assert str(result.condition.attacks[0]) in rows[0].text
        assert result.identity_hash in rows[0].text
        for field in (result.provenance.command, result.provenance.device, result.network.weights):
            assert field and field in text
        assert f"stream {result.key.stream}" in text
        assert f"jax {result.provenance.versions['jax']}" in text
    assert "python train.py" in text and "images per second" in text


def test_groups_of_results_have_titles_of_their_own():
    """Each command is a group; the name of a result is unique among those of a network."""
    made = [
        built.change(one, provenance=results.Provenance({}, command=f"python eval.py {place // 2}"))
        for place, one in enumerate(built.measure("resnet18"))
    ]
    groups = rendered([built.run(made)]).find(id="provenance").all("summary")
    _, *titles = [summary.text for summary in groups]
    assert titles[0].startswith("clean and 1 more checkpoint of step 300")
    assert len(set(titles)) == len(titles) == 4
    without = built.run([built.change(one, checkpoint_step=None) for one in made])
    _, first, *_ = rendered([without]).find(id="provenance").all("summary")
    assert first.text.startswith("clean and 1 more") and "step" not in first.text


def test_provenance_states_once_what_results_share():
    shared, other = (results.Provenance({}, started=f"2026-01-0{day}") for day in (1, 2))
    made = [built.change(one, provenance=shared) for one in built.measure("resnet18")[:2]]
    for last, columns in ((made[1], {"started"}), (built.change(made[1], provenance=other), set())):
        found = rendered([built.run([made[0], last])]).find(id="provenance")
        (table,) = found.all("table")
        header = {cell.text.lower() for cell in table.all("th")}
        assert not columns & header and header >= {"identity", "condition"}
        assert found.text.count("2026-01-01") == 1


def test_the_spread_over_draws_is_told():
    made = built.accuracy(built.CLEAN, 0.9)
    spread = results.BetweenDraws((0.9, 0.9), 0.0, 0.0125)
    measured = results.Accuracy(0.9, (0.8, 0.95), 90.0, 100, spread)
    tree = rendered([built.run([built.change(made, measured=measured)])])
    assert "1.2 points" in tree.find(id="provenance").text


def test_numbers_csv_is_the_data_frame(run_dirs, tmp_path):
    report.write(run_dirs, tmp_path / "r.html", tables_dir=tmp_path / "tables")
    with open(tmp_path / "tables" / "numbers.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    by_name = {(line["run"], line["result"]): line for line in lines}
    assert tuple(lines[0]) == results.COLUMNS
    for number, result in measured(run_dirs):
        if result.kind in MEASURED:
            line = by_name[str(run_dirs[number - 1]), result.name]
            assert float(line["value"]) == result.accuracy
            assert [float(line["low"]), float(line["high"])] == list(result.interval)
            assert float(line["correct"]) == result.measured.correct
            label = result.attack.eps_label if result.kind == "attack" else ""
            assert line["eps_label"] == label
    with open(tmp_path / "tables" / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    section = read((tmp_path / "r.html").read_text(encoding="utf-8")).find(id="scores")
    values = {float(cell.attributes["value"]) for cell in section.all("data")}
    assert float(rows[1]["overall"]) in values


def test_is_well_formed_and_accessible(page):
    tree = read(page)
    assert next(tree.all("html")).attributes["lang"] == "en"
    ids = [element.attributes["id"] for element in tree.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    targets = {
        reference
        for element in tree.all()
        for value in element.attributes.values()
        for reference in re.findall(r"^#(.*)$|url\(#([^)]*)\)", value or "")
    }
    assert {a or b for a, b in targets} <= set(ids)
    for image in tree.all("img"):
        assert "alt" in image.attributes
    for heading in tree.all("th"):
        assert heading.attributes.get("scope")
    levels = [int(e.name[1]) for e in tree.all() if re.fullmatch("h[1-6]", e.name)]
    assert levels.count(1) == 1
    headings = levels[levels.index(1) :]
    assert all(b <= a + 1 for a, b in zip(headings, headings[1:], strict=False))
    for part in ("scores", "attacks", "trust", "gallery", "corruptions", "v1", "training",
                 "numbers", "provenance"):  # fmt: skip
        assert tree.find(id=part)


def test_cells_of_tables_name_their_column(page):
    """On a phone a row becomes a list, in which the title of its column stands before a number."""
    for table in read(page).all("table"):
        if "stack" not in table.attributes["class"] or "checks" in table.attributes["class"]:
            continue
        titles = [cell.text for cell in next(table.all("thead")).all("th")]
        for row in next(table.all("tbody")).all("tr"):
            labels = [cell.attributes["data-label"] for cell in row.all("td")]
            assert len(labels) == len(titles) - 1 and all(labels)


def test_notes_in_cells_wrap_on_a_phone():
    """Numbers must not wrap, but a note that does not makes the page wider than the screen."""
    made = built.measure("vone_resnet18", {"clean": 0.9}, examples=60)
    tree = rendered([built.run(built.measure("resnet18", {"clean": 0.9})), built.run(made)])
    (note,) = [e for e in tree.find(id="differences").all("small") if "common images" in e.text]
    assert note.attributes["class"] == "text"
    assert "td small.text { white-space: normal; }" in next(tree.all("style")).text


def test_same_files_give_the_same_page_without_jax(page, run_dirs, tmp_path):
    """In a fresh process with another hash seed, which must not import JAX or Flax."""
    code = (
        "import sys; from vone_jax import report; report.write(sys.argv[2:], sys.argv[1]);"
        "loaded = {'jax', 'jaxlib', 'flax', 'orbax', 'grain', 'matplotlib'} & set(sys.modules);"
        "sys.exit(f'imported {loaded}' if loaded else 0)"
    )
    out = tmp_path / "again.html"
    done = subprocess.run(
        [sys.executable, "-c", code, out, *run_dirs],
        cwd=Path(report.__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert out.read_text(encoding="utf-8") == page


@pytest.mark.parametrize("theme", ["none", "dark"])
def test_a_theme_of_altair_does_not_change_a_chart(theme):
    chart = charts.chart_of([{"share": 0.5}]).mark_point().encode(x="share:Q")
    usual = charts.figure([chart], "")
    with alt.theme.enable(theme):
        assert charts.figure([chart], "") == usual


EVIL = '<script>alert(1)</script>"\'&$x^$ {{ 7*7 }}\x00\x1b</style> id="a" #010210'


def test_a_page_without_accuracies_says_so(first_format):
    (vone,) = results.load([first_format / "vone"])
    tree = rendered([built.run(vone.of_kind("masking"))])
    assert "No accuracies among these results." in tree.find(id="numbers").text


def test_texts_of_result_files_are_escaped(tmp_path, first_format):
    (tiny,) = results.load([first_format / "tiny"])
    of = built.network("vone_resnet18", label=EVIL, weights=EVIL, config={EVIL: [EVIL, "\udcff"]})
    dataset = results.Dataset(EVIL, "test", 100, class_names=(EVIL, *"abcdefghi"))
    provenance = results.Provenance({EVIL: EVIL}, EVIL + "\udcff", EVIL)
    made = built.measure("vone_resnet18", STRONG, corruptions=(EVIL, "fog"), of=of)
    made = [
        built.change(one, name=f"r{place}", dataset=dataset, provenance=provenance)
        for place, one in enumerate(made)
    ]
    attack = built.attacked("linf", 4 / 255, name="PGD", mode=EVIL)
    made.append(built.accuracy(attack, 0.3, of=of, name="x", dataset=dataset))
    made += [built.change(one, network=of, dataset=dataset) for one in tiny.of_kind("gallery")]
    run = built.write(tmp_path, made, "vone <b>&amp;")
    built.edit(run / "config.json", command=EVIL, experiment={"x": EVIL})
    page = report.write([run], tmp_path / "r.html").read_text(encoding="utf-8")
    tree = read(page)
    kinds = [script.attributes.get("type") for script in tree.all("script")]
    assert sorted(kinds, key=str) == [None, "text/plain", "text/plain"]
    assert len(list(tree.all("style"))) == 1
    assert "<script>alert" not in page and "<b>&amp;" not in page
    assert not re.search("[\x00-\x08\x0e-\x1f\ud800-\udfff]", page)
    # The text arrives as text: in headings, figures, tables, class names and the provenance.
    seen = "<script>alert(1)</script>\"'&$x^$ {{ 7*7 }}\ufffd"
    for part in ("glance", "attacks", "gallery", "numbers", "provenance"):
        assert seen in tree.find(id=part).text, part
    charts = [e.attributes.get("aria-label", "") for e in tree.find(id="corruptions").all("div")]
    assert any(seen in label for label in charts)
    assert "49" not in next(tree.all("h1")).text


@pytest.mark.parametrize("missing", sorted(KINDS))
def test_a_missing_kind_leaves_a_note_with_its_command(missing, first_format):
    (tiny,) = results.load([first_format / "tiny"])
    (vone,) = results.load([first_format / "vone"])
    made = [
        one
        for one in (
            *built.measure("vone_resnet18", STRONG, corruptions=("fog",)),
            *tiny.results,
            *vone.of_kind("masking"),
        )
        if one.kind != missing
    ]
    log = () if missing == "training" else built.log(0)
    tree = rendered([built.run(made, "a/run", log=log, config=CONFIG)])
    (note,) = tree.of_class("missing")
    command = next(note.all("code")).text
    assert command.startswith(
        "python train.py" if missing == "training" else "python eval.py a/run"
    )


def test_an_installed_command_names_its_siblings(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/vone-report"])
    tree = rendered([built.run(built.measure("resnet18"), "a/run", config=CONFIG)])
    codes = [code.text for code in tree.all("code")]
    assert {"vone-eval a/run --suite masking", "vone-train", "vone-report"} <= {*codes}
    assert not [code for code in codes if code.startswith("python ")]


def test_a_network_without_v1_has_no_command_for_its_views():
    """``--suite v1`` refuses it."""
    tree = rendered([built.run(built.measure("resnet18"), "a/run")])
    assert not [code.text for code in tree.all("code") if "--suite v1" in code.text]
    assert "No views of V1 among these results." in tree.find(id="v1").text


@pytest.mark.parametrize(
    ("source", "config"), [("function my.py:net", {}), ("", {"experiment": {"data": {}}})]
)
def test_a_note_leaves_the_place_of_a_network_to_its_user(source, config):
    """No run made the network, or the results of a run are in another directory."""
    made = [built.change(each, source=source) for each in built.measure("resnet18")]
    tree = rendered([built.run(made, "runs/net", config=config)])
    codes = [code.text for code in tree.all("code")]
    assert "python eval.py NETWORK --suite masking" in codes
    assert not any(code.startswith("python eval.py runs/net") for code in codes)


def test_checks_are_shown_with_verdict_question_and_numbers():
    numbers = {"accuracy, eps": 0.25, "standard error": None, "random": True, "n": 50}
    checks = tuple(
        results.Check(f"check_{place}", f"Question {place}?", verdict, numbers, f"Meaning {place}.")
        for place, verdict in enumerate(("pass", "warning", "fail", "pass"))
    )
    attack = built.attacked("linf", 4 / 255).attacks[0]
    condition = results.MaskingCondition(attack, {"eps": attack})
    of = built.network("vone_resnet18")
    made = built.result(condition, results.Checks(checks, 50), of=of)
    tree = rendered([built.run([made])])
    section = tree.find(id="trust")
    assert "VOneResNet-18, L∞ 4/255" in section.text
    assert "50 images, fresh noise, 10 draws" in section.text
    assert "2 pass, 1 warn and 1 fail" in section.text
    rows = [row for row in section.all("tr") if list(row.all("td"))]
    assert [next(row.all("td")).text.split() for row in rows] == [
        ["✓", "pass"], ["!", "warning"], ["✗", "fail"], ["✓", "pass"]
    ]  # fmt: skip
    tones = [next(row.all("td")).attributes["class"] for row in rows]
    assert tones == ["good", "mixed", "bad", "good"]
    for place, row in enumerate(rows):
        assert f"Question {place}?" in row.text and f"Meaning {place}." in row.text
        assert [element.text for element in row.all("dd")] == ["0.25", "not finite", "yes", "50"]
    assert str(attack) in section.text
    assert tree.find(id=next(section.all("a")).attributes["href"][1:])


def test_smallest_changes():
    rungs = tuple(results.Rung(r, 0.9 / r, (0.0, 1.0)) for r in (1, 2))
    condition = results.MinimalCondition(results.Attack("FMN", "l2", 1.0, {}), (1.0, 2.0))
    for median, told in ((0.125, "median distance 0.125"), (None, "none was found for half")):
        made = built.result(condition, results.Distances(100, 90, median, rungs))
        text = rendered([built.run([made])]).find(id="attacks").text
        for part in (told, "FMN", "45.0\u202f%", "90 of 100 images"):
            assert part in text


def test_means_over_corruptions():
    means = results.CorruptionMeans(
        0.391, 0.384, {"noise": 0.3, "blur": 0.4}, 76.38, None, "Fifteen of fifteen."
    )
    condition = results.CorruptionMeansCondition("jpeg85", ("fog",), (1,), True)
    text = rendered([built.run([built.result(condition, means)])]).find(id="corruptions").text
    for part in (
        "39.1\u202f%",
        "38.4\u202f%",
        "76.4",
        "JPEG 85",
        "severity 1",
        "Fifteen of fifteen.",
    ):
        assert part in text


def test_means_over_categories_that_the_first_network_lacks_are_shown():
    condition = results.CorruptionMeansCondition("float", ("fog",), (1,), True)
    runs = [
        built.run(
            [built.result(condition, results.CorruptionMeans(0.4, 0.4, each, None, None, ""))], name
        )
        for name, each in (("a", {"weather": 0.4}), ("b", {"noise": 0.123, "weather": 0.5}))
    ]
    text = rendered(runs).find(id="corruptions").words
    assert "NoiseWeathermCE" in text and "12.3 %50.0 %" in text


def test_several_means_of_a_network_are_told_apart():
    means = results.CorruptionMeans(0.4, 0.4, {}, None, None, "")
    condition = results.CorruptionMeansCondition("float", ("fog",), (1, 3), True)
    made = [built.result(condition, means, name=name) for name in ("means", "means-train")]
    text = rendered([built.run(made)]).find(id="corruptions").words
    assert "severities 1 and 3, means-train" in text


def test_a_difference_on_fewer_images_says_so():
    runs = [
        judged(model, (built.CLEAN, built.answers(0.7, examples), "clean"))
        for model, examples in (("resnet18", 100), ("vone_resnet18", 40))
    ]
    assert "on 40 common images" in rendered(runs).find(id="numbers").text


def test_notes_on_means_over_corruptions_name_their_networks():
    condition = results.CorruptionMeansCondition("float", ("fog",), (1,), True)
    runs = []
    for label, note in (("A", "All 15."), ("B", "Over 8."), ("C", "Over 8.")):
        means = results.CorruptionMeans(0.4, 0.4, {}, None, None, note)
        made = [built.result(condition, means)]
        runs.append(built.run(made, name=label, label=label))
    text = rendered(runs).find(id="corruptions").words
    assert "A: All 15. B and C: Over 8." in text


def test_checks_and_smallest_changes_are_told_apart():
    """By the data set if it is not the usual one, and by the name if all else is the same."""
    attack = results.Attack("FMN", "linf", 4 / 255, {})
    check = results.Check("check_0", "?", "pass", {"images": 12345, "share": 0.123456}, "!")
    checks = results.MaskingCondition(attack, {}), results.Checks((check,), 50)
    found = results.MinimalCondition(attack, ()), results.Distances(9, 9, 0.5, ())
    made = [
        built.change(built.result(*kind, name=f"{kind[0].kind}-{name}"), dataset=dataset)
        for kind in (checks, found)
        for name, dataset in (("a", "shapes"), ("b", "shapes"), ("c", "others"))
    ]
    # Its attack is named beside it.
    fab = results.MinimalCondition(results.Attack("FAB", "linf", 4 / 255, {}), ())
    made.append(built.result(fab, found[1], name="minimal-fab"))
    run = built.run(built.measure("resnet18") + made, sets=(("shapes", "test"),))
    text = rendered([run]).words
    for name in ("masking-a", "masking-b", "others (test split)"):
        assert f"ResNet-18, L∞ 4/255, {name} 50 images" in text
    for name in ("minimal-a", "minimal-b", "others (test split)"):
        assert f"ResNet-18, {name}, L∞: median distance 0.5" in text
    assert "minimal-fab, L∞" not in text and "FAB, no noise" in text
    assert "images12,345 share0.1235" in text


def test_the_median_speed_is_between_two_lines_and_unknown_sizes_are_said():
    (line,) = built.log(1)
    lines = [line | {"examples_per_second": speed} for speed in (100.0, 2000.0)]
    of = built.network(parameters=0)
    made = built.measure("resnet18", of=of)
    text = rendered([built.run(made, log=lines, parameters=0)]).words
    assert "speed1,050 images per second (median)" in text
    assert "parametersnot recorded" in text


def test_what_was_not_measured_as_deployed_is_no_lack_of_images():
    minimal = built.result(
        results.MinimalCondition(results.Attack("FMN", "l2", 1.0, {}), ()),
        results.Distances(9, 9, 0.5, ()),
    )
    glance = rendered([built.run([minimal])]).find(id="glance").text
    assert "has no accuracy on images in its usual setting" in glance and "no images" not in glance


def test_published_images_are_no_gratings():
    fog = built.corrupted("fog", 1, "published")
    dataset = results.Dataset("npy:shapes-c/fog", "1", 100)
    tree = rendered([built.run([built.accuracy(fog, 0.5, dataset=dataset)])])
    assert "tested on published images of npy:shapes-c." in tree.find(id="glance").text


def test_extra_corruptions_alone_make_a_page():
    tree = rendered([judged("resnet18", (built.corrupted("spatter", 1), 0.9, "r"))])
    assert "Spatter" in tree.find(id="corruptions").text


def test_networks_at_other_severities_have_no_common_mean():
    runs = [
        built.run(
            built.measure("resnet18", corruptions=("fog",), severities=severities), label=name
        )
        for name, severities in (("A", (1, 3)), ("B", (3,)))
    ]
    section = rendered(runs).find(id="corruptions")
    caption = next(section.all("figcaption")).text
    assert caption.startswith("Accuracy, mean over the severities of each network")


def test_a_mean_is_over_severities_that_each_corruption_has():
    made = built.measure("resnet18", corruptions=("fog", "snow"))
    runs = [
        built.run([each for each in made if each.name != f"corruption-{lost}-1"], label=lost)
        for lost in ("fog", "snow")
    ]
    caption = next(rendered(runs).find(id="corruptions").all("figcaption")).text
    assert caption.startswith("Accuracy, mean over the severities of each network")


@pytest.mark.parametrize(
    ("severities", "heading", "charts"),
    [((3,), "Accuracy, at severity 3", 0), ((1, 3), "Accuracy, mean over severities 1 and 3", 2)],
)
def test_one_severity_is_no_mean_and_no_curve(severities, heading, charts):
    made = built.measure("resnet18", corruptions=("fog", "snow"), severities=severities)
    section = rendered([built.run(made)]).find(id="corruptions")
    assert next(section.all("figcaption")).text.startswith(heading)
    assert ("By severity" in section.text) == bool(charts)
    assert len(section.of_class("plot")) == 1 + charts
    text = section.words
    assert ("means over severities" in text.lower()) is False
    assert f"in 2 ways at {heading.removeprefix('Accuracy, ').split('at ')[-1]}" in text or charts


@pytest.mark.parametrize(
    ("corruptions", "told"),
    [
        (("fog", "gaussian_blur"), "leave out the extra ones: Gaussian blur."),
        (("spatter",), ""),
        (("fog", "frost_procedural"), ""),
        (("fog", "haze"), "leave out the extra ones: Haze."),
    ],
)
def test_corruptions_outside_the_means_are_named(corruptions, told):
    """A drawn texture is in them in the place of frost. Haze is a corruption of a user."""
    made = built.measure("resnet18", corruptions=corruptions)
    text = rendered([built.run(made)]).find(id="corruptions").text
    assert told in text and ("leave out" in text) is bool(told)


def test_a_corruption_outside_the_means_of_one_network_is_named():
    """The mean of the other one is over nothing else."""
    runs = [
        built.run(built.measure("resnet18", corruptions=names), label=label)
        for names, label in ((("fog", "gaussian_blur"), "a"), (("gaussian_blur",), "b"))
    ]
    text = rendered(runs).find(id="corruptions").text
    assert "leave out the extra ones: Gaussian blur." in text


def test_settings_of_an_attack_name_all_networks_that_share_them():
    runs = [built.run(built.measure("resnet18", {"linf": (0.5,)}), label=n) for n in "AB"]
    section = rendered(runs).find(id="attacks")
    assert "A and B" in section.words and section.words.count("PGD(steps=64") == 1


def test_one_radius_makes_no_line():
    tree = rendered([built.run(built.measure("resnet18", {"clean": 0.9, "l1": (0.2,)}))])
    (spec,) = specs(tree, tree.find(id="attacks")).values()
    marks = [layer["mark"]["type"] for layer in spec["layer"]]
    assert "line" not in marks and "area" not in marks and "point" in marks
    assert "Whiskers and bands are 95 % intervals" in tree.find(id="attacks").text


@pytest.mark.parametrize(("kinds", "marks"), [((), []), (("resume",), []),
    (("train",), ["line"]), (("validation",), ["line", "point"]),
    (("train", "validation"), ["line", "line", "point"])])  # fmt: skip
def test_a_training_chart_has_no_layer_without_lines(kinds, marks):
    """Vega warns of the extent of an empty layer."""
    lines = [*built.log(0, 100), {"kind": "resume"}]
    log = [line for line in lines if line["kind"] in kinds]
    tree = rendered([built.run(built.measure("resnet18"), log=log)])
    section = tree.find(id="training")
    made = specs(tree, section).values()
    drawn = [[layer["mark"]["type"] for layer in spec["layer"]] for spec in made]
    assert drawn == [marks] * (2 if marks else 0)
    assert ("python train.py" in section.text) is not bool(marks)


def test_a_log_of_one_line_is_a_point():
    (line, _) = built.log(0)
    tree = rendered([built.run(built.measure("resnet18"), log=[line])])
    loss, _ = specs(tree, tree.find(id="training")).values()
    assert [layer["mark"]["type"] for layer in loss["layer"]] == ["line", "point"]


def test_other_protocols_have_rows_of_their_own():
    """A vote of five and frozen noise do not enter the numbers of the network as deployed."""
    made = built.measure("vone_resnet18", STRONG)
    of, condition = made[0].network, made[2].condition
    for protocol in (results.Protocol("frozen", 1), results.Protocol("fresh", 4, "vote", 5)):
        made.append(built.accuracy(condition, 0.0, of=of, name=protocol.slug, protocol=protocol))
    tree = rendered([built.run(made)])
    text = tree.find(id="numbers").text
    assert "vote of 5 draws, 4 decisions" in text and "frozen noise" in text
    assert "0.0\u202f%" not in [data.text for data in tree.find(id="glance").all("data")]


def test_a_hundred_conditions_stay_readable():
    """Long parts of the table are folded up, short ones open."""
    names = tuple(f"corruption_{i}" for i in range(20))
    made = built.measure(
        "vone_resnet18", STRONG, corruptions=names, severities=(1, 2, 3, 4, 5), examples=40
    )
    parts = list(rendered([built.run(made)]).find(id="numbers").all("details"))
    assert ["open" in part.attributes for part in parts] == [True, True, False]
    counts = [next(part.all("summary")).text for part in parts]
    assert [int("".join(filter(str.isdigit, text))) for text in counts] == [1, 6, 100]


def test_networks_with_one_v1_share_its_pictures(first_format):
    (tiny,) = results.load([first_format / "tiny"])
    twins = [built.run(tiny.of_kind("v1"), name, label=name) for name in ("one", "two")]
    headings = [h.text for h in rendered(twins).find(id="v1").all("h3")]
    assert headings == ["one and two: 8 cells", "Parameters of the bank", "Responses to an image"]


def test_a_front_end_without_noise_shows_one_map_per_cell(first_format):
    (tiny,) = results.load([first_format / "tiny"])
    (front_end,) = tiny.of_kind("v1")
    arrays = front_end.arrays | {"responses_noisy": front_end.arrays["responses_clean"]}
    text = rendered([built.run([built.change(front_end, arrays=arrays)])]).find(id="v1").text
    assert "This front end has no noise" in text and text.count("without noise") == 8
    assert "with noise" not in text


def test_many_networks_have_their_colours_markers_and_cards():
    """More networks than colours, some without a pair."""
    models = ["alexnet", "resnet18", *["vone_resnet18"] * 8]
    runs = [built.run(built.measure(m, {"clean": 0.9}), f"r{i}", label=f"{m} {i}")
            for i, m in enumerate(models)]  # fmt: skip
    tree = rendered(runs)
    assert next(tree.all("h1")).text == "10 networks"
    answers = tree.of_class("network")
    assert len(answers) == 10 and "gets 90.0\u202f% of clean images right." in answers[0].text
    # Three verdicts stand above, the others beside their tables.
    assert len(tree.of_class("verdict")) == 8


def test_no_two_networks_of_a_sweep_look_the_same():
    assert len({(charts.color(i), charts.marker(i)) for i in range(64)}) == 64


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ({"clean": 1200, "attack": 1200, "corruption": 1200}, "1,200 images"),
        ({"clean": 1200, "attack": 200}, "1,200 clean and 200 attacked images"),
        (
            {"clean": 1200, "attack": 200, "corruption": 50},
            "1,200 clean, 200 attacked and 50 to 100 corrupted images",
        ),
        ({"clean": 1}, "1 image"),
    ],
)
def test_the_first_line_has_the_number_of_images(numbers, told):
    conditions = {
        "clean": built.CLEAN,
        "attack": built.attacked("linf", 0.1),
        "corruption": built.corrupted("fog", 1),
    }
    made = [(conditions[kind], built.answers(0.5, n), kind) for kind, n in numbers.items()]
    if numbers.get("corruption") == 50:
        made.append((built.corrupted("fog", 2), 0.5, "worse"))
    first = next(rendered([judged("resnet18", *made)]).all("p"))
    assert first.text == f"VOneNet report · {told} · measured 2030-01-02"


def test_the_headline_flags_networks_near_chance():
    """Their robustness says nothing, so no sentence compares it."""
    glance = rendered(built.pair(WEAK | {"clean": 0.11})).find(id="glance")
    (verdict,) = glance.of_class("verdict")
    assert verdict.text == "ResNet-18 is near chance on clean images, so robustness says little."
    base, vone = (each.text for each in glance.of_class("network"))
    assert base.startswith("ResNet-18 is near chance: it gets 11.0\u202f% of clean images right")
    assert "near chance" not in vone


def test_a_folder_without_splits_has_its_name():
    dataset = results.Dataset("folder:/data/photos", ".", 100)
    made = [built.change(one, dataset=dataset) for one in built.measure("resnet18")]
    tree = rendered([built.run(made)])
    assert "tested on folder:/data/photos. A VOneNet" in tree.find(id="glance").text
    assert "folder:/data/photos, 100 images" in tree.find(id="provenance").text


def test_networks_on_the_same_images_may_have_nothing_to_compare():
    frozen = judged(
        "vone_resnet18", (built.CLEAN, 0.8, "clean", {"protocol": results.Protocol("frozen", 1)})
    )
    section = rendered([judged("resnet18", (built.CLEAN, 0.9, "clean")), frozen]).find(
        id="differences"
    )
    assert "VOneResNet-18 and ResNet-18 have no results to compare." in section.text


def test_one_network_alone_has_no_comparison():
    tree = rendered([built.run(built.measure("resnet18", WEAK))])
    assert not tree.of_class("verdict")
    assert "ResNet-18" in tree.find(id="glance").text


def test_clean_images_stand_one_step_before_the_smallest_radius():
    """The radii are 1, 4 and 16 of 255, two octaves apart. Radius 0 is no place on a log axis."""
    still = built.accuracy(built.attacked("linf", 0.0), built.answers(0.9))
    run = built.run([*built.measure("resnet18", WEAK), still])
    (rows,) = (
        rows
        for rows in accuracy.attack_chart([run], "linf").spec["datasets"].values()
        if "place" in rows[0]
    )
    assert [row["place"] for row in rows] == pytest.approx([0, 2, 4, 6])


def test_the_last_line_of_a_log_is_told():
    lines = [
        {"kind": "train", "epoch": epoch, "loss": 2 / epoch, "accuracy": epoch / 4}
        for epoch in (1, 2)
    ]
    run = built.run(built.measure("resnet18", {"clean": 0.9}), log=lines)
    told = [figure.description for _, figure in accuracy.training_charts([run])]
    assert told[0] == "Loss during training. ResNet-18, train: 1 at epoch 2."
    assert told[1] == "Accuracy during training. ResNet-18, train: 0.5 at epoch 2."


def test_the_day_is_that_of_the_last_measurement_and_the_length_that_of_the_last_step():
    made = built.measure("resnet18", {"clean": 0.9, "linf": (0.5,)})
    earlier = dataclasses.replace(made[0].provenance, started="2029-12-31T03:04:05+00:00")
    made[0] = dataclasses.replace(made[0], provenance=earlier)
    log = [{"kind": "train", "step": step, "epoch": step / 100, "loss": 1.0, "accuracy": 0.5}
           for step in (10, 250)]  # fmt: skip
    run = built.run(made, log=log)
    text = pages.render([run])
    assert "2030-01-02" in re.search(r'<p class="kicker">.*?</p>', text, re.DOTALL)[0]
    assert "250 steps, to epoch 2.5" in text


def test_one_difference_without_its_images_is_told():
    """Beside others that are over the same images."""
    shares = {"clean": 0.9, "linf": (0.5,)}
    runs = built.pair(shares, shares)
    assert not pages._table(runs)["unpaired"]
    bare = [built.change(runs[0].results[0], arrays={}), *runs[0].results[1:]]
    assert pages._table([built.run(bare), runs[1]])["unpaired"]
