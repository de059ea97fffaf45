"""Checkpoints of all the kinds people have, and the reports on those that do not fit."""

import dataclasses

import numpy as np
import pytest

from tests.convert.conftest import equal, filled
from tests.convert.torch_writer import archive, sequence
from vone_jax import convert, models, v1
from vone_jax.convert.checkpoint import write_safetensors

FLAGS = {
    "arch": "resnet18",
    "stride": 4,
    "simple_channels": 8,
    "complex_channels": 8,
    "k_exc": 25.0,
    "noise_mode": "neuronal",
    "noise_scale": 0.35,
    "noise_level": 0.07,
}


@pytest.fixture
def write(tmp_path):
    def write(state_dict, flags=FLAGS, prefix="", form=archive):
        path = tmp_path / "file.pth.tar"
        content = {"state_dict": {prefix + name: t for name, t in state_dict.items()}}
        path.write_bytes(form(content | ({} if flags is None else {"flags": flags})))
        return path

    return write


def errors(path, **arguments):
    with pytest.raises(convert.CheckpointError) as error:
        convert.from_torch(path, **arguments)
    return str(error.value)


@pytest.mark.parametrize(("form", "prefix"), [(archive, ""), (sequence, "module.")])
def test_published_vonenets(vone, write, form, prefix):
    model, variables, state_dict = vone
    conversion = convert.read(write(state_dict, prefix=prefix, form=form))
    assert conversion.name == "vone_resnet18"
    assert equal(conversion.variables, variables)
    config = conversion.model.v1
    assert (config.stride, config.simple_channels, config.noise) == (4, 8, v1.NeuronalNoise())
    for kernels, expected in zip(config.gabor_kernels(), model.v1.gabor_kernels(), strict=True):
        np.testing.assert_array_equal(kernels, expected)
    assert conversion.residual.shape == (16,) and conversion.residual.max() < 1e-6
    assert any("physiological one of seed 0, sf_max 9" in note for note in conversion.notes)


@pytest.mark.parametrize("prefix", ["_orig_mod.module.", "backbone.module."])
def test_the_two_extra_tensors_of_the_adversarially_trained_file_are_dropped(vone, write, prefix):
    extra = {f"vone_block.div_{x}.weight": np.ones((1, 1, 3, 3), np.float32) for x in "ut"}
    path = write(vone[2] | extra, prefix=prefix)
    conversion = convert.read(path)
    assert equal(conversion.variables, vone[1])
    assert sum("left out: vone_block.div_" in note for note in conversion.notes) == 2


def test_files_of_the_training_script_name_the_architecture_differently(vone, write):
    flags = {k: v for k, v in FLAGS.items() if k != "arch"} | {"model_arch": "resnet18"}
    assert convert.read(write(vone[2], flags)).name == "vone_resnet18"
    assert "cornets" in errors(write(vone[2], flags | {"model_arch": "cornets"}))


@pytest.mark.parametrize(
    ("flags", "noise"),
    [
        ({"noise_mode": None}, None),
        ({"noise_mode": "gaussian", "noise_scale": 4}, v1.GaussianNoise(4.0)),
        ({"noise_mode": "fano", "noise_scale": 0.9, "noise_level": 0.1}, v1.FanoNoise(0.9, 0.1)),
        ({"noise_scale": "0.5", "noise_level": 0}, v1.NeuronalNoise(0.5, 0.0)),
    ],
)
def test_noise_comes_from_the_flags(vone, write, flags, noise):
    assert convert.from_torch(write(vone[2], FLAGS | flags))[0].v1.noise == noise


def test_flags_that_make_no_sense_are_reported_together(vone, write):
    wrong = {"stride": 2.5, "k_exc": "many", "noise_mode": "pink", "rand_param": "yes"}
    report = errors(write(vone[2], FLAGS | wrong | {"simple_channels": 9}))
    assert all(f"flag {flag} must be" in report for flag in wrong)
    assert "17 filters, got 16" in report


# Settings of a training run that are stored with its weights and do not change the network.
TRAINING = {
    "in_path": "/data",
    "output_path": "/runs",
    "restore_epoch": 0,
    "restore_path": None,
    "ngpus": 2,
    "epochs": 70,
    "batch_size": 256,
    "optimizer": "stepLR",
    "lr": 0.1,
    "step_size": 20,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "torch_seed": 0,
    "workers": 20,
    "visual_degrees": 8,
    "ksize": 25,
    "sf_corr": 0.75,
    "sf_min": 0,
    "sf_max": 9,
    "rand_param": False,
    "gabor_seed": 0,
}


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        (None, 0.5, 0.5),
        ("imagenet", models.IMAGENET_MEAN, models.IMAGENET_STD),
    ],
)
def test_the_normalisation_comes_from_the_flags(vone, write, name, mean, std):
    path = write(vone[2], FLAGS | TRAINING | {"normalization": name})
    config = convert.from_torch(path)[0].v1
    assert (config.image_mean, config.image_std) == (mean, std)


