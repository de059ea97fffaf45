"""Charts: their data are the results, and Vega-Lite accepts them."""

import dataclasses

import altair as alt
import numpy as np
import pytest
import vl_convert

from tests.report import built_runs
from tests.results import built
from vone_jax import results
from vone_jax.report import charts, layer_charts, observer_charts, tables


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return results.load(built_runs.write(tmp_path_factory.mktemp("runs")))


def rows_of(chart):
    """The rows of the first layer. The specification is valid, and Vega can draw it."""
    spec = chart.to_dict()
    vl_convert.vegalite_to_svg(spec | {"width": 300})
    first = spec["layer"][0] if "layer" in spec else spec
    data = first.get("data") or spec["data"]
    return data["values"] if "values" in data else spec["datasets"][data["name"]]


def points_of(chart, kind="network"):
    """The rows of a ladder that have a column, in all of its layers."""
    spec = chart.to_dict()
    vl_convert.vegalite_to_svg(spec | {"width": 300})
    return [row for rows in spec["datasets"].values() for row in rows if kind in row]


def test_a_ladder_has_each_attack_at_each_radius_and_the_clean_images(runs):
    lines, labels = tables.accuracies(runs), [run.label for run in runs]
    rows = points_of(charts.ladder(lines, labels, "linf"))
    for run in runs:
        attacked = {r.label: r.value() for r in run.of("attack") if "L∞" in r.label}
        own = [row for row in rows if row["network"] == run.label]
        pgd = {r["condition"]: r["accuracy"] for r in own if r["attack"] == "PGD L∞, 64 steps"}
        assert pgd == attacked | {"clean": run.of("clean")[0].value()}
        # The curve of the smallest perturbations is another line.
        fmn = [row for row in own if row["attack"] == "minimal FMN L∞, 100 steps"]
        assert {row["accuracy"] for row in fmn} == {0.25, pgd["clean"]}
    assert charts.ladder(lines, labels, "l1") is None


def test_certified_accuracy_begins_at_the_vote_and_attacks_at_clean_images():
    vote, attacked, certified = (
        {"value": v, "low": v - 0.1, "high": v + 0.1} for v in (0.75, 0.6, 0.5)
    )
    condition = {"condition": "certified", "norm": "l2"}
    numbers = {
        "accuracy of the vote": vote,
        "certified accuracy": certified | {"eps": 0.15},
        "accuracy under APGD": attacked | {"eps": 0.15},
    }
    clean = built.accuracy(built.CLEAN, 0.9)
    lines = tables.accuracies(built.runs_of([clean, built.result(condition, numbers)]))
    rows = points_of(charts.ladder(lines, ["ResNet-18"], "l2"))
    found = {(row["attack"], row["eps"]): row["accuracy"] for row in rows}
    assert found == {
        ("certified accuracy L2", 0.0): 0.75, ("certified accuracy L2", 0.15): 0.5,
        ("accuracy under APGD L2", 0.0): 0.75,
        ("accuracy under APGD L2", 0.15): 0.6,
    }  # fmt: skip


def joined(chart, axis):
    """The points of each line of a chart: network and what else its colour and dash say -> axis."""
    spec = chart.to_dict()
    vl_convert.vegalite_to_svg(spec | {"width": 300})
    found = {}

    def visit(layer, above, data):
        channels, data = above | layer.get("encoding", {}), layer.get("data", data)
        for inner in layer.get("layer", ()):
            visit(inner, channels, data)
        if layer.get("mark", {}).get("type") != "line":
            return
        rows = data.get("values") or spec["datasets"][data["name"]]
        apart = [channels[name] for name in ("color", "detail", "strokeDash") if name in channels]
        fields = dict.fromkeys(each["field"] for each in apart if "field" in each)
        for row in rows:
            # Human observers are one line without a colour.
            if "network" in row and fields:
                line = tuple(row[field] for field in fields)
                found.setdefault(line, []).append(
                    (row[axis], row.get("accuracy", row.get("value")))
                )

    visit(spec, {}, None)
    return found


