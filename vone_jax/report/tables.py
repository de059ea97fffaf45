"""What the page says in tables and sentences, from the data frame of runs."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vone_jax import names, results
from vone_jax.results import Interval, Result, ResultError, Run, Runs, statistics

# The order of kinds of conditions in tables.
_KINDS = ("Clean", "Attacked", "Certified", "Corrupted")
_CATEGORIES = tuple(names.CORRUPTION_CATEGORIES)
# With fewer images, differences are not put in words.
_FEW_IMAGES = 20

# The mean over the common corruptions that were measured.
MEAN = "mean over corruptions"
ALIKE = "cannot be told apart"
BROKEN = "both at chance or below"
TOO_FEW = "too few images"


@dataclasses.dataclass(frozen=True, eq=False)
class Condition:
    """A condition in which networks were measured: a row of a table.

    Attributes:
      name: the name of its results, the same for all networks; it ends with the tag.
      label: the condition in words.
      results: label of a network -> its result.
    """

    name: str
    label: str
    results: Mapping[str, Result]

    @functools.cached_property
    def fields(self) -> dict[str, Any]:
        """The condition of its first result as JSON values."""
        return next(iter(self.results.values())).condition

    @property
    def kind(self) -> str:
        """The kind of the condition, such as "Attacked"."""
        return self.fields["type"]

    @property
    def attack(self) -> dict[str, Any]:
        """The attack, or the first of several, as JSON values; empty without one."""
        return self.fields.get("attack") or next(iter(self.fields.get("several", ())), {})

    @property
    def norm(self) -> str:
        """The norm of the attack; empty without one."""
        return self.attack.get("norm", "")

    @property
    def eps(self) -> float:
        """The radius of the attack; 0 without one."""
        return float(self.attack.get("eps", 0.0))

    @property
    def radius(self) -> str:
        """The norm and the radius in words, such as "L∞ 4/255"."""
        return f"{names.NORM_LABELS[self.norm]} {names.eps_label(self.norm, self.eps)}"

    @property
    def series(self) -> str:
        """The condition in words without its radius: the same for attacks of one ladder."""
        return self.label.replace(f" {self.radius}", "") if self.norm else self.label

    @property
    def differences(self) -> list[str]:
        """The settings in which the networks were measured otherwise, in words.

        Noise draws are left out: a network without noise needs one.
        """
        told: dict[str, None] = {}
        first, *others = map(_comparable, self.results.values())
        for other in others:
            told |= dict.fromkeys(results.differences(other, first))
        return list(told)


def _comparable(result: Result) -> dict[str, Any]:
    """What must be equal for two networks to be compared."""

    def without_draws(value: Any) -> Any:
        if isinstance(value, list):
            return [without_draws(item) for item in value]
        if not isinstance(value, dict):
            return value
        hidden = ("eot_samples", "kept", "stochastic", "without_noise")
        return {name: without_draws(item) for name, item in value.items() if name not in hidden}

    dataset = result.identity["dataset"]
    shown = ("name", "split", "examples", "total", "checksum")
    return {
        "condition": without_draws(result.condition),
        "dataset": {name: dataset.get(name) for name in shown},
    }


def conditions(runs: Runs) -> list[Condition]:
    """The conditions with an accuracy, in the order of tables.

    Raises:
      ResultError: if a network has a condition twice.
    """
    frame = runs.to_frame()
    accuracies = frame[frame["number"] == "accuracy"]
    try:
        table = accuracies.pivot(index="result", columns="network", values="value")
    except ValueError:
        raise ResultError(
            "a network has a condition twice; give each result a tag of its own, or each network "
            "a label of its own"
        ) from None
    measured = {(run.label, result.name): result for run in runs for result in run.results}
    found = []
    for name, row in table.iterrows():
        labels = [run.label for run in runs if bool(pd.notna(row.get(run.label)))]
        by_network = {label: measured[label, str(name)] for label in labels}
        tag = next(iter(by_network.values())).identity["tag"]
        label = next(iter(by_network.values())).label
        found.append(Condition(str(name), f"{label}, {tag}" if tag else label, by_network))
    return sorted(found, key=_order)


def _order(condition: Condition) -> tuple:
    kind, norm = condition.kind, condition.norm
    return (
        _KINDS.index(kind) if kind in _KINDS else len(_KINDS),
        names.NORMS.index(norm) if norm in names.NORMS else len(names.NORMS),
        condition.series if norm else "",
        condition.eps,
        condition.name,
    )


def accuracy(result: Result) -> Interval:
    """The accuracy of a result with its interval."""
    entry = result.measured["accuracy"]
    return Interval(entry["value"], entry["low"], entry["high"])


def chance(result: Result) -> float:
    """The accuracy of guessing."""
    return 1 / result.identity["dataset"]["classes"]


def guesses(result: Result) -> bool:
    """True if an accuracy is not above that of guessing."""
    return accuracy(result).low <= chance(result)


def baseline(runs: Runs, chosen: str | None = None) -> Run:
    """The network with which others are compared.

    Args:
      runs: the networks.
      chosen: its directory or label. Default: the first network without a V1, else the first.

    Raises:
      ResultError: if no network is named so.
    """
    if chosen is None:
        return next((run for run in runs if not has_v1(run)), runs[0])
    for run in runs:
        if chosen == run.label or Path(chosen).resolve() == run.path.resolve():
            return run
    known = ", ".join(str(run.path) for run in runs)
    raise ResultError(f"baseline must be one of {known}, got {chosen}")


def has_v1(run: Run) -> bool:
    """True for a VOneNet or an EVNet, and for networks with code of a user."""
    description = run.results[0].identity["network"]["description"]
    model = description.get("model", {})
    return "v1" in model or not model or "program" in description


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A condition in which a network is compared with the baseline.

    Attributes:
      theirs: the accuracy of the baseline, with its interval.
      difference: the accuracy of the network minus that of the baseline, with its interval.
      paired: whether both are on the same images.
      verdict: the difference in words, for the network.
      attack: whether the condition is an attack.
    """

    theirs: Interval
    difference: Interval
    paired: bool
    verdict: str
    attack: bool = False


