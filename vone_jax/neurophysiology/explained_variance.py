"""How much of recorded V1 responses a layer explains: the benchmark FreemanZiemba2013.V1-pls.

Partial least squares maps the layer's responses to all neurons at once, on 90 % of the images;
the prediction for the others is correlated with the recordings, per neuron. The median over
neurons, averaged over 10 splits, is the raw r. It is put in relation to the ceiling c, the
Spearman-Brown corrected reliability of the recordings.

Two versions of the score are in use and must not be mixed in one table:

  ``"v1-v2"``: (r / c)^2, in the papers of 2020 to 2025. It exceeds 1 for noisy recordings.
  ``"v3"``: r^2 / c, Brain-Score since January 2026. v3 = v1-v2 * c.

References: Schrimpf et al. (2018), Brain-Score, bioRxiv 407007; Freeman, Ziemba et al. (2013),
Nature Neuroscience 16:974-981; partial least squares by scikit-learn.
"""

import dataclasses
import warnings

import numpy as np
from numpy.typing import ArrayLike
from sklearn.cross_decomposition import PLSRegression
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

VERSIONS = ("v1-v2", "v3")
# Columns that are reduced at a time, so that a layer of millions of units needs little memory.
_CHUNK = 8192


@dataclasses.dataclass(frozen=True, eq=False)
class ExplainedVariance:
    """Result for one layer and one set of recordings.

    Attributes:
      correlations: Pearson r on held-out images, float64 (splits, neurons). NaN where a neuron
        or its prediction is constant over the held-out images of a split.
      reliabilities: Spearman-Brown corrected, float64 (half-splits, neurons).
    """

    correlations: np.ndarray
    reliabilities: np.ndarray

    @property
    def raw(self) -> float:
        """r: median over neurons (without NaN), mean over splits."""
        return float(np.nanmedian(self.correlations, axis=1).mean())

    @property
    def ceiling(self) -> float:
        """c: median over neurons, mean over half-splits."""
        return _ceiling(self.reliabilities)

    def score(self, version: str = "v3") -> float:
        """The ceiled score; 0 where r is negative.

        Args:
          version: ``"v3"`` or ``"v1-v2"``, see the module.

        Raises:
          ValueError: for another version, or a ceiling that is not above 0: the recordings then
            hold no signal that repeats.
        """
        if version not in VERSIONS:
            raise ValueError(f"version must be one of {', '.join(VERSIONS)}; got {version!r}")
        if not self.ceiling > 0:
            raise ValueError(
                f"the recordings have no reliable signal: their ceiling is {self.ceiling:.3g}"
            )
        explained = max(self.raw, 0.0) ** 2
        return explained / self.ceiling ** (2 if version == "v1-v2" else 1)


