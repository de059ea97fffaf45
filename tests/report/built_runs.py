"""Run directories with every kind of result, built from numbers."""

import dataclasses

import numpy as np

from tests.results import built
from vone_jax import results

EDGES = {"pref_or": [-22.5, 22.5, 67.5, 112.5, 157.5], "peak_sf": [0.5, 1.0, 2.0, 4.0, 8.0]}
LABELS = {"pref_or": "preferred orientation", "peak_sf": "preferred spatial frequency"}


def bank(seed=0, cells=8):
    """The arrays of the suite "v1"."""
    rng = np.random.default_rng(seed)
    edges = np.array([0.5, 1.0, 2.0, 4.0, 8.0])
    return {
        "kernels_in_phase": rng.standard_normal((cells, 9, 9)),
        "kernels_quadrature": rng.standard_normal((cells, 9, 9)),
        "sf": rng.uniform(0.5, 8, cells), "theta": rng.uniform(0, 180, cells),
        "phase": rng.uniform(0, 360, cells), "nx": rng.uniform(0.1, 1, cells),
        "ny": rng.uniform(0.1, 1, cells), "channel": np.zeros(cells, int),
        "image": rng.random((28, 28, 1)),
        "responses_clean": rng.random((14, 14, cells)),
        "responses_noisy": rng.random((14, 14, cells)),
        "simple_channels": np.int64(cells // 2), "pixels_per_degree": np.float64(28),
        "published_sf_edges": edges, "published_sf_weights": np.array([1.0, 2.0, 2.0, 1.0]),
    }  # fmt: skip


def layer(score, units=120):
    """The details of a scored layer."""
    properties = {}
    for name, edges in EDGES.items():
        shares = np.arange(1, len(edges)) / sum(range(len(edges)))
        properties[name] = {
            "label": LABELS[name], "unit": "deg", "edges": edges, "score": score, "units": units,
            "distribution": shares.tolist(), "reference_distribution": shares[::-1].tolist(),
            "source": f"Study of {LABELS[name]} (1999)",
        }  # fmt: skip
    properties["max_noise"] = {"label": "largest response to noise", "score": None, "units": None}
    return {"mean_score": score, "units": units, "properties": properties}


def recorded(units=6):
    """The arrays of a scored layer that the page draws."""
    rng = np.random.default_rng(0)
    axes = {"orientation": np.arange(12) * 15.0, "spatial_frequency": 2.0 ** np.arange(-1, 4),
            "diameter": 2.0 ** np.arange(6), "position": np.linspace(-2.5, 2.5, 21)}  # fmt: skip
    curves = {"orientation": 12, "spatial_frequency": 5, "size": 6}
    return {
        **{f"axis/{name}": axis for name, axis in axes.items()},
        **{f"curve/{name}": rng.random((count, units)) for name, count in curves.items()},
        "field/map": rng.random((21, 21, units)).astype(np.float16),
        "value/peak_sf": np.arange(1.0, units + 1), "value/pref_or": np.zeros(units),
    }  # fmt: skip


def kept(clean, attacked, changed=(3, 7)):
    """The results of clean images and of an attack that keeps four, of which it changed some."""
    rng = np.random.default_rng(0)
    original = rng.random((4, 28, 28, 1)).astype(np.float32)
    label = clean.arrays["label"]
    right = np.ones((len(label), 10), bool)
    wrong = np.isin(np.arange(len(label)), changed)
    arrays = {
        "kept": np.array([3, 5, 7, 9]), "original": original,
        "adversarial": np.clip(original + 4 / 255, 0, 1), "label": label,
        "index": attacked.arrays["index"], "right": right & ~wrong[:, None],
        "predicted": np.where(wrong, (label + 1) % 10, label),
    }  # fmt: skip
    before = dict(clean.arrays) | {"predicted": label, "right": right}
    return [
        dataclasses.replace(
            each, arrays=of, rows=[each.row | {"number": "accuracy"} | number(of["right"])]
        )
        for each, of in ((clean, before), (attacked, arrays))
    ]


def number(right):
    return dataclasses.asdict(results.accuracy(right))


def psychophysics(of=None):
    """Results of a network beside human observers, three levels and four bands."""
    entries = {"1": 0.9, "0.1": 0.6, "0.02": 0.2}
    numbers = {
        f"accuracy at {level}": {"value": v, "low": v - 0.1, "high": v + 0.1}
        for level, v in entries.items()
    }
    bands = {"centres": [1.75, 3.5, 7, 14], "steps": [0, 2, 4, 1], "channel": [2.0, 6.0, 4.0]}
    return [
        built.result(
            {"condition": "psychophysics", "corruption": "contrast"}, numbers, of=of,
            details={"levels": list(entries)},
        ),
        built.result(
            {"condition": "critical bands"}, {"bandwidth": {"value": 2.0}}, of=of, details=bands
        ),
    ]  # fmt: skip


CHECK = {
    "name": "steps", "question": "Do more steps do more?", "verdict": "warning",
    "meaning": "More steps leave more accuracy.", "numbers": {"eps": 0.5, "4 S steps": None},
}  # fmt: skip


def minimal(of):
    """A result with a number at one radius, and one at none."""
    made = built.result(
        {"condition": "minimal", "attack": "FMN", "norm": "linf", "steps": 100},
        {"median distance": {"value": None}, "share of broken images": {"value": 0.4}}, of=of,
    )  # fmt: skip
    at = {"number": "accuracy", "eps": 4 / 255, "value": 0.25, "low": 0.2, "high": 0.3}
    return dataclasses.replace(made, rows=[*made.rows, made.row | at])


def everything(model):
    """Results of all kinds of a network."""
    made = built.measure(model, corruptions=("fog", "gaussian_noise"))
    of = made[0].identity["network"]
    made[0], made[2] = kept(made[0], made[2])
    masking = {"condition": "masking", "norm": "linf", "eps": 4 / 255}
    made.append(built.result(masking, {"checks: warning": {"value": 1}}, of=of,
                             details={"checks": [CHECK]}))  # fmt: skip
    made += [minimal(of), *psychophysics(of)]
    if model.startswith("vone_"):
        made.append(built.result({"condition": "front end"}, arrays=bank(), of=of))
        for name, score, units in (("v1", 0.9, 120), ("bottleneck", 0.95, 20)):
            made.append(
                built.result(
                    {"condition": "physiology", "layer": name}, {"mean score": {"value": score}},
                    of=of, details=layer(score, units), arrays=recorded(),
                )
            )  # fmt: skip
    return made


def write(directory, models=("resnet18", "vone_resnet18"), results_of=everything):
    """Run directories of networks; returns their paths."""
    return [
        built.write(directory, results_of(model), model, experiment={"name": model, "seed": 0})
        for model in models
    ]
