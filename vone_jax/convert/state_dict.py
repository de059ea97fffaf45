"""PyTorch state dicts as Flax variables."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vone_jax.convert.names import source
from vone_jax.models import BaseNetwork, VOneNet


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
      ValueError: listing all problems: leaves without a tensor, tensors without a leaf, shapes
        that differ, values that are not finite.
    """
    targets = _abstract_variables(model)
    unused = {name for name in state_dict if not name.endswith("num_batches_tracked")}
    problems, filled = [], {}
    for path, target in targets.items():
        origin = source(model, path[1:])
        if origin.name not in state_dict:
            problems.append(f"missing: {origin.name} for {'/'.join(path)}")
            continue
        unused.discard(origin.name)
        value = origin.to_flax(np.asarray(state_dict[origin.name], np.float32))
        if value.shape != target.shape:
            problems.append(
                f"shape: {origin.name} gives {value.shape}, {'/'.join(path)} has {target.shape}"
            )
        elif not np.all(np.isfinite(value)):
            problems.append(f"not finite: {origin.name}")
        filled[path] = jnp.asarray(value)
    problems += [f"unused: {name}" for name in sorted(unused)]
    if problems:
        raise ValueError("the state dict does not fit the network:\n  " + "\n  ".join(problems))
    return unflatten_dict(filled)


def _abstract_variables(model: BaseNetwork | VOneNet) -> dict[tuple[str, ...], Any]:
    if isinstance(model, VOneNet):
        size, channels = model.v1.image_size, model.v1.in_channels
    else:
        size, channels = 224, len(model.mean)

    def init(key):
        images = jnp.zeros((1, size, size, channels))
        return model.init(key, images, noise_key=key)

    return flatten_dict(jax.eval_shape(init, jax.random.key(0)))
