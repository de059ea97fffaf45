"""Charts of lines: their data are the results, and Vega-Lite accepts them."""

import dataclasses
import re

import pytest
import vl_convert

from tests.report import built_runs
from tests.results import built
from vone_jax import results
from vone_jax.report import chart, page, tables
from vone_jax.results import Lines
from vone_jax.results.row import FREE, SHOWN


def drawn(*made, labels=None):
    """Title of a panel -> its chart, of lists of results."""
    runs = built.runs_of(*made, labels=labels)
    found = {}
    for section in page.sections(runs, tables.lines(runs)):
        for title, each in section.charts:
            spec = each if isinstance(each, dict) else each.to_dict()
            vl_convert.vegalite_to_svg(spec | {"width": 300})
            assert (title or section.name) not in found
            found[title or section.name] = spec
    return found


def layers(spec, above=None):
    """The layers of a chart with the data and channels that they inherit."""
    above = above or {"encoding": {}, "data": None}
    own = {
        "encoding": above["encoding"] | spec.get("encoding", {}),
        "data": spec.get("data", above["data"]),
    }
    if "layer" in spec:
        return [each for inner in spec["layer"] for each in layers(inner, own)]
    return [own | {"mark": spec["mark"]}]


def data_of(spec, mark, above=None):
    """The rows of the layers of a mark, by the channels that tell its lines apart."""
    found = {}
    for layer in layers(spec):
        kind = layer["mark"] if isinstance(layer["mark"], str) else layer["mark"]["type"]
        if kind != mark:
            continue
        data = layer["data"]
        rows = data.get("values") or spec["datasets"][data["name"]]
        apart = [layer["encoding"].get(name, {}) for name in ("color", "detail", "strokeDash")]
        fields = dict.fromkeys(each["field"] for each in apart if "field" in each)
        for row in rows:
            found.setdefault(tuple(row[field] for field in fields), []).append(row)
    return found


def joined(spec):
    """Network and what else tells a line -> its points."""
    lines = data_of(spec, "line")
    return {name: [(row["x"], row["value"]) for row in rows] for name, rows in lines.items()}


def points(spec):
    return [(row["x"], row["value"]) for rows in data_of(spec, "point").values() for row in rows]


def measured(value, **columns):
    """A result of a user's kind with one number at level 0.5, or at several levels."""
    return built.result(
        {"condition": "rooms", **columns.pop("condition", {})},
        built_runs.shares(value if isinstance(value, dict) else {0.5: value}, "level", **columns),
        views=[Lines("accuracy", "level", share=True)],
    )


def test_a_ladder_has_each_attack_at_each_radius_and_the_clean_images():
    made = built.measure(), [*built.measure("vone_resnet18"), built_runs.minimal(VONE)]
    (linf, l2) = drawn(*made).values()
    found = joined(linf)
    for results_of in made:
        label = results_of[0].row["network"]
        pgd = [(0.0, results_of[0].value())]
        pgd += [(r.row["eps"], r.value()) for r in results_of if r.row.get("norm") == "linf"
                if "eps" in r.row]  # fmt: skip
        assert sorted(found[label, "PGD, 64 steps"]) == pgd
    # The curve of the smallest perturbations is another line.
    assert found["VOneResNet-18", "minimal, FMN, 100 steps"] == [
        (4 / 255, 0.25), (0.0, made[1][0].value())
    ]  # fmt: skip
    assert all(len(line) == 3 for line in joined(l2).values())


VONE = built.network("vone_resnet18")
# Columns of a condition, of a number, and of the rules by which a network is judged.
SETTINGS = [
    {"strength": 2.0}, {"walls": ["red", "blue"]}, {"grey": True}, {"loss": "margin"},
    {"decision": "vote:8"}, {"noise": "none"}, {"noise": "frozen"}, {"attack_noise": "none"},
    {"tag": "again"}, {"norm": "l2"}, {"form": "uint8"},
]  # fmt: skip


@pytest.mark.parametrize("columns", SETTINGS)
def test_two_points_of_a_line_differ_in_the_axis_alone(columns):
    """Whatever sets two results apart, their points are on two lines, or in two panels."""
    tag = {name: columns[name] for name in columns if name == "tag"}
    plain = [built.accuracy(built.attacked("linf", e / 255), s) for e, s in ((1, 0.6), (4, 0.5))]
    other = [
        built.accuracy(built.attacked("linf", e / 255) | columns, s, **tag)
        for e, s in ((1, 0.4), (4, 0.3))
    ]
    where = {(r.row["eps"], r.value()): r for r in (*plain, *other)}
    found = [line for spec in drawn([*plain, *other]).values() for line in joined(spec).values()]
    assert sorted(map(len, found)) == [2, 2]
    for line in found:
        rows = [
            {n: v for n, v in where[at].row.items() if n not in (*FREE, *SHOWN, "eps")}
            for at in line
        ]
        assert rows[0] == rows[1]


