"""Conversion of a file of weights to a network that is ready to run."""

import dataclasses
import itertools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vone_jax import arguments, models, names
from vone_jax.convert.architecture import (
    BANKS,
    Architecture,
    normalisation,
    recognise,
    stem_size,
    unknown_flags,
    v1_settings,
)
from vone_jax.convert.checkpoint import Checkpoint, read_checkpoint
from vone_jax.convert.gabor_fit import check_bank_size, read_bank
from vone_jax.convert.state_dict import fill
from vone_jax.convert.subcortical import (
    LIGHT_ADAPTATION,
    PREFIX,
    read_subcortical,
    with_flags,
)
from vone_jax.convert.untrusted import CheckpointError, printable
from vone_jax.v1 import ImportedBank, SubcorticalConfig, VOneBlockConfig

_CELLS = {"simple_channels", "complex_channels"}


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


def read(
    path: str | Path,
    name: str | None = None,
    v1: VOneBlockConfig | Mapping[str, Any] | None = None,
    image_size: int | None = None,
    ignored_flags: Collection[str] = (),
    subcortical: SubcorticalConfig | None = None,
) -> Conversion:
    """Load a network from a PyTorch checkpoint or a safetensors file.

    Reads files of dicarlolab/vonenet, lucaspiper99/evnet, torchvision, CORnet, MadryLab's
    robustness and the published EfficientNet-Lite0, and plain state dicts of these architectures.
    PyTorch is not needed, and nothing in the file is executed. The Gabor bank has exactly the
    kernels of the file.

    Args:
      path: a file of ``torch.save``, or ``*.safetensors``.
      name: name of the architecture. Default: recognised by the names of the tensors.
      v1: configuration of a VOneNet's front end, except for its bank. Default: the file's flags,
        and the published values for flags that the file lacks. A dictionary replaces only the
        fields that it names. One of simple_channels and complex_channels determines the other.
      image_size: size in pixels of the images that the network reads. Default: the size that
        ``save_torch`` stored; else 224, or 32 for a base network whose first kernel is smaller than
        7 pixels. The stem for small images has other strides, see ``models.stem_form``. A note
        tells if the strides differ from those for the default size.
      ignored_flags: names of flags that do not change the network. A flag that is neither known
        nor listed here is refused, unless ``v1`` replaces the flags.
      subcortical: configuration of an EVNet's subcortical stage, for images of the size and the
        field of view of V1. Its cells must have the kernels of the file. Gains and contrast
        normalisation are taken from the file. Default: the published cells.

    Raises:
      CheckpointError: (a ValueError) listing every problem of a file that is damaged, hostile or
        does not fit.
      ValueError: for an unknown name, an image size that is not a positive integer, fields that V1
        does not have, or for ``ignored_flags`` that is a string and not a list of names.
      OSError: if the file cannot be read.
    """
    if image_size is not None:
        arguments.count("image_size", image_size)
    if name is not None:
        arguments.choice("name", name, models.NAMES)
    if isinstance(v1, Mapping):
        fields = [f.name for f in dataclasses.fields(VOneBlockConfig) if f.name != "bank"]
        for field in v1:
            arguments.choice("a field of v1", field, fields)
    if isinstance(ignored_flags, str):
        raise ValueError(f"ignored_flags must be a list of names, such as [{ignored_flags!r}]")
    path = Path(path)
    try:
        checkpoint = read_checkpoint(path)
        architecture = recognise(checkpoint.state_dict, name)
    except CheckpointError as error:
        error.args = (f"{printable(str(path))}: {error}",)
        raise
    problems = []
    stored = checkpoint.flags.get("arch") or checkpoint.flags.get("model_arch")
    base = names.base_network(architecture.name).replace("_", "")
    if stored is not None and str(stored).replace("_", "").lower() != base:
        problems.append(
            f"the flags say {str(stored)[:40]!r}, but the tensors are those of {architecture.name}"
        )
    if not isinstance(v1, VOneBlockConfig):
        problems += unknown_flags(checkpoint.flags, ignored_flags)
    channels = architecture.in_channels
    state_dict = dict(checkpoint.state_dict)
    kind = names.front_end(architecture.name)
    bank = {key: state_dict.pop(key) for key in BANKS.get(kind, ()) if key in state_dict}
    before = {key: state_dict.pop(key) for key in checkpoint.state_dict if key.startswith(PREFIX)}
    notes = list(checkpoint.notes)
    assumed: list[str] = []
    residual = None
    if kind:
        config, residual = _front_end(
            checkpoint, architecture, bank, v1, image_size, subcortical, problems, notes, assumed
        )
        # With a wrong bank, weights are still compared, to report all problems at once.
        form: dict[str, Any] = {"v1": config}
        if kind == "ev_":
            # Other numbers of channels are reported with the kernels.
            shown = channels if channels in (1, 3) else 3
            published = SubcorticalConfig(config.image_size, config.visual_degrees, shown)
            if subcortical is None and LIGHT_ADAPTATION not in checkpoint.flags:
                notes.append(
                    "light adaptation, which the file does not say; for a network without it, give "
                    "SubcorticalConfig(light_adaptation=False) as subcortical"
                )
            stage = read_subcortical(before, subcortical or published, problems)
            form["subcortical"] = with_flags(stage, checkpoint.flags, problems)
    else:
        stated = normalisation(checkpoint.flags, checkpoint.normaliser, channels, problems)
        mean, std = stated or (None, None)
        if v1:
            problems.append(f"v1 is for VOneNets, but the file holds a {architecture.name}")
        stored_size = stem_size(checkpoint.flags, problems)
        usual_size = stored_size or architecture.image_size
        size = usual_size if image_size is None else image_size
        form = {"image_size": size, "in_channels": channels, "mean": mean, "std": std}
    name, width = architecture.name, architecture.width
    refusal = f"{path.name} does not convert to {name}:"
    try:
        model = models.create(name, architecture.num_classes, width=width, **form)
        if not kind:
            if stated is None and name != "efficientnet_lite0":
                assumed += ["mean", "std"]
                notes.append(
                    "normalisation that the file does not say: mean "
                    f"{_rounded(model.mean)}, standard deviation {_rounded(model.std)}"
                )
            form["image_size"] = usual_size
            usual = models.create(name, architecture.num_classes, width=width, **form)
            ours, theirs = _strides(model), _strides(usual)
            if ours != theirs:
                notes.append(
                    f"the stem for images of {size} pixels has {ours}, that for "
                    f"{usual.image_size} pixels {theirs}: give an image size only if the network "
                    "was trained with it"
                )
            if image_size is None and stored_size is None and usual_size == 32:
                notes.append(
                    f"image size that the file does not say: {size} pixels, since the first kernel "
                    f"is small. So the stem has {ours}; if the network had another stem, its "
                    "logits are wrong"
                )
    except ValueError as error:
        raise CheckpointError(refusal, [*problems, str(error)]) from None
    variables, misfits = fill(model, state_dict)
    if problems or misfits:
        raise CheckpointError(refusal, [*problems, *misfits])
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    notes.append(f"parameters: {parameters}")
    return Conversion(
        name, model, variables, checkpoint.format, residual, tuple(notes), tuple(assumed)
    )


