"""The page: its numbers are those of the files, and it shows what it is given."""

import base64
import html
import io
import re

import numpy as np
import pytest
from PIL import Image

from tests.report import built_runs
from tests.results import built
from vone_jax import report, results
from vone_jax.cli import report as program
from vone_jax.report import tables
from vone_jax.results import Lines


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
    return text_of(found[1]) if found else ""


def text_of(markup):
    text = re.sub(r"<script.*?</script>", "", markup, flags=re.DOTALL)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))).strip()


def values_of(markup):
    """The numbers in their order, in full precision."""
    return [float(value) for value in re.findall(r'<data value="([^"]*)">', markup)]


def table(page, name):
    """Title of a line -> label of a column -> the numbers of the cell, or its text without one.

    The title is within that of the condition above it: "clean: right in every draw".
    """
    (found,) = re.findall(rf'<section id="{name}">(.*?)</section>', page, re.DOTALL)
    lines, group = {}, ""
    for kind, line in re.findall(r'<tr( class="group")?>(<th.*?)</tr>', found, re.DOTALL):
        title = text_of(re.findall(r"<th[^>]*>(.*?)(?:<small>|</th>)", line, re.DOTALL)[0])
        if kind or "data-label" not in line:
            group = f"{title}: " if kind else ""
            continue
        cells = re.findall(r'<td[^>]*data-label="([^"]*)"[^>]*>(.*?)</td>', line, re.DOTALL)
        assert group + title not in lines
        lines[group + title] = {html.unescape(n): values_of(v) or text_of(v) for n, v in cells}
    return lines


def head_of(page):
    return text_of(page[page.index("<header>") : page.index("</header>")])


def test_all_numbers_are_those_of_the_files(page, paths):
    rows = results.load(paths).to_frame()
    shown = re.findall(r'<section id="numbers">(.*?)</section>', page, re.DOTALL)[0]
    assert values_of(shown) == rows["value"].dropna().tolist() and len(rows) > 30


GROUP = "Other noise, other decisions and tags"


def six_networks():
    """Networks with other noise, decisions, tags, severities, settings, images and classes."""
    of = {
        label: built.network(model, label=label, checksum=label)
        for label, model in (
            ("base", "resnet18"), ("vone", "vone_resnet18"), ("elsewhere", "resnet18"),
            ("one draw", "vone_resnet18"), ("uneven", "vone_resnet18"), ("thousand", "resnet18"),
        )
    }  # fmt: skip
    rng = np.random.default_rng(1)

    def measured(label, condition, **fields):
        share = rng.uniform(0.2, 0.8)
        return built.accuracy(
            condition, built.answers(share, seed=rng.integers(1000)), of=of[label], **fields
        )

    strong = built.attacked("linf", 4 / 255, "strongest of PGD, APGD")
    del strong["steps"]
    common = [built.CLEAN, built.attacked("linf", 4 / 255), strong]
    common += [built.corrupted(name, 3) for name in ("fog", "snow")]
    made = {label: [measured(label, each) for each in common] for label in of}
    for columns in ({"noise": "none"}, {"decision": "vote:8"}, {"noise": "frozen", "draws": 1}):
        made["vone"] += [measured("vone", each | columns) for each in common]
    made["vone"] += [measured("vone", each, tag="again", seed=1) for each in common]
    made["one draw"] = [
        measured("one draw", each, settings={"eot_samples": 1} if "attack" in each else None)
        for each in common
    ]
    made["uneven"] += [measured("uneven", built.corrupted("fog", s)) for s in (1, 5)]
    images = built.DATASET | {"fingerprint": "other"}
    made["elsewhere"] = [measured("elsewhere", each, dataset=images) for each in common]
    thousand = {"provenance": {"logits_classes": 1000}}
    made["thousand"] = [measured("thousand", each, **thousand) for each in common]
    return made


