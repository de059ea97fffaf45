"""The command says what a file is, writes the folder, and explains what is wrong."""

import subprocess
import sys

import pytest

from tests.convert.conftest import equal
from tests.convert.torch_writer import archive
from vone_jax import convert
from vone_jax.cli.convert import main


@pytest.fixture
def file(vone, tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(archive({"state_dict": vone[2]}))
    return path


def test_it_converts(vone, file, tmp_path, capsys):
    assert main([str(file), "--out", str(tmp_path / "net"), "--licence", "mit"]) == 0
    output = capsys.readouterr().out
    assert "vone_resnet18 (torch.save archive)" in output and "bank: 16 pairs" in output
    model, variables = convert.load_folder(tmp_path / "net")
    assert equal(variables, vone[1])
    assert "converted from net.pth" in (tmp_path / "net" / "README.md").read_text()


def test_a_run_is_not_overwritten(file, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"format": 1, "experiment": {}}')
    with pytest.raises(SystemExit) as stop:
        main([str(file), "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "--out" in error and "must be a new directory" in error


def test_errors_are_short_and_complete(file, capsys):
    assert main([str(file), "--name", "resnet18"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m vone_jax.convert: net.pth does not convert to resnet18:\n  ")


def test_a_file_that_cannot_be_read_is_a_failure(file, monkeypatch, capsys):
    """Not a wrong argument: it may be there the next time."""
    given = {}

    def read(path, **fields):
        given.update(fields)
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(convert, "read", read)
    assert main([str(file), "--name", "resnet18", "--image-size", "64"]) == 1
    assert "Permission denied" in capsys.readouterr().err
    assert (given["name"], given["image_size"]) == ("resnet18", 64)


@pytest.mark.slow
def test_it_runs_as_a_module(tmp_path):
    path = tmp_path / "bad.pth"
    path.write_bytes(b"nonsense")
    done = subprocess.run(
        [sys.executable, "-m", "vone_jax.convert", path], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith(f"python -m vone_jax.convert: {path}: ")
    assert "Traceback" not in done.stderr
