"""Result files: NAME.json, see ``format.py``, and NAME.npz with its arrays.

A JSON file stands for a complete result: it is written last, and whole. The arrays are

clean, attack,     index (N,) in the data set, label (N,), probability_correct (N,),
corruption         right (N, R) decisions, loss (N,), key (N, 2); predicted (N,), the class of the
                   highest mean probability, which results of earlier versions lack
attack             also distance (N,); winner (N,) where several attacks compete; flat (N,), True
                   where the margin has no gradient, of attacks that start at random points;
                   adversarial (K, H, W, C), the images for a gallery, and kept (K,), their indices
gallery            images, adversarial (N, H, W, C); label, predicted_clean,
                   predicted_adversarial (N,); eps
v1                 kernels, parameters and responses of the Gabor bank
physiology         see ``neurophysiology.Scores.arrays`` and ``evaluation.physiology``
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pydantic

from vone_jax import files
from vone_jax.results import first_format
from vone_jax.results.format import FORMAT, Result, from_json, to_json
from vone_jax.results.measured import Accuracy, LayerScores

# Tuning curve -> the axis that it is measured along.
TUNING_AXES = {
    "orientation": "orientation",
    "spatial_frequency": "spatial_frequency",
    "size": "radius",
}
# The array of receptive-field maps, which old files do not have.
FIELD_MAPS = "field/map"

# Array -> its axes. Axes of one name have one length; a number is a length.
_EXAMPLES = {"index": "n", "label": "n", "probability_correct": "n"}
_GALLERY = {
    **dict.fromkeys(("images", "adversarial"), "n height width colors"),
    **dict.fromkeys(("label", "predicted_clean", "predicted_adversarial"), "n"),
}
_FRONT_END = {
    **dict.fromkeys(("kernels_in_phase", "kernels_quadrature"), "n kernel_height kernel_width"),
    **dict.fromkeys(("sf", "theta", "phase", "nx", "ny", "channel"), "n"),
    "image": "height width colors",
    **dict.fromkeys(("responses_clean", "responses_noisy"), "rows columns n"),
    **dict.fromkeys(("simple_channels", "pixels_per_degree"), ""),
}


class ResultError(ValueError):
    """A result file is damaged, in use, or of another evaluation; or a request about results that
    cannot be met. The message names the file and the cure."""


class UnknownKindError(ResultError):
    """A result file is of a kind that this version does not know."""


def write(directory: Path, result: Result) -> Path:
    """Write a result with its arrays and return the path of the JSON file.

    Raises:
      ValueError: if the arrays do not belong to the result.
      OSError: if a file cannot be written.
    """
    _check_arrays(result)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{result.name}.json"
    if result.arrays:
        files.replace(path.with_suffix(".npz"), lambda file: np.savez(file, **result.arrays))
    files.replace_json(path, to_json(result))
    return path


# What a damaged file of the first format raises. Deep nesting of its code takes memory.
_DAMAGE = (
    KeyError, TypeError, ValueError, AttributeError, SyntaxError, MemoryError, RecursionError
)  # fmt: skip


def read(path: str | Path) -> Result:
    """Read a result of this format or of the one before.

    Its arrays are those of the NPZ file of the same name. Without such a file it has none.

    Raises:
      UnknownKindError: for a kind of result that this version does not know.
      ResultError: for files that are damaged, of an unknown format, or contradict themselves.
    """
    path = Path(path)
    values = read_json(path)
    if values.get("format") == first_format.FORMAT:
        try:
            values = first_format.upgrade(values)
        except _DAMAGE as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ResultError(f"{path} is damaged: {reason}; evaluate again") from error
    elif values.get("format") != FORMAT:
        raise ResultError(
            f"{path} has the format {values.get('format')!r}; this version of vone_jax reads "
            f"{first_format.FORMAT} and {FORMAT}; move the file out of {path.parent} if it is no "
            "result of vone_jax"
        )
    provenance = values.get("provenance")
    if "matmul_precision" not in values and isinstance(provenance, dict):
        # Earlier versions recorded JAX's default precision in the provenance.
        precision = provenance.pop("matmul_precision", "")
        cpu = str(provenance.get("device")).endswith("(cpu)")
        values["matmul_precision"] = "highest" if cpu else precision
    try:
        result = from_json(values)
    except pydantic.ValidationError as error:
        _raise(path, error)
    archive = path.with_suffix(".npz")
    loaded = read_arrays(archive) if archive.exists() else {}
    # The class is frozen, and no validator needs to see these.
    object.__setattr__(result, "arrays", loaded)
    try:
        _check_arrays(result)
    except ValueError as error:
        raise ResultError(f"{archive}: {error}") from error
    return result


def read_json(path: Path, cure: str = "delete it and evaluate again") -> dict[str, Any]:
    """The JSON object in a file. Messages end with the cure.

    Lone surrogates, which Python uses for bytes of a path that are not UTF-8, become replacement
    characters.

    Raises:
      ResultError: if the file cannot be read or is not one JSON object.
    """
    try:
        value = files.parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ResultError(f"{path} is damaged ({error}); {cure}") from error
    if not isinstance(value, dict):
        got = type(value).__name__
        raise ResultError(f"{path} must hold a JSON object, got {got}; {cure}")
    # UTF-16 can hold lone surrogates, and its decoder replaces them.
    text = json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass")
    return json.loads(text.decode("utf-16", "replace"))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an NPZ file.

    Raises:
      ResultError: if the file cannot be read, is truncated or damaged, or holds Python objects.
    """
    try:
        return files.read_npz(path)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno in files.NOT_PERMITTED:
            raise ResultError(f"{path} cannot be read: {error.strerror}") from error
        raise ResultError(
            f"{path} is damaged ({error.__cause__ or error}); delete it and its JSON file and "
            f"evaluate again"
        ) from error


