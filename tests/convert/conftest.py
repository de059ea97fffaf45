"""Small networks with random weights, and the state dicts of such."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.convert.torch_writer import archive, sequence
from tests.networks import random_variables, small
from vone_jax import convert
from vone_jax.convert.checkpoint import read_checkpoint


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


@pytest.fixture(params=[archive, sequence])
def write(request, tmp_path):
    """Writes content in one of the formats of ``torch.save`` and gives the path."""

    def write(*args, **kwargs):
        path = tmp_path / "file.pth"
        path.write_bytes(request.param(*args, **kwargs))
        return path

    return write


@pytest.fixture(scope="session")
def vone():
    """A VOneResNet-18, its variables and its state dict."""
    return filled("vone_resnet18")
