"""Reads a user's tables of properties of V1 neurons, one file per study.

Formats:

  CSV: comma-separated UTF-8 with a header line of property names and one row for every cell of the
    sample. An empty field or NaN means that the property is undefined for the cell. A column named
    ``cell``, or a first column without a name, as pandas writes it, may hold names of the cells.
  NetCDF (``*.nc``), as Brain-Score stores it: one variable over the dimensions ``neuroid`` and
    ``neuronal_property``, and the names in the coordinate ``neuronal_property``. It needs the extra
    "neural".

Property names are those of ``neurophysiology.PROPERTIES``, with or without the study in front
(``circular_variance``, ``Ringach2002-circular_variance``), or Brain-Score's names in stored tables
(``orthogonal_preferred_ratio``). Names that Brain-Score stores but does not score are skipped.
Cells without a value count in the size of the sample. So rows must not be left out, and tables of
different studies must not be joined side by side.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vone_jax import arguments
from vone_jax.neurophysiology.properties import PROPERTIES

# Names in Brain-Score's stored tables -> names in its benchmarks, where the two differ.
_STORED_NAMES = {
    "preferred_orientation": "pref_or",
    "bandwidth": "or_bandwidth",
    "orthogonal_preferred_ratio": "orth_pref_ratio",
    "orientation_selective": "or_selective",
    "circular_variance_bandwidth_ratio": "cv_bandwidth_ratio",
    "orthogonal_preferred_ratio_circular_variance_difference": "opr_cv_diff",
    "peak_spatial_frequency": "peak_sf",
    "spatial_frequency_bandwidth": "sf_bandwidth",
    "spatial_frequency_selective": "sf_selective",
    "variance_ratio": "texture_variance_ratio",
    "absolute_texture_modulation_index": "abs_texture_modulation_index",
}
_NOT_SCORED = (
    "baseline",
    "max_ac",
    "min_dc",
    "orthogonal_preferred_ratio_bandwidth_ratio",
    "strongly_suppressed",
    "surround_grating_summation_field_ratio",
    "noise_selectivity",
    "noise_sparseness",
    "sample_variance",
    "family_variance",
)

# Smallest and largest accepted values. They detect a wrong unit (percent) or a wrong column;
# unusual cells pass.
RANGES: dict[str, tuple[float, float]] = dict.fromkeys(PROPERTIES, (0.0, 1.0)) | {
    "pref_or": (-22.5, 157.5),
    "or_bandwidth": (0.0, 90.0),
    "orth_pref_ratio": (0.0, 2.0),
    "cv_bandwidth_ratio": (0.0, 2.0),
    "opr_cv_diff": (-1.0, 2.0),
    "peak_sf": (0.01, 100.0),
    "sf_bandwidth": (0.0, 100.0),
    "modulation_ratio": (0.0, 3.0),
    "texture_variance_ratio": (-0.1, 51.0),
    "grating_summation_field": (0.01, 50.0),
    "surround_diameter": (0.01, 50.0),
    "surround_suppression_index": (0.0, 2.0),
    "texture_modulation_index": (-1.0, 1.0),
    "max_dc": (0.0, 1000.0),
    "max_texture": (0.0, 1000.0),
    "max_noise": (0.0, 1000.0),
}
# Values of another unit (radians, octaves) lie within the range, but none exceeds this one.
_OTHER_UNIT = {"pref_or": np.pi, "or_bandwidth": np.pi / 2, "sf_bandwidth": 8.0}


def load(path: str | os.PathLike, min_cells: int = 20) -> dict[str, Float[np.ndarray, " cells"]]:
    """Read and check a table of properties; the module describes the formats.

    Args:
      path: a CSV or NetCDF file.
      min_cells: smallest number of cells with a value for each property.

    Returns:
      property -> one value per cell, NaN where undefined, as ``score(references=...)`` takes it.
      ``|`` joins the tables of several studies.

    Raises:
      ValueError: for an unknown property (the message names the nearest one), properties of several
        studies, values that are not numbers or out of range, or too few cells.
    """
    path = Path(path).expanduser()
    arguments.count("min_cells", min_cells)
    table = _read_netcdf(path) if path.suffix == ".nc" else _read_csv(path)
    names = {stored: _property(str(stored), path) for stored in table}
    table = table.rename(columns=names)[[name for name in names.values() if name is not None]]
    if len(twice := table.columns[table.columns.duplicated()]):
        raise ValueError(f"{path} holds the property {twice[0]!r} twice")
    # The number of rows is the sample size of one study, since cells without a value count in it.
    studies = {(PROPERTIES[n].benchmark.split("-")[0], PROPERTIES[n].neurons): n for n in table}
    if len(studies) != 1:
        raise ValueError(
            f"{path} must hold properties of one study, got {len(studies)}: {[*studies.values()]}"
        )
    return {str(name): _checked(str(name), table[name], min_cells, path) for name in table}


def _read_csv(path: Path) -> Any:
    import pandas  # It takes half a second.

    form = {"encoding": "utf-8-sig", "index_col": False, "skipinitialspace": True}
    columns = len(pandas.read_csv(path, nrows=0, **form).columns)
    # In a single column, an empty line is a cell without a value.
    table = pandas.read_csv(path, skip_blank_lines=columns > 1, **form)
    named = [name for name in ("cell", "Unnamed: 0") if name in table]
    # Spreadsheets write rows of commas below a table. They are no cells if cells have names.
    if named and bool(table[named[0]].notna().any()):
        table = table.dropna(how="all")
    return table.drop(columns=named)


def _read_netcdf(path: Path) -> Any:
    import xarray

    dims = ("neuroid", "neuronal_property")
    data = xarray.load_dataset(path)
    tables = [variable for variable in data.data_vars.values() if set(variable.dims) == {*dims}]
    if len(tables) != 1:
        raise ValueError(f"{path} must hold one variable over the dimensions {dims}, got {data}")
    return tables[0].transpose(*dims).to_pandas()


def _property(stored_name: str, path: Path) -> str | None:
    """Return the property of a name in a file; None for names that are stored but not scored."""
    name = stored_name.strip().removeprefix("Marques2020_")
    studies = {p.benchmark: key for key, p in PROPERTIES.items()}
    found = studies.get(name) or _STORED_NAMES.get(name, name)
    if found in PROPERTIES or name in _NOT_SCORED:
        return found if found in PROPERTIES else None
    hint = arguments.nearest(name, [*PROPERTIES, *studies, *_STORED_NAMES], cutoff=0.0)
    raise ValueError(f"{path} holds the unknown property {stored_name!r}{hint}")


def _checked(name: str, column: Any, min_cells: int, path: Path) -> np.ndarray:
    try:
        values = column.to_numpy(np.float64)
    except ValueError as error:
        raise ValueError(f"{path}, column {name!r}: {error}") from None
    defined, (low, high) = values[~np.isnan(values)], RANGES[name]
    if len(defined) < min_cells:
        raise ValueError(
            f"{path}: {name} must have a value for at least {min_cells} cells, got {len(defined)}"
        )
    rounding, unit = 1e-6 * (high - low), PROPERTIES[name].unit
    inside = (defined >= low - rounding) & (defined <= high + rounding)
    if name.endswith("_selective"):
        inside &= np.isin(defined, (0.0, 1.0))
    if not inside.all():
        raise ValueError(
            f"{path}: {name} must lie in [{low:g}, {high:g}] {unit}, got {defined[~inside][0]:g}"
        )
    largest = np.abs(defined).max()
    if 0 < largest <= _OTHER_UNIT.get(name, 0.0):
        raise ValueError(
            f"{path}: {name} must be in {unit}, but no cell exceeds {largest:g}, as in another unit"
        )
    return values
