"""Views: how the numbers of a condition are shown, as JSON in its result.

A result carries its views, so the page needs no code of the kind of measurement: also not of a
user's own. Each view may name another ``section`` of the page than its condition's.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar


@dataclasses.dataclass(frozen=True)
class Lines:
    """A number against a column: a line for each network and for whatever else differs.

    So two points of a line differ in the axis alone. Views of one section with the same axis and
    panel are one chart. Where the axis has one value, the chart has a row of points for each line.

    Attributes:
      number: name of the number, which the result must have with the column of the axis.
      x: the column of the axis, such as "eps" or "layer".
      panel: the column with a chart for each of its values.
      origin: a condition whose first main number stands at 0, such as "clean" for attacks.
      order: the values of an axis that is not numeric, in their order.
      log: whether the axis is logarithmic.
      share: whether the number is drawn from 0 to 1, in percent.
      own_images: whether each value of the axis has images of its own, as published corrupted
        images do. Otherwise a line is of one data set.
      about: a sentence above the charts.
    """

    kind: ClassVar[str] = "lines"

    number: str
    x: str
    panel: str | None = None
    origin: str | None = None
    order: tuple[Any, ...] = ()
    log: bool = False
    share: bool = False
    about: str = ""
    section: str | None = None
    own_images: bool = False


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart of one result, such as a heat map or a histogram.

    Attributes:
      spec: a Vega-Lite specification with its data, such as ``chart.to_dict()`` of Altair.
      title: words below the chart. Default: the condition.
      about: a sentence above the charts.
    """

    kind: ClassVar[str] = "chart"

    spec: dict[str, Any]
    title: str = ""
    about: str = ""
    section: str | None = None


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Images of one result, side by side.

    Attributes:
      arrays: names of arrays of the result, images (n, H, W, 1 or 3) in [0, 1]. Images at the same
        place of several arrays stand together.
      captions: words below each of the n places.
      title: words above the pictures. Default: the condition.
      side: the largest side on the page in pixels; larger images are shrunk.
      about: a sentence above the pictures.
    """

    kind: ClassVar[str] = "pictures"

    arrays: tuple[str, ...]
    captions: tuple[str, ...] = ()
    title: str = ""
    side: int = 112
    about: str = ""
    section: str | None = None


View = Lines | Chart | Pictures
_KINDS = {each.kind: each for each in (Lines, Chart, Pictures)}


def encode(view: View) -> dict[str, Any]:
    """A view as JSON values."""
    return {"view": view.kind, **dataclasses.asdict(view)}


def decode(content: Mapping[str, Any]) -> View:
    """The view that ``encode`` has made JSON values of.

    Raises:
      KeyError, TypeError: for values of another form.
    """
    given: dict[str, Any] = {
        n: tuple(v) if isinstance(v, list) else v for n, v in content.items() if n != "view"
    }
    return _KINDS[content["view"]](**given)
