"""The page: complete in itself, true to the files, safe, well formed."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from page_reader import read
from report_runs import KINDS as ALL_KINDS
from report_runs import STRONG, edit, write_run

from vone_jax import report

KINDS = {"clean", "attack", "corruption"}


def records(run_dirs):
    for number, run in enumerate(run_dirs, start=1):
        for file in sorted((run / "results").glob("*.json")):
            yield number, file.stem, json.loads(file.read_text())


def test_loads_nothing_and_runs_nothing(page):
    tree = read(page)
    names = {element.name for element in tree.all()}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "foreignobject"}
    for element in tree.all():
        for name, value in element.attributes.items():
            assert not name.startswith("on"), (element.name, name)
            if name == "src":
                assert value.startswith("data:image/png;base64,")
            if name in ("href", "xlink:href"):
                assert value.startswith("#")
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))
    assert "@import" not in page and "://" not in page
    policy = tree.find(**{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    assert policy.startswith("default-src 'none'") and "script" not in policy


def test_every_number_of_the_table_is_the_one_in_the_file(page, run_dirs):
    tree = read(page)
    shown = {}
    for link in tree.find(id="numbers").all("a"):
        target = link.attributes["href"].removeprefix("#")
        name = next(tree.find(id=target).all("th")).text
        (value,) = link.all("data")
        cell = next(c for c in tree.find(id="numbers").all("td") if link in c.children)
        shown[int(re.match(r"run(\d+)-", target)[1]), name] = (value, next(cell.all("small")).text)
    expected = {(n, name): r for n, name, r in records(run_dirs) if r["kind"] in KINDS}
    assert len(expected) > 20 and shown.keys() == expected.keys()
    for key, record in expected.items():
        value, interval = shown[key]
        assert float(value.attributes["value"]) == record["accuracy"]
        assert value.text == f"{100 * record['accuracy']:.1f}\u202f%"
        low, high = (f"{100 * end:.1f}" for end in record["interval"])
        assert interval == f"{low}–{high}\u202f%"


def test_differences_of_the_table_are_paired_means(page, run_dirs):
    lines = [
        [data for cell in row.all("td") for data in cell.all("data")]
        for row in read(page).find(id="numbers").all("tr")
    ]
    lines = [line for line in lines if line]
    assert all(len(line) == 3 for line in lines)
    for base, vone, difference in lines:
        expected = float(vone.attributes["value"]) - float(base.attributes["value"])
        assert float(difference.attributes["value"]) == pytest.approx(expected, abs=1e-12)


def test_provenance_of_every_result(page, run_dirs):
    provenance = read(page).find(id="provenance")
    text = provenance.text
    for number, name, record in records(run_dirs):
        rows = [
            row
            for row in provenance.all("tr")
            if row.attributes.get("id", "").startswith(f"run{number}-")
            and next(row.all("th")).text == name
        ]
        assert len(rows) == 1
        if "attack" in record["condition"]:
            assert record["condition"]["attack"] in rows[0].text
        assert "12.5" in rows[0].text
        for field in ("command", "device", "weights"):
            assert record[field] in text
        assert f"stream {record['key']['stream']}" in text
    assert "python train.py" in text and "jax 0.10.2" in text and "11,181,642" in text


def test_csv_has_every_number(run_dirs, tmp_path):
    report.write(run_dirs, tmp_path / "r.html", tables_dir=tmp_path / "tables")
    with open(tmp_path / "tables" / "numbers.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    expected = [(n, name, r) for n, name, r in records(run_dirs) if r["kind"] in KINDS]
    assert len(lines) == len(expected)
    by_name = {(line["run"], line["result"]): line for line in lines}
    for number, name, record in expected:
        line = by_name[str(run_dirs[number - 1]), name]
        assert float(line["accuracy"]) == record["accuracy"]
        assert [float(line["low"]), float(line["high"])] == record["interval"]
        assert float(line["correct"]) == record["sums"]["correct"]
        assert line["eps_label"] == record["condition"].get("eps_label", "")


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
    for plot in tree.all("svg"):
        role = plot.attributes.get("role"), plot.attributes.get("aria-hidden")
        assert role == ("img", None) and plot.attributes["aria-label"] or role == (None, "true")
    levels = [int(e.name[1]) for e in tree.all() if re.fullmatch("h[1-6]", e.name)]
    assert levels.count(1) == 1
    headings = levels[levels.index(1) :]
    assert all(b <= a + 1 for a, b in zip(headings, headings[1:], strict=False))
    for part in (
        "attacks",
        "trust",
        "gallery",
        "corruptions",
        "v1",
        "training",
        "numbers",
        "provenance",
    ):
        assert tree.find(id=part)


def test_curves_carry_the_numbers(page):
    plot = next(
        svg
        for svg in read(page).find(id="attacks").all("svg")
        if "L∞" in svg.attributes.get("aria-label", "")
    )
    tips = {title.text for title in plot.all("title")}
    assert any(tip.startswith("ResNet-18, 4/255: 10.0\u202f%") for tip in tips)
    assert any(tip.startswith("VOneResNet-18, clean: ") for tip in tips)
    assert {"clean", "1/255", "4/255", "16/255"} <= {text.text for text in plot.all("text")}
    assert "var(--net-0)" in page and "#0102" not in page


def test_same_files_give_the_same_page_without_jax(page, run_dirs, tmp_path):
    """In a fresh process with another hash seed, which must not import JAX or Flax."""
    code = (
        "import sys; from vone_jax import report; report.write(sys.argv[2:], sys.argv[1]);"
        "loaded = {'jax', 'jaxlib', 'flax', 'orbax', 'grain', 'tensorflow'} & set(sys.modules);"
        "sys.exit(f'imported {loaded}' if loaded else 0)"
    )
    out = tmp_path / "again.html"
    root = Path(report.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, out, *run_dirs],
        cwd=root,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert out.read_text(encoding="utf-8") == page


EVIL = '<script>alert(1)</script>"\'&$x^$ {{ 7*7 }}\x00\ud800</style> id="a" #010210'


def test_strings_of_result_files_are_escaped(tmp_path):
    run = write_run(
        tmp_path,
        "vone <b>&amp;",
        "vone_resnet18",
        classes=(EVIL, "b", "c"),
        ladder={"linf": {EVIL: 4 / 255}, "l2": {"$半$": 0.5, "2": 1.0}, "l1": {}},
        corruptions=("gaussian_noise",),
    )
    for file in (run / "results").glob("*.json"):
        record = json.loads(file.read_text())
        record["model"]["label"] = record["dataset"]["name"] = EVIL
        for field in ("attack", "corruption"):
            if field in record["condition"]:
                record["condition"][field] = EVIL
        evil = {"command": EVIL, "device": EVIL, "config": {EVIL: EVIL}, "interval_method": EVIL}
        edit(file, **record | evil)
    edit(run / "config.json", command=EVIL, experiment={"x": EVIL})
    page = report.write([run], tmp_path / "r.html").read_text(encoding="utf-8")
    tree = read(page)
    assert not list(tree.all("script")) and len(list(tree.all("style"))) == 1
    assert "<script" not in page and "<b>&amp;" not in page
    # The text arrives as text: in headings, figures, tables, class names and the provenance.
    seen = "<script>alert(1)</script>\"'&$x^$ {{ 7*7 }}"
    for part in ("glance", "attacks", "gallery", "corruptions", "numbers", "provenance"):
        assert seen in tree.find(id=part).text, part
    assert "49" not in next(tree.all("h1")).text
    assert any("<script>" in text.text for svg in tree.all("svg") for text in svg.all("text"))


@pytest.mark.parametrize("missing", ALL_KINDS)
def test_a_missing_kind_leaves_a_note_with_its_command(missing, tmp_path):
    kinds = set(ALL_KINDS) - {missing}
    run = write_run(tmp_path, "run", "vone_resnet18", kinds=tuple(kinds), examples=40)
    tree = read(report.write([run], tmp_path / "r.html").read_text(encoding="utf-8"))
    notes = [p for p in tree.all("p") if p.attributes.get("class") == "missing"]
    assert len(notes) == 1
    command = next(notes[0].all("code")).text
    assert command.startswith("python train.py" if missing == "training" else "python eval.py")
    assert missing == "training" or str(run) in command


def test_networks_with_one_v1_share_its_pictures(run_dirs, tmp_path):
    twin = write_run(tmp_path, "twin", "vone_resnet18", accuracy=STRONG, channels=3)
    page = report.write([*run_dirs, twin], tmp_path / "r.html").read_text(encoding="utf-8")
    headings = [h.text for h in read(page).find(id="v1").all("h3")]
    assert headings[0] == "VOneResNet-18 (vone) and VOneResNet-18 (twin): 16 cells"
    assert sum("cells" in heading for heading in headings) == 2  # the second: what cells make


def test_a_front_end_without_noise_shows_one_map_per_cell(run_dirs, tmp_path):
    quiet = write_run(tmp_path, "quiet", "vone_resnet18", examples=40)
    path = quiet / "results" / "v1.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays | {"responses_noisy": arrays["responses_clean"]})
    page = report.write([quiet], tmp_path / "r.html").read_text(encoding="utf-8")
    text = read(page).find(id="v1").text
    assert "This front-end has no noise" in text and text.count("without noise") == 8
    assert "with noise" not in text


def test_many_networks_and_one_image_size_more(tmp_path):
    """More networks than colours, some without a pair, large coloured images, a lone clean run."""
    runs = [
        write_run(tmp_path, f"run{i}", model, kinds=("clean",), examples=40)
        for i, model in enumerate(["alexnet", "resnet18", *["vone_resnet18"] * 8])
    ]
    large = np.random.default_rng(0).random((5, 150, 200, 3)).astype(np.float32)
    runs.append(write_run(tmp_path, "large", "cornet_s", images=large, examples=40))
    page = report.write(runs, tmp_path / "r.html").read_text(encoding="utf-8")
    tree = read(page)
    assert next(tree.all("h1")).text == "11 networks"
    assert len([e for e in tree.all("article") if e.attributes["class"] == "network"]) == 11
    assert "AlexNet is right on 90.0\u202f% of clean images" in tree.find(id="glance").text
    assert len([e for e in tree.all("article") if e.attributes["class"] == "card"]) == 4
    assert len(page) < 1_000_000
