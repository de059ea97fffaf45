"""Layers of a network recorded as if they were V1.

results/physiology-LAYER.json   the scores, distributions and settings
results/physiology-LAYER.npz    every value and tuning curve per unit, and the arrays of
                                ``physiology_experiments``
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vone_jax import arguments, models, neurophysiology, prng, results
from vone_jax.evaluation.job import Job
from vone_jax.evaluation.physiology_experiments import experiments, median
from vone_jax.evaluation.request import Request
from vone_jax.evaluation.run import Figure
from vone_jax.network import Network
from vone_jax.neurophysiology import reference_tables, stimuli, texture_proxies
from vone_jax.neurophysiology.comparison import BOOTSTRAPS
from vone_jax.neurophysiology.stimuli import MINIMUM_DEGREES
from vone_jax.neurophysiology.textures import TextureSet

# The field of view, in degrees, for a network whose own is too small for the stimuli.
_DEGREES = 8.0


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """The settings with which layers of a network are recorded.

    Attributes:
      layers: names as in ``method="features"``.
      display: size, field of view and channels of the images that the network gets.
      trials: presentations of each grating. A single one is made without the network's noise,
        several are made with it.
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


def recording(network: Network, request: Request) -> Recording:
    """Check a request for recordings of a network, and read the files that it names.

    A network without noise is shown each grating once.

    Raises:
      ValueError: for an unknown layer (the nearest is named), or a table or images that cannot be
        used.
      FileNotFoundError: for a table or folder that does not exist.
    """
    if network.features is None:
        raise ValueError(
            f"suite physiology records layers, but {network.name} has none to record; give its "
            "Network a function features(keys, images) -> {name: array}"
        )
    shown, layers = display(network), request.layers
    shapes = _feature_shapes(network, shown)
    stages = tuple(name for name, shape in shapes.items() if len(shape) == 4 and "." not in name)
    if not layers:
        layers = stages if network.v1 is None else ("v1",)
    elif layers == ("all",):
        layers = stages
    if not layers:
        raise ValueError(
            f"{network.name} has no convolutional stages; layers must be among {', '.join(shapes)}"
        )
    for name in layers:
        if name not in shapes:
            raise ValueError(
                f"layers must be among {', '.join(shapes)} of {network.name}, or all; "
                f"got {name!r}{arguments.nearest(name, shapes, cutoff=0.4)}"
            )
    values, tables = _load_references(request.references)
    images = None
    if request.textures is not None:
        try:
            key = prng.stream(jax.random.key(request.seed), "texture images")
            images = texture_proxies.load(request.textures, key)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"textures: {error}") from error
    return Recording(
        layers=tuple(dict.fromkeys(layers)),
        display=shown,
        trials=request.physiology_trials if network.stochastic else 1,
        references=values,
        tables=tables,
        textures=images,
    )


def display(network: Network) -> neurophysiology.Display:
    """The images that a network gets: of its own size, or larger ones if the stimuli need them.

    Pixels per degree are those of the network's V1. A network without V1 gets the pixels per degree
    of a VOneNet for images of its size.
    """
    channels = network.image_shape[-1]
    config = network.v1 or models.v1_config(network.image_size, channels)
    degrees, size = config.visual_degrees, config.image_size
    if degrees < MINIMUM_DEGREES:
        size = round(_DEGREES * config.pixels_per_degree)
        degrees = size / config.pixels_per_degree
    return neurophysiology.Display(degrees, size, channels)


