"""The checks of arguments: what they accept, and what their errors say."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest

from vone_jax import arguments
from vone_jax.arguments import FromZero, Positive, Range, Seed, Share


def test_a_mistyped_name_gets_the_most_similar_choice():
    assert arguments.nearest("resnet19", ("resnet18", "alexnet")) == "; did you mean 'resnet18'?"
    assert arguments.nearest("zebra", ("resnet18", "alexnet")) == ""
    assert arguments.nearest("zebra", ("resnet18", "alexnet"), cutoff=0.0) != ""


@pytest.mark.parametrize("value", [0, 1.0, True, "1", None, np.float32(2)])
def test_a_count_is_an_integer_from_its_least_value_on(value):
    with pytest.raises(ValueError, match="steps must be an integer >= 1, got"):
        arguments.count("steps", value)
    arguments.count("steps", 1)
    arguments.count("steps", np.int64(3))
    arguments.count("steps", 0, least=0)
    arguments.count("steps", 5, most=5)
    with pytest.raises(ValueError, match="steps must be an integer >= 1 and <= 5, got 6"):
        arguments.count("steps", 6, most=5)
    arguments.count("steps", 2**31 - 1)
    with pytest.raises(ValueError, match="steps must be an integer >= 1 and <= 2147483647, got"):
        arguments.count("steps", 10**20)


def test_an_instance_is_of_one_of_the_classes():
    arguments.instance("noise", None, range | slice | None)
    arguments.instance("noise", range(1), range)
    with pytest.raises(ValueError, match=r"^noise must be range\(...\), got 3; see there$"):
        arguments.instance("noise", 3, range, "; see there")
    with pytest.raises(ValueError, match=r"^noise must be range\(...\) or None, got 3$"):
        arguments.instance("noise", 3, range | None)
    with pytest.raises(ValueError, match=r"be range\(...\), slice\(...\) or None, got 'x'$"):
        arguments.instance("noise", "x", range | slice | None)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), True, "1", None])
def test_a_number_is_finite_and_not_negative(value):
    with pytest.raises(ValueError, match="rate must be a finite number >= 0, got"):
        arguments.number("rate", value)
    arguments.number("rate", np.float32(0.0))


@dataclasses.dataclass(frozen=True)
class Part:
    size: int = 1


@dataclasses.dataclass(frozen=True)
class OtherPart:
    pass


@dataclasses.dataclass(frozen=True)
class Settings:
    steps: int = 1
    workers: FromZero = 0
    seed: Seed = 0
    width: Annotated[int | None, Range(8, 16)] = None
    rate: Positive = 1.0
    least: Positive | None = None
    share: Share = 0.5
    momentum: Annotated[float, Range(most=1.0, below=True)] = 0.5
    decay: float = 0.0
    correlation: Annotated[float, Range(-1.0, 1.0)] = 0.0
    flip: bool = False
    norm: Annotated[str, ("l1", "l2")] = "l1"
    mode: Literal["stop", "skip"] = "stop"
    part: Part | None = None
    either: Part | OtherPart | None = None
    mean: float | tuple[float, ...] = -1.0
    noise: Literal["same", "none"] | Part = Part()
    name: str = ""

    def __post_init__(self):
        arguments.fields(self, "settings.")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", 0, "an integer >= 1, got 0"),
        ("workers", -1, "an integer >= 0, got -1"),
        ("seed", 2**32, "an integer >= 0 and <= 4294967295, got 4294967296"),
        ("width", 7, "an integer >= 8 and <= 16, got 7"),
        ("rate", 0.0, "a finite number > 0, got 0.0"),
        ("least", -3.0, "a finite number > 0, got -3.0"),
        ("share", 2, "a finite number >= 0 and <= 1, got 2"),
        ("momentum", 1, "a finite number >= 0 and < 1, got 1"),
        ("decay", None, "a finite number >= 0, got None"),
        ("correlation", -2.0, "a finite number >= -1 and <= 1, got -2.0"),
        ("flip", 1, "True or False, got 1"),
        ("norm", "l3", "one of l1, l2; got 'l3'; did you mean 'l"),
        ("mode", "go", "one of stop, skip; got 'go'"),
        ("part", 3, "Part(...) or None, got 3"),
        ("either", "OtherPart", "Part(...), OtherPart(...) or None, got 'OtherPart'"),
        ("either", Part, "Part(...), OtherPart(...) or None, got <class"),
        ("name", Path("a"), "text, for a path str(...), got "),
    ],
)
def test_fields_are_checked_by_their_types(field, value, message):
    with pytest.raises((ValueError, TypeError)) as error:
        dataclasses.replace(
            Settings(part=Part(), either=OtherPart(), width=8, share=1), **{field: value}
        )
    assert str(error.value).startswith(f"settings.{field} must be {message}")
