"""The section on layers as models of V1: scores and figures."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.report.layers import LABELS, SCORES, UNITS, experiments, layer, property_score
from tests.report.page_reader import rendered, specs
from tests.results import built
from tests.results.built import STRONG, WEAK
from vone_jax import results
from vone_jax.neurophysiology.recording import MEDIAN_MAX
from vone_jax.report import physiology, tuning

WEAKER = dict.fromkeys(SCORES, 0.2)
BASE, VONE = built.network(), built.network("vone_resnet18")


def page_of(*layers_of_networks):
    """The page of a network and its VOneNet with some layers."""
    runs = [
        built.run(built.measure(of.name, shares) + list(layers), of.name)
        for of, shares, layers in zip(
            (BASE, VONE), (WEAK, STRONG), layers_of_networks, strict=False
        )
    ]
    return rendered(runs)


def section_of(*layers_of_networks):
    return page_of(*layers_of_networks).find(id="physiology")


def described(section):
    """The descriptions of all charts."""
    return [plot.attributes["aria-label"] for plot in section.of_class("plot")]


@pytest.mark.slow
def test_layers_are_ranked_by_the_mean_of_their_scores():
    weak = [layer(BASE, "stem", dict.fromkeys(SCORES, 0.2)),
            layer(BASE, "layer1", dict.fromkeys(SCORES, 0.5))]  # fmt: skip
    # A score that only one layer has does not count in the mean, or layers would not compare.
    best = layer(VONE, "v1", SCORES | {"circular_variance": 0.1}, simple_channels=10)
    page = page_of(weak, [best])
    section = page.find(id="physiology")
    (table,) = section.all("table")
    assert [cell.text for cell in next(table.all("thead")).all("th")] == [
        *("Layer", "Mean", "Preferred orientation", "Preferred spatial frequency"),
        "Spatial-frequency selective",
    ]
    rows = [row for row in table.all("tr") if list(row.all("td"))]
    assert [next(row.all("strong")).text for row in rows] == ["v1", "layer1", "stem"]
    numbers = [[cell.text for cell in row.all("td")] for row in rows]
    assert numbers[0] == ["0.70", "0.90", "0.80", "0.40"] and numbers[2] == ["0.20"] * 4
    for row in rows:
        assert page.find(id=next(row.all("a")).attributes["href"][1:])
    text = section.words
    assert "Most V1-like: v1 of VOneResNet-18, with a mean of 0.70 over 3 properties" in text
    assert "120 units, 224 px for 8°" in text


def test_scores_against_different_neurons_do_not_compare():
    """A property that was scored against another table is left out, and the page says so."""
    properties = {each: property_score(each, SCORES.get(each)) for each in LABELS}
    properties["peak_sf"] = replace(properties["peak_sf"], neurons=99)
    page = page_of([layer(BASE, "stem")], [layer(VONE, "v1", properties=properties)])
    (table,) = page.find(id="physiology").all("table")
    titles = [cell.text for cell in next(table.all("thead")).all("th")]
    assert titles[2:] == ["Preferred orientation", "Spatial-frequency selective"]
    told = "different tables of neurons, .* Left out: Preferred spatial frequency. Evaluate all"
    assert re.search(told, page.words)


def test_layers_of_few_units_do_not_lead():
    """A mean over a few units is high or low by chance."""
    few = layer(BASE, "layer4", dict.fromkeys(SCORES, 0.9), units=99)
    section = section_of([layer(BASE, "stem", dict.fromkeys(SCORES, 0.2)), few], [])
    text = section.words
    assert "of the layers with at least 100 units behind each score: stem of ResNet-18" in text
    assert "It has few units" not in text
    cells = [row.words for row in section.all("tr")][1:]
    assert cells[0].startswith("stem") and "read with care" not in cells[0]
    assert cells[1].startswith("layer4") and "few units, read with care" in cells[1]
    assert "fewer than 100 units stand last" in text
    assert "Most V1-like: layer4" in (alone := section_of([few], []).words)
    assert "It has few units: read this with care." in alone


@pytest.mark.parametrize(
    ("rate", "told"), [(2 * MEDIAN_MAX - 0.1, False), (2 * MEDIAN_MAX + 0.1, True)]
)
def test_layers_without_sensible_rates_say_so_and_do_not_lead(rate, told):
    properties = {each: property_score(each, SCORES.get(each)) for each in LABELS}
    properties["max_dc"] = replace(properties["max_noise"], name="max_dc", median=rate)
    offset = layer(BASE, "stem", properties=properties)
    rows = [each.words for each in section_of([offset], [layer(VONE, "v1", WEAKER)]).all("tr")][1:]
    assert ["rates mean nothing" in row for row in rows] == ([False, True] if told else [False] * 2)
    assert rows[told].startswith("stem")


def test_layers_whose_noise_was_replaced_are_controls():
    quiet = replace(VONE, test_noise=None)
    control = layer(quiet, "v1", dict.fromkeys(SCORES, 0.9))
    control = replace(control, name="physiology-v1-test-none")
    own = layer(VONE, "v1", dict.fromkeys(SCORES, 0.5))
    section = section_of([], [control, own])
    text = section.words
    assert "Most V1-like: v1 of VOneResNet-18, with a mean of 0.50" in text
    assert "whose noise was replaced are controls" in text
    assert "VOneResNet-18, v1: units" in text and "v1, noise removed: units" not in text
    alone = section_of([], [control]).words
    assert "v1 of VOneResNet-18 (noise removed), with a mean of 0.90" in alone
    assert "VOneResNet-18, v1, noise removed: units" in alone


def test_results_of_one_layer_are_told_apart_by_their_names():
    again = replace(layer(BASE, "stem"), name="physiology-stem-again")
    rows = [row.words for row in section_of([layer(BASE, "stem"), again], []).all("tr")][1:]
    assert ["physiology-stem-again" in row for row in rows] == [False, True]
    assert "physiology-stem few" not in rows[0] and "physiology-stem" in rows[0]


def test_layers_without_a_shared_property_have_no_mean():
    section = section_of([layer(BASE, "stem", {"pref_or": 0.5})],
                         [layer(VONE, "v1", {"peak_sf": 0.5})])  # fmt: skip
    text = section.words
    assert "nan" not in text and "Most V1-like" not in text and "Mean" not in text
    assert "Distributions beside" not in text and "stem: units" in text
    assert "not compared and not in the mean" in text


def test_figures_are_of_the_best_layer_of_each_network():
    weak = [layer(BASE, "stem", dict.fromkeys(SCORES, 0.2)),
            layer(BASE, "layer1", dict.fromkeys(SCORES, 0.5))]  # fmt: skip
    best = layer(VONE, "v1", simple_channels=10)
    labels = described(section_of(weak, [best]))
    # Three histograms, and for either network three curves, F1/F0 and the fields.
    assert len(labels) == 3 + 2 * 5
    orientation = labels[0]
    assert "V1 neurons: -22.5 to 22.5: 40 %, 22.5 to 67.5: 30 %" in orientation
    assert "ResNet-18, layer1: -22.5 to 22.5: 10 %, 22.5 to 67.5: 20 %" in orientation
    assert "VOneResNet-18, v1" in orientation and "stem" not in orientation
    ratio, simple = best.arrays["value/modulation_ratio"], best.arrays["unit/channel"] < 10
    middle = 100 * np.mean(simple & (ratio >= 0.6) & (ratio < 0.8))
    (kinds,) = [label for label in labels if "simple cells" in label]
    assert f"0.6 to 0.8: {middle:.0f} %" in kinds.partition("simple cells")[2]
    assert any(label.startswith("Modulation ratio. all units") for label in labels)
    x = best.arrays["unit/field_x"].mean()
    assert f"on average {x:.3f} degrees right of" in labels[-1]
    # Example units have a preferred frequency: the first three have none.
    curves = [label for label in labels if label.startswith("Response against")]
    assert len(curves) == 6 and all("unit 4 is largest at" in label for label in curves)


def test_every_row_of_a_histogram_says_of_what_it_is():
    """Also of layers with equal shares, which would be one data set."""
    tree = page_of([layer(BASE, "stem")], [layer(VONE, "v1")])
    spec = next(iter(specs(tree, tree.find(id="physiology")).values()))
    rows = [row for rows in spec["datasets"].values() for row in rows]
    counts = Counter(row["of"] for row in rows)
    # The outline of a histogram ends with its last share once more.
    bins = counts["V1 neurons"]
    assert counts == {
        "V1 neurons": bins,
        "ResNet-18, stem": bins + 1,
        "VOneResNet-18, v1": bins + 1,
    }


def test_scores_that_only_some_layers_have_are_told():
    more = SCORES | {"circular_variance": 0.786}
    text = section_of([layer(BASE, "stem", more)], [layer(VONE, "v1")]).words
    assert "not in the mean: circular variance (ResNet-18, stem: 0.786)." in text
    assert "not in the mean" not in section_of([layer(BASE, "stem")], [layer(VONE, "v1")]).words


def test_what_is_missing_is_told_once():
    text = section_of([layer(BASE, "stem")], [layer(VONE, "stem")]).words
    assert text.count("circular variance") == text.count("largest response to noise") == 1
    assert "--references" in text and "--textures" in text
    assert text.count("Study of preferred orientation (1999)") == 1


def test_layers_without_scores_say_why():
    failed = layer(BASE, "layer4", status="not scored: the layer has 3 units")
    section = section_of([layer(BASE, "stem"), failed], [])
    assert "layer4 of ResNet-18 could not be scored: the layer has 3 units." in section.text
    section = section_of([failed], [])
    assert "could not be scored" in section.text and not list(section.all("table"))


def test_gratings_are_no_data_set_that_accuracies_are_of():
    before, after = page_of([], []), page_of([layer(BASE, "stem")], [layer(VONE, "stem")])
    for page in (before, after):
        assert "different data sets" not in page.text
        lead = page.of_class("lead")[0]
        assert "tested on shapes (test split)" in lead.text
    with pytest.raises(LookupError):
        before.find(id="physiology")
    assert after.find(href="#physiology").text == "Is it V1?"


def test_a_run_with_nothing_else_has_a_page():
    run = built.run([layer(BASE, "stem")])
    page = rendered([run])
    assert "Most V1-like: stem" in page.find(id="physiology").words
    assert "tested on gratings" in page.text


def test_a_layer_without_its_arrays_keeps_its_scores():
    lost = built.change(layer(BASE, "stem"), arrays={})
    section = section_of([lost], [])
    assert "Most V1-like: stem" in section.words and len(described(section)) == 3


def test_receptive_field_maps_of_example_units_are_shown():
    """Every unit responds at the middle 5 x 5 of 21 x 21 places, a quarter of a degree apart."""
    maps = np.zeros((21, 21, UNITS), np.float16)
    maps[10:15, 10:15] = 1.0
    arrays = {"axis/position": np.arange(-10, 11) * 0.25, "field/map": maps}
    section = section_of([layer(BASE, "stem")], [layer(VONE, "v1", arrays=arrays)])
    pictures = [e.attributes["alt"] for e in section.all("img")]
    assert len(pictures) == 4 and all("covers 1.6 square degrees" in text for text in pictures)
    assert pictures[3].startswith("Receptive-field map of unit 4, from -0.25 to 1.25 degrees")


@pytest.mark.slow
def test_textures_that_are_stand_ins_are_told_apart():
    def text(proxy, medians):
        textures = results.TextureMedians("proxy: sand", proxy, ("sand",), 15, 20, medians)
        return section_of([], [layer(VONE, "v1", textures=textures)]).words

    assert (
        "Textures, not scored (proxy: sand): medians over 20 units: largest response to noise 31."
        in text(True, {"max_noise": 31.4})
    )
    assert "proxy: sand" not in text(False, {"max_noise": 31.4})
    assert "No unit responds enough to the textures" in text(True, {"max_noise": None})


def test_contrast_response_and_variability_are_shown():
    base = layer(BASE, "stem", **experiments(spikes=False, c50=0.25))
    section = section_of([base], [layer(VONE, "v1", **experiments())])
    labels, text = described(section), section.words
    contrast = [label for label in labels if "against contrast" in label]
    assert len(contrast) == 2 and "5 %: 0.05, 10 %: 0.10" in contrast[0]
    surround = [label for label in labels if "degrees of the surround" in label]
    assert len(surround) == 2 and "0: 0.50, 30: 0.58, 60: 0.67, 90: 0.75" in surround[0]
    (responses,) = [label for label in labels if "mean of responses" in label]
    (spikes,) = [label for label in labels if "mean of spikes" in label]
    assert "40 pairs" in spikes and "ratio is 1.00" in spikes and "ratio is 2.00" in responses
    assert "The median unit is half saturated at 25.0" in text
    assert "not half saturated at full contrast; its exponent is 1.05" in text
    assert "7 units of 10 reach a mean of 2 spikes" in text
    assert "0.99 in spikes and 2.86 in units of the response" in text
    assert "ratio of 2.86, but these are responses and not counts" in text


def test_results_without_experiments_have_no_room_for_them():
    section = section_of([], [layer(VONE, "v1")])
    assert len(described(section)) == 3 + 5
    assert "Contrast response" not in section.text and "variability" not in section.text


def test_units_that_are_too_weak_have_no_fano_factor():
    nothing = experiments(median_fano_factor_spikes=None, median_fano_factor=None, units_above=0)
    text = section_of([], [layer(VONE, "v1", **nothing)]).words
    assert "No unit reaches a mean of 2 spikes" in text


def test_one_property_of_few_units_makes_a_layer_uncertain():
    properties = {each: property_score(each, SCORES.get(each), units=100) for each in LABELS}

    def few(**changed):
        made = layer(BASE, "stem", properties=properties | changed)
        (item,) = physiology.layers([built.run([made])])
        return item.few

    assert not few()
    assert few(peak_sf=replace(properties["peak_sf"], units=99))
    # Nothing is scored against neurons here.
    assert not few(max_noise=property_score("max_noise", None, units=1))


@pytest.mark.parametrize(
    "change",
    [
        {"neurons": 99},
        {"reference_undefined": 7},
        {"reference_distribution": (0.25, 0.25, 0.25, 0.25)},
    ],
)
def test_neurons_are_told_apart_by_their_number_and_their_values(change):
    properties = {each: property_score(each, SCORES.get(each)) for each in LABELS}
    other = properties | {"peak_sf": replace(properties["peak_sf"], **change)}
    made = [built.run([layer(BASE, "stem", properties=each)]) for each in (properties, other)]
    shared = physiology.shared_properties(physiology.layers(made))
    assert [name for name, _ in shared] == ["pref_or", "sf_selective"]


def test_sizes_are_diameters():
    arrays = {"axis/radius": np.array([0.25, 0.5, 1.0]), "curve/size": np.array([[1.0], [3], [2]])}
    figure = tuning.tuning_chart(arrays, "size", [0], 0)
    assert figure.description == "Response against diameter, degrees: unit 1 is largest at 1."


def test_strong_modulation_counts_in_the_last_bin_and_undefined_in_none():
    """Shares are of the units of both kinds."""
    ratio = np.array([0.1, 2.6, 1.9, np.nan])
    figure = tuning.modulation_chart(ratio, np.array([False, True, True, True]), 0)
    of_complex, of_simple = figure.description.split("simple cells: ")
    assert "0 to 0.2: 33 %" in of_complex and "1.8 to 2: 67 %" in of_simple


def test_examples_have_a_preferred_orientation_from_0_to_180_degrees():
    angles = np.full(UNITS, np.nan)
    angles[7:11] = -10.0
    run = built.run([layer(BASE, "stem", arrays={"value/pref_or": angles})])
    (figures,) = physiology.section([run])["units"]
    labels = [label for _, label in figures["examples"]]
    assert len(labels) > 1 and all(label.endswith(", 170°") for label in labels)


def test_the_mean_place_of_fields_is_told_by_axis():
    figure = tuning.field_chart(np.array([0.4, 0.5]), np.array([0.6, 0.7]), 0)
    assert "on average 0.450 degrees right of and 0.650 below fixation" in figure.description


def test_a_unit_that_does_not_respond_is_in_no_relative_curve():
    curves = np.array([[0.0, 0.0, 2.0], [0.0, 0.0, 4.0]])
    arrays = {"contrast/contrasts": np.array([0.5, 1.0]), "contrast/curves": curves}
    assert "50 %: 0.50, 100 %: 1.00." in tuning.contrast_chart(arrays, 0).description
    assert tuning.contrast_chart(arrays | {"contrast/curves": 0 * curves}, 0) is None


def test_pairs_without_variance_are_left_out_and_ratios_have_a_median():
    arrays = {
        "variability/mean": np.array([[1.0, 2.0], [8.0, 5.0]]),
        "variability/variance": np.array([[3.0, 2.0], [4.0, 0.0]]),
    }
    chart = tuning.variability_chart(arrays, False, 0)
    text = chart.description
    assert "of responses of 3 pairs" in text and "the median ratio is 1.00" in text
    # The points and the line of equality have the same axes.
    assert [set("xy") - set(layer["encoding"]) for layer in chart.spec["layer"]] == [set(), set()]
    arrays["variability/variance"][:] = 0
    assert tuning.variability_chart(arrays, False, 0) is None


def test_the_last_bin_with_units_is_shown():
    shares = [("stem", 0, (0.0, 0.0, 1.0, 0.0))]
    figure = tuning.property_chart((0.0, 1.0, 2.0, 3.0, 4.0), "deg", (0.0, 0.5, 0.5, 0.0), shares)
    neurons, stem = "1 to 2: 50 %, 2 to 3: 50 %", "1 to 2: 0 %, 2 to 3: 100 %"
    assert figure.description == f"V1 neurons: {neurons}. stem: {stem}."


def test_the_first_channels_are_simple_and_a_response_without_a_fit_is_not_shown():
    kinds = {
        "unit/channel": np.repeat([9, 10], UNITS // 2),
        "value/modulation_ratio": np.repeat([1.5, 0.1], UNITS // 2),
    }
    made = experiments(c50=None)
    made["arrays"] |= kinds
    run = built.run([layer(VONE, "v1", simple_channels=10, **made)])
    (figures,) = physiology.section([run])["units"]
    of_complex, of_simple = figures["modulation"].description.split("simple cells: ")
    assert "0 to 0.2: 50 %" in of_complex and "1.4 to 1.6: 50 %" in of_simple
    assert not figures["contrast"] and figures["surround"]