@pytest.mark.parametrize("column", ["strength", "observer", "averaged draws"])
def test_numbers_that_differ_in_a_column_of_their_own_are_on_two_lines(column):
    numbers = [
        dict(built_runs.shares({0.3: share, 0.6: share / 2}, "level", **{column: value}))
        for value, share in ((1, 0.8), (2, 0.6))
    ]
    both = {(at, k): each for k, of in enumerate(numbers) for at, each in of.items()}
    made = built.result({"condition": "rooms"}, both, views=[Lines("accuracy", "level")])
    (spec,) = drawn([made]).values()
    assert sorted(joined(spec).values()) == [[(0.3, 0.6), (0.6, 0.3)], [(0.3, 0.8), (0.6, 0.4)]]


def test_views_of_one_section_axis_and_panel_are_one_chart_with_the_names_of_the_numbers():
    numbers = {
        (name, at): {"number": name, "eps": at, "value": value, "unit": "share"}
        for name, values in (("floor", (0.5, 0.2)), ("ceiling", (0.7, 0.4)))
        for at, value in zip((0.1, 0.2), values, strict=True)
    }
    condition = {"condition": "proof", "norm": "l2"}
    views = [Lines(name, "eps", "norm", share=True) for name in ("floor", "ceiling")]
    made = built.result(condition, numbers, section="Attack", views=views)
    attacks = [built.accuracy(built.attacked("l2", e), 0.5) for e in (0.1, 0.2)]
    ((title, spec),) = drawn([made, *attacks]).items()
    assert title == "L2"
    assert {name[1] for name in joined(spec)} == {
        "proof, floor",
        "proof, ceiling",
        "PGD, 64 steps, accuracy",
    }


def test_a_ladder_begins_at_the_origin_that_agrees_in_every_column():
    """The vote over noise at another contrast, or of another norm, is no radius 0."""

    def certified(vote, proven, norm="l2", **columns):
        numbers = {
            "accuracy of the vote": {"value": vote, "main": True, "unit": "share"},
            "certified accuracy": {"value": proven, "eps": 0.15, "main": True, "unit": "share"},
        }
        return built.result(
            {"condition": "certified", "norm": norm, **columns}, numbers,
            views=[Lines("certified accuracy", "eps", "norm", "certified", share=True)],
        )  # fmt: skip

    made = [certified(0.7, 0.6, "linf"), certified(0.9, 0.8), certified(0.5, 0.4, contrast=0.1)]
    for shown, expected in (
        (made, [[(0.15, 0.4), (0.0, 0.5)], [(0.15, 0.8), (0.0, 0.9)]]),
        (made[:2], [[(0.15, 0.8), (0.0, 0.9)]]),
        (made[::2], [[(0.15, 0.4), (0.0, 0.5)]]),
    ):
        found = joined(drawn(shown)["L2"])
        assert sorted(found.values()) == expected


@pytest.mark.parametrize(
    "columns", [{"decision": "vote:8"}, {"noise": "none"}, {"noise": "frozen"}]
)
def test_clean_images_under_other_rules_are_no_origin(columns):
    made = [
        built.accuracy(built.CLEAN, 0.9, of=VONE),
        built.accuracy(built.CLEAN | columns, 0.8, of=VONE),
        built.accuracy(built.attacked("linf", 1 / 255, **columns), 0.5, of=VONE),
        built.accuracy(built.attacked("linf", 4 / 255, **columns), 0.4, of=VONE),
    ]
    (spec,) = drawn(made).values()
    (line,) = joined(spec).values()
    assert dict(line)[0.0] == made[1].value()
    (spec,) = drawn([made[0], *made[2:]]).values()
    (line,) = joined(spec).values()
    assert 0.0 not in dict(line)


@pytest.mark.parametrize(
    "other", [{"name": "other"}, {"split": "train"}, {"examples": 50}, {"seed": 1}, {"draws": 1}]
)
def test_points_on_other_images_are_not_joined(other):
    """Clean images, and attacks of two radii, of which one is on other images or with other draws.

    Networks that differ in this alone stand in one chart, under one name.
    """
    small, large = (built.attacked("linf", eps / 255) for eps in (1, 4))
    clean, first = (built.accuracy(each, 0.6, of=VONE) for each in (built.CLEAN, small))
    fields = {"seed": 1} if "seed" in other else {}
    condition = large | ({"attack_draws": 1} if "draws" in other else {})
    dataset = built.DATASET | {n: v for n, v in other.items() if n in ("name", "split")}
    right = built.answers(0.3, images=other.get("examples", 100))
    second = built.accuracy(condition, right, of=VONE, dataset=dataset, **fields)
    (spec,) = drawn([clean, first, second]).values()
    found = sorted(map(sorted, joined(spec).values()))
    assert found[0] == [(0.0, clean.value()), (1 / 255, first.value())]
    alone = [(4 / 255, second.value())]
    # Clean images are of the same ones, if only the draws of the gradient differ.
    assert found[1] == ([(0.0, clean.value()), *alone] if "draws" in other else alone)
    (spec,) = drawn([clean, first], [second], labels=["a", "b"]).values()
    assert {name for name in joined(spec)} == {("a", "accuracy"), ("b", "accuracy")}


