"""Pictures of V1 and of recorded layers: their data are the measured ones, and Vega draws them."""

import numpy as np
import pytest

from tests.specs import rows_of
from vone_jax.neurophysiology import pictures
from vone_jax.results import Chart, Pictures

SIMPLE, SIDE = 6, 9


def bank(cells=10, colors=1):
    """The arrays of the suite "v1"."""
    rng = np.random.default_rng(0)
    edges = np.array([0.5, 1.0, 2.0, 4.0, 8.0])
    return {
        "kernels_in_phase": rng.standard_normal((cells, SIDE, SIDE)),
        "kernels_quadrature": rng.standard_normal((cells, SIDE, SIDE)),
        "sf": rng.uniform(0.5, 8, cells), "theta": rng.uniform(0, 180, cells),
        "nx": rng.uniform(0.1, 1, cells), "ny": rng.uniform(0.1, 1, cells),
        "channel": np.arange(cells) % 3, "image": rng.random((28, 28, colors)),
        "responses_clean": rng.random((14, 14, cells)),
        "responses_noisy": rng.random((14, 14, cells)),
        "simple_channels": np.int64(SIMPLE), "pixels_per_degree": np.float64(28),
        "published_sf_edges": edges, "published_sf_weights": np.array([1.0, 2.0, 2.0, 1.0]),
    }  # fmt: skip


def recorded(units=9):
    """The arrays of a scored layer; its first unit has no preferred frequency."""
    rng = np.random.default_rng(0)
    axes = {"orientation": np.arange(12) * 15.0, "spatial_frequency": 2.0 ** np.arange(-1, 4),
            "diameter": 2.0 ** np.arange(6), "position": np.arange(-2.5, 2.6, 0.25)}  # fmt: skip
    curves = {"orientation": 12, "spatial_frequency": 5, "size": 6}
    return {
        **{f"axis/{name}": axis for name, axis in axes.items()},
        **{f"curve/{name}": rng.random((count, units)) for name, count in curves.items()},
        "field/map": np.zeros((21, 21, units), np.float16),
        "value/peak_sf": np.r_[np.nan, np.arange(1.0, units)], "value/pref_or": np.zeros(units),
    }  # fmt: skip


def charts(arrays):
    _, views = pictures.bank(arrays)
    return [view.spec for view in views if isinstance(view, Chart)]


def test_histograms_have_the_shares_of_the_cells_beside_the_published_ones():
    arrays = bank()
    drawn = dict(zip(pictures.PARAMETERS, charts(arrays), strict=True))
    edges = arrays["published_sf_edges"]
    # A line goes on to the end of its last bin, in a row of its own.
    rows = [row for row in rows_of(drawn["sf"], "share") if row["low"] < row["high"]]
    shares = {(row["of"], row["low"]): row["share"] for row in rows}
    expected = np.histogram(arrays["sf"], edges)[0] / len(arrays["sf"])
    np.testing.assert_allclose([shares["this bank", low] for low in edges[:-1]], expected)
    np.testing.assert_allclose(
        [shares["macaque V1", low] for low in edges[:-1]], np.array([1, 2, 2, 1]) / 6
    )
    for name in ("theta", "nx", "ny"):
        assert sum(row["share"] for row in rows_of(drawn[name], "share")) == pytest.approx(1)


def test_a_histogram_ends_with_the_last_bin_that_has_a_unit():
    edges = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    spec = pictures.histogram(edges, {"neurons": [0, 0.5, 0, 0], "v1": [0, 0, 1.0, 0]}, "x")
    rows = rows_of(spec, "share")
    assert {row["low"] for row in rows if row["low"] < row["high"]} == {1.0, 2.0}


def test_tuning_curves_are_relative_to_their_largest_value():
    arrays = recorded()
    rows = rows_of(pictures.tuning(arrays, "orientation", [4]).to_dict(), "unit")
    curve = arrays["curve/orientation"][:, 4]
    assert [row["level"] for row in rows] == arrays["axis/orientation"].tolist()
    np.testing.assert_allclose([row["response"] for row in rows], curve / curve.max(), atol=1e-4)
    shown = {row["unit"] for row in rows_of(pictures.tuning(arrays, "size").to_dict(), "unit")}
    assert shown == {"unit 1", "unit 3", "unit 5", "unit 7"}
    with pytest.raises(ValueError, match="curve must be one of orientation, "):
        pictures.tuning(arrays, "colour")


def test_receptive_fields_are_drawn_at_their_positions():
    arrays = recorded(3)
    arrays["field/map"][2, 12, 1] = 1.0
    rows = rows_of(pictures.receptive_fields(arrays, [1]).to_dict(), "response")
    assert len(rows) == 441
    (driven,) = [row for row in rows if row["response"] > 0]
    assert driven == {"unit": "unit 1", "x": 0.5, "y": -2.0, "response": 1.0}
    assert len(pictures.of_units(arrays)) == 4


