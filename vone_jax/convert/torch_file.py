"""Files of ``torch.save``, read without PyTorch and without trusting them.

There are two formats: an archive of a pickle and one entry for each storage (PyTorch 1.6 and
later), and a sequence of pickles followed by the storages (earlier PyTorch, and the published
VOneNets). A file needs a bounded multiple of its own size in memory: entries must be stored
uncompressed, a tensor may not be larger than its storage, and tensors that share storages may not
add up to much more than the file.
"""

import contextlib
import io
import math
import mmap
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vone_jax.convert.pickle_reader import Storage, StoredTensor, read_pickle
from vone_jax.convert.untrusted import CheckpointError, open_regular

_MAGIC = 0x1950A86A20F9469CFC6C
_LARGEST_PICKLE = 32 * 2**20
# Python's zipfile needs about ten times the size of an archive's directory.
_LARGEST_DIRECTORY = 8 * 2**20
# Tensors may share storages (tied weights), but comparing and copying views costs time.
_MOST_SHARING = 4


class TorchFile:
    """An open file of ``torch.save``: the saved object (see ``read_pickle``) and its format."""

    def __init__(self, content: Any, format: str, size: int, load: Callable[[Storage], np.ndarray]):
        self.content = content
        self.format = format
        self._load = load
        self._storages: dict[str, np.ndarray] = {}
        self._bytes_left = _MOST_SHARING * size

    def array(self, tensor: StoredTensor) -> np.ndarray:
        """The numbers of a tensor, as a read-only view of its storage."""
        storage, shape, strides = tensor.storage, tensor.shape, tensor.strides
        if not isinstance(storage, Storage):
            raise CheckpointError("a tensor in the pickle has no storage")
        if storage.key not in self._storages:
            self._storages[storage.key] = self._load(storage)
        numbers = self._storages[storage.key]
        size = math.prod(shape)
        last = tensor.offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        # The first condition refuses a small storage that is repeated by strides of zero.
        if size and (size > len(numbers) or last >= len(numbers)):
            raise CheckpointError(
                f"a tensor of shape {shape} and strides {strides} at {tensor.offset} does not "
                f"fit its storage of {len(numbers)} numbers"
            )
        self._bytes_left -= size * numbers.itemsize
        if self._bytes_left < 0:
            raise CheckpointError(
                f"the tensors together have more than {_MOST_SHARING} times the size of the file"
            )
        if not size:
            # NumPy refuses an empty array with a huge dimension.
            if math.prod(max(n, 1) for n in shape) > sys.maxsize // 16:
                raise CheckpointError(f"a tensor of shape {shape} is too large")
            return np.zeros(shape, storage.dtype)
        return np.lib.stride_tricks.as_strided(
            numbers[tensor.offset :],
            shape,
            # The stride of a dimension of 1 has no meaning and can be any number.
            [s * numbers.itemsize if n > 1 else 0 for n, s in zip(shape, strides, strict=True)],
            writeable=False,
        )


@contextlib.contextmanager
def open_torch_file(path: Path) -> Iterator[TorchFile]:
    """Open a file of ``torch.save`` (either format)."""
    with open_regular(path) as file:
        start = file.read(4)
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if not start:
            raise CheckpointError("the file is empty")
        if start == b"PK\x03\x04":
            bounded = _BoundedReads(io.FileIO(file.fileno(), closefd=False))
            with _archive_errors():
                archive = zipfile.ZipFile(bounded)
            bounded.most = sys.maxsize
            with archive:
                yield _open_archive(archive, size)
        elif start[:1] == b"\x80":
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                yield _open_sequence(mapped)
        else:
            raise CheckpointError(
                "the file must be written by torch.save (an archive or a pickle), or be named "
                "*.safetensors"
            )


class _BoundedReads(io.BufferedReader):
    """A file that refuses a large read. ``zipfile`` reads the directory of an archive at once."""

    most = _LARGEST_DIRECTORY

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.most:
            raise CheckpointError(f"the directory of the archive has {size} bytes, too many")
        return super().read(size)


