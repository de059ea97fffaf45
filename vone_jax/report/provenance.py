"""Where each number comes from, told once for the results that share it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from vone_jax.report.load import Run
from vone_jax.report.results import Result
from vone_jax.report.wording import count, duration

_UNKNOWN = "not recorded"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One result: an identifier on the page, and its own facts."""

    anchor: str
    name: str
    facts: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Group:
    """Results of one command, checkpoint and environment."""

    facts: Mapping[str, str]
    config: str
    entries: tuple[Entry, ...]


@dataclasses.dataclass(frozen=True)
class Source:
    """The provenance of a run: how it was trained, and the groups of its results."""

    run: Run
    training: Mapping[str, str]
    config: str
    groups: tuple[Group, ...]


def anchor(position: int, result: Result, run: Run) -> str:
    """The identifier of a result on the page."""
    return f"run{position + 1}-{run.results.index(result) + 1}"


def source(position: int, run: Run) -> Source:
    """The provenance of the run at a position on the page."""
    groups: dict[str, list[Result]] = {}
    for result in run.results:
        groups.setdefault(_pretty(_shared(result)), []).append(result)
    return Source(
        run,
        _training(run),
        _pretty(run.config.get("experiment", {})),
        tuple(_group(position, run, results) for results in groups.values()),
    )


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) if value else ""


def _text(value: Any) -> str:
    if value is None or value == "" or value == {}:
        return _UNKNOWN
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    return str(value)


def _shared(result: Result) -> dict[str, Any]:
    names = (
        "command", "versions", "device", "matmul_precision", "key", "checkpoint_step", "weights",
        "config",
    )  # fmt: skip
    return {name: result.record.get(name) for name in names}


def _training(run: Run) -> dict[str, str]:
    facts = {
        "run directory": str(run.path),
        "network": f"{run.label} ({run.model})",
        "trained parameters": f"{run.parameters:,}" if run.parameters else _UNKNOWN,
        "command": _text(run.config.get("command")),
        "device": _text(run.config.get("device")),
        "versions": _text(run.config.get("versions")),
    }
    steps = [line for line in run.log if line["kind"] == "train"]
    if steps:
        last = steps[-1]
        facts["length"] = f"{count(int(last['step']), 'step')}, to epoch {last['epoch']:.4g}"
        speeds = sorted(
            float(line["examples_per_second"])
            for line in steps
            if isinstance(line.get("examples_per_second"), int | float)
        )
        if speeds:
            facts["speed"] = f"{speeds[len(speeds) // 2]:,.0f} images per second (median)"
    return facts


def _group(position: int, run: Run, results: Sequence[Result]) -> Group:
    shared = _shared(results[0])
    config = shared.pop("config")
    same = config == run.config.get("experiment")
    return Group(
        {name.replace("_", " "): _text(value) for name, value in shared.items()},
        "" if same else _pretty(config),
        tuple(Entry(anchor(position, r, run), r.name, _entry(r)) for r in results),
    )


def _draw_error(spread: Any) -> str:
    """The standard error of an accuracy over the decisions about the same images."""
    error = spread.get("standard_error") if isinstance(spread, Mapping) else None
    return f"{100 * error:.2g} points" if isinstance(error, int | float) else "–"


def _entry(result: Result) -> dict[str, str]:
    record = result.record
    condition = dict(result.condition)
    attack = condition.pop("attack", None)
    wall = record.get("wall_seconds")
    return {
        "condition": str(attack) if attack else _text(condition) if condition else result.kind,
        "data": f"{result.dataset.name}, {result.dataset.split}, {count(result.images, 'image')}",
        "protocol": result.protocol,
        "error over draws": _draw_error(record.get("between_draws")),
        "config hash": _text(record.get("config_hash")),
        "started": _text(record.get("started")),
        "wall time": duration(wall) if isinstance(wall, int | float) else _UNKNOWN,
    }
