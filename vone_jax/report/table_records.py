"""Results that come as tables of their own: what their JSON must hold."""

from collections.abc import Callable

from vone_jax.report.records import Record

VERDICTS = ("pass", "warning", "fail")


def _items(record: Record, name: str) -> list[Record]:
    """The objects in a field that is a list of at least one."""
    items = record.data.get(name)
    if not isinstance(items, list) or not items or not all(isinstance(i, dict) for i in items):
        raise record.error(name, "a list of JSON objects")
    return [Record(record.path, item, f"{name}[{i}].") for i, item in enumerate(items)]


def _masking(record: Record) -> None:
    for check in _items(record, "checks"):
        for name in ("name", "question", "meaning"):
            check.text(name)
        check.text("verdict", choices=VERDICTS)
        check.section("numbers")


def _minimal(record: Record) -> None:
    if record.data.get("median_distance") is not None:
        record.number("median_distance", low=0)
    for step in _items(record, "ladder"):
        step.text("eps_label")
        accuracy = step.number("accuracy", low=0, high=1)
        ends = step.data.get("interval")
        if not isinstance(ends, list) or len(ends) != 2:
            raise step.error("interval", "a list [low, high]")
        named = Record(record.path, {"low": ends[0], "high": ends[1]}, "interval.")
        named.number("low", low=0, high=accuracy + 1e-6)
        named.number("high", low=accuracy - 1e-6, high=1)


def _corruption_means(record: Record) -> None:
    means = record.section("means")
    for name in ("of_corruptions", "of_categories"):
        means.number(name, low=0, high=1)
    categories = means.section("categories")
    for name in categories.data:
        categories.number(name, low=0, high=1)
    for name in ("mce", "relative_mce"):
        if means.data.get(name) is not None:
            means.number(name)


# Kind of result -> a function that raises a ReportError unless its record is as it must be.
CHECKS: dict[str, Callable[[Record], None]] = {
    "masking": _masking,
    "minimal": _minimal,
    "corruption_means": _corruption_means,
}
