"""``train.py --initial-weights``: runs from files, folders and other runs, to their end."""

import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import vone_jax
from tests.convert.test_from_torch import robustness
from tests.convert.torch_writer import archive
from tests.networks import random_variables
from vone_jax import convert, data, models, runs, training, v1
from vone_jax.cli import train

V1 = v1.VOneBlockConfig(
    simple_channels=4, complex_channels=4, image_size=28, visual_degrees=1.0, kernel_size=21,
    stride=2, in_channels=1, k_exc=20.0, gabor_seed=3,
)  # fmt: skip


def command(config, run_dir, *options):
    """Train a network of a few parameters for two steps."""
    size = ["--model.width=2", "--data.batch-size=32", "--steps=2", "--log-every=1"]
    assert train.main([*config, *size, *options, "--run-dir", str(run_dir)]) == 0
    return runs.load_run(run_dir)


def started_with(told):
    """The table of parameters that a command prints."""
    rows = [line.split() for line in told.partition("parameters of")[2].splitlines()[1:]]
    rows = [row for row in rows if len(row) == 4 and row[1].replace(",", "").isdecimal()]
    return {name: tuple(int(n.replace(",", "")) for n in counts) for name, *counts in rows}


def equal(ours, theirs):
    """Return the paths at which two trees of variables are equal bit for bit."""
    one, two = flatten_dict(jax.device_get(ours)), flatten_dict(jax.device_get(theirs))
    return {path for path in one.keys() & two.keys() if np.array_equal(one[path], two[path])}


@pytest.mark.slow
def test_a_vonenet_goes_on_from_a_file_with_its_bank_and_another_run_from_that(tmp_path, capsys):
    """The config says nothing about V1, so it is that of the file, and then that of the run."""
    model = models.create("vone_alexnet", 10, width=2, v1=V1)
    variables = random_variables(model)
    file = tmp_path / "net.safetensors"
    convert.save_torch(file, model, variables)
    config = ["photos", "--data.source=fashion_mnist_small", "--model.image-size=28"]
    config += ["--model.name=vone_alexnet", "--freeze", "bottleneck", "back_end/conv*"]
    start = ["--initial-weights", str(file)]
    run = command(config, tmp_path / "run", *start)
    # The kernels are those of the file. Sampled ones would differ by rounding.
    bank = run.model.v1.bank
    assert isinstance(bank, v1.ImportedBank)
    for ours, theirs in zip(bank.kernels, model.v1.gabor_kernels(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (run.model.v1.k_exc, run.model.v1.gabor_seed) == (20.0, 3)
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["experiment"]["model"]["v1"]["bank"]["sha256"] == bank.digest
    assert stored["unresolved"]["model"]["v1"] is None
    frozen = {path for path in flatten_dict(variables) if path[1:3] != ("back_end", path[2])}
    frozen |= {path for path in flatten_dict(variables) if path[2].startswith("conv")}
    assert frozen and equal(run.variables, variables) == frozen
    table = started_with(capsys.readouterr().err)
    assert table and all(left == new == 0 for _, left, new in table.values())
    file.unlink()
    command(config, tmp_path / "run", *start)

    again = command(config, tmp_path / "second", "--initial-weights", str(tmp_path / "run"))
    assert again.experiment.model.v1 == run.experiment.model.v1
    table = started_with(capsys.readouterr().err)
    assert table and all(left == new == 0 for _, left, new in table.values())


@pytest.mark.slow
def test_v1_in_front_of_the_trunk_of_a_folder(tmp_path, capsys):
    model = models.create("resnet18", 10, image_size=28, in_channels=1, width=2)
    # Small numbers: the loss of two steps must stay finite.
    variables = jax.tree.map(lambda x: np.float32(0.2) * x, random_variables(model))
    convert.save_folder(tmp_path / "base", model, variables)
    start = ["--initial-weights", str(tmp_path / "base")]
    # The bottleneck and the first stage are trained.
    freeze = ["--freeze", "back_end/layer[234]*", "back_end/fc"]
    values = command(["quickstart/vone_resnet18"], tmp_path / "run", *start, *freeze).variables
    table = started_with(capsys.readouterr().err)
    assert table["stem"][:1] == (0,) and table["stem"][2] == 0
    assert table["bottleneck"] == (0, 0, 64 * 2)
    frozen = {path for path in flatten_dict(values) if path[2][:6] not in ("kernel", "layer1")}
    assert equal(values, variables) == frozen and len(frozen) > 50


def test_a_file_of_the_robustness_package_brings_its_normaliser(tmp_path):
    model = models.create("resnet18", 5, width=2)
    network = convert.to_torch(model, random_variables(model))
    wrapped = {f"module.{name}": tensor for name, tensor in robustness(network).items()}
    (tmp_path / "linf.pt").write_bytes(archive({"model": wrapped, "epoch": 90}))
    source = vone_jax.open_network(tmp_path / "linf.pt")
    config = training.DataConfig("none", eval_split="test")
    ours = training.Experiment("tuned", models.Spec("resnet18", width=2), config)
    images = data.ArraySource(
        np.zeros((2, 8, 8, 3), np.uint8), np.arange(2), class_names=("a", "b")
    )
    start = training.resolve(ours, images, source)
    np.testing.assert_allclose(start.model.mean, (0.5, 0.4, 0.3), rtol=1e-7)
    assert (start.model.mean, start.model.std) == (source.model.spec.mean, source.model.spec.std)
