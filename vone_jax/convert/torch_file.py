"""Files of ``torch.save``, read without PyTorch and without running anything that is in them.

A pickle is a program that may call any function by its name. ``_Reader`` knows a list of names and
answers each of them with a class of this module, or with text. A pickle that names anything else is
refused. There are two formats: an archive of a pickle and one entry for each storage (PyTorch 1.6
and later), and a sequence of pickles followed by the storages (earlier PyTorch, and the published
VOneNets).
"""

import contextlib
import dataclasses
import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from vone_jax.progress import printable

# Tuples in a pickle. Python hashes nested ones by recursion on the stack, without a limit. A state
# dict has five for each tensor.
_MOST_TUPLES = 50_000
_MAGIC = 0x1950A86A20F9469CFC6C
# Storage class -> type of its numbers.
_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool,
}


class CheckpointError(ValueError):
    """A file that cannot be converted. The message lists every problem, one on each line.

    Names of a stranger's file end up in terminals. So control characters are replaced, and long
    lines are cut.

    Attributes:
      problems: the problems, one line each.
    """

    def __init__(self, what: str, problems: Sequence[str] = ()):
        self.problems = tuple(map(printable, problems))
        super().__init__("\n  ".join([printable(what), *self.problems]))


class _Plain:
    """What a pickle may make. To set the state of an object, or of a class, changes nothing.

    Without this method, a pickle could set any attribute of the classes below.
    """

    def __setstate__(self, state: Any) -> None:
        pass


class Ignored(_Plain):
    """A value that does not concern the weights: a path, a device, a number of NumPy, a set."""

    def __init__(self, *arguments: Any):
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Ignore an item."""

    extend = add = append


class _OrderedDict(dict, _Plain):
    """``collections.OrderedDict``; its attribute ``_metadata`` is left out."""


class _Namespace(dict):
    """The attributes of an ``argparse.Namespace``."""

    def __setstate__(self, state: dict) -> None:
        self.update(state)


class _Parameter(_Plain):
    """``torch.nn.Parameter``: its tensor."""

    def __new__(cls, data: Any, *_: Any) -> Any:
        return data


@dataclasses.dataclass
class Storage(_Plain):
    """The numbers of one or more tensors. ``read`` returns their bytes while the file is open."""

    key: str
    dtype: np.dtype
    length: int
    read: Callable[[], bytes] | None = None

    def numbers(self) -> np.ndarray:
        """Read the numbers of the storage."""
        if self.read is None:
            raise CheckpointError(f"the file lacks storage {self.key!r}")
        data = self.read()
        if len(data) != self.length * self.dtype.itemsize:
            raise CheckpointError(
                f"storage {self.key!r} has {len(data)} bytes, not {self.length} {self.dtype} "
                "numbers"
            )
        return np.frombuffer(data, self.dtype)


class StoredTensor(_Plain):
    """The place of a tensor's numbers in a storage. Offset and strides count numbers, not bytes."""

    def __init__(
        self,
        storage: Any,
        offset: Any,
        shape: Any,
        strides: Any,
        requires_grad: Any = False,
        hooks: Any = None,
        metadata: Any = None,
    ):
        if metadata:
            raise CheckpointError(
                "a tensor is stored before it is negated or conjugated, which is not read; store "
                "tensor.resolve_neg() or tensor.resolve_conj()"
            )
        if not isinstance(storage, Storage) or len(shape) != len(strides):
            raise CheckpointError("a tensor in the pickle has no storage, or no stride per axis")
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def array(self, numbers: np.ndarray) -> np.ndarray:
        """Return the tensor as a read-only view of the numbers of its storage."""
        axes = list(zip(self.shape, self.strides, strict=True))
        last = self.offset + sum((size - 1) * stride for size, stride in axes)
        positions = [self.offset, *self.shape, *self.strides]
        if min(positions) < 0 or (math.prod(self.shape) and last >= len(numbers)):
            raise CheckpointError(
                f"a tensor of shape {self.shape} and strides {self.strides} at {self.offset} does "
                f"not fit its storage of {len(numbers)} numbers"
            )
        if not math.prod(self.shape):
            return np.zeros(self.shape, numbers.dtype)
        return np.lib.stride_tricks.as_strided(
            numbers[self.offset :],
            self.shape,
            # The stride of an axis of length 1 has no meaning and can be any number.
            [stride * numbers.itemsize if size > 1 else 0 for size, stride in axes],
            writeable=False,
        )


_NAMES: dict[str, Any] = {
    "collections.OrderedDict": _OrderedDict,
    "argparse.Namespace": _Namespace,
    "torch._utils._rebuild_tensor": StoredTensor,
    "torch._utils._rebuild_tensor_v2": StoredTensor,
    "torch._utils._rebuild_parameter": _Parameter,
    **{f"torch.{kind}": kind for kind in _STORAGES},
    **dict.fromkeys(
        (
            "_codecs.encode", "collections.Counter", "collections.defaultdict",
            "builtins.set", "builtins.dict", "builtins.list",
            "__builtin__.set", "__builtin__.dict", "__builtin__.list",
            "numpy.dtype", "numpy.ndarray",
            "numpy.core.multiarray.scalar", "numpy.core.multiarray._reconstruct",
            "numpy._core.multiarray.scalar", "numpy._core.multiarray._reconstruct",
            "pathlib.PosixPath", "pathlib.WindowsPath", "torch.Size", "torch.device",
            *(f"torch.{np.dtype(dtype).name}" for dtype in _STORAGES.values()),
        ),
        Ignored,
    ),
}  # fmt: skip