def test_a_page_of_six_networks_has_the_true_numbers(tmp_path):
    """Each cell against the decisions of the result that its row and column name."""
    made = six_networks()
    paths = [built.write(tmp_path, each, label) for label, each in made.items()]
    page = report.write(paths, tmp_path / "page.html").read_text()
    lines = {
        title.removeprefix(f"{GROUP}: "): cells for title, cells in table(page, "accuracy").items()
    }
    words = ("", ", without noise", ", vote:8", ", frozen noise", ", again")
    conditions = ("clean", "PGD L∞ 4/255, 64 steps", "strongest of PGD, APGD L∞ 4/255")
    mean = "mean over 2 of 15 corruptions, severity 3"
    assert lines.keys() == {f"{each}{word}" for each in (*conditions, mean) for word in words}

    def right(label, condition, word):
        """The decisions of a network in a condition; a base network has no noise and decision."""
        if word not in ("", ", again") and made[label][0].row.get("draws") is None:
            word = ""
        wanted = condition + word
        found = [each.arrays["right"] for each in made[label] if each.label == wanted]
        return found[0].mean(axis=1) if found else None

    count = 0
    for word in words:
        for condition in (*conditions, mean):
            for label, shown in lines[f"{condition}{word}"].items():
                parts = (
                    ("fog, severity 3", "snow, severity 3") if condition == mean else (condition,)
                )
                own, base = ([right(of, part, word) for part in parts] for of in (label, "base"))
                if own[0] is None:
                    assert shown == "–"
                    continue
                expected = [np.mean(own)]
                if label not in ("base", "elsewhere") and base[0] is not None:
                    expected.append(np.mean(own) - np.mean(base))
                assert shown == pytest.approx(expected), (condition, word, label)
                count += 1
    # Each of five lines for each network, and the controls for the VOneNet and base networks.
    assert count == 4 * (6 + 3 * (1 + 3) + 1)
    head = head_of(page)
    assert "100 images of shapes test" in head
    notes = text_of(page[page.index("Measured differently:") : page.index("<nav")])
    assert "noise draws per gradient: 1 against 10" not in notes  # The baseline has no noise.
    assert "measured on other images" in notes


def test_a_page_compares_two_noisy_networks_with_what_differs_beside_the_difference(tmp_path):
    made = six_networks()
    paths = [built.write(tmp_path, made[label], label) for label in ("vone", "one draw")]
    page = report.write(paths, tmp_path / "page.html").read_text()
    lines = table(page, "accuracy")
    assert len(lines["PGD L∞ 4/255, 64 steps"]["Difference"]) == 1
    (at,) = re.findall(r'<li id="note-(\d)">noise draws per gradient: 1 against 10', page)
    (accuracy,) = re.findall(r'<section id="accuracy">.*?</section>', page, re.DOTALL)
    cells = re.findall(r'data-label="Difference">(.*?)</td>', accuracy, re.DOTALL)
    marked = [f"#note-{at}" in cell for cell in cells]
    # Only the two attacks, and not clean images or corruptions.
    assert sum(marked) == 2 and marked[1:3] == [True, True]
    assert "The two were measured differently" in head_of(page)


def test_each_result_stands_under_its_own_heading(page):
    assert re.findall(r"<h2>(.*?)</h2>", re.sub(r"<script>.*", "", page, flags=re.DOTALL)) == [
        "Accuracy", "Attack", "Corruption", "Dim rooms", "Drawn", "Calibration", "Masked gradients",
        "Shape", "Training", "All numbers", "Provenance",
    ]  # fmt: skip
    answers = section(page, "masked-gradients")
    assert "Do more steps do more? warning More steps leave more accuracy." in answers
    assert "Of nine observers." in section(page, "dim-rooms")
    drawn = table(page, "calibration")["drawn: calibration error, averaged draws 10"]
    assert drawn["ResNet-18"] == [pytest.approx(0.01)]
    assert table(page, "attack")["minimal L∞, FMN, 100 steps: median distance"] == {
        "ResNet-18": "not defined", "VOneResNet-18": "not defined", "Difference": "–",
    }  # fmt: skip
    assert "python eval.py runs/x" in section(page, "provenance")
    assert section(page, "training")


