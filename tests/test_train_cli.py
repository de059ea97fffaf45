"""The command line of train.py: what it says and with which status it ends."""

import errno
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from tests.photographs import write_photographs
from vone_jax import data, mesh, models, training, v1
from vone_jax.cli import train
from vone_jax.training.optimizer import check_patterns
from vone_jax.training.step import initial_state

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def planned(monkeypatch):
    """A list that the command line fills with the trainings that it would start."""
    calls = []

    def record(experiment, run_dir, **arguments):
        if experiment.initial_weights is not None:
            arguments["open_network"](experiment.initial_weights)
        calls.append((experiment, run_dir, arguments))
        described = training.RunDescription(experiment, experiment, ("a", "b"), 3)
        monkeypatch.setattr(training, "read_run", lambda run_dir: described)
        return training.Outcome(step=1, finished=True)

    monkeypatch.setattr(training, "train", record)
    return calls


def test_overrides_reach_the_experiment(planned, capsys):
    arguments = ["--optimizer.learning-rate", "0.05", "--model.v1.noise.scale=1/2", "--seed", "7"]
    assert train.main(["quickstart/vone_resnet18", *arguments, "--run-dir", "/x/y"]) == 0
    assert "evaluate it: python eval.py /x/y\n" in capsys.readouterr().out
    ((experiment, run_dir, options),) = planned
    plain = training.load_config("quickstart/vone_resnet18", ROOT / "configs")
    assert experiment.optimizer.learning_rate == 0.05
    assert experiment.model.v1.noise.scale == 0.5
    assert experiment.seed == 7
    assert experiment.data == plain.data
    assert experiment.optimizer.schedule == plain.optimizer.schedule
    assert run_dir == "/x/y"
    assert options["command"].startswith("python train.py quickstart/vone_resnet18 --optimizer.")


def test_patterns_are_words_and_rates_are_pairs(planned):
    freeze = ["--freeze", "stem", "back_end/layer1*"]
    rates = ["--optimizer.rates", "back_end/fc", "10", "back_end/layer4*", "0.5"]
    assert train.main(["quickstart/resnet18", *freeze, *rates]) == 0
    assert planned[0][0].freeze == ("stem", "back_end/layer1*")
    assert planned[0][0].optimizer.rates == (("back_end/fc", 10.0), ("back_end/layer4*", 0.5))


@pytest.fixture
def sources(monkeypatch):
    """Networks by the text under which the command finds them."""
    found = {
        "vone.pth": SimpleNamespace(model=models.create("vone_resnet50", v1=FRONT_END)),
        "base.pth": SimpleNamespace(model=models.create("resnet50", mean=(0.1, 0.2, 0.3))),
    }
    monkeypatch.setattr(train, "open_network", lambda spec, code=(): found[spec])
    return found


FRONT_END = v1.VOneBlockConfig(simple_channels=4, complex_channels=4, k_exc=17.0, noise=None)
VONE = ["imagenet/vone_resnet50", "--initial-weights", "vone.pth"]


def test_the_command_opens_the_initial_weights_and_the_teacher(planned, sources, tmp_path):
    config = tmp_path / "learning.py"
    config.write_text(
        "from dataclasses import replace\nfrom vone_jax.training import Distillation\n"
        "from configs.imagenet.vone_resnet50 import experiment as e\n"
        "experiment = replace(e, objectives=(Distillation('base.pth'),))\n"
    )
    command = [str(config), *VONE[1:], "--run-dir", str(tmp_path / "run")]
    assert train.main(command) == 0
    opened = planned[0][2]["open_network"]
    assert all(opened(name) is source for name, source in sources.items())


def test_the_guide_starts_from_weights_in_three_ways(planned, sources, tmp_path, monkeypatch):
    guide = (ROOT / "docs" / "guide.md").read_text().replace("\\\n", "")
    commands = re.findall(r"^python train\.py (.*--initial-weights.*)$", guide, re.MULTILINE)
    sources |= dict.fromkeys(("resnet50.pth", "checkpoint.pth.tar"), sources["base.pth"])
    sources["voneresnet50_e70.pth.tar"] = sources["vone.pth"]
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path, "photos/train/cat/1.png", "photos/train/dog/1.png")
    images = data.load("folder:photos", "train")
    assert [train.main(shlex.split(command)) for command in commands] == [0, 0, 0]
    resolved = []
    for experiment, _, options in planned:
        filled = replace(experiment.data, source="folder:photos")
        experiment = replace(experiment, data=filled)
        initial = options["open_network"](experiment.initial_weights)
        experiment = training.resolve(experiment, images, initial)
        state = jax.eval_shape(lambda e=experiment: initial_state(e, e.build()))
        rates = experiment.optimizer.rates
        check_patterns(experiment.freeze, rates, state.params, state.batch_stats)
        resolved.append(experiment.model)
    photographs, in_front, continued = resolved
    assert photographs.v1 == FRONT_END and photographs.num_classes == 2
    assert in_front.v1.k_exc == 25.0 and continued.mean == (0.1, 0.2, 0.3)


def test_weights_that_cannot_be_opened_are_an_error_of_one_line(
    planned, monkeypatch, capsys, tmp_path
):
    def refuse(spec, code=()):
        raise ValueError(f"{spec} is damaged")

    monkeypatch.setattr(train, "open_network", refuse)
    assert train.main([*VONE, "--run-dir", str(tmp_path)]) == 2
    message = "error: vone.pth is damaged\n"
    assert capsys.readouterr().err == message
    assert planned == []


def test_the_normalisation_is_one_number_or_one_per_channel(planned):
    mean = ["--model.v1.image-mean", "0.485", "0.456", "0.406"]
    assert train.main(["cifar10/vone_resnet18", *mean, "--model.v1.image-std", "0.25"]) == 0
    assert planned[0][0].model.v1.image_mean == (0.485, 0.456, 0.406)
    assert planned[0][0].model.v1.image_std == 0.25


def test_what_a_config_says_stays_and_a_contradiction_is_named(planned, capsys):
    """The V1 of the quickstart is for 28 pixels; that of photos follows from the image size."""
    assert train.main(["photos", "--model.image-size", "32"]) == 0
    assert planned[0][0].model.v1 is None
    with pytest.raises(SystemExit):
        train.main(["quickstart/vone_resnet18", "--model.image-size", "64"])
    assert "image_size is 64, but v1.image_size is 28" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (training.NonFiniteError("the loss is nan at step 5"), None),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
    ],
)
def test_errors_are_one_line_and_status_1(monkeypatch, capsys, error, message):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(training, "train", fail)
    assert train.main(["quickstart/resnet18"]) == 1
    assert capsys.readouterr().err == f"error: {message or error}\n"


def test_processes_are_joined_before_anything_is_trained(planned, monkeypatch):
    joined = []
    monkeypatch.setattr(mesh, "join_processes", joined.append)
    assert train.main(["quickstart/resnet18", "--distributed", "auto"]) == 0
    assert joined == ["auto"] and len(planned) == 1


def test_no_config_touches_the_devices():
    """Processes can be joined only before that."""
    program = (
        "import sys\n"
        "from vone_jax import mesh, training\n"
        "from vone_jax.cli import train\n"
        "training.train = lambda *arguments, **options: sys.exit(3)\n"
        "mesh.join_processes = lambda cluster: print(xla_bridge.backends_are_initialized())\n"
        "from jax._src import xla_bridge\n"
        "train.main(['imagenet/vone_cornet_s', '--distributed', 'auto'])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.returncode) == ("False\n", 3), result.stderr
