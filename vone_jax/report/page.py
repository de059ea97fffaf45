"""The page: the values for its template, computed from runs."""

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape

from vone_jax import names, results
from vone_jax.names import EXTRA_CORRUPTIONS
from vone_jax.report import (
    accuracy,
    cautions,
    charts,
    comparison,
    images,
    paired,
    physiology,
    provenance,
    scores,
    tuning,
    wording,
)
from vone_jax.report.provenance import Entry, entries
from vone_jax.results import Result, Run

# The command that makes the results that a section needs.
COMMANDS = {
    "clean": "{eval} {run} --suite clean",
    "attack": "{eval} {run} --suite linf l2 l1",
    "masking": "{eval} {run} --suite masking",
    "gallery": "{eval} {run} --suite gallery",
    "corruption": "{eval} {run} --suite corruptions",
    "v1": "{eval} {run} --suite v1",
    "training": "{train}",
}

# The parts of the table of all numbers. Parts with more rows are folded up.
GROUPS = {"clean": "Clean images", "attack": "Attacks", "corruption": "Corruptions"}
OPEN_ROWS = 30


def environment() -> jinja2.Environment:
    """The templates of the page, and the words that they use."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("vone_jax.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        extensions=["jinja2.ext.do"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    for name in ("percent", "points", "listing", "count", "words", "fact"):
        made.filters[name] = getattr(wording, name)
    made.filters["whole"] = _whole
    made.filters |= {"interval": lambda ends: wording.interval(*ends), "tally": _tally}
    made.globals |= {
        "norm_labels": names.NORM_LABELS,
        "eps_label": names.eps_label,
        "form_label": comparison.form_label,
    }
    return made


def render(runs: Sequence[Run], table: scores.Table) -> str:
    """The page as HTML, complete in itself. The same runs always give the same text."""
    script = charts.script()
    # The policy of the page allows this script, and no other one.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = (
        environment()
        .get_template("page.html")
        .render(_context(runs, table), script=script, digest=digest)
    )
    return wording.printable(page)


def _context(runs: Sequence[Run], table: scores.Table) -> dict[str, Any]:
    labels, training = [run.label for run in runs], accuracy.training_charts(runs)
    datasets = sorted(
        {wording.dataset(r.dataset.name, r.dataset.split) for run in runs for r in run.on_images}
    )
    started = [r.provenance.started for run in runs for r in run.results]
    methods = {getattr(r.measured, "interval_method", "") for run in runs for r in run.results}
    return {
        "labels": labels,
        "title": " and ".join(labels) if len(labels) <= 2 else f"{len(labels)} networks",
        "datasets": datasets,
        "images": comparison.images(runs),
        "measured_on": max(started)[:10],
        "markers": [charts.marker(position) for position in range(len(runs))],
        "colors": [position % charts.COLORS for position in range(len(runs))],
        "solid": [run.stochastic for run in runs],
        "cautions": cautions.cautions(runs),
        "comparisons": [_comparison(runs, item) for item in paired.comparisons(runs)],
        "cards": [_card(position, run) for position, run in enumerate(runs)],
        "answer": accuracy.overview(runs),
        "attack_panels": [(n, accuracy.attack_chart(runs, n)) for n in comparison.norms(runs)],
        "attacks": _attack_settings(runs),
        "chance": comparison.common_chance(runs),
        "masking": entries(runs, "masking"),
        "distances": entries(runs, "minimal"),
        "corruption_means": entries(runs, "corruption_means"),
        "scores": table,
        "score_parts": [[name for name in part if name in table.columns] for part in scores.PARTS],
        "score_titles": scores.TITLES,
        "exhibits": images.galleries(runs),
        "corruptions": _corruptions(runs),
        "banks": _banks(runs),
        "physiology": physiology.section(runs),
        "training": training,
        "table": _table(runs),
        "methods": sorted(filter(None, methods)),
        "sources": [provenance.source(position, run) for position, run in enumerate(runs)],
        "missing": _missing(runs, bool(training)),
        "installed": names.installed(),
    }


def _whole(text: str) -> Markup:
    """The text, in which a word with hyphens goes to the next line as a whole."""
    return Markup(re.sub(r"\S*-\S*", r'<span class="whole">\g<0></span>', str(escape(text))))


def _tally(checks: results.Checks) -> str:
    """The number of checks with each verdict, such as '2 pass, 1 warn and 1 fail'."""
    short = {"pass": "pass", "warning": "warn", "fail": "fail"}
    counts = {verdict: checks.count(verdict) for verdict in results.VERDICTS}
    return wording.listing([f"{n} {short[verdict]}" for verdict, n in counts.items() if n])


def _comparison(runs: Sequence[Run], item: paired.Comparison) -> dict[str, Any]:
    """A comparison with a cell for each accuracy: of a mean, the mean of its results."""

    def cell(run: Run, members: Sequence[Result]) -> Entry | dict[str, Any]:
        if len(members) == 1:
            return Entry(runs.index(run), run, members[0])
        return {"mean": results.mean_accuracy(members)}

    lines = [
        {"line": line, "base": cell(item.base, line.base), "vone": cell(item.vone, line.vone)}
        for line in item.lines
    ]
    return {"item": item, "lines": lines}


def _card(position: int, run: Run) -> dict[str, Any]:
    """A network at a glance: clean accuracy, and the middle radius of each ladder."""
    clean = comparison.clean(run)
    middles = [ladder[len(ladder) // 2] for ladder in comparison.ladders(run)]
    corrupted = comparison.averaged(run)
    return {
        "run": run,
        "near_chance": comparison.near_chance(run),
        "clean": clean and Entry(position, run, clean),
        "robust": [Entry(position, run, result) for result in middles],
        "corrupted": results.mean_accuracy(list(corrupted.values())) if corrupted else None,
    }


def _attack_settings(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """(network, attack with its noise draws), for each way in which a network was attacked."""
    settings: dict[tuple[str, str], None] = {}
    for run in runs:
        for result in run.of_kind("attack"):
            draws = comparison.attack_condition(result).eot_samples
            mean = f", gradient averaged over {draws} noise draws" if draws > 1 else ""
            settings[run.label, f"{comparison.attack_settings(result)}{mean}"] = None
    return list(settings)


def _corruptions(runs: Sequence[Run]) -> dict[str, Any] | None:
    """The mean over severities of each corruption, and a panel for each by severity."""
    measured = [comparison.corruptions(run) for run in runs]
    names = list(dict.fromkeys(name for each in measured for name, _ in each))
    if not names:
        return None
    # One severity beside the clean image makes no curve.
    panels = [
        (wording.words(name), accuracy.severity_chart(runs, name))
        for name in names
        if max(sum(other == name for other, _ in each) for each in measured) > 1
    ]
    extra = [name for name in names if name in EXTRA_CORRUPTIONS]
    severities = [severity for each in measured for _, severity in each]
    over = wording.severity_label(severities)
    return {
        "chart": accuracy.by_corruption(runs),
        "panels": panels,
        "ways": len(names),
        "extra": [wording.words(name) for name in extra] if len(extra) < len(names) else [],
        "over": over,
        "heading": f"mean over {over}" if len(set(severities)) > 1 else f"at {over}",
    }


def _banks(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The V1 front ends; networks with the same one share an entry."""
    shared: dict[bytes, tuple[list[str], Result]] = {}
    for _, run, result in entries(runs, "v1"):
        if result.arrays:
            names = ("kernels_in_phase", "kernels_quadrature", "image", "responses_clean")
            key = b"".join(result.arrays[name].tobytes() for name in names)
            labels, _ = shared.setdefault(key, ([], result))
            if run.label not in labels:
                labels.append(run.label)
    banks = []
    for labels, result in shared.values():
        arrays = result.arrays
        banks.append(
            {
                "labels": labels,
                "filters": len(arrays["sf"]),
                "size": arrays["kernels_in_phase"].shape[1],
                "pixels_per_degree": float(arrays["pixels_per_degree"]),
                "colored": arrays["image"].shape[-1] == 3,
                "mosaics": images.mosaics(arrays),
                "strip": images.strip(arrays),
                "published": any(name.startswith("published_") for name in arrays),
                "histograms": [("", tuning.bank_histogram(arrays, n)) for n in tuning.PARAMETERS],
                "image": images.photograph(arrays["image"]),
                "cells": images.response_maps(arrays),
                "noisy": not np.array_equal(arrays["responses_clean"], arrays["responses_noisy"]),
                "map_size": "×".join(map(str, arrays["responses_clean"].shape[:2])),
            }
        )
    return banks


