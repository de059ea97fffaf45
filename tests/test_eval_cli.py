"""The program eval.py: what it accepts, refuses, prints and leaves on disk."""

import contextlib
import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.evaluation import tiny
from tests.evaluation.result_files import read_results
from tests.report import layers
from tests.results import built
from vone_jax import evaluation, mesh, results, training
from vone_jax.cli import evaluate as program
from vone_jax.models import create
from vone_jax.network import Network, NetworkError
from vone_jax.training import run as run_dirs


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    """A run that restores to a tiny network; only the reading of checkpoints is replaced."""
    directory = tmp_path / "runs" / "tiny"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    restore = training.load_run

    def load_run(path, step=None):
        if path != directory:
            return restore(path, step)
        if step not in (None, 7):
            raise training.RunDirectoryError(f"no checkpoint {step} in {path}; there are [7]")
        return tiny.run_of(tiny.EXPERIMENT, *tiny.tiny_network(classes=10))

    monkeypatch.setattr(run_dirs, "load_run", load_run)
    return directory


FAST = ["--examples", "8", "--batch-size", "4", "--draws", "2"]
FAST_ATTACK = [*FAST, "--steps", "2", "--eot-samples", "2"]


def test_a_suite_runs_is_printed_and_continues(run_dir, capsys):
    arguments = [str(run_dir), "--suite", "clean", "linf", "gallery", "v1", "--eps", "0.05",
                 "--gallery-images", "2", *FAST_ATTACK]  # fmt: skip
    assert program.main(arguments) == 0
    shown = capsys.readouterr()
    assert "VOneResNet-18 (tiny, step 7) on 8 images of fashion_mnist_small test" in shown.out
    assert [line.split()[0] for line in shown.out.splitlines()[4:6]] == ["clean", "PGD"]
    assert "attack-linf-0.05: " in shown.err
    results = run_dir / "results"
    names = {"clean", "attack-linf-0.05", "gallery-linf-0.01569", "v1"}
    assert {path.stem for path in results.iterdir() if path.suffix == ".json"} == names
    record = json.loads((results / "attack-linf-0.05.json").read_text())
    provenance = record["provenance"]
    assert provenance["command"] == "python eval.py " + " ".join(arguments)
    assert record["matmul_precision"] == "highest" and provenance["versions"]["jax"]
    assert record["network"]["config"] == training.to_json(tiny.EXPERIMENT)
    assert record["dataset"]["stride"] == 250
    before = {path: path.read_bytes() for path in results.iterdir()}
    assert program.main(arguments) == 0
    assert before == {path: path.read_bytes() for path in results.iterdir()}
    with open("/dev/full", "w") as full, contextlib.redirect_stdout(full):
        assert program.main(arguments) == 1
    assert "eval.py: stdout cannot be written: No space left" in capsys.readouterr().err
    # Another seed is another evaluation.
    assert program.main([*arguments, "--seed", "1"]) == 2
    assert "key.seed is 1, was 0" in capsys.readouterr().err


def test_a_file_of_names_may_begin_with_the_mark_of_windows(tmp_path, monkeypatch):
    """Else the first class would have another name than in the data set."""
    names, given = tmp_path / "names.txt", {}
    names.write_text("cat\ndog\n", encoding="utf-8-sig")

    def open_network(spec, **options):
        given.update(options)
        raise NetworkError("enough")

    monkeypatch.setattr(program, "open_network", open_network)
    assert program.main(["net", "--suite", "clean", "--class-names", str(names)]) == 2
    assert given["class_names"] == ["cat", "dog"]


def test_the_layer_that_is_most_like_v1_is_shown_first():
    scored = [
        (name, layers.layer(built.network(), name, mean_score=score).scores)
        for name, score in (("first", 0.2), ("second", 0.6))
    ]
    shown = [line.split() for line in program._layers(scored).splitlines()]
    assert shown[0] == ["score", "second", "first"]
    assert ["mean", "0.600", "0.200"] in shown