def test_pictures_stand_side_by_side_with_their_captions(page, paths):
    shown = re.findall(r'<section id="drawn">(.*?)</section>', page, re.DOTALL)[0]
    figures = re.findall(r'<figure class="card">(.*?)</figure>', shown, re.DOTALL)
    images = [re.findall(r'src="data:image/png;base64,([^"]*)"', each) for each in figures]
    assert list(map(len, images)) == [2, 2]
    assert [text_of(each) for each in figures] == ["cat → dog", "dog → cat"]
    arrays = next(r for r in results.load(paths)[0].results if r.row["condition"] == "drawn").arrays
    for place, pair in enumerate(images):
        for name, image in zip(("before", "after"), pair, strict=True):
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image))))
            expected = np.rint(255 * arrays[name][place, ..., 0])
            np.testing.assert_array_equal(pixels, expected)


def test_what_several_networks_show_alike_is_shown_once_under_their_names(tmp_path):
    paths = []
    for name, seed in (("a", 0), ("b", 1), ("c", 0)):
        made = [built_runs.drawn(built.network(label=name), seed)]
        paths.append(built.write(tmp_path, made, name))
    page = report.write(paths, tmp_path / "page.html").read_text()
    shown = section(page, "drawn")
    assert re.findall(r"<h3>(.*?): Changed</h3>", page) == ["a, c", "b"]
    assert shown.count("Bars of a user.") == shown.count("a, b, c: Bars of a user.") == 1


def test_shares_are_in_percent_and_other_numbers_have_their_unit_and_four_digits(tmp_path):
    """As they are printed, beside their differences with a sign."""
    paths = []
    for name, share, size in (("a", 0.81234, 0.0123456), ("b", 0.7, 0.0234567)):
        numbers = {
            "right": {"value": share, "low": 0.6, "high": 0.9, "unit": "share"},
            "size": {"value": size, "unit": "dB"}, "same": {"value": 12345678.0},
            "lost": {"unit": "dB"},
        }  # fmt: skip
        made = [built.result({"condition": "rooms"}, numbers, of=built.network(label=name))]
        paths.append(built.write(tmp_path, made, name))
    page = report.write(paths, tmp_path / "page.html").read_text()
    shown = section(page, "rooms")
    for line in (
        "right 81.2 60.0 to 90.0 70.0 60.0 to 90.0 −11.2 ",
        "size 0.01235 dB 0.02346 dB +0.0111",
        "same 1.235e+07 1.235e+07 0",
        "lost not defined not defined –",
    ):
        assert line in shown


def test_a_page_without_main_numbers_counts_no_images(tmp_path):
    """Gratings are no images of a data set, which the first screen would count."""
    made = [built.result({"condition": "gratings"}, {"score": {"value": 0.25, "low": 0.1}})]
    page = report.write([built.write(tmp_path, made)], tmp_path / "page.html").read_text()
    assert "images" not in head_of(page)
    assert table(page, "gratings") == {"gratings: score": {"ResNet-18": [0.25]}}


def test_corruptions_of_ones_own_are_drawn_by_the_category_that_they_say(tmp_path):
    made = [
        built.accuracy(built.corrupted(name, severity, **category), np.arange(100) < 40)
        for name, category in (
            ("fog", {}), ("hail", {"category": "weather"}), ("dust", {}),
            ("shadow", {"category": "light"}),
        )
        for severity in (1, 3)
    ]  # fmt: skip
    page = report.write([built.write(tmp_path, made)], tmp_path / "page.html").read_text()
    (found,) = re.findall(r'<section id="corruption">(.*?)</section>', page, re.DOTALL)
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", found)
    assert sorted(titles) == ["light", "weather"] and found.count('class="chart"') == 3
    means = table(page, "corruption")
    assert means["mean over light (shadow), severities 1, 3"] == {"ResNet-18": [0.4]}
    assert means["mean over weather (hail), severities 1, 3"] == {"ResNet-18": [0.4]}


def test_names_and_warnings_are_text(tmp_path):
    of = built.network(label="</script><script>alert(1)</script>")
    people = [{"network": "<b>nine</b>", "number": "accuracy", "value": 0.5}]
    views = [Lines("accuracy", "level", share=True, about="<i>why</i>")]
    made = [
        built.accuracy(built.CLEAN, 0.5, of=of, warnings=["Too few <steps>."]),
        built.result({"condition": "<em>"}, built_runs.shares({1: 0.5, 2: 0.4}, "level"), of=of,
                     views=views, references=people, section="<section>"),
    ]  # fmt: skip
    page = report.write([built.write(tmp_path, made)], tmp_path / "page.html").read_text()
    assert "clean: Too few &lt;steps&gt;." in page
    for each in ("<script>alert(1)", "<b>nine", "<i>why", "<em>", "<section>"):
        assert each not in page


