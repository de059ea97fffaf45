"""PyTorch state dicts as Flax variables, and back."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vone_jax.convert.architecture import BANK
from vone_jax.convert.errors import CheckpointError
from vone_jax.convert.names import source
from vone_jax.models import BaseNetwork, VOneNet

_COUNTER = "num_batches_tracked"


def from_state_dict(
    model: BaseNetwork | VOneNet, state_dict: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Fills the variables of a network with the tensors of a PyTorch state dict.

    Args:
      model: the network, of the architecture, width and number of classes of the state dict.
      state_dict: arrays by PyTorch name, without ``module.`` in front and without the Gabor
        bank (``vone_block.*``), which is part of ``model``. ``num_batches_tracked`` is ignored.

    Returns:
      ``{"params": ..., "batch_stats": ...}`` (the latter where the network has batch norms),
      float32.

    Raises:
      CheckpointError: (a ValueError) listing all problems: leaves without a tensor, tensors
        without a leaf, shapes that differ, values that are not finite or not floating point.
    """
    variables, problems = fill(model, state_dict)
    if problems:
        raise CheckpointError("the state dict does not fit the network:", problems)
    return variables


def fill(
    model: BaseNetwork | VOneNet, state_dict: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], list[str]]:
    """As ``from_state_dict``, with the problems returned instead of raised."""
    targets = abstract_variables(model)
    unused = {name for name in state_dict if not name.endswith(_COUNTER)}
    problems, filled = [], {}
    for path, target in targets.items():
        origin = source(model, path[1:])
        if origin.name not in state_dict:
            problems.append(f"missing: {origin.name} for {'/'.join(path)}")
            continue
        unused.discard(origin.name)
        tensor = np.asarray(state_dict[origin.name])
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            problems.append(f"type: {origin.name} is {tensor.dtype}, not floating point")
            continue
        value = origin.to_flax(tensor)
        if value.shape != target.shape:
            problems.append(
                f"shape: {origin.name} gives {value.shape}, {'/'.join(path)} has {target.shape}"
            )
            continue
        value = np.ascontiguousarray(value, np.float32)
        if not np.all(np.isfinite(value)):
            problems.append(f"not finite: {origin.name}")
        # A copy: the tensor may be a view of a file.
        filled[path] = jnp.array(value)
    problems += [f"unused: {name}" for name in sorted(unused)]
    return unflatten_dict(filled), problems


def to_torch(model: BaseNetwork | VOneNet, variables: Any) -> dict[str, np.ndarray]:
    """The state dict that the original's (or torchvision's, CORnet-S's) model class loads.

    Names, shapes and layouts are PyTorch's; a VOneNet's includes its Gabor bank with every filter
    in the one input channel that it reads. ``num_batches_tracked`` is 0: nothing here counts.

    Args:
      model: the network.
      variables: ``{"params": ..., "batch_stats": ...}``.

    Returns:
      float32 (int64 for the counters) NumPy arrays by name. ``from_torch`` of a file with them
      gives back the same model and variables, bit for bit.

    Raises:
      ValueError: if variables are not those of the model.
    """
    values: dict[tuple[str, ...], Any] = flatten_dict(jax.device_get(variables))
    expected = abstract_variables(model)
    problems = [f"missing: {'/'.join(path)}" for path in expected.keys() - values.keys()]
    problems += [f"unknown: {'/'.join(path)}" for path in values.keys() - expected.keys()]
    problems += [
        f"shape: {'/'.join(path)} is {values[path].shape}, not {target.shape}"
        for path, target in expected.items()
        if path in values and values[path].shape != target.shape
    ]
    if problems:
        raise CheckpointError("the variables are not those of the model:", sorted(problems))
    tensors = _bank_tensors(model) if isinstance(model, VOneNet) else {}
    for path in expected:
        origin = source(model, path[1:])
        tensors[origin.name] = np.ascontiguousarray(origin.to_torch(np.asarray(values[path])))
        if path[-1] == "var":
            tensors[origin.name.replace("running_var", _COUNTER)] = np.array(0, np.int64)
    return tensors


def _bank_tensors(model: VOneNet) -> dict[str, np.ndarray]:
    parameters = model.v1.gabor_parameters()
    tensors = {}
    for name, kernels, channel in zip(
        BANK,
        model.v1.gabor_kernels(),
        (parameters.channel, parameters.channel_quadrature),
        strict=True,
    ):
        n, k, _ = kernels.shape
        tensors[name] = np.zeros((n, model.v1.in_channels, k, k), np.float32)
        tensors[name][np.arange(n), channel] = kernels
    return tensors


def abstract_variables(model: BaseNetwork | VOneNet) -> dict[tuple[str, ...], Any]:
    """Path -> shape and type of every variable of a network, without computing anything."""
    if isinstance(model, VOneNet):
        size, channels = model.v1.image_size, model.v1.in_channels
    else:
        size, channels = 224, len(model.mean)

    def init(key):
        images = jnp.zeros((1, size, size, channels))
        return model.init(key, images, noise_key=key)

    return flatten_dict(jax.eval_shape(init, jax.random.key(0)))
