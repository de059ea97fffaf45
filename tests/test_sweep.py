"""Sweeps with stand-ins for train.py and eval.py: what runs, what is skipped, what stops."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.results import built
from vone_jax import sweep as sweeps
from vone_jax import training
from vone_jax.cli import sweep as program
from vone_jax.evaluation import Request
from vone_jax.sweep import Ensemble, Member, Sweep, SweepError, Weights
from vone_jax.training.run import write_run

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
CLEAN, LINF = Request(suite=("clean",)), Request(suite=("linf",))
FROZEN = Request(noise="frozen")
BASE = training.load_config("quickstart/resnet18", CONFIGS)

# Writes down how it was called, and does as the file `behave` beside it says.
_PROGRAM = """
import os, pathlib, sys, time
here = pathlib.Path(__file__).parent
with open(here / "calls", "a") as file:
    file.write(" ".join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]) + "\\n")
if "--run-dir" in sys.argv:
    run_dir = sys.argv[sys.argv.index("--run-dir") + 1]
    os.makedirs(run_dir + "/checkpoints/1", exist_ok=True)
for line in (here / "behave").read_text().splitlines():
    word, action = line.split()
    if word in " ".join(sys.argv):
        if action == "sleep":
            time.sleep(60)
        sys.exit(int(action))
if "--suite" in sys.argv:
    place = "--results" in sys.argv and sys.argv[sys.argv.index("--results") + 1]
    results = pathlib.Path(place or sys.argv[1] + "/results")
    results.mkdir(parents=True, exist_ok=True)
    suite = sys.argv[sys.argv.index("--suite") + 1]
    (results / f"{suite}.json").write_text(" ".join(sys.argv))
    (results / f"{suite}.npz").write_text("arrays of " + " ".join(sys.argv))
"""


_SWEEP_FILE = """
from configs.quickstart.resnet18 import experiment
from vone_jax.evaluation import Request
from vone_jax.sweep import Member, Sweep
sweep = Sweep('mine', 'mine', {'base': Member(experiment)}, [Request(suite=("clean",))])
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
    return [call.replace(str(root), "").replace("/runs/group/", "") for call in found]


def run(root, sweep, steps=("train", "evaluate"), **options):
    options = sweeps.Options(runs=root / "runs", only=steps, **options)
    return sweeps.run("lab/s", sweep, root, options)


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
    assert ran(root, more) == ["eval.py a --suite linf"]
    # Another sweep of the group that has the same network under the same label.
    options = sweeps.Options(runs=root / "runs", only=("train",))
    assert sweeps.run("lab/t", more, root, options) == 0
    assert calls(root) == []
    changed = replace(more, members={"a": Member(replace(BASE, seed=99))})
    assert ran(root, changed)[0].startswith("train.py")


def test_a_member_may_have_evaluations_of_its_own(root):
    sweep = make("a", members={"a": Member(BASE, [FROZEN, CLEAN])})
    assert sweep.evaluations_of("a") == [CLEAN, FROZEN]


def test_shards_share_out_the_members(root):
    shards = {"1/2": "ace", "2/2": "bd", "1/3": "ad", "2/3": "be", "3/3": "c"}
    for number, (shard, labels) in enumerate(shards.items()):
        # Of a group of its own, where nothing is finished. A shard writes no report.
        sweep = replace(make("abcde"), group=f"group-{number}")
        assert run(root, sweep, shard=shard, steps=("train", "report")) == 0
        assert "".join(call[-1] for call in calls(root)) == labels


def test_a_shard_beyond_the_members_says_so(root, capsys):
    assert run(root, make("ab"), shard="3/8") == 0
    assert capsys.readouterr().out == "shard 3/8 has no network: there are only 2\n"


