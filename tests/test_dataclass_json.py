"""Dataclasses as JSON values, and back."""

import dataclasses
import json
from typing import Literal

import numpy as np
import pytest

from vone_jax.dataclass_json import decode, encode


@dataclasses.dataclass(frozen=True)
class Square:
    side: float


@dataclasses.dataclass(frozen=True)
class Circle:
    radius: float

    def __post_init__(self):
        if self.radius < 0:
            raise ValueError("radius must be >= 0")


@dataclasses.dataclass(frozen=True)
class Drawing:
    shape: Square | Circle
    frame: Square | None = None
    sizes: tuple[float, ...] = ()
    colour: Literal["red", "blue"] = "red"
    number: int = 1
    filled: bool = False


def test_what_is_encoded_comes_back():
    drawing = Drawing(Circle(2.0), Square(3.0), (1.0, 2.5), "blue")
    content = json.loads(json.dumps(encode(drawing)))
    # The class is named only where there are several.
    assert content["shape"] == {"kind": "Circle", "radius": 2.0}
    assert content["frame"] == {"side": 3.0} and content["sizes"] == [1.0, 2.5]
    assert decode(Drawing, content, "drawing") == drawing


def test_a_class_may_have_another_form_and_be_put_back():
    content = encode(Drawing(Square(1.0)), {Square: lambda square: {"area": square.side**2}})
    assert content["shape"] == {"kind": "Square", "area": 1.0}
    assert decode(Drawing, content | {"shape": Square(1.0)}, "drawing") == Drawing(Square(1.0))
    assert encode(np.arange(2)) == [0, 1]
    with pytest.raises(TypeError, match="object has no JSON form"):
        encode(object())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": {"radius": 1}}, "drawing.shape.kind must be one of Square, Circle, got None"),
        ({"shape": {"kind": "Circle", "radius": -1}}, "drawing.shape: radius must be >= 0"),
        ({"shape": {"kind": "Circle"}}, "drawing.shape lacks the field 'radius'"),
        ({"frame": {"sied": 1}}, "drawing.frame has no field 'sied'; did you mean 'side'"),
        ({"frame": 3}, "drawing.frame must be of type .*Square.*, got 3"),
        ({"number": "1"}, "drawing.number must be of type int, got '1'"),
        ({"number": True}, "drawing.number must be of type int, got True"),
        ({"filled": 1}, "drawing.filled must be of type bool, got 1"),
        ({"sizes": [1, "2"]}, r"drawing.sizes\[1\] must be of type float, got '2'"),
        ({"colour": "green"}, "drawing.colour must be of type .* got 'green'"),
    ],
)
def test_errors_name_the_path(change, message):
    content = encode(Drawing(Circle(2.0))) | change
    with pytest.raises(ValueError, match=message):
        decode(Drawing, content, "drawing")
