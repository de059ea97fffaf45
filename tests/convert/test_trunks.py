"""Transformers and ConvNeXts in files, under the names of timm, torchvision and Meta."""

import dataclasses

import jax
import numpy as np
import pytest

import vone_jax
from tests.convert.conftest import equal, folder_keeps
from tests.networks import random_variables
from vone_jax import convert, models, v1
from vone_jax.convert.checkpoint import read_safetensors, write_safetensors
from vone_jax.convert.names import recognise
from vone_jax.convert.state_dict import abstract_variables
from vone_jax.models.small_cnn import SmallCNN

FORM = {"num_classes": 5, "image_size": 16}
VIT = {**FORM, "width": 12, "depth": 2, "heads": 1, "patch_size": 4}
CONVNEXT = {**FORM, "width": 6, "depth": (2, 1), "patch_size": 2}
V1 = v1.VOneBlockConfig(
    simple_channels=8, complex_channels=8, image_size=16, visual_degrees=16 / 28, stride=2,
    kernel_size=25,
)  # fmt: skip
# Some tensors of the networks above, by the documentation of the libraries.
EXPECTED = {
    ("vit_ti16", "timm"): {
        "cls_token": (1, 1, 12), "pos_embed": (1, 17, 12), "patch_embed.proj.weight": (12, 3, 4, 4),
        "blocks.1.attn.qkv.weight": (36, 12), "blocks.0.attn.proj.bias": (12,),
        "blocks.1.mlp.fc1.weight": (48, 12), "norm.weight": (12,), "head.weight": (5, 12),
    },
    ("vit_ti16", "torchvision"): {
        "class_token": (1, 1, 12), "encoder.pos_embedding": (1, 17, 12),
        "conv_proj.bias": (12,),
        "encoder.layers.encoder_layer_1.self_attention.in_proj_weight": (36, 12),
        "encoder.layers.encoder_layer_0.self_attention.in_proj_bias": (36,),
        "encoder.layers.encoder_layer_0.self_attention.out_proj.weight": (12, 12),
        "encoder.layers.encoder_layer_0.ln_2.bias": (12,),
        "encoder.layers.encoder_layer_1.mlp.0.weight": (48, 12),
        "encoder.layers.encoder_layer_1.mlp.3.weight": (12, 48),
        "encoder.ln.weight": (12,), "heads.head.bias": (5,),
    },
    ("convnext_t", "timm"): {
        "stem.0.weight": (6, 3, 2, 2), "stem.1.weight": (6,),
        "stages.0.blocks.1.conv_dw.weight": (6, 1, 7, 7), "stages.0.blocks.1.gamma": (6,),
        "stages.1.downsample.0.weight": (6,), "stages.1.downsample.1.weight": (12, 6, 2, 2),
        "stages.1.blocks.0.mlp.fc1.weight": (48, 12), "head.norm.weight": (12,),
        "head.fc.weight": (5, 12),
    },
    ("convnext_t", "torchvision"): {
        "features.0.0.weight": (6, 3, 2, 2), "features.0.1.bias": (6,),
        "features.1.1.block.0.weight": (6, 1, 7, 7), "features.1.1.layer_scale": (6, 1, 1),
        "features.1.0.block.2.weight": (6,), "features.2.0.weight": (6,),
        "features.2.1.weight": (12, 6, 2, 2), "features.3.0.block.3.weight": (48, 12),
        "features.3.0.block.5.bias": (12,), "classifier.0.bias": (12,),
        "classifier.2.weight": (5, 12),
    },
    ("convnext_t", "meta"): {
        "downsample_layers.0.0.weight": (6, 3, 2, 2), "downsample_layers.0.1.weight": (6,),
        "stages.0.1.dwconv.weight": (6, 1, 7, 7), "stages.0.1.norm.weight": (6,),
        "stages.0.1.pwconv1.weight": (24, 6), "stages.0.1.pwconv2.bias": (6,),
        "stages.0.1.gamma": (6,), "downsample_layers.1.0.weight": (6,),
        "downsample_layers.1.1.weight": (12, 6, 2, 2), "norm.weight": (12,), "head.bias": (5,),
    },
}  # fmt: skip


def small(name, **fields):
    form = VIT if "vit" in name or "deit" in name else CONVNEXT
    if name.startswith("vone_"):
        fields["v1"] = V1
    model = models.create(name, **{**form, **fields})
    return model, random_variables(model)


