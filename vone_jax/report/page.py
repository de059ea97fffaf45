"""Puts the page together: what the template needs, computed from runs."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np

from vone_jax.report import (
    cautions,
    compare,
    findings,
    physiology,
    provenance,
    scores,
    trust,
    wording,
)
from vone_jax.report.figures import bank, curves, gallery, images, maps, svg
from vone_jax.report.load import Run
from vone_jax.report.results import Result

# The command that makes the results a section needs.
COMMANDS = {
    "clean": "python eval.py {run} --suite clean",
    "attack": "python eval.py {run} --suite linf l2 l1",
    "masking": "python eval.py {run} --suite masking",
    "gallery": "python eval.py {run} --suite gallery",
    "corruption": "python eval.py {run} --suite corruptions",
    "v1": "python eval.py {run} --suite v1",
    "training": "python train.py",
}

# The parts of the table of all numbers. Parts with more rows are folded up.
GROUPS = {"clean": "Clean images", "attack": "Attacks", "corruption": "Corruptions"}
OPEN_ROWS = 30


@dataclasses.dataclass(frozen=True)
class Cell:
    """A number in a table: an accuracy with its interval, its protocol and where it comes from."""

    accuracy: float
    low: float
    high: float
    protocol: str
    anchor: str


def render(runs: Sequence[Run], table: scores.Table) -> str:
    """The page as HTML, complete in itself. The same runs always give the same text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vone_jax.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=wording.percent,
        interval=lambda ends: wording.interval(*ends),
        points=wording.points,
        listing=wording.listing,
    )
    return environment.get_template("page.html").render(_context(runs, table))


def _context(runs: Sequence[Run], table: scores.Table) -> dict[str, Any]:
    labels = [run.label for run in runs]
    datasets = sorted(
        {f"{r.dataset.name} ({r.dataset.split} split)" for run in runs for r in run.on_images}
    )
    started = [
        str(r.record["started"]) for run in runs for r in run.results if r.record.get("started")
    ]
    comparisons = findings.comparisons(runs)
    compared = {id(run) for item in comparisons for run in (item.base, item.vone)}
    return {
        "labels": labels,
        "title": " and ".join(labels) if len(labels) <= 2 else f"{len(labels)} networks",
        "datasets": datasets,
        "measured_on": max(started)[:10] if started else "",
        "markers": [svg.marker(position) for position in range(len(runs))],
        "colors": [position % svg.COLORS for position in range(len(runs))],
        "solid": [run.stochastic for run in runs],
        "cautions": cautions.cautions(runs),
        "comparisons": comparisons,
        "singles": [findings.single(run) for run in runs if id(run) not in compared],
        "cards": [_card(position, run) for position, run in enumerate(runs)],
        "attack_panels": [(norm, curves.attack_panel(runs, norm)) for norm in compare.norms(runs)],
        "attacks": _attack_settings(runs),
        "chance": _chance(runs),
        "check_lists": trust.check_lists(runs),
        "distances": trust.distances(runs),
        "corruption_means": trust.corruption_means(runs),
        "scores": table,
        "score_titles": scores.TITLES,
        "exhibits": gallery.exhibits(runs),
        "corruptions": _corruptions(runs),
        "banks": _banks(runs),
        "physiology": physiology.section(runs),
        "training": [(q, curves.training_panel(runs, q)) for q in ("loss", "accuracy")]
        if any(run.log for run in runs)
        else [],
        "table": _table(runs),
        "methods": sorted(
            {
                str(r.record["interval_method"])
                for run in runs
                for r in run.results
                if r.record.get("interval_method")
            }
        ),
        "sources": [provenance.source(position, run) for position, run in enumerate(runs)],
        "missing": _missing(runs),
    }


def _cell(position: int, run: Run, result: Result) -> Cell:
    anchor = provenance.anchor(position, result, run)
    return Cell(result.accuracy, *result.interval, result.protocol, anchor)