@contextlib.contextmanager
def _archive_errors() -> Iterator[None]:
    """Turn the errors of zipfile into one error.

    A damaged entry may claim to be encrypted, of another version, or to lie anywhere.
    """
    damage = (zipfile.BadZipFile, struct.error, EOFError, ValueError, RuntimeError, OSError)
    try:
        yield
    except CheckpointError:
        raise
    except (*damage, OverflowError) as error:
        raise CheckpointError(f"the archive is truncated or damaged: {error}") from None


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    with _archive_errors():
        return archive.read(name)


def _numbers(storage: Storage, data: bytes) -> np.ndarray:
    """The numbers of a storage, which must fill its data."""
    if len(data) != storage.length * storage.dtype.itemsize:
        raise CheckpointError(
            f"storage {storage.key!r} has {len(data)} bytes, not {storage.length} {storage.dtype} "
            "numbers"
        )
    return np.frombuffer(data, storage.dtype)


def _open_archive(archive: zipfile.ZipFile, size: int) -> TorchFile:
    entries = {info.filename: info for info in archive.infolist()}
    if sum(info.file_size for info in entries.values()) > size or any(
        info.compress_type != zipfile.ZIP_STORED for info in entries.values()
    ):
        raise CheckpointError("the archive has compressed or overlapping entries")
    roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1 or roots[0].count("/") != 1:
        raise CheckpointError("the archive has no data.pkl: it was not written by torch.save")
    (root,) = roots
    if f"{root}constants.pkl" in entries:
        raise CheckpointError(
            "the file is a TorchScript archive, a program; save the module's state_dict() instead"
        )
    pickle_size = entries[f"{root}data.pkl"].file_size
    if pickle_size > _LARGEST_PICKLE:
        raise CheckpointError(f"the pickle in the archive has {pickle_size} bytes, too many")
    order = _entry(archive, f"{root}byteorder") if f"{root}byteorder" in entries else b"little"
    if order not in (b"little", b"big"):
        raise CheckpointError(f"the archive has byte order {order[:20]!r}")

    def load(storage: Storage) -> np.ndarray:
        name = f"{root}data/{storage.key}"
        if name not in entries:
            raise CheckpointError(f"the archive lacks storage {storage.key!r}")
        numbers = _numbers(storage, _entry(archive, name))
        return numbers.byteswap() if order == b"big" else numbers

    content = read_pickle(io.BytesIO(_entry(archive, f"{root}data.pkl")), {})
    return TorchFile(content, "torch.save archive", size, load)


def _open_sequence(mapped: mmap.mmap) -> TorchFile:
    # A copy of the beginning bounds what any instruction of the pickles can read.
    pickles = io.BytesIO(mapped[:_LARGEST_PICKLE])
    storages: dict[str, Storage] = {}
    if read_pickle(pickles, storages) != _MAGIC:
        raise CheckpointError("the pickle was not written by torch.save")
    if read_pickle(pickles, storages) != 1001:
        raise CheckpointError("torch.save's file has a protocol other than 1001")
    system = read_pickle(pickles, storages)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError("the file was written on a big-endian machine")
    content = read_pickle(pickles, storages)
    keys = read_pickle(pickles, storages)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError("the list of storages is damaged")

    # Behind the pickles: for each key the length as int64, then the numbers.
    places: dict[str, slice] = {}
    place = pickles.tell()
    for key in keys:
        if key not in storages:
            raise CheckpointError(f"storage {key!r} belongs to no tensor")
        (length,) = struct.unpack("<q", mapped[place : place + 8].ljust(8, b"\xff"))
        nbytes = length * storages[key].dtype.itemsize
        if length < 0 or place + 8 + nbytes > len(mapped):
            raise CheckpointError(f"the file is truncated in storage {key!r}")
        places[key] = slice(place + 8, place + 8 + nbytes)
        place = places[key].stop

    def load(storage: Storage) -> np.ndarray:
        if storage.key not in places:
            raise CheckpointError(f"the file lacks storage {storage.key!r}")
        # Slicing copies, because the arrays are used after the map is closed.
        return _numbers(storage, mapped[places[storage.key]])

    return TorchFile(content, "torch.save, before 1.6", len(mapped), load)
