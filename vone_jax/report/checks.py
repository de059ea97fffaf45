"""Results that come as tables: checks for masked gradients, smallest changes, corruption means."""

from collections.abc import Sequence
from typing import Any

from vone_jax import results
from vone_jax.names import NORM_LABELS, eps_label
from vone_jax.report import comparison, provenance
from vone_jax.report.wording import count, listing, words
from vone_jax.results import Run

# A verdict's tone on the page, and its short form in a tally.
TONES = {"pass": "good", "warning": "mixed", "fail": "bad"}
_SHORT = {"pass": "pass", "warning": "warn", "fail": "fail"}


def check_lists(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The checks of each network at each radius.

    Their entry ``tally`` says in words how many checks have which verdict.
    """
    lists = []
    for position, run in enumerate(runs):
        for result in run.of_kind("masking"):
            measured, condition = result.measured, result.condition
            assert isinstance(measured, results.Checks)
            assert isinstance(condition, results.MaskingCondition)
            title = (run.label, result.attack.label, result.network.noise_change)
            counts = {verdict: measured.count(verdict) for verdict in results.VERDICTS}
            checks = [
                {
                    "check": check,
                    "title": words(check.name),
                    "tone": TONES[check.verdict],
                    "numbers": {name: _number(value) for name, value in check.numbers.items()},
                }
                for check in measured.checks
            ]
            lists.append(
                {
                    "title": ", ".join(filter(None, title)),
                    "note": f"{count(measured.seen, 'image')}, {result.protocol_label}",
                    "tally": listing([f"{n} {_SHORT[name]}" for name, n in counts.items() if n]),
                    "anchor": provenance.anchor(position, result, run),
                    "checks": checks,
                    "attacks": {name: str(attack) for name, attack in condition.attacks.items()},
                }
            )
    return lists


def distances(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The smallest adversarial changes: network, attack, median, and accuracy by radius."""
    tables = []
    for position, run in enumerate(runs):
        for result in run.of_kind("minimal"):
            measured, attack = result.measured, result.attack
            assert isinstance(measured, results.Distances)
            median = measured.median_distance
            tables.append(
                {
                    "label": run.label,
                    "anchor": provenance.anchor(position, result, run),
                    "attack": attack.name,
                    "norm": NORM_LABELS[attack.norm],
                    "median": "none for half of them" if median is None else f"{median:.4g}",
                    "broken": f"{measured.broken:,} of {count(measured.seen, 'image')}",
                    "protocol": result.protocol_label,
                    "rungs": [
                        (eps_label(attack.norm, rung.eps), rung.accuracy, rung.interval)
                        for rung in measured.ladder
                    ],
                }
            )
    return tables


def corruption_means(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Mean accuracy over corruptions by both rules, and the corruption errors where they exist."""
    lines = []
    for position, run in enumerate(runs):
        for result in run.of_kind("corruption_means"):
            means, condition = result.measured, result.condition
            assert isinstance(means, results.CorruptionMeans)
            assert isinstance(condition, results.CorruptionMeansCondition)
            form = comparison.form_label(condition.form)
            lines.append(
                {
                    "label": run.label,
                    "anchor": provenance.anchor(position, result, run),
                    "protocol": ", ".join(filter(None, (result.protocol_label, form))),
                    "means": means,
                }
            )
    return lines


def _number(value: float | None) -> str:
    if value is None:
        return "not finite"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}"
