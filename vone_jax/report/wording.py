"""Numbers and names as the page and the tables write them."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

# A narrow space that does not break, as typographers put before a unit.
SPACE = "\u202f"
MINUS = "\u2212"
_FORMS = {"float": "", "uint8": "8 bits", "jpeg85": "JPEG 85"}
# Control characters and lone surrogates, which JSON can hold and HTML cannot, and characters that
# turn the direction of the text behind them.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text with a replacement character for what a page cannot hold or would garble."""
    return _UNPRINTABLE.sub("\ufffd", text)


def percent(share: float) -> str:
    """0.8123 -> '81.2 %'."""
    return f"{100 * share:.1f}{SPACE}%"


def interval(low: float, high: float) -> str:
    """(0.79, 0.83) -> '79.0–83.0 %'."""
    return f"{100 * low:.1f}–{100 * high:.1f}{SPACE}%"


def points(difference: float) -> str:
    """A signed difference of shares in percentage points: 0.289 -> '+28.9'."""
    text = f"{100 * abs(difference):.1f}"
    if float(text) == 0:
        return text
    return f"{'+' if difference > 0 else MINUS}{text}"


def words(name: str) -> str:
    """'gaussian_noise' -> 'Gaussian noise'."""
    text = name.replace("_", " ").strip().replace("jpeg", "JPEG")
    return text[:1].upper() + text[1:]


def listing(items: Sequence[str]) -> str:
    """['a', 'b', 'c'] -> 'a, b and c'."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def phrase(*parts: str) -> str:
    """('PGD', '', 'frozen') -> 'PGD, frozen': the parts that are not empty."""
    return ", ".join(filter(None, parts))


def count(number: int, noun: str, plural: str = "") -> str:
    """(1, 'image') -> '1 image'; (2000, 'image') -> '2,000 images'."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def fact(value: Any) -> Any:
    """None: 'not finite'; True: 'yes'; 12345: '12,345'; 0.123456: '0.1235'; else as it is."""
    if value is None:
        return "not finite"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else value


def dataset(part: tuple[str, str]) -> str:
    """('shapes', 'test') -> 'shapes (test split)'; a folder without splits: its name."""
    name, split = part
    return name if split == "." else f"{name} ({split} split)"


def datasets(parts: Iterable[tuple[str, str]]) -> str:
    """Data sets and splits in one phrase, sorted."""
    return listing(sorted(map(dataset, parts)))


def duration(seconds: float) -> str:
    """75 -> '1 min 15 s'."""
    if seconds < 60:
        return f"{seconds:.3g}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}{SPACE}h {minutes}{SPACE}min"
    return f"{minutes}{SPACE}min {rest}{SPACE}s"


def corruption_label(conditions: Sequence[tuple[str, int]]) -> str:
    """A mean over corruptions in words, with their number and severities."""
    kinds = {name for name, _ in conditions}
    over = f"Mean of {len(kinds)} corruptions" if len(kinds) > 1 else words(min(kinds))
    return f"{over}, {severity_label([severity for _, severity in conditions])}"


def severity_label(severities: Sequence[int]) -> str:
    """[1, 3] -> "severities 1 and 3"; [3] -> "severity 3"."""
    distinct = sorted(set(severities))
    noun = "severity" if len(distinct) == 1 else "severities"
    if len(distinct) > 2 and distinct == list(range(distinct[0], distinct[-1] + 1)):
        return f"{noun} {distinct[0]} to {distinct[-1]}"
    return f"{noun} {listing([str(severity) for severity in distinct])}"


def form_label(form: str) -> str:
    """The form of corrupted images in words; empty for floating point."""
    return _FORMS.get(form, form)


def form_labels(forms: Iterable[str]) -> list[str]:
    """Several forms in words; nothing if all are floating point."""
    labels = {form_label(form) for form in forms}
    return sorted(label or "floating point" for label in labels) if any(labels) else []


def markdown(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, without a line break at its end."""

    def line(cells: Sequence[str]) -> str:
        escaped = [cell.replace("\n", " ").replace("|", "\\|") for cell in cells]
        return f"| {' | '.join(escaped)} |"

    return "\n".join(map(line, [heading, ["---"] * len(heading), *rows]))
