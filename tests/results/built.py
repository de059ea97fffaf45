"""Results and runs that are built from numbers, without an evaluation."""

import dataclasses
import json

import numpy as np

from vone_jax import models, names, results

NOISE = {"type": "NeuronalNoise", "scale": 0.35, "level": 0.07, "strength": 1.0}
FRESH = {"type": "Protocol", "noise": "fresh", "draws": 10, "decision": "single", "averaged": 1}
QUIET = FRESH | {"noise": "none", "draws": 1}
DATASET = {
    "name": "shapes", "split": "test", "examples": 100, "total": 1000, "classes": 10,
    "fingerprint": "abc",
}  # fmt: skip
# An accuracy with its interval.
INTERVAL = {"value": 0.5, "low": 0.4, "high": 0.6, "unit": "share", "main": True}
# The accuracies of a base network and of a VOneNet.
WEAK = {"clean": 0.9, "linf": (0.5, 0.1, 0.0), "l2": (0.4, 0.0)}
STRONG = {"clean": 0.85, "linf": (0.75, 0.4, 0.05), "l2": (0.7, 0.2)}
RADII = {"linf": (1 / 255, 4 / 255, 16 / 255), "l2": (0.15, 0.6)}

CLEAN = {"condition": "clean"}
# How accuracies are drawn.
VIEWS = {
    "attack": [results.Lines("accuracy", "eps", "norm", "clean", share=True)],
    "corruption": [results.Lines("accuracy", "severity", "category", share=True)],
}


def network(model="resnet18", **fields):
    """The network part of an identity; a VOneNet has noise."""
    noise = NOISE if model.startswith("vone_") else None
    inside = {"type": "Spec", "name": model, "v1": {"k_exc": 25.0} if noise else None}
    description = {"model": inside, "mean": [0.5, 0.5]}
    return {
        "name": "run", "label": models.label(model), "description": description,
        "checksum": f"sum-of-{model}", "image_size": 64, "trained_noise": noise,
        "test_noise": noise, "stochastic": noise is not None, "source": "",
    } | fields  # fmt: skip


def attacked(norm, eps, attack="PGD", steps=64, **columns):
    """The columns of an attack."""
    return {
        "condition": "attack", "norm": norm, "eps": eps, "attack": attack, "steps": steps, **columns
    }  # fmt: skip


def corrupted(name, severity, **columns):
    row = {"condition": "corruption", "corruption": name, "severity": severity}
    known = names.category(name)
    return row | ({} if known == "others" else {"category": known}) | columns


def result(condition, numbers=None, arrays=None, of=None, dataset=DATASET, settings=None, **fields):
    """A result of any kind.

    Args:
      condition: the columns of its condition; "draws" is added for a network with noise.
      numbers: name of a number -> its columns, with "number" if several have one name.
      arrays: its arrays.
      of: the network, see ``network``.
      dataset: the data set of its identity.
      settings: fields of the attack, or of another condition, in its identity.
      **fields: parts of the identity, further "provenance", and "section", "views", "references",
        "details" and "warnings" of the result.
    """
    of = of or network()
    noisy = of["stochastic"] and condition.get("noise") != "none"
    given = {"seed": fields.get("seed", 0), "tag": fields.get("tag", "")}
    row = {"network": of["label"], **condition}
    row |= {name: dataset[name] for name in ("split", "examples")} | {"dataset": dataset["name"]}
    row |= {name: value for name, value in given.items() if value != ""}
    if noisy:
        row |= {"draws": 10} | ({"attack_draws": 10} if "attack" in condition else {}) | condition
    attack = {"type": condition.get("attack"), "norm": condition.get("norm")}
    attack |= {name: condition.get(name) for name in ("eps", "steps")}
    attack["eot_samples"] = row.get("attack_draws", 1)
    described = {"attack": attack | (settings or {})} if "attack" in condition else settings or {}
    provenance = {
        "versions": {"python": "3.11.2", "jax": "0.10.2", "vone_jax": "0.1"},
        "command": "python eval.py runs/x",
        "device": "cpu",
        "started": "2030-01-02T03:04:05+00:00",
        "wall_seconds": 12.5,
        "parameters": 11181642,
        "class_names": [f"class {i}" for i in range(10)],
        "logits_classes": 10,
    } | fields.pop("provenance", {})
    shown = ("section", "views", "references", "details", "warnings")
    shown = {name: fields.pop(name) for name in shown if name in fields}
    identity = {
        "condition": {"type": "Measured", **described},
        "protocol": FRESH if noisy else QUIET,
        "dataset": dataset,
        "network": of,
        "matmul_precision": "highest",
        **given,
    }
    measured = [{"number": name, **columns} for name, columns in (numbers or {}).items()]
    shown.setdefault("section", condition["condition"].capitalize())
    return results.Result(
        row, measured, identity | fields, provenance=provenance, arrays=arrays or {}, **shown
    )


def accuracy(condition, right, index=None, dataset=DATASET, arrays=None, **fields):
    """A result with decisions (N, R), or with a number: the share of right ones of 100 images.

    An attack is drawn against its radius from clean images on, and a corruption against its
    severity. Its accuracy is no main number.
    """
    if isinstance(right, float):
        right = answers(right)
    right = np.asarray(right)
    right = right[:, None] if right.ndim == 1 else right
    index = np.arange(len(right)) if index is None else np.asarray(index)
    stored = {"index": index, "label": index % 10, "right": right} | (arrays or {})
    columns = {"unit": "share", "of": "right", **dataclasses.asdict(results.accuracy(right))}
    if "corruption" not in condition:
        columns["main"] = True
        classes = fields.get("provenance", {}).get("logits_classes", 10)
        chance = {"network": "chance", "number": "accuracy", "value": 1 / classes}
        fields = {"references": [chance]} | fields
    fields = {"views": VIEWS.get(condition["condition"], ())} | fields
    dataset = dataset | {"examples": len(right)}
    return result(condition, {"accuracy": columns}, stored, dataset=dataset, **fields)


def answers(share, images=100, draws=10, seed=0):
    """Decisions (images, draws) of which about a share is right; some images are harder."""
    rng = np.random.default_rng(seed)
    probability = np.clip(share + 0.2 * rng.standard_normal((images, 1)), 0, 1)
    return rng.random((images, draws)) < (probability if 0 < share < 1 else share)


def measure(model="resnet18", accuracies=None, corruptions=(), of=None, **fields):
    """The results of a network: clean, a ladder for each norm, and corruptions at severity 3.

    Fields are those of ``result``; columns such as "noise" are those of every condition.
    """
    of = of or network(model)
    columns = {name: fields.pop(name) for name in ("noise", "decision") if name in fields}
    chosen = accuracies or (STRONG if model.startswith("vone_") else WEAK)
    made = [accuracy(CLEAN | columns, chosen["clean"], of=of, **fields)]
    for norm in [norm for norm in RADII if norm in chosen]:
        for eps, share in zip(RADII[norm], chosen[norm], strict=False):
            made.append(accuracy(attacked(norm, eps, **columns), share, of=of, **fields))
    for name in corruptions:
        condition = corrupted(name, 3, **columns)
        made.append(accuracy(condition, chosen["clean"] / 2, of=of, **fields))
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


def runs_of(*made, labels=None):
    """Runs of lists of results, without files."""
    labels = labels or [each[0].identity["network"]["label"] for each in made]
    return results.Runs(
        results.Run(path=f"runs/{label}", label=label, results=each)
        for label, each in zip(labels, made, strict=True)
    )
