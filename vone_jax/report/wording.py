"""How numbers and names are written on the page."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# A narrow space that does not break, as typographers put before a unit.
SPACE = "\u202f"
MINUS = "\u2212"
# A longer budget label would crowd out the figure it belongs to.
MAX_LABEL = 16
NORM_NAMES = {"linf": "L∞", "l2": "L2", "l1": "L1"}


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


def eps_label(condition: Mapping[str, Any]) -> str:
    """How a budget is written: the label in the result file, such as '4/255', or the number."""
    label = condition.get("eps_label")
    if not isinstance(label, str) or not label:
        return f"{condition['eps']:.4g}"
    return label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 1]}…"


def words(name: str) -> str:
    """'gaussian_noise' -> 'Gaussian noise'."""
    text = name.replace("_", " ").strip().replace("jpeg", "JPEG")
    return text[:1].upper() + text[1:]


def noise_words(noise: str) -> str:
    """'NeuronalNoise(scale=0.35, level=0.07, strength=1.0)' -> 'neuronal 0.35, 0.07'.

    A strength other than 1 is named; what is no such noise stays as it is.
    """
    match = re.fullmatch(r"(Neuronal|Gaussian)Noise\((.*)\)", noise)
    if match is None:
        return noise
    fields = dict(part.split("=") for part in match[2].split(", "))
    strength = float(fields.pop("strength", 1))
    numbers = ", ".join(f"{float(value):g}" for value in fields.values())
    kind = "neuronal" if match[1] == "Neuronal" else "Gaussian"
    return f"{kind} {numbers}" + (f", strength {strength:g}" if strength != 1 else "")


def listing(items: Sequence[str]) -> str:
    """['a', 'b', 'c'] -> 'a, b and c'."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def count(number: int, noun: str) -> str:
    """(1, 'image') -> '1 image'; (2000, 'image') -> '2,000 images'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """75 -> '1 min 15 s'."""
    if seconds < 60:
        return f"{seconds:.3g}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}{SPACE}h {minutes}{SPACE}min"
    return f"{minutes}{SPACE}min {rest}{SPACE}s"
