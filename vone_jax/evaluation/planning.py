"""From what is asked for to what is done: the jobs, conditions and exhibits of an evaluation."""

import dataclasses
import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vone_jax import arguments, data, mesh, models, training
from vone_jax.attacks import checks, norms
from vone_jax.evaluation import (
    corruption_means,
    exhibits,
    other_noise,
    physiology,
    published,
    suites,
)
from vone_jax.evaluation.conditions import Attacked, Condition
from vone_jax.evaluation.protocol import Protocol
from vone_jax.evaluation.runner import Job
from vone_jax.evaluation.subject import Examples, Subject
from vone_jax.training.run_dir import versions
from vone_jax.v1 import Noise

_EXAMPLES = 5000
_BATCH_SIZE = 50
# The attack sees the noise of the judged network.
_AS_JUDGED = "test"
# Each image of the checks for masked gradients is attacked in some twenty ways. Small batches
# lose little of that when the evaluation is stopped.
_MASKING_BATCH_SIZE = 10


@dataclasses.dataclass(frozen=True)
class Request:
    """What may be asked of the evaluation of a run.

    Attributes:
      suite: any of the names in ``suites.NAMES``.
      examples: number of images, every k-th of the split; default: 5000, or all if there are
        fewer.
      batch_size: images at a time, a multiple of the number of devices; default: about 50.
      seed: root of all randomness.
      draws: decisions R by which an image is judged, each with fresh noise; default: 10.
      noise: "fresh": new draws in every pass. "frozen": one draw an image, for attack and
        judgement. "frozen_attack": one draw an image for the attack, new ones for the judgement.
      test_noise: noise of the network in place of that it was trained with: "none", "neuronal",
        "neuronal:SCALE,LEVEL[,STRENGTH]" or "gaussian:SCALE"; "trained" is its own. A base network
        gets it behind the stem.
      attack_noise: noise of the network that is attacked, as test_noise has it, or "test": that of
        the judged network. "none" is what --noise-free-gradients says: noise is removed for
        the attack and restored for the judgement.
      decision: what a decision is made from: one draw ("single"), or "mean_logits",
        "mean_probability" or "vote" of several.
      averaged: draws K that such a decision is made from; default: 1, or 10 for several.
      settings: of attacks and corruptions.
      corrupted_files: published corrupted images in place of those made in memory:
        "tfds:imagenet2012_corrupted", "tfds:cifar10_corrupted", "folder:PATH" (as ImageNet-C) or
        "npy:PATH" (as CIFAR-10-C).
      masking_images: images for the checks for masked gradients.
      transfer_from: another run whose adversarial images those checks carry over.
      layers: of the suite physiology; default: V1 of a VOneNet, all convolutional stages of
        another network ("all": all of either).
      physiology_trials: presentations of each grating. One is made without noise, more are made
        with it.
      references: tables of neurons, CSV or NetCDF, for the properties without published counts.
      textures: folder of images for the texture properties: those of Freeman & Ziemba (2013),
        or one photograph per texture, of which stand-ins are made that are not scored.
      gallery_images: images in the gallery.
      gallery_norm: norm of the gallery's attack.
      gallery_eps: radius of the gallery's attack, in pixel units.
      split: of the data set; default: the one the run was validated on.
      source: another data set than the run's, by a name that data.load knows.
      data_dir: where TFDS keeps its prepared sets; default: as in training.
      step: checkpoint; default: the last.
      workers: processes that decode images; 0 does it in threads of this one.
      tag: appended to the names of the results, to keep them beside others.
      overwrite: replace results of other settings that have the same name.
    """

    suite: tuple[str, ...] = ("quick",)
    examples: int | None = None
    batch_size: int | None = None
    seed: int = 0
    draws: int | None = None
    noise: str = "fresh"
    test_noise: str = other_noise.TRAINED
    attack_noise: str = _AS_JUDGED
    decision: str = "single"
    averaged: int | None = None
    settings: suites.Settings = suites.Settings()
    corrupted_files: str | None = None
    masking_images: int = 50
    transfer_from: Path | None = None
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

    def protocol(self) -> Protocol:
        """How the network is judged."""
        draws = (1 if self.noise == "frozen" else 10) if self.draws is None else self.draws
        averaged = self.averaged
        if averaged is None:
            averaged = 1 if self.decision == "single" else 10
        return Protocol(self.noise, draws, self.decision, averaged)


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What an evaluation does, in order.

    Attributes:
      job: what the results have in common.
      tasks: conditions and the jobs that they belong to.
      exhibits: functions that write results which are looked at, or made from other results;
        each takes the records of the tasks.
    """

    job: Job
    tasks: tuple[tuple[Job, Condition], ...]
    exhibits: tuple[Callable[[list[dict[str, Any]]], Any], ...]


def plan(run_dir: Path, request: Request, command: str) -> Plan:
    """The plan for a run; reads its checkpoint and opens its data set.

    Args:
      run_dir: the directory of the run; results go to its folder "results".
      request: what is asked.
      command: for the result files.

    Raises:
      ValueError, TypeError: for a request that cannot be met; the message names the field.
      FileNotFoundError: for data that are not there.
      training.RunDirectoryError: for a directory that is not a run.
      training.CheckpointError: for a checkpoint that cannot be read.
    """
    names = suites.expand(request.suite)
    subject, experiment = load_subject(run_dir, request.step)
    trained = models.noise_of(subject.model)
    subject = subject.with_noise(other_noise.parse("test_noise", request.test_noise, trained))
    settings, seen = _seen_noise(request, names, subject, trained)
    other = None if request.transfer_from is None else load_subject(request.transfer_from)[0]
    source = data.load(
        request.source or experiment.data.source,
        request.split or experiment.data.eval_split,
        data_dir=request.data_dir or (None if request.source else experiment.data.data_dir),
    )
    count = min(_EXAMPLES, len(source)) if request.examples is None else request.examples
    devices = mesh.data_mesh()

    def whole(size: int) -> int:
        return -(-size // devices.size) * devices.size

    batch_size = whole(_BATCH_SIZE) if request.batch_size is None else request.batch_size
    job = Job(
        subject=subject,
        examples=Examples(source, count),
        protocol=request.protocol(),
        results=run_dir / "results",
        devices=devices,
        seed=request.seed,
        batch_size=batch_size,
        other=other,
        workers=request.workers,
        tag=request.tag,
        overwrite=request.overwrite,
        provenance={"versions": versions(), "command": command},
    )
    stochastic = subject.stochastic and request.noise == "fresh"
    conditions = suites.conditions(
        names, settings, subject.image_shape, stochastic or seen is not None
    )
    tasks: list[tuple[Job, Condition]] = [
        (job, dataclasses.replace(each, attack_noise=seen) if isinstance(each, Attacked) else each)
        for each in conditions
    ]
    if request.corrupted_files is not None:
        kept = request.data_dir or experiment.data.data_dir
        tasks = published.from_files(tasks, request.corrupted_files, kept)
    if "masking" in names:
        arguments.count("masking_images", request.masking_images)
        few = dataclasses.replace(
            job,
            examples=Examples(source, min(request.masking_images, count)),
            batch_size=min(batch_size, whole(_MASKING_BATCH_SIZE)),
        )
        transfer = "" if other is None else f"{other.run}, weights {other.weights}"
        masking = suites.masking(settings, subject.image_shape, stochastic, transfer)
        tasks += [(few, condition) for condition in masking]
    return Plan(job, tuple(tasks), tuple(_exhibits(job, request, names, settings, seen)))


def load_subject(run_dir: Path, step: int | None = None) -> tuple[Subject, training.Experiment]:
    """The network of a run, and its experiment; a wrong directory's nearest neighbour is named."""
    try:
        step, experiment, model, variables = training.restore_run(run_dir, step)
    except training.RunDirectoryError as error:
        runs = [path.parent for path in run_dir.absolute().parent.glob("*/config.json")]
        near = difflib.get_close_matches(run_dir.name, [run.name for run in runs], n=1)
        hint = f"; did you mean {run_dir.parent / near[0]}?" if near else ""
        raise training.RunDirectoryError(f"{error}{hint}") from error
    subject = Subject(
        run=run_dir.resolve().name,
        name=experiment.model.name,
        model=model,  # pyright: ignore[reportArgumentType]
        variables=variables,
        image_size=experiment.model.image_size,
        in_channels=experiment.model.in_channels,
        center_crop=experiment.data.center_crop,
        checkpoint_step=step,
        config=training.to_json(experiment),
    )
    return subject, experiment