def test_a_flag_that_may_change_the_network_is_told_with_its_name(vone, write):
    unread = {"color_mode": "opponent", "blocks": [1, 2], "antialias": False, "unset": None}
    wrong = {"ksize": 31, "normalization": "imagenets"}
    report = errors(write(vone[2], FLAGS | unread | wrong))
    assert "flag ksize " in report and "flag normalization " in report
    path = write(vone[2], FLAGS | TRAINING | unread)
    conversion = convert.read(path)
    (note,) = (note for note in conversion.notes if "flags that are not read" in note)
    assert "color_mode 'opponent', blocks '<list>', antialias 'False';" in note
    model = conversion.model
    assert model.v1.image_mean == 0.5
    # A configuration of V1 takes the place of all flags.
    again = convert.read(path, v1=dataclasses.replace(model.v1, bank=None))
    assert again.model == model and not [n for n in again.notes if "flags that are not" in n]


def test_without_flags_the_published_values_are_assumed_and_said(vone, write):
    conversion = convert.read(write(vone[2], flags=None))
    assert conversion.model.v1.noise == v1.NeuronalNoise()
    assert {"stride", "k_exc", "noise", "image_size", "simple_channels"} <= {*conversion.assumed}
    given = {"stride": 4, "noise": None, "image_size": 64, "visual_degrees": 2.0}
    notes = convert.read(write(vone[2], flags=None), v1=given).notes
    assert "published values for what the file does not say: k_exc" in notes


def test_a_given_configuration_wins_but_for_the_bank(vone, write):
    config = v1.VOneBlockConfig(simple_channels=16, complex_channels=0, k_exc=3.0, noise=None)
    model, _ = convert.from_torch(write(vone[2]), v1=config)
    assert (model.v1.simple_channels, model.v1.k_exc, model.v1.noise) == (16, 3.0, None)
    np.testing.assert_array_equal(model.v1.gabor_kernels()[0], vone[0].v1.gabor_kernels()[0])
    # The number of filters gives the other number, whatever the flags say.
    config = convert.read(write(vone[2]), v1={"simple_channels": 6}).model.v1
    assert (config.simple_channels, config.complex_channels) == (6, 10)


def test_a_given_configuration_wins_over_the_normalisation_of_the_flags(vone, write):
    model, _, state_dict = vone
    path = write(state_dict, FLAGS | {"normalization": "imagenet"})
    assert convert.read(path, v1=model.v1).model.v1.image_mean == model.v1.image_mean
    config = convert.read(path, v1={"image_mean": 0.4}).model.v1
    assert (config.image_mean, config.image_std) == (0.4, models.IMAGENET_STD)
    # What is given is not assumed.
    assumed = convert.read(write(state_dict), v1={"image_mean": 0.4}).assumed
    assert "image_mean" not in assumed and "image_std" in assumed


def test_image_size_keeps_the_pixels_per_degree(vone, write):
    model, _ = convert.from_torch(write(vone[2]), image_size=112)
    assert (model.v1.image_size, model.v1.visual_degrees) == (112, 4.0)


def test_all_problems_of_a_file_are_reported_at_once(vone, write):
    broken = dict(vone[2])
    del broken["model.layer3.1.bn2.bias"]
    broken["model.fc.bias"] = np.zeros(11, np.float32)
    broken["bottleneck.weight"] = np.full_like(broken["bottleneck.weight"], np.nan)
    broken["model.layer9.0.conv1.weight"] = np.zeros(1, np.float32)
    broken["model.layer1.0.bn1.weight"] = np.ones(2, np.int64)
    broken["model.layer1.0.bn1.running_var"] = np.full(2, -1.0, np.float32)
    q0 = broken["vone_block.simple_conv_q0.weight"].copy()
    q0[4] = 1.0
    broken["vone_block.simple_conv_q0.weight"] = q0
    report = errors(write(broken, FLAGS | {"noise_scale": -1.0}))
    for problem in (
        "missing: model.layer3.1.bn2.bias",
        "shape: model.fc.bias gives (11,)",
        "not finite: bottleneck.weight",
        "unused: model.layer9.0.conv1.weight",
        "type: model.layer1.0.bn1.weight is int64",
        "negative variance: model.layer1.0.bn1.running_var",
        "filter 4 (in phase) must be finite and read exactly one channel",
        "flags of the noise: scale must be",
    ):
        assert problem in report


# The others take a second or more.
QUICK = ("resnet18", "alexnet", "cornet_z", "vone_cornet_s", "ev_alexnet")


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in models.list_models()
        # Transformers of several names have the same tensors, see test_trunks.py. Nobody publishes
        # files of the small CNN.
        if name != "vone_resnet18"
        and models.base_network(name) != "small_cnn"
        and not issubclass(models.family(name), models.Trunk)
    ],
)
def test_every_architecture_is_recognised(name, tmp_path):
    model, variables, tensors = filled(name)
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, tensors)
    conversion = convert.read(path)
    assert conversion.name == name
    spec = dataclasses.replace(conversion.model.spec, v1=model.spec.v1)
    assert spec == model.spec
    assert equal(conversion.variables, variables)
    if not name.startswith(("vone_", "ev_")):
        assert conversion.model == model


