"""Layers of a network recorded as if they were V1, and their result files.

results/physiology-LAYER.json   the scores, distributions and settings
results/physiology-LAYER.npz    every value and tuning curve per unit, and the arrays of
                                ``physiology_experiments``
"""

import dataclasses
import difflib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vone_jax import models, neurophysiology, prng
from vone_jax.evaluation import physiology_inputs, store
from vone_jax.evaluation.physiology_experiments import experiments
from vone_jax.evaluation.protocol import Protocol
from vone_jax.evaluation.runner import Job, now
from vone_jax.evaluation.subject import Subject
from vone_jax.models import VOneNet
from vone_jax.neurophysiology import stimuli
from vone_jax.neurophysiology.comparison import BOOTSTRAPS
from vone_jax.neurophysiology.stimuli import MINIMUM_DEGREES
from vone_jax.neurophysiology.textures import TextureSet

KIND = "physiology"
SCORED = "scored"

# What a network of a smaller field of view is shown instead, at its own pixels per degree.
_DEGREES = 8.0


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """How the layers of a network are recorded.

    Attributes:
      layers: names as in ``method="features"``.
      display: what the network sees.
      trials: presentations of each grating. One is made without the network's noise, more are
        made with it.
      references: values of neurons by property, beside the published counts.
      tables: file name -> SHA-1 of the tables that ``references`` are from.
      textures: images for the texture properties, if there are any.
    """

    layers: tuple[str, ...]
    display: neurophysiology.Display
    trials: int
    references: dict[str, np.ndarray]
    tables: dict[str, str]
    textures: TextureSet | None = None


def recording(
    subject: Subject,
    layers: Sequence[str] = (),
    trials: int = 1,
    references: Sequence[Path] = (),
    textures: Path | None = None,
    seed: int = 0,
) -> Recording:
    """What is asked for, checked.

    Args:
      subject: the network.
      layers: names; none stands for V1 of a VOneNet and all convolutional stages of another
        network, "all" for all of those of either.
      trials: presentations of each grating; a network without noise is shown each once.
      references: tables of the properties of neurons, see ``reference_tables``.
      textures: folder of images for the texture properties, see ``texture_proxies.load``.
      seed: of the crops of such images.

    Raises:
      ValueError: for a layer that there is not (the nearest is named), trials below 1, or a
        table or images that cannot be used.
      FileNotFoundError: for a table or folder that is not there.
    """
    if trials < 1:
        raise ValueError(f"physiology_trials must be >= 1, got {trials}")
    shown = display(subject)
    shapes = _feature_shapes(subject, shown)
    stages = tuple(name for name, shape in shapes.items() if len(shape) == 4 and "." not in name)
    if not layers:
        layers = ("v1",) if isinstance(subject.model, VOneNet) else stages
    elif tuple(layers) == ("all",):
        layers = stages
    for name in layers:
        if name not in shapes:
            close = difflib.get_close_matches(name, shapes, n=1, cutoff=0.4)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"layers must be among {', '.join(shapes)} of {subject.run}, or all; "
                f"got {name!r}{hint}"
            )
    values, tables = physiology_inputs.load_references(references)
    return Recording(
        layers=tuple(dict.fromkeys(layers)),
        display=shown,
        trials=trials if subject.stochastic else 1,
        references=values,
        tables=tables,
        textures=None if textures is None else physiology_inputs.load_textures(textures, seed),
    )


def display(subject: Subject) -> neurophysiology.Display:
    """What a network is shown: images of its own size, or larger ones if the stimuli need them.

    Pixels per degree are those of its V1, and for a network without one those of the V1 that a
    VOneNet for such images has.
    """
    if isinstance(subject.model, VOneNet):
        config = subject.model.v1
    else:
        config = models.v1_config(subject.image_size, subject.in_channels)
    degrees, size = config.visual_degrees, config.image_size
    if degrees < MINIMUM_DEGREES:
        size = round(_DEGREES * config.pixels_per_degree)
        degrees = size / config.pixels_per_degree
    return neurophysiology.Display(degrees, size, subject.in_channels)


