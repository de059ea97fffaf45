"""Results, runs and run directories that are built from numbers, for cases that are rare."""

import dataclasses
import json

import numpy as np

from vone_jax import names, results

CLASSES = ("circle", "square", "cross", *"abcdefg")
NOISE = results.Noise("neuronal", 0.35, 0.07)
FRESH, QUIET = results.Protocol("fresh", 10), results.Protocol("none", 1)
CLEAN = results.CleanCondition()
# The radii of each norm, ascending.
LADDER = {"linf": (1 / 255, 4 / 255, 16 / 255), "l2": (0.15, 0.6), "l1": (40.0,)}
WEAK = {"clean": 0.9, "linf": (0.5, 0.1, 0.0), "l2": (0.4, 0.0), "l1": (0.2,)}
STRONG = {"clean": 0.85, "linf": (0.75, 0.4, 0.05), "l2": (0.7, 0.2), "l1": (0.5,)}
COMMON = names.COMMON_CORRUPTIONS


def network(model="resnet18", **fields):
    """A network; a VOneNet has noise."""
    stochastic = model.startswith("vone_")
    noise = NOISE if stochastic else None
    values = {
        "name": model,
        "label": names.network_label(model),
        "stochastic": stochastic,
        "parameters": 11181642,
        "weights": "0badcafe",
        "checkpoint_step": 300,
        "trained_noise": noise,
        "test_noise": noise,
        "config": {"model": {"name": model}},
    }
    return results.Network(**values | fields)


def attacked(norm, eps, *, draws=1, name="PGD", noise="same", **fields):
    """The condition of an attack with steps of eps/32."""
    fields = {"steps": 64, "step_size": eps / 32, "eot_samples": draws} | fields
    attack = results.Attack(name, norm, eps, fields)
    return results.AttackCondition((attack,), noise, draws)


def corrupted(name, severity, form="float"):
    return results.CorruptionCondition(name, severity, form)


def result(condition, measured=None, arrays=None, *, of=None, name="r", protocol=None, **fields):
    """A result of any kind."""
    of = of or network()
    usual = FRESH if of.stochastic else QUIET
    dataset = results.Dataset("shapes", "test", 100, class_names=CLASSES)
    provenance = results.Provenance(
        versions={"python": "3.11.2", "jax": "0.10.2"},
        command="python eval.py runs/x",
        device="cpu",
        started="2030-01-02T03:04:05+00:00",
        wall_seconds=12.5,
    )
    values = {
        "name": name,
        "run": "run",
        "network": of,
        "dataset": dataset,
        "condition": condition,
        "protocol": protocol or usual,
        "key": results.Key(0, "evaluation / index / purpose"),
        "matmul_precision": "highest",
        "provenance": provenance,
        "measured": measured,
        "arrays": arrays or {},
    }
    return results.Result(**values | fields)


def accuracy(condition, correct, index=None, *, of=None, protocol=None, **fields):
    """A result with the given probabilities of being right.

    Args:
      condition: clean, attack or corruption.
      correct: one for each image; a number: ``answers`` with this mean.
      index: of the images in the data set; False: no arrays.
      fields: of the result, as in ``change``; ``of`` is its network.
    """
    correct = answers(correct) if isinstance(correct, float) else np.asarray(correct, float)
    index = np.arange(len(correct)) if index is None else index
    share = float(correct.mean())
    measured = results.Accuracy(
        share,
        results.wilson(float(correct.sum()), len(correct)),
        float(correct.sum()),
        len(correct),
    )
    arrays = {}
    if index is not False:
        arrays = {
            "index": np.asarray(index),
            "label": np.arange(len(correct)) % len(CLASSES),
            "probability_correct": correct,
        }
    dataset = results.Dataset("shapes", "test", len(correct), class_names=CLASSES)
    made = result(condition, measured, arrays, of=of, protocol=protocol, dataset=dataset)
    return change(made, **fields)


def gallery(labels, side=12, model="resnet18", selection="spread", seed=0, attack=None):
    """A gallery of random images."""
    attack = attack or attacked("linf", 4 / 255).attack
    originals = np.random.default_rng(3).random((len(labels), side, side, 3)).astype(np.float32)
    signs = np.sign(np.random.default_rng(seed).standard_normal(originals.shape))
    labels = np.array(labels)
    arrays = {
        "images": originals,
        "adversarial": np.clip(originals + 4 / 255 * signs, 0, 1).astype(np.float32),
        "label": labels,
        "predicted_clean": labels,
        "predicted_adversarial": (labels + 1) % 3,
    }
    condition = results.GalleryCondition(attack, len(labels), selection=selection)
    return result(condition, arrays=arrays, of=network(model), name="gallery")


