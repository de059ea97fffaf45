"""The section on whether layers are like V1: scores, figures, and files that are not in order."""

import json

import numpy as np
import pytest
from page_reader import read
from report_runs import STRONG, edit, write_run

from vone_jax import report

EDGES = {"pref_or": [-22.5, 22.5, 67.5, 112.5, 157.5], "peak_sf": [0.5, 1.0, 2.0, 4.0, 8.0],
         "sf_selective": [0.0, 0.5, 1.0], "circular_variance": [0.0, 0.5, 1.0]}  # fmt: skip
LABELS = {
    "pref_or": "preferred orientation",
    "peak_sf": "preferred spatial frequency",
    "sf_selective": "spatial-frequency selective",
    "circular_variance": "circular variance",
    "max_noise": "largest response to noise",
}
UNITS = 30


def write_layer(run, layer, scores, *, simple_channels=None, **changes):
    """A layer with scores of three properties (a fourth has no reference, a fifth no images)."""
    clean = json.loads((run / "results" / "clean.json").read_text())
    kept = ("format", "run", "model", "config", "key", "checkpoint_step", "weights", "versions",
            "device", "command", "started", "wall_seconds")  # fmt: skip
    properties = {}
    for name, label in LABELS.items():
        entry = {"name": name, "label": label, "unit": "deg", "status": "needs data"}
        if name in EDGES:
            bins = len(EDGES[name]) - 1
            shares = np.arange(1, bins + 1) / sum(range(bins + 1))
            entry |= {"edges": EDGES[name], "distribution": shares.tolist(), "units": UNITS}
            if name in scores:
                entry |= {"status": "scored", "score": scores[name], "neurons": 100,
                          "reference_distribution": shares[::-1].tolist(),
                          "source": f"Study of {label} (1999)"}  # fmt: skip
        else:
            entry["status"] = "needs stimuli"
        properties[name] = entry
    record = {name: clean[name] for name in kept} | {
        "kind": "physiology",
        "name": f"physiology-{layer}",
        "condition": {"layer": layer, "trials": 1},
        "dataset": {"name": "gratings", "split": "MarquesEtAl2020", "examples": 9096},
        "protocol": {"noise": "none", "draws": 1},
        "status": "scored",
        "visual_degrees": 8.0,
        "image_size": 224,
        "trials": 1,
        "units": UNITS,
        "simple_channels": simple_channels,
        "properties": properties,
    }
    record |= changes
    rng = np.random.default_rng(0)
    arrays = {
        "axis/orientation": np.arange(12) * 15.0,
        "axis/spatial_frequency": 2.0 ** np.arange(-1, 4),
        "axis/radius": 2.0 ** np.arange(-3, 3),
        **{f"unit/{name}": rng.integers(0, 20, UNITS) for name in ("row", "col", "channel")},
        **{f"unit/field_{name}": 0.5 + 0.1 * rng.random(UNITS) for name in "xy"},
        **{f"curve/{name}": rng.random((steps, UNITS)) * 30
           for name, steps in (("orientation", 12), ("spatial_frequency", 5), ("size", 6))},
        "value/pref_or": rng.uniform(-22.5, 157.5, UNITS),
        "value/peak_sf": 2.0 ** rng.uniform(-1, 3, UNITS),
        "value/modulation_ratio": rng.uniform(0, 1.6, UNITS),
    }  # fmt: skip
    arrays["value/peak_sf"][:3] = np.nan
    path = run / "results" / f"physiology-{layer}.json"
    path.write_text(json.dumps(record))
    np.savez(path.with_suffix(".npz"), **arrays)
    return path


SCORES = {"pref_or": 0.9, "peak_sf": 0.8, "sf_selective": 0.4}


@pytest.fixture
def runs(tmp_path):
    base = write_run(tmp_path, "base", "resnet18", kinds=("clean",))
    vone = write_run(tmp_path, "vone", "vone_resnet18", kinds=("clean",), accuracy=STRONG)
    return [base, vone]


def page_of(runs):
    return read(report.write(runs, runs[0].parent / "r.html").read_text(encoding="utf-8"))


