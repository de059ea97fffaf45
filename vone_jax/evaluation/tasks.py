"""The plan of an evaluation: the tasks that a request asks for."""

import dataclasses
import functools
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vone_jax import data, names
from vone_jax import mesh as meshes
from vone_jax.data.loading import MissingCorruptionError, load_corrupted
from vone_jax.evaluation import figures, physiology, suites
from vone_jax.evaluation import request as requests
from vone_jax.evaluation.conditions import Attacked, Condition, Corrupted, Minimal, WorstOf
from vone_jax.evaluation.job import Job
from vone_jax.evaluation.judging import AttackNoise
from vone_jax.evaluation.masking import Masking
from vone_jax.evaluation.request import SAME, TRAINED, Request, parse_noise
from vone_jax.evaluation.run import Figure, Task
from vone_jax.network import Network, open_network
from vone_jax.training.run import versions
from vone_jax.v1 import Noise

_EXAMPLES = 5000
_BATCH_SIZE = 50
# The masking checks attack each image in about twenty ways. With small batches, little is lost
# when the evaluation is stopped.
_MASKING_BATCH_SIZE = 10
# Messages print the largest radius with six digits. A user who types that value is accepted.
_ROUNDING = 1e-5


def plan(
    network: Network, request: Request, directory: Path | str | None = None, command: str = ""
) -> list[tuple[Job, Task]]:
    """Plan the evaluation of a network. This opens its data set.

    Args:
      network: the network.
      request: what to evaluate.
      directory: directory of the result files. Default: the folder "results" of a run, and
        ``runs/NAME/results`` for other networks.
      command: the command line, for the result files.

    Returns:
      The tasks in order, at least one, each with its job, as ``evaluate`` takes them.

    Raises:
      ValueError, TypeError: for a request that cannot be met; the message names the field.
      NetworkError: (a ValueError) for a network of functions that do not keep their contract.
      FileNotFoundError: for data that do not exist.
      training.RunDirectoryError: for ``transfer_from``, see
        ``open_network``.
    """
    suite = requests.expand(request.suite)
    network = open_network(network)  # Checks functions of the user.
    trained = network.noise
    if request.test_noise != TRAINED:
        network = network.with_noise(parse_noise("test_noise", request.test_noise, trained))
    attack_noise = _attack_noise(request, suite, network, trained)
    other = None if request.transfer_from is None else open_network(request.transfer_from)
    source, data_dir = _images(network, request, suite)
    if directory is None:
        directory = (network.run_dir or Path("runs", network.name)) / "results"
    count = min(_EXAMPLES, len(source)) if request.examples is None else request.examples
    mesh = meshes.data_mesh()

    def whole(size: int) -> int:
        return -(-size // mesh.size) * mesh.size

    # A batch that is too short is padded, and padding costs as much as images.
    usual = whole(min(_BATCH_SIZE, count))
    batch_size = usual if request.batch_size is None else request.batch_size
    masking = min(request.masking_images, count)
    conditions = suites.conditions(suite, request, network, attack_noise, other)
    # The masking checks read few images, and published corruptions have images of their own.
    apart = Masking if request.corrupted_files is None else Masking | Corrupted
    sharing = sum(not isinstance(each, apart) for each in conditions)
    job = Job(
        network=network,
        examples=data.Subset(source, count),
        request=request,
        directory=Path(directory),
        mesh=mesh,
        batch_size=batch_size,
        other=other,
        versions=versions(),
        command=command,
        trained_on=_of_its_own(network, request),
        keep_images=sharing > 1,
    )
    few = dataclasses.replace(
        job,
        examples=data.Subset(source, masking),
        batch_size=min(batch_size, whole(min(_MASKING_BATCH_SIZE, masking))),
        keep_images=False,
    )
    tasks: list[tuple[Job, Task]] = [
        (few if isinstance(condition, Masking) else job, condition) for condition in conditions
    ]
    if request.corrupted_files is not None:
        tasks = _from_files(tasks, request, data_dir)
    for figure in _figures(job, suite, attack_noise):
        if isinstance(figure, figures.Gallery):
            shown = dataclasses.replace(figure.condition, kept=figure.count)
            tasks = [(each, shown if task == figure.condition else task) for each, task in tasks]
        tasks.append((job, figure))
    _check_attacks(tasks, network)
    return tasks


def _check_attacks(tasks: Sequence[tuple[Job, Task]], network: Network) -> None:
    """Refuse attacks whose losses need more classes, and all conditions for a single class.

    Also refuse a radius above the largest change of an image: such a radius squared may overflow.
    """
    values = math.prod(network.image_shape)
    largest = {"linf": 1.0, "l2": math.sqrt(values), "l1": float(values)}
    judged = [task.name for _, task in tasks if isinstance(task, Condition)]
    if network.num_classes < 2 and judged:
        raise ValueError(
            f"suite contains {judged[0]}, which needs at least 2 classes, and {network.name} has "
            f"{network.num_classes}; train it on images of several classes"
        )
    for _, task in tasks:
        condition = task.condition if isinstance(task, figures.Gallery) else task
        several = condition.attacks if isinstance(condition, WorstOf) else ()
        if isinstance(condition, Attacked | Minimal):
            several = (condition.attack,)
        radii = [(condition.norm, condition.eps)] if isinstance(condition, Masking) else []
        for norm, eps in [*radii, *((attack.norm, attack.eps) for attack in several)]:
            if eps > largest[norm] * (1 + _ROUNDING):
                name = "gallery_eps" if isinstance(task, figures.Gallery) else "eps"
                raise ValueError(
                    f"{name} must be at most {largest[norm]:g} in norm {norm}, the largest change "
                    f"of an image of {network.name}, got {eps:.6g}"
                )
        least = max((attack.least_classes for attack in several), default=2)
        if least > 2 and network.num_classes < least:
            raise ValueError(
                f"suite contains {task.name}, whose losses need at least {least} classes, and "
                f"{network.name} has {network.num_classes}; leave it out, or choose another loss"
            )


def _images(
    network: Network, request: Request, suite: Sequence[str]
) -> tuple[data.Source, str | None]:
    """The images to evaluate on, and the directory of the sets that TFDS has prepared."""
    known, source = network.validation, request.source
    split, data_dir = request.split, request.data_dir
    if known is not None and _of_its_own(network, request):
        # In a folder without splits, these are the images that the network was not trained on.
        source, split = source or known.source, split or known.split
        data_dir = data_dir or known.data_dir
    elif source is not None:
        split = data.evaluation_split(source, data_dir=data_dir) if split is None else split
    elif set(suite) == {requests.PHYSIOLOGY}:
        # Physiology shows gratings. A black image takes the place of a data set.
        black = np.zeros((request.examples or 1, *network.image_shape), np.uint8)
        return data.ArraySource(black, np.zeros(len(black), int), class_names=("0",)), None
    elif request.corrupted_files is not None and set(suite) <= suites.CORRUPTIONS.keys():
        # The first corrupted set takes the place of clean images. All sets have as many images.
        usual, severities = suites.CORRUPTIONS[suite[0]]
        name = (request.corruptions or usual)[0]
        severity = (request.severities or severities)[0]
        return _published(request, name, severity, data_dir), data_dir
    else:
        raise ValueError(
            f"source must name the images, since {network.name} is not a run of train.py: for "
            f"instance --source folder:DIR --split val, or --source tfds:imagenet2012"
        )
    if request.source is not None or known is None:
        return data.load(source, split, data_dir=data_dir), data_dir
    cure = (
        f"evaluate where {network.name} was trained, or name the images: --source folder:DIR or "
        "tfds:NAME:VERSION"
    )
    try:
        images = data.load(source, split, data_dir=data_dir)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"source {source}: {error}; {cure}") from error
    return images, data_dir


