"""Fields that follow from others are filled in once, and explicit values always stay."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import source_of

from vone_jax import data, models, training, v1
from vone_jax.training import DataConfig, Experiment, resolve


def source(shape=(28, 28, 1), classes="abc"):
    images = np.zeros((len(classes), *shape), np.uint8)
    return data.ArraySource(images, np.arange(len(classes)), class_names=tuple(classes))


def experiment(name, eval_split="test", **model):
    model = {"image_size": 28, **model}
    config = DataConfig("fashion_mnist_small", eval_split=eval_split)
    return Experiment("test", models.Spec(name, **model), config)


def test_what_follows_is_filled_in():
    model = resolve(experiment("vone_resnet18"), source()).model
    assert (model.num_classes, model.in_channels, model.width) == (3, 1, 64)
    assert model.v1 == models.v1_config(28, 1) and model.subcortical is None
    model = resolve(experiment("resnet18"), source((28, 28, 3), "ab")).model
    assert (model.num_classes, model.in_channels, model.v1) == (2, 3, None)
    assert (model.mean, model.std) == (models.IMAGENET_MEAN, models.IMAGENET_STD)
    model = resolve(experiment("ev_resnet18"), source()).model
    assert model.subcortical == v1.SubcorticalConfig(28, 28 / 32, in_channels=1)
    assert model.v1 == models.v1_config(28, 2, "ev_resnet18")


def test_a_resolved_experiment_builds_the_same_network_and_resolves_to_itself():
    given = experiment("vone_resnet18", width=8)
    resolved = resolve(given, source())
    filled = replace(given.model, num_classes=3, in_channels=1)
    assert resolved.build() == filled.build()
    assert resolve(resolved, source()) == resolved
    assert training.from_json(training.to_json(resolved)) == resolved


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_stem_of_this_project_can_be_the_front_end_of_a_user(dtype):
    """It has a type of numbers, as most modules of Flax do, which a run stores by its name."""
    stem = models.ConvStem((4, 6), stride=2, dtype=dtype)
    resolved = resolve(
        experiment("vit_ti16", width=8, options=models.ViT(depth=1), front_end=stem), source()
    )
    assert resolve(resolved, source()) == resolved and resolved.build().spec.front_end == stem
    assert training.from_json(training.to_json(resolved)) == resolved


def test_explicit_values_stay():
    """A stride of 4 is that of the default for larger images, and was taken for it."""
    explicit = replace(models.v1_config(224, 3), stride=4, image_size=28, visual_degrees=1.0)
    given = experiment("vone_resnet18", v1=explicit, in_channels=3, width=8)
    resolved = resolve(given, source((28, 28, 3))).model
    assert resolved.v1 == explicit and resolved.width == 8
    given = experiment("resnet18", mean=(0.1,), std=(0.2,))
    resolved = resolve(given, source()).model
    assert (resolved.mean, resolved.std) == ((0.1,), (0.2,))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_classes": 4}, "model.num_classes is 4, but the images .* have 3"),
        ({"in_channels": 3}, "model.in_channels is 3, but the images .* have 1"),
        ({"v1": models.v1_config(28, 3)}, "model.*v1.in_channels"),
    ],
)
def test_explicit_values_that_contradict_the_data_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        resolve(experiment("vone_resnet18", **fields), source())


def test_images_of_one_class_are_refused():
    """A folder that is a class, or whose classes lie deeper."""
    with pytest.raises(ValueError, match="data.source .* has one class"):
        resolve(experiment("resnet18"), source(classes="a"))


def test_the_validation_split_is_the_first_that_there_is(tmp_path):
    resolved = resolve(experiment("resnet18", eval_split=None), source())
    assert resolved.data.eval_split == "test"
    (tmp_path / "cat").mkdir()
    given = experiment("resnet18", eval_split=None)
    # A folder of classes is divided.
    given = replace(given, data=replace(given.data, source=f"folder:{tmp_path}"))
    assert resolve(given, source()).data.eval_split == "validation"


# The front end of initial weights.

BANK = v1.sample_gabor_parameters(6, seed=5, sf_max=6.0, in_channels=1)
THEIRS = v1.VOneBlockConfig(
    simple_channels=3, complex_channels=3, image_size=28, visual_degrees=1.0, kernel_size=9,
    stride=2, in_channels=1, k_exc=17.0, image_mean=(0.3,), image_std=(0.2,), noise=None,
    bank=v1.ImportedBank(*v1.gabor_kernels(BANK, 9, 28.0), BANK, 28.0),
)  # fmt: skip


def network(name, **options):
    options = {"image_size": 28, "in_channels": 1, **options}
    return source_of(models.create(name, 3, width=2, **options), None, name, ())


def test_a_vonenet_takes_the_front_end_of_initial_weights():
    initial = network("vone_resnet18", v1=THEIRS)
    assert resolve(experiment("vone_resnet18"), source(), initial).model.v1 == THEIRS
    explicit = replace(models.v1_config(28, 1), k_exc=3.0)
    given = experiment("vone_resnet18", v1=explicit)
    assert resolve(given, source(), initial).model.v1 == explicit


def test_images_of_another_size_keep_the_pixels_per_degree():
    initial = network("vone_resnet18", v1=THEIRS)
    front = resolve(experiment("vone_resnet18", image_size=56), source(), initial).model.v1
    assert (front.image_size, front.pixels_per_degree) == (56, pytest.approx(28.0))
    assert front.bank == THEIRS.bank


def test_a_base_network_takes_the_normalisation_of_initial_weights():
    initial = network("resnet18", mean=(0.2,), std=(0.4,))
    model = resolve(experiment("resnet18"), source(), initial).model
    assert (model.mean, model.std) == ((0.2,), (0.4,))
    model = resolve(experiment("resnet18", mean=(0.1,)), source(), initial).model
    assert (model.mean, model.std) == ((0.1,), (0.4,))


def test_a_base_network_takes_the_form_of_the_stem_of_initial_weights():
    """Files of torchvision have that of 224 pixels; with a stride of 1 they would see nothing."""
    initial = network("resnet18", image_size=224)
    model = resolve(experiment("resnet18"), source(), initial).model
    assert model.stem_size == 224
    assert resolve(experiment("resnet18"), source(), network("resnet18")).model.stem_size == 28
    explicit = experiment("resnet18", stem_size=28)
    assert resolve(explicit, source(), initial).model.stem_size == 28


def test_an_evnet_takes_both_stages_of_initial_weights():
    stage = v1.SubcorticalConfig(28, 0.875, in_channels=1, noise=None)
    block = replace(models.v1_config(28, 2, "ev_resnet18"), k_exc=2.0, noise=None)
    initial = network("ev_resnet18", v1=block, subcortical=stage)
    model = resolve(experiment("ev_resnet18"), source(), initial).model
    assert (model.v1, model.subcortical) == (block, stage)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("resnet18", network("vone_resnet18", v1=THEIRS)),
        ("resnet18", network("resnet18", in_channels=3)),
        ("vone_resnet18", network("ev_resnet18")),
    ],
)
def test_no_front_end_is_taken_from_a_network_of_another_kind(ours, theirs):
    given = experiment(ours)
    assert resolve(given, source(), theirs) == resolve(given, source())
