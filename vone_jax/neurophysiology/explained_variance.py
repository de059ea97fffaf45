"""The variance of recorded V1 responses that a layer explains: benchmark FreemanZiemba2013.V1-pls.

Partial least squares maps the layer's responses to all neurons at once, on 90 % of the images. The
prediction for the other images is correlated with the recordings, per neuron. The raw r is the
median over neurons, averaged over 10 splits. The ceiling c is the Spearman-Brown corrected
reliability of the recordings. Two versions of the score are in use; never mix them in one table:

  ``"v1-v2"``: (r / c)^2, in the papers of 2020 to 2025. It exceeds 1 for noisy recordings.
  ``"v3"``: r^2 / c, in Brain-Score since January 2026. v3 = v1-v2 * c.

References: Schrimpf et al. (2018), Brain-Score, bioRxiv 407007; Freeman, Ziemba et al. (2013),
Nature Neuroscience 16:974-981. The regression needs scikit-learn, in the extra "neural".
"""

import dataclasses
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from numpy.typing import ArrayLike
from PIL import Image

from vone_jax import arguments
from vone_jax.neurophysiology import textures
from vone_jax.neurophysiology.recording import OneKey, ResponseFn, layer_features, rotated

VERSIONS = ("v1-v2", "v3")
# The order of the dimensions of responses in NetCDF files, by the names in use.
_NEURONS = ("neuroid", "neuron", "neurons")
_REPETITIONS = ("repetition", "repetitions")
# Number of shuffled recordings, without signal. By chance, the ceiling is above all 39 once in 40.
_SHUFFLES = 39
# The columns of recordings in a CSV file.
_COLUMNS = ("image", "stratum", "repetition", "neuron", "response")


@dataclasses.dataclass(frozen=True, eq=False)
class Recordings:
    """Repeated responses of neurons to images.

    Raises:
      ValueError: if shapes do not fit or a response is not finite.
    """

    # For instance spikes per second.
    responses: Float[np.ndarray, "images repetitions neurons"]
    # Texture type of each image, as text or integers.
    strata: Shaped[np.ndarray, " images"]
    # The images that were shown, if they are known, and the length of their sides.
    images: UInt8[np.ndarray, "images side side"] | None = None
    degrees: float = textures.IMAGE_DEGREES

    def __post_init__(self):
        shape = np.shape(self.responses)
        if len(shape) != 3 or 0 in shape or shape[1] < 2:
            raise ValueError(
                f"responses must have shape (images, repetitions >= 2, neurons), got {shape}"
            )
        if not np.isfinite(self.responses).all():
            raise ValueError(
                "responses must be finite; where repetitions are missing, keep as many as every "
                "neuron has of every image"
            )
        if np.shape(self.strata) != shape[:1]:
            raise ValueError(f"strata must have shape ({shape[0]},), got {np.shape(self.strata)}")
        if self.images is not None and len(self.images) != shape[0]:
            raise ValueError(f"images must be {shape[0]}, got {len(self.images)}")


def holds_recordings(path: str | os.PathLike) -> bool:
    """Return True if a file has the form that ``load_recordings`` reads."""
    path = Path(path).expanduser()
    if path.suffix == ".csv" and path.is_file():
        import pandas as pd

        return "response" in pd.read_csv(path, nrows=0).columns
    if path.suffix == ".nc" and path.is_file():
        import xarray

        return "responses" in xarray.load_dataset(path)
    return path.suffix == ".npz"


def load_recordings(path: str | os.PathLike) -> Recordings:
    """Read recordings of neurons in an NPZ, NetCDF (``*.nc``) or CSV file.

    A CSV file has a line for each response, with the columns ``image`` (the name of an image file,
    relative to the folder of the CSV file), ``stratum``, ``repetition``, ``neuron`` and
    ``response``. Every neuron has the same number of repetitions of every image. The optional
    column ``degrees`` has one value.

    The other files hold these arrays or variables: ``responses``, real (images, repetitions,
    neurons), for instance spikes per second from 50 to 200 ms after the onset of an image;
    ``strata``, the texture type of each image. For ``of_layer`` they also hold ``images``, uint8
    grey levels (images, side, side), and ``degrees``, the length of their sides; default: 4.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: for NetCDF without the extra "neural".
      ValueError: for arrays that are missing or do not fit.
    """
    path = Path(path).expanduser()
    if path.suffix == ".csv":
        return _read_csv(path)
    if path.suffix == ".nc":
        import xarray

        data = xarray.load_dataset(path)
        arrays = {str(name): data[name].values for name in data.variables}
        dims = data["responses"].dims if "responses" in data else ()
        if dims and (dims[1] in _NEURONS or dims[2] in _REPETITIONS):
            raise ValueError(
                f"responses in {path} must have the dimensions (images, repetitions, neurons), got "
                f"{dims}; transpose them"
            )
    else:
        with np.load(path) as file:
            arrays = dict(file)
    if missing := [name for name in ("responses", "strata") if name not in arrays]:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(arrays)}")
    return Recordings(
        arrays["responses"].astype(np.float64),
        arrays["strata"],
        arrays.get("images"),
        float(arrays.get("degrees", textures.IMAGE_DEGREES)),
    )


