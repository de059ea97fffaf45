"""A network compared with the baseline: differences, what they leave out, and one sentence."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from vone_jax import names, results
from vone_jax.report.tables import OF_NOISE, WITHOUT_EFFECT, Cell, Line, at_chance
from vone_jax.results import Interval, Result, Run, statistics
from vone_jax.results.result import leaves

# With fewer images, differences are not put in words.
FEW_IMAGES = 20
# Columns that may differ within a condition -> in words.
_COLUMNS = {"draws": "decisions about an image", "examples": "images", "seed": "seed"}
# The versions that can change a number.
_VERSIONS = ("vone_jax", "jax", "flax")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A network compared with the baseline in one condition.

    Attributes:
      difference: its number minus that of the baseline; None on other images.
      paired: whether both are on the same images.
      cautions: what else differs between the two measurements, in words.
      at_chance: whether both accuracies are at chance or below it.
    """

    difference: Interval | None
    paired: bool
    cautions: tuple[str, ...]
    at_chance: bool = False

    @property
    def is_comparable(self) -> bool:
        return self.difference is not None and self.difference.value == self.difference.value


def compare(cell: Cell, base: Cell) -> Comparison:
    """Compare a number with that of the baseline.

    Two accuracies on the same images have a paired difference. Otherwise it is combined from the
    two intervals.
    """
    pairs = list(zip(cell.results, base.results, strict=True))
    told = dict.fromkeys(each for pair in pairs for each in cautions(*pair))
    if not all(statistics.comparable(*pair) for pair in pairs):
        return Comparison(None, False, ("measured on other images", *told))
    paired = (
        cell.paired
        and base.paired
        and cell.weights == base.weights
        and statistics.paired(cell.results, base.results)
    )
    if paired:
        shares = (statistics.mean_shares(each.results, each.weights) for each in (cell, base))
        difference = results.paired_difference(*shares)
    else:
        difference = statistics.independent_difference(cell.interval, base.interval)
    return Comparison(difference, paired, tuple(told), at_chance(cell) and at_chance(base))


def compare_all(lines: Sequence[Line], run: Run, base: Run) -> dict[int, Comparison]:
    """Position of a line -> the comparison, for the lines that both networks have."""
    return {
        at: compare(line.cells[run.label], line.cells[base.label])
        for at, line in enumerate(lines)
        if {run.label, base.label} <= line.cells.keys()
    }


def cautions(one: Result, other: Result) -> Iterator[str]:
    """What differs between two measurements of one condition beyond the network, in words.

    What follows from a network having no noise is left out.
    """
    noisy = all(each.row.get("draws") is not None for each in (one, other))

    def found(name: str, first: object, second: object) -> Iterator[str]:
        if first != second:
            yield f"{name}: {first} against {second}"

    for column, words in _COLUMNS.items():
        if noisy or column != "draws":
            yield from found(words, one.row.get(column), other.row.get(column))
    here, there = (dict(leaves(each.identity["condition"])) for each in (one, other))
    hidden = WITHOUT_EFFECT if noisy else (*WITHOUT_EFFECT, *OF_NOISE)
    for path in {**here, **there}:
        if not set(path.split(".")) & set(hidden):
            name = path.removeprefix("attack.").replace("eot_samples", "noise draws per gradient")
            yield from found(name, here.get(path, "absent"), there.get(path, "absent"))
    for name in ("matmul_precision", "dtype"):
        yield from found(name, one.identity.get(name), other.identity.get(name))
    for name in _VERSIONS:
        made = (each.provenance.get("versions", {}).get(name) for each in (one, other))
        yield from found(f"version of {name}", *made)


@dataclasses.dataclass(frozen=True)
class Radius:
    """The strongest attacks of a radius that were measured on two networks.

    Attributes:
      label: norm and radius, such as "L∞ 4/255".
      attacks: the attack on each network that left it the lowest accuracy, in words.
      images: the number of images, the smaller one if they differ.
      compared: the comparison under these attacks.
    """

    label: str
    attacks: tuple[str, str]
    images: int
    compared: Comparison


