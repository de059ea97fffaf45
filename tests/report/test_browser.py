"""The page in a real browser: charts, filters, files, and the width of a phone."""

import base64
import csv
import io
import re
import shutil

import pytest

from tests.report import browser
from tests.results import built
from vone_jax import report, results

pytestmark = pytest.mark.skipif(browser.executable() is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def path(run_dirs, tmp_path_factory):
    return report.write(run_dirs, tmp_path_factory.mktemp("browser") / "report.html")


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser.opened(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_nothing_overflows_and_the_console_is_silent(tab, path, first_format, tmp_path):
    """On a page of few results, and on one with physiology, checks and smallest changes."""
    runs = [first_format / name for name in ("base", "tiny", "vone")]
    for page in (path, report.write(runs, tmp_path / "all.html")):
        for width in (390, 768, 1000, 1270):
            tab.open(page, width)
            root = "document.documentElement"
            assert tab.evaluate(f"{root}.scrollWidth") == tab.evaluate(f"{root}.clientWidth")
            assert tab.evaluate("document.querySelectorAll('.plot svg').length") > 8
            # Vega-Embed has replaced every static picture.
            assert tab.evaluate("document.querySelectorAll('.plot > svg').length") == 0
    assert tab.problems == []


def test_differences_without_their_images_fit_a_phone(tab, run_dirs, tmp_path):
    vone = shutil.copytree(run_dirs[-1], tmp_path / "vone")
    for arrays in (vone / "results").glob("attack*.npz"):
        arrays.unlink()
    tab.open(report.write([run_dirs[0], vone], tmp_path / "report.html"), 390)
    assert "(unpaired)" in tab.evaluate("document.querySelector('#differences').textContent")
    root = "document.documentElement"
    assert tab.evaluate(f"{root}.scrollWidth") == tab.evaluate(f"{root}.clientWidth")


def test_a_long_name_of_one_word_fits(tab, tmp_path):
    name = "resnet18_" + 6 * "rate0.1_decay0.0005_"
    models = ("resnet18", "vone_resnet18", "resnet50")
    labels = (f"{name}a", f"{name}b", "other")
    runs = [built.run(built.measure(m), label=n) for m, n in zip(models, labels, strict=True)]
    page = report.write(results.Runs(runs), tmp_path / "report.html")
    root = "document.documentElement"
    for width in (390, 1270):
        tab.open(page, width)
        assert tab.evaluate(f"{root}.scrollWidth") == tab.evaluate(f"{root}.clientWidth")


def test_conditions_stay_beside_the_numbers_of_many_networks(tab, tmp_path):
    runs = [built.run(built.measure("resnet18"), label=f"ResNet-18 (seed {i})") for i in range(12)]
    tab.open(report.write(results.Runs(runs), tmp_path / "report.html"), 1270)
    moved = tab.evaluate(
        "(() => { const table = document.querySelector('#numbers .scroll');"
        " table.scrollLeft = 100; const left = (element) => element.getBoundingClientRect().left;"
        " const headings = [...table.querySelectorAll('th:first-child')];"
        " return [table.scrollLeft, ...headings.map((each) => left(each) - left(table))]; })()"
    )
    assert moved == [100, 0, 0]


def test_numbers_of_many_networks_fit_a_printed_page(tab, tmp_path):
    runs = [built.run(built.measure("resnet18"), label=f"ResNet-18 (seed {i})") for i in range(12)]
    tab.open(report.write(results.Runs(runs), tmp_path / "report.html"), 718)
    tab.call("Emulation.setEmulatedMedia", media="print")
    root = "document.documentElement"
    widths = [tab.evaluate(f"{root}.{name}") for name in ("scrollWidth", "clientWidth")]
    tab.call("Emulation.setEmulatedMedia", media="")
    assert widths[0] == widths[1]


def test_the_numbers_are_those_of_the_files(tab, path, run_dirs):
    tab.open(path, 1300)
    shown = tab.evaluate(
        "[...document.querySelectorAll('a[href^=\"#run\"] > data')].map((data) =>"
        " [data.parentElement.hash, data.value, data.textContent])"
    )
    files = {
        f"#run{number}-{place}": result.accuracy
        for number, run in enumerate(results.load(run_dirs), start=1)
        for place, result in enumerate(run.results, start=1)
        if isinstance(result.measured, results.Accuracy)
    }
    assert {anchor for anchor, _, _ in shown} == files.keys()
    for anchor, value, text in shown:
        assert float(value) == files[anchor]
        assert text == f"{100 * files[anchor]:.1f}\u202f%"


def test_the_first_thing_on_the_page_is_the_answer(tab, path):
    tab.open(path, 1300)
    answers = tab.evaluate(
        "[...document.querySelectorAll('.answers li')].map((item) => item.innerText)"
    )
    # The networks of these runs are not trained.
    assert [answer.split(" is near chance: it gets ")[0].strip() for answer in answers] == [
        "ResNet-18",
        "VOneResNet-18",
    ]
    bottom = "document.querySelector('#answer').getBoundingClientRect().bottom"
    assert tab.evaluate(bottom) < 900


def test_names_in_the_headline_do_not_break_at_their_hyphen(tab, tmp_path):
    runs = [
        built.run(built.measure(model), label=f"{label} (seed-0)")
        for model, label in (("resnet18", "ResNet-18"), ("vone_resnet18", "VOneResNet-18"))
    ]
    tab.open(report.write(results.Runs(runs), tmp_path / "report.html"), 390)
    broken = tab.evaluate(
        """(() => { const broken = [], range = document.createRange();
        for (let width = 330; width <= 390; width += 4) {
          document.body.style.width = `${width}px`;
          for (const part of document.querySelectorAll('h1, .verdict, .answers strong, label')) {
            const texts = document.createTreeWalker(part, NodeFilter.SHOW_TEXT);
            while (texts.nextNode()) {
              const node = texts.currentNode;
              for (const word of node.data.matchAll(/[^ ]*-[^ ]*/g)) {
                range.setStart(node, word.index);
                range.setEnd(node, word.index + word[0].length);
                const lines = new Set([...range.getClientRects()].map((box) => box.top));
                if (lines.size > 1) broken.push(`${word[0]} at ${width}`);
              }
            }
          }
        }
        return broken; })()"""
    )
    assert broken == []


def test_a_legend_chooses_the_networks_of_all_charts(tab, path):
    tab.open(path, 1300)
    points = "document.querySelectorAll('#answer .mark-symbol path').length"
    both = tab.evaluate(points)
    box = "document.querySelector('[data-network=\"0\"]')"
    # By keyboard: focus and the space bar.
    tab.evaluate(f"{box}.focus()")
    for kind in ("keyDown", "keyUp"):
        tab.call("Input.dispatchKeyEvent", type=kind, key=" ", code="Space", text=" ")
    tab.wait_for(f"{points} === {both // 2}")
    assert tab.evaluate(
        "[...document.querySelectorAll('[data-network=\"0\"]')].every((box) => !box.checked)"
    )
    # Paper has all networks, as in charts that no one has scrolled to.
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate(points) == both
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    tab.wait_for(f"{points} === {both // 2}")
    # The last network stays.
    other = "document.querySelector('[data-network=\"1\"]')"
    tab.evaluate(f"{other}.click()")
    assert tab.evaluate(f"{other}.checked")
    tab.evaluate(f"{box}.click()")
    tab.wait_for(f"{points} === {both}")


def test_a_pointer_shows_the_number(tab, path):
    tab.open(path, 1300)
    x, y = tab.evaluate(
        "(() => { const box = document.querySelector('#answer .mark-symbol path')"
        ".getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    tab.wait_for("document.querySelector('#vg-tooltip-element.visible') !== null")
    text = tab.evaluate("document.querySelector('#vg-tooltip-element').innerText")
    assert re.search(r"ResNet-18\s+Condition\s+Clean images\s+Accuracy\s+\d", text), text


def test_figures_are_saved_as_pictures_and_data(tab, path, run_dirs, tmp_path):
    tab.open(path, 1300)
    tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    buttons = "document.querySelector('#attacks-linf').closest('figure').querySelectorAll('button')"
    tab.evaluate(f"{buttons}.forEach((button) => button.click())")
    picture, data = (tmp_path / f"attacks-linf.{kind}" for kind in ("svg", "csv"))
    for file in (picture, data):
        tab.wait_for("true")
        for _ in range(100):
            if file.exists() and file.stat().st_size:
                break
            tab.evaluate("new Promise((go) => setTimeout(go, 50))")
    text = picture.read_text(encoding="utf-8")
    assert text.startswith("<svg") and 'xmlns="http://www.w3.org/2000/svg"' in text
    assert "var(--" not in text and "#c4500b" in text
    rows = list(csv.DictReader(io.StringIO(data.read_text(encoding="utf-8"))))
    # Layers of a chart share its data, which is saved once.
    assert len({tuple(row.values()) for row in rows}) == len(rows)
    saved = {(row["Network"], row["Condition"]): row["accuracy"] for row in rows if row["accuracy"]}
    for run in results.load(run_dirs):
        for result in run.of_kind("attack"):
            assert float(saved[run.label, result.attack.eps_label]) == result.accuracy


def test_it_prints_without_controls(tab, path):
    tab.open(path, 1300)
    tab.call("Emulation.setEmulatedMedia", media="print")
    hidden = tab.evaluate(
        "[...document.querySelectorAll('nav, .exports, .legend input')].every((element) =>"
        " getComputedStyle(element).display === 'none')"
    )
    content = base64.b64decode(tab.call("Page.printToPDF")["data"])
    tab.call("Emulation.setEmulatedMedia", media="")
    assert hidden and content.startswith(b"%PDF") and len(content) > 20_000