def explained_variance(
    features: ArrayLike,
    recordings: ArrayLike,
    strata: ArrayLike,
    components: int = 25,
    splits: int = 10,
    train_fraction: float = 0.9,
    half_splits: int = 10,
    seed: int = 1,
) -> ExplainedVariance:
    """Predicts recordings from the responses of a layer; the defaults are Brain-Score's.

    The regression centres features and neurons and scales neither (NIPALS). Its result depends on
    the features only through their inner products, so they are first rotated, without loss, into
    as many dimensions as there are images.

    Args:
      features: responses of the layer, (images, ...), flattened; see ``layer_features``.
      recordings: (images, repetitions, neurons), for instance spikes per second from 50 to 200 ms
        after onset, in the order of the features.
      strata: label of each image, (images,), whose shares the splits keep: the texture type.
      components: of the regression.
      splits: stratified random splits of the images.
      train_fraction: share of the images to fit.
      half_splits: random halves of the repetitions for the ceiling.
      seed: of both kinds of splits, 0 <= seed < 2**32. The same seed gives the same splits.

    Returns:
      Correlations and reliabilities, from which the scores follow.

    Raises:
      ValueError: if shapes do not fit, a value is not finite, a neuron or all features are
        constant, or there are too few images, dimensions of features or repetitions.
    """
    recordings = _checked_recordings(recordings)
    images = len(recordings)
    strata = np.asarray(strata)
    features = np.asarray(features)
    if features.ndim < 2 or len(features) != images:
        raise ValueError(
            f"features must have shape (images, ...) with the {images} images of the recordings, "
            f"got {features.shape}"
        )
    if strata.shape != (images,) or strata.dtype.kind not in "biuU":
        raise ValueError(
            f"strata must be text or integers of shape ({images},), got {strata.dtype} of shape "
            f"{strata.shape}"
        )
    _check_numbers(components, splits, train_fraction, half_splits, seed)
    features = features.reshape(images, -1)
    train = int(np.floor(train_fraction * images))
    # Centring takes one dimension.
    if components > min(train - 1, features.shape[1]):
        raise ValueError(
            f"components must be below the {train} images that are fitted and at most the "
            f"{features.shape[1]} features, got {components}"
        )
    smallest = int(np.unique(strata, return_counts=True)[1].min())
    if smallest < 2 or len(np.unique(strata)) > images - train:
        raise ValueError(
            f"strata must have at least 2 images each and be no more than the {images - train} "
            f"images that are held out; got {len(np.unique(strata))} strata, the smallest of "
            f"{smallest} images"
        )
    coordinates = rotated(features)
    neurons = recordings.mean(axis=1)
    splitter = StratifiedShuffleSplit(splits, train_size=train_fraction, random_state=seed)
    precision = np.finfo(features.dtype if features.dtype.kind == "f" else np.float64).eps
    correlations = []
    for fit, test in splitter.split(coordinates, strata):
        _check_dimensions(coordinates[fit], components, float(precision))
        correlations.append(_held_out_correlation(coordinates, neurons, components, fit, test))
    correlations = np.stack(correlations)
    if np.isnan(correlations).all(axis=1).any():
        raise ValueError(
            "every neuron, or the prediction for it, is constant over the held-out images of a "
            "split"
        )
    return ExplainedVariance(correlations, reliabilities(recordings, half_splits, seed))


def ceiling(recordings: ArrayLike, half_splits: int = 10, seed: int = 1) -> float:
    """c alone: median over neurons of ``reliabilities``, mean over half-splits."""
    return _ceiling(reliabilities(recordings, half_splits, seed))


def reliabilities(recordings: ArrayLike, half_splits: int = 10, seed: int = 1) -> np.ndarray:
    """Split-half reliability of every neuron, extrapolated to all repetitions.

    The repetitions are halved at random, each half is averaged, and the correlation r over images
    becomes 2 r / (1 + r) (Spearman-Brown).

    Args:
      recordings: (images, repetitions, neurons).
      half_splits: number of random halves.
      seed: of the halves, 0 <= seed < 2**32.

    Returns:
      float64 (half_splits, neurons). NaN where a neuron is constant in one half, and where r = -1.

    Raises:
      ValueError: as ``explained_variance``.
    """
    recordings = _checked_recordings(recordings)
    _check_numbers(splits=1, half_splits=half_splits, seed=seed)
    splitter = ShuffleSplit(half_splits, train_size=0.5, random_state=seed)
    found = []
    for first, second in splitter.split(np.arange(recordings.shape[1])):
        r = correlation(recordings[:, first].mean(axis=1), recordings[:, second].mean(axis=1))
        r = np.where(r > -1, r, np.nan)
        found.append(2 * r / (1 + r))
    result = np.stack(found)
    if np.isnan(result).all(axis=1).any():
        raise ValueError("every neuron is constant over images in one half of the repetitions")
    return result


