"""Files of ``torch.save``, read without PyTorch and without trusting them.

Two formats: an archive of a pickle and one entry for each storage (PyTorch 1.6 and later), and a
sequence of pickles followed by the storages (before; the published VOneNets). Neither is larger in
memory than on disk: entries must be stored uncompressed, and a tensor may not be larger than the
storage it looks into.
"""

import contextlib
import dataclasses
import io
import math
import mmap
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vone_jax.convert.errors import CheckpointError
from vone_jax.convert.pickle_reader import STORAGES, Global, StoredTensor, read_pickle

_MAGIC = 0x1950A86A20F9469CFC6C
_LARGEST_PICKLE = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class Storage:
    """A storage that a pickle refers to: its key in the file, type and length."""

    key: str
    dtype: np.dtype
    length: int


class TorchFile:
    """An open file of ``torch.save``.

    Attributes:
      content: what was saved, with ``StoredTensor`` for tensors, see ``read_pickle``.
      format: which of the formats it is, in words.
    """

    def __init__(self, content: Any, format: str, buffers: "_Buffers"):
        self.content = content
        self.format = format
        self._buffers = buffers

    def array(self, tensor: StoredTensor) -> np.ndarray:
        """The numbers of a tensor, as a read-only view of the file's.

        Raises:
          CheckpointError: if the storage is missing, damaged or too small for the tensor.
        """
        storage = tensor.storage
        if not isinstance(storage, Storage):
            raise CheckpointError("a tensor in the pickle has no storage")
        numbers = self._buffers.read(storage)
        shape, strides = tensor.shape, tensor.strides
        size = math.prod(shape)
        last = tensor.offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        # The first condition refuses a small storage that is repeated by strides of zero.
        if size and (size > len(numbers) or last >= len(numbers)):
            raise CheckpointError(
                f"a tensor of shape {shape} and strides {strides} at {tensor.offset} does not "
                f"fit its storage of {len(numbers)} numbers"
            )
        if not size:
            return np.zeros(shape, storage.dtype)
        return np.lib.stride_tricks.as_strided(
            numbers[tensor.offset :],
            shape,
            [s * numbers.itemsize for s in strides],
            writeable=False,
        )


