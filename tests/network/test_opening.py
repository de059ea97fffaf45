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
from tests.convert.conftest import random_variables, small
from tests.network import user_networks
from vone_jax import cli, convert, data, models, prng, training, v1
from vone_jax.network import Network, NetworkError, ensemble
from vone_jax.network.network import Split
from vone_jax.training import run as run_dirs

FUNCTIONS = "tests.network.user_networks"
FILE = Path(user_networks.__file__)


def keys_and_images(network, count=2):
    images = np.random.default_rng(0).random((count, *network.image_shape), np.float32)
    return jax.random.split(jax.random.key(1), count), jnp.asarray(images)


@pytest.fixture(scope="module")
def vone():
    """A small VOneNet whose bank is sampled, and its variables."""
    model = small("vone_resnet18")
    return model, random_variables(model)


@pytest.mark.parametrize("spec", [f"{FUNCTIONS}:cnn", f"{FILE}:cnn"], ids=["module", "file"])
def test_a_function_returns_a_network(spec):
    network = vone_jax.open_network(spec)
    expected = user_networks.Cnn(user_networks.nnx.Rngs(0))
    keys, images = keys_and_images(network)
    found = expected.features(images)
    np.testing.assert_allclose(network.logits_fn(keys, images), found["logits"], rtol=1e-6)
    np.testing.assert_allclose(
        network.response_fn("first")(keys, images), found["first"], atol=1e-6
    )
    assert (network.num_classes, network.stochastic, network.model) == (10, False, None)
    assert network.parameters == 5 * 5 * 4 + 4 + 3 * 3 * 4 * 8 + 8 + 8 * 10 + 10
    assert network.source == f"function {spec}"
    # A user who prints it wants no weights.
    assert spec in repr(network) and len(repr(network)) < 500


def test_a_function_gets_float32_where_64_bits_are_enabled(monkeypatch):
    def logits(keys, images):
        assert images.dtype == jnp.float32
        return images.mean((1, 2))

    monkeypatch.setattr(user_networks, "small", lambda: (logits, (8, 8, 3)), raising=False)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        network = vone_jax.open_network(f"{FUNCTIONS}:small")
    assert network.num_classes == 3


def test_functions_that_close_over_weights_are_the_same_network():
    network = vone_jax.open_network(f"{FUNCTIONS}:closed_over")
    other = vone_jax.open_network(f"{FUNCTIONS}:cnn")
    keys, images = keys_and_images(network)
    np.testing.assert_array_equal(network.logits_fn(keys, images), other.logits_fn(keys, images))
    assert network.parameters == other.parameters
    assert (network.name, network.features) == ("closed_over", None)


def test_a_network_of_equinox():
    import equinox

    network = vone_jax.open_network(f"{FUNCTIONS}:equinox_mlp")
    mlp = equinox.nn.MLP(784, 10, 16, 1, key=jax.random.key(0))
    keys, images = keys_and_images(network)
    expected = [mlp(image.reshape(-1)) for image in images]
    np.testing.assert_allclose(network.logits_fn(keys, images), expected, rtol=1e-5)


def test_other_weights_and_other_programs_have_other_checksums(monkeypatch):
    def checksum(name):
        network = vone_jax.open_network(f"{FUNCTIONS}:{name}")
        return network.checksum, network.description["program"]

    first = checksum("closed_over")
    assert checksum("closed_over") == first != checksum("noisy")
    monkeypatch.setattr(user_networks.nnx, "relu", jnp.tanh)
    assert checksum("closed_over") != first
    monkeypatch.undo()
    changed = user_networks.Cnn(user_networks.nnx.Rngs(1))
    monkeypatch.setattr(user_networks, "Cnn", lambda rngs: changed)
    assert checksum("closed_over") != first


def test_weights_that_are_replaced_in_place_have_another_checksum():
    """Otherwise a second evaluation would find the results of the first."""
    module = user_networks.Cnn(user_networks.nnx.Rngs(0))

    def features(keys, images):
        return module.features(images)

    def logits(keys, images):
        return features(keys, images)["logits"]

    network = vone_jax.Network("trained", logits, (28, 28, 1), features=features)
    first, kernel = network.checksum, module.head.kernel[...]
    module.head.kernel[...] = 2 * kernel
    again = dataclasses.replace(network)
    assert network.checksum == again.checksum != first
    module.head.kernel[...] = kernel
    assert network.checksum == first


