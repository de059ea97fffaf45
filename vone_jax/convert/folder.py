"""A network as a folder in the style of the Hugging Face hub.

config.json         the arguments that build the network again
model.safetensors   its variables as ``params.back_end.fc.kernel``, and an imported bank
README.md           the model card, with the numbers that were measured
"""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vone_jax import files, models, results, v1
from vone_jax.convert.checkpoint import read_safetensors, write_safetensors
from vone_jax.convert.gabor_fit import check_bank_size
from vone_jax.convert.state_dict import abstract_variables, checked_variables
from vone_jax.convert.untrusted import CheckpointError, read_json

_FORMAT = 1
# One size for each form of a stem, see models.stem_form.
_SIZES = (224, 64, 32, 28)
# Larger values in a configuration would make the check of a hostile folder slow.
_LARGEST = {"num_classes": 2**24, "width": 2**16, "image_size": 4096, "in_channels": 1024}
_NOISE = {cls.__name__: cls for cls in (v1.NeuronalNoise, v1.GaussianNoise, v1.FanoNoise)}
_RULES = {cls.__name__: cls for cls in (v1.OrientedPools, v1.NeighbouringChannels, v1.GDN)}
_PARAMETERS = tuple(field.name for field in dataclasses.fields(v1.GaborParameters))


def save_folder(
    folder: str | Path,
    model: models.Network,
    variables: Any,
    *,
    results: Iterable[results.Result] = (),
    licence: str = "other",
    source: str = "",
) -> Path:
    """Write a network as a folder that ``load_folder`` reads back bit for bit.

    Args:
      folder: made if it does not exist. Files of the same names are replaced.
      model: a network of ``models.create``.
      variables: its float32 variables.
      results: results of ``eval.py``, see ``results.read``. The model card shows their accuracies.
        Without them it says that nothing was measured.
      licence: of the weights, an identifier of the hub (``"apache-2.0"``, ``"other"``).
      source: the origin of the weights, in words, for the card.

    Raises:
      ValueError: if the network is not one of ``models.create``, or the variables not its own.
    """
    description = describe(model)
    checked = checked_variables(model, flatten_dict(variables))
    arrays = {".".join(path): array for path, array in checked.items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"format": _FORMAT, "library_name": "vone_jax", "network": description}
    files.replace_json(folder / "config.json", config)
    write_safetensors(
        folder / "model.safetensors", arrays | _bank_arrays(model), {"format": "vone_jax"}
    )
    parameters = sum(a.size for name, a in arrays.items() if name.startswith("params."))
    card = _card(description, parameters, results, licence, source)
    files.replace(folder / "README.md", lambda file: file.write(card.encode()))
    return folder


