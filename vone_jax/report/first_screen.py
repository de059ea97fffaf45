"""The line below the sentence, and the warnings: what a reader must know about the numbers."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from vone_jax.report import comparison
from vone_jax.report.tables import Line
from vone_jax.results import Result, Run, Runs


def facts(runs: Runs, lines: Sequence[Line], base: Run) -> list[tuple[str, bool]]:
    """The images, training seeds, strongest attack, and whether masking was checked.

    Returns:
      Phrases, each with whether it is a reason for doubt.
    """
    return [*_images(lines), _seeds(runs), *_strongest(runs, lines, base), *_checks(runs)]


def _images(lines: Sequence[Line]) -> Iterator[tuple[str, bool]]:
    results = [each for line in lines for cell in line.cells.values() for each in cell.results]
    counts = sorted({each.row["examples"] for each in results if "examples" in each.row})
    if counts:
        sets = dict.fromkeys(_data(each) for each in results if "examples" in each.row)
        several = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
        yield f"{several} images of {', '.join(sets)}", counts[0] < comparison.FEW_IMAGES


def _data(result: Result) -> str:
    row = result.row
    return " ".join(filter(None, (row["dataset"], row.get("split"))))


def _seeds(runs: Runs) -> tuple[str, bool]:
    """The seeds of networks that differ in their training seed alone.

    Of a file of weights the training is not on record: another file may differ in anything.
    """
    seeds: dict[str, set[Any]] = {}
    for run in runs:
        if run.experiment is not None:
            seeds.setdefault(_without_seed(run), set()).add(run.experiment.get("seed"))
    unknown = [run.label for run in runs if run.experiment is None]
    if not seeds:
        return "training seeds not known", True
    counts = sorted({len(each) for each in seeds.values()})
    several = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    words = f"{several} training seed{'s' if counts[-1] > 1 else ''} of each network"
    words += f", not known of {', '.join(unknown)}" if unknown else ""
    return words, counts[0] == 1 or bool(unknown)


def _without_seed(run: Run) -> str:
    trained = {n: v for n, v in (run.experiment or {}).items() if n not in ("seed", "name")}
    network = run.results[0].identity["network"]
    return json.dumps([network["label"], network["description"], trained], sort_keys=True)


def _strongest(runs: Runs, lines: Sequence[Line], base: Run) -> Iterator[tuple[str, bool]]:
    """The attacks that left the lowest accuracies, at any radius."""
    others = [run for run in runs if run is not base] or [base]
    found = [radius for run in others for radius in comparison.radii(lines, run, base)]
    attacks = dict.fromkeys(attack for radius in found for attack in radius.attacks)
    if attacks:
        noun = "strongest attacks" if len(attacks) > 1 else "strongest attack"
        yield f"{noun}: {'; '.join(attacks)}", False


def _checks(runs: Runs) -> Iterator[tuple[str, bool]]:
    """What the checks of each network say: those for masked gradients, or a user's own."""
    said: dict[tuple[str, bool], list[str]] = {}
    for run in runs:
        found: dict[str, list[str]] = {}
        for result in run.results:
            for row in (row for row in result.rows if "verdict" in row):
                name = f"{row.get('section', result.section).lower()}, {row['condition']}"
                found.setdefault(name, []).append(row["verdict"])
        for name, verdicts in found.items():
            counts = [f"{verdicts.count(v)} {v}" for v in ("fail", "warning") if v in verdicts]
            words = ", ".join(counts) or f"{len(verdicts)} checks passed"
            said.setdefault((f"{name}: {words}", bool(counts)), []).append(run.label)
    for (words, doubtful), labels in said.items():
        yield words + ("" if len(labels) == len(runs) else f" ({', '.join(labels)})"), doubtful


def warnings(runs: Runs, lines: Sequence[Line]) -> list[str]:
    """The warnings of the evaluation, each once, and what the results do not have."""
    told: dict[str, list[str]] = {}
    for run in runs:
        for result in run.results:
            for warning in result.warnings:
                told.setdefault(warning, []).append(f"{run.label}, {result.label}")
    found = [f"{_listing(where)}: {warning}" for warning, where in told.items()]
    for run in runs:
        if run.unfinished:
            found.append(f"{run.label} has unfinished results: {', '.join(run.unfinished)}.")
    for line in lines:
        if line.is_plain:
            found += [
                f"{label} is at chance on the images as they are ({line.label}), so its robustness "
                "says little."
                for label, cell in line.cells.items()
                if cell.at_chance
            ]
    return found


def _listing(items: Sequence[str]) -> str:
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return f"{'; '.join(items[:3])}{more}"
