"""The formulas of tuning properties, on curves with values in closed form or by hand."""

import numpy as np
import pytest

from vone_jax.neurophysiology import tuning
from vone_jax.neurophysiology.recording import fit_rate_map
from vone_jax.neurophysiology.stimuli import ORIENTATIONS, PHASES, RADII, SPATIAL_FREQUENCIES


def columns(*curves):
    return np.stack([np.asarray(c, float) for c in curves], axis=1)


def one_point(n=12, at=4):
    return np.eye(n)[at]


COSINE = 1 + np.cos(2 * np.deg2rad(ORIENTATIONS - 45))


def lobe(nx, ny):
    """Orientation curve of a Gabor with one spectral lobe, at its own frequency."""
    o = np.deg2rad(ORIENTATIONS - 90)
    return np.exp(-2 * np.pi**2 * (nx**2 * (np.cos(o) - 1) ** 2 + ny**2 * np.sin(o) ** 2))


class TestDrift:
    def test_f0_and_f1_of_a_sinusoid(self):
        wave = 3.0 + 2.0 * np.sin(np.deg2rad(PHASES) + 0.3)
        np.testing.assert_allclose(tuning.f0(wave[:, None]), 3.0)
        np.testing.assert_allclose(tuning.f1(wave[:, None]), 2.0)

    def test_f1_over_f0_of_a_half_rectified_sinusoid(self):
        # pi / 2 for many phases; with 8 phases between 1.531 and 1.657, by the phase offset.
        offsets = np.linspace(0, np.pi, 721)
        waves = np.maximum(np.sin(np.deg2rad(PHASES)[:, None] + offsets), 0.0)
        ratio = tuning.f1(waves) / tuning.f0(waves)
        assert ratio.min() == pytest.approx(1.531, abs=1e-3)
        assert ratio.max() == pytest.approx(1.657, abs=1e-3)

    def test_f1_of_an_energy_response_is_0(self):
        waves = np.abs(np.sin(np.deg2rad(PHASES)[:, None] + np.linspace(0, 3, 7)))
        np.testing.assert_allclose(tuning.f1(waves), 0.0, atol=1e-12)

    def test_the_first_best_condition_wins_and_curves_go_through_it(self):
        responses = np.zeros((2, 3, 4, 2))
        responses[1, 2, 3, 0] = 5.0
        responses[0, 1, 2, 1] = responses[1, 0, 0, 1] = 4.0
        best = tuning.best_condition(responses)
        assert [tuple(int(b[u]) for b in best) for u in range(2)] == [(1, 2, 3), (0, 1, 2)]
        curve = tuning.curve_along(responses, 1, best)
        np.testing.assert_array_equal(curve, [[0, 0], [0, 4], [5, 0]])


