"""Texture properties against closed forms and against formulas in loops."""

import numpy as np
import pytest

from vone_jax.neurophysiology import texture_properties as properties


def random_rates(seed=0, units=6):
    generator = np.random.default_rng(seed)
    return generator.gamma(2.0, 10.0, (15, 15, 2, units)), generator.gamma(1.0, 2.0, units)


def test_every_property_is_its_formula():
    rates, blank = random_rates()
    measured = properties.texture_properties(rates, blank)
    for unit in range(rates.shape[-1]):
        noise, texture = rates[:, :, 0, unit], rates[:, :, 1, unit]
        n, t = noise - blank[unit], texture - blank[unit]
        index = sum((t[f].mean() - n[f].mean()) / (t[f].mean() + n[f].mean()) for f in range(15))
        families = t.mean(axis=1)
        v = np.sqrt(texture / 10) + np.sqrt(texture / 10 + 1)
        within = sum((v[f, s] - v[f].mean()) ** 2 for f in range(15) for s in range(15)) / (15 * 14)
        between = 15 * sum((v[f].mean() - v.mean()) ** 2 for f in range(15)) / 14
        family = (between - within) / 15
        total = within + family
        expected = {
            "texture_modulation_index": index / 15,
            "abs_texture_modulation_index": abs(index / 15),
            "texture_selectivity": (1 - families.mean() ** 2 / (families**2).mean()) / (1 - 1 / 15),
            "texture_sparseness": (1 - t.mean() ** 2 / (t**2).mean()) / (1 - 1 / 225),
            "texture_variance_ratio": (family / total + 0.02) / (within / total + 0.02),
            "max_texture": t.max(),
            "max_noise": n.max(),
        }
        found = {name: values[unit] for name, values in measured.items()}
        assert found == pytest.approx(expected, rel=1e-10)


def test_modulation_index_changes_sign_with_the_roles_and_leaves_silent_families_out():
    texture = np.array([[30.0], [0.0], [10.0]])
    noise = np.array([[10.0], [0.0], [30.0]])
    # (30 - 10) / 40 and (10 - 30) / 40; the silent family counts for nothing.
    assert properties.texture_modulation_index(texture, noise) == pytest.approx(0.0)
    assert properties.texture_modulation_index(texture[:2], noise[:2]) == pytest.approx(0.5)
    assert properties.texture_modulation_index(noise[:2], texture[:2]) == pytest.approx(-0.5)
    assert np.isnan(properties.texture_modulation_index(texture[1:2], noise[1:2]))


@pytest.mark.parametrize("count", [2, 15, 225])
def test_sparseness_is_0_for_constant_and_1_for_one_response(count):
    constant, single = np.full((count, 1), 7.0), np.zeros((count, 1))
    single[count // 2] = 3.0
    assert properties.sparseness(constant) == pytest.approx(0.0, abs=1e-12)
    assert properties.sparseness(single) == pytest.approx(1.0)
    assert np.isnan(properties.sparseness(np.zeros((count, 1))))


def test_variance_ratio_limits():
    generator = np.random.default_rng(0)
    # Families differ, samples do not: 1.02 / 0.02.
    pure = np.broadcast_to(generator.gamma(2.0, 10.0, (15, 1, 1)), (15, 15, 1))
    assert properties.variance_ratio(pure) == pytest.approx(51.0, rel=1e-9)
    # Exactly equal family means: the family variance is estimated as -1/15 of the sample variance.
    same = np.broadcast_to(generator.gamma(2.0, 10.0, (1, 15, 1)), (15, 15, 1))
    expected = (-1 / 14 + 0.02) / (15 / 14 + 0.02)
    assert properties.variance_ratio(same) == pytest.approx(expected, rel=1e-9)
    assert expected == pytest.approx(-0.047, abs=5e-4)
    assert np.isnan(properties.variance_ratio(np.full((15, 15, 1), 11.3)))


def test_responsive_units_exceed_the_blank_by_more_than_5_spikes_per_second():
    rates = np.full((2, 2, 2, 3), 2.0)
    rates[1, 0, 1] = [7.0, 7.1, 2.0]
    rates[0, 1, 0, 2] = 9.0
    np.testing.assert_array_equal(
        properties.responsive(rates, np.full(3, 2.0)), [False, True, True]
    )


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, b: (r[:, :1], b), "at least 2 families, 2 samples"),
        (lambda r, b: (np.where(r == r.max(), -1.0, r), b), "rates must be >= 0"),
        (lambda r, b: (np.where(r == r.max(), np.nan, r), b), "rates must be finite"),
    ],
)
def test_bad_rates_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        properties.texture_properties(*change(*random_rates()))
