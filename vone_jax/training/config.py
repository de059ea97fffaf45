"""The description of a training run: a tree of frozen dataclasses with everything it depends on.

An experiment prints as code, survives JSON unchanged and is checked when it is made, before
anything is computed. A field that follows from others is None until ``resolve`` fills it in.
Durations are in epochs unless a name says otherwise. One epoch has ``steps_per_epoch`` steps, see
``data.train_batches``, times the replays of a batch.

A config is a Python module that defines ``experiment`` or ``sweep``. A sweep names several
experiments; ``"sweep:label"`` is one of them.

In JSON, see ``dataclass_json``, an imported Gabor bank is replaced by its digest, because it has a
million numbers. A run directory stores these numbers as arrays, see ``run.py``. A front end, an
objective, an attack, a schedule or an optimiser of a user has the name of the module that defines
it, which is imported only with permission, see ``modules.of_file``.
"""

import dataclasses
import inspect
import json
import os
import re
import runpy
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from vone_jax import arguments, data, dataclass_json, files, models, modules
from vone_jax.arguments import FromZero, Positive, Range, Seed, Share, nearest
from vone_jax.attacks import Attack
from vone_jax.models.attachment import Form
from vone_jax.names import command
from vone_jax.training import objective
from vone_jax.training.objective import Objective
from vone_jax.training.optimizer import OptimizerConfig, Schedule
from vone_jax.v1 import ImportedBank, Noise, SubcorticalConfig, VOneBlockConfig
from vone_jax.v1.divisive import Rule

