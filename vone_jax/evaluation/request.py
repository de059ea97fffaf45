"""A request to evaluate a network, and the plan of tasks that it becomes.

The command line, a sweep and Python code all make the same ``Request``.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from vone_jax import arguments, corruptions, data, mesh, names, training, v1
from vone_jax.attacks import checks
from vone_jax.data import load_corrupted
from vone_jax.evaluation import exhibits, physiology, suites
from vone_jax.evaluation.conditions import Corrupted
from vone_jax.evaluation.examples import Examples
from vone_jax.evaluation.judging import AttackNoise
from vone_jax.evaluation.masking import Masking
from vone_jax.evaluation.run import Exhibit, Job, Task
from vone_jax.network import Network, Split, open_network
from vone_jax.results import Protocol
from vone_jax.v1 import Noise

_EXAMPLES = 5000
_BATCH_SIZE = 50
# The masking checks attack each image in about twenty ways. With small batches, little is lost
# when the evaluation is stopped.
_MASKING_BATCH_SIZE = 10

_TRAINED, _SAME = "trained", "same"
_WORDS_FOR_NOISE = {"test_noise": (_TRAINED,), "attack_noise": (_SAME, "frozen", _TRAINED)}
_NOISE_FORMS = (
    "none, neuronal, neuronal:SCALE,LEVEL[,STRENGTH], gaussian:SCALE or fano:FACTOR[,FLOOR]"
)


@dataclasses.dataclass(frozen=True)
class Request:
    """A request to evaluate a network. Every field is an option of eval.py.

    Attributes:
      suite: names of suites, see above.
      examples: Number of images, every k-th of the split. Default: 5000, or all if there are
        fewer.
      batch_size: Images at a time, a multiple of the number of devices. Default: about 50.
      seed: Root of all randomness.
      draws: Decisions by which an image is judged, each with fresh noise. Default: 10.
      noise: "fresh": new draws in every pass. "frozen": one draw for each image, which attack and
        judgement share.
      test_noise: Noise to evaluate with: "none", "neuronal", "neuronal:SCALE,LEVEL[,STRENGTH]",
        "gaussian:SCALE" or "fano:FACTOR[,FLOOR]". Default: the noise the network was trained with.
        A base network gets it behind its stem.
      attack_noise: Noise that the attack uses. Default: the same as at evaluation. "none":
        gradients without noise, the deterministic-surrogate control. "frozen": one draw for each
        image. Or a noise as for test_noise, or "trained". For linf, l2, l1 and gallery.
      decision: Input of a decision: one draw ("single"), or "mean_logits", "mean_probability" or
        "vote" of several.
      averaged: Draws in such a decision. Default: 1 for "single", else 10.
      points: Radii per norm, 9, 4 or 2: the VOneNet authors' whole ladder, their main or their
        reduced set.
      eps: Radii in pixel units to use instead; only with one norm.
      norm: Norm of the suites that are not named after one: "linf", "l2" or "l1".
      steps: Steps of the attack.
      step_rule: Length of a step: "2.5*eps/steps", "eps/32" or "eps/4".
      random_start: Begin at a random point of the ball.
      restarts: Runs of the attack, of which each image keeps the worst.
      eot_samples: Noise draws averaged in a gradient. A network without noise has one.
      loss: Loss that is increased: "cross_entropy", "margin" or "dlr".
      l1_step: Direction of L1 steps: "dense", "max_coordinate" or "sparse".
      norm_offset: Added to L2 and L1 norms before dividing by them; ART before 1.18 has 1e-7.
      order: Order of the projections in a step: "ball_then_box", or "box_then_ball" as in ART.
      corruptions: Names of corruptions. Default: ImageNet-C's 15 and its 4 extra ones; in the
        suites quick and corruptions_quick, 9 that are quick to compute.
      severities: Severities of corruptions. Default: 1 to 5; 3 in the quick suites.
      form: Form of corrupted images: "float", "uint8" or "jpeg85".
      frost_dir: Directory of the benchmark's photographs of frost. Without it, a drawn texture
        takes their place and has its own name, "frost_procedural".
      corrupted_files: Published corrupted images in place of those made in memory:
        "tfds:imagenet2012_corrupted", "tfds:cifar10_corrupted", "folder:PATH" (as ImageNet-C) or
        "npy:PATH" (as CIFAR-10-C).
      masking_images: Images for the checks for masked gradients.
      transfer_from: Another network, in the same forms as the first argument, whose adversarial
        images these checks carry over.
      layers: Layers for the suite physiology. Default: V1 of a VOneNet, all convolutional stages
        of another network ("all": all of either).
      physiology_trials: Presentations of each grating. One is made without noise, more are made
        with it.
      references: Tables of neurons, CSV or NetCDF, for the properties without published counts.
      textures: Folder of images for the texture properties: those of Freeman & Ziemba (2013), or
        one photograph per texture, of which stand-ins are made that are not scored.
      gallery_images: Images in the gallery.
      gallery_norm: Norm of the gallery's attack.
      gallery_eps: Radius of the gallery's attack, in pixel units.
      split: Split of the data set. Default: the one a run was validated on.
      source: Data set, by a name that data.load accepts: "folder:DIR", "tfds:NAME". Default: that
        of a run.
      data_dir: Directory of the sets that TFDS has prepared. Default: as in training.
      step: Training step of the checkpoint. Default: the last.
      workers: Processes that decode images. 0: threads of this process.
      tag: Appended to the names of the results, to keep them beside others.
      overwrite: Replace results of other settings that have the same name.

    Raises:
      ValueError, TypeError: naming the field that is out of range.
    """

    suite: tuple[str, ...] = ("quick",)
    examples: int | None = None
    batch_size: int | None = None
    seed: int = 0
    draws: int | None = None
    noise: str = "fresh"
    test_noise: str = _TRAINED
    attack_noise: str = _SAME
    decision: str = "single"
    averaged: int | None = None
    points: int = 4
    eps: tuple[float, ...] = ()
    norm: str = "linf"
    steps: int = 64
    step_rule: str = "eps/32"
    random_start: bool = False
    restarts: int = 1
    eot_samples: int = 10
    loss: str = "cross_entropy"
    l1_step: str = "dense"
    norm_offset: float = 0.0
    order: str = "ball_then_box"
    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = ()
    form: str = "float"
    frost_dir: Path | None = None
    corrupted_files: str | None = None
    masking_images: int = 50
    transfer_from: str | None = None
    layers: tuple[str, ...] = ()
    physiology_trials: int = 1
    references: tuple[Path, ...] = ()
    textures: Path | None = None
    gallery_images: int = 8
    gallery_norm: str = "linf"
    gallery_eps: float = 4 / 255
    split: str | None = None
    source: str | None = None
    data_dir: str | None = None
    step: int | None = None
    workers: int = 0
    tag: str = ""
    overwrite: bool = False

    def __post_init__(self):
        suites.expand(self.suite)
        if self.points not in suites.POINTS:
            raise ValueError(f"points must be one of 9, 4, 2; got {self.points!r}")
        for value in self.eps:
            checks.radius("eps", value)
        checks.radius("gallery_eps", self.gallery_eps)
        arguments.choice("gallery_norm", self.gallery_norm, names.NORMS)
        for name in ("masking_images", "gallery_images", "physiology_trials"):
            arguments.count(name, getattr(self, name))
        for name in self.corruptions:
            arguments.choice("corruptions", name, corruptions.NAMES)
        if "frost" in self.corruptions and self.frost_dir is None:
            raise ValueError(
                f"corruptions has 'frost', whose photographs frost_dir must name; "
                f"{names.PROCEDURAL_FROST!r} needs none"
            )
        for severity in self.severities:
            corruptions.check_severity(severity)
        arguments.choice("form", self.form, corruptions.FORMS)
        suites.pgd(self, self.norm, 0.0)
        _ = self.protocol
        for name in _WORDS_FOR_NOISE:
            parse_noise(name, getattr(self, name), None)

    @property
    def protocol(self) -> Protocol:
        """The way the network is judged."""
        draws = (1 if self.noise == "frozen" else 10) if self.draws is None else self.draws
        averaged = self.averaged
        if averaged is None:
            averaged = 1 if self.decision == "single" else 10
        arguments.choice("noise", self.noise, ("fresh", "frozen"))
        return Protocol(self.noise, draws, self.decision, averaged)

    def to_arguments(self) -> list[str]:
        """The options of eval.py that make this request; defaults are left out."""
        argv: list[str] = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            option = f"--{field.name.replace('_', '-')}"
            if isinstance(value, bool):
                argv.append(option if value else f"--no-{option[2:]}")
            elif isinstance(value, tuple):
                argv += [option, *map(str, value)]
            elif str(value).startswith("-"):
                argv.append(f"{option}={value}")
            else:
                argv += [option, str(value)]
        return argv


def parse_noise(name: str, text: str, trained: Noise) -> Noise:
    """The noise that a text stands for.

    Args:
      name: "test_noise" or "attack_noise".
      text: ``"none"``; ``"neuronal"`` for that of the released models; ``"neuronal:0.35,0.07"`` or
        ``"gaussian:4"`` or ``"fano:0.93"`` with the fields of ``NeuronalNoise``,
        ``GaussianNoise`` or ``FanoNoise``; or a word that the option has for no noise of its own.
      trained: the noise that the network was trained with, which is returned for such a word.

    Raises:
      ValueError: if the text stands for no noise.
    """
    words = _WORDS_FOR_NOISE[name]
    if text in words:
        return trained
    if text == "none":
        return None
    kind, colon, rest = text.partition(":")
    try:
        fields = [float(field) for field in rest.split(",")] if colon else []
        if kind == "neuronal" and len(fields) in (0, 2, 3):
            return v1.NeuronalNoise(*fields)
        if kind == "gaussian" and len(fields) == 1:
            return v1.GaussianNoise(*fields)
        if kind == "fano" and len(fields) in (1, 2):
            return v1.FanoNoise(*fields)
    except ValueError as error:
        raise ValueError(f"{name} {text!r}: {error}") from error
    raise ValueError(f"{name} must be {', '.join(words)}, {_NOISE_FORMS}; got {text!r}")


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The tasks of an evaluation, in order, each with its job."""

    job: Job
    tasks: tuple[tuple[Job, Task], ...]


