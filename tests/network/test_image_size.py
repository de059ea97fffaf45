"""The size of images and the stride of the stem are two things."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vone_jax
from tests import networks
from tests.networks import random_variables, small
from vone_jax import convert, models
from vone_jax.convert.checkpoint import write_safetensors


def logits(network, images):
    call = jax.jit(lambda logits_fn, *given: logits_fn(*given))
    return call(network.logits_fn, jax.random.split(jax.random.key(0), len(images)), images)


def test_the_size_of_images_changes_neither_weights_nor_strides():
    base = models.create("resnet18", 3, width=2)
    network = vone_jax.Network.of_model("base", base, random_variables(base))
    small = network.with_image_size(64)
    assert (small.image_shape, small.model.image_size) == ((64, 64, 3), 64)
    assert small.model.spec.stem_size == base.spec.stem_size and small.checksum == network.checksum
    assert small.description != network.description
    images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
    np.testing.assert_array_equal(logits(small, images), logits(network, images))


def test_v1_keeps_its_kernels_at_another_size():
    model = models.create("vone_resnet18", 3, image_size=64, width=2)
    network = vone_jax.Network.of_model("vone", model, {"params": {}}).with_image_size(96)
    assert (network.v1.image_size, network.v1.visual_degrees) == (96, 3.0)
    assert network.v1.pixels_per_degree == model.v1.pixels_per_degree
    quiet = network.quiet()
    assert quiet.v1.image_size == 96 and quiet.trained.v1.image_size == 96


@pytest.mark.parametrize("name", ["resnet18", "vone_resnet18"])
@pytest.mark.parametrize("size", [64, 224])
def test_a_size_that_was_given_is_not_called_assumed(name, size, tmp_path):
    model = small(name)
    path = tmp_path / "net.safetensors"
    tensors = convert.to_torch(model, random_variables(model))
    write_safetensors(path, tensors, {"format": "pt"})
    assumed = vone_jax.open_network(path)
    (note,) = (note for note in assumed.notes if "image size" in note)
    assert note == "image size that the file does not say: 224 pixels"
    others = tuple(each for each in assumed.notes if each != note)
    assert vone_jax.open_network(path, image_size=size).notes == others
    assert vone_jax.open_network(assumed, image_size=size).notes == others


def test_functions_have_the_size_that_they_state():
    network = networks.cnn()
    assert vone_jax.open_network(network, image_size=28).image_size == 28
    with pytest.raises(ValueError, match="image_size must be left out for cnn: .* 28 pixels"):
        vone_jax.open_network(network, image_size=32)


@pytest.mark.extras
@pytest.mark.slow
def test_a_checkpoint_of_torchvision_has_its_logits_at_the_size_it_was_trained_with(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: convert)")
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    torch.manual_seed(0)
    module = torchvision.models.resnet18(num_classes=3).eval()
    torch.save(module.state_dict(), tmp_path / "trained_at_64.pth")
    network = vone_jax.open_network(tmp_path / "trained_at_64.pth", image_size=64)
    assert network.image_shape == (64, 64, 3)
    pixels = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    normal = (pixels - np.float32(network.model.mean)) / np.float32(network.model.std)
    with torch.no_grad():
        expected = module(torch.from_numpy(normal.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(logits(network, jnp.asarray(pixels)), expected, rtol=1e-3, atol=1e-3)
