"""The parser of command lines into dataclasses, and its error messages."""

import contextlib
import dataclasses
import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from vone_jax import names
from vone_jax.arguments import not_among
from vone_jax.cli import is_tree, option, refuse_empty_values

Parsed = TypeVar("Parsed")


def parse(
    arguments: Callable[..., Parsed],
    argv: Sequence[str],
    program: str,
    description: str,
    default: Parsed | None = None,
    markers: Sequence[Any] = (),
) -> Parsed:
    """Read a command line into a dataclass. A number can be a fraction, such as 8/255.

    Each field of ``arguments`` is an option, and the comment of a field is its help, which
    ``--help-all`` prints below the ``description``. ``default`` holds the values of options that
    are not given, and ``markers`` are those of ``tyro.conf``.

    Raises:
      SystemExit: with status 2 for options that do not fit, after a message on stderr.
      ValueError, TypeError: if the dataclass raises it.
    """
    refuse_empty_values(program, argv)
    registry = tyro.constructors.ConstructorRegistry()

    # A shell leaves ~ as it is in --run-dir=~/run. Texts with paths stay as they are typed, since
    # runs and their results record them.
    rules: dict[Any, tuple[str, Callable[[str], Any], Any]] = {
        float: ("FLOAT", _number, float | int),
        Path: ("PATH", lambda word: Path(os.path.expanduser(word)), Path),
    }

    @registry.primitive_rule
    def one_word(info: tyro.constructors.PrimitiveTypeInfo):
        if info.type not in rules:
            return None
        metavar, from_word, kinds = rules[info.type]
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=lambda words: from_word(words[0]),
            is_instance=lambda value: isinstance(value, kinds),
            str_from_instance=lambda value: [str(value)],
        )

    said = io.StringIO()

    def read(words: Sequence[str]) -> Parsed:
        return tyro.cli(
            arguments,
            args=words,
            prog=program,
            description=description,
            default=tyro.MISSING_NONPROP if default is None else default,  # pyright: ignore
            config=markers,
            registry=registry,
        )

    try:
        with contextlib.redirect_stderr(said):
            return read(["--help" if word == "--help-all" else word for word in argv])
    except SystemExit:
        if said.getvalue():
            absent = [] if default is None else list(_absent(default))
            line = _in_one_line(program, said.getvalue(), _options(read), absent)
            print(line, end="", file=sys.stderr)
        raise
    except BrokenPipeError:
        # A program that reads the help, such as head, has closed the pipe.
        raise SystemExit(0) from None


def check_lists(argv: Sequence[str], lists: Mapping[str, bool]) -> None:
    """Raise a ``ValueError`` for a list option without a value that it needs, or given twice.

    ``lists`` has the list options, and whether each needs a value.
    """
    seen: set[str] = set()
    for word, following in zip(argv, [*argv[1:], "--"], strict=True):
        typed, _, value = word.partition("=")
        name = typed.replace("_", "-")
        if name in lists:
            if lists[name] and not value and following.startswith("--"):
                raise ValueError(f"{name} needs at least one value")
            if name in seen:
                raise ValueError(f"{name} is given twice; give it once, with all values")
            seen.add(name)


def _number(text: str) -> float:
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{text!r} is neither a number nor a fraction such as 8/255") from None


def _options(read: Callable[[Sequence[str]], Any]) -> list[str]:
    """The options in the help of a command."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        read(["--help"])
    rows = re.findall(r"^[│|\s]*--.*", shown.getvalue(), re.MULTILINE)
    return re.findall(r"--[a-z][\w.-]*", " ".join(rows))


def _absent(record: Any, *path: str) -> Iterator[str]:
    """Yield the options of nested dataclasses that are None in a dataclass of defaults."""
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        # The experiment's own fields are options without a prefix.
        inner = path if field.name == "experiment" else (*path, field.name)
        if dataclasses.is_dataclass(value):
            yield from _absent(value, *inner)
        elif value is None and is_tree(field):
            yield option(*inner)


def _in_one_line(program: str, message: str, options: Sequence[str], absent: Sequence[str]) -> str:
    """Rewrite tyro's boxed message about wrong words in the form of ``cli.fail``."""
    message = re.sub(r"\x1b\[[\d;]*m", "", message)
    lines = [line.strip("│ ") for line in message.splitlines() if line[:1] not in ("╭", "╰")]
    # Horizontal rules divide a box into parts. Off a terminal the title is the first part.
    parts = re.split(r" ?[─-]{20,} ?", " ".join(filter(None, lines)))
    body, *rest = parts if "╭" in message else parts[1:]
    if unknown := re.fullmatch("Unrecognized options: (.*)", body.strip()):
        return f"{program}: {_unknown(unknown[1].split(', ')[0], options, absent)}\n"
    if of_field := re.fullmatch(r"Error parsing ([a-z]\w*(?:\.\w+)*): (\w+)(.*)", body.strip()):
        # The first name of the path is that of the dataclass, which is not typed.
        path, word, problem = of_field[1].split(".")[1:], of_field[2], of_field[3]
        if option(*path, word) in options:
            return f"{program}: {option(*path, word)}{problem}\n"
        return f"{program}: {f'{option(*path)}: ' if path else ''}{word}{problem}\n"
    for pattern, rewrite in _REWRITES:
        if match := re.fullmatch(pattern, body.strip()):
            return f"{program}: {rewrite(' '.join(rest), *match.groups())}\n"
    return message


