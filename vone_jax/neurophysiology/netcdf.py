"""Reads whole NetCDF files: version 3 with SciPy, version 4 with h5netcdf and h5py."""

import importlib
import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vone_jax import lazy

io = lazy.module("scipy.io")

_NETCDF_3 = b"CDF"
_NETCDF_4 = b"\x89HDF\r\n\x1a\n"


class Variable(NamedTuple):
    """A variable of a file: the names of its dimensions, and its values (text as NumPy strings)."""

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
    with io.netcdf_file(path, "r", mmap=False) as file:
        variables = {}
        for name, variable in file.variables.items():
            dimensions, array = tuple(variable.dimensions), np.array(variable[...])
            if array.dtype.kind == "S":
                # Text is stored as characters along the last dimension.
                text = np.ascontiguousarray(array).view(f"S{array.shape[-1]}")[..., 0]
                dimensions = dimensions[:-1]
                array = np.char.strip(np.char.decode(text, "utf-8"))
            # NetCDF 3 is big-endian.
            variables[name] = Variable(dimensions, array.astype(array.dtype.newbyteorder("=")))
        return variables


def _read_4(path: Path) -> dict[str, Variable]:
    h5netcdf = importlib.import_module("h5netcdf")
    with h5netcdf.File(path, "r") as file:
        variables = {}
        for name, variable in file.variables.items():
            array = np.asarray(variable[...])
            if array.dtype.kind in "OS":
                text = [t.decode() if isinstance(t, bytes) else str(t) for t in array.ravel()]
                array = np.array(text, np.str_).reshape(array.shape)
            variables[name] = Variable(tuple(variable.dimensions), array)
        return variables