def test_layers_are_ranked_by_the_mean_of_their_scores(runs):
    base, vone = runs
    write_layer(base, "stem", {name: 0.2 for name in SCORES})
    write_layer(base, "layer1", {name: 0.5 for name in SCORES})
    # A score that only one layer has does not count in the mean, or layers would not compare.
    write_layer(vone, "v1", SCORES | {"circular_variance": 0.1}, simple_channels=10)
    page = page_of(runs)
    section = page.find(id="physiology")
    (table,) = section.all("table")
    head = [cell.text for cell in next(table.all("thead")).all("th")]
    assert head == ["Layer", "Mean", "Preferred orientation", "Preferred spatial frequency",
                    "Spatial-frequency selective"]  # fmt: skip
    rows = [row for row in table.all("tr") if list(row.all("td"))]
    names = [next(row.all("strong")).text for row in rows]
    assert names == ["v1", "layer1", "stem"]
    numbers = [[cell.text for cell in row.all("td")] for row in rows]
    assert numbers[0] == ["0.70", "0.90", "0.80", "0.40"]
    assert numbers[2] == ["0.20"] * 4
    for row in rows:
        link = next(row.all("a"))
        assert page.find(id=link.attributes["href"][1:])
    text = " ".join(section.text.split())
    assert "Most V1-like: v1 of VOneResNet-18, with a mean of 0.70 over 3 properties" in text
    assert "30 units, 224 px for 8°" in text


def test_figures_are_of_the_best_layer_of_each_network(runs):
    base, vone = runs
    write_layer(base, "stem", {name: 0.2 for name in SCORES})
    write_layer(base, "layer1", {name: 0.5 for name in SCORES})
    path = write_layer(vone, "v1", SCORES, simple_channels=10)
    section = page_of(runs).find(id="physiology")
    labels = [svg.attributes["aria-label"] for svg in section.all("svg")
              if "plot" in svg.attributes.get("class", "")]  # fmt: skip
    # Three histograms, and for either network three curves, F1/F0 and the fields.
    assert len(labels) == 3 + 2 * 5
    orientation = labels[0]
    assert "V1 neurons: -22.5 to 22.5: 40 %, 22.5 to 67.5: 30 %" in orientation
    assert "ResNet-18, layer1: -22.5 to 22.5: 10 %, 22.5 to 67.5: 20 %" in orientation
    assert "VOneResNet-18, v1" in orientation and "stem" not in orientation
    with np.load(path.with_suffix(".npz")) as arrays:
        ratio, simple = arrays["value/modulation_ratio"], arrays["unit/channel"] < 10
        middle = 100 * np.mean(simple & (ratio >= 0.6) & (ratio < 0.8))
        x = arrays["unit/field_x"].mean()
    (kinds,) = [label for label in labels if "simple cells" in label]
    assert f"0.6 to 0.8: {middle:.0f} %" in kinds.partition("simple cells")[2]
    assert any(label.startswith("Modulation ratio. all units") for label in labels)
    assert f"on average {x:.3f} degrees right of" in labels[-1]
    # Example units have a preferred frequency: the first three have none.
    curves = [label for label in labels if label.startswith("Response against")]
    assert len(curves) == 6 and all("unit 4 is largest at" in label for label in curves)


def test_what_is_missing_is_told_once(runs):
    for run in runs:
        write_layer(run, "stem", SCORES)
    section = page_of(runs).find(id="physiology")
    assert section.text.count("circular variance") == 1
    assert section.text.count("largest response to noise") == 1
    assert "--references" in section.text
    assert section.text.count("Study of preferred orientation (1999)") == 1


def test_layers_without_scores_say_why(runs):
    write_layer(runs[0], "stem", SCORES)
    path = write_layer(runs[0], "layer4", SCORES, status="not scored: the layer has 3 units")
    np.savez(path.with_suffix(".npz"))
    section = page_of(runs).find(id="physiology")
    assert "layer4 of ResNet-18 could not be scored: the layer has 3 units." in section.text
    (runs[0] / "results" / "physiology-stem.json").unlink()
    (runs[0] / "results" / "physiology-stem.npz").unlink()
    section = page_of(runs).find(id="physiology")
    assert "could not be scored" in section.text and not list(section.all("table"))


