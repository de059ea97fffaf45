"""Networks by name: sizes, layers, and errors. Shapes only, nothing is computed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import models, v1


@functools.cache
def abstract(model, image_size, channels):
    """Shapes of variables and features. Each network is traced once."""
    images = jax.ShapeDtypeStruct((2, image_size, image_size, channels), jnp.float32)
    key = jax.random.key(0)
    features, variables = jax.eval_shape(
        lambda x: model.init_with_output(key, x, noise_key=key, method="features"), images
    )
    return variables, features


def count(variables):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(variables["params"]))


# Of torchvision, timm, CORnet, TensorFlow and VOneNet, for 1000 classes; without the bank.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "alexnet": 61_100_840,
    "cornet_s": 53_416_616,
    "cornet_z": 2_071_656,
    "efficientnet_b0": 5_288_548,
    "efficientnet_lite0": 4_652_008,
    "vit_ti16": 5_717_416,
    "vit_s16": 22_050_664,
    "vit_b16": 86_567_656,
    "vit_l16": 304_326_632,
    "deit_s16": 22_050_664,
    "deit3_s16": 22_059_496,
    "convnext_t": 28_589_128,
    "convnext_s": 50_223_688,
    "convnext_b": 88_591_464,
    "vone_resnet18": 11_712_744,
    "vone_resnet50": 25_580_264,
    "vone_alexnet": 74_741_800,
    "vone_cornet_s": 53_402_856,
    # The trained part of EVNet's.
    "vone_efficientnet_b0": 5_295_812,
    "vone_efficientnet_lite0": 4_659_272,
}


@pytest.mark.parametrize(
    ("name", "size", "classes", "parameters"),
    [
        *((name, 224, 1000, number) for name, number in PARAMETERS.items()),
        ("resnet18", 32, 10, 11_173_962),
        ("vone_resnet18", 32, 10, 11_204_874),
        ("resnet18", 64, 200, 11_279_112),
        ("vone_resnet18", 64, 200, 11_302_344),
        # 166,406 for grey images.
        ("small_cnn", 28, 10, 166_918),
    ],
)
def test_parameter_counts_are_the_published_ones(name, size, classes, parameters):
    variables, _ = abstract(models.create(name, classes, size), size, 3)
    assert count(variables) == parameters


@pytest.mark.parametrize(
    "name",
    ["vone_resnet18", "resnet50", "alexnet", "cornet_s", "cornet_z", "efficientnet_b0"]
    + ["vone_vit_ti16", "convnext_t"],
)
def test_every_layer_of_a_network_is_computed_in_bfloat16(name):
    """The modules of Flax are all but V1 and the last cast of the logits."""
    model = models.create(name, 10, 32, width=4, dtype=jnp.bfloat16)
    images, key = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32), jax.random.key(0)
    _, variables = jax.eval_shape(
        lambda x: model.init_with_output(
            key, x, noise_key=key, method="features", capture_intermediates=True, mutable=True
        ),
        images,
    )
    outputs = jax.tree.leaves(variables["intermediates"])
    assert len(outputs) > 10 and {output.dtype for output in outputs} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "vone_resnet50",
            {
                "v1.simple": (56, 56, 256),
                "v1.complex": (56, 56, 256),
                "v1": (56, 56, 512),
                "bottleneck": (56, 56, 64),
                "layer1": (56, 56, 256),
                "layer2": (28, 28, 512),
                "layer3": (14, 14, 1024),
                "layer4": (7, 7, 2048),
                "avgpool": (2048,),
                "logits": (1000,),
            },
        ),
        (
            "vone_alexnet",
            {"bottleneck": (56, 56, 64), "conv2": (14, 14, 192), "conv5": (7, 7, 256)},
        ),
        ("alexnet", {"conv1": (27, 27, 64), "conv2": (13, 13, 192), "conv5": (6, 6, 256)}),
        ("resnet18", {"stem": (56, 56, 64), "layer4": (7, 7, 512)}),
        (
            "vone_vit_s16",
            {
                "bottleneck": (56, 56, 64),
                "patches": (14, 14, 384),
                "block1": (14, 14, 384),
                "block12": (14, 14, 384),
                "norm": (14, 14, 384),
                "class_token": (384,),
            },
        ),
        ("vit_ti16", {"patches": (14, 14, 192), "block12": (14, 14, 192)}),
        (
            "vone_convnext_t",
            {
                "bottleneck": (56, 56, 96),
                "patches": (56, 56, 96),
                "stage1": (56, 56, 96),
                "stage4": (7, 7, 768),
                "avgpool": (768,),
            },
        ),
        ("convnext_t", {"stem": (56, 56, 96), "stage2": (28, 28, 192)}),
        (
            "cornet_s",
            {
                "V1": (56, 56, 64),
                "V2": (28, 28, 128),
                "V4.step3": (14, 14, 256),
                "IT": (7, 7, 512),
            },
        ),
        (
            "efficientnet_b0",
            {"stem": (112, 112, 32), "stage1": (112, 112, 16), "stage7": (7, 7, 320)},
        ),
        (
            "vone_efficientnet_lite0",
            {
                "v1": (112, 112, 256),
                "bottleneck": (112, 112, 32),
                "stage2": (56, 56, 24),
                "stage3": (28, 28, 40),
                "stage4": (14, 14, 80),
                "stage5": (14, 14, 112),
                "stage6": (7, 7, 192),
                "head": (7, 7, 1280),
                "avgpool": (1280,),
            },
        ),
    ],
)
def test_layers_have_stable_names_and_published_map_sizes(name, expected):
    _, features = abstract(models.create(name), 224, 3)
    assert {k: features[k].shape[1:] for k in expected} == expected


# A name for each kind of network; the base network is built beside it.
@pytest.mark.parametrize(
    "name",
    ["vone_resnet18", "vone_alexnet", "vone_cornet_s", "vone_cornet_z"]
    + ["vone_efficientnet_lite0", "ev_resnet18"],
)
@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3), (64, 3)])
def test_small_images_keep_their_resolution(name, size, channels):
    model, base = (
        models.create(each, 10, size, channels, width=8)
        for each in (name, models.base_network(name))
    )
    assert 28 <= model.v1.pixels_per_degree <= 32
    _, features = abstract(model, size, channels)
    assert features["logits"].shape == (2, 10)
    _, plain = abstract(base, size, channels)
    # AlexNet's stem ends with a pool, VOneAlexNet's second convolution strides instead.
    for stage in {"stem", "V1", "conv2"} & set(plain):
        replaced = features["conv2" if stage == "conv2" else "bottleneck"]
        assert replaced.shape == plain[stage].shape


def test_the_default_front_ends_are_the_published_ones():
    """Those of Tiny ImageNet (arXiv:2110.10645) and of EVNets (arXiv:2506.03089)."""
    assert models.v1_config(64, 3) == v1.VOneBlockConfig(
        image_size=64, visual_degrees=2.0, stride=2, sf_max=11.3, k_exc=23.5,
        distribution="physiological_extended", noise=v1.NeuronalNoise(scale=0.286, level=0.071),
    )  # fmt: skip
    assert models.v1_config(224, 4, "ev_resnet50") == v1.VOneBlockConfig(
        image_size=224, visual_degrees=7.0, in_channels=4, kernel_size=31, gabor_seed=42,
        sf_max=8.0, k_exc=5.3, distribution="evnet", noise=v1.FanoNoise(), image_mean=0.0,
        image_std=1.0,
    )  # fmt: skip
    # An EfficientNet has half of the cells and half of the stride, from 112 pixels on.
    small = models.v1_config(112, 3, "vone_efficientnet_b0")
    assert (small.stride, small.simple_channels, small.complex_channels) == (2, 128, 128)


def test_lite0_has_a_normalisation_of_its_own():
    """(x - 127) / 128 for images of 0 to 255."""
    model = models.create("efficientnet_lite0")
    levels = np.array([0.0, 127.0, 255.0])
    normalised = (levels / 255 - model.spec.mean[0]) / model.spec.std[0]
    np.testing.assert_allclose(normalised, (levels - 127) / 128, atol=1e-12)
    assert models.create("efficientnet_b0").spec.mean == models.IMAGENET_MEAN
    assert models.create("efficientnet_lite0", in_channels=1).spec.mean == (0.5,)


def test_the_normalisation_of_transformers_is_that_of_their_published_weights():
    """timm's ViTs were trained with 0.5, DeiTs and ConvNeXts with ImageNet's."""
    for name, mean in {
        "vit_ti16": (0.5,) * 3,
        "vit_s16": (0.5,) * 3,
        "deit_s16": models.IMAGENET_MEAN,
        "convnext_t": models.IMAGENET_MEAN,
    }.items():
        assert models.create(name).spec.mean == mean


def test_a_given_v1_decides_image_size_and_channels():
    config = v1.VOneBlockConfig(image_size=32, visual_degrees=1.0, stride=1, in_channels=1)
    model = models.create("vone_resnet18", 10, v1=config)
    assert model.v1 is config
    with pytest.raises(ValueError, match="image_size is 28, but v1.image_size is 32"):
        models.create("vone_resnet18", 10, image_size=28, v1=config)
    with pytest.raises(ValueError, match="in_channels is 3, but v1.in_channels is 1"):
        models.create("vone_resnet18", 10, in_channels=3, v1=config)
    with pytest.raises(ValueError, match="'vone_resnet18'"):
        models.create("resnet18", 10, v1=config)


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("named", "arguments"),
    [
        ("did you mean 'vone_resnet50'", {"name": "vone_resnet5"}),
        ("dtype", {"dtype": jnp.int32}),
        ("learned_normalization", {"name": "vone_resnet18", "learned_normalization": v1.GDN}),
        ("mean is for networks without V1", {"name": "vone_resnet18", "mean": 0.5}),
        ("use 'ev_resnet18'", {"subcortical": v1.SubcorticalConfig(32, 1.0)}),
        ("mean must", {"mean": (0.25, 0.5)}),
        ("std must be > 0", {"mean": 0.5, "std": (0.0, 1.0, 1.0)}),
    ],
)
def test_wrong_arguments_are_named(named, arguments):
    with pytest.raises(ValueError, match=named):
        models.create(**({"name": "resnet18", "num_classes": 10, "image_size": 32} | arguments))


def test_models_are_listed_by_pattern():
    assert models.list_models("*resnet50") == ["ev_resnet50", "resnet50", "vone_resnet50"]
    assert models.list_models("vone_cornet*", exclude_filters=["*18", "*_z"]) == ["vone_cornet_s"]
    assert models.list_models(exclude_filters="*18") == models.list_models("*[!8]")
    assert models.list_models("nothing") == []


def test_the_normalisation_is_per_channel():
    """In V1 as in a base network: (images - mean) / std, one number for each channel."""
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.4)
    images = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    plain = (images - np.float32(mean)) / np.float32(std)
    fields = dict(
        simple_channels=4, complex_channels=4, image_size=16, visual_degrees=0.5, kernel_size=7
    )
    ours = v1.VOneBlockConfig(**fields, image_mean=mean, image_std=std)
    unscaled = v1.VOneBlockConfig(**fields, image_mean=0.0, image_std=1.0)
    assert ours.image_mean == mean and hash(ours) != hash(unscaled)
    np.testing.assert_allclose(
        v1.noise_free_responses(ours, images), v1.noise_free_responses(unscaled, plain), atol=1e-4
    )
    base = models.create("resnet18", 10, 32, mean=mean, std=std)
    assert (base.spec.mean, base.spec.std) == (mean, std)
    base = models.create("resnet18", 10, 32, mean=0.25, std=(0.125,))
    assert (base.spec.mean, base.spec.std) == ((0.25,) * 3, (0.125,) * 3)
