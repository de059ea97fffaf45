"""Out and in again is the identity, bit for bit; names and shapes outside are those of PyTorch."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

import vone_jax
from tests.convert.conftest import equal, filled, folder_keeps
from tests.networks import changed, random_variables, small
from vone_jax import convert, models, v1
from vone_jax.convert.checkpoint import read_safetensors, write_safetensors
from vone_jax.convert.state_dict import abstract_variables

SHAPES = json.loads((Path(__file__).parents[1] / "golden" / "state_dict_keys.json").read_text())


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("resnet50", "resnet50"),
        ("alexnet", "alexnet"),
        ("cornet_s", "cornet_s"),
        ("vone_resnet50", "vone_resnet50"),
        ("vone_alexnet", "vone_alexnet"),
        ("vone_cornet_s", "vone_cornets"),
    ],
)
def test_names_and_shapes_are_the_originals(name, reference):
    """At full width, with arrays that take no memory."""
    model = models.create(name)
    zeros = {
        path: np.broadcast_to(np.float32(0), leaf.shape)
        for path, leaf in abstract_variables(model).items()
    }
    tensors = convert.to_torch(model, unflatten_dict(zeros))
    assert {n: list(t.shape) for n, t in tensors.items()} == SHAPES[reference]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "vone_alexnet", "vone_efficientnet_lite0", "ev_cornet_z"]
)
@pytest.mark.parametrize("suffix", ["safetensors", "folder"])
def test_out_and_in_is_the_identity(name, suffix, tmp_path):
    model, variables, _ = filled(name)
    if suffix == "folder":
        assert folder_keeps(tmp_path, model, variables)
        return
    path, second = tmp_path / "weights.safetensors", tmp_path / "again.safetensors"
    convert.save_torch(path, model, variables)
    again, values = convert.from_torch(path)
    if isinstance(model, models.VOneNet):
        assert dataclasses.replace(again.v1, bank=None, allow_aliasing=False) == model.v1
    assert equal(values, variables)
    convert.save_torch(second, again, values)
    (tensors, metadata), (first, flags) = map(read_safetensors, (second, path))
    assert equal(tensors, first) and metadata == flags


BANK = v1.sample_gabor_parameters(8, sf_max=6.0)


@pytest.mark.parametrize(
    "config",
    [
        {"noise": v1.FanoNoise(0.5)},
        {"image_mean": models.IMAGENET_MEAN, "image_std": models.IMAGENET_STD},
        {"bank": v1.ImportedBank(*v1.gabor_kernels(BANK, 25, 28.0), BANK, 28.0)},
        pytest.param(
            {"bank": BANK, "normalization": v1.SurroundNormalization(c50=0.4, largest_extent=0.3)},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_folders_keep_the_front_end(config, tmp_path):
    config = v1.VOneBlockConfig(simple_channels=5, complex_channels=3, **config)
    model = models.create("vone_resnet18", 3, width=2, v1=config)
    variables = random_variables(model)
    assert folder_keeps(tmp_path, model, variables)


def test_a_network_that_computes_in_bfloat16_is_written(tmp_path):
    """Its variables are float32. The folder does not keep in what it computes."""
    form = {"num_classes": 3, "image_size": 28, "in_channels": 1, "width": 2}
    model = models.create("vone_resnet18", **form, dtype=jnp.bfloat16)
    variables = random_variables(model)
    convert.save_folder(tmp_path, model, variables)
    again, values = convert.load_folder(tmp_path)
    assert again == models.create("vone_resnet18", **form)
    assert equal(values, variables)


SMALL = {"num_classes": 3, "image_size": 32, "depth": 1}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vone_vit_s16", {"width": 8}),
        ("ev_deit3_s16", {"width": 8}),
        ("vit_s16", {"width": 8, "mean": models.IMAGENET_MEAN, "std": models.IMAGENET_STD}),
        ("deit_s16", {"width": 192}),
        ("vit_b16", {"width": 384}),
    ],
)
def test_a_network_keeps_its_name(name, options, tmp_path):
    """These have the parts of another name: of equal widths, normalisation or front end."""
    model = models.create(name, **SMALL, **options)
    variables = random_variables(model)
    convert.save_folder(tmp_path / "folder", model, variables)
    convert.save_torch(tmp_path / "file.safetensors", model, variables)
    opened = vone_jax.open_network(tmp_path / "folder")
    assert opened.architecture == name and opened.model == model
    assert convert.read(tmp_path / "file.safetensors").name == name
    assert vone_jax.open_network(tmp_path / "file.safetensors").architecture == name


@pytest.mark.parametrize("name", ["README.md", "model.safetensors", "config.json"])
def test_other_files_of_the_names_of_a_folder_are_kept(name, tmp_path):
    model = models.create("resnet18", 3, image_size=28, in_channels=1, width=2)
    # Such a config.json is that of a run.
    content = json.dumps({"format": 1, "experiment": {}, "class_names": ["a", "b", "c"]})
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"its {name} belongs to something else"):
        convert.save_folder(tmp_path, model, random_variables(model))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == content


@pytest.mark.filterwarnings("ignore:this resnet18 has other strides")
@pytest.mark.parametrize(
    ("name", "image_size", "stem_size"),
    [("resnet18", 28, None), ("resnet18", 64, 224), ("alexnet", 64, None)],
)
def test_files_keep_the_form_of_base_networks(name, image_size, stem_size, tmp_path):
    """Tensors of the same shapes belong to stems with other strides."""
    model = models.create(name, 3, image_size, in_channels=1, width=2, stem_size=stem_size)
    variables = random_variables(model)
    convert.save_torch(tmp_path / "net.safetensors", model, variables)
    # Of torchvision's strides at another size, a file says as little as one of torchvision.
    size = None if stem_size is None else image_size
    again, values = convert.from_torch(tmp_path / "net.safetensors", image_size=size)
    assert again == model and equal(values, variables)
    model = changed(model, mean=(0.2,), std=(0.3,))
    assert folder_keeps(tmp_path, model, variables)


def test_a_stem_that_no_file_of_pytorch_can_say_is_refused(tmp_path):
    model = models.create("resnet18", 3, 64, width=2, stem_size=28)
    with pytest.raises(
        ValueError, match="a stem for 28 pixels reads images of 64; use save_folder"
    ):
        convert.save_torch(tmp_path / "net.safetensors", model, random_variables(model))
    assert folder_keeps(tmp_path, model, random_variables(model))


def test_the_strides_of_torchvision_hold_at_any_image_size(tmp_path):
    """A file says neither the size of images nor the strides of the stem."""
    model, variables, tensors = filled("resnet18")
    path = tmp_path / "net.safetensors"
    write_safetensors(path, tensors)
    found = convert.read(path, image_size=64)
    assert found.model == changed(model, image_size=64)
    assert found.assumed == ("mean", "std", "stem_size")
    assert any("the stem is of stride 2;" in note for note in found.notes)
    assert "image_size" in convert.read(path).assumed
    given = convert.read(path, image_size=64, stem_size=64)
    assert given.model == models.create("resnet18", 5, 64, width=2)
    assert given.assumed == ("mean", "std")


@pytest.mark.parametrize("name", ["vone_resnet18", "resnet18"])
def test_the_normalisation_survives_in_a_file_of_pytorch(name, tmp_path):
    model, variables, _ = filled(name)
    path, half = tmp_path / "net.safetensors", (0.5,) * 3

    def normalised(mean, std):
        if name == "resnet18":
            return changed(model, mean=mean, std=std)
        return changed(model, v1=dataclasses.replace(model.v1, image_mean=mean, image_std=std))

    if name == "resnet18":
        convert.save_torch(path, normalised(half, half), variables)
        again, _ = convert.from_torch(path)
        assert (again.spec.mean, again.spec.std) == (half, half)
    else:
        expected = models.IMAGENET_MEAN, models.IMAGENET_STD
        convert.save_torch(path, normalised(*expected), variables)
        again, _ = convert.from_torch(path)
        assert (again.v1.image_mean, again.v1.image_std) == expected
    with pytest.raises(ValueError, match="have no name in a checkpoint of PyTorch"):
        convert.save_torch(path, normalised((0.1, 0.2, 0.3), half), variables)


@pytest.fixture
def folder(vone, tmp_path):
    return convert.save_folder(tmp_path / "net", vone[0], vone[1], licence="mit", source="a test")


def test_the_card_says_what_the_network_is(vone, folder):
    card = (folder / "README.md").read_text()
    trained = sum(leaf.size for leaf in jax.tree.leaves(vone[1]["params"]))
    for told in ("license: mit", "a test", "8 simple and 8 complex", f"{trained:,}", "scale=0.35"):
        assert told in card


def test_damaged_folders(folder):
    config = folder / "config.json"
    good = json.loads(config.read_text())

    def refused(change, message):
        config.write_text(json.dumps(change) if isinstance(change, dict) else change)
        with pytest.raises(convert.CheckpointError, match=message):
            convert.load_folder(folder)

    refused("{", "config.json does not describe a network")
    refused(good | {"schema": 2}, "it has the form 2, and this version reads 1")
    refused(good | {"network": good["network"] | {"num_classes": 6}}, "shape: params.back_end.fc")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    refused(good, "truncated")


def test_a_state_dict_fills_every_leaf_from_its_tensor():
    model, _, tensors = filled("resnet18")
    variables = convert.from_state_dict(model, tensors | {"bn1.num_batches_tracked": np.array(3)})
    kernel = variables["params"]["back_end"]["layer2_0"]["downsample_0"]["kernel"]
    tensor = tensors["layer2.0.downsample.0.weight"]
    np.testing.assert_array_equal(kernel[0, 0, 1, 2], tensor[2, 1, 0, 0])
    stats = variables["batch_stats"]["stem"]["bn1"]["var"]
    np.testing.assert_array_equal(stats, tensors["bn1.running_var"])
    np.testing.assert_array_equal(
        variables["params"]["back_end"]["fc"]["kernel"], tensors["fc.weight"].T
    )


@pytest.mark.parametrize(
    ("name", "image_size", "warned"),
    [
        ("resnet18", 64, True),
        # PyTorch refuses tensors of other shapes by itself.
        ("resnet18", 32, False),
        ("vone_resnet18", 64, False),
    ],
)
def test_a_network_that_pytorch_would_take_for_another_has_a_warning(
    name, image_size, warned, tmp_path
):
    """All keys match, and the logits are others."""
    model = models.create(name, 3, image_size, width=8, dtype=jnp.bfloat16)
    variables, path = random_variables(model), tmp_path / "net.safetensors"
    if warned:
        with pytest.warns(UserWarning, match="has other strides.*gives other logits"):
            convert.save_torch(path, model, variables)
        assert convert.from_torch(path)[0] == models.create(name, 3, image_size, width=8)
    else:
        convert.save_torch(path, model, variables)


def test_what_a_file_cannot_hold_is_not_written(vone, tmp_path):
    model, variables, _ = vone
    path = tmp_path / "net.safetensors"

    def with_v1(**fields):
        return changed(model, v1=dataclasses.replace(model.v1, **fields))

    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables)
    infinite = jax.tree.map(lambda leaf: np.float32(np.inf) * leaf, variables)
    noisy = models.create("resnet18", 3, 64, width=2, stem_noise=v1.NeuronalNoise())
    for write in (
        lambda: convert.save_torch(path, with_v1(noise=v1.NeuronalNoise(strength=2.0)), variables),
        lambda: convert.save_torch(
            path, with_v1(normalization=v1.SurroundNormalization(largest_extent=0.1)), variables
        ),
        lambda: convert.save_folder(tmp_path, model, low),
        lambda: convert.save_folder(tmp_path, model, infinite),
        lambda: convert.save_folder(tmp_path, model, variables, class_names=["a", "b"]),
        lambda: convert.save_folder(tmp_path, small("resnet18"), variables),
        lambda: convert.to_torch(small("resnet18"), variables),
        lambda: convert.save_torch(path, noisy, random_variables(noisy)),
    ):
        with pytest.raises(ValueError):
            write()
    assert not list(tmp_path.iterdir())