@pytest.mark.parametrize(("name", "convention"), EXPECTED)
def test_names_and_shapes_are_those_of_the_library(name, convention, tmp_path):
    """Out and in again is the identity, bit for bit, in each convention."""
    model, variables = small(name)
    path = tmp_path / "net.safetensors"
    convert.save_torch(path, model, variables, convention=convention)
    tensors, _ = read_safetensors(path)
    shapes = {n: t.shape for n, t in tensors.items()}
    assert EXPECTED[name, convention].items() <= shapes.items()
    # Nothing is there twice, and nothing is left out.
    assert len(tensors) == len(abstract_variables(model))
    again, values = convert.from_torch(path)
    assert again == model and equal(values, variables)
    for other in ("timm", "torchvision", "meta"):
        back = convert.to_torch(again, values, other)
        assert equal(convert.from_state_dict(model, back), variables)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("vone_vit_ti16", {}),
        pytest.param("vone_vit_ti16", {"attachment": "conv_stem"}, marks=pytest.mark.slow),
        ("vit_ti16", {"attachment": "patches"}),
        ("vit_ti16", {"attachment": "conv_stem", "stem_width": 3}),
        pytest.param("vone_convnext_t", {}, marks=pytest.mark.slow),
        ("convnext_t", {"attachment": "patches"}),
        ("deit_s16", {"image_size": 64, "patch_size": 8}),
    ],
)
def test_files_and_folders_keep_attachments(name, fields, tmp_path):
    model, variables = small(name, **fields)
    path = tmp_path / "net.safetensors"
    convert.save_torch(path, model, variables)
    again, values = convert.from_torch(path)
    assert dataclasses.replace(again.spec, v1=model.spec.v1) == model.spec
    assert equal(values, variables)
    assert folder_keeps(tmp_path / "net", model, variables)


# Parameters of timm's networks.
SIZES = {
    "vit_b16": 86_567_656, "vit_l16": 304_326_632, "deit3_s16": 22_059_496,
    "convnext_s": 50_223_688, "convnext_b": 88_591_464,
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes_stand_behind_v1(name, tmp_path):
    """V1's bottleneck and attachment replace the stem; files of it are read as they were."""

    def count(name):
        leaves = abstract_variables(models.create(name))
        return sum(leaf.size for leaf in leaves.values())

    spec = models.create(name).spec
    width, trained = spec.width, count(name)
    assert trained == SIZES[name]
    if name.startswith("convnext"):
        # A 4x4 convolution with bias and a norm; a 1x1 convolution of 512 cells, and a norm.
        own, new = 49 * width + 2 * width, 512 * width + 2 * width
    else:
        # Patches of 16x16; 512 cells to 64 channels, a norm, patches of 4x4.
        own, new = 769 * width, 512 * 64 + 2 * 64 + (16 * 64 + 1) * width
    assert count(f"vone_{name}") == trained - own + new

    model, variables = small(f"vone_{name}")
    path = tmp_path / "net.safetensors"
    convert.save_torch(path, model, variables)
    again, values = convert.from_torch(path)
    assert dataclasses.replace(again.spec, v1=model.spec.v1) == model.spec
    assert equal(values, variables)


def test_an_architecture_of_a_user_has_files_by_its_own_table(tmp_path, monkeypatch):
    """Written, recognised and read by what its class says, without a line elsewhere."""

    @dataclasses.dataclass(frozen=True)
    class Mine(SmallCNN):
        SIZES = {}
        NAMES = {"mine": {"stem/conv1": "one", "conv{n}": "conv.{n-2}", "fc{n}": "last.{n}"}}

        @classmethod
        def told(cls, file, known):
            if "conv2.weight" not in file:
                return None
            return {"name": ["mine"], **file.ends("stem/conv1", "fc2")}

    # Its name is gone behind the test.
    monkeypatch.setattr(Mine, "SIZES", {"mine": SmallCNN.SIZES["small_cnn"]})
    model = models.create("mine", 3, 28, in_channels=1, width=2)
    variables = random_variables(model)
    tensors = convert.to_torch(model, variables)
    shapes = {name: tensor.shape for name, tensor in tensors.items() if "weight" in name}
    assert shapes == {
        "one.weight": (2, 1, 4, 4), "conv.0.weight": (4, 2, 4, 4), "last.1.weight": (100, 196),
        "last.2.weight": (3, 100),
    }  # fmt: skip
    write_safetensors(tmp_path / "net.safetensors", tensors)
    found = convert.read(tmp_path / "net.safetensors", image_size=28)
    assert found.model.spec == dataclasses.replace(model.spec, stem_size=224)
    assert equal(found.variables, variables)


def test_files_of_second_names_are_read_as_the_network_that_they_are(tmp_path):
    """DeiT-S behind V1 is ViT-S behind V1."""
    model, variables = small("vone_vit_s16")
    path = tmp_path / "net.safetensors"
    convert.save_torch(path, model, variables)
    arrays, metadata = read_safetensors(path)
    flags = metadata["flags"].replace("vits16", "deits16")
    assert "deits16" in flags
    write_safetensors(path, arrays, {"flags": flags})
    assert convert.read(path).name == "vone_vit_s16"


def test_heads_are_kept_in_a_flag_and_said_where_they_are_assumed(tmp_path):
    """Tensors do not show them. The usual ones of width 12 are one head of 12 channels."""
    model, variables = small("vit_ti16", heads=3)
    path = tmp_path / "net.safetensors"
    with pytest.warns(UserWarning, match="has 3 heads.*gives other logits"):
        convert.save_torch(path, model, variables)
    assert convert.from_torch(path)[0] == model
    write_safetensors(path, convert.to_torch(model, variables))
    found = convert.read(path)
    assert found.model.spec.options.heads == 1
    assert any("heads that the file does not say: 1" in note for note in found.notes)
    assert convert.from_torch(path, heads=3)[0].spec.options == model.spec.options


@pytest.mark.slow
def test_published_networks_are_recognised():
    """By tensors that take no memory, under the names of timm."""
    family = models.list_models("vit_*") + models.list_models("convnext_*")
    for name in (*family, "deit3_s16"):
        model = models.create(name)
        zeros = jax.tree.map(
            lambda leaf: np.broadcast_to(np.float32(0), leaf.shape),
            jax.eval_shape(lambda key, m=model: models.init(m, key), jax.random.key(0)),
        )
        tensors = convert.to_torch(model, zeros)
        assert recognise(tensors)[0] == name
        if name == "vit_s16":
            for file_name in ("deit_small_patch16_224.pth", "vit_deit_small.pth"):
                assert recognise(tensors, file_name=file_name)[0] == "deit_s16"
            assert recognise(tensors, stored="deits16")[0] == "deit_s16"


def test_the_normalisation_is_that_of_the_library(tmp_path):
    """timm's ViTs: 0.5. DeiT, and all of torchvision: that of ImageNet. A note says it."""
    model, variables = small("vit_ti16")
    means = {
        ("vit.safetensors", "timm"): (0.5,) * 3,
        ("deit_tiny_patch16_224.safetensors", "timm"): models.IMAGENET_MEAN,
        ("vit_b_16.safetensors", "torchvision"): models.IMAGENET_MEAN,
    }
    for (file_name, convention), mean in means.items():
        path = tmp_path / file_name
        write_safetensors(path, convert.to_torch(model, variables, convention))
        found = convert.read(path)
        assert found.model.spec.mean == mean
        assert any("normalisation that the file does not say" in note for note in found.notes)


def test_torchvisions_first_files_are_read():
    """They call the layers of the perceptron linear_1 and linear_2."""
    model, variables = small("vit_ti16")
    tensors = {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): tensor
        for name, tensor in convert.to_torch(model, variables, "torchvision").items()
    }
    assert any("linear_2" in name for name in tensors)
    assert equal(convert.from_state_dict(model, tensors), variables)


