"""A network compared with the baseline: differences, what they leave out, and one sentence."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from vone_jax import names
from vone_jax.report.tables import MAIN, Cell, Line
from vone_jax.results import Interval, Result, Row, Run, label, statistics
from vone_jax.results.result import leaves

MINUS = "\N{MINUS SIGN}"
# With fewer images, differences are not put in words.
FEW_IMAGES = 20
# Columns that may differ within a condition -> in words.
_COLUMNS = {"draws": "decisions about an image", "examples": "images", "seed": "seed"}
# The versions that can change a number.
_VERSIONS = ("vone_jax", "jax", "flax")
# Settings of a condition that follow from a network's noise, or change no number.
_OF_NOISE = ("eot_samples", "attack_noise", "stochastic", "draws")
_WITHOUT_EFFECT = ("kept", "program")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A network compared with the baseline in one condition.

    Attributes:
      difference: its number minus that of the baseline; None on other images.
      paired: whether both are on the same examples.
      cautions: what else differs between the two measurements, in words.
      at_chance: whether both are at chance or below it.
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

    Two numbers with values of the same examples have a paired difference. Otherwise it is combined
    from the two intervals.
    """
    pairs = list(zip(cell.results, base.results, strict=False))
    told = dict.fromkeys(each for pair in pairs for each in cautions(*pair))
    if not all(statistics.comparable(*pair) for pair in pairs):
        return Comparison(None, False, ("measured on other images", *told))
    ours, theirs = cell.values(), base.values()
    same = cell.weights == base.weights and all(statistics.same_examples(*x) for x in pairs)
    paired, share = False, cell.row.get("unit") == "share"
    difference = statistics.independent_difference(cell.interval, base.interval)
    if same and ours is not None and theirs is not None and len(ours) == len(theirs):
        paired, difference = True, statistics.paired_difference(ours, theirs, share)
    return Comparison(difference, paired, tuple(told), cell.at_chance and base.at_chance)


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
    hidden = _WITHOUT_EFFECT if noisy else (*_WITHOUT_EFFECT, *_OF_NOISE)
    for path in {**here, **there}:
        if not set(path.split(".")) & set(hidden):
            name = path.rpartition(".")[2].replace("eot_samples", "noise draws per gradient")
            yield from found(name, here.get(path, "absent"), there.get(path, "absent"))
    for name in ("matmul_precision", "dtype"):
        yield from found(name, one.identity.get(name), other.identity.get(name))
    sizes = (each.identity["network"].get("image_size") for each in (one, other))
    yield from found("image size in pixels", *sizes)
    yield from found("classes", *(each.provenance.get("logits_classes") for each in (one, other)))
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

    An attack is a condition whose accuracy is one of the main numbers and has a norm and a radius.
    Only attacks on the networks' own noise count, judged by the default decision.
    """
    attacked: dict[tuple[str, float], list[Line]] = {}
    for line in lines:
        row = line.row
        is_attack = line.section == MAIN and line.is_own and _is_of_a_radius(row)
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
        size = f"{names.NORM_LABELS[norm]} {names.eps_label(norm, eps)}"
        images = min(each.row["examples"] for each in cells)
        found.append(Radius(size, (_attack(ours), _attack(theirs)), images, compared))
    return found


def _strongest(attacked: Sequence[Line], run: Run) -> Line:
    """The attack that left a network the lowest accuracy."""
    return min(attacked, key=lambda line: line.cells[run.label].interval.value)


def _pair(line: Line, run: Run, base: Run) -> tuple[Cell, Cell]:
    return line.cells[run.label], line.cells[base.label]


def _is_of_a_radius(row: Row) -> bool:
    return {"norm", "eps"} <= row.keys() and row["number"] == "accuracy"


def _attack(line: Line) -> str:
    """The attack of a line in words, with its steps and without its radius."""
    told = "steps" if "note" in line.row else "eps"
    return ", ".join(filter(None, (label(line.row, ("norm", "eps", told)), line.note)))


def points(difference: Interval) -> str:
    """A difference of accuracies in percentage points, with the ends of its interval."""
    return "{} points (95 % CI {} to {})".format(*_signed(difference))


def _signed(difference: Interval) -> list[str]:
    return [signed(100 * each) for each in dataclasses.astuple(difference)]


def signed(number: float) -> str:
    """A number with its sign and one digit: -0.04 is "0.0"."""
    rounded = round(number, 1)
    return f"{rounded:+.1f}".replace("-", MINUS) if rounded else "0.0"


def sentence(run: Run, base: Run, lines: Sequence[Line]) -> str:
    """The comparison in one sentence, with the largest difference that its interval supports."""
    found = [each for each in radii(lines, run, base) if each.compared.is_comparable]
    tail = _plain(run, base, lines)
    two = f"{run.label} and {base.label}"
    if not found:
        both = {run.label, base.label}
        others = (line for line in lines if not line.is_own and both <= line.cells.keys())
        # Other noise and other decisions stand in the table, and are not compared in words.
        attacked = any(_is_of_a_radius(line.row) for line in others)
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


def _plain(run: Run, base: Run, lines: Sequence[Line]) -> str:
    """The difference of the first share that is plain, as the end of a sentence, or nothing."""
    for line in lines:
        plain = line.is_plain and line.scale > 1
        if plain and {run.label, base.label} <= line.cells.keys():
            difference = compare(*_pair(line, run, base)).difference
            if difference is not None:
                return "; {} {} ({} to {})".format(line.label, *_signed(difference))
    return ""


def footnotes(compared: Mapping[str, Mapping[int, Comparison]]) -> list[str]:
    """The cautions of all comparisons, each once, as they are numbered below a table."""
    lines = (each for by_line in compared.values() for each in by_line.values())
    return list(dict.fromkeys(caution for each in lines for caution in each.cautions))
