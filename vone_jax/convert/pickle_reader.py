"""Reader of the data in a PyTorch pickle, which runs nothing that is in the pickle.

A pickle is a program. This interpreter knows the few instructions that build containers, numbers
and strings. It imports nothing, calls nothing, and describes where the numbers of a tensor lie.
A pickle that names anything else is refused. So is one that needs too much work or memory.
"""

import dataclasses
import io
import pickletools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from vone_jax.convert.untrusted import CheckpointError

# Storage class -> type of its numbers.
_STORAGES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool),
}
# Things in training checkpoints that do not concern the weights (best accuracies as NumPy
# scalars, paths, devices). They are read as ``Ignored`` and not built.
_IGNORED = {
    *("_codecs.encode", "collections.Counter", "collections.defaultdict"),
    *("builtins.set", "builtins.dict", "builtins.list"),
    *("__builtin__.set", "__builtin__.dict", "__builtin__.list"),
    *("numpy.dtype", "numpy.ndarray"),
    *("numpy.core.multiarray.scalar", "numpy.core.multiarray._reconstruct"),
    *("numpy._core.multiarray.scalar", "numpy._core.multiarray._reconstruct"),
    *("pathlib.PosixPath", "pathlib.WindowsPath", "torch.Size", "torch.device"),
    *(f"torch.{dtype.name}" for dtype in _STORAGES.values()),
}
_MARK = object()
# Each instruction costs 1, and so does each item that is copied from one container to another. A
# training checkpoint of ResNet-50 with its optimiser costs about 30 thousand. An instruction takes
# up to about 100 bytes, so the limit also bounds the memory.
_MOST_WORK = 1_000_000
# The magic number of torch.save has 80 bits, and states of random generators have 128.
_MOST_BITS = 1024
_MOST_DIMENSIONS = 8
# Larger than any real tensor, and small enough for NumPy's and Python's arithmetic.
_MOST_NUMBERS = 2**48


@dataclasses.dataclass(frozen=True)
class Ignored:
    """A value that is not needed. ``name`` is the name in the pickle."""

    name: str


