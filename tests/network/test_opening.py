"""Networks from anywhere: the logits are those of the source, and what is wrong is named."""

import dataclasses
import importlib
import re
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vone_jax
from tests import networks
from tests.networks import changed, random_variables, small
from tests.photographs import write_photographs
from vone_jax import cli, convert, data, functions, models, runs, training, v1
from vone_jax.network import Network, NetworkError, Split

FUNCTIONS = "tests.networks"
FILE = Path(networks.__file__)


def keys_and_images(network, count=2):
    images = np.random.default_rng(0).random((count, *network.image_shape), np.float32)
    return jax.random.split(jax.random.key(1), count), jnp.asarray(images)


@pytest.fixture(scope="module")
def vone():
    """A small VOneNet whose bank is sampled, and its variables."""
    model = small("vone_resnet18")
    return model, random_variables(model)


@pytest.mark.parametrize("spec", [f"{FUNCTIONS}:cnn", f"{FILE}:cnn", f"{FUNCTIONS}:closed_over"])
def test_a_function_returns_a_network(spec):
    network = vone_jax.open_network(spec)
    expected = networks.Cnn(networks.nnx.Rngs(0))
    keys, images = keys_and_images(network)
    found = expected.features(images)
    np.testing.assert_allclose(network.logits_fn(keys, images), found["logits"], rtol=1e-6)
    assert (network.num_classes, network.stochastic, network.model) == (10, False, None)
    assert network.parameters == 5 * 5 * 4 + 4 + 3 * 3 * 4 * 8 + 8 + 8 * 10 + 10
    assert network.source == f"function {spec}"
    # A user who prints it wants no weights.
    assert spec in repr(network) and len(repr(network)) < 500
    if network.features is None:
        assert network.name == "closed_over" and network.layers == ()
    else:
        assert (network.label, network.layers) == ("cnn", ("first", "second", "logits"))
        first = network.response_fn("first")(keys, images)
        np.testing.assert_allclose(first, found["first"], atol=1e-6)


def test_noise_is_found_or_must_be_stated():
    network = vone_jax.open_network(f"{FUNCTIONS}:noisy")
    assert network.stochastic and network.noise is None
    with pytest.raises(ValueError, match="noise of noisy cannot be changed, .* leave test_noise"):
        network.with_noise(None)
    # Made in Python, also as a member of an ensemble.
    unstated = networks.unstated()
    for made in (f"{FUNCTIONS}:unstated", unstated, vone_jax.network.ensemble([unstated] * 2)):
        with pytest.raises(NetworkError, match=r"depend on the keys; state Network\(stochastic=T"):
            vone_jax.open_network(made)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("wrong_names", NetworkError, "2 names of classes for its 10 logits; give class_names"),
        ("wrong_logits", NetworkError, r"shape \(N, classes\) for N images, .* got \(2,\)"),
        ("images_alone", NetworkError, r"images_alone: .* becomes one by lambda keys, images: f"),
        ("listed_layers", NetworkError, "features must return a dictionary of layers"),
        ("nested_layers", NetworkError, "a dictionary of layers with an array for each"),
        ("noise_of_numpy", NetworkError, r"must be a function of \(keys, images\) alone, but two"),
        ("one_key_for_all", NetworkError, "on its own pixels and key alone, .* from its own key"),
        ("last_key_for_all", NetworkError, "on its own pixels and key alone, .* from its own key"),
        ("indexed_by_values", NetworkError, "must be written in JAX, since it is compiled and"),
        ("batch_statistics", NetworkError, "on its own pixels and key alone, .* batch norm with"),
        ("not_in_jax", NetworkError, "not_in_jax: logits_fn must be written in JAX, since it is"),
        ("one_class", NetworkError, r"at least 2 classes; got \(2, 1\) for 2 images$"),
        ("not_finite", NetworkError, "finite floating-point logits, got NaN or infinite ones"),
        ("whole_numbers", NetworkError, "must return finite floating-point logits, got int32$"),
        ("nothing", NetworkError, r"\(logits_fn, .* names may be left out; got a NoneType"),
        ("oblong", ValueError, r"image_shape must be \(H, W, C\) with H = W, got \(28, 32, 1\)"),
        ("absent", NetworkError, "has no 'absent'"),
        ("SHAPE", NetworkError, "has no function 'SHAPE'"),
        # Errors of the user's code arrive as they are.
        ("raising", RuntimeError, "the weights are on another machine"),
        ("wrong_size", TypeError, "reshape"),
    ],
)
def test_functions_that_do_not_keep_the_contract(name, error, message):
    with pytest.raises(error, match=message) as raised:
        vone_jax.open_network(f"{FUNCTIONS}:{name}")
    if error is not NetworkError:
        notes = "\n".join(raised.value.__notes__)
        assert f"The error is from {FUNCTIONS}:{name}" in notes


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no.such.module:net", "there is no module 'no.such.module'"),
        ("nowhere.py:net", "there is no file nowhere.py"),
        ("nowhere.pth", "there is no network nowhere.pth. It must be a directory of train.py"),
        ("train.pyt", "did you mean train.py"),
        (str(FILE), "is a program; name its function, such as .*:network"),
        (str(FILE.parents[1] / "LICENSE"), "is no network: it must be a directory of train.py"),
        (3, "a network must be a directory of train.py, .* got 3$"),
        (f"{FUNCTIONS}:cnn+", "must stand before and behind each"),
        (f"{FUNCTIONS}:cnn+nowhere", "there is no network nowhere"),
        ("efficientnet_lite", "did you mean efficientnet_lite0"),
    ],
)
def test_what_is_not_there_is_named(spec, message):
    with pytest.raises(NetworkError, match=message):
        vone_jax.open_network(spec)