@pytest.mark.parametrize("use", ["initial_weights", "teacher"])
def test_a_network_from_another_that_was_trained_again_is_named(root, use):
    """A run that is finished does not start anew from the weights of another, newer run."""
    spec = str(root / "runs/group/a")
    if use == "initial_weights":
        later = replace(BASE, initial_weights=spec)
    else:
        later = replace(BASE, distillation=training.Distillation(f"{spec}+elsewhere"))
    sweep = make(
        members={"a": Member(BASE), "b": Member(later), "c": Member(replace(BASE, seed=3))}
    )
    assert run(root, sweep) == 0

    def saved(label, when):
        # The one that the program has made.
        checkpoint = root / "runs/group" / label / "checkpoints" / "1"
        os.utime(checkpoint, (when, when))

    saved("a", 1000)
    saved("b", 2000)
    assert run(root, sweep) == 0
    # A copy of the files is no training.
    saved("a", 3000)
    assert run(root, sweep) == 0
    shutil.rmtree(root / "runs/group/a")
    run(root, replace(sweep, members={"a": sweep.members["a"]}))
    # Nor is a command that finds a finished run and records its time.
    saved("a", 1000)
    assert run(root, sweep) == 0
    saved("a", 3000)
    calls(root)
    with pytest.raises(SweepError) as caught:
        run(root, sweep)
    (told,) = str(caught.value).splitlines()[1:]
    assert "b was trained from a, which was trained again since; delete" in told
    assert told.endswith("runs/group/b to train it again") and calls(root) == []
    shutil.rmtree(root / "runs/group/b")
    assert [call.split()[1] for call in ran(root, sweep)] == ["lab/s:b", "b"]


def test_a_network_from_another_is_known_by_any_path(root, monkeypatch):
    """The directory of runs is relative, the path of the weights is not."""
    monkeypatch.chdir(root)
    spec = str(root / "runs/group/a")
    first, later = {"a": Member(BASE)}, {"b": Member(replace(BASE, initial_weights=spec))}

    def train(members):
        sweep = make(members=members)
        return sweeps.run("lab/s", sweep, root, sweeps.Options(only=("train",)))

    assert train(first | later) == 0
    shutil.rmtree("runs/group/a")
    assert train(first) == 0
    for label, when in (("a", 2000), ("b", 1000)):
        os.utime(f"runs/group/{label}/checkpoints/1", (when, when))
    with pytest.raises(SweepError, match="b was trained from a, which was trained again since"):
        train(first | later)


def test_a_second_sweep_is_refused_where_the_first_has_work(root, monkeypatch):
    """A list of its commands, and networks that are finished, are no work."""
    execute = sweeps._execute

    def meanwhile(command, where):
        monkeypatch.setattr(sweeps, "_execute", execute)
        refused = r"another sweep is writing .*/group/b; wait for it, or .* --runs: process \d+ on"
        with pytest.raises(ValueError, match=refused):
            run(root, make("ba"))
        assert run(root, make("ab"), dry_run=True) == run(root, make("a")) == 0
        return execute(command, where)

    run(root, make("a"))
    calls(root)
    monkeypatch.setattr(sweeps, "_execute", meanwhile)
    assert ran(root, make("ab")) == ["train.py lab/s:b --run-dir b", "eval.py b --suite clean"]
    assert {path.name for path in (root / "runs/group").iterdir()} == {"a", "b"}


def test_a_failure_is_told_and_the_others_run(root):
    (root / "behave").write_text("s:b 1\n")
    with pytest.raises(SweepError, match=r"python .*train.py lab/s:b .*exit status 1"):
        run(root, make())
    assert [call.split()[1] for call in calls(root)] == ["lab/s:a", "a", "lab/s:b", "lab/s:c", "c"]
    (root / "behave").write_text("")
    assert [call.split()[1] for call in ran(root, make())] == ["lab/s:b", "b"]


def test_a_stopped_command_stops_the_sweep_and_runs_again(root):
    (root / "behave").write_text("s:b 75\n")
    assert run(root, make()) == 75
    assert len(calls(root)) == 3
    (root / "behave").write_text("")
    assert ran(root, make())[0].startswith("train.py lab/s:b")