class TestOrientation:
    def test_a_flat_curve(self):
        flat = columns(np.ones(12))
        assert tuning.circular_variance(flat) == pytest.approx(1.0)
        assert tuning.orthogonal_ratio(flat) == 1.0
        assert np.isnan(tuning.half_bandwidth(flat))

    def test_a_silent_unit_has_no_tuning(self):
        silent = columns(np.zeros(12), one_point(at=4))
        for measure in (tuning.circular_variance, tuning.orthogonal_ratio, tuning.half_bandwidth):
            np.testing.assert_array_equal(np.isnan(measure(silent)), [True, False])
        rates = np.broadcast_to(silent[None, None, :, None], (1, 1, 12, 8, 2))
        found = tuning.orientation_properties(rates, np.zeros(2))
        np.testing.assert_array_equal(found["or_selective"], [0.0, 1.0])

    def test_a_single_point(self):
        curve = columns(one_point(at=4))
        assert tuning.circular_variance(curve) == pytest.approx(0.0)
        assert tuning.orthogonal_ratio(curve) == 0.0
        assert tuning.half_bandwidth(curve) == 10.0
        assert tuning.preferred_orientation(curve) == 60.0

    def test_a_cosine(self):
        curve = columns(COSINE)
        assert tuning.circular_variance(curve) == pytest.approx(0.5)
        assert tuning.orthogonal_ratio(curve) == pytest.approx(0.0)
        assert tuning.half_bandwidth(curve) == 34.0

    def test_half_bandwidths_of_gabors_on_the_grid(self):
        # For ny = nx; the continuous curves have 52, 38, 25, 15 and 12.7 degrees.
        curves = columns(*(lobe(n, n) for n in (0.15, 0.2, 0.3, 0.5, 0.6)))
        np.testing.assert_array_equal(tuning.half_bandwidth(curves), [54, 40, 28, 18, 16])

    def test_orthogonal_ratios_of_gabors(self):
        # exp(-2 pi^2 (nx^2 + ny^2)).
        curves = columns(lobe(0.2, 0.2), lobe(0.3, 0.3))
        np.testing.assert_allclose(tuning.orthogonal_ratio(curves), [0.206, 0.0286], rtol=2e-3)

    def test_preferences_from_157_degrees_on_are_negative(self):
        curves = columns(*(one_point(at=at) for at in (0, 10, 11)))
        np.testing.assert_array_equal(tuning.preferred_orientation(curves), [0, 150, -15])

    def test_preferences_lie_between_the_points(self):
        o0 = 52.0
        curve = columns(np.exp(2 * np.cos(2 * np.deg2rad(ORIENTATIONS - o0))))
        assert tuning.preferred_orientation(curve) == pytest.approx(o0, abs=1.0)

    def test_silent_units_are_undefined(self):
        zeros = columns(np.zeros(12))
        assert np.isnan(tuning.circular_variance(zeros))
        assert np.isnan(tuning.orthogonal_ratio(zeros))

    def test_all_properties_of_a_modulated_unit(self):
        # Rates (1 + sin phase) * cosine tuning at cycles 1 and frequency 2, half elsewhere.
        phases = 1 + np.sin(np.deg2rad(PHASES))
        rates = np.zeros((3, 4, 12, 8, 1)) + 0.5 * (COSINE[:, None] * phases)[..., None]
        rates[1, 2] *= 2
        found = tuning.orientation_properties(rates, np.array([0.3]))
        np.testing.assert_allclose(found["orientation_curve"][:, 0], COSINE)
        expected = {"max_dc": 2.0, "modulation_ratio": 1.0, "circular_variance": 0.5,
                    "or_bandwidth": 34.0, "or_selective": 1.0, "cv_bandwidth_ratio": 0.5 / 34,
                    "opr_cv_diff": -0.5, "pref_or": 45.0, "baseline": 0.3}  # fmt: skip
        for name, value in expected.items():
            assert found[name][0] == pytest.approx(value), name


class TestSpatialFrequency:
    @pytest.mark.parametrize("f0", [1.0, 2.5, 6.0])
    def test_the_peak_of_a_log_gaussian(self, f0):
        octaves = np.log2(SPATIAL_FREQUENCIES / f0)
        curve = columns(np.exp(-(octaves**2) / 2))
        found = tuning.peak_frequency(curve)
        # Half a step of the 100-point grid is 0.027 octaves.
        assert abs(np.log2(found[0] / f0)) < 0.03

    @pytest.mark.parametrize(("nx", "expected"), [(0.2, 20.3), (0.3, 38.7), (0.5, 58.1)])
    def test_the_bandwidth_of_a_gabor(self, nx, expected):
        # 100 (1 - d) / (1 + d) with d = sqrt(ln 2 / a) / (2 pi nx); smoothing and the grid
        # widen the curve.
        curve = columns(np.exp(-2 * np.pi**2 * nx**2 * (SPATIAL_FREQUENCIES / 3 - 1) ** 2))
        found = tuning.bandwidth_ratio(curve)[0]
        assert expected - 5 < found < expected
        # 100 points between the first and the last frequency; 100 % is a width of no step.
        step = np.log2(SPATIAL_FREQUENCIES[-1] / SPATIAL_FREQUENCIES[0]) / 99
        steps = np.log2(100 / found) / step
        assert steps == pytest.approx(round(steps), abs=1e-6)

    def test_low_pass_units_have_no_bandwidth(self):
        curves = columns(np.exp(-SPATIAL_FREQUENCIES), np.linspace(0, 1, 22))
        assert np.isnan(tuning.bandwidth_ratio(curves)).all()

    def test_a_peak_may_be_at_the_lowest_and_at_the_highest_frequency(self):
        curves = columns(np.exp(-SPATIAL_FREQUENCIES), np.linspace(0, 1, 22))
        ends = SPATIAL_FREQUENCIES[[0, -1]]
        np.testing.assert_allclose(tuning.peak_frequency(curves), ends, rtol=1e-12)

    def test_properties_use_the_better_of_f0_and_f1(self):
        # F0 peaks at 1.09 cycles per degree, F1 (higher) at 6.17; both are of one unit.
        steady = np.exp(-(np.log2(SPATIAL_FREQUENCIES / 1.091) ** 2))
        moving = np.exp(-(np.log2(SPATIAL_FREQUENCIES / 6.169) ** 2))
        wave = np.sin(np.deg2rad(PHASES))
        rates = 3 * steady[:, None] + 4 * moving[:, None] * wave
        rates = np.broadcast_to(rates[None, :, None, :, None], (2, 22, 6, 8, 1))
        found = tuning.spatial_frequency_properties(rates, np.zeros(1))
        assert found["peak_sf"][0] == pytest.approx(6.169, rel=0.02)
        np.testing.assert_allclose(found["spatial_frequency_curve"][:, 0], 3 * steady, atol=1e-12)
        assert found["sf_selective"][0] == 1.0