def rotated(features: np.ndarray) -> np.ndarray:
    """Centred features in an orthonormal basis of the space that the images span.

    All distances and angles between images stay as they are: this is a change of basis, not a
    selection of components.

    Args:
      features: (images, features).

    Returns:
      float64 (images, min(images, features)).

    Raises:
      ValueError: if a value is not finite or all features are constant.
    """
    triangle = np.zeros((len(features), 0))
    varies = False
    for start in range(0, features.shape[1], _CHUNK):
        chunk = features[:, start : start + _CHUNK].astype(np.float64)
        if not np.all(np.isfinite(chunk)):
            raise ValueError("features must be finite, got NaN or infinite values")
        varies = varies or bool(np.any(chunk != chunk[0]))
        # The triangular factor of the columns so far stands for them: same inner products.
        stacked = np.concatenate([triangle, chunk - chunk.mean(axis=0)], axis=1)
        triangle = np.asarray(np.linalg.qr(stacked.T, mode="r")).T
    if not varies:
        raise ValueError("features must vary between images, got constant ones")
    return triangle


def correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson r over the first axis, per column; NaN for a column that is constant in either."""
    constant = np.all(first == first[0], axis=0) | np.all(second == second[0], axis=0)
    first = first - first.mean(axis=0)
    second = second - second.mean(axis=0)
    scale = np.sqrt(np.square(first).sum(axis=0) * np.square(second).sum(axis=0))
    undefined = constant | (scale == 0)
    return np.where(
        undefined, np.nan, (first * second).sum(axis=0) / np.where(undefined, 1.0, scale)
    )


def _held_out_correlation(
    coordinates: np.ndarray, neurons: np.ndarray, components: int, fit: np.ndarray, test: np.ndarray
) -> np.ndarray:
    regression = PLSRegression(n_components=components, scale=False)
    with warnings.catch_warnings():
        # The last components fit noise, where two directions may be equally good and the power
        # iteration stops at scikit-learn's limit, as it does in Brain-Score.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Fewer components may suffice to fit all neurons exactly.
        warnings.filterwarnings("ignore", "y residual is constant", UserWarning)
        regression.fit(coordinates[fit], neurons[fit])
    predicted = regression.predict(coordinates[test]).reshape(len(test), -1)
    return correlation(predicted, neurons[test])


def _check_dimensions(coordinates: np.ndarray, components: int, precision: float) -> None:
    """Further components would be made of rounding errors, and so would the prediction."""
    singular = np.linalg.svd(coordinates - coordinates.mean(axis=0), compute_uv=False)
    dimensions = int(np.sum(singular > len(coordinates) * precision * singular[0]))
    if components > dimensions:
        raise ValueError(
            f"components must be at most {dimensions}, the dimensions that the features of the "
            f"images to fit span; got {components}"
        )


def _ceiling(reliability: np.ndarray) -> float:
    return float(np.nanmedian(reliability, axis=1).mean())


def _checked_recordings(recordings: ArrayLike) -> np.ndarray:
    recordings = np.asarray(recordings, np.float64)
    if recordings.ndim != 3 or 0 in recordings.shape:
        raise ValueError(
            f"recordings must have shape (images, repetitions, neurons), got {recordings.shape}"
        )
    if recordings.shape[1] < 2:
        raise ValueError("recordings must have at least 2 repetitions for a ceiling, got 1")
    if not np.all(np.isfinite(recordings)):
        bad = np.flatnonzero(~np.isfinite(recordings).all(axis=(0, 1)))
        raise ValueError(f"recordings must be finite; neurons {bad[:8].tolist()} are not")
    means = recordings.mean(axis=1)
    constant = np.flatnonzero(np.ptp(means, axis=0) == 0)
    if constant.size:
        raise ValueError(
            f"recordings must vary between images; neurons {constant[:8].tolist()} are constant"
        )
    return recordings


def _check_numbers(
    components: int = 1,
    splits: int = 1,
    train_fraction: float = 0.5,
    half_splits: int = 1,
    seed: int = 0,
) -> None:
    counts = {"components": components, "splits": splits, "half_splits": half_splits}
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    if not 0 < train_fraction < 1:
        raise ValueError(f"train_fraction must lie between 0 and 1, got {train_fraction}")
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be an integer in [0, 2**32), got {seed!r}")
