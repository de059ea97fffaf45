"""The weights that a run takes from another network.

A module (a convolution, a batch norm, a linear layer) is taken if the source has it with the same
variables in the same shapes, and is new otherwise. Classes are compared by name, if both sides name
them. If only their order differs, the head is reordered. If they differ, the head is new.
"""

import dataclasses
import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vone_jax import files, models
from vone_jax.data.sources import are_numbers, class_identifier
from vone_jax.progress import aligned
from vone_jax.training.config import Experiment
from vone_jax.training.objective import Setup
from vone_jax.training.optimizer import matches
from vone_jax.training.step import TrainState

# Names of a variable, from its collection down.
_Path = tuple[str, ...]
# Numbers of parameters: taken from the source; in the source, but not taken; drawn at random.
_COUNTS = ("taken", "not taken", "new")


@dataclasses.dataclass(frozen=True, eq=False)
class InitialWeights:
    """The weights that a run takes from a network.

    Attributes:
      source: what the network is, in words.
      taken: arrays by path.
      parts: numbers of parameters by part of both networks and by kind, the back end last.
      notes: what was assumed when the network was opened, and what differs in classes and front
        ends, one line each.
    """

    source: str
    taken: Mapping[_Path, np.ndarray]
    parts: Mapping[str, Mapping[str, int]]
    notes: tuple[str, ...]

    def put_into(self, state: TrainState) -> TrainState:
        """Return the state with these weights instead of random ones."""
        flat = flatten_dict({"params": state.params, "batch_stats": state.batch_stats})
        leaves = cast(dict[_Path, jax.Array], flat)
        placed = {path: jax.device_put(x, leaves[path].sharding) for path, x in self.taken.items()}
        variables = unflatten_dict(leaves | placed)
        batch_stats = variables.get("batch_stats", state.batch_stats)
        return state.starting_at(variables["params"], batch_stats)

    @property
    def checksum(self) -> str:
        """A checksum of the arrays."""
        return files.weights_checksum(self.taken[path] for path in sorted(self.taken))

    def table(self) -> str:
        """Return the parts as a table, with numbers of parameters, and the notes."""
        total = {n: sum(part[n] for part in self.parts.values()) for n in _COUNTS}
        rows: list[tuple[str, ...]] = [("parameters of", *_COUNTS)]
        for name, part in (*self.parts.items(), ("all", total)):
            rows.append((name, *(f"{part[n]:,}" for n in _COUNTS)))
        lines = (*aligned(rows, 1), *self.notes)
        return "\n".join([f"initial weights: {self.source}", *(f"  {line}" for line in lines)])


def take_weights(
    experiment: Experiment, model: nn.Module, class_names: Sequence[str], source: Any
) -> InitialWeights:
    """Choose the weights of ``source`` that the network of an experiment takes.

    Args:
      experiment: resolved.
      model: its network.
      class_names: names of its classes, in the order of the logits.
      source: a network with weights, as ``vone_jax.open_network`` returns it.

    Raises:
      ValueError: if the source has no weights, if nothing fits, or if a part that is new would be
        frozen.
    """
    if source.model is None:
        raise ValueError(
            f"initial_weights: only functions of {source.name} are known, so its weights cannot be "
            "taken; give a run directory, a folder of vone_jax.convert, or a checkpoint file"
        )
    variables = source.variables
    if isinstance(source.model, models.Model):
        # A transformer's table of positions is resized.
        size = experiment.model.image_size
        _, variables = models.with_image_size(source.model, variables, size)
    theirs = {path: np.asarray(leaf) for path, leaf in flatten_dict(variables).items()}
    ours = _shapes(experiment, model)
    notes = [f"source: {note}" for note in source.notes]
    their_front_end = _front_end(source.model)
    for name, value in _front_end(model).items():
        if name in their_front_end and value != their_front_end[name]:
            notes.append(f"model.{name} is {value}, that of the source {their_front_end[name]}")
    our_classes, their_classes = (
        tuple(map(class_identifier, x)) for x in (class_names, source.class_names)
    )
    head, usable = _head(experiment, model), dict(theirs)
    named = not are_numbers(our_classes) and not are_numbers(their_classes)
    reordered = (
        our_classes != their_classes
        and sorted(our_classes) == sorted(their_classes)
        and len({*our_classes}) == len(our_classes)
    )
    if reordered and experiment.model.back_end is not None:
        raise ValueError(
            "initial_weights: the classes of the source are ours in another order, and which "
            "variables of your back_end belong to a class is not known; take its order of classes"
        )
    if reordered:
        order = np.array([their_classes.index(name) for name in our_classes])
        usable |= {path: theirs[path][..., order] for path in head & theirs.keys()}
        notes.append("the classes of the source are ours in another order; its head was reordered")
    elif named and our_classes != their_classes:
        usable = {path: leaf for path, leaf in theirs.items() if path not in head}
        notes.append("the source has other classes, so the head is new")
    taken = _matching_modules(usable, ours)
    if not named and not reordered and head & taken.keys():
        notes.append("the head was taken by position, because the classes are not named")
    parts = _parts(ours, theirs, taken)
    if not any(part["taken"] for part in parts.values()):
        raise ValueError(
            f"initial_weights: nothing in {source.name} fits {experiment.model.name} of width "
            f"{experiment.model.width}. It has {_first_parameters(theirs)}; this network has "
            f"{_first_parameters(ours)}. Choose the config, or model.name and model.width, that it "
            "was made with"
        )
    _check_frozen(experiment.freeze, ours, taken)
    return InitialWeights(source.name, taken, parts, tuple(notes))


