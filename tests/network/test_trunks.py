"""A tiny VOneViT in the tools that take any network."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vone_jax
from tests.networks import random_variables
from vone_jax import certification, models, prng, v1
from vone_jax import mesh as meshes
from vone_jax.certification.bounds import sensitivities
from vone_jax.cli import convert as command
from vone_jax.convert.checkpoint import read_safetensors
from vone_jax.neurophysiology import measured
from vone_jax.perception import synthesis
from vone_jax.perception.geometry import check_layer
from vone_jax.training import DataConfig, Experiment
from vone_jax.training.objectives.similarity import correlation
from vone_jax.training.step import initial_state, make_train_step

V1 = v1.VOneBlockConfig(
    simple_channels=4, complex_channels=4, image_size=16, visual_degrees=16 / 28, in_channels=1,
    kernel_size=7, stride=2, noise=v1.NeuronalNoise(level=2.0),
)  # fmt: skip
FORM = {"num_classes": 3, "width": 8, "depth": 2, "heads": 2}
STAGES = ("patches", "block1", "block2", "norm")


@pytest.fixture(scope="module")
def network():
    model = models.create("vone_vit_ti16", v1=V1, **FORM)
    variables = jax.tree.map(lambda leaf: leaf - np.float32(1.0), random_variables(model))
    return vone_jax.Network.of_model("vit", model, variables)


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(5), (4, 16, 16, 1))


def test_a_certificate_counts_the_votes_of_the_network(network, images):
    """The bound is that of V1, and the votes are those of the network with fresh noise."""
    classifier = certification.from_model(network.model, network.variables)
    found = certification.certify(
        jax.random.key(0), classifier, images, choose=20, draws=100, at_once=100, progress=False
    )
    bound = sensitivities(V1, (16, 16))
    assert classifier.bounds((16, 16, 1)) == bound
    many = jnp.repeat(images, 100, axis=0)
    logits = jax.jit(network.logits_fn)(jax.random.key(1), many)
    shares = np.stack(
        [np.bincount(each, minlength=3) / 100 for each in np.argmax(logits, -1).reshape(4, 100)]
    )
    votes = found.votes / 100
    # Four standard errors of the difference of two shares.
    np.testing.assert_allclose(votes, shares[np.arange(4), found.prediction], atol=0.29)
    sure = votes > 0.9
    assert sure.any() and np.all(found.l2[sure] > 0)


def test_layers_have_the_names_that_tools_take(network, images):
    """Physiology shows a small network larger images, so its table of positions is resized."""
    assert measured.layers_of(network, ("all",)) == ("v1", "bottleneck", *STAGES)
    shown = measured.display(network).image_size
    assert shown > 16
    keys = jax.random.split(jax.random.key(0), 2)
    larger = jax.eval_shape(network.features, keys, jnp.zeros((2, shown, shown, 1)))
    assert larger["block1"].shape == (2, shown // 4, shown // 4, 8)
    assert larger["class_token"].shape == (2, 8)
    features = network.features(jax.random.split(jax.random.key(0), 4), images)
    for layer in (*STAGES, "class_token", "logits"):
        check_layer(network, layer)
        assert np.isfinite(correlation(features[layer])).all()


def test_layers_of_a_convnext_have_the_names_that_tools_take():
    model = models.create("vone_convnext_t", 3, v1=V1, width=4, depth=(1, 1))
    network = vone_jax.Network.of_model("convnext", model, random_variables(model))
    stages = ("patches", "stage1", "stage2")
    assert measured.layers_of(network, ("all",)) == ("v1", "bottleneck", *stages)
    for layer in (*stages, "avgpool", "logits"):
        check_layer(network, layer)


def test_a_layer_of_a_transformer_has_metamers(network, images):
    """With the noise frozen, responses agree to more than those of any two images do."""
    key = jax.random.key(3)
    response_fn = network.response_fn("class_token")
    found = synthesis.metamers(key, response_fn, images, rounds=3, steps=40, step_size=0.1)
    keys = prng.example_keys(prng.stream(key, "noise"), len(images))
    target, reached = (np.asarray(response_fn(keys, x)) for x in (images, found.images[0]))
    error = np.linalg.norm(reached - target, axis=1) / np.linalg.norm(target, axis=1)
    np.testing.assert_allclose(found.error[0], error, rtol=0.05, atol=1e-5)
    assert found.matched(synthesis.null_decibel(target)).all()
    assert np.abs(found.images[0] - images).max(axis=(1, 2, 3)).min() > 0.1


@pytest.mark.slow
def test_a_training_step_is_the_same_in_any_parts():
    """With stochastic depth, since each example drops by its own key."""
    form = {**FORM, "depth": 1, "patch_size": 8, "attachment": "patches"}
    config = models.create("vit_ti16", image_size=16, in_channels=1, drop_path=0.5, **form).spec
    experiment = Experiment("step", config, DataConfig("tiny", batch_size=8), steps=3)
    model, mesh = experiment.build(), meshes.data_mesh(jax.devices()[:1])
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.random((8, 16, 16, 1)).astype(np.float32),
        "label": np.arange(8, dtype=np.int32) % 3,
        "index": np.arange(8, dtype=np.uint32),
    }
    params, losses = [], []
    for parts in (1, 2):
        step = make_train_step(model, replace(experiment, accumulation_steps=parts), 3, mesh)
        state = meshes.replicate(mesh, meshes.fetch(initial_state(experiment, model)))
        state, metrics = step(state, meshes.shard_batch(mesh, batch))
        params.append(meshes.fetch(state).params)
        losses.append(float(metrics.sums.loss))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), *params)


@pytest.mark.filterwarnings("ignore:this vit_ti16 has")
def test_the_command_writes_the_names_of_a_library(tmp_path, capsys):
    model = models.create("vit_ti16", image_size=16, in_channels=1, **FORM)
    variables = random_variables(model)
    vone_jax.convert.save_torch(tmp_path / "net.safetensors", model, variables)
    out = tmp_path / "torchvision.safetensors"
    words = [str(tmp_path / "net.safetensors"), "--out", str(out), "--names", "torchvision"]
    assert command.main([*words, "--image-size", "24"]) == 0
    tensors, _ = read_safetensors(out)
    assert tensors["encoder.pos_embedding"].shape == (1, 37, 8)
    assert "vit_ti16" in capsys.readouterr().out
    assert vone_jax.open_network(out).image_size == 24
