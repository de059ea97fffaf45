"""The checks of arguments: what they accept, and what their errors say.

``test_fields.py`` walks the fields of all dataclasses out of their ranges.
"""

import dataclasses
from typing import Annotated, Literal

import numpy as np
import pytest

from vone_jax import arguments
from vone_jax.arguments import Range


def test_a_mistyped_name_gets_the_most_similar_choice():
    assert arguments.nearest("resnet19", ("resnet18", "alexnet")) == "; did you mean 'resnet18'?"
    assert arguments.nearest("zebra", ("resnet18", "alexnet")) == ""
    assert arguments.nearest("zebra", ("resnet18", "alexnet"), cutoff=0.0) != ""
    # As it is written in papers, and a choice that is a class.
    assert arguments.nearest("AdamW", ("sgd", "adam", "adamw")) == "; did you mean 'adamw'?"
    assert arguments.nearest("autoatack", ("AutoAttack", "APGD")) == "; did you mean 'AutoAttack'?"


@pytest.mark.parametrize("value", [0, 1.0, True, "1", None, np.float32(2), 10**20])
def test_a_count_is_an_integer_from_its_least_value_on(value):
    with pytest.raises(ValueError, match="steps must be an integer >= 1"):
        arguments.count("steps", value)
    for accepted in (1, np.int64(3), 2**31 - 1):
        arguments.count("steps", accepted)
    arguments.count("steps", 0, least=0)
    arguments.count("steps", 5, most=5)
    with pytest.raises(ValueError, match="steps must be an integer >= 1 and <= 5, got 6"):
        arguments.count("steps", 6, most=5)


def test_an_instance_is_of_one_of_the_classes():
    arguments.instance("noise", None, range | slice | None)
    arguments.instance("noise", range(1), range)
    with pytest.raises(ValueError, match=r"^noise must be range\(...\), got 3; see there$"):
        arguments.instance("noise", 3, range, "; see there")
    with pytest.raises(ValueError, match=r"be range\(...\), slice\(...\) or None, got 'x'$"):
        arguments.instance("noise", "x", range | slice | None)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), True, "1", None])
def test_a_number_is_finite_and_not_negative(value):
    with pytest.raises(ValueError, match="rate must be a finite number >= 0, got"):
        arguments.number("rate", value)
    arguments.number("rate", np.float32(0.0))


@dataclasses.dataclass(frozen=True)
class Settings:
    width: Annotated[int | None, Range(8, 16)] = None
    momentum: Annotated[float, Range(most=1.0, below=True)] = 0.5
    norm: Annotated[str, ("l1", "l2")] = "l1"
    mean: float | tuple[float, ...] = -1.0
    noise: Literal["same", "none"] | range = "same"

    def __post_init__(self):
        arguments.fields(self, "settings.")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("width", 7, "an integer >= 8 and <= 16, got 7"),
        ("momentum", 1, "a finite number >= 0 and < 1, got 1"),
        ("norm", "l3", "one of l1, l2; got 'l3'; did you mean 'l"),
    ],
)
def test_a_field_out_of_its_range_is_refused_with_what_is_valid(field, value, message):
    with pytest.raises(ValueError) as error:
        Settings(**{field: value})
    assert str(error.value).startswith(f"settings.{field} must be {message}")
    # Fields of other types and unions are not checked.
    Settings(width=8, momentum=0.0, mean=(-1.0, 2.0), noise=range(3))
