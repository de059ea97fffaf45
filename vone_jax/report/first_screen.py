"""The line below the sentence, and the warnings: what a reader must know about the numbers."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from vone_jax.report import comparison
from vone_jax.report.tables import Line, at_chance, of_kinds
from vone_jax.results import Result, Run, Runs


def facts(runs: Runs, lines: Sequence[Line], base: Run) -> list[tuple[str, bool]]:
    """The images, training seeds, strongest attack, and whether masking was checked.

    Returns:
      Phrases, each with whether it is a reason for doubt.
    """
    return [*_images(lines), _seeds(runs), *_strongest(runs, lines, base), *_masking(runs)]


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


def _masking(runs: Runs) -> Iterator[tuple[str, bool]]:
    """What the checks for masked gradients have found on each network that was attacked."""
    attacked = [run for run in runs if run.of("attack", "minimal")]
    said: dict[tuple[str, bool], list[str]] = {}
    for run in attacked:
        said.setdefault(_checked(run), []).append(run.label)
    for (words, doubtful), labels in said.items():
        of = "" if len(said) == 1 else f" for {', '.join(labels)}"
        yield f"masked gradients {words}{of}", doubtful


def _checked(run: Run) -> tuple[str, bool]:
    whole = [c for _, result in of_kinds([run], "masking") for c in result.details["checks"]]
    quick = [check for result in run.results for check in result.details.get("masking", ())]
    checks = whole or quick
    if not checks:
        return "not checked", True
    worst = Counter(check["verdict"] for check in checks)
    kind = "checked" if whole else "checked by the quick checks alone"
    if not worst["fail"] and not worst["warning"]:
        return f"{kind}, no sign found", not whole
    counts = [f"{worst[verdict]} {verdict}" for verdict in ("fail", "warning") if worst[verdict]]
    return f"{kind}: {', '.join(counts)}", True


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
        if line.row["condition"] == "clean" and line.is_main:
            found += [
                f"{label} is at chance on clean images, so its robustness says little."
                for label, cell in line.cells.items()
                if line.row["number"] == "accuracy" and at_chance(cell)
            ]
    return found


def _listing(items: Sequence[str]) -> str:
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return f"{'; '.join(items[:3])}{more}"
