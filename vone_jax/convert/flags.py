"""The settings that the scripts of VOneNets and EVNets store with the weights, read and written."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from vone_jax import arguments, models
from vone_jax.convert.checkpoint import Normalisation
from vone_jax.convert.subcortical import LIGHT_ADAPTATION, subcortical_flags
from vone_jax.models import IMAGENET_MEAN, IMAGENET_STD
from vone_jax.models.architecture import known
from vone_jax.models.defaults import stem_size
from vone_jax.v1 import FanoNoise, GaussianNoise, NeuronalNoise, StabilisedNoise
from vone_jax.v1.noise import Noise

# Flags that hold numbers, and their types. Each is also a field of VOneBlockConfig. If the file
# lacks a flag, the field keeps its default, which is the published value.
_NUMBERS = {
    "stride": int,
    "simple_channels": int,
    "complex_channels": int,
    "k_exc": float,
    "image_size": int,
    "visual_degrees": float,
    "gabor_seed": int,
    "sf_min": float,
    "sf_max": float,
}
# Value of the flag noise_mode -> class, and the fields that noise_scale and noise_level hold.
_NOISES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "neuronal": (NeuronalNoise, ("scale", "level")),
    "gaussian": (GaussianNoise, ("scale",)),
    "fano": (FanoNoise, ("fano_factor", "floor")),
}
# The two flags of the noise, with the values for a file that lacks them.
_STRENGTHS = {"noise_scale": 0.35, "noise_level": 0.07}
# The flags of this project begin so: options of the architecture that no tensor shows, and, for
# base networks, the size of the images and of the stem, where they are one. The original's
# image_size is that of V1.
_OWN = "vone_jax_"
# Flags that are read elsewhere, or whose effect is in the tensors of the file.
_READ = {
    *(*_NUMBERS, "arch", "model_arch", "normalization", "ksize", "sf_corr", "rand_param"),
    *("noise_mode", "noise_scale", "noise_level", "subcortical_fano", "subcortical_floor"),
    LIGHT_ADAPTATION,
}
# Flags of training scripts that do not change the trained network.
_TRAINING = frozenset(
    """
    amp batch_size checkpoint_path clip_grad cuda data data_dir data_path dataset debug device
    dist_backend dist_url distributed epoch epochs evaluate exp_name experiment fp16 gamma gpu gpus
    grad_clip imagenet_path in_path label_smoothing learning_rate local_rank log_dir log_freq
    log_interval lr lr_gamma lr_schedule lr_scheduler lr_step manual_seed milestones momentum name
    nesterov ngpus num_epochs num_workers optim optimizer out_path output_dir output_path patience
    pretrained print_freq rank restore_epoch restore_path resume run_name save_dir save_every
    save_freq save_path scheduler seed start_epoch step_size test_batch_size torch_seed use_amp
    val_batch_size verbose warmup_epochs wd weight_decay workers world_size
    """.split()
)


def v1_settings(flags: Mapping[str, Any], kernel_size: int, problems: list[str]) -> dict[str, Any]:
    """Read the fields of ``VOneBlockConfig`` from flags, except for the normalisation.

    The kernels in the file have sides of ``kernel_size`` pixels. Each problem adds a line to
    ``problems``.
    """
    fields: dict[str, Any] = {}
    for flag, kind in _NUMBERS.items():
        if flags.get(flag) is not None:
            value = _number(flags[flag])
            if value is None or (kind is int and value != int(value)):
                problems.append(f"flag {flag} must be of type {kind.__name__}, got {flags[flag]!r}")
            else:
                fields[flag] = kind(value)
    if flags.get("ksize") is not None and _number(flags["ksize"]) != kernel_size:
        problems.append(
            f"flag ksize must be the size of the kernels in the file, {kernel_size}, got "
            f"{flags['ksize']!r}"
        )
    rand_param = str(flags.get("rand_param", False)).lower()
    if rand_param in ("true", "1"):
        fields["distribution"] = "uniform"
    elif rand_param not in ("false", "0", "none"):
        problems.append(f"flag rand_param must be True or False, got {flags['rand_param']!r}")
    if "noise_mode" in flags:
        try:
            fields["noise"] = _noise(flags)
        except ValueError as error:
            problems.append(str(error))
    return fields


def stored_fields(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the network that are in the flags of this project."""
    fields = {n.removeprefix(_OWN): value for n, value in flags.items() if n.startswith(_OWN)}
    if "image_size" in fields:
        fields["stem_size"] = fields["image_size"]
    return fields


def _noise(flags: Mapping[str, Any]) -> Noise:
    mode = flags["noise_mode"]
    if mode in (None, "none", "None", ""):
        return None
    cls, fields = _NOISES.get(mode, (NeuronalNoise, ()))
    values = [_number(flags.get(flag, default)) for flag, default in _STRENGTHS.items()]
    given = dict(zip(fields, values, strict=False))
    if not given or None in given.values():
        raise ValueError(
            f"flag noise_mode must be {', '.join(map(repr, _NOISES))} or None with a noise_scale "
            f"and noise_level, got {mode!r}, {flags.get('noise_scale')!r}, "
            f"{flags.get('noise_level')!r}"
        )
    try:
        return cls(**given)
    except ValueError as error:
        raise ValueError(f"flags of the noise: {error}") from None


