"""Small networks with random weights, and the state dicts of such."""

import dataclasses

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from vone_jax import convert, models, v1
from vone_jax.convert.checkpoint import read_checkpoint
from vone_jax.convert.state_dict import abstract_variables


def random_variables(model, seed=0):
    """Random values for every variable; nothing is compiled."""
    rng = np.random.default_rng(seed)
    return unflatten_dict(
        {
            path: (0.5 + rng.random(leaf.shape)).astype(np.float32)
            for path, leaf in abstract_variables(model).items()
        }
    )


def small(name, **arguments):
    """A narrow network in the 224-pixel form; VOneNets and EVNets have 8 + 8 filters."""
    if name.startswith("vone_"):
        arguments["v1"] = v1.VOneBlockConfig(simple_channels=8, complex_channels=8)
    if name.startswith("ev_"):
        published = models.v1_config(224, 4, name)
        arguments["v1"] = dataclasses.replace(published, simple_channels=8, complex_channels=8)
    return models.create(name, 5, width=2, **arguments)


def filled(name, **arguments):
    """A narrow network, random variables for it, and its state dict."""
    model = small(name, **arguments)
    variables = random_variables(model)
    return model, variables, convert.to_torch(model, variables)


def equal(tree, other):
    """Return True if two trees have the same leaves, bit for bit."""
    one, two = flatten_dict(jax.device_get(tree)), flatten_dict(jax.device_get(other))
    return one.keys() == two.keys() and all(
        np.array_equal(one[path], two[path]) and one[path].dtype == two[path].dtype for path in one
    )


def refused(path, content=None, match=None, read=read_checkpoint):
    """Check that a checkpoint is refused, after its content is written."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(convert.CheckpointError, match=match):
        read(path)


def folder_keeps(folder, model, variables):
    """Return True if a network comes back from a folder as it was saved."""
    convert.save_folder(folder, model, variables)
    again, values = convert.load_folder(folder)
    return again == model and equal(values, variables)


@pytest.fixture(scope="session")
def vone():
    """A VOneResNet-18, its variables and its state dict."""
    return filled("vone_resnet18")
