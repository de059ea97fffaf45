"""The command line of train.py: what it says and with which status it ends."""

import contextlib
import errno
import inspect
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
from vone_jax import cli, mesh, models, names, training, v1
from vone_jax.cli import train
from vone_jax.evaluation import Request
from vone_jax.experiments.state import check_patterns, initial_state
from vone_jax.training import initial

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def planned(monkeypatch):
    """A list that the command line fills with the trainings that it would start."""
    calls = []

    def record(experiment, run_dir, **arguments):
        calls.append((experiment, run_dir, arguments))
        described = training.RunDescription(experiment)
        monkeypatch.setattr(training, "read_run", lambda run_dir: described)
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


def test_help_for_a_config_lists_fields_with_their_values(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["tiny_imagenet/vone_resnet18", "--help-all"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for field in ("--optimizer.learning-rate", "--optimizer.schedule.patience", "--model.v1.k-exc"):
        assert field in text
    assert "--model.v1.noise.scale" in text and "0.286" in text
    assert all(name in text for name in models.NAMES if not names.front_end(name))


@pytest.mark.parametrize(
    "of",
    [Request, v1.VOneBlockConfig, v1.SurroundNormalization, v1.SubcorticalConfig, v1.NeuronalNoise],
)
def test_help_is_not_broken_within_a_sentence(of):
    """The parser joins a line to the one before only if it begins with a letter."""
    fields = inspect.cleandoc(of.__doc__).partition("Attributes:")[2]
    following = re.findall(r"^ {4}(\S.*)$", fields, re.MULTILINE)
    assert following and [line for line in following if not line[0].isalpha()] == []


def test_short_help_fits_a_screen(capsys):
    assert train.main(["tiny_imagenet/vone_resnet18", "--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 24 and max(map(len, text.splitlines())) <= 100
    assert "--model.image-size 64" in text and "--help-all" in text


def test_an_output_that_cannot_be_written_is_a_failure(planned):
    with open("/dev/full", "w") as full, contextlib.redirect_stdout(full):
        assert train.main(["quickstart/resnet18", "--run-dir", "/x/y"]) == 1


def test_overrides_reach_the_experiment(planned, capsys):
    arguments = ["--optimizer.learning-rate", "0.05", "--model.v1.noise.scale=1/2", "--seed", "7"]
    arguments += ["--compilation-cache", "/x/cache"]
    assert train.main(["quickstart/vone_resnet18", *arguments, "--run-dir", "/x/y"]) == 0
    assert "evaluate it: python eval.py /x/y\n" in capsys.readouterr().out
    ((experiment, run_dir, options),) = planned
    plain = training.load_config("quickstart/vone_resnet18", ROOT / "configs")
    assert experiment.optimizer.learning_rate == 0.05
    assert experiment.model.v1.noise.scale == 0.5
    assert experiment.seed == 7 and experiment.compilation_cache == "/x/cache"
    assert experiment.data == plain.data
    assert experiment.optimizer.schedule == plain.optimizer.schedule
    assert run_dir == Path("/x/y")
    assert options["command"].startswith("python train.py quickstart/vone_resnet18 --optimizer.")


def test_a_network_of_one_class_is_not_to_be_evaluated(planned, capsys):
    assert train.main(["quickstart/resnet18", "--model.num-classes", "1"]) == 0
    assert "eval.py" not in capsys.readouterr().out


def test_patterns_are_words_and_rates_are_pairs(planned):
    freeze = ["--freeze", "stem", "back_end/layer1*"]
    rates = ["--optimizer.rates", "back_end/fc", "10", "back_end/layer4*", "0.5"]
    assert train.main(["quickstart/resnet18", *freeze, *rates]) == 0
    assert planned[0][0].freeze == ("stem", "back_end/layer1*")
    assert planned[0][0].optimizer.rates == (("back_end/fc", 10.0), ("back_end/layer4*", 0.5))


_BANK = v1.sample_gabor_parameters(8, seed=5, sf_max=6.0)
# A front end with little of its own default, as a file of weights has it.
FRONT_END = v1.VOneBlockConfig(
    simple_channels=4, complex_channels=4, k_exc=17.0, sf_max=6.0, noise=None,
    image_mean=(0.4, 0.5, 0.6), image_std=(0.2, 0.2, 0.3),
    bank=v1.ImportedBank(*v1.gabor_kernels(_BANK, 25, 28.0), _BANK, 28.0),
)  # fmt: skip


@pytest.fixture
def sources(monkeypatch):
    """Networks by the text under which the command finds them."""
    found = {
        "vone.pth": SimpleNamespace(model=models.create("vone_resnet18", v1=FRONT_END), assumed=()),
        "base.pth": SimpleNamespace(
            model=models.create("resnet18", mean=(0.1, 0.2, 0.3), std=(0.3, 0.2, 0.1)), assumed=()
        ),
    }
    monkeypatch.setattr(initial, "open_source", found.__getitem__)
    return found


VONE = ["imagenet/vone_resnet50", "--initial-weights", "vone.pth"]


def test_weights_bring_the_front_end_of_a_vonenet_but_its_noise(planned, sources, tmp_path):
    assert train.main([*VONE, "--run-dir", str(tmp_path)]) == 0
    config = training.load_config("imagenet/vone_resnet50", ROOT / "configs")
    assert planned[0][0] == replace(
        config,
        initial_weights="vone.pth",
        model=replace(config.model, v1=replace(FRONT_END, noise=config.model.v1.noise)),
    )


def test_options_take_precedence_over_the_front_end_of_weights(planned, sources, tmp_path):
    def front_end(*options):
        assert train.main([*VONE, "--run-dir", str(tmp_path), *options]) == 0
        return planned[-1][0].model.v1

    assert front_end("--model.v1.image-mean", "0.5").image_mean == 0.5
    assert front_end("--model.v1.image-mean", "0.5").image_std == FRONT_END.image_std
    assert front_end("--model.v1.k-exc", "25").k_exc == 25
    assert front_end("--model.v1.k-exc", "25").bank == FRONT_END.bank
    assert front_end("--model.v1.noise.scale", "0.7").noise == v1.NeuronalNoise(scale=0.7)
    sampled = front_end("--model.v1.gabor-seed", "3")
    assert (sampled.bank, sampled.gabor_seed, sampled.sf_max) == (None, 3, 6.0)
    for option, value in (
        ("distribution", "uniform"),
        ("sf-min", "0.6"),
        ("sf-max", "5"),
    ):
        assert front_end(f"--model.v1.{option}", value).bank is None, option
    # Also where the source has the value that is typed.
    assert front_end("--model.v1.gabor-seed", str(FRONT_END.gabor_seed)).bank is None
    tuned = front_end("--model.v1.tuned")
    assert tuned.tuned and tuned.bank == FRONT_END.bank.parameters


def test_a_surround_that_the_weights_do_not_have_is_told(planned, sources, tmp_path, capsys):
    config = tmp_path / "surround.py"
    config.write_text(
        "from dataclasses import replace\nfrom vone_jax.v1 import SurroundNormalization\n"
        "from configs.imagenet.vone_resnet50 import experiment as e\n"
        "v1 = replace(e.model.v1, normalization=SurroundNormalization())\n"
        "experiment = replace(e, model=replace(e.model, v1=v1))\n"
    )
    command = [str(config), "--initial-weights", "vone.pth", "--run-dir", str(tmp_path / "run")]
    assert train.main(command) == 0
    assert planned[0][0].model.v1.normalization is None
    assert "has a V1 without normalization" in capsys.readouterr().err
    assert train.main([*VONE, "--run-dir", str(tmp_path / "run")]) == 0
    assert not capsys.readouterr().err


def test_weights_bring_the_normalisation_of_a_base_network(planned, sources, tmp_path):
    command = ["imagenet/resnet50", "--initial-weights", "base.pth", "--run-dir", str(tmp_path)]
    assert train.main(command) == 0
    assert planned[0][0].model.mean == (0.1, 0.2, 0.3)
    assert planned[0][0].model.std == (0.3, 0.2, 0.1)
    assert train.main([*command, "--model.mean", "0.5", "0.5", "0.5"]) == 0
    assert planned[1][0].model.mean == (0.5, 0.5, 0.5)
    assert planned[1][0].model.std == (0.3, 0.2, 0.1)
    assert train.main([*command, "--model.mean", "0.5"]) == 0
    assert planned[2][0].model.build(num_classes=1).mean == (0.5, 0.5, 0.5)


def test_the_guide_starts_from_weights_in_three_ways(planned, sources, monkeypatch, tmp_path):
    guide = (ROOT / "docs" / "guide.md").read_text().replace("\\\n", "")
    commands = re.findall(r"^python train\.py (.*--initial-weights.*)$", guide, re.MULTILINE)
    sources |= dict.fromkeys(("resnet50.pth", "checkpoint.pth.tar"), sources["base.pth"])
    sources["voneresnet50_e70.pth.tar"] = sources["vone.pth"]
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path, "photos/train/cat/1.png", "photos/val/cat/1.png")
    assert [train.main(shlex.split(command)) for command in commands] == [0, 0, 0]
    photographs, in_front, continued = (experiment for experiment, *_ in planned)
    assert photographs.model.num_classes is None and photographs.model.v1.bank == FRONT_END.bank
    assert photographs.optimizer.rates == (("back_end/fc", 10.0),)
    assert in_front.model.v1.bank is None and continued.model.mean == (0.1, 0.2, 0.3)
    for experiment in (photographs, in_front, continued):
        seven = replace(experiment, model=replace(experiment.model, num_classes=7))
        state = jax.eval_shape(lambda e=seven: initial_state(e, e.build()))
        rates = experiment.optimizer.rates
        check_patterns(experiment.freeze, rates, state.params, state.batch_stats)


def test_weights_that_cannot_be_opened_are_an_error_of_one_line(
    planned, monkeypatch, capsys, tmp_path
):
    def refuse(spec):
        raise ValueError(f"{spec} is damaged")

    monkeypatch.setattr(initial, "open_source", refuse)
    assert train.main([*VONE, "--run-dir", str(tmp_path)]) == 2
    message = "train.py: --initial-weights vone.pth: vone.pth is damaged\n"
    assert capsys.readouterr().err == message
    assert planned == []


def test_the_normalisation_is_one_number_or_one_per_channel(planned):
    mean = ["--model.v1.image-mean", "0.485", "0.456", "0.406"]
    assert train.main(["cifar10/vone_resnet18", *mean, "--model.v1.image-std", "0.25"]) == 0
    assert planned[0][0].model.v1.image_mean == (0.485, 0.456, 0.406)
    assert planned[0][0].model.v1.image_std == 0.25
    assert train.main(["quickstart/vone_resnet18", *mean[:2]]) == 0
    assert planned[1][0].model.v1.image_mean == 0.485
    assert train.main(["cifar10/resnet18", "--model.mean", *mean[1:]]) == 0
    assert planned[2][0].model.mean == (0.485, 0.456, 0.406)


def test_the_image_size_moves_what_follows_from_it(planned):
    size = ["--model.image-size", "64", "--model.v1.noise.level", "3"]
    assert train.main(["quickstart/vone_resnet18", *size]) == 0
    before = training.load_config("quickstart/vone_resnet18", cli.configs()).model.v1
    moved, default = planned[0][0].model.v1, models.v1_config(64, in_channels=1)
    fields = ("visual_degrees", "kernel_size", "stride", "sf_max", "distribution")
    assert [getattr(moved, name) for name in fields] == [getattr(default, name) for name in fields]
    # What the config and the command line say stays.
    assert (moved.k_exc, moved.simple_channels) == (before.k_exc, before.simple_channels)
    assert moved.noise == replace(default.noise, level=3.0)
    assert train.main(["imagenet/ev_resnet50", "--model.image-size", "64"]) == 0
    evnet = planned[1][0].model
    assert evnet.subcortical.visual_degrees == evnet.v1.visual_degrees == 2.0


def test_classes_channels_and_split_follow_from_the_data(planned, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path, *(f"photos/{k}/{i}.png" for k in ("cat", "dog") for i in range(6)))
    command = ["quickstart/vone_resnet18", "--data.source", "folder:photos"]
    assert train.main(command) == 0
    model, used = planned[0][0].model, planned[0][0].data
    assert (model.num_classes, model.in_channels, model.v1.in_channels) == (None, 3, 3)
    assert used.eval_split == "validation"
    assert train.main([*command, "--model.in-channels", "1", "--model.num-classes", "9"]) == 0
    assert (planned[1][0].model.in_channels, planned[1][0].model.num_classes) == (1, 9)


def test_the_run_directory_is_named_after_the_experiment(planned):
    assert train.main(["quickstart/resnet18"]) == 0
    assert planned[0][1] == Path("runs/quickstart-resnet18")
    assert train.main(["quickstart/resnet18", "--name", "mine"]) == 0
    assert planned[1][1] == Path("runs/mine")


_FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (training.NonFiniteError("the loss is nan at step 5"), None),
        (training.CheckpointError("disk full"), None),
        (_FULL, "runs/quickstart-resnet18: No space left on device"),
    ],
)
def test_errors_are_one_line_and_status_1(monkeypatch, capsys, error, message):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(training, "train", fail)
    assert train.main(["quickstart/resnet18"]) == 1
    assert capsys.readouterr().err == f"train.py: {message or error}\n"


def test_processes_are_joined_before_anything_is_trained(planned, monkeypatch, tmp_path):
    joined = []
    monkeypatch.setattr(mesh, "join_processes", joined.append)
    assert train.main(["quickstart/resnet18", "--distributed", "auto"]) == 0
    assert joined == ["auto"] and len(planned) == 1
    monkeypatch.setattr(initial, "open_source", joined.append)
    with pytest.raises(AttributeError):
        train.main([*VONE, "--run-dir", str(tmp_path), "--distributed", "auto"])
    assert joined == ["auto", "auto", "vone.pth"]


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
