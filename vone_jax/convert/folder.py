"""A network as a folder in the style of the Hugging Face hub.

config.json         the arguments that build the network again, class names, preprocessing
model.safetensors   its variables as ``params.back_end.fc.kernel``, and an imported bank
README.md           the model card, with the numbers that were measured
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vone_jax import dataclass_json, files, models, names, results
from vone_jax.convert.checkpoint import read_safetensors, write_safetensors
from vone_jax.convert.gabor_fit import check_bank_size
from vone_jax.convert.state_dict import abstract_variables, checked_variables
from vone_jax.convert.untrusted import CheckpointError, read_json
from vone_jax.data.transforms import Preprocessing
from vone_jax.v1 import GaborParameters, ImportedBank, SubcorticalConfig, VOneBlockConfig
from vone_jax.v1.divisive import Rule

_FORMAT = 1
# Larger values in a configuration would make the check of a hostile folder slow.
_LARGEST = {"num_classes": 2**24, "width": 2**16, "image_size": 4096, "in_channels": 1024}
_PARAMETERS = tuple(field.name for field in dataclasses.fields(GaborParameters))
# The numbers of an explicit bank are stored as arrays, beside the weights.
_BANKS: dataclass_json.Forms = {
    GaborParameters: lambda bank: {},
    ImportedBank: lambda bank: {"pixels_per_degree": bank.pixels_per_degree},
}


@dataclasses.dataclass(frozen=True)
class _Arguments:
    """The arguments of ``models.create`` that a folder stores; fields of None are left out."""

    name: str
    num_classes: int
    image_size: int
    in_channels: int
    width: int
    v1: VOneBlockConfig | None = None
    subcortical: SubcorticalConfig | None = None
    learned_normalization: Rule | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def save_folder(
    folder: str | Path,
    model: models.Model,
    variables: Any,
    *,
    results: Iterable[results.Result] = (),
    licence: str = "other",
    source: str = "",
    class_names: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
) -> Path:
    """Write a network as a folder that ``load_folder`` reads back bit for bit.

    A network that computes in bfloat16 is read back as one that computes in float32.

    Args:
      folder: made if it does not exist. The three files of an earlier call are replaced.
      model: a network of ``models.create``.
      variables: its float32 variables.
      results: results of ``eval.py`` with this network, see ``results.read``. The model card shows
        their accuracies. Without them it says that nothing was measured.
      licence: licence of the weights, an identifier of the hub (``"apache-2.0"``, ``"other"``).
      source: the origin of the weights, in words, for the card.
      class_names: one name for each logit, such as ``network.class_names``. Without them, nobody
        can match the logits with the labels of a data set.
      preprocessing: preprocessing of the images, such as ``network.preprocessing``.

    Raises:
      ValueError: if the network is not one of ``models.create``, or the variables not its own; for
        results of another network; for a wrong number of names; or for a folder that
        ``check_place`` refuses.
    """
    folder, results = Path(folder), list(results)
    check_place(folder)
    description = describe(model)
    checked = checked_variables(model, flatten_dict(variables))
    _check_measured(results, model, variables)
    arrays = {".".join(path): array for path, array in checked.items()}
    config = {"format": _FORMAT, "library_name": "vone_jax", "network": description}
    if class_names:
        _check_names(class_names, description["num_classes"])
        config["class_names"] = list(class_names)
    if preprocessing is not None:
        config["preprocessing"] = dataclass_json.encode(preprocessing)
    folder.mkdir(parents=True, exist_ok=True)
    files.replace_json(folder / "config.json", config)
    write_safetensors(
        folder / "model.safetensors", arrays | _bank_arrays(model), {"format": "vone_jax"}
    )
    parameters = sum(a.size for name, a in arrays.items() if name.startswith("params."))
    card = _card(description, parameters, results, licence, source)
    files.replace(folder / "README.md", lambda file: file.write(card.encode()))
    return folder


def _check_measured(
    measured: Iterable[results.Result], model: models.Model, variables: Any
) -> None:
    """Refuse results of a network with other weights or another image size."""
    # Evaluation fixes a tuned bank, so results have the checksum of a network with a fixed bank.
    _, evaluated = models.with_fixed_bank(model, variables)
    ours = model.image_size, f"{files.array_checksum(jax.tree.leaves(evaluated)):08x}"
    for result in measured:
        network = result.network
        theirs = network.image_size or ours[0], network.weights
        if theirs != ours:
            one, other = ("{} pixels and the weights {}".format(*each) for each in (theirs, ours))
            raise ValueError(
                f"results must be of the network that is written: {result.name} is of a network "
                f"with {one}, this network has {other}; evaluate this network"
            )


def check_place(folder: Path) -> None:
    """Refuse a directory that holds something else than a folder of ``save_folder``.

    Raises:
      ValueError: if one of the three files is there without the ``config.json`` of such a folder,
        as in a run of ``train.py`` or beside a README of something else.
    """
    written = ("config.json", "model.safetensors", "README.md")
    there = [name for name in written if (folder / name).exists()]
    if there and not is_folder(folder):
        raise ValueError(
            f"{folder} must be a new directory, or a folder of vone_jax.convert; its {there[0]} "
            "belongs to something else and would be lost. Name another directory, or move the file"
        )


def is_folder(path: Path) -> bool:
    """Return True if a directory has the ``config.json`` of ``save_folder``."""
    try:
        config = read_json(path / "config.json")
    except (CheckpointError, OSError):
        return False
    return isinstance(config, dict) and config.get("library_name") == "vone_jax"


class Folder(NamedTuple):
    """The content of a folder; ``class_names`` is empty if the folder has none."""

    model: models.Model
    variables: dict[str, Any]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing


def load_folder(folder: str | Path) -> tuple[models.Model, dict[str, Any]]:
    """Load the network and variables that ``save_folder`` wrote. For errors see ``read_folder``."""
    return read_folder(folder)[:2]


def read_folder(folder: str | Path) -> Folder:
    """Read everything that ``save_folder`` wrote, except for the model card.

    Raises:
      CheckpointError: listing what is damaged or does not fit.
      OSError: if a file cannot be read.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("network"), dict):
        raise CheckpointError("config.json describes no network")
    if config.get("format") != _FORMAT:
        raise CheckpointError(f"config.json has format {config.get('format')!r}, not {_FORMAT}")
    arrays, _ = read_safetensors(folder / "model.safetensors")
    model = _build(config["network"], arrays)
    weights = {tuple(n.split(".")): a for n, a in arrays.items() if not n.startswith("v1.bank.")}
    checked = checked_variables(model, weights)
    variables = unflatten_dict({path: jnp.array(array) for path, array in checked.items()})
    class_names = config.get("class_names", [])
    # Folders of earlier versions store only the centre crop.
    steps = config.get("preprocessing", {"center_crop": config.get("center_crop")})
    try:
        if "class_names" in config:
            _check_names(class_names, config["network"]["num_classes"])
        preprocessing = dataclass_json.decode(Preprocessing, steps, "preprocessing")
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"config.json: {str(error):.200}") from error
    return Folder(model, variables, tuple(class_names), preprocessing)