def _rounded(values: Collection[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _strides(model: Any) -> str:
    pool = "" if getattr(model.stem, "pool", True) else " and no pool"
    return f"stride {model.stem.stride}{pool}"


def _front_end(
    checkpoint: Checkpoint,
    architecture: Architecture,
    bank: dict[str, np.ndarray],
    config: VOneBlockConfig | Mapping[str, Any] | None,
    image_size: int | None,
    subcortical: SubcorticalConfig | None,
    problems: list[str],
    notes: list[str],
    assumed: list[str],
) -> tuple[VOneBlockConfig, np.ndarray | None]:
    """Return the configuration of V1 with the bank of the file, and the residuals of the bank.

    If the bank cannot be read, return a configuration with as many channels and no residuals, so
    that the weights can still be compared.
    """
    kind = names.front_end(architecture.name)
    in_phase, quadrature = BANKS[kind]
    n, in_channels, _, k = (*bank.get(in_phase, np.zeros(0)).shape, 0, 0, 0, 0)[:4]
    # A missing bank, or one of a wrong shape, is reported below.
    in_channels = in_channels or (4 if kind == "ev_" else architecture.in_channels)
    stated = normalisation(checkpoint.flags, checkpoint.normaliser, in_channels, problems)
    if isinstance(config, VOneBlockConfig):
        fields = dict(vars(config))
        del fields["bank"]
    else:
        start = VOneBlockConfig()
        if kind == "ev_":
            start = models.v1_config(224, in_channels, architecture.name, subcortical)
        fields = {f: value for f, value in vars(start).items() if f not in {"bank", *_CELLS}}
        fields |= v1_settings(checkpoint.flags, k, problems)
        given = config or {}
        normaliser = ("image_mean", "image_std")
        if stated is None:
            assumed += [field for field in normaliser if field not in given]
        else:
            fields |= zip(normaliser, stated, strict=True)
        # Field of V1 -> flag that holds the field.
        flags = {"stride": "stride", "k_exc": "k_exc", "noise": "noise_mode"}
        if image_size is None:
            flags["image_size"] = "image_size"
        missing = {
            field: flag
            for field, flag in flags.items()
            if flag not in checkpoint.flags and field not in given
        }
        if missing:
            flags = ", ".join(missing.values())
            notes.append(f"published values for what the file does not say: {flags}")
            assumed += missing
        fields |= given
        # The original's training script stores the number of simple channels in both flags, so the
        # other number is computed from the number of filters.
        if len(cells := given.keys() & _CELLS) == 1:
            fields |= {other: n - given[one] for one in cells for other in _CELLS - cells}
    if image_size is not None:
        # The pixels per degree stay the same, since the kernels of the file were made for them.
        degrees = image_size * fields["visual_degrees"] / fields["image_size"]
        if isinstance(config, Mapping) and "visual_degrees" in config:
            degrees = fields["visual_degrees"]
        fields |= {"image_size": image_size, "visual_degrees": degrees}
    fields |= {"in_channels": in_channels, "allow_aliasing": True}
    problems += [f"missing: {name}" for name in BANKS[kind] if name not in bank]
    try:
        if len(bank) == 2:
            fields["kernel_size"] = k if k % 2 else 25
            if not _CELLS & fields.keys():
                fields |= {"simple_channels": n - n // 2, "complex_channels": n // 2}
                assumed += sorted(_CELLS)
                notes.append("half of the filters taken for simple cells, half for complex cells")
            ppd = VOneBlockConfig(**fields).pixels_per_degree
            fit = read_bank(bank[in_phase], bank[quadrature], ppd, problems)
            if fit is not None:
                imported, residual = fit
                notes += _describe(imported, residual, fields)
                return VOneBlockConfig(**fields, bank=imported), residual
        config = VOneBlockConfig(**fields)
        check_bank_size(config.num_channels, config.kernel_size)
        return config, None
    except ValueError as error:
        problems.append(str(error))
        filters = {"simple_channels": min(n, 4096) or 512, "complex_channels": 0}
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
