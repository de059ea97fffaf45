"""Checks, protocols and smallest changes on the page, and pages with very many results."""

import json

import pytest
from page_reader import read
from report_runs import LADDER, STRONG, edit, write_checks, write_run

from vone_jax import report
from vone_jax.report.cautions import cautions
from vone_jax.report.load import load_runs


def page_of(*runs):
    return read(report.write(runs, runs[0].parent / "r.html").read_text(encoding="utf-8"))


def common_of(run):
    record = json.loads((run / "results" / "clean.json").read_text())
    kept = ("format", "run", "model", "dataset", "protocol", "config", "key", "checkpoint_step",
            "weights", "versions", "device", "command", "started", "wall_seconds")  # fmt: skip
    return {name: record[name] for name in kept}


def write_table(run, kind, **fields):
    record = common_of(run) | {"kind": kind, "name": kind} | fields
    (run / "results" / f"{kind}.json").write_text(json.dumps(record))


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path, "vone", "vone_resnet18", kinds=("clean", "attack"), accuracy=STRONG)


def test_checks_are_shown_with_verdict_question_and_numbers(run):
    write_checks(run, common_of(run), ("pass", "warning", "fail", "pass"))
    section = page_of(run).find(id="trust")
    text = section.text
    assert "VOneResNet-18, L∞ 4/255" in text and "fresh noise, 10 draws" in text
    assert "2 pass, 1 warn and 1 fail" in text
    rows = [row for row in section.all("tr") if list(row.all("td"))]
    assert [next(row.all("td")).text.split() for row in rows] == [
        ["✓", "pass"], ["!", "warning"], ["✗", "fail"], ["✓", "pass"]
    ]  # fmt: skip
    tones = [next(row.all("td")).attributes["class"] for row in rows]
    assert tones == ["good", "mixed", "bad", "good"]
    for place, row in enumerate(rows):
        assert f"Question {place}?" in row.text and f"Meaning {place}." in row.text
        shown = [element.text for element in row.all("dd")]
        assert shown == ["0.25", "not finite", "yes", "50"]
    assert "PGD('linf', 4/255)" in text
    link = next(a for a in section.all("a"))
    assert page_of(run).find(id=link.attributes["href"][1:])


def test_failed_checks_are_a_caution(run):
    write_checks(run, common_of(run), ("pass", "warning"))
    assert not any("masked gradients" in text for text in cautions(load_runs([run])))
    write_checks(run, common_of(run), ("fail", "pass", "fail"))
    (found,) = [text for text in cautions(load_runs([run])) if "masked gradients" in text]
    assert "fails 2 checks" in found and "(check 0 and check 2)" in found


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("masking", {"checks": []}, "checks must be a list"),
        ("masking", {"checks": [{"name": "a"}]}, r"checks\[0\].question is missing"),
        ("minimal", {"ladder": [{"eps_label": "1"}]}, r"ladder\[0\].accuracy is missing"),
        (
            "minimal",
            {"ladder": [{"eps_label": "1", "accuracy": 0.5, "interval": [0.6, 1]}]},
            "interval.low must be",
        ),
        ("corruption_means", {"means": {"of_corruptions": 2}}, "means.of_corruptions must be"),
    ],
)
def test_damaged_tables_are_named(run, kind, fields, message):
    write_table(run, kind, condition={"norm": "linf", "eps": 0.1}, **fields)
    with pytest.raises(report.ReportError, match=message):
        load_runs([run])


def test_a_verdict_that_is_none_is_refused(run):
    write_checks(run, common_of(run), ("maybe",))
    with pytest.raises(report.ReportError, match="verdict must be one of pass, warning, fail"):
        load_runs([run])


def test_smallest_changes(run):
    ladder = [
        {"eps_label": f"{i}/255", "eps": i / 255, "accuracy": 0.9 / i, "interval": [0.0, 1.0]}
        for i in (1, 2)
    ]
    write_table(
        run, "minimal", condition={"norm": "l2", "attack": "FMN('l2', 1.0)"},
        ladder=ladder, median_distance=0.125, found=90, seen=100,
    )  # fmt: skip
    text = page_of(run).find(id="attacks").text
    assert "median distance 0.125" in text and "FMN" in text and "45.0\u202f%" in text


