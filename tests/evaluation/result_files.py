"""Result files of an evaluation, to be compared with those of another."""

import json

import pytest


def read_results(run_dir):
    """Content of all result files, the JSON without clock and command, the NPZ to the byte."""
    contents = {}
    for path in sorted((run_dir / "results").iterdir()):
        contents[path.name] = path.read_bytes()
        if path.suffix == ".json":
            record = json.loads(path.read_text())
            for field in ("started", "wall_seconds", "command"):
                del record["provenance"][field]
            contents[path.name] = record
    return contents


def roughly(measured):
    """Measured numbers to compare with: accuracies differ by more, or are equal."""
    return {name: pytest.approx(entry, rel=1e-4, abs=1e-6) for name, entry in measured.items()}


def numbers(measured):
    """The numbers of a result by what sets them apart, each with its interval if it has one."""
    shown = ("value", "low", "high")
    return {
        tuple((n, v) for n, v in row.items() if n not in shown): [row[n] for n in shown if n in row]
        for row in measured
    }
