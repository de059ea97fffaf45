"""The page: sections made of the rows of results, and of the views that they carry.

It knows no kind of measurement.
"""

import base64
import dataclasses
import functools
import io
import itertools
import json
import os
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import numpy as np
import vl_convert
from markupsafe import Markup
from PIL import Image

from vone_jax import files, names
from vone_jax.report import chart, comparison, first_screen, provenance, tables
from vone_jax.report.tables import MAIN, Line
from vone_jax.results import Lines, Pictures, Result, Run, Runs, load

# A table with more lines is closed at first.
_OPEN_LINES = 12
# The sections that every page has.
_ANCHORS = ("training", "numbers", "provenance")
# The look that all charts share.
_CONFIG = {
    "font": "system-ui, sans-serif",
    "axis": {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal"},
    "legend": {"labelFontSize": 12, "symbolOpacity": 1},
    "view": {"stroke": None},
}


def write(
    runs: Runs | str | os.PathLike | Iterable[str | os.PathLike],
    out: str | os.PathLike,
    baseline: str | None = None,
) -> Path:
    """Write a report of networks.

    Args:
      runs: runs that are loaded, or what ``results.load`` takes, in the order of the page.
      out: the HTML file, in a directory that exists. An existing file is replaced.
      baseline: directory or label of the network with which the others are compared. Default: the
        first network without a V1, else the first.

    Returns:
      The path of the page.

    Raises:
      ResultError: if a directory or a file in it cannot be used, or ``baseline`` is none of them.
      OSError: if the page cannot be written.
    """
    if not isinstance(runs, Runs):
        runs = load(runs)
    content = render(runs, baseline).encode(errors="replace")
    files.replace(Path(out), lambda file: file.write(content))
    return Path(out)


def render(runs: Runs, chosen: str | None = None) -> str:
    """The page as HTML, complete in itself. The same runs always give the same text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vone_jax.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"chart": _chart, "number": _number, "signed": _signed}
    return environment.get_template("page.html").render(_context(runs, chosen))


def _number(value: float, line: Line) -> str:
    """A number of a line as it is shown: a share in percent, others with four digits."""
    return f"{line.scale * value:.1f}" if line.scale > 1 else f"{value:.4g}"


def _signed(value: float, line: Line) -> str:
    """A difference of numbers of a line as it is shown, with its sign."""
    if line.scale > 1:
        return comparison.signed(line.scale * value)
    return f"{value:+.3g}".replace("-", comparison.MINUS, 1) if value else "0"


def _chart(drawn: Any) -> Markup:
    """A chart as the specification that the script of the page draws."""
    spec = drawn
    if not isinstance(drawn, dict):
        with alt.theme.enable("none"):
            # Validation takes ten times as long as all the rest.
            spec = drawn.to_dict(validate=False)
    # The page loads nothing, not even the schema.
    spec = {name: value for name, value in spec.items() if name not in ("$schema", "config")}
    text = json.dumps(spec | {"config": _CONFIG}, separators=(",", ":"), allow_nan=False)
    return Markup(
        f'<script type="application/json" class="chart">{text.replace("<", chr(92) + "u003c")}'
        "</script>"
    )


@functools.cache
def _script() -> Markup:
    """Vega, Vega-Lite, Vega-Embed and the few lines that draw the charts of the page."""
    text = resources.files("vone_jax.report").joinpath("templates/page.js").read_text("utf-8")
    return Markup(vl_convert.javascript_bundle(text).replace("</script", "<\\/script"))


@dataclasses.dataclass(eq=False)
class Section:
    """A section of the page.

    Attributes:
      name: its heading.
      anchor: its place on the page.
      about: sentences below the heading.
      lines: the lines of its table, each with its number among all lines.
      charts: a title and a chart each.
      pictures: a title and figures each; a figure has images as data URIs, and a caption.
      views: views of lines with their results and runs, by axis and panel.
    """

    name: str
    anchor: str
    about: list[str] = dataclasses.field(default_factory=list)
    lines: list[tuple[int, Line]] = dataclasses.field(default_factory=list)
    charts: list[tuple[str, Any]] = dataclasses.field(default_factory=list)
    pictures: list[tuple[str, list[dict[str, Any]]]] = dataclasses.field(default_factory=list)
    views: dict[Any, list[tuple[Run, Result, Lines]]] = dataclasses.field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether its table is shown at once: short ones, and those with answers of checks."""
        checks = any("verdict" in line.row for _, line in self.lines)
        return self.name == MAIN or checks or len(self.lines) <= _OPEN_LINES

    @property
    def is_compared(self) -> bool:
        """Whether its table has differences. Answers of checks have none."""
        return any("verdict" not in line.row for _, line in self.lines)


def sections(runs: Runs, lines: Sequence[Line]) -> list[Section]:
    """The sections in the order in which results name them, that of the main numbers first."""
    found = dict[str, Section]()
    # What several results show alike is shown once: its content -> the runs, and how it is shown.
    shown: dict[tuple[str, str, str], tuple[list[str], Any]] = {}

    def section(name: str) -> Section:
        anchor = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        taken = {*_ANCHORS, *(each.anchor for each in found.values())}
        distinct = (f"{anchor}-{n}" if n > 1 or not anchor else anchor for n in itertools.count(1))
        return found.setdefault(name, Section(name, next(a for a in distinct if a not in taken)))

    section(MAIN)

    for run, result in ((each, result) for each in runs for result in each.results):
        for name in (result.section, *(row.get("section") for row in result.numbers)):
            section(name or result.section)
        for view in result.views:
            here = section(view.section or result.section)
            if view.about not in (*here.about, ""):
                here.about.append(view.about)
            if isinstance(view, Lines):
                here.views.setdefault((view.x, view.panel), []).append((run, result, view))
                continue
            drawn = _figures(result, view) if isinstance(view, Pictures) else view.spec
            key = here.name, view.title or result.label, json.dumps(drawn, sort_keys=True)
            labels, _ = shown.setdefault(key, ([], drawn))
            labels.append(run.label)
    for (name, title, _), (labels, drawn) in shown.items():
        here = section(name)
        titled = f"{', '.join(dict.fromkeys(labels))}: {title}", drawn
        (here.charts if isinstance(drawn, dict) else here.pictures).append(titled)
    for at, line in enumerate(lines):
        section(line.section).lines.append((at, line))
    for here in found.values():
        numbered = [each for of in here.views.values() for each in _of_each_number(of)]
        here.charts = [
            each for views in numbered for each in chart.lines(views, runs)
        ] + here.charts
    return [each for each in found.values() if each.lines or each.charts or each.pictures]


def _of_each_number(
    views: list[tuple[Run, Result, Lines]],
) -> list[list[tuple[Run, Result, Lines]]]:
    """Views of shares stand in one chart; other numbers have an axis of their own each."""
    groups: dict[Any, list[tuple[Run, Result, Lines]]] = {}
    for each in views:
        view = each[2]
        groups.setdefault("share" if view.share else view.number, []).append(each)
    return list(groups.values())


def _figures(result: Result, view: Pictures) -> list[dict[str, Any]]:
    """The images of a view at each place, with their caption."""
    arrays = [result.arrays[name] for name in view.arrays]
    captions = view.captions or ("",) * len(arrays[0])
    return [
        {
            "uris": [_photograph(image, view.side) for image in images],
            "caption": caption,
            "side": view.side,
        }
        for *images, caption in zip(*arrays, captions, strict=True)
    ]


def _photograph(image: np.ndarray, side: int) -> str:
    """A float image (height, width, 1 or 3) in [0, 1] as a data URI, shrunk if it is large."""
    pixels = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.thumbnail((side, side), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _context(runs: Runs, chosen: str | None) -> dict[str, Any]:
    lines = tables.lines(runs)
    base = tables.baseline(runs, chosen)
    others = [run for run in runs if run is not base]
    compared = {run.label: comparison.compare_all(lines, run, base) for run in others}
    labels = [run.label for run in runs]
    main = [line for line in lines if line.section == MAIN]
    logged = (chart.training(runs, name) for name in ("loss", "accuracy"))
    return {
        "title": " and ".join(labels) if len(labels) <= 2 else f"{len(labels)} networks",
        "runs": runs,
        "labels": labels,
        "base": base,
        "other": [run.label for run in others],
        "date": max(str(r.provenance.get("started", "")) for run in runs for r in run.results)[:10],
        "sentences": [comparison.sentence(run, base, main) for run in others],
        "facts_shown": first_screen.facts(runs, main, base),
        "compared": compared,
        "footnotes": comparison.footnotes(compared),
        "warnings": first_screen.warnings(runs, main),
        "sections": sections(runs, lines),
        "training": [each for each in logged if each is not None],
        "numbers": runs.to_frame().to_dict("records"),
        "script": _script(),
        "differing": provenance.differing(runs),
        "anchors": {
            (run.label, result.name): f"r{place}-{at}"
            for place, run in enumerate(runs)
            for at, result in enumerate(run.results)
        },
        "facts_of": provenance.facts,
        "settings": {run.label: provenance.settings(run) for run in runs},
        "command": names.command("report.py")
        if names.installed()
        else "python -m vone_jax.cli.report",
    }
