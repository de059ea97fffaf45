"""The variance of recorded V1 responses that a layer explains: benchmark FreemanZiemba2013.V1-pls.

Partial least squares maps the layer's responses to all neurons at once, on 90 % of the images. The
prediction for the other images is correlated with the recordings, per neuron. The raw r is the
median over neurons, averaged over 10 splits. The ceiling c is the Spearman-Brown corrected
reliability of the recordings. Two versions of the score are in use; never mix them in one table:

  ``"v1-v2"``: (r / c)^2, in the papers of 2020 to 2025. It exceeds 1 for noisy recordings.
  ``"v3"``: r^2 / c, in Brain-Score since January 2026. v3 = v1-v2 * c.

References: Schrimpf et al. (2018), Brain-Score, bioRxiv 407007; Freeman, Ziemba et al. (2013),
Nature Neuroscience 16:974-981; partial least squares by scikit-learn.
"""

import dataclasses
import hashlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped
from numpy.typing import ArrayLike
from sklearn.cross_decomposition import PLSRegression
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

from vone_jax import arguments, files
from vone_jax.neurophysiology.netcdf import read_netcdf

VERSIONS = ("v1-v2", "v3")
# Names of the dimensions of responses in NetCDF files -> their place.
_PLACES = {"repetition": 1, "repetitions": 1, "neuroid": 2, "neuron": 2, "neurons": 2}
# Columns that are reduced at a time, so that a layer of millions of units needs little memory.
_CHUNK = 8192
# Number of shuffled recordings, without signal. By chance, the ceiling is above all 39 once in 40.
_SHUFFLES = 39


@dataclasses.dataclass(frozen=True, eq=False)
class Recordings:
    """Repeated responses of neurons to images.

    Raises:
      ValueError: if shapes do not fit, a value is not finite, or an image comes twice.
    """

    # For instance spikes per second.
    responses: Float[np.ndarray, "images repetitions neurons"]
    # Texture type of each image, as text or integers.
    strata: Shaped[np.ndarray, " images"]
    # Text or integers, all different.
    image_ids: Shaped[np.ndarray, " images"]
    # SHA-1 of the file.
    sha1: str

    def __post_init__(self):
        _check_recordings("responses", self.responses)
        for name in ("strata", "image_ids"):
            _check_labels(name, getattr(self, name), len(self.responses))
        labels, counts = np.unique(self.image_ids, return_counts=True)
        if len(labels) < len(self.responses):
            raise ValueError(f"image_ids must differ, got {labels[counts > 1][0].item()!r} twice")


def load_recordings(path: str | os.PathLike) -> Recordings:
    """Read and check recordings of neurons in an NPZ or NetCDF file.

    The file holds these arrays or variables: ``responses``, real (images, repetitions, neurons),
    for instance spikes per second from 50 to 200 ms after the onset of an image; ``strata``, the
    texture type of each image; ``image_ids``. NetCDF 4 needs the packages h5netcdf and h5py.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: for NetCDF 4 if h5netcdf or h5py is not installed.
      ValueError: if the format is another one, an array is missing or does not fit, the dimensions
        of a NetCDF file are in another order, a value is not finite, or an image comes twice.
    """
    path = Path(os.path.expanduser(path))
    content = path.read_bytes()
    dimensions: tuple[str, ...] = ()
    if (variables := read_netcdf(path, content)) is not None:
        arrays = {name: variable.array for name, variable in variables.items()}
        dimensions = variables["responses"].dimensions if "responses" in variables else ()
    elif content[:2] == b"PK":
        arrays = files.read_npz(path)
    else:
        raise ValueError(f"{path} must be an NPZ or NetCDF file")
    missing = [name for name in ("responses", "strata", "image_ids") if name not in arrays]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(arrays)}")
    responses = arrays["responses"]
    if responses.dtype.kind not in "fiu":
        raise ValueError(f"responses in {path} must be real numbers, got {responses.dtype}")
    if any(_PLACES.get(name, place) != place for place, name in enumerate(dimensions)):
        raise ValueError(
            f"responses in {path} must have the dimensions (images, repetitions, neurons), got "
            f"{dimensions}; transpose them"
        )
    sha1 = hashlib.sha1(content).hexdigest()
    return Recordings(responses.astype(np.float64), arrays["strata"], arrays["image_ids"], sha1)