def _wrong_list(help: str, name: str, words: str) -> str:
    usage = re.search(rf"({re.escape(name)} .*?[\]A-Z])(?: [A-Z][a-z]|$)", help)
    kinds = set(re.findall("[A-Z]+", usage[1])) if usage else set()
    if kinds == {"FLOAT"}:
        return f"{name} must be numbers or fractions such as 8/255, got {words}"
    if kinds == {"INT"}:
        return f"{name} must be integers with spaces between them, got {words}"
    return f"{usage[1] if usage else name} cannot take {words}"


# A message lists at most this many options.
_LISTED = 6


def _unknown(word: str, options: Sequence[str], absent: Sequence[str]) -> str:
    """The message about a word that is not an option; ``absent`` are from ``_absent``."""
    if not word.startswith("-"):
        return f"{word!r} belongs to no option; an option that is on or off takes no value"
    typed = word.partition("=")[0].replace("_", "-")
    for part in absent:
        if f"{typed}.".startswith(f"{part}."):
            cure = "a config file of your own can set it"
            if part == "--model.v1":
                cure = "--model.name takes a network with V1, such as vone_resnet18"
            return f"there is no option {word}, since {part} is None in this config; {cure}"
    if parts := [each for each in options if each.startswith(f"{typed}.")]:
        if len(parts) > _LISTED:
            return f"there is no option {word}, but a group of that name; --help-all lists it"
        return (
            f"there is no option {word}. This config has {', '.join(parts)}; a config file of your "
            "own can set others"
        )
    name = typed.lstrip("-")
    end = name.rpartition(".")[2]
    ends = {each.lstrip("-").rpartition(".")[2] for each in options}
    meant = {end, *_SYNONYMS.get(end, ())} & ends
    if "--suite" in options and end in ("weights", "checkpoint"):
        return f"there is no option {word}; NETWORK, the first word, names the weights"
    if not meant and end in _CURES:
        return f"there is no option {word}; {_CURES[end]}"
    if not meant and end in _ELSEWHERE:
        return f"there is no option {word} here, but {names.command(_ELSEWHERE[end])} has it"
    close = [] if meant else difflib.get_close_matches(f"--{name}", options, n=1, cutoff=0.8)
    # Long options look alike even if their last parts differ.
    if close and not difflib.get_close_matches(end, [close[0].rpartition(".")[2]], cutoff=0.5):
        close = []
    if not close:
        meant = meant or difflib.get_close_matches(end, ends, n=2, cutoff=0.7)
        close = [each for each in options if each.lstrip("-").rpartition(".")[2] in meant]
    if not close:
        parent = typed.rpartition(".")[0]
        beside = [each for each in options if parent and each.rpartition(".")[0] == parent]
        there = f"this config has {', '.join(beside)}" if 0 < len(beside) <= _LISTED else ""
        return f"there is no option {word}; {there or '--help-all lists all options'}"
    return f"there is no option {word}; did you mean {' or '.join(close)}?"


# Last parts of options of other programs -> last parts of our options that may be meant.
_SYNONYMS = {
    "lr": ("learning-rate",),
    "epsilon": ("eps",),
    "attack": ("suite",),
    "severity": ("severities",),
    "num-workers": ("workers",),
    **dict.fromkeys(("bs", "batch"), ("batch-size",)),
    **dict.fromkeys(("iterations", "num-steps", "pgd-steps"), ("steps",)),
    **dict.fromkeys(("dataset", "data"), ("source",)),
    **dict.fromkeys(("images", "num-images", "samples", "limit", "n"), ("examples",)),
    **dict.fromkeys(("output", "output-dir", "out"), ("results", "run-dir")),
    **dict.fromkeys(("weights", "pretrained", "checkpoint"), ("initial-weights",)),
}
# Options that no command has -> the cure.
_CURES = {
    "resume": "run the same command again to continue",
    **dict.fromkeys(
        ("device", "devices", "gpu", "gpus", "cpu"),
        "JAX chooses the devices, or the environment does: JAX_PLATFORMS=cpu",
    ),
}
# Options that may be typed with the wrong command -> the command that has them.
_ELSEWHERE = {
    **dict.fromkeys(("epochs", "lr", "learning-rate", "run-dir"), "train.py"),
    **dict.fromkeys(("suite", "eps", "norm", "restarts", "examples"), "eval.py"),
}


# The pattern of a tyro message -> a function that makes our message from the help below it and the
# pattern's groups.
_REWRITES: tuple[tuple[str, Callable[..., str]], ...] = (
    (
        r"Error parsing (--\S+): (?:no type matching .*\bINT\b|invalid literal for int).*'(.*?)'",
        lambda help, name, value: f"{name} must be an integer, got {value!r}",
    ),
    (
        r"Error parsing (--\S+): (?:Could not find|no type matching) .*\[('.*?')\].*",
        _wrong_list,
    ),
    (r"Error parsing (--\S+): (.*)", lambda help, name, problem: f"{name}: {problem}"),
    (r"Missing from .*?: (\S+).*", lambda help, name: f"{name} is missing; see --help"),
    (
        r"Missing value for argument '(--\S+)'\. Expected (\d+) values?\.",
        lambda help, name, count: f"{name} needs a value" + (count != "1") * f" of {count} words",
    ),
    (
        r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)\.",
        lambda help, value, name, listed: not_among(name, value, re.findall("'(.*?)'", listed)),
    ),
)
