"""Conversion of a file of weights to a network that is ready to run."""

import dataclasses
import itertools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vone_jax import arguments, models, names
from vone_jax.convert import trunks
from vone_jax.convert.architecture import (
    BANKS,
    Architecture,
    normalisation,
    recognise,
    stored_heads,
    stored_size,
    unknown_flags,
    v1_settings,
)
from vone_jax.convert.checkpoint import Checkpoint, read_checkpoint
from vone_jax.convert.gabor_fit import read_bank
from vone_jax.convert.state_dict import fill
from vone_jax.convert.subcortical import LIGHT_ADAPTATION, PREFIX, read_subcortical, with_flags
from vone_jax.convert.torch_file import CheckpointError
from vone_jax.models.trunks import default_heads
from vone_jax.progress import printable
from vone_jax.v1 import ImportedBank, SubcorticalConfig, VOneBlockConfig

_CELLS = {"simple_channels", "complex_channels"}
# The beginning of the note on the size of images that was assumed.
ASSUMED_SIZE = "image size that the file does not say"


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A converted network and notes on its conversion.

    Attributes:
      name: name of the architecture, one of ``models.NAMES``.
      residual: (n,), deviation of each filter pair from its fitted Gabor relative to its peak;
        None for base networks.
      notes: what was assumed, left out or recognised, one line each.
      assumed: fields of V1, or of a base network, that the file does not say.
    """

    name: str
    model: models.Model
    variables: dict[str, Any]
    format: str
    residual: np.ndarray | None
    notes: tuple[str, ...]
    assumed: tuple[str, ...] = ()


def from_torch(
    path: str | Path, name: str | None = None, **options: Any
) -> tuple[models.Model, dict[str, Any]]:
    """Load a network and its variables, with the arguments of ``read``.

    ``model, variables = from_torch("voneresnet50_e70.pth.tar")``
    """
    conversion = read(path, name, **options)
    return conversion.model, conversion.variables


@dataclasses.dataclass
class _Findings:
    """Lines about a file, and the fields that it does not say; see ``Conversion``."""

    problems: list[str]
    notes: list[str]
    assumed: list[str]


def read(
    path: str | Path,
    name: str | None = None,
    v1: VOneBlockConfig | Mapping[str, Any] | None = None,
    image_size: int | None = None,
    ignored_flags: Collection[str] = (),
    subcortical: SubcorticalConfig | None = None,
    stem_size: int | None = None,
    heads: int | None = None,
) -> Conversion:
    """Load a network from a PyTorch checkpoint or a safetensors file.

    Reads files of dicarlolab/vonenet, lucaspiper99/evnet, torchvision, CORnet, MadryLab's
    robustness and the published EfficientNet-Lite0, transformers and ConvNeXts under the names of
    timm, torchvision and Meta, and plain state dicts of these architectures. PyTorch is not needed,
    and nothing in the file is executed. The Gabor bank has exactly the kernels of the file.

    Args:
      path: a file of ``torch.save``, or ``*.safetensors``.
      name: name of the architecture. Default: recognised by the names of the tensors.
      v1: configuration of a VOneNet's front end, except for its bank. Default: the file's flags,
        and the published values for flags that the file lacks. A dictionary replaces only the
        fields that it names. One of simple_channels and complex_channels determines the other.
      image_size: size in pixels of the images that the network reads. A table of positions is
        resized for it, as in timm. Default: the size that ``save_torch`` stored, or that of the
        table; else 224, or 32 for a base network whose first kernel is smaller than
        7 pixels. The front end of a VOneNet keeps its pixels per degree.
      ignored_flags: names of flags that do not change the network. A flag that is neither known
        nor listed here is refused, unless ``v1`` replaces the flags.
      subcortical: configuration of an EVNet's subcortical stage, for images of the size and the
        field of view of V1. Its cells must have the kernels of the file. Gains and contrast
        normalisation are taken from the file. Default: the published cells.
      stem_size: for base networks, the image size whose stem the network has, see
        ``models.create``. No tensor shows its strides. Default: the image size that ``save_torch``
        stored; else 224, whose strides are torchvision's at any image size, or 32 for a first
        kernel smaller than 7 pixels. A note says what was assumed.
      heads: for transformers, of attention, which no tensor shows. Default: those that
        ``save_torch`` stored; else one for 64 channels. A note says what was assumed.

    Raises:
      CheckpointError: (a ValueError) listing every problem of a file that is damaged, hostile or
        does not fit.
      ValueError: for an unknown name, an image size that is not a positive integer, or fields that
        V1 does not have.
      OSError: if the file cannot be read.
    """
    given = {"image_size": image_size, "stem_size": stem_size, "heads": heads}
    for argument, size in given.items():
        if size is not None:
            arguments.count(argument, size)
    if name is not None:
        arguments.choice("name", name, models.NAMES)
    if isinstance(v1, Mapping):
        fields = [f.name for f in dataclasses.fields(VOneBlockConfig) if f.name != "bank"]
        for field in v1:
            arguments.choice("a field of v1", field, fields)
    path = Path(path)
    try:
        checkpoint = read_checkpoint(path)
        arch = checkpoint.flags.get("arch") or checkpoint.flags.get("model_arch")
        stored = str(arch or "").replace("_", "").lower()
        architecture = recognise(checkpoint.state_dict, name, stored, path.name)
    except CheckpointError as error:
        error.args = (f"{printable(str(path))}: {error}",)
        raise
    found = _Findings([], list(checkpoint.notes), [])
    if name is None and not stored:
        label = names.network_label(names.base_network(architecture.name))
        found.notes.append(
            "layers without weights that the file does not say: the pooling and activations of "
            f"{label}; if the network had others, such as pools within its blocks, its logits are "
            "wrong (name, --name)"
        )
    name = architecture.name
    trunk, base = architecture.trunk, names.base_network(name)
    possible = (base,) if trunk is None else trunk.names
    if stored and stored not in {each.replace("_", "") for each in possible}:
        found.problems.append(f"the flags say {stored[:40]!r}, but the tensors are those of {name}")
    if not isinstance(v1, VOneBlockConfig):
        found.problems += unknown_flags(checkpoint.flags, ignored_flags)
    weights, residual = dict(checkpoint.state_dict), None
    kind = names.prefix(name)
    if kind:
        bank = {key: weights.pop(key) for key in BANKS[kind] if key in weights}
        config, residual = _front_end(
            # The table of positions of a trunk is resized below.
            checkpoint, architecture, bank, v1, None if trunk else image_size, subcortical, found,
        )  # fmt: skip
        form: dict[str, Any] = {"v1": config, "stem_size": stem_size}
        if kind == "ev_":
            before = {key: weights.pop(key) for key in [*weights] if key.startswith(PREFIX)}
            form["subcortical"] = _subcortical(
                checkpoint, architecture, before, config, subcortical, found
            )
    else:
        if v1:
            found.problems.append(f"v1 is for VOneNets, but the file holds a {name}")
        form = _base_network(checkpoint, architecture, image_size, stem_size, path, found)
    if trunk is not None:
        form |= _trunk_options(checkpoint, trunk, form, heads, found)
    refusal = f"{path.name} does not convert to {name}:"
    try:
        model = models.create(name, architecture.num_classes, width=architecture.width, **form)
    except ValueError as error:
        raise CheckpointError(refusal, [*found.problems, str(error)]) from None
    # With a wrong front end, weights are still compared, to report all problems at once.
    variables, misfits = fill(model, weights)
    if found.problems or misfits:
        raise CheckpointError(refusal, [*found.problems, *misfits])
    if trunk is not None and image_size is not None:
        try:
            model, variables = models.with_image_size(model, variables, image_size)
        except ValueError as error:
            raise CheckpointError(refusal, [str(error)]) from None
    if not kind:
        found.notes += _assumed_of(model, found.assumed)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    notes, assumed = (*found.notes, f"parameters: {parameters}"), tuple(found.assumed)
    return Conversion(name, model, variables, checkpoint.format, residual, notes, assumed)


def _base_network(
    checkpoint: Checkpoint,
    architecture: Architecture,
    image_size: int | None,
    stem_size: int | None,
    path: Path,
    found: _Findings,
) -> dict[str, Any]:
    """The arguments of ``models.create`` for a base network."""
    channels, trunk = architecture.in_channels, architecture.trunk
    stated = normalisation(checkpoint.flags, checkpoint.normaliser, channels, found.problems)
    stored = stored_size(checkpoint.flags, found.problems)
    # In a file of this project, the default needs no flag.
    if stated is None and stored is None and architecture.name != "efficientnet_lite0":
        found.assumed += ["mean", "std"]
        # timm's own ViTs have another normalisation than all others.
        others = trunk is not None and (
            trunk.convention == "torchvision" or trunks.is_deit(path.name)
        )
        stated = (models.IMAGENET_MEAN, models.IMAGENET_STD) if others and channels == 3 else None
    if not (stem_size or stored) and (trunk is None or trunk.patch_size is None):
        found.assumed.append("stem_size")
    size = image_size or stored
    stem_size = stem_size or stored or architecture.stem_size
    if trunk is not None and trunk.grid is not None:
        # The table of positions shows the size, and is resized afterwards for another one.
        patch_size = trunk.patch_size or trunk.ratio * models.v1_config(stem_size, channels).stride
        size = trunk.grid * patch_size
    if size is None:
        found.assumed.append("image_size")
    mean, std = stated or (None, None)
    return {
        "image_size": size or architecture.stem_size,
        "stem_size": stem_size,
        "in_channels": channels,
        "mean": mean,
        "std": std,
    }


def _trunk_options(
    checkpoint: Checkpoint,
    trunk: trunks.Found,
    form: Mapping[str, Any],
    heads: int | None,
    found: _Findings,
) -> dict[str, Any]:
    """The arguments of ``models.create`` for a transformer or a ConvNeXt."""
    options: dict[str, Any] = {
        field: getattr(trunk, field) for field in ("depth", "attachment", "stem_width")
    }
    if trunk.attachment is None:
        options["patch_size"] = trunk.patch_size
    else:
        before = form.get("v1") or models.v1_config(form["stem_size"], form["in_channels"])
        options["patch_size"] = trunk.ratio * before.stride
    if trunk.grid is not None:
        stored = stored_heads(checkpoint.flags, found.problems)
        options["heads"] = heads or stored or default_heads(trunk.width)
        if not (heads or stored):
            found.notes.append(
                f"heads that the file does not say: {options['heads']} in {trunk.depth} blocks of "
                f"width {trunk.width}; if the network had others, its logits are wrong (heads, "
                "--heads)"
            )
    return options


def _assumed_of(model: models.Model, assumed: Collection[str]) -> list[str]:
    """One note for each kind of thing that the file of a base network does not say."""
    assert isinstance(model, models.BaseNetwork)
    mean, std = (", ".join(f"{value:.4g}" for value in each) for each in (model.mean, model.std))
    pool = "" if getattr(model.stem, "pool", True) else " and no pool"
    notes = {
        "mean": f"normalisation that the file does not say: mean {mean}, standard deviation {std}",
        "image_size": f"{ASSUMED_SIZE}: {model.image_size} pixels",
        "stem_size": f"strides that the file does not say: the stem has stride {model.stem.stride}"
        f"{pool}; if the network had others, its logits are wrong (stem_size, --stem-size)",
    }
    return [note for field, note in notes.items() if field in assumed]


def _subcortical(
    checkpoint: Checkpoint,
    architecture: Architecture,
    tensors: Mapping[str, np.ndarray],
    v1: VOneBlockConfig,
    given: SubcorticalConfig | None,
    found: _Findings,
) -> SubcorticalConfig:
    """The subcortical stage of an EVNet with the constants of the file."""
    if given is None and LIGHT_ADAPTATION not in checkpoint.flags:
        found.notes.append(
            "light adaptation, which the file does not say; for a network without it, give "
            "SubcorticalConfig(light_adaptation=False) as subcortical"
        )
    # Other numbers of channels are reported with the kernels.
    channels = architecture.in_channels if architecture.in_channels in (1, 3) else 3
    published = SubcorticalConfig(v1.image_size, v1.visual_degrees, channels)
    stage = read_subcortical(tensors, given or published, found.problems)
    return with_flags(stage, checkpoint.flags, found.problems)


def _front_end(
    checkpoint: Checkpoint,
    architecture: Architecture,
    bank: dict[str, np.ndarray],
    config: VOneBlockConfig | Mapping[str, Any] | None,
    image_size: int | None,
    subcortical: SubcorticalConfig | None,
    found: _Findings,
) -> tuple[VOneBlockConfig, np.ndarray | None]:
    """Return the configuration of V1 with the bank of the file, and the residuals of the bank.

    If the bank cannot be read, return a configuration with as many channels and no residuals, so
    that the weights can still be compared.
    """
    flags, kind = checkpoint.flags, names.prefix(architecture.name)
    in_phase, quadrature = BANKS[kind]
    n, in_channels, _, k = (*bank.get(in_phase, np.zeros(0)).shape, 0, 0, 0, 0)[:4]
    # A missing bank, or one of a wrong shape, is reported below.
    in_channels = in_channels or (4 if kind == "ev_" else architecture.in_channels)
    stated = normalisation(flags, checkpoint.normaliser, in_channels, found.problems)
    given: Mapping[str, Any] = config if isinstance(config, Mapping) else {}
    if isinstance(config, VOneBlockConfig):
        fields = dict(vars(config))
        del fields["bank"]
    else:
        start = VOneBlockConfig()
        if kind == "ev_":
            start = models.v1_config(224, in_channels, architecture.name, subcortical)
        fields = {f: value for f, value in vars(start).items() if f not in {"bank", *_CELLS}}
        fields |= v1_settings(flags, k, found.problems)
        # Field of V1 -> flag that holds the field.
        settings = {"stride": "stride", "k_exc": "k_exc", "noise": "noise_mode"}
        if image_size is None:
            settings["image_size"] = "image_size"
        missing = {f: flag for f, flag in settings.items() if flag not in flags and f not in given}
        if "image_size" in missing:
            found.notes.append(f"{ASSUMED_SIZE}: {fields['image_size']} pixels")
        if others := [flag for field, flag in missing.items() if field != "image_size"]:
            found.notes.append(
                f"published values for what the file does not say: {', '.join(others)}"
            )
        normaliser = ("image_mean", "image_std")
        if stated is None:
            found.assumed += [field for field in normaliser if field not in given]
        else:
            fields |= zip(normaliser, stated, strict=True)
        found.assumed += missing
        fields |= given
        # The original's training script stores the number of simple channels in both flags, so the
        # other number is computed from the number of filters.
        if len(cells := given.keys() & _CELLS) == 1:
            fields |= {other: n - given[one] for one in cells for other in _CELLS - cells}
    if image_size is not None:
        # The pixels per degree stay the same, since the kernels of the file were made for them.
        if "visual_degrees" not in given:
            fields["visual_degrees"] *= image_size / fields["image_size"]
        fields["image_size"] = image_size
    fields |= {"in_channels": in_channels, "allow_aliasing": True}
    found.problems += [f"missing: {name}" for name in BANKS[kind] if name not in bank]
    try:
        if len(bank) == 2:
            fields["kernel_size"] = k if k % 2 else 25
            if not _CELLS & fields.keys():
                fields |= {"simple_channels": n - n // 2, "complex_channels": n // 2}
                found.assumed += sorted(_CELLS)
                found.notes.append(
                    "half of the filters taken for simple cells, half for complex cells"
                )
            ppd = VOneBlockConfig(**fields).pixels_per_degree
            fit = read_bank(bank[in_phase], bank[quadrature], ppd, found.problems)
            if fit is not None:
                imported, residual = fit
                found.notes += _describe(imported, residual, fields)
                return VOneBlockConfig(**fields, bank=imported), residual
        return VOneBlockConfig(**fields), None
    except ValueError as error:
        found.problems.append(str(error))
        filters = {"simple_channels": n or 512, "complex_channels": 0}
        return VOneBlockConfig(**filters, in_channels=in_channels), None


def _describe(bank: ImportedBank, residual: np.ndarray, fields: dict[str, Any]) -> list[str]:
    """Describe the bank in words. If a seed samples the bank, write it into ``fields``."""
    parameters, worst = bank.parameters, int(residual.argmax())
    shared = np.mean(parameters.channel == parameters.channel_quadrature)
    lines = [
        f"bank: {len(bank)} pairs of {bank.kernel_size}x{bank.kernel_size} kernels; "
        f"largest deviation from the fitted Gabors {residual.max():.2g} of the peak (filter "
        f"{worst})",
        f"bank: sf {parameters.sf.min():.3g} to {parameters.sf.max():.3g} cycles per degree; "
        f"both phases read the same channel in {shared:.0%} of the pairs",
    ]
    seed, evnet = fields["gabor_seed"], fields["distribution"].startswith("evnet")
    published = (8.0,) if evnet else (9.0, 6.0)
    distributions = ("evnet", "evnet_published") if evnet else ("physiological", "uniform")
    choices: list[Any] = [
        *itertools.product(dict.fromkeys((fields["sf_max"], *published)), distributions)
    ]
    if not evnet:
        # Frequencies beyond those that were published.
        choices.append((11.3, "physiological_extended"))
    for sf_max, distribution in choices:
        sampling = {"sf_max": sf_max, "distribution": distribution, "gabor_seed": seed}
        if _sampled(bank, fields | sampling):
            fields |= sampling
            return [*lines, f"bank: the {distribution} one of seed {seed}, sf_max {sf_max:g}"]
    tried = " or ".join(f"{sf_max:g}" for sf_max in sorted({sf_max for sf_max, _ in choices}))
    return [*lines, f"bank: none that seed {seed} samples with sf_max {tried}"]


def _sampled(bank: ImportedBank, fields: dict[str, Any]) -> bool:
    """Return True if the fields of a configuration sample the parameters of the bank."""
    try:
        sampled = VOneBlockConfig(**fields).gabor_parameters()
    except ValueError:  # This seed or frequency cannot be sampled.
        return False
    if len(sampled) != len(bank):  # The flags are wrong, which is reported.
        return False
    # The original VOneNet draws channels with PyTorch.
    own_channels = fields["distribution"].startswith("evnet")
    if own_channels and not np.array_equal(bank.parameters.channel, sampled.channel):
        return False
    angles = (
        np.exp(1j * np.deg2rad(getattr(bank.parameters, name) - getattr(sampled, name)))
        for name in ("theta", "phase")
    )
    return all(np.abs(angle - 1).max() < 1e-3 for angle in angles) and all(
        np.allclose(getattr(bank.parameters, name), getattr(sampled, name), rtol=1e-3, atol=0)
        for name in ("sf", "nx", "ny")
    )
