"""sweep.py from the outside: the list, and that every sweep builds."""

import re
from pathlib import Path

import pytest

from vone_jax import sweep as sweeps
from vone_jax import training
from vone_jax.cli import sweep as program

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
NAMES = training.config_names(CONFIGS, "sweep")


def test_without_arguments_it_lists_the_sweeps(capsys):
    assert program.main([]) == 2
    shown = capsys.readouterr().err
    assert len(NAMES) >= 4 and all(name in shown for name in NAMES)


def test_a_dry_run_shows_every_command(tmp_path, capsys):
    name = "laboratory/similarity"
    assert program.main([name, "--runs", str(tmp_path), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    sweep = sweeps.load_sweep(name, CONFIGS)
    commands = sum(1 + len(sweep.evaluations_of(label)) for label in sweep.members)
    assert len(shown.splitlines()) == commands + 1  # The report.
    assert f"train.py {name}:base-similar-v1 --run-dir" in shown.replace(
        str(CONFIGS.parent) + "/", ""
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_every_sweep_says_what_it_is_and_its_networks_go_through_json(name):
    text = (CONFIGS / f"{name}.py").read_text().split('"""')[1]
    for heading in ("Paper row:", "Expected:", "Hardware:", "Wall time:"):
        assert heading in text
    assert re.search(
        rf"^Command: python sweep.py {name}( --weights DIR --source folder:DIR)?$",
        text,
        re.MULTILINE,
    )
    for label, member in sweeps.load_sweep(name, CONFIGS).members.items():
        experiment = member.network
        if isinstance(experiment, training.Experiment):
            assert training.from_json(training.to_json(experiment)) == experiment, label


def test_sweeps_of_a_group_mean_the_same_network_by_the_same_label():
    found: dict[tuple[str, str], training.Experiment] = {}
    for name in NAMES:
        sweep = sweeps.load_sweep(name, CONFIGS)
        for label, member in sweep.members.items():
            assert found.setdefault((sweep.group, label), member.network) == member.network
