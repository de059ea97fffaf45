"""The whole characterisation of a VOneBlock."""

import dataclasses
import importlib
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.neurophysiology.conftest import BLOCK, block_responses, small_layer
from vone_jax import neurophysiology, v1
from vone_jax.neurophysiology import PROPERTIES, PUBLISHED, stimuli
from vone_jax.neurophysiology.score import Recorder


def test_seven_properties_are_scored_and_the_others_need_data(scores):
    assert list(scores) == list(PROPERTIES)
    assert {name for name in scores if scores[name].status == "scored"} == {*PUBLISHED}
    for score in scores.values():
        if score.status == "scored":
            assert 0 < score.similarity < 1 and 0.9 < score.ceiling < 1
            assert score.score == pytest.approx(score.similarity / score.ceiling)
            assert sum(score.distribution) == pytest.approx(1.0)
        else:
            assert score.status == "needs data" and score.units > 0


def test_rates_are_those_of_v1(scores):
    assert np.median(scores.per_unit["max_dc"]) == pytest.approx(33.8, rel=1e-3)
    assert scores["max_dc"].median == pytest.approx(33.8, rel=1e-3)
    assert np.median(scores.per_unit["baseline"]) == pytest.approx(0.82, rel=0.02)
    assert scores.trials == 1


def test_curves_agree_with_properties(scores):
    angles, curve = scores.curves["orientation"]
    np.testing.assert_array_equal(angles, stimuli.ORIENTATIONS)
    np.testing.assert_allclose(curve.max(axis=0)[scores.counted["max_dc"]],
                               scores.per_unit["max_dc"][scores.counted["max_dc"]])  # fmt: skip
    assert scores.curves["spatial_frequency"].values.shape[0] == 22
    # Sizes are diameters, as the properties that are made of them.
    diameters, curve = scores.curves["size"]
    first = diameters[(curve >= 0.95 * curve.max(axis=0)).argmax(axis=0)]
    summation = scores.per_unit["grating_summation_field"]
    defined = np.isfinite(summation)
    assert defined.any()
    np.testing.assert_array_equal(first[defined], summation[defined])


def test_properties_of_textures_are_measured(scores):
    values = scores.per_unit["texture_sparseness"]
    assert 0 < np.isfinite(values).sum() <= scores["texture_sparseness"].units


def test_units_that_do_not_count_have_no_value(scores):
    for name, mask in scores.counted.items():
        assert np.isnan(scores.per_unit[name][~mask]).all()
        if scores[name].units is not None:
            assert scores[name].units == mask.sum()


def test_units_count_from_5_spikes_above_grey_on_in_f0_or_in_f1():
    """One unit responds in its mean, one in its modulation, and one hardly."""

    class Given(Recorder):
        def __init__(self):
            self.site, self.blank = range(3), np.array([0.0, 40.0, 0.0])

        def record(self, gratings):
            wave = np.cos(2 * np.pi * np.arange(8) / 8)
            responses = np.stack([np.full(8, 100.0), 40 + 40 * wave, np.ones(8)], axis=-1)
            return np.broadcast_to(responses, (*gratings.shape, 3))

    _, counted, _, rate_map = Given().grating_properties()
    # The first unit alone fits the rates, with 33.8 spikes per second at its best.
    assert rate_map(np.array([0.0, 100.0])) == pytest.approx([0.82, 33.8])
    expected = {"f0": [True, False, False], "f0 or f1": [True, True, False]}
    for name, mask in counted.items():
        assert mask.tolist() == expected[PROPERTIES[name].driven]


def test_a_layer_without_noise_is_shown_each_grating_once(site, monkeypatch):
    module = importlib.import_module("vone_jax.neurophysiology.score")

    def record(response_fn, key, site, trials):
        raise InterruptedError(f"{trials} trials")

    found = site, np.ones((21, 21, len(site)), np.float32)
    monkeypatch.setattr(module, "find_units", lambda *_: found)
    monkeypatch.setattr(module, "Recorder", record)
    with pytest.raises(InterruptedError, match="^1 trials"):
        neurophysiology.score(small_layer, 8.0, 64, 1, trials=20)