def test_unknown_architectures(write):
    def conv(n):
        return {f"layer{s}.{i}.conv1.weight": np.zeros(1) for s in range(1, 5) for i in range(n)}

    assert "ResNet with (4, 4, 4, 4) basic blocks" in errors(write(conv(4), None))
    report = errors(write({"encoder.weight": np.zeros(1, np.float32)}, None))
    assert "no known architecture" in report and "encoder.weight" in report


def robustness(network, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)):
    """The state dict of MadryLab's AttackerModel around a network."""
    normaliser = {
        name: np.array(values, np.float32)[:, None, None]
        for name, values in (("new_mean", mean), ("new_std", std))
    }
    places = {"normalizer": normaliser, "attacker.normalize": normaliser}
    places |= {"model": network, "attacker.model": network}
    return {f"{place}.{n}": t for place, tensors in places.items() for n, t in tensors.items()}


@pytest.fixture(scope="module")
def resnet50():
    return filled("resnet50")


def test_checkpoints_of_robustness(resnet50, tmp_path):
    model, variables, network = resnet50
    path = tmp_path / "imagenet_linf_4.pt"
    wrapped = {"module." + name: tensor for name, tensor in robustness(network).items()}
    path.write_bytes(sequence({"model": wrapped, "epoch": 90, "optimizer": {}}))
    conversion = convert.read(path)
    assert conversion.name == "resnet50" and equal(conversion.variables, variables)
    np.testing.assert_allclose(conversion.model.spec.mean, (0.5, 0.4, 0.3), rtol=1e-7)
    np.testing.assert_allclose(conversion.model.spec.std, (0.2, 0.3, 0.4), rtol=1e-7)


@pytest.mark.parametrize(
    "name", ["attacker.model.conv1.weight", "attacker.normalize.new_mean", "attacker.model.extra"]
)
def test_an_attacker_with_another_network_is_refused(resnet50, write, name):
    tensors = robustness(resnet50[2])
    tensors[name] = tensors.get(name, np.zeros(3, np.float32)) + np.float32(1e-3)
    assert "they differ in" in errors(write(tensors, None))


def test_tensors_beside_the_state_dict_do_not_hide_it(resnet50, tmp_path):
    """The ImageNet example of PyTorch stores its best accuracy as a tensor; others a generator."""
    _, variables, network = resnet50
    beside = {"epoch": 1, "arch": "resnet50", "best_acc1": np.float32([12.0]), "optimizer": {}}
    for holder in ("state_dict", "model"):
        path = tmp_path / f"{holder}.pth.tar"
        path.write_bytes(archive(beside | {holder: network, "rng": np.zeros(8, np.uint8)}))
        assert equal(convert.read(path).variables, variables)
    path.write_bytes(archive({**network, "model": {"x": np.zeros(3, np.float32)}}))
    assert errors(path).endswith("not a tensor: model")


def test_a_normalisation_that_is_assumed_is_told(resnet50, write):
    words = "normalisation that the file does not say: mean 0.485, 0.456, 0.406"
    notes = convert.read(write(resnet50[2], None)).notes
    assert sum(note.startswith(words) for note in notes) == 1
    stated = convert.read(write(resnet50[2], {"normalization": "imagenet"})).notes
    assert not [note for note in stated if "normalisation" in note]


def test_layers_without_weights_that_are_assumed_are_told(resnet50, vone, write):
    """The tensors of timm's resnetaa50, which pools within its blocks, are those of a ResNet-50."""

    def told(content, flags, **options):
        notes = convert.read(write(content, flags), **options).notes
        return [note for note in notes if "pooling and activations" in note]

    (note,) = told(resnet50[2], None)
    assert note.startswith("layers without weights that the file does not say: ")
    assert "ResNet-50" in note and "ResNet-18" in told(vone[2], None)[0]
    assert not told(resnet50[2], {"arch": "resnet50"})
    assert not told(resnet50[2], None, name="resnet50")


def test_a_base_network_takes_its_normalisation_from_the_flags(resnet50, write):
    flags = {"arch": "resnet50", "normalization": "vonenet"}
    assert convert.from_torch(write(resnet50[2], flags))[0].spec.mean == (0.5, 0.5, 0.5)
    report = errors(write(robustness(resnet50[2]), flags))
    assert "the flag normalization contradicts the normaliser of the file" in report


def test_a_wrong_normaliser_is_refused(resnet50, write):
    for change in ({"mean": (0.5, np.nan, 0.3)}, {"std": (0.2, 0.0, 0.4)}, {"mean": (0.5, 0.5)}):
        (field,) = change
        assert field in errors(write(robustness(resnet50[2], **change), None))
