"""Reads a user's tables of properties of V1 neurons, one file per study.

Formats:

  CSV: comma-separated UTF-8 with a header line of property names and one row for every cell of the
    sample. An empty field or NaN means that the property is undefined for the cell. A column named
    ``cell``, or a first column without a name, as pandas writes it, may hold names of the cells.
  NetCDF, as Brain-Score stores it: one variable over the dimensions ``neuroid`` and
    ``neuronal_property``, and the names in the coordinate ``neuronal_property``. NetCDF 4 needs the
    packages h5netcdf and h5py.

Property names are those of ``neurophysiology.PROPERTIES``, with or without the study in front
(``circular_variance``, ``Ringach2002-circular_variance``), or Brain-Score's names in stored tables
(``orthogonal_preferred_ratio``). Names that Brain-Score stores but does not score are skipped.
Cells without a value count in the size of the sample. So rows must not be left out, and tables of
different studies must not be joined side by side.
"""

import csv
import dataclasses
import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vone_jax import arguments
from vone_jax.neurophysiology.netcdf import Variable, read_netcdf
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
_HINTS = {"pref_or": "; subtract 180 degrees from orientations of 157.5 and above"}
# Values of another unit lie within the range, too, but none of them exceeds this value.
_OTHER_UNITS = {
    "pref_or": (np.pi, "radians"),
    "or_bandwidth": (np.pi / 2, "radians"),
    "sf_bandwidth": (8.0, "octaves or shares; 100 x low/high is accepted, 50 for one octave"),
}
_YES_NO = ("or_selective", "sf_selective")
# Rounding in a file, relative to the range.
_SLACK = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class ReferenceTable:
    """The properties of the cells of one study."""

    # Property -> one value per cell, NaN where undefined. ``score(references=...)`` takes this
    # mapping; ``|`` joins the mappings of several studies.
    values: Mapping[str, Float[np.ndarray, " cells"]]
    # SHA-1 of the file.
    sha1: str


def load(path: str | os.PathLike, min_cells: int = 20) -> ReferenceTable:
    """Read and check a table of properties; the module describes the formats.

    Args:
      path: a CSV or NetCDF file; the content decides.
      min_cells: smallest number of cells with a value for each property.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: for NetCDF 4 if h5netcdf or h5py is not installed.
      ValueError: for an unknown property (the message names the nearest one), a property twice,
        properties of several studies, values that are not numbers or out of range, or too few
        cells.
    """
    path = Path(os.path.expanduser(path))
    content = path.read_bytes()
    arguments.count("min_cells", min_cells)
    variables = read_netcdf(path, content)
    if variables is None:
        columns = _csv_columns(path, content)
    else:
        columns = _netcdf_columns(path, variables)
    values: dict[str, np.ndarray] = {}
    ignored = []
    for stored_name, column in columns:
        name = _property(stored_name, path)
        if name is None:
            ignored.append(stored_name)
            continue
        if name in values:
            raise ValueError(f"{path} holds the property {name!r} twice")
        values[name] = _checked_column(name, column, min_cells, path)
    if not values:
        raise ValueError(
            f"{path} must hold one of {', '.join(PROPERTIES)}; it holds "
            f"{', '.join(ignored) or 'none'}"
        )
    _check_one_study(values, path)
    return ReferenceTable(values, hashlib.sha1(content).hexdigest())


