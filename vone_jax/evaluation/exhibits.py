"""Results that are looked at: adversarial images, and the V1 of a VOneNet."""

import contextlib
import time
from typing import Any

import jax.numpy as jnp
import numpy as np

from vone_jax import mesh, prng, v1
from vone_jax.evaluation import judging, protocol, store
from vone_jax.evaluation.conditions import Attacked
from vone_jax.evaluation.judging import Trial
from vone_jax.evaluation.runner import Job, batches, now, place


def gallery(job: Job, condition: Attacked, count: int) -> dict[str, Any]:
    """Writes some images with their adversarial versions and what the network takes them for.

    The prediction for an image is the class with the highest mean probability over the draws.

    Args:
      job: what to evaluate, and how.
      condition: the attack.
      count: number of images: the first of the job's examples.

    Returns:
      The content of the result's JSON file.

    Raises:
      store.ResultError: if files of the same name are damaged or of another evaluation.
    """
    name = condition.name.replace("attack", "gallery", 1)
    identity = job.identity("gallery", name, condition.record() | {"images": count})
    record = job.previous(identity)
    if record is not None:
        return record
    started, since = now(), time.perf_counter()
    # A whole number per device, as in any batch.
    _, trial = place(job, _first(job, -(-count // job.devices.size)))
    adversarial, _ = condition.perturb(trial)
    arrays = {
        "images": trial.images,
        "adversarial": adversarial,
        "label": trial.labels,
        "predicted_clean": _predict(trial, trial.images),
        "predicted_adversarial": _predict(trial, adversarial),
    }
    arrays = {name: value[:count] for name, value in mesh.fetch(arrays).items()}
    arrays["eps"] = np.float32(condition.attack.eps)
    record = job.record(identity, started, time.perf_counter() - since)
    store.publish(job.results, record, arrays)
    return record


def _predict(trial: Trial, images):
    draws = trial.how.draws * trial.how.averaged
    probability = judging.mean_probability(trial.judged, trial.example_keys, images, draws)
    return jnp.argmax(probability, axis=-1)


def front_end(job: Job) -> dict[str, Any]:
    """Writes the Gabor bank of a VOneNet and its responses to the first example.

    Raises:
      ValueError: if the network has no V1.
      store.ResultError: if files of the same name are damaged or of another evaluation.
    """
    config = getattr(job.subject.model, "v1", None)
    if config is None:
        raise ValueError(f"{job.subject.run} is a {job.subject.name}, which has no V1 to show")
    identity = job.identity("v1", "v1", {})
    record = job.previous(identity)
    if record is not None:
        return record
    started, since = now(), time.perf_counter()
    bank = config.gabor_parameters()
    kernels = config.gabor_kernels()
    _, trial = place(job, _first(job, 1))
    images = trial.images
    noise_keys = prng.fold(protocol.judge_keys(trial.example_keys), 0)
    block = v1.VOneBlock(config)
    clean = v1.noise_free_responses(config, images)
    noisy = block.apply({}, images, noise_key=noise_keys)
    arrays = {
        "kernels_in_phase": np.asarray(kernels.in_phase, np.float32),
        "kernels_quadrature": np.asarray(kernels.quadrature, np.float32),
        **{name: getattr(bank, name) for name in ("sf", "theta", "phase", "nx", "ny", "channel")},
        "image": mesh.fetch(images)[0],
        "responses_clean": mesh.fetch(clean)[0],
        "responses_noisy": mesh.fetch(noisy)[0],
        "simple_channels": np.int64(config.simple_channels),
        "pixels_per_degree": np.float64(config.pixels_per_degree),
        **_published(config),
    }
    record = job.record(identity, started, time.perf_counter() - since)
    store.publish(job.results, record, arrays)
    return record


def _published(config: v1.VOneBlockConfig) -> dict[str, np.ndarray]:
    """The published histograms, over the spatial frequencies that the block asks for."""
    measured = "physiological" if config.distribution == "uniform" else config.distribution
    histograms = {
        "sf": v1.spatial_frequency_histogram(measured, config.sf_min, config.sf_max),
        "theta": v1.distributions.ORIENTATION,
        "nx": v1.distributions.SIZE_X,
        "ny": v1.distributions.SIZE_Y,
    }
    arrays = {}
    for name, histogram in histograms.items():
        arrays[f"published_{name}_edges"] = np.asarray(histogram.edges)
        arrays[f"published_{name}_weights"] = np.asarray(histogram.weights)
    return arrays


def _first(job: Job, per_device: int) -> dict[str, np.ndarray]:
    """This process's part of the batch of the first examples."""
    with contextlib.closing(batches(job, per_device * job.devices.size)) as parts:
        return next(parts)