class TestSize:
    CURVE = np.array([1, 3, 6, 9.4, 9.6, 10, 8, 6, 5.2, 5, 5, 5.0])

    def test_by_hand(self):
        curve = columns(self.CURVE)
        assert tuning.suppression_index(curve) == pytest.approx(0.5)
        # 95 % of 10 is first reached by 9.6; 5 + 5 % by 5.2.
        assert tuning.summation_diameter(curve) == pytest.approx(2 * RADII[4])
        assert tuning.surround_diameter(curve) == pytest.approx(2 * RADII[8])
        # 5 % of the size of the last response, which is -2, are 0.1 above it.
        below = columns([0, 1, 2, 3, 4, 3, 2, 1, -1.8, -1.92, -1.95, -2])
        assert tuning.surround_diameter(below) == pytest.approx(2 * RADII[9])

    def test_diameters_are_defined_only_with_suppression(self):
        saturating = np.minimum(np.arange(12), 8) - 0.001 * np.arange(12)
        rates = np.stack([self.CURVE, saturating], axis=1)[:, None, None, None, :]
        rates = np.broadcast_to(rates, (12, 4, 6, 8, 2))
        found = tuning.size_properties(rates, np.zeros(2))
        assert found["surround_suppression_index"][1] < 0.1
        for name in ("grating_summation_field", "surround_diameter"):
            assert np.isfinite(found[name][0]) and np.isnan(found[name][1])

    def test_no_surround_if_the_largest_is_best(self):
        curve = columns(np.arange(12.0))
        assert tuning.suppression_index(curve) == 0.0
        assert np.isnan(tuning.surround_diameter(curve))


class TestRates:
    def test_medians_are_those_of_v1(self):
        rng = np.random.default_rng(0)
        blank = rng.random(101)
        largest = blank + 1 + rng.random(101)
        rates = fit_rate_map(largest, blank)
        assert np.median(rates(largest)) == pytest.approx(33.8)
        assert np.median(rates(blank)) == pytest.approx(0.82)
        assert rates(np.array([-100.0])) == 0.0

    def test_units_that_hardly_respond_do_not_count(self):
        # Threshold 5 / 243.1 = 2.06 % of the strongest unit.
        largest = np.array([100.0, 50.0, 2.1, 2.0])
        rates = fit_rate_map(largest, np.zeros(4))
        assert rates.slope == pytest.approx((33.8 - 0.82) / 50.0)
        assert rates.offset == pytest.approx(0.82)
        # Nor do their responses to grey.
        rates = fit_rate_map(largest + [1, 1, 9, 9], np.array([1.0, 1, 9, 9]))
        assert rates(np.array([1.0, 51.0])) == pytest.approx([0.82, 33.8])

    def test_layers_that_prefer_grey_are_refused(self):
        with pytest.raises(ValueError, match="above grey"):
            fit_rate_map(np.array([1.0, 0.0]), np.array([1.0, 2.0]))


@pytest.mark.parametrize("circular", [True, False])
def test_smoothing_keeps_constants_and_treats_the_ends(circular):
    np.testing.assert_allclose(tuning.smooth(np.ones((5, 1)), 0.4, circular), 1.0)
    edge = tuning.smooth(columns([1, 0, 0, 0, 0]), 0.4, circular)[:, 0]
    kernel = np.array([1.0, 0.4, 0, 0, 0.4]) if circular else np.array([1.4, 0.4, 0, 0, 0])
    np.testing.assert_allclose(edge, kernel / 1.8)


class TestBaseline:
    """A response to grey that is added to every response changes no property of F0 above grey."""

    def test_of_sizes(self):
        sizes = np.array([0.2, 0.5, 0.8, 1, 0.9, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6])
        rates = np.ones((12, 2, 3, 8, 1)) * sizes[:, None, None, None, None]
        plain = tuning.size_properties(rates, np.zeros(1))
        assert plain["surround_suppression_index"] == pytest.approx(0.4)
        raised = tuning.size_properties(rates + 7.0, np.full(1, 7.0))
        for name, values in plain.items():
            np.testing.assert_allclose(raised[name], values, atol=1e-12, err_msg=name)
