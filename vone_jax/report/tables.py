"""The measured numbers as CSV, and the scores as CSV and Markdown."""

import csv
import io
from collections.abc import Sequence

from vone_jax.report.load import Run
from vone_jax.report.scores import TITLES, Line, Score, Table
from vone_jax.report.wording import NORM_NAMES

COLUMNS = (
    "run", "network", "model", "kind", "result", "dataset", "split", "norm", "eps", "eps_label",
    "attack", "eot_samples", "estimator", "noise_free_gradients", "attack_noise", "test_noise",
    "corruption", "severity", "form", "noise", "draws", "decision", "averaged", "protocol",
    "accuracy", "low", "high", "standard_error_over_draws", "correct", "seen", "images",
    "interval_method",
)  # fmt: skip


def numbers_csv(runs: Sequence[Run]) -> str:
    """One line per measured accuracy, with its interval and condition, full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", restval="", extrasaction="ignore")
    writer.writeheader()
    for run in runs:
        for result in run.of_kind("clean", "attack", "corruption"):
            protocol = result.record["protocol"]
            spread = result.record.get("between_draws", {})
            row = {
                **result.condition,
                **result.record["sums"],
                "run": str(run.path),
                "network": run.label,
                "model": run.model,
                "kind": result.kind,
                "result": result.name,
                "dataset": result.dataset.name,
                "split": result.dataset.split,
                "test_noise": result.test_noise,
                "noise": result.noise,
                "draws": protocol.get("draws", ""),
                "decision": result.decision,
                "averaged": protocol.get("averaged", ""),
                "protocol": result.protocol,
                "standard_error_over_draws": spread.get("standard_error"),
                "accuracy": result.accuracy,
                "low": result.interval[0],
                "high": result.interval[1],
                "images": result.images,
                "interval_method": result.record.get("interval_method", ""),
            }
            writer.writerow(row)
    return text.getvalue()


_COLUMNS_OF_WAY = ("network", "trained", "attacked", "judged", "attack")
_HEADINGS = ("Network", "Noise in training", "at the attack", "at the test", "Attack")


def scores_csv(table: Table) -> str:
    """One line per network and way of attacking and judging it, full precision.

    A score has three columns: its name, and the name with ``_low`` and ``_high``.
    """
    text = io.StringIO()
    names = [*table.columns, *(f"{norm}_{label}" for norm, label in table.budgets)]
    ends = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS_OF_WAY, *ends])
    for line in table.lines:
        found = [line.scores.get(name) for name in table.columns]
        found += [line.budgets.get(budget) for budget in table.budgets]
        numbers = [
            number
            for score in found
            for number in ((score.value, score.low, score.high) if score else (None,) * 3)
        ]
        writer.writerow([*_way(line), *("" if number is None else number for number in numbers)])
    return text.getvalue()


def scores_markdown(table: Table) -> str:
    """The scores in percent with their intervals, then the accuracy at each budget."""
    parts = ["\n".join(f"- {note}" for note in table.notes)]
    for titles, found in (
        (
            [TITLES[name] for name in table.columns],
            [[line.scores.get(name) for name in table.columns] for line in table.lines],
        ),
        (
            [f"{NORM_NAMES[norm]} {label}" for norm, label in table.budgets],
            [[line.budgets.get(budget) for budget in table.budgets] for line in table.lines],
        ),
    ):
        if titles:
            rows = [
                [*_way(line), *map(_cell, row)]
                for line, row in zip(table.lines, found, strict=True)
            ]
            head = [*_HEADINGS, *titles]
            lines = [head, ["---"] * len(head), *rows]
            parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
    return "\n\n".join(parts) + "\n"


def _way(line: Line) -> tuple[str, ...]:
    return line.label, line.trained, line.attacked, line.judged, line.attack


def _cell(score: Score | None) -> str:
    if score is None:
        return "–"
    if score.low is None or score.high is None:
        return f"{100 * score.value:.1f}"
    return f"{100 * score.value:.1f} ({100 * score.low:.1f} to {100 * score.high:.1f})"
