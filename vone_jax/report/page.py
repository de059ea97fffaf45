"""The page: the values for its template, computed from runs."""

import base64
import hashlib
import itertools
import re
import shlex
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape

from vone_jax import names, results
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
from vone_jax.report.provenance import entries
from vone_jax.results import Run

# The suites that make the results that a section needs.
SUITES = {
    "clean": "clean",
    "attack": "linf l2 l1",
    "masking": "masking",
    "gallery": "gallery",
    "corruption": "corruptions",
    "v1": "v1",
}

# The parts of the table of all numbers.
GROUPS = {"clean": "Clean images", "attack": "Attacks", "corruption": "Corruptions"}


def environment() -> jinja2.Environment:
    """The templates of the page, and the words and functions that they use."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("vone_jax.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        extensions=["jinja2.ext.do"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("percent", "points", "listing", "count", "words", "fact", "form_label"):
        made.filters[name] = getattr(wording, name)
    made.filters |= {
        "whole": _whole,
        "packed": charts.packed,
        "interval": lambda ends: wording.interval(*ends),
        "severities": wording.severity_label,
        "mean": results.mean_accuracy,
    }
    made.globals |= {
        "norm_labels": names.NORM_LABELS,
        "eps_label": names.eps_label,
        "config": charts.CONFIG,
        # The macro of a chart adds its specification.
        "specs": {},
        "color": charts.color,
        "marker": charts.marker,
    }
    return made


def render(runs: Sequence[Run]) -> str:
    """The page as HTML, complete in itself. The same runs always give the same text."""
    templates = environment()
    loader = templates.get_template("loader.js").render()
    # The policy of the page allows these scripts, and no other ones.
    scripts = [hashlib.sha256(text.encode()).digest() for text in (loader, charts.script())]
    digests = [base64.b64encode(digest).decode() for digest in scripts]
    templates.filters["anchor"] = {each.result: each.anchor for each in entries(runs)}.get
    page = templates.get_template("page.html")
    context = _context(runs) | {"script": charts.script(), "loader": loader, "digests": digests}
    return wording.printable(page.render(context))


def _context(runs: Sequence[Run]) -> dict[str, Any]:
    labels, table = [run.label for run in runs], scores.table(runs)
    training = accuracy.training_charts(runs)
    attacked = comparison.norms(runs)
    datasets = {wording.dataset(r.dataset.part) for run in runs for r in run.on_images}
    if not datasets:
        published = [r for run in runs for r in run.results if r.published]
        datasets = {f"published images of {r.dataset.name.rpartition('/')[0]}" for r in published}
    methods = {getattr(r.measured, "interval_method", "") for run in runs for r in run.results}
    banks = _banks(runs)
    means = [r.measured for run in runs for r in run.of_kind("corruption_means")]
    categories = {n for m in means if isinstance(m, results.CorruptionMeans) for n in m.categories}
    return {
        "runs": runs,
        "title": " and ".join(labels) if len(labels) <= 2 else f"{len(labels)} networks",
        "strip": images.strip(banks[0]["arrays"]) if banks else "",
        "datasets": sorted(datasets),
        "images_shown": comparison.images(runs),
        "measured_on": max(r.provenance.started for run in runs for r in run.results)[:10],
        "cautions": cautions.cautions(runs),
        "comparisons": paired.comparisons(runs),
        "headlines": comparison.headlines(runs),
        "near_chance": [comparison.near_chance(run) for run in runs],
        "answer": accuracy.overview(runs),
        "attack_panels": [(norm, accuracy.attack_chart(runs, norm)) for norm in attacked],
        "with_other_noise": [
            names.NORM_LABELS[norm]
            for norm in comparison.norms(runs, deployed=False)
            if norm not in attacked
        ],
        "attacks": _attack_settings(runs),
        "chance": comparison.common_chance(runs),
        "masking": entries(runs, "masking"),
        "distances": entries(runs, "minimal"),
        "corruption_means": entries(runs, "corruption_means"),
        "categories": [name for name in names.CORRUPTION_CATEGORIES if name in categories],
        "scores": table,
        "score_parts": [[name for name in part if name in table.columns] for part in scores.PARTS],
        "galleries": images.galleries(runs),
        "hidden_galleries": [
            f"{run.label} ({result.name})"
            for _, run, result in entries(runs, "gallery")
            if result.arrays and not comparison.as_deployed(run, result)
        ],
        "corruptions": _corruptions(runs),
        "banks": banks,
        "physiology": physiology.section(runs),
        "training": training,
        "table": _table(runs),
        "methods": sorted(filter(None, methods)),
        "sources": [provenance.source(position, run) for position, run in enumerate(runs)],
        "missing": _missing(runs, bool(training)),
        "installed": names.installed(),
    }


def _whole(text: str) -> Markup:
    """The text as HTML in which lines do not break within a word with hyphens."""
    return Markup(re.sub(r"\S*-\S*", r'<span class="whole">\g<0></span>', str(escape(text))))


def _attack_settings(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """(networks, attack with its noise draws), for each way in which networks were attacked."""
    settings: dict[str, dict[str, None]] = {}
    for _, run, result in entries(runs, "attack"):
        draws = comparison.attack_condition(result).eot_samples
        mean = f"gradient averaged over {draws} noise draws" if draws > 1 else ""
        attack = wording.phrase(comparison.attack_settings(result), result.attack_noise_label, mean)
        settings.setdefault(attack, {})[run.label] = None
    return [(wording.listing(list(labels)), attack) for attack, labels in settings.items()]


def _corruptions(runs: Sequence[Run]) -> dict[str, Any] | None:
    """The mean over severities of each corruption, and a panel for each by severity."""
    # Corruption -> severities, for each network.
    measured = [comparison.grouped(comparison.corruptions(run)) for run in runs]
    names = list(dict.fromkeys(itertools.chain(*measured)))
    if not names:
        return None
    # One severity beside the clean image makes no curve.
    panels = [
        (wording.words(name), accuracy.severity_chart(runs, name))
        for name in names
        if any(len(each.get(name, ())) > 1 for each in measured)
    ]
    extra: dict[str, None] = {}
    for run, each in zip(runs, measured, strict=True):
        averaged = comparison.averaged(run).values()
        counted = {getattr(result.condition, "corruption", "") for result in averaged}
        extra |= dict.fromkeys(name for name in each if name not in counted)
    severities = {tuple(of) for each in measured for of in each.values()}
    distinct = set(itertools.chain(*severities))
    over = wording.severity_label(list(distinct))
    alike = len(severities) == 1
    mean = f"mean over {over}" if alike else "mean over the severities of each network"
    return {
        "chart": accuracy.by_corruption(runs),
        "panels": panels,
        "ways": len(names),
        "extra": [wording.words(name) for name in extra],
        "over": over,
        "heading": mean if len(distinct) > 1 else f"at {over}",
    }


def _banks(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The V1 front ends, with their pictures; networks with the same filters share an entry.

    If their noise differs, the maps are those of the first network with the noise of its training,
    else of the first one that was trained without noise, else of the first of all.
    """
    shared: dict[bytes, dict[str, results.Result]] = {}
    for _, run, result in entries(runs, "v1"):
        if result.arrays:
            names = ("kernels_in_phase", "kernels_quadrature", "image", "responses_clean")
            key = b"".join(result.arrays[name].tobytes() for name in names)
            label = wording.phrase(run.label, result.network.noise_change)
            shared.setdefault(key, {}).setdefault(label, result)
    banks = []
    for of_label in shared.values():
        own = [label for label, each in of_label.items() if not each.network.noise_replaced]
        # The networks whose responses the noise changes.
        noisy = [
            label
            for label, each in of_label.items()
            if not np.array_equal(each.arrays["responses_clean"], each.arrays["responses_noisy"])
        ]
        label = next(iter([n for n in own if n in noisy] or own or of_label))
        arrays = of_label[label].arrays
        noises = {each.network.test_label for each in of_label.values()}
        banks.append(
            {
                "labels": list(of_label),
                "arrays": arrays,
                "noisy": label in noisy,
                "change": of_label[label].network.noise_change,
                "maps_of": label if len(noises) > 1 else "",
                "mosaics": images.mosaics(arrays),
                "histograms": [tuning.bank_histogram(arrays, n) for n in tuning.PARAMETERS],
                "image": images.photograph(arrays["image"]),
                "maps": images.response_maps(arrays),
            }
        )
    return banks