def test_gratings_are_no_data_set_that_accuracies_are_of(runs, tmp_path):
    before = page_of(runs)
    for run in runs:
        write_layer(run, "stem", SCORES)
    after = page_of(runs)
    for page in (before, after):
        assert "different datasets" not in page.text
        lead = next(p for p in page.all("p") if p.attributes.get("class") == "lead")
        assert "tested on shapes (test split)" in lead.text
    with pytest.raises(LookupError):
        before.find(id="physiology")
    assert after.find(href="#physiology").text == "Is it V1?"


def test_a_run_with_nothing_else_has_a_page(tmp_path):
    run = write_run(tmp_path, "only", "resnet18", kinds=("clean",))
    write_layer(run, "stem", SCORES)
    for suffix in (".json", ".npz"):
        (run / "results" / "clean").with_suffix(suffix).unlink()
    assert "Most V1-like: stem" in " ".join(page_of([run]).find(id="physiology").text.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"condition": {}}, "condition.layer is missing"),
        ({"units": 0}, "units must be an integer >= 1"),
        ({"properties": {}}, "properties must be an object with at least one"),
        ({"properties": {"pref_or": {"label": "a", "status": "good"}}}, "pref_or.status must be"),
        ({"units": UNITS + 1}, r"unit/row must be numbers of shape \(31,\)"),
    ],
)
def test_damaged_records_are_named(runs, changes, message):
    path = write_layer(runs[0], "stem", SCORES)
    edit(path, **changes)
    with pytest.raises(report.ReportError, match=message):
        page_of(runs)


def test_shares_must_fit_their_bins(runs):
    path = write_layer(runs[0], "stem", SCORES)
    properties = json.loads(path.read_text())["properties"]
    properties["peak_sf"]["distribution"] = [0.5, 0.5]
    edit(path, properties=properties)
    with pytest.raises(report.ReportError, match="peak_sf.distribution must be shares of the 4"):
        page_of(runs)


def test_lost_arrays_are_named(runs):
    path = write_layer(runs[0], "stem", SCORES)
    path.with_suffix(".npz").unlink()
    with pytest.raises(report.ReportError, match="the array unit/row is missing"):
        page_of(runs)


def add_experiments(path, *, spikes=True, c50=9.5):
    """Adds what a layer with noise has: responses in proportion to contrast, and trials."""
    rng = np.random.default_rng(1)
    mean = rng.uniform(0.5, 20, (4, 10))
    contrasts = np.array([0.05, 0.1, 0.2, 0.4, 0.8, 1.0])
    variability = {"trials": 100, "gratings": 4, "units": 10, "median_fano_factor": 2.86}
    with np.load(path.with_suffix(".npz")) as stored:
        arrays = dict(stored)
    arrays |= {
        "contrast/contrasts": contrasts,
        "contrast/curves": contrasts[:, None] * rng.uniform(1, 9, UNITS),
        "variability/mean": mean,
        "variability/variance": 2 * mean,
    }
    if spikes:
        variability |= {"median_fano_factor_spikes": 0.99, "least_mean_spikes": 2.0,
                        "units_above": 7}  # fmt: skip
        arrays |= {"variability/spike_mean": 0.5 * mean, "variability/spike_variance": 0.5 * mean}
    np.savez(path.with_suffix(".npz"), **arrays)
    contrast = {"median_c50": c50, "median_exponent": 1.05}
    edit(path, contrast_response=contrast, variability=variability)


def add_field_maps(path):
    """Every unit sees the middle 5 x 5 of 21 x 21 places."""
    with np.load(path.with_suffix(".npz")) as stored:
        arrays = dict(stored)
    maps = np.zeros((21, 21, UNITS), np.float16)
    maps[8:13, 8:13] = 1.0
    arrays |= {"axis/position": np.arange(-10, 11) * 0.25, "field/map": maps}
    np.savez(path.with_suffix(".npz"), **arrays)