def test_a_certificate_begins_at_the_vote_on_the_same_images():
    """That at another contrast or of another norm is no radius 0 of it."""

    def certified(vote, proven, norm="l2", **columns):
        at = {"value": proven, "low": 0.0, "high": 1.0, "eps": 0.15}
        whole = {"value": vote, "low": 0.0, "high": 1.0}
        numbers = {"accuracy of the vote": whole, "certified accuracy": at}
        return built.result({"condition": "certified", "norm": norm, **columns}, numbers)

    made = [
        certified(0.7, 0.6, "linf"), certified(0.9, 0.8),
        certified(0.5, 0.4, corruption="contrast 0.1"),
    ]  # fmt: skip
    for shown, origins in ((made, {0.9, 0.5}), (made[:2], {0.9}), (made[::2], {0.5})):
        lines = tables.accuracies(built.runs_of(shown))
        found = joined(charts.ladder(lines, ["ResNet-18"], "l2"), "eps")
        assert {dict(points)[0.0] for points in found.values()} == origins
        assert all(len(points) == 2 for points in found.values())
    without = [dataclasses.replace(made[2], rows=made[2].rows[1:]), *made[:2]]
    lines = tables.accuracies(built.runs_of(without))
    found = joined(charts.ladder(lines, ["ResNet-18"], "l2"), "eps")
    assert sorted(map(sorted, found.values())) == [[(0.0, 0.9), (0.15, 0.8)], [(0.15, 0.4)]]


def test_points_on_other_images_are_not_joined():
    """Clean images, and attacks of two radii, each of another data set."""
    other = built.DATASET | {"name": "other", "fingerprint": "other"}
    small, large = (built.attacked("linf", eps / 255) for eps in (1, 4))
    clean, first = built.accuracy(built.CLEAN, 0.9), built.accuracy(small, 0.5)
    second = built.accuracy(large, 0.3, dataset=other)
    lines = tables.accuracies(built.runs_of([clean, first, second]))
    found = joined(charts.ladder(lines, ["ResNet-18"], "linf"), "eps")
    expected = [
        [(0.0, clean.value()), (1 / 255, first.value())],
        [(4 / 255, second.value())],
    ]
    assert sorted(map(sorted, found.values())) == sorted(expected)


def controls(condition, numbers, share, **fields):
    """Results of one network with its own noise, a vote and no noise, each number another one."""
    of = built.network("vone_resnet18")
    return [
        built.result(
            condition | columns, {n: {"value": v, "low": v, "high": v} for n, v in each.items()},
            of=of, **fields,
        )
        for columns, each in (
            ({}, {n: share for n in numbers}),
            ({"decision": "vote:8"}, {n: share + 0.1 for n in numbers}),
            ({"noise": "none"}, {n: share + 0.2 for n in numbers}),
        )
    ]  # fmt: skip


def test_other_noise_and_decisions_have_lines_of_their_own():
    made = controls(
        {"condition": "psychophysics", "corruption": "contrast"},
        ("accuracy at 1", "accuracy at 0.1"), 0.5, details={"levels": ["1", "0.1"]},
    )  # fmt: skip
    (chart,) = observer_charts.psychophysics(built.runs_of(made))
    assert sorted(joined(chart, "level").values()) == [
        [("1", each), ("0.1", each)] for each in (0.5, 0.6, 0.7)
    ]
    made = [
        each
        for place, layer in enumerate(("v1", "logits"))
        for each in controls(
            {"condition": "geometry of corners", "norm": "linf", "eps": 0.1, "layer": layer},
            ("capacity",), 0.5, details={"place": place},
        )
    ]  # fmt: skip
    (chart,) = layer_charts.geometry(built.runs_of(made))
    assert sorted(joined(chart, "layer").values()) == [
        [("v1", each), ("logits", each)] for each in (0.5, 0.6, 0.7)
    ]
    bands = {"centres": [1, 2], "steps": [1, 2], "channel": [2.0, 6.0, 4.0]}
    made = controls({"condition": "critical bands"}, ("bandwidth",), 0.5, details=bands)
    spec = observer_charts.critical_bands(built.runs_of(made)).to_dict()
    fits = [row for rows in spec["datasets"].values() for row in rows if "line" in row]
    assert len({row["line"] for row in fits}) == 3


def test_metamers_under_other_noise_have_lines_of_their_own():
    numbers = ("accuracy on metamers", "accuracy on originals")
    arrays = {name: np.zeros((1, 4, 4, 1)) for name in ("metamers", "original")}
    arrays["decibel"] = np.zeros(1)
    made = [
        each
        for place, layer in enumerate(("v1", "logits"))
        for each in controls(
            {"condition": "metamers", "layer": layer}, numbers, 0.5, arrays=arrays,
            details={"place": place},
        )
    ]  # fmt: skip
    chart, _ = observer_charts.metamers(built.runs_of(made))
    assert sorted(sorted(points) for points in joined(chart, "layer").values()) == [
        [("logits", each), ("originals", each), ("v1", each)] for each in (0.5, 0.6, 0.7)
    ]


def dots(chart):
    """Name of a corruption -> network -> its large dot."""
    found = {}
    for row in chart.layer[1].data.values:
        found.setdefault(row["corruption"], {})[row["network"]] = row["accuracy"]
    return found


