"""The command line of train.py: what it says and with which status it ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from vone_jax import mesh, training
from vone_jax.cli import train

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def planned(monkeypatch):
    """What would be trained: a list that the command line fills instead of training."""
    calls = []

    def record(experiment, run_dir, **arguments):
        calls.append((experiment, run_dir, arguments))
        return training.Outcome(step=1, finished=True)

    monkeypatch.setattr(training, "train", record)
    return calls


def test_help_names_the_configs(capsys):
    assert train.main(["--help"]) == 0
    assert "quickstart/vone_resnet18" in capsys.readouterr().out


def test_the_script_is_the_same_command():
    command = [sys.executable, "train.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.stdout, result.returncode) == ("", 2)
    assert "quickstart/vone_resnet18" in result.stderr


def test_no_config_is_a_usage_error(capsys):
    assert train.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "imagenet/vone_resnet50" in captured.err
    assert train.main(["--seed", "3"]) == 2


def test_an_unknown_config_is_named_with_the_nearest(capsys):
    assert train.main(["quickstart/vone_resnet"]) == 2
    message = capsys.readouterr().err
    assert "no config 'quickstart/vone_resnet'; did you mean 'quickstart/vone_resnet18'" in message


def test_help_for_a_config_lists_fields_with_their_values(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["tiny_imagenet/vone_resnet18", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for field in ("--optimizer.learning-rate", "--optimizer.schedule.patience", "--model.v1.k-exc"):
        assert field in text
    assert "--model.v1.noise.scale" in text and "0.286" in text


def test_overrides_reach_the_experiment(planned):
    arguments = ["--optimizer.learning-rate", "0.05", "--model.v1.noise.scale=0.5", "--seed", "7"]
    assert train.main(["quickstart/vone_resnet18", *arguments, "--run-dir", "/x/y"]) == 0
    ((experiment, run_dir, options),) = planned
    plain = training.load_config("quickstart/vone_resnet18", ROOT / "configs")
    assert experiment.optimizer.learning_rate == 0.05
    assert experiment.model.v1.noise.scale == 0.5
    assert experiment.seed == 7
    assert experiment.data == plain.data
    assert experiment.optimizer.schedule == plain.optimizer.schedule
    assert run_dir == Path("/x/y")
    assert options["command"].startswith("python train.py quickstart/vone_resnet18 --optimizer.")


def test_patterns_are_words_and_rates_are_pairs(planned):
    freeze = ["--freeze", "stem", "back_end/layer1*"]
    rates = ["--optimizer.rates", "back_end/fc", "10", "back_end/layer4*", "0.5"]
    assert train.main(["quickstart/resnet18", *freeze, *rates]) == 0
    assert planned[0][0].freeze == ("stem", "back_end/layer1*")
    assert planned[0][0].optimizer.rates == (("back_end/fc", 10.0), ("back_end/layer4*", 0.5))


def test_the_normalisation_is_one_number_or_one_per_channel(planned):
    mean = ["--model.v1.image-mean", "0.485", "0.456", "0.406"]
    assert train.main(["cifar10/vone_resnet18", *mean, "--model.v1.image-std", "0.25"]) == 0
    assert planned[0][0].model.v1.image_mean == (0.485, 0.456, 0.406)
    assert planned[0][0].model.v1.image_std == 0.25
    assert train.main(["quickstart/vone_resnet18", *mean[:2]]) == 0
    assert planned[1][0].model.v1.image_mean == 0.485
    assert train.main(["cifar10/resnet18", "--model.mean", *mean[1:]]) == 0
    assert planned[2][0].model.mean == (0.485, 0.456, 0.406)


def test_the_run_directory_is_named_after_the_experiment(planned):
    assert train.main(["quickstart/resnet18"]) == 0
    assert planned[0][1] == Path("runs/quickstart-resnet18")
    assert train.main(["quickstart/resnet18", "--name", "mine"]) == 0
    assert planned[1][1] == Path("runs/mine")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer.learning-rat", "0.1"], "--optimizer.learning-rate"),
        (["--learning-rate", "0.1"], "--optimizer.learning-rate"),
        (["--optimizer.learning-rate", "fast"], "fast"),
        (["--optimizer.learning-rate=-1"], "learning_rate must be a finite number > 0"),
        (["--optimizer.learning-rate=nan"], "learning_rate must be a finite number > 0"),
        (["--seed", "1.5"], "1.5"),
        (["--precision", "float16"], "bfloat16"),
        (["--model.name", "resnet17"], "did you mean"),
        (["--data.batch-size", "0"], "batch_size must be an integer >= 1"),
        (["--optimizer.rates", "back_end/fc", "0"], "the factor of 'back_end/fc'"),
        (["--optimizer.rates", "back_end/fc=10"], "--optimizer.rates [STR FLOAT"),
        (["--optimizer.schedule.patience", "3"], "--optimizer.schedule.patience"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_trained(planned, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        train.main(["quickstart/vone_resnet18", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert planned == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "steps must be an integer >= 1, got 0"),
        (["--name", "a/b"], "name"),
        (["--evaluate-every=nan"], "evaluate_every must be a finite number"),
        (["--accumulation-steps", "3"], "accumulation_steps"),
    ],
)
def test_wrong_fields_of_the_experiment_itself_are_named(planned, capsys, arguments, message):
    assert train.main(["quickstart/vone_resnet18", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train.py: ") and message in line
    assert planned == []


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no split 'trian'"),
        FileNotFoundError("no such folder"),
        training.RunDirectoryError("in use"),
        training.NonFiniteError("the loss is nan at step 5"),
        training.CheckpointError("disk full"),
        training.UnreadableDataError("101 training images could not be read"),
        ChildProcessError("a data worker died"),
    ],
)
def test_errors_are_one_line_and_status_1(monkeypatch, capsys, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(training, "train", fail)
    assert train.main(["quickstart/resnet18"]) == 1
    assert capsys.readouterr().err == f"train.py: {error}\n"


def test_the_directory_of_compiled_programs_is_a_field(planned, tmp_path):
    assert train.main(["quickstart/resnet18", "--compilation-cache", str(tmp_path)]) == 0
    assert planned[0][0].compilation_cache == str(tmp_path)


def test_processes_are_joined_before_anything_is_trained(planned, monkeypatch, capsys):
    joined = []
    monkeypatch.setattr(mesh, "join_processes", joined.append)
    assert train.main(["quickstart/resnet18", "--distributed", "auto"]) == 0
    assert joined == ["auto"] and len(planned) == 1
    monkeypatch.undo()
    assert train.main(["quickstart/resnet18", "--distributed", "host:1,2"]) == 1
    assert "the processes must be given as auto or HOST:PORT,N,I" in capsys.readouterr().err


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
