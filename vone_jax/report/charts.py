"""The look of charts with Vega-Altair, and of the networks in them.

The page shows each chart as a static SVG. Where JavaScript runs, the Vega-Lite specification takes
its place and shows numbers under the pointer. Colours are CSS variables of the page, so one chart
serves light mode, dark mode and print.
"""

import base64
import dataclasses
import functools
import json
import zlib
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

import altair as alt
import vl_convert
from markupsafe import Markup

from vone_jax.report.wording import printable
from vone_jax.results import Run

INK, MUTED, RULE, PAGE, ACCENT = (
    f"var(--{name})" for name in ("ink", "muted", "rule", "page", "accent")
)
COLORS = 8
# Shapes of Vega, so that colour is never the only difference between networks.
MARKERS = (
    *("circle", "square", "diamond", "triangle-up", "triangle-down", "cross"),
    *("triangle-right", "triangle-left"),
)
# Dashes of lines that are told apart within a chart; the first is solid.
DASHES = ([1, 0], [6, 2], [2, 1.5], [7, 2, 1.5, 2])
_DETERMINISTIC = [5, 3]
# Width and height of a chart among many, in pixels.
_SMALL = (215, 130)
_AXIS = {
    "labelColor": MUTED,
    "titleColor": MUTED,
    "titleFontWeight": "normal",
    "labelFontSize": 11,
    "titleFontSize": 11.5,
    "domainColor": RULE,
    "tickColor": RULE,
    "gridColor": RULE,
    "labelLimit": 110,
    "labelFlush": False,
}
CONFIG: dict[str, Any] = {
    # The element around a chart describes it in words.
    "aria": False,
    "background": "transparent",
    # The SVG repeats it for each text.
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": _AXIS,
    "axisX": {"grid": False},
    "axisY": {"domain": False, "ticks": False},
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """A chart on the page: static picture, Vega-Lite specification, and what it shows in words.

    The specification is without ``CONFIG``, which all charts share.
    """

    svg: Markup
    spec: dict[str, Any]
    description: str


def figure(
    layers: Sequence[alt.Chart], description: str, size: tuple[int, int] = _SMALL, networks: int = 0
) -> Figure:
    """A chart as the page shows it.

    Args:
      layers: the layers of the chart, the lowest first.
      description: for readers who do not see it.
      size: width and height in pixels.
      networks: number of networks, for a chart of rows of ``of_networks``.
    """
    width, height = size
    chart = alt.layer(*layers).properties(width=width, height=height)
    # A theme would add to the specification. Validation takes ten times as long as all the rest.
    with alt.theme.enable("none"):
        spec = chart.to_dict(validate=False)
    if networks:
        spec["params"] = [{"name": "shown", "value": list(range(networks))}]
    # The address of the schema: the page loads nothing.
    del spec["$schema"]
    svg = vl_convert.vegalite_to_svg(spec, config=CONFIG, allowed_base_urls=[])
    # Namespaces of XML are addresses, too. SVG within HTML does not need them.
    start = svg.index(">")
    head = " ".join(part for part in svg[:start].split(" ") if not part.startswith("xmlns"))
    return Figure(Markup(printable(head + svg[start:])), spec, description)


@functools.cache
def script() -> str:
    """The script for the charts, with Vega, Vega-Lite and Vega-Embed in one text."""
    text = resources.files("vone_jax.report").joinpath("templates/page.js").read_text("utf-8")
    return vl_convert.javascript_bundle(text)


def packed(value: Any) -> str:
    """A text, or a value as JSON, as ``templates/loader.js`` reads it."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def color(position: int) -> str:
    """The colour of the network at a position on the page."""
    return f"var(--net-{position % COLORS})"


def marker(position: int) -> str:
    """The marker of the network at a position on the page.

    Among 64 networks, each has another pair of colour and marker.
    """
    return MARKERS[(position + position // COLORS) % len(MARKERS)]


def dashes(position: int) -> Sequence[float]:
    """The dashes of a line of the network at a position on the page; see ``marker``."""
    return DASHES[(position + position // COLORS) % len(DASHES)]


def chart_of(rows: Sequence[dict[str, Any]]) -> alt.Chart:
    """A chart of rows of data."""
    return alt.Chart(alt.InlineData(values=list(rows)))


def of_networks(rows: Sequence[dict[str, Any]]) -> alt.Chart:
    """A chart of rows with the "position" of a network; the reader chooses the networks."""
    return chart_of(rows).transform_filter("indexof(shown, datum.position) >= 0")


def share_axis(title: str | None = None, **fields: Any) -> alt.Axis:
    """A vertical axis of shares in percent."""
    options: dict[str, Any] = {"tickCount": 4} | fields
    return alt.Axis(title=title, format="%", **options)


def styled(channel: Any, styles: Iterable[Any], field: str = "position") -> Any:
    """A channel with the style of each network, or of each value of another field from 0.

    The page has legends, so charts have none.
    """
    shown = list(styles)
    scale = alt.Scale(domain=list(range(len(shown))), range=shown)
    return channel(f"{field}:N", scale=scale, legend=None)


def styles(runs: Sequence[Run]) -> tuple[alt.Color, alt.Shape, alt.StrokeDash]:
    """Colours, shapes and dashes: lines of stochastic networks are solid."""
    places = range(len(runs))
    dashes = [DASHES[0] if run.stochastic else _DETERMINISTIC for run in runs]
    colors, shapes = styled(alt.Color, map(color, places)), styled(alt.Shape, map(marker, places))
    return colors, shapes, styled(alt.StrokeDash, dashes)