def test_other_features_have_another_checksum():
    """Physiology records them, so its results are of another network."""
    network = vone_jax.open_network(f"{FUNCTIONS}:cnn")

    def with_features(features):
        changed = dataclasses.replace(network, features=features)
        return changed.checksum, changed.description

    scale = jnp.ones((1, 1))
    first = with_features(lambda keys, images: {"logits": images.mean((1, 2)) * scale})
    assert first != (network.checksum, network.description) != with_features(None)
    scale = 2 * jnp.ones((1, 1))
    assert first != with_features(lambda keys, images: {"logits": images.mean((1, 2)) * scale})


def test_exported_programs_with_other_weights_have_other_checksums():
    """An artefact holds its weights in the text of its program."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    images = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)

    def artefact(scale):
        weights = scale * np.ones((784, 10), np.float32)
        logits = jax.jit(lambda keys, images: images.reshape(len(images), -1) @ weights)
        return jax.export.export(logits, platforms=["cpu"])(keys, images).serialize()

    def checksum(artefact):
        exported = jax.export.deserialize(artefact)
        return Network("artefact", exported.call, (28, 28, 1)).checksum

    first, second = map(artefact, (1, 2))
    assert checksum(first) == checksum(first) != checksum(second)


def test_noise_is_found_or_must_be_stated():
    network = vone_jax.open_network(f"{FUNCTIONS}:noisy")
    assert network.stochastic and network.noise is None
    with pytest.raises(NetworkError, match=r"depend on the keys; state Network\(stochastic=True"):
        vone_jax.open_network(f"{FUNCTIONS}:unstated")
    with pytest.raises(ValueError, match="noise of noisy cannot be changed, .* leave test_noise"):
        network.with_noise(None)
    # Made in Python, also as a member of an ensemble.
    for made in (user_networks.unstated(), ensemble([user_networks.unstated()] * 2)):
        with pytest.raises(NetworkError, match="network unstated: the logits depend on the keys"):
            vone_jax.open_network(made)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("wrong_names", NetworkError, "2 names of classes for its 10 logits; give class_names"),
        (
            "wrong_logits",
            NetworkError,
            r"logits of shape \(N, classes\) for N images, .* got \(2,\)",
        ),
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
        ("demanding", TypeError, "missing 1 required positional argument: 'path'"),
        ("absent", NetworkError, "has no function 'absent'"),
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
        (str(FILE), "is a program; name its function, such as .*:network"),
        (str(FILE.parent / "__init__.py"), "is a program"),
        (
            str(Path(__file__).parents[2] / "LICENSE"),
            "is no network: it must be a directory of tra",
        ),
    ],
)
def test_what_is_not_there_is_named(spec, message):
    with pytest.raises(NetworkError, match=message):
        vone_jax.open_network(spec)


def test_another_type_is_no_network():
    with pytest.raises(NetworkError, match="a network must be a directory of train.py, .* got 3$"):
        vone_jax.open_network(3)


def test_a_module_of_the_working_directory_is_found(tmp_path, monkeypatch):
    (tmp_path / "beside_me.py").write_text(
        "net = lambda: (lambda keys, images: images.mean((1, 2)), (8, 8, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert vone_jax.open_network("beside_me:net").image_shape == (8, 8, 3)
    (tmp_path / "broken.py").write_text("import no_such_dependency\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        vone_jax.open_network("broken:net")
    (tmp_path / "nested").mkdir()
    (tmp_path / "nested" / "front.py").write_text("from beside_it import net\n")
    with pytest.raises(ModuleNotFoundError) as raised:
        vone_jax.open_network("nested/front.py:net")
    hint = "if the module lies beside front.py, start the command with PYTHONPATH=nested"
    assert hint in raised.value.__notes__


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
        vone_jax.open_network(tmp_path / "file.pt.safetensors", step=3)


@pytest.mark.slow
def test_unequal_numbers_of_cells_can_be_stated(tmp_path):
    """The original's script writes the number of simple cells for both kinds."""
    config = v1.VOneBlockConfig(simple_channels=6, complex_channels=10, image_size=224)
    model = models.create("vone_resnet18", 3, v1=config, width=2)
    variables = random_variables(model)
    path = tmp_path / "unequal.safetensors"
    convert.save_torch(path, model, variables)
    tensors, metadata = convert.checkpoint.read_safetensors(path)
    wrong = metadata["flags"].replace('"complex_channels": 10', '"complex_channels": 6')
    assert wrong != metadata["flags"]
    convert.checkpoint.write_safetensors(path, tensors, metadata | {"flags": wrong})
    with pytest.raises(convert.CheckpointError, match="12"):
        vone_jax.open_network(path)
    network = vone_jax.open_network(path, v1_fields={"simple_channels": 6})
    assert (network.v1.simple_channels, network.v1.complex_channels) == (6, 10)
    keys, images = keys_and_images(network, 1)
    expected = models.logits_fn(model, variables)(keys, images)
    np.testing.assert_array_equal(network.logits_fn(keys, images), expected)