def test_corruptions_of_a_category_have_a_panel_with_their_severities():
    names = {"fog": "weather", "snow": "weather", "gaussian_noise": "noise"}
    made = [
        built.accuracy(built.corrupted(name, s), share)
        for name in names
        for s, share in ((1, 0.8), (3, 0.6), (5, 0.3))
    ]
    charts = drawn(made)
    assert charts.keys() == {"weather", "noise"}
    for title, spec in charts.items():
        for line in joined(spec).values():
            assert [at for at, _ in line] == [1, 3, 5]
        assert len(joined(spec)) == list(names.values()).count(title)


def test_published_corruptions_are_joined_over_their_severities():
    """Each severity of a published corruption is a data set of its own, and the severity is it."""
    lines = dataclasses.replace(built.VIEWS["corruption"][0], own_images=True)
    made = [
        built.accuracy(
            built.corrupted("fog", s, form="published"), share, views=[lines],
            dataset=built.DATASET | {"name": "folder:fog", "split": str(s), "fingerprint": str(s)},
        )
        for s, share in ((1, 0.9), (3, 0.5))
    ]  # fmt: skip
    (spec,) = drawn(made).values()
    assert sorted(joined(spec).values()) == [
        [(s, r.value()) for s, r in zip((1, 3), made, strict=True)]
    ]


@pytest.mark.parametrize("levels", [(0.5, 1.0), (0.1, 0.2, 0.3, 0.4, 0.5)])
def test_points_stand_at_their_tick_however_few_there_are(levels):
    made = [[measured(dict.fromkeys(levels, value))] for value in (0.5, 0.6)]
    (spec,) = drawn(*made, labels=["one", "other"]).values()
    svg = vl_convert.vegalite_to_svg(spec | {"width": 600})
    number = r"translate\(([\d.]+),"
    ticks = re.findall(rf"<text [^>]*{number}[^>]*rotate[^>]*>([\d.]+)</text>", svg)
    tick_at = {float(tick): float(place) for place, tick in ticks}
    points = re.findall(rf'<path aria-label="level: ([\d.]+);[^>]*"point"[^>]*{number}', svg)
    beside = sorted(float(place) - tick_at[float(level)] for level, place in points)
    assert len(beside) == 2 * len(levels) and max(map(abs, beside)) < 5


def test_an_axis_with_one_value_has_a_row_of_points_for_each_line():
    made = [
        [built.accuracy(built.corrupted(name, 3), share, of=of) for name in ("fog", "snow")]
        for of, share in ((built.network(), 0.4), (VONE, 0.6))
    ]
    ((title, spec),) = drawn(*made).items()
    assert title == "weather, severity 3" and not data_of(spec, "line")
    rows = [row for rows in data_of(spec, "point").values() for row in rows]
    assert {(row["network"], row["line"]): row["value"] for row in rows} == {
        (each.row["network"], each.row["corruption"]): each.value() for of in made for each in of
    }


def test_a_panel_with_many_lines_is_split_into_one_of_each():
    made = [measured({0.3: 0.1 * k, 0.6: 0.05 * k}, condition={"power": k}) for k in range(1, 8)]
    charts = drawn(made)
    assert charts.keys() == {f"power {k}" for k in range(1, 8)}
    assert joined(charts["power 2"]) == {("ResNet-18", "power 2"): [(0.3, 0.2), (0.6, 0.1)]}


def test_other_observers_are_lines_and_chance_is_a_line_across():
    (levels, shape) = drawn(built_runs.beside_humans()).values()
    lines = data_of(levels, "line")
    people = [(row["x"], row["value"]) for row in lines[("9 observers",)]]
    assert people == list(zip(built_runs.LEVELS, (0.9, 0.7, 0.3), strict=True))
    (chance,) = [row for rows in data_of(levels, "text").values() for row in rows]
    assert chance == {"value": 0.0625, "is": "chance"}
    # From the easiest level, and not from the lowest.
    orders = [layer["encoding"]["x"].get("sort") for layer in layers(levels)
              if layer["mark"]["type"] == "line"]  # fmt: skip
    assert orders == [["1", "0.1", "0.02"]] * 2
    own = lines["ResNet-18", "accuracy"]
    assert [row["value"] for row in own] == [0.8, 0.5, 0.2]
    assert [at for at, _ in joined(shape)["ResNet-18", "capacity"]] == list(built_runs.LAYERS)