def _csv_columns(path: Path, content: bytes) -> list[tuple[str, np.ndarray]]:
    try:
        lines = io.StringIO(content.decode("utf-8-sig"), newline="")
        rows = list(csv.reader(lines, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is neither NetCDF nor comma-separated UTF-8 ({error})") from error
    header = [name.strip() for name in rows[0]] if rows else []
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise ValueError(f"{path} must be separated by commas; its header is {header[0]!r}")
    if len(header) == 1:
        # In a single column, an empty line is an empty field: a cell without a value.
        rows = [row or [""] for row in rows]
    if len(header) > 1 and not header[0]:
        header[0] = "cell"
    if "cell" in header:
        place = header.index("cell")
        # Spreadsheets write rows of commas below a table. They are no cells if cells have names.
        if any("".join(row[place : place + 1]).strip() for row in rows[1:]):
            rows = [row if any(map(str.strip, row)) else [] for row in rows]
    numbered = [(line, row) for line, row in enumerate(rows[1:], 2) if row]
    if not header or not numbered:
        raise ValueError(f"{path} must have a header line and one row per cell")
    for line, row in numbered:
        if len(row) != len(header):
            raise ValueError(f"{path}, row {line}: {len(row)} fields, the header has {len(header)}")
    return [
        (name, np.array([_number(row[i], name, line, path) for line, row in numbered]))
        for i, name in enumerate(header)
        if name != "cell"
    ]


def _number(field: str, name: str, line: int, path: Path) -> float:
    try:
        return float(field.strip() or "nan")
    except ValueError:
        message = f"{path}, row {line}, column {name!r}: {field.strip()!r} is not a number"
        raise ValueError(message) from None


def _netcdf_columns(path: Path, variables: Mapping[str, Variable]) -> list[tuple[str, np.ndarray]]:
    dims = ("neuroid", "neuronal_property")
    tables = [name for name, v in variables.items() if set(v.dimensions) == set(dims)]
    if len(tables) != 1 or "neuronal_property" not in variables:
        raise ValueError(
            f"{path} must hold one variable over the dimensions {dims} and the coordinate "
            f"neuronal_property; it holds "
            + ", ".join(f"{name} {v.dimensions}" for name, v in variables.items())
        )
    variable = variables[tables[0]]
    table = variable.array
    if table.dtype.kind not in "fiu":
        raise ValueError(f"{tables[0]} in {path} must be real numbers, got {table.dtype}")
    table = table if variable.dimensions == dims else table.T
    names = [str(name) for name in variables["neuronal_property"].array]
    return [(name, table[:, i].astype(np.float64)) for i, name in enumerate(names)]


def _property(stored_name: str, path: Path) -> str | None:
    """Return the property of a name in a file; None for names that are stored but not scored."""
    name = stored_name.strip().removeprefix("Marques2020_")
    studies = {p.benchmark: key for key, p in PROPERTIES.items()}
    for candidate in (studies.get(name), _STORED_NAMES.get(name), name):
        if candidate in PROPERTIES:
            return candidate
    if name in _NOT_SCORED:
        return None
    hint = arguments.nearest(name, [*PROPERTIES, *studies, *_STORED_NAMES], cutoff=0.0)
    raise ValueError(f"{path} holds the unknown property {stored_name!r}{hint}")


def _checked_column(name: str, column: np.ndarray, min_cells: int, path: Path) -> np.ndarray:
    defined = column[~np.isnan(column)]
    if len(defined) < min_cells:
        raise ValueError(
            f"{path}: {name} must have a value for at least {min_cells} cells, got {len(defined)}"
        )
    low, high = RANGES[name]
    slack = _SLACK * (high - low)
    bad = np.flatnonzero(~np.isnan(column) & ~((column >= low - slack) & (column <= high + slack)))
    if bad.size:
        raise ValueError(
            f"{path}: {name} must lie in [{low:g}, {high:g}] {PROPERTIES[name].unit}".rstrip()
            + f", got {column[bad[0]]:g} for cell {bad[0] + 1}"
            + _HINTS.get(name, "")
        )
    largest = np.abs(defined).max()
    if name in _OTHER_UNITS and 0 < largest <= _OTHER_UNITS[name][0]:
        raise ValueError(
            f"{path}: {name} must be in {PROPERTIES[name].unit}, but no cell exceeds {largest:g}, "
            f"as if the values were {_OTHER_UNITS[name][1]}"
        )
    if name in _YES_NO and not np.isin(defined, (0.0, 1.0)).all():
        raise ValueError(
            f"{path}: {name} must be 0 or 1, got {defined[~np.isin(defined, (0, 1))][0]}"
        )
    return column


def _check_one_study(values: Mapping[str, np.ndarray], path: Path) -> None:
    """Refuse properties of several studies: the number of rows is the sample size of one study."""
    studies: dict[tuple[str, int], str] = {}
    for name in values:
        p = PROPERTIES[name]
        studies.setdefault((p.benchmark.split("-")[0], p.neurons), name)
    if len(studies) > 1:
        raise ValueError(
            f"{path} must hold one study, since cells without a value count in its sample; it "
            f"holds properties of {len(studies)}: {', '.join(studies.values())}"
        )
