"""Writes small run directories in the format of training and evaluation."""

import json
from pathlib import Path

import numpy as np

CLASSES = ("circle", "square", "cross")
LABELS = {
    "resnet18": "ResNet-18",
    "vone_resnet18": "VOneResNet-18",
    "alexnet": "AlexNet",
}
LADDER = {
    "linf": {"1/255": 1 / 255, "4/255": 4 / 255, "16/255": 16 / 255},
    "l2": {"0.15": 0.15, "0.6": 0.6},
    "l1": {"40": 40.0},
}
CORRUPTIONS = ("gaussian_noise", "contrast")
KINDS = ("clean", "attack", "corruption", "masking", "gallery", "v1", "training")
# Falls to nothing with a rising place on the ladder.
WEAK = {"clean": 0.9, "linf": (0.5, 0.1, 0.0), "l2": (0.4, 0.0), "l1": (0.2,)}
STRONG = {"clean": 0.85, "linf": (0.75, 0.4, 0.05), "l2": (0.7, 0.2), "l1": (0.5,)}


def write_run(
    root: Path,
    name: str,
    model: str,
    *,
    accuracy: dict = WEAK,
    kinds: tuple[str, ...] = KINDS,
    examples: int = 100,
    dataset: str = "shapes",
    classes: tuple[str, ...] = CLASSES,
    channels: int = 1,
    ladder: dict = LADDER,
    corruptions: tuple[str, ...] = CORRUPTIONS,
    severities: tuple[int, ...] = (1, 3),
    images: np.ndarray | None = None,
    size: int = 12,
    bank_size: int = 16,
    kernel_size: int = 9,
) -> Path:
    """Writes a run directory and returns it."""
    run = root / name
    (run / "results").mkdir(parents=True)
    stochastic = model.startswith("vone_")
    common = {
        "format": 1,
        "run": name,
        "model": {
            "name": model,
            "label": LABELS.get(model, model),
            "stochastic": stochastic,
            "parameters": 11181642,
        },
        "dataset": {
            "name": dataset,
            "split": "test",
            "examples": examples,
            "class_names": list(classes),
        },
        "protocol": {"noise": "fresh" if stochastic else "none", "draws": 10 if stochastic else 1},
        "config": {"model": {"name": model}, "seed": 0},
        "key": {"seed": 0, "stream": "evaluation / index in the dataset / purpose"},
        "checkpoint_step": 300,
        "weights": "0badcafe",
        "versions": {"python": "3.11.2", "jax": "0.10.2"},
        "device": "cpu",
        "matmul_precision": "highest",
        "command": f"python eval.py runs/{name}",
        "started": "2030-01-02T03:04:05+00:00",
        "wall_seconds": 12.5,
    }
    if "clean" in kinds:
        _measured(run, common, "clean", "clean", {}, accuracy["clean"], examples)
    for norm, budgets in ladder.items() if "attack" in kinds else ():
        for place, (label, eps) in enumerate(budgets.items()):
            draws = 10 if stochastic else 1
            condition = {
                "norm": norm,
                "eps": eps,
                "eps_label": label,
                "attack": f"PGD(norm='{norm}', eps={eps!r}, steps=64, step_size={eps / 32!r}, "
                f"random_start=False, eot_samples={draws})",
                "eot_samples": draws,
            }
            stem = f"attack-{norm}-{eps:.5f}"
            _measured(run, common, "attack", stem, condition, accuracy[norm][place], examples)
    for corruption in corruptions if "corruption" in kinds else ():
        for severity in severities:
            condition = {"corruption": corruption, "severity": severity}
            share = accuracy["clean"] * (1 - 0.12 * severity)
            stem = f"corruption-{corruption}-{severity}"
            _measured(run, common, "corruption", stem, condition, share, examples)
    rng = np.random.default_rng(3)
    if images is None:
        images = rng.random((6, size, size, channels)).astype(np.float32)
    if "masking" in kinds:
        write_checks(run, common)
    if "gallery" in kinds:
        _gallery(run, common, images)
    if "v1" in kinds and stochastic:
        _v1(run, common, images[0], bank_size, kernel_size)
    config = {key: common[key] for key in ("format", "versions", "device")}
    config |= {"experiment": common["config"], "command": "python train.py", "parameters": 11181642}
    (run / "config.json").write_text(json.dumps(config))
    if "training" in kinds:
        (run / "log.jsonl").write_text("".join(_log(accuracy["clean"])))
    return run


def edit(path: Path, **changes) -> None:
    """Replaces fields of a JSON file; a field given as None is removed."""
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: item for key, item in data.items() if item is not None}))


def _measured(run, common, kind, name, condition, share, examples):
    rng = np.random.default_rng(len(name) + sum(map(ord, name + common["run"])))
    draws = common["protocol"]["draws"]
    # Hard images are the same ones for all networks, as they are in life.
    ease = np.random.default_rng(0).random(examples) + 0.3 * rng.random(examples)
    right = np.zeros(examples)
    right[np.argsort(-ease, kind="stable")[: round(share * examples)]] = 1.0
    if draws > 1:
        right = np.clip(right * (1 - 0.2 * rng.random(examples)), 0, 1)
    correct = float(right.sum())
    p, z = correct / examples, 1.96
    centre = (p + z * z / (2 * examples)) / (1 + z * z / examples)
    half = z / (1 + z * z / examples) * np.sqrt(p * (1 - p) / examples + (z / (2 * examples)) ** 2)
    record = {
        **common,
        "kind": kind,
        "name": name,
        "condition": condition,
        "accuracy": p,
        "interval": [max(0.0, float(centre - half)), min(1.0, float(centre + half))],
        "interval_method": "Wilson 95 % over images",
        "sums": {"correct": correct, "seen": examples},
        "config_hash": "abc123",
    }
    arrays = {
        "index": np.arange(examples),
        "label": np.arange(examples) % len(CLASSES),
        "probability_correct": right,
        "loss": rng.random(examples).astype(np.float32),
    }
    if kind == "attack":
        arrays["distance"] = np.full(examples, condition["eps"], np.float32)
    _write(run, name, record, arrays)