def test_the_summary_is_json_and_the_arrays_are_a_file(scores):
    summary = json.loads(json.dumps(scores.summary(), allow_nan=False))
    assert summary["units"] == len(scores.units["row"])
    peak = summary["properties"]["peak_sf"]
    assert peak["benchmark"] == "Marques2020_DeValois1982-peak_sf"
    assert len(peak["distribution"]) == len(peak["reference_distribution"]) == 12
    assert len(peak["edges"]) == 13
    file = io.BytesIO()
    np.savez(file, **scores.arrays())
    file.seek(0)
    with np.load(file) as arrays:
        np.testing.assert_array_equal(arrays["value/peak_sf"], scores.per_unit["peak_sf"])
        assert arrays["curve/orientation"].shape == (12, len(arrays["unit/channel"]))


def test_receptive_field_maps_are_kept_and_lie_around_the_unit(scores):
    arrays = scores.arrays()
    stored, places = arrays["field/map"], arrays["axis/position"]
    assert stored.shape == (21, 21, len(scores.units["channel"]))
    np.testing.assert_array_equal(stored.max(axis=(0, 1)), 1.0)
    weights = np.where(stored > 0.05, stored.astype(np.float64), 0.0)
    right = np.einsum("yxu,x->u", weights, places) / weights.sum(axis=(0, 1))
    # Half precision; a place at the threshold may fall on the other side of it.
    np.testing.assert_allclose(right, scores.units["field_x"], atol=0.02)
    # A kernel of 25 pixels reaches 0.45 degrees, the grating 0.17 more.
    far = np.abs(places - 0.5) > 0.45 + 0.17 + 0.15
    # Rows of an image go through a transform, so what a unit does not see leaves rounding.
    assert stored[far].max() < 1e-6 and stored[:, far].max() < 1e-6


def test_the_table_has_the_scores_and_their_mean(scores):
    seven = [scores[name].score for name in PUBLISHED]
    assert scores.mean_score == pytest.approx(np.mean(seven))
    table = str(scores)
    assert "needs data" in table
    assert f"{scores['peak_sf'].score:.3f}" in table
    assert table.splitlines()[-1].split()[-1] == f"{scores.mean_score:.3f}"


@pytest.mark.slow
def test_a_noisy_block_is_recorded_in_trials():
    noisy = dataclasses.replace(BLOCK, noise=v1.NeuronalNoise())
    block = v1.VOneBlock(noisy)

    def layer(key, images):
        return jnp.asarray(block.apply({}, images, noise_key=key))

    found = neurophysiology.score(
        layer, 8.0, 224, 1, jax.random.key(1), selection_response_fn=block_responses, trials=3
    )
    assert found.trials == 3
    # Noise lifts the responses to grey of the output rectifier, so complex cells are modulated.
    channel = found.units["channel"]
    assert np.median(found.per_unit["modulation_ratio"][channel >= 24]) > 0.02


@pytest.fixture(scope="module")
def published():
    config = v1.VOneBlockConfig(noise=None)
    return neurophysiology.score(lambda key, images: v1.noise_free_responses(config, images))


