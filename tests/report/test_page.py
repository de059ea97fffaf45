"""The page: its numbers are those of the files, and it shows what it is given."""

import dataclasses
import html
import re

import numpy as np
import pytest

from tests.report import built_runs
from tests.results import built
from vone_jax import report, results
from vone_jax.cli import report as program
from vone_jax.report import tables


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
    """Title of a line -> label of a column -> the numbers of the cell, or its text without one."""
    (found,) = re.findall(rf'<section id="{name}">(.*?)</section>', page, re.DOTALL)
    lines = {}
    for line in re.findall(r"<tr>(<th scope.*?)</tr>", found, re.DOTALL):
        title = text_of(re.findall(r"<th[^>]*>(.*?)(?:<small>|</th>)", line, re.DOTALL)[0])
        cells = re.findall(r'<td[^>]*data-label="([^"]*)"[^>]*>(.*?)</td>', line, re.DOTALL)
        lines[title] = {html.unescape(n): values_of(each) or text_of(each) for n, each in cells}
    return lines


def head_of(page):
    return text_of(page[page.index("<header>") : page.index("</header>")])


def test_all_numbers_are_those_of_the_files(page, paths):
    rows = results.load(paths).to_frame()
    shown = re.findall(r'<section id="numbers">(.*?)</section>', page, re.DOTALL)[0]
    assert values_of(shown) == rows["value"].dropna().tolist() and len(rows) > 30


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

    strong = built.attacked("linf", 4 / 255, "strongest of PGD, APGD", None)
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
    lines = table(page, "accuracies")
    words = ("", ", without noise", ", vote:8", ", frozen noise", ", again")
    conditions = ("clean", "PGD L∞ 4/255", "strongest of PGD, APGD L∞ 4/255")
    mean = "mean over 2 of 15 corruptions, severity 3"
    assert lines.keys() == {f"{each}{word}" for each in (*conditions, mean) for word in words}

    def right(label, condition, word):
        """The decisions of a network in a condition; a base network has no noise and decision."""
        if word not in ("", ", again") and made[label][0].row.get("draws") is None:
            word = ""
        wanted = {"PGD L∞ 4/255": "PGD L∞ 4/255, 64 steps"}.get(condition, condition) + word
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
    assert "100 images of shapes test" in head and "masked gradients not checked" in head
    notes = text_of(page[page.index("Measured differently:") : page.index("<nav")])
    assert "noise draws per gradient: 1 against 10" not in notes  # The baseline has no noise.
    assert "measured on other images" in notes


def test_a_page_compares_two_noisy_networks_with_what_differs_beside_the_difference(tmp_path):
    made = six_networks()
    paths = [built.write(tmp_path, made[label], label) for label in ("vone", "one draw")]
    page = report.write(paths, tmp_path / "page.html").read_text()
    lines = table(page, "accuracies")
    assert len(lines["PGD L∞ 4/255"]["Difference"]) == 1
    (at,) = re.findall(r'<li id="note-(\d)">noise draws per gradient: 1 against 10', page)
    cells = re.findall(r'data-label="Difference">(.*?)</td>', page, re.DOTALL)
    marked = [f"#note-{at}" in cell for cell in cells]
    # Only the two attacks, and not clean images or corruptions.
    assert sum(marked) == 2 and marked[1:3] == [True, True]
    assert "The two were measured differently" in head_of(page)


def test_each_kind_of_result_has_its_section(page):
    assert "Do more steps do more? warning More steps leave more accuracy." in section(
        page, "trust"
    )
    assert "4 S steps not finite" in section(page, "trust")
    assert "not found for half of the images" in section(page, "attacks")
    assert "VOneResNet-18: 8 cells" in section(page, "v1")
    physiology = section(page, "physiology")
    # A layer with few units stands last, whatever its score.
    assert physiology.index("v1 VOneResNet-18, 120 units") < physiology.index("20 units, few")
    assert "Study of preferred orientation (1999)" in physiology
    # Tuning and receptive fields of the best layer of each network.
    assert physiology.count("Units of VOneResNet-18, v1") == physiology.count("Units of") == 1
    assert "python eval.py runs/x" in section(page, "provenance")
    assert section(page, "training")


def test_the_gallery_shows_what_the_attack_changed_and_nothing_else(page):
    """Of the four images that are kept, 3 and 7 are misclassified after the attack."""
    shown = section(page, "gallery")
    changed = re.findall(r"(\S+): class (\d) → class (\d)", shown)
    assert changed == [
        (network, before, after)
        for before, after in (("3", "4"), ("7", "8"))
        for network in ("ResNet-18", "VOneResNet-18")
    ]
    # Perturbations of 4/255 fill the grey range if they are 20 times as large.
    assert "difference × 20" in shown and page.count('alt="adversarial image"') == 4


