"""The lines of the page's tables: a condition each, with a number of each network."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vone_jax import names, results
from vone_jax.results import Interval, Result, ResultError, Run, Runs
from vone_jax.results.result import leaves
from vone_jax.results.row import Row, is_of

# Numbers of the main table, and the order of the kinds of conditions in it. Other kinds, such as
# one of the user's own, stand last.
_ACCURACIES = ("accuracy", "certified accuracy", "mCE", "relative mCE")
_KINDS = ("clean", "attack", "minimal", "certified", "sandwich", "mean over")
# Kinds whose accuracies stand in a section of their own.
_APART = ("corruption", "metamers", "psychophysics", "critical bands", "physiology", "masking")
# Kinds that certify a vote.
VOTES = ("certified", "certified near images", "sandwich")
# Kinds with a section, and what it draws of a result: columns, details, arrays or numbers.
_DRAWN: dict[str, tuple[set[str], ...]] = {
    **dict.fromkeys(("clean", "attack", *VOTES), (set(),)),
    "corruption": ({"corruption", "severity"},),
    "minimal": ({"median distance", "share of broken images"},),
    "masking": ({"checks"},),
    "physiology": ({"layer", "properties", "mean_score"}, {"layer", "reason"}),
    "explained variance": ({"layer", "correlations", "reliabilities"},),
    "front end": ({"sf", "kernels_in_phase", "responses_clean"},),
    "fourier map": ({"errors"},),
    "metamers": ({"layer", "place", "metamers", "original", "decibel"},),
    "geometry": ({"layer", "place"},),
    "psychophysics": ({"corruption"},),
    "critical bands": ({"centres", "steps", "channel"},),
}
# Settings of a condition that follow from a network's noise, or change no number.
OF_NOISE = ("eot_samples", "attack_noise", "stochastic", "draws")
WITHOUT_EFFECT = ("kept", "program")
# What replaces the network's own noise and the default decision.
_CONTROLS = ("noise", "decision", "attack_noise", "tag", "form")


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """A number of a network.

    Attributes:
      network: label of the network, unique among the runs.
      row: its row.
      results: its result, or those that a mean is over.
      weights: the weight of each result; they sum to 1.
      over: the corruptions and severities of a mean, in words; of another number the settings that
        its row does not have, if they differ between networks.
    """

    network: str
    row: Row
    results: tuple[Result, ...]
    weights: tuple[float, ...] = (1.0,)
    over: str = ""

    @property
    def interval(self) -> Interval:
        """The number with its interval; NaN for what is not defined."""
        ends = (self.row.get(name) for name in ("value", "low", "high"))
        return Interval(*(float("nan") if end is None else float(end) for end in ends))

    @property
    def paired(self) -> bool:
        """True if the number is the accuracy of the decisions that its results keep."""
        return self.row["number"] == "accuracy" and all(
            sum(row.get("number") == "accuracy" for row in each.rows) == 1
            and {"index", "right"} <= each.arrays.keys()
            for each in self.results
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """A condition and a number, with the cells of the networks that have it.

    Attributes:
      row: a row of the condition, that of a network with noise if there is one.
      over: that of the cells.
      cells: label of a network -> its cell.
    """

    row: Row
    cells: Mapping[str, Cell]
    over: str = ""

    @functools.cached_property
    def label(self) -> str:
        """The condition and the number in words."""
        return _label(self.row)

    @property
    def title(self) -> str:
        """The label without the number of steps, which stands in the ``note``."""
        return _label({name: each for name, each in self.row.items() if name != "steps"})

    @property
    def series(self) -> str:
        """The label without a radius: the same for attacks of one ladder."""
        return _label({name: each for name, each in self.row.items() if name != "eps"})

    @property
    def is_main(self) -> bool:
        """True for the network's own noise and the default decision, without a tag."""
        return is_main(self.row)

    @property
    def is_share(self) -> bool:
        """False for a mean corruption error, which is in percent of AlexNet's."""
        return "mCE" not in self.row["number"]

    @property
    def attack(self) -> dict[str, Any]:
        """The attack as JSON values; empty without one."""
        noisy = [cell for cell in self.cells.values() if cell.row.get("draws") is not None]
        first = next(iter(noisy or self.cells.values()))
        return first.results[0].identity["condition"].get("attack") or {}

    @property
    def note(self) -> str:
        """What is said below the title: the steps of an attack, or what a mean is over."""
        return _steps({**self.attack, **self.row}) if "attack" in self.row else self.over


