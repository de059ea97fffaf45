"""Results for figures, and means over other results.

The figures show adversarial images and the V1 front end of a VOneNet. The means over corruptions
are by corruption, by category, and mCE.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import jax
import numpy as np

from vone_jax import corruptions, mesh, names, prng, results, v1
from vone_jax.corruptions import mce
from vone_jax.evaluation.conditions import Attacked, attack_record
from vone_jax.evaluation.job import Job, batches, place
from vone_jax.evaluation.judging import Trial, attack_noise_record
from vone_jax.evaluation.run import Figure, check_same_files


@dataclasses.dataclass(frozen=True)
class Gallery(Figure):
    """Some images, their adversarial versions, and the network's prediction for both.

    The images are spread over the data set and over its classes. The prediction is the class with
    the highest mean probability over the draws.

    Attributes:
      condition: the attack, and the noise of the network while it is attacked.
      count: number of images.
    """

    condition: Attacked
    count: int

    @property
    def name(self) -> str:
        return self.condition.name.replace("attack", "gallery", 1)

    def identity(self, job: Job, earlier: Sequence[results.Result]) -> results.Identity:
        record = results.GalleryCondition(
            attack=attack_record(self.condition.attack),
            images=self.count,
            attack_noise=attack_noise_record(self.condition.attack_noise),
        )
        return job.identity(self.name, record)

    def make(self, job: Job, earlier: Sequence[results.Result]) -> tuple[None, dict[str, Any]]:
        examples = job.examples.pick(job.spread(self.count))
        shown = dataclasses.replace(job, examples=examples)
        # If the attack was measured, the judging program is compiled for whole batches already, and
        # a whole batch is judged to use it.
        kept = self._kept(examples.indices, earlier)
        size = max(self.count, job.batch_size if kept else 0)
        # Each device gets the same number of images, as in any batch.
        trial = _first_trial(shown, -(-size // job.mesh.size))
        arrays = {
            "images": trial.images,
            "label": trial.labels,
            "predicted_clean": trial.judge(trial.images)["predicted"],
        }
        if not kept:
            adversarial, _ = self.condition.perturb(trial)
            predicted = trial.judge(adversarial)["predicted"]
            arrays |= {"adversarial": adversarial, "predicted_adversarial": predicted}
        arrays = {name: value[: self.count] for name, value in mesh.fetch(arrays).items()}
        return None, arrays | kept | {"eps": np.float32(self.condition.attack.eps)}

    def _kept(
        self, indices: np.ndarray, earlier: Sequence[results.Result]
    ) -> dict[str, np.ndarray]:
        """Take adversarial images and their predictions from the result of the attack.

        Returns:
          ``adversarial``, (N, H, W, C), and ``predicted_adversarial``, (N,), of the images with
          these indices in the data set; an empty dictionary if no result has kept just these.
        """
        record = self.condition.record()
        for arrays in (each.arrays for each in earlier if each.condition == record):
            if np.array_equal(arrays.get("kept", ()), indices):
                predicted = arrays["predicted"][np.searchsorted(arrays["index"], indices)]
                return {
                    "adversarial": arrays["adversarial"],
                    "predicted_adversarial": predicted,
                }
        return {}


@dataclasses.dataclass(frozen=True)
class FrontEnd(Figure):
    """The Gabor bank of a VOneNet and its responses to the first example.

    Raises:
      ValueError: in ``make``, if the network has no V1.
    """

    name = "v1"

    def identity(self, job: Job, earlier: Sequence[results.Result]) -> results.Identity:
        return job.identity(self.name, results.FrontEndCondition())

    def make(self, job: Job, earlier: Sequence[results.Result]) -> tuple[None, dict[str, Any]]:
        config = job.network.v1
        if config is None:
            raise ValueError(f"{job.network.name} has no V1 to show")
        bank = config.gabor_parameters()
        kernels = config.gabor_kernels()
        trial = _first_trial(job, 1)
        images = trial.images
        noise_keys = prng.fold(trial.keys("judge"), 0)
        network, _ = job.placed
        call = jax.jit(lambda response_fn, *inputs: response_fn(*inputs))
        quiet, noisy = (
            call(each.response_fn("v1"), noise_keys, images) for each in (network.quiet(), network)
        )
        return None, {
            "kernels_in_phase": kernels.in_phase,
            "kernels_quadrature": kernels.quadrature,
            **{name: getattr(bank, name) for name in ("sf", "theta", "phase", "nx", "ny")},
            "channel": bank.channel,
            "image": mesh.fetch(images)[0],
            "responses_clean": mesh.fetch(quiet)[0],
            "responses_noisy": mesh.fetch(noisy)[0],
            "simple_channels": np.int64(config.simple_channels),
            "pixels_per_degree": np.float64(config.pixels_per_degree),
            **_published(config),
        }


def _published(config: v1.VOneBlockConfig) -> dict[str, np.ndarray]:
    """The published histograms, over the spatial frequencies of the block's configuration."""
    measured = "physiological" if config.distribution == "uniform" else config.distribution
    known = v1.distributions
    nx, ny = known.SIZE_X, known.SIZE_Y
    if measured.startswith("evnet"):
        nx, ny = known.EVNET_SIZE_X, known.EVNET_SIZE_Y
    histograms = {
        "sf": v1.spatial_frequency_histogram(measured, config.sf_min, config.sf_max),
        "theta": known.ORIENTATION,
        "nx": nx,
        "ny": ny,
    }
    arrays = {}
    for name, histogram in histograms.items():
        arrays[f"published_{name}_edges"] = np.asarray(histogram.edges)
        arrays[f"published_{name}_weights"] = np.asarray(histogram.weights)
    return arrays