@dataclasses.dataclass(frozen=True)
class Global:
    """A name that the pickle refers to, not imported."""

    name: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """A storage that a pickle refers to: its name in the file, its dtype and its length."""

    key: str
    dtype: np.dtype
    length: int


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """The place of a tensor's numbers. Offset and strides count numbers, not bytes.

    A damaged file may have something else in the place of the ``Storage``.
    """

    storage: Any
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_pickle(file: io.BytesIO, storages: dict[str, Storage]) -> Any:
    """Read the object in a pickle, up to its end mark, and leave the file position behind it.

    The object is made of numbers, strings, bytes, None; lists, tuples, dictionaries (also for
    ordered dictionaries and ``argparse.Namespace``); ``StoredTensor``; ``Ignored``. The storages of
    the tensors are added to ``storages`` by key. A pickle that is damaged, costs too much, or names
    anything that is not plain data raises a CheckpointError.
    """
    try:
        return _Machine(storages).run(file)
    except CheckpointError:
        raise
    except (ValueError, IndexError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise CheckpointError(f"the pickle is truncated or damaged: {error}") from None


class _Machine:
    """The stack machine of the pickle format, reduced to data."""

    def __init__(self, storages: dict[str, Storage]):
        self._storages = storages
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._work = 0

    def run(self, file: io.BytesIO) -> Any:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                break
            self._spend(1)
            if isinstance(argument, int) and argument.bit_length() > _MOST_BITS:
                raise CheckpointError(f"the pickle has an integer of more than {_MOST_BITS} bits")
            self._step(opcode.name, argument)
        (value,) = self._stack
        return value

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > _MOST_WORK:
            most = f"{_MOST_WORK} instructions and copied items"
            raise CheckpointError(f"the pickle has more than {most}")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in ("PROTO", "FRAME"):
            pass
        elif name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(self._pop(int(name[-1]))))
        elif name == "TUPLE":
            stack.append(tuple(self._pop_to_mark()))
        elif name == "LIST":
            stack.append(self._pop_to_mark())
        elif name == "DICT":
            items = self._pop_to_mark()
            stack.append({})
            self._set_items(items)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = self._pop(1) if name == "APPEND" else self._pop_to_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
            elif not isinstance(stack[-1], Ignored):
                raise ValueError("items appended to something that is not a list")
        elif name in ("SETITEM", "SETITEMS"):
            self._set_items(self._pop(2) if name == "SETITEM" else self._pop_to_mark())
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            # Larger integers can be made to collide in a dictionary.
            if not 0 <= int(argument) < 2**32:
                raise ValueError("an index of the memo is out of range")
            self._memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[int(argument)])
        elif name == "GLOBAL":
            stack.append(self._global(argument.replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            # ``join`` raises a TypeError for anything that is not text.
            stack.append(self._global(".".join(self._pop(2))))
        elif name in ("REDUCE", "NEWOBJ"):
            stack.append(self._build(*self._pop(2)))
        elif name == "BUILD":
            (state,) = self._pop(1)
            # OrderedDicts with attributes (a state dict's _metadata) arrive here, too.
            if isinstance(stack[-1], _Namespace) and isinstance(state, dict):
                self._spend(len(state))
                stack[-1].update(state)
            elif not isinstance(stack[-1], (dict, Ignored)):
                raise CheckpointError("the pickle sets the state of an object that is not data")
        elif name == "BINPERSID":
            stack.append(self._storage(*self._pop(1)))
        elif name == "POP":
            self._pop(1)
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            raise CheckpointError(f"the pickle uses the instruction {name}, which is not for data")

    def _pop(self, count: int) -> list[Any]:
        items = self._stack[len(self._stack) - count :]
        if len(items) != count or any(item is _MARK for item in items):
            raise ValueError("the stack ran out")
        del self._stack[-count:]
        return items

    def _pop_to_mark(self) -> list[Any]:
        for i in reversed(range(len(self._stack))):
            if self._stack[i] is _MARK:
                items = self._stack[i + 1 :]
                del self._stack[i:]
                return items
        raise ValueError("no mark on the stack")

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Ignored):
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("items set on something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_dictionary_key(key)] = value

    def _storage(self, identity: Any) -> Storage:
        """The storage with the persistent id ``("storage", class, key, location, length)``.

        Files of the older format add a view, which is None for all that was saved since 2017.
        """
        if not isinstance(identity, tuple):
            raise ValueError(f"a storage must be identified by a tuple, got {type(identity)}")
        if identity[:1] != ("storage",) or identity[5:] not in ((), (None,)) or len(identity) < 5:
            raise CheckpointError("the pickle refers to something outside that is not a storage")
        _, kind, key, _, length = identity[:5]
        if not isinstance(kind, Global) or not isinstance(key, str) or type(length) is not int:
            raise CheckpointError("the description of a storage is damaged")
        dtype = _STORAGES.get(kind.name.removeprefix("torch."))
        if dtype is None or length < 0:
            raise CheckpointError(f"a storage of {length} {kind.name} is not supported")
        storage = Storage(key, dtype, length)
        if self._storages.setdefault(key, storage) != storage:
            raise CheckpointError(f"storage {key[:40]!r} is described in two ways")
        return storage

    def _global(self, name: str) -> Any:
        if name in _IGNORED:
            return Ignored(name)
        if name in _BUILDERS or name.removeprefix("torch.") in _STORAGES:
            return Global(name)
        raise CheckpointError(
            f"the pickle refers to {name[:100]!r}, which is not plain data. Nothing was executed. "
            f"If you trust the file, load it with the program that wrote it and save its state "
            f"dict alone"
        )

    def _build(self, callee: Any, arguments: Any) -> Any:
        if isinstance(callee, Ignored):
            return callee
        if not isinstance(callee, Global) or callee.name not in _BUILDERS:
            raise CheckpointError(f"the pickle calls {type(callee).__name__}, which is not data")
        if not isinstance(arguments, tuple):
            raise ValueError("arguments must be a tuple")
        # The object that is built may copy its arguments and their items.
        self._spend(len(arguments) + sum(len(a) for a in arguments if isinstance(a, (list, tuple))))
        return _BUILDERS[callee.name](*arguments)


class _Namespace(dict):
    """The attributes of an ``argparse.Namespace``."""


def _dictionary_key(key: Any) -> Any:
    """The key itself, or ``Ignored`` for one that can be slow to hash or made to collide."""
    if isinstance(key, int) and key.bit_length() > 63:
        return Ignored("int")
    if key is None or isinstance(key, (str, int, float, bytes)):
        return key
    return Ignored(type(key).__name__)


def _tensor(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    gradient: Any = False,
    hooks: Any = None,
    metadata: Any = None,
) -> StoredTensor:
    if metadata:
        raise CheckpointError(
            "a tensor is stored before it is negated or conjugated, which is not read; store "
            "tensor.resolve_neg() or tensor.resolve_conj()"
        )
    if not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise ValueError("shape and strides of a tensor must be tuples")
    if any(type(v) is not int or not 0 <= v <= _MOST_NUMBERS for v in (offset, *shape, *strides)):
        raise ValueError(
            f"offset, shape and strides of a tensor must be integers in 0 to {_MOST_NUMBERS}"
        )
    if len(shape) > _MOST_DIMENSIONS or len(shape) != len(strides):
        raise ValueError(
            f"a tensor must have as many strides as dimensions and at most {_MOST_DIMENSIONS} "
            f"dimensions, got {len(strides)} and {len(shape)}"
        )
    return StoredTensor(storage, offset, shape, strides)


def _ordered_dict(items: Any = ()) -> dict:
    pairs = isinstance(items, (list, tuple)) and all(isinstance(i, (list, tuple)) for i in items)
    if not pairs or any(len(item) != 2 for item in items):
        raise ValueError("an ordered dictionary must be made of pairs")
    return {_dictionary_key(key): value for key, value in items}


_BUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "argparse.Namespace": lambda: _Namespace(),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
}
