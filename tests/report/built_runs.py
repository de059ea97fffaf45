"""Run directories with every kind of result, built from numbers."""

import dataclasses

import numpy as np

from tests.results import built

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


def kept(result, predicted):
    """The result of an attack that keeps adversarial images."""
    rng = np.random.default_rng(0)
    original = rng.random((2, 28, 28, 1)).astype(np.float32)
    arrays = dict(result.arrays) | {
        "kept": np.array([3, 7]), "original": original, "predicted": predicted,
        "adversarial": np.clip(original + 4 / 255, 0, 1),
    }  # fmt: skip
    return dataclasses.replace(result, arrays=arrays)


def psychophysics(of=None):
    """Results of a network beside human observers, three levels and four bands."""
    of = of or built.network()
    entries = {"1": 0.9, "0.1": 0.6, "0.02": 0.2}
    measured = {
        f"accuracy at {level}": {"value": v, "low": v - 0.1, "high": v + 0.1}
        for level, v in entries.items()
    }
    condition = {"type": "Psychophysics", "distortion": "contrast", "levels": []}
    distorted = built.result(condition, "psychophysics-contrast", measured, network=of)
    masked = {"bandwidth": {"value": 2.0}}
    masked = built.result({"type": "CriticalBands"}, "critical-bands", masked, network=of)
    bands = {"centres": [1.75, 3.5, 7, 14], "steps": [0, 2, 4, 1], "channel": [2.0, 6.0, 4.0]}
    return [
        dataclasses.replace(distorted, details={"levels": list(entries)}),
        dataclasses.replace(masked, details=bands),
    ]


def everything(model):
    """Results of all kinds of a network."""
    made = built.measure(model, corruptions=("fog", "gaussian_noise"))
    of = made[0].identity["network"]
    labels = made[0].arrays["label"]
    made[0] = dataclasses.replace(made[0], arrays=dict(made[0].arrays) | {"predicted": labels})
    made[2] = kept(made[2], (labels + 1) % 10)
    check = {
        "name": "steps", "question": "Do more steps do more?", "verdict": "warning",
        "meaning": "More steps leave more accuracy.", "numbers": {"eps": 0.5, "4 S steps": None},
    }  # fmt: skip
    masking = {"type": "Masking", "norm": "linf", "eps": 4 / 255}
    masked = built.result(masking, "masking-linf-0.0157", network=of)
    made.append(dataclasses.replace(masked, details={"checks": [check]}))
    minimal = {"type": "Minimal", "attack": {"type": "FMN", "norm": "linf", "eps": 0.1}}
    entry = {"value": 0.25, "low": 0.2, "high": 0.3, "eps": 4 / 255}
    measured = {
        "median distance": {"value": None}, "share of broken images": {"value": 0.4},
        "accuracy at 4/255": entry,
    }  # fmt: skip
    made.append(built.result(minimal, "minimal-fmn-linf", measured, network=of))
    made += psychophysics(of)
    if model.startswith("vone_"):
        made.append(built.result({"type": "FrontEnd"}, "v1", arrays=bank(), network=of))
        for name, score, units in (("v1", 0.9, 120), ("bottleneck", 0.95, 20)):
            recorded = built.result(
                {"type": "Physiology", "layer": name}, f"physiology-{name}",
                {"mean score": {"value": score}}, network=of,
            )  # fmt: skip
            made.append(dataclasses.replace(recorded, details=layer(score, units)))
    return made


def write(directory, models=("resnet18", "vone_resnet18"), results_of=everything):
    """Run directories of networks; returns their paths."""
    return [
        built.write(directory, results_of(model), model, experiment={"name": model, "seed": 0})
        for model in models
    ]