class _Reader(pickle.Unpickler):
    """An unpickler that makes plain data, ``StoredTensor`` and ``Ignored``, and imports nothing."""

    def __init__(self, file: BinaryIO | io.BytesIO, storages: dict[str, Storage]):
        super().__init__(file, encoding="utf-8")
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full == "torch._utils._rebuild_tensor_v3":
            raise CheckpointError(
                "a tensor has a type that is not read, such as float8 or uint16; store "
                "tensor.float()"
            )
        if full not in _NAMES:
            raise CheckpointError(
                f"the pickle refers to {full[:100]!r}, which is not plain data. Nothing was "
                "executed. If you trust the file, load it with the program that wrote it and save "
                "its state dict alone. A whole torch.nn.Module is opened by a function, see "
                "docs/networks.md#a-module-of-pytorch"
            )
        return _NAMES[full]

    def persistent_load(self, identity: Any) -> Storage:
        """Return the storage of the identity ``("storage", class, key, location, length)``.

        Files of the older format add a view, which is None for all that was saved since 2017.
        """
        what, kind, key, _, length, *view = identity
        if (
            what != "storage"
            or kind not in _STORAGES
            or any(view)
            or type(length) is not int
            or length < 0
        ):
            raise CheckpointError(f"the pickle refers to {str(identity)[:100]}, not to a storage")
        storage = Storage(key, np.dtype(_STORAGES[kind]), length)
        if self._storages.setdefault(key, storage) != storage:
            raise CheckpointError(f"storage {key!r} is described in two ways")
        return self._storages[key]


def _load(file: BinaryIO | io.BytesIO, storages: dict[str, Storage]) -> Any:
    """Read a pickle whose instructions need no more memory or stack than a state dict does."""
    start, tuples = file.tell(), 0
    for instruction, argument, place in pickletools.genops(file):
        name = instruction.name
        # Each place of the memo takes an instruction, and Python fills all those below a place.
        memo = argument if name in ("PUT", "BINPUT", "LONG_BINPUT") else 0
        if (memo or 0) > (place or 0):
            raise CheckpointError(f"the pickle uses place {argument} of a memo that is not so long")
        tuples += name.startswith(("TUPLE", "FROZENSET"))
        if tuples > _MOST_TUPLES:
            raise CheckpointError(
                f"the pickle has more than {_MOST_TUPLES:,} tuples, which no state dict has; store "
                "the state dict alone"
            )
    file.seek(start)
    return _Reader(file, storages).load()


@contextlib.contextmanager
def open_torch_file(path: Path) -> Iterator[tuple[Any, str]]:
    """Open a file of ``torch.save``: the saved object, and the name of the format.

    The object is made of plain data, ``StoredTensor`` and ``Ignored``. The numbers of a storage can
    be read while the file is open.

    Raises:
      CheckpointError: also for errors within the context, which a damaged file causes.
    """
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        try:
            if start == b"PK\x03\x04":
                with zipfile.ZipFile(file) as archive:
                    yield _open_archive(archive), "torch.save archive"
            elif start[:1] == b"\x80":
                yield _open_sequence(file), "torch.save, before 1.6"
            else:
                raise CheckpointError(
                    "the file must be written by torch.save (an archive or a pickle), or be named "
                    "*.safetensors"
                )
        except CheckpointError:
            raise
        # The readers of pickles and archives raise almost anything on damaged files.
        except Exception as error:
            raise CheckpointError(f"the file is truncated or damaged: {error}") from error


def _open_archive(archive: zipfile.ZipFile) -> Any:
    entries = archive.namelist()
    roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise CheckpointError("the archive has no data.pkl: it was not written by torch.save")
    (root,) = roots
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(
                f"{entry.filename} is compressed, which torch.save never does; unpack the archive "
                "and pack it without compression (zip -0 -r)"
            )
    if f"{root}constants.pkl" in entries:
        raise CheckpointError(
            "the file is a TorchScript archive, a program; save the module's state_dict() instead"
        )
    order = f"{root}byteorder"
    if order in entries and archive.read(order) != b"little":
        raise CheckpointError("the file was written on a big-endian machine")
    storages: dict[str, Storage] = {}
    content = _load(io.BytesIO(archive.read(f"{root}data.pkl")), storages)
    for key, storage in storages.items():
        if (name := f"{root}data/{key}") in entries:
            storage.read = lambda name=name: archive.read(name)
    return content


def _open_sequence(file: BinaryIO) -> Any:
    storages: dict[str, Storage] = {}
    magic, protocol, system, content, keys = (_load(file, storages) for _ in range(5))
    if (magic, protocol) != (_MAGIC, 1001) or system.get("little_endian") is not True:
        raise CheckpointError(
            "the pickle was not written by torch.save, or on a big-endian machine"
        )

    def read(place: int, size: int) -> bytes:
        file.seek(place)
        return file.read(size)

    # Behind the pickles: for each key the length as int64, then the numbers.
    place, end = file.tell(), file.seek(0, io.SEEK_END)
    for key in keys:
        (length,) = struct.unpack("<q", read(place, 8))
        size = length * storages[key].dtype.itemsize
        if not 0 <= size <= end - place - 8:
            raise CheckpointError(f"the file is truncated in storage {key!r}")
        storages[key].read = lambda start=place + 8, size=size: read(start, size)
        place += 8 + size
    return content
