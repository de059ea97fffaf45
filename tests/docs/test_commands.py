"""Every command of the README, the pages, the configs and the tutorials is accepted today."""

import argparse
import ast
import dataclasses
import importlib
import json
import re
import shlex
import typing
from pathlib import Path

import pandas as pd
import pytest

from configs.drawings import prepare
from tests.test_readme import files_of
from vone_jax import sweep as sweeps
from vone_jax import training
from vone_jax.arguments import union_members
from vone_jax.cli import convert, evaluate, parsing, report, sweep, train
from vone_jax.evaluation import judging, suites
from vone_jax.suites import SUITES

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "results").glob("*.md")),
]
# Configs and programs, whose docstrings have commands, and tutorials.
OTHERS = [
    path
    for pattern in ("configs/**/*.py", "vone_jax/cli/*.py", "docs/tutorials/*.ipynb")
    for path in sorted(ROOT.glob(pattern))
]
MAINS = {
    "train": train.main,
    "eval": evaluate.main,
    "sweep": sweep.main,
    "report": report.main,
    "convert": convert.main,
    "prepare": prepare.main,
}
COMMAND = re.compile(
    r"(?:python (train|eval|sweep)\.py|python -m vone_jax\.cli\.(report|convert)"
    r"|vone-(train|eval|sweep|report|convert)"
    r"|python configs/drawings/(prepare)\.py|python -m (benchmarks[.\w]*)) (.+)"
)
# In sentences an option may stand alone, and a command without ``python``.
OPTION = re.compile(r"(?<![\w-])--[a-z][\w.-]*")
OF_COMMANDS = re.compile(r"`(--[^`]+)`\s+(?:of|for)\s+`(\w+)\.py`(?:\s+and\s+`(\w+)\.py`)?")


def fields(cls, prefix=""):
    """The options that tyro makes of a dataclass."""
    for name, hint in typing.get_type_hints(cls).items():
        yield f"--{prefix}{name}".replace("_", "-")
        for kind in union_members(hint):
            if dataclasses.is_dataclass(kind):
                skipped = kind is training.Experiment
                yield from fields(kind, "" if skipped else f"{prefix}{name}.")


def written_in(*files):
    """The options of argparse in source files."""
    return set(re.findall(r'"(--[a-z-]+)"', "".join(file.read_text() for file in files)))


OPTIONS = {
    "train": {*fields(train.Arguments), "--help-all"},
    "eval": {*fields(evaluate.Arguments), *(f"--{name}" for name in suites.options(SUITES))},
    "sweep": set(fields(sweep.Arguments)),
    "report": set(fields(report.Arguments)),
    "convert": set(fields(convert.Options)),
    "benchmarks": written_in(*(ROOT / "benchmarks").glob("*.py")),
}
# Of other programs, and of all of ours.
EVERYWHERE = {"--help", "--version", "--file-format", "--file_format"}


def text_of(path):
    """The text of a page, of the docstring of a program, or between the cells of a tutorial."""
    text = path.read_text()
    if path.suffix == ".py":
        docstring = (ast.get_docstring(ast.parse(text)) or "").replace("``", "`")
        return re.sub(r"^(Command:)? +", "    ", docstring, flags=re.MULTILINE)
    if path.suffix == ".ipynb":
        cells = [each["source"] for each in json.loads(text)["cells"]]
        return "\n\n".join("".join(source) for source in cells)
    return text


