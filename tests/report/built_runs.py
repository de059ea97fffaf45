"""Run directories with results of many forms, built from numbers, also of kinds of a user."""

import numpy as np

from tests.results import built
from vone_jax import results

LEVELS = (1, 0.1, 0.02)
LAYERS = ("v1", "bottleneck", "logits")


def shares(values, column, name="accuracy", **columns):
    """A number at each value of a column, with the interval of ten points at either side."""
    return {
        at: {"number": name, column: at, "unit": "share", "value": value, "low": value - 0.1,
             "high": value + 0.1, **columns}
        for at, value in values.items()
    }  # fmt: skip


def beside_humans(of=None):
    """A network at levels and in layers, beside the curve of observers and beside chance."""
    people = [
        {"network": "9 observers", "number": "accuracy", "level": at, "value": share}
        for at, share in zip(LEVELS, (0.9, 0.7, 0.3), strict=True)
    ]
    chance = {"network": "chance", "number": "accuracy", "value": 0.0625}
    curve = dict(zip(LEVELS, (0.8, 0.5, 0.2), strict=True))
    levels = results.Lines(
        "accuracy", "level", order=LEVELS, share=True, about="Of nine observers."
    )
    made = [
        built.result({"condition": "dim rooms", "lamp": "red"}, shares(curve, "level"), of=of,
                     section="Dim rooms", views=[levels], references=[*people, chance])
    ]  # fmt: skip
    view = results.Lines("capacity", "layer", order=LAYERS)
    for place, layer in enumerate(LAYERS):
        number = {"capacity": {"value": 0.1 + place, "low": 0.0, "high": 3.0}}
        made.append(
            built.result({"condition": "shape", "layer": layer}, number, of=of, views=[view])
        )
    return made


def minimal(of):
    """A result with a number at one radius of several, and one that is not defined."""
    at = {"accuracy": {"eps": 4 / 255, "value": 0.25, "low": 0.2, "high": 0.3, "unit": "share",
                       "main": True}}  # fmt: skip
    condition = {"condition": "minimal", "attack": "FMN", "norm": "linf", "steps": 100}
    return built.result(condition, {"median distance": {}, **at}, of=of,
                        section="Attack", views=built.VIEWS["attack"])  # fmt: skip


def drawn(of, seed=0):
    """A result with a chart of its own, pictures side by side, and calibration by draws."""
    rng = np.random.default_rng(seed)
    arrays = {name: rng.random((2, 28, 28, 1)) for name in ("before", "after")}
    spec = {"mark": "bar", "data": {"values": [{"x": 1, "y": 2}]},
            "encoding": {"x": {"field": "x"}, "y": {"field": "y"}}}  # fmt: skip
    views = [
        results.Chart(spec, "Bars of a user.", "How it was drawn."),
        results.Pictures(("before", "after"), ("cat → dog", "dog → cat"), "Changed"),
        results.Lines("calibration error", "averaged draws", section="Calibration"),
    ]
    numbers = {
        k: {"number": "calibration error", "averaged draws": k, "value": 0.1 / k,
            "section": "Calibration"}
        for k in (1, 10)
    }  # fmt: skip
    return built.result({"condition": "drawn"}, numbers, arrays, of=of, views=views)


def checked(verdict="warning", of=None, **fields):
    """The answers of checks."""
    answers = {"verdict": verdict, "meaning": "More steps leave more accuracy."}
    condition = {"condition": "masking", "norm": "linf", "eps": 4 / 255}
    return built.result(
        condition, {"Do more steps do more?": answers, "Do fewer?": {"verdict": "pass"}}, of=of,
        section="Masked gradients", **fields,
    )  # fmt: skip


def everything(model):
    """Results of all forms of a network."""
    made = built.measure(model, corruptions=("fog", "gaussian_noise"))
    of = made[0].identity["network"]
    return [*made, minimal(of), drawn(of), checked(of=of), *beside_humans(of)]


def write(directory, models=("resnet18", "vone_resnet18"), results_of=everything):
    """Run directories of networks; returns their paths."""
    return [
        built.write(directory, results_of(model), model, experiment={"name": model, "seed": 0})
        for model in models
    ]
