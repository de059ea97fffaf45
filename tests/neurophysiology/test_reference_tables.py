"""Reading and refusing tables and recordings of users."""

import numpy as np
import pytest

from vone_jax.neurophysiology import reference_tables
from vone_jax.neurophysiology.explained_variance import load_recordings
from vone_jax.neurophysiology.properties import PROPERTIES

CELLS = 30


def ringach(cells=CELLS):
    generator = np.random.default_rng(0)
    bandwidth = generator.uniform(5, 60, cells)
    bandwidth[::5] = np.nan
    return {
        "circular_variance": generator.uniform(0, 1, cells),
        "or_bandwidth": bandwidth,
        "max_dc": generator.uniform(5, 240, cells),
    }


def write_csv(path, columns, header=None):
    header = list(columns) if header is None else header
    rows = zip(*columns.values(), strict=True)
    lines = [",".join("" if np.isnan(v) else repr(float(v)) for v in row) for row in rows]
    path.write_text("\n".join([",".join(header), *lines]) + "\n")
    return path


@pytest.fixture(params=["scipy", "h5netcdf"])
def engine(request):
    """A writer of NetCDF 3, or of NetCDF 4."""
    pytest.importorskip("xarray", reason="xarray is not installed (extra: neural)")
    pytest.importorskip(request.param, reason="h5netcdf is not installed (extra: neural)")
    return request.param


def write_netcdf(path, names, table, engine, transposed=False, **encoding):
    """A table as Brain-Score stores it."""
    import xarray

    dims = ("neuroid", "neuronal_property")
    data = xarray.DataArray(table, dims=dims, coords={"neuronal_property": names}, name="table")
    data.attrs["number_of_trials"] = 20
    data = data.transpose() if transposed else data
    data.to_dataset().to_netcdf(path, engine=engine, encoding={"table": encoding})
    return path


def test_every_property_has_a_range_that_holds_its_bins():
    assert set(reference_tables.RANGES) == set(PROPERTIES)
    for name, (low, high) in reference_tables.RANGES.items():
        edges = PROPERTIES[name].edges
        assert low <= edges[0] and edges[-1] <= high, name


def test_csv(tmp_path):
    columns = ringach()
    path = write_csv(tmp_path / "ringach.csv", columns)
    table = reference_tables.load(path)
    assert list(table) == list(columns)
    for name, values in columns.items():
        np.testing.assert_array_equal(table[name], values)


def test_names_with_the_study_stored_names_and_a_column_of_cells(tmp_path):
    header = ["Ringach2002-circular_variance", "bandwidth", "Marques2020_Ringach2002-max_dc"]
    path = write_csv(tmp_path / "a.csv", ringach(), header)
    lines = path.read_text().splitlines()
    named = ["cell," + lines[0], *(f"k{i}," + line for i, line in enumerate(lines[1:]))]
    # Excel's byte-order mark and line ends.
    path.write_bytes(("\ufeff" + "\r\n".join(named) + "\r\n\r\n").encode())
    table = reference_tables.load(path)
    assert list(table) == list(ringach())
    np.testing.assert_array_equal(table["max_dc"], ringach()["max_dc"])


@pytest.mark.extras
@pytest.mark.parametrize("transposed", [False, True])
def test_netcdf_as_brain_score_stores_it(tmp_path, engine, transposed):
    columns = ringach()
    names = ["circular_variance", "baseline", "bandwidth", "max_dc"]
    table = np.stack(
        [columns["circular_variance"], np.full(CELLS, 0.8), *list(columns.values())[1:]], axis=1
    )
    path = write_netcdf(tmp_path / "t.nc", names, table, engine, transposed)
    loaded = reference_tables.load(path)
    assert list(loaded) == list(columns)
    for name, values in columns.items():
        np.testing.assert_array_equal(loaded[name], values)


@pytest.mark.extras
@pytest.mark.parametrize(
    "encoding",
    [
        {"_FillValue": 999.0},
        {"dtype": "int16", "scale_factor": 0.25, "add_offset": 40.0, "_FillValue": -7},
    ],
)
def test_missing_and_packed_numbers_of_netcdf(tmp_path, engine, encoding):
    expected = 50 + 0.5 * np.arange(30.0)
    expected[3] = np.nan
    path = write_netcdf(tmp_path / "t.nc", ["max_dc"], expected[:, None], engine, **encoding)
    np.testing.assert_array_equal(reference_tables.load(path)["max_dc"], expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("circular_varianse\n.5\n", "did you mean 'circ"),
        ("max_dc,Ringach2002-max_dc\n5,5\n5,5\n", "twice"),
        ("max_dc\n5\ninf\n", "max_dc"),
        ("pref_or\n10\n170\n", "pref_or must lie in"),
        ("sf_bandwidth\n1.4\n4.5\n", "another unit"),
        ("or_selective\n1\n0.5\n", "got 0.5"),
        ("max_dc,max_texture\n5,5\n5,5\n", "one study"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        reference_tables.load(path, min_cells=1)


def recorded():
    return {
        "responses": np.random.default_rng(0).poisson(5, (6, 4, 3)),
        "strata": np.array(["noise", "texture"] * 3),
        "images": np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8),
        "degrees": np.array(3.5),
    }


def test_recordings_from_npz(tmp_path):
    np.savez(tmp_path / "r.npz", **recorded())
    loaded = load_recordings(tmp_path / "r.npz")
    for name, expected in recorded().items():
        np.testing.assert_array_equal(getattr(loaded, name), expected)
    assert loaded.responses.dtype == np.float64


@pytest.mark.extras
def test_recordings_from_netcdf(tmp_path, engine):
    import xarray

    arrays = recorded()
    dims = ("image", "repetition", "neuron")
    variables = {
        "responses": (dims, arrays["responses"].astype("f4")),
        "strata": (("image",), arrays["strata"]),
        "images": (("image", "y", "x"), arrays["images"]),
        "degrees": ((), arrays["degrees"]),
    }
    if engine == "scipy":  # NetCDF 3 has no uint8.
        del variables["images"], arrays["images"]
    xarray.Dataset(variables).to_netcdf(tmp_path / "r.nc", engine=engine)
    loaded = load_recordings(tmp_path / "r.nc")
    for name, expected in arrays.items():
        np.testing.assert_array_equal(getattr(loaded, name), expected)
    # Where neurons are alike, the result would look like that of recordings.
    variables["responses"] = (("image", "neuroid", "repetition"), arrays["responses"])
    xarray.Dataset(variables).to_netcdf(tmp_path / "t.nc", engine=engine)
    with pytest.raises(ValueError, match=r"must have the dimensions .*, got \('image', 'neuroid'"):
        load_recordings(tmp_path / "t.nc")


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"responses": np.full((6, 2, 3), np.nan)}, "responses must be finite"),
        ({"images": np.zeros((5, 8, 8), np.uint8)}, "images must be 6, got 5"),
    ],
)
def test_bad_recordings_are_refused(tmp_path, change, message):
    np.savez(tmp_path / "r.npz", **recorded() | change)
    with pytest.raises(ValueError, match=message):
        load_recordings(tmp_path / "r.npz")
