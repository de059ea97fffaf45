"""The page: the values of its template, computed from runs."""

import functools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import numpy as np
import vl_convert
from markupsafe import Markup

from vone_jax import files, names
from vone_jax.report import (
    charts,
    classes,
    comparison,
    first_screen,
    gallery,
    images,
    layer_charts,
    observer_charts,
    provenance,
    tables,
)
from vone_jax.report.tables import of_kinds
from vone_jax.results import Result, Run, Runs, humans, load

# Scores of fewer units are uncertain. The smallest sample of neurons behind a score has 87.
FEW_UNITS = 100
_VERDICTS = ("pass", "warning", "fail")
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
    environment.filters |= {"percent": _percent, "chart": _chart, "code": tables.code}
    return environment.get_template("page.html").render(_context(runs, chosen))


def _percent(share: float) -> str:
    """0.8123 -> '81.2'. What is not defined is a dash."""
    return f"{100 * share:.1f}" if share == share else "–"


def _chart(chart: Any) -> Markup:
    """A chart as the specification that the script of the page draws."""
    with alt.theme.enable("none"):
        # Validation takes ten times as long as all the rest.
        spec = chart.to_dict(validate=False)
    # The page loads nothing, not even the schema.
    spec = {name: value for name, value in spec.items() if name != "$schema"}
    text = json.dumps(spec | {"config": _CONFIG}, separators=(",", ":")).replace("<", "\\u003c")
    return Markup(f'<script type="application/json" class="chart">{text}</script>')


@functools.cache
def _script() -> Markup:
    """Vega, Vega-Lite, Vega-Embed and the few lines that draw the charts of the page."""
    lines = resources.files("vone_jax.report").joinpath("templates/page.js").read_text("utf-8")
    return Markup(vl_convert.javascript_bundle(lines).replace("</script", "<\\/script"))


# Kinds of conditions with a section, or with numbers that stand in the table of all numbers alone.
_KNOWN = (
    "clean", "attack", "corruption", "minimal", *tables.VOTES, "masking", "physiology",
)  # fmt: skip


