"""PyTorch state dicts as Flax variables, and back. Names are in ``names``."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vone_jax import models
from vone_jax.convert.names import (
    BACK_END,
    BANKS,
    BOTTLENECKS,
    COUNTER,
    leaf_name,
    read_names,
    table,
)
from vone_jax.convert.subcortical import subcortical_tensors
from vone_jax.convert.torch_file import CheckpointError
from vone_jax.models import V1_MODULES, Model, VOneNet, init
from vone_jax.models.architecture import known

# The convention of networks whose convention is not said.
_DEFAULT = "timm"


def _to_flax(tensor: np.ndarray, axes: int) -> np.ndarray:
    """OIHW -> HWIO for convolutions, (out, in) -> (in, out) for linear layers.

    Some files have a linear layer as a 1x1 convolution, or a vector with axes of 1 behind it.
    """
    if tensor.ndim > axes and set(tensor.shape[axes:]) == {1}:
        tensor = tensor.reshape(tensor.shape[:axes])
    return tensor.transpose({4: (2, 3, 1, 0), 2: (1, 0)}.get(tensor.ndim, range(tensor.ndim)))


def _to_torch(leaf: np.ndarray) -> np.ndarray:
    """HWIO -> OIHW for convolutions, (in, out) -> (out, in) for linear layers."""
    return leaf.transpose({4: (3, 2, 0, 1), 2: (1, 0)}.get(leaf.ndim, range(leaf.ndim)))


def _names(
    spec: models.Spec, paths: Any, convention: str
) -> dict[tuple[str, ...], tuple[str, str]]:
    """Path -> our name and that of the tensor, for the variables of a network."""
    if spec.front_end is not None or spec.back_end is not None:
        raise ValueError("parts of your own have no names in files of PyTorch; use save_folder")
    _, names = table(spec, convention)
    found = {}
    for path in paths:
        ours = leaf_name(path[1:])
        if ours == "bottleneck.weight":
            found[path] = ours, BOTTLENECKS[spec.front]
            continue
        theirs = names.theirs(ours)
        if theirs is None:
            raise ValueError(
                f"no kind of PyTorch's files has a name for {'/'.join(path)}; use save_folder"
            )
        found[path] = ours, f"{BACK_END if spec.front else ''}{theirs}"
    return found


def from_state_dict(model: Model, state_dict: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Fill the variables of a network with the tensors of a PyTorch state dict.

    The network has the architecture, width and number of classes of the state dict. The names have
    no ``module.`` in front. The state dict must not contain the Gabor bank (``vone_block.*``) or
    the subcortical stage, which are part of ``model``. ``num_batches_tracked`` is ignored.

    Returns:
      float32 ``{"params": ..., "batch_stats": ...}``, the latter for networks with batch norms.

    Raises:
      CheckpointError: (a ValueError) listing all problems: leaves without a tensor, tensors
        without a leaf, shapes that differ, values that are not finite or not floating point,
        variances below 0.
    """
    variables, problems = fill(model, state_dict)
    if problems:
        raise CheckpointError("the state dict does not fit the network:", problems)
    return variables


def fill(model: Model, state_dict: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], list[str]]:
    """Do the same as ``from_state_dict``, but return the problems instead of raising them."""
    spec, targets = model.spec, abstract_variables(model)
    read = read_names(models.family(spec.name), state_dict, spec.front)
    convention, names = table(spec, read.convention if read else _DEFAULT)
    inside = BACK_END if spec.front else ""
    by_our_name = {}
    for name in state_dict:
        if name.startswith(inside) and not name.endswith(COUNTER):
            by_our_name.setdefault(names.ours(name.removeprefix(inside)), name)
    unused = {name for name in state_dict if not name.endswith(COUNTER)}
    problems, filled = [], {}
    for path, (ours, theirs) in _names(spec, targets, convention).items():
        name, target = by_our_name.get(ours, theirs), targets[path]
        if name not in state_dict:
            problems.append(f"missing: {name} for {'/'.join(path)}")
            continue
        unused.discard(name)
        tensor = np.asarray(state_dict[name])
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            problems.append(f"type: {name} is {tensor.dtype}, not floating point")
            continue
        layout = known(spec.options).layout(spec, ours, convention)
        value = layout[0](tensor) if layout else _to_flax(tensor, len(target.shape))
        if value.shape != target.shape:
            problems.append(
                f"shape: {name} gives {value.shape}, {'/'.join(path)} has {target.shape}"
            )
            continue
        value = np.ascontiguousarray(value, np.float32)
        if not np.all(np.isfinite(value)):
            problems.append(f"not finite: {name}")
        if path[-1] == "var" and np.any(value < 0):
            problems.append(f"negative variance: {name}")
        # A copy: the tensor may be a view of a file.
        filled[path] = jnp.array(value)
    problems += [f"unused: {name}" for name in sorted(unused)]
    return unflatten_dict(filled), problems