def radii(lines: Sequence[Line], run: Run, base: Run) -> list[Radius]:
    """The strongest measured attacks of each radius, among those on both networks.

    Only attacks on the networks' own noise count, judged by the default decision.
    """
    attacked: dict[tuple[str, float], list[Line]] = {}
    for line in lines:
        row = line.row
        is_attack = row["condition"] in ("attack", "minimal") and "eps" in row and line.is_main
        cells = [line.cells.get(each.label) for each in (run, base)]
        if is_attack and all(cell is not None and "value" in cell.row for cell in cells):
            attacked.setdefault((row["norm"], row["eps"]), []).append(line)
    found = []
    for (norm, eps), of in attacked.items():
        ours, theirs = _strongest(of, run), _strongest(of, base)
        cells = ours.cells[run.label], theirs.cells[base.label]
        compared = compare(*cells)
        each = {c for line in (ours, theirs) for c in compare(*_pair(line, run, base)).cautions}
        # Two different attacks differ in all of their settings.
        compared = dataclasses.replace(compared, cautions=tuple(sorted(each)))
        label = f"{names.NORM_LABELS[norm]} {names.eps_label(norm, eps)}"
        images = min(each.row["examples"] for each in cells)
        found.append(Radius(label, (_attack(ours), _attack(theirs)), images, compared))
    return found


def _strongest(attacked: Sequence[Line], run: Run) -> Line:
    """The attack that left a network the lowest accuracy."""
    return min(attacked, key=lambda line: line.cells[run.label].interval.value)


def _pair(line: Line, run: Run, base: Run) -> tuple[Cell, Cell]:
    return line.cells[run.label], line.cells[base.label]


def _attack(line: Line) -> str:
    """The attack of a line in words, with its steps."""
    return ", ".join(filter(None, (line.row["attack"], line.note)))


def points(difference: Interval) -> str:
    """A difference of accuracies in percentage points, with the ends of its interval."""
    return "{} points (95 % CI {} to {})".format(*_signed(difference))


def _signed(difference: Interval) -> list[str]:
    return [signed(100 * each) for each in dataclasses.astuple(difference)]


def signed(number: float) -> str:
    """A number with its sign and one digit: -0.04 is "0.0"."""
    rounded = round(number, 1)
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}") if rounded else "0.0"


def sentence(run: Run, base: Run, lines: Sequence[Line]) -> str:
    """The comparison in one sentence, with the largest difference that its interval supports."""
    found = [each for each in radii(lines, run, base) if each.compared.is_comparable]
    tail = _clean(run, base, lines)
    two = f"{run.label} and {base.label}"
    if not found:
        both = {run.label, base.label}
        others = (line for line in lines if not line.is_main and both <= line.cells.keys())
        attacked = any("attack" in line.row for line in others)
        # Other noise and other decisions stand in the table, and are not compared in words.
        how = " judged by single draws of their own noise" if attacked else ""
        return f"{two} have no attack on the same images in common{how}{tail}."
    if min(each.images for each in found) < FEW_IMAGES:
        return f"{two} were attacked on fewer than {FEW_IMAGES} images, too few for a comparison."
    told = [each for each in found if not each.compared.at_chance]
    lost = len(found) - len(told)
    if not told:
        return f"{two} are at chance or below it at every attack radius{tail}."
    of = f"{len(told)} attack {'radius' if len(told) == 1 else 'radii'}"
    parts = []
    for word, sign in (("more", 1), ("less", -1)):
        side = [each for each in told if _difference(each).sign == sign]
        if side:
            most = max(side, key=lambda each: abs(_difference(each).value))
            parts.append(
                f"{word} robust than {base.label} at {len(side)} of {of}: "
                f"{points(_difference(most))} at {most.label}"
            )
    if parts:
        text = f"{run.label} is {', and '.join(parts)}"
    else:
        most = max(told, key=lambda each: abs(_difference(each).value))
        text = (
            f"{two} cannot be told apart at any of {of}: at most {points(_difference(most))} "
            f"at {most.label}"
        )
    rest = f"; both are at chance at {lost} more" if lost else ""
    if any(each.compared.cautions for each in found):
        tail += ". The two were measured differently, see the notes below the table"
    return f"{text}{rest}{tail}."


def _difference(radius: Radius) -> Interval:
    assert radius.compared.difference is not None, "radii of a sentence are comparable"
    return radius.compared.difference


def _clean(run: Run, base: Run, lines: Sequence[Line]) -> str:
    """The difference on clean images, as the end of a sentence; empty without one."""
    for line in lines:
        clean = line.row["condition"] == "clean" and line.is_main
        if clean and {run.label, base.label} <= line.cells.keys():
            difference = compare(*_pair(line, run, base)).difference
            if difference is not None:
                return "; clean {} ({} to {})".format(*_signed(difference))
    return ""


def footnotes(compared: Mapping[str, Mapping[int, Comparison]]) -> list[str]:
    """The cautions of all comparisons, each once, as they are numbered below a table."""
    lines = (each for by_line in compared.values() for each in by_line.values())
    return list(dict.fromkeys(caution for each in lines for caution in each.cautions))
