"""Constants of V1 that are learned by gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from vone_jax import v1
from vone_jax.neurophysiology import cells as model
from vone_jax.neurophysiology import fit


@pytest.fixture(scope="module")
def cells() -> model.Cells:
    return model.Cells(100)


@pytest.fixture(scope="module")
def hard(cells):
    return {on: model.measure(model.Constants(), cells, on, soft=False) for on in (False, True)}


def test_orientation_tuning_is_that_of_the_sampled_kernels(cells):
    """Kernels of a fine grid and sums over pixels, in NumPy, without the closed form."""
    few = np.array([3, 40, 90, 130, 200, 250])
    pixels = 96.0
    bank = cells.start
    chosen = dataclasses.replace(
        bank,
        **{f.name: getattr(bank, f.name)[few] for f in dataclasses.fields(bank)},
    )
    kernels = v1.gabor_kernels(chosen, 385, pixels)
    found = model.curves(model.Constants(), cells, normalised=False)
    peak = np.asarray(model.measure(model.Constants(), cells, normalised=False)["peak_sf"])[few]
    offset = (np.arange(385) - 192) / pixels
    for n in range(len(few)):
        expected = []
        for turn in (0.0, 15.0, 30.0, 90.0):
            angle = np.deg2rad(chosen.theta[n] + turn)
            along = offset[:, None] * np.cos(angle) + offset * np.sin(angle)
            waves = np.exp(2j * np.pi * peak[n] * along)
            sums = [(kernel[n] * waves).sum() for kernel in kernels]
            phases = np.exp(1j * np.arange(8) * np.pi / 4)
            linear = [np.real(s * phases) for s in sums]
            simple = cells.simple[few[n]]
            r = np.maximum(linear[0], 0) if simple else np.hypot(*linear) / np.sqrt(2)
            # Complex cells average squares over positions, so over phases.
            expected.append(np.abs(sums[0]) if simple else np.sqrt(np.mean(r**2)))
        curve = np.asarray(found["orientation"])[[0, 3, 6, 18], few[n]]
        expected = np.array(expected) / expected[0]
        np.testing.assert_allclose(curve / curve[0], expected, atol=0.02)


def test_properties_of_the_published_bank_and_surround_are_the_known_ones(hard):
    """Medians of the block itself: docs/neurophysiology.md and docs/surround.md have them."""
    bare, around = hard[False], hard[True]
    assert np.nanmedian(bare["or_bandwidth"]) == pytest.approx(23, abs=2)
    assert np.median(bare["surround_suppression_index"]) == pytest.approx(0, abs=0.01)
    assert np.nanmedian(around["half_saturation"]) == pytest.approx(0.15, abs=0.02)
    assert np.median(around["orthogonal_mask"]) == pytest.approx(0.53, abs=0.05)


# The largest median distance of a cell that the docstring admits.
GAPS = {
    "or_bandwidth": 0.5, "peak_sf": 0.06, "surround_suppression_index": 0.005,
    "half_saturation": 0.005, "circular_variance": 0.001, "surround_diameter": 0.01,
    "orthogonal_mask": 1e-6,
}  # fmt: skip


def test_soft_measures_are_close_to_hard_ones(cells, hard):
    soft = model.measure(model.Constants(), cells)
    for name, gap in GAPS.items():
        apart = np.abs(np.asarray(soft[name]) - hard[True][name])
        assert np.nanmedian(apart) <= gap, (name, np.nanmedian(apart))


def test_a_distance_is_the_wasserstein_distance():
    generator = np.random.default_rng(0)
    values, others = generator.uniform(0.1, 0.9, (2, 64))
    name = "surround_suppression_index"
    reference = fit.Quantiles(np.sort(others), (np.arange(64) + 0.5) / 64)
    apart = fit.distance(name, jnp.asarray(values, jnp.float32), reference)
    assert float(apart) == pytest.approx(scipy.stats.wasserstein_distance(values, others), abs=1e-5)
    # Of a median alone, in octaves: twice the median is one octave away.
    one = fit.Quantiles(np.array([0.2]), np.array([0.5]))
    apart = fit.distance("half_saturation", jnp.full(9, 0.4, jnp.float32), one)
    assert float(apart) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.slow
def test_the_slope_of_the_loss_is_that_of_finite_differences():
    few = model.Cells(3, 32)

    @jax.jit
    def value(form):
        return fit.loss(fit.bounded(form), few)

    # Away from the start, where a distance of medians has a corner.
    form = jax.tree.map(lambda x: x + 0.05, fit.free(model.Constants()))
    slope = jax.grad(value)(form)
    for name in ("frequency", "size_y", "c50", "own", "extent", "growth", "scatter"):
        up, down = (
            value(form._replace(**{name: getattr(form, name) + step})) for step in (2e-3, -2e-3)
        )
        expected = float(up - down) / 4e-3
        assert float(getattr(slope, name)) == pytest.approx(expected, abs=0.03), name


def test_a_form_and_its_constants_are_inverse():
    constants = model.Constants(c50=0.2, own=0.31, local=0.1, growth=0.4)
    np.testing.assert_allclose(fit.bounded(fit.free(constants)), constants, rtol=1e-4)


@pytest.mark.slow
def test_a_fit_lowers_the_loss_and_goes_on_bit_for_bit(tmp_path):
    few, path = model.Cells(0, 16), tmp_path / "fit.msgpack"

    def stop(step: int, value: float) -> None:
        raise KeyboardInterrupt

    with jax.numpy_dtype_promotion("standard"):  # Of Optax's Adam.
        whole, losses = fit.fit(few, steps=40)
        with pytest.raises(KeyboardInterrupt):
            fit.fit(few, steps=40, path=path, report=stop)
        again, rest = fit.fit(few, steps=40, path=path)
    with pytest.raises(ValueError, match="other arguments"):
        fit.fit(model.Cells(1, 16), steps=40, path=path)
    assert losses[-1] < 0.8 * losses[0]
    assert again == whole and np.array_equal(rest, losses)


def test_learned_constants_are_those_of_a_block():
    few = model.Cells(0, 16)
    constants = model.Constants(frequency=1.1, size_y=0.8, c50=0.2, own=0.49, local=0.019)
    config = v1.VOneBlockConfig(
        simple_channels=8, complex_channels=8, bank=constants.bank(few.start), noise=None,
        normalization=constants.surround(largest_extent=0.5),
    )  # fmt: skip
    assert config.gabor_parameters().ny == pytest.approx(0.8 * few.start.ny)
    assert config.normalization.c50 == pytest.approx(0.2)
    assert config.normalization.largest_extent == 0.5


def test_a_property_that_the_references_lack_is_named():
    references = {n: r for n, r in fit.REFERENCES.items() if n != "peak_sf"}
    with pytest.raises(ValueError, match="'peak_sf'"):
        fit.loss(model.Constants(), model.Cells(0, 8), references)


def test_a_shuffled_reference_has_the_sample_of_another_property_in_its_own_range():
    made = fit.shuffled()
    assert len(made["or_bandwidth"].values) == len(fit.REFERENCES["peak_sf"].values)
    assert len(made["peak_sf"].values) == 64 and len(made["half_saturation"].values) == 1
    assert 5.0 <= made["or_bandwidth"].values.min() <= made["or_bandwidth"].values.max() <= 90.0
    assert made["circular_variance"] is fit.REFERENCES["circular_variance"]
