"""Clean images: classes, confusions, mistakes and calibration from known decisions."""

import dataclasses

import numpy as np
import pytest
import vl_convert

from tests.evaluation.tiny import tiny_evaluation, tiny_trained
from vone_jax import diagnostics, evaluation, results
from vone_jax.results import Chart, Pictures


@dataclasses.dataclass
class Named:
    """What a condition reads of an evaluation; the image of a place is as bright as the place."""

    class_names: tuple[str, ...]
    network: object = None

    def __post_init__(self):
        self.network = type("Network", (), {"num_classes": max(len(self.class_names), 2)})

    def prepared(self, condition, places):
        return np.broadcast_to(places[:, None, None, None] / 255, (len(places), 4, 4, 1))


def found(label, predicted, confidence, class_names=("a", "b", "c"), draws=4):
    """The numbers of decisions that are those of the predictions in every draw."""
    label, predicted = np.asarray(label), np.asarray(predicted)
    scores = np.zeros((len(label), 2, 7))
    scores[:, -1, results.CONFIDENCE] = confidence
    arrays = {
        "label": label, "predicted": predicted, "index": 10 * np.arange(len(label)),
        "right": np.repeat((label == predicted)[:, None], draws, axis=1), "scores": scores,
    }  # fmt: skip
    return evaluation.Clean().result(arrays, Named(tuple(class_names)))


def view(numbers, kind):
    return [each for each in numbers.views if isinstance(each, kind)]


def cells_of(chart):
    (cells,) = chart.spec["datasets"].values()
    return cells


def checked(count):
    """What the quick checks of an attack read of a network without a fault."""
    values = {
        "lowest": -1.0, "highest": 1.0, "sum error": 1.0, "spread": 0.0,
        "gradient cross_entropy": 1.0, "gradient margin": 1.0,
    }  # fmt: skip
    return {f"check {name}": np.full(count, value) for name, value in values.items()}


def test_accuracies_confusions_and_mistakes_are_those_of_the_decisions():
    label = [0, 0, 0, 0, 1, 1, 2, 2]
    predicted = [0, 0, 1, 1, 1, 0, 2, 2]
    confidence = [0.9, 0.8, 0.7, 0.95, 0.6, 0.5, 0.9, 0.99]
    numbers = found(label, predicted, confidence)
    shares = [(x.columns["class"], x.value) for x in numbers.measured if "class" in x.columns]
    assert shares == [("a", 0.5), ("b", 0.5), ("c", 1.0)]
    assert numbers["accuracy"].value == 5 / 8
    (chart,) = view(numbers, Chart)
    assert chart.title.endswith("a taken for b (2), b taken for a (1).")
    vl_convert.vegalite_to_svg(chart.spec | {"width": 300})
    table = {(cell["true"], cell["predicted"]): cell["images"] for cell in cells_of(chart)}
    assert table == {("a", "a"): 2, ("a", "b"): 2, ("b", "b"): 1, ("b", "a"): 1, ("c", "c"): 2}
    (pictures,) = view(numbers, Pictures)
    assert pictures.captions == (
        "a taken for b with 95.0%, image 30", "a taken for b with 70.0%, image 20",
        "b taken for a with 50.0%, image 50",
    )  # fmt: skip
    assert (255 * numbers.arrays["mistakes"][:, 0, 0, 0]).round().tolist() == [3, 2, 5]


def test_many_classes_have_the_most_frequent_confusions_and_ten_mistakes():
    label = np.arange(100)
    numbers = found(label, (label + 1) % 100, 0.5, ())
    (chart,) = view(numbers, Chart)
    assert len(cells_of(chart)) == 10
    (pictures,) = view(numbers, Pictures)
    assert len(pictures.captions) == len(numbers.arrays["mistakes"]) == 10


def test_one_class_has_no_confusions_and_no_mistake_has_no_picture():
    assert not view(found([1, 1], [1, 0], 0.5), Chart)
    assert not view(found([0, 1], [0, 1], 0.5), Pictures)