def test_names_and_shapes_that_a_network_cannot_have():
    with pytest.raises(ValueError, match="name must be usable as the name of a directory"):
        dataclasses.replace(networks.cnn(), name="../escape")
    with pytest.raises(ValueError, match=r"image_shape must be \(H, W, C\) with H = W, got 28"):
        Network("net", print, 28)
    with pytest.raises(ValueError, match="class_names must be a tuple of names, got 'abc'"):
        Network("net", print, (28, 28, 1), "abc")


def test_code_of_the_working_directory_is_found(tmp_path, monkeypatch):
    network = "lambda: (lambda keys, images: images.mean((1, 2)), (8, 8, 3))\n"
    (tmp_path / "beside_me.py").write_text(f"net = {network}")
    monkeypatch.chdir(tmp_path)
    assert vone_jax.open_network("beside_me:net").image_shape == (8, 8, 3)
    (tmp_path / "broken.py").write_text("import no_such_dependency\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        vone_jax.open_network("broken:net")
    (tmp_path / "p+q").mkdir()
    (tmp_path / "p+q" / "front.py").write_text("from beside_it import net\n")
    with pytest.raises(ModuleNotFoundError) as raised:
        vone_jax.open_network("p+q/front.py:net")
    hint = "if the module lies beside front.py, start the command with PYTHONPATH=p+q"
    assert hint in raised.value.__notes__
    # A file does not take the place of a module of Python.
    (tmp_path / "random.py").write_text(f"net = {network}")
    assert vone_jax.open_network("random.py:net").num_classes == 3
    assert importlib.import_module("random").random() < 1.0
    assert sys.modules["random"] is not sys.modules["file_random"]


def test_class_names_can_be_given():
    network = vone_jax.open_network(f"{FUNCTIONS}:without_names")
    assert network.class_names == ()
    named = vone_jax.open_network(network, class_names=[f"n{i:08d}" for i in range(10)])
    assert named.class_names[3] == "n00000003"
    with pytest.raises(NetworkError, match="has 3 names of classes for its 10 logits"):
        vone_jax.open_network(network, class_names=("a", "b", "c"))
    # Members of an ensemble that have none get them.
    both = f"{FUNCTIONS}:without_names+{FUNCTIONS}:cnn"
    with pytest.raises(ValueError, match="must have the same class_names"):
        vone_jax.open_network(both)
    names = networks.CLASS_NAMES
    assert vone_jax.open_network(both, class_names=names).class_names == tuple(names)
    # A member keeps its own names.
    with pytest.raises(ValueError, match="must have the same class_names"):
        vone_jax.open_network(both, class_names=names[::-1])


def test_a_run_says_how_its_images_were_cropped_and_validated(tmp_path, monkeypatch):
    with pytest.raises(training.RunDirectoryError, match="holds no run"):
        vone_jax.open_network(tmp_path)
    experiment = training.load_config("quickstart/resnet18", cli.configs())
    experiment = dataclasses.replace(
        experiment,
        model=dataclasses.replace(experiment.model, num_classes=10, width=2),
        data=dataclasses.replace(experiment.data, center_crop=0.5, eval_split="test"),
    )
    description = training.RunDescription(experiment, experiment, tuple("abcdefghij"), 0)
    model = experiment.build()
    loaded = runs.Run(7, description, model, random_variables(model))
    monkeypatch.setattr(runs, "load_run", lambda path, step, precision, code: loaded)
    network = vone_jax.open_network(tmp_path, step=7)
    assert network.preprocessing == data.Preprocessing(0.5)
    assert network.validation == Split("fashion_mnist_small", "test")
    assert network.checkpoint_step == 7 and network.class_names[:2] == ("a", "b")
    assert network.label == "ResNet-18"


def test_the_images_of_a_run_are_opened_only_while_they_are_the_same(tmp_path):
    """Else the run would be judged on images that it may have been trained on."""
    place = tmp_path / "val/cat/a.bmp"
    write_photographs(tmp_path, "val/cat/a.bmp", "val/dog/b.bmp")
    source = f"folder:{tmp_path}"
    split = Split(source, "val", images=data.describe(data.load(source, "val")))
    assert len(split.open()) == 2
    place.write_bytes(place.read_bytes()[:-1] + b"\x07")
    with pytest.raises(ValueError, match="it was validated on 2 with .*; name them .*--source"):
        split.open()
    write_photographs(tmp_path, "val/cat/a.bmp", "val/cat/c.bmp")
    with pytest.raises(ValueError, match="now they are 3 with"):
        split.open()
    assert len(dataclasses.replace(split, images=None).open()) == 3


@pytest.mark.slow
def test_folders_and_checkpoints_have_the_logits_of_their_source(vone, tmp_path):
    model, variables = vone
    convert.save_folder(tmp_path / "folder", model, variables)
    convert.save_torch(tmp_path / "file.pt.safetensors", model, variables)
    # A name for a directory of results, which none begins with a dot or a dash.
    shutil.copytree(tmp_path / "folder", tmp_path / "-.hidden")
    for spec, name in (
        ("folder", "folder"),
        ("-.hidden", "hidden"),
        ("file.pt.safetensors", "file"),
    ):
        network = vone_jax.open_network(tmp_path / spec)
        assert (network.name, network.architecture) == (name, "vone_resnet18")
        assert network.stochastic and network.noise == model.v1.noise
        keys, images = keys_and_images(network)
        expected = models.logits_fn(model, variables)(keys, images)
        np.testing.assert_array_equal(network.logits_fn(keys, images), expected)
        with pytest.raises(NetworkError, match="step is for a directory of train.py, got 3"):
            vone_jax.open_network(tmp_path / spec, step=3)


def test_a_folder_keeps_class_names_and_preprocessing(vone, tmp_path):
    names = tuple(f"kind {i}" for i in range(vone[0].spec.num_classes))
    squash = data.Preprocessing(squash=True, interpolation="bicubic")
    folder = convert.save_folder(tmp_path / "net", *vone, class_names=names, preprocessing=squash)
    network = vone_jax.open_network(folder)
    assert (network.class_names, network.preprocessing) == (names, squash)
    # Without its weights it is no run.
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        vone_jax.open_network(folder)


def test_a_tuned_bank_is_opened_as_a_fixed_one(tmp_path):
    config = dataclasses.replace(v1.VOneBlockConfig(4, 4, 28, 1.0, 9, 2), tuned=True)
    model = models.create("vone_cornet_z", 3, 28, v1=config, width=2)
    convert.save_folder(tmp_path / "tuned", model, random_variables(model))
    network = vone_jax.open_network(tmp_path / "tuned")
    assert not network.v1.tuned and network.v1.bank is not None


def test_the_noise_it_was_trained_with_restores_both_noises_of_an_evnet():
    model = models.create("ev_resnet18", 3, image_size=32, width=2)
    network = Network.of_model("net", model, {"params": {}})
    quiet = network.quiet()
    assert quiet.model == models.without_noise(model) and not quiet.stochastic
    again = quiet.with_noise(model.v1.noise)
    assert (again.model, again.trained, quiet.trained) == (model, None, model)
    # The layers that are recorded have the noise of the logits.
    ours, without, restored = (each.features.func for each in (network, quiet, again))
    assert ours == restored == models.features_fn(model, {"params": {}}).func
    assert without == models.features_fn(quiet.model, {"params": {}}).func != ours
    other = quiet.with_noise(v1.NeuronalNoise()).model
    assert (other.v1.noise, other.subcortical) == (v1.NeuronalNoise(), model.subcortical)
    # Without noise in V1, that of the stage before it is turned off and on.
    before = dataclasses.replace(model.v1, noise=None)
    network = Network.of_model("net", changed(model, v1=before), {"params": {}})
    assert network.stochastic and network.noise == model.subcortical.noise
    quiet = network.quiet()
    assert not quiet.stochastic and quiet.with_noise(network.noise).model == network.model


@pytest.mark.parametrize(
    ("name", "function", "layers"),
    [
        ("my_networks", "small", 2),
        ("my_equinox", "small_equinox", 0),
        ("my_params", "small_params", 0),
    ],
)
def test_the_recipes_of_the_page_run(tmp_path, name, function, layers):
    """Each has a convolution, so an image in the wrong order of axes would fail."""
    page = (FILE.parents[1] / "docs" / "networks.md").read_text()
    recipes = re.findall(r"```python\n# (\w+)\.py(.*?)```", page, re.DOTALL)
    (code,) = (code for named, code in recipes if named == name)
    (tmp_path / f"{name}.py").write_text(f"#{code}")
    network = vone_jax.open_network(f"{tmp_path}/{name}.py:{function}")
    assert len(network.layers) == layers and network.num_classes == 10
    # The weights are arguments of the compiled programs, and other ones need no other program.
    made = [getattr(sys.modules[f"file_{name}"], function)() for _ in range(2)]
    first, second = (x.logits_fn if isinstance(x, Network) else x[0] for x in made)
    assert functions.as_pytree(first, *network.inputs()) is first
    assert jax.tree.leaves(first) and jax.tree.structure(first) == jax.tree.structure(second)