def answers(share, examples=100, seed=0, spread=0.0):
    """Probabilities of being right with (about) a mean; hard images are so for all networks."""
    rng = np.random.default_rng(seed)
    ease = np.random.default_rng(0).random(examples) + 0.3 * rng.random(examples)
    right = np.zeros(examples)
    right[np.argsort(-ease, kind="stable")[: round(share * examples)]] = 1.0
    return np.clip(right * (1 - spread * rng.random(examples)), 0, 1)


def measure(model, accuracies=WEAK, *, corruptions=(), severities=(1, 3), examples=100, **fields):
    """The results of a network: clean, attacks of ``LADDER`` and corruptions."""
    of = fields.pop("of", None) or network(model)
    draws, spread = (10, 0.2) if of.stochastic else (1, 0.0)
    made = []

    def add(name, condition, share):
        correct = answers(share, examples, seed=sum(map(ord, name + model)), spread=spread)
        made.append(accuracy(condition, correct, of=of, name=name, **fields))

    if "clean" in accuracies:
        add("clean", CLEAN, accuracies["clean"])
    for norm in names.NORMS:
        for eps, share in zip(LADDER[norm], accuracies.get(norm, ()), strict=False):
            add(f"attack-{norm}-{eps:.5f}", attacked(norm, eps, draws=draws), share)
    for place, corruption in enumerate(corruptions):
        for severity in severities:
            share = accuracies["clean"] * (1 - 0.12 * severity - 0.01 * place)
            add(f"corruption-{corruption}-{severity}", corrupted(corruption, severity), share)
    return made


def run(made, name="run", **fields):
    """A run in memory."""
    first = made[0].network
    values = {
        "path": name,
        "name": name,
        "label": first.label,
        "model": first.name,
        "stochastic": first.stochastic,
        "parameters": first.parameters,
        "config": {},
        "log": (),
        "results": made,
        "gaps": (),
        "warnings": (),
    }
    return results.Run(**values | fields)


def judged(model, *measured, label=""):
    """A run in memory with an accuracy in each condition.

    Args:
      measured: (condition, correct, name of the result), and maybe other fields of the result.
    """
    of = network(model)
    made = [
        accuracy(condition, correct, **{"of": of, "name": name} | dict(*fields))
        for condition, correct, name, *fields in measured
    ]
    return run(made, label or model, label=label or of.label)


def pair(base=WEAK, vone=STRONG, **fields):
    """Runs of a network and its VOneNet with accuracies as in ``measure``."""
    return [run(measure("resnet18", base, **fields), "base"),
            run(measure("vone_resnet18", vone, **fields), "vone")]  # fmt: skip


def change(one, **fields):
    """A copy of a result, or of a run with all of its results, with other fields.

    Fields of the network, the data set and the condition have their own names. The data set may be
    given by its name.
    """
    if isinstance(one, results.Run):
        return dataclasses.replace(one, results=[change(each, **fields) for each in one.results])
    if isinstance(fields.get("dataset"), str):
        fields["dataset"] = dataclasses.replace(one.dataset, name=fields["dataset"])
    for part in ("network", "dataset", "condition"):
        whole = fields.pop(part, getattr(one, part))
        known = {f.name for f in dataclasses.fields(whole)} - {"kind", "name"}
        own = {name: fields.pop(name) for name in list(fields) if name in known}
        one = dataclasses.replace(one, **{part: dataclasses.replace(whole, **own)})
    return dataclasses.replace(one, **fields)


def write(root, made, name="run"):
    """Write a run directory and return it."""
    directory = root / name
    directory.mkdir(parents=True, exist_ok=True)
    for one in made:
        results.write(directory / "results", one)
    config = {"experiment": made[0].network.config, "command": "python train.py"}
    (directory / "config.json").write_text(json.dumps(config))
    write_log(directory)
    return directory


def log(*steps):
    """The lines of a training log at some steps."""
    lines = []
    for step in steps:
        grown = 1 - 0.9 * np.exp(-step / 60)
        line = {"step": step, "epoch": step / 100, "loss": 1.1 - grown, "accuracy": grown}
        speed = {"learning_rate": 0.1, "examples_per_second": 1000.0}
        lines.append({"kind": "train"} | line | speed)
        if step % 100 == 0:
            lines.append({"kind": "validation", "seen": 100} | line)
    return lines


def write_log(directory):
    """Write the log of a training of 300 steps into a run directory."""
    lines = [json.dumps(each) + "\n" for each in log(*range(0, 301, 10))]
    (directory / "log.jsonl").write_text("".join(lines))


def edit(path, **changes):
    """Replace fields of a JSON file, "a.b" within objects; None removes a field."""
    content = json.loads(path.read_text())
    for name, value in changes.items():
        *outer, last = name.split("__")
        place = content
        for key in outer:
            place = place[int(key) if isinstance(place, list) else key]
        if value is None:
            del place[last]
        else:
            place[last] = value
    path.write_text(json.dumps(content))
