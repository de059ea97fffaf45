"""Reads whole NetCDF files: version 3 with SciPy, version 4 with h5netcdf and h5py."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.io import netcdf_file

_NETCDF_3 = b"CDF"
_NETCDF_4 = b"\x89HDF\r\n\x1a\n"
# SciPy's file and variable objects have these public attributes; all others are NetCDF attributes.
_SCIPY_NAMES = frozenset(
    ["data", "dimensions", "filename", "fp", "maskandscale", "mode", "use_mmap", "variables",
     "version_byte"]
)  # fmt: skip


class Variable(NamedTuple):
    """A variable of a file: names of its dimensions, values (text as NumPy strings), attributes."""

    dimensions: tuple[str, ...]
    array: np.ndarray
    attributes: dict[str, Any]


def is_netcdf(content: bytes) -> bool:
    """Return True if a file starts like NetCDF 3 or 4."""
    return content.startswith((_NETCDF_3, _NETCDF_4))


def read_netcdf(path: Path) -> tuple[dict[str, Variable], dict[str, Any]]:
    """Read the variables and the attributes of a file for which ``is_netcdf`` holds.

    Raises:
      ImportError: for version 4 if h5netcdf or h5py is not installed.
      ValueError: if the file is damaged.
    """
    with open(path, "rb") as file:
        version_4 = file.read(len(_NETCDF_4)) == _NETCDF_4
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


def _read_3(path: Path) -> tuple[dict[str, Variable], dict[str, Any]]:
    with netcdf_file(path, "r", mmap=False) as file:
        variables = {}
        for name, variable in file.variables.items():
            dimensions, array = tuple(variable.dimensions), np.array(variable[...])
            if array.dtype.kind == "S":
                dimensions, array = _joined(dimensions, array)
            # NetCDF 3 is big-endian.
            array = array.astype(array.dtype.newbyteorder("="))
            variables[name] = Variable(dimensions, array, _attributes_3(variable))
        return variables, _attributes_3(file)


def _attributes_3(owner: Any) -> dict[str, Any]:
    """Return the NetCDF attributes of a SciPy file or variable."""
    names = [name for name in vars(owner) if not name.startswith("_") and name not in _SCIPY_NAMES]
    return {name: getattr(owner, name) for name in names}


def _joined(dimensions: tuple[str, ...], array: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Join text that is stored as characters along the last dimension."""
    width = array.shape[-1]
    text = np.ascontiguousarray(array).view(f"S{width}")[..., 0]
    return dimensions[:-1], np.char.strip(np.char.decode(text, "utf-8"))


def _read_4(path: Path) -> tuple[dict[str, Variable], dict[str, Any]]:
    h5netcdf = importlib.import_module("h5netcdf")
    with h5netcdf.File(path, "r") as file:
        variables = {}
        for name, variable in file.variables.items():
            array = np.asarray(variable[...])
            if array.dtype.kind in "OS":
                text = [t.decode() if isinstance(t, bytes) else str(t) for t in array.ravel()]
                array = np.array(text, np.str_).reshape(array.shape)
            variables[name] = Variable(tuple(variable.dimensions), array, dict(variable.attrs))
        return variables, dict(file.attrs)
