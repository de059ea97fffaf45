"""Conversion of a file of weights to a network that is ready to run."""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import arguments, models
from vone_jax.convert.checkpoint import Checkpoint, read_checkpoint
from vone_jax.convert.flags import normalisation, stored_fields, unknown_flags, v1_settings
from vone_jax.convert.gabor_fit import read_bank
from vone_jax.convert.names import BANKS, BOTTLENECKS, recognise
from vone_jax.convert.state_dict import fill
from vone_jax.convert.subcortical import (
    LIGHT_ADAPTATION,
    PREFIX,
    RECEPTIVE_FIELDS,
    read_subcortical,
    with_flags,
)
from vone_jax.convert.torch_file import CheckpointError
from vone_jax.progress import printable
from vone_jax.v1 import ImportedBank, SubcorticalConfig, VOneBlockConfig

_CELLS = {"simple_channels", "complex_channels"}
# The beginning of the note on the size of images that was assumed.
ASSUMED_SIZE = "image size that the file does not say"


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A converted network and notes on its conversion.

    Attributes:
      model: the network; ``model.spec`` is what the file is.
      residual: (n,), deviation of each filter pair from its fitted Gabor relative to its peak;
        None for base networks.
      notes: what was assumed, left out or recognised, one line each.
      assumed: fields of V1, or of a base network and its options, that neither the file nor the
        caller has said.
    """

    model: models.Model
    variables: dict[str, Any]
    format: str
    residual: np.ndarray | None
    notes: tuple[str, ...]
    assumed: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the network, one of ``models.list_models``."""
        return self.model.spec.name


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
    subcortical: SubcorticalConfig | None = None,
    **given: Any,
) -> Conversion:
    """Load a network from a PyTorch checkpoint or a safetensors file.

    Reads files of dicarlolab/vonenet, lucaspiper99/evnet, torchvision, CORnet, MadryLab's
    robustness and the published EfficientNet-Lite0, transformers and ConvNeXts under the names of
    timm, torchvision and Meta, and plain state dicts of these architectures. PyTorch is not needed,
    and nothing in the file is executed. The Gabor bank has exactly the kernels of the file.

    A field of the network is the one that is given, or that the tensors or the flags tell. Any
    other is assumed, and a note says its value.

    Args:
      path: a file of ``torch.save``, or ``*.safetensors``.
      name: name of the network. Default: recognised by the names of the tensors.
      v1: configuration of a VOneNet's front end, except for its bank. Default: the file's flags,
        and the published values for flags that the file lacks. A dictionary replaces only the
        fields that it names. One of simple_channels and complex_channels determines the other.
      subcortical: configuration of an EVNet's subcortical stage, for images of the size and the
        field of view of V1. Its cells must have the kernels of the file. Gains and contrast
        normalisation are taken from the file. Default: the published cells.
      **given: other fields of ``models.Spec`` or of the options of the architecture, such as:
        image_size, the side in pixels of the images that the network reads: a table of positions is
        resized for it, as in timm, and V1 keeps its pixels per degree;
        stem_size, the image size whose stem a base network has, whose strides no tensor shows;
        heads of a transformer's attention; mean and std of a base network.

    Raises:
      CheckpointError: (a ValueError) listing every problem of a file that is damaged, hostile or
        does not fit.
      ValueError: for an unknown name or field, or an image size that is not a positive integer.
      OSError: if the file cannot be read.
    """
    given = {field: value for field, value in given.items() if value is not None}
    if "image_size" in given:
        arguments.count("image_size", given["image_size"])
    if name is not None:
        arguments.choice("name", name, models.list_models())
    if isinstance(v1, Mapping):
        fields = [f.name for f in dataclasses.fields(VOneBlockConfig) if f.name != "bank"]
        for field in v1:
            arguments.choice("a field of v1", field, fields)
    path = Path(path)
    try:
        checkpoint = read_checkpoint(path)
        flags = checkpoint.flags
        stored = str(flags.get("arch") or flags.get("model_arch") or "").replace("_", "").lower()
        recognised, tensors = recognise(checkpoint.state_dict, name, stored, path.name)
    except CheckpointError as error:
        error.args = (f"{printable(str(path))}: {error}",)
        raise
    found = _Findings([], list(checkpoint.notes), [])
    kind, base = models.prefix(recognised), models.base_network(recognised)
    if name is None and not stored:
        found.notes.append(
            "layers without weights that the file does not say: the pooling and activations of "
            f"{models.label(base)}; if the network had others, such as pools within its blocks, "
            "its logits are wrong (name, --name)"
        )
    architecture = models.family(recognised)
    every = [field.name for cls in (models.Spec, architecture) for field in dataclasses.fields(cls)]
    for field in given:
        arguments.choice(f"a field of {recognised}", field, every)
    if not isinstance(v1, VOneBlockConfig):
        found.notes += unknown_flags(flags)
    weights, residual = dict(checkpoint.state_dict), None
    known = stored_fields(flags) | given
    # The tensors of some networks have a size, and are resized below.
    resized = bool((architecture.told(tensors, known) or {}).get("image_size"))
    if kind:
        bank = {key: weights.pop(key) for key in BANKS[kind] if key in weights}
        reads = BANKS[kind][0] if kind == "vone_" else RECEPTIVE_FIELDS
        channels = _length(checkpoint.state_dict, reads, 1) or 3
        size = None if resized else known.pop("image_size", None)
        config, residual = _front_end(
            checkpoint, recognised, channels, bank, v1, size, subcortical, found
        )
        known |= {"v1": config, "in_channels": channels}
        if kind == "ev_":
            before = {key: weights.pop(key) for key in [*weights] if key.startswith(PREFIX)}
            known["subcortical"] = _subcortical(
                checkpoint, channels, before, config, subcortical, found
            )
    elif v1:
        found.problems.append(f"v1 is for VOneNets, but the file holds a {recognised}")
    told = architecture.told(tensors, known) or {}
    told = {field: each for field, each in told.items() if field != "name" and each is not None}
    if not kind:
        channels = known.get("in_channels") or told.get("in_channels") or 3
        stated = normalisation(flags, checkpoint.normaliser, channels, found.problems)
        # In a file of this project, the default needs no flag.
        if stated is None and stored_fields(flags):
            stated = (None, None)
        known = (dict(zip(("mean", "std"), stated, strict=True)) if stated else {}) | known
    elif width := _length(checkpoint.state_dict, BOTTLENECKS[kind], 0):
        told.setdefault("width", width)
    assumed = {
        field: value
        for field, value in architecture.assumed(tensors, base).items()
        if field not in told
        and field not in known
        # V1 has its own normalisation and size.
        and not (kind and field in ("mean", "std", "image_size", "stem_size"))
    }
    spec_fields: dict[str, Any] = assumed | told | known
    if resized:
        spec_fields |= {"image_size": told.get("image_size")}
    if kind:
        spec_fields.pop("image_size", None)
    refusal = f"{path.name} does not convert to {recognised}:"
    try:
        model = models.create(recognised, **spec_fields)
    except (ValueError, TypeError) as error:
        raise CheckpointError(refusal, [*found.problems, str(error)]) from None
    # With a wrong front end, weights are still compared, to report all problems at once.
    variables, misfits = fill(model, weights)
    if found.problems or misfits:
        raise CheckpointError(refusal, [*found.problems, *misfits])
    if resized and "image_size" in given:
        try:
            model, variables = models.with_image_size(model, variables, given["image_size"])
        except ValueError as error:
            raise CheckpointError(refusal, [str(error)]) from None
    found.assumed += assumed
    found.notes += _assumed_of(model.spec, assumed)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    notes = (*found.notes, f"parameters: {parameters}")
    return Conversion(model, variables, checkpoint.format, residual, notes, tuple(found.assumed))


