"""One result file pair, JSON and NPZ, as a checked value. Only this module knows the format."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vone_jax.report import physiology_records, table_records
from vone_jax.report.records import Record, ReportError, read_arrays, read_json
from vone_jax.report.wording import count

FORMAT = 1
MEASURED = ("clean", "attack", "corruption")
SHOWN = ("gallery", "v1")
NORMS = ("linf", "l2", "l1")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What was evaluated: name, split and class names (maybe empty) of a dataset."""

    name: str
    split: str
    class_names: tuple[str, ...]

    def class_name(self, label: int) -> str:
        """The name of a class, or its number where no name is known."""
        known = 0 <= label < len(self.class_names)
        return self.class_names[label] if known else f"class {label}"


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """One evaluated condition: a JSON file and its NPZ file.

    Attributes:
      path: the JSON file.
      kind: one of ``MEASURED``, ``SHOWN``, ``table_records.CHECKS`` and
        ``physiology_records.KIND``.
      name: name of the condition, the stem of the file.
      dataset: what was evaluated.
      examples: how many examples the evaluation was to cover.
      condition: norm and eps of an attack, name and severity of a corruption.
      noise: how the noise of a stochastic network was drawn, ``fresh`` for every forward pass.
      decision: what a decision is made from: ``single``, one noise draw, or several.
      accuracy: share of correct answers, in [0, 1]; NaN unless the kind is in ``MEASURED``.
      interval: its confidence interval (low, high).
      record: the whole JSON object, for the provenance.
      arrays: the arrays of the NPZ file; empty if there is none.
    """

    path: Path
    kind: str
    name: str
    dataset: Dataset
    examples: int
    condition: Mapping[str, Any]
    noise: str
    decision: str
    accuracy: float
    interval: tuple[float, float]
    record: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    @property
    def test_noise(self) -> str:
        """The noise that the network had in place of that it was trained with, in words."""
        other = self.record.get("model", {}).get("noise_at_test")
        if other is None:
            return ""
        if other["given"] == "none":
            return "noise removed"
        if other["trained"] == "none":
            return f"{other['given']} added"
        return f"{other['given']} in place of {other['trained']}"

    @property
    def attack_noise(self) -> str:
        """What the attack saw in place of the judged network's noise, in words."""
        if self.condition.get("noise_free_gradients"):
            return "gradients without noise"
        given = self.condition.get("attack_noise")
        return f"gradients with {given}" if given else ""

    @property
    def protocol(self) -> str:
        """How the network was judged, in words: ``fresh noise, 10 draws``."""
        how = self.record.get("protocol")
        how = how if isinstance(how, Mapping) else {}
        draws, averaged = how.get("draws"), how.get("averaged")
        if self.noise == "none":
            return self.test_noise or "no noise"
        parts = [self.test_noise] if self.test_noise else []
        if self.noise == "frozen":
            return ", ".join([*parts, "frozen noise"])
        if self.noise == "frozen_attack":
            parts.append("noise frozen at the attack")
        single = self.decision == "single"
        if not single:
            of = f" of {count(averaged, 'draw')}" if isinstance(averaged, int) else ""
            parts.append(f"{self.decision.replace('_', ' ')}{of}")
        elif self.noise != "frozen_attack":
            parts.append(f"{self.noise} noise")
        if isinstance(draws, int):
            parts.append(count(draws, "draw" if single else "decision"))
        return ", ".join(parts)

    @property
    def published(self) -> bool:
        """Whether the images are corrupted ones from files, a data set of their own."""
        return self.condition.get("form") == "published"

    @property
    def images(self) -> int:
        """The number of images behind the accuracy."""
        index = self.arrays.get("index")
        return self.examples if index is None else len(index)


def read_format(path: Path) -> Record:
    """A JSON file that states its format.

    Raises:
      ReportError: if it is not readable or of another format.
    """
    record = Record(path, read_json(path))
    if record.data.get("format") != FORMAT:
        raise record.error("format", f"{FORMAT} (this version of vone_jax reads no other format)")
    return record


