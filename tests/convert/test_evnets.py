"""Files of EVNets: as published, with other cells, and damaged."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.convert.conftest import equal, filled, folder_keeps
from tests.convert.torch_writer import archive
from tests.golden import formula_weights
from tests.models.test_evnet import golden_images
from tests.networks import changed, random_variables
from vone_jax import convert, models, v1
from vone_jax.convert.checkpoint import write_safetensors

GAIN = "subcorticalblock.k_exc"


@pytest.fixture(scope="module")
def network():
    """An EVResNet-18, its variables and its state dict."""
    return filled("ev_resnet18")


@pytest.fixture
def read(tmp_path):
    def read(tensors, **arguments):
        path = tmp_path / "net.safetensors"
        write_safetensors(path, tensors)
        return convert.read(path, **arguments)

    return read


def errors(read, tensors, **arguments):
    with pytest.raises(convert.CheckpointError) as error:
        read(tensors, **arguments)
    return str(error.value)


def published(model):
    """The model without the bank that a file gives it."""
    return changed(model, v1=dataclasses.replace(model.v1, bank=None, allow_aliasing=False))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reference", "name", "bank"),
    [
        ("evresnet50", "ev_resnet50", "evnet"),
        ("evcornet_z", "ev_cornet_z", "evnet"),
        ("evefficientnet_b0", "ev_efficientnet_b0", "evnet_published"),
    ],
)
def test_published_files_give_the_golden_logits(reference, name, bank, evnet_golden, tmp_path):
    """Kernels from the bank of seed 42, and the state under ``model`` as in the published files."""
    model = models.create(name)
    model = changed(model, v1=dataclasses.replace(model.v1, distribution=bank))
    weights = formula_weights.evnet_state_dict(reference)
    variables = convert.from_state_dict(model, weights)
    tensors = convert.to_torch(model, variables)
    path = tmp_path / "ev.pth"
    path.write_bytes(archive({"model": tensors, "optimizer": {}, "epoch": 50}))

    conversion = convert.read(path)
    assert conversion.name == name
    assert published(conversion.model) == model
    assert any(f"the {bank} one of seed 42, sf_max 8" in note for note in conversion.notes)
    quiet = models.without_noise(conversion.model)
    classify = jax.jit(lambda logits_fn, x: logits_fn(jax.random.key(0), x))
    logits = classify(models.logits_fn(quiet, conversion.variables), golden_images())
    expected = evnet_golden[f"logits_{reference}"]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-4)
    again = convert.to_torch(conversion.model, conversion.variables)
    assert again.keys() == tensors.keys()
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(again[key], tensor)


def test_a_plain_file_has_the_published_front_end(network, read):
    model, variables, tensors = network
    conversion = read(tensors)
    assert published(conversion.model) == model and equal(conversion.variables, variables)
    assert conversion.model.subcortical == v1.SubcorticalConfig()


def test_gains_and_contrast_normalisation_are_those_of_the_file(network, read):
    tensors = dict(network[2])
    tensors[GAIN] = np.float32([2, 2, 2, 3]).reshape(1, 4, 1, 1)
    stage = read(tensors).model.subcortical
    assert (stage.p_cells.k_exc, stage.m_cells.k_exc) == (2.0, 3.0)
    assert stage.m_cells.c50 == v1.M_CELLS.c50


def test_other_cells_must_be_given(network, tmp_path, read):
    model, variables, _ = network
    cells = dataclasses.replace(v1.P_CELLS, centre_radius=0.06)
    stage = dataclasses.replace(model.subcortical, p_cells=cells)
    tensors = convert.to_torch(changed(model, subcortical=stage), variables)
    assert "subcorticalblock.dog.multi_conv.convs.0.weight" in errors(read, tensors)
    assert published(read(tensors, subcortical=stage).model) == changed(model, subcortical=stage)
    without_m_cells = {name: each for name, each in tensors.items() if ".convs.1." not in name}
    assert "missing: subcorticalblock" in errors(read, without_m_cells)


@pytest.mark.parametrize(
    ("lesion", "gain", "factor"),
    [
        ({"p_cells": None}, 4.8, 0.94),
        ({"m_cells": None}, 4.5, 0.94),
        ({"light_adaptation": False}, 4.7, 0.93),
    ],
)
def test_a_lesion_has_the_gain_and_noise_of_its_authors(lesion, gain, factor, tmp_path, read):
    """As ``create`` builds it, and as a file without flags is read."""
    stage = v1.SubcorticalConfig(**lesion)
    model = models.create("ev_resnet18", 5, width=2, subcortical=stage)
    assert (model.v1.k_exc, model.v1.noise) == (gain, v1.FanoNoise(factor))
    variables = random_variables(model)
    tensors = convert.to_torch(model, variables)
    assert published(read(tensors, subcortical=stage).model) == model
    if lesion == {"light_adaptation": False}:
        assert any("light adaptation" in note for note in read(tensors).notes)
        convert.save_torch(tmp_path / "ours.safetensors", model, variables)
        conversion = convert.read(tmp_path / "ours.safetensors")
        assert published(conversion.model) == model
        assert not any("light adaptation" in note for note in conversion.notes)


@pytest.mark.parametrize(
    "file", ["net.safetensors", pytest.param("net.pth", marks=pytest.mark.extras)]
)
def test_files_of_this_project_keep_other_noise(file, network, tmp_path):
    if file.endswith(".pth"):
        pytest.importorskip("torch")
    model, variables, _ = network
    noise = v1.FanoNoise(0.25, 1e-4)
    other = changed(model, subcortical=dataclasses.replace(model.subcortical, noise=noise))
    convert.save_torch(tmp_path / file, other, variables)
    assert published(convert.from_torch(tmp_path / file)[0]) == other


def test_folders_keep_the_subcortical_stage(tmp_path):
    stage = v1.SubcorticalConfig(
        in_channels=1,
        m_cells=None,
        p_cells=dataclasses.replace(v1.P_CELLS, k_exc=3.0),
        noise=v1.FanoNoise(0.1),
    )
    block = dataclasses.replace(models.v1_config(224, 1, "ev_resnet18"), simple_channels=8)
    model = models.create("ev_resnet18", 3, width=2, v1=block, subcortical=stage)
    assert folder_keeps(tmp_path, model, random_variables(model))
    card = (tmp_path / "README.md").read_text()
    assert "Front end, after a subcortical stage" in card


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (GAIN, None),
        ("subcorticalblock.extra", np.zeros(1, np.float32)),
        (GAIN, np.full((1, 4, 1, 1), np.nan, np.float32)),
        (GAIN, np.full((1, 4, 1, 1), -1.0, np.float32)),
        ("voneblock.simple_conv_q1.weight", None),
    ],
)
def test_damaged_front_ends_are_refused(network, read, name, value):
    tensors = {key: tensor for key, tensor in network[2].items() if key != name}
    tensors |= {} if value is None else {name: value}
    assert name.rpartition(".")[2] in errors(read, tensors)