def to_torch(model: Model, variables: Any, convention: str = _DEFAULT) -> dict[str, np.ndarray]:
    """The state dict that the original's (or torchvision's, CORnet's) model class loads.

    Transformers and ConvNeXts have the names of ``convention``, "timm", "torchvision" or "meta".
    Other networks have one set of names. For a VOneNet it includes the Gabor bank, with every
    filter in the one input channel that it reads; for an EVNet, also the subcortical stage.
    ``num_batches_tracked`` is 0, as no batches are counted.

    Returns:
      float32 (int64 for the counters) NumPy arrays by name. ``from_torch`` of a file with them
      gives back the same model and variables, bit for bit.

    Raises:
      ValueError: if variables are not those of the model, or if it has a learned normalisation,
        for which the original has no place. ``models.with_fixed_bank`` makes a tuned bank fit.
    """
    values = checked_variables(model, flatten_dict(variables))
    if names := sorted({path[1] for path in values} & {*V1_MODULES}):
        cure = "; models.with_fixed_bank makes a tuned bank fit" if "block" in names else ""
        raise ValueError(
            f"the original has no place for what is learned in {', '.join(names)}{cure}"
        )
    tensors = _front_end_tensors(model) if isinstance(model, VOneNet) else {}
    convention, _ = table(model.spec, convention)
    for path, (ours, name) in _names(model.spec, values, convention).items():
        layout = known(model.spec.options).layout(model.spec, ours, convention)
        to_theirs = layout[1] if layout else _to_torch
        tensors[name] = np.ascontiguousarray(to_theirs(values[path]))
        if path[-1] == "var":
            tensors[name.replace("running_var", COUNTER)] = np.array(0, np.int64)
    return tensors


def _front_end_tensors(model: VOneNet) -> dict[str, np.ndarray]:
    tensors = {} if model.subcortical is None else subcortical_tensors(model.subcortical)
    parameters = model.v1.gabor_parameters()
    channels = (parameters.channel, parameters.channel_quadrature)
    bank = BANKS[model.spec.front]
    for name, kernels, channel in zip(bank, model.v1.gabor_kernels(), channels, strict=True):
        n, k, _ = kernels.shape
        tensors[name] = np.zeros((n, model.v1.in_channels, k, k), np.float32)
        tensors[name][np.arange(n), channel] = kernels
    return tensors


def abstract_variables(model: Model) -> dict[tuple[str, ...], Any]:
    """Path -> shape and type of every variable of a network, without computing anything."""
    return flatten_dict(jax.eval_shape(lambda key: init(model, key), jax.random.key(0)))


def checked_variables(
    model: Model, variables: Mapping[tuple[str, ...], Any]
) -> dict[tuple[str, ...], np.ndarray]:
    """Return variables as NumPy arrays in the network's order; raise if they do not fit it."""
    arrays = {path: np.asarray(leaf) for path, leaf in variables.items()}
    expected = abstract_variables(model)
    problems = [f"missing: {'.'.join(path)}" for path in sorted(expected.keys() - arrays.keys())]
    problems += [f"unused: {'.'.join(path)}" for path in sorted(arrays.keys() - expected.keys())]
    for path in sorted(expected.keys() & arrays.keys()):
        name, array, shape = ".".join(path), arrays[path], expected[path].shape
        if array.shape != shape or array.dtype != np.float32:
            problems.append(
                f"shape: {name} is {array.dtype}{array.shape}, the network has float32{shape}"
            )
        elif not np.isfinite(array).all():
            problems.append(f"not finite: {name}")
    if problems:
        raise CheckpointError("the variables do not fit the network:", problems)
    return {path: arrays[path] for path in expected}