def write_checks(run, common, verdicts=("pass", "warning")):
    """Writes checks for masked gradients with the given verdicts; they have no arrays."""
    checks = [
        {
            "name": f"check_{place}",
            "question": f"Question {place}?",
            "verdict": verdict,
            "numbers": {"accuracy, eps": 0.25, "standard error": None, "random": True, "n": 50},
            "meaning": f"Meaning {place}.",
        }
        for place, verdict in enumerate(verdicts)
    ]
    condition = {"norm": "linf", "eps": 4 / 255, "eps_label": "4/255", "attack": "PGD(...)",
                 "attacks": {"eps": "PGD('linf', 4/255)"}}  # fmt: skip
    record = {**common, "kind": "masking", "name": "masking-linf", "condition": condition}
    record |= {"checks": checks, "seen": 50}
    (run / "results" / "masking-linf.json").write_text(json.dumps(record))


def _write(run, name, record, arrays):
    (run / "results" / f"{name}.json").write_text(json.dumps(record))
    np.savez(run / "results" / f"{name}.npz", **arrays)


def _gallery(run, common, images):
    eps = 4 / 255
    rng = np.random.default_rng(len(common["run"]))
    noise = eps * np.sign(rng.standard_normal(images.shape))
    condition = {"norm": "linf", "eps": eps, "eps_label": "4/255", "attack": "PGD(...)"}
    record = {**common, "kind": "gallery", "name": "gallery-linf", "condition": condition}
    label = np.arange(len(images)) % len(CLASSES)
    arrays = {
        "images": images,
        "adversarial": np.clip(images + noise, 0, 1).astype(np.float32),
        "label": label,
        "predicted_clean": label,
        "predicted_adversarial": (label + rng.integers(0, 2, len(label))) % len(CLASSES),
        "eps": np.float32(eps),
    }
    _write(run, "gallery-linf", record, arrays)


def _v1(run, common, image, n, k):
    rng = np.random.default_rng(1)
    sf = 2.0 ** rng.uniform(-1, 2.4, n)
    theta, phase = rng.uniform(0, 180, n), rng.uniform(0, 360, n)
    nx, ny = 10.0 ** rng.uniform(-0.7, 0.1, (2, n))
    ppd = 28.0
    offset = np.arange(k) - k // 2
    x, y = np.meshgrid(offset, offset, indexing="ij")
    turn = np.deg2rad(theta)[:, None, None]
    along = x * np.cos(turn) + y * np.sin(turn)
    across = -x * np.sin(turn) + y * np.cos(turn)
    f = (sf / ppd)[:, None, None]
    envelope = np.exp(
        -0.5 * ((along * f / nx[:, None, None]) ** 2 + (across * f / ny[:, None, None]) ** 2)
    )
    carrier = 2 * np.pi * f * along + np.deg2rad(phase)[:, None, None]
    pair = [(envelope * np.cos(carrier + q)).astype(np.float32) for q in (0, np.pi / 2)]
    channel = rng.integers(0, image.shape[-1], n)
    pad = np.pad(image - 0.5, ((k // 2,) * 2, (k // 2,) * 2, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(pad, (k, k), axis=(0, 1))[::2, ::2]
    linear = [
        np.stack([np.tensordot(windows[:, :, channel[i]], q[i], 2) for i in range(n)], -1)
        for q in pair
    ]
    simple = n // 2
    clean = np.where(
        np.arange(n) < simple, np.maximum(linear[0], 0), np.hypot(*linear) / np.sqrt(2)
    )
    clean /= clean.mean()
    noisy = np.maximum(clean + rng.standard_normal(clean.shape) * np.sqrt(0.3 + clean), 0)
    arrays = {
        "kernels_in_phase": pair[0],
        "kernels_quadrature": pair[1],
        "sf": sf,
        "theta": theta,
        "phase": phase,
        "nx": nx,
        "ny": ny,
        "channel": channel,
        "image": image,
        "responses_clean": clean.astype(np.float32),
        "responses_noisy": noisy.astype(np.float32),
        "simple_channels": np.int64(simple),
        "pixels_per_degree": np.float64(ppd),
        "published_sf_edges": np.array([0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6]),
        "published_sf_weights": np.array([4.0, 4, 8, 25, 32, 26, 28]),
        "published_theta_edges": np.array([-22.5, 22.5, 67.5, 112.5, 157.5]),
        "published_theta_weights": np.array([66.0, 49, 77, 54]),
    }
    for name in ("nx", "ny"):
        arrays[f"published_{name}_edges"] = 10.0 ** np.array([-1, -0.76, -0.52, -0.28, -0.04, 0.2])
        arrays[f"published_{name}_weights"] = np.array([3.0, 22, 42, 12, 1])
    _write(run, "v1", {**common, "kind": "v1", "name": "v1", "condition": {}}, arrays)


def _log(final):
    for step in range(0, 301, 10):
        grown = 1 - 0.9 * np.exp(-step / 60)
        line = {
            "kind": "train",
            "step": step,
            "epoch": step / 100,
            "loss": 1.1 - grown,
            "accuracy": grown * final,
            "learning_rate": 0.1,
            "examples_per_second": 1000.0,
        }
        yield json.dumps(line) + "\n"
        if step % 100 == 0:
            kept = {key: line[key] for key in ("step", "epoch", "loss", "accuracy")}
            yield json.dumps({"kind": "validation", "seen": 100, **kept}) + "\n"