def _seen_noise(
    request: Request, names: tuple[str, ...], subject: Subject, trained: Noise
) -> tuple[suites.Settings, Noise]:
    """The settings, and the noise that attacks see where the judged network has other noise.

    Raises:
      ValueError: for options that contradict each other, or have no effect on an attack that is
        asked for.
    """
    settings, judged, seen = request.settings, models.noise_of(subject.model), None
    if request.attack_noise != _AS_JUDGED:
        if settings.noise_free_gradients:
            raise ValueError(
                f"noise_free_gradients is attack_noise 'none'; give one of the two, got also "
                f"attack_noise {request.attack_noise!r}"
            )
        seen = other_noise.parse("attack_noise", request.attack_noise, trained, _AS_JUDGED)
        quiet = seen is None and judged is not None
        settings = dataclasses.replace(settings, noise_free_gradients=quiet)
        seen = None if seen == judged else seen
    options = {
        "attack_noise": request.attack_noise != _AS_JUDGED,
        "noise_free_gradients": request.settings.noise_free_gradients,
        "noise 'frozen_attack'": request.noise == "frozen_attack",
    }
    given = [option for option, is_given in options.items() if is_given]
    if given:
        suites.check_seen_noise(names, given[0])
    if request.noise != "fresh" and (settings.noise_free_gradients or seen is not None):
        raise ValueError(
            f"{given[0]} is for noise 'fresh', got noise {request.noise!r}, which says itself what "
            f"the attack sees"
        )
    return settings, seen


def _exhibits(
    job: Job, request: Request, names: tuple[str, ...], settings: suites.Settings, seen: Noise
):
    """Functions of the records of all tasks."""
    if "corruptions" in names:
        yield lambda records: corruption_means.write(job, records)
    if "gallery" in names:
        arguments.choice("gallery_norm", request.gallery_norm, norms.NORMS)
        checks.radius("gallery_eps", request.gallery_eps)
        arguments.count("gallery_images", request.gallery_images)
        noisy = seen is not None or (job.subject.stochastic and request.noise == "fresh")
        attacked = settings.attacked(request.gallery_norm, request.gallery_eps, noisy)
        condition = dataclasses.replace(attacked, attack_noise=seen)
        shown = min(request.gallery_images, len(job.examples))
        yield lambda records: exhibits.gallery(job, condition, shown)
    if suites.PHYSIOLOGY in names:
        how = physiology.recording(
            job.subject,
            request.layers,
            request.physiology_trials,
            request.references,
            request.textures,
            request.seed,
        )
        for layer in how.layers:
            yield lambda records, layer=layer: physiology.record_layer(job, how, layer)
    if "v1" in names:
        if getattr(job.subject.model, "v1", None) is not None:
            yield lambda records: exhibits.front_end(job)
        elif "v1" in request.suite:
            raise ValueError(f"suite v1 is for VOneNets, {job.subject.run} is a {job.subject.name}")