@contextlib.contextmanager
def open_torch_file(path: str | Path) -> Iterator[TorchFile]:
    """Opens a file of ``torch.save`` (either format).

    Raises:
      CheckpointError: if it is damaged, truncated, or holds anything but data.
      OSError: if it cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if size == 0:
            raise CheckpointError("the file is empty")
        start = file.read(4)
        file.seek(0)
        if start == b"PK\x03\x04":
            with _archive_errors():
                archive = zipfile.ZipFile(file)
            with archive:
                yield _open_archive(archive, size)
        elif start[:1] == b"\x80":
            # Reading from a memory map never allocates more than the file has.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                yield _open_sequence(mapped)
        else:
            raise CheckpointError(
                "the file is none of torch.save's (an archive or a pickle) and not named "
                "*.safetensors"
            )


@contextlib.contextmanager
def _archive_errors() -> Iterator[None]:
    """Whatever zipfile makes of a damaged archive, as one error.

    A damaged entry may claim to be encrypted, of another version, or to lie anywhere.
    """
    damage = (zipfile.BadZipFile, struct.error, EOFError, ValueError, RuntimeError, OSError)
    try:
        yield
    except damage as error:
        raise CheckpointError(f"the archive is truncated or damaged: {error}") from None


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    with _archive_errors():
        return archive.read(name)


def _open_archive(archive: zipfile.ZipFile, size: int) -> TorchFile:
    entries = {info.filename: info for info in archive.infolist()}
    if sum(info.file_size for info in entries.values()) > size or any(
        info.compress_type != zipfile.ZIP_STORED for info in entries.values()
    ):
        raise CheckpointError("the archive has compressed or overlapping entries")
    roots = [name[: -len("data.pkl")] for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1 or roots[0].count("/") != 1:
        raise CheckpointError("the archive has no data.pkl: it was not written by torch.save")
    root = roots[0]
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
    content = read_pickle(io.BytesIO(_entry(archive, f"{root}data.pkl")), _Storages())
    return TorchFile(content, "torch.save archive", _ArchiveBuffers(archive, root, order == b"big"))


def _open_sequence(mapped: mmap.mmap) -> TorchFile:
    if read_pickle(mapped, _Storages()) != _MAGIC:
        raise CheckpointError("the pickle was not written by torch.save")
    if read_pickle(mapped, _Storages()) != 1001:
        raise CheckpointError("torch.save's file has a protocol other than 1001")
    system = read_pickle(mapped, _Storages())
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError("the file was written on a big-endian machine")
    storages = _Storages()
    content = read_pickle(mapped, storages)
    keys = read_pickle(mapped, _Storages())
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError("the list of storages is damaged")
    return TorchFile(
        content, "torch.save, before 1.6", _SequenceBuffers(mapped, keys, storages.by_key)
    )


class _Storages:
    """Storages by persistent id: ``("storage", class, key, location, length)``.

    Files of the older format add a view, which is None for everything that was saved since 2017.
    """

    def __init__(self):
        self.by_key: dict[str, Storage] = {}

    def __call__(self, identity: tuple) -> Storage:
        if (
            len(identity) not in (5, 6)
            or identity[0] != "storage"
            or identity[5:]
            not in (
                (),
                (None,),
            )
        ):
            raise CheckpointError("the pickle refers to something outside that is not a storage")
        _, kind, key, _, length = identity[:5]
        if not isinstance(kind, Global) or not isinstance(key, str) or type(length) is not int:
            raise CheckpointError("the description of a storage is damaged")
        name = STORAGES.get(kind.name.removeprefix("torch."))
        if name is None or length < 0:
            raise CheckpointError(f"a storage of {length} {kind.name} is not supported")
        dtype = np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)
        storage = Storage(key, dtype, length)
        if self.by_key.setdefault(key, storage) != storage:
            raise CheckpointError(f"storage {key[:40]!r} is described in two ways")
        return storage


class _Buffers:
    """The storages of a file, each read once."""

    def __init__(self):
        self._numbers: dict[str, np.ndarray] = {}

    def read(self, storage: Storage) -> np.ndarray:
        if storage.key not in self._numbers:
            self._numbers[storage.key] = self._load(storage)
        return self._numbers[storage.key]

    def _load(self, storage: Storage) -> np.ndarray:
        raise NotImplementedError


class _ArchiveBuffers(_Buffers):
    def __init__(self, archive: zipfile.ZipFile, root: str, big_endian: bool):
        super().__init__()
        self._archive = archive
        self._root = root
        self._big_endian = big_endian

    def _load(self, storage: Storage) -> np.ndarray:
        try:
            data = _entry(self._archive, f"{self._root}data/{storage.key}")
        except KeyError:
            raise CheckpointError(f"the archive lacks storage {storage.key!r}") from None
        if len(data) != storage.length * storage.dtype.itemsize:
            raise CheckpointError(
                f"storage {storage.key!r} has {len(data)} bytes, not {storage.length} "
                f"{storage.dtype} numbers"
            )
        numbers = np.frombuffer(data, storage.dtype)
        return numbers.byteswap() if self._big_endian else numbers


class _SequenceBuffers(_Buffers):
    """Behind the pickles: for each key the length as int64, then the numbers."""

    def __init__(self, mapped: mmap.mmap, keys: list[str], storages: dict[str, Storage]):
        super().__init__()
        self._data: dict[str, tuple[int, int]] = {}
        self._mapped = mapped
        place = mapped.tell()
        for key in keys:
            if key not in storages:
                raise CheckpointError(f"storage {key!r} belongs to no tensor")
            (length,) = struct.unpack("<q", mapped[place : place + 8].ljust(8, b"\xff"))
            nbytes = length * storages[key].dtype.itemsize
            if length < 0 or place + 8 + nbytes > len(mapped):
                raise CheckpointError(f"the file is truncated in storage {key!r}")
            self._data[key] = (place + 8, nbytes)
            place += 8 + nbytes

    def _load(self, storage: Storage) -> np.ndarray:
        if storage.key not in self._data:
            raise CheckpointError(f"the file lacks storage {storage.key!r}")
        place, nbytes = self._data[storage.key]
        if nbytes != storage.length * storage.dtype.itemsize:
            raise CheckpointError(f"storage {storage.key!r} has not the length it should have")
        # Slicing copies: the map is closed before the arrays are.
        return np.frombuffer(self._mapped[place : place + nbytes], storage.dtype)
