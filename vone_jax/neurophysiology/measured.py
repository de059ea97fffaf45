"""Conditions of a layer that is recorded as if it were V1, and pictures of V1.

``Physiology`` compares its tuning with that of neurons, ``ExplainedVariance`` predicts recordings,
and ``FrontEnd`` shows the kernels of a VOneNet.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from vone_jax import (
    arguments,
    dataclass_json,
    functions,
    models,
    neurophysiology,
    prng,
    results,
    v1,
)
from vone_jax.evaluation.condition import Condition, Number, Numbers, fields_of_row, number
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.evaluation.judging import Batch
from vone_jax.network import Network
from vone_jax.neurophysiology import (
    explained_variance,
    reference_tables,
    stimuli,
    textures,
)
from vone_jax.neurophysiology.properties import USER_TABLE
from vone_jax.neurophysiology.stimuli import MINIMUM_DEGREES

# Scores of fewer units are uncertain. The smallest sample of neurons behind a score has 87.
FEW_UNITS = 100
_ABOUT = (
    "Each layer was shown the drifting gratings of V1 electrophysiology. A score is the similarity "
    "of two distributions, of the layer's units and of neurons of "
    "macaque V1, divided by the similarity of the neurons to samples of themselves. A score of 1 "
    "says that the distributions differ no more than two samples of the neurons. Units that are "
    "spread evenly over all values score 0.73 on average, and random filters match some properties."
)
# The field of view, in degrees, for a network whose own is too small for the stimuli.
_DEGREES = 8.0


class _OfLayer(Condition):
    """A condition that shows a layer images of its own, and not those of a data set."""

    by_example: ClassVar[bool] = False
    examples: ClassVar[int | None] = 0
    layer: str

    def check(self, network: Network) -> None:
        shapes = _feature_shapes(network)
        if self.layer not in shapes:
            raise ValueError(
                f"layers must be among {', '.join(shapes)} of {network.name}; got "
                f"{self.layer!r}{arguments.nearest(self.layer, shapes, cutoff=0.4)}"
            )

    @property
    def files(self) -> dict[str, str]:
        """File -> a hash of its content."""
        return {}

    def identity(self) -> dict[str, Any]:
        return dataclass_json.encode(self) | {"files": self.files}


def _of_one_device(network: Network) -> Network:
    """Each of several processes records the layer for itself; process 0 writes."""
    return network.placed(lambda weights: jax.device_put(weights, jax.local_devices()[0]))


@dataclasses.dataclass(frozen=True)
class Physiology(_OfLayer):
    """A layer, recorded with gratings and scored against neurons of macaque V1.

    A layer that cannot be scored has a result with the reason, for instance that too few of its
    units respond to the stimuli.

    Attributes:
      layer: a name of ``Network.features``, such as "v1".
      trials: presentations of each grating. A single one is made without the network's noise,
        several are made with it.
      references: tables of neurons, CSV or NetCDF, for the properties without published counts.
      textures: folder of the images of Freeman & Ziemba (2013), for the texture properties.
    """

    layer: str
    trials: int = 1
    # Where files are stored does not matter: their hashes are in the identity.
    references: tuple[Path, ...] = dataclasses.field(default=(), metadata={"stored": False})
    textures: Path | None = dataclasses.field(default=None, metadata={"stored": False})

    def __post_init__(self):
        arguments.fields(self)

    section = "V1 physiology"

    def row(self) -> dict[str, Any]:
        gratings = sum(map(len, stimuli.all_sets()))
        row = {"condition": "physiology", **fields_of_row(self)}
        return row | {"dataset": "gratings", "examples": gratings}

    @property
    def files(self) -> dict[str, str]:
        hashes = {Path(path).name: _sha1([Path(path)]) for path in self.references}
        if len(hashes) < len(self.references):
            raise ValueError("references: two files have one name; rename one")
        if self.textures is not None:
            shown = sorted(path for path in Path(self.textures).rglob("*") if path.is_file())
            # Families of textures are told apart by the names of their files.
            names = [str(path.relative_to(self.textures)) for path in shown]
            hashes["textures"] = _sha1(shown, *names)
        return hashes

    def _trials(self, network: Network) -> int:
        """A network without noise is shown each grating once."""
        return self.trials if network.stochastic else 1

    def stimuli(self, network: Network) -> int:
        fields, *others = map(len, stimuli.all_sets())
        return fields + self._trials(network) * sum(others)

    def make(self, batch: Batch) -> dict[str, Any]:
        network, key = _of_one_device(batch.network), prng.stream(batch.root, "physiology")
        quiet, noisy = network.quiet().response_fn(self.layer), network.response_fn(self.layer)
        shown, trials = display(network), self._trials(network)
        values = _references(self.references)
        shown_textures = None
        if self.textures is not None:
            shown_textures = textures.load_freeman_ziemba(self.textures)
        try:
            scores = neurophysiology.score(
                noisy if trials > 1 else quiet,
                shown.visual_degrees,
                shown.image_size,
                shown.in_channels,
                key,
                selection_response_fn=quiet,
                trials=trials,
                references=values,
                texture_images=shown_textures,
            )
        except neurophysiology.NotScoredError as error:
            reason = str(error).replace("response_fn", "the layer")
            if "selection_response_fn" in str(error):
                reason = "the layer draws noise that cannot be switched off; record one before it"
            return {"details": np.array(json.dumps({"reason": reason}))}
        # The first channels of V1 are its simple cells.
        config = network.v1 if self.layer == "v1" else None
        simple = None if config is None else config.simple_channels
        details = scores.summary() | {"simple_channels": simple}
        return scores.arrays() | {"details": np.array(json.dumps(details))}

    def result(self, arrays: Mapping[str, np.ndarray], evaluation: Any) -> Numbers:
        # Here, and not above: Altair takes long to import, also for those who ask for help alone.
        from vone_jax.neurophysiology import pictures

        details = json.loads(str(arrays["details"]))
        if "reason" in details:
            warnings = (f"{self.layer} was not scored: {details['reason']}.",)
            return Numbers(warnings=warnings, details=details)
        properties = details["properties"]
        scored = {n: each for n, each in properties.items() if each["score"] is not None}
        few = min((each["units"] or 0 for each in scored.values()), default=0)
        warnings = []
        if few < FEW_UNITS:
            warnings.append(f"A score of {self.layer} stands on {few} units: read it with care.")
        # Layers compare by the published properties, whoever has a table of others.
        published = [properties[name] for name in neurophysiology.PUBLISHED]
        mean: dict[str, Any] = {"properties": len(published), **_neurons(*published)}
        measured: list[Number] = [number("mean score", details["mean_score"], **mean)]
        for each in scored.values():
            of: dict[str, Any] = {"property": each["label"], **_neurons(each)}
            measured.append(number("score", each["score"], **of))
        views: list[results.View] = [results.Lines("score", "property", about=_ABOUT)]
        for each in scored.values():
            shares = {"neurons of macaque V1": each["reference_distribution"]}
            shares[self.layer] = each["distribution"]
            unit = f", {each['unit']}" if each["unit"] else ""
            drawn = pictures.histogram(np.asarray(each["edges"]), shares, f"{each['label']}{unit}")
            views.append(results.Chart(drawn, f"{self.layer}. Neurons: {each['source']}"))
        if "field/map" in arrays:
            views += [results.Chart(each, f"Units of {self.layer}")
                      for each in pictures.of_units(arrays)]  # fmt: skip
        return Numbers(measured, views, warnings=warnings, details=details)


def _neurons(*scores: Mapping[str, Any]) -> dict[str, str]:
    """The column that keeps scores by a user's neurons apart from those by published ones."""
    own = any(each["source"] == USER_TABLE for each in scores)
    return {"neurons": USER_TABLE} if own else {}


