"""The program eval.py: what it accepts, refuses, prints and leaves on disk."""

import dataclasses
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
from tests.photographs import write_photographs
from vone_jax import evaluation, results, runs
from vone_jax.cli import evaluate as program
from vone_jax.network import NetworkError


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    """A run that restores to a tiny network; only the reading of checkpoints is replaced."""
    directory = tmp_path / "runs" / "tiny"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    restore = runs.load_run

    def load_run(path, step=None, precision="float32", code=()):
        if path != directory:
            return restore(path, step)
        return tiny.run_of(tiny.EXPERIMENT, *tiny.tiny_network(classes=10))

    monkeypatch.setattr(runs, "load_run", load_run)
    return directory


QUICK = "tests/evaluation/quick_suites.py"
FAST = ["--examples", "8", "--batch-size", "4", "--draws", "2"]
LINF = ["--suite", f"{QUICK}:linf", "--eps", "0.05", *FAST]


def refused(capsys, argv, *parts):
    try:
        status = program.main([str(word) for word in argv])
    except SystemExit as stop:
        status = stop.code
    shown = capsys.readouterr()
    assert status == 2, shown
    for part in parts:
        assert part in shown.err


def test_a_suite_runs_is_printed_and_continues(run_dir, capsys):
    arguments = [str(run_dir), "--suite", "clean", f"{QUICK}:linf", f"{QUICK}:noise", "v1",
                 "--eps", "0.05", "0.1", *FAST]  # fmt: skip
    assert program.main(arguments) == 0
    shown = capsys.readouterr()
    *table, subject, where = shown.out.splitlines()
    assert where == f"results in {run_dir / 'results'}"
    assert subject == "VOneResNet-18 (tiny, step 7), 8 images of fashion_mnist_small"
    # The main numbers of each result, or those with intervals.
    first = [re.split("  +", line)[:2] for line in table[2:-1]]
    assert [row for row in first if row[1] == "accuracy"] == [
        ["clean", "accuracy"], ["PGD L∞ 0.05, 2 steps", "accuracy"],
        ["PGD L∞ 0.1, 2 steps", "accuracy"], ["gaussian noise, severity 3", "accuracy"],
    ]  # fmt: skip
    assert "attack-pgd-linf-0.05-2-steps: accuracy " in shown.err and "kept" not in shown.err
    directory = run_dir / "results"
    names = {"clean", "attack-pgd-linf-0.05-2-steps", "attack-pgd-linf-0.1-2-steps"}
    names |= {"corruption-gaussian_noise-severity-3", "front-end"}
    assert {path.stem for path in directory.iterdir() if path.suffix == ".json"} == names
    record = json.loads((directory / "attack-pgd-linf-0.05-2-steps.json").read_text())
    assert record["provenance"]["command"] == "python eval.py " + " ".join(arguments)
    assert record["provenance"]["versions"]["jax"]
    assert record["provenance"]["checkpoint_step"] == 7
    before = {path: path.read_bytes() for path in directory.iterdir()}
    assert program.main(arguments) == 0
    assert before == {path: path.read_bytes() for path in directory.iterdir()}
    said = [line for line in capsys.readouterr().err.splitlines() if "kept from 20" in line]
    assert len(said) == 5
    # Another seed is another evaluation.
    refused(capsys, [*arguments, "--seed", "1"], "error: ", "seed is 1, was 0", "--tag")


@pytest.mark.slow
def test_where_the_noise_is_can_be_chosen(run_dir):
    """Removed, at the attack only, and frozen at the attack; each result has its own name."""
    for options in (
        ["--noise", "none", "--attack-noise", "trained"],
        ["--noise", "gaussian:2"],
        ["--noise", "frozen", "--draws", "1"],
        ["--attack-noise", "frozen"],
        ["--attack-noise", "none"],
        # What the network has anyway changes nothing, and has no name of its own.
        ["--noise", "trained", "--attack-noise", "same"],
    ):
        assert program.main([str(run_dir), *LINF, *options]) == 0
    read = map(results.read, (run_dir / "results").glob("*.json"))
    found = {(each.row.get("noise"), each.row.get("attack_noise")): each for each in read}
    # Draws of a gradient: several where the attack sees fresh noise.
    draws = {n: each.identity["condition"]["attack"]["eot_samples"] for n, each in found.items()}
    assert draws == {
        (None, None): 2, ("none", "gaussian 3"): 2, ("gaussian 2", None): 2,
        ("frozen", None): 1, (None, "frozen"): 1, (None, "none"): 1,
    }  # fmt: skip
    assert len({each.name for each in found.values()}) == 6


