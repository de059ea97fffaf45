"""Reading and refusing tables and recordings of users."""

import hashlib
import importlib.util

import numpy as np
import pytest
from scipy.io import netcdf_file

from vone_jax.neurophysiology import reference_tables
from vone_jax.neurophysiology.explained_variance import (
    Recordings,
    explained_variance,
    load_recordings,
)
from vone_jax.neurophysiology.properties import PROPERTIES, references

CELLS = 30
NETCDF_4 = b"\x89HDF\r\n\x1a\n"
needs_h5netcdf = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("h5netcdf", "h5py"))), reason="needs h5netcdf and h5py"
)


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


def write_netcdf_3(path, names, table, transposed=False, kind="f8", **attributes):
    width = max(map(len, names))
    with netcdf_file(path, "w") as file:
        for dimension, size in (("neuroid", len(table)), ("neuronal_property", len(names))):
            file.createDimension(dimension, size)
        file.createDimension("string", width)
        text = file.createVariable("neuronal_property", "S1", ("neuronal_property", "string"))
        text[:] = np.array([list(name.ljust(width)) for name in names], "S1")
        dims = ("neuroid", "neuronal_property")
        variable = file.createVariable("table", kind, dims[::-1] if transposed else dims)
        variable[:] = table.T if transposed else table
        variable.number_of_trials = 20
        for name, value in attributes.items():
            setattr(variable, name, value)
    return path


def write_netcdf_4(path, names, table, transposed=False, kind="f8", **attributes):
    h5netcdf = pytest.importorskip("h5netcdf")
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"neuroid": len(table), "neuronal_property": len(names)}
        text = file.create_variable(
            "neuronal_property", ("neuronal_property",), h5netcdf.core.h5py.string_dtype()
        )
        text[:] = np.array(names, object)
        dims = ("neuroid", "neuronal_property")
        variable = file.create_variable("table", dims[::-1] if transposed else dims, kind)
        variable[:] = table.T if transposed else table
        variable.attrs.update({"number_of_trials": 20} | attributes)
    return path


WRITERS = [
    write_netcdf_3,
    pytest.param(write_netcdf_4, marks=[needs_h5netcdf, pytest.mark.extras]),
]


def test_every_property_has_a_range_that_holds_its_bins():
    assert set(reference_tables.RANGES) == set(PROPERTIES)
    for name, (low, high) in reference_tables.RANGES.items():
        edges = PROPERTIES[name].edges
        assert low <= edges[0] and edges[-1] <= high, name


def test_csv(tmp_path):
    columns = ringach()
    path = write_csv(tmp_path / "ringach.csv", columns)
    table = reference_tables.load(path)
    assert list(table.values) == list(columns)
    for name, values in columns.items():
        np.testing.assert_array_equal(table.values[name], values)
    assert table.sha1 == hashlib.sha1(path.read_bytes()).hexdigest()


def test_names_with_the_study_stored_names_and_a_column_of_cells(tmp_path):
    header = ["Ringach2002-circular_variance", "bandwidth", "Marques2020_Ringach2002-max_dc"]
    path = write_csv(tmp_path / "a.csv", ringach(), header)
    lines = path.read_text().splitlines()
    named = ["cell," + lines[0], *(f"k{i}," + line for i, line in enumerate(lines[1:]))]
    # Excel's byte-order mark and line ends.
    path.write_bytes(("\ufeff" + "\r\n".join(named) + "\r\n\r\n").encode())
    table = reference_tables.load(path)
    assert list(table.values) == list(ringach())
    np.testing.assert_array_equal(table.values["max_dc"], ringach()["max_dc"])


def test_an_empty_line_of_a_single_column_is_a_cell_without_a_value(tmp_path):
    path = tmp_path / "schiller.csv"
    path.write_text("sf_bandwidth\n" + "50\n\n" * 20 + "NaN\n")
    table = reference_tables.load(path)
    values = table.values["sf_bandwidth"]
    assert len(values) == 41 and np.isnan(values).sum() == 21


