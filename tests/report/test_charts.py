"""Charts: their data are the results, and Vega-Lite accepts them."""

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
