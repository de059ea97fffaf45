"""Learning from a teacher: the divergence by another library, and runs with teachers."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import rel_entr, softmax
from test_perturbation import context
from tiny import tiny_source

from vone_jax import convert, models, network, training
from vone_jax.cli import train
from vone_jax.training.objective import cross_entropy, divergence

CONFIG = """
from dataclasses import replace
from configs.quickstart.resnet18 import experiment as base
from vone_jax.training import Distillation
teacher = Distillation({teacher!r}, temperature=2.0, weight={weight})
experiment = replace(base, objectives=(teacher,))
"""


@pytest.fixture(scope="module")
def logits():
    """The logits of a teacher and of a network, five images and four classes."""
    return 3.0 * jax.random.normal(jax.random.key(0), (2, 5, 4))


@pytest.mark.parametrize("temperature", [0.5, 5.0])
def test_the_divergence_is_that_of_scipy(logits, temperature):
    theirs, ours = softmax(np.asarray(logits, np.float64) / temperature, axis=-1)
    expected = rel_entr(theirs, ours).sum(axis=-1)
    np.testing.assert_allclose(divergence(*logits, temperature), expected, rtol=1e-5)
    np.testing.assert_allclose(divergence(logits[0], logits[0], temperature), 0.0, atol=1e-6)
    # In float32, also where a teacher has a lower precision.
    low = logits[0].astype(jnp.bfloat16)
    np.testing.assert_allclose(
        divergence(low, low.astype(jnp.float32), temperature), 0.0, atol=1e-6
    )


def test_the_loss_weighs_labels_and_teacher(logits):
    of_labels = cross_entropy(logits[1], jnp.arange(5) % 4)
    config = training.Distillation("unused", temperature=3.0, weight=0.3)
    seen = context(name="own", resources=lambda keys, images: logits[0])
    batch = config.batch(seen, {"image": jnp.zeros((5, 2, 2, 1))})
    found = config.losses(seen, batch, logits[1], of_labels)
    expected = 0.7 * of_labels + 0.3 * divergence(*logits, 3.0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def run(directory, teacher, weight):
    config = directory / "config.py"
    config.write_text(CONFIG.format(teacher=str(teacher), weight=weight))
    size = ["--model.width=2", "--data.batch-size=32", "--log-every=1", "--steps=2"]
    return train.main([str(config), *size, "--run-dir", str(directory / "run")])


def losses(directory):
    lines = map(json.loads, (directory / "run" / "log.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["kind"] == "train"]


@pytest.mark.slow
def test_a_run_learns_from_an_ensemble(tmp_path):
    """The first loss is that of the network before the step, at the weight 1 the divergence."""
    model = models.create("resnet18", 10, image_size=28, in_channels=1, width=2)
    for name, seed in (("a", 1), ("b", 2)):
        convert.save_folder(tmp_path / name, model, models.init(model, jax.random.key(seed)))
    teacher = f"{tmp_path}/a+{tmp_path}/b"
    measured = {}
    for weight in (0.0, 0.5, 1.0):
        directory = tmp_path / str(weight)
        directory.mkdir()
        assert run(directory, teacher, weight) == 0
        measured[weight] = losses(directory)[0]
    assert measured[0.5] == pytest.approx((measured[0.0] + measured[1.0]) / 2, rel=1e-5)
    assert measured[0.0] != pytest.approx(measured[1.0], rel=0.1)
    experiment = training.read_run(tmp_path / "0.5" / "run").experiment
    assert experiment.objectives == (training.Distillation(teacher, 2.0, 0.5),)
    assert run(tmp_path / "0.5", teacher, 0.5) == 0
    convert.save_folder(tmp_path / "b", model, models.init(model, jax.random.key(3)))
    assert run(tmp_path / "0.5", teacher, 0.5) == 2


def setup(tiny, class_names):
    """The set-up of a run on the tiny data set, with some names of its classes."""
    experiment = training.resolve(tiny, tiny_source("train"))
    return training.Setup(experiment, experiment.build(), class_names=class_names)


@pytest.mark.parametrize(
    ("ours", "theirs", "fits"),
    [
        ("abc", "abc", True),
        ("abc", "acb", False),
        # Numbers are no names, but in another order they are those of other classes.
        ("abc", "012", True),
        ("012", "021", False),
    ],
)
def test_a_teacher_has_the_classes_in_their_order(tiny, ours, theirs, fits):
    teacher = network.Network(
        "teacher", lambda _, x: jnp.zeros((len(x), 3)), (8, 8, 1), tuple(theirs)
    )
    run = setup(tiny, tuple(ours))
    if fits:
        training.Distillation("x").check(run, teacher)
    else:
        with pytest.raises(ValueError, match="must have the classes of the data in their order"):
            training.Distillation("x").check(run, teacher)


def test_a_teacher_of_images_of_another_size_is_refused(tiny):
    teacher = network.Network("teacher", lambda _, x: jnp.zeros((len(x), 3)), (9, 9, 1))
    with pytest.raises(ValueError, match="images of shape"):
        training.Distillation("x").check(setup(tiny, "abc"), teacher)


def test_a_teacher_needs_a_function_that_opens_it(tiny, tmp_path):
    learning = dataclasses.replace(tiny, objectives=(training.Distillation("teacher"),))
    with pytest.raises(ValueError, match="'teacher'; give open_network=vone_jax.open_network"):
        training.train(learning, tmp_path)