NAMES_OF_A_USER = (
    "clean rooms", "attack budget", "corruption of faces", "certified faces", "mean over observers",
    "accuracy", "numbers", "training", "provenance", "masked gradients",
    # Also the names of kinds of ours, with other numbers than ours have.
    "corruption", "minimal", "physiology", "explained variance", "front end", "fourier map",
    "metamers", "psychophysics", "critical bands", "geometry", "masking", "attack", "clean",
)  # fmt: skip


def test_a_condition_of_a_user_may_have_any_name(tmp_path):
    """Its numbers stand on the page."""
    numbers = {"strength": {"value": 0.125}, "accuracy": built.INTERVAL}
    made = [built.result({"condition": name}, numbers) for name in NAMES_OF_A_USER]
    made += [
        built.result({"condition": f"of {place}"}, numbers, section=name)
        for place, name in enumerate(("Masked-gradients", "?", "!", "r0-1", "All numbers"))
    ]
    page = report.write([built.write(tmp_path, made)], tmp_path / "page.html").read_text()
    places = re.findall(r'<section id="([^"]*)">', page)
    assert len(set(places)) == len(places)
    accuracies = table(page, "accuracy")
    every = {}
    for place in places:
        every |= table(page, place) if place not in ("numbers", "provenance") else {}
    for name in NAMES_OF_A_USER:
        assert every[f"{name}: strength"] == {"ResNet-18": [0.125]}
        assert accuracies[name] == {"ResNet-18": [0.5]}


def test_means_at_different_severities_are_not_of_one_line(tmp_path):
    """Two networks have no severity of two corruptions in common, and each other ones."""
    paths, means = [], {}
    for label, severities in (("a", (1, 2)), ("b", (1,))):
        of = built.network(label=label)
        made = [built.accuracy(built.corrupted("fog", s), 0.5, of=of) for s in severities]
        made += [built.accuracy(built.corrupted("contrast", 5), 0.25, of=of)]
        *fog, contrast = [each.value() for each in made]
        means[label] = (np.mean(fog) + contrast) / 2
        paths.append(built.write(tmp_path, made, label))
    lines = [line for line in tables.lines(results.load(paths)) if line.over]
    shown = [{label: cell.interval.value for label, cell in line.cells.items()} for line in lines]
    assert shown == [pytest.approx({label: mean}) for label, mean in means.items()]
    assert len({line.over for line in lines}) == 2
    report.write(paths, tmp_path / "page.html")


def test_what_was_only_judged_by_votes_has_its_means_and_its_sentence(tmp_path):
    paths = []
    for name in ("one", "two"):
        of = built.network("vone_resnet18", label=name)
        made = built.measure("vone_resnet18", corruptions=("fog", "snow"), decision="vote:8", of=of)
        paths.append(built.write(tmp_path, made, name))
    page = report.write(paths, tmp_path / "page.html").read_text()
    mean = "mean over 2 of 4 weather corruptions, severity 3, vote:8"
    (shown,) = [v for title, v in table(page, "corruption").items() if title.endswith(mean)]
    assert shown["one"] == [pytest.approx((made[-1].value() + made[-2].value()) / 2)]
    assert "no attack on the same images in common judged by single draws" in head_of(page)


def test_the_same_runs_give_the_same_page_which_loads_nothing(page, paths, tmp_path):
    assert report.write(paths, tmp_path / "again.html").read_text() == page
    # Vega's code names addresses, but no element has one.
    elements = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', elements)


def test_the_command_writes_the_page(tmp_path, capsys):
    run = built.write(tmp_path, [built.accuracy(built.CLEAN, 0.5)])
    out = tmp_path / "page.html"
    assert program.main([str(run), "--out", str(out)]) == 0
    assert f"wrote {out}" in capsys.readouterr().out and out.exists()
    assert program.main([str(run), "--out", str(tmp_path / "absent" / "page.html")]) == 1
    assert "absent" in capsys.readouterr().err
