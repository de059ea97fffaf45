"""Results as a table for the terminal."""

from collections.abc import Sequence
from typing import Any


def table(records: Sequence[dict[str, Any]]) -> str:
    """One line per measured result: condition, accuracy in percent and its 95 % interval.

    Args:
      records: contents of result files; those that are only looked at are left out.
    """
    rows = [
        (
            *_condition(record),
            f"{100 * record['accuracy']:.1f}",
            f"{100 * record['interval'][0]:.1f} to {100 * record['interval'][1]:.1f}",
            str(record["sums"]["seen"]),
        )
        for record in records
        if "accuracy" in record
    ]
    if not rows:
        return ""
    header = ("condition", "strength", "accuracy %", "95 % interval", "images")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def heading(record: dict[str, Any]) -> str:
    """What all results of a run have in common, in one line."""
    model, data, protocol = record["model"], record["dataset"], record["protocol"]
    noise = f"{protocol['noise']} noise, {protocol['draws']} draws an image"
    return (
        f"{model['label']} ({record['run']}, step {record['checkpoint_step']}) on "
        f"{data['examples']} images of {data['name']} {data['split']}; "
        f"{noise if model['stochastic'] else 'no noise'}"
    )


def _condition(record: dict[str, Any]) -> tuple[str, str]:
    condition = record["condition"]
    if record["kind"] == "attack":
        name = f"{condition['attack'].partition('(')[0]} {condition['norm']}"
        if condition["noise_free_gradients"]:
            name += ", noise-free gradients"
        return name, condition["eps_label"]
    if record["kind"] == "corruption":
        return condition["corruption"].replace("_", " "), f"severity {condition['severity']}"
    return "clean", ""
