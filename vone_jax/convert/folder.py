"""A network as a folder in the style of the Hugging Face hub.

config.json         the arguments that build the network again, class names, preprocessing
model.safetensors   its variables as ``params.back_end.fc.kernel``, and an explicit bank
README.md           the model card
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vone_jax import dataclass_json, files, models
from vone_jax.convert.checkpoint import read_safetensors, write_safetensors
from vone_jax.convert.state_dict import checked_variables
from vone_jax.convert.torch_file import CheckpointError
from vone_jax.data.transforms import Preprocessing
from vone_jax.progress import printable
from vone_jax.v1 import GaborParameters, ImportedBank, SubcorticalConfig, VOneBlockConfig
from vone_jax.v1.divisive import Rule

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
    stem_size: int | None = None
    depth: int | tuple[int, ...] | None = None
    heads: int | None = None
    patch_size: int | None = None
    attachment: str | None = None
    drop_path: float | None = None
    stem_width: int | None = None


class Folder(NamedTuple):
    """The content of a folder; ``class_names`` is empty if the folder has none."""

    model: models.Model
    variables: dict[str, Any]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing


def save_folder(
    folder: str | Path,
    model: models.Model,
    variables: Any,
    *,
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
      licence: licence of the weights, an identifier of the hub (``"apache-2.0"``, ``"other"``).
      source: the origin of the weights, in words, for the model card.
      class_names: one name for each logit, such as ``network.class_names``. Without them, nobody
        can match the logits with the labels of a data set.
      preprocessing: preprocessing of the images, such as ``network.preprocessing``.

    Raises:
      ValueError: if the network is not one of ``models.create``, or the variables not its own; for
        a wrong number of names; or for a folder with a README or config of something else.
    """
    folder = Path(folder)
    written = ("config.json", "model.safetensors", "README.md")
    there = [name for name in written if (folder / name).exists()]
    if there and not is_folder(folder):
        raise ValueError(
            f"{folder} must be a new directory, or a folder of vone_jax.convert; its {there[0]} "
            "belongs to something else and would be lost. Name another directory, or move the file"
        )
    description = describe(model)
    if class_names and len(class_names) != description["num_classes"]:
        raise ValueError(
            f"class_names must be {description['num_classes']} names, got {len(class_names)}"
        )
    checked = checked_variables(model, flatten_dict(variables))
    arrays = {".".join(path): array for path, array in checked.items()}
    config = {
        "library_name": "vone_jax",
        "network": description,
        "class_names": list(class_names),
        "preprocessing": dataclass_json.encode(preprocessing or Preprocessing()),
    }
    folder.mkdir(parents=True, exist_ok=True)
    files.replace_json(folder / "config.json", config)
    write_safetensors(
        folder / "model.safetensors", arrays | _bank_arrays(model), {"format": "vone_jax"}
    )
    parameters = sum(a.size for name, a in arrays.items() if name.startswith("params."))
    card = _card(description, parameters, licence, source)
    files.replace(folder / "README.md", lambda file: file.write(card.encode()))
    return folder