def _table(runs: Sequence[Run]) -> dict[str, Any]:
    """Every accuracy by kind: a column for each network, and for each difference of a pair."""
    pairs = paired.pairs(runs)
    # For each pair the difference, and the number of common images if a network has more.
    groups: dict[str, list[tuple[comparison.Row, list[tuple[results.Difference | None, str]]]]] = {}
    shown: list[results.Difference] = []
    for row in comparison.rows(runs):
        of = dict(zip(runs, row.results, strict=True))
        differences: list[tuple[results.Difference | None, str]] = []
        for base, vone in pairs:
            first, second = of[base], of[vone]
            if first and second:
                item = results.difference([first], [second])
                differences.append((item, paired.on_common(item, (first, second))))
                shown.append(item)
            else:
                differences.append((None, ""))
        groups.setdefault(GROUPS[row.kind], []).append((row, differences))
    return {"pairs": pairs, "groups": groups, "unpaired": not all(item.paired for item in shown)}


def _missing(runs: Sequence[Run], trained: bool) -> dict[str, str]:
    """Kind of result -> the command that would make it, for kinds that runs lack and can have."""
    present = {r.kind for _, _, r in entries(runs) if r.arrays or r.kind not in ("gallery", "v1")}
    vones = [run for run in runs if names.front_end(run.model)]
    commands = {} if trained else {"training": names.command("train.py")}
    for kind, suite in SUITES.items():
        run = next(iter(vones if kind == "v1" else runs), None)
        if run is not None and kind not in present:
            # Results that are no part of a run do not contain the place of their network.
            spec = shlex.quote(str(run.path)) if "command" in run.config else "NETWORK"
            commands[kind] = f"{names.command('eval.py')} {spec} --suite {suite}"
    return commands