def test_physiology_alone_makes_a_page(tmp_path):
    """Its gratings are no images of a data set, which the first screen would count."""
    made = [
        built.result({"condition": "physiology", "layer": "v1"}, {"mean score": {"value": 0.9}},
                     details=built_runs.layer(0.9)),
        built.result({"condition": "explained variance", "layer": "v1"},
                     {"explained variance": {"value": 0.25, "low": 0.125, "high": 0.5}},
                     arrays={"correlations": np.array([[0.4, 0.8]]),
                             "reliabilities": np.array([[0.9, 0.6]])}),
    ]  # fmt: skip
    page = report.write([built.write(tmp_path, made)], tmp_path / "page.html").read_text()
    assert "images" not in head_of(page)
    assert "v1 ResNet-18, 120 units 0.90" in section(page, "physiology")
    assert section(page, "explained").endswith("ResNet-18, v1")
    assert re.search(r'(?s)<section id="explained">.*"reliability":0.6.*</section>', page)
    assert table(page, "further") == {
        "explained variance, v1, explained variance": {"ResNet-18": [0.25]}
    }
    alone = report.write([built.write(tmp_path, made[1:], "alone")], tmp_path / "b.html")
    assert "0.25" in section(alone.read_text(), "further")


def test_v1s_with_equal_kernels_and_other_responses_are_shown_apart(tmp_path):
    """They have other gains, which the kernels do not show. Equal V1s are shown once."""
    first = built_runs.bank()
    other = first | {"responses_clean": 2 * first["responses_clean"]}
    paths = []
    for name, arrays in (("a", first), ("b", other), ("c", first)):
        of = built.network(label=name)
        made = [built.result({"condition": "front end"}, arrays=arrays, of=of)]
        paths.append(built.write(tmp_path, made, name))
    page = report.write(paths, tmp_path / "page.html").read_text()
    assert re.findall(r"(a, c|[abc]): 8 cells", section(page, "v1")) == ["a, c", "b"]


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
    shown = section(page, "corruptions")
    titles = ("Weather", "Weather, not published", "Light", "Others")
    assert re.findall(r"<h3>(.*?)</h3>", page) == [*titles]
    assert "In no mean: dust." in shown and shown.count("In no mean") == 1
    means = table(page, "corruptions")
    assert means["mean over light (shadow), severities 1, 3"] == {"ResNet-18": [0.4]}
    assert means["mean over weather (hail), severities 1, 3"] == {"ResNet-18": [0.4]}


def test_a_calibration_that_is_not_defined_is_a_dash(tmp_path):
    numbers = {"Brier score, 1 draw": {"value": 0.5}, "calibration error, 1 draw": {"value": None}}
    made = [built.result(built.CLEAN, {"accuracy": built.INTERVAL} | numbers)]
    page = report.write([built.write(tmp_path, made)], tmp_path / "page.html").read_text()
    shown = table(page, "calibration")["ResNet-18"]
    assert (shown["Brier score"], shown["Calibration error"]) == ([0.5], "–")


def test_a_new_kind_of_result_shows_its_numbers_without_a_change_of_the_page(tmp_path):
    of = built.network(label="</script><script>alert(1)</script>")
    made = [
        built.accuracy(built.CLEAN, 0.5, of=of, warnings=["Too few <steps>."]),
        built.result({"condition": "brightness"}, {"mean": {"value": 0.125}}, of=of),
        built.result({"condition": "contrast"}, {"accuracy": built.INTERVAL}, of=of),
    ]
    page = report.write([built.write(tmp_path, made)], tmp_path / "page.html").read_text()
    (shown,) = table(page, "further").items()
    assert shown == ("brightness, mean", {of["label"]: [0.125]})
    assert table(page, "accuracies")["contrast"] == {of["label"]: [0.5]}
    # Names and warnings are text.
    assert "<script>alert(1)" not in page and "clean: Too few &lt;steps&gt;." in page


NAMES_OF_A_USER = (
    "clean rooms", "attack budget", "corruption of faces", "minimal contrast", "certified faces",
    "sandwich masks", "masking by noise", "physiology of MT", "explained variance of V4",
    "front end size", "fourier map of V4", "metamers of texture", "psychophysics of crowding",
    "critical bands of faces", "geometry of faces", "mean over observers",
    # Also the names of kinds of ours, with other numbers than ours have.
    "corruption", "minimal", "physiology", "explained variance", "front end", "fourier map",
    "metamers", "psychophysics", "critical bands", "geometry of classes", "masking",
)  # fmt: skip


