"""The published distributions, and comparisons with those of a user."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from vone_jax import neurophysiology
from vone_jax.neurophysiology import PROPERTIES, PUBLISHED, compare
from vone_jax.neurophysiology.properties import references

# Sizes of the samples and medians within bins, of the cited papers.
SAMPLES = {
    "pref_or": 385,
    "peak_sf": 363,
    "sf_bandwidth": 87,
    "sf_selective": 87,
    "grating_summation_field": 190,
    "surround_diameter": 190,
    "surround_suppression_index": 190,
}
MEDIANS = {
    "peak_sf": 2.85,
    "sf_bandwidth": 46.1,
    "grating_summation_field": 0.78,
    "surround_diameter": 2.6,
    "surround_suppression_index": 0.33,
}


def test_a_table_of_too_few_values_is_refused():
    """Half of its populations would have no value, and the ceiling would be 0."""
    # Of 7.8 %: at most 10 % may have none, and half of that is room for the bootstrap.
    with pytest.raises(ValueError, match="max_dc.*got 2 values and 3 NaN"):
        references({"max_dc": np.array([10.0, 20.0, np.nan, np.nan, np.nan])})
    known = references({"max_dc": np.array([10.0, 20.0, 30.0, np.nan])})
    scores = compare(jax.random.key(0), {"max_dc": np.array([5.0, 20.0, 30.0])}, known, 50)
    assert np.isfinite(scores["max_dc"].score)


def test_the_samples_are_complete_and_seven():
    assert {name: r.neurons for name, r in PUBLISHED.items()} == SAMPLES
    for name, reference in PUBLISHED.items():
        assert len(reference.counts) == len(PROPERTIES[name].edges) - 1
        assert PROPERTIES[name].neurons == reference.neurons


def test_the_studies_without_counts_have_the_samples_of_brain_score():
    """The studies are Ringach, Shapley, Hawken 2002, and Freeman, Ziemba and others 2013."""
    samples = {p.benchmark.split("-")[0]: p.neurons for p in PROPERTIES.values()}
    assert (samples["Ringach2002"], samples["FreemanZiemba2013"]) == (304, 102)


def test_the_bins_span_what_rates_can_give():
    spans = {"or_bandwidth": (0, 90), "sf_bandwidth": (0, 100), "modulation_ratio": (0, 2)}
    spans |= dict.fromkeys(("opr_cv_diff", "texture_modulation_index"), (-1, 1))
    spans |= dict.fromkeys(("circular_variance", "orth_pref_ratio", "texture_selectivity"), (0, 1))
    spans |= dict.fromkeys(("texture_sparseness", "abs_texture_modulation_index"), (0, 1))
    for name, (least, most) in spans.items():
        edges = PROPERTIES[name].edges
        np.testing.assert_allclose(edges, np.linspace(least, most, len(edges)), atol=1e-9)


@pytest.mark.parametrize("name", MEDIANS)
def test_medians_within_bins_are_the_published_ones(name):
    edges, counts = PROPERTIES[name].edges, PUBLISHED[name].counts
    octaves = name in ("peak_sf", "grating_summation_field", "surround_diameter")
    scale = np.log2 if octaves else np.asarray
    cumulative = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    median = np.interp(0.5, cumulative, scale(edges))
    assert (2.0**median if octaves else median) == pytest.approx(MEDIANS[name], rel=0.02)


def test_78_percent_of_cells_are_suppressed():
    # Cavanaugh 2002: 148 of 190 cells by at least 10 %; the other 42 have no diameters.
    assert PUBLISHED["surround_diameter"].counts.sum() == 148


def test_there_are_22_properties_in_seven_groups():
    assert len(PROPERTIES) == 22 and len(neurophysiology.GROUPS) == 7
    assert [len(members) for members in neurophysiology.GROUPS.values()] == [7, 3, 4, 2, 1, 2, 3]
    for about in PROPERTIES.values():
        assert np.all(np.diff(about.edges) > 0)


def test_a_users_table_scores_what_needed_data():
    rng = np.random.default_rng(0)
    cells = np.where(rng.random(304) < 0.1, np.nan, rng.random(304))
    known = references({"circular_variance": cells})
    assert known["circular_variance"].undefined == np.isnan(cells).sum()
    # Units that are the cells: as similar as the ceiling, but for the bootstrap.
    score = compare(jax.random.key(0), {"circular_variance": cells}, known)["circular_variance"]
    assert score.status == "scored" and score.source == "user table"
    assert score.score == pytest.approx(1.0, abs=0.01)
    assert score.distribution == score.reference_distribution
    json.dumps(dataclasses.asdict(score), allow_nan=False)


def test_one_property_does_not_change_the_draws_of_another():
    values = {"peak_sf": np.linspace(1.0, 8.0, 30), "pref_or": np.linspace(-20.0, 150.0, 30)}
    both = compare(jax.random.key(0), values, bootstraps=20)
    alone = compare(jax.random.key(0), {"pref_or": values["pref_or"]}, bootstraps=20)
    assert both["pref_or"].score == alone["pref_or"].score


def test_no_unit_that_counts_scores_0():
    score = compare(jax.random.key(0), {"peak_sf": np.zeros(0)})["peak_sf"]
    assert score.score == 0.0 and score.units == 0 and score.median is None


def test_group_scores_are_means_of_complete_groups():
    values = {
        "peak_sf": np.linspace(1.0, 8.0, 30),
        "sf_bandwidth": np.linspace(20.0, 70.0, 30),
        "sf_selective": np.ones(30),
        "pref_or": np.zeros(30),
    }
    scores = compare(jax.random.key(0), values, bootstraps=20)
    groups = neurophysiology.group_scores(scores)
    members = [scores[name].score or 0 for name in ("peak_sf", "sf_bandwidth", "sf_selective")]
    assert min(members) > 0
    assert groups["spatial_frequency"] == pytest.approx(sum(members) / 3)
    assert groups["orientation"] is None


def test_infinite_values_of_neurons_and_units_are_refused():
    infinite = {"peak_sf": np.array([1.0, np.inf])}
    for refuse in (references, functools.partial(compare, jax.random.key(0))):
        with pytest.raises(ValueError, match="peak_sf"):
            refuse(infinite)
