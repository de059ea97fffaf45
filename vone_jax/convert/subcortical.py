"""The subcortical stage of an EVNet as tensors of its PyTorch class, and back."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vone_jax.v1 import FanoNoise, SubcorticalConfig

PREFIX = "subcorticalblock."
# The kernels of the first cells; their shape gives the number of image channels.
RECEPTIVE_FIELDS = f"{PREFIX}dog.multi_conv.convs.0.weight"
LIGHT_ADAPTATION = "subcortical_light_adaptation"
# Scalars for each cell, and the fields that they hold.
_SCALARS = {
    f"{PREFIX}k_exc": "k_exc",
    f"{PREFIX}contrast_norm.c50": "c50",
    f"{PREFIX}contrast_norm.n": "exponent",
}
# Largest deviation of a kernel from the kernel of the configuration, relative to the peak. It
# accepts kernels that are stored in half precision.
_TOLERANCE = 2e-3


def subcortical_tensors(config: SubcorticalConfig) -> dict[str, np.ndarray]:
    """The float32 tensors of a subcortical stage by their PyTorch names."""
    tensors = {}
    for number, (_, cells, colours) in enumerate(config.populations):
        centre, surround = (np.outer(taps, taps) for taps in config.centre_and_surround(cells))
        fields = [
            np.multiply.outer(plus, centre) - np.multiply.outer(minus, surround)
            for plus, minus in colours
        ]
        pool = np.outer(config.pool(cells), config.pool(cells))
        tensors[f"{PREFIX}dog.multi_conv.convs.{number}.weight"] = np.stack(fields)
        pools = np.repeat(pool[None, None], len(colours), axis=0)
        tensors[f"{PREFIX}contrast_norm.multi_conv.convs.{number}.weight"] = pools
    populations = [cells for _, cells, colours in config.populations for _ in colours]
    for name, field in _SCALARS.items():
        values = [getattr(cells, field) for cells in populations]
        tensors[name] = np.reshape(values, (1, -1, 1, 1))
    return {name: np.ascontiguousarray(t, np.float32) for name, t in tensors.items()}


def read_subcortical(
    tensors: Mapping[str, np.ndarray], config: SubcorticalConfig, problems: list[str]
) -> SubcorticalConfig:
    """Return a configuration with the gains and the contrast normalisation of a file.

    A line is added to ``problems`` for each tensor that is missing, unused, of a wrong shape or of
    cells with other radii or weights than in ``config``.
    """
    expected = subcortical_tensors(config)
    problems += [f"missing: {name}" for name in sorted(expected.keys() - tensors.keys())]
    problems += [f"unused: {name}" for name in sorted(tensors.keys() - expected.keys())]
    cells = f"the cells {config.p_cells}, {config.m_cells}; give those of the file as subcortical"
    if expected.keys() != tensors.keys():
        problems.append(f"the subcortical tensors are not those of {cells}")
    values = {}
    for name in sorted(expected.keys() & tensors.keys()):
        ours, theirs = expected[name], np.asarray(tensors[name])
        if theirs.shape != ours.shape or not np.issubdtype(theirs.dtype, np.floating):
            problems.append(f"shape: {name} is {theirs.dtype}{theirs.shape}, not float{ours.shape}")
        elif not np.isfinite(theirs).all():
            problems.append(f"not finite: {name}")
        elif name in _SCALARS:
            values[_SCALARS[name]] = theirs.astype(np.float32).ravel()
        elif np.abs(theirs - ours).max() > _TOLERANCE * np.abs(ours).max():
            problems.append(f"{name} is not that of {cells}")
    replaced, first = {}, 0
    try:
        for name, cells, colours in config.populations:
            own = {field: v[first : first + len(colours)] for field, v in values.items()}
            problems += [
                f"the {name.upper()} cells of the file differ in {field}: {v.tolist()}"
                for field, v in own.items()
                if len(set(v.tolist())) > 1
            ]
            # The constants of a configuration have more digits than a file.
            changed = {
                field: float(v[0])
                for field, v in own.items()
                if v[0] != np.float32(getattr(cells, field))
            }
            replaced[f"{name}_cells"] = dataclasses.replace(cells, **changed)
            first += len(colours)
        return dataclasses.replace(config, **replaced)
    except ValueError as error:
        problems.append(str(error))
        return config


def with_flags(
    config: SubcorticalConfig, flags: Mapping[str, Any], problems: list[str]
) -> SubcorticalConfig:
    """Return a configuration with the fields that ``subcortical_flags`` stored, if it did."""
    fields: dict[str, Any] = {}
    try:
        if (adapted := flags.get(LIGHT_ADAPTATION)) is not None:
            fields["light_adaptation"] = adapted
        if (factor := flags.get("subcortical_fano")) is not None:
            fields["noise"] = FanoNoise(factor, flags.get("subcortical_floor", 4e-6))
        elif "subcortical_fano" in flags:
            fields["noise"] = None
        return dataclasses.replace(config, **fields)
    except ValueError as error:
        problems.append(f"flags of the subcortical stage: {error}")
        return config


def subcortical_flags(config: SubcorticalConfig) -> dict[str, Any]:
    """What tensors do not show of a subcortical stage. The original does not know these flags."""
    flags: dict[str, Any] = {LIGHT_ADAPTATION: config.light_adaptation, "subcortical_fano": None}
    if config.noise is None:
        return flags
    noise = config.noise
    return flags | {"subcortical_fano": noise.fano_factor, "subcortical_floor": noise.floor}
