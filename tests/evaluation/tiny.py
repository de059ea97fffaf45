"""A VOneNet and a data set of a few bytes, in the place of the real ones."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import data, evaluation, mesh, v1
from vone_jax.models.network import VOneNet

CONFIG = v1.VOneBlockConfig(
    simple_channels=2,
    complex_channels=2,
    image_size=12,
    visual_degrees=12 / 28,
    kernel_size=5,
    stride=4,
    in_channels=1,
    # Noise that moves predictions.
    noise=v1.GaussianNoise(3.0),
)


class TinyBackEnd(nn.Module):
    """The mean over the map and a linear layer."""

    classes: int = 3

    @nn.compact
    def __call__(self, x, train):
        return {"logits": nn.Dense(self.classes)(jnp.mean(x, axis=(1, 2)))}


def tiny_source(count=10, channels=1):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (count, 12, 12, channels)).astype(np.uint8)
    return data.ArraySource(
        images, np.arange(count) % 3, class_names=("a", "b", "c"), name="tiny", split="test"
    )


def tiny_network(noise=CONFIG.noise, seed=0, classes=3):
    """The network and its variables."""
    config = dataclasses.replace(CONFIG, noise=noise)
    model = VOneNet(v1=config, back_end=TinyBackEnd(classes), bottleneck_features=4)
    keys = {"params": jax.random.key(seed), "noise": jax.random.key(1)}
    return model, model.init(keys, jnp.zeros((1, 12, 12, 1)))


def tiny_subject(noise=CONFIG.noise, seed=0):
    model, variables = tiny_network(noise, seed)
    return evaluation.Subject(
        run="tiny-run",
        name="vone_resnet18",
        model=model,
        variables=variables,
        image_size=12,
        in_channels=1,
        center_crop=None,
        checkpoint_step=7,
        config={"seed": seed},
    )


def tiny_job(subject, results, *, devices=1, examples=None, **fields):
    fields = {"protocol": evaluation.Protocol("fresh", 3), "batch_size": 4} | fields
    return evaluation.Job(
        subject=subject,
        examples=evaluation.Examples(tiny_source(), examples),
        results=results,
        devices=mesh.data_mesh(jax.devices()[:devices]),
        provenance={"versions": {}, "command": "test"},
        **fields,
    )
