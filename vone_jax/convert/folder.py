"""A network as a folder in the style of the Hugging Face hub.

config.json         its form, what the network is (``models.Spec``), class names, preprocessing
model.safetensors   its variables as ``params.back_end.fc.kernel``, and an imported bank
README.md           the model card
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from vone_jax import dataclass_json, files, models
from vone_jax.convert.checkpoint import read_safetensors, write_safetensors
from vone_jax.convert.state_dict import checked_variables
from vone_jax.convert.torch_file import CheckpointError
from vone_jax.data.transforms import Preprocessing
from vone_jax.progress import printable
from vone_jax.v1 import ImportedBank

# Of the three files, see docs/promises.md.
SCHEMA = 1
# The numbers of an imported bank are stored beside the weights.
_BANK = "v1.bank."


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
      model: a network of ``models.create``. Its front end and back end may be of your own.
      variables: its float32 variables.
      licence: licence of the weights, an identifier of the hub (``"apache-2.0"``, ``"other"``).
      source: the origin of the weights, in words, for the model card.
      class_names: one name for each logit, such as ``network.class_names``. Without them, nobody
        can match the logits with the labels of a data set.
      preprocessing: preprocessing of the images, such as ``network.preprocessing``.

    Raises:
      ValueError: if the variables are not those of the network; for a wrong number of names; or
        for a folder with a README or config of something else.
    """
    folder = Path(folder)
    written = ("config.json", "model.safetensors", "README.md")
    there = [name for name in written if (folder / name).exists()]
    if there and not is_folder(folder):
        raise ValueError(
            f"{folder} must be a new directory, or a folder of vone_jax.convert; its {there[0]} "
            "belongs to something else and would be lost. Name another directory, or move the file"
        )
    spec = model.spec
    if class_names and len(class_names) != spec.num_classes:
        raise ValueError(f"class_names must be {spec.num_classes} names, got {len(class_names)}")
    checked = checked_variables(model, flatten_dict(variables))
    arrays = {".".join(path): array for path, array in checked.items()}
    config = {
        "library_name": "vone_jax",
        "schema": SCHEMA,
        "network": models.to_json(spec),
        "class_names": list(class_names),
        "preprocessing": dataclass_json.encode(preprocessing or Preprocessing()),
    }
    folder.mkdir(parents=True, exist_ok=True)
    files.replace_json(folder / "config.json", config)
    bank = spec.v1 and spec.v1.bank
    if isinstance(bank, ImportedBank):
        arrays |= {f"{_BANK}{name}": array for name, array in models.bank_arrays(bank).items()}
    write_safetensors(folder / "model.safetensors", arrays, {"format": "vone_jax"})
    parameters = sum(a.size for name, a in arrays.items() if name.startswith("params."))
    card = _card(spec, parameters, licence, source)
    files.replace(folder / "README.md", lambda file: file.write(card.encode()))
    return folder


def is_folder(path: Path) -> bool:
    """Return True if a directory has the ``config.json`` of ``save_folder``."""
    try:
        config = json.loads((path / "config.json").read_text())
    except (ValueError, OSError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("library_name") == "vone_jax"


def load_folder(
    folder: str | Path, code: Sequence[str] = ()
) -> tuple[models.Model, dict[str, Any]]:
    """Load the network and variables that ``save_folder`` wrote, see ``read_folder``."""
    return read_folder(folder, code)[:2]


def read_folder(folder: str | Path, code: Sequence[str] = ()) -> Folder:
    """Read everything that ``save_folder`` wrote, except for the model card.

    Modules of ``code`` may be imported for parts of the network that are of a user, see
    ``modules.of_file``.

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
        if (schema := config.get("schema")) != SCHEMA:
            raise ValueError(f"it has the form {schema}, and this version reads {SCHEMA}")
        bank = {n.removeprefix(_BANK): a for n, a in arrays.items() if n.startswith(_BANK)}
        spec = models.from_json(
            models.Spec, config["network"], "network", lambda digest: models.bank_of(bank, digest),
            code, folder,
        )  # fmt: skip
        model = spec.build()
        names = tuple(config["class_names"])
        preprocessing = dataclass_json.decode(
            Preprocessing, config["preprocessing"], "preprocessing"
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{printable(str(folder / 'config.json'))} does not describe a network: {error}"
        ) from error
    weights = {tuple(n.split(".")): a for n, a in arrays.items() if not n.startswith(_BANK)}
    checked = checked_variables(model, weights)
    variables = unflatten_dict({path: jnp.array(array) for path, array in checked.items()})
    return Folder(model, variables, names, preprocessing)


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


def _card(spec: models.Spec, parameters: int, licence: str, source: str) -> str:
    """The model card of a network, see ``save_folder``."""
    front_end = "It has no front end."
    if spec.v1 is not None:
        front_end = (
            f"Front end{', after a subcortical stage' * (spec.subcortical is not None)}: fixed "
            f"Gabor filters of {spec.v1.simple_channels} simple and {spec.v1.complex_channels} "
            f"complex cells at stride {spec.v1.stride}; noise, which is on in training and in "
            f"evaluation: {spec.v1.noise or 'none'}."
        )
    return _CARD.format(
        name=spec.name,
        num_classes=spec.num_classes,
        image_size=spec.image_size,
        in_channels=spec.in_channels,
        licence=licence,
        tag=", v1" if spec.v1 else "",
        parameters=parameters,
        source=source or "not stated",
        front_end=front_end,
    )