def test_means_over_corruptions(tmp_path):
    run = write_run(tmp_path, "vone", "vone_resnet18", kinds=("clean", "corruption"))
    means = {"of_corruptions": 0.391, "of_categories": 0.384, "mce": 76.38, "relative_mce": None,
             "categories": {"noise": 0.3, "blur": 0.4}, "note": "Fifteen of fifteen."}  # fmt: skip
    write_table(run, "corruption_means", condition={"form": "jpeg85"}, means=means)
    text = page_of(run).find(id="corruptions").text
    for part in ("39.1\u202f%", "38.4\u202f%", "76.4", "jpeg85", "Fifteen of fifteen."):
        assert part in text


def test_every_number_names_its_protocol(run, tmp_path):
    base = write_run(tmp_path, "base", "resnet18", kinds=("clean", "attack"))
    tree = page_of(base, run)
    rows = [row for row in tree.find(id="numbers").all("tr") if list(row.all("td"))]
    for row in rows:
        notes = [s.text for s in row.all("small") if s.attributes.get("class") == "how"]
        assert notes == ["no noise", "fresh noise, 10 draws"]
    tips = [title.text for title in tree.find(id="attacks").all("title")]
    assert any(tip.endswith("fresh noise, 10 draws") for tip in tips)
    assert "no noise" in tree.find(id="glance").text


def test_other_protocols_have_rows_of_their_own(run):
    """A vote of five and frozen noise do not enter the curve of the network as deployed."""
    stem = "attack-linf-0.01569"
    for name, protocol in (
        ("frozen", {"noise": "frozen", "draws": 1}),
        ("vote-5", {"noise": "fresh", "draws": 4, "decision": "vote", "averaged": 5}),
    ):
        record = json.loads((run / "results" / f"{stem}.json").read_text())
        record |= {"name": f"{stem}-{name}", "protocol": protocol, "accuracy": 0.0}
        record |= {"interval": [0.0, 0.1], "sums": {"correct": 0, "seen": 100}}
        (run / "results" / f"{stem}-{name}.json").write_text(json.dumps(record))
    tree = page_of(run)
    text = tree.find(id="numbers").text
    assert "vote of 5 draws, 4 decisions" in text and "frozen noise" in text
    shown = [data.text for data in tree.find(id="glance").all("data")]
    assert "0.0\u202f%" not in shown


def test_a_hundred_conditions_stay_readable(tmp_path):
    """Long parts of the table are folded up, short ones open; the figures do not grow with them."""
    run = write_run(
        tmp_path,
        "many",
        "vone_resnet18",
        corruptions=tuple(f"corruption_{i}" for i in range(20)),
        severities=(1, 2, 3, 4, 5),
        kinds=("clean", "attack", "corruption"),
        examples=40,
    )
    tree = page_of(run)
    parts = list(tree.find(id="numbers").all("details"))
    assert [("open" in part.attributes) for part in parts] == [True, True, False]
    counts = [next(part.all("summary")).text for part in parts]
    attacks = sum(map(len, LADDER.values()))
    assert [int("".join(filter(str.isdigit, text))) for text in counts] == [1, attacks, 100]
    assert len(list(tree.find(id="corruptions").all("svg"))) < 30


def test_the_spread_over_draws_is_told(run, tmp_path):
    edit(run / "results" / "clean.json", between_draws={"standard_error": 0.0125})
    assert "1.2 points" in page_of(run).find(id="provenance").text
    report.write([run], tmp_path / "r.html", tables_dir=tmp_path)
    lines = (tmp_path / "numbers.csv").read_text().splitlines()
    header, clean = lines[0].split(","), next(line for line in lines if ",clean," in line)
    assert {"protocol", "decision", "averaged", "estimator", "form"} <= set(header)
    assert ",0.0125," in clean and '"fresh noise, 10 draws"' in clean
