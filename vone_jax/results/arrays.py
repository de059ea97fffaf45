"""The arrays beside a result, and the checks that they belong to it.

clean, attack,     index (N,) in the data set, label (N,), probability_correct (N,),
corruption         right (N, R) decisions, loss (N,), key (N, 2)
attack             also distance (N,), and winner (N,) where several attacks compete
gallery            images, adversarial (N, H, W, C); label, predicted_clean,
                   predicted_adversarial (N,); eps
v1                 kernels, parameters and responses of the Gabor bank
physiology         see ``neurophysiology.Scores.arrays`` and ``evaluation.physiology``
"""

from collections.abc import Mapping

import numpy as np

from vone_jax.results.format import Accuracy, LayerScores, Physiology, Result

# Tuning curve -> the axis that it is measured along.
TUNING_AXES = {
    "orientation": "orientation",
    "spatial_frequency": "spatial_frequency",
    "size": "radius",
}
# The array of receptive-field maps, which old files do not have.
FIELD_MAPS = "field/map"


def check(result: Result) -> None:
    """Check the arrays of a result. A result without arrays passes.

    Raises:
      ValueError: naming the array that is missing, of another shape, out of range, or of another
        evaluation than the JSON file.
    """
    arrays = result.arrays
    if not arrays:
        return
    if isinstance(result.measured, Accuracy):
        _check_examples(arrays, result.measured)
    elif result.kind == "gallery":
        _check_gallery(arrays)
    elif result.kind == "v1":
        _check_front_end(arrays)
    elif isinstance(result.measured, Physiology) and result.measured.scores is not None:
        _check_layer(arrays, result.measured.scores)


def _array(
    arrays: Mapping[str, np.ndarray], name: str, shape: tuple, undefined: bool = False
) -> np.ndarray:
    """An array of finite numbers, or NaN too if ``undefined``. None in a shape is any length."""
    array = arrays.get(name)
    if array is None:
        raise ValueError(f"the array {name} is missing; there are {', '.join(sorted(arrays))}")
    fits = array.ndim == len(shape) and all(
        size in (None, length) for size, length in zip(shape, array.shape, strict=True)
    )
    if not fits or not np.issubdtype(array.dtype, np.number):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(
            f"{name} must be numbers of shape ({expected}), got {array.dtype} {array.shape}"
        )
    if undefined and (array.size == 0 or np.isinf(array).any()):
        raise ValueError(f"{name} is empty or has infinite values")
    if not undefined and not np.isfinite(array).all():
        raise ValueError(f"{name} has values that are not finite")
    return array


def _check_examples(arrays: Mapping[str, np.ndarray], measured: Accuracy) -> None:
    n = len(_array(arrays, "index", (None,)))
    _array(arrays, "label", (n,))
    correct = _array(arrays, "probability_correct", (n,))
    if n == 0 or correct.min() < 0 or correct.max() > 1:
        raise ValueError("probability_correct must be in [0, 1], one value per image")
    if abs(float(correct.mean(dtype=np.float64)) - measured.accuracy) > 1e-4:
        raise ValueError(
            f"its images were right with a mean probability of {correct.mean():.6f}, but the JSON "
            f"file says {measured.accuracy:.6f}; the files are not of one evaluation"
        )


def _check_gallery(arrays: Mapping[str, np.ndarray]) -> None:
    images = _array(arrays, "images", (None,) * 4)
    _array(arrays, "adversarial", images.shape)
    for name in ("label", "predicted_clean", "predicted_adversarial"):
        _array(arrays, name, images.shape[:1])
    _check_image("images", images)


def _check_front_end(arrays: Mapping[str, np.ndarray]) -> None:
    n, height, width = _array(arrays, "kernels_in_phase", (None,) * 3).shape
    _array(arrays, "kernels_quadrature", (n, height, width))
    for name in ("sf", "theta", "phase", "nx", "ny", "channel"):
        _array(arrays, name, (n,))
    _check_image("image", _array(arrays, "image", (None,) * 3))
    responses = _array(arrays, "responses_clean", (None, None, n))
    _array(arrays, "responses_noisy", responses.shape)
    for name, low, high in (("simple_channels", 0, n), ("pixels_per_degree", 1e-6, np.inf)):
        value = _array(arrays, name, ())
        if not low <= value <= high:
            raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {value}")
    for name in ("sf", "theta", "nx", "ny"):
        _check_published(arrays, name)


def _check_published(arrays: Mapping[str, np.ndarray], name: str) -> None:
    edges, weights = f"published_{name}_edges", f"published_{name}_weights"
    if edges not in arrays and weights not in arrays:
        return
    bins = len(_array(arrays, weights, (None,)))
    ascending = np.all(np.diff(_array(arrays, edges, (bins + 1,))) > 0)
    if not ascending or arrays[weights].min(initial=0) < 0 or not arrays[weights].sum() > 0:
        raise ValueError(f"{edges} must ascend and {weights} be counts of the bins")


def _check_image(name: str, images: np.ndarray) -> None:
    if 0 in images.shape or images.shape[-1] not in (1, 3):
        raise ValueError(f"{name} must have 1 or 3 channels last, got {images.shape}")
    if images.min() < 0 or images.max() > 1:
        raise ValueError(f"{name} must be in [0, 1]")


def _check_layer(arrays: Mapping[str, np.ndarray], scores: LayerScores) -> None:
    # Array -> its shape. A property that a unit does not have is NaN.
    shapes: dict[str, tuple[int, ...]] = {}

    def steps(axis: str) -> int:
        shapes[axis] = (arrays.get(axis, np.zeros(0)).size,)
        return shapes[axis][0]

    for name in ("row", "col", "channel", "field_x", "field_y"):
        shapes[f"unit/{name}"] = (scores.units,)
    for curve, axis in TUNING_AXES.items():
        shapes[f"curve/{curve}"] = (steps(f"axis/{axis}"), scores.units)
    for name in ("pref_or", "peak_sf", "modulation_ratio"):
        shapes[f"value/{name}"] = (scores.units,)
    if FIELD_MAPS in arrays:
        places = steps("axis/position")
        shapes[FIELD_MAPS] = (places, places, scores.units)
    if scores.contrast_response is not None:
        shapes["contrast/curves"] = (steps("contrast/contrasts"), scores.units)
    if scores.variability is not None:
        for space in ("", "spike_") if scores.variability.has_spikes else ("",):
            for moment in ("mean", "variance"):
                shape = (scores.variability.gratings, scores.variability.units)
                shapes[f"variability/{space}{moment}"] = shape
    for name, shape in shapes.items():
        _array(arrays, name, shape, undefined=True)
