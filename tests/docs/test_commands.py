"""Every command line of the README and the pages is one that the commands accept."""

import argparse
import dataclasses
import re
import shlex
import typing
from pathlib import Path

import pytest

from vone_jax import training
from vone_jax.arguments import union_members
from vone_jax.cli import convert, evaluate, parsing, report, sweep, train
from vone_jax.evaluation import suites
from vone_jax.suites import SUITES

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "results").glob("*.md")),
]
MAINS = {
    "train": train.main,
    "eval": evaluate.main,
    "sweep": sweep.main,
    "report": report.main,
    "convert": convert.main,
}
COMMAND = re.compile(
    r"(?:python (train|eval|sweep)\.py|python -m vone_jax\.cli\.(report)|vone-(\w+)) (.+)"
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


def commands_of(page):
    """The command lines in blocks of shell code and in code within sentences."""
    text = page.read_text()
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    for line in lines + [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", prose)]:
        if found := COMMAND.match(line.strip()):
            *names, rest = found.groups()
            words = shlex.split(rest, comments=True)
            # The rest are forms, not commands.
            if words and not re.search(r"\.\.\.|\[|[A-Z]/[A-Z]", rest):
                yield next(filter(None, names)), words


class ParsedError(Exception):
    """The words were accepted."""


@pytest.fixture
def only_parse(monkeypatch):
    parse, parse_args = parsing.parse, argparse.ArgumentParser.parse_args

    def stop(parse):
        def parse_and_stop(*arguments, **keywords):
            parse(*arguments, **keywords)
            raise ParsedError

        return parse_and_stop

    monkeypatch.setattr(parsing, "parse", stop(parse))
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop(parse_args))


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
def test_the_commands_of_a_page_are_accepted(page, only_parse, capsys):
    for command, words in commands_of(page):
        if command == "train" and (words[0].endswith(".py") or words[0].isupper()):
            words[0] = "quickstart/vone_resnet18"
        # Files that a reader writes.
        words = ["clean" if re.match(r"(my_suites|mine)\.py:", word) else word for word in words]
        try:
            status = MAINS[command](words)
        except (ParsedError, SystemExit) as end:
            status = getattr(end, "code", 0)  # --help ends with 0.
        assert status == 0, f"{command} {words}: {capsys.readouterr().err}"