def test_a_first_column_without_a_name_is_that_of_cells(tmp_path):
    path = tmp_path / "pandas.csv"
    path.write_text(",max_dc\n" + "".join(f"{i},5\n" for i in range(20)))
    assert list(reference_tables.load(path).values) == ["max_dc"]


def test_rows_of_commas_are_no_cells_where_cells_have_names(tmp_path):
    path = tmp_path / "excel.csv"
    path.write_text("cell,max_dc\n" + "".join(f"c{i},5\n" for i in range(20)) + "c20,\n,\n ,\n")
    values = reference_tables.load(path).values["max_dc"]
    assert len(values) == 21 and np.isnan(values).sum() == 1
    # In a table that begins in the second column of a spreadsheet, they are cells without a value.
    path.write_text(",max_dc\n" + ",5\n" * 20 + ",\n")
    assert len(reference_tables.load(path).values["max_dc"]) == 21


def test_values_become_references(tmp_path):
    table = reference_tables.load(write_csv(tmp_path / "ringach.csv", ringach()))
    reference = references(table.values)["or_bandwidth"]
    assert (reference.neurons, reference.undefined) == (CELLS, CELLS // 5)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("write", WRITERS)
def test_netcdf_as_brain_score_stores_it(tmp_path, write, transposed):
    columns = ringach()
    names = ["circular_variance", "baseline", "bandwidth", "max_dc"]
    table = np.stack(
        [columns["circular_variance"], np.full(CELLS, 0.8), *list(columns.values())[1:]], axis=1
    )
    loaded = reference_tables.load(write(tmp_path / "t.nc", names, table, transposed))
    assert list(loaded.values) == list(columns)
    for name, values in columns.items():
        np.testing.assert_array_equal(loaded.values[name], values)


@pytest.mark.parametrize("write", WRITERS)
def test_missing_and_packed_numbers_of_netcdf(tmp_path, write):
    expected = 50 + 0.5 * np.arange(30.0)
    expected[3] = np.nan

    def load(stored, **attributes):
        path = write(tmp_path / "t.nc", ["max_dc"], stored[:, None], **attributes)
        return reference_tables.load(path).values["max_dc"]

    undeclared = np.nan_to_num(expected, nan=9.969209968386869e36)
    np.testing.assert_array_equal(load(undeclared), expected)
    declared = np.nan_to_num(expected, nan=999.0)
    np.testing.assert_array_equal(load(declared, missing_value=999.0), expected)
    packed = np.nan_to_num((expected - 40) / 0.25, nan=-7).astype(np.int16)
    attributes = {"scale_factor": 0.25, "add_offset": 40.0, "_FillValue": np.int16(-7)}
    np.testing.assert_allclose(load(packed, kind="i2", **attributes), expected)


def test_netcdf_4_without_its_packages_names_them(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    path = tmp_path / "t.nc"
    path.write_bytes(NETCDF_4 + b"\0" * 100)
    with pytest.raises(ImportError, match="needs h5netcdf and h5py: pip install"):
        reference_tables.load(path)


@pytest.mark.parametrize("write", WRITERS)
def test_a_damaged_netcdf_is_refused(tmp_path, write):
    path = write(tmp_path / "t.nc", ["max_dc"], np.ones((30, 1)))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match="cannot be read as NetCDF"):
        reference_tables.load(path)


def test_netcdf_without_the_dimensions_is_refused(tmp_path):
    path = tmp_path / "t.nc"
    with netcdf_file(path, "w") as file:
        file.createDimension("cell", 3)
        file.createVariable("max_dc", "f8", ("cell",))[:] = [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="one variable over the dimensions .* it holds max_dc"):
        reference_tables.load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("circular_varianse\n.5\n", "unknown property 'circular_varianse'; did you mean 'circ"),
        ("peak sf\n.5\n", "unknown property 'peak sf'; did you mean 'peak_sf'"),
        ("max_dc,Ringach2002-max_dc\n5,5\n5,5\n", "holds the property 'max_dc' twice"),
        ("cell;max_dc\nc0;1,5\n", "must be separated by commas; its header is 'cell;max_dc'"),
        ("max_dc\nhigh\n", "row 2, column 'max_dc': 'high' is not a number"),
        ("max_dc\n5\ninf\n", r"max_dc must lie in \[0, 1000\] spikes/s, got inf for cell 2"),
        ("max_dc\n5\n-1\n", r"got -1 for cell 2"),
        ("circular_variance\n.5\n55\n", r"must lie in \[0, 1\], got 55"),
        ("pref_or\n10\n170\n", r"got 170 for cell 2; subtract 180 degrees"),
        ("sf_bandwidth\n0.5\n101\n", r"must lie in \[0, 100\] %, got 101"),
        ("pref_or\n0.1\n3.14\n", "must be in deg, but no cell exceeds 3.14, .* radians"),
        ("or_bandwidth\n0.2\n0.7\n", "must be in deg, but no cell exceeds 0.7, .* radians"),
        ("sf_bandwidth\n1.4\n4.5\n", "must be in %, but no cell exceeds 4.5, .* octaves"),
        ("or_selective\n1\n0.5\n", "or_selective must be 0 or 1, got 0.5"),
        ("max_dc,circular_variance\n5\n", "row 2: 1 fields, the header has 2"),
        ("max_dc,circular_variance\n5,.5\n5,.5,.5\n", "row 3: 3 fields, the header has 2"),
        ("max_dc,max_texture\n5,5\n5,5\n", "must hold one study.*of 2: max_dc, max_texture"),
        ("pref_or,peak_sf\n5,5\n5,5\n", "must hold one study"),
        ("baseline\n5\n", "must hold one of pref_or, .*; it holds baseline"),
        ("max_dc\n", "must have a header line and one row per cell"),
        ("", "must have a header line and one row per cell"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        reference_tables.load(path, min_cells=1)


def test_too_few_cells_missing_files_and_other_formats_are_refused(tmp_path):
    path = write_csv(tmp_path / "a.csv", ringach())
    # A fifth of the 30 cells has no bandwidth.
    with pytest.raises(ValueError, match="or_bandwidth must have a value for at least 25.* got 24"):
        reference_tables.load(path, min_cells=25)
    with pytest.raises(ValueError, match="min_cells must be an integer >= 1"):
        reference_tables.load(path, min_cells=0)
    with pytest.raises(FileNotFoundError):
        reference_tables.load(tmp_path / "none.csv")
    path.write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(ValueError, match="neither NetCDF nor comma-separated UTF-8"):
        reference_tables.load(path)


def recorded():
    return {
        "responses": np.random.default_rng(0).poisson(5, (6, 4, 3)),
        "strata": np.array(["noise", "texture"] * 3),
        "image_ids": np.arange(6),
    }


def test_recordings_from_npz(tmp_path):
    np.savez(tmp_path / "r.npz", **recorded())
    loaded = load_recordings(tmp_path / "r.npz")
    np.testing.assert_array_equal(loaded.responses, recorded()["responses"])
    assert loaded.responses.dtype == np.float64
    np.testing.assert_array_equal(loaded.strata, recorded()["strata"])
    np.testing.assert_array_equal(loaded.image_ids, np.arange(6))
    assert loaded.sha1 == hashlib.sha1((tmp_path / "r.npz").read_bytes()).hexdigest()


def write_recordings(path, arrays, dims=("image", "repetition", "neuron")):
    with netcdf_file(path, "w") as file:
        for name, size in (*zip(dims, arrays["responses"].shape, strict=True), ("string", 7)):
            file.createDimension(name, size)
        file.createVariable("responses", "f4", dims)[:] = arrays["responses"]
        text = np.array([list(s.ljust(7, "\0")) for s in arrays["strata"]], "S1")
        file.createVariable("strata", "S1", ("image", "string"))[:] = text
        file.createVariable("image_ids", "i4", ("image",))[:] = arrays["image_ids"]
        file.createVariable("projection", "S1", ())[...] = b"m"


def test_recordings_from_netcdf_3(tmp_path):
    arrays = recorded()
    write_recordings(tmp_path / "r.nc", arrays)
    loaded = load_recordings(tmp_path / "r.nc")
    np.testing.assert_array_equal(loaded.responses, arrays["responses"])
    np.testing.assert_array_equal(loaded.strata, arrays["strata"])
    assert loaded.image_ids.dtype.isnative


def test_neurons_in_the_place_of_repetitions_are_refused(tmp_path):
    """Where neurons are alike, the result looked like that of recordings."""
    write_recordings(tmp_path / "r.nc", recorded(), ("image", "neuroid", "repetition"))
    with pytest.raises(ValueError, match=r"must have the dimensions .*, got \('image', 'neuroid'"):
        load_recordings(tmp_path / "r.nc")


@pytest.mark.extras
@needs_h5netcdf
@pytest.mark.parametrize("stored", ["strings", "characters", "letters"])
def test_recordings_from_netcdf_4(tmp_path, stored):
    h5netcdf = pytest.importorskip("h5netcdf")
    arrays = recorded()
    with h5netcdf.File(tmp_path / "r.nc", "w") as file:
        file.dimensions = {"image": 6, "repetition": 4, "neuron": 3, "string": 8}
        dims = ("image", "repetition", "neuron")
        file.create_variable("responses", dims, "f8")[:] = arrays["responses"]
        if stored == "letters":
            arrays["strata"] = arrays["strata"].astype("<U1")
            file.create_variable("strata", ("image",), "S1")[:] = arrays["strata"].astype("S1")
        elif stored == "characters":
            text = file.create_variable("strata", ("image", "string"), "S1")
            text[:] = np.array([list(s.ljust(8)) for s in arrays["strata"]], "S1")
        else:
            text = file.create_variable("strata", ("image",), h5netcdf.core.h5py.string_dtype())
            text[:] = arrays["strata"].astype(object)
        file.create_variable("image_ids", ("image",), "i8")[:] = arrays["image_ids"]
    loaded = load_recordings(tmp_path / "r.nc")
    np.testing.assert_array_equal(loaded.responses, arrays["responses"])
    np.testing.assert_array_equal(loaded.strata, arrays["strata"])


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strata": None}, "lacks strata; it holds responses, image_ids"),
        ({"responses": np.ones((6, 3))}, "responses must have shape"),
        ({"responses": np.ones((6, 1, 3))}, "repetitions >= 2"),
        (
            {"responses": np.full((6, 2, 3), np.nan)},
            r"responses must be finite; neurons \[0, 1, 2\] are not. If repetitions are missing, ",
        ),
        ({"responses": np.full((6, 2, 3), "a")}, "must be real numbers, got <U1"),
        (
            {"strata": np.arange(5)},
            r"strata must be text or integers of shape \(6,\), one for .*, got int64 of",
        ),
        ({"strata": np.ones(6)}, "strata must be text or integers"),
        ({"image_ids": np.array([0, 1, 2, 3, 3, 5])}, "image_ids must differ, got 3 twice"),
        (
            {"image_ids": np.array([None] * 6)},
            r"cannot be read as NPZ \(array 'image_ids': it has Python objects; make it text",
        ),
    ],
)
def test_bad_recordings_are_refused(tmp_path, change, message):
    arrays = {k: v for k, v in (recorded() | change).items() if v is not None}
    np.savez(tmp_path / "r.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_recordings(tmp_path / "r.npz")


def test_files_that_hold_no_recordings_are_refused(tmp_path):
    path = tmp_path / "r.npz"
    path.write_text("responses\n1\n")
    with pytest.raises(ValueError, match="must be an NPZ or NetCDF file"):
        load_recordings(path)
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match="cannot be read as NPZ"):
        load_recordings(path)
    with pytest.raises(FileNotFoundError):
        load_recordings(tmp_path / "none.npz")


def test_recordings_feed_the_explained_variance(tmp_path):
    generator = np.random.default_rng(0)
    features = generator.normal(size=(40, 6))
    responses = features[:, None] @ generator.normal(size=(6, 5)) + generator.normal(
        size=(40, 8, 5)
    )
    recordings = Recordings(responses, np.arange(40) % 2, np.arange(40), sha1="")
    result = explained_variance(features, recordings.responses, recordings.strata, components=6)
    assert 0.9 < result.score() <= 1.05
