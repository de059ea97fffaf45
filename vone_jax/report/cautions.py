"""What a reader must know before trusting the numbers, found by comparing results."""

from collections.abc import Sequence

import numpy as np

from vone_jax.report import compare, trust
from vone_jax.report.load import Run
from vone_jax.report.wording import NORM_NAMES, count, eps_label, listing, percent

# A perturbation may exceed its budget by float32 rounding only.
NORM_SLACK = 1e-4


def cautions(runs: Sequence[Run]) -> list[str]:
    """Warnings for the top of the page, in order of importance."""
    return [
        *_datasets(runs),
        *(warning for run in runs for warning in run.warnings),
        *(warning for run in runs for warning in _unfinished(run)),
        *trust.warnings(runs),
        *(warning for run in runs for warning in _attack_strength(run)),
        *_unbroken(runs),
        *_settings(runs),
        *_gaps(runs),
        *_images(runs),
    ]


def _datasets(runs: Sequence[Run]) -> list[str]:
    used: dict[str, set[str]] = {}
    for run in runs:
        for result in run.on_images:
            name = f"{result.dataset.name} ({result.dataset.split})"
            used.setdefault(name, set()).add(run.label)
    if len(used) < 2:
        return []
    parts = [f"{name} by {listing(sorted(labels))}" for name, labels in sorted(used.items())]
    return [
        "These results are of different datasets, so their numbers must not be compared: "
        f"{listing(parts)}."
    ]


def _unfinished(run: Run) -> list[str]:
    found = []
    steps = sorted(
        {
            r.record["checkpoint_step"]
            for r in run.results
            if isinstance(r.record.get("checkpoint_step"), int)
        }
    )
    if len(steps) > 1:
        found.append(
            f"{run.label}: results of different checkpoints are mixed, of steps "
            f"{listing([str(step) for step in steps])}."
        )
    elif len({str(result.record.get("weights")) for result in run.results}) > 1:
        found.append(f"{run.label}: results of different weights are mixed; it was trained anew.")
    incomplete = [
        f"{result.name} ({result.images:,} of {count(result.examples, 'image')})"
        for result in run.of_kind("clean", "attack", "corruption")
        if result.images < result.examples
    ]
    if incomplete:
        found.append(
            f"{run.label}: incomplete evaluations, {listing(incomplete)}. Run the same eval.py "
            f"command again, it continues where it stopped."
        )
    return found


def _attack_strength(run: Run) -> list[str]:
    """Signs that an attack was too weak, or broke its own rules."""
    found = []
    few = [
        result
        for result in run.of_kind("attack")
        if result.noise == "fresh"
        and not result.attack_noise
        and result.condition.get("eot_samples", 1) < 2
    ]
    if few:
        found.append(
            f"{run.label} is stochastic, but {count(len(few), 'attack')} followed the gradient "
            f"of a single noise draw (eot_samples=1). Such an attack is weak: read its robust "
            f"accuracy as an upper bound."
        )
    for result in run.of_kind("attack"):
        distance = result.arrays.get("distance")
        eps = result.condition["eps"]
        if distance is not None and len(distance):
            largest = float(np.max(distance))
            if not largest <= eps * (1 + NORM_SLACK) + 1e-6:
                found.append(
                    f"{run.label}: {result.name} moved an image by {largest:.6g}, beyond its "
                    f"budget {eps:.6g}."
                )
    for norm in compare.norms([run]):
        ladder = list(compare.curve(run, norm).values())
        for weak, strong in zip(ladder, ladder[1:], strict=False):
            if strong.interval[0] > weak.interval[1]:
                found.append(
                    f"{run.label}: a larger {NORM_NAMES[norm]} budget "
                    f"({eps_label(strong.condition)}) leaves more accuracy than a smaller one "
                    f"({eps_label(weak.condition)}), {percent(strong.accuracy)} against "
                    f"{percent(weak.accuracy)}. The attack is not finding what is there."
                )
    return found


def _unbroken(runs: Sequence[Run]) -> list[str]:
    """Ladders whose largest budget leaves more than chance: they show no lower end."""
    found = []
    for run in runs:
        for norm in compare.norms([run]):
            ladder = list(compare.curve(run, norm).values())
            classes = len(ladder[-1].dataset.class_names) if ladder else 0
            if classes > 1 and ladder[-1].interval[0] > 1 / classes:
                found.append(
                    f"{run.label} keeps {percent(ladder[-1].accuracy)} at {NORM_NAMES[norm]} "
                    f"{eps_label(ladder[-1].condition)}"
                )
    if not found:
        return []
    return [
        f"Not every ladder of budgets reaches chance: {listing(found)}. Larger budgets would "
        f"show where these networks break."
    ]


def _settings(runs: Sequence[Run]) -> list[str]:
    """Networks attacked in different ways at the same budgets."""
    found = []
    for norm in compare.norms(runs):
        ways: dict[str, set[str]] = {}
        for run in runs:
            for result in run.of_kind("attack"):
                # Controls of the noise are an extra test that only some networks need.
                extra = result.attack_noise or not compare.as_deployed(run, result)
                if result.condition["norm"] == norm and not extra:
                    ways.setdefault(compare.attack_settings(result), set()).add(run.label)
        labels: set[str] = set().union(*ways.values())
        if any(used != labels for used in ways.values()):
            parts = [
                f"{way or 'not recorded'} on {listing(sorted(used))}"
                for way, used in sorted(ways.items())
            ]
            found.append(
                f"The networks were not attacked in the same way under {NORM_NAMES[norm]}: "
                f"{listing(parts)}."
            )
    return found


def _gaps(runs: Sequence[Run]) -> list[str]:
    """Conditions that some networks have and others lack."""
    table = compare.rows(runs)
    found = []
    for position, run in enumerate(runs):
        missing = sum(row.results[position] is None and not row.control for row in table)
        if missing:
            found.append(
                f"{run.label} lacks {count(missing, 'condition')} that other networks have; "
                f"comparisons leave them out."
            )
    return found


def _images(runs: Sequence[Run]) -> list[str]:
    found = []
    for base, vone in compare.pairs(runs):
        first, second = compare.clean(base), compare.clean(vone)
        if first is None or second is None:
            continue
        one, other = (result.arrays.get("index") for result in (first, second))
        if one is not None and other is not None and not np.array_equal(one, other):
            found.append(
                f"{base.label} and {vone.label} were tested on different images "
                f"({first.images:,} and {second.images:,}); differences are over the common ones."
            )
    return found