def kind(result: Result) -> str:
    """The kind of a result whose section has it; "" without one.

    A user's condition may have any name: it is of a kind only with what the kind's section draws.
    """
    condition = result.row["condition"]
    name = "geometry" if condition.startswith("geometry of ") else condition
    has = {*result.row, *result.details, *result.arrays, *(r.get("number") for r in result.rows)}
    return name if any(needed <= has for needed in _DRAWN.get(name, ())) else ""


def of_kinds(runs: Iterable[Run], *kinds: str) -> list[tuple[Run, Result]]:
    """The results of some kinds, each with its run."""
    return [(run, result) for run in runs for result in run.results if kind(result) in kinds]


def is_main(row: Row) -> bool:
    """True for the network's own noise and the default decision, without a tag."""
    return all(row.get(name) is None for name in _CONTROLS)


def _label(row: Row) -> str:
    label, number = results.label(row), row["number"]
    if is_of(row, "certified", "certified near images"):
        return label.replace("certified", number, 1)
    return label if number == "accuracy" else f"{label}, {number}"


def _is_accuracy(cell: Cell) -> bool:
    """True for a number of the main table; of a certificate also the accuracies of its vote."""
    of_vote = is_of(cell.row, *VOTES) and cell.row["number"].startswith("accuracy")
    return (cell.row["number"] in _ACCURACIES or of_vote) and kind(cell.results[0]) not in _APART


def _steps(attack: Mapping[str, Any]) -> str:
    """The steps and the noise draws of an attack, such as "64 steps of eps/32, 10 draws".

    ``attack`` has the fields of the attack and the columns of its row.
    """
    eps, size, rule = (attack.get(name) for name in ("eps", "step_size", "step_rule"))
    count, draws = attack.get("steps"), attack.get("attack_draws", 1)
    of = f" of {rule}" if rule else ""
    if size and eps:
        parts = eps / size
        whole = abs(parts - round(parts)) < 1e-6 * parts
        of = f" of eps/{round(parts)}" if whole else f" of {size / eps:.3g} eps"
    words = [f"{count} steps{of}"] if count else []
    return ", ".join([*words, *([f"{draws} draws"] if draws > 1 else [])])


def code(value: Any) -> str:
    """A dataclass in its JSON form as the call that makes it, without what is None."""
    if isinstance(value, Mapping):
        given = (f"{n}={code(v)}" for n, v in value.items() if n != "type" and v is not None)
        return f"{value.get('type', '')}({', '.join(given)})"
    if isinstance(value, list):
        return f"[{', '.join(map(code, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def accuracies(runs: Runs) -> list[Line]:
    """The lines of the main table: accuracies, and the means over corruptions.

    The conditions with the networks' own noise come first, then those with other noise or another
    decision, and those with a tag.
    """
    entries = [each for each in _measured(runs) if _is_accuracy(each)]
    return sorted(_lines([*entries, *_means(runs, of_all=True)]), key=_order)


def categories(runs: Runs) -> list[Line]:
    """The lines of the means over categories of corruptions, and over these means."""
    return sorted(_lines(_means(runs, of_all=False)), key=_order)


def corrupted(runs: Runs) -> list[Line]:
    """The lines of the accuracies under single corruptions."""
    entries = [each for each in _measured(runs) if each.row["number"] == "accuracy"]
    return _lines([each for each in entries if kind(each.results[0]) == "corruption"])


def drawn(lines: Iterable[Line]) -> list[Line]:
    """The lines that a chart draws: the main ones, and others of networks that have no main one."""
    lines = list(lines)
    have = {label for line in lines if line.is_main for label in line.cells}
    found = [line for line in lines if line.is_main or not line.cells.keys() <= have]
    # A network without noise meets the lines of others, and is drawn once.
    cells = [set(line.cells.values()) for line in found]
    return [
        line
        for line, own in zip(found, cells, strict=True)
        if not any(own < other for other in cells)
    ]


def further(runs: Runs, shown: Sequence[str]) -> list[Line]:
    """The numbers of conditions whose kind is not shown, and which are not in the main table."""
    found = (each for each in _measured(runs) if kind(each.results[0]) not in shown)
    return _lines(_by_settings([each for each in found if not _is_accuracy(each)]))