def test_networks_are_compared_at_the_severities_that_all_of_them_have():
    shares = {1: 0.9, 2: 0.8, 3: 0.7, 4: 0.6, 5: 0.5}
    of = [built.network(label=label) for label in "abc"]
    all_five = [built.accuracy(built.corrupted("fog", s), v, of=of[0]) for s, v in shares.items()]
    third = built.accuracy(built.corrupted("fog", 3), 0.65, of=of[1])
    chart = charts.corruptions(built.runs_of(all_five, [third]), ("fog",))
    (found,) = dots(chart).values()
    assert found == {"a": all_five[2].value(), "b": third.value()}
    small = [row["accuracy"] for row in chart.layer[2].data.values]
    assert small == [each.value() for each in all_five]
    # Without a common severity there is no dot for all of them.
    fifth = built.accuracy(built.corrupted("fog", 5), 0.4, of=of[2])
    chart = charts.corruptions(built.runs_of([third], [fifth]), ("fog",))
    assert dots(chart) == {}
    assert [row["accuracy"] for row in chart.layer[2].data.values] == [
        third.value(), fifth.value()
    ]  # fmt: skip


def test_published_corruptions_are_averaged_over_their_data_sets():
    """Each severity of a corruption is a data set of its own, and no set of other images."""
    made = [
        built.accuracy(
            built.corrupted("fog", s, form="published"), share,
            dataset=built.DATASET | {"name": "folder:fog", "split": str(s), "fingerprint": str(s)},
        )
        for s, share in ((1, 0.9), (3, 0.5))
    ]  # fmt: skip
    (found,) = dots(charts.corruptions(built.runs_of(made), ("fog",))).values()
    assert found == {"ResNet-18": pytest.approx(np.mean([each.value() for each in made]))}
    other = built.DATASET | {"name": "other", "fingerprint": "other"}
    apart = [
        built.accuracy(built.corrupted("fog", s), 0.5, dataset=of)
        for s, of in ((1, built.DATASET), (3, other))
    ]
    assert len(dots(charts.corruptions(built.runs_of(apart), ("fog",)))) == 2


def test_what_was_only_measured_by_votes_is_drawn_too():
    """A network without noise is under any decision. One with both has its own noise's."""
    vone = built.network("vone_resnet18")
    base = built.measure(corruptions=("fog",))
    voted = built.measure("vone_resnet18", corruptions=("fog",), decision="vote:8")
    both = [*voted, *built.measure(of=vone, corruptions=("fog",))]
    for shown, expected in (
        ([voted], [{"VOneResNet-18": voted[-1].value()}]),
        ([base, voted], [{"ResNet-18": base[-1].value(), "VOneResNet-18": voted[-1].value()}]),
        ([base, both], [{"ResNet-18": base[-1].value(), "VOneResNet-18": both[-1].value()}]),
    ):
        runs = built.runs_of(*shown)
        assert list(dots(charts.corruptions(runs, ("fog",))).values()) == expected
        labels = [run.label for run in runs]
        found = joined(charts.ladder(tables.accuracies(runs), labels, "linf"), "eps")
        assert sorted(line[0] for line in found) == sorted(labels)
        for (label, *_), points in found.items():
            own = next(each for each in shown if each[0].row["network"] == label)
            own = [r for r in own if r.row.get("decision") is None] or own
            attacks = [(r.row["eps"], r.value()) for r in own if r.row.get("norm") == "linf"]
            assert sorted(points) == [(0.0, own[0].value()), *attacks]


def test_corruptions_have_their_mean_and_each_severity_if_there_are_several(runs):
    members = ("fog", "gaussian_noise")
    rows = rows_of(charts.corruptions(runs, members))
    assert {row["corruption"] for row in rows} == {"fog", "gaussian noise"} and len(rows) == 4
    assert len(charts.corruptions(runs, members).layer) == 2
    assert charts.corruptions(runs, ("snow",)) is None
    made = [built.accuracy(built.corrupted("fog", s), share) for s, share in ((1, 0.9), (5, 0.2))]
    other = built.accuracy(built.corrupted("fog", 5, noise="none"), 0.99)
    tagged = built.accuracy(built.corrupted("fog", 5), 0.99, tag="b")
    chart = charts.corruptions(built.runs_of([*made, other, tagged]), ("fog",))
    (mean,), _, severities = (layer.data.values for layer in chart.layer)
    values = [result.value() for result in made]
    assert mean["accuracy"] == pytest.approx(np.mean(values))
    assert [row["accuracy"] for row in severities] == values


