"""Files of weights: safetensors, and checkpoints, which are read without wrappers and prefixes."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vone_jax import files
from vone_jax.convert.torch_file import CheckpointError, StoredTensor, open_torch_file

# Mean and standard deviation per channel.
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
# Names under which training scripts keep the weights: the VOneNet and PyTorch examples; MadryLab's
# robustness and EVNet; others.
_HOLDERS = ("state_dict", "model", "model_state_dict", "net")
# Names of a network within the modules of PyTorch, and within those of its users.
_PREFIXES = ("module.", "_orig_mod.", "net.", "network.", "backbone.")
# Two constants of the adversarially trained VOneResNet-50 that nothing reads.
_DROPPED = ("vone_block.div_u.weight", "vone_block.div_t.weight")
# Types of safetensors that NumPy has.
_TYPES = {
    "BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "BF16", "F32", "F64", "C64"
}  # fmt: skip
# Bytes of all tensors for each byte of the file. A file may hold a network twice, as those of the
# robustness package do.
_MOST_REPEATED = 4


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A state dict and what was stored with it."""

    # Arrays by PyTorch name, without prefixes.
    state_dict: dict[str, np.ndarray]
    # Settings that a training script stored with the weights. A value that is neither a number nor
    # text is replaced by the name of its type, as "<list>".
    flags: dict[str, Any]
    # Mean and standard deviation that were saved with the network.
    normaliser: Normalisation | None
    # The name of the file format.
    format: str
    # What was removed, one line each.
    notes: tuple[str, ...]


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the arrays by name and the metadata of a file of safetensors."""
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():
                if (kind := file.get_slice(name).get_dtype()) not in _TYPES:
                    raise CheckpointError(
                        f"tensor {name!r} is of type {kind}, which is not read; store it as float32"
                    )
            arrays = {name: file.get_tensor(name) for name in file.keys()}
            return arrays, dict(file.metadata() or {})
    except CheckpointError:
        raise
    # NumPy raises the other errors for shapes and types that it does not support.
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"the safetensors file is truncated or damaged: {error}") from None


def write_safetensors(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays by name, whole or not at all."""
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    content = save(arrays, dict(metadata or {}))
    files.replace(path, lambda file: file.write(content))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of ``torch.save`` or safetensors. Needs no PyTorch and executes nothing."""
    notes: list[str] = []
    if path.suffix == ".safetensors":
        tensors, metadata = read_safetensors(path)
        try:
            flags = _plain_flags(json.loads(metadata.get("flags", "{}")))
        except (json.JSONDecodeError, RecursionError) as error:
            raise CheckpointError(f"the metadata entry 'flags' cannot be read: {error}") from None
        kind = "safetensors"
    else:
        with open_torch_file(path) as (content, kind):
            holder, flags = _find_state_dict(content)
            _check_sizes(holder, path.stat().st_size)
            numbers = {t.storage.key: t.storage.numbers() for t in holder.values()}
            tensors = {name: t.array(numbers[t.storage.key]) for name, t in holder.items()}
            notes += [
                f"left out: {name}, another state dict"
                for name, value in content.items()
                if isinstance(value, dict) and value is not holder and _tensors(value)
            ]
    tensors = _without_prefix(tensors, notes)
    tensors, normaliser = _without_robustness_wrapper(tensors, notes)
    for name in _DROPPED:
        if name in tensors:
            del tensors[name]
            notes.append(f"left out: {name}, which nothing reads")
    if any(tensor.dtype == np.float64 for tensor in tensors.values()):
        notes.append("numbers in float64 are rounded to float32")
    return Checkpoint(tensors, flags, normaliser, kind, tuple(notes))


def _find_state_dict(content: Any) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
    """The dictionary of tensors in the saved object, and the flags next to it."""
    if not isinstance(content, dict):
        raise CheckpointError(
            f"the file holds a {type(content).__name__}, not a state dict or a dictionary with one"
        )
    # Other tensors may lie beside the state dict, such as the best accuracy of a training.
    places = [content, *(content.get(name) for name in _HOLDERS)]
    holder = max((place for place in places if isinstance(place, dict)), key=_tensors)
    if not _tensors(holder):
        keys = ", ".join(sorted(str(key)[:40] for key in content))
        raise CheckpointError(
            f"the file holds no state dict, neither by itself nor under {', '.join(_HOLDERS)}; its "
            f"keys are: {keys}"
        )
    others = [
        f"not a tensor: {str(name)[:80]}"
        for name, value in holder.items()
        if not isinstance(value, StoredTensor) or not isinstance(name, str)
    ]
    if others:
        raise CheckpointError("the state dict holds something else than tensors:", others)
    return holder, _plain_flags(content.get("flags", {}))


def _check_sizes(tensors: dict[str, StoredTensor], file_size: int) -> None:
    """Raise a ``CheckpointError`` for tensors that need more memory than their file has bytes.

    Nothing is read for it. Entries of an archive can be the same bytes of the file, and tensors the
    same numbers of a storage, or one of them many times.
    """
    storages = {t.storage.key: t.storage for t in tensors.values()}.values()
    if (size := sum(each.length * each.dtype.itemsize for each in storages)) > file_size:
        raise CheckpointError(f"its storages take {size:,} bytes, the file has {file_size:,}")
    sizes = {n: math.prod(t.shape) * t.storage.dtype.itemsize for n, t in tensors.items()}
    if (total := sum(sizes.values())) > _MOST_REPEATED * file_size:
        largest = max(sizes, key=sizes.__getitem__)
        raise CheckpointError(
            f"its tensors repeat the numbers of their storages to {total:,} bytes, the file has "
            f"{file_size:,}; {largest!r} has {sizes[largest]:,}; store tensor.clone() of each"
        )


def _tensors(place: dict) -> int:
    return sum(isinstance(value, StoredTensor) for value in place.values())


def _plain_flags(flags: Any) -> dict[str, Any]:
    if not isinstance(flags, dict):
        raise CheckpointError(f"the flags are a {type(flags).__name__}, not a dictionary")
    return {
        str(name): value
        if value is None or isinstance(value, (bool, int, float, str))
        else f"<{type(value).__name__}>"
        for name, value in flags.items()
    }


def _without_prefix(tensors: dict[str, np.ndarray], notes: list[str]) -> dict[str, np.ndarray]:
    """Remove what modules around a network put in front of every name."""
    for prefix in _PREFIXES * 2:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): t for name, t in tensors.items()}
            notes.append(f"prefix taken off: {prefix}")
    return tensors


def _without_robustness_wrapper(
    tensors: dict[str, np.ndarray], notes: list[str]
) -> tuple[dict[str, np.ndarray], Normalisation | None]:
    """Remove MadryLab's ``AttackerModel``, which stores network and normaliser twice."""
    if any(name.startswith("vone_block.") for name in tensors):
        return tensors, None
    # The attacker holds a copy of both.
    rest = {name: t for name, t in tensors.items() if not name.startswith("attacker.")}
    copies = {
        name.replace("attacker.normalize.", "normalizer.", 1).removeprefix("attacker."): tensor
        for name, tensor in tensors.items()
        if name.startswith("attacker.")
    }
    if different := [
        f"{name} of the network and of its attacker"
        for name, copy in copies.items()
        if name not in rest or not np.array_equal(rest[name], copy, equal_nan=True)
    ]:
        raise CheckpointError(
            "the file holds two networks, that of the attacker and another one; they differ in",
            different,
        )
    wrapped = [f"normalizer.new_{field}" for field in ("mean", "std")]
    normaliser = None
    if all(name in rest for name in wrapped):
        mean, std = (tuple(map(float, rest.pop(name).ravel())) for name in wrapped)
        normaliser = mean, std
        notes.append("the wrapper of the robustness package was taken off, its normaliser kept")
    if rest and all(name.startswith("model.") for name in rest):
        rest = {name.removeprefix("model."): t for name, t in rest.items()}
        notes.append("prefix taken off: model.")
    return rest, normaliser