def load_folder(folder: str | Path) -> tuple[models.Network, dict[str, Any]]:
    """Load the network and variables that ``save_folder`` wrote.

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
    return model, unflatten_dict({path: jnp.array(array) for path, array in checked.items()})


def describe(model: models.Network) -> dict[str, Any]:
    """The arguments of ``models.create`` for a network, as JSON.

    The kind of an explicit bank is kept. Its numbers are arrays and go beside the weights.

    Raises:
      ValueError: if the network is not one that ``models.create`` builds.
    """
    if isinstance(model, models.VOneNet):
        kind = "vone_*" if model.subcortical is None else "ev_*"
        names, sizes = models.list_models(kind), (model.image_size,)
        rule = model.learned_normalization
        front: dict[str, Any] = {"v1": model.v1, "subcortical": model.subcortical}
        front["learned_normalization"] = rule
        stored: dict[str, Any] = {"v1": _describe_v1(model.v1)}
        if rule is not None:
            fields = dataclasses.asdict(rule)
            stored["learned_normalization"] = {"kind": type(rule).__name__, **fields}
        if model.subcortical is not None:
            stored["subcortical"] = dataclasses.asdict(model.subcortical)
    else:
        names, sizes = models.list_models(exclude_filters=("vone_*", "ev_*")), _SIZES
        front = {"mean": model.mean, "std": model.std}
        stored = {"mean": list(model.mean), "std": list(model.std)}
    for name, size in itertools.product(names, sizes):
        arguments = {
            "name": name,
            "num_classes": model.back_end.num_classes,
            "image_size": size,
            "in_channels": model.in_channels,
            "width": model.back_end.width,
        }
        built = models.create(**arguments, **front)
        if built == model.clone(dtype=built.dtype):
            return arguments | stored
    raise ValueError("the network is none that models.create builds in float32")


def _describe_v1(config: v1.VOneBlockConfig) -> dict[str, Any]:
    fields: dict[str, Any] = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    if config.noise is not None:
        fields["noise"] = {"kind": type(config.noise).__name__, **vars(config.noise)}
    if config.normalization is not None:
        fields["normalization"] = dataclasses.asdict(config.normalization)
    if config.bank is not None:
        fields["bank"] = bank = dict[str, Any](kind=type(config.bank).__name__)
        if isinstance(config.bank, v1.ImportedBank):
            bank["pixels_per_degree"] = config.bank.pixels_per_degree
    json.dumps(fields, allow_nan=False)
    return fields


def _bank_arrays(model: models.Network) -> dict[str, np.ndarray]:
    """The numbers of an explicit bank by name; nothing for a bank that is sampled."""
    bank = model.v1.bank if isinstance(model, models.VOneNet) else None
    if bank is None:
        return {}
    parameters = bank.parameters if isinstance(bank, v1.ImportedBank) else bank
    arrays = {f"v1.bank.{name}": getattr(parameters, name) for name in _PARAMETERS}
    if isinstance(bank, v1.ImportedBank):
        arrays |= {"v1.bank.in_phase": bank.in_phase, "v1.bank.quadrature": bank.quadrature}
    return arrays


def _build(description: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> models.Network:
    """Build the network of ``describe`` and ``_bank_arrays``."""
    try:
        arguments = dict(description)
        config, stage = arguments.pop("v1", None), arguments.pop("subcortical", None)
        for fields in (arguments, config or {}, stage or {}):
            for name, largest in _LARGEST.items():
                if fields.get(name, 0) > largest:
                    raise ValueError(f"{name} must be at most {largest}, got {fields[name]}")
        for name in ("mean", "std"):
            if arguments.get(name) is not None:
                arguments[name] = tuple(map(float, arguments[name]))
        if config is not None:
            arguments["v1"] = _build_v1(config, arrays)
        if stage is not None:
            arguments["subcortical"] = _build_subcortical(stage)
        if arguments.get("learned_normalization") is not None:
            rule = dict(arguments["learned_normalization"])
            arguments["learned_normalization"] = _RULES[rule.pop("kind")](**rule)
        model = models.create(**arguments)
        abstract_variables(model)
        return model
    except (TypeError, KeyError, ValueError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(f"the description of the network is damaged: {error}") from error


def _build_v1(stored: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> v1.VOneBlockConfig:
    fields = dict(stored)
    check_bank_size(fields["simple_channels"] + fields["complex_channels"], fields["kernel_size"])
    for name in ("image_mean", "image_std"):
        if isinstance(fields.get(name), list):
            fields[name] = tuple(map(float, fields[name]))
    if fields["noise"] is not None:
        noise = dict(fields["noise"])
        fields["noise"] = _NOISE[noise.pop("kind")](**noise)
    if fields.get("normalization") is not None:
        fields["normalization"] = v1.SurroundNormalization(**fields["normalization"])
    if fields["bank"] is not None:
        kind = fields["bank"]["kind"]
        bank = v1.GaborParameters(**{name: arrays[f"v1.bank.{name}"] for name in _PARAMETERS})
        if kind == "ImportedBank":
            kernels = arrays["v1.bank.in_phase"], arrays["v1.bank.quadrature"]
            bank = v1.ImportedBank(*kernels, bank, fields["bank"]["pixels_per_degree"])
        elif kind != "GaborParameters":
            raise ValueError(f"bank must be GaborParameters or ImportedBank, got {kind!r}")
        fields["bank"] = bank
    return v1.VOneBlockConfig(**fields)


def _build_subcortical(stored: Mapping[str, Any]) -> v1.SubcorticalConfig:
    fields = dict(stored)
    for name in ("p_cells", "m_cells"):
        fields[name] = fields[name] and v1.LGNCells(**fields[name])
    fields["noise"] = fields["noise"] and v1.FanoNoise(**fields["noise"])
    return v1.SubcorticalConfig(**fields)


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
        before = ""
        if description.get("subcortical"):
            before = "a subcortical stage (P and M cells), then "
        if config["noise"] is not None:
            values = [f"{k} {value}" for k, value in config["noise"].items() if k != "kind"]
            noise = f"{config['noise']['kind']} ({', '.join(values)})"
        front_end = (
            f"\nFront end: {before}fixed Gabor filters of {config['simple_channels']} simple and "
            f"{config['complex_channels']} complex cells at stride {config['stride']}; noise: "
            f"{noise}. The noise is on in training and in evaluation.\n"
        )
    rows = [row for row in map(_row, measured) if row]
    if rows:
        head = "| condition | data | examples | accuracy | interval |"
        rows = [head, "| --- | --- | ---: | ---: | --- |", *rows]
    return _CARD.format(
        **description,
        licence=licence,
        tag=", v1" if config else "",
        parameters=parameters,
        weights=f"\nWeights: {source}\n" if source else "",
        front_end=front_end,
        measured="\n".join(rows) or "Nothing was measured with these weights.",
    )


def _row(result: results.Result) -> str | None:
    """One table row, for results that have an accuracy."""
    if not isinstance(result.measured, results.Accuracy):
        return None
    condition, data = result.condition, result.dataset
    words = "clean"
    if isinstance(condition, results.AttackCondition):
        words = f"{condition.attack_name}, {condition.attack.norm} {condition.attack.eps_label}"
    elif isinstance(condition, results.CorruptionCondition):
        words = f"{condition.corruption}, severity {condition.severity}"
    low, high = result.interval
    return (
        f"| {words} | {data.name} {data.split} | {data.examples} | {result.accuracy:.4f} | "
        f"{low:.4f} to {high:.4f} |"
    )