def _raise(path: Path, error: pydantic.ValidationError) -> NoReturn:
    """Raise a ResultError for the first problem that pydantic names."""
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    if first["type"] == "union_tag_invalid" and field == "condition":
        kind = first.get("ctx", {}).get("tag")
        raise UnknownKindError(f"{path} is of the kind {kind!r}, which this version does not know")
    if first["type"] == "unexpected_keyword_argument":
        raise ResultError(
            f"{path} has the field {field}, which this version does not know; remove the field, or "
            "evaluate again"
        )
    message = first["msg"].removeprefix("Value error, ")
    got = "" if first["type"] in ("missing", "value_error") else f", got {first['input']!r:.80}"
    where = f"{field}: " if field else ""
    raise ResultError(f"{path} is damaged: {where}{message}{got}; evaluate again") from error


def _check_arrays(result: Result) -> None:
    """Check that the arrays of a result belong to it. A result without arrays passes."""
    arrays = result.arrays
    if not arrays:
        return
    if isinstance(result.measured, Accuracy):
        of_attack = {"distance": "n"} if "distance" in arrays else {}
        _check_shapes(arrays, _EXAMPLES | of_attack)
        _check_examples(arrays["index"], arrays["probability_correct"], result.measured)
    elif result.kind == "gallery":
        _check_shapes(arrays, _GALLERY)
        for name in ("images", "adversarial"):
            _check_image(name, arrays[name])
    elif result.kind == "v1":
        _check_shapes(arrays, _FRONT_END)
        _check_front_end(arrays)
    elif result.scores is not None:
        _check_shapes(arrays, _layer_shapes(arrays, result.scores), undefined=True)


def _check_shapes(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, str], undefined: bool = False
) -> None:
    """Check that arrays are numbers of given shapes: finite, or with ``undefined`` also NaN."""
    lengths: dict[str, int] = {}
    for name, axes in shapes.items():
        array = arrays.get(name)
        if array is None:
            raise ValueError(f"the array {name} is missing; there are {', '.join(sorted(arrays))}")
        known = [int(axis) if axis.isdigit() else lengths.get(axis) for axis in axes.split()]
        fits = array.ndim == len(known) and all(
            length in (None, size) for length, size in zip(known, array.shape, strict=True)
        )
        if not fits or array.dtype.kind not in "iuf":
            expected = ", ".join("any" if length is None else str(length) for length in known)
            raise ValueError(
                f"{name} must be numbers of shape ({expected}), got {array.dtype} {array.shape}"
            )
        lengths |= zip(axes.split(), array.shape, strict=True)
        if undefined and (array.size == 0 or np.isinf(array).any()):
            raise ValueError(f"{name} is empty or has infinite values")
        if not undefined and not np.isfinite(array).all():
            raise ValueError(f"{name} has values that are not finite")