@dataclasses.dataclass(frozen=True)
class ExplainedVariance(_OfLayer):
    """The variance of recorded V1 responses that a layer without noise explains.

    See ``neurophysiology.explained_variance``, which also describes the two versions of the score.

    Attributes:
      layer: a name of ``Network.features``, such as "v1".
      recordings: file of the responses and of the images that were shown: NPZ, NetCDF or CSV.
    """

    layer: str
    recordings: Path = dataclasses.field(metadata={"stored": False})

    section = "Explained variance"

    def row(self) -> dict[str, Any]:
        name = Path(self.recordings).name
        row = {"condition": "explained variance", **fields_of_row(self)}
        return row | {"recordings": name, "dataset": name}

    @property
    def files(self) -> dict[str, str]:
        return {"recordings": _sha1(explained_variance.recording_files(self.recordings))}

    def stimuli(self, network: Network) -> int:
        return len(explained_variance.load_recordings(self.recordings).strata)

    def make(self, batch: Batch) -> dict[str, Any]:
        network = _of_one_device(batch.network)
        degrees, size = network.visual_degrees, network.image_size
        if degrees is None:
            shown = display(network)
            degrees, size = shown.visual_degrees, shown.image_size
        found = explained_variance.of_layer(
            network.quiet().response_fn(self.layer),
            prng.stream(batch.root, "explained variance"),
            explained_variance.load_recordings(self.recordings),
            degrees,
            size,
            network.in_channels,
        )
        return {name: np.asarray(value) for name, value in vars(found).items()}

    def result(self, arrays: Mapping[str, np.ndarray], evaluation: Any) -> Numbers:
        from vone_jax.neurophysiology import pictures

        found = explained_variance.ExplainedVariance(
            arrays["correlations"], arrays["reliabilities"], float(arrays["chance"])
        )
        measured = [number("raw r", found.raw), number("ceiling", found.ceiling)]
        about = (
            "A regression predicts the responses of recorded neurons from those of a layer. Each "
            "point is a neuron: the correlation of prediction and recording on held-out images, "
            "against the reliability of the recording. Dashed: the square root of the reliability, "
            "above which no prediction is expected."
        )
        drawn = pictures.explained(found.correlations, found.reliabilities)
        views = [results.Chart(drawn, about=about)]
        try:
            scores = [
                number("explained variance", found.score(version), version=version)
                for version in reversed(explained_variance.VERSIONS)
            ]
        except ValueError as error:
            return Numbers(measured, views, warnings=(f"{self.layer} has no score: {error}.",))
        return Numbers(scores + measured, views)


