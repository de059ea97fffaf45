"""Sweeps with stand-ins for train.py and eval.py: what runs, and what stops."""

import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import flax.linen as nn
import pytest

from vone_jax import cli, training
from vone_jax import sweep as sweeps
from vone_jax.cli import sweep as program
from vone_jax.cli.sweep import SweepError
from vone_jax.sweep import Ensemble, Member, Sweep, Weights

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
CLEAN, LINF = ("--suite", "clean"), ("--suite", "linf", "--examples", "200")
BASE = training.load_config("quickstart/resnet18", CONFIGS)

# Writes down how it was called, and does as the file `behave` beside it says.
_PROGRAM = """
import os, pathlib, sys, time
here = pathlib.Path(__file__).parent
with open(here / "calls", "a") as file:
    file.write(" ".join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]) + "\\n")
for line in (here / "behave").read_text().splitlines():
    word, action = line.split()
    if word in " ".join(sys.argv):
        if action == "sleep":
            time.sleep(60)
        sys.exit(int(action))
"""


class TinyFrontEnd(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return {"layer": nn.Conv(4, (3, 3), 2)(x)}


@pytest.fixture
def root(tmp_path):
    for name in ("train.py", "eval.py"):
        (tmp_path / name).write_text(_PROGRAM)
    (tmp_path / "behave").write_text("")
    return tmp_path


def make(labels="abc", **fields):
    members = {label: Member(replace(BASE, seed=ord(label))) for label in labels}
    given = {"members": members, "evaluations": [CLEAN]} | fields
    return Sweep("s", "group", **given)


def calls(root):
    path = root / "calls"
    found = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [call.replace(f"{root}/runs/group/", "") for call in found]


def run(root, sweep, only=("train", "evaluate"), name="lab/s", **options):
    given = program.Arguments(name, only=only, runs=root / "runs", **options)
    return program.execute(sweep, given, root)


def ran(root, sweep, **options):
    """Run a sweep to its end, and return its commands."""
    assert run(root, sweep, **options) == 0
    return calls(root)


def test_everything_runs_and_is_run_again(root):
    """The commands know what is done."""
    expected = [
        "train.py lab/s:a --run-dir a",
        "eval.py a --suite clean",
        "train.py lab/s:b --run-dir b",
        "eval.py b --suite clean",
    ]
    assert ran(root, make("ab")) == expected == ran(root, make("ab"))
    assert ran(root, make("ab"), only=("evaluate",)) == expected[1::2]


def test_a_failed_training_stops_only_what_needs_it(root):
    members = {label: Member(replace(BASE, seed=ord(label))) for label in "ab"}
    members["both"] = Member(Ensemble(("a", "b")))
    (root / "behave").write_text("lab/s:a 1\n")
    with pytest.raises(SweepError, match=r"train.py lab/s:a --run-dir .* \(exit status 1\)$"):
        run(root, make(members=members))
    assert [call.split()[1] for call in calls(root)] == ["lab/s:a", "lab/s:b", "b"]
    (root / "behave").write_text("")
    assert [call.split()[1] for call in ran(root, make(members=members))] == [
        "lab/s:a", "a", "lab/s:b", "b", "a+b",
    ]  # fmt: skip


def test_an_ensemble_has_the_runs_of_its_members(root):
    members = {label: Member(replace(BASE, seed=ord(label))) for label in "ab"}
    members["both"] = Member(Ensemble(("a", "b")))
    found = ran(root, make(members=members))
    assert found[-1] == "eval.py a+b --suite clean --results both/results"


def test_evaluations_name_the_module_of_a_front_end(root):
    """A run cannot choose it, and the sweep's file has imported it."""
    model = replace(BASE.model, front_end=TinyFrontEnd())
    members = {"a": Member(replace(BASE, model=model)), "b": Member(BASE)}
    members["both"] = Member(Ensemble(("a", "b")))
    found = [call for call in ran(root, make(members=members)) if call.startswith("eval.py")]
    assert found == [
        f"eval.py a --suite clean --code {__name__}",
        "eval.py b --suite clean",
        f"eval.py a+b --suite clean --results both/results --code {__name__}",
    ]


def test_networks_are_opened_from_files_of_weights(root):
    (root / "files" / "deep").mkdir(parents=True)
    path = root / "files" / "deep" / "net_e70.pth"
    path.write_text("weights")
    members = {"net": Member(Weights("net*.pth", class_names="names.txt"), [LINF])}
    members["other"] = Member(Weights("other.pth"))
    sweep = make(members=members)
    with pytest.warns(UserWarning, match=r"left out: other.pth \(other\)"):
        found = ran(root, sweep, weights=root / "files", source="folder:val", split="val")
    more = "--results net/results --class-names names.txt --source folder:val --split val"
    assert found == [
        f"eval.py {path} --suite clean {more}",
        f"eval.py {path} --suite linf --examples 200 {more}",
    ]
    path.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for weights in (root / "files", root / "nowhere", None):
            with pytest.raises(ValueError, match="weights must"):
                run(root, sweep, weights=weights)


def test_a_dry_run_prints_the_commands(root, capsys):
    only = ("train", "evaluate", "report")
    assert ran(root, make("a"), dry_run=True, only=only) == []
    printed = capsys.readouterr().out.replace(f"{root}/", "").splitlines()
    assert printed == [
        "python train.py lab/s:a --run-dir runs/group/a",
        "python eval.py runs/group/a --suite clean",
        "python -m vone_jax.cli.report runs/group/a --out runs/group/s.html",
    ]


def test_a_report_without_results_is_a_failure(root):
    with pytest.raises(SweepError, match="no network has results"):
        run(root, make("a"), only=("report",))


def test_what_failed_first_is_named_where_no_network_has_results(root):
    (root / "behave").write_text("eval.py 2\n")
    with pytest.raises(SweepError, match=r"eval.py .*a --suite clean \(exit status 2\)\n.*report"):
        run(root, make("a"), only=("train", "evaluate", "report"))


@pytest.mark.slow
def test_the_file_of_a_sweep_is_read_outside_a_checkout(tmp_path, monkeypatch):
    """Its suites are read by another process than its networks; both import the configs."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "vone_jax").symlink_to(CONFIGS.parent / "vone_jax")
    # Networks of one's own may lie in a folder of the same name.
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.py").write_text("from configs.photos import experiment\n")
    (tmp_path / "mine.py").write_text(
        "from configs.mine import experiment\n"
        "from vone_jax import evaluation\n"
        "from vone_jax.sweep import Member, Sweep\n"
        "sweep = Sweep('mine', 'mine', {'one': Member(experiment)})\n"
        "short = [evaluation.Clean()]\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(site))
    for read in (
        "cli.sweep import main; sys.exit(main(['mine.py', '--dry-run']))",
        "files import imported; assert len(imported('mine.py:short')) == 1",
    ):
        subprocess.run(
            [sys.executable, "-c", f"import sys; from vone_jax.{read}"], cwd=tmp_path, check=True
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"members": {}}, "members must have"),
        ({"members": {"a:b": Member(BASE)}}, "without any of"),
        ({"members": {"a": BASE}}, "must be"),
        ({"members": {"both": Member(Ensemble(("a", "b")))}}, "trained before it"),
        ({"evaluations": ["--suite clean"]}, "evaluations must be like"),
    ],
)
def test_wrong_sweeps_are_refused(fields, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make(**fields)


def test_a_signal_stops_the_sweep_and_the_next_call_goes_on(root):
    (root / "behave").write_text("eval.py sleep\n")
    (root / "mine.py").write_text(
        "from configs.quickstart.resnet18 import experiment\n"
        "from vone_jax.sweep import Member, Sweep\n"
        "sweep = Sweep('mine', 'group', {'base': Member(experiment)}, [('--suite', 'clean')])\n"
    )
    code = (
        "import sys, pathlib; from vone_jax import sweep, cli\n"
        "from vone_jax.cli import sweep as program\n"
        f"root = pathlib.Path({str(root)!r})\n"
        "mine = sweep.load_sweep(str(root / 'mine.py'), cli.configs())\n"
        "given = program.Arguments('mine', ('train', 'evaluate'), runs=root / 'runs')\n"
        "sys.exit(program.execute(mine, given, root))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    deadline = time.monotonic() + 60
    while "eval.py" not in ((root / "calls").read_text() if (root / "calls").exists() else ""):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == cli.STOPPED
    (root / "behave").write_text("")
    calls(root)
    mine = sweeps.load_sweep(str(root / "mine.py"), CONFIGS)
    assert ran(root, mine, name="mine")[-1] == "eval.py base --suite clean"
