"""Reads the user's own recordings of neurons, for ``explained_variance``.

An NPZ or NetCDF file with these arrays (NetCDF: variables):

  ``responses``: real (images, repetitions, neurons), for instance spikes per second from 50 to
    200 ms after the onset of an image.
  ``strata``: text or integers (images,): the texture type of each image.
  ``image_ids``: text or integers (images,), all different.

NetCDF 3 is read with SciPy; NetCDF 4 needs the packages h5netcdf and h5py.
"""

import dataclasses
import hashlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np

from vone_jax.neurophysiology.netcdf import is_netcdf, read_netcdf


@dataclasses.dataclass(frozen=True, eq=False)
class Recordings:
    """Repeated responses of neurons to images.

    Attributes:
      responses: float64 (images, repetitions, neurons).
      strata: (images,), the texture type of each image.
      image_ids: (images,), all different.
      sha1: of the file they come from.
    """

    responses: np.ndarray
    strata: np.ndarray
    image_ids: np.ndarray
    sha1: str

    def __post_init__(self):
        shape = self.responses.shape
        if self.responses.ndim != 3 or 0 in shape or shape[1] < 2:
            raise ValueError(
                f"responses must have shape (images, repetitions >= 2, neurons), got {shape}"
            )
        if not np.all(np.isfinite(self.responses)):
            raise ValueError(
                f"responses must be finite, got {int(np.sum(~np.isfinite(self.responses)))} NaN "
                f"or infinite values"
            )
        for name in ("strata", "image_ids"):
            values = getattr(self, name)
            if values.shape != shape[:1] or values.dtype.kind not in "iuU":
                raise ValueError(
                    f"{name} must be text or integers of shape {shape[:1]}, got {values.dtype} "
                    f"of shape {values.shape}"
                )
        labels, counts = np.unique(self.image_ids, return_counts=True)
        if len(labels) < shape[0]:
            raise ValueError(f"image_ids must differ, got {labels[counts > 1][0]!r} twice")


def load_recordings(path: str | os.PathLike) -> Recordings:
    """Reads and checks recordings; the module describes the formats.

    Args:
      path: of an NPZ or NetCDF file, told apart by content.

    Returns:
      The recordings.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: for NetCDF 4 if h5netcdf or h5py is not installed.
      ValueError: if the file is of neither format, an array is missing or does not fit, a value
        is not finite, or an image comes twice.
    """
    path = Path(path).expanduser()
    content = path.read_bytes()
    if is_netcdf(content):
        arrays = {name: array for name, (_, array) in read_netcdf(path).variables.items()}
    elif content[:2] == b"PK":
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                arrays = dict(archive)
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} cannot be read as NPZ ({error})") from error
    else:
        raise ValueError(f"{path} must be an NPZ or NetCDF file")
    missing = [name for name in ("responses", "strata", "image_ids") if name not in arrays]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(arrays)}")
    responses = arrays["responses"]
    if responses.dtype.kind not in "fiu":
        raise ValueError(f"responses in {path} must be real numbers, got {responses.dtype}")
    return Recordings(
        responses=responses.astype(np.float64),
        strata=arrays["strata"],
        image_ids=arrays["image_ids"],
        sha1=hashlib.sha1(content).hexdigest(),
    )