def compare(table: Sequence[Condition], run: Run, base: Run) -> dict[str, Comparison]:
    """Condition in words -> comparison, with one for all corruptions that both networks share."""
    shared = [each for each in table if {run.label, base.label} <= each.results.keys()]
    groups = {each.label: [each] for each in shared if each.kind != "Corrupted"}
    if corrupted := averaged(shared):
        groups[MEAN] = corrupted
    return {label: _compared(group, run, base) for label, group in groups.items()}


def _compared(group: Sequence[Condition], run: Run, base: Run) -> Comparison:
    ours, theirs = ([each.results[of.label] for each in group] for of in (run, base))
    difference = results.difference(ours, theirs)
    attack = bool(group[0].norm)
    better = "accurate" if group[0].kind == "Clean" else "robust"
    verdict = {1: f"more {better}", -1: f"less {better}", 0: ALIKE}[difference.sign]
    if any(each.differences for each in group):
        verdict = "measured in different ways"
    elif min(each.identity["dataset"]["examples"] for each in (*ours, *theirs)) < _FEW_IMAGES:
        verdict = TOO_FEW
    # Where attacks break both networks, a stochastic one is still right now and then by chance.
    elif attack and guesses(ours[0]) and guesses(theirs[0]):
        verdict = BROKEN
    paired = statistics.paired(ours, theirs)
    return Comparison(results.mean_accuracy(theirs), difference, paired, verdict, attack)