def _check_names(class_names: Sequence[str], num_classes: int) -> None:
    listed = isinstance(class_names, list | tuple) and set(map(type, class_names)) <= {str}
    if not listed or len(class_names) != num_classes:
        raise ValueError(f"class_names must be {num_classes} names, got {class_names!r:.80}")


def describe(model: models.Model) -> dict[str, Any]:
    """The arguments of ``models.create`` for a network, as JSON.

    Of an explicit bank, only the kind is included. ``save_folder`` stores its numbers as arrays.

    Raises:
      ValueError: if the network is not one that ``models.create`` builds.
    """
    if isinstance(model, models.VOneNet):
        names = models.list_models("vone_*" if model.subcortical is None else "ev_*")
        fields = ("v1", "subcortical", "learned_normalization")
    else:
        if model.stem_noise is not None or model.stem_gain != 1.0:
            raise ValueError(
                "files of networks cannot express stem_noise and stem_gain; keep the run directory"
            )
        names = models.list_models(exclude_filters=("vone_*", "ev_*"))
        fields = ("mean", "std")
    arguments = {field: getattr(model, field) for field in ("image_size", "in_channels", *fields)}
    arguments |= {field: getattr(model.back_end, field) for field in ("num_classes", "width")}
    for name in names:
        if models.create(name, dtype=model.dtype, **arguments) == model:
            description = dataclass_json.encode(_Arguments(name, **arguments), _BANKS)
            json.dumps(description, allow_nan=False)
            given = (item for item in description.items() if item[1] is not None)
            return dict(item for item in given if item[0] != dataclass_json.TYPE)
    raise ValueError("the network is not one that models.create builds")


def _bank_arrays(model: models.Model) -> dict[str, np.ndarray]:
    """The numbers of an explicit bank by name; nothing for a bank that is sampled."""
    bank = model.v1.bank if isinstance(model, models.VOneNet) else None
    arrays = {}
    if isinstance(bank, ImportedBank):
        arrays, bank = bank.kernels._asdict(), bank.parameters
    if bank is not None:
        arrays |= {name: getattr(bank, name) for name in _PARAMETERS}
    return {f"v1.bank.{name}": array for name, array in arrays.items()}