@pytest.mark.slow
def test_every_attack_has_a_suite(run_dir, capsys):
    """All suites of attacks end to end, and the checks carry over another run's images."""
    arguments = [
        str(run_dir), "--suite", f"{QUICK}:attacks", f"{QUICK}:masking", "--eps", "0.05",
        "--others", str(run_dir), *FAST,
    ]  # fmt: skip
    assert program.main(arguments) == 0
    shown = capsys.readouterr().out
    for name in ("APGD L∞", "Square L∞", "strongest of", "AutoAttack", "minimal"):
        assert name in shown
    (name,) = (run_dir / "results").glob("masking*.json")
    record = results.read(name)
    verdicts = {row["check"]: row["verdict"] for row in record.rows if "verdict" in row}
    assert verdicts["zero_radius"] == "pass" and "transfer" in verdicts
    # The other run is this one: its images do exactly as much.
    own, carried = (
        record.value(f"accuracy, {name}", check="transfer") for name in ("eps", "transfer")
    )
    assert own == carried
    assert program.main(arguments) == 0


def test_published_images_are_evaluated(run_dir, tmp_path, capsys):
    np.save(tmp_path / "gaussian_noise.npy", np.zeros((50, 12, 12, 1), np.uint8))
    np.save(tmp_path / "labels.npy", np.tile(np.arange(10), 5))
    files = ["--source", f"npy:{tmp_path}"]
    assert program.main([str(run_dir), "--suite", f"{QUICK}:noise", *FAST, *files]) == 0
    name = "corruption-gaussian_noise-severity-3-published"
    assert (run_dir / "results" / f"{name}.json").exists()


def made(row, *numbers, name="net", arrays=None):
    """A result of numbers, as an evaluation has made it."""
    row = {"network": "net", "dataset": "shapes", "split": "test", "examples": 100, "seed": 0} | row
    what = {"network": {"name": name}, "dataset": {"name": "shapes", "fingerprint": "f"}}
    return results.Result(row, numbers, what, arrays=arrays or {})


def test_a_corruption_that_is_in_no_mean_has_a_line_of_its_own():
    """Also one of the user's own. The others are in the line of their mean."""
    accuracy = {"number": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6, "unit": "share"}
    rows = [
        {"condition": "corruption", "corruption": name, "severity": 3, "category": category}
        for name, category in (("fog", "weather"), ("snow", "weather"), ("speckle_noise", "extra"))
    ]
    rows.append({"condition": "corruption", "corruption": "mine", "severity": 3})
    table = program.summary([made(row, accuracy) for row in rows])
    lines = [line.split("  ")[0] for line in table.splitlines()]
    assert {"speckle noise, severity 3", "mine, severity 3"} <= set(lines)
    assert not {"fog, severity 3", "snow, severity 3"} & set(lines)
    assert "mean over 2 of 15 corruptions, severity 3" in lines
    assert " 50.0 %  40.0 to 60.0 %" in table and "nan" not in table


def test_the_line_of_a_network_counts_the_images_of_its_accuracies():
    """Physiology shows gratings, and no images of a data set."""
    shown = {"condition": "physiology", "layer": "v1", "dataset": "gratings", "examples": 9096}
    physiology = made(shown, {"number": "mean score", "value": 0.5, "low": 0.4, "high": 0.6})
    alone = program.summary([physiology]).splitlines()
    assert alone[-1] == "net (net), 9096 images of gratings" and "0.4 to 0.6" in alone[2]
    clean = made(
        {"condition": "clean"},
        {
            "number": "accuracy",
            "value": 1.0,
            "low": 0.9,
            "high": 1.0,
            "unit": "share",
            "main": True,
        },
        {"number": "top-5 accuracy", "value": 1.0, "unit": "share", "main": True},
        {"number": "right in every draw", "value": 0.5, "unit": "share"},
        arrays={"label": np.zeros(100)},
    )
    both = program.summary([physiology, clean]).splitlines()
    assert both[-1] == "net (net), 100 images of shapes"
    # The main numbers of the one, and of the other, which has none, those with intervals.
    assert [re.split("  +", line)[1:3] for line in both[2:-2]] == [
        ["mean score", "0.5"], ["accuracy", "100.0 %"], ["top-5 accuracy", "100.0 %"]
    ]  # fmt: skip


