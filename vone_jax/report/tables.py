"""All measured numbers as a CSV file."""

import csv
import io
from collections.abc import Sequence

from vone_jax.report.load import Run

COLUMNS = (
    "run", "network", "model", "kind", "result", "dataset", "split", "norm", "eps", "eps_label",
    "attack", "eot_samples", "estimator", "corruption", "severity", "form", "noise", "draws",
    "decision", "averaged", "protocol", "accuracy", "low", "high",
    "standard_error_over_draws", "correct", "seen", "images", "interval_method",
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
