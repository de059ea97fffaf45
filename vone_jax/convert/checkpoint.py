"""What people call a checkpoint, reduced to a state dict without wrappers and prefixes."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from vone_jax.convert.errors import CheckpointError
from vone_jax.convert.pickle_reader import StoredTensor
from vone_jax.convert.safetensors import read_safetensors
from vone_jax.convert.torch_file import open_torch_file

# Under which names training scripts keep the weights: the VOneNet and PyTorch examples; MadryLab's
# robustness and EVNet; others.
_HOLDERS = ("state_dict", "model", "model_state_dict", "net")
_PREFIXES = ("module.", "_orig_mod.")
# Two constants that the adversarially trained VOneResNet-50 carries and nothing reads.
_DROPPED = ("vone_block.div_u.weight", "vone_block.div_t.weight")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A state dict and what came with it.

    Attributes:
      state_dict: arrays by PyTorch name, without prefixes.
      flags: settings that a training script stored with the weights, numbers and text only.
      mean: per channel, of a normaliser that was saved with the network; None without one.
      std: the same.
      format: of the file, in words.
      notes: what was taken off, one line each.
    """

    state_dict: dict[str, np.ndarray]
    flags: dict[str, Any]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    format: str
    notes: tuple[str, ...]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a file of ``torch.save`` or safetensors. Needs no PyTorch and executes nothing.

    Raises:
      CheckpointError: if the file is damaged, hostile, or holds no state dict.
      OSError: if it cannot be read.
    """
    path = Path(path)
    notes: list[str] = []
    if path.suffix == ".safetensors":
        tensors, metadata = read_safetensors(path)
        flags = _plain_flags(_json(metadata.get("flags", "{}")))
        kind = "safetensors"
    else:
        with open_torch_file(path) as file:
            holder, flags = _find_state_dict(file.content)
            tensors = {name: file.array(tensor) for name, tensor in holder.items()}
            kind = file.format
    tensors = _without_prefix(tensors, notes)
    tensors, mean, std = _without_robustness_wrapper(tensors, notes)
    for name in _DROPPED:
        if name in tensors:
            del tensors[name]
            notes.append(f"left out: {name}, which nothing reads")
    if any(tensor.dtype == np.float64 for tensor in tensors.values()):
        notes.append("numbers in float64 are rounded to float32")
    return Checkpoint(tensors, flags, mean, std, kind, tuple(notes))


def _find_state_dict(content: Any) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
    """The dictionary of tensors in what was saved, and the flags next to it."""
    if not isinstance(content, dict):
        raise CheckpointError(
            f"the file holds a {type(content).__name__}, not a state dict or a dictionary with one"
        )
    for holder in (content, *(content.get(name) for name in _HOLDERS)):
        if isinstance(holder, dict) and any(isinstance(v, StoredTensor) for v in holder.values()):
            break
    else:
        keys = ", ".join(sorted(str(key)[:40] for key in list(content)[:20]))
        raise CheckpointError(
            f"the file holds no state dict, neither by itself nor under {', '.join(_HOLDERS)}; its "
            f"keys are: {keys}"
        )
    strange = [
        f"not a tensor: {str(name)[:80]}"
        for name, value in holder.items()
        if not isinstance(value, StoredTensor) or not isinstance(name, str)
    ]
    if strange:
        raise CheckpointError("the state dict holds something else than tensors:", strange)
    return holder, _plain_flags(content.get("flags", {}))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise CheckpointError("the flags in the metadata are not JSON") from None


def _plain_flags(flags: Any) -> dict[str, Any]:
    """The numbers and text among the flags."""
    if not isinstance(flags, dict):
        raise CheckpointError(f"the flags are a {type(flags).__name__}, not a dictionary")
    return {
        str(name): value
        for name, value in flags.items()
        if value is None or isinstance(value, (bool, int, float, str))
    }


def _without_prefix(tensors: dict[str, np.ndarray], notes: list[str]) -> dict[str, np.ndarray]:
    """Without what wrappers of PyTorch put in front of every name."""
    for prefix in _PREFIXES * 2:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): t for name, t in tensors.items()}
            notes.append(f"prefix taken off: {prefix}")
    return tensors


def _without_robustness_wrapper(
    tensors: dict[str, np.ndarray], notes: list[str]
) -> tuple[dict[str, np.ndarray], tuple[float, ...] | None, tuple[float, ...] | None]:
    """MadryLab's ``AttackerModel``: the network twice, and the normaliser twice."""
    if any(name.startswith("vone_block.") for name in tensors):
        return tensors, None, None
    copies = {n: t for n, t in tensors.items() if n.startswith("attacker.")}
    normalisers = {n: t for n, t in tensors.items() if n.startswith("normalizer.")}
    rest = {n: t for n, t in tensors.items() if n not in copies and n not in normalisers}
    if rest and all(name.startswith("model.") for name in rest):
        rest = {name.removeprefix("model."): t for name, t in rest.items()}
        notes.append("prefix taken off: model.")
    if not copies and not normalisers:
        return rest, None, None

    problems = []
    for name, tensor in copies.items():
        inner = name.removeprefix("attacker.")
        if inner.startswith("normalize."):
            original = normalisers.get(f"normalizer.{inner.removeprefix('normalize.')}")
        else:
            original = rest.get(inner.removeprefix("model."))
        if original is None or not np.array_equal(original, tensor):
            problems.append(f"differs from the network it should copy: {name}")
    values = {}
    for name in ("new_mean", "new_std"):
        value = normalisers.pop(f"normalizer.{name}", None)
        if value is None or not 1 <= value.size <= 64 or not np.isfinite(value).all():
            problems.append(f"missing or not finite: normalizer.{name}")
        else:
            values[name] = tuple(float(v) for v in np.asarray(value, np.float32).ravel())
    problems += [f"unused: {name}" for name in normalisers]
    if not problems and any(not math.isfinite(1 / v) for v in values["new_std"] if v):
        problems.append("normalizer.new_std is too small")
    if not problems and min(values["new_std"]) <= 0:
        problems.append(f"normalizer.new_std must be > 0, got {values['new_std']}")
    if problems:
        raise CheckpointError("the wrapper of the robustness package does not fit:", problems)
    notes.append("the wrapper of the robustness package was taken off, its normaliser kept")
    return rest, values["new_mean"], values["new_std"]
