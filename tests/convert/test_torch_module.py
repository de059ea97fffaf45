"""The program in PyTorch that is written beside an exported VOneNet gives its logits."""

import importlib.util

import jax
import numpy as np
import pytest

from vone_jax import convert, models, v1
from vone_jax.cli.convert import main

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: convert)")
pytestmark = pytest.mark.extras


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "alexnet", "cornet_s", "cornet_z"])
def test_logits_are_those_of_the_network(name, tmp_path):
    noise = v1.NeuronalNoise()
    config = v1.VOneBlockConfig(4, 4, image_size=64, visual_degrees=2.0, kernel_size=9, noise=noise)
    model = models.create(f"vone_{name}", 3, v1=config, width=4)
    # Scales, biases and statistics differ between channels, and no layer overflows or falls silent.
    rng = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda x: x + rng.uniform(0, 0.1, x.shape).astype(np.float32) if x.ndim == 1 else x,
        dict(models.init(model, jax.random.key(0))),
    )
    variables["batch_stats"] = jax.tree.map(lambda x: x / 4, variables.get("batch_stats", {}))
    convert.save_folder(tmp_path / "net", model, variables, class_names=("a", "b", "c"))
    assert main([str(tmp_path / "net"), "--out", str(tmp_path / "out.pth")]) == 0
    spec = importlib.util.spec_from_file_location("out_torch", tmp_path / "out_torch.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    network = program.load()
    assert program.CLASS_NAMES == ("a", "b", "c") and not network.training
    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    quiet = models.logits_fn(models.with_noise(model, None), variables)
    expected = np.asarray(quiet(jax.random.split(jax.random.key(0), 2), images))
    pixels = torch.tensor(images.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    noisy = network(pixels)
    network.noisy = False
    found = network(pixels)
    assert (noisy != found).any()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5 * scale)
    found.sum().backward()
    assert torch.isfinite(pixels.grad).all()
