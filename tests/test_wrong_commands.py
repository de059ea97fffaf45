"""Wrong command lines: status 2, the name of the option, no traceback, and nothing is written.

Sentences are not tested. tyro and argparse report unknown options and wrong types themselves.
"""

import shlex

import pytest

from vone_jax import cli, evaluation
from vone_jax.cli import evaluate, report, sweep, train

MAINS = {
    "train": train.main, "eval": evaluate.main, "sweep": sweep.main, "report": report.main,
}  # fmt: skip
NET = "eval net.py:net --source fashion_mnist_small"

# A command line, and what the message must name.
TABLE = [
    ("train quickstart/resnet19", "quickstart/resnet18"),
    ("train quickstart/resnet18 --data.batch-size 0", "batch_size"),
    ("eval nosuch", "nosuch"),
    ("eval quickstart/resnet18", "train.py"),
    ("eval net.py:other", "other"),
    (f"{NET} --suite cleen", "clean"),
    (f"{NET} --suite mine.py:suite", "mine.py"),
    (f"{NET} --suite linf --eps 4", "4/255"),
    (f"{NET} --suite linf --eps 0.01568611 0.01568612", "attack-pgd-linf-0.0156861-64-steps"),
    (f"{NET} --suite linf --norm l2", "norm"),
    (f"{NET} --suite apgd --norm l3", "norm"),
    (f"{NET} --suite clean --eps 0.1", "eps"),
    (f"{NET} --suite clean", "names"),
    (f"{NET} --suite clean --noise none", "noise"),
    (f"{NET} --suite physiology", "features"),
    (f"{NET} --decision median:3", "median"),
    (f"{NET} --tag a/b", "tag"),
    (f"{NET} --noise frozen --draws 5", "draws"),
    (f"{NET} --suite linf --noise frozen --attack-noise none", "attack_noise"),
    (f"{NET} --split nosuch", "nosuch"),
    ("eval net.py:net --source folder:nowhere", "nowhere"),
    ("sweep laboratory/headline --only trian", "--only"),
    ("sweep benchmark/published", "weights"),
    ("report void", "void"),
]

_FUNCTION = """
def net():
    return lambda keys, images: images.reshape(len(images), -1)[:, :10], (28, 28, 1)
"""


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A directory with a network of ten classes, and no way to compute anything."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "void").mkdir()
    (tmp_path / "net.py").write_text(_FUNCTION)

    def never(*arguments, **options):
        raise AssertionError("a wrong command line got as far as this")

    monkeypatch.setattr(evaluation, "evaluate", never)
    monkeypatch.setattr("vone_jax.training.train", never)
    monkeypatch.setattr("vone_jax.cli.sweep._execute", never)
    return tmp_path


@pytest.mark.parametrize(("line", "name"), TABLE, ids=[line for line, _ in TABLE])
def test_a_wrong_command_line_names_what_is_wrong(line, name, workplace, capsys):
    program, *argv = shlex.split(line)
    before = sorted(workplace.rglob("*"))
    try:
        ended = MAINS[program](argv)
    except SystemExit as stop:
        ended = stop.code
    shown = capsys.readouterr().err
    assert ended == cli.WRONG_ARGUMENTS
    assert name in " ".join(shown.split()).replace("\u2502", " ") and "Traceback" not in shown
    after = [path for path in sorted(workplace.rglob("*")) if "__pycache__" not in path.parts]
    assert after == before, "something was written"