@dataclasses.dataclass(frozen=True, eq=False)
class Layer(Figure):
    """One layer, recorded and scored.

    A layer that cannot be scored has a result with the reason, for instance that too few of its
    units respond to the stimuli.

    Attributes:
      recording: how layers are recorded.
      layer: one of its layers.
    """

    recording: Recording
    layer: str

    @property
    def name(self) -> str:
        return f"physiology-{self.layer}"

    def identity(self, job: Job, earlier: Sequence[results.Result]) -> results.Identity:
        # Gratings take the place of the images of a data set.
        recording = self.recording
        # Only the noise of a known module can be switched off.
        noisy = recording.trials > 1 or job.network.quiet().stochastic
        record = results.PhysiologyCondition(
            layer=self.layer,
            visual_degrees=float(recording.display.visual_degrees),
            image_size=recording.display.image_size,
            trials=recording.trials,
            noise="on" if noisy else "off",
            bootstraps=BOOTSTRAPS,
            references=recording.tables,
            textures=None if recording.textures is None else _texture_record(recording.textures),
        )
        gratings = sum(map(len, stimuli.all_sets()))
        return job.identity(
            self.name,
            record,
            dataset=results.Dataset("gratings", "MarquesEtAl2020", gratings),
            protocol=results.Protocol("fresh" if noisy else "none", recording.trials),
            key=results.Key(job.request.seed, "physiology / set of gratings / trial / grating"),
            # See ``neurophysiology.recording``.
            matmul_precision="highest",
        )

    def make(
        self, job: Job, earlier: Sequence[results.Result]
    ) -> tuple[results.Physiology, dict[str, np.ndarray]]:
        recording, device = self.recording, job.mesh.local_devices[0]
        # Each of several processes records the layer for itself; process 0 writes.
        network = job.network.placed(lambda weights: jax.device_put(weights, device))
        quiet = network.quiet().response_fn(self.layer)
        noisy = network.response_fn(self.layer)
        try:
            scores = neurophysiology.score(
                noisy if recording.trials > 1 else quiet,
                recording.display.visual_degrees,
                recording.display.image_size,
                recording.display.in_channels,
                prng.stream(jax.random.key(job.request.seed), "physiology"),
                selection_response_fn=quiet,
                trials=recording.trials,
                references=recording.references,
                texture_images=recording.textures,
            )
        except ValueError as error:
            reason = str(error).replace("response_fn", "the layer")
            if "selection_response_fn" in str(error):
                reason = "the layer draws noise that cannot be switched off; record one before it"
            return results.Physiology(f"not {results.SCORED}: {reason}"), {}
        key = prng.stream(jax.random.key(job.request.seed), "physiology experiments")
        medians, arrays = experiments(network, self.layer, scores, quiet, noisy, key)
        textures = recording.textures
        # The first channels of V1 are its simple cells.
        config = network.v1 if self.layer == "v1" else None
        simple = None if config is None else config.simple_channels
        fields = (
            scores.summary()
            | medians
            | {
                "simple_channels": simple,
                "textures": None if textures is None else _texture_medians(textures, scores),
            }
        )
        record = {"status": results.SCORED, "scores": fields}
        return results.from_json(record, results.Physiology), scores.arrays() | arrays


def _feature_shapes(network: Network, shown: neurophysiology.Display) -> dict[str, tuple[int, ...]]:
    """Shapes of the named activations, in processing order."""
    side = shown.image_size
    image = jax.ShapeDtypeStruct((1, side, side, shown.in_channels), np.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    names: list[str] = []

    assert network.features is not None
    traced = prng.trace(network.features, keys, image, "features", "neurophysiology.per_example")

    def features(function, keys, images):
        activations = function(keys, images)
        # JAX sorts the keys of a dictionary.
        names[:] = activations
        return dict(activations)

    try:
        shapes = jax.eval_shape(features, traced, keys, image)
    except Exception as error:
        error.add_note(
            f"The error is from features of {network.name}, which did not take an image of "
            f"{side} x {side} pixels. The suite physiology records layers with images of this "
            "size. Return convolutional or pooled layers only, since a flattened layer fits one "
            "size only."
        )
        raise
    return {name: shapes[name].shape for name in names}


def _load_references(paths: Sequence[Path]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The joined tables of neurons, and the SHA-1 of each by its file name."""
    values: dict[str, np.ndarray] = {}
    hashes: dict[str, str] = {}
    for path in paths:
        try:
            table = reference_tables.load(path)
        except ImportError as error:
            raise ValueError(f"references: {path} cannot be read ({error})") from error
        except FileNotFoundError as error:
            raise FileNotFoundError(f"references: there is no file {path}") from error
        except IsADirectoryError as error:
            raise ValueError(f"references: {path} is a directory, not a table") from error
        twice = sorted(values.keys() & table.keys())
        if twice:
            raise ValueError(f"references: {path} repeats {', '.join(twice)}; leave one table out")
        if (name := Path(path).name) in hashes:
            raise ValueError(f"references: two files are named {name}; rename one")
        values |= table
        hashes[name] = hashlib.sha1(Path(path).read_bytes()).hexdigest()
    return values, hashes


def _texture_record(textures: TextureSet) -> results.TextureImages:
    """The texture images for a result file; where they are stored does not matter."""
    return results.TextureImages(
        proxy=textures.is_proxy,
        families=tuple(textures.families),
        samples=textures.shape[1],
        sha1=hashlib.sha1(textures.images.tobytes()).hexdigest(),
    )


def _texture_medians(textures: TextureSet, scores: neurophysiology.Scores) -> dict[str, Any]:
    """The median of each texture property over the units that count, as JSON values."""
    known = neurophysiology.PROPERTIES
    names = [name for name in scores.counted if known[name].experiment == "texture"]
    return {
        "source": textures.source,
        "proxy": textures.is_proxy,
        "families": list(textures.families),
        "samples": textures.shape[1],
        "units": int(scores.counted[names[0]].sum()),
        "medians": {name: median(scores.per_unit[name]) for name in names},
    }