def test_neurons_without_a_prediction_are_not_drawn():
    spec = pictures.explained(
        np.array([[0.4, np.nan, 0.7], [0.6, np.nan, np.nan]]), np.array([[0.9, 0.9, 0.6]])
    )
    assert rows_of(spec, "neuron") == [
        {"neuron": 0, "r": 0.5, "reliability": 0.9},
        {"neuron": 2, "r": 0.7, "reliability": 0.6},
    ]
    bound = rows_of(spec, "bound")
    np.testing.assert_allclose(
        [row["bound"] ** 2 for row in bound], [row["at"] for row in bound], atol=1e-12
    )


def mosaic(arrays, name):
    stored, _ = pictures.bank(arrays)
    return np.rint(255 * stored[name][0])


def tile(canvas, row, column, zoom=6, gap=2):
    """A filter of a mosaic in its own pixels."""
    side = SIDE * zoom
    top, left = (gap + place * (side + gap) for place in (row, column))
    return canvas[top : top + side : zoom, left : left + side : zoom]


def grey(kernel):
    return np.rint(255 * (0.5 + 0.5 * kernel / np.abs(kernel).max()))


def test_kernels_stand_from_coarse_to_fine_and_by_orientation():
    arrays = bank(8 + SIMPLE)
    # Two rows of eight simple cells, and of four complex cells with two filters each.
    arrays["simple_channels"] = np.int64(10)
    arrays["sf"] = np.r_[np.arange(10, 0, -1.0), 1.0, 4.0, 3.0, 2.0]
    simple, complex_ = mosaic(arrays, "Simple cells"), mosaic(arrays, "Complex cells")
    coarse = np.arange(9, 1, -1)
    for column, cell in enumerate(coarse[np.argsort(arrays["theta"][coarse])]):
        shown = tile(simple, 0, column)[..., 0]
        np.testing.assert_allclose(shown, grey(arrays["kernels_in_phase"][cell]), atol=1)
    for column, cell in enumerate(10 + np.argsort(arrays["theta"][10:])):
        both = [arrays[name][cell] for name in ("kernels_in_phase", "kernels_quadrature")]
        for place, expected in enumerate(grey(np.array(both))):
            shown = tile(complex_, 0, 2 * column + place)[..., 0]
            np.testing.assert_allclose(shown, expected, atol=1)


def test_a_filter_of_a_coloured_image_has_the_colour_of_its_channel():
    arrays = bank(colors=3)
    # The last channel is of the network alone: a filter of it is grey.
    arrays["channel"] = np.r_[0, 1, 2, 3, np.zeros(6, int)]
    arrays["sf"], arrays["theta"] = np.arange(10.0), np.arange(10.0)
    canvas = mosaic(arrays, "Simple cells")
    for cell, channels in enumerate(([0], [1], [2], [0, 1, 2])):
        shown = tile(canvas, 0, cell)
        moved = [c for c in range(3) if np.ptp(shown[..., c]) > 0]
        assert moved == channels
        np.testing.assert_allclose(
            shown[..., channels[0]], grey(arrays["kernels_in_phase"][cell]), atol=1
        )


def test_both_maps_of_a_cell_share_one_scale_that_is_told_by_its_orientation():
    arrays = bank(cells=2)
    arrays["simple_channels"] = np.int64(2)
    arrays["sf"], arrays["theta"] = np.array([1.0, 2.0]), np.array([30.0, 120.0])
    clean = np.zeros((4, 4, 2))
    clean[0, 0], clean[1, 1] = 2.0, 1.0
    arrays["responses_clean"], arrays["responses_noisy"] = clean, 0.5 * clean
    stored, views = pictures.bank(arrays)
    view = views[-1]
    assert isinstance(view, Pictures)
    # A carrier at 30 degrees has bars at 60 degrees.
    assert view.captions == (
        "simple cell, 1.0 cycles/°, 60°", "simple cell, 2.0 cycles/°, 150°"
    )  # fmt: skip
    quiet, noisy = (stored[name][0] for name in view.arrays)
    # Half of the response has the colour of half of the scale, and none is black.
    np.testing.assert_array_equal(noisy[0, 0], quiet[1, 1])
    assert quiet[0, 0].sum() > noisy[0, 0].sum() > quiet[3, 3].sum() == pytest.approx(4 / 255)


def test_cells_shown_together_differ_in_orientation():
    arrays = bank(cells=8)
    arrays["simple_channels"] = np.int64(8)
    arrays["sf"] = np.arange(8.0)
    arrays["theta"] = np.array([10.0, 15.0, 12.0, 60.0, 14.0, 110.0, 178.0, 150.0])
    # Maps of even cells vary more.
    arrays["responses_clean"][..., ::2] *= 2
    _, views = pictures.bank(arrays)
    angles = [caption.split()[-1] for caption in views[-1].captions]
    assert angles == ["80°", "30°", "160°", "120°"]
