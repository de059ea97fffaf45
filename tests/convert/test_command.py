"""The command says what a file is, writes it in either direction, and explains what is wrong."""

import pytest

from tests.convert.conftest import equal
from tests.convert.torch_writer import archive
from tests.networks import random_variables
from vone_jax import convert, models
from vone_jax.cli.convert import main


@pytest.fixture
def file(vone, tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(archive({"state_dict": vone[2]}))
    return path


def test_a_checkpoint_becomes_a_folder_and_a_folder_a_file(vone, file, tmp_path, capsys):
    folder, out = tmp_path / "net", tmp_path / "net.safetensors"
    assert main([str(file), "--out", str(folder), "--licence", "mit"]) == 0
    output = capsys.readouterr().out
    assert "vone_resnet18 (torch.save archive)" in output and "bank: 16 pairs" in output
    assert f"{vone[0].spec.num_classes} classes, images of 224 pixels, 3 channels" in output
    assert equal(convert.load_folder(folder)[1], vone[1])
    assert "converted from net.pth" in (folder / "README.md").read_text()
    assert main([str(folder), "--out", str(out)]) == 0
    assert equal(convert.from_torch(out)[1], vone[1])


def test_options_reach_the_reader(tmp_path, capsys):
    model = models.create("resnet18", 3, width=2)
    path = tmp_path / "net.pth"
    tensors = convert.to_torch(model, random_variables(model))
    path.write_bytes(archive({"state_dict": tensors, "flags": {"colour": "blue"}}))
    assert main([str(path)]) == 0
    output = capsys.readouterr().out
    assert "flags that are not read: colour 'blue'" in output and "normalisation that" in output
    options = ["--image-size", "64", "--stem-size", "64", "--mean", "0.5", "--std", "0.25"]
    assert main([str(path), "--out", str(tmp_path / "net"), *options]) == 0
    again, _ = convert.load_folder(tmp_path / "net")
    assert again == models.create("resnet18", 3, 64, width=2, mean=(0.5,), std=(0.25,))
    # What is given is not assumed.
    assert not [
        line
        for line in capsys.readouterr().out.splitlines()
        if "does not say" in line and "pooling" not in line
    ]


def test_errors_are_short_and_complete(file, tmp_path, capsys):
    assert main([str(file), "--name", "resnet18"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: net.pth does not convert to resnet18:\n  ")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"format": 1, "experiment": {}}')
    assert main([str(file), "--out", str(tmp_path / "run")]) == 2
    assert "must be a new directory" in capsys.readouterr().err
    assert main([str(tmp_path / "none.pth")]) == 2