def _build(description: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> models.Model:
    """Build the network of ``describe`` and ``_bank_arrays``."""
    try:
        config, stage = description.get("v1"), description.get("subcortical")
        if config is None and names.front_end(str(description.get("name"))):
            raise ValueError("v1 is missing")
        for fields in (description, config or {}, stage or {}):
            for name, largest in _LARGEST.items():
                if fields.get(name, 0) > largest:
                    raise ValueError(f"{name} must be at most {largest}, got {fields[name]}")
        if config is not None:
            channels = config["simple_channels"] + config["complex_channels"]
            check_bank_size(channels, config["kernel_size"])
            bank = config["bank"] and _build_bank(config["bank"], arrays)
            # The noise must be stored: its default must not fill a gap in a damaged file.
            config = {**config, "noise": config["noise"], "bank": bank}
        arguments = dataclass_json.decode(_Arguments, {**description, "v1": config}, "network")
        model = models.create(**vars(arguments))
        abstract_variables(model)
        return model
    except (TypeError, KeyError, ValueError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(f"the description of the network is damaged: {error}") from error


def _build_bank(
    stored: Mapping[str, Any], arrays: dict[str, np.ndarray]
) -> GaborParameters | ImportedBank:
    parameters = GaborParameters(**{name: arrays[f"v1.bank.{name}"] for name in _PARAMETERS})
    if stored["type"] == "GaborParameters":
        return parameters
    if stored["type"] != "ImportedBank":
        raise ValueError(f"bank must be GaborParameters or ImportedBank, got {stored['kind']!r}")
    kernels = arrays["v1.bank.in_phase"], arrays["v1.bank.quadrature"]
    return ImportedBank(*kernels, parameters, stored["pixels_per_degree"])


# The model card: Markdown with the metadata of the hub in front.
_CARD = """---
library_name: vone_jax
pipeline_tag: image-classification
license: {licence}
tags: [jax, flax, image-classification{tag}]
---

# {name}

{parameters:,} trained parameters, {num_classes} classes, images of {image_size}x{image_size} \
pixels and {in_channels} channels in [0, 1].
{weights}{front_end}
## Measured

{measured}

## Use

```python
import jax
from vone_jax import convert, models

model, variables = convert.load_folder("path/to/this/folder")
logits = models.logits_fn(model, variables)(jax.random.key(0), images)
```
"""


def _card(
    description: Mapping[str, Any],
    parameters: int,
    measured: Iterable[results.Result],
    licence: str,
    source: str,
) -> str:
    """The model card of a network, see ``describe`` and ``save_folder``."""
    front_end, noise = "", "none"
    if config := description.get("v1"):
        evnet = "subcortical" in description
        before = "a subcortical stage (P and M cells), then " if evnet else ""
        if config["noise"] is not None:
            values = [f"{k} {value}" for k, value in config["noise"].items() if k != "type"]
            noise = f"{config['noise']['type']} ({', '.join(values)})"
        front_end = (
            f"\nFront end: {before}fixed Gabor filters of {config['simple_channels']} simple and "
            f"{config['complex_channels']} complex cells at stride {config['stride']}; noise: "
            f"{noise}. The noise is on in training and in evaluation.\n"
        )
    accuracies = [result for result in measured if isinstance(result.measured, results.Accuracy)]
    rows = [_row(r) for r in sorted(accuracies, key=lambda r: (r.kind != "clean", r.name))]
    if rows:
        head = "| result | condition | predictions | data | examples | accuracy | interval |"
        rows = [head, "| --- | --- | --- | --- | ---: | ---: | --- |", *rows]
    return _CARD.format(
        **description,
        licence=licence,
        tag=", v1" if config else "",
        parameters=parameters,
        weights=f"\nWeights: {source}\n" if source else "",
        front_end=front_end,
        measured="\n".join(rows) or "Nothing was measured with these weights.",
    )


def _row(result: results.Result) -> str:
    """The table row of an accuracy. The name distinguishes results of the same condition."""
    condition = " ".join(filter(None, result.condition_label))
    data, (low, high) = result.dataset, result.interval
    return (
        f"| {result.name} | {condition} | {result.protocol_label} | {data.name} {data.split} | "
        f"{data.examples} | {result.accuracy:.4f} | {low:.4f} to {high:.4f} |"
    )
