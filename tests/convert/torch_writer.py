"""Writes files as ``torch.save`` does, without PyTorch, so that tests of the reader need none."""

import dataclasses
import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np

_STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "uint8": "ByteStorage",
}


@dataclasses.dataclass(frozen=True)
class Name:
    """A global that is written without being imported."""

    module: str
    attribute: str

    def __call__(self):  # Pickle wants callables.
        raise NotImplementedError


class Call:
    """The result of calling a global, as a pickle writes it."""

    def __init__(self, callee, arguments):
        self.reduced = (callee, arguments)

    def __reduce__(self):
        return self.reduced


class Stored:
    """The persistent id of a storage."""

    def __init__(self, key, array, kind=None, length=None):
        self.array = array
        kind = kind or _STORAGES[str(array.dtype)]
        length = array.size if length is None else length
        self.identity = ("storage", Name("torch", kind), key, "cpu", length)


class _Pickler(pickle._Pickler):
    """The pickler in Python, which lets names be written that do not exist here."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Name):
            self.write(b"c" + f"{obj.module}\n{obj.attribute}\n".encode())
        elif isinstance(obj, Stored):
            self.save(obj.identity, save_persistent_id=False)
            self.write(b"Q")
        else:
            super().save(obj, save_persistent_id)


def pickled(content, protocol=2):
    file = io.BytesIO()
    _Pickler(file, protocol).dump(content)
    return file.getvalue()


def tensor(storage, shape, offset=0, strides=None):
    """A tensor that looks into a storage."""
    if strides is None:
        strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    rebuild = Name("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, (storage, offset, tuple(shape), strides, False, OrderedDict()))


def with_tensors(content, storages):
    """``content`` with every array replaced by a tensor; its storages are added to the list."""
    if isinstance(content, np.ndarray):
        storages.append(Stored(str(len(storages)), content.ravel()))
        return tensor(storages[-1], content.shape)
    if isinstance(content, dict):
        return type(content)((k, with_tensors(v, storages)) for k, v in content.items())
    return content


def zipped(entries, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def archive(content, storages=None, compression=zipfile.ZIP_STORED, extra=()):
    """Bytes of an archive (PyTorch 1.6 and later)."""
    if storages is None:
        storages = []
        content = with_tensors(content, storages)
    entries = {"net/data.pkl": pickled(content), "net/version": "3\n", **dict(extra)}
    numbers = {f"net/data/{s.identity[2]}": s.array.tobytes() for s in storages}
    return zipped(entries | numbers, compression)


def sequence(content, storages=None, protocol=1001, keys=None, little_endian=True):
    """Bytes of the older format; ``keys`` lists other storages than those that follow."""
    if storages is None:
        storages = []
        content = with_tensors(content, storages)
    system = {"protocol_version": 1001, "type_sizes": {"int": 4}}
    system["little_endian"] = little_endian
    parts = [pickled(0x1950A86A20F9469CFC6C), pickled(protocol), pickled(system), pickled(content)]
    parts.append(pickled([storage.identity[2] for storage in storages] if keys is None else keys))
    for storage in storages:
        parts += [struct.pack("<q", storage.array.size), storage.array.tobytes()]
    return b"".join(parts)
