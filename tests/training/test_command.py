"""A VOneNet trained by the command: stopped by a signal, resumed, loaded."""

import json
import os
import signal

import jax
import pytest

from vone_jax import runs
from vone_jax.cli import convert, train
from vone_jax.training.run import RunLog, read_log

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
def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
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
    assert kinds == ["train"] * 2
    assert train.main(command) == 0
    records = read_log(tmp_path / "log.jsonl")
    assert [r["step"] for r in records if r["kind"] == "train"] == [1, 2, 3, 4]
    assert [r["seen"] for r in records if r["kind"] == "validation"] == [2000]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["experiment"]["model"]["v1"]["simple_channels"] == 4
    run = runs.load_run(tmp_path)
    assert run.model.v1 == run.experiment.model.v1
    assert config["parameters"] == sum(x.size for x in jax.tree.leaves(run.variables["params"]))
    capsys.readouterr()
    assert convert.main([str(tmp_path)]) == 0
    told = "10 classes (T-shirt/top to Ankle boot), images of 28 pixels, grey, checkpoint of step 4"
    assert told in capsys.readouterr().out
