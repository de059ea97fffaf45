"""EfficientNets in files: names of tensors, other sizes, and the normalisation."""

import pytest

from tests.convert.conftest import equal, filled
from vone_jax import convert
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