def test_averaged_decisions_are_printed_with_their_protocol(run_dir, capsys):
    arguments = [str(run_dir), "--suite", "clean", "--decision", "vote", "--averaged", "3", *FAST]
    assert program.main(arguments) == 0
    assert "vote of 3 draws, 2 decisions" in capsys.readouterr().out
    record = json.loads((run_dir / "results" / "clean-vote-3.json").read_text())
    assert (record["protocol"]["decision"], record["protocol"]["averaged"]) == ("vote", 3)


@pytest.mark.slow
def test_where_the_noise_is_can_be_chosen(run_dir, capsys):
    """Removed, at the attack only, and frozen at the attack; each result has its own name."""
    suite = ["--suite", "linf", "--eps", "0.05", *FAST_ATTACK]
    for options, printed in (
        (["--test-noise", "none", "--attack-noise", "trained"], "noise removed"),
        (["--test-noise", "gaussian:2"], "Gaussian 2 in place of Gaussian 3, fresh noise"),
        (["--attack-noise", "frozen"], "PGD linf, frozen at the attack"),
        (["--attack-noise", "none"], "PGD linf, gradients without noise"),
        # What the network has anyway changes nothing, and has no name of its own.
        (["--test-noise", "trained", "--attack-noise", "same"], "fresh noise, 2 draws"),
    ):
        assert program.main([str(run_dir), *suite, *options]) == 0
        assert printed in capsys.readouterr().out
    found = {
        path.stem: json.loads(path.read_text()) for path in (run_dir / "results").glob("*.json")
    }
    assert set(found) == {
        "attack-linf-0.05",
        "attack-linf-0.05-attacked-gaussian-3-test-none",
        "attack-linf-0.05-frozen-attack",
        "attack-linf-0.05-noise-free",
        "attack-linf-0.05-test-gaussian-2",
    }
    # Draws of a gradient: several where the attack sees fresh noise.
    draws = {name: record["condition"]["eot_samples"] for name, record in found.items()}
    assert list(draws[name] for name in sorted(draws)) == [2, 2, 1, 1, 2]


@pytest.mark.parametrize("suite", ["linf", "worst"])
def test_an_attack_that_cannot_use_its_radius_is_told(run_dir, capsys, monkeypatch, suite):
    monkeypatch.setattr(program, "_run", lambda tasks: [])
    monkeypatch.setattr(program, "summary", lambda finished: "")
    for steps, told in (("2", True), ("32", False)):
        arguments = [str(run_dir), "--suite", suite, "--eps", "0.05", "--examples", "4"]
        assert program.main([*arguments, "--steps", steps]) == 0
        said = capsys.readouterr().err
        assert ("--steps 2 of eps/32 reach 6% of the radius" in said) == told
        assert ("the attack is weak" in said) == told


def test_restarts_that_repeat_each_other_are_told(run_dir, capsys, monkeypatch):
    monkeypatch.setattr(program, "_run", lambda tasks: [])
    monkeypatch.setattr(program, "summary", lambda finished: "")
    arguments = [str(run_dir), "--suite", "linf", "--eps", "0.05", "--examples", "4"]
    message = "--restarts 3 begin at the same point"
    for options, told in (
        (["--restarts", "3", "--test-noise", "none"], True),
        (["--restarts", "3", "--test-noise", "none", "--random-start"], False),
        (["--restarts", "3"], False),
        (["--restarts", "3", "--noise", "frozen"], True),
        (["--restarts", "3", "--attack-noise", "none"], True),
        (["--restarts", "3", "--test-noise", "none", "--attack-noise", "neuronal"], False),
        (["--test-noise", "none"], False),
    ):
        assert program.main([*arguments, *options]) == 0
        assert (message in capsys.readouterr().err) == told