def test_a_torn_record_only_repeats_its_command(root):
    ran(root, make("a"))
    record = root / "runs" / "group" / "a" / "sweep.jsonl"
    odd = '123\n{"step": "train"}\n{"key": "x"}\n{"key": "x", "step": "y", "results": []}\n'
    odd += '{"key": ["x"], "step": "y", "time": "now"}\n' + "[" * 100_000 + "\n"
    record.write_text(odd + record.read_text()[:-40])
    assert ran(root, make("a")) == ["eval.py a --suite clean"]
    # The record of that run stands in a line of its own.
    assert ran(root, make("a")) == []


@pytest.mark.parametrize("ending", ["json", "npz"])
def test_a_result_that_is_gone_is_made_anew(root, ending):
    sweep = make("a", evaluations=[CLEAN, LINF])
    ran(root, sweep)
    (root / f"runs/group/a/results/linf.{ending}").unlink()
    assert ran(root, sweep) == ["eval.py a --suite linf"]
    assert ran(root, sweep) == []


def test_a_result_that_a_changed_command_used_again_is_made_anew(root):
    for log_every in (10, 20):
        # A field that affects no result: the command is another one, its result is the same.
        member = Member(replace(BASE, log_every=log_every))
        assert len(ran(root, make(members={"a": member}))) == 2
    for path in (root / "runs/group/a/results").iterdir():
        path.unlink()
    for expected in (["eval.py a --suite clean"], []):
        assert ran(root, make(members={"a": member})) == expected


def test_a_command_does_not_need_the_results_of_others(root):
    ran(root, make("a", evaluations=[LINF, CLEAN]))
    for ending in ("json", "npz"):
        (root / f"runs/group/a/results/linf.{ending}").unlink()
    shutil.rmtree(root / "runs/group/a/checkpoints")
    assert ran(root, make("a")) == []


def test_a_run_that_has_lost_its_checkpoints_is_named_with_the_cure(root):
    ran(root, make("ab"))
    shutil.rmtree(root / "runs/group/a/checkpoints")
    # What is finished stays so.
    assert ran(root, make("ab")) == []
    with pytest.raises(SweepError, match="group/a has no checkpoint any more; delete it to train"):
        run(root, make("ab", evaluations=[CLEAN, LINF]))
    assert calls(root) == ["eval.py b --suite linf"]


@pytest.mark.parametrize(
    ("command", "cure"),
    [
        ("s:a", "where train.py says --run-dir, choose"),
        ("linf", "an option that eval.py names is a field"),
    ],
)
def test_a_wrong_command_is_told_with_the_cure_in_a_sweep(root, command, cure):
    (root / "behave").write_text(f"{command} 2\n")
    with pytest.raises(SweepError, match=rf"\(exit status 2; {cure}"):
        run(root, make("a", evaluations=[LINF]))


def test_networks_must_be_trained_before_they_are_evaluated(root):
    with pytest.raises(SweepError) as caught:
        run(root, make("ab", evaluations=[CLEAN, LINF]), steps=("evaluate",))
    cure = "has no checkpoint yet; train it with --only train, or without --only"
    assert str(caught.value).splitlines()[1:] == [f"  {root}/runs/group/{x} {cure}" for x in "ab"]
    assert calls(root) == []


def test_a_result_that_was_replaced_is_made_anew(root):
    several = [
        make("a", evaluations=[replace(CLEAN, examples=n, overwrite=True)]) for n in (40, 20)
    ]
    for sweep in (*several, several[0]):
        assert run(root, sweep) == 0
    assert ["--examples 40" in call for call in calls(root)[1:]] == [True, False, True]


