"""EfficientNets in files: names of tensors, other sizes, and the normalisation."""

import numpy as np
import pytest

from tests.convert.conftest import equal, filled, small
from vone_jax import convert, models
from vone_jax.convert.checkpoint import write_safetensors


@pytest.fixture(scope="module", params=["b0", "lite0"])
def network(request):
    return filled(f"efficientnet_{request.param}")


def write(tensors, path):
    write_safetensors(path, tensors)
    return path


def test_a_plain_state_dict_has_the_default_normalisation(network, tmp_path):
    model, variables, tensors = network
    again, values = convert.from_torch(write(tensors, tmp_path / "net.safetensors"))
    assert again == model and equal(values, variables)


@pytest.mark.slow
def test_names_are_those_of_torchvision_and_tensorflows_port():
    """Behind V1, torchvision's numbers begin at the first stage, as in EVNet."""
    places = {
        "efficientnet_b0": (
            "features.0.1.running_var", "features.1.0.block.1.fc2.bias",
            "features.4.2.block.3.0.weight", "features.8.0.weight", "classifier.1.bias",
        ),
        "vone_efficientnet_b0": (
            "model.features.0.0.block.1.fc2.bias", "model.features.3.2.block.3.0.weight",
            "model.features.7.0.weight", "model.classifier.1.bias",
        ),
        "efficientnet_lite0": (
            "_conv_stem.weight", "_blocks.0._bn1.weight", "_blocks.1._bn0.bias",
            "_blocks.7._depthwise_conv.weight", "_blocks.15._bn2.running_mean", "_bn1.weight",
            "_fc.bias",
        ),
        "vone_efficientnet_lite0": (
            "model._blocks.0._project_conv.weight", "model._conv_head.weight",
        ),
    }  # fmt: skip
    for name, expected in places.items():
        assert set(expected) <= set(filled(name)[2])


def test_other_efficientnets_are_named(network, tmp_path):
    """B1 has 23 blocks, for instance."""
    tensors = dict(network[2])
    for name, copy in (
        ("features.7.0.block.0.0.weight", "features.7.1.block.0.0.weight"),
        ("_blocks.15._bn1.weight", "_blocks.16._bn1.weight"),
    ):
        tensors |= {copy: tensors[name]} if name in tensors else {}
    with pytest.raises(convert.CheckpointError, match="an EfficientNet with 17 blocks; known are"):
        convert.read(write(tensors, tmp_path / "net.safetensors"))


@pytest.mark.slow
def test_another_normalisation_is_written_as_a_flag(tmp_path):
    other = {"mean": models.IMAGENET_MEAN, "std": models.IMAGENET_STD}
    model, variables, _ = filled("efficientnet_lite0", **other)
    path = tmp_path / "net.safetensors"
    convert.save_torch(path, model, variables)
    again, values = convert.from_torch(path)
    assert again == model and equal(values, variables)
    odd = small("efficientnet_lite0", mean=(0.1,) * 3)
    with pytest.raises(ValueError, match="have no name in a checkpoint of PyTorch"):
        convert.save_torch(path, odd, variables)


def test_a_tensor_of_another_layout_does_not_fit(network, tmp_path):
    tensors = dict(network[2])
    name = next(n for n, t in tensors.items() if t.ndim == 4 and t.shape[1:] == (1, 5, 5))
    tensors[name] = np.ascontiguousarray(tensors[name].transpose(1, 0, 2, 3))
    with pytest.raises(convert.CheckpointError, match=f"shape: {name}"):
        convert.read(write(tensors, tmp_path / "net.safetensors"))
