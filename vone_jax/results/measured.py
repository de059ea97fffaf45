"""The measured values of a result: accuracies, distances, checks, means, scores of layers."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from vone_jax.results.conditions import STRICT

Share = Annotated[float, Field(ge=0, le=1)]
Interval = tuple[Share, Share]
Verdict = Literal["pass", "warning", "fail"]
VERDICTS: tuple[Verdict, ...] = ("pass", "warning", "fail")

# Gradients are taken to be missing if more than this share of the images has a gradient of zero, or
# is right and not moved by an attack.
BLIND = 0.1

SCORED = "scored"
WILSON = "Wilson 95 % over images"

# Rounding of a share that is a quotient of two numbers in the file.
_SLACK = 1e-6


@dataclass(frozen=True, config=STRICT)
class BetweenDraws:
    """The accuracy over all examples of each of the R decisions, and its spread.

    The spread shows the effect of the network's noise, not that of another sample of images.

    Attributes:
      accuracy: accuracy of each decision, R numbers.
      standard_deviation: standard deviation over the decisions; None for one decision.
      standard_error: standard error of the mean over the decisions; None for one decision.
    """

    accuracy: tuple[Share, ...]
    standard_deviation: float | None = None
    standard_error: float | None = None


@dataclass(frozen=True, config=STRICT)
class Accuracy:
    """An accuracy over images.

    Attributes:
      accuracy: ``correct / seen``.
      correct: sum over the images of the share of decisions that were right.
      between_draws: the accuracy of each decision; None in old files.
      right_in_every_draw: share of the images that were right in all decisions. It falls with the
        number of decisions and is no accuracy.
      won: for several attacks, the number of images on which each was the worst; the last number
        is for the unchanged image.
    """

    accuracy: Share
    interval: Interval
    correct: Annotated[float, Field(ge=0)]
    seen: Annotated[int, Field(ge=1)]
    between_draws: BetweenDraws | None = None
    right_in_every_draw: Share | None = None
    won: tuple[int, ...] | None = None
    interval_method: str = WILSON
    kind: Literal["accuracy"] = "accuracy"

    def __post_init__(self):
        share = self.correct / self.seen
        if abs(share - self.accuracy) > _SLACK:
            raise ValueError(f"accuracy is {self.accuracy}, but correct / seen is {share}")
        _check_interval(self.accuracy, self.interval)


@dataclass(frozen=True, config=STRICT)
class Rung:
    """The accuracy at one radius of a ladder, ``eps`` in pixel units, with its 95 % interval."""

    eps: Annotated[float, Field(ge=0)]
    accuracy: Share
    interval: Interval
    between_draws: BetweenDraws | None = None

    def __post_init__(self):
        _check_interval(self.accuracy, self.interval)


@dataclass(frozen=True, config=STRICT)
class Distances:
    """The smallest adversarial changes.

    Attributes:
      broken: images for which an adversarial image was found at any distance.
      median_distance: in pixel units; None if half of the images or more have none.
    """

    seen: Annotated[int, Field(ge=1)]
    broken: Annotated[int, Field(ge=0)]
    median_distance: Annotated[float, Field(ge=0)] | None
    ladder: tuple[Rung, ...]
    interval_method: str = WILSON
    kind: Literal["distances"] = "distances"


@dataclass(frozen=True, config=STRICT)
class Check:
    """One check for masked gradients.

    Attributes:
      question: what the check asks, in words.
      numbers: the numbers behind the verdict; None for one that is not finite.
      meaning: the answer in words.
    """

    name: str
    question: str
    verdict: Verdict
    numbers: Mapping[str, bool | int | float | None]
    meaning: str


@dataclass(frozen=True, config=STRICT)
class Checks:
    """The checks for masked gradients of one network at one radius."""

    checks: Annotated[tuple[Check, ...], Field(min_length=1)]
    seen: Annotated[int, Field(ge=1)]
    kind: Literal["checks"] = "checks"

    def count(self, verdict: Verdict) -> int:
        """The number of checks that have a verdict."""
        return sum(check.verdict == verdict for check in self.checks)


@dataclass(frozen=True, config=STRICT)
class CorruptionMeans:
    """Mean accuracies over corruptions.

    Attributes:
      of_corruptions: mean over the common corruptions that were measured, from 0 to 1.
      of_categories: mean over the four categories (noise, blur, weather, digital).
      categories: category -> mean over its corruptions.
      mce: mean corruption error in percent; None where it is not defined.
      relative_mce: relative mean corruption error in percent; None where it is not defined.
      note: the corruptions and severities that count, in words.
    """

    of_corruptions: Share
    of_categories: Share
    categories: dict[str, Share]
    mce: float | None
    relative_mce: float | None
    note: str
    kind: Literal["means"] = "means"


@dataclass(frozen=True, config=STRICT)
class PropertyScore:
    """One property of a layer, and the comparison of its distribution with neurons.

    Attributes:
      name: a name in ``neurophysiology.PROPERTIES``, which also has the benchmark, label, unit,
        group and edges.
      status: "scored", or what is missing for a score. "needs data": the user has to supply the
        distribution over neurons. "needs stimuli": the property was not measured, because the user
        has to supply its images.
      benchmark: name in Brain-Score.
      label: name in words.
      unit: unit of the values; empty for a pure number.
      group: the group of properties over which scores are averaged.
      edges: bin edges of the distributions.
      similarity: similarity to the neurons, in [0, 1]; None unless scored.
      similarity_std: bootstrap standard deviation of the similarity. It is no error of the score:
        with few units, the score also varies, and is lower.
      ceiling: similarity of the neurons to populations drawn from themselves.
      score: similarity / ceiling, which may exceed 1 a little.
      units: number of units that count, with and without a value.
      undefined: number of units that count and have no value.
      median: median of the defined values; None if there are none.
      distribution: fraction of the defined values in each bin.
      neurons: size of the reference sample; None without one.
      reference_undefined: number of neurons without a value.
      reference_distribution: fraction of the neurons' values in each bin.
      source: source of the reference.
    """

    name: str
    status: Literal["scored", "needs data", "needs stimuli"]
    benchmark: str
    label: str
    unit: str
    group: str
    edges: tuple[float, ...]
    similarity: float | None = None
    similarity_std: float | None = None
    ceiling: float | None = None
    score: Annotated[float, Field(ge=0)] | None = None
    units: int | None = None
    undefined: int | None = None
    median: float | None = None
    distribution: tuple[Share, ...] | None = None
    neurons: int | None = None
    reference_undefined: int | None = None
    reference_distribution: tuple[Share, ...] | None = None
    source: str | None = None

    def __post_init__(self):
        if self.status != SCORED:
            return
        needed = ("score", "units", "neurons", "source", "distribution", "reference_distribution")
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{self.name} is scored, but has no {', '.join(missing)}")
        bins = len(self.edges) - 1
        for name in ("distribution", "reference_distribution"):
            shares = getattr(self, name)
            if len(shares) != bins or sum(shares) > 1 + _SLACK:
                raise ValueError(f"{name} of {self.name} must be shares of the {bins} bins")


@dataclass(frozen=True, config=STRICT)
class ContrastResponse:
    """Medians over units of the fit of contrast responses; None if no unit has a value."""

    median_c50: float | None
    median_exponent: float | None


@dataclass(frozen=True, config=STRICT)
class SurroundTuning:
    """Medians over units of the suppression by a surround, by its orientation.

    Suppression is the share of the response to a centre that a grating around it takes away. It is
    None if no unit has a value.
    """

    median_parallel: float | None
    median_orthogonal: float | None


@dataclass(frozen=True, config=STRICT)
class Variability:
    """Trial-to-trial variability of some units.

    Attributes:
      trials: presentations of each grating.
      median_fano_factor: median for responses; None if no unit has a value.
      median_fano_factor_spikes: median for spike counts, if the responses have them.
      least_mean_spikes: least mean spike count of a response that is used.
      units_above: units with such a response.
    """

    trials: Annotated[int, Field(ge=2)]
    gratings: Annotated[int, Field(ge=1)]
    units: Annotated[int, Field(ge=1)]
    median_fano_factor: float | None = None
    median_fano_factor_spikes: float | None = None
    least_mean_spikes: float | None = None
    units_above: int | None = None

    @property
    def has_spikes(self) -> bool:
        """True if the responses have spike counts."""
        return self.least_mean_spikes is not None


@dataclass(frozen=True, config=STRICT)
class TextureMedians:
    """The median of each texture property over units.

    Attributes:
      proxy: whether the textures are stand-ins made from photographs.
      units: number of units that count.
      medians: property -> median; None if no unit has a value.
    """

    source: str
    proxy: bool
    families: tuple[str, ...]
    samples: int
    units: int
    medians: dict[str, float | None]


@dataclass(frozen=True, config=STRICT)
class LayerScores:
    """The scores of a layer, see ``neurophysiology.Scores``.

    Attributes:
      slope: slope of the map from activations to spikes per second; ``offset`` is added.
      mean_score: mean over the 7 properties that can always be scored.
      groups: mean of each group of properties; None where a member has no score.
      simple_channels: how many of the layer's first channels are simple cells; None if the layer
        has no simple and complex cells.
      contrast_response: medians over units; None in old files.
      surround_tuning: medians over units; None in old files.
      variability: None for a layer without noise.
      textures: None if no textures were shown.
    """

    visual_degrees: Annotated[float, Field(ge=0)]
    image_size: Annotated[int, Field(ge=1)]
    trials: Annotated[int, Field(ge=1)]
    units: Annotated[int, Field(ge=1)]
    slope: float
    offset: float
    mean_score: float
    groups: dict[str, float | None]
    properties: dict[str, PropertyScore]
    simple_channels: int | None = None
    contrast_response: ContrastResponse | None = None
    surround_tuning: SurroundTuning | None = None
    variability: Variability | None = None
    textures: TextureMedians | None = None


@dataclass(frozen=True, config=STRICT)
class Physiology:
    """A recorded layer.

    Attributes:
      status: "scored", or "not scored: ..." with the reason.
      scores: None unless the layer was scored.
    """

    status: str
    scores: LayerScores | None = None
    kind: Literal["physiology"] = "physiology"

    def __post_init__(self):
        if (self.status == SCORED) != (self.scores is not None):
            raise ValueError(f"status is {self.status!r}, scores are {type(self.scores).__name__}")


Measured = Annotated[
    Accuracy | Distances | Checks | CorruptionMeans | Physiology, Field(discriminator="kind")
]


def _check_interval(accuracy: float, interval: Interval) -> None:
    low, high = interval
    if not low - _SLACK <= accuracy <= high + _SLACK:
        raise ValueError(f"interval must contain the accuracy {accuracy}, got [{low}, {high}]")
