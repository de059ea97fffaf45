"""The start from given weights: which weights a network takes, and the front end that they need.

A module (a convolution, a batch norm, a linear layer) is taken if the source has it with the same
variables in the same shapes, and is new otherwise. Classes are compared by name, if both sides name
them. If only their order differs, the head is reordered. If they differ, the head is new.
"""

import dataclasses
import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vone_jax import mesh as meshes
from vone_jax import models
from vone_jax.data.sources import are_numbers, class_identifier
from vone_jax.experiments import run_dir as run_dirs
from vone_jax.experiments.experiment import Experiment, ModelConfig
from vone_jax.experiments.state import TrainState, initial_state, matches
from vone_jax.progress import aligned
from vone_jax.training import setup as setups
from vone_jax.v1 import ImportedBank

if TYPE_CHECKING:
    from vone_jax.network import Network

# Names of a variable, from its collection down.
_Path = tuple[str, ...]
# Numbers of parameters: taken from the source; in the source, but not taken; drawn at random.
_COUNTS = ("taken", "left", "new")
# Fields of V1 that a file of weights may leave open.
_OPEN = {"stride", "k_exc", "image_mean", "image_std"}
_CELLS = {"simple_channels", "complex_channels"}


@dataclasses.dataclass(frozen=True, eq=False)
class InitialWeights:
    """The weights that a run takes from a network.

    Attributes:
      source: what the network is, in words.
      digest: SHA-256 digest of all variables of the source, in hexadecimal.
      taken: arrays by path.
      parts: numbers of parameters by part of both networks and by kind, the back end last.
      notes: what was assumed when the network was opened, and what differs in classes and front
        ends, one line each.
    """

    source: str
    digest: str
    taken: Mapping[_Path, np.ndarray]
    parts: Mapping[str, Mapping[str, int]]
    notes: tuple[str, ...]

    def put_into(self, state: TrainState, mesh: meshes.Mesh) -> TrainState:
        """Return the state with these weights instead of random ones."""
        leaves = flatten_dict(_collections(state)) | meshes.replicate(mesh, dict(self.taken))
        variables = unflatten_dict(leaves)
        batch_stats = variables.get("batch_stats", state.batch_stats)
        return dataclasses.replace(state, params=variables["params"], batch_stats=batch_stats)

    def table(self) -> str:
        """Return the parts as a table, with numbers of parameters, and the notes."""
        total = {n: sum(part[n] for part in self.parts.values()) for n in _COUNTS}
        rows: list[tuple[str, ...]] = [("parameters of", *_COUNTS)]
        for name, part in (*self.parts.items(), ("all", total)):
            rows.append((name, *(f"{part[n]:,}" for n in _COUNTS)))
        title = f"initial weights: {self.source}, sha256 {self.digest[:12]}"
        return "\n".join([title, *(f"  {line}" for line in (*aligned(rows, 1), *self.notes))])


def start_from(experiment: Experiment, spec: str, run_dir: Path | str | None = None) -> Experiment:
    """Return the experiment as one that starts from given weights, with the front end they need.

    If both networks are VOneNets or both are EVNets, it takes the settings of V1 and of the stage
    before V1 from the source, except the noise, at the same pixels per degree. (A tuned bank starts
    from the parameters of the source.) If both are base networks, it takes the mean and the
    standard deviation of images. Everything else stays as it is. So do these settings if the file
    does not state them: stride, gain, kinds of cells, mean and standard deviation.

    The weights are ``spec``, see ``vone_jax.open_network``. If the run in ``run_dir`` has started
    from them before, its front end is used, and the weights are not needed any more.

    Raises:
      ValueError: if the source has no weights or cannot be read.
      RunDirectoryError: if the run directory is damaged.
    """
    model, assumed = None, ()
    if run_dir is not None and (Path(run_dir) / run_dirs.CONFIG).exists():
        before = run_dirs.read_run(run_dir).experiment
        if before.initial_weights == spec:
            model = before.model.build(num_classes=1)
    if model is None:
        network = open_source(spec)
        model, assumed = network.model, network.assumed
    config = _with_front_end(experiment.model, model, assumed)
    return dataclasses.replace(experiment, initial_weights=spec, model=config)