def test_receptive_field_maps_of_example_units_are_shown(runs):
    path = write_layer(runs[1], "v1", SCORES)
    assert "Receptive-field maps" not in " ".join(drawn(page_of(runs).find(id="physiology")))
    add_field_maps(path)
    section = page_of(runs).find(id="physiology")
    (maps,) = [label for label in drawn(section) if label.startswith("Receptive-field maps")]
    # 25 places of a quarter of a degree.
    assert maps.count("covers 1.6") == 4 and "unit 4" in maps
    assert len(list(section.all("image"))) == 4
    with np.load(path.with_suffix(".npz")) as stored:
        arrays = dict(stored) | {"axis/position": np.arange(20.0)}
    np.savez(path.with_suffix(".npz"), **arrays)
    with pytest.raises(report.ReportError, match=r"field/map must be numbers of shape \(20, 20"):
        page_of(runs)


def test_textures_that_are_stand_ins_are_told_apart(runs):
    path = write_layer(runs[1], "v1", SCORES)
    textures = {"source": "proxy: crops of sand", "proxy": True, "families": ["sand"],
                "samples": 15, "units": 20, "medians": {"max_noise": 31.4}}  # fmt: skip
    edit(path, textures=textures)
    text = " ".join(page_of(runs).find(id="physiology").text.split())
    assert (
        "Textures, not scored (proxy: crops of sand): medians over 20 units: largest response "
        "to noise 31." in text
    )
    edit(path, textures=textures | {"proxy": False})
    assert "crops of sand" not in page_of(runs).find(id="physiology").text
    edit(path, textures=textures | {"medians": {"colour": 1.0}})
    with pytest.raises(report.ReportError, match="textures.medians must be"):
        page_of(runs)


def drawn(section):
    return [svg.attributes["aria-label"] for svg in section.all("svg")
            if "plot" in svg.attributes.get("class", "")]  # fmt: skip


def test_contrast_response_and_variability_are_shown(runs):
    base, vone = runs
    add_experiments(write_layer(base, "stem", SCORES), spikes=False, c50=0.25)
    add_experiments(write_layer(vone, "v1", SCORES))
    section = page_of(runs).find(id="physiology")
    labels, text = drawn(section), " ".join(section.text.split())
    contrast = [label for label in labels if "against contrast" in label]
    assert len(contrast) == 2 and "5 %: 0.05, 10 %: 0.10" in contrast[0]
    (responses,) = [label for label in labels if "mean of responses" in label]
    (spikes,) = [label for label in labels if "mean of spikes" in label]
    assert "40 pairs" in spikes and "ratio is 1.00" in spikes and "ratio is 2.00" in responses
    assert "The median unit is half saturated at 25.0" in text
    assert "not half saturated at full contrast; its exponent is 1.05" in text
    assert "7 units of 10 reach a mean of 2 spikes" in text
    assert "0.99 in spikes and 2.86 in units of the response" in text
    assert "ratio of 2.86, but these are responses and not counts" in text


def test_results_without_experiments_have_no_room_for_them(runs):
    write_layer(runs[1], "v1", SCORES)
    section = page_of(runs).find(id="physiology")
    assert len(drawn(section)) == 3 + 5
    assert "Contrast response" not in section.text and "variability" not in section.text


def test_units_that_are_too_weak_have_no_fano_factor(runs):
    path = write_layer(runs[1], "v1", SCORES)
    add_experiments(path)
    found = json.loads(path.read_text())["variability"]
    nothing = {"median_fano_factor_spikes": None, "median_fano_factor": None, "units_above": 0}
    edit(path, variability=found | nothing)
    assert "No unit reaches a mean of 2 spikes" in page_of(runs).find(id="physiology").text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contrast_response": {"median_c50": "a"}}, "contrast_response.median_c50 must be"),
        ({"variability": {"trials": 1}}, "variability.trials must be an integer >= 2"),
        ({"variability": {"trials": 9, "gratings": 4, "units": 3, "median_fano_factor": 1.0}},
         r"variability/mean must be numbers of shape \(4, 3\)"),
    ],
)  # fmt: skip
def test_damaged_experiments_are_named(runs, changes, message):
    path = write_layer(runs[1], "v1", SCORES)
    add_experiments(path)
    edit(path, **changes)
    with pytest.raises(report.ReportError, match=message):
        page_of(runs)