def load_result(path: Path, warnings: list[str]) -> Result | None:
    """Reads and checks one result.

    Args:
      path: the JSON file; the NPZ file lies beside it.
      warnings: what a reader should know is appended here.

    Returns:
      The result, or None (and a warning) if it is of a kind this version does not know.

    Raises:
      ReportError: if a file is damaged, of another format or contradicts itself.
    """
    record = read_format(path)
    kind = record.text("kind")
    physiology = kind == physiology_records.KIND
    if kind not in (*MEASURED, *SHOWN, *table_records.CHECKS) and not physiology:
        warnings.append(f"{path}: results of the kind {kind!r} are not shown by this version.")
        return None
    archive = path.with_suffix(".npz")
    arrays = read_arrays(archive) if archive.exists() else {}
    if not arrays and kind in SHOWN:
        raise ReportError(f"{path}: its arrays {archive.name} are missing; run eval.py again")
    if not arrays and kind in MEASURED:
        warnings.append(
            f"{archive} is missing: without the answers for each image, the difference between "
            f"networks is known less precisely."
        )
    dataset, protocol = record.section("dataset"), record.section("protocol")
    if "noise_at_test" in record.section("model").data:
        other = record.section("model").section("noise_at_test")
        for field in ("trained", "given"):
            other.text(field)
    if kind in table_records.CHECKS:
        table_records.CHECKS[kind](record)
    if physiology:
        physiology_records.check_record(record)
        physiology_records.check_arrays(archive, arrays, record.data)
    result = Result(
        path=path,
        kind=kind,
        name=record.text("name"),
        dataset=Dataset(
            dataset.text("name"),
            dataset.text("split"),
            dataset.texts("class_names") if "class_names" in dataset.data else (),
        ),
        examples=dataset.integer("examples", low=1),
        condition=_condition(record, kind),
        noise=protocol.text("noise"),
        decision=protocol.text("decision") if "decision" in protocol.data else "single",
        accuracy=_accuracy(record) if kind in MEASURED else float("nan"),
        interval=_interval(record) if kind in MEASURED else (float("nan"), float("nan")),
        record=record.data,
        arrays=arrays,
    )
    checks = {"gallery": _check_gallery, "v1": _check_v1}
    if arrays and kind not in table_records.CHECKS and not physiology:
        checks.get(kind, _check_examples)(archive, result)
    return result


def _condition(record: Record, kind: str) -> Mapping[str, Any]:
    condition = record.section("condition") if kind not in ("clean", "v1") else None
    if kind in ("attack", "gallery", "masking", "minimal") and condition:
        condition.text("norm", choices=NORMS)
        if kind != "minimal":
            condition.number("eps", low=0)
        for name in ("attack", "attack_noise", "eps_label"):
            if name in condition.data:
                condition.text(name)
        if "eot_samples" in condition.data:
            condition.integer("eot_samples", low=1)
    if kind == "corruption" and condition:
        condition.text("corruption")
        condition.integer("severity", low=1)
    return condition.data if condition else {}


def _accuracy(record: Record) -> float:
    accuracy = record.number("accuracy", low=0, high=1)
    sums = record.section("sums")
    seen = sums.number("seen", low=1)
    share = sums.number("correct", low=0, high=seen) / seen
    if abs(share - accuracy) > 1e-6:
        raise ReportError(
            f"{record.path}: accuracy is {accuracy}, but sums.correct / sums.seen is {share}"
        )
    return accuracy


def _interval(record: Record) -> tuple[float, float]:
    value = record.data.get("interval")
    if not isinstance(value, list) or len(value) != 2:
        raise record.error("interval", "a list [low, high]")
    ends = Record(record.path, {"interval[0]": value[0], "interval[1]": value[1]})
    accuracy = record.number("accuracy")
    slack = 1e-6
    low = ends.number("interval[0]", low=0, high=accuracy + slack)
    return low, ends.number("interval[1]", low=accuracy - slack, high=1)


