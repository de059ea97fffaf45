"""Results as text for the terminal."""

from collections.abc import Sequence
from typing import Any


def summary(records: Sequence[dict[str, Any]]) -> list[str]:
    """What a command has measured: what the results share, their table, and the checks."""
    found = []
    judged = [record for record in records if "accuracy" in record]
    if judged:
        found.append(f"{heading(judged[0])}\n\n{table(judged)}")
    for record in records:
        if record["kind"] == "minimal":
            found.append(_distances(record))
        if record["kind"] == "masking":
            found.append(checks(record))
    return found


def line(record: dict[str, Any]) -> str:
    """A finished result in one line."""
    if "accuracy" in record:
        low, high = record["interval"]
        found = f"{100 * record['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
    elif record["kind"] == "masking":
        found = ", ".join(f"{count} {name}" for name, count in record["verdicts"].items())
    else:
        found = f"found {record['found']} of {record['seen']}"
    return f"{record['name']}: {found}, {record['wall_seconds']:.1f} s"


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
    return _aligned(("condition", "strength", "accuracy %", "95 % interval", "images"), rows, 2)


def heading(record: dict[str, Any]) -> str:
    """What all results of a run have in common, in one line."""
    model, data = record["model"], record["dataset"]
    return (
        f"{model['label']} ({record['run']}, step {record['checkpoint_step']}) on "
        f"{data['examples']} images of {data['name']} {data['split']}; {protocol(record)}"
    )


def protocol(record: dict[str, Any]) -> str:
    """The protocol of a result in words."""
    how = record["protocol"]
    other = record["model"].get("noise_at_test")
    if how["noise"] == "none":
        return "no noise" if other is None else "noise removed"
    given = "" if other is None else f"{other['given']} in place of {other['trained']}, "
    return f"{given}{_draws(how)}"


def _draws(how: dict[str, Any]) -> str:
    if how["noise"] == "frozen":
        return "frozen noise"
    at_attack = "noise frozen at the attack, " if how["noise"] == "frozen_attack" else ""
    if how["decision"] == "single":
        return f"{at_attack or 'fresh noise, '}{how['draws']} draws an image"
    decision = how["decision"].replace("_", " ")
    return f"{at_attack}{decision} of {how['averaged']} draws, {how['draws']} decisions an image"


def checks(record: dict[str, Any]) -> str:
    """The checks for masked gradients, one line each."""
    rows = [(check["verdict"], check["name"], check["meaning"]) for check in record["checks"]]
    condition = record["condition"]
    budget = f"{condition['norm']} {condition['eps_label']}, {record['seen']} images"
    return f"checks at {budget}\n{_aligned(('verdict', 'check', 'meaning'), rows, 3)}"


def _distances(record: dict[str, Any]) -> str:
    median = record["median_distance"]
    typical = "beyond all of them" if median is None else f"{median:.4g}"
    rows = [
        (
            step["eps_label"],
            f"{100 * step['accuracy']:.1f}",
            f"{100 * step['interval'][0]:.1f} to {100 * step['interval'][1]:.1f}",
        )
        for step in record["ladder"]
    ]
    return (
        f"{record['name']}: median distance {typical}\n"
        f"{_aligned(('radius', 'accuracy %', '95 % interval'), rows, 1)}"
    )


def _aligned(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], left: int) -> str:
    """Columns under a header; the first ``left`` begin, the others end in line."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _condition(record: dict[str, Any]) -> tuple[str, str]:
    condition = record["condition"]
    if record["kind"] == "attack":
        name = f"{condition['attack'].partition('(')[0]} {condition['norm']}"
        if condition["noise_free_gradients"]:
            name += ", noise-free gradients"
        if "attack_noise" in condition:
            name += f", attacked with {condition['attack_noise']}"
        return name, condition["eps_label"]
    if record["kind"] == "corruption":
        form = "" if condition["form"] == "float" else f", {condition['form']}"
        name = condition["corruption"].replace("_", " ")
        return f"{name}{form}", f"severity {condition['severity']}"
    return "clean", ""
