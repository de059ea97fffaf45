"""A module of PyTorch that no converter knows: its logits and gradients reach JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vone_jax
from vone_jax import attacks
from vone_jax.network import NetworkError, of_torch

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: convert)")
pytestmark = pytest.mark.extras


def module(seed=0):
    torch.manual_seed(seed)
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(36, 5)
    )


def test_logits_gradients_and_attacks_are_those_of_the_module():
    network = vone_jax.open_network(of_torch("mine", module(), (8, 8, 3)))
    assert (network.num_classes, network.stochastic) == (5, False)
    assert network.parameters == sum(p.numel() for p in module().parameters()) + 8
    images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    pixels = torch.tensor(images.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    theirs = module().eval()(pixels)
    theirs.square().sum().backward()
    keys = jax.random.split(jax.random.key(0), 3)

    def loss(images):
        return (network.logits_fn(keys, images) ** 2).sum()

    found = jax.jit(network.logits_fn)(keys, jnp.asarray(images))
    np.testing.assert_allclose(found, theirs.detach(), rtol=1e-5, atol=1e-6)
    slope = jax.jit(jax.grad(loss))(jnp.asarray(images))
    expected = pixels.grad.permute(0, 2, 3, 1)
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-6)
    labels = jnp.argmax(found, axis=1)
    attack = attacks.PGD("linf", 0.1, steps=3, step_size=0.05)
    moved = attack(jax.random.key(1), network.logits_fn, jnp.asarray(images), labels)
    assert (np.abs(moved - images).max() <= 0.1 + 1e-6) and (moved != images).any()


def test_layers_are_recorded_by_the_names_of_modules():
    network = vone_jax.open_network(of_torch("mine", module(), (8, 8, 3), layers=("2", "3", "0")))
    assert network.layers == ("2", "3", "0")
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    pixels = torch.tensor(images.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    theirs = module().eval()[:3](pixels)
    theirs.square().sum().backward()
    keys = jax.random.split(jax.random.key(0), 2)
    gelu = network.response_fn("2")
    expected = theirs.detach().permute(0, 2, 3, 1)
    np.testing.assert_allclose(jax.jit(gelu)(keys, images), expected, rtol=1e-5, atol=1e-6)
    slope = jax.grad(lambda x: (gelu(keys, x) ** 2).sum())(jnp.asarray(images))
    np.testing.assert_allclose(slope, pixels.grad.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-6)
    # A layer without a map has one axis, in PyTorch's order; convolutions take any size.
    assert network.response_fn("3")(keys, images).shape == (2, 36)
    assert network.response_fn("0")(keys, images[:, :, :8]).shape == (2, 3, 3, 4)
    with pytest.raises(ValueError, match="layers must be one of 0, 1"):
        of_torch("mine", module(), (8, 8, 3), layers=("conv1",))


def test_other_weights_and_other_modules_are_other_networks():
    first = of_torch("mine", module(), (8, 8, 3))
    again, trained = (of_torch("mine", module(seed), (8, 8, 3)) for seed in (0, 1))
    assert first.checksum == again.checksum != trained.checksum
    other = module()
    other[2] = torch.nn.ReLU()
    other = of_torch("mine", other, (8, 8, 3))
    assert first.description != other.description


def test_the_error_for_a_module_has_three_lines_that_work(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Linear(3, 2)\n"
    )
    with pytest.raises(NetworkError, match="got a Linear. Write a function") as raised:
        vone_jax.open_network(f"{tmp_path}/mine.py:net")
    _, _, lines = str(raised.value).partition("of the module:\n\n")
    lines = lines.replace("...", "make()").replace("224, 224", "8, 8")
    (tmp_path / "works.py").write_text(
        f"import vone_jax\nfrom tests.network.test_pytorch import module as make\n{lines}"
    )
    assert vone_jax.open_network(f"{tmp_path}/works.py:network").num_classes == 5
    with pytest.raises(NetworkError, match="Write a function that makes a network of the module"):
        vone_jax.open_network(module())


def test_the_module_of_the_caller_stays_as_it_is():
    """It may be in the middle of its training."""
    mine = module().train()
    images = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
    network = of_torch("mine", mine, (8, 8, 3))
    before = network.logits_fn(jax.random.key(0), images)
    assert all(each.training for each in mine.modules())
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter.add_(1.0)
    np.testing.assert_array_equal(network.logits_fn(jax.random.key(0), images), before)