def test_chance_is_one_of_the_classes_among_which_a_network_decides():
    """The page says that a network at chance on clean images tells little by its robustness."""
    (chance,) = found([0, 1], [0, 1], 0.5, "abcd").references
    assert chance == {"network": "chance", "number": "accuracy", "value": 0.25}


def test_the_calibration_is_that_of_the_scores_by_averaged_draws():
    rng = np.random.default_rng(0)
    scores = rng.random((40, 2, 7))
    scores[:, :, 0] = [1, 10]
    arrays = {"label": np.zeros(40, int), "right": rng.random((40, 3)) < 0.5, "scores": scores}
    numbers = evaluation.Clean().result(arrays, Named(("a", "b")))
    expected = diagnostics.summarise_scores(scores)
    for name, values in (
        ("calibration error", expected.calibration_error), ("Brier score", expected.brier),
        ("negative log likelihood", expected.negative_log_likelihood),
        ("entropy from noise", expected.noise_entropy),
    ):  # fmt: skip
        shown = {x.columns["averaged draws"]: x.value for x in numbers.measured if x.name == name}
        assert shown == pytest.approx(dict(zip(expected.draws.tolist(), values, strict=True)))


@pytest.mark.parametrize(
    ("largest", "factor"),
    [(4 / 255, 20), (16 / 255, 5), (0.5, 1), (1.0, 1), (1.2e-4, 2000), (0, 1)],
)
def test_the_gallery_shows_what_an_attack_changed_and_nothing_else(largest, factor):
    """Two of four kept images are misclassified after the attack, and one was before."""
    label = np.arange(10)
    right = np.ones((10, 3), bool)
    right[[3, 7, 9]] = False
    original = np.full((4, 2, 2, 1), 0.5, np.float32)
    change = np.zeros_like(original)
    change[:, 0, 0] = largest * np.array([0.5, 0.25, 1.0, 1.0])[:, None]
    changed = np.where(right[:, 0], label, (label + 1) % 10)
    arrays = {
        "kept": 10 * np.array([3, 5, 7, 9]), "index": 10 * label, "label": label, "right": right,
        "predicted": changed, "original": original, "adversarial": original + change,
        "predicted before": np.array([3, 5, 7, 0]),
        "right before": np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 0, 0]], bool),
        "distance": np.full(10, largest), "loss": np.ones(10), **checked(10),
    }  # fmt: skip
    plan = tiny_evaluation(tiny_trained(noise=None), "unused")
    attacked = evaluation.Attacked(evaluation.vonenet_pgd("linf", 0.1, eot_samples=1), kept=4)
    numbers = attacked.result(arrays, plan)
    (pictures,) = view(numbers, Pictures)
    assert pictures.captions == ("3 → 4", "7 → 8") and pictures.title == f"difference × {factor}"
    shown = [numbers.arrays[name] for name in pictures.arrays]
    np.testing.assert_allclose(shown[0], original[[0, 2]])
    np.testing.assert_allclose(shown[1], (original + change)[[0, 2]])
    # A difference of float32 pixels is off by its rounding, magnified.
    magnified = 0.5 + factor * change[[0, 2]]
    np.testing.assert_allclose(shown[2], magnified, atol=factor * 2**-24)
    assert shown[2].max() <= 1.0 + 1e-6 or largest > 0.5


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({}, "64 steps of eps/32"),
        ({"step_size": 0.1 / 8}, "64 steps of eps/8"),
        ({"step_size": 0.03, "steps": 3}, "3 steps of 0.3 eps"),
    ],
)
def test_the_note_of_an_attack_has_the_length_of_its_steps(fields, note):
    attack = evaluation.vonenet_pgd("linf", 0.1, **fields)
    arrays = {
        "right": np.ones((4, 3), bool), "distance": np.ones(4), "loss": np.ones(4),
        "index": np.arange(4), "label": np.arange(4), **checked(4),
    }  # fmt: skip
    plan = tiny_evaluation(tiny_trained(noise=None), "unused")
    found = evaluation.Attacked(attack).result(arrays, plan)
    assert found["accuracy"].columns["note"] == note