def _context(runs: Runs, chosen: str | None) -> dict[str, Any]:
    lines = tables.accuracies(runs)
    base = tables.baseline(runs, chosen)
    others = [run for run in runs if run is not base]
    compared = {run.label: comparison.compare_all(lines, run, base) for run in others}
    labels = [run.label for run in runs]
    norms = [norm for norm in names.NORMS if any(line.row.get("norm") == norm for line in lines)]
    logged = ("loss", "accuracy")
    ladders = (charts.ladder(lines, labels, norm) for norm in norms)
    return {
        "title": " and ".join(labels) if len(labels) <= 2 else f"{len(labels)} networks",
        "runs": runs,
        "labels": labels,
        "base": base,
        "date": max(str(r.provenance.get("started", "")) for run in runs for r in run.results)[:10],
        "sentences": [comparison.sentence(run, base, lines) for run in others],
        "facts_shown": first_screen.facts(runs, lines, base),
        "lines": lines,
        "signed": comparison.signed,
        "compared": compared,
        "footnotes": comparison.footnotes(compared),
        "warnings": first_screen.warnings(runs, lines),
        "ladders": [each for each in ladders if each is not None],
        "distances": of_kinds(runs, "minimal"),
        "calibration": _calibration(runs),
        "classes": classes.classes(runs),
        "masking": [each for run in runs for each in _masking(run)],
        "gallery": gallery.attacked(lines, runs),
        "corruptions": _corruptions(runs),
        "categories": tables.categories(runs),
        "fourier": [
            (f"{run.label}: {result.label}", observer_charts.fourier(result))
            for run, result in of_kinds(runs, "fourier map")
        ],
        "metamers": gallery.metamers(runs),
        "recognised": observer_charts.metamers(runs),
        "observers": f"{humans.METAMERS['AlexNet'].source}; chance is {humans.CHANCE:.1%}",
        "geometry": layer_charts.geometry(runs),
        "psychophysics": observer_charts.psychophysics(runs),
        "critical_bands": observer_charts.critical_bands(runs),
        "humans": humans,
        "banks": _banks(runs),
        "physiology": _physiology(runs),
        "explained": [
            (run, result, layer_charts.explained(arrays["correlations"], arrays["reliabilities"]))
            for run, result in of_kinds(runs, "explained variance")
            for arrays in [result.arrays]
        ],
        "training": [c for c in (charts.training(runs, name) for name in logged) if c is not None],
        "further": tables.further(runs, _KNOWN),
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


def _masking(run: Run) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """The checks for masked gradients: label, what was measured, and the checks.

    The quick checks of all attacks on a network stand together, each with its worst verdict.
    """
    for _, result in of_kinds([run], "masking"):
        yield run.label, result.label, result.details["checks"]
    worst: dict[str, dict[str, Any]] = {}
    for check in (c for result in run.results for c in result.details.get("masking", ())):
        known = worst.setdefault(check["question"], check)
        if _VERDICTS.index(check["verdict"]) > _VERDICTS.index(known["verdict"]):
            worst[check["question"]] = check
    if worst:
        yield run.label, "quick checks", list(worst.values())


def _corruptions(runs: Runs) -> list[tuple[str, str, Any]]:
    """Name and chart of each group of corruptions, and the members of one that is in no mean."""
    groups: dict[str, Sequence[str]] = dict(names.CORRUPTION_CATEGORIES)
    groups["weather"] = [*groups["weather"], names.PROCEDURAL_FROST]
    in_means = set(groups)
    groups["extra corruptions of ImageNet-C"] = names.EXTRA_CORRUPTIONS
    groups["ImageNet-C-bar"] = names.C_BAR_CORRUPTIONS
    known = {name for members in groups.values() for name in members}
    measured = {r.row["corruption"]: r.row for _, r in of_kinds(runs, "corruption")}
    own = {name: row for name, row in measured.items() if name not in known}
    for category in dict.fromkeys(row["category"] for row in own.values() if "category" in row):
        group = f"{category}, not published" if category in groups else category
        groups[group] = [name for name, row in own.items() if row.get("category") == category]
        in_means.add(group)
    groups["others"] = [name for name, row in own.items() if "category" not in row]
    found = []
    for group, members in groups.items():
        if (chart := charts.corruptions(runs, members)) is not None:
            words = ", ".join(name for name in members if name in measured).replace("_", " ")
            title = group[0].upper() + group[1:]
            found.append((title, "" if group in in_means else words, chart))
    return found


def _calibration(runs: Runs) -> list[tuple[Run, Result, str, dict[str, Mapping[str, Any]]]]:
    """The rows of the calibration on clean images, for each number of averaged draws."""
    found = []
    for run, result in of_kinds(runs, "clean"):
        of_draws: dict[str, dict[str, Mapping[str, Any]]] = {}
        for row in result.rows:
            number, _, draws = row.get("number", "").partition(", ")
            if draws.endswith((" draw", " draws")):
                of_draws.setdefault(draws.split()[0], {})[number] = row
        found += [(run, result, draws, numbers) for draws, numbers in of_draws.items()]
    return found


def _banks(runs: Runs) -> list[dict[str, Any]]:
    """The pictures of V1: kernels, parameters, and responses to an image; equal V1s once."""
    shown: dict[tuple, dict[str, Any]] = {}
    for run, result in of_kinds(runs, "front end"):
        arrays = dict(result.arrays)
        # Two V1s with equal kernels can have other gains or noise, and so other responses.
        key = tuple((name, arrays[name].tobytes()) for name in sorted(arrays))
        if key in shown:
            shown[key]["labels"].append(run.label)
            continue
        shown[key] = {
            "labels": [run.label],
            "cells": len(arrays["sf"]),
            "side": arrays["kernels_in_phase"].shape[1],
            "degrees": arrays["kernels_in_phase"].shape[1] / float(arrays["pixels_per_degree"]),
            "mosaics": images.mosaics(arrays),
            "histograms": [
                layer_charts.bank_histogram(arrays, name) for name in layer_charts.PARAMETERS
            ],
            "image": images.photograph(arrays["image"]),
            "maps": images.response_maps(arrays),
        }
    return list(shown.values())


def _physiology(runs: Runs) -> dict[str, Any] | None:
    """The scores of layers, and the distributions of the best layer of each network."""
    recorded = of_kinds(runs, "physiology")
    scored = [(run, result) for run, result in recorded if "properties" in result.details]
    if not recorded:
        return None

    def of(result: Result) -> dict[str, dict[str, Any]]:
        properties = result.details["properties"]
        return {n: each for n, each in properties.items() if each["score"] is not None}

    def few(result: Result) -> bool:
        return any((each["units"] or 0) < FEW_UNITS for each in of(result).values())

    # Layers with few units stand last: their scores are uncertain.
    scored.sort(key=lambda pair: (few(pair[1]), -pair[1].details["mean_score"]))
    # Only properties that all layers have are compared.
    shared = [n for n in of(scored[0][1]) if all(n in of(r) for _, r in scored)] if scored else []
    best = {run.label: result for run, result in reversed(scored)}
    panels = []
    for name in shared:
        first = scored[0][1].details["properties"][name]
        shares = {"neurons of macaque V1": first["reference_distribution"]}
        for label, result in reversed(best.items()):
            layer = f"{label}, {result.row['layer']}"
            shares[layer] = result.details["properties"][name]["distribution"]
        unit = f", {first['unit']}" if first["unit"] else ""
        title = f"{first['label']}{unit}"
        panels.append(layer_charts.histogram(np.asarray(first["edges"]), shares, title))
    properties = [scored[0][1].details["properties"][name] for name in shared]
    return {
        "columns": [each["label"] for each in properties],
        "layers": [
            (run, result, [of(result)[name]["score"] for name in shared], few(result))
            for run, result in scored
        ],
        "few": FEW_UNITS,
        "panels": panels,
        "units": [
            (label, result.row["layer"], *layer_charts.of_units(result.arrays))
            for label, result in reversed(best.items())
            if "field/map" in result.arrays
        ],
        "sources": list(dict.fromkeys(each["source"] for each in properties)),
        "failed": [(run, r) for run, r in recorded if "properties" not in r.details],
    }
