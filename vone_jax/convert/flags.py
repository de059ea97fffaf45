"""The settings that a training script stored with its weights, and a V1 configuration."""

import math
from collections.abc import Mapping
from typing import Any

from vone_jax.v1 import GaussianNoise, NeuronalNoise, VOneBlockConfig

# Flags of numbers -> field of VOneBlockConfig and type. What a file does not say has the
# published value, which is also the field's default.
_NUMBERS = {
    "stride": ("stride", int),
    "simple_channels": ("simple_channels", int),
    "complex_channels": ("complex_channels", int),
    "k_exc": ("k_exc", float),
    "image_size": ("image_size", int),
    "visual_degrees": ("visual_degrees", float),
    "gabor_seed": ("gabor_seed", int),
    "sf_min": ("sf_min", float),
    "sf_max": ("sf_max", float),
}
# What a file says decides how much is computed to check it.
_LARGEST_IMAGE = 4096


def v1_settings(flags: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Fields of ``VOneBlockConfig`` that flags set.

    Returns:
      The fields, and the problems found.
    """
    fields: dict[str, Any] = {}
    problems: list[str] = []
    for flag, (field, kind) in _NUMBERS.items():
        if flags.get(flag) is not None:
            value = _number(flags[flag])
            if value is None or (kind is int and value != int(value)):
                problems.append(f"flag {flag} must be of type {kind.__name__}, got {flags[flag]!r}")
            else:
                fields[field] = kind(value)
    if not 8 <= fields.get("image_size", 224) <= _LARGEST_IMAGE:
        problems.append(
            f"flag image_size must be in 8 to {_LARGEST_IMAGE}, got {fields.pop('image_size')}"
        )
    if _true(flags.get("rand_param")):
        fields["distribution"] = "uniform"
    if "noise_mode" in flags:
        mode = flags["noise_mode"]
        scale, level = (
            _number(flags.get(name, default))
            for name, default in (("noise_scale", 0.35), ("noise_level", 0.07))
        )
        try:
            if mode in (None, "none", "None", ""):
                fields["noise"] = None
            elif mode == "neuronal" and scale is not None and level is not None:
                fields["noise"] = NeuronalNoise(scale=scale, level=level)
            elif mode == "gaussian" and scale is not None:
                fields["noise"] = GaussianNoise(scale=scale)
            else:
                problems.append(
                    f"flag noise_mode must be 'neuronal', 'gaussian' or None with a noise_scale "
                    f"and noise_level, got {mode!r}, {flags.get('noise_scale')!r}, "
                    f"{flags.get('noise_level')!r}"
                )
        except ValueError as error:
            problems.append(f"flags of the noise: {error}")
    return fields, problems


def flags_of(name: str, config: VOneBlockConfig | None) -> dict[str, Any]:
    """The flags that the original's loader reads, for an architecture and its V1.

    Raises:
      ValueError: if the noise has a strength other than 1, which the original does not know.
    """
    flags: dict[str, Any] = {"arch": name.removeprefix("vone_").replace("_", "")}
    if config is None:
        return flags
    noise = config.noise
    if isinstance(noise, NeuronalNoise) and noise.strength != 1:
        raise ValueError(f"noise.strength must be 1 in a checkpoint of PyTorch, got {noise}")
    flags |= {flag: getattr(config, field) for flag, (field, _) in _NUMBERS.items()}
    return flags | {
        "noise_mode": {NeuronalNoise: "neuronal", GaussianNoise: "gaussian"}.get(type(noise)),
        "noise_scale": 0.35 if noise is None else noise.scale,
        "noise_level": noise.level if isinstance(noise, NeuronalNoise) else 0.07,
        "rand_param": config.distribution == "uniform",
    }


def architecture_problem(flags: Mapping[str, Any], name: str) -> str | None:
    """A contradiction between the architecture in the flags and the recognised one."""
    given = flags.get("arch") or flags.get("model_arch")
    if given is None:
        return None
    if str(given).replace("_", "").lower() == name.removeprefix("vone_").replace("_", ""):
        return None
    return f"the flags say {str(given)[:40]!r}, but the tensors are those of {name}"


def _number(value: Any) -> float | None:
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return None
        return number if math.isfinite(number) else None
    return None


def _true(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.lower() in ("true", "1"))