def commands_of(path):
    """The commands in blocks of code and in code within sentences."""
    text = text_of(path).replace("\\\n", " ")
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).splitlines() + re.findall(r"^(?: {4}|python ).+", prose, re.MULTILINE)
    for line in lines + [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", prose)]:
        if found := COMMAND.search(line.strip().rstrip("'")):
            *names, rest = found.groups()
            # The others are forms, not commands.
            if not re.search(r"\.\.\.|\[|[A-Z]/[A-Z]|NAME=", rest):
                if words := shlex.split(rest, comments=True):
                    yield next(filter(None, names)), words


class Accepted(Exception):
    """A parser has accepted the words; it holds what they stand for."""


@pytest.fixture
def refusal(monkeypatch, capsys):
    """A function that says why a command refuses some words; empty if it accepts them."""
    parse, parse_args = parsing.parse, argparse.ArgumentParser.parse_args

    def stop(parse):
        def parse_and_stop(*arguments, **keywords):
            raise Accepted(parse(*arguments, **keywords))

        return parse_and_stop

    monkeypatch.setattr(parsing, "parse", stop(parse))
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop(parse_args))

    def refusal(command, words):
        # Files of readers that a page does not show.
        unwritten = words[0].endswith(".py") and not Path(words[0]).exists()
        if command == "train" and (unwritten or words[0].isupper()):
            words = ["quickstart/vone_resnet18", *words[1:]]
        words = ["clean" if word.startswith("my_suites.py:") else word for word in words]
        main = MAINS.get(command)
        if main is None:
            module = "benchmarks.__main__" if command == "benchmarks" else command
            main = importlib.import_module(module).main
        try:
            status = main(words)
        except Accepted as accepted:
            status = meaning(command, accepted.args[0])
        except SystemExit as end:
            status = end.code  # --help ends with 0.
        return capsys.readouterr().err or status or ""

    return refusal


def meaning(command, given):
    """What is wrong with the values of a command, which it reads after its options."""
    try:
        if command == "eval":
            judging.parse_protocol(given.given.noise, given.given.decision, given.given.draws)
            for noise in (given.given.noise, given.given.attack_noise):
                if noise not in ("same", "frozen"):
                    judging.parse_noise("noise", noise, None)
        if command == "sweep" and not given.sweep.isupper() and not given.sweep.endswith(".py"):
            sweeps.load_sweep(given.sweep, ROOT / "configs")
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_options_in_sentences_are_those_of_commands(page):
    prose = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`([^`]+)`", prose):
        command = re.match(r"(?:python )?(?:vone-)?(\w+)(?:\.py)? ", span)
        known = OPTIONS.get(command[1]) if command else None
        known = set().union(*OPTIONS.values()) if known is None else known
        unknown = set(OPTION.findall(span)) - known - EVERYWHERE
        assert not unknown, f"{span!r} has {unknown}"
    for span, *commands in OF_COMMANDS.findall(prose):
        for command in filter(None, commands):
            missing = set(OPTION.findall(span)) - OPTIONS[command] - EVERYWHERE
            assert not missing, f"{command} has no {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_are_accepted(page, refusal, tmp_path, monkeypatch):
    """In a directory with the programs of the page."""
    files_of(page, tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for command, words in commands_of(page):
        assert not (why := refusal(command, words)), f"{command} {words}: {why}"


def test_the_commands_of_configs_programs_and_tutorials_are_accepted(refusal):
    commands = [(path, *each) for path in OTHERS for each in commands_of(path)]
    assert len(commands) > 50
    for path, command, words in commands:
        assert not (why := refusal(command, words)), f"{path}: {command} {words}: {why}"


def test_the_commands_of_frames_are_accepted(refusal):
    paths = sorted((ROOT / "docs" / "results").glob("*.csv"))
    commands = {each for path in paths for each in pd.read_csv(path)["command"]}
    # Commands that differ by the network alone are parsed once.
    alike = {re.sub(r"runs/\S+", "runs/NETWORK", command): command for command in commands}
    assert len(alike) > 30
    for text in alike.values():
        if text.startswith("python docs/examples/"):
            assert (ROOT / text.split()[1]).is_file()
            continue
        *names, rest = COMMAND.fullmatch(text).groups()
        command, words = next(filter(None, names)), shlex.split(rest)
        assert not (why := refusal(command, words)), f"{text}: {why}"
