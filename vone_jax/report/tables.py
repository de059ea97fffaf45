"""The lines of the page's tables: a condition and a number each, with a cell for each network."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vone_jax import names, results
from vone_jax.results import Interval, Result, ResultError, Run, Runs, code, statistics
from vone_jax.results.row import (
    FREE,
    PROTOCOL,
    SHOWN,
    Row,
    columns_of_condition,
    condition_key,
    is_own,
    same_condition,
    words,
)

# Heading of the table of main numbers, the first of the page.
MAIN = "Accuracy"


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """A number of a network.

    Attributes:
      network: label of the network, unique among the runs.
      row: its row.
      results: its result, or those that a mean is over.
      weights: the weight of each result; they sum to 1.
      over: what a mean is over, in words; empty for others.
      rows: the rows that a mean is over, one for each result.
    """

    network: str
    row: Row
    results: tuple[Result, ...]
    weights: tuple[float, ...] = (1.0,)
    over: str = ""
    rows: tuple[Row, ...] = ()

    @property
    def interval(self) -> Interval:
        """The number with its interval; NaN for what is not defined."""
        return Interval.of(self.row)

    @property
    def section(self) -> str:
        """The heading of the page under which it stands."""
        if self.row.get("main"):
            return MAIN
        return self.row.get("section") or self.results[0].section

    def values(self) -> np.ndarray | None:
        """The values by example behind the number, (N,); None without them."""
        if self.over and self.row["number"] != "accuracy":
            return None
        rows = zip(self.results, self.rows or [self.row], strict=True)
        found = [each.values(row) for each, row in rows]
        known = [statistics.by_example(each) for each in found if each is not None]
        if len(known) < len(found) or len({len(each) for each in known}) > 1:
            return None
        return np.array(self.weights) @ np.stack(known)

    @property
    def at_chance(self) -> bool:
        """True if the number cannot be told from that of guessing, or is below it."""
        same = (r for r in self.results[0].references if r["number"] == self.row["number"])
        shares = [row["value"] for row in same if row["network"] == "chance"]
        return bool(shares) and self.interval.low <= max(shares)


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """A condition and a number, with the cells of the networks that have it.

    Attributes:
      row: a row of the condition, that of a network with noise if there is one.
      cells: label of a network -> its cell.
      over: what a mean is over, in words; empty for others.
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
        """The label without the number of steps if these stand in the ``note``."""
        return _label(self.row, ("steps",) if "note" in self.row else ())

    @property
    def section(self) -> str:
        """The heading of the page under which it stands."""
        return next(iter(self.cells.values())).section

    @property
    def group(self) -> str:
        """The condition in words, without the columns of the number."""
        first = next(iter(self.cells.values()))
        return "" if self.over else results.label(first.results[0].row)

    @property
    def name(self) -> str:
        """The number in words, with the columns that are its own."""
        if self.over:
            return self.title
        row = next(iter(self.cells.values())).results[0].row
        own = {n: v for n, v in self.row.items() if n not in row and n not in (*FREE, *SHOWN)}
        told = ", ".join(words(n, v, self.row) for n, v in own.items() if n != "number")
        number = self.row["number"]
        if told and number.endswith("?"):
            return f"{number} ({told})"
        return f"{number}, {told}" if told else number

    @property
    def is_own(self) -> bool:
        """True for the network's own noise and the default decision, without a tag."""
        return is_own(self.row)

    @property
    def scale(self) -> float:
        """The factor of what is shown: shares are in percent."""
        return 100.0 if self.row.get("unit") == "share" else 1.0

    @property
    def unit(self) -> str:
        """The unit in words; empty for shares, which are in percent, and without one."""
        unit = self.row.get("unit", "")
        return "" if unit == "share" else unit

    @property
    def is_plain(self) -> bool:
        """True for a main number of a condition that has no settings, such as clean images."""
        plain = columns_of_condition(self.row).keys() == {"condition", "number"}
        return plain and self.section == MAIN and not self.over

    @property
    def note(self) -> str:
        """What is said below the title, and the noise draws in a gradient; or what is averaged."""
        draws = self.row.get("attack_draws", 1)
        told = (self.row.get("note"), f"{draws} draws" if draws > 1 else "")
        return self.over or ", ".join(filter(None, told))

    @property
    def hint(self) -> str:
        """All settings of the condition, as the call that makes it, or what a mean is over."""
        noisy = [cell for cell in self.cells.values() if cell.row.get("draws") is not None]
        first = next(iter(noisy or self.cells.values()))
        return self.over or code(first.results[0].identity["condition"])