@dataclasses.dataclass(frozen=True)
class FrontEnd(Condition):
    """The Gabor bank of a VOneNet and its responses to the first example, as arrays."""

    by_example: ClassVar[bool] = False
    examples: ClassVar[int | None] = 1
    section = "V1 front end"

    def check(self, network: Network) -> None:
        if network.v1 is None:
            raise ValueError(f"suite v1 is for VOneNets, {network.name} has no V1")

    def make(self, batch: Batch) -> dict[str, Any]:
        config = batch.network.v1
        bank, kernels = config.gabor_parameters(), config.gabor_kernels()
        keys = prng.fold(batch.keys("judge"), 0)
        call = jax.jit(lambda response_fn, *inputs: response_fn(*inputs))
        quiet, noisy = (
            call(each.response_fn("v1"), keys, batch.images)[0]
            for each in (batch.network.quiet(), batch.network)
        )
        return {
            "kernels_in_phase": kernels.in_phase,
            "kernels_quadrature": kernels.quadrature,
            **{name: getattr(bank, name) for name in ("sf", "theta", "phase", "nx", "ny")},
            "channel": bank.channel,
            "image": batch.images[0],
            "responses_clean": quiet,
            "responses_noisy": noisy,
            "simple_channels": np.int64(config.simple_channels),
            "pixels_per_degree": np.float64(config.pixels_per_degree),
            **_published(config),
        }

    def result(self, arrays: Mapping[str, np.ndarray], evaluation: Any) -> Numbers:
        from vone_jax.neurophysiology import pictures

        stored, views = pictures.bank(arrays)
        return Numbers([number("cells", len(arrays["sf"]))], views, arrays=stored)


def _published(config: v1.VOneBlockConfig) -> dict[str, np.ndarray]:
    """The published histograms, over the spatial frequencies of the block's configuration."""
    measured = "physiological" if config.distribution == "uniform" else config.distribution
    known = v1.distributions
    nx, ny = known.SIZE_X, known.SIZE_Y
    if measured.startswith("evnet"):
        nx, ny = known.EVNET_SIZE_X, known.EVNET_SIZE_Y
    histograms = {
        "sf": v1.spatial_frequency_histogram(measured, config.sf_min, config.sf_max),
        "theta": known.ORIENTATION,
        "nx": nx,
        "ny": ny,
    }
    arrays = {}
    for name, histogram in histograms.items():
        arrays[f"published_{name}_edges"] = np.asarray(histogram.edges)
        arrays[f"published_{name}_weights"] = np.asarray(histogram.weights)
    return arrays