def _first_trial(job: Job, per_device: int) -> Trial:
    """The first examples as a batch for the network."""
    with contextlib.closing(batches(job, per_device * job.mesh.size)) as parts:
        return place(job, next(parts))[1]


@dataclasses.dataclass(frozen=True)
class MeansOverCorruptions(Figure):
    """Means over the common corruptions that earlier tasks, or earlier calls, have measured."""

    replaces = True

    name = "corruption-means"

    def identity(self, job: Job, earlier: Sequence[results.Result]) -> results.Identity | None:
        record, means = self._means(job, earlier)
        if means is None:
            return None
        suffix = "" if record.form == "float" else f"-{record.form}"
        return job.identity(f"{self.name}{suffix}", record)

    def make(
        self, job: Job, earlier: Sequence[results.Result]
    ) -> tuple[results.CorruptionMeans | None, dict[str, np.ndarray]]:
        record, means = self._means(job, earlier)
        return means, {"severities": np.array(record.severities)}

    def _means(
        self, job: Job, earlier: Sequence[results.Result]
    ) -> tuple[results.CorruptionMeansCondition, results.CorruptionMeans | None]:
        """The condition of the means, and the means, as ``summarise`` returns them."""
        clean, corrupted = _measured(job, earlier)
        accuracy = {(each.corruption, each.severity): share for each, share in corrupted.items()}
        known = {name for name, _ in accuracy}
        # mCE needs AlexNet's errors on ImageNet-C, which has 224 pixels and 1000 classes.
        classes = {job.network.num_classes, job.examples.num_classes}
        imagenet = job.network.image_size == 224 and classes == {1000}
        record = results.CorruptionMeansCondition(
            form=", ".join(sorted({condition.form for condition in corrupted})),
            corruptions=tuple(name for name in corruptions.NAMES if name in known),
            severities=tuple(sorted({s for _, s in results.common_corruptions(accuracy)})),
            clean=clean is not None,
        )
        return record, summarise(accuracy, clean, imagenet)