def plan(
    network: Network, request: Request, directory: Path | None = None, command: str = ""
) -> Plan:
    """Plan the evaluation of a network. This opens its data set.

    Args:
      network: the network.
      request: what to evaluate.
      directory: of the result files. Default: the folder "results" of a run, and
        ``runs/NAME/results`` for other networks.
      command: the command line, for the result files.

    Raises:
      ValueError, TypeError: for a request that cannot be met; the message names the field.
      FileNotFoundError: for data that do not exist.
      training.RunDirectoryError, training.CheckpointError: for ``transfer_from``, see
        ``open_network``.
    """
    suite = suites.expand(request.suite)
    trained = network.noise
    if request.test_noise != _TRAINED:
        network = network.with_noise(parse_noise("test_noise", request.test_noise, trained))
    attack_noise = _attack_noise(request, suite, network, trained)
    other = None if request.transfer_from is None else open_network(request.transfer_from)
    split = _split(network, request)
    source = data.load(split.source, split.split, data_dir=split.data_dir)
    if directory is None:
        directory = (network.run_dir or Path("runs", network.name)) / "results"
    count = min(_EXAMPLES, len(source)) if request.examples is None else request.examples
    devices = mesh.data_mesh()

    def whole(size: int) -> int:
        return -(-size // devices.size) * devices.size

    batch_size = whole(_BATCH_SIZE) if request.batch_size is None else request.batch_size
    job = Job(
        network=network,
        examples=Examples(source, count),
        protocol=request.protocol,
        directory=directory,
        devices=devices,
        seed=request.seed,
        batch_size=batch_size,
        other=other,
        workers=request.workers,
        tag=request.tag,
        overwrite=request.overwrite,
        versions=training.versions(),
        command=command,
        trained_on=request.source is None,
    )
    few = dataclasses.replace(
        job,
        examples=Examples(source, min(request.masking_images, count)),
        batch_size=min(batch_size, whole(_MASKING_BATCH_SIZE)),
    )
    target = suites.Target(
        network.image_shape,
        noisy=network.stochastic and request.noise == "fresh",
        attack_noise=attack_noise,
        transfer="" if other is None else f"{other.name}, weights {other.weights}",
    )
    tasks: list[tuple[Job, Task]] = [
        (few if isinstance(condition, Masking) else job, condition)
        for condition in suites.conditions(suite, request, target)
    ]
    if request.corrupted_files is not None:
        tasks = _from_files(tasks, request, split.data_dir)
    tasks += [(job, exhibit) for exhibit in _exhibits(job, request, suite, target)]
    return Plan(job, tuple(tasks))


def _split(network: Network, request: Request) -> Split:
    """The images to evaluate on: those that are asked for, else those of a run's validation.

    Raises:
      ValueError: if the request names none and there is no run that has some.
    """
    known = network.validation
    if request.source is None:
        if known is None:
            raise ValueError(
                f"source must name the images, since {network.name} is no run of train.py: for "
                f"instance --source folder:DIR --split val, or --source tfds:imagenet2012"
            )
        return Split(known.source, request.split or known.split, request.data_dir or known.data_dir)
    split = request.split
    if split is None:
        split = data.evaluation_split(request.source, data_dir=request.data_dir)
    return Split(request.source, split, request.data_dir)


def _attack_noise(
    request: Request, suite: Sequence[str], network: Network, trained: Noise
) -> AttackNoise:
    """The noise at the attack, where it differs from that at evaluation.

    Raises:
      ValueError: for an attack noise that does not go with the noise at evaluation, or has no
        effect on a requested attack.
    """
    if request.attack_noise == _SAME:
        return "same"
    unsupported = [name for name in suite if name in suites.IN_ONE_NORM]
    if unsupported or not set(suite) & set(suites.WITH_ATTACK_NOISE):
        raise ValueError(
            f"attack_noise {request.attack_noise!r} is for the attacks of the suites "
            f"{', '.join(suites.WITH_ATTACK_NOISE)}; got {', '.join(unsupported or suite)}"
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
    """The tasks, with corrupted images that are read from files.

    As many images are used as would be corrupted in memory, every k-th of the set. They are not
    resized or cropped again.

    Raises:
      FileNotFoundError, ValueError: if a set does not exist or is not of this layout, see
        ``data.load_corrupted``. Also if there is no corruption among the tasks, or one that is to
        be made in another form.
    """
    files = request.corrupted_files
    assert files is not None
    if not any(isinstance(task, Corrupted) for _, task in tasks):
        raise ValueError(
            f"corrupted_files is for the suites corruptions and corruptions_quick, got {files!r} "
            f"without one of them"
        )
    if request.form != "float":
        raise ValueError(
            f"form is for images that are made in memory, got {request.form!r} with "
            f"corrupted_files {files!r}"
        )
    job = tasks[0][0]
    # Placed once: jobs whose variables are on the devices share them.
    placed = job.network.placed(functools.partial(mesh.replicate, job.devices))
    network = dataclasses.replace(placed, preprocessing=data.Preprocessing(1.0))
    replaced: list[tuple[Job, Task]] = []
    for job, task in tasks:
        if isinstance(task, Corrupted):
            # The files have the frost of photographs.
            name = task.corruption.replace(names.PROCEDURAL_FROST, "frost")
            kept = (request.data_dir or data_dir) if files.startswith("tfds:") else None
            source = load_corrupted(files, name, task.severity, data_dir=kept)
            examples = Examples(source, min(len(job.examples), len(source)))
            job = dataclasses.replace(job, network=network, examples=examples)
            task = Corrupted(name, task.severity, "published")
        replaced.append((job, task))
    return replaced


def _exhibits(
    job: Job, request: Request, suite: Sequence[str], target: suites.Target
) -> list[Exhibit]:
    """The results that are made at once, after the conditions."""
    tasks: list[Exhibit] = []
    if "corruptions" in suite:
        tasks.append(exhibits.MeansOverCorruptions())
    if suites.GALLERY in suite:
        condition = suites.attacked(request, request.gallery_norm, request.gallery_eps, target)
        shown = min(request.gallery_images, len(job.examples))
        tasks.append(exhibits.Gallery(condition, shown))
    if suites.PHYSIOLOGY in suite:
        recording = physiology.recording(
            job.network,
            request.layers,
            request.physiology_trials,
            request.references,
            request.textures,
            request.seed,
        )
        tasks += [physiology.Layer(recording, layer) for layer in recording.layers]
    if suites.FRONT_END in suite:
        if job.network.v1 is not None:
            tasks.append(exhibits.FrontEnd())
        elif suites.FRONT_END in request.suite:
            raise ValueError(f"suite v1 is for VOneNets, {job.network.name} has no V1")
    return tasks
