"""The description of a training run: a tree of frozen dataclasses with everything it depends on.

An experiment prints as code, survives JSON unchanged and is checked when it is made, before
anything is computed. A field that follows from others is None until ``resolve`` fills it in.
Durations are in epochs unless a name says otherwise. One epoch has ``steps_per_epoch`` steps, see
``data.train_batches``, times the replays of a batch.

A config is a Python module that defines ``experiment`` or ``sweep``. A sweep names several
experiments; ``"sweep:label"`` is one of them.

For its JSON form see ``models.to_json``.
"""

import dataclasses
import inspect
import json
import os
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from vone_jax import arguments, data, files, models
from vone_jax.arguments import FromZero, Positive, Range, Seed, nearest
from vone_jax.attacks import Attack
from vone_jax.names import command
from vone_jax.training import objective
from vone_jax.training.objective import Objective
from vone_jax.training.optimizer import OptimizerConfig, Schedule
from vone_jax.v1 import ImportedBank

MatmulPrecision = Literal["default", "high", "highest"]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The images, and how they are read and changed."""

    # Data set, see data.load: "fashion_mnist_small", "tfds:<name>", "folder:<path>" or
    # "npz:<path>".
    source: str
    # Split to train on.
    train_split: str = "train"
    # Split to validate on during training. None is the first of validation, val, valid and test.
    eval_split: str | None = None
    # Directory of prepared TFDS sets. None is the default of TFDS.
    data_dir: str | None = None
    # Examples in a training batch, over all devices and processes.
    batch_size: int = 128
    # Examples in a validation batch. It affects memory and speed, not results.
    eval_batch_size: int = 256
    # Random transforms of the training images.
    augment: data.Augment = data.Augment()
    # Share of the shorter side that is kept when an image is resized without a random crop, above 0
    # and at most 1. None is 0.875 for photographs at 112 pixels or more, else 1.
    center_crop: Annotated[float | None, Range(most=1.0, above=True)] = None
    # Worker processes that decode and augment; 0 uses threads of this process.
    workers: FromZero = 0

    def __post_init__(self):
        arguments.fields(self)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One training run."""

    # Name of the experiment, and by default of its run directory.
    name: str
    # The network.
    model: models.Spec
    # The images.
    data: DataConfig
    # The optimiser.
    optimizer: OptimizerConfig = OptimizerConfig()
    # Length of the run in epochs, at most a million.
    epochs: Annotated[float, Range(most=1e6, above=True)] = 1.0
    # Length of the run in steps. If given, epochs is ignored.
    steps: int | None = None
    # Network whose weights the run starts from: a run directory, a folder of vone_jax.convert, or
    # a checkpoint file. What fits is taken, the rest is drawn at random. A command opens it.
    initial_weights: str | None = None
    # Parts of the network that are not trained, as patterns of names joined by "/", such as
    # back_end/layer1*; the star also stands for "/". Their parameters and batch statistics keep
    # their values, and their batch norms use the running values.
    freeze: tuple[str, ...] = ()
    # Changes of the batch, the loss or the gradient, applied in their order: objectives, ours or a
    # user's, and attacks or functions (keys, logits_fn, images, labels) -> images, on whose images
    # the network then learns. See ``training.Objective``.
    objectives: tuple[Objective | Attack, ...] = ()
    # Share of the moving means of the parameters and batch statistics that a step keeps, such as
    # 0.9999, in (0, 1). The means are validated and evaluated in place of the last values. None
    # keeps no means.
    ema_decay: Annotated[float | None, Range(most=1.0, above=True, below=True)] = None
    # Seed of all randomness: initialisation, order, augmentation, noise, dropout.
    seed: Seed = 0
    # Precision in which the layers after V1 compute. Parameters, batch statistics, V1 and the
    # loss are always float32.
    precision: Literal["float32", "bfloat16"] = "float32"
    # Precision of float32 matrix products and convolutions on GPU and TPU. A CPU always uses the
    # highest, and so does V1 in front of a network that computes in float32.
    matmul_precision: MatmulPrecision = "highest"
    # Number of parts of each batch whose gradients are computed one after another, with the
    # memory of one part. Batch norm then uses the statistics of one part at a time.
    accumulation_steps: int = 1
    # Store only the results of convolutions and matrix products of the forward pass, and compute
    # the rest again in the backward pass: less memory, more time, the same result.
    remat: bool = False
    # Largest number of steps whose loss, gradient or new state is NaN or infinite. Their updates
    # are never applied. One more ends the run.
    non_finite_limit: FromZero = 0
    # Epochs between validations, rounded to whole steps. There is one at the end of the run, too.
    evaluate_every: Positive = 1.0
    # Epochs between checkpoints, rounded to whole steps. There is one at the end of the run, too.
    checkpoint_every: Positive = 1.0
    # Number of the last checkpoints that are kept.
    keep_checkpoints: int = 2
    # Also keep the checkpoint with the highest validation accuracy. An evaluation of the run then
    # takes this one, instead of the last. Small sets overfit.
    keep_best: bool = False
    # Steps between two lines of the log.
    log_every: int = 50

    def __post_init__(self):
        arguments.directory_name("name", self.name)
        if self.initial_weights == "":
            raise ValueError("initial_weights must name a network, got ''")
        if isinstance(self.objectives, tuple):
            # A plain function may stand for an attack.
            several = map(objective.of, self.objectives)
            object.__setattr__(self, "objectives", tuple(several))
        if isinstance(self.freeze, str):
            raise ValueError(f"freeze must be a tuple of patterns, got {self.freeze!r}")
        arguments.fields(self)
        if self.data.batch_size % self.accumulation_steps:
            raise ValueError(
                f"accumulation_steps must divide data.batch_size, {self.data.batch_size}, got "
                f"{self.accumulation_steps}"
            )
        objective.check(self.objectives, self.accumulation_steps)

    @property
    def applied(self) -> tuple[objective.Applied, ...]:
        """The objectives with their names; attacks are ``Attacked``."""
        return objective.applied(self.objectives)

    @property
    def code(self) -> tuple[str, ...]:
        """The words by which a command may import the classes of a user: --code MODULE ..."""
        own = {_code_of(cls): None for cls in models.code_of_users(self)}
        return tuple(word for code in own for word in ("--code", code))

    @property
    def replays(self) -> int:
        """The number of steps that use the same batch."""
        return max((each.objective.replays for each in self.applied), default=1)

    def build(self) -> models.Model:
        """Build the network, with the precision of the experiment.

        Raises:
          ValueError: if ``model.num_classes`` is None, because the data determine it.
        """
        if self.model.num_classes is None:
            raise ValueError(
                "model.num_classes must be an integer >= 1 to build the network, got None; give "
                "it, or resolve the experiment"
            )
        return self.model.build(getattr(jnp, self.precision))

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the number of optimiser steps of the whole run, at least 1."""
        if self.steps is not None:
            return self.steps
        return max(1, round(self.epochs * steps_per_epoch))


def resolve(experiment: Experiment, source: data.Source, initial: Any = None) -> Experiment:
    """Return the experiment with every field filled in that is None and follows from others.

    An explicit value always stays. The number of classes and of channels are those of the images.
    The front end (V1 and the stage before it; mean and standard deviation of a base network) is
    that of the initial weights, if these are of a network of the same kind, at the same pixels per
    degree; else the default of ``models.create``.

    Args:
      experiment: as it is written in a config.
      source: the training images.
      initial: a network with weights, such as ``vone_jax.open_network`` returns; or None.

    Raises:
      ValueError: if the experiment does not fit its data; the message names the field.
    """
    config, model = experiment.data, experiment.model
    if config.eval_split is None:
        config = dataclasses.replace(config, eval_split=_evaluation_split(config))
    if source.num_classes == 1:
        raise ValueError(
            f"data.source {source.name!r} has one class, so there is nothing to learn; each class "
            "needs a folder of its own"
        )
    channels = model.in_channels or source.image_shape[-1]
    classes = model.num_classes or source.num_classes
    where = f"the images of {source.name!r} {source.split!r}"
    for name, ours, theirs in (
        ("in_channels", channels, source.image_shape[-1]),
        ("num_classes", classes, source.num_classes),
    ):
        if ours != theirs:
            raise ValueError(
                f"model.{name} is {ours}, but {where} have {theirs}; leave it out to take it from "
                "the data"
            )
    try:
        model = dataclasses.replace(model, in_channels=channels, num_classes=classes)
        inherited = _inherited_front_end(model, initial)
        left_out = {name: x for name, x in inherited.items() if getattr(model, name) is None}
        model = dataclasses.replace(model, **left_out).complete()
    except ValueError as error:
        raise ValueError(f"model.{error}") from error
    return dataclasses.replace(experiment, data=config, model=model)


def _evaluation_split(config: DataConfig) -> str:
    split = data.evaluation_split(config.source, data_dir=config.data_dir)
    # "." is all of a folder without splits, of which training keeps a part for validation.
    return "validation" if split == "." else split


def _inherited_front_end(model: models.Spec, initial: Any) -> dict[str, Any]:
    """Return the front end of initial weights as fields of the model, if it fits the model."""
    source = None if initial is None else initial.model
    channels, size = model.in_channels, model.image_size
    if isinstance(source, models.BaseNetwork) and source.in_channels == channels:
        if model.front or model.front_end is not None:
            return {}
        theirs = source.spec
        fields: dict[str, Any] = {"mean": theirs.mean, "std": theirs.std}
        if models.family(theirs.name) is models.family(model.name):
            fields["stem_size"] = theirs.stem_size
        return fields
    if not isinstance(source, models.VOneNet) or source.in_channels != channels:
        return {}
    if model.front != source.spec.front:
        return {}

    def at_size(stage: Any) -> Any:
        if stage is None or stage.image_size == size:
            return stage
        degrees = size / source.v1.pixels_per_degree
        return dataclasses.replace(stage, image_size=size, visual_degrees=degrees)

    return {"v1": at_size(source.v1), "subcortical": at_size(source.subcortical)}


def config_names(configs: Path, variable: str = "experiment") -> list[str]:
    """List the config files below a directory that define a variable, as "quickstart/resnet18"."""
    return sorted(
        path.relative_to(configs).with_suffix("").as_posix()
        for path in configs.rglob("*.py")
        if re.search(rf"^{variable}(:.*)? = ", path.read_text(encoding="utf-8"), re.MULTILINE)
    )


def load_config(name: str, configs: Path) -> Experiment:
    """Read an experiment from the directory of configs.

    The name is one of ``config_names(configs)``, or the path of a Python file (ending in ``.py``)
    that defines ``experiment``. A config may build on another one, which it imports as
    ``configs.<group>.<name>``. ``"NAME:LABEL"`` is a member of the sweep in NAME.

    Raises:
      ValueError: if there is no such file (the message lists the names), if running it fails, or
        if it defines no valid experiment.
    """
    if ":" not in name:
        return load(name, configs, "experiment", Experiment)
    file, _, label = name.rpartition(":")
    members = getattr(load(file, configs, "sweep"), "members", {})
    if label not in members:
        raise ValueError(
            f"{file} has no member {label!r}{nearest(label, members) or '.'} "
            f"It has {', '.join(members)}"
        )
    experiment = members[label].network
    if not isinstance(experiment, Experiment):
        raise ValueError(f"{name} is not trained; {command('sweep.py')} {file} evaluates it")
    return experiment


def load(name: str, configs: Path, variable: str, cls: type | None = None) -> Any:
    """Run a config file and return one of its variables.

    For the name and errors see ``load_config``. A variable that is not a ``cls`` is an error, too.
    """
    names = config_names(configs, variable)
    # A config that defines the other variable has a message of its own, below.
    known = {*config_names(configs), *config_names(configs, "sweep")}
    path = configs / f"{name}.py" if name in known else Path(name)
    arguments.in_reach("CONFIG", path)
    if path.suffix != ".py" or not os.path.isfile(path):
        if path.suffix == ".py":
            raise ValueError(f"there is no file {name}")
        raise ValueError(
            f"no config {name!r}{nearest(name, names) or '.'} "
            "Give the path of a .py file or one of:\n  " + "\n  ".join(names)
        )
    files.provide_configs(configs)
    before = list(sys.path)
    # Modules beside the config are found, but do not take the place of others.
    sys.path.append(str(path.parent.absolute()))
    try:
        defined = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f":{frame.lineno}" for frame in frames if frame.filename == str(path)]
        where = f"{path}{lines[-1] if lines else ''}"
        raise ValueError(f"{where}: {type(error).__name__}: {error}") from error
    finally:
        sys.path[:] = before
    value = defined.get(variable)
    if value is None and hasattr(defined.get("sweep"), "members"):
        raise ValueError(
            f"{name} is a sweep; {command('sweep.py')} {name} runs all, {command('train.py')} "
            f"{name}:LABEL trains one of {', '.join(defined['sweep'].members)}"
        )
    if value is None or (cls is not None and not isinstance(value, cls)):
        raise ValueError(
            f"{name} must define {variable} = {variable.capitalize()}(...), it has {value!r:.80}"
        )
    return value


def to_json(experiment: Experiment) -> dict[str, Any]:
    """Return the experiment as a tree of JSON values, which ``from_json`` turns back."""
    return models.to_json(experiment)


def _code_of(cls: Any) -> str:
    """The file of a class or function, or the name of its module if that is in a package."""
    file = inspect.getsourcefile(cls)
    if "." in cls.__module__ or file is None:
        return cls.__module__
    return os.path.relpath(file) if Path(file).is_relative_to(Path().absolute()) else file


# What a user may write, and a file may ask for.
_OF_USERS = (*models.PARTS, Objective, Attack, Schedule, OptimizerConfig)


def from_json(
    content: Any,
    read_bank: Callable[[str], ImportedBank] | None = None,
    code: Sequence[str] = (),
    opened: Path | None = None,
) -> Experiment:
    """Return the experiment that ``to_json`` turned into ``content``, see ``models.from_json``."""
    return models.from_json(Experiment, content, "experiment", read_bank, code, opened, _OF_USERS)


_ABSENT = object()


# Fields that may change when a run resumes. They affect speed and safety, not results (except for
# rounding). Of images, not the place decides but the fingerprint, see ``run.check_made_from``.
RESUMABLE = (
    "checkpoint_every", "keep_checkpoints", "non_finite_limit", "remat", "data.source",
    "data.data_dir", "data.eval_batch_size", "data.workers",
)  # fmt: skip


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """List the fields in which two experiments in JSON differ, as ``"seed: 3 here, 4 there"``.

    Those in ``RESUMABLE`` are ignored.
    """
    first, second = (flatten_dict(experiment, sep=".") for experiment in (ours, theirs))

    def show(fields: dict[str, Any], name: str) -> str:
        return json.dumps(fields[name]) if name in fields else "absent"

    return [
        f"{name}: {show(first, name)} here, {show(second, name)} there"
        for name in sorted(first.keys() | second.keys())
        # Values are compared, not texts: 3 and 3.0 epochs are the same.
        if name not in RESUMABLE and first.get(name, _ABSENT) != second.get(name, _ABSENT)
    ]


def resumed(before: Experiment, ours: Experiment) -> Experiment:
    """Return ``before`` with our values of the fields that may change when a run resumes."""
    own = [name.partition(".")[2] for name in RESUMABLE if name.startswith("data.")]
    config = dataclasses.replace(before.data, **{name: getattr(ours.data, name) for name in own})
    fields = {name: getattr(ours, name) for name in RESUMABLE if "." not in name}
    return dataclasses.replace(before, data=config, **fields)
