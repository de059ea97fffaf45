"""Experiments in files: Python configs, and JSON.

A config is a Python module that defines ``experiment`` or ``sweep``. A sweep names several
experiments; ``"sweep:label"`` is one of them.

In JSON a dataclass is an object of its fields. Where a field may hold one of several dataclasses,
the object also names the class under ``"kind"``. An imported Gabor bank, which has a million
numbers, is replaced by its digest. A run directory has it as arrays, see ``run_dir.py``.
"""

import dataclasses
import inspect
import json
import re
import runpy
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from flax.traverse_util import flatten_dict

from vone_jax.arguments import nearest
from vone_jax.training.experiment import Experiment
from vone_jax.v1 import ImportedBank

_KIND = "kind"


def config_names(configs: Path, variable: str = "experiment") -> list[str]:
    """List the config files below a directory that define a variable, as "quickstart/resnet18"."""
    return sorted(
        path.relative_to(configs).with_suffix("").as_posix()
        for path in configs.rglob("*.py")
        if re.search(rf"^{variable} = ", path.read_text(), re.MULTILINE)
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
        experiment = load(name, configs, "experiment")
        if not isinstance(experiment, Experiment):
            raise ValueError(
                f"{name} must define experiment = Experiment(...), it has {experiment!r}"
            )
        return experiment
    file, _, label = name.rpartition(":")
    members = getattr(load(file, configs, "sweep"), "members", {})
    if label not in members:
        raise ValueError(
            f"{file} has no member {label!r}{nearest(label, members)}; it has {', '.join(members)}"
        )
    experiment = members[label].network
    if not isinstance(experiment, Experiment):
        raise ValueError(f"{name} is opened and not trained: {experiment!r}")
    return experiment


def load(name: str, configs: Path, variable: str) -> Any:
    """Run a config file and return one of its variables, None if the file does not define it.

    The file is one of ``config_names(configs, variable)``, or the path of a Python file.

    Raises:
      ValueError: if there is no such file, or running it fails.
    """
    names = config_names(configs, variable)
    path = configs / f"{name}.py" if name in names else Path(name)
    if path.suffix != ".py" or not path.is_file():
        if variable == "experiment" and name in config_names(configs, "sweep"):
            labels = ", ".join(load(name, configs, "sweep").members)
            raise ValueError(
                f"{name} is a sweep over several networks: python sweep.py {name} runs all, "
                f"python train.py {name}:LABEL trains one; its labels are {labels}"
            )
        if variable == "sweep" and name in config_names(configs):
            raise ValueError(f"{name} is no sweep; python train.py {name} trains this network")
        raise ValueError(
            f"no config {name!r}{nearest(name, names)}; give the path of a .py file or one of:\n  "
            + "\n  ".join(names)
        )
    # Configs import each other by this name, wherever the package is installed.
    package = types.ModuleType("configs")
    package.__path__ = [str(configs)]
    sys.modules.setdefault("configs", package)
    try:
        return runpy.run_path(str(path)).get(variable)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error


def to_json(experiment: Experiment) -> dict[str, Any]:
    """Return the experiment as a tree of JSON values, which ``from_json`` turns back."""
    return _encode(experiment)


def from_json(content: Any, read_bank: Callable[[str], ImportedBank] | None = None) -> Experiment:
    """Return the experiment that ``to_json`` turned into ``content``.

    Args:
      content: JSON values.
      read_bank: returns the imported bank with a given digest.

    Raises:
      ValueError: for an unknown, missing or mistyped field. The message names its path, and the
        most similar field for an unknown one.
    """
    if not isinstance(content, dict):
        raise ValueError(f"experiment must be a JSON object, got {content!r}")
    return _decode(Experiment, _with_banks(content, read_bank), "experiment")


def imported_banks(experiment: Experiment) -> list[ImportedBank]:
    """Return the imported banks of an experiment, whose JSON form has only their digests."""
    blocks = [experiment.model.v1, experiment.similarity and experiment.similarity.v1]
    return [block.bank for block in blocks if block and isinstance(block.bank, ImportedBank)]


def _with_banks(content: Any, read_bank: Callable[[str], ImportedBank] | None) -> Any:
    """Replace the digests in a tree of JSON values by their banks."""
    if not isinstance(content, dict):
        return content
    if content.get(_KIND) == ImportedBank.__name__ and "sha256" in content:
        if read_bank is None:
            raise ValueError(f"the arrays of the bank {content['sha256']} must be given")
        return read_bank(content["sha256"])
    return {name: _with_banks(value, read_bank) for name, value in content.items()}


# Fields that may change when a run resumes. They affect speed and safety, not results (except for
# rounding).
_RESUMABLE = (
    "checkpoint_every",
    "compilation_cache",
    "keep_checkpoints",
    "non_finite",
    "non_finite_limit",
    "remat",
    "data.data_dir",
    "data.eval_batch_size",
    "data.prefetch",
    "data.unreadable",
    "data.unreadable_limit",
    "data.workers",
)
_ABSENT = object()


def differences(ours: Experiment, theirs: Experiment) -> list[str]:
    """List the fields in which two experiments differ, as ``"seed: 3 is not 4"``.

    Fields that affect no result are ignored: the directory of the data, the number of workers, the
    interval of checkpoints, what happens on errors.
    """
    first, second = (flatten_dict(to_json(experiment), sep=".") for experiment in (ours, theirs))

    def show(fields: dict[str, Any], name: str) -> str:
        return json.dumps(fields[name]) if name in fields else "absent"

    return [
        f"{name}: {show(first, name)} is not {show(second, name)}"
        for name in sorted(first.keys() | second.keys())
        # Values are compared, not texts: 3 and 3.0 epochs are the same.
        if name not in _RESUMABLE and first.get(name, _ABSENT) != second.get(name, _ABSENT)
    ]


def _encode(value: Any) -> Any:
    """Return the JSON form of a dataclass, or of a value that a field of one may hold."""
    if isinstance(value, ImportedBank):
        return {"sha256": value.digest}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = _hints(type(value))
        encoded = {}
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            encoded[field.name] = _encode(item)
            if dataclasses.is_dataclass(item) and len(_classes(hints[field.name])) > 1:
                encoded[field.name] = {_KIND: type(item).__name__, **encoded[field.name]}
        return encoded
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form here: {value!r}")


def _decode(hint: Any, content: Any, path: str) -> Any:
    """Return the value of type ``hint`` that ``_encode`` turned into ``content``.

    The annotation ``hint`` is a dataclass, union, Literal, tuple, array or plain type. Errors name
    the ``path`` of an unknown, missing or mistyped field, for instance "experiment.optimizer".
    """
    classes = _classes(hint)
    if isinstance(content, ImportedBank) and ImportedBank.__name__ in classes:
        return content
    if isinstance(content, dict) and classes:
        return _decode_dataclass(classes, content, path)
    for option in _options(hint):
        if isinstance(content, list) and option is np.ndarray:
            return np.asarray(content)
        if isinstance(content, list) and typing.get_origin(option) is tuple:
            item_types = typing.get_args(option)
            if item_types[-1] is Ellipsis:
                item_types = item_types[:1] * len(content)
            if len(item_types) == len(content):
                return tuple(
                    _decode(item_type, item, f"{path}[{i}]")
                    for i, (item_type, item) in enumerate(zip(item_types, content, strict=True))
                )
        if typing.get_origin(option) is typing.Literal and content in typing.get_args(option):
            return content
        if option is float and type(content) is int:
            return float(content)
        if option in (bool, int, float, str, types.NoneType) and type(content) is option:
            return content
    expected = hint.__name__ if isinstance(hint, type) else str(hint)
    raise ValueError(f"{path} must be of type {expected}, got {content!r}")


def _options(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type itself."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _classes(hint: Any) -> dict[str, type]:
    """Return the dataclasses among the options, by name."""
    options = [option for option in _options(hint) if isinstance(option, type)]
    return {cls.__name__: cls for cls in options if dataclasses.is_dataclass(cls)}


def _hints(cls: type) -> dict[str, Any]:
    """The types of the fields of a dataclass, also of one that no type checker looks into."""
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        hints |= inspect.get_annotations(base, eval_str=True)
    return {
        name: typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
        for name, hint in hints.items()
    }


def _decode_dataclass(classes: dict[str, type], content: dict[str, Any], path: str) -> Any:
    kind = content.get(_KIND) if len(classes) > 1 else next(iter(classes))
    if kind not in classes:
        raise ValueError(f"{path}.{_KIND} must be one of {', '.join(classes)}, got {kind!r}")
    cls = classes[kind]
    hints = _hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    values = {}
    for name, item in content.items():
        if name == _KIND and _KIND not in fields:
            continue
        if name not in fields:
            raise ValueError(f"{path} has no field {name!r}{nearest(name, fields)}")
        values[name] = _decode(hints[name], item, f"{path}.{name}")
    for name, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if name not in values and required:
            raise ValueError(f"{path} lacks the field {name!r}")
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