def test_histograms_have_the_shares_of_the_cells():
    arrays = built_runs.bank()
    rows = rows_of(layer_charts.bank_histogram(arrays, "sf"))
    shares = {(row["of"], row["low"]): row["share"] for row in rows}
    expected = np.histogram(arrays["sf"], arrays["published_sf_edges"])[0] / 8
    for low, share in zip(arrays["published_sf_edges"], expected, strict=False):
        assert shares["this bank", low] == share
    assert shares["macaque V1", 1.0] == pytest.approx(1 / 3)
    for parameter in ("theta", "nx", "ny"):
        assert sum(
            row["share"] for row in rows_of(layer_charts.bank_histogram(arrays, parameter))
        ) == (pytest.approx(1.0))


def test_tuning_curves_are_relative_to_their_largest_value():
    rng = np.random.default_rng(0)
    arrays = {
        "axis/orientation": np.arange(12) * 15.0, "curve/orientation": rng.random((12, 9)),
        "value/peak_sf": np.r_[np.nan, np.arange(1.0, 9.0)], "value/pref_or": np.zeros(9),
    }  # fmt: skip
    rows = rows_of(layer_charts.tuning(arrays, "orientation", [4]))
    curve = arrays["curve/orientation"][:, 4]
    np.testing.assert_allclose([row["response"] for row in rows], curve / curve.max(), atol=1e-4)
    shown = {row["unit"] for row in rows_of(layer_charts.tuning(arrays))}
    assert shown == {"unit 1", "unit 3", "unit 5", "unit 7"}
    with pytest.raises(ValueError, match="curve must be one of orientation, "):
        layer_charts.tuning(arrays, "colour")


def test_receptive_fields_are_drawn_at_their_positions():
    fields = np.zeros((21, 21, 3), np.float16)
    fields[2, 12, 1] = 1.0
    arrays = {"axis/position": np.arange(-2.5, 2.6, 0.25), "field/map": fields}
    spec = layer_charts.receptive_fields(arrays, [1]).to_dict()
    (rows,) = spec["datasets"].values()
    assert len(rows) == 441 and spec["spec"]["encoding"]["y"]["field"] == "y"
    (driven,) = [row for row in rows if row["response"] > 0]
    assert driven == {"unit": "unit 1", "x": 0.5, "y": -2.0, "response": 1.0}
    vl_convert.vegalite_to_svg(spec)


def test_neurons_without_a_prediction_are_not_drawn():
    chart = layer_charts.explained(
        np.array([[0.4, np.nan, 0.7], [0.6, np.nan, np.nan]]), np.array([[0.9, 0.9, 0.6]])
    )
    spec = chart.to_dict()
    drawn = [row for rows in spec["datasets"].values() for row in rows if "neuron" in row]
    assert drawn == [{"neuron": 0, "r": 0.5, "reliability": 0.9},
                     {"neuron": 2, "r": 0.7, "reliability": 0.6}]  # fmt: skip
    vl_convert.vegalite_to_svg(spec | {"width": 300})


def all_rows(chart):
    """The rows of all layers, in the order in which they are drawn."""
    data = getattr(chart, "data", None)
    own = data.values if isinstance(data, alt.InlineData) else []
    return [*own, *(row for layer in getattr(chart, "layer", ()) for row in all_rows(layer))]


def test_networks_are_drawn_beside_human_observers(tmp_path):
    runs = results.load([built.write(tmp_path, built_runs.psychophysics())])
    (chart,) = observer_charts.psychophysics(runs)
    # Published levels and those of the network on one axis, from the easiest.
    first = chart.to_dict()["layer"][0]
    assert first["encoding"]["x"]["sort"] == "1 0.5 0.3 0.15 0.1 0.05 0.03 0.02 0.01".split()
    observed = {row["level"]: row["accuracy"] for row in rows_of(chart)}
    assert observed["1"] == 0.856 and observed["0.01"] == 0.062 and len(observed) == 8
    assert {r["level"]: r["accuracy"] for r in all_rows(chart) if "low" in r} == {
        "1": 0.9, "0.1": 0.6, "0.02": 0.2,
    }  # fmt: skip
    channel = observer_charts.critical_bands(runs)
    observers = {row["frequency"]: row["sensitivity"] for row in rows_of(channel)}
    assert max(observers, key=observers.get) == pytest.approx(39.1, rel=0.05)
    own = [row for row in all_rows(channel) if "network" in row]
    assert [row["sensitivity"] for row in own[-4:]] == [0, 0.5, 1, 0.25]
    # Half of the height at half of the width from the centre.
    line = {row["frequency"]: row["sensitivity"] for row in own[:-4]}
    assert np.interp(12.0, list(line), list(line.values())) == pytest.approx(0.5, abs=0.02)
