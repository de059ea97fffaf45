"""What the page says on whether the attacks can be trusted: checks, and smallest changes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vone_jax.report import provenance
from vone_jax.report.load import Run
from vone_jax.report.results import Result
from vone_jax.report.table_records import VERDICTS
from vone_jax.report.wording import NORM_NAMES, count, eps_label, listing, words

# A verdict's tone on the page.
TONES = {"pass": "good", "warning": "mixed", "fail": "bad"}


@dataclasses.dataclass(frozen=True)
class CheckList:
    """The checks of a network at one budget.

    Attributes:
      title: network and budget.
      note: images and protocol.
      verdict: how many checks have which verdict, in words.
      anchor: where the result comes from on the page.
      checks: the checks as they are in the file, each with its ``tone`` and ``shown`` numbers.
      attacks: name -> attack, for the names in the numbers.
    """

    title: str
    note: str
    verdict: str
    anchor: str
    checks: Sequence[Mapping[str, Any]]
    attacks: Mapping[str, str]


def check_lists(runs: Sequence[Run]) -> list[CheckList]:
    """The checks of all runs."""
    return [
        CheckList(
            title=f"{run.label}, {_budget(result)}",
            note=f"{count(result.images, 'image')}, {result.protocol}",
            verdict=listing(_tally(result)),
            anchor=provenance.anchor(position, result, run),
            checks=[
                {
                    **check,
                    "title": words(check["name"]),
                    "tone": TONES[check["verdict"]],
                    "shown": {name: _number(value) for name, value in check["numbers"].items()},
                }
                for check in result.record["checks"]
            ],
            attacks=_texts(result.condition.get("attacks")),
        )
        for position, run in enumerate(runs)
        for result in run.of_kind("masking")
    ]


def warnings(runs: Sequence[Run]) -> list[str]:
    """Failed checks, for the top of the page."""
    found = []
    for run in runs:
        for result in run.of_kind("masking"):
            failed = [c["name"] for c in result.record["checks"] if c["verdict"] == "fail"]
            if failed:
                named = listing([name.replace("_", " ") for name in failed])
                found.append(
                    f"{run.label} fails {count(len(failed), 'check')} for masked gradients at "
                    f"{_budget(result)} ({named}): its robust accuracy may be an illusion."
                )
    return found


def distances(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The smallest changes that were found: network, attack, median, and accuracy by radius."""
    found = []
    for position, run in enumerate(runs):
        for result in run.of_kind("minimal"):
            median = result.record.get("median_distance")
            found.append(
                {
                    "label": run.label,
                    "anchor": provenance.anchor(position, result, run),
                    "attack": str(result.condition.get("attack", "")).partition("(")[0],
                    "norm": NORM_NAMES[result.condition["norm"]],
                    "median": "none for half of them" if median is None else f"{median:.4g}",
                    "protocol": result.protocol,
                    "steps": [
                        (step["eps_label"], step["accuracy"], tuple(step["interval"]))
                        for step in result.record["ladder"]
                    ],
                }
            )
    return found


def corruption_means(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Mean accuracy over corruptions by both rules, and the corruption errors where they exist."""
    found = []
    for position, run in enumerate(runs):
        for result in run.of_kind("corruption_means"):
            means = result.record["means"]
            found.append(
                {
                    "label": run.label,
                    "anchor": provenance.anchor(position, result, run),
                    "protocol": result.protocol,
                    "form": str(result.condition.get("form", "")),
                    "corruptions": means["of_corruptions"],
                    "categories": means["of_categories"],
                    "each": [(words(name), value) for name, value in means["categories"].items()],
                    "mce": means.get("mce"),
                    "relative_mce": means.get("relative_mce"),
                    "note": str(means.get("note", "")),
                }
            )
    return found


def _budget(result: Result) -> str:
    budget = f"{NORM_NAMES[result.condition['norm']]} {eps_label(result.condition)}"
    return ", ".join(filter(None, (budget, result.test_noise)))


def _tally(result: Result) -> list[str]:
    verdicts = [check["verdict"] for check in result.record["checks"]]
    spoken = {"pass": "pass", "warning": "warn", "fail": "fail"}
    return [f"{verdicts.count(name)} {spoken[name]}" for name in VERDICTS if name in verdicts]


def _texts(value: Any) -> dict[str, str]:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, Mapping) else {}


def _number(value: Any) -> str:
    if value is None:
        return "not finite"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)