def _of_its_own(network: Network, request: Request) -> bool:
    """True if the images are of the data set that the network was trained on."""

    def location(source: str) -> str:
        kind, _, path = source.partition(":")
        files = kind in ("folder", "npz")
        return f"{kind}:{Path(os.path.expanduser(path)).resolve()}" if files else source

    known, source = network.validation, request.source
    return known is not None and (source is None or location(source) == location(known.source))


def _attack_noise(
    request: Request, suite: Sequence[str], network: Network, trained: Noise
) -> AttackNoise:
    """The noise at the attack; "same" if it is the noise at evaluation."""
    if request.attack_noise == SAME:
        return "same"
    unsupported = [name for name in suite if name in requests.IN_ONE_NORM]
    if unsupported or not set(suite) & set(requests.WITH_ATTACK_NOISE):
        raise ValueError(
            f"attack_noise {request.attack_noise!r} is for the attacks of the suites "
            f"{', '.join(requests.WITH_ATTACK_NOISE)}; got {', '.join(unsupported or suite)}"
        )
    if request.noise != "fresh":
        raise ValueError(
            f"attack_noise {request.attack_noise!r} needs noise 'fresh'; with noise "
            f"{request.noise!r} attack and judgement share the same draw"
        )
    if request.attack_noise == "frozen":
        return "frozen" if network.stochastic else "same"
    noise = parse_noise("attack_noise", request.attack_noise, trained)
    if network.with_noise(noise) is network:
        return "same"
    return "none" if noise is None else noise