def _card(position: int, run: Run) -> dict[str, Any]:
    """A network at a glance: clean accuracy, and the middle budget of each ladder."""
    clean = compare.clean(run)
    robust = []
    for norm in compare.norms([run]):
        ladder = list(compare.curve(run, norm).values())
        if ladder:
            middle = ladder[len(ladder) // 2]
            label = f"{wording.NORM_NAMES[norm]} {wording.eps_label(middle.condition)}"
            robust.append((label, _cell(position, run, middle)))
    corrupted = list(compare.corruptions(run).values())
    return {
        "label": run.label,
        "stochastic": run.stochastic,
        "parameters": run.parameters,
        "clean": _cell(position, run, clean) if clean else None,
        "robust": robust,
        "corrupted": compare.mean_accuracy(corrupted) if corrupted else None,
    }


def _attack_settings(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """(network, attack with the noise draws averaged), for each way a network was attacked."""
    found: dict[tuple[str, str], None] = {}
    for run in runs:
        for result in run.of_kind("attack"):
            draws = result.condition.get("eot_samples", 1)
            mean = f", gradient averaged over {draws} noise draws" if draws > 1 else ""
            found[run.label, f"{compare.attack_settings(result) or 'not recorded'}{mean}"] = None
    return list(found)


def _chance(runs: Sequence[Run]) -> float | None:
    classes = {len(result.dataset.class_names) for run in runs for result in run.on_images}
    return 1 / classes.pop() if len(classes) == 1 and min(classes) > 1 else None


def _corruptions(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Per corruption: the mean over severities of each network, and a panel by severity."""
    measured = [compare.corruptions(run) for run in runs]
    names = list(dict.fromkeys(name for results in measured for name, _ in results))
    found = []
    for name in names:
        bars = []
        for results in measured:
            severities = [result for (other, _), result in results.items() if other == name]
            mean = compare.mean_accuracy(severities) if severities else None
            bars.append(mean and (*mean, len(severities), not math.isnan(mean[1])))
        panel = curves.severity_panel(runs, name)
        found.append({"name": wording.words(name), "bars": bars, "panel": panel})
    return found


def _banks(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The V1 front-ends; networks with the same one share an entry."""
    shared: dict[bytes, tuple[list[str], Result]] = {}
    for run in runs:
        for result in run.of_kind("v1"):
            names = ("kernels_in_phase", "kernels_quadrature", "image", "responses_clean")
            key = b"".join(np.ascontiguousarray(result.arrays[name]).tobytes() for name in names)
            labels, _ = shared.setdefault(key, ([], result))
            if run.label not in labels:
                labels.append(run.label)
    found = []
    for number, (labels, result) in enumerate(shared.values()):
        arrays = result.arrays
        found.append(
            {
                "labels": labels,
                "filters": len(arrays["sf"]),
                "simple": int(arrays["simple_channels"]),
                "size": arrays["kernels_in_phase"].shape[1],
                "pixels_per_degree": float(arrays["pixels_per_degree"]),
                "degrees": arrays["kernels_in_phase"].shape[1] / float(arrays["pixels_per_degree"]),
                "colored": arrays["image"].shape[-1] == 3,
                "mosaics": bank.mosaics(arrays),
                "strip": bank.strip(arrays),
                "published": any(name.startswith("published_") for name in arrays),
                "histograms": [
                    bank.histogram_panel(arrays, name, f"bank{number}-{name}")
                    for name in ("sf", "theta", "nx", "ny")
                ],
                "image": images.photograph(arrays["image"]),
                "cells": maps.response_maps(arrays),
                "noisy": not np.array_equal(arrays["responses_clean"], arrays["responses_noisy"]),
                "map_size": "×".join(map(str, arrays["responses_clean"].shape[:2])),
            }
        )
    return found


def _table(runs: Sequence[Run]) -> dict[str, Any]:
    """Every measured number, a column per network and one per base-VOneNet difference."""
    pairs = [(runs.index(base), runs.index(vone)) for base, vone in compare.pairs(runs)]
    body = []
    for row in compare.rows(runs):
        cells = [
            result and _cell(position, run, result)
            for position, (run, result) in enumerate(zip(runs, row.results, strict=True))
        ]
        differences = []
        for first, second in pairs:
            base, vone = row.results[first], row.results[second]
            differences.append(compare.difference([base], [vone]) if base and vone else None)
        body.append({"row": row, "cells": cells, "differences": differences})
    groups = []
    for kind, name in GROUPS.items():
        lines = [line for line in body if line["row"].kind == kind]
        if lines:
            groups.append({"name": name, "body": lines, "open": len(lines) <= OPEN_ROWS})
    unpaired = any(item and not item.paired for line in body for item in line["differences"])
    named = [(runs[first].label, runs[second].label) for first, second in pairs]
    return {"pairs": named, "groups": groups, "unpaired": unpaired}


def _missing(runs: Sequence[Run]) -> dict[str, str]:
    """Kind of result -> the command that would make it, for kinds no run has."""
    present = {result.kind for run in runs for result in run.results}
    if any(run.log for run in runs):
        present.add("training")
    vones = [run for run in runs if run.model.startswith("vone_")] or runs
    return {
        kind: command.format(run=(vones if kind == "v1" else runs)[0].path)
        for kind, command in COMMANDS.items()
        if kind not in present
    }