def test_a_condition_of_a_user_may_begin_with_the_name_of_a_kind(tmp_path):
    """Its numbers stand on the page, whatever its name."""
    numbers = {"strength": {"value": 0.125}, "accuracy": built.INTERVAL}
    made = [built.result({"condition": name}, numbers) for name in NAMES_OF_A_USER]
    page = report.write([built.write(tmp_path, made)], tmp_path / "page.html").read_text()
    further, accuracies = table(page, "further"), table(page, "accuracies")
    for name in NAMES_OF_A_USER:
        assert further[f"{name}, strength"] == {"ResNet-18": [0.125]}
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
    lines = tables.accuracies(results.load(paths))
    shown = [{label: cell.interval.value for label, cell in line.cells.items()} for line in lines]
    assert shown == [pytest.approx({label: mean}) for label, mean in means.items()]
    assert len({line.over for line in lines}) == 2
    report.write(paths, tmp_path / "page.html")


def test_corruptions_by_votes_have_their_section_and_the_means_of_categories(tmp_path):
    made = built.measure("vone_resnet18", corruptions=("fog", "snow"), decision="vote:8")
    page = report.write([built.write(tmp_path, made)], tmp_path / "page.html").read_text()
    ((label, shown),) = table(page, "corruptions").items()
    assert label == "mean over 2 of 4 weather corruptions, severity 3, vote:8"
    assert shown == {"VOneResNet-18": [pytest.approx((made[-1].value() + made[-2].value()) / 2)]}


def test_what_was_only_judged_by_votes_has_its_images_classes_and_sentence(tmp_path):
    paths = []
    for name in ("one", "two"):
        of = built.network("vone_resnet18", label=name)
        made = built.measure("vone_resnet18", decision="vote:8", of=of)
        clean, attacked = built_runs.kept(made[0], made[2])
        scores = {"scores": np.zeros((100, 2, 7)), "kept": np.array([], int)}
        shown = {"original": np.zeros((0, 28, 28, 1))}
        clean = dataclasses.replace(clean, arrays={**clean.arrays, **scores, **shown})
        paths.append(built.write(tmp_path, [clean, attacked], name))
    page = report.write(paths, tmp_path / "page.html").read_text()
    assert section(page, "gallery").count("class 3 → class 4") == 2
    assert "one, clean, vote:8" in section(page, "classes")
    assert "no attack on the same images in common judged by single draws" in head_of(page)


def test_further_numbers_with_other_settings_have_lines_of_their_own(tmp_path):
    """The steps of metamers are no column of their row, and decide how well they match."""
    paths = []
    for label, steps, share in (("a", 3000, 0.75), ("b", 250, 0.25), ("c", 250, 0.5)):
        of = built.network(label=label)
        made = [
            built.result({"condition": "metamers", "layer": "v1"}, {"matched": {"value": share}},
                         of=of, settings={"steps": steps, "images": 8})
        ]  # fmt: skip
        paths.append(built.write(tmp_path, made, label))
    page = report.write(paths, tmp_path / "page.html").read_text()
    (found,) = re.findall(r'<section id="further">(.*?)</section>', page, re.DOTALL)
    rows = [text_of(row) for row in re.findall(r"<tr>(<th scope.*?)</tr>", found, re.DOTALL)]
    assert rows == [
        "metamers, v1, matched steps 3000 0.75 – –", "metamers, v1, matched steps 250 – 0.25 0.5",
    ]  # fmt: skip


def test_metamers_stand_beside_the_null_that_their_match_is_compared_with(tmp_path):
    """It is taken between images of the data set, and not between the originals."""
    arrays = {
        "metamers": np.zeros((2, 8, 8, 1)), "original": np.ones((2, 8, 8, 1)),
        "decibel": np.array([9.0, 30.0]), "label": np.zeros(2, int),
        "predicted": np.zeros(2, int),
    }  # fmt: skip
    made = [
        built.result(
            {"condition": "metamers", "layer": layer, "tag": tag},
            {"decibel of two images": {"value": null}, "images of the null": {"value": count},
             "accuracy on metamers": built.INTERVAL, "accuracy on originals": built.INTERVAL},
            arrays, tag=tag, details={"place": place},
        )
        for place, (layer, tag, null, count) in enumerate(
            (("v1", "", 12.5, 1000), ("v1", "b", 7.25, 40))
        )
    ]  # fmt: skip
    page = report.write([built.write(tmp_path, made)], tmp_path / "page.html").read_text()
    shown = section(page, "metamers")
    assert "12.5 dB between two of 1000 images" in shown
    assert "7.2 dB between two of 40 images" in shown
    assert "two of the originals" not in shown


def test_the_mean_of_a_layer_says_of_which_properties_it_is(tmp_path):
    """It is of the seven published ones, whatever the columns beside it."""
    made = [
        built.result({"condition": "physiology", "layer": "v1"}, {"mean score": {"value": 0.9}},
                     details=built_runs.layer(0.9)),
    ]  # fmt: skip
    page = report.write([built.write(tmp_path, made)], tmp_path / "page.html").read_text()
    (line,) = table(page, "physiology").values()
    assert list(line) == ["Mean of 7", *built_runs.LABELS.values()]


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