def _check_examples(index: np.ndarray, correct: np.ndarray, measured: Accuracy) -> None:
    whole = index.dtype.kind in "iu" and index.min(initial=0) >= 0
    # np.unique takes twenty times as long as a sort.
    if not whole or np.any(np.diff(np.sort(index)) == 0):
        raise ValueError("index must be different integers >= 0, one per image")
    if len(index) != measured.seen:
        raise ValueError(
            f"it has {len(index)} images, but the JSON file says {measured.seen}; the files are "
            f"not of one evaluation"
        )
    if len(correct) == 0 or correct.min() < 0 or correct.max() > 1:
        raise ValueError("probability_correct must be in [0, 1], one value per image")
    if abs(float(correct.mean(dtype=np.float64)) - measured.accuracy) > 1e-4:
        raise ValueError(
            f"its images were right with a mean probability of {correct.mean():.6f}, but the JSON "
            f"file says {measured.accuracy:.6f}; the files are not of one evaluation"
        )


def _check_front_end(arrays: Mapping[str, np.ndarray]) -> None:
    _check_image("image", arrays["image"])
    filters = len(arrays["sf"])
    for name, low, high in (("simple_channels", 0, filters), ("pixels_per_degree", 1e-6, np.inf)):
        if not low <= arrays[name] <= high:
            raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {arrays[name]}")
    for name in ("sf", "theta", "nx", "ny"):
        edges, weights = f"published_{name}_edges", f"published_{name}_weights"
        if edges in arrays or weights in arrays:
            _check_shapes(arrays, {weights: "bins"})
            bins = len(arrays[weights])
            _check_shapes(arrays, {edges: str(bins + 1)})
            ascending = np.all(np.diff(arrays[edges]) > 0)
            if not ascending or arrays[weights].min(initial=0) < 0 or not arrays[weights].sum() > 0:
                raise ValueError(f"{edges} must ascend and {weights} be counts of the bins")


def _check_image(name: str, images: np.ndarray) -> None:
    if 0 in images.shape or images.shape[-1] not in (1, 3):
        raise ValueError(f"{name} must have 1 or 3 channels last, got {images.shape}")
    if images.min() < 0 or images.max() > 1:
        raise ValueError(f"{name} must be in [0, 1]")


def _layer_shapes(arrays: Mapping[str, np.ndarray], scores: LayerScores) -> dict[str, str]:
    """The arrays of a layer. A property that a unit does not have is NaN."""
    units = str(scores.units)
    single = [f"unit/{name}" for name in ("row", "col", "channel", "field_x", "field_y")]
    single += [f"value/{name}" for name in ("pref_or", "peak_sf", "modulation_ratio")]
    shapes = dict.fromkeys(single, units)
    for curve, axis in TUNING_AXES.items():
        shapes |= {f"axis/{axis}": axis, f"curve/{curve}": f"{axis} {units}"}
    if FIELD_MAPS in arrays:
        shapes |= {"axis/position": "place", FIELD_MAPS: f"place place {units}"}
    if scores.contrast_response is not None:
        shapes |= {"contrast/contrasts": "contrast", "contrast/curves": f"contrast {units}"}
    if scores.surround_tuning is not None:
        shapes |= {"surround/angles": "angle", "surround/alone": units}
        shapes |= {"surround/curves": f"angle {units}"}
    if scores.variability is not None:
        size = f"{scores.variability.gratings} {scores.variability.units}"
        for space in ("", "spike_") if scores.variability.has_spikes else ("",):
            shapes |= {f"variability/{space}{moment}": size for moment in ("mean", "variance")}
    return shapes