def _normalisations(channels: int) -> dict[str, Normalisation]:
    """The values of the flag ``normalization``; that of ImageNet is for three channels only."""
    half = (0.5,) * channels
    return {"vonenet": (half, half), "imagenet": (IMAGENET_MEAN, IMAGENET_STD)}


def normalisation(
    flags: Mapping[str, Any], stored: Normalisation | None, channels: int, problems: list[str]
) -> Normalisation | None:
    """Read the normalisation that a file states, or None if the network keeps its default.

    ``stored`` is a normaliser that was saved with the network. Each problem adds a line to
    ``problems``.
    """
    name, by_name = flags.get("normalization"), _normalisations(channels)
    if name is not None and name not in by_name:
        problems.append(
            f"flag normalization must be {' or '.join(map(repr, by_name))}, got "
            f"{str(name)[:40]!r}{arguments.nearest(str(name)[:40], by_name)}"
        )
    named = by_name.get(str(name))
    if (
        stored
        and named
        and not (
            len(stored[0]) == len(named[0]) and np.allclose(named, np.asarray(stored, np.float64))
        )
    ):
        problems.append("the flag normalization contradicts the normaliser of the file")
    return stored or named


def unknown_flags(flags: Mapping[str, Any]) -> list[str]:
    """A note on the flags that nobody reads and that may change the network, if there are any."""
    unknown = [
        f"{name[:40]} {str(value)[:40]!r}"
        for name, value in flags.items()
        if name not in _READ | _TRAINING and not name.startswith(_OWN) and value is not None
    ]
    if not unknown:
        return []
    return [
        f"flags that are not read: {', '.join(unknown)}; if one of them changes the network, its "
        "logits are wrong"
    ]


def flags_of(spec: models.Spec, assumed: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of a network, which the original's loader reads.

    ``assumed`` are the values of what its tensors do not show in a file without flags.

    Raises:
      ValueError: for a noise, a surround or a normalisation that the original does not know.
    """
    flags: dict[str, Any] = {"arch": spec.base.replace("_", "")}
    channels = known(spec.in_channels)
    if spec.front:
        config = known(spec.v1)
        noise = config.noise
        if config.normalization is not None:
            raise ValueError(
                "normalization must be None in a checkpoint of PyTorch, whose V1 has no surround; "
                "use save_folder"
            )
        if isinstance(noise, NeuronalNoise) and noise.strength != 1:
            raise ValueError(f"noise.strength must be 1 in a checkpoint of PyTorch, got {noise}")
        if isinstance(noise, StabilisedNoise):
            raise ValueError(f"a checkpoint of PyTorch cannot have {noise}; use save_folder")
        flags |= {flag: getattr(config, flag) for flag in _NUMBERS}
        flags |= {"noise_mode": None, **_STRENGTHS}
        for mode, (cls, fields) in _NOISES.items():
            if isinstance(noise, cls):
                strengths = (getattr(noise, field) for field in fields)
                flags |= {"noise_mode": mode, **dict(zip(_STRENGTHS, strengths, strict=False))}
        flags["rand_param"] = config.distribution == "uniform"
        mean, std, channels = config.image_mean, config.image_std, config.in_channels
        if spec.subcortical is not None:
            flags |= subcortical_flags(spec.subcortical)
    else:
        if spec.stem_noise is not None or spec.stem_gain != 1.0:
            raise ValueError(
                "a checkpoint of PyTorch cannot have stem_noise and stem_gain; use save_folder"
            )
        mean, std = known(spec.mean), known(spec.std)
        if spec.stem_size == stem_size(spec.image_size):
            flags[f"{_OWN}image_size"] = spec.image_size
        elif assumed.get("stem_size", spec.stem_size) != spec.stem_size:
            raise ValueError(
                f"a checkpoint of PyTorch cannot say that a stem for {spec.stem_size} pixels reads "
                f"images of {spec.image_size}; use save_folder"
            )
    for field, value in assumed.items():
        if getattr(spec.options, field, value) != value:
            flags[f"{_OWN}{field}"] = getattr(spec.options, field)
    by_name = _normalisations(channels)
    # The normalisation of a file without the flag. An EVNet's V1 does not normalise its input.
    default = {
        "vone_": by_name["vonenet"],
        "ev_": ((0.0,) * channels, (1.0,) * channels),
        "": models.family(spec.name).normalisation(spec.base)
        if channels == 3
        else ((0.5,) * channels,) * 2,
    }[spec.front]
    ours = np.asarray([np.broadcast_to(values, (channels,)) for values in (mean, std)], np.float32)
    for flag, values in {None: default, **by_name}.items():
        if np.array_equal(ours, np.asarray(values, np.float32)):
            return flags if flag is None else flags | {"normalization": flag}
    raise ValueError(
        f"mean {mean} and std {std} have no name in a checkpoint of PyTorch, which can name only "
        f"{' and '.join(by_name)}; use save_folder"
    )


def _number(value: Any) -> float | None:
    """The finite number that a flag holds, as a number or as text; else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
