"""The safetensors format: a JSON header of names, types and places, then the numbers.

Specification: https://github.com/huggingface/safetensors (format section of the README). Written
out here because it is short, and so that reading weights needs nothing that is not installed.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vone_jax.convert.errors import CheckpointError

_TYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
# The limit of the reference implementation.
_LARGEST_HEADER = 100_000_000


def read_safetensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads a file of safetensors.

    Returns:
      Arrays by name, and the metadata of the header.

    Raises:
      CheckpointError: if the file is truncated or malformed.
      OSError: if it cannot be read.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LARGEST_HEADER):
            raise CheckpointError("the safetensors file is truncated, or its header too large")
        try:
            header = json.loads(file.read(length).decode())
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"the safetensors header is not JSON: {error}") from None
        if not isinstance(header, dict):
            raise CheckpointError("the safetensors header is not an object")
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise CheckpointError("the metadata of the safetensors header is not text")
        places = {name: _place(name, entry) for name, entry in header.items()}
        end = 0
        for name, (_, _, begin, stop) in sorted(places.items(), key=lambda item: item[1][2:]):
            if begin != end:
                raise CheckpointError(f"tensor {name!r} overlaps another, or leaves a gap")
            end = stop
        if end != size - 8 - length:
            raise CheckpointError("the safetensors file is truncated, or longer than its tensors")
        arrays = {}
        for name, (dtype, shape, begin, stop) in places.items():
            file.seek(8 + length + begin)
            arrays[name] = np.frombuffer(file.read(stop - begin), dtype).reshape(shape)
        return arrays, metadata


def _place(name: str, entry: Any) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """Type, shape, first and last byte of a tensor."""
    entry = entry if isinstance(entry, dict) else {}
    kind = entry.get("dtype")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise CheckpointError(f"tensor {name!r} has a type that is not supported: {str(kind)[:40]}")
    dtype, shape, offsets = _TYPES[kind], entry.get("shape", ()), entry.get("data_offsets", ())
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(
            type(n) is int and 0 <= n < 2**62 for n in numbers
        ):
            raise CheckpointError(f"tensor {name!r} must have a shape and offsets of integers")
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise CheckpointError(f"tensor {name!r} of shape {shape} does not fill bytes {offsets}")
    return dtype, tuple(shape), offsets[0], offsets[1]


def write_safetensors(
    path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes arrays by name; the same arrays give the same bytes.

    Raises:
      ValueError: for a type of numbers that the format does not have.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, array in arrays.items():
        if array.dtype not in _NAMES:
            raise ValueError(f"{name} must be of one of {sorted(_TYPES)}, got {array.dtype}")
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # The numbers start at a multiple of 8.
    with Path(path).open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little"))
        file.write(encoded)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).tobytes())
