"""Dataclasses as JSON values, and back."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax.dataclass_json import decode, encode


class Shape:
    """A base that is no dataclass itself."""


@dataclasses.dataclass(frozen=True)
class Square(Shape):
    side: float


@dataclasses.dataclass(frozen=True)
class Circle(Shape):
    radius: float

    def __post_init__(self):
        if self.radius < 0:
            raise ValueError("radius must be >= 0")


@dataclasses.dataclass(frozen=True)
class Small(Square):
    """A subclass of a concrete class, two steps below the base."""


@dataclasses.dataclass(frozen=True)
class Drawing:
    shape: Square | Circle
    frame: Square | None = None
    parts: tuple[Shape, ...] = ()
    by_name: dict[str, Shape] = dataclasses.field(default_factory=dict)
    sizes: tuple[float, ...] = ()
    colour: Literal["red", "blue"] = "red"
    number: int = 1
    filled: bool = False
    file: Path | None = None
    pen: Any = dataclasses.field(default=None, metadata={"stored": False})


def test_what_is_encoded_comes_back():
    drawing = Drawing(
        Circle(2.0), Square(3.0), (Small(1.0), Circle(1.0)), {"a": Square(2.0)}, (1.0, 2.5),
        "blue", file=Path("a/b"),
    )  # fmt: skip
    content = json.loads(json.dumps(encode(drawing)))
    # Every object names its class.
    assert content["type"] == "Drawing"
    assert content["shape"] == {"type": "Circle", "radius": 2.0}
    assert content["frame"] == {"type": "Square", "side": 3.0} and content["file"] == "a/b"
    assert decode(Drawing, content, "drawing") == drawing
    # The name may be missing where it says nothing.
    del content["type"], content["frame"]["type"]
    assert decode(Drawing, content, "drawing") == drawing


def test_a_base_class_stands_for_its_subclasses_of_any_depth():
    for shape in (Square(1.0), Circle(2.0), Small(3.0)):
        assert decode(Shape, encode(shape), "shape") == shape
    with pytest.raises(ValueError, match="shape.type must be one of Square, Small, Circle; got 'S"):
        decode(Shape, {"type": "Smal", "side": 1.0}, "shape")
    with pytest.raises(ValueError, match="shape.type must be one of .* got None"):
        decode(Shape, {"side": 1.0}, "shape")


def test_a_name_that_two_classes_have_is_refused_but_not_a_definition_again():
    class Base:
        pass

    def define():
        @dataclasses.dataclass(frozen=True)
        class Square(Base):
            side: float

        return Square

    first, second = define(), define()
    assert type(decode(Base, {"type": "Square", "side": 1.0}, "shape")) is second is not first

    @dataclasses.dataclass(frozen=True)
    class Other(Base):
        side: float

    Other.__name__ = "Square"
    with pytest.raises(ValueError, match="shape.type: several classes are named Square"):
        decode(Base, {"type": "Square", "side": 1.0}, "shape")


def test_fields_of_the_running_program_are_not_stored_but_given():
    drawing = Drawing(Square(1.0), pen=max)
    content = encode(drawing)
    assert "pen" not in content
    assert decode(Drawing, content, "drawing", {"pen": max}) == drawing
    with pytest.raises(ValueError, match="drawing has no field 'pen'"):
        decode(Drawing, content | {"pen": 1}, "drawing")


def test_a_class_may_have_another_form_and_be_put_back():
    content = encode(Drawing(Square(1.0)), {Square: lambda square: {"area": square.side**2}})
    assert content["shape"] == {"type": "Square", "area": 1.0}
    assert decode(Drawing, content | {"shape": Square(1.0)}, "drawing") == Drawing(Square(1.0))


def test_arrays_and_their_scalars_become_lists_and_numbers():
    for array in (np.arange(2), jnp.arange(2)):
        assert encode([array, array[1]]) == [[0, 1], 1]
    assert type(encode(np.float64(1))) is float
    with pytest.raises(TypeError, match=r"Drawing.sizes\[0\] has no JSON form: object"):
        encode(Drawing(Square(1.0), sizes=(object(),)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": {"type": "Circle", "radius": -1}}, "drawing.shape: radius must be >= 0"),
        ({"shape": {"type": "Circle"}}, "drawing.shape lacks the field 'radius'"),
        ({"frame": {"sied": 1}}, "drawing.frame has no field 'sied'; did you mean 'side'"),
        ({"frame": {"type": "Circle", "radius": 1}}, "drawing.frame.type must be one of Square"),
        ({"frame": 3}, "drawing.frame must be"),
        ({"number": True}, "drawing.number must be of type int, got True"),
        ({"filled": 1}, "drawing.filled must be"),
        ({"sizes": [1, "2"]}, r"drawing.sizes\[1\] must be of type float, got '2'"),
        ({"by_name": {"a": 1}}, "drawing.by_name.a must be"),
        ({"colour": "green"}, "drawing.colour must be"),
    ],
)
def test_errors_name_the_path(change, message):
    content = encode(Drawing(Circle(2.0))) | change
    with pytest.raises(ValueError, match=message):
        decode(Drawing, content, "drawing")
