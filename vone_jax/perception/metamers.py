"""The condition ``Metamers``: other images to which a layer responds as to the originals."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np

from vone_jax import arguments, functions, prng, results
from vone_jax import mesh as meshes
from vone_jax.arguments import Range
from vone_jax.attacks import classifier
from vone_jax.evaluation import judging
from vone_jax.evaluation.attacked import guessing
from vone_jax.evaluation.condition import Condition, Numbers, fields_of_row, number
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.evaluation.judging import Batch, Protocol
from vone_jax.network import Network
from vone_jax.perception import humans, synthesis
from vone_jax.perception.geometry import check_layer, reduced_responses
from vone_jax.results import View

# The page stays small: fewer large metamers than small ones.
_SMALL_SIDE, _MANY, _FEW = 64, 8, 4
_ABOUT = (
    "Each image has almost the same responses of a layer as the original beside it. What it lacks, "
    "the layer does not represent. A match in decibel counts if it is closer than any two of the "
    "originals."
)


@dataclasses.dataclass(frozen=True)
class Metamers(Condition):
    """Metamers of a layer, see ``perception.synthesis``, and what networks take them for.

    The network's noise is frozen while a metamer is made, and fresh when it is judged. The other
    networks of the evaluation are asked as well, each with the noise that it was trained with. One
    with noise decides ten times about an image. A metamer
    shows what the layer keeps: if a human does not recognise it, the layer's invariances are not
    those of humans. If another network does not recognise it, they are not shared by that one.

    Attributes:
      layer: a name of ``Network.layers``.
      rounds, steps: rounds of gradient steps, and steps in each; the step is halved after a round.
        The authors take 8 rounds of 3000. Fewer steps match less well, which the numbers say.
      images: number of images.
      null_images: number of images of the data set between which the null is taken, the largest
        decibel of two different ones; all of a smaller set. 1,000 have about as many pairs as the
        authors' null.

    Raises:
      ValueError: if a field is out of range.
    """

    section = "Metamers"
    judged: ClassVar[bool] = True
    long: ClassVar[bool] = True
    asks_others: ClassVar[bool] = True

    layer: str
    rounds: Annotated[int, Range(1)] = 8
    steps: Annotated[int, Range(1)] = 250
    images: Annotated[int, Range(1)] = 8
    null_images: Annotated[int, Range(2)] = 1000

    def __post_init__(self):
        arguments.fields(self)

    @property
    def examples(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The number of images."""
        return self.images

    def row(self) -> dict[str, Any]:
        return {"condition": "metamers", **fields_of_row(self)}

    def check(self, network: Network) -> None:
        super().check(network)
        check_layer(network, self.layer)

    def make(self, batch: Batch) -> dict[str, Any]:
        response_fn = batch.response_fn(self.layer)
        keys = batch.keys("attack")
        found = synthesis.metamers(
            keys, response_fn, batch.images, rounds=self.rounds, steps=self.steps
        )
        made, clean = batch.judge(found.images[0]), batch.judge(batch.images)
        asked: dict[str, Any] = {}
        for name, logits_fn in batch.others.items():
            noisy = classifier.has_noise(logits_fn, keys, batch.images)
            protocol = Protocol() if noisy else Protocol("none", 1)
            for kind, images in (("metamers", found.images[0]), ("originals", batch.images)):
                judged = judging.judge(
                    logits_fn, batch.keys("judge"), images, batch.labels, protocol
                )
                asked[f"right on {kind}, {name}"] = judged["right"]
                asked[f"loss on {kind}, {name}"] = judged["loss"]
        if self not in batch.kept:
            batch.kept[self] = self._null(batch)
        null, count = batch.kept[self]
        return {
            "metamers": found.images[0],
            "original": batch.images,
            "error": found.error[0],
            "decibel": found.decibel[0],
            "null": np.full(len(batch.images), null),
            "null images": np.full(len(batch.images), count, np.int32),
            "right": made["right"],
            "right clean": clean["right"],
            "loss": made["loss"],
            "loss clean": clean["loss"],
            "predicted": made["predicted"],
            "predicted clean": clean["predicted"],
            **asked,
        }

    def _null(self, batch: Batch) -> tuple[float, int]:
        """The null, and the number of images between which it is taken."""
        assert batch.sample is not None
        responses, project = [], prng.stream(batch.root, "projection")
        for keys, images, mask in batch.sample(self.null_images):
            layer = functions.as_pytree(batch.network.response_fn(self.layer), keys, images)
            found = reduced_responses(layer, prng.stream(keys, "null"), images, project)
            found, rows = meshes.fetch((found, mask))
            responses.append(found[rows])
        together = np.concatenate(responses)
        return synthesis.null_decibel(together), len(together)

    def result(self, arrays: Mapping[str, np.ndarray], evaluation: Any) -> Numbers:
        null = float(arrays["null"][0])
        same = arrays["predicted"] == arrays["predicted clean"]
        matched = arrays["decibel"] > null
        measured = [
            number("matched", of=matched),
            number("mean decibel", of=arrays["decibel"], unit="dB"),
            number("decibel of two images", null, unit="dB"),
            number("images of the null", int(arrays["null images"][0])),
            number("same decision", of=same),
            number("matched and same decision", of=matched & same),
            number("accuracy", of=arrays["right"], observer="itself"),
        ]
        others = [
            n.removeprefix("right on metamers, ") for n in arrays if n.startswith("right on m")
        ]
        for name in others:
            right = arrays[f"right on metamers, {name}"]
            measured.append(number("accuracy", of=right, observer=name))
        # The originals are the same for each layer.
        shown = {"itself": "right clean"} | {name: f"right on originals, {name}" for name in others}
        for observer, name in shown.items():
            measured.append(number("accuracy on originals", of=arrays[name], observer=observer))
        names = evaluation.class_names
        label = [names[each] if each < len(names) else str(each) for each in arrays["label"]]
        taken = [names[each] if each < len(names) else str(each) for each in arrays["predicted"]]
        most = _MANY if arrays["original"].shape[1] <= _SMALL_SIDE else _FEW
        captions = tuple(
            f"{true}, taken for {each}, {decibel:.1f} dB"
            for true, each, decibel in zip(label, taken, arrays["decibel"], strict=True)
        )
        pictures = {"shown originals": arrays["original"], "shown metamers": arrays["metamers"]}
        pictures = {name: each[:most] for name, each in pictures.items()}
        order = tuple(evaluation.network.layers)
        views: list[View] = [
            results.Lines("accuracy", "layer", order=order, share=True, about=_ABOUT),
            results.Chart(_human_metamers(), "The decisions of humans about metamers of AlexNets "
                          f"for ImageNet. {humans.METAMERS['AlexNet'].source}."),
            results.Pictures(tuple(pictures), captions[:most]),
        ]  # fmt: skip
        return Numbers(measured, views, [guessing(evaluation)], arrays=pictures)


