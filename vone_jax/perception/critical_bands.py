"""The condition ``CriticalBands``: the spatial frequencies by which a network recognises."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import scipy

from vone_jax import arguments, corruptions
from vone_jax.arguments import Range
from vone_jax.evaluation.condition import Condition, Numbers, fields_of_row, number
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.evaluation.judging import Batch
from vone_jax.network import Network
from vone_jax.perception import humans
from vone_jax.perception.psychophysics import counted, judge_each
from vone_jax.results import Interval, Lines

_LEAST_BANDS = 4
# Samples of the images for the intervals.
_SAMPLES = 200


@dataclasses.dataclass(frozen=True)
class CriticalBands(Condition):
    """Critical-band masking: noise of an octave hides what is seen in this octave.

    Images are grey and low in contrast, with noise of one band, see ``corruptions.mask``. The
    threshold of a band is the strongest noise at which more than half of the decisions are right. A
    Gaussian over the bands, fitted to the number of steps from the strongest noise to the
    threshold, is the channel. The images that count are those of ``Psychophysics``.

    Attributes:
      deviations: standard deviations of the noise, rising.

    Raises:
      ValueError: if they do not rise.
    """

    section = "Human observers"
    judged: ClassVar[bool] = True

    deviations: tuple[Annotated[float, Range(above=True)], ...] = (0.02, 0.04, 0.08, 0.16)

    def __post_init__(self):
        arguments.fields(self)
        if not self.deviations or list(self.deviations) != sorted(set(self.deviations)):
            raise ValueError(f"deviations must rise, got {self.deviations}")

    def row(self) -> dict[str, Any]:
        return {"condition": "critical bands", **fields_of_row(self)}

    def check(self, network: Network) -> None:
        super().check(network)
        centres = corruptions.band_centres(*network.image_shape[:2])
        if len(centres) < _LEAST_BANDS:
            raise ValueError(
                f"{self.label} need images with at least {_LEAST_BANDS} octaves; those of "
                f"{network.name} have {len(centres)}"
            )

    def make(self, batch: Batch) -> dict[str, Any]:
        centres = corruptions.band_centres(*batch.images.shape[1:3])
        levels = [(0, 0.0)]
        levels += [(band, each) for band in range(len(centres)) for each in self.deviations]
        masked = (corruptions.mask(batch.keys("corruption"), batch.images, *x) for x in levels)
        shown = np.tile(np.asarray(centres, np.float32), (len(batch.images), 1))
        return judge_each(batch, masked) | {"centres": shown}

    def result(self, arrays: Mapping[str, np.ndarray], evaluation: Any) -> Numbers:
        right, warnings = counted(arrays)
        if not len(right):
            return Numbers(warnings=warnings)
        centres = arrays["centres"][0].astype(float)
        steps = len(self.deviations)
        accuracies = right.mean(axis=2, dtype=np.float64)
        thresholds = _thresholds(accuracies.mean(axis=0), steps)
        channel = None
        if accuracies[:, 0].mean() > 0.5:
            channel = fit_channel(thresholds, steps, centres[0])
        measured = [number("accuracy without noise", of=right[:, 0])]
        count = len(accuracies)
        samples = np.random.default_rng(0).integers(count, size=(_SAMPLES, count))
        sampled = [
            fit_channel(_thresholds(accuracies[rows].mean(axis=0), steps), steps, centres[0])
            for rows in samples
            if channel is not None
        ]
        for place, name in enumerate(("bandwidth", "centre")):
            value: Any = None if channel is None else channel[place]
            found = [each[place] for each in sampled if each is not None]
            # Without an interval where a channel cannot be fitted to many of the samples.
            if value is not None and len(found) > 0.95 * _SAMPLES:
                value = Interval(value, *map(float, np.quantile(found, (0.025, 0.975))))
            unit = "octaves" if place == 0 else "cycles per image"
            measured.append(number(name, value, unit=unit))
        if channel is not None:
            measured += [
                number("sensitivity", steps_to / channel[2], frequency=round(float(centre), 3))
                for centre, steps_to in zip(centres, thresholds, strict=True)
            ]
        measured += [
            number("accuracy", of=right[:, 1 + band * steps + place],
                   frequency=round(float(centre), 3), deviation=deviation)
            for band, centre in enumerate(centres)
            for place, deviation in enumerate(self.deviations)
        ]  # fmt: skip
        people = humans.CHANNEL
        reference = [
            {"network": f"{people.observers} observers", "number": "sensitivity", **row}
            for row in _channel(people.bandwidth, people.centre)
        ]
        about = (
            "Noise of one octave at a time hides what is seen in this octave. The weaker the noise "
            "that brings the accuracy down to one half, the higher the sensitivity, here relative "
            f"to the peak. Dashed: the mean of {people.observers} observers, {people.bandwidth} ± "
            f"{people.bandwidth_deviation} octaves wide around {people.centre} ± "
            f"{people.centre_deviation} cycles per image. {people.source}."
        )
        return Numbers(
            measured,
            [Lines("sensitivity", "frequency", log=True, about=about)] if channel else [],
            reference if channel else [],
            (*warnings, *_doubts(accuracies, thresholds, steps)),
            {"channel": channel, "images": len(right)},
        )


def _channel(width: float, centre: float) -> list[dict[str, float]]:
    """A Gaussian over octaves with a height of 1, from 1 to 128 cycles per image."""
    octaves = np.linspace(0.0, 7.0, 57)
    deviation = width / (2 * np.sqrt(np.log(4)))
    heights = np.exp(-((octaves - np.log2(centre)) ** 2) / (2 * deviation**2))
    return [
        {"frequency": round(float(2**at), 3), "value": round(float(height), 4)}
        for at, height in zip(octaves, heights, strict=True)
    ]


def _thresholds(accuracy: np.ndarray, steps: int) -> np.ndarray:
    """The steps from the strongest noise down to one that leaves more than half right, (bands,).

    ``accuracy`` is that without noise, then that of each band at each deviation.
    """
    seen = accuracy[1:].reshape(-1, steps) > 0.5
    return np.where(seen.any(axis=1), np.argmax(seen[:, ::-1], axis=1), steps)


def fit_channel(
    thresholds: np.ndarray, steps: int, lowest: float
) -> tuple[float, float, float] | None:
    """Fit a Gaussian to the steps of each band, as the authors do: its height is at most ``steps``.

    Args:
      thresholds: steps from the strongest noise to the threshold, for each band from low to high.
      steps: number of deviations.
      lowest: centre of the first band in cycles per image.

    Returns:
      Full width at half height in octaves, centre in cycles per image, and height in steps. None
      if all bands have the same threshold.
    """
    bands = np.arange(len(thresholds))
    if np.ptp(thresholds) == 0:
        return None

    def misses(parameters: np.ndarray) -> np.ndarray:
        height, middle, deviation = parameters
        return height * np.exp(-((bands - middle) ** 2) / (2 * deviation**2)) - thresholds

    start = (min(thresholds.max(), steps - 0.01), np.average(bands, weights=thresholds), 1.0)
    # A width below a tenth of an octave, or beyond all bands, cannot be told from others.
    bounds = ((0.0, -np.inf, 0.05), (steps, np.inf, len(bands)))
    height, middle, deviation = scipy.optimize.least_squares(misses, start, bounds=bounds).x
    width = 2 * np.sqrt(np.log(4)) * deviation
    return float(width), float(lowest * 2**middle), float(height)


def _doubts(accuracies: np.ndarray, thresholds: np.ndarray, steps: int) -> list[str]:
    """Warnings about a channel that the noise did not measure."""
    if accuracies[:, 0].mean() <= 0.5:
        return ["Less than half are right without noise, so there are no thresholds."]
    if np.ptp(thresholds) == 0:
        return ["All bands have the same threshold, so there is no channel: change the deviations."]
    doubts = []
    if (few := int(np.sum(thresholds > 0))) < 3:
        doubts.append(f"The channel stands on {few} of {len(thresholds)} bands.")
    if thresholds.max() == steps:
        doubts.append("The weakest noise is too strong in some band: add a smaller deviation.")
    return doubts


def critical_bands(evaluation: Evaluation) -> list[Condition]:
    """the spatial frequencies of recognition (290; 29)"""
    return [CriticalBands()]


SUITES = {"critical_bands": critical_bands}