def _read_csv(path: Path) -> Recordings:
    """Read recordings in a CSV file, see ``load_recordings``."""
    import pandas as pd

    table = pd.read_csv(path, dtype={"image": str, "stratum": str})
    if missing := [name for name in _COLUMNS if name not in table]:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(table)}")
    # A neuron's repetitions of an image may have any names: their order counts.
    ordered = table.sort_values(["image", "neuron", "repetition"], kind="stable")
    ordered["place"] = ordered.groupby(["image", "neuron"]).cumcount()
    cube = ordered.pivot(index=["image", "place"], columns="neuron", values="response")
    names = list(cube.index.unique("image"))
    counts = set(cube.groupby(level="image").size())
    if len(counts) > 1 or cube.isna().to_numpy().any():
        raise ValueError(
            f"{path} must have the same number of repetitions of every image for every neuron"
        )
    strata = table.groupby("image")["stratum"].unique()
    if several := [name for name in names if len(strata[name]) > 1]:
        raise ValueError(f"{path} has several strata for {several[0]}")
    degrees = table["degrees"].unique() if "degrees" in table else [textures.IMAGE_DEGREES]
    if len(degrees) > 1:
        raise ValueError(f"{path} has several degrees; make one file for each size of the images")
    images = [Image.open(path.parent / name).convert("L") for name in names]
    if len(sizes := {image.size for image in images}) > 1:
        raise ValueError(f"the images of {path} must have one size, got {sorted(sizes)}")
    return Recordings(
        cube.to_numpy(np.float64).reshape(len(names), *counts, cube.shape[1]),
        np.array([strata[name][0] for name in names]),
        np.stack([np.asarray(image) for image in images]),
        float(degrees[0]),
    )


def recording_files(path: str | os.PathLike) -> list[Path]:
    """Return the files that ``load_recordings`` reads: the file, and the images that it names."""
    import pandas as pd

    path = Path(path).expanduser()
    if path.suffix != ".csv":
        return [path]
    names = pd.read_csv(path, usecols=["image"], dtype=str)["image"].unique()
    return [path, *(path.parent / name for name in sorted(names))]


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