def test_published_images_need_no_clean_ones(tmp_path, capsys, monkeypatch):
    planned = []
    monkeypatch.setattr(program, "_run", lambda tasks: planned.extend(tasks) or [])
    np.save(tmp_path / "frost.npy", np.zeros((50, 28, 28, 1), np.uint8))
    np.save(tmp_path / "labels.npy", np.tile(np.arange(10), 5))
    network = "tests/network/user_networks.py:closed_over"
    arguments = [network, "--corrupted-files", f"npy:{tmp_path}", "--results", str(tmp_path / "r")]
    arguments += ["--corruptions", "frost_procedural", "--severities", "2", "--suite"]
    assert program.main([*arguments, "corruptions"]) == 0
    (job, task), _ = planned  # The second makes the means.
    assert (job.examples.name, task.name) == (
        f"npy:{tmp_path}/frost",
        "corruption-frost-2-published",
    )
    assert len(job.examples) == 10
    assert program.main([*arguments, "clean", "corruptions"]) == 2
    assert "--source must name the images" in capsys.readouterr().err


@pytest.mark.parametrize(("size", "told"), [(32, True), (12, False)])
def test_published_images_of_another_size_are_told(
    run_dir, tmp_path, capsys, monkeypatch, size, told
):
    monkeypatch.setattr(program, "_run", lambda tasks: [])
    np.save(tmp_path / "fog.npy", np.zeros((50, size, size, 1), np.uint8))
    np.save(tmp_path / "labels.npy", np.tile(np.arange(10), 5))
    chosen = ["--suite", "corruptions_quick", "--corruptions", "fog", "--examples", "4"]
    files = f"npy:{tmp_path}"
    assert program.main([str(run_dir), *chosen, "--corrupted-files", files]) == 0
    message = f"--corrupted-files {files}: its images of 32 x 32 pixels are resized to 12"
    assert (message in capsys.readouterr().err) == told


def test_images_of_one_class_are_told(run_dir, capsys, monkeypatch):
    made = built.accuracy(built.CLEAN, built.answers(0.9, 10))
    monkeypatch.setattr(program, "_run", lambda tasks: [made, made])
    told = f"eval.py: all 10 images are of the class {built.CLASSES[3]!r}, so the numbers say"
    for labels, times in ((np.arange(10), 0), (3, 1)):
        made.arrays["label"][:] = labels
        assert program.main([str(run_dir), "--suite", "clean", *FAST]) == 0
        assert capsys.readouterr().err.count(told) == times


def test_attacks_that_do_not_move_images_are_told(run_dir, capsys, monkeypatch):
    blind, moving = (built.accuracy(built.attacked("linf", eps), 0.5) for eps in (0.1, 0.2))
    blind.arrays["distance"] = np.zeros(len(blind.arrays["index"]))
    moving.arrays["distance"] = np.full(len(moving.arrays["index"]), 0.2)
    monkeypatch.setattr(program, "_run", lambda tasks: [blind, moving])
    assert program.main([str(run_dir), "--suite", "linf", *FAST]) == 0
    told = f"eval.py: {blind.name}: the attack did not move images that the network has right, "
    assert f"{told}or had no gradient there, 50% of all" in capsys.readouterr().err