def _by_settings(cells: Sequence[Cell]) -> list[Cell]:
    """Numbers with the settings in which those of one row differ: they are not one measurement."""
    grouped: dict[Any, list[Cell]] = {}
    for each in cells:
        grouped.setdefault(results.condition_key(each.row), []).append(each)
    found: dict[int, Cell] = {}
    for group in grouped.values():
        noisy = all(each.row.get("draws") is not None for each in group)
        hidden = {*WITHOUT_EFFECT, *(() if noisy else OF_NOISE)}
        settings = [dict(leaves(each.results[0].identity["condition"])) for each in group]
        paths = [
            path
            for path in dict.fromkeys(path for each in settings for path in each)
            if len({each.get(path) for each in settings}) > 1 and not hidden & {*path.split(".")}
        ]
        for cell, of in zip(group, settings, strict=True):
            words = ", ".join(f"{path} {of.get(path, 'absent')}" for path in paths)
            found[id(cell)] = dataclasses.replace(cell, over=words)
    return [found[id(each)] for each in cells]


def _measured(runs: Runs) -> list[Cell]:
    return [
        Cell(run.label, row, (result,))
        for run in runs
        for result in run.results
        for row in result.rows
        if "number" in row
    ]


def _means(runs: Runs, of_all: bool) -> list[Cell]:
    """Means over the common corruptions, or over categories of corruptions."""
    by_label = {(run.label, each.label): each for run in runs for each in run.results}
    found = []
    for mean in results.means(runs.to_frame()).to_dict("records"):
        if (mean["category"] == "") != of_all:
            continue
        network, weights = mean["network"], mean["weights"]
        row = {name: mean[name] for name in results.COLUMNS if pd.notna(mean[name])}
        averaged = tuple(by_label[network, label] for label in weights)
        found.append(Cell(network, row, averaged, tuple(weights.values()), mean["over"]))
    return found


def _lines(entries: Sequence[Cell]) -> list[Line]:
    """A line for each condition and number, in order of appearance.

    A network without noise stands in each line whose condition it meets, also under a decision or a
    noise that it does not have, see ``results.same_condition``.
    """
    grouped: dict[Any, list[Cell]] = {}
    for each in entries:
        grouped.setdefault((results.condition_key(each.row), each.over), []).append(each)
    networks = dict.fromkeys(each.network for each in entries)
    quiet = [each for each in entries if each.row.get("draws") is None]
    lines = []
    for (_, over), own in grouped.items():
        noisy = [each.row for each in own if each.row.get("draws") is not None]
        row = [*noisy, own[0].row][0]
        # Two networks without noise are of one condition only if their rows say so.
        meeting = [
            each
            for each in quiet
            if (noisy or "noise" in row)
            and each.over == over
            and results.same_condition(each.row, row)
        ]
        cells = {each.network: each for each in (*meeting, *own)}
        lines.append(Line(row, {name: cells[name] for name in networks if name in cells}, over))
    return lines


def _order(line: Line) -> tuple:
    row = line.row
    kind = next((at for at, kind in enumerate(_KINDS) if row["condition"].startswith(kind)), 9)
    norm = names.NORMS.index(row["norm"]) if row.get("norm") in names.NORMS else -1
    without_controls = {name: each for name, each in row.items() if name not in _CONTROLS}
    return (
        not line.is_main,
        kind,
        norm,
        _label({name: each for name, each in without_controls.items() if name != "eps"}),
        row.get("eps") or 0.0,
        line.label,
    )


def chance(result: Result) -> float:
    """The accuracy of guessing among the classes whose logits count."""
    return 1 / result.provenance["logits_classes"]


def at_chance(cell: Cell) -> bool:
    """True if an accuracy cannot be told from that of guessing, or is below it.

    A certified accuracy is no share of right decisions, but what was proven of it.
    """
    decided = cell.row["number"].startswith("accuracy")
    return decided and cell.interval.low <= chance(cell.results[0])


def baseline(runs: Runs, chosen: str | None = None) -> Run:
    """The network with which others are compared.

    Args:
      runs: the networks.
      chosen: its directory or label. Default: the first network without a V1, else the first.

    Raises:
      ResultError: if no network is named so.
    """
    if chosen is None:
        return next((run for run in runs if not _has_v1(run)), runs[0])
    for run in runs:
        if chosen == run.label or Path(chosen).resolve() == Path(run.path).resolve():
            return run
    known = ", ".join(str(run.path) for run in runs)
    raise ResultError(f"baseline must be one of {known}, got {chosen}")


def _has_v1(run: Run) -> bool:
    """True for a VOneNet or an EVNet, and for networks with code of a user."""
    description = run.results[0].identity["network"]["description"]
    model = description.get("model", {})
    return "v1" in model or not model or "program" in description
