"""The origin of each number, written once for the results that share it."""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vone_jax.report import comparison
from vone_jax.report.wording import count, dataset, duration, phrase
from vone_jax.results import Result, Run

_UNKNOWN = "not recorded"


class Entry(NamedTuple):
    """A result on the page, with the position of its network."""

    position: int
    run: Run
    result: Result

    @property
    def anchor(self) -> str:
        """The identifier of the result on the page."""
        return f"run{self.position + 1}-{self.run.results.index(self.result) + 1}"

    @property
    def detail(self) -> str:
        """Words for what tells the result from others of its network; empty for a usual one.

        They are a data set that is not the usual one, a replacement of the noise, other noise at
        the attack, and the name of the result if another result has all of these, too.
        """
        run, result = self.run, self.result
        known = _told(run, result)
        repeated = sum(_told(run, other) == known for other in run.of_kind(result.kind)) > 1
        return phrase(*known[1], result.name if repeated else "")


def _told(run: Run, result: Result) -> tuple[tuple, tuple[str, ...]]:
    """(what the page always states about a result, words that it states only where needed)"""
    attack = getattr(result.condition, "attack", None)
    always: tuple = (getattr(result.condition, "layer", ""), attack and attack.label)
    # The card of a gallery says no more, and only smallest changes name their attack.
    always += (result.protocol_label,) if result.kind != "gallery" else ()
    always += (attack and attack.name,) if result.kind == "minimal" else ()
    images = comparison.unusual_images(run, result)
    return always, (images, result.network.noise_change, result.attack_noise_label)


def entries(runs: Sequence[Run], kind: str = "") -> list[Entry]:
    """The results of a kind, or all, in the order of the networks."""
    return [
        Entry(position, run, result)
        for position, run in enumerate(runs)
        for result in run.results
        if kind in ("", result.kind)
    ]


def source(position: int, run: Run) -> dict[str, Any]:
    """The provenance of the run at a position on the page: its training, and its results.

    Results of one command, checkpoint and environment form a group.
    """
    groups = comparison.grouped(
        (_pretty(_shared(result)), Entry(position, run, result)) for result in run.results
    )
    return {
        "run": run,
        "training": _training(run),
        "config": _pretty(run.config.get("experiment", {})),
        "groups": [_group(run, members) for members in groups.values()],
    }


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) if value else ""


def _text(value: Any) -> str:
    if value in (None, "", {}, []):
        return _UNKNOWN
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def _shared(result: Result) -> dict[str, Any]:
    return {
        **{name: getattr(result.provenance, name) for name in ("command", "versions", "device")},
        "matmul precision": result.matmul_precision,
        "key": dataclasses.asdict(result.key),
        "checkpoint step": result.network.checkpoint_step,
        "weights": result.network.weights,
        "config": result.network.config,
    }


def _training(run: Run) -> dict[str, str]:
    facts = {
        "run directory": str(run.path),
        "network": f"{run.label} ({run.model})",
        "parameters": f"{run.parameters:,}" if run.parameters else _UNKNOWN,
        **{name: _text(run.config.get(name)) for name in ("command", "device", "versions")},
    }
    steps = [line for line in run.log if line["kind"] == "train"]
    if steps:
        last = steps[-1]
        facts["length"] = f"{count(int(last['step']), 'step')}, to epoch {last['epoch']:.4g}"
        speeds = [line.get("examples_per_second") for line in steps]
        speeds = [float(speed) for speed in speeds if isinstance(speed, int | float)]
        if speeds:
            facts["speed"] = f"{statistics.median(speeds):,.0f} images per second (median)"
    return facts


def _group(run: Run, members: Sequence[Entry]) -> dict[str, Any]:
    shared = _shared(members[0].result)
    config = shared.pop("config")
    facts = {name: _text(value) for name, value in shared.items()}
    entries = [(each, _facts(each.result)) for each in members]
    # What all results share stands once, above their table.
    for name, value in list(entries[0][1].items()):
        if len(entries) > 1 and all(values[name] == value for _, values in entries):
            facts[name] = value
            for _, values in entries:
                del values[name]
    return {
        "facts": facts,
        "config": "" if config == run.config.get("experiment") else _pretty(config),
        "entries": entries,
    }


def _facts(result: Result) -> dict[str, str]:
    wall = result.provenance.wall_seconds
    spread = getattr(result.measured, "between_draws", None)
    error = None if spread is None else spread.standard_error
    return {
        "condition": _condition(result),
        "data": f"{dataset(result.dataset.part)}, {count(result.images, 'image')}",
        "protocol": result.protocol_label,
        "error over draws": "–" if error is None else f"{100 * error:.2g} points",
        "identity": result.identity_hash,
        "started": _text(result.provenance.started),
        "wall time": _UNKNOWN if wall is None else duration(wall),
    }


def _condition(result: Result) -> str:
    """The attacks as code, or the fields of another condition."""
    if result.kind in ("attack", "gallery", "masking", "minimal"):
        attacks = result.condition if result.kind == "attack" else result.attack
        return phrase(str(attacks), result.attack_noise_label)
    fields = dataclasses.asdict(result.condition)
    fields = {n: v for n, v in fields.items() if n != "kind" and v not in (None, {}, ())}
    return _text(fields) if fields else result.kind