def layers_of(network: Network, chosen: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The layers to record: those that are named, or V1 of a VOneNet, or all stages of another.

    "all" stands for the convolutional stages of either.

    Raises:
      ValueError: for a network whose layers cannot be seen, or without convolutional stages.
    """
    shapes = _feature_shapes(network)
    stages = tuple(name for name, shape in shapes.items() if len(shape) == 4 and "." not in name)
    if not chosen:
        chosen = stages if network.v1 is None else ("v1",)
    elif chosen == ("all",):
        chosen = stages
    if not chosen:
        raise ValueError(
            f"{network.name} has no convolutional stages; layers must be among {', '.join(shapes)}"
        )
    return tuple(dict.fromkeys(chosen))


def display(network: Network) -> neurophysiology.Display:
    """The images that a network gets: of its own size, or larger ones if the gratings need them.

    Pixels per degree are those that the network says, see ``Network.visual_degrees``, or those of
    its V1. Another network gets the pixels per degree of a VOneNet for images of its size.
    """
    channels = network.image_shape[-1]
    config = network.v1 or models.v1_config(network.image_size, channels)
    degrees, size = config.visual_degrees, config.image_size
    if network.visual_degrees is not None:
        degrees, size = network.visual_degrees, network.image_size
    if degrees < MINIMUM_DEGREES:
        pixels_per_degree = size / degrees
        size = round(_DEGREES * pixels_per_degree)
        degrees = size / pixels_per_degree
    return neurophysiology.Display(degrees, size, channels)


def _feature_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Shapes of the named activations, in processing order."""
    function = network.features
    if function is None:
        raise ValueError(
            f"suite physiology records layers, but {network.name} has none to record; give its "
            "Network a function features(keys, images) -> {name: array}"
        )
    shown = display(network)
    side = shown.image_size
    image = jax.ShapeDtypeStruct((1, side, side, shown.in_channels), np.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    names: list[str] = []

    def features(keys, images):
        adapter = "neurophysiology.per_example"
        activations = functions.call_with_keys(function, keys, images, "features", adapter)
        # JAX sorts the keys of a dictionary.
        names[:] = activations
        return dict(activations)

    shapes = jax.eval_shape(features, keys, image)
    return {name: shapes[name].shape for name in names}


def _references(paths: tuple[Path, ...]) -> dict[str, np.ndarray]:
    """The joined tables of neurons."""
    values: dict[str, np.ndarray] = {}
    for path in paths:
        table = reference_tables.load(path)
        if twice := sorted(values.keys() & table.keys()):
            raise ValueError(f"references: {path} repeats {', '.join(twice)}; leave one table out")
        values |= table
    return values


def _sha1(paths: list[Path], *names: str) -> str:
    """A hash of the content of files, and of their names."""
    digest = hashlib.sha1("\n".join(names).encode())
    for path in paths:
        digest.update(hashlib.sha1(path.read_bytes()).digest())
    return digest.hexdigest()


def physiology(
    evaluation: Evaluation, *, layers: tuple[str, ...] = (), neurons: tuple[Path, ...] = ()
) -> list[Condition]:
    """layers beside macaque V1: their tuning to gratings, and the variance that they explain

    ``neurons`` are tables of neurons, a folder of textures, and files of recordings (9,096 images a
    layer).
    """
    chosen = layers_of(evaluation.network, layers)
    shown = [path for path in neurons if path.is_dir()]
    recorded = [path for path in neurons if explained_variance.holds_recordings(path)]
    if len(shown) > 1:
        raise ValueError(f"neurons must have at most one folder of textures, got {shown}")
    tables = tuple(path for path in neurons if path not in shown + recorded)
    made: list[Condition] = [Physiology(layer, 1, tables, *shown) for layer in chosen]
    return made + [ExplainedVariance(layer, path) for layer in chosen for path in recorded]


def front_end(evaluation: Evaluation) -> list[Condition]:
    """the kernels of V1 and its responses, as pictures (2)"""
    return [] if evaluation.network.v1 is None else [FrontEnd()]


SUITES = {"physiology": physiology, "v1": front_end}