def test_class_names_can_be_given(vone):
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
    names = user_networks.CLASS_NAMES
    assert vone_jax.open_network(both, class_names=names).class_names == tuple(names)
    # A member keeps its own names.
    with pytest.raises(ValueError, match="must have the same class_names"):
        vone_jax.open_network(both, class_names=names[::-1])


def test_a_run_says_how_its_images_were_cropped_and_validated(tmp_path, monkeypatch):
    experiment = training.load_config("quickstart/resnet18", cli.configs())
    experiment = dataclasses.replace(
        experiment,
        model=dataclasses.replace(experiment.model, num_classes=10, width=2),
        data=dataclasses.replace(experiment.data, center_crop=0.5, eval_split="test"),
    )
    description = training.RunDescription(experiment, experiment, tuple("abcdefghij"), 0)
    model = experiment.build()
    loaded = training.Run(7, description, model, models.init(model, jax.random.key(0)))
    monkeypatch.setattr(run_dirs, "load_run", lambda path, step: loaded)
    network = vone_jax.open_network(tmp_path)
    assert network.preprocessing == data.Preprocessing(0.5)
    assert network.validation == Split("fashion_mnist_small", "test")
    assert network.checkpoint_step == 7 and network.class_names[:2] == ("a", "b")


def test_an_ensemble_has_the_noise_of_any_member_and_the_images_of_all():
    noisy, plain = (vone_jax.open_network(f"{FUNCTIONS}:{name}") for name in ("noisy", "cnn"))
    assert ensemble([plain, noisy]).stochastic and not ensemble([plain, plain]).stochastic
    images = Split("fashion_mnist_small", "test")
    seen = dataclasses.replace(plain, validation=images)
    assert ensemble([seen, seen]).validation == images
    other = dataclasses.replace(plain, validation=Split("fashion_mnist_small", "train"))
    assert ensemble([seen, other]).validation is None


def test_a_network_without_features_has_no_layers():
    with pytest.raises(ValueError, match=r"layers of cnn\+cnn cannot be seen, it has no features"):
        ensemble([user_networks.cnn()] * 2).response_fn("first")


def test_members_that_see_other_parts_of_an_image_are_refused():
    network = vone_jax.open_network(f"{FUNCTIONS}:cnn")
    cropped = dataclasses.replace(network, preprocessing=data.Preprocessing(0.5))
    with pytest.raises(ValueError, match="must have the same preprocessing"):
        ensemble([network, cropped])


@pytest.mark.slow
def test_a_network_without_its_noise_is_the_same_otherwise(vone):
    model, variables = vone
    network = vone_jax.Network.of_model("net", model, variables)
    quiet = network.quiet()
    assert not quiet.stochastic and quiet.trained == model and quiet.checksum == network.checksum
    again = quiet.with_noise(model.v1.noise)
    assert again.trained is None and again.stochastic
    keys, images = keys_and_images(network)
    np.testing.assert_array_equal(again.logits_fn(keys, images), network.logits_fn(keys, images))
    assert np.abs(quiet.logits_fn(keys, images) - network.logits_fn(keys, images)).max() > 0


def test_the_noise_it_was_trained_with_restores_both_noises_of_an_evnet():
    model = models.create("ev_resnet18", 3, image_size=32, width=2)
    network = vone_jax.Network.of_model("net", model, {"params": {}})
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
    network = vone_jax.Network.of_model("net", model.clone(v1=before), {"params": {}})
    assert network.stochastic and network.noise == model.subcortical.noise
    quiet = network.quiet()
    assert not quiet.stochastic and quiet.with_noise(network.noise).model == network.model


def test_a_run_directory_that_holds_none(tmp_path):
    with pytest.raises(training.RunDirectoryError, match="holds no run"):
        vone_jax.open_network(tmp_path)