def choose(setup: setups.Setup) -> InitialWeights:
    """Open the initial weights of an experiment, and choose those that its network takes.

    Raises a ``ValueError`` if nothing fits, or if a part that is new would be frozen.
    """
    experiment, spec = setup.experiment, setup.experiment.initial_weights
    assert spec is not None
    network = open_source(spec)
    theirs = {path: np.asarray(leaf) for path, leaf in flatten_dict(network.variables).items()}
    ours = _shapes(experiment, setup.model)
    notes = [f"source: {note}" for note in network.notes]
    given_front_end = _front_end(network.model)
    for name, value in _front_end(setup.model).items():
        if name in given_front_end and value != given_front_end[name]:
            if name.rpartition(".")[2] in network.assumed:
                notes.append(f"model.{name} stays {value}, since the source does not say it")
            else:
                notes.append(f"model.{name} is {value}, that of the source {given_front_end[name]}")
    kind = network.architecture or network.name
    known, given = (
        tuple(map(class_identifier, each.class_names)) for each in (setup.train_source, network)
    )
    head, fitting = _head(setup), dict(theirs)
    named = not are_numbers(known) and not are_numbers(given)
    reordered = known != given and sorted(known) == sorted(given) and len({*known}) == len(known)
    if reordered:
        order = np.array([given.index(name) for name in known])
        fitting |= {path: theirs[path][..., order] for path in head & theirs.keys()}
        notes.append("the classes of the source are ours in another order; its head was reordered")
    elif named and known != given:
        fitting = {path: leaf for path, leaf in theirs.items() if path not in head}
        notes.append("the source has other classes, so the head is new")
    taken = _fitting(fitting, ours)
    if not named and not reordered and head & taken.keys():
        notes.append("the head was taken by position, because the classes are not named")
    v1 = getattr(setup.model, "v1", None)
    if v1 is not None and v1.tuned and "v1.bank" in given_front_end:
        notes.append("the bank starts from that of the source, whose parameters count as new here")
    parts = _parts(ours, theirs, taken)
    if not any(part["taken"] for part in parts.values()):
        raise ValueError(
            f"initial_weights: nothing in {spec} ({kind}) fits {experiment.model.name} of "
            f"width {experiment.model.width}. It has {_some(theirs)}; this network has "
            f"{_some(ours)}. Choose the config, or model.name and model.width, that it was made "
            "with"
        )
    _check_frozen(experiment.freeze, ours, taken)
    return InitialWeights(f"{spec} ({kind})", _digest(theirs), taken, parts, tuple(notes))


def _check_frozen(
    freeze: Collection[str], ours: Mapping[_Path, Any], taken: Collection[_Path]
) -> None:
    """Raise a ``ValueError`` if kernels would stay as they are drawn."""
    new = [path for path in ours if path[-1] == "kernel" and path not in taken]
    for pattern in freeze:
        if parts := {_part(path) for path in new if matches(pattern, "/".join(path[1:]))}:
            raise ValueError(
                f"freeze {pattern} would leave {', '.join(sorted(parts))} at random values, since "
                "initial_weights has other classes or nothing that fits there; freeze only parts "
                "that are taken"
            )


def open_source(spec: str) -> "Network":
    """Open a network with ``vone_jax.open_network``. Without weights, raise a ``ValueError``."""
    # Imported here, because it takes long: wrong arguments are answered before.
    from vone_jax.network import open_network

    network = open_network(spec)
    if network.model is None:
        raise ValueError(
            f"initial_weights: only functions of {spec} are known, so its weights cannot be taken; "
            "give a run directory, a folder of vone_jax.convert, or a checkpoint file"
        )
    return network


