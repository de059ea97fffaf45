"""A VOneNet trained by the command: stopped by a signal, resumed, loaded."""

import json
import os
import signal
import sys

import jax
import pytest

from vone_jax import training
from vone_jax.cli import train
from vone_jax.training.monitor import RunLog, read_log

pytestmark = pytest.mark.usefixtures("cached_compilation")

TINY = [
    "quickstart/vone_resnet18",
    "--model.name=vone_alexnet",
    "--model.width=2",
    "--model.v1.simple-channels=4",
    "--model.v1.complex-channels=4",
    "--data.batch-size=32",
    "--steps=4",
    "--log-every=1",
    "--evaluate-every=10",
]


@pytest.mark.slow
def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, monkeypatch):
    """SIGTERM arrives while step 2 is logged; the second start finishes the run."""
    write = RunLog.write

    def interrupt(self, record):
        write(self, record)
        if record["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    command = [*TINY, "--run-dir", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "write", interrupt)
        assert train.main(command) == 75
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    kinds = [record["kind"] for record in read_log(tmp_path / "log.jsonl")]
    assert kinds == ["train"] * 3
    assert train.main(command) == 0
    records = read_log(tmp_path / "log.jsonl")
    assert [r["step"] for r in records if r["kind"] == "train"] == [1, 2, 3, 4]
    assert [r["seen"] for r in records if r["kind"] == "validation"] == [2000]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["experiment"]["model"]["v1"]["simple_channels"] == 4
    _, experiment, model, variables = training.load_run(tmp_path)
    assert model.v1 == experiment.model.v1
    assert config["parameters"] == sum(x.size for x in jax.tree.leaves(variables["params"]))


def test_the_package_for_tensorboard_is_named_before_anything_is_written(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    run_dir = tmp_path / "run"
    assert train.main([*TINY, "--tensorboard", "--run-dir", str(run_dir)]) == 2
    wanted = '--tensorboard needs the package tensorboardX: pip install "vone-jax[tracking]"\n'
    assert capsys.readouterr().err.endswith(wanted) and not run_dir.exists()

    def prepare(*arguments):
        raise KeyError("prepared")

    # Only that option needs it.
    monkeypatch.setattr("vone_jax.training.loop.prepare", prepare)
    with pytest.raises(KeyError, match="prepared"):
        train.main([*TINY, "--run-dir", str(run_dir)])