def _table(runs: Sequence[Run]) -> dict[str, Any]:
    """Every accuracy: a column for each network, and one for each difference of a pair."""
    pairs = [(runs.index(base), runs.index(vone)) for base, vone in paired.pairs(runs)]
    body = []
    for row in comparison.rows(runs):
        cells = [
            result and Entry(position, run, result)
            for position, (run, result) in enumerate(zip(runs, row.results, strict=True))
        ]
        both = [(row.results[first], row.results[second]) for first, second in pairs]
        differences = [
            results.difference([base], [vone]) if base and vone else None for base, vone in both
        ]
        body.append({"row": row, "cells": cells, "differences": differences})
    groups = []
    for kind, name in GROUPS.items():
        lines = [line for line in body if line["row"].kind == kind]
        if lines:
            groups.append({"name": name, "body": lines, "open": len(lines) <= OPEN_ROWS})
    unpaired = any(item and not item.paired for line in body for item in line["differences"])
    named = [(runs[first].label, runs[second].label) for first, second in pairs]
    return {"pairs": named, "groups": groups, "unpaired": unpaired}


def _missing(runs: Sequence[Run], trained: bool) -> dict[str, str]:
    """Kind of result -> the command that would make it, for kinds that runs lack and can have."""
    present = {
        result.kind
        for run in runs
        for result in run.results
        if result.arrays or result.kind not in ("gallery", "v1")
    }
    present |= {"training"} if trained else set()
    vones = [run for run in runs if names.front_end(run.model)]
    present |= set() if vones else {"v1"}
    return {
        kind: command.format(
            run=_spec((vones if kind == "v1" else runs)[0]),
            eval=names.command("eval.py"),
            train=names.command("train.py"),
        )
        for kind, command in COMMANDS.items()
        if kind not in present
    }


def _spec(run: Run) -> str:
    """The first argument of eval.py for a network; only its user knows where one is from a file."""
    return "NETWORK" if run.results[0].network.source else str(run.path)
