"""The plan of an evaluation: the conditions that options ask for, and the images they use."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np

from vone_jax import arguments, data, names
from vone_jax import mesh as meshes
from vone_jax.arguments import Range, Seed
from vone_jax.data.loading import MissingCorruptionError, holds_corruptions
from vone_jax.evaluation import suites
from vone_jax.evaluation.conditions import Condition, Corrupted
from vone_jax.evaluation.job import Job
from vone_jax.evaluation.judging import DECISIONS, NOISES, AttackNoise, Protocol
from vone_jax.network import Network, open_network
from vone_jax.training.run import versions
from vone_jax.v1 import Noise

_EXAMPLES = 5000


@dataclasses.dataclass(frozen=True)
class Options:
    """What to evaluate, and how. Every field is an option of eval.py."""

    # Suites: clean, linf, l2, l1, apgd, autoattack, square, worst, masking, minimal, certified,
    # fourier, geometry, metamers, corruptions, corruptions_quick, corruptions_c_bar, psychophysics,
    # critical_bands, physiology, v1; quick and all stand for several; FILE.py:NAME is your own.
    suite: tuple[str, ...] = ("quick",)
    # Images: folder:DIR, npz:FILE or tfds:NAME. Default: the data set of a run. For suites of
    # corruptions also published images: folder:DIR (as ImageNet-C), npy:DIR (as CIFAR-10-C),
    # tfds:imagenet2012_corrupted or tfds:cifar10_corrupted.
    source: str | None = None
    # Split of the data set. Default: the one a run was validated on; for other networks
    # validation, val, valid or test, or all images of a folder without splits.
    split: str | None = None
    # Number of images, every k-th of the split. Default: 5000, or all if there are fewer.
    examples: int | None = None
    # Radii of attacks in pixel units, such as 4/255. Default: those of the VOneNet authors.
    eps: tuple[float, ...] = ()
    # Norm of the suites that are not named after one: linf, l2 or l1.
    norm: Annotated[str, names.NORMS] = "linf"
    # Decisions by which an image is judged, each with fresh noise. A network without noise is
    # judged once.
    draws: int | None = None
    # What a decision is made of: one draw ("single"), or several, such as mean_logits:8,
    # mean_probability:8 or vote:8.
    decision: str = "single"
    # Noise at the test: "trained", "none", "frozen" (one draw for each image, which attack and
    # judgement share), or a kind such as neuronal, neuronal:SCALE,LEVEL or gaussian:SCALE. A base
    # network gets it behind its stem.
    noise: str = "trained"
    # Noise that the attack sees: "same" as at the test, "none" (gradients without noise, a
    # control), "frozen", or a noise as above.
    attack_noise: str = "same"
    # Layers that the suites physiology, geometry and metamers record. Default: for physiology V1 of
    # a VOneNet, all convolutional stages of another network ("all": all of either); all layers for
    # the others.
    layers: tuple[str, ...] = ()
    # Files for the suite physiology: tables of neurons (CSV, NetCDF), a folder of textures, and
    # recorded responses with the images that were shown (NPZ, NetCDF), whose variance is explained.
    neurons: tuple[Path, ...] = ()
    # Other networks: the masking checks carry the adversarial images of one over, and the suite
    # metamers asks all of them what they take the network's metamers for.
    others: tuple[str, ...] = ()
    # Root of all randomness.
    seed: Seed = 0
    # Text at the end of the names of the results, to keep them beside other results.
    tag: str = ""
    # Directory of the result files. Default: RUN_DIR/results, or runs/NAME/results.
    results: Path | None = None
    # Images at a time, a multiple of the number of devices. It changes no result.
    batch_size: Annotated[int | None, Range(1)] = None

    def __post_init__(self):
        arguments.fields(self)
        if self.tag:
            arguments.directory_name("tag", self.tag)
        _ = self.protocol

    @property
    def protocol(self) -> Protocol:
        """The way the network is judged."""
        decision, _, averaged = self.decision.partition(":")
        arguments.choice("decision", decision, DECISIONS)
        if not averaged:
            averaged = "1" if decision == "single" else "10"
        if not averaged.isdecimal():
            raise ValueError(f"decision must be such as vote:8, got {self.decision!r}")
        kind = "frozen" if self.noise == "frozen" else "fresh"
        draws = self.draws
        if draws is None:
            draws = 1 if kind == "frozen" else 10
        return Protocol(kind, draws, decision, int(averaged))


def plan(network: Network, options: Options, command: str = "") -> list[tuple[Job, Condition]]:
    """Plan the evaluation of a network. This opens its data set.

    Args:
      network: the network.
      options: what to evaluate.
      command: the command line, for the result files.

    Returns:
      The conditions in order, at least one, each with its job, as ``evaluate`` takes them.

    Raises:
      ValueError, TypeError: for options that cannot be met; the message names the option.
      FileNotFoundError: for data that do not exist.
    """
    network = open_network(network)  # Checks functions of the user.
    trained = network.noise
    if options.noise not in ("trained", "frozen"):
        network = network.with_noise(parse_noise("noise", options.noise, trained))
    setting = suites.Setting(
        network,
        noisy=network.stochastic and options.noise != "frozen",
        eps=options.eps,
        norm=options.norm,
        attack_noise=_attack_noise(options, network, trained),
        layers=options.layers,
        neurons=options.neurons,
        others=options.others,
    )
    conditions = suites.conditions(options.suite, setting)
    if not conditions:
        raise ValueError(f"suite {' '.join(options.suite)} has no conditions")
    for condition in conditions:
        condition.check(network)
    mesh = meshes.data_mesh()
    other = setting.other if any(getattr(each, "transfer", "") for each in conditions) else None

    def job(source: data.Source, network: Network = network, **fields: bool) -> Job:
        directory = options.results or (network.run_dir or Path("runs", network.name)) / "results"
        return Job(
            network=network,
            source=source,
            directory=Path(directory),
            examples=min(_EXAMPLES, len(source)) if options.examples is None else options.examples,
            protocol=options.protocol,
            seed=options.seed,
            tag=options.tag,
            mesh=mesh,
            batch_size=options.batch_size,
            other=other,
            provenance={"versions": versions(), "command": command},
            **fields,
        )

    if options.source is not None and holds_corruptions(options.source):
        return list(_published(job, network, conditions, options.source))
    images, of_its_own = _images(network, options, conditions)
    whole = job(images, trained_on=of_its_own, keep_images=len(conditions) > 1)
    return [(whole, condition) for condition in conditions]


def parse_noise(name: str, text: str, trained: Noise) -> Noise:
    """The noise that a text stands for: "trained", "none", or a kind with its fields.

    A kind alone, such as ``"neuronal"``, has the fields of the released models; ``"gaussian:4"`` or
    ``"neuronal:0.35,0.07"`` gives the first ones.

    Raises:
      ValueError: if the text is none of these; it begins with ``name``.
    """
    if text == "trained":
        return trained
    if text == "none":
        return None
    kind, _, fields = text.partition(":")
    arguments.choice(name, kind, ("trained", "none", "frozen", *NOISES))
    try:
        return NOISES[kind](*map(float, filter(None, fields.split(","))))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} {text!r}: {error}") from error


def _attack_noise(options: Options, network: Network, trained: Noise) -> AttackNoise:
    """The noise at the attack; "same" if it is the noise at the test."""
    asked = options.attack_noise
    if asked == "same":
        return "same"
    if options.noise == "frozen":
        raise ValueError(
            f"attack_noise {asked!r} needs fresh noise; with noise 'frozen' attack and judgement "
            "share the same draw"
        )
    if asked == "frozen":
        return "frozen" if network.stochastic else "same"
    noise = parse_noise("attack_noise", asked, trained)
    if network.with_noise(noise) is network:
        return "same"
    return "none" if noise is None else noise


def _images(
    network: Network, options: Options, conditions: list[Condition]
) -> tuple[data.Source, bool]:
    """The images to evaluate on, and whether the network was trained on their data set."""

    def location(source: str) -> str:
        kind, _, path = source.partition(":")
        files = kind in ("folder", "npz")
        return f"{kind}:{Path(os.path.expanduser(path)).resolve()}" if files else source

    known, source, split = network.validation, options.source, options.split
    if known is not None and source is None and split in (None, known.split):
        return known.open(), True
    if known is not None and (source is None or location(source) == location(known.source)):
        # In a folder without splits, these are the images that the network was not trained on.
        data_dir = known.data_dir if known.source.startswith("tfds:") else None
        return data.load(source or known.source, split or known.split, data_dir=data_dir), True
    if source is not None:
        return data.load(source, split or data.evaluation_split(source)), False
    if all(not each.by_example for each in conditions):
        # A black image takes the place of a data set for what is shown other images anyway.
        black = np.zeros((1, *network.image_shape), np.uint8)
        return data.ArraySource(black, np.zeros(1, int), class_names=("0",)), False
    raise ValueError(
        f"source must name the images, since {network.name} is not a run of train.py: for "
        f"instance --source folder:DIR --split val, or --source tfds:imagenet2012"
    )


def _published(
    job: Callable[..., Job], network: Network, conditions: list[Condition], files: str
) -> Iterator[tuple[Job, Condition]]:
    """The corruptions on published images, which are not cropped. Extra ones may be missing."""
    whole = dataclasses.replace(network, preprocessing=data.Preprocessing(1.0))
    missing: list[str] = []
    sides: set[int] = set()
    for condition in conditions:
        if not isinstance(condition, Corrupted):
            raise ValueError(
                f"source {files} has corrupted images, and {condition.name} needs others; "
                "evaluate it by a command of its own"
            )
        # Published frost is made of photographs.
        name = condition.corruption.replace(names.PROCEDURAL_FROST, "frost")
        try:
            source = data.load_corrupted(files, name, condition.severity)
        except MissingCorruptionError:
            if condition.corruption not in names.EXTRA_CORRUPTIONS:
                raise
            missing.append(condition.name)
            continue
        sides.add(source[0]["image"].shape[0])
        yield job(source, whole), Corrupted(name, condition.severity, "published")
    if sides - {network.image_size}:
        warnings.warn(
            f"source {files}: its images of {min(sides)} pixels are resized to "
            f"{network.image_size}, which softens some corruptions",
            stacklevel=2,
        )
    if missing:
        warnings.warn(f"left out: {files} has no {', '.join(missing)}", stacklevel=2)