@dataclasses.dataclass(frozen=True, eq=False)
class ExplainedVariance:
    """The result for one layer and one set of recordings.

    Attributes:
      correlations: Pearson r on held-out images. NaN where a neuron or its prediction is constant
        over the held-out images of a split.
      reliabilities: Spearman-Brown corrected reliabilities.
      chance: the largest ceiling of 39 recordings in which each repetition has the images in
        another order, so that nothing repeats.
    """

    correlations: Float[np.ndarray, "splits neurons"]
    reliabilities: Float[np.ndarray, "half_splits neurons"]
    chance: float = 0.0

    @property
    def raw(self) -> float:
        """The r of the score: median over neurons (without NaN), mean over splits."""
        return _median(self.correlations)

    @property
    def ceiling(self) -> float:
        """The c of the score: median over neurons, mean over half-splits."""
        return _median(self.reliabilities)

    def score(self, version: str = "v3") -> float:
        """Return the ceiled score in the version ``"v3"`` or ``"v1-v2"``; 0 if r is negative.

        Raises:
          ValueError: for another version; or for a ceiling that is not above 0 and ``chance``: the
            recordings hold no signal that repeats, and noise would get any score.
        """
        arguments.choice("version", version, VERSIONS)
        if not self.ceiling > max(self.chance, 0.0):
            raise ValueError(
                f"the recordings have no reliable signal: their ceiling is {self.ceiling:.3g}, and "
                f"without any signal it is up to {max(self.chance, 0.0):.3g}"
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
    """Predict recordings from the responses of a layer; the defaults are those of Brain-Score.

    The regression centres features and neurons and scales neither (NIPALS). Its result depends on
    the features only through their inner products. So the features are first rotated, without loss,
    into as many dimensions as there are images.

    Args:
      features: responses of the layer, (images, ...), see ``neurophysiology.layer_features``.
      recordings: (images, repetitions, neurons), in the order of the features.
      strata: text or integers (images,), for instance the texture type. Splits keep their shares.
      components: components of the regression.
      splits: stratified random splits of the images.
      train_fraction: share of the images to fit.
      half_splits: random halves of the repetitions for the ceiling.
      seed: seed of both kinds of splits, 0 <= seed < 2**32.

    Raises:
      ValueError: if shapes do not fit, a value is not finite, a neuron or all features are
        constant, or there are too few images, dimensions of features or repetitions.
    """
    recordings = _checked_recordings(recordings)
    images = len(recordings)
    strata = np.asarray(strata)
    features = _real("features", features)
    if features.ndim < 2 or len(features) != images:
        raise ValueError(
            f"features must have shape (images, ...) with the {images} images of the recordings, "
            f"got {features.shape}"
        )
    _check_labels("strata", strata, images)
    arguments.count("components", components)
    arguments.count("splits", splits)
    arguments.number(
        "train_fraction", train_fraction, arguments.Range(most=1, above=True, below=True)
    )
    features = features.reshape(images, -1)
    train = int(np.floor(train_fraction * images))
    if images - train < 3:
        raise ValueError(
            f"train_fraction must leave at least 3 of the {images} images to be predicted, since "
            f"r over two is 1 or -1; got {train_fraction}, which leaves {images - train}. Take a "
            f"smaller train_fraction, or more images"
        )
    # Centring takes one dimension.
    if components > min(train - 1, features.shape[1]):
        raise ValueError(
            f"components must be below the {train} images that are fitted and at most the "
            f"{features.shape[1]} features, got {components}"
        )
    sizes = np.unique(strata, return_counts=True)[1]
    if sizes.min() < 2 or len(sizes) > images - train:
        raise ValueError(
            f"strata must have at least 2 images each and be no more than the {images - train} "
            f"images that are held out; got {len(sizes)} strata, the smallest of {sizes.min()} "
            f"images"
        )
    # Before the regression, so that bad splits of the repetitions are refused at once.
    reliability = reliabilities(recordings, half_splits, seed)
    coordinates = rotated(features)
    neurons = recordings.mean(axis=1)
    splitter = StratifiedShuffleSplit(splits, train_size=train_fraction, random_state=seed)
    precision = np.finfo(features.dtype if features.dtype.kind == "f" else np.float64).eps
    squares = np.einsum("ij,ij->i", features, features, dtype=np.float64, casting="unsafe")
    errors = precision * np.sqrt(squares)
    correlations = []
    for fit, test in splitter.split(coordinates, strata):
        _check_dimensions(coordinates[fit], components, errors[fit])
        predicted = _predict(coordinates, neurons, components, fit, test)
        correlations.append(correlation(predicted, neurons[test]))
    correlations = np.stack(correlations)
    if np.isnan(correlations).all(axis=1).any():
        raise ValueError(
            "every neuron, or the prediction for it, is constant over the held-out images of a "
            "split; take a smaller train_fraction or more images"
        )
    shuffled = (_median(reliabilities(each, half_splits, seed)) for each in _shuffled(recordings))
    return ExplainedVariance(correlations, reliability, max(shuffled))


def _shuffled(recordings: np.ndarray) -> Iterator[np.ndarray]:
    """The recordings with the images of each repetition in another order, several times."""
    rng = np.random.default_rng(0)
    for _ in range(_SHUFFLES):
        ordered = np.tile(np.arange(len(recordings))[:, None], recordings.shape[1])
        order = rng.permuted(ordered, axis=0)
        yield np.take_along_axis(recordings, order[:, :, None], axis=0)


def reliabilities(
    recordings: ArrayLike, half_splits: int = 10, seed: int = 1
) -> Float[np.ndarray, "half_splits neurons"]:
    """Return the split-half reliability of every neuron, extrapolated to all repetitions.

    The repetitions are halved at random, each half is averaged, and the correlation r over images
    becomes 2 r / (1 + r) (Spearman-Brown). It is NaN where a neuron is constant in one half, and
    where r = -1. Arguments and errors are those of ``explained_variance``.
    """
    recordings = _checked_recordings(recordings)
    arguments.count("half_splits", half_splits)
    arguments.seed("seed", seed)
    splitter = ShuffleSplit(half_splits, train_size=0.5, random_state=seed)
    corrected = []
    for first, second in splitter.split(np.arange(recordings.shape[1])):
        r = correlation(recordings[:, first].mean(axis=1), recordings[:, second].mean(axis=1))
        r = np.where(r > -1, r, np.nan)
        corrected.append(2 * r / (1 + r))
    result = np.stack(corrected)
    if np.isnan(result).all(axis=1).any():
        raise ValueError(
            "every neuron is constant over images in one half of the repetitions; take more images "
            "or repetitions"
        )
    return result


def rotated(features: Shaped[np.ndarray, "images features"]) -> Float[np.ndarray, "images _"]:
    """Return centred features in an orthonormal basis of the space that the images span.

    All distances and angles between images stay as they are: this is a change of basis, not a
    selection of components. The result has min(images, features) columns, in float64.

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
        # The triangular factor has the same inner products as the columns so far.
        stacked = np.concatenate([triangle, chunk - chunk.mean(axis=0)], axis=1)
        triangle = np.asarray(np.linalg.qr(stacked.T, mode="r")).T
    if not varies:
        raise ValueError("features must vary between images, got constant ones")
    return triangle


def correlation(
    first: Float[np.ndarray, "n columns"], second: Float[np.ndarray, "n columns"]
) -> Float[np.ndarray, " columns"]:
    """Return Pearson r over the first axis; NaN for a column that is constant in either array."""
    constant = np.all(first == first[0], axis=0) | np.all(second == second[0], axis=0)
    first, second = first - first.mean(axis=0), second - second.mean(axis=0)
    scale = np.sqrt(np.square(first).sum(axis=0) * np.square(second).sum(axis=0))
    scale = np.where(constant | (scale == 0), np.nan, scale)
    return (first * second).sum(axis=0) / scale


def _predict(
    coordinates: np.ndarray, neurons: np.ndarray, components: int, fit: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Fit the regression on some images and predict the neurons for others."""
    regression = PLSRegression(n_components=components, scale=False)
    with warnings.catch_warnings():
        # The last components fit noise, where two directions may be equally good and the power
        # iteration stops at scikit-learn's limit, as it does in Brain-Score.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Fewer components may suffice to fit all neurons exactly.
        warnings.filterwarnings("ignore", "y residual is constant", UserWarning)
        regression.fit(coordinates[fit], neurons[fit])
    return regression.predict(coordinates[test]).reshape(len(test), -1)


def _check_dimensions(coordinates: np.ndarray, components: int, errors: np.ndarray) -> None:
    """Refuse components that rounding errors would determine, and with them the prediction.

    Args:
      coordinates: of the images to fit, (images, dimensions).
      components: their number in the regression.
      errors: the largest norm of the rounding errors of each image, (images,), in the features
        before centring. A large mean has errors that the centred values do not show.
    """
    # No singular value of the rounding errors is larger than their norm. The root leaves room for
    # the errors of the computation before.
    singular = np.linalg.svd(coordinates - coordinates.mean(axis=0), compute_uv=False)
    dimensions = int(np.sum(singular > np.sqrt(len(errors)) * np.linalg.norm(errors)))
    if components > dimensions:
        raise ValueError(
            f"components must be at most {dimensions}, the dimensions that the features of the "
            f"images to fit span; got {components}"
        )


def _median(values: np.ndarray) -> float:
    """Return the median over neurons (without NaN), averaged over splits."""
    return float(np.nanmedian(values, axis=1).mean())


def _checked_recordings(recordings: ArrayLike) -> np.ndarray:
    """Return recordings in float64, or raise a ValueError that names the neurons at fault."""
    recordings = _real("recordings", recordings).astype(np.float64)
    _check_recordings("recordings", recordings)
    constant = np.flatnonzero(np.ptp(recordings.mean(axis=1), axis=0) == 0)
    if constant.size:
        raise ValueError(
            f"recordings must vary between images; neurons {constant[:8].tolist()} are constant"
        )
    return recordings


def _real(name: str, values: ArrayLike) -> np.ndarray:
    """Return real numbers as an array. Masked values become NaN, which other checks refuse."""
    if np.iscomplexobj(values):
        raise ValueError(f"{name} must be real numbers, got complex ones")
    if np.ma.is_masked(values):
        return np.ma.filled(np.ma.asarray(values, np.float64), np.nan)
    return np.asarray(values)


def _check_recordings(name: str, recordings: np.ndarray) -> None:
    shape = recordings.shape
    if len(shape) != 3 or 0 in shape or shape[1] < 2:
        raise ValueError(f"{name} must have shape (images, repetitions >= 2, neurons), got {shape}")
    bad = np.flatnonzero(~np.isfinite(recordings).all(axis=(0, 1)))
    if bad.size:
        raise ValueError(
            f"{name} must be finite; neurons {bad[:8].tolist()} are not. If repetitions are "
            f"missing, keep as many as every neuron has of every image"
        )


def _check_labels(name: str, labels: np.ndarray, images: int) -> None:
    if labels.shape != (images,) or labels.dtype.kind not in "biuU":
        cure = "; convert it to text with labels.astype(str)" if labels.dtype.kind in "OS" else ""
        raise ValueError(
            f"{name} must be text or integers of shape ({images},), one for each image of the "
            f"responses (images, repetitions, neurons), got {labels.dtype} of shape {labels.shape}"
            f"{cure}"
        )