@pytest.mark.slow
class TestThePublishedBlock:
    """The noise-free block of the published VOneNets; values measured with another program."""

    # Similarity relative to the ceiling.
    SCORES = {
        "pref_or": 0.990,
        "peak_sf": 0.953,
        "sf_selective": 0.969,
        "sf_bandwidth": 0.926,
        "surround_suppression_index": 0.375,
        "grating_summation_field": 0.645,
        "surround_diameter": 0.387,
    }
    # 5, 25, 50, 75 and 95 percent.
    QUANTILES = {
        "max_dc": (19.1, 27.1, 33.8, 57.9, 69.7),
        "circular_variance": (0.196, 0.284, 0.376, 0.618, 0.817),
        "or_bandwidth": (14, 16.5, 23, 35, 52),
        "orth_pref_ratio": (0.016, 0.028, 0.045, 0.130, 0.458),
        "sf_bandwidth": (22.9, 33.2, 42.9, 51.6, 64.3),
        "cv_bandwidth_ratio": (0.012, 0.015, 0.016, 0.017, 0.023),
        "opr_cv_diff": (-0.493, -0.409, -0.317, -0.235, -0.174),
        "surround_suppression_index": (0, 0, 0, 0, 0.035),
    }
    FRACTIONS = {
        "pref_or": (0.301, 0.218, 0.266, 0.215),
        "peak_sf": (
            0.015, 0.011, 0.031, 0.067, 0.177, 0.230, 0.204, 0.184, 0.080, 0.0, 0.0, 0.0,
        ),
        "sf_bandwidth": (0.002, 0.032, 0.142, 0.259, 0.270, 0.204, 0.091, 0.0, 0.0, 0.0),
        "surround_suppression_index": (
            0.988, 0.007, 0.001, 0.002, 0.002, 0.0, 0.0, 0.0, 0.0, 0.0,
        ),
        "grating_summation_field": (0.0, 0.0, 0.36, 0.64, 0.0, 0.0, 0.0, 0.0),
        "surround_diameter": (0.0, 0.0, 0.0, 0.20, 0.80, 0.0, 0.0, 0.0),
    }  # fmt: skip

    @pytest.mark.parametrize("name", SCORES)
    def test_scores(self, published, name):
        assert published[name].score == pytest.approx(self.SCORES[name], abs=0.02)

    def test_units(self, published):
        simple = published.units["channel"] < 256
        near = np.isin(published.units["row"], [31, 32]) & np.isin(published.units["col"], [31, 32])
        assert (len(simple), simple.sum(), near.sum()) == (1967, 951, 1960)
        assert published.rate_map.slope == pytest.approx(8.190, rel=1e-3)
        assert published.rate_map.offset == pytest.approx(0.8100, abs=1e-3)
        assert all(mask.all() for mask in published.counted.values())

    @pytest.mark.parametrize("name", QUANTILES)
    def test_quantiles(self, published, name):
        values = published.per_unit[name]
        found = np.nanquantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
        np.testing.assert_allclose(found, self.QUANTILES[name], rtol=0.03, atol=0.002)

    @pytest.mark.parametrize("name", FRACTIONS)
    def test_distributions(self, published, name):
        np.testing.assert_allclose(published[name].distribution, self.FRACTIONS[name], atol=0.011)

    def test_modulation_and_selectivity(self, published):
        simple = published.units["channel"] < 256
        ratio = published.per_unit["modulation_ratio"]
        quantiles = np.quantile(ratio[simple], [0.05, 0.25, 0.5, 0.75, 0.95])
        np.testing.assert_allclose(quantiles, [1.47, 1.49, 1.50, 1.53, 1.58], atol=0.01)
        # What is left comes from rounding images to 8 bits.
        assert ratio[~simple].max() < 0.008
        assert published.per_unit["or_selective"].mean() == pytest.approx(0.985, abs=0.002)
        assert published.per_unit["sf_selective"].mean() == pytest.approx(0.894, abs=0.004)


@pytest.mark.slow
def test_the_published_block_at_7_degrees():
    # Kernels of 31 pixels at 32 pixels per degree; values measured with another program.
    config = v1.VOneBlockConfig(noise=None, visual_degrees=7.0, kernel_size=31)
    found = neurophysiology.score(
        lambda key, images: v1.noise_free_responses(config, images), visual_degrees=7.0
    )
    assert len(found.units["channel"]) == 2504
    assert np.sum(found.units["channel"] < 256) == 1224
    expected = {
        "pref_or": 0.991,
        "peak_sf": 0.952,
        "sf_selective": 0.982,
        "sf_bandwidth": 0.936,
        "surround_suppression_index": 0.377,
        "grating_summation_field": 0.636,
        "surround_diameter": 0.388,
    }
    for name, value in expected.items():
        assert found[name].score == pytest.approx(value, abs=0.02), name