class TestRunsOfOtherExperiments:
    """The sweep measures and reports what it describes, or nothing."""

    @staticmethod
    def described(root, label, experiment):
        directory = root / "runs/group" / label
        directory.mkdir(parents=True, exist_ok=True)
        write_run(directory, training.RunDescription(experiment, experiment, (), 0))

    @pytest.mark.parametrize("steps", [*((step,) for step in sweeps.STEPS), sweeps.STEPS])
    def test_each_step_refuses_them(self, root, steps):
        self.described(root, "a", replace(BASE, seed=ord("a")))
        ran(root, make("a"))
        self.described(root, "b", replace(BASE, epochs=0.2, seed=7))
        with pytest.raises(ValueError) as caught:
            run(root, make("abc"), steps=steps)
        assert str(caught.value).splitlines()[1:] == [
            f"  b, in {root}/runs/group/b:",
            "    epochs: 8 here, 0.2 there",
            "    seed: 98 here, 7 there",
            "give such a member another label or the sweep another group, choose another --runs, "
            "or delete the run to train it again",
        ]
        assert calls(root) == []
        # Other members do not matter to a shard.
        assert run(root, make("ab"), shard="1/2", steps=("train",)) == 0

    def test_fields_that_affect_no_result_are_no_difference(self, root):
        self.described(root, "a", replace(BASE, keep_checkpoints=7))
        ran(root, make(members={"a": Member(BASE)}))

    def test_a_damaged_description_is_left_to_the_commands(self, root):
        (root / "runs/group/a").mkdir(parents=True)
        (root / "runs/group/a/config.json").write_text("{")
        ran(root, make("a"))


@pytest.mark.parametrize("steps", [("train", "evaluate", "report"), ("report",)])
def test_the_report_leaves_out_what_has_failed(root, monkeypatch, capsys, steps):
    (root / "behave").write_text("s:b 1\n")
    with pytest.raises(SweepError):
        run(root, make())
    reports, execute = [], sweeps._execute

    def spy(command, root):
        if "vone_jax.report" not in command:
            return execute(command, root)
        reports.append(command)
        return 0

    monkeypatch.setattr(sweeps, "_execute", spy)
    if steps == ("report",):
        run(root, make(), steps=steps)
    else:
        with pytest.raises(SweepError, match="s:b .*exit status 1.$"):
            run(root, make(), steps=steps)
    (report,) = reports
    shown = [Path(each).name for each in report if "group" in each and "." not in Path(each).name]
    assert shown == ["a", "c", "s"]  # The last is the directory of the tables.
    reason = "without results" if steps == ("report",) else "not trained"
    told = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert told == [f"left out of the report, {reason}: b"]
    with pytest.raises(SweepError, match="the report: no network has results"):
        run(root, make("xy"), steps=("report",))


def test_the_report_leaves_out_old_results_of_a_failed_training(root, monkeypatch, capsys):
    """Also those of its ensembles."""
    members = {**make().members, "both": Member(Ensemble(("a", "b")))}
    ran(root, make(members=members))
    (root / "behave").write_text("s:b 2\n")
    members["b"] = Member(replace(BASE, seed=99))
    execute, reports = sweeps._execute, []

    def spy(command, root):
        if "vone_jax.report" not in command:
            return execute(command, root)
        reports.append([Path(word).name for word in command])
        return 0

    monkeypatch.setattr(sweeps, "_execute", spy)
    with pytest.raises(SweepError, match="s:b .*exit status 2"):
        run(root, make(members=members), steps=sweeps.STEPS)
    assert {"a", "c"} < set(reports[0]) and not {"b", "both"} & set(reports[0])
    assert "left out of the report, not trained: b, both" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["json", "npz"])
def test_the_report_leaves_out_damaged_results(root, monkeypatch, ending):
    for label in "abc":
        built.write(root / "runs/group", built.measure("resnet18", {"clean": 0.9}), label)
    (root / f"runs/group/b/results/clean.{ending}").write_text("{")
    reports = []

    def execute(command, root):
        reports.append({Path(word).name for word in command} & set("abc"))
        return 2 if "b" in reports[-1] else 3

    monkeypatch.setattr(sweeps, "_execute", execute)
    named = rf"the report lacks b: .*/b/results/clean\.{ending} is damaged"
    with pytest.raises(SweepError, match=rf"^failed:\n  {named}.*$"):
        run(root, make(), steps=("report",))
    assert reports == [set("abc"), set("ac")]


def test_a_sweep_that_is_stopped_in_its_report_says_so(root, monkeypatch):
    run(root, make("a"))

    stopped = SimpleNamespace(wait=lambda: 75)
    monkeypatch.setattr(subprocess, "Popen", lambda *command, **fields: stopped)
    assert run(root, make("a"), steps=("report",)) == 75


