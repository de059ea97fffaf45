"""Matplotlib figures as inline SVG that takes its colours and font from the page.

Figures are drawn in stand-in colours, which become CSS variables: one page then serves light and
dark mode and print. Nothing of a figure refers to anything outside the page.
"""

import contextlib
import html
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib
from cycler import cycler
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Stand-ins; no other colour may be used in a figure.
INK, MUTED, GRID, BACKGROUND, ACCENT = "#010203", "#010204", "#010205", "#010206", "#010207"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--rule)",
    BACKGROUND: "var(--page)",
    ACCENT: "var(--accent)",
}
COLORS = 8
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vone_jax",
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.prop_cycle": cycler(color=[INK]),
}


def color(position: int) -> str:
    """The stand-in colour of the network at a position on the page."""
    return f"#0102{0x10 + position % COLORS:02x}"


def marker(position: int) -> str:
    """The marker of the network at a position; colour is never the only difference."""
    return MARKERS[position % len(MARKERS)]


@contextlib.contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """A figure of a size in inches, to be drawn on and rendered within the context."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure


def render(
    figure: Figure, name: str, description: str, tips: dict[str, str] | None = None
) -> Markup:
    """A figure as an ``<svg>`` element.

    Args:
      figure: drawn within ``drawing``.
      name: an identifier, unique on the page.
      description: what it shows, for readers who do not see it.
      tips: group id (``gid`` of an artist) -> text shown when the pointer rests on it.
    """
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with warnings.catch_warnings():
        # The browser brings its own fonts: Matplotlib's need not have every letter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    view_box = text.split('viewBox="')[1].split('"')[0]
    body = text[text.index(">") + 1 : text.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.S)
    body = body.replace("xlink:href", "href")
    body = re.sub(r"font-family: [^;\"]*; ?", "", body)
    for gid, tip in (tips or {}).items():
        body = body.replace(f'<g id="{gid}">', f"<g><title>{html.escape(tip)}</title>")
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', body))
    body = re.sub(
        r' id="([^"]*)"',
        lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "",
        body,
    )
    body = re.sub(r'(href="|url\()#', rf"\1#{name}-", body)
    body = re.sub(r"#0102[0-9a-f]{2}", lambda match: _variable(match[0]), body)
    body = re.sub(r"\n\s*", "\n", body)
    return Markup(
        f'<svg class="plot" role="img" viewBox="{view_box}" '
        f'aria-label="{html.escape(description)}">{body}</svg>'
    )


def _variable(stand_in: str) -> str:
    known = _VARIABLES.get(stand_in)
    return known or f"var(--net-{int(stand_in[-2:], 16) - 0x10})"
