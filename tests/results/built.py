"""Results and runs that are built from numbers, without an evaluation."""

import dataclasses
import json

import numpy as np

from vone_jax import names, results

CLEAN = {"type": "Clean"}
NOISE = {"type": "NeuronalNoise", "scale": 0.35, "level": 0.07, "strength": 1.0}
FRESH = {"type": "Protocol", "noise": "fresh", "draws": 10, "decision": "single", "averaged": 1}
QUIET = FRESH | {"noise": "none", "draws": 1}
DATASET = {
    "name": "shapes", "split": "test", "examples": 100, "total": 1000, "classes": 10,
    "checksum": "abc",
}  # fmt: skip
# An entry of a number with its interval.
INTERVAL = {"value": 0.5, "low": 0.4, "high": 0.6}
# The accuracies of a base network and of a VOneNet.
WEAK = {"clean": 0.9, "linf": (0.5, 0.1, 0.0), "l2": (0.4, 0.0)}
STRONG = {"clean": 0.85, "linf": (0.75, 0.4, 0.05), "l2": (0.7, 0.2)}
RADII = {"linf": (1 / 255, 4 / 255, 16 / 255), "l2": (0.15, 0.6)}


def network(model="resnet18", **fields):
    """The network part of an identity; a VOneNet has noise."""
    noise = NOISE if model.startswith("vone_") else None
    inside = {"type": "VOneNet", "v1": {"k_exc": 25.0}} if noise else {"type": "BaseNetwork"}
    description = {"model": inside}
    return {
        "name": "run", "label": names.network_label(model), "description": description,
        "checksum": f"sum-of-{model}", "image_size": 64, "trained_noise": noise,
        "test_noise": noise, "source": "",
    } | fields  # fmt: skip


def attacked(norm, eps, **fields):
    """The condition of PGD with steps of eps/32."""
    attack = {"type": "PGD", "norm": norm, "eps": eps, "steps": 64, "step_size": eps / 32}
    return {"type": "Attacked", "attack": attack | fields, "attack_noise": "same", "kept": 0}


def corrupted(name, severity, form="float"):
    return {"type": "Corrupted", "corruption": name, "severity": severity, "form": form}


def result(condition, name="r", measured=None, arrays=None, **identity):
    """A result of any kind; ``identity`` replaces parts of its identity."""
    of = identity.get("network") or network()
    parts = {
        "condition": condition,
        "protocol": FRESH if of["test_noise"] else QUIET,
        "dataset": DATASET,
        "network": of,
        "seed": 0,
        "tag": "",
        "matmul_precision": "highest",
    }
    provenance = {
        "versions": {"python": "3.11.2", "jax": "0.10.2"},
        "command": "python eval.py runs/x",
        "device": "cpu",
        "started": "2030-01-02T03:04:05+00:00",
        "wall_seconds": 12.5,
        "parameters": 11181642,
        "class_names": [f"class {i}" for i in range(10)],
    }
    label = _label(condition, name)
    return results.Result(
        name, parts | identity, measured or {}, label, {}, [], provenance, arrays or {}
    )


def _label(condition, name):
    """The condition in words."""
    if condition["type"] == "Attacked":
        norm, eps = (condition["attack"][field] for field in ("norm", "eps"))
        return f"PGD {names.NORM_LABELS[norm]} {names.eps_label(norm, eps)}"
    if condition["type"] == "Corrupted":
        return f"{condition['corruption'].replace('_', ' ')}, severity {condition['severity']}"
    return "clean" if condition == CLEAN else name


def accuracy(condition, right, name="r", index=None, **identity):
    """A result with decisions (N, R), or with a number: the share of right ones of 100 images."""
    if isinstance(right, float):
        right = answers(right)
    right = np.asarray(right)
    right = right[:, None] if right.ndim == 1 else right
    index = np.arange(len(right)) if index is None else np.asarray(index)
    arrays = {"index": index, "label": index % 10, "right": right}
    measured = {"accuracy": dataclasses.asdict(results.accuracy(right))}
    identity.setdefault("dataset", DATASET | {"examples": len(right)})
    return result(condition, name, measured, arrays, **identity)


def answers(share, images=100, draws=10, seed=0):
    """Decisions (images, draws) of which about a share is right; some images are harder."""
    rng = np.random.default_rng(seed)
    probability = np.clip(share + 0.2 * rng.standard_normal((images, 1)), 0, 1)
    return rng.random((images, draws)) < (probability if 0 < share < 1 else share)


def measure(model="resnet18", accuracies=None, corruptions=(), **fields):
    """The results of a network: clean, a ladder for each norm, and corruptions at severity 3."""
    of = network(model, **fields)
    chosen = accuracies or (STRONG if model.startswith("vone_") else WEAK)
    made = [accuracy(CLEAN, chosen["clean"], "clean", network=of)]
    for norm in [norm for norm in RADII if norm in chosen]:
        for eps, share in zip(RADII[norm], chosen[norm], strict=False):
            name = f"attack-{norm}-{eps:.4g}"
            made.append(accuracy(attacked(norm, eps), share, name, network=of))
    for name in corruptions:
        stem = f"corruption-{name}-3"
        made.append(accuracy(corrupted(name, 3), chosen["clean"] / 2, stem, network=of))
    return made


def write(directory, made, name="run", experiment=None):
    """Write results as a run directory, with a config and a log if there is an experiment."""
    run = directory / name
    for each in made:
        results.write(each, run / "results")
    if experiment is not None:
        (run / "config.json").write_text(json.dumps({"experiment": experiment}))
        lines = [{"kind": "train", "step": s, "epoch": s / 10, "loss": 2 / (1 + s)} for s in
                 range(0, 30, 10)]  # fmt: skip
        (run / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return run
