"""A VOneNet and a data set of a few bytes, in the place of the real ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tests.networks import MeanBackEnd
from vone_jax import data, evaluation, mesh, models, runs, training, v1
from vone_jax.network import Network

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
# The training of a network with this V1.
EXPERIMENT = training.Experiment(
    name="tiny",
    model=models.Spec(
        name="vone_resnet18", image_size=12, in_channels=1, num_classes=10, v1=CONFIG
    ),
    data=training.DataConfig(source="fashion_mnist_small", eval_split="test"),
)


def tiny_source(count=10, channels=1, class_names=("a", "b", "c")):
    """Images of the classes "a", "b" and "c" in turn; their labels are places in class_names."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (count, 12, 12, channels)).astype(np.uint8)
    labels = np.array([class_names.index("abc"[i % 3]) for i in range(count)])
    return data.ArraySource(images, labels, class_names=class_names, name="tiny", split="test")


def tiny_images(count=10):
    """The first images of the source as float32 in [0, 1], and their classes."""
    source = tiny_source()
    images = np.stack([source[i]["image"] for i in range(count)]).astype(np.float32) / 255
    return images, np.arange(count) % 3


def run_of(experiment, model, variables):
    """A run as ``runs.load_run`` returns it."""
    described = training.RunDescription(experiment, experiment, (), 0)
    return runs.Run(7, described, model, variables)


def tiny_network(noise=CONFIG.noise, seed=0, classes=3):
    """The network and its variables."""
    config = dataclasses.replace(CONFIG, noise=noise)
    back_end = MeanBackEnd(classes)
    model = models.create("vone_resnet18", classes, v1=config, back_end=back_end, width=4)
    keys = {"params": jax.random.key(seed), "noise": jax.random.key(1)}
    return model, model.init(keys, jnp.zeros((1, 12, 12, 1)))


def tiny_trained(noise=CONFIG.noise, seed=0, module=None, **fields):
    model, variables = module or tiny_network(noise, seed)
    fields = {
        "architecture": "vone_resnet18",
        "checkpoint_step": 7,
        **fields,
    }
    return Network.of_model("tiny-run", model, variables, **fields)


def tiny_evaluation(
    network, directory, *, source=None, devices=1, examples=None, draws=3, **fields
):
    """An evaluation of few examples."""
    source = source or tiny_source()
    usual = {
        "examples": len(source) if examples is None else examples,
        "protocol": evaluation.Protocol("fresh", draws),
        "mesh": mesh.data_mesh(jax.devices()[:devices]),
        "batch_size": 4,
        "provenance": {"command": "test"},
        "trained_on": True,
    }
    return evaluation.Evaluation(network, source, directory, **usual | fields)


def first_batch(plan, condition):
    """The first batch of a condition."""
    how = plan.protocol_of(condition), plan.attack_noise
    return next(plan.data.batches(condition, *how))