def _from_files(
    tasks: Sequence[tuple[Job, Task]], request: Request, data_dir: str | None
) -> list[tuple[Job, Task]]:
    """The tasks, with the same number of corrupted images from files, which are not cropped.

    Of the corruptions that the request does not name, the extra ones may be missing.
    """
    if request.form != "float":
        raise ValueError(
            f"form is for images that are made in memory, got {request.form!r} with "
            f"corrupted_files {request.corrupted_files!r}"
        )
    job = tasks[0][0]
    # Placed once: jobs whose variables are on the devices share them.
    placed = job.network.placed(functools.partial(meshes.replicate, job.mesh))
    network = dataclasses.replace(placed, preprocessing=data.Preprocessing(1.0))
    replaced, missing = list[tuple[Job, Task]](), dict[str, list[int]]()
    for job, task in tasks:
        if isinstance(task, Corrupted):
            try:
                source = _published(request, task.corruption, task.severity, data_dir)
            except MissingCorruptionError:
                if request.corruptions or task.corruption not in names.EXTRA_CORRUPTIONS:
                    raise
                missing.setdefault(task.corruption, []).append(task.severity)
                continue
            examples = data.Subset(source, min(len(job.examples), len(source)))
            job = dataclasses.replace(job, network=network, examples=examples, keep_images=False)
            task = Corrupted(_name_in_files(task.corruption), task.severity, "published")
        replaced.append((job, task))
    if missing:
        there = {task.corruption for _, task in replaced if isinstance(task, Corrupted)}
        left_out = ", ".join(
            f"{name} at severity {' and '.join(map(str, severities))}" if name in there else name
            for name, severities in missing.items()
        )
        warnings.warn(f"left out: {request.corrupted_files} has no {left_out}", stacklevel=2)
    return replaced


def _name_in_files(corruption: str) -> str:
    """The name of a corruption in published files, whose frost is made of photographs."""
    return corruption.replace(names.PROCEDURAL_FROST, "frost")


def _published(
    request: Request, corruption: str, severity: int, data_dir: str | None
) -> data.Source:
    """The published images of a corruption."""
    files = request.corrupted_files
    assert files is not None
    kept = (request.data_dir or data_dir) if files.startswith("tfds:") else None
    return load_corrupted(files, _name_in_files(corruption), severity, data_dir=kept)


def _figures(job: Job, suite: Sequence[str], attack_noise: AttackNoise) -> list[Figure]:
    """The results that are made at once, after the conditions."""
    request, tasks = job.request, list[Figure]()
    if "corruptions" in suite:
        tasks.append(figures.MeansOverCorruptions())
    if requests.GALLERY in suite:
        norm, eps = request.gallery_norm, request.gallery_eps
        condition = suites.attacked(request, norm, eps, job.network, attack_noise)
        shown = min(request.gallery_images, len(job.examples))
        tasks.append(figures.Gallery(condition, shown))
    if requests.PHYSIOLOGY in suite:
        recording = physiology.recording(job.network, request)
        tasks += [physiology.Layer(recording, layer) for layer in recording.layers]
    if requests.FRONT_END in suite:
        if job.network.v1 is not None:
            tasks.append(figures.FrontEnd())
        elif requests.FRONT_END in request.suite:
            raise ValueError(f"suite v1 is for VOneNets, {job.network.name} has no V1")
    return tasks
