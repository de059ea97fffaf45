"""Sweeps with stand-ins for train.py and eval.py: what runs, what is skipped, what stops."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from vone_jax import cli, training
from vone_jax import sweep as sweeps
from vone_jax.sweep import Ensemble, Member, Sweep, SweepError, Weights

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
    options = sweeps.Options(runs=root / "runs", only=only, **options)
    return sweeps.run(name, sweep, root, options)


def ran(root, sweep, **options):
    """Run a sweep to its end, and return its commands."""
    assert run(root, sweep, **options) == 0
    return calls(root)


def test_everything_runs_once(root):
    assert ran(root, make("ab")) == [
        "train.py lab/s:a --run-dir a",
        "eval.py a --suite clean",
        "train.py lab/s:b --run-dir b",
        "eval.py b --suite clean",
    ]
    assert ran(root, make("ab")) == []


def test_only_what_is_new_runs(root):
    ran(root, make("a"))
    more = make("a", evaluations=[CLEAN, LINF])
    assert ran(root, more) == ["eval.py a --suite linf --examples 200"]
    # Another sweep of the group that has the same network under the same label.
    assert ran(root, more, name="lab/t") == []
    # train.py refuses another experiment in the same directory by itself.
    changed = replace(more, members={"a": Member(replace(BASE, seed=99))})
    assert ran(root, changed)[0].startswith("train.py")
    # A network that is deleted is trained and evaluated again.
    shutil.rmtree(root / "runs/group/a")
    assert len(ran(root, more)) == 3


def test_a_line_that_a_killed_process_left_is_no_stamp(root):
    ran(root, make("a"))
    with open(root / "runs/group/a/sweep.jsonl", "a") as file:
        file.write('{"key": "cut o')
    assert ran(root, make("a")) == []


def test_shards_share_out_the_members(root):
    shards = {"1/2": "ace", "2/2": "bd", "1/3": "ad", "2/3": "be", "3/3": "c"}
    for number, (shard, labels) in enumerate(shards.items()):
        # Of a group of its own, where nothing is finished. A shard writes no report.
        sweep = replace(make("abcde"), group=f"group-{number}")
        assert run(root, sweep, shard=shard, only=("train", "report")) == 0
        assert "".join(call[-1] for call in calls(root)) == labels


def test_a_failed_training_stops_only_what_needs_it(root):
    members = {label: Member(replace(BASE, seed=ord(label))) for label in "ab"}
    members["both"] = Member(Ensemble(("a", "b")))
    (root / "behave").write_text("lab/s:a 1\n")
    with pytest.raises(SweepError, match=r"train.py lab/s:a --run-dir .* \(exit status 1\)$"):
        run(root, make(members=members))
    assert [call.split()[1] for call in calls(root)] == ["lab/s:a", "lab/s:b", "b"]
    (root / "behave").write_text("")
    assert [call.split()[1] for call in ran(root, make(members=members))] == [
        "lab/s:a", "a", f"a+{root}/runs/group/b".replace(f"{root}/runs/group/", ""),
    ]  # fmt: skip


def test_an_ensemble_is_evaluated_again_after_a_member_was_trained_again(root):
    members = {label: Member(replace(BASE, seed=ord(label))) for label in "ab"}
    members["both"] = Member(Ensemble(("a", "b")))
    found = ran(root, make(members=members))
    assert found[-1] == "eval.py a+b --suite clean --results both/results"
    shutil.rmtree(root / "runs/group/b")
    assert [call.split()[1] for call in ran(root, make(members=members))] == ["lab/s:b", "b", "a+b"]


def test_networks_are_opened_from_files_of_weights(root, capsys):
    (root / "files" / "deep").mkdir(parents=True)
    path = root / "files" / "deep" / "net_e70.pth"
    path.write_text("weights")
    members = {"net": Member(Weights("net*.pth", class_names="names.txt"), [LINF])}
    members["other"] = Member(Weights("other.pth"))
    sweep = make(members=members)
    found = ran(root, sweep, weights=root / "files", source="folder:val", split="val")
    more = "--results net/results --class-names names.txt --source folder:val --split val"
    assert found == [
        f"eval.py {path} --suite clean {more}",
        f"eval.py {path} --suite linf --examples 200 {more}",
    ]
    assert "left out, not in" in capsys.readouterr().out
    given = {"weights": root / "files", "source": "folder:val", "split": "val"}
    assert ran(root, sweep, **given) == []
    # A file that was replaced is evaluated again.
    os.utime(path, (0, 0))
    assert ran(root, sweep, **given) == found
    path.unlink()
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
        "python -m vone_jax.report runs/group/a --out runs/group/s.html",
    ]


def test_a_report_without_results_is_a_failure(root):
    with pytest.raises(SweepError, match="no network has results"):
        run(root, make("a"), only=("report",))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"members": {}}, "members must map"),
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
        f"root = pathlib.Path({str(root)!r})\n"
        "mine = sweep.load_sweep(str(root / 'mine.py'), cli.configs())\n"
        "options = sweep.Options(runs=root / 'runs', only=('train', 'evaluate'))\n"
        "sys.exit(sweep.run('mine', mine, root, options))\n"
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
    assert ran(root, mine, name="mine") == ["eval.py base --suite clean"]
