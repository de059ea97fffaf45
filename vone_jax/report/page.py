"""The page: the values of its template, computed from runs."""

import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import altair as alt
import jinja2
import vl_convert
from markupsafe import Markup

from vone_jax import names
from vone_jax.report import charts, images, tables
from vone_jax.results import Result, Run, Runs, humans

# Scores of fewer units are uncertain. The smallest sample of neurons behind a score has 87.
FEW_UNITS = 100
# The look that all charts share.
_CONFIG = {
    "font": "system-ui, sans-serif",
    "axis": {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal"},
    "legend": {"labelFontSize": 12, "symbolOpacity": 1},
    "view": {"stroke": None},
}


def render(runs: Runs, chosen: str | None = None) -> str:
    """The page as HTML, complete in itself. The same runs always give the same text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vone_jax.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "points": _points, "chart": _chart}
    return environment.get_template("page.html").render(_context(runs, chosen))


def _percent(share: float) -> str:
    """0.8123 -> '81.2 %'."""
    return f"{100 * share:.1f}\u202f%"


def _points(difference: float) -> str:
    """A signed difference of shares in percentage points: 0.289 -> '+28.9'."""
    return f"{100 * difference:+.1f}".replace("-", "\u2212").replace("+0.0", "0.0")


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


def _context(runs: Runs, chosen: str | None) -> dict[str, Any]:
    table = tables.conditions(runs)
    base = tables.baseline(runs, chosen)
    compared = [(run, tables.compare(table, run, base)) for run in runs if run is not base]
    compared = [(run, lines) for run, lines in compared if lines]
    scores = tables.means(table, runs)
    distances = _numbers(runs, "Minimal")
    attacked = {each.norm for each in table} | {r.condition["attack"]["norm"] for _, r in distances}
    attacked |= {result.condition["norm"] for _, result in _numbers(runs, "Certified")}
    norms = [norm for norm in names.NORMS if norm in attacked]
    corrupted = any(each.kind == "Corrupted" for each in table)
    labels = [run.label for run in runs]
    datasets = {
        " ".join(str(r.identity["dataset"].get(n) or "") for n in ("name", "split")).strip(". ")
        for run in runs
        for r in run.results
        if "accuracy" in r.measured
    }
    logged = ("loss", "accuracy")
    return {
        "title": " and ".join(labels) if len(labels) <= 2 else f"{len(labels)} networks",
        "runs": runs,
        "base": base,
        "datasets": sorted(datasets),
        "images": sorted(
            {r.identity["dataset"]["examples"] for each in table for r in each.results.values()}
        ),
        "date": max(str(r.provenance.get("started", "")) for run in runs for r in run.results)[:10],
        "sentences": [tables.sentence(run, base, lines) for run, lines in compared],
        "overview": charts.overview(table, runs),
        "cautions": tables.cautions(runs, table),
        "compared": compared,
        # Condition -> the accuracy of the baseline.
        "compared_in": {name: line.theirs for _, lines in compared for name, line in lines.items()},
        "headlines": {label: tables.headline(line) for label, line in scores.items()},
        "scores": scores,
        "calibration": _calibration(runs),
        "columns": list(dict.fromkeys(name for line in scores.values() for name in line)),
        "ladders": [(norm, charts.ladder(table, runs, norm)) for norm in norms],
        "attacks": _attacks(table),
        "distances": distances,
        "masking": _numbers(runs, "Masking"),
        "galleries": images.galleries(runs),
        "corruptions": charts.corruptions(table, runs) if corrupted else None,
        "fourier": [
            (f"{run.label}: {result.label}", charts.fourier(result))
            for run, result in _numbers(runs, "FourierMap")
        ],
        "metamers": images.metamers(runs),
        "recognised": charts.metamers(runs),
        "observers": f"{humans.METAMERS['AlexNet'].source}; chance is {humans.CHANCE:.1%}",
        "geometry": charts.geometry(runs),
        "psychophysics": charts.psychophysics(runs),
        "critical_bands": charts.critical_bands(runs),
        "humans": humans,
        "banks": _banks(runs),
        "physiology": _physiology(runs),
        "training": [c for c in (charts.training(runs, name) for name in logged) if c is not None],
        "table": table,
        "others": _others(runs),
        "script": _script(),
        "notes": {run.label: _notes(run) for run in runs},
        "anchors": {
            (run.label, result.name): f"r{place}-{at}"
            for place, run in enumerate(runs)
            for at, result in enumerate(run.results)
        },
        "facts_of": _facts,
        "settings": {run.label: _settings(run) for run in runs},
        "command": names.command("report.py") if names.installed() else "python -m vone_jax.report",
    }


def _attacks(table: Sequence[tables.Condition]) -> list[tuple[str, str]]:
    """(attack in words, its settings at the largest radius), with networks that differ apart."""
    settings: dict[str, dict[str, str]] = {}
    for each in table:
        if each.norm:
            ladder = settings.setdefault(f"{each.series} {names.NORM_LABELS[each.norm]}", {})
            for label, result in each.results.items():
                shown = result.condition.get("several") or [result.condition["attack"]]
                codes = ({n: v for n, v in attack.items() if n != "eps"} for attack in shown)
                ladder[label] = "; ".join(map(_code, codes))
    rows = []
    for attack, by_network in settings.items():
        for code in dict.fromkeys(by_network.values()):
            of = [label for label, each in by_network.items() if each == code]
            apart = "" if len(of) == len(by_network) else f" on {', '.join(of)}"
            rows.append((attack + apart, code))
    return rows


def _code(fields: Mapping[str, Any]) -> str:
    """An attack as code, without what is None."""
    given = [
        f"{name}={_code(value) if isinstance(value, dict) else _rounded(value)}"
        for name, value in fields.items()
        if name != "type" and value is not None
    ]
    return f"{fields.get('type', '')}({', '.join(given)})"


def _rounded(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _numbers(runs: Runs, *kinds: str) -> list[tuple[Run, Result]]:
    return [(run, result) for run in runs for result in run.of_type(*kinds)]


def _calibration(runs: Runs) -> list[tuple[Run, Result, int, dict[str, float]]]:
    """Numbers of the calibration on clean images, for each number of averaged draws."""
    rows = []
    for run, result in _numbers(runs, "Clean"):
        of_draws: dict[int, dict[str, float]] = {}
        for name, entry in result.measured.items():
            if "draws" in entry:
                of_draws.setdefault(entry["draws"], {})[name.partition(",")[0]] = entry["value"]
        rows += [(run, result, draws, numbers) for draws, numbers in of_draws.items()]
    return rows


def _others(runs: Runs) -> list[tuple[Run, Result, list[tuple[str, str]]]]:
    """The numbers of kinds that have no section of their own."""
    shown = ("Clean", "Attacked", "Corrupted", "Minimal", "Masking", "Physiology")
    return [
        (run, result, [(name, f"{result.value(name):.6g}") for name in result.measured])
        for run in runs
        for result in run.results
        if result.condition["type"] not in shown and result.measured
    ]


def _notes(run: Run) -> list[str]:
    """What was assumed when a network was opened, and facts about it."""
    first = run.results[0]
    network, noise = first.identity["network"], first.identity["network"]["test_noise"]
    return [
        f"{first.provenance.get('parameters', 0):,} parameters",
        f"images of {network['image_size']} pixels",
        f"noise: {'none' if noise is None else _code(noise)}",
        *first.provenance.get("notes", ()),
    ]


def _settings(run: Run) -> str:
    """The experiment that trained a network, or its description, as JSON."""
    shown = run.experiment or run.results[0].identity["network"]["description"]
    return json.dumps(shown, indent=1, ensure_ascii=False)


def _facts(result: Result) -> dict[str, str]:
    """The provenance of a result in words."""
    identity, made = result.identity, result.provenance
    dataset = identity["dataset"]
    protocol = {n: v for n, v in identity["protocol"].items() if n != "type"}
    versions = made.get("versions", {})
    return {
        "condition": _code(result.condition),
        "judged": ", ".join(f"{name} {value}" for name, value in protocol.items()),
        "data": f"{dataset['name']} {dataset.get('split') or ''}, {dataset['examples']} images",
        "seed": str(identity["seed"]),
        "precision": str(identity["matmul_precision"]),
        "weights": str(identity["network"]["checksum"]),
        "command": str(made.get("command", "")),
        "device": str(made.get("device", "")),
        "started": str(made.get("started", "")),
        "seconds": f"{made.get('wall_seconds') or 0:.1f}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def _banks(runs: Runs) -> list[dict[str, Any]]:
    """The pictures of V1: kernels, parameters, and responses to an image; equal banks once."""
    shown: dict[str, dict[str, Any]] = {}
    for run in runs:
        for result in run.of_type("FrontEnd"):
            arrays = dict(result.arrays)
            key = arrays["kernels_in_phase"].tobytes().hex()
            if key in shown:
                shown[key]["labels"].append(run.label)
                continue
            shown[key] = {
                "labels": [run.label],
                "cells": len(arrays["sf"]),
                "side": arrays["kernels_in_phase"].shape[1],
                "degrees": arrays["kernels_in_phase"].shape[1] / float(arrays["pixels_per_degree"]),
                "mosaics": images.mosaics(arrays),
                "histograms": [charts.bank_histogram(arrays, name) for name in charts.PARAMETERS],
                "image": images.photograph(arrays["image"]),
                "maps": images.response_maps(arrays),
            }
    return list(shown.values())


def _physiology(runs: Runs) -> dict[str, Any] | None:
    """The scores of layers, and the distributions of the best layer of each network."""
    recorded = _numbers(runs, "Physiology")
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
            layer = f"{label}, {result.condition['layer']}"
            shares[layer] = result.details["properties"][name]["distribution"]
        unit = f", {first['unit']}" if first["unit"] else ""
        title = f"{first['label']}{unit}"
        panels.append(charts.property_histogram(title, first["edges"], shares))
    properties = [scored[0][1].details["properties"][name] for name in shared]
    return {
        "columns": [each["label"] for each in properties],
        "layers": [
            (run, result, [of(result)[name]["score"] for name in shared], few(result))
            for run, result in scored
        ],
        "few": FEW_UNITS,
        "panels": panels,
        "sources": list(dict.fromkeys(each["source"] for each in properties)),
        "failed": [(run, r) for run, r in recorded if "properties" not in r.details],
    }