def _with_front_end(config: ModelConfig, model: Any, assumed: Collection[str]) -> ModelConfig:
    """Return the network's description with the front end of a source of the same kind.

    The fields that are named in ``assumed`` keep the values of the description.
    """
    if config.v1 is not None and isinstance(model, models.VOneNet):
        same_kind = (model.subcortical is None) == (config.subcortical is None)
        if model.in_channels != config.in_channels or not same_kind:
            return config
        size = config.image_size
        degrees = size / model.v1.pixels_per_degree
        kept = {"noise", "noise_generator", "tuned"} | _OPEN & set(assumed)
        if model.v1.num_channels == config.v1.num_channels:
            kept |= _CELLS & set(assumed)

        def adapted(theirs: Any, ours: Any) -> Any:
            fields = {name: getattr(ours, name) for name in kept if hasattr(ours, name)}
            if fields.get("tuned"):
                # A file may have any frequencies; training keeps them below Nyquist's limit.
                fields["allow_aliasing"] = False
                if isinstance(theirs.bank, ImportedBank):
                    # Training changes Gabor parameters, so the kernels are replaced by them.
                    fields["bank"] = theirs.bank.parameters
            if theirs.image_size != size:
                fields |= {"image_size": size, "visual_degrees": degrees}
            return dataclasses.replace(theirs, **fields)

        before = model.subcortical and adapted(model.subcortical, config.subcortical)
        return dataclasses.replace(config, v1=adapted(model.v1, config.v1), subcortical=before)
    is_base = config.v1 is None and isinstance(model, models.BaseNetwork)
    if is_base and len(model.mean) == config.in_channels:
        fields = {name: getattr(model, name) for name in {"mean", "std"} - set(assumed)}
        return dataclasses.replace(config, **fields)
    return config


def _front_end(model: Any) -> dict[str, Any]:
    """Return the settings of a front end that the weights behind it depend on."""
    if isinstance(model, models.BaseNetwork):
        stem = {f"stem.{n}": getattr(model.stem, n, None) for n in ("stride", "pool")}
        return stem | {n: getattr(model, n) for n in ("mean", "std", "stem_noise", "stem_gain")}
    if not isinstance(model, models.VOneNet):
        return {}
    stages = {"v1": (*sorted(_CELLS), "stride", "k_exc", "image_mean", "image_std", "noise")}
    if model.subcortical:
        stages = {"subcortical": ("p_cells", "m_cells", "light_adaptation", "noise")} | stages
    kernels = hashlib.sha256(b"".join(phase.tobytes() for phase in model.v1.gabor_kernels()))
    fields = [(stage, name) for stage, names in stages.items() for name in names]
    return {f"{stage}.{name}": getattr(getattr(model, stage), name) for stage, name in fields} | {
        "v1.pixels_per_degree": f"{model.v1.pixels_per_degree:.6g}",
        "v1.bank": f"sha256 {kernels.hexdigest()[:12]}",
    }


def _collections(state: TrainState) -> dict[str, Any]:
    return {"params": state.params, "batch_stats": state.batch_stats}


def _shapes(experiment: Experiment, model: Any) -> dict[_Path, Any]:
    """Return the shape and type of every variable of a network by its path."""
    return flatten_dict(_collections(jax.eval_shape(lambda: initial_state(experiment, model))))


def _head(setup: setups.Setup) -> set[_Path]:
    """Return the paths of the variables whose shapes depend on the number of classes."""
    experiment = setup.experiment
    config = dataclasses.replace(experiment.model, num_classes=setup.num_classes + 1)
    larger = _shapes(experiment, dataclasses.replace(experiment, model=config).build())
    shapes = _shapes(experiment, setup.model)
    return {path for path, leaf in shapes.items() if larger[path].shape != leaf.shape}


def _fitting(theirs: Mapping[_Path, Any], ours: Mapping[_Path, Any]) -> dict[_Path, np.ndarray]:
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
        counts[_part(path)]["left"] += 0 if path in taken else leaf.size
    return dict(sorted(counts.items(), key=lambda part: part[0].startswith("back_end/")))


def _params(leaves: Mapping[_Path, Any]) -> dict[_Path, Any]:
    return {path: leaf for path, leaf in leaves.items() if path[0] == "params"}


def _part(path: _Path) -> str:
    """Name the part of a parameter: params/back_end/layer1_0/conv1/kernel is in back_end/layer1."""
    length = 3 if path[1] == "back_end" else 2
    return re.sub(r"(_\d+)+$", "", "/".join(path[1:length] if len(path) > 2 else path[1:]))


def _some(leaves: Mapping[_Path, Any]) -> str:
    """Name the first parameters of a network, with their shapes."""
    some = list(_params(leaves).items())[:3]
    return ", ".join(f"{'/'.join(path[1:])} {tuple(leaf.shape)}" for path, leaf in some)


def _digest(leaves: Mapping[_Path, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for path in sorted(leaves):
        digest.update(f"{'/'.join(path)} {leaves[path].dtype} {leaves[path].shape}\n".encode())
        digest.update(np.ascontiguousarray(leaves[path]).data)
    return digest.hexdigest()