def _check_frozen(
    freeze: Collection[str], ours: Mapping[_Path, Any], taken: Collection[_Path]
) -> None:
    """Raise a ``ValueError`` if kernels would stay as they are drawn."""
    new = [path for path in ours if path[-1] == "kernel" and path not in taken]
    for pattern in freeze:
        if parts := {_part(path) for path in new if matches("/".join(path[1:]), pattern)}:
            raise ValueError(
                f"freeze {pattern} would leave {', '.join(sorted(parts))} at random values, since "
                "initial_weights has other classes or nothing that fits there; freeze only parts "
                "that are taken"
            )


def _front_end(model: Any) -> dict[str, Any]:
    """Return the settings of a front end that the weights behind it depend on."""
    if isinstance(model, models.BaseNetwork):
        spec, stem = model.spec, model.spec.stem(model.dtype)
        form = {f"stem.{n}": getattr(stem, n, None) for n in ("stride", "pool")}
        return form | {n: getattr(spec, n) for n in ("mean", "std", "stem_noise", "stem_gain")}
    if not isinstance(model, models.VOneNet):
        return {}
    cells = ("simple_channels", "complex_channels")
    stages = {"v1": (*cells, "stride", "k_exc", "image_mean", "image_std", "noise")}
    if model.subcortical:
        stages = {"subcortical": ("p_cells", "m_cells", "noise")} | stages
    kernels = hashlib.sha256(b"".join(phase.tobytes() for phase in model.v1.gabor_kernels()))
    fields = [(stage, name) for stage, names in stages.items() for name in names]
    return {f"{stage}.{name}": getattr(getattr(model, stage), name) for stage, name in fields} | {
        "v1.pixels_per_degree": f"{model.v1.pixels_per_degree:.6g}",
        "v1.bank": f"sha256 {kernels.hexdigest()[:12]}",
    }


def _shapes(experiment: Experiment, model: Any) -> dict[_Path, Any]:
    """Return the shape and type of every variable of a network by its path."""
    return flatten_dict(jax.eval_shape(Setup(experiment, model).variables))


def _head(experiment: Experiment, model: nn.Module) -> set[_Path]:
    """Return the paths of the variables whose shapes depend on the number of classes.

    The back end of a user has its number of classes itself. There it is the variables of this size.
    """
    if (own := experiment.model).back_end is not None:
        leaves = _shapes(experiment, model).items()
        return {p for p, leaf in leaves if p[1] == "back_end" and leaf.shape[-1] == own.num_classes}
    classes = experiment.model.num_classes
    assert classes is not None
    config = dataclasses.replace(experiment.model, num_classes=classes + 1)
    larger = _shapes(experiment, dataclasses.replace(experiment, model=config).build())
    shapes = _shapes(experiment, model)
    return {path for path, leaf in shapes.items() if larger[path].shape != leaf.shape}


def _matching_modules(
    theirs: Mapping[_Path, Any], ours: Mapping[_Path, Any]
) -> dict[_Path, np.ndarray]:
    """Return the arrays of the modules in which all variables of both networks fit."""
    one, other = (
        {(path, leaf.shape, leaf.dtype) for path, leaf in net.items()} for net in (ours, theirs)
    )
    # A module is named by its path without the collection and the variable.
    unfit = {path[1:-1] for path, *_ in one ^ other}
    return {path: leaf for path, leaf in theirs.items() if path[1:-1] not in unfit}


def _parts(
    ours: Mapping[_Path, Any], theirs: Mapping[_Path, Any], taken: Mapping[_Path, Any]
) -> dict[str, dict[str, int]]:
    """Count the parameters of each part of both networks: a stem, a stage, a last layer."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(_COUNTS, 0))
    for path, leaf in _params(ours).items():
        counts[_part(path)]["taken" if path in taken else "new"] += leaf.size
    for path, leaf in _params(theirs).items():
        counts[_part(path)]["not taken"] += 0 if path in taken else leaf.size
    return dict(sorted(counts.items(), key=lambda part: part[0].startswith("back_end/")))


def _params(leaves: Mapping[_Path, Any]) -> dict[_Path, Any]:
    return {path: leaf for path, leaf in leaves.items() if path[0] == "params"}


def _part(path: _Path) -> str:
    """Name the part of a parameter: params/back_end/layer1_0/conv1/kernel is in back_end/layer1."""
    length = 3 if path[1] == "back_end" else 2
    return re.sub(r"(_\d+)+$", "", "/".join(path[1:length] if len(path) > 2 else path[1:]))


def _first_parameters(leaves: Mapping[_Path, Any]) -> str:
    """Name the first parameters of a network, with their shapes."""
    some = list(_params(leaves).items())[:3]
    return ", ".join(f"{'/'.join(path[1:])} {tuple(leaf.shape)}" for path, leaf in some)
