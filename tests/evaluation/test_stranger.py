"""A measurement of somebody else: one file outside the package, from the file to the page."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.evaluation.tiny import tiny_evaluation, tiny_trained
from vone_jax import evaluation, files, results, v1
from vone_jax.evaluation.suites import conditions, find

FILE = '''
import dataclasses

import altair as alt
import jax.numpy as jnp
import numpy as np

from vone_jax import evaluation, results


@dataclasses.dataclass(frozen=True)
class Brightness(evaluation.Condition):
    """How sure a network is of images that are darkened."""

    section = "Dark rooms"

    levels: tuple[float, ...] = (0.3, 0.6)
    power: float = 1.0

    def make(self, batch):
        keys = batch.keys("judge")
        dark = [batch.images * level**self.power for level in self.levels]
        top = [batch.classifier()(keys, each).max(axis=1) for each in dark]
        return {"top": jnp.stack(top, axis=1), "seen": batch.images}

    def result(self, arrays, evaluated):
        measured = [
            evaluation.number("largest logit", of=arrays["top"][:, place], unit="nats", level=level)
            for place, level in enumerate(self.levels)
        ]
        measured.append(evaluation.number("sure", of=arrays["top"][:, 0] > 0, main=True))
        chart = alt.Chart(alt.InlineData(values=[{"x": 1}])).mark_bar().encode(x="x:Q")
        views = [
            results.Lines("largest logit", "level", about="Dark rooms hide what is seen."),
            results.Chart(chart.to_dict(), "a bar of a stranger"),
            results.Pictures(("shown",), ("the first image",)),
        ]
        people = [{"network": "9 observers", "number": "largest logit", "level": 0.3, "value": 1.5}]
        return evaluation.Numbers(measured, views, people, arrays={"shown": arrays["seen"][:1]})


def rooms(evaluated, *, power: float = 2.0):
    """dark rooms at two powers"""
    return [Brightness(), Brightness(power=power)]


def one(evaluated):
    """a single one"""
    return Brightness((0.5,))
'''


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of two networks, made by a process that has not got the file, and their frame."""
    place = tmp_path_factory.mktemp("stranger")
    file = place / "rooms.py"
    file.write_text(FILE)
    for name, seed in (("one", 0), ("two", 1)):
        network = tiny_trained(noise=v1.GaussianNoise(0.5), seed=seed)
        plan = tiny_evaluation(network, place / name / "results")
        for condition in conditions(find([f"{file}:rooms"], {}, {}), plan, {"power": 3.0}):
            evaluation.evaluate(plan, condition)
    file.unlink()
    for name in [name for name in sys.modules if name == "file_rooms"]:
        del sys.modules[name]
    made = (
        f"from vone_jax import report; report.write({[str(place / n) for n in ('one', 'two')]!r}, "
    )
    made += f"{str(place / 'page.html')!r}); import sys; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", made], check=True, timeout=120)
    frame = results.load([place / "one", place / "two"]).to_frame()
    return (place / "page.html").read_text(), frame


def points(spec):
    """The points of networks in a chart, each once."""
    found = {}
    pending = [spec]
    while pending:
        each = pending.pop()
        if isinstance(each, dict) and {"network", "line", "x"} <= each.keys():
            found[json.dumps(each)] = each
        pending += (
            each.values() if isinstance(each, dict) else each if isinstance(each, list) else []
        )
    return [each for each in found.values() if "observers" not in each["network"]]


def section(page, name):
    """The HTML of a section of the page."""
    return re.search(rf"<section[^>]*><h2>{name}</h2>.*?</section>", page, re.DOTALL)[0]


def test_a_strangers_measurement_has_its_section_with_caption_chart_and_pictures(page):
    shown = section(page[0], "Dark rooms")
    assert "Dark rooms hide what is seen." in shown
    assert "a bar of a stranger" in shown and "the first image" in shown
    assert shown.count("data:image/png") >= 2
    assert "9 observers" in shown


def test_two_settings_stand_apart(page):
    html, frame = page
    rows = frame[(frame.number == "largest logit") & (frame.level == 0.3)]
    assert len(rows) == 4 and rows.label.nunique() == 2
    powers = sorted(rows.power.fillna(1.0))
    assert powers == [1.0, 1.0, 3.0, 3.0]
    shown = section(html, "Dark rooms")
    assert "power 3" in shown


def test_its_differences_are_paired(page):
    html, frame = page
    rows = frame[(frame.number == "largest logit") & (frame.level == 0.6) & frame.power.isna()]
    base, other = rows.value
    shown = section(html, "Dark rooms")
    pattern = r'data-label="Difference">\s*<span[^>]*><data value="([^"]+)"'
    cells = [float(each) for each in re.findall(pattern, shown)]
    assert any(np.isclose(each, other - base, atol=1e-6) for each in cells)
    assert "unpaired" not in shown


def test_its_main_numbers_stand_in_the_first_table(page):
    assert "sure" in section(page[0], "Accuracy")


def test_the_chart_joins_points_that_differ_in_the_axis_alone(page):
    shown = section(page[0], "Dark rooms")
    specs = [json.loads(each) for each in re.findall(r'class="chart">(.*?)</script>', shown)]
    lines = {(p["network"], p["line"]) for p in points(specs[0])}
    assert len(lines) == 4
    for network, line in lines:
        own = [p["x"] for p in points(specs[0]) if (p["network"], p["line"]) == (network, line)]
        assert sorted(own) == [0.3, 0.6]


def test_a_suite_may_be_a_single_condition(tmp_path):
    file = tmp_path / "rooms.py"
    file.write_text(FILE)
    plan = tiny_evaluation(tiny_trained(), tmp_path / "results")
    (made,) = conditions(find([f"{file}:one"], {}, {}), plan)
    assert made.levels == (0.5,)


MAKE, RESULT = "    def make(self, batch):", "    def result(self, arrays, evaluated):"
BROKEN = {
    "row": (MAKE, "def row(self):\n        return 'dark'", r"row\(\) must return a dictionary"),
    "make": (RESULT, "def make(self, batch):\n        return {'a': jnp.ones(())}", "row for each"),
    "arrays": (RESULT, "def make(self, batch):\n        return 3", "dictionary of arrays"),
    "result": (
        "\n\ndef rooms",
        "def result(self, arrays, evaluated):\n        return {}",
        "Numbers",
    ),
    "view": (
        "\n\ndef rooms",
        "def result(self, arrays, evaluated):\n        views = [results.Lines('shure', 'level')]\n"
        "        measured = [evaluation.number('sure', 1.0, level=2)]\n"
        "        return evaluation.Numbers(measured, views)",
        "'shure' against 'level'.*it measured 'sure'",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_mistake_names_the_class_and_its_place(kind, tmp_path):
    before, code, told = BROKEN[kind]
    file = tmp_path / "rooms.py"
    # A later method of a class takes the place of an earlier one.
    file.write_text(FILE.replace(before, f"    {code}\n\n{before}", 1))
    condition = files.imported(f"{file}:Brightness")((0.3,))
    plan = tiny_evaluation(tiny_trained(), tmp_path / "results")
    with pytest.raises(TypeError, match=rf"Brightness \(.*rooms.py, line \d+\): .*{told}"):
        evaluation.evaluate(plan, condition)