def _measured(
    job: Job, earlier: Sequence[results.Result]
) -> tuple[float | None, dict[results.CorruptionCondition, float]]:
    """The accuracy on clean and corrupted images, from this call and from others with its settings.

    Results on published images are those of this call alone.
    """
    clean: float | None = None
    corrupted: dict[results.CorruptionCondition, float] = {}
    # Images of another form have means of their own.
    forms = {result.form for result in earlier}
    for result in (*earlier, *_stored(job, {result.name for result in earlier})):
        condition = result.condition
        if isinstance(condition, results.CorruptionCondition) and condition.form in forms:
            corrupted.setdefault(condition, result.accuracy)
        elif result.kind == "clean" and clean is None:
            clean = result.accuracy
    found = sorted((c.corruption, c.severity, accuracy) for c, accuracy in corrupted.items())
    check_same_files(job, (clean, found))
    return clean, corrupted


def _stored(job: Job, excluded: set[str]) -> Iterator[results.Result]:
    """The results of other calls that judged the network in the same way on the same images."""
    for path in sorted(job.directory.glob("c*.json")):
        if path.stem.startswith(("clean", "corruption-")) and path.stem not in excluded:
            with contextlib.suppress(results.ResultError):
                result = results.read(path)
                ours = job.identity(result.name, result.condition)
                if not results.differences(dataclasses.replace(ours, name=result.name), result):
                    yield result


def summarise(
    accuracy: Mapping[tuple[str, int], float], clean: float | None, imagenet: bool
) -> results.CorruptionMeans | None:
    """Compute means of accuracies, which are given by corruption and severity.

    Two rules are in use: the mean of the 15 corruptions, and the mean of the four categories, in
    which the three kinds of noise weigh as much as the four corruptions of each other category. The
    extra corruptions of ImageNet-C are in neither mean. The drawn frost replaces a missing frost.

    Args:
      accuracy: shares from 0 to 1.
      clean: accuracy on images without corruption, if known.
      imagenet: whether the images are ImageNet's at 224 pixels, so that AlexNet's errors apply.

    Returns:
      The means, or None if a category has no corruption.
    """
    counted = results.common_corruptions(accuracy)
    shares: dict[str, list[float]] = {}
    for (name, _), share in counted.items():
        shares.setdefault(name, []).append(share)
    measured = {name: sum(of_name) / len(of_name) for name, of_name in shares.items()}
    members = {
        category: [measured[name] for name in of_category if name in measured]
        for category, of_category in names.CORRUPTION_CATEGORIES.items()
    }
    if not all(members.values()):
        return None
    categories = {category: sum(shares) / len(shares) for category, shares in members.items()}
    common = [share for shares in members.values() for share in shares]
    note = f"Over {len(common)} of the 15 common corruptions"
    severities = {severity for _, severity in counted}
    drawn = any(
        (names.PROCEDURAL_FROST, s) in accuracy and ("frost", s) not in accuracy for s in severities
    )
    note += ", with a drawn texture in the place of frost" if drawn else ""
    if len(counted) < len(measured) * len(severities):
        note += ", at different severities"
    elif any(name in measured and severity not in severities for name, severity in accuracy):
        note += f", at severity {', '.join(map(str, sorted(severities)))}, which all have"
    note += "."
    every = names.COMMON_CORRUPTIONS
    mean_error = relative = None
    if not imagenet:
        note += " Corruption errors (mCE) are defined on ImageNet at 224 pixels."
    elif {key for key in accuracy if key[0] in every} != {*product(every, names.SEVERITIES)}:
        note += " Corruption errors (mCE) need all 15 at all five severities."
    else:
        errors = {
            name: {severity: 1 - accuracy[name, severity] for severity in names.SEVERITIES}
            for name in every
        }
        mean_error = mce.mean_corruption_error(errors)
        if clean is not None:
            relative = mce.relative_mean_corruption_error(errors, 1 - clean)
    return results.CorruptionMeans(
        of_corruptions=sum(common) / len(common),
        of_categories=sum(categories.values()) / len(categories),
        categories=categories,
        mce=mean_error,
        relative_mce=relative,
        note=note,
    )