def record_layer(job: Job, how: Recording, layer: str) -> dict[str, Any]:
    """Records and scores one layer and writes its result.

    A layer that cannot be scored, because too few of its units look at the stimuli or it does not
    respond, has a result that says so.

    Args:
      job: what to evaluate; its images and protocol are not used.
      how: see ``recording``.
      layer: one of its layers.

    Returns:
      The content of the result's JSON file.

    Raises:
      store.ResultError: if files of the same name are damaged or of another evaluation.
    """
    identity = _identity(job, how, layer)
    record = job.previous(identity)
    if record is not None:
        return record
    started, since = now(), time.perf_counter()
    # Of several processes each records the layer for itself; process 0 writes.
    variables = jax.device_put(job.subject.variables, job.devices.local_devices[0])
    quiet = models.response_fn(models.without_noise(job.subject.model), variables, layer)
    noisy = models.response_fn(job.subject.model, variables, layer)
    try:
        scores = neurophysiology.score(
            noisy if how.trials > 1 else quiet,
            how.display.visual_degrees,
            how.display.image_size,
            how.display.in_channels,
            prng.stream(jax.random.key(job.seed), KIND),
            selection_response_fn=quiet,
            trials=how.trials,
            references=how.references,
            texture_images=how.textures,
        )
    except ValueError as error:
        reason = str(error).replace("response_fn", "the layer")
        found: dict[str, Any] = {"status": f"not {SCORED}: {reason}"}
        arrays: dict[str, np.ndarray] = {}
    else:
        found = {
            "status": SCORED,
            "simple_channels": _simple_channels(job.subject, layer),
            # With lists for tuples, as the file has them.
            **json.loads(json.dumps(scores.summary())),
        }
        if how.textures is not None:
            found["textures"] = physiology_inputs.texture_summary(how.textures, scores)
        key = prng.stream(jax.random.key(job.seed), "physiology experiments")
        more, recorded = experiments(job.subject, layer, scores, quiet, noisy, key)
        found |= more
        arrays = scores.arrays() | recorded
    record = job.record(identity, started, time.perf_counter() - since) | found
    store.publish(job.results, record, arrays)
    return record


def line(record: dict[str, Any]) -> str:
    """A finished layer in one line."""
    layer, seconds = record["condition"]["layer"], record["wall_seconds"]
    if record["status"] != SCORED:
        return f"{layer}: {record['status']}, {seconds:.1f} s"
    return (
        f"{layer}: mean score {record['mean_score']:.3f}, {record['units']} units, {seconds:.1f} s"
    )


def table(records: Sequence[dict[str, Any]]) -> str:
    """The layers, the most V1-like first, with the score of each property."""
    scored = sorted(
        (record for record in records if record["status"] == SCORED),
        key=lambda record: -record["mean_score"],
    )
    lines = []
    if scored:
        layers = [record["condition"]["layer"] for record in scored]
        widths = [max(len(layer), 7) + 2 for layer in layers]
        lines.append("".join(["score".ljust(28), *map(str.rjust, layers, widths)]))
        lines.append("-" * len(lines[0]))
        rows = {"mean": [record["mean_score"] for record in scored]}
        for name, first in scored[0]["properties"].items():
            if first["score"] is not None:
                rows[name] = [record["properties"][name]["score"] for record in scored]
        for name, values in rows.items():
            texts = [f"{value:.3f}".rjust(w) for value, w in zip(values, widths, strict=True)]
            lines.append("".join([name.ljust(28), *texts]))
    lines += [line(record) for record in records if record["status"] != SCORED]
    return "\n".join(lines)


def _identity(job: Job, how: Recording, layer: str) -> dict[str, Any]:
    """The identity of a result; gratings stand in the place of the images of a data set."""
    condition = {
        "layer": layer,
        "visual_degrees": how.display.visual_degrees,
        "image_size": how.display.image_size,
        "trials": how.trials,
        "noise": "on" if how.trials > 1 else "off",
        "bootstraps": BOOTSTRAPS,
        "references": how.tables,
    }
    if how.textures is not None:
        condition["textures"] = physiology_inputs.identity(how.textures)
    name = "-".join(part for part in (KIND, layer, job.subject.suffix, job.tag) if part)
    return job.identity(KIND, name, condition) | {
        "name": name,
        "dataset": {"name": "gratings", "split": "MarquesEtAl2020", "examples": _num_gratings()},
        "protocol": Protocol("fresh", how.trials).record(how.trials > 1),
        "key": {"seed": job.seed, "stream": f"{KIND} / set of gratings / trial / grating"},
    }


def _num_gratings() -> int:
    sets = (
        stimuli.receptive_field_set(),
        stimuli.orientation_set(),
        stimuli.spatial_frequency_set(),
        stimuli.size_set(),
    )
    return sum(map(len, sets))


def _feature_shapes(subject: Subject, shown: neurophysiology.Display) -> dict[str, tuple[int, ...]]:
    """Shapes of the named activations, in processing order."""
    quiet = models.without_noise(subject.model)
    side = shown.image_size
    image = jax.ShapeDtypeStruct((1, side, side, shown.in_channels), np.float32)
    names: list[str] = []

    def features(variables, images):
        found: Any = quiet.apply(variables, images, method="features")
        # jax sorts the keys of a dictionary.
        names[:] = found
        return found

    shapes = jax.eval_shape(features, subject.variables, image)
    return {name: shapes[name].shape for name in names}


def _simple_channels(subject: Subject, layer: str) -> int | None:
    """How many of the layer's first channels are simple cells, if it has simple and complex."""
    if layer != "v1" or not isinstance(subject.model, VOneNet):
        return None
    return subject.model.v1.simple_channels