OWN = """
import dataclasses
from vone_jax import evaluation

@dataclasses.dataclass(frozen=True)
class Brightness(evaluation.Condition):
    power: float = 1.0

    def make(self, batch):
        return {"mean": batch.images.mean(axis=(1, 2, 3)) ** self.power}

    def result(self, arrays, evaluated):
        return evaluation.Numbers([evaluation.number("brightness", of=arrays["mean"])])

class Wrong(Brightness):
    def make(self, batch):
        return batch.images

class Broken(Brightness):
    def make(self, batch):
        raise ValueError("no such thing")

def powers(evaluated, *, power: tuple[float, ...] = (1.0,), twice: bool = False):
    \"\"\"the brightness at some powers\"\"\"
    return [Brightness(each * (2 if twice else 1)) for each in power]

def must(evaluated, *, power: float):
    return Brightness(power)

def clash(evaluated, *, draws: int = 3):
    return Brightness(draws)

one, wrong, broken = Brightness(), Wrong(), Broken()
"""


@pytest.fixture
def own(tmp_path):
    """A file with suites of one's own."""
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path}/own.py"


def test_a_suite_of_ones_own_has_options_of_its_own(run_dir, own, capsys):
    argv = [str(run_dir), "--suite", f"{own}:powers", "linf", *FAST]
    given = program.parse([*argv, "--power", "1/2", "3", "--twice"])
    assert given[1] == {"power": (0.5, 3.0), "twice": True, "eps": ()}
    # However the suites are written; of several options the last counts.
    same = ["--suite", "clean", f"--suite={own}:must", "--power", "2", str(run_dir)]
    assert program.parse(same)[1] == {"power": 2.0}
    suite = ["--suite", f"{own}:powers", f"{own}:one"]
    assert program.main([str(run_dir), *suite, "--power", "2", *FAST]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"brightness, power 2 +brightness +0\.\d+ +0\.\d+ to", shown)
    names = {path.stem for path in (run_dir / "results").glob("*.json")}
    assert names == {"brightness", "brightness-power-2"}


def test_help_shows_the_options_of_the_suites_that_are_asked_for(own, capsys):
    for argv, shown, hidden in (
        (["--suite", "help"], ["masking", "FILE.py:NAME", "[--layers]"], []),
        (["NET", "--suite", "help"], ["masking", "stands for"], []),
        (
            ["NET", "--suite", f"{own}:powers", "--help"],
            ["--power", "--twice", "--tag"],
            ["--norm"],
        ),
        (["NET", "--suite", "masking", "-h"], ["--norm", "--eps", "Root of all"], ["--layers"]),
    ):
        try:
            status = program.main(argv)
        except SystemExit as stop:
            status = stop.code
        said = capsys.readouterr().out
        assert status == 0 and all(each in said for each in shown)
        assert not any(each in said for each in hidden)


def test_options_that_do_not_fit_the_suites_are_refused_by_name(run_dir, own, capsys):
    for words, *parts in (
        (["clean", "--eps", "0.1"], "--eps"),
        (["linf", "--power", "2"], "--power"),
        ([f"{own}:must"], "--power", "required"),
        ([f"{own}:clash"], "clash", "the option draws"),
        ([f"{own}:powers", f"{own}:must", "--power", "2"], "must", "option power"),
        ([f"{own}:Brightness"], "is a class"),
    ):
        refused(capsys, [run_dir, "--suite", *words, *FAST], *parts)


