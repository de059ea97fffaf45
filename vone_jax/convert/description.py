"""A network as JSON: the arguments that build it again."""

import dataclasses
import json
from typing import Any

import numpy as np

from vone_jax import models, v1
from vone_jax.convert.errors import CheckpointError

# One size for each form of a stem, see models.small_images.
_SIZES = (224, 64, 32, 28)
_NOISE = {cls.__name__: cls for cls in (v1.NeuronalNoise, v1.GaussianNoise)}
_PARAMETERS = tuple(field.name for field in dataclasses.fields(v1.GaborParameters))


def network_name(model: models.BaseNetwork | models.VOneNet) -> str:
    """Which of ``models.NAMES`` a network is."""
    return describe(model)["name"]


def describe(model: models.BaseNetwork | models.VOneNet) -> dict[str, Any]:
    """The arguments of ``models.create`` for a network, as JSON.

    A bank's numbers are left out (see ``bank_arrays``); its kind is kept.

    Raises:
      ValueError: if the network is not one that ``models.create`` builds.
    """
    with_v1 = isinstance(model, models.VOneNet)
    num_classes = model.back_end.num_classes
    for name in models.NAMES:
        if name.startswith("vone_") != with_v1:
            continue
        for size in (model.v1.image_size,) if with_v1 else _SIZES:
            arguments = {
                "name": name,
                "num_classes": num_classes,
                "image_size": size,
                "in_channels": model.v1.in_channels if with_v1 else len(model.mean),
                "width": model.back_end.width,
            }
            built = models.create(**arguments, v1=model.v1 if with_v1 else None)
            if with_v1:
                same = built == model.clone(dtype=built.dtype)
            else:
                same = built == model.clone(dtype=built.dtype, mean=built.mean, std=built.std)
            if same:
                if with_v1:
                    return arguments | {"v1": _describe_v1(model.v1)}
                return arguments | {"mean": list(model.mean), "std": list(model.std)}
    raise ValueError("the network is none that models.create builds in float32")


def build(
    description: dict[str, Any], arrays: dict[str, np.ndarray]
) -> models.BaseNetwork | models.VOneNet:
    """The network of ``describe`` and ``bank_arrays``.

    Raises:
      CheckpointError: naming what is missing or out of range.
    """
    try:
        arguments = dict(description)
        config, mean, std = (arguments.pop(key, None) for key in ("v1", "mean", "std"))
        if config is not None:
            arguments["v1"] = _build_v1(config, arrays)
        model = models.create(**arguments)
        if mean is None:
            return model
        return model.clone(mean=tuple(map(float, mean)), std=tuple(map(float, std)))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise CheckpointError(f"the description of the network is damaged: {error}") from error


def bank_arrays(model: models.BaseNetwork | models.VOneNet) -> dict[str, np.ndarray]:
    """The numbers of an explicit bank by name; nothing for a bank that is sampled."""
    bank = model.v1.bank if isinstance(model, models.VOneNet) else None
    if bank is None:
        return {}
    parameters = bank.parameters if isinstance(bank, v1.ImportedBank) else bank
    arrays = {f"v1.bank.{name}": getattr(parameters, name) for name in _PARAMETERS}
    if isinstance(bank, v1.ImportedBank):
        arrays |= {"v1.bank.in_phase": bank.in_phase, "v1.bank.quadrature": bank.quadrature}
    return arrays


def _describe_v1(config: v1.VOneBlockConfig) -> dict[str, Any]:
    fields: dict[str, Any] = {
        field.name: getattr(config, field.name) for field in dataclasses.fields(config)
    }
    if config.noise is not None:
        fields["noise"] = {"kind": type(config.noise).__name__, **vars(config.noise)}
    if config.bank is not None:
        bank: dict[str, Any] = {"kind": type(config.bank).__name__}
        if isinstance(config.bank, v1.ImportedBank):
            bank["pixels_per_degree"] = config.bank.pixels_per_degree
        fields["bank"] = bank
    json.dumps(fields, allow_nan=False)
    return fields


def _build_v1(fields: dict[str, Any], arrays: dict[str, np.ndarray]) -> v1.VOneBlockConfig:
    fields = dict(fields)
    if fields["noise"] is not None:
        noise = dict(fields["noise"])
        fields["noise"] = _NOISE[noise.pop("kind")](**noise)
    if fields["bank"] is not None:
        kind = fields["bank"]["kind"]
        bank = v1.GaborParameters(**{name: arrays[f"v1.bank.{name}"] for name in _PARAMETERS})
        if kind == "ImportedBank":
            bank = v1.ImportedBank(
                arrays["v1.bank.in_phase"],
                arrays["v1.bank.quadrature"],
                bank,
                fields["bank"]["pixels_per_degree"],
            )
        elif kind != "GaborParameters":
            raise ValueError(f"bank must be GaborParameters or ImportedBank, got {kind!r}")
        fields["bank"] = bank
    return v1.VOneBlockConfig(**fields)
