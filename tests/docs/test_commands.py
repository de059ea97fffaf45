"""Every command line of the README and the pages is one that the commands accept."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

from vone_jax.cli import convert, evaluate, parsing, prepare, report, sweep, train

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MAINS = {
    "train": train.main,
    "eval": evaluate.main,
    "sweep": sweep.main,
    "report": report.main,
    "convert": convert.main,
    "prepare": prepare.main,
}
COMMAND = re.compile(
    r"(?:python (train|eval|sweep)\.py|python -m vone_jax\.(report)|vone-(\w+)) (.+)"
)


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_are_accepted(page, only_parse, capsys):
    for command, words in commands_of(page):
        if command == "train" and (words[0].endswith(".py") or words[0].isupper()):
            words[0] = "quickstart/vone_resnet18"
        try:
            status = MAINS[command](words)
        except (ParsedError, SystemExit) as end:
            status = getattr(end, "code", 0)  # --help ends with 0.
        assert status == 0, f"{command} {words}: {capsys.readouterr().err}"