def test_a_wrong_kind_of_ones_own_is_one_line(run_dir, own, capsys):
    assert program.main([str(run_dir), "--suite", f"{own}:wrong", *FAST]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert re.search(r"^error: Wrong \(.*own.py, line 15\): make\(\) must", said, re.M)


def test_an_error_within_ones_own_measurement_shows_where_it_is(run_dir, own):
    with pytest.raises(ValueError, match="no such thing") as raised:
        program.main([str(run_dir), "--suite", f"{own}:broken", *FAST])
    assert any(str(entry.path) == own for entry in raised.traceback)
    assert any("Broken" in note for note in raised.value.__notes__)


def test_a_corrupt_image_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path, *(f"val/{c}/{i}.png" for c in "ab" for i in range(2)))
    (tmp_path / "val/b/1.png").write_bytes(b"cut off")
    (tmp_path / "net.py").write_text(
        "def net():\n    return lambda keys, x: x.mean((1, 2))[:, :2], (8, 8, 3), ('a', 'b')\n"
    )
    argv = ["net.py:net", "--suite", "clean", "--source", f"folder:{tmp_path}"]
    assert program.main(argv) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "first batch" not in line]
    assert len(said) == 1 and "b/1.png cannot be decoded" in said[0]


def test_another_checkpoint_of_a_run_has_results_of_its_own(run_dir, monkeypatch):
    loaded = []
    restore = runs.load_run

    def load_run(path, step=None, precision="float32", code=()):
        loaded.append(step)
        return dataclasses.replace(restore(path), step=step or 7)

    monkeypatch.setattr(runs, "load_run", load_run)
    for spec in (str(run_dir), f"{run_dir}@5"):
        assert program.main([spec, "--suite", "clean", *FAST]) == 0
    first, second = (results.load([d])[0].results[0] for d in (run_dir, f"{run_dir}@5"))
    assert loaded == [None, 5]
    steps = [each.provenance["checkpoint_step"] for each in (first, second)]
    assert steps == [7, 5] and second.identity["network"]["name"] == "tiny@5"


def test_networks_compute_in_float32_unless_told(run_dir, monkeypatch):
    """A run that was trained in bfloat16 was attacked and judged in it."""
    asked, restore = [], runs.load_run

    def load_run(path, step=None, precision="float32", code=()):
        asked.append(precision)
        return restore(path, step)

    monkeypatch.setattr(runs, "load_run", load_run)
    for options in ([], ["--dtype", "bfloat16", "--tag", "halves"]):
        assert program.main([str(run_dir), "--suite", "clean", *FAST, *options]) == 0
    assert asked == ["float32", "bfloat16"]


KILLED = """
import sys
from tests.evaluation import tiny
from vone_jax import runs
from vone_jax.cli import evaluate as program
runs.load_run = lambda path, step=None, precision="float32", code=(): tiny.run_of(
    tiny.EXPERIMENT, *tiny.tiny_network(classes=10)
)
sys.exit(program.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_killed_at_random_moments_the_results_are_the_same(tmp_path):
    """SIGKILL, again and again, until the evaluation is through; then all files are compared."""
    arguments = [
        "--suite", "clean", f"{QUICK}:linf", f"{QUICK}:noise", f"{QUICK}:worst",
        "--eps", "0.05", "--examples", "12", "--batch-size", "2", "--draws", "2",
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
    moments, reached = random.Random(5), []
    for target in sorted(moments.sample(range(1, 22), 6)):
        process = start(killed)
        deadline = time.monotonic() + 300
        while progress(killed) < target:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        reached.append(progress(killed))
    # The last kills may have come too late.
    assert reached[3] < 24, reached
    assert start(killed).wait() == 0
    expected = read_results(whole)
    assert len(expected) == 8 and read_results(killed) == expected


def test_a_signal_keeps_what_is_done(run_dir, capsys, monkeypatch):
    arguments = [str(run_dir), "--suite", "clean", *FAST]

    def interrupt(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "evaluate", interrupt)
        assert program.main(arguments) == 75
    assert "run the same command again to continue" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert program.main(arguments) == 0


def test_a_file_of_names_may_begin_with_the_mark_of_windows(tmp_path, monkeypatch):
    """Else the first class would have another name than in the data set."""
    names, given = tmp_path / "names.txt", {}
    names.write_text("cat\ndog\n", encoding="utf-8-sig")

    def open_network(spec, **options):
        given.update(options)
        raise NetworkError("enough")

    monkeypatch.setattr(program, "open_network", open_network)
    argv = ["net", "--suite", "clean", "--class-names", str(names), "--image-size", "64"]
    assert program.main(argv) == 2
    assert given["class_names"] == ["cat", "dog"] and given["image_size"] == 64
