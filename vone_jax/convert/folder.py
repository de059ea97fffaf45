"""A network as a folder in the style of the Hugging Face hub.

config.json         what builds the network again
model.safetensors   its variables as ``params.back_end.fc.kernel``, and an imported bank
README.md           the model card, with the numbers that were measured
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vone_jax import models
from vone_jax.convert.card import model_card
from vone_jax.convert.description import bank_arrays, build, describe
from vone_jax.convert.errors import CheckpointError
from vone_jax.convert.safetensors import read_safetensors, write_safetensors
from vone_jax.convert.state_dict import abstract_variables

_FORMAT = 1


def save_folder(
    folder: str | Path,
    model: models.BaseNetwork | models.VOneNet,
    variables: Any,
    *,
    results: Iterable[Mapping[str, Any]] = (),
    licence: str = "other",
    source: str = "",
) -> Path:
    """Writes a network as a folder that ``load_folder`` reads back bit for bit.

    Args:
      folder: is made if it does not exist; files of the same names are replaced.
      model: a network of ``models.create``.
      variables: its float32 variables.
      results: parsed result files of ``eval.py``; their numbers go into the model card as they
        are. Without them the card says that nothing was measured.
      licence: of the weights, an identifier of the hub (``"apache-2.0"``, ``"other"``).
      source: where the weights come from, in words, for the card.

    Returns:
      The folder.

    Raises:
      ValueError: if the network is not one of ``models.create``, or the variables not its own.
    """
    description = describe(model)
    arrays = {
        ".".join(path): np.asarray(leaf)
        for path, leaf in flatten_dict(jax.device_get(variables)).items()
    }
    _check_shapes(model, arrays)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"format": _FORMAT, "library_name": "vone_jax", "network": description}
    (folder / "config.json").write_text(json.dumps(config, indent=2, allow_nan=False) + "\n")
    write_safetensors(
        folder / "model.safetensors", arrays | bank_arrays(model), {"format": "vone_jax"}
    )
    parameters = sum(a.size for name, a in arrays.items() if name.startswith("params."))
    card = model_card(description, parameters, list(results), licence, source)
    (folder / "README.md").write_text(card)
    return folder


def load_folder(
    folder: str | Path,
) -> tuple[models.BaseNetwork | models.VOneNet, dict[str, Any]]:
    """The network and variables that ``save_folder`` wrote.

    Raises:
      CheckpointError: listing what is damaged or does not fit.
      OSError: if a file cannot be read.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"config.json is not JSON: {error}") from None
    if not isinstance(config, dict) or not isinstance(config.get("network"), dict):
        raise CheckpointError("config.json describes no network")
    if config.get("format") != _FORMAT:
        raise CheckpointError(f"config.json has format {config.get('format')!r}, not {_FORMAT}")
    arrays, _ = read_safetensors(folder / "model.safetensors")
    model = build(config["network"], arrays)
    weights = {name: a for name, a in arrays.items() if not name.startswith("v1.bank.")}
    _check_shapes(model, weights)
    return model, unflatten_dict(
        {tuple(name.split(".")): jnp.array(array) for name, array in weights.items()}
    )


def _check_shapes(model: Any, arrays: Mapping[str, np.ndarray]) -> None:
    expected = {".".join(path): target for path, target in abstract_variables(model).items()}
    problems = [f"missing: {name}" for name in sorted(expected.keys() - arrays.keys())]
    problems += [f"unused: {name}" for name in sorted(arrays.keys() - expected.keys())]
    for name in sorted(expected.keys() & arrays.keys()):
        if arrays[name].shape != expected[name].shape or arrays[name].dtype != np.float32:
            problems.append(
                f"shape: {name} is {arrays[name].dtype}{arrays[name].shape}, the network has "
                f"float32{expected[name].shape}"
            )
        elif not np.isfinite(arrays[name]).all():
            problems.append(f"not finite: {name}")
    if problems:
        raise CheckpointError("the variables do not fit the network:", problems)