def test_networks_with_other_numbers_of_classes_have_lines_of_chance_of_their_own():
    made = [
        [built.accuracy(built.attacked("linf", e / 255), 0.5, of=of,
                        provenance={"logits_classes": classes}) for e in (1, 4)]
        for of, classes in ((built.network(), 10), (VONE, 5))
    ]  # fmt: skip
    (spec,) = drawn(*made).values()
    told = [row["is"] for rows in data_of(spec, "text").values() for row in rows]
    assert sorted(told) == ["chance, 0.1", "chance, 0.2"]


def test_a_network_without_a_point_is_not_in_the_legend():
    made = built.measure("resnet18"), [built.accuracy(built.CLEAN, 0.5, of=VONE)]
    for spec in drawn(*made).values():
        (domain,) = {
            tuple(layer["encoding"]["color"]["scale"]["domain"])
            for layer in layers(spec)
            if "scale" in layer["encoding"].get("color", {})
        }
        assert domain == ("ResNet-18",)


def test_networks_keep_their_colours_in_all_charts():
    runs = ("a", "b", "c")
    everything = chart.networks(runs, runs)["color"].to_dict()["scale"]
    one = chart.networks(runs, ["c"])["color"].to_dict()["scale"]
    assert one["range"] == everything["range"][2:] and one["domain"] == ["c"]


def test_what_was_only_measured_by_votes_is_drawn_too():
    voted = built.measure("vone_resnet18", decision="vote:8")
    both = [*voted, *built.measure("vone_resnet18")]
    for shown, lines in ((voted, 1), (both, 2)):
        for spec in drawn(shown).values():
            found = joined(spec)
            assert len(found) == lines
            for (_, name), line in found.items():
                rule = "vote:8" if "vote:8" in name else None
                own = [r for r in shown if lines == 1 or r.row.get("decision") == rule]
                assert {value for _, value in line} <= {r.value() for r in own}


def test_numbers_that_are_no_shares_have_axes_of_their_own():
    numbers = {
        (name, at): {"number": name, "layer": at, "value": value}
        for name, value in (("capacity", 0.1), ("dimension", 30.0))
        for at in ("v1", "logits")
    }
    views = [Lines(name, "layer") for name in ("capacity", "dimension")]
    made = built.result({"condition": "shape"}, numbers, views=views)
    runs = built.runs_of([made])
    (section,) = page.sections(runs, tables.lines(runs))
    titles = [spec.to_dict()["layer"] for _, spec in section.charts]
    values = [{v for _, v in points(spec.to_dict())} for _, spec in section.charts]
    assert len(titles) == 2 and values == [{0.1}, {30.0}]


def test_a_number_that_is_not_defined_has_no_point():
    made = measured({0.3: 0.5, 0.6: 0.4})
    made.numbers[0].pop("value")
    (spec,) = drawn([made]).values()
    assert points(spec) == [(0.6, 0.4)]


def test_training_is_drawn_against_epochs(tmp_path):
    run = built.write(tmp_path, built.measure(), experiment={"seed": 0})
    spec = chart.training(results.load([run]), "loss").to_dict()
    rows = [row for rows in data_of(spec, "line").values() for row in rows]
    assert [(row["epoch"], row["value"]) for row in rows] == [
        (s / 10, 2 / (1 + s)) for s in range(0, 30, 10)
    ]
    assert chart.training(results.load([run]), "colour") is None


def test_a_log_axis_has_its_numbers_as_they_are():
    at = {2.0: 0.9, 8.0: 0.4, 32.0: 0.1}
    numbers = built_runs.shares(at, "frequency", "sensitivity")
    view = Lines("sensitivity", "frequency", log=True)
    (spec,) = drawn([built.result({"condition": "bands"}, numbers, views=[view])]).values()
    (line,) = joined(spec).values()
    assert line == [*at.items()]
    axes = [layer["encoding"]["x"] for layer in layers(spec) if layer["mark"]["type"] == "line"]
    assert all(axis["scale"]["type"] == "log" for axis in axes)


def test_a_network_without_noise_shares_the_names_of_attacks_over_several_draws():
    """Its gradient has one draw, as that of some attacks on the other network has."""
    single = {"attack_draws": 1}
    made = [
        [
            built.accuracy(built.attacked("linf", eps / 255, name, **columns), 0.5, of=of)
            for name, columns in (("PGD", {}), ("APGD", single if of is VONE else {}))
            for eps in (1, 4)
        ]
        for of in (built.network(), VONE)
    ]
    (spec,) = drawn(*made).values()
    names = [name for _, name in joined(spec)]
    assert sorted(names) == ["APGD"] * 2 + ["PGD"] * 2
