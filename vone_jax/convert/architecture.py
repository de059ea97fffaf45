"""Recognition of the network in a file, from its tensors' names and shapes and its flags."""

import dataclasses
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from vone_jax import arguments, names
from vone_jax.convert import trunks
from vone_jax.convert.subcortical import LIGHT_ADAPTATION, RECEPTIVE_FIELDS, subcortical_flags
from vone_jax.convert.torch_file import CheckpointError
from vone_jax.models import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Model,
    VOneNet,
    default_normalisation,
    default_width,
)
from vone_jax.models.efficientnet import BLOCKS
from vone_jax.models.trunks import TRUNKS, default_heads
from vone_jax.models.vit import ViTBackEnd
from vone_jax.v1 import FanoNoise, GaussianNoise, NeuronalNoise, StabilisedNoise
from vone_jax.v1.noise import Noise

# Tensors of the front ends of VOneNets and EVNets.
BANKS = {
    kind: tuple(f"{block}.simple_conv_{phase}.weight" for phase in ("q0", "q1"))
    for kind, block in (("vone_", "vone_block"), ("ev_", "voneblock"))
}
BOTTLENECKS = {"vone_": "bottleneck.weight", "ev_": "voneblock_bottleneck.weight"}

# Architecture -> first convolution, last layer; for transformers and ConvNeXts see ``trunks.py``.
_ENDS = {
    "resnet18": ("conv1.weight", "fc.weight"),
    "resnet50": ("conv1.weight", "fc.weight"),
    "cornet_s": ("V1.conv1.weight", "decoder.linear.weight"),
    "cornet_z": ("V1.conv.weight", "decoder.linear.weight"),
    "alexnet": ("features.0.weight", "classifier.6.weight"),
    "efficientnet_b0": ("features.0.0.weight", "classifier.1.weight"),
    "efficientnet_lite0": ("_conv_stem.weight", "_fc.weight"),
}
_RESNETS: dict[tuple[tuple[int, ...], str], str] = {
    ((2, 2, 2, 2), "basic"): "resnet18",
    ((3, 4, 6, 3), "bottleneck"): "resnet50",
}

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
# A flag of this project for base networks: the size of the images and of the stem, where they are
# one. It has a name of its own, because the original's image_size is that of V1.
_IMAGE_SIZE = "vone_jax_image_size"
# The heads of a transformer, which no tensor shows, if they are not the usual ones.
_HEADS = "vone_jax_heads"
# Flags that are read elsewhere, or whose effect is in the tensors of the file.
_READ = {
    *(_IMAGE_SIZE, _HEADS),
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


# Mean and standard deviation per channel.
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The arguments of ``models.create`` that tensors determine.

    The size of the first kernel shows whether a base network has the stem of torchvision for 224
    pixels or that for 32 pixels. It does not show the size of the images.
    """

    name: str
    num_classes: int
    width: int
    in_channels: int
    stem_size: int
    # What the tensors of a transformer or a ConvNeXt show.
    trunk: trunks.Found | None = None


def recognise(
    state_dict: Mapping[str, np.ndarray],
    name: str | None = None,
    stored: str = "",
    file_name: str = "",
) -> Architecture:
    """Recognise a network by its tensors, and by its name if known, or raise an error.

    Transformers of several names have the same tensors, see ``trunks.named``.
    """
    kind = names.prefix(name or "")
    if name is None:
        kinds = (k for k, bank in BANKS.items() if any(tensor in state_dict for tensor in bank))
        kind = next(kinds, "")
    inner = {n.removeprefix("model."): x for n, x in state_dict.items()} if kind else state_dict
    trunk = trunks.find(inner)
    if trunk is not None and (name is None or names.base_network(name) in trunk.names):
        if name is None:
            name = kind + trunks.named(trunk, stored, file_name)
        in_channels = trunk.in_channels
        if kind:
            reads = {"vone_": BANKS["vone_"][0], "ev_": RECEPTIVE_FIELDS}[kind]
            shape = np.shape(state_dict.get(reads, 0))
            in_channels = shape[1] if len(shape) > 1 and shape[1] else 3
        size = 224 if (trunk.patch_size or 4) >= 4 else 32
        return Architecture(name, trunk.num_classes, trunk.width, in_channels, size, trunk)
    if name is None:
        name = kind + _base_network(inner)
    base = names.base_network(name)
    if base not in _ENDS:
        raise CheckpointError(f"the tensors are not those of {name}")

    def length(tensor: str, axis: int, default: int) -> int:
        # A missing tensor, or one of a wrong rank, is reported when leaves are filled.
        shape = np.shape(state_dict.get(tensor, 0))
        return shape[axis] if len(shape) > axis and shape[axis] else default

    first, last = _ENDS[base]
    images = {"vone_": BANKS["vone_"][0], "ev_": RECEPTIVE_FIELDS}
    return Architecture(
        name=name,
        num_classes=length(f"model.{last}" if kind else last, 0, 1000),
        width=length(BOTTLENECKS.get(kind, first), 0, default_width(name)),
        in_channels=length(images.get(kind, first), 1, 3),
        stem_size=224 if length(first, 2, 7) >= 7 or base.startswith("efficientnet") else 32,
    )


def _base_network(tensors: Collection[str]) -> str:
    """The architecture of the back end. Another one than those in ``_ENDS`` is an error."""
    if "layer1.0.conv1.weight" in tensors:
        blocks = tuple(
            sum(f"layer{stage}.{i}.conv1.weight" in tensors for i in range(100))
            for stage in range(1, 5)
        )
        kind = "bottleneck" if "layer1.0.conv3.weight" in tensors else "basic"
        if (blocks, kind) in _RESNETS:
            return _RESNETS[blocks, kind]
        raise CheckpointError(
            f"the state dict is of a ResNet with {blocks} {kind} blocks; known are ResNet-18 "
            f"and ResNet-50"
        )
    if "V2.conv_input.weight" in tensors:
        return "cornet_s"
    if "V2.conv.weight" in tensors:
        return "cornet_z"
    if "features.0.weight" in tensors and any(n.startswith("classifier.") for n in tensors):
        return "alexnet"
    numbered = r"_blocks\.\d+\._bn1\.weight", r"features\.\d+\.\d+\.block\.0\.0\.weight"
    lite, b0 = (sum(bool(re.fullmatch(n, name)) for name in tensors) for n in numbered)
    if lite or b0:
        known = {(BLOCKS, 0): "efficientnet_lite0", (0, BLOCKS): "efficientnet_b0"}
        if (lite, b0) in known:
            return known[lite, b0]
        raise CheckpointError(
            f"the state dict is of an EfficientNet with {max(lite, b0)} blocks; known are B0 and "
            f"Lite0, with {BLOCKS}"
        )
    some = ", ".join(name[:80] for name in sorted(tensors)[:8])
    raise CheckpointError(
        f"the state dict is of no known architecture ({', '.join((*_ENDS, *TRUNKS))}, each also "
        f"behind a VOneBlock); its tensors begin with: {some[:400]}. Any other torch.nn.Module is "
        "opened by a function, see docs/networks.md#a-module-of-pytorch"
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


def stored_size(flags: Mapping[str, Any], problems: list[str]) -> int | None:
    """Return the size of images and stem that ``flags_of`` stored, None without a flag.

    A wrong value adds a line to ``problems``.
    """
    return _integer(flags, _IMAGE_SIZE, 8, problems)


def stored_heads(flags: Mapping[str, Any], problems: list[str]) -> int | None:
    """Return the heads of a transformer that ``flags_of`` stored, see ``stored_size``."""
    return _integer(flags, _HEADS, 1, problems)


def _integer(flags: Mapping[str, Any], flag: str, least: int, problems: list[str]) -> int | None:
    value = flags.get(flag)
    known = type(value) is int and value >= least
    if value is not None and not known:
        problems.append(f"flag {flag} must be an integer >= {least}, got {value!r}")
    return value if known else None


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
    name, known = flags.get("normalization"), _normalisations(channels)
    if name is not None and name not in known:
        problems.append(
            f"flag normalization must be {' or '.join(map(repr, known))}, got "
            f"{str(name)[:40]!r}{arguments.nearest(str(name)[:40], known)}"
        )
    named = known.get(str(name))
    if (
        stored
        and named
        and not (
            len(stored[0]) == len(named[0]) and np.allclose(named, np.asarray(stored, np.float64))
        )
    ):
        problems.append("the flag normalization contradicts the normaliser of the file")
    return stored or named


def unknown_flags(flags: Mapping[str, Any], ignored: Collection[str]) -> list[str]:
    """List the flags that may change the network and are neither known nor ignored."""
    known = _READ | _TRAINING | {*ignored}
    return [
        f"flag {name[:40]!r} is unknown and may change the network, got {str(value)[:40]!r}; if it "
        f"does not, name it in ignored_flags (--ignore-flag); otherwise give the front end as v1"
        for name, value in flags.items()
        if name not in known and value is not None
    ]


def flags_of(name: str, model: Model, own_stem: bool) -> dict[str, Any]:
    """The flags of a network of this architecture, which the original's loader reads.

    A base network with ``own_stem`` has the stem of its image size, see ``models.create``.

    Raises:
      ValueError: for a noise, a surround or a normalisation that the original does not know.
    """
    flags: dict[str, Any] = {"arch": names.base_network(name).replace("_", "")}
    channels = model.in_channels
    if isinstance(model, VOneNet):
        config, noise = model.v1, model.v1.noise
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
        if model.subcortical is not None:
            flags |= subcortical_flags(model.subcortical)
    else:
        mean, std = model.mean, model.std
        flags |= {_IMAGE_SIZE: model.image_size} if own_stem else {}
    back_end = model.back_end
    if isinstance(back_end, ViTBackEnd) and back_end.heads != default_heads(back_end.width):
        flags[_HEADS] = back_end.heads
    known = _normalisations(channels)
    # The normalisation of a file without the flag. An EVNet's V1 does not normalise its input.
    default = {
        "vone_": known["vonenet"],
        "ev_": ((0.0,) * channels, (1.0,) * channels),
        "": default_normalisation(name, channels),
    }[names.prefix(name)]
    ours = np.asarray([np.broadcast_to(values, (channels,)) for values in (mean, std)], np.float32)
    for flag, values in {None: default, **known}.items():
        if np.array_equal(ours, np.asarray(values, np.float32)):
            return flags if flag is None else flags | {"normalization": flag}
    raise ValueError(
        f"mean {mean} and std {std} have no name in a checkpoint of PyTorch, which can name only "
        f"{' and '.join(known)}; use save_folder"
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
