"""The classes of clean images on the page: accuracies, confusions and confident mistakes."""

import base64
import io

import numpy as np
import vl_convert
from PIL import Image

from tests.results import built
from vone_jax import results
from vone_jax.report import classes


def measured(directory, label, predicted, confidence, class_names=("a", "b", "c")):
    """A run whose decisions are those of the predictions."""
    label, predicted = np.asarray(label), np.asarray(predicted)
    scores = np.zeros((len(label), 2, 7))
    scores[:, -1, 2] = confidence
    right = np.repeat((label == predicted)[:, None], 4, axis=1)
    arrays = {"predicted": predicted, "scores": scores, "label": label}
    wrong = results.confident_mistakes(arrays)
    # The image of an index is as bright as the index.
    images = np.broadcast_to(wrong[:, None, None, None] / 255, (len(wrong), 4, 4, 1))
    arrays |= {"kept": wrong, "original": images}
    made = built.accuracy(built.CLEAN, right, arrays=arrays)
    made.provenance["class_names"] = list(class_names)
    return results.load([built.write(directory, [made])])


def brightness(uri):
    """The value of a grey picture in a data URI."""
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    return np.unique(np.asarray(picture)).item()


def test_accuracies_confusions_and_mistakes_are_those_of_the_decisions(tmp_path):
    label = [0, 0, 0, 0, 1, 1, 2, 2]
    predicted = [0, 0, 1, 1, 1, 0, 2, 2]
    confidence = [0.9, 0.8, 0.7, 0.95, 0.6, 0.5, 0.9, 0.99]
    (found,) = classes.classes(measured(tmp_path, label, predicted, confidence))
    shares = [(name, interval.value) for name, interval in found["accuracies"]]
    assert shares == [("a", 0.5), ("b", 0.5), ("c", 1.0)]
    assert found["confusions"] == [
        {"true": "a", "predicted": "b", "images": 2},
        {"true": "b", "predicted": "a", "images": 1},
    ]
    told = [(each["index"], each["true"], each["confidence"]) for each in found["mistakes"]]
    assert told == [(3, "a", 0.95), (2, "a", 0.7), (5, "b", 0.5)]
    assert [brightness(each["uri"]) for each in found["mistakes"]] == [3, 2, 5]
    spec = found["chart"].to_dict()
    (cells,) = spec["datasets"].values()
    assert sum(row["images"] for row in cells) == 8
    vl_convert.vegalite_to_svg(spec | {"width": 300})


def test_many_classes_have_lists_and_no_chart(tmp_path):
    label = np.arange(100)
    (found,) = classes.classes(measured(tmp_path, label, (label + 1) % 100, 0.5, ()))
    assert found["chart"] is None and len(found["mistakes"]) == len(found["confusions"]) == 10
    assert classes.classes(measured(tmp_path / "one", [1, 1], [1, 0], 0.5)) == []
