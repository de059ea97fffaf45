"""``train.py --initial-weights``: runs from files, folders and other runs, to their end."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import vone_jax
from tests.convert.conftest import random_variables
from tests.convert.test_from_torch import robustness
from tests.convert.torch_writer import archive
from vone_jax import convert, mesh, models, training, v1
from vone_jax.cli import train
from vone_jax.training import initial
from vone_jax.training import setup as setups

V1 = v1.VOneBlockConfig(
    simple_channels=4, complex_channels=4, image_size=28, visual_degrees=1.0, kernel_size=21,
    stride=2, in_channels=1, k_exc=20.0, gabor_seed=3,
)  # fmt: skip


def command(config, run_dir, *options):
    """Train a network of a few parameters for two steps."""
    size = ["--model.width=2", "--data.batch-size=32", "--steps=2", "--log-every=1"]
    assert train.main([f"quickstart/{config}", *size, *options, "--run-dir", str(run_dir)]) == 0
    return training.read_run(run_dir), *training.load_run(run_dir)[2:]


def started_with(run_dir):
    lines = map(json.loads, (run_dir / "log.jsonl").read_text().splitlines())
    return {
        line["part"]: (line["taken"], line["left"], line["new"])
        for line in lines
        if line["kind"] == "initial_weights"
    }


def equal(ours, theirs):
    """Return the paths at which two trees of variables are equal bit for bit."""
    one, two = flatten_dict(jax.device_get(ours)), flatten_dict(jax.device_get(theirs))
    return {path for path in one.keys() & two.keys() if np.array_equal(one[path], two[path])}


@pytest.mark.slow
def test_a_vonenet_goes_on_from_a_file_with_its_bank_and_another_run_from_that(tmp_path):
    model = models.create("vone_alexnet", 10, width=2, v1=V1)
    variables = random_variables(model)
    file = tmp_path / "net.safetensors"
    convert.save_torch(file, model, variables)
    options = ["--model.name=vone_alexnet", "--freeze", "bottleneck", "back_end/conv*"]
    start = ["--initial-weights", str(file)]
    run, trained, values = command("vone_resnet18", tmp_path / "run", *options, *start)
    # The kernels are those of the file. Sampled ones would differ by rounding.
    bank = trained.v1.bank
    assert isinstance(bank, v1.ImportedBank)
    for ours, theirs in zip(bank.kernels, model.v1.gabor_kernels(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (trained.v1.k_exc, trained.v1.gabor_seed) == (20.0, 3)
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["experiment"]["model"]["v1"]["bank"]["sha256"] == bank.digest
    assert (tmp_path / "run" / "config.json").stat().st_size < 10_000
    frozen = {path for path in flatten_dict(variables) if path[1:3] != ("back_end", path[2])}
    frozen |= {path for path in flatten_dict(variables) if path[2].startswith("conv")}
    assert frozen and equal(values, variables) == frozen
    assert all(left == new == 0 for _, left, new in started_with(tmp_path / "run").values())
    file.unlink()
    command("vone_resnet18", tmp_path / "run", *options, *start)

    start = ["--model.name=vone_alexnet", "--initial-weights", str(tmp_path / "run")]
    again, trained, _ = command("vone_resnet18", tmp_path / "second", *start)
    assert trained.v1 == run.experiment.model.v1
    assert all(left == new == 0 for _, left, new in started_with(tmp_path / "second").values())
    assert again.initial_digest != run.initial_digest


@pytest.mark.slow
def test_v1_in_front_of_the_trunk_of_a_folder(tmp_path):
    model = models.create("resnet18", 10, image_size=28, in_channels=1, width=2)
    # Small numbers: the loss of two steps must stay finite.
    variables = jax.tree.map(lambda x: np.float32(0.2) * x, random_variables(model))
    convert.save_folder(tmp_path / "base", model, variables)
    start = ["--initial-weights", str(tmp_path / "base")]
    # The bottleneck and the first stage are trained.
    freeze = ["--freeze", "back_end/layer[234]*", "back_end/fc"]
    _, _, values = command("vone_resnet18", tmp_path / "run", *start, *freeze)
    table = started_with(tmp_path / "run")
    assert table["stem"][:1] == (0,) and table["stem"][2] == 0
    assert table["bottleneck"] == (0, 0, 64 * 2)
    frozen = {path for path in flatten_dict(values) if path[2][:6] not in ("kernel", "layer1")}
    assert equal(values, variables) == frozen and len(frozen) > 50


def test_what_a_plain_state_dict_does_not_say_stays_as_in_the_config(tmp_path):
    block = v1.VOneBlockConfig(
        simple_channels=6, complex_channels=2, image_size=28, visual_degrees=1.0, kernel_size=21,
        stride=2, in_channels=1, k_exc=20.0, gabor_seed=3, image_mean=0.3,
    )  # fmt: skip
    model = models.create("vone_resnet18", 5, width=2, v1=block)
    tensors = convert.to_torch(model, random_variables(model))
    (tmp_path / "plain.pth").write_bytes(archive(tensors))
    config = training.ModelConfig("vone_resnet18", image_size=28, in_channels=1, width=2, v1=block)
    ours = training.Experiment(name="on", model=config, data=training.DataConfig(source="none"))
    front = training.start_from(ours, str(tmp_path / "plain.pth")).model.v1
    assert front is not None and isinstance(front.bank, v1.ImportedBank)
    for name in ("stride", "k_exc", "simple_channels", "complex_channels", "image_mean"):
        assert getattr(front, name) == getattr(block, name)
    # As many cells of other kinds do not fit.
    config = dataclasses.replace(config, v1=dataclasses.replace(block, simple_channels=8))
    fewer = training.start_from(
        dataclasses.replace(ours, model=config), str(tmp_path / "plain.pth")
    )
    assert fewer.model.v1 is not None
    assert (fewer.model.v1.simple_channels, fewer.model.v1.complex_channels) == (4, 4)


def test_a_plain_state_dict_of_a_base_network_keeps_the_normalisation_of_the_config(
    tmp_path, capsys
):
    model = models.create("resnet18", 10, width=2, image_size=28, in_channels=1)
    (tmp_path / "plain.pth").write_bytes(archive(convert.to_torch(model, random_variables(model))))
    config = training.ModelConfig(
        "resnet18", image_size=28, in_channels=1, width=2, mean=(0.2,), std=(0.4,)
    )
    data = training.DataConfig(source="fashion_mnist_small", batch_size=32)
    ours = training.Experiment(name="on", model=config, data=data)
    start = training.start_from(ours, str(tmp_path / "plain.pth"))
    assert (start.model.mean, start.model.std) == ((0.2,), (0.4,))
    setup = setups.prepare(start, mesh.data_mesh(jax.devices()[:1]))
    notes = initial.choose(setup).notes
    assert "model.mean stays (0.2,), since the source does not say it" in notes


def test_a_file_of_the_robustness_package_brings_its_normaliser(tmp_path):
    model = models.create("resnet18", 5, width=2)
    network = convert.to_torch(model, random_variables(model))
    wrapped = {f"module.{name}": tensor for name, tensor in robustness(network).items()}
    (tmp_path / "linf.pt").write_bytes(archive({"model": wrapped, "epoch": 90}))
    source = vone_jax.open_network(tmp_path / "linf.pt")
    config = training.ModelConfig("resnet18", width=2)
    ours = training.Experiment(name="tuned", model=config, data=training.DataConfig(source="none"))
    start = training.start_from(ours, str(tmp_path / "linf.pt"))
    np.testing.assert_allclose(start.model.mean, (0.5, 0.4, 0.3), rtol=1e-7)
    assert (start.model.mean, start.model.std) == (source.model.mean, source.model.std)