def test_published_images_are_one_table(run_dir, tmp_path, capsys):
    for name in ("fog", "contrast"):
        np.save(tmp_path / f"{name}.npy", np.zeros((50, 12, 12, 1), np.uint8))
    np.save(tmp_path / "labels.npy", np.tile(np.arange(10), 5))
    chosen = ["--suite", "corruptions_quick", "--corruptions", "fog", "contrast", *FAST]
    arguments = [str(run_dir), *chosen, "--severities", "1", "2"]
    assert program.main([*arguments, "--corrupted-files", f"npy:{tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("VOneResNet-18 (tiny") == 1
    assert f"on 8 published images of npy:{tmp_path};" in printed
    assert len(re.findall("^(fog|contrast), published ", printed, re.MULTILINE)) == 4, printed


def test_checks_and_distances_in_words():
    attack = results.Attack("PGD", "linf", 4 / 255, {})
    verdicts = {"zero_radius": "pass", "steps": "warning", "eps": "pass"}
    checks = tuple(results.Check(*(name, "?", told), {}, "!") for name, told in verdicts.items())
    rungs = [(1, 0.875, (0.8, 0.95)), (16, 0.0, (0.0, 0.0625))]
    ladder = tuple(results.Rung(eps / 255, *shares) for eps, *shares in rungs)
    of_attack, smallest = results.MaskingCondition(attack, {}), results.MinimalCondition(attack, ())
    made = [
        built.result(of_attack, results.Checks(checks, 50), name="masking"),
        built.result(smallest, results.Distances(100, 90, 0.0123456, ladder), name="minimal"),
        built.result(smallest, results.Distances(100, 40, None, ladder[:1]), name="other"),
    ]
    assert [program.line(each) for each in made] == [
        "masking: 2 pass, 1 warning, 0 fail, 12.5 s",
        "minimal: 90 of 100 broken, 12.5 s",
        "other: 40 of 100 broken, 12.5 s",
    ]
    assert program.summary(made).splitlines() == [
        "checks at linf 4/255, 50 images",
        "verdict  check        meaning",
        "-----------------------------",
        "pass     zero_radius  !",
        "warning  steps        !",
        "pass     eps          !",
        "",
        "minimal: 90 of 100 broken at any distance, median distance 0.01235",
        "radius  accuracy %  95 % interval",
        "---------------------------------",
        "1/255         87.5   80.0 to 95.0",
        "16/255         0.0     0.0 to 6.2",
        "",
        "other: 40 of 100 broken at any distance, none for half of them",
        "radius  accuracy %  95 % interval",
        "---------------------------------",
        "1/255         87.5   80.0 to 95.0",
    ]


@pytest.mark.slow
def test_every_attack_has_a_suite(run_dir, capsys):
    """All suites of attacks end to end, and the checks carry over another run's images."""
    arguments = [
        str(run_dir), "--suite", "apgd", "square", "worst", "minimal", "masking", "autoattack",
        "--eps", "0.05", "--masking-images", "4", "--transfer-from", str(run_dir), *FAST_ATTACK,
    ]  # fmt: skip
    assert program.main(arguments) == 0
    shown = capsys.readouterr().out
    for name in ("APGD linf", "Square linf", "Worst of PGD, APGD linf", "AutoAttack linf",
                 "zero_radius", "broken at any distance, "):  # fmt: skip
        assert name in shown
    record = json.loads((run_dir / "results" / "masking-linf-0.05.json").read_text())
    assert record["dataset"]["examples"] == 4 and record["measured"]["seen"] == 4
    checks = {check["name"]: check for check in record["measured"]["checks"]}
    assert checks["zero_radius"]["verdict"] == "pass" and "transfer" in checks
    # The other run is this one without frozen noise: its images do exactly as much.
    numbers = checks["transfer"]["numbers"]
    assert numbers["accuracy, transfer"] == numbers["accuracy, eps"]
    assert program.main(arguments) == 0


KILLED = """
import sys
from tests.evaluation import tiny
from vone_jax.cli import evaluate as program
from vone_jax.training import run
restored = tiny.run_of(tiny.EXPERIMENT, *tiny.tiny_network(classes=10))
run.load_run = lambda path, step=None: restored
sys.exit(program.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once")
def test_killed_at_random_moments_the_results_are_the_same(tmp_path):
    """SIGKILL, again and again, until the evaluation is through; then all files are compared."""
    arguments = [
        "--suite", "clean", "linf", "corruptions_quick", "worst", "gallery",
        "--corruptions", "gaussian_noise", "--eps", "0.05", "--examples", "12",
        "--batch-size", "2", "--draws", "2", "--steps", "2", "--eot-samples", "2",
    ]  # fmt: skip

    def start(run):
        (run / "results").mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", KILLED, str(run), *arguments]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def progress(run):
        """Chunks of finished and of unfinished results."""
        results = run / "results"
        try:
            parts = len(list(results.glob("*.partial/0*.npz")))
        except FileNotFoundError:  # A result is published, and its chunks are removed.
            return 0
        return 6 * len(list(results.glob("*.json"))) + parts

    whole, killed = tmp_path / "whole" / "tiny", tmp_path / "killed" / "tiny"
    assert start(whole).wait() == 0
    moments = random.Random(5)
    for target in sorted(moments.sample(range(1, 24), 3)):
        process = start(killed)
        deadline = time.monotonic() + 300
        while progress(killed) < target:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert progress(killed) < 30
    assert start(killed).wait() == 0
    expected = read_results(whole)
    assert len(expected) == 10 and read_results(killed) == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_keep_what_is_done(run_dir, capsys, monkeypatch, number):
    arguments = [str(run_dir), "--suite", "clean", *FAST]

    def interrupt(*args):
        os.kill(os.getpid(), number)
        time.sleep(10)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "evaluate", interrupt)
        assert program.main(arguments) == 75
    assert "run the same command again to continue" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert program.main(arguments) == 0


def test_help_fits_a_screen_and_has_all_options_on_demand(capsys):
    assert program.main(["--help"]) == 0
    short = capsys.readouterr().out
    assert len(short.splitlines()) < 60
    with pytest.raises(SystemExit) as stop:
        program.main(["--help-all", "net"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "--norm-offset" in shown and "--norm-offset" not in short
    named = set(re.findall(r"--[a-z][a-z-]+", short)) - {"--help-all"}
    assert len(named) >= 10 and all(f"{option} " in shown for option in named)


def test_processes_with_other_suites_are_refused(run_dir, capsys, monkeypatch):
    """One with fewer tasks would end while the others wait for it."""
    compared = []
    monkeypatch.setattr(mesh, "differing", lambda values: compared.append(values) or ["suites"])
    command = [str(run_dir), "--suite", "clean", "square", "--eps", "0.1"]
    assert program.main(command) == 2
    assert "the processes have different suites; start all of them" in capsys.readouterr().err
    assert compared == [{"suites": ["clean", "attack-square-linf-0.1"]}]


def test_wrong_runs_end_with_status_2(run_dir, capsys, monkeypatch):
    assert program.main([str(run_dir.with_name("tinny"))]) == 2
    assert f"did you mean {run_dir}?" in capsys.readouterr().err
    assert program.main([str(run_dir), "--step", "99"]) == 2
    assert "eval.py: no checkpoint 99 in " in capsys.readouterr().err
    with monkeypatch.context() as patch:

        def refused(*arguments, **options):
            raise PermissionError(errno.EACCES, "Permission denied", "run/config.json")

        patch.setattr(program, "open_network", refused)
        assert program.main([str(run_dir)]) == 2
        assert capsys.readouterr().err == "eval.py: run/config.json: Permission denied\n"
    # A network without V1 has no V1 to show; only if asked for by name is that an error.
    base = create("resnet18", 10, 12, 1, width=2)
    experiment = training.Experiment(
        name="base",
        model=training.ModelConfig(name="resnet18", image_size=12, in_channels=1, num_classes=10),
        data=tiny.EXPERIMENT.data,
    )
    run = tiny.run_of(experiment, base, {"params": {}})
    monkeypatch.setattr(run_dirs, "load_run", lambda path, step: run)
    monkeypatch.setattr(Network, "num_classes", 10)
    assert program.main([str(run_dir), "--suite", "v1"]) == 2
    assert "suite v1 is for VOneNets, tiny has no V1" in capsys.readouterr().err