def _array(path: Path, arrays: Mapping[str, np.ndarray], name: str, shape: tuple) -> np.ndarray:
    """An array that is there, is finite and has the shape (None: any length)."""
    array = arrays.get(name)
    expected = "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
    if array is None:
        found = ", ".join(sorted(arrays)) or "none"
        raise ReportError(f"{path}: the array {name} is missing; it has {found}")
    fits = array.ndim == len(shape) and all(
        size is None or size == length for size, length in zip(shape, array.shape, strict=True)
    )
    if not fits or not np.issubdtype(array.dtype, np.number):
        raise ReportError(
            f"{path}: {name} must be numbers of shape {expected}, got {array.dtype} {array.shape}"
        )
    if not np.all(np.isfinite(array)):
        raise ReportError(f"{path}: {name} has values that are not finite")
    return array


def _check_examples(path: Path, result: Result) -> None:
    n = len(_array(path, result.arrays, "index", (None,)))
    _array(path, result.arrays, "label", (n,))
    correct = _array(path, result.arrays, "probability_correct", (n,))
    if n == 0 or correct.min() < 0 or correct.max() > 1:
        raise ReportError(f"{path}: probability_correct must be in [0, 1], one value per image")
    if abs(float(correct.mean(dtype=np.float64)) - result.accuracy) > 1e-4:
        raise ReportError(
            f"{path}: its images were right with a mean probability of {correct.mean():.6f}, but "
            f"{result.path.name} says {result.accuracy:.6f}; the files are not of one evaluation"
        )


def _check_gallery(path: Path, result: Result) -> None:
    images = _array(path, result.arrays, "images", (None,) * 4)
    _array(path, result.arrays, "adversarial", images.shape)
    for name in ("label", "predicted_clean", "predicted_adversarial"):
        _array(path, result.arrays, name, images.shape[:1])
    _check_image(path, "images", images)


def _check_v1(path: Path, result: Result) -> None:
    n, height, width = _array(path, result.arrays, "kernels_in_phase", (None,) * 3).shape
    _array(path, result.arrays, "kernels_quadrature", (n, height, width))
    for name in ("sf", "theta", "phase", "nx", "ny", "channel"):
        _array(path, result.arrays, name, (n,))
    _check_image(path, "image", _array(path, result.arrays, "image", (None,) * 3))
    responses = _array(path, result.arrays, "responses_clean", (None, None, n))
    _array(path, result.arrays, "responses_noisy", responses.shape)
    for name, low, high in (("simple_channels", 0, n), ("pixels_per_degree", 1e-6, np.inf)):
        value = _array(path, result.arrays, name, ())
        if not low <= value <= high:
            raise ReportError(f"{path}: {name} must be in [{low:g}, {high:g}], got {value}")
    for name in ("sf", "theta", "nx", "ny"):
        _check_published(path, result.arrays, name)


def _check_published(path: Path, arrays: Mapping[str, np.ndarray], name: str) -> None:
    edges, weights = f"published_{name}_edges", f"published_{name}_weights"
    if edges not in arrays and weights not in arrays:
        return
    bins = len(_array(path, arrays, weights, (None,)))
    ascending = np.all(np.diff(_array(path, arrays, edges, (bins + 1,))) > 0)
    if not ascending or arrays[weights].min(initial=0) < 0 or not arrays[weights].sum() > 0:
        raise ReportError(f"{path}: {edges} must ascend and {weights} be counts of the bins")


def _check_image(path: Path, name: str, images: np.ndarray) -> None:
    if 0 in images.shape or images.shape[-1] not in (1, 3):
        raise ReportError(f"{path}: {name} must have 1 or 3 channels last, got {images.shape}")
    if images.min() < 0 or images.max() > 1:
        raise ReportError(f"{path}: {name} must be in [0, 1]")
