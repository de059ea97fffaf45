"""The parser of command lines into dataclasses."""

import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import tyro

Parsed = TypeVar("Parsed")
# Modules by name, and files FILE.py, that may be imported for what a command opens. The option is
# given once for each.
Code = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(metavar="MODULE|FILE.py", help_behavior_hint=""),
]


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
    ``--help`` prints below the ``description``. ``default`` holds the values of options that are
    not given, and ``markers`` are those of ``tyro.conf``.

    Raises:
      SystemExit: with status 2 for options that do not fit, after a message on stderr; with status
        0 after ``--help`` or ``--version``.
      ValueError, TypeError: if the dataclass raises it.
    """
    if list(argv) == ["--version"]:
        raise SystemExit(print(importlib.metadata.version("vone-jax")))
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def fraction(info: tyro.constructors.PrimitiveTypeInfo):
        if info.type is not float:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="FLOAT",
            instance_from_str=lambda words: _number(words[0]),
            is_instance=lambda value: isinstance(value, float | int),
            str_from_instance=lambda value: [str(value)],
        )

    return tyro.cli(
        arguments,
        args=argv,
        prog=program,
        description=description,
        default=tyro.MISSING_NONPROP if default is None else default,  # pyright: ignore
        config=markers,
        registry=registry,
    )


def _number(text: str) -> float:
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{text!r} is neither a number nor a fraction such as 8/255") from None