def sentence(run: Run, base: Run, lines: Mapping[str, Comparison]) -> str:
    """The comparison of a network with the baseline in one sentence."""
    attacks = [line for line in lines.values() if line.attack]
    if not attacks:
        return f"{run.label} and {base.label} share no attack."
    counts = Counter(line.verdict for line in attacks)
    told = len(attacks) - counts[BROKEN]
    if not told:
        return f"Every attack here leaves {run.label} and {base.label} at chance or below."
    of = f"of {told} attack condition{'s' if told > 1 else ''}"
    parts = [
        f"{verdict} than {base.label} in {counts[verdict]} {of}"
        for verdict in ("more robust", "less robust")
        if counts[verdict]
    ]
    if parts:
        rest = f"; the two {ALIKE} in {counts[ALIKE]}" if counts[ALIKE] else ""
        text = f"{run.label} is {' and '.join(parts)}{rest}."
    elif counts[ALIKE]:
        text = f"{run.label} and {base.label} {ALIKE} in {counts[ALIKE]} {of}."
    else:
        text = f"{run.label} and {base.label}: {', '.join(counts)} in all {told} attack conditions."
    if counts[BROKEN]:
        noun = "attack" if counts[BROKEN] == 1 else "attacks"
        text += f" {counts[BROKEN]} further {noun} left both at chance or below."
    return text


def means(table: Sequence[Condition], runs: Runs) -> dict[str, dict[str, Interval]]:
    """Network -> the numbers of its line in the table of scores, by name.

    Clean, the mean over the radii of each ladder of attacks, and the means over corruptions. A
    mean is over the conditions that all networks have that have any of them.
    """
    scores: dict[str, dict[str, Interval]] = {run.label: {} for run in runs}
    for condition in table:
        if condition.kind == "Clean":
            for label, result in condition.results.items():
                scores[label][condition.label] = accuracy(result)
    ladders: dict[tuple[str, str], list[Condition]] = {}
    for condition in table:
        if condition.norm:
            ladders.setdefault((condition.norm, condition.series), []).append(condition)
    for (norm, series), ladder in ladders.items():
        labels = {label for each in ladder for label in each.results}
        shared = [each for each in ladder if labels == each.results.keys()]
        radii = ", ".join(names.eps_label(norm, each.eps) for each in shared)
        name = f"{series} {names.NORM_LABELS[norm]}"
        name += f", mean over {radii}" if len(shared) > 1 else f" {radii}"
        for label in labels if shared else ():
            scores[label][name] = results.mean_accuracy([e.results[label] for e in shared])
    corrupted = averaged(table)
    labels = {label for each in corrupted for label in each.results}
    shared = [each for each in corrupted if labels == each.results.keys()]
    clean = next((each for each in table if each.kind == "Clean"), None)
    for run in runs if shared else ():
        if run.label in labels:
            own = [each.results[run.label] for each in shared]
            found = clean and clean.results.get(run.label)
            scores[run.label] |= results.corruption_means(own, found)
    return scores


def averaged(table: Sequence[Condition]) -> list[Condition]:
    """The corruptions that means are over: the common ones, or all if there are none of these."""
    corrupted = [each for each in table if each.kind == "Corrupted"]
    known = (*names.COMMON_CORRUPTIONS, names.PROCEDURAL_FROST)
    return [each for each in corrupted if each.fields["corruption"] in known] or corrupted


def headline(scores: Mapping[str, Interval]) -> dict[str, Interval]:
    """The scores that stand at the top of the page: without parts of means."""
    hidden = ("mean over categories", "relative mCE", *(f"mean over {c}" for c in _CATEGORIES))
    return {name: item for name, item in scores.items() if name not in hidden}


def cautions(runs: Runs, table: Sequence[Condition]) -> list[str]:
    """What a reader must know: warnings of the evaluation, and results that do not compare."""
    told: dict[str, list[str]] = {}
    for run in runs:
        for result in run.results:
            for warning in result.warnings:
                told.setdefault(warning, []).append(f"{run.label}, {result.label}")
    found = [f"{_listing(where)}: {warning}" for warning, where in told.items()]
    for condition in table:
        if condition.differences:
            found.append(
                f"{condition.label} was measured in different ways: "
                f"{'; '.join(condition.differences[:3])}."
            )
    for run in runs:
        if run.unfinished:
            found.append(f"{run.label} has unfinished results: {', '.join(run.unfinished)}.")
        clean = [each for each in table if each.kind == "Clean" and run.label in each.results]
        if clean and guesses(clean[0].results[run.label]):
            found.append(
                f"{run.label} is near chance on clean images, so its robustness says little."
            )
    return found


def _listing(items: Sequence[str]) -> str:
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return f"{'; '.join(items[:3])}{more}"
