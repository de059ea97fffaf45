"""Where numbers come from: what differs between the networks, and the facts of each result."""

import json
from typing import Any

from vone_jax.results import Result, Run, Runs, code
from vone_jax.results.result import leaves


def differing(runs: Runs) -> list[tuple[str, list[str]]]:
    """The facts in which the networks differ: name, and one text for each network."""
    described = [_described(run) for run in runs]
    names = dict.fromkeys(name for each in described for name in each)
    rows = [(name, [each.get(name, "–") for each in described]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _described(run: Run) -> dict[str, str]:
    """Facts of a network in words, by name."""
    first = run.results[0]
    network, made = first.identity["network"], first.provenance
    # The noise of a function is not known, only that it has one.
    unknown = "of its own function" if network["stochastic"] else "none"
    trained, noise = network["trained_noise"], network["test_noise"]
    told = {
        "directory": str(run.path),
        "parameters": f"{made['parameters']:,}" if "parameters" in made else "–",
        "image size": f"{network['image_size']} pixels",
        "noise of training": unknown if trained is None else code(trained),
        "noise": unknown if noise is None else code(noise),
        "weights": str(network["checksum"]),
        "checkpoint": f"step {made['checkpoint_step']}" if made.get("checkpoint_step") else "–",
        "opened as": "; ".join(made.get("notes", ())) or "–",
        "device": str(made.get("device", "–")),
    }
    versions = {f"version of {n}": str(each) for n, each in made.get("versions", {}).items()}
    experiment = {} if run.experiment is None else dict(leaves(run.experiment))
    model = experiment or dict(leaves(network["description"]))
    return told | versions | {name: value.strip('"') for name, value in model.items()}


def settings(run: Run) -> str:
    """The experiment that trained a network, or its description, as JSON."""
    shown = run.experiment or run.results[0].identity["network"]["description"]
    return json.dumps(shown, indent=1, ensure_ascii=False)


def facts(result: Result) -> dict[str, str]:
    """The provenance of a result in words."""
    identity, made, row = result.identity, result.provenance, result.row
    protocol = {n: v for n, v in identity["protocol"].items() if n != "type"}
    versions: dict[str, Any] = made.get("versions", {})
    return {
        "condition": code(identity["condition"]),
        "judged": ", ".join(f"{name} {value}" for name, value in protocol.items()),
        "data": ", ".join(str(row[name]) for name in ("dataset", "split") if name in row),
        "images": str(row.get("examples", "")),
        "seed": str(identity["seed"]),
        "precision": str(identity["matmul_precision"]),
        "weights": str(identity["network"]["checksum"]),
        "checkpoint": str(made.get("checkpoint_step") or ""),
        "command": str(made.get("command", "")),
        "device": str(made.get("device", "")),
        "started": str(made.get("started", "")),
        "seconds": f"{made.get('wall_seconds') or 0:.1f}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