def test_the_report_is_written_where_the_v1_match_fails(root, monkeypatch):
    run(root, make("a"))
    written = []

    def execute(command, root):
        written.append("--v1-match" not in command)
        return 0 if written[-1] else 2

    monkeypatch.setattr(sweeps, "_execute", execute)
    with pytest.raises(SweepError, match=r"^failed:\n  the V1 match \(exit status 2\)$"):
        run(root, make("a", v1_match=True), steps=("report",))
    assert written == [False, True]
    assert run(root, make("a"), steps=("report",)) == 0
    assert written == [False, True, True]


def test_a_report_with_gaps_is_no_failure(root, monkeypatch):
    run(root, make("a"))
    monkeypatch.setattr(sweeps, "_execute", lambda command, root: 3)
    assert run(root, make("a"), steps=("report",)) == 0
    monkeypatch.setattr(sweeps, "_execute", lambda command, root: 2)
    with pytest.raises(SweepError, match=r"the report \(exit status 2\)"):
        run(root, make("a"), steps=("report",))


def test_commands_of_a_checkout_find_its_package_from_any_directory(root, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    program = "import os, sys; sys.exit(os.environ['PYTHONPATH'] != sys.argv[1])"
    for checkout, path in ((root, f"{root}{os.pathsep}elsewhere"), (None, "elsewhere")):
        assert sweeps._execute([sys.executable, "-c", program, path], checkout) == 0


def start(root):
    """Start a sweep in a process of its own, and wait for its first command."""
    text = "import sys, pathlib; from tests.test_sweep import make, run\n"
    text += f"sys.exit(run(pathlib.Path({str(root)!r}), make('ab')))\n"
    environment = os.environ | {"PYTHONPATH": str(CONFIGS.parent)}
    command = [sys.executable, "-c", text]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    while not (root / "calls").exists():
        assert process.poll() is None
        time.sleep(0.1)
    return process


@pytest.mark.slow
def test_sigterm_reaches_the_command(root):
    (root / "behave").write_text("s:a sleep\n")
    process = start(root)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 75
    assert len(calls(root)) == 1


def test_ctrl_c_reaches_the_command_once(root):
    """A terminal sends the signal to the whole group; a second one would end train.py unsaved."""
    (root / "train.py").write_text(
        "import pathlib, signal, time\n"
        "here = pathlib.Path(__file__).parent\n"
        "count = 0\n"
        "def note(number, frame):\n"
        "    global count\n"
        "    count += 1\n"
        "signal.signal(signal.SIGINT, note)\n"
        "(here / 'calls').touch()\n"
        "while not count:\n"
        "    time.sleep(0.05)\n"
        "time.sleep(1)\n"
        "(here / 'count').write_text(str(count))\n"
    )
    process = start(root)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 75
    assert (root / "count").read_text() == "1"


def test_a_dry_run_prints_and_does_nothing(root, capsys):
    assert run(root, make("ab"), dry_run=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(line.startswith(f"python {root}/") for line in lines)
    assert calls(root) == []


def test_the_command_lists_the_sweeps(capsys):
    assert program.main([]) == 2
    shown, names = capsys.readouterr().err, training.config_names(CONFIGS, "sweep")
    assert len(names) >= 4 and all(name in shown for name in names)


def test_the_command_shows_every_command_in_a_dry_run(tmp_path, capsys):
    name = "laboratory/similarity"
    assert program.main([name, "--runs", str(tmp_path), "--dry-run"]) == 0
    shown = capsys.readouterr().out.replace(f"{CONFIGS.parent}/", "")
    sweep = sweeps.load_sweep(name, CONFIGS)
    commands = sum(1 + len(sweep.evaluations_of(label)) for label in sweep.members)
    assert len(shown.splitlines()) == commands + 1  # The report, of all that will have results.
    report = shown.splitlines()[-1]
    assert all(f" {tmp_path / sweep.group / label} " in report for label in sweep.members)
    assert f"train.py {name}:base-similar-v1 --run-dir" in shown
    assert not list(tmp_path.iterdir())


def test_a_split_is_checked_before_the_first_training(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(_SWEEP_FILE)
    dry = [str(path), "--runs", str(tmp_path), "--dry-run"]
    source = ["--source", "fashion_mnist_small"]
    for given, named in (([], "--split tests"), (source, " ".join(source))):
        assert program.main([*dry, *given, "--split", "train"]) == 0
        assert program.main([*dry, *given, "--split", "tests"]) == 2
        assert re.search(f"{named}: .* 'tests'", capsys.readouterr().err)


@pytest.mark.parametrize("text", ["3", "0/2", "3/2", "a/b", "1/0"])
def test_a_wrong_shard_is_refused(root, text):
    with pytest.raises(ValueError, match=f"shard must be INDEX/COUNT .*got {text}"):
        run(root, make(), shard=text)
    assert calls(root) == []


def test_wrong_sweeps_are_refused(root):
    with pytest.raises(ValueError, match="members must map the labels of one or more"):
        Sweep("s", "g", {})
    with pytest.raises(ValueError, match="name of a directory, got 'a/b'"):
        Sweep("s", "g", {"a/b": Member(BASE)})
    with pytest.raises(ValueError, match="name of a directory, got 1; such a name is a text"):
        Sweep("s", "g", {seed: Member(BASE) for seed in (1, 2)})  # pyright: ignore
    for label in ("a:2", "a+c", "a[1]", "a\n"):
        with pytest.raises(
            ValueError, match=re.escape(f"without any of : + * ? [ \\, got {label!r}")
        ):
            Sweep("s", "g", {label: Member(BASE)})
    with pytest.raises(ValueError, match="members must map the labels of one or more"):
        Sweep("s", "g", [Member(BASE)])  # pyright: ignore
    for network in (None, "net.pth"):
        with pytest.raises(ValueError, match=r"members\['a'\].network must be Experiment\(...\)"):
            make(members={"a": Member(network)})  # pyright: ignore
    for pattern in (3, "", "/abs/net.pth"):
        with pytest.raises(ValueError, match=f"relative pattern of file names, got {pattern!r}"):
            Weights(pattern)  # pyright: ignore
    for labels in ("ab", (1, 2)):
        with pytest.raises(ValueError, match="labels must be a tuple of labels of members"):
            Ensemble(labels)  # pyright: ignore
    hint = r"got Experiment\(name=.{64}; write Member\(network\) for a network$"
    with pytest.raises(ValueError, match=rf"members\['a'\] must be Member\(...\), {hint}"):
        Sweep("s", "g", {"a": BASE})  # pyright: ignore
    with pytest.raises(ValueError, match=r"^evaluations must be a list of Request\(...\), got Req"):
        make(evaluations=CLEAN)
    with pytest.raises(ValueError, match=r"members\['a'\].evaluations must be a list of"):
        make(members={"a": Member(BASE, CLEAN)})  # pyright: ignore
    with pytest.raises(ValueError, match="only must be among train, evaluate, report"):
        run(root, make(), steps=("trian",))
    for field in ("runs", "weights"):
        with pytest.raises(ValueError, match=rf"^{field} must be Path\(...\).*, got 'a'"):
            sweeps.Options(**{field: "a"})  # pyright: ignore


def test_a_member_is_a_config(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(_SWEEP_FILE)
    assert training.load_config(f"{path}:base", CONFIGS) == BASE
    with pytest.raises(ValueError, match="has no member 'bass'; did you mean 'base'"):
        training.load_config(f"{path}:bass", CONFIGS)
    assert sweeps.load_sweep(str(path), CONFIGS).members["base"].network == BASE


def test_files_of_sweeps_and_of_single_networks_are_told_apart(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(_SWEEP_FILE.replace("import experiment", "import experiment as base", 1))
    path.write_text(path.read_text().replace("Member(experiment)", "Member(base)"))
    with pytest.raises(ValueError, match="mine.py is a sweep .*train.py .*mine.py:LABEL .* base$"):
        training.load_config(str(path), CONFIGS)
    config = str(CONFIGS / "quickstart" / "resnet18.py")
    for read, name in ((sweeps.load_sweep, config), (training.load_config, f"{config}:base")):
        with pytest.raises(ValueError, match="is not a sweep; python train.py .*resnet18.py train"):
            read(name, CONFIGS)
    path.write_text("sweep = [1, 2]")
    with pytest.raises(ValueError, match=r"must define experiment = Exp.*\(...\), it has None"):
        training.load_config(str(path), CONFIGS)
    path.write_text("")
    for read, name in ((sweeps.load_sweep, str(path)), (training.load_config, f"{path}:base")):
        with pytest.raises(ValueError, match=r"must define sweep = Sweep\(...\), it has None"):
            read(name, CONFIGS)


class TestOpenedNetworks:
    """Members that are files of weights."""

    SWEEP = Sweep(
        *("s", "group"),
        {"a": Member(Weights("a_e70.pth*")), "b": Member(Weights("b.pt"))},
        [CLEAN],
    )

    def run(self, root, **options):
        return run(root, self.SWEEP, weights=root / "weights", source="folder:/data", **options)

    @pytest.fixture(autouse=True)
    def files(self, root):
        (root / "weights" / "deep").mkdir(parents=True)
        (root / "weights" / "deep" / "a_e70.pth.tar").write_bytes(b"a")

    def test_a_file_is_evaluated_into_a_directory_of_the_label(self, root, capfd):
        assert self.run(root) == 0
        options = "--suite clean --source folder:/data"
        call = f"eval.py /weights/deep/a_e70.pth.tar --results a/results {options}"
        assert calls(root) == [call]
        assert f"left out, not in {root / 'weights'}: b.pt (b)" in capfd.readouterr().out
        # Only what is new runs: another network, other weights, other images.
        (root / "weights" / "b.pt").write_bytes(b"b")
        assert self.run(root) == 0
        assert [each.split()[1] for each in calls(root)] == ["/weights/b.pt"]
        assert self.run(root, split="val") == 0
        assert len(calls(root)) == 2
        (root / "weights" / "b.pt").write_bytes(b"other")
        assert self.run(root, split="val") == 0
        assert [each.split()[1] for each in calls(root)] == ["/weights/b.pt"]

    def test_names_of_classes_are_read_again_where_they_change(self, root):
        names = root / "names.txt"
        members = {"a": Member(Weights("a_e70.pth*", str(names)))}
        for text in ("cat", "dog"):
            names.write_text(text)
            assert run(root, make(members=members), weights=root / "weights") == 0
            (call,) = calls(root)
            assert call.endswith("--results a/results --class-names /names.txt --suite clean")
        assert run(root, make(members=members), weights=root / "weights") == 0
        assert calls(root) == []
        names.unlink()
        with pytest.raises(
            ValueError, match="class_names of a must be a file, there is none at .*names.txt'"
        ):
            run(root, make(members=members), weights=root / "weights")
        with pytest.raises(ValueError, match="class_names must be text, for a path str"):
            Weights("a", names)  # pyright: ignore

    def test_the_report_is_of_the_networks_that_are_there(self, root, monkeypatch):
        assert self.run(root) == 0
        reports = []
        monkeypatch.setattr(sweeps, "_execute", lambda command, root: reports.append(command) or 0)
        assert self.run(root, steps=("report",)) == 0
        assert str(root / "runs/group/a") in reports[0]
        assert str(root / "runs/group/b") not in reports[0]

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            (
                None,
                r"weights must be the directory of the files a_e70.pth\* \(a\), b.pt \(b\), got",
            ),
            ("nowhere", "weights must be the directory of .*nowhere"),
            ("empty", "weights must hold at least one of the files"),
            ("twice", "weights must hold one file b.pt, .* has b.pt, deep/b.pt"),
        ],
    )
    def test_directories_that_do_not_fit(self, root, weights, message):
        (root / "empty").mkdir()
        (root / "twice" / "deep").mkdir(parents=True)
        for path in ("b.pt", "deep/b.pt"):
            (root / "twice" / path).write_bytes(b"")
        with pytest.raises(ValueError, match=message):
            run(root, self.SWEEP, weights=weights and root / weights)

    def test_such_a_member_is_no_config(self, tmp_path):
        path = tmp_path / "mine.py"
        path.write_text(
            "from vone_jax.sweep import Member, Sweep, Weights\n"
            "sweep = Sweep('mine', 'mine', {'base': Member(Weights('x.pt'))})\n"
        )
        with pytest.raises(ValueError, match=r"base is not trained; .*sweep.* \S*py evaluates it"):
            training.load_config(f"{path}:base", CONFIGS)


class TestEnsembles:
    """Members that are the mean of others."""

    def sweep(self, labels=("a", "b")):
        trained = {label: Member(replace(BASE, seed=ord(label))) for label in "ab"}
        return make(members=trained | {"both": Member(Ensemble(tuple(labels)))})

    def test_it_is_evaluated_into_a_directory_of_its_label(self, root):
        call = "eval.py a+b --results both/results --suite clean"
        assert ran(root, self.sweep())[-1] == call
        assert ran(root, self.sweep()) == []
        # Other members are another ensemble.
        assert ran(root, self.sweep(["b", "a"])) == [call.replace("a+b", "b+a")]

    def test_it_is_evaluated_once_where_a_clock_was_ahead_in_training(self, root, monkeypatch):
        run(root, self.sweep(), steps=("train",))
        monkeypatch.setattr("time.time", lambda at=time.time: at() - 7200)
        ran(root, self.sweep())
        assert ran(root, self.sweep()) == []
        # A member that is trained again, by the right clock, is seen all the same.
        shutil.rmtree(root / "runs" / "group" / "b")
        assert ran(root, self.sweep())[-1].startswith("eval.py a+b")

    def test_it_is_evaluated_again_when_a_member_is_trained_again(self, root, capsys):
        """Also if the sweep was stopped in between."""
        ran(root, self.sweep())
        shutil.rmtree(root / "runs" / "group" / "b")
        capsys.readouterr()
        run(root, self.sweep(), dry_run=True)
        planned = capsys.readouterr().out.replace(str(root), "").replace("/runs/group/", "")
        commands = ["train.py lab/s:b", "eval.py b", "eval.py a+b"]
        assert [line.partition(" --")[0] for line in planned.splitlines()] == [
            f"python /{command}" for command in commands
        ]
        (root / "behave").write_text("eval.py 75\n")
        assert run(root, self.sweep()) == 75
        (root / "behave").write_text("")
        calls(root)
        assert [call.partition(" --")[0] for call in ran(root, self.sweep())] == commands[1:]
        # Another sweep of the group may train the member.
        shutil.rmtree(root / "runs" / "group" / "b")
        ran(root, make("ab"))
        assert [call.partition(" --")[0] for call in ran(root, self.sweep())] == commands[2:]
        # What each evaluation has made is still known.
        (root / "runs" / "group" / "both" / "results" / "clean.json").unlink()
        assert [call.partition(" --")[0] for call in ran(root, self.sweep())] == commands[2:]

    def test_a_shard_leaves_it_out(self, root):
        run(root, self.sweep(), steps=("train",))
        calls(root)
        for shard in ("1/2", "2/2"):
            assert run(root, self.sweep(), shard=shard, steps=("evaluate",)) == 0
        assert [call.split()[1] for call in calls(root)] == ["a", "b"]

    def test_it_waits_for_members_that_fail(self, root):
        (root / "behave").write_text("s:b 1\n")
        with pytest.raises(SweepError, match="train.py lab/s:b"):
            run(root, self.sweep())
        assert not any("+" in call for call in calls(root))

    @pytest.mark.parametrize("labels", [[], ["a"], ["a", "c"], ["a", "both"]])
    def test_its_members_must_be_trained_before_it(self, labels):
        with pytest.raises(
            ValueError, match=r"members\['both'\] must be an ensemble of .* a, b; got"
        ):
            self.sweep(labels)