def test_names_and_shapes_that_a_network_cannot_have():
    with pytest.raises(ValueError, match="name must be usable as the name of a directory"):
        dataclasses.replace(user_networks.cnn(), name="../escape")
    with pytest.raises(ValueError, match=r"image_shape must be \(H, W, C\) with H = W, got 28"):
        Network("net", print, 28)
    with pytest.raises(ValueError, match="class_names must be a tuple of names, got 'abc'"):
        Network("net", print, (28, 28, 1), "abc")


@pytest.mark.parametrize(
    ("name", "function", "layers"), [("my_networks", "small", 2), ("my_equinox", "network", 0)]
)
def test_the_recipes_of_the_page_run(tmp_path, name, function, layers):
    """Each has a convolution, so an image in the wrong order of axes would fail."""
    page = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()
    recipes = re.findall(r"```python\n# (\w+)\.py(.*?)```", page, re.DOTALL)
    (code,) = (code for named, code in recipes if named == name)
    (tmp_path / f"{name}.py").write_text(f"#{code}")
    network = vone_jax.open_network(f"{tmp_path}/{name}.py:{function}")
    assert len(network.layers) == layers and network.num_classes == 10
    # The weights are arguments of the compiled programs.
    assert jax.tree.leaves(network.logits_fn)


@pytest.mark.slow
def test_an_ensemble_has_the_mean_of_the_logits_of_its_members(vone, tmp_path):
    """Each member draws noise of its own, and gradients reach both."""
    model, variables = vone
    other = jax.tree.map(lambda leaf: 0.9 * leaf, variables)
    for name, weights in (("one", variables), ("two", other)):
        convert.save_folder(tmp_path / name, model, weights)
    network = vone_jax.open_network(f"{tmp_path}/one+{tmp_path}/two")
    assert (network.name, network.stochastic, network.model) == ("one+two", True, None)
    keys, images = keys_and_images(network)
    logits = [
        models.logits_fn(model, weights)(prng.fold(keys, i), images)
        for i, weights in enumerate((variables, other))
    ]
    found = network.logits_fn(keys, images)
    np.testing.assert_allclose(found, (logits[0] + logits[1]) / 2, rtol=1e-5, atol=1e-5)
    same = vone_jax.open_network(f"{tmp_path}/one+{tmp_path}/one")
    assert network.checksum != same.checksum


@pytest.mark.slow
def test_variants_of_v1_share_the_program_behind_it(vone):
    """They differ in their weights, their cells, their noise, and whether their bank is tuned."""
    model, _ = vone
    simple = {"simple_channels": 16, "complex_channels": 0}
    members = [
        Network.of_model(f"variant-{number}", variant, models.init(variant, jax.random.key(number)))
        for number, variant in enumerate(
            model.clone(v1=dataclasses.replace(model.v1, **change))
            for change in ({}, simple, {"noise": None, "sf_max": 4.0}, {"tuned": True})
        )
    ]
    keys, images = keys_and_images(members[0])

    def mean_of_each(keys, images):
        each = [m.logits_fn(prng.fold(keys, i), images) for i, m in enumerate(members)]
        return jnp.mean(jnp.stack(each), axis=0)

    def value_and_slope(logits_fn):
        loss = lambda images: jnp.sum(jnp.sin(logits_fn(keys, images)))  # noqa: E731
        return jax.jit(jax.value_and_grad(loss))(images)

    network = ensemble(members)
    assert network.parameters == sum(member.parameters for member in members) > 0
    found, expected = value_and_slope(network.logits_fn), value_and_slope(mean_of_each)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-4 * np.abs(expected[1]).max())

    def operations(logits_fn):
        return jax.jit(logits_fn).lower(keys, images).as_text().count("stablehlo.rsqrt")

    # Each batch norm has one.
    assert operations(network.logits_fn) == operations(members[0].logits_fn)
    assert operations(mean_of_each) == 4 * operations(members[0].logits_fn)


@pytest.mark.slow
def test_members_with_other_maps_or_functions_keep_their_own(vone):
    model, variables = vone
    plain = Network.of_model("plain", model, models.init(model, jax.random.key(0)))
    coarse = model.clone(v1=dataclasses.replace(model.v1, stride=8))
    coarse = Network.of_model("coarse", coarse, models.init(coarse, jax.random.key(1)))
    silent = Network(
        "silent", lambda keys, x: 0 * plain.logits_fn(keys, x), plain.image_shape, stochastic=True
    )
    keys, images = keys_and_images(plain)
    for other in (coarse, silent):
        found = ensemble([plain, other]).logits_fn(keys, images)
        logits = [m.logits_fn(prng.fold(keys, i), images) for i, m in enumerate((plain, other))]
        np.testing.assert_allclose(found, (logits[0] + logits[1]) / 2, rtol=1e-4, atol=1e-5)