def test_perceptrons_as_convolutions_are_read():
    """timm's small ConvNeXts have them."""
    model, variables = small("convnext_t")
    tensors = convert.to_torch(model, variables)
    wide = {
        n: t[..., None, None] if ".mlp." in n and t.ndim == 2 else t for n, t in tensors.items()
    }
    assert equal(convert.from_state_dict(model, wide), variables)


@pytest.mark.parametrize("name", ["vit_ti16", "vone_vit_ti16"])
def test_the_table_of_positions_follows_the_image_size(name, tmp_path):
    """The file at another size is the opened network at another size."""
    model, variables = small(name)
    path = tmp_path / "net.safetensors"
    convert.save_torch(path, model, variables)
    found = convert.read(path, image_size=24)
    network = vone_jax.open_network(path, image_size=24)
    assert network.image_size == found.model.image_size == 24
    assert "params/back_end/tokens/position" in " ".join(network.notes)
    assert equal(network.variables, found.variables)
    position = found.variables["params"]["back_end"]["tokens"]["position"]
    assert position.shape == (1, 37, 12)
    assert convert.read(path).model.image_size == 16
    convert.save_torch(tmp_path / "larger.safetensors", network.model, network.variables)
    again, values = convert.from_torch(tmp_path / "larger.safetensors")
    assert again.image_size == 24 and equal(values, network.variables)
    with pytest.raises(ValueError, match="a multiple of 4 pixels"):
        convert.read(path, image_size=26)


def test_what_does_not_fit_is_listed(tmp_path):
    """A class token of distillation, a layer scale, and a missing head."""
    model, variables = small("vit_ti16")
    tensors = convert.to_torch(model, variables)
    del tensors["head.bias"]
    tensors |= {"dist_token": np.zeros((1, 1, 12), "f"), "blocks.0.ls3.gamma": np.zeros(12, "f")}
    write_safetensors(tmp_path / "net.safetensors", tensors)
    with pytest.raises(convert.CheckpointError) as error:
        convert.read(tmp_path / "net.safetensors")
    for problem in ("missing: head.bias", "unused: dist_token", "unused: blocks.0.ls3.gamma"):
        assert problem in str(error.value)