def _human_metamers() -> dict[str, Any]:
    """The published recognition by humans of the metamers of three networks."""
    import altair as alt

    rows = [
        {"metamers of": name, "layer": str(layer), "accuracy": accuracy}
        for name, curve in humans.METAMERS.items()
        if len(curve.levels) > 1
        for layer, accuracy in zip(curve.levels, curve.accuracy, strict=True)
    ]
    legend = alt.Legend(title=None, orient="top", columns=2)
    axis, shares = alt.Axis(labelAngle=-40), alt.Scale(domain=[0, 1])
    percent = alt.Axis(format="%", tickCount=5)
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(point=True, strokeWidth=2)
        .encode(
            x=alt.X("layer:O", sort=None, title="metamers of a layer", axis=axis),
            y=alt.Y("accuracy:Q", scale=shares, axis=percent, title="accuracy of humans"),
            color=alt.Color("metamers of:N", legend=legend),
            tooltip=["metamers of:N", "layer:N", alt.Tooltip("accuracy:Q", format=".0%")],
        )
        .properties(width="container", height=250)
    )
    return chart.to_dict(validate=False)


def metamers(evaluation: Evaluation, *, layers: tuple[str, ...] = ()) -> list[Condition]:
    """metamers of each layer, 8 images (6,000 a layer)"""
    return [Metamers(layer) for layer in layers or evaluation.network.layers]


SUITES = {"metamers": metamers}
