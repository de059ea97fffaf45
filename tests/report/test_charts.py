"""Charts: their data are the results, and Vega-Lite accepts them."""

import dataclasses

import altair as alt
import numpy as np
import pytest
import vl_convert

from tests.report import built_runs
from tests.results import built
from vone_jax import report, results
from vone_jax.report import charts, tables


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


def test_a_ladder_has_each_attack_at_each_radius_and_the_clean_images(runs):
    rows = rows_of(charts.ladder(tables.conditions(runs), runs, "linf"))
    for run in runs:
        attacked = {r.label: r.value() for r in run.of_type("Attacked") if "L∞" in r.label}
        own = [row for row in rows if row["network"] == run.label]
        pgd = {row["condition"]: row["accuracy"] for row in own if row["attack"] == "PGD"}
        assert pgd == attacked | {"clean": run.of_type("Clean")[0].value()}
        # The curve of the smallest changes is another line.
        assert [row["accuracy"] for row in own if row["condition"] == "accuracy at 4/255"] == [0.25]


def test_certified_accuracy_and_the_heat_map_are_drawn(tmp_path):
    vote, attacked, certified = (
        {"value": v, "low": v - 0.1, "high": v + 0.1} for v in (0.75, 0.6, 0.5)
    )
    measured = {
        "accuracy": vote,
        "certified accuracy at 0.15": certified | {"eps": 0.15},
        "accuracy under APGD at 0.15": attacked | {"eps": 0.15},
    }
    condition = {"type": "Certified", "norm": "l2", "radii": [0.15]}
    proof = built.result(condition, "certified-l2", measured)
    heat = built.result({"type": "FourierMap"}, "fourier-4", {"mean error": {"value": 0.25}})
    heat = dataclasses.replace(heat, details={"errors": np.eye(3).tolist()})
    made = [built.accuracy(built.CLEAN, 0.8, "clean"), proof, heat]
    path = built.write(tmp_path, made)
    runs = results.load([path])
    rows = rows_of(charts.ladder(tables.conditions(runs), runs, "l2"))
    assert [(row["eps"], row["accuracy"]) for row in rows if row["attack"] == proof.label] == [
        (0.0, 0.75), (0.15, 0.5)
    ]  # fmt: skip
    assert [row["accuracy"] for row in rows if row["attack"] != proof.label] == [0.75, 0.6]
    errors = {(row["down"], row["across"]): row["error"] for row in rows_of(charts.fourier(heat))}
    assert len(errors) == 9 and errors[0, 0] == errors[1, 1] == 1 and errors[0, 1] == 0
    page = report.write([path], tmp_path / "page.html").read_text()
    assert '<section id="fourier">' in page and '<section id="attacks">' in page


def test_the_overview_has_a_row_for_each_condition_and_the_mean_over_corruptions(runs):
    rows = rows_of(charts.overview(tables.conditions(runs), runs))
    own = {row["condition"]: row["accuracy"] for row in rows if row["network"] == "ResNet-18"}
    corrupted = [r.value() for r in runs[0].of_type("Corrupted")]
    assert own["mean over corruptions"] == pytest.approx(np.mean(corrupted))
    assert own["clean"] == runs[0].of_type("Clean")[0].value() and len(own) == 7


def test_corruptions_and_training(runs):
    rows = rows_of(charts.corruptions(tables.conditions(runs), runs))
    assert {row["corruption"] for row in rows} == {"fog", "gaussian noise"} and len(rows) == 4
    rows = rows_of(charts.training(runs, "loss"))
    assert {row["value"] for row in rows} == {line["loss"] for line in runs[0].log}
    assert charts.training(runs, "no such number") is None


def test_histograms_have_the_shares_of_the_cells():
    arrays = built_runs.bank()
    rows = rows_of(charts.bank_histogram(arrays, "sf"))
    shares = {(row["of"], row["low"]): row["share"] for row in rows}
    expected = np.histogram(arrays["sf"], arrays["published_sf_edges"])[0] / 8
    for low, share in zip(arrays["published_sf_edges"], expected, strict=False):
        assert shares["this bank", low] == share
    assert shares["macaque V1", 1.0] == pytest.approx(1 / 3)
    for parameter in ("theta", "nx", "ny"):
        assert sum(row["share"] for row in rows_of(charts.bank_histogram(arrays, parameter))) == (
            pytest.approx(1.0)
        )


def test_tuning_curves_are_relative_to_their_largest_value():
    rng = np.random.default_rng(0)
    arrays = {
        "axis/orientation": np.arange(12) * 15.0, "curve/orientation": rng.random((12, 9)),
        "value/peak_sf": np.r_[np.nan, np.arange(1.0, 9.0)], "value/pref_or": np.zeros(9),
    }  # fmt: skip
    rows = rows_of(charts.tuning(arrays, "orientation", [4]))
    curve = arrays["curve/orientation"][:, 4]
    np.testing.assert_allclose([row["response"] for row in rows], curve / curve.max(), atol=1e-4)
    shown = {row["unit"] for row in rows_of(charts.tuning(arrays))}
    assert shown == {"unit 1", "unit 3", "unit 5", "unit 7"}
    with pytest.raises(ValueError, match="curve must be one of orientation, "):
        charts.tuning(arrays, "colour")


def all_rows(chart):
    """The rows of all layers, in the order in which they are drawn."""
    data = getattr(chart, "data", None)
    own = data.values if isinstance(data, alt.InlineData) else []
    return [*own, *(row for layer in getattr(chart, "layer", ()) for row in all_rows(layer))]


def test_networks_are_drawn_beside_human_observers(tmp_path):
    runs = results.load([built.write(tmp_path, built_runs.psychophysics())])
    (chart,) = charts.psychophysics(runs)
    # Published levels and those of the network on one axis, from the easiest.
    first = chart.to_dict()["layer"][0]
    assert first["encoding"]["x"]["sort"] == "1 0.5 0.3 0.15 0.1 0.05 0.03 0.02 0.01".split()
    observed = {row["level"]: row["accuracy"] for row in rows_of(chart)}
    assert observed["1"] == 0.856 and observed["0.01"] == 0.062 and len(observed) == 8
    assert {r["level"]: r["accuracy"] for r in all_rows(chart) if "low" in r} == {
        "1": 0.9, "0.1": 0.6, "0.02": 0.2,
    }  # fmt: skip
    channel = charts.critical_bands(runs)
    observers = {row["frequency"]: row["sensitivity"] for row in rows_of(channel)}
    assert max(observers, key=observers.get) == pytest.approx(39.1, rel=0.05)
    own = [row for row in all_rows(channel) if "network" in row]
    assert [row["sensitivity"] for row in own[-4:]] == [0, 0.5, 1, 0.25]
    # Half of the height at half of the width from the centre.
    line = {row["frequency"]: row["sensitivity"] for row in own[:-4]}
    assert np.interp(12.0, list(line), list(line.values())) == pytest.approx(0.5, abs=0.02)