MatmulPrecision = Literal["default", "high", "highest"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network, see ``models.create``."""

    # resnet18, resnet50, alexnet, cornet_s, cornet_z, efficientnet_b0, efficientnet_lite0,
    # vit_ti16, vit_s16, vit_b16, deit_s16, convnext_t or small_cnn. With vone_ in front of its
    # name it is a VOneNet, with ev_ an EVNet.
    name: str
    # Number of logits. None is the number of classes of the data.
    num_classes: int | None = None
    # Side of the images in pixels, at most 4096: a batch of larger ones does not fit into memory.
    image_size: Annotated[int, Range(8, 4096)] = 224
    # 3 for RGB, 1 for grey. None is that of the data.
    in_channels: int | None = None
    # Channels after the stem. None is the width of the published network, models.default_width.
    width: Annotated[int | None, Range(1, 2**16)] = None
    # The V1 of a VOneNet or EVNet. None is that of the initial weights, if they have one, else
    # models.v1_config for the image size.
    v1: VOneBlockConfig | None = None
    # The image size whose form the stem of a base network has. None is that of the initial weights,
    # such as 224 for files of torchvision, else image_size.
    stem_size: Annotated[int | None, Range(8, 4096)] = None
    # Noise after the stem of a base network: a control with noise but without V1.
    stem_noise: Noise = None
    # Factor on the output of the stem before stem_noise.
    stem_gain: Positive = 1.0
    # Normalisation of images in a base network, one number per channel or one for all. None is that
    # of the initial weights, or the default of models.create. VOneNets have v1.image_mean.
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    # The stage before V1 of an EVNet. None is as for v1, see models.create.
    subcortical: SubcorticalConfig | None = None
    # Normalisation of V1 that is trained with the network, in front of the bottleneck.
    learned_normalization: Rule | None = None
    # A Flax module of your own in place of the stem of a base network, see docs/front_ends.md.
    front_end: nn.Module | None = None
    # Blocks of a transformer, or of each stage of a ConvNeXt. None is as published.
    depth: int | tuple[int, ...] | None = None
    # Heads of a transformer. None is one for 64 channels.
    heads: int | None = None
    # Side of the patches of a transformer or a ConvNeXt in pixels. None is as published, and for
    # small images 4 in transformers, 2 in ConvNeXts.
    patch_size: int | None = None
    # Layers between V1 and a transformer or a ConvNeXt. A base network with an attachment is the
    # control: a convolutional stem in place of V1. None is "patches" behind V1, none in base
    # networks.
    attachment: Form | None = None
    # Rate of stochastic depth of a transformer or a ConvNeXt.
    drop_path: Share = 0.0
    # Channels of the first convolution in the stem of the control. None gives it as many parameters
    # as the bottleneck behind the default V1 has.
    stem_width: int | None = None

    def __post_init__(self):
        arguments.choice("name", self.name, models.NAMES)
        arguments.fields(self)
        # Building the network is cheap. It checks the width and the front end.
        self.build(num_classes=1)

    @property
    def code(self) -> tuple[str, ...]:
        """The words by which a command may import the front end of a user: --code MODULE."""
        return () if self.front_end is None else ("--code", type(self.front_end).__module__)

    def build(self, **options: Any) -> models.Model:
        """Build the network, see ``models.create``. ``options`` replace fields or add ``dtype``."""
        return models.create(**vars(self) | options)


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
    model: ModelConfig
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
    # user's, and attacks, on whose images the network then learns. See ``training.Objective``.
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
        own = {_code_of(cls): None for cls in classes_of_users(self)}
        return (*self.model.code, *(word for code in own for word in ("--code", code)))

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
        return self.model.build(dtype=getattr(jnp, self.precision))

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the number of optimiser steps of the whole run, at least 1."""
        if self.steps is not None:
            return self.steps
        return max(1, round(self.epochs * steps_per_epoch))


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
    return dataclass_json.encode(experiment, _forms(experiment))


def _code_of(cls: type) -> str:
    """The file of a class, or the name of its module if that is a part of a package."""
    file = inspect.getsourcefile(cls)
    if "." in cls.__module__ or file is None:
        return cls.__module__
    return os.path.relpath(file) if Path(file).is_relative_to(Path().absolute()) else file


def classes_of_users(value: Any) -> Iterator[type]:
    """Yield the classes of a user in an experiment, other than Flax modules."""
    if isinstance(value, tuple):
        for item in value:
            yield from classes_of_users(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, nn.Module):
        if not type(value).__module__.startswith("vone_jax."):
            yield type(value)
        for field in dataclasses.fields(value):
            yield from classes_of_users(getattr(value, field.name))


def _describe_object(value: Any) -> dict[str, Any]:
    """An object of a user in JSON: the module of its class, and its fields."""
    cls = type(value)
    if cls.__module__ not in sys.modules:
        raise ValueError(
            f"{cls.__name__}: there is no module {cls.__module__!r}; define the class in a file of "
            "its own, which lies beside the config and which the config imports"
        )
    _class_of(sys.modules[cls.__module__], cls.__name__)
    # Flax adds two fields.
    added = ("parent", "name") if isinstance(value, nn.Module) else ()
    names = [f.name for f in dataclass_json.stored_fields(cls) if f.name not in added]
    fields = {name: _describe_field(getattr(value, name), name) for name in names}
    # A file that was loaded by its path stands for the module of its name.
    return {"module": cls.__module__.removeprefix("file_"), **fields}


def _describe_field(value: Any, name: str) -> Any:
    """A field of an object in JSON. Most modules of Flax have one that is a type of numbers."""
    if isinstance(value, np.dtype | type) and hasattr(value, "dtype"):
        return {"dtype": jnp.dtype(value).name}
    return dataclass_json.encode(value, _forms(value), path=name)


def _forms(value: Any) -> dataclass_json.Forms:
    forms: dict[type, Callable[[Any], dict[str, Any]]] = {
        ImportedBank: lambda bank: {"sha256": bank.digest},
        nn.Module: _describe_object,
    }
    return forms | dict.fromkeys(classes_of_users(value), _describe_object)


# What a user may write, and a file may ask for.
_OF_USERS = (nn.Module, Objective, Attack, Schedule, OptimizerConfig)


def _class_of(module: types.ModuleType, name: Any) -> Any:
    """The class of a name that a module of Python has itself defined or imported."""
    # Not getattr, by which a package may import its parts.
    cls = vars(module).get(name)
    if not (isinstance(cls, type) and issubclass(cls, _OF_USERS)):
        kinds = ", ".join(each.__name__ for each in _OF_USERS)
        raise ValueError(f"{module.__name__} has no class {name!r:.80} that is one of {kinds}")
    return cls


def _with_objects(content: Any, code: Sequence[str], opened: Path | None) -> Any:
    """Replace objects of users in a tree of JSON values by what they describe."""
    if isinstance(content, list):
        return [_with_objects(item, code, opened) for item in content]
    if not isinstance(content, dict):
        return content
    fields = {name: _with_objects(item, code, opened) for name, item in content.items()}
    if not dataclass_json.is_of_user(content):
        return fields
    name = fields[dataclass_json.TYPE]
    try:
        cls = _class_of(modules.of_file(fields.pop("module"), code, opened), name)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{name!r:.80}: {error}") from error
    dtypes = {
        name: getattr(jnp, value["dtype"])
        for name, value in fields.items()
        if isinstance(value, dict) and value.keys() == {"dtype"}
    }
    others = {name: value for name, value in fields.items() if name not in dtypes}
    made = dataclass_json.decode(cls, others, str(name))
    return made.clone(**dtypes) if dtypes else made


def from_json(
    content: Any,
    read_bank: Callable[[str], ImportedBank] | None = None,
    code: Sequence[str] = (),
    opened: Path | None = None,
) -> Experiment:
    """Return the experiment that ``to_json`` turned into ``content``.

    The function ``read_bank`` returns the imported bank with a given digest. ``code`` are the
    modules that may be imported for classes of a user, see ``modules.of_file``; ``opened`` is the
    directory of the content, in which none may lie.

    Raises:
      ValueError: for an unknown or missing field, or one of another type; and then for a module
        that may not be imported.
    """
    if not isinstance(content, dict):
        raise ValueError(f"experiment must be a JSON object, got {content!r:.80}")
    content = _with_banks(content, read_bank)
    # All other fields are looked at before a module is imported.
    dataclass_json.decode(Experiment, content, "experiment", make=False)
    return dataclass_json.decode(Experiment, _with_objects(content, code, opened), "experiment")


def _with_banks(content: Any, read_bank: Callable[[str], ImportedBank] | None) -> Any:
    """Replace digests in a tree of JSON values by their banks."""
    if not isinstance(content, dict):
        return content
    if content.get(dataclass_json.TYPE) == ImportedBank.__name__ and "sha256" in content:
        if read_bank is None:
            raise ValueError(f"the arrays of the bank {content['sha256']} must be given")
        return read_bank(content["sha256"])
    return {name: _with_banks(value, read_bank) for name, value in content.items()}


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