def of_layer(
    response_fn: ResponseFn,
    key: OneKey,
    recordings: Recordings,
    visual_degrees: float = 8.0,
    image_size: int = 224,
    in_channels: int = 3,
) -> ExplainedVariance:
    """Show the images of recordings to a layer, and predict the recordings from its responses.

    The layer says the field of view of its images in degrees, their side in pixels and their
    channels. Any field will do: no gratings must fit in. The other arguments and the errors are
    those of ``layer_features`` and ``explained_variance``.
    """
    if recordings.images is None:
        raise ValueError("recordings must hold the images that were shown; add the array images")
    images = textures.reframe(recordings.images, recordings.degrees, visual_degrees, image_size)
    features = layer_features(response_fn, key, images, in_channels)
    return explained_variance(features, recordings.responses, recordings.strata)


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
    the features only through their inner products, so ``layer_features`` suffices.

    Args:
      features: (images, ...), see ``neurophysiology.layer_features``.
      recordings: (images, repetitions, neurons), in the order of the features.
      strata: text or integers (images,), for instance the texture type. Splits keep their shares.
      components: components of the regression.
      splits: stratified random splits of the images.
      train_fraction: share of the images to fit.
      half_splits: random halves of the repetitions for the ceiling.
      seed: seed of both kinds of splits, 0 <= seed < 2**32.

    Raises:
      ImportError: without the extra "neural".
      ValueError: if shapes do not fit, a value is not finite, a neuron is constant, or there are
        too few images, dimensions of features or repetitions.
    """
    try:
        from sklearn.model_selection import StratifiedShuffleSplit
    except ImportError as error:
        raise ImportError('explained variance: pip install "vone-jax[neural]"') from error
    checked = Recordings(np.asarray(recordings, np.float64), np.asarray(strata))
    neurons, images = checked.responses.mean(axis=1), len(checked.responses)
    features = np.asarray(features).reshape(images, -1)
    if not np.isfinite(features).all():
        raise ValueError("features must be finite, got NaN or infinite values")
    features = rotated(features)
    if constant := np.flatnonzero(np.ptp(neurons, axis=0) == 0)[:8].tolist():
        raise ValueError(f"recordings must vary between images; neurons {constant} are constant")
    arguments.count("components", components)
    train = int(np.floor(train_fraction * images))
    if images - train < 3:
        raise ValueError(
            f"train_fraction must leave at least 3 of the {images} images to be predicted, since "
            f"r over two is 1 or -1; got {train_fraction}"
        )
    # Centring takes one dimension.
    dimensions = min(train - 1, int(np.linalg.matrix_rank(features)))
    if components > dimensions:
        raise ValueError(
            f"components must be at most {dimensions}, the dimensions that the features of "
            f"{train} images span; got {components}"
        )
    splitter = StratifiedShuffleSplit(splits, train_size=train_fraction, random_state=seed)
    correlations = np.stack(
        [
            correlation(_predict(features, neurons, components, fit, test), neurons[test])
            for fit, test in splitter.split(features, checked.strata)
        ]
    )
    if np.isnan(correlations).all(axis=1).any():
        raise ValueError(
            "every neuron, or the prediction for it, is constant over the held-out images of a "
            "split; take a smaller train_fraction or more images"
        )
    reliability = reliabilities(checked.responses, half_splits, seed)
    shuffled = _shuffled(checked.responses)
    chance = max(_median(reliabilities(each, half_splits, seed)) for each in shuffled)
    return ExplainedVariance(correlations, reliability, chance)


def reliabilities(
    recordings: Float[np.ndarray, "images repetitions neurons"],
    half_splits: int = 10,
    seed: int = 1,
) -> Float[np.ndarray, "half_splits neurons"]:
    """Return the split-half reliability of every neuron, extrapolated to all repetitions.

    The repetitions are halved at random, each half is averaged, and the correlation r over images
    becomes 2 r / (1 + r) (Spearman-Brown). It is NaN where a neuron is constant in one half, and
    where r = -1.
    """
    from sklearn.model_selection import ShuffleSplit

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


def correlation(
    first: Float[np.ndarray, "n columns"], second: Float[np.ndarray, "n columns"]
) -> Float[np.ndarray, " columns"]:
    """Return Pearson r over the first axis; NaN for a column that is constant in either array."""
    constant = np.all(first == first[0], axis=0) | np.all(second == second[0], axis=0)
    first, second = first - first.mean(axis=0), second - second.mean(axis=0)
    scale = np.sqrt(np.square(first).sum(axis=0) * np.square(second).sum(axis=0))
    scale = np.where(constant | (scale == 0), np.nan, scale)
    return (first * second).sum(axis=0) / scale


def _shuffled(recordings: np.ndarray) -> Iterator[np.ndarray]:
    """The recordings with the images of each repetition in another order, several times."""
    rng = np.random.default_rng(0)
    for _ in range(_SHUFFLES):
        ordered = np.tile(np.arange(len(recordings))[:, None], recordings.shape[1])
        order = rng.permuted(ordered, axis=0)
        yield np.take_along_axis(recordings, order[:, :, None], axis=0)


def _predict(
    features: np.ndarray, neurons: np.ndarray, components: int, fit: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Fit the regression on some images and predict the neurons for others."""
    from sklearn.cross_decomposition import PLSRegression
    from sklearn.exceptions import ConvergenceWarning

    regression = PLSRegression(n_components=components, scale=False)
    with warnings.catch_warnings():
        # The last components fit noise, where two directions may be equally good and the power
        # iteration stops at scikit-learn's limit, as it does in Brain-Score.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Fewer components may suffice to fit all neurons exactly.
        warnings.filterwarnings("ignore", "y residual is constant", UserWarning)
        regression.fit(features[fit], neurons[fit])
    return regression.predict(features[test]).reshape(len(test), -1)


def _median(values: np.ndarray) -> float:
    """Return the median over neurons (without NaN), averaged over splits."""
    return float(np.nanmedian(values, axis=1).mean())
