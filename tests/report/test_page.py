"""The page: its numbers are those of the files, and it shows what it is given."""

import html
import re

import pytest

from tests.report import built_runs
from tests.results import built
from vone_jax import report, results
from vone_jax.cli import report as program
from vone_jax.results import ResultError


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return built_runs.write(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(paths, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    return report.write(paths, out).read_text()


def section(page, name):
    """The text of a section, without its tags."""
    found = re.search(rf'<section id="{name}">(.*?)</section>', page, re.DOTALL)
    text = re.sub(r"<script.*?</script>", "", found[1], flags=re.DOTALL) if found else ""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)))


def values(page, name):
    """The numbers of a section in their order, in full precision."""
    (found,) = re.findall(rf'<section id="{name}">(.*?)</section>', page, re.DOTALL)
    return [float(value) for value in re.findall(r'<data value="([^"]*)">', found)]


def test_all_numbers_are_those_of_the_files(page, paths):
    rows = results.load(paths).to_frame()
    accuracies = rows[rows["number"] == "accuracy"]["value"]
    assert sorted(values(page, "numbers")) == pytest.approx(sorted(accuracies), abs=0)
    assert len(accuracies) == 16


def test_differences_are_those_of_the_results(page, paths):
    base, vone = (
        {r.name: r for r in run.results if "right" in r.arrays} for run in results.load(paths)
    )
    shown = values(page, "differences")
    names = ("clean", "attack-linf-0.003922", "attack-linf-0.01569", "attack-linf-0.06275")
    for place, name in enumerate(names):
        ours, theirs = vone[name].arrays["right"], base[name].arrays["right"]
        expected = [base[name].value(), results.paired_difference(ours, theirs).value]
        assert shown[2 * place : 2 * place + 2] == expected


def test_the_first_screen_answers_in_a_sentence(page):
    head = page[: page.index("<main>")]
    assert "VOneResNet-18 is more robust than ResNet-18 in 4 of 4 attack conditions." in head
    assert head.count('class="chart"') == 1


def test_each_kind_of_result_has_its_section(page):
    assert "Do more steps do more? warning More steps leave more accuracy." in section(
        page, "trust"
    )
    assert "4 S steps not finite" in section(page, "trust")
    assert "not found for half of them" in section(page, "attacks")
    assert "after: class 4" in section(page, "gallery") and "before: class 3" in section(
        page, "gallery"
    )
    assert "VOneResNet-18: 8 cells" in section(page, "v1")
    physiology = section(page, "physiology")
    # A layer with few units stands last, whatever its score.
    assert physiology.index("v1 VOneResNet-18, 120 units") < physiology.index("20 units, few")
    assert "Study of preferred orientation (1999)" in physiology
    assert "python eval.py runs/x" in section(page, "provenance")
    assert section(page, "training")


def test_each_network_has_the_settings_of_its_attack(tmp_path):
    """A network without noise needs one draw for a gradient, another one several."""
    paths = []
    for model, draws in (("resnet18", 1), ("vone_resnet18", 10)):
        of = built.network(model)
        made = [
            built.accuracy(
                built.attacked("linf", eps, eot_samples=draws), 0.5, f"at-{eps}", network=of
            )
            for eps in (0.25, 0.5)
        ]
        paths.append(built.write(tmp_path, made, model))
    shown = section(report.write(paths, tmp_path / "page.html").read_text(), "attacks")
    settings = "PGD(norm=linf, steps=64, step_size=0.015625, eot_samples="
    for network in ("ResNet-18: {}1)", "VOneResNet-18: {}10)"):
        assert f"PGD L∞ on {network.format(settings)}" in shown


def test_a_page_shows_only_sections_that_have_something_to_show(tmp_path):
    made = [built.accuracy(built.CLEAN, 0.5, "clean")]
    page = report.write([built.write(tmp_path, made)], tmp_path / "page.html").read_text()
    assert re.findall(r'<section id="(\w+)">', page) == ["scores", "numbers", "provenance"]
    assert re.findall(r'<li><a href="#(\w+)">', page) == ["scores", "numbers", "provenance"]


def test_the_calibration_has_a_row_for_each_number_of_draws(tmp_path):
    measured = {
        f"{name}, {text}": {"value": value, "draws": draws}
        for name, value in (("calibration error", 0.0625), ("Brier score", 0.375))
        for text, draws in (("1 draw", 1), ("10 draws", 10))
    }
    measured = {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}} | measured
    made = [built.result(built.CLEAN, "clean", measured)]
    page = report.write([built.write(tmp_path, made)], tmp_path / "page.html").read_text()
    shown = section(page, "calibration")
    assert "ResNet-18 1 0.0625 0.3750 ResNet-18 10 0.0625 0.3750" in shown


def test_a_new_kind_of_result_shows_its_numbers_without_a_change_of_the_page(tmp_path):
    of = built.network(label="</script><script>alert(1)</script>")
    made = [
        built.accuracy(built.CLEAN, 0.5, "clean", network=of),
        built.result({"type": "Brightness"}, "brightness", {"mean": {"value": 0.125}}, network=of),
    ]
    made[0].warnings.append("Too few <steps>.")
    page = report.write([built.write(tmp_path, made)], tmp_path / "page.html").read_text()
    assert "brightness mean 0.125" in section(page, "numbers")
    # Names and warnings are text.
    assert "<script>alert(1)" not in page and "clean: Too few &lt;steps&gt;." in page


def test_the_same_runs_give_the_same_page_which_loads_nothing(page, paths, tmp_path):
    assert report.write(paths, tmp_path / "again.html").read_text() == page
    # Vega's code names addresses, but no element has one.
    elements = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', elements)


def test_six_networks_are_below_two_megabytes(tmp_path):
    models = ("resnet18", "vone_resnet18", "resnet50", "vone_resnet50", "alexnet", "vone_alexnet")
    path = report.write(built_runs.write(tmp_path, models), tmp_path / "page.html")
    assert path.stat().st_size < 2e6
    assert len(re.findall(r'class="chart"', path.read_text())) >= 8


def test_the_baseline_can_be_chosen(paths, tmp_path):
    page = report.write(paths, tmp_path / "p.html", baseline="VOneResNet-18").read_text()
    assert "ResNet-18 is less robust than VOneResNet-18 in 4 of 4" in page


def test_wrong_arguments_are_errors(paths, tmp_path):
    for out in (tmp_path, tmp_path / "no" / "page.html"):
        with pytest.raises(ResultError, match="out must be the name of an HTML file"):
            report.write(paths, out)
    with pytest.raises(ResultError, match="runs must be a list of directories"):
        report.write(str(paths[0]), tmp_path / "page.html")


def test_the_command_writes_the_page(paths, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert program.main([*map(str, paths), "--out", str(out)]) == 0
    assert f"wrote {out}" in capsys.readouterr().out and out.exists()