def _label(row: Row, without: tuple[str, ...] = ()) -> str:
    label, number = results.label(row, without), row["number"]
    return label if number == "accuracy" else f"{label}: {number}"


def lines(runs: Runs) -> list[Line]:
    """The lines of all tables, in the order in which they stand.

    The conditions with the networks' own noise come first, then those with other noise or another
    decision, and those with a tag. Means come after what they are over.
    """
    found = _lines([*_measured(runs), *_means(runs)])
    main = sorted((line for line in found if line.section == MAIN), key=_order)
    # Elsewhere a condition keeps its numbers together, in the order in which it has them.
    others = [line for line in found if line.section != MAIN]
    groups = list(dict.fromkeys(line.group for line in others))
    return main + sorted(others, key=lambda line: (not line.is_own, groups.index(line.group)))


def _measured(runs: Runs) -> Iterator[Cell]:
    for run in runs:
        for result in run.results:
            for row in result.rows:
                yield Cell(run.label, row, (result,))


def _means(runs: Runs) -> Iterator[Cell]:
    """Means over corruptions, see ``results.means``."""
    measured = {
        (run.label, results.label(row)): (each, row)
        for run in runs
        for each in run.results
        for row in each.rows
        if row["number"] == "accuracy"
    }
    for mean in results.means(runs.to_frame()).to_dict("records"):
        known = {name: each for name, each in mean.items() if pd.notna(mean["network"])}
        row = {
            name: known[name]
            for name in known
            if name not in ("label", "over", "weights")
            and (isinstance(known[name], tuple) or pd.notna(known[name]))
        }
        parts = [measured[mean["network"], label] for label in mean["weights"]]
        averaged, of = zip(*parts, strict=True)
        row["main"] = not row.pop("category", "")
        weights = tuple(mean["weights"].values())
        yield Cell(mean["network"], row, averaged, weights, mean["over"], of)


def _lines(entries: Sequence[Cell]) -> list[Line]:
    """A line for each condition and number, in order of appearance.

    A network without noise stands in each line whose condition it meets, also under a decision or a
    noise that it does not have, see ``results.same_condition``.
    """
    grouped: dict[Any, list[Cell]] = {}
    for each in entries:
        grouped.setdefault((condition_key(each.row), each.over), []).append(each)
    networks = dict.fromkeys(each.network for each in entries)
    # Of conditions that other networks have under several rules.
    quiet: dict[Any, list[Cell]] = {}
    for each in entries:
        if each.row.get("draws") is None:
            quiet.setdefault(_without_protocol(each.row), []).append(each)
    lines = []
    for (_, over), own in grouped.items():
        noisy = [each.row for each in own if each.row.get("draws") is not None]
        row = [*noisy, own[0].row][0]
        # Two networks without noise are of one condition only if their rows say so.
        meeting = [
            each
            for each in quiet.get(_without_protocol(row), ())
            if (noisy or "noise" in row) and each.over == over and same_condition(each.row, row)
        ]
        cells = {each.network: each for each in (*meeting, *own)}
        lines.append(Line(row, {name: cells[name] for name in networks if name in cells}, over))
    return lines


def _without_protocol(row: Row) -> Any:
    return condition_key({name: each for name, each in row.items() if name not in PROTOCOL})


def _order(line: Line) -> tuple:
    row = line.row
    plain = {name: each for name, each in row.items() if name not in PROTOCOL}
    norm = names.NORMS.index(row["norm"]) if row.get("norm") in names.NORMS else -1
    axes = {
        n: v for n, v in plain.items() if isinstance(v, int | float) and n not in (*FREE, *SHOWN)
    }
    return (
        not line.is_own,
        bool(line.over),
        norm,
        _label({name: each for name, each in plain.items() if name not in axes}),
        [(name, value) for name, value in axes.items()],
        line.label,
    )


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
    network = run.results[0].identity["network"]
    return bool(network["description"].get("model", {}).get("v1") or network.get("program"))