def is_folder(path: Path) -> bool:
    """Return True if a directory has the ``config.json`` of ``save_folder``."""
    try:
        config = json.loads((path / "config.json").read_text())
    except (ValueError, OSError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("library_name") == "vone_jax"


def load_folder(folder: str | Path) -> tuple[models.Model, dict[str, Any]]:
    """Load the network and variables that ``save_folder`` wrote. For errors see ``read_folder``."""
    return read_folder(folder)[:2]


def read_folder(folder: str | Path) -> Folder:
    """Read everything that ``save_folder`` wrote, except for the model card.

    Raises:
      CheckpointError: if the folder describes no network, or the weights do not fit it.
      OSError: if a file cannot be read.
    """
    folder = Path(folder)
    content = (folder / "config.json").read_text()
    weights_file = folder / "model.safetensors"
    try:
        arrays, _ = read_safetensors(weights_file)
    except CheckpointError as error:
        error.args = (f"{printable(str(weights_file))}: {error}",)
        raise
    try:
        config = json.loads(content)
        model = _build(config["network"], arrays)
        names = tuple(config["class_names"])
        preprocessing = dataclass_json.decode(
            Preprocessing, config["preprocessing"], "preprocessing"
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{printable(str(folder / 'config.json'))} does not describe a network: {error}"
        ) from error
    weights = {tuple(n.split(".")): a for n, a in arrays.items() if not n.startswith("v1.bank.")}
    checked = checked_variables(model, weights)
    variables = unflatten_dict({path: jnp.array(array) for path, array in checked.items()})
    return Folder(model, variables, names, preprocessing)


def describe(model: models.Model) -> dict[str, Any]:
    """The arguments of ``models.create`` for a network, as JSON.

    Of an explicit bank, only the kind is included. ``save_folder`` stores its numbers as arrays.

    Raises:
      ValueError: if the network is not one that ``models.create`` builds.
    """
    sizes: list[int | None] = [None]
    if isinstance(model, models.VOneNet):
        fields = ("v1", "subcortical", "learned_normalization")
    else:
        if model.stem_noise is not None or model.stem_gain != 1.0:
            raise ValueError(
                "files of networks cannot express stem_noise and stem_gain; keep the run directory"
            )
        fields = ("mean", "std")
        # A stem of another size than that of the images, see ``models.create``.
        sizes += models.STEM_SIZES
    arguments = {field: getattr(model, field) for field in ("image_size", "in_channels", *fields)}
    arguments |= {field: getattr(model.back_end, field) for field in ("num_classes", "width")}
    arguments |= models.trunk_options(model)
    for stem_size in sizes if model.architecture else ():
        if stem_size is not None:
            arguments["stem_size"] = stem_size
        if models.create(model.architecture, dtype=model.dtype, **arguments) == model:
            description = dataclass_json.encode(_Arguments(model.architecture, **arguments), _BANKS)
            return {key: value for key, value in description.items() if value is not None}
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
    config = description.get("v1")
    if config is not None and config["bank"] is not None:
        bank: Any = GaborParameters(**{name: arrays[f"v1.bank.{name}"] for name in _PARAMETERS})
        if config["bank"][dataclass_json.TYPE] == ImportedBank.__name__:
            kernels = arrays["v1.bank.in_phase"], arrays["v1.bank.quadrature"]
            bank = ImportedBank(*kernels, bank, config["bank"]["pixels_per_degree"])
        config = {**config, "bank": bank}
    arguments = dataclass_json.decode(_Arguments, {**description, "v1": config}, "network")
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    return models.create(**given)


# The model card: Markdown with the metadata of the hub in front.
_CARD = """---
library_name: vone_jax
pipeline_tag: image-classification
license: {licence}
tags: [jax, flax, image-classification{tag}]
---

# {name}

{parameters:,} trained parameters, {num_classes} classes, images of {image_size}x{image_size} \
pixels and {in_channels} channels in [0, 1]. {front_end}

Weights: {source}

## Use

```python
import jax
from vone_jax import convert, models

model, variables = convert.load_folder("path/to/this/folder")
logits = models.logits_fn(model, variables)(jax.random.key(0), images)
```
"""


def _card(description: Mapping[str, Any], parameters: int, licence: str, source: str) -> str:
    """The model card of a network, see ``describe`` and ``save_folder``."""
    front_end = "It has no front end."
    if config := description.get("v1"):
        noise = (config["noise"] or {dataclass_json.TYPE: "none"}).items()
        front_end = (
            f"Front end{', after a subcortical stage' * ('subcortical' in description)}: fixed "
            f"Gabor filters of {config['simple_channels']} simple and {config['complex_channels']} "
            f"complex cells at stride {config['stride']}; noise, which is on in training and in "
            f"evaluation: {', '.join(f'{name} {value}' for name, value in noise)}."
        )
    return _CARD.format(
        **description,
        licence=licence,
        tag=", v1" if config else "",
        parameters=parameters,
        source=source or "not stated",
        front_end=front_end,
    )