def test_a_tuned_bank_is_opened_as_a_fixed_one(tmp_path):
    config = dataclasses.replace(v1.VOneBlockConfig(4, 4, 28, 1.0, 9, 2), tuned=True)
    model = models.create("vone_cornet_z", 3, 28, v1=config, width=2)
    convert.save_folder(tmp_path / "tuned", model, models.init(model, jax.random.key(0)))
    network = vone_jax.open_network(tmp_path / "tuned")
    assert not network.v1.tuned and network.v1.bank is not None


@pytest.mark.parametrize(
    "preprocessing",
    [data.Preprocessing(0.5), data.Preprocessing(squash=True, interpolation="bicubic")],
)
def test_a_folder_keeps_class_names_and_preprocessing(vone, tmp_path, preprocessing):
    names = tuple(f"kind {i}" for i in range(vone[0].back_end.num_classes))
    given = {"class_names": names, "preprocessing": preprocessing}
    convert.save_folder(tmp_path / "net", *vone, **given)
    network = vone_jax.open_network(tmp_path / "net")
    assert network.class_names == names
    assert network.preprocessing == preprocessing


def test_a_folder_without_its_weights_is_no_run(vone, tmp_path):
    (convert.save_folder(tmp_path / "net", *vone) / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        vone_jax.open_network(tmp_path / "net")


@pytest.mark.parametrize("spec", ["folder", "network", "a.net.pth+b.net.pth"])
def test_what_is_for_other_networks_is_refused(vone, tmp_path, spec):
    network = Network.of_model("net", *vone) if spec == "network" else spec
    if spec == "folder":
        network = convert.save_folder(tmp_path / "net", *vone)
    with pytest.raises(NetworkError, match="step is for a directory of train.py, got 7 with .*net"):
        vone_jax.open_network(network, step=7)
    with pytest.raises(NetworkError, match="v1_fields is for checkpoint files"):
        vone_jax.open_network(network, v1_fields={"stride": 4})


@pytest.mark.slow
def test_members_may_lie_in_a_folder_with_a_plus(vone, tmp_path):
    convert.save_folder(tmp_path / "p+q" / "one", *vone)
    one = f"{tmp_path}/p+q/one"
    assert vone_jax.open_network(f"{one}+{one}").name == "one+one"
    functions = tmp_path / "p+q" / "mine.py"
    functions.write_text(Path(user_networks.__file__).read_text())
    assert vone_jax.open_network(f"{functions}:cnn").num_classes == 10
    assert len(vone_jax.open_network(f"{functions}:cnn+{functions}:cnn").members) == 2
    for wrong in (f"{one}+", f"{one}++{one}", f"+{one}"):
        with pytest.raises(NetworkError, match="must stand before and behind each"):
            vone_jax.open_network(wrong)


@pytest.mark.slow
def test_members_that_do_not_fit_are_named(vone, tmp_path):
    convert.save_folder(tmp_path / "one", *vone)
    different = r"must have the same image_shape: \(.*\) in member 1, one, and .* in member 2, cnn"
    with pytest.raises(ValueError, match=different):
        vone_jax.open_network(f"{tmp_path}/one+{FUNCTIONS}:cnn")
    with pytest.raises(ValueError, match="at least 2 members, got 1"):
        ensemble([vone_jax.open_network(tmp_path / "one")])
    with pytest.raises(NetworkError, match="there is no network"):
        vone_jax.open_network(f"{tmp_path}/one+{tmp_path}/none")


def test_a_file_does_not_take_the_place_of_a_module_of_python(tmp_path):
    path = tmp_path / "random.py"
    path.write_text(
        "import jax.numpy as jnp\n"
        "def network():\n"
        "    return lambda keys, x: jnp.repeat(x.mean((1, 2)), 3, axis=1), (8, 8, 1)\n"
    )
    assert vone_jax.open_network(f"{path}:network").num_classes == 3
    assert sys.modules.get("random") is not sys.modules["network_in_random"]
    assert importlib.import_module("random").random() < 1.0