def _length(tensors: Mapping[str, np.ndarray], name: str, axis: int) -> int | None:
    """The length of an axis of a tensor. One that is missing is reported with the others."""
    shape = np.shape(tensors.get(name, 0))
    return shape[axis] or None if len(shape) > axis else None


def _assumed_of(spec: models.Spec, assumed: Mapping[str, Any]) -> list[str]:
    """One note for each kind of thing that nobody has said."""
    wrong = "if the network had others, its logits are wrong"
    notes = []
    for field in assumed:
        if field == "mean":
            both: Any = spec.mean, spec.std
            mean, std = (", ".join(f"{value:.4g}" for value in each) for each in both)
            notes.append(
                f"normalisation that the file does not say: mean {mean}, standard deviation {std}"
            )
        elif field == "image_size":
            notes.append(f"{ASSUMED_SIZE}: {spec.image_size} pixels")
        elif field == "stem_size":
            stem = spec.stem(jnp.float32)
            stride = getattr(stem, "stride", None)
            form = f"that of {spec.stem_size} pixels" if stride is None else f"of stride {stride}"
            pool = "" if getattr(stem, "pool", True) else " without a pool"
            notes.append(
                f"strides that the file does not say: the stem is {form}{pool}; {wrong} "
                "(stem_size, --stem-size)"
            )
        elif field != "std":
            notes.append(
                f"{field} that the file does not say: {getattr(spec.options, field)}; {wrong} "
                f"({field}, --{field})"
            )
    return notes


def _subcortical(
    checkpoint: Checkpoint,
    channels: int,
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
    published = SubcorticalConfig(
        v1.image_size, v1.visual_degrees, channels if channels in (1, 3) else 3
    )
    stage = read_subcortical(tensors, given or published, found.problems)
    return with_flags(stage, checkpoint.flags, found.problems)


def _front_end(
    checkpoint: Checkpoint,
    name: str,
    channels: int,
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
    flags, kind = checkpoint.flags, models.prefix(name)
    in_phase, quadrature = BANKS[kind]
    n, in_channels, _, k = (*bank.get(in_phase, np.zeros(0)).shape, 0, 0, 0, 0)[:4]
    # A missing bank, or one of a wrong shape, is reported below.
    in_channels = in_channels or (4 if kind == "ev_" else channels)
    stated = normalisation(flags, checkpoint.normaliser, in_channels, found.problems)
    given: Mapping[str, Any] = config if isinstance(config, Mapping) else {}
    if isinstance(config, VOneBlockConfig):
        fields = _fields(config)
    else:
        start = VOneBlockConfig()
        if kind == "ev_":
            start = models.v1_config(224, in_channels, name, subcortical)
        fields = {f: value for f, value in _fields(start).items() if f not in _CELLS}
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
    found.problems += [f"missing: {each}" for each in BANKS[kind] if each not in bank]
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


def _fields(config: VOneBlockConfig) -> dict[str, Any]:
    """The fields of a configuration, but for its bank."""
    names = (field.name for field in dataclasses.fields(config))
    return {name: getattr(config, name) for name in names if name != "bank"}


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
