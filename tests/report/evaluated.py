"""Run directories of a tiny network and its VOneNet, written by ``eval.py``."""

import contextlib
import io
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from tests.results import built
from vone_jax import training, v1
from vone_jax.cli import evaluate as program
from vone_jax.models.network import BaseNetwork, VOneNet
from vone_jax.training import run_dir as run_dirs

V1 = v1.VOneBlockConfig(
    simple_channels=4,
    complex_channels=4,
    image_size=28,
    visual_degrees=1.0,
    kernel_size=9,
    stride=2,
    in_channels=1,
    noise=v1.NeuronalNoise(),
)
_FAST = ["--examples", "40", "--batch-size", "20", "--draws", "2"]
# Suite -> the options that it reads.
_FAST_SUITE = {
    "linf": ["--steps", "2", "--eot-samples", "2"],
    "gallery": ["--gallery-images", "10"],
    "corruptions": ["--corruptions", "contrast", "gaussian_noise", "--severities", "1", "3"],
}
SUITES = ("clean", "linf", "gallery", "corruptions", "v1")


class Stem(nn.Module):
    """A convolution."""

    @nn.compact
    def __call__(self, x, train):
        return {"stem": nn.relu(nn.Conv(4, (3, 3), strides=2)(x))}


class BackEnd(nn.Module):
    """The mean over the map and a linear layer."""

    @nn.compact
    def __call__(self, x, train):
        return {"logits": 30 * nn.Dense(10)(jnp.mean(x, axis=(1, 2)))}


def network(name):
    """The tiny network and its variables."""
    if name == "resnet18":
        model = BaseNetwork(Stem(), BackEnd(), (0.5,), (0.5,))
    else:
        model = VOneNet(v1=V1, back_end=BackEnd(), bottleneck_features=4)
    keys = {"params": jax.random.key(0), "noise": jax.random.key(1)}
    return model, model.init(keys, jnp.zeros((1, 28, 28, 1)))


def evaluate(directory, name, suites=SUITES, *options):
    """Write the results of a network into a run directory. Only its training is left out."""
    directory.mkdir(parents=True, exist_ok=True)
    experiment = training.Experiment(
        name=name,
        model=training.ModelConfig(
            name=name,
            image_size=28,
            in_channels=1,
            num_classes=10,
            v1=V1 if name.startswith("vone_") else None,
        ),
        data=training.DataConfig(source="fashion_mnist_small"),
    )
    config = {"format": 1, "command": "python train.py", "device": "cpu", "parameters": 62}
    config |= {"experiment": training.to_json(experiment), "versions": {}}
    (directory / "config.json").write_text(json.dumps(config))
    built.write_log(directory)
    chosen = [suite for suite in suites if suite != "v1" or name.startswith("vone_")]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(run_dirs, "load_run", lambda path, step=None: (7, experiment, *network(name)))
        described = training.RunDescription(experiment)
        patch.setattr(run_dirs, "read_run", lambda path: described)
        fast = [*_FAST, *(word for suite in chosen for word in _FAST_SUITE.get(suite, ()))]
        status = program.main([str(directory), "--suite", *chosen, *fast, *options])
    assert status == 0
    return directory
