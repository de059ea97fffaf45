"""Reads whole NetCDF files: version 3 with SciPy, version 4 with h5netcdf and h5py."""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy

# NetCDF's default fill value for a missing number, in float32 and float64.
_MISSING = 15 * 2.0**119
_ATTRIBUTES = ("_FillValue", "missing_value", "scale_factor", "add_offset")

_NETCDF_3 = b"CDF"
_NETCDF_4 = b"\x89HDF\r\n\x1a\n"


class Variable(NamedTuple):
    """A variable of a file: the names of its dimensions, and its values (text as NumPy strings).

    Packed numbers are unpacked, and missing ones are NaN.
    """

    dimensions: tuple[str, ...]
    array: np.ndarray


def read_netcdf(path: Path, content: bytes) -> dict[str, Variable] | None:
    """Read the variables of a file of this content; return None for another format.

    Raises:
      ImportError: for version 4 if h5netcdf or h5py is not installed.
      ValueError: if the file is damaged.
    """
    if not content.startswith((_NETCDF_3, _NETCDF_4)):
        return None
    version_4 = content.startswith(_NETCDF_4)
    missing = [name for name in ("h5netcdf", "h5py") if importlib.util.find_spec(name) is None]
    if version_4 and missing:
        raise ImportError(
            f"{path} is NetCDF 4, which needs {' and '.join(missing)}: pip install h5netcdf h5py"
        )
    try:
        return _read_4(path) if version_4 else _read_3(path)
    # The readers raise almost anything on damaged files.
    except Exception as error:
        raise ValueError(f"{path} cannot be read as NetCDF ({error})") from error


def _read_3(path: Path) -> dict[str, Variable]:
    with scipy.io.netcdf_file(path, "r", mmap=False) as file:
        # SciPy keeps the attributes of a variable as attributes of its object.
        return {name: _variable(each, vars(each), 1) for name, each in file.variables.items()}


def _read_4(path: Path) -> dict[str, Variable]:
    h5netcdf = importlib.import_module("h5netcdf")
    with h5netcdf.File(path, "r") as file:
        return {name: _variable(each, each.attrs, 2) for name, each in file.variables.items()}


def _variable(variable: Any, attributes: Mapping[str, Any], characters: int) -> Variable:
    """Decode a variable of either library; for ``characters`` see ``_text``."""
    dimensions, array = _text(tuple(variable.dimensions), np.array(variable[...]), characters)
    # NetCDF 3 is big-endian.
    array = array.astype(array.dtype.newbyteorder("="))
    return Variable(dimensions, _decoded(array, attributes))


def _text(
    dimensions: tuple[str, ...], array: np.ndarray, characters: int
) -> tuple[tuple[str, ...], np.ndarray]:
    """Decode text to strings; return other arrays as they are.

    Single characters in at least ``characters`` dimensions are joined along the last dimension.
    """
    if array.dtype.kind not in "OS":
        return dimensions, array
    if array.dtype == "S1" and array.ndim >= characters:
        array = np.ascontiguousarray(array).view(f"S{array.shape[-1]}")[..., 0]
        dimensions = dimensions[:-1]
    text = [(t.decode() if isinstance(t, bytes) else str(t)).strip() for t in array.ravel()]
    return dimensions, np.array(text, np.str_).reshape(array.shape)


def _decoded(array: np.ndarray, attributes: Mapping[str, Any]) -> np.ndarray:
    """Unpack numbers by the attributes of their variable; return other arrays as they are."""
    if array.dtype.kind not in "iuf":
        return array
    fill, missing_value, scale, offset = map(attributes.get, _ATTRIBUTES)
    marks = [_MISSING] if array.dtype.kind == "f" else []
    marks += [mark for each in (fill, missing_value) if each is not None for mark in np.ravel(each)]
    missing = np.isin(array, marks)
    if missing.any() or scale is not None or offset is not None:
        array = np.where(missing, np.nan, array.astype(np.float64))
        array = array * (1.0 if scale is None else scale) + (0.0 if offset is None else offset)
    return array
